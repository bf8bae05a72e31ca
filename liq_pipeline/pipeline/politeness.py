"""Letting the live path go first: history rests as long as it worked, and waits while ticks are late.

Belongs here: how history gives way. Does not: history itself (backfill.py, rescore.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from liq_pipeline.store.connection import connect

LIVE_WITHIN: Final = timedelta(minutes=2)
"""Ticks that committed within this are running."""
LATE_SECONDS: Final = 20.0
"""A tick comes every 10 s: past two of them the live path is behind."""
LONGEST_REST_SECONDS: Final = 5.0


class Politeness:
    """Asked before and after each piece of work. One thread at a time; use as a context manager."""

    def __init__(self, database_url: str, stop: threading.Event | None = None) -> None:
        """stop: ends every wait."""
        self._conn = connect(database_url, application_name="liq history")
        self._conn.autocommit = True
        self._stop = stop or threading.Event()
        self.held_back_seconds = 0.0

    def hold_back(self, told: Callable[[], None] = lambda: None) -> None:
        """Wait while the live path is behind; `told` is called each second of it."""
        started = time.monotonic()
        while (age := self._tick_age()) is not None and age > LATE_SECONDS and not self._stop.is_set():
            told()
            self._stop.wait(1.0)
        self.held_back_seconds += time.monotonic() - started

    def rest(self, worked_seconds: float) -> None:
        """Where ticks run, leave the machine to them for as long as was worked."""
        if self._tick_age() is not None:
            self._stop.wait(min(worked_seconds, LONGEST_REST_SECONDS))

    def close(self) -> None:
        """Disconnect."""
        self._conn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tick_age(self) -> float | None:
        """Seconds since the newest tick of the active world committed; None where none is running."""
        row = self._conn.execute(
            "SELECT extract(epoch FROM clock_timestamp() - t.committed_at)::float8 FROM ticks AS t"
            " JOIN worlds AS w ON w.world = t.world AND w.is_active WHERE t.stream = 'market'"
            " ORDER BY t.time DESC LIMIT 1"
        ).fetchone()
        return float(row[0]) if row is not None and row[0] < LIVE_WITHIN.total_seconds() else None
