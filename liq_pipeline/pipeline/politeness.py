"""Letting the live path go first: history works between the ticks, and waits while they are late.

Belongs here: how history gives way. Does not: history itself (backfill.py, rescore.py).

A tick is a chain of short steps in several processes, each of which would wait for a core that history holds: beside a
backfill that rested as long as it worked its p95 went from 1.2 to 1.6 s. So no piece of work begins while a tick is
due, under way or near; what lies between, two thirds of the time, is history's. Ticks that do not go with the clock on
the wall (a recording, a world that catches up) cannot be foreseen: beside those it rests as long as it worked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from liq_pipeline.store.connection import connect

LIVE_WITHIN_SECONDS: Final = 120.0
"""Ticks that committed within this are running."""
LATE_SECONDS: Final = 20.0
"""A tick comes every 10 s: past two of them the live path is behind."""
RUN_END_SECONDS: Final = 0.8
"""After its scores are committed a tick's run writes what it did."""
LONGEST_WAIT_SECONDS: Final = 10.0
"""For a gap between ticks: where they leave none, history still goes on, a piece at a time."""
LONGEST_PIECE_SECONDS: Final = 3.0
"""No gap is longer for certain, so a longer piece does not wait for one."""
LONGEST_REST_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Stream:
    """One stream of ticks: its grid, its newest point, and when that was committed (seconds since 1970)."""

    step_seconds: int
    time: float
    committed_at: float

    def seconds_to_gap(self, now: float, piece_seconds: float) -> float:
        """How long to wait before looking again whether a piece of work fits in before the next tick; 0: it fits."""
        point = now // self.step_seconds * self.step_seconds
        if self.time < point:
            return LOOK_SECONDS
        if now < self.committed_at + RUN_END_SECONDS:
            return self.committed_at + RUN_END_SECONDS - now
        following = point + self.step_seconds - now
        return 0.0 if piece_seconds <= following else following + LOOK_SECONDS


class Politeness:
    """Asked before and after each piece of work. One thread at a time; use as a context manager."""

    def __init__(self, database_url: str, stop: threading.Event | None = None) -> None:
        """stop: ends every wait."""
        self._conn = connect(database_url, application_name="liq history")
        self._conn.autocommit = True
        self._stop = stop or threading.Event()
        self._piece_seconds = 0.0
        self.held_back_seconds = 0.0

    def hold_back(self, told: Callable[[], None] = lambda: None) -> None:
        """Wait while the live path is behind (`told` is called each second of it), then for a gap between ticks."""
        started = time.monotonic()
        streams, now = self._look()
        while streams and now - streams[0].committed_at > LATE_SECONDS and not self._stop.is_set():
            told()
            self._stop.wait(1.0)
            streams, now = self._look()
        self.held_back_seconds += time.monotonic() - started
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while _is_on_time(streams) and time.monotonic() < deadline and not self._stop.is_set():
            wait = max(stream.seconds_to_gap(now, self._piece_seconds) for stream in streams)
            if wait <= 0:
                break
            self._stop.wait(min(wait, max(0.0, deadline - time.monotonic())))
            streams, now = self._look()

    def rest(self, worked_seconds: float) -> None:
        """Note how long a piece takes; where ticks run that cannot be foreseen, rest for as long."""
        self._piece_seconds = min(worked_seconds, LONGEST_PIECE_SECONDS)
        streams, _ = self._look()
        if streams and not _is_on_time(streams):
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

    def _look(self) -> tuple[list[Stream], float]:
        """(streams of the active world, the market's first; the database's time). No stream where none is running."""
        rows = self._conn.execute(
            "SELECT s.step, extract(epoch FROM t.time)::float8, extract(epoch FROM t.committed_at)::float8,"
            " extract(epoch FROM clock_timestamp())::float8 FROM worlds AS w"
            " CROSS JOIN LATERAL (VALUES ('market', w.market_step_seconds), ('flows', w.flows_step_seconds))"
            " AS s (name, step)"
            " CROSS JOIN LATERAL (SELECT time, committed_at FROM ticks WHERE world = w.world AND stream = s.name"
            " ORDER BY time DESC LIMIT 1) AS t WHERE w.is_active ORDER BY s.name DESC"
        ).fetchall()
        now = float(rows[0][3]) if rows else 0.0
        found = [Stream(step, at, committed) for step, at, committed, _ in rows]
        return [stream for stream in found if now - stream.committed_at < LIVE_WITHIN_SECONDS], now


def _is_on_time(streams: Sequence[Stream]) -> bool:
    """Whether ticks are running and go with the clock on the wall."""
    return bool(streams) and all(0 <= stream.committed_at - stream.time < LATE_SECONDS for stream in streams)
