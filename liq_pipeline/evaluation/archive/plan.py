"""What an archive training covers: coins, quarters, the months that they need, and where each file lies.

Belongs here: names and spans. Does not: reading or writing anything but a whole file in one step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from liq_pipeline.errors import LiqError

FOLDER: Final = "archive-training"
FORMAT_FOLDER: Final = "1"
"""Raised when a file of an older program must not be read: features or their columns changed."""
LOOK_BACK: Final = timedelta(days=9)
"""Before a quarter: a week of features, a day of theta behind it, and room."""
LOOK_AHEAD: Final = timedelta(hours=25)
"""After it: the longest horizon of a label."""


@dataclass(frozen=True, order=True)
class Quarter:
    """A calendar quarter, UTC; number is 1 to 4."""

    year: int
    number: int

    @property
    def start(self) -> datetime:
        """Its first instant."""
        return datetime(self.year, 3 * self.number - 2, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The next one's first instant."""
        return self.next.start

    @property
    def next(self) -> Quarter:
        """The quarter after it."""
        return Quarter(self.year, self.number + 1) if self.number < 4 else Quarter(self.year + 1, 1)

    @property
    def name(self) -> str:
        """Such as 2024-Q3: sorts by time."""
        return f"{self.year}-Q{self.number}"

    @classmethod
    def of(cls, moment: datetime) -> Quarter:
        """The quarter that holds a moment."""
        moment = moment.astimezone(UTC)
        return cls(moment.year, (moment.month + 2) // 3)

    @classmethod
    def named(cls, name: str) -> Quarter:
        """Read what `name` wrote; raises ValueError on anything else."""
        year, _, number = name.partition("-Q")
        return cls(int(year), int(number))


@dataclass(frozen=True)
class Plan:
    """Coins and a span [first, last), and the folder that everything is kept in."""

    symbols: tuple[str, ...]
    first: datetime
    last: datetime
    folder: Path

    def __post_init__(self) -> None:
        if not self.symbols or self.first >= self.last:
            raise LiqError("an archive training needs at least one coin, and a --from before its --to")

    @property
    def quarters(self) -> tuple[Quarter, ...]:
        """Every quarter that the span touches, oldest first."""
        found = [Quarter.of(self.first)]
        while found[-1].end < self.last:
            found.append(found[-1].next)
        return tuple(found)

    @property
    def months(self) -> tuple[datetime, ...]:
        """First instants of the months that hold the span and its look-back."""
        return tuple(months_between(self.first - LOOK_BACK, self.last))

    def month_file(self, symbol: str, month: datetime) -> Path:
        """One symbol's month as the archive has it."""
        return self.folder / "months" / symbol / f"{month:%Y-%m}.parquet"

    def feature_file(self, symbol: str, quarter: Quarter) -> Path:
        """One symbol's features and labels of a quarter."""
        return self.folder / "features" / quarter.name / f"{symbol}.parquet"

    def sample_file(self, series: str, symbol: str, month: datetime) -> Path:
        """One symbol's month of a series that only inputs on trial read: the months' own files stay as they are."""
        return self.folder / "samples" / series / symbol / f"{month:%Y-%m}.parquet"

    def input_file(self, group: str, symbol: str, quarter: Quarter) -> Path:
        """One symbol's inputs on trial of a quarter."""
        return self.folder / "inputs" / group / quarter.name / f"{symbol}.parquet"


def training_folder(home: Path) -> Path:
    """Where an installation keeps what its archive trainings made."""
    return home / FOLDER / FORMAT_FOLDER


def months_between(first: datetime, last: datetime) -> Iterator[datetime]:
    """First instants of the months that [first, last) touches."""
    month = first.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while month < last:
        yield month
        month = next_month(month)


def next_month(month: datetime) -> datetime:
    """The first instant of the next month."""
    return (month + timedelta(days=32)).replace(day=1)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step: a process that dies here leaves no half of it to be found later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)
