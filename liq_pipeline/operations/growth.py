"""How fast each part grows, and for how many days the disk lasts at that.

Belongs here: putting measured growth beside free room, and the sentences about it. Does not: measuring
(store/schema/sizes.py, bus/size.py, the maintenance job).
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from liq_pipeline.settings import Settings
from liq_pipeline.store.schema import sizes

FEW_DAYS: Final = 14
LITTLE_ROOM_BYTES: Final = 1024**3
"""PostgreSQL's log alone may take this much between two checkpoints."""


@dataclass(frozen=True)
class Storage:
    """Parts with their growth; the room on the disk of those that lie in the home; None: cannot be known from here."""

    parts: tuple[sizes.Growth, ...]
    disk_free_bytes: int | None
    days_until_full: float | None

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Storage:
        """What as_dict() gave."""
        return cls(**{**value, "parts": tuple(sizes.Growth(**part) for part in value["parts"])})

    def as_dict(self) -> dict[str, Any]:
        """For `liq status --json`."""
        return asdict(self)

    def problems(self) -> list[str]:
        """What is wrong with it, one sentence each."""
        found = []
        if self.disk_free_bytes is not None and self.disk_free_bytes < LITTLE_ROOM_BYTES:
            found.append(
                f"The disk has only {self.disk_free_bytes / 1024**2:.0f} MiB left: landing stops when it is full."
            )
        if self.days_until_full is not None and self.days_until_full < FEW_DAYS:
            found.append(f"At the growth of the last days the disk is full in {self.days_until_full:.0f} days.")
        return found


def storage(conn: sizes.Connection, settings: Settings, now: datetime) -> Storage:
    """Growth as measured, beside the room under LIQ_HOME."""
    parts = tuple(sizes.growth(conn, now))
    embedded = settings.home / "postgres" / "data"
    here = {"postgres": embedded.exists(), "dagster": embedded.exists(), "kafka": (settings.home / "kafka").exists()}
    free = shutil.disk_usage(settings.home).free if any(here.values()) else None
    rates = [part.bytes_per_day for part in parts if here.get(part.part)]
    known = [max(rate, 0.0) for rate in rates if rate is not None]
    per_day = sum(known)
    lasts = free / per_day if free is not None and known and len(known) == len(rates) and per_day > 0 else None
    return Storage(parts, free, lasts)


def words(part: sizes.Growth) -> str:
    """Such as `3.1 GiB, +120 MiB a day since 2026-05-01`."""
    if part.bytes_per_day is None:
        return f"{size_words(part.size_bytes)}; growth is told after a day"
    sign = "+" if part.bytes_per_day >= 0 else "-"
    return (
        f"{size_words(part.size_bytes)}, {sign}{size_words(abs(part.bytes_per_day))} a day since {part.since:%Y-%m-%d}"
    )


def size_words(number_of_bytes: float) -> str:
    """A size a person reads at a glance."""
    if number_of_bytes < 1 << 20:
        return f"{number_of_bytes / (1 << 10):.0f} KiB"
    if number_of_bytes < 1 << 30:
        return f"{number_of_bytes / (1 << 20):.0f} MiB"
    return f"{number_of_bytes / (1 << 30):.1f} GiB"


def room_words(found: Storage) -> str:
    """Such as `68 GiB free, full in 310 days`."""
    if found.disk_free_bytes is None:
        return "on servers of your own: their disks cannot be seen from here"
    free = f"{size_words(found.disk_free_bytes)} free"
    if found.days_until_full is None:
        measured = any(part.bytes_per_day is not None for part in found.parts)
        return f"{free}, not growing" if measured else f"{free}; how long it lasts is told after a day"
    return f"{free}, full in {found.days_until_full:.0f} days"


def retention_words(retention_days: int | None, now: datetime | None = None) -> str:
    """What LIQ_RETENTION_DAYS keeps, and which replays it ends."""
    if retention_days is None:
        return "raw data, scores, signals and alerts are kept for ever"
    before = (now or datetime.now(UTC)) - timedelta(days=retention_days)
    return (
        f"LIQ_RETENTION_DAYS={retention_days}: observations, scores, signals and ticks before {before:%Y-%m-%d} are "
        "gone; times before then can no longer be replayed or re-scored, and those of the 30 days after it only "
        "without their full look-back. Alerts with their receipts and the hourly roll-ups stay"
    )
