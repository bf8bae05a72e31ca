"""The look-back of the last tick in a file, so that the next tick reads what is new in place of a week again.

Belongs here: the file, when it may be believed, and bringing it up to date. Does not: what bars are
(market_lookback.py). Nothing but speed depends on it: without the file, or with one that is not believed, the bars are
read whole.

A tick over 20 symbols at eight venues looks back on 320,000 bars, one over 300 on five millions, of which 29 ticks in
30 change none: reading them was half of a tick. What is believed, and why it is exact:

* Rows of feature_bars are only added, each with the time of the tick that built it, and ticks of a world only go
  forward. What a tick at T sees is what the one at T0 saw, and the rows with T0 < built_at_time <= T.
* The file is written after the tick's transaction is committed, and names that tick. A database that does not hold the
  tick with the same start and commit (it was restored, emptied, or is another one) makes the file worthless.
* Another scope, a window that begins earlier, a checksum that is wrong: worthless.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from liq_pipeline.scoring.bars import STEP_SECONDS, BarArrays, empty_bars
from liq_pipeline.store.inputs.expected_sources import Scope
from liq_pipeline.store.lookback import market_lookback
from liq_pipeline.store.lookback.archive_bars import BAR_COLUMNS
from liq_pipeline.store.lookback.market_lookback import LONG_COLUMNS

FORMAT: Final = 2
"""Of the file; part of its header's scope."""
_FILES_KEPT: Final = 4
"""Of the worlds that were last active."""
_CHECKSUM_BYTES: Final = 4
_LENGTH_BYTES: Final = 8
"""A file: checksum of all that follows, length of the header, the header as JSON, the arrays."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """Bars that end in [first, last], all their columns from whole_from on, as seen at built_by; seconds since 1970."""

    first: int
    last: int
    whole_from: int
    built_by: int

    @property
    def count(self) -> int:
        """Bars per series."""
        return (self.last - self.first) // STEP_SECONDS + 1

    @property
    def whole_index(self) -> int:
        """Where all columns begin."""
        return (self.whole_from - self.first) // STEP_SECONDS


class BarCache:
    """One folder of files, one file per world. read() within a tick's transaction, keep() once it is committed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._news: tuple[Scope, Window, BarArrays] | None = None

    def read(self, conn: psycopg.Connection[Any], scope: Scope, window: Window) -> BarArrays:
        """The kept bars of the window, bit for bit what market_bars() reads. Raises psycopg.Error."""
        self._news = None
        found = self._load(conn, scope, window)
        if found is None:
            bars = market_lookback.market_bars(
                conn, scope, window.first, window.last, window.built_by, all_from_seconds=window.whole_from
            )
            self._news = scope, window, bars
            return bars
        bars, seen = found
        added = market_lookback.add_bars_built_after(
            conn, scope, bars, seen.built_by, window.built_by, all_from_seconds=window.whole_from
        )
        if added or seen.last != window.last:
            self._news = scope, window, bars
        return bars

    def fill_levels(self, conn: psycopg.Connection[Any], scope: Scope, bars: BarArrays, built_by_seconds: int) -> bool:
        """Fill LONG_COLUMNS of bars of 5 min as known at built_by; False, and nothing filled, if the file cannot tell.

        It cannot where something within the bars was built after built_by and seen by the tick that wrote it.
        """
        first, last = int(bars.end_seconds[0]), int(bars.end_seconds[-1])
        found = self._open(conn, scope)
        if found is None:
            return False
        seen, payload = found
        if not seen.first <= first <= last <= seen.last or (
            seen.built_by > built_by_seconds
            and market_lookback.is_built_between(conn, scope.world, first, last, built_by_seconds, seen.built_by)
        ):
            return False
        moved = (first - seen.first) // STEP_SECONDS
        start = 0
        for name in LONG_COLUMNS:
            source, start = _column(payload, start, bars, name, seen.count)
            getattr(bars, name)[...] = source[..., moved : moved + bars.count]
        market_lookback.add_levels_built_after(conn, scope, bars, seen.built_by, built_by_seconds)
        return True

    def keep(self, conn: psycopg.Connection[Any]) -> None:
        """Write what the committed tick has read, if it is news. Where that fails the next tick is slower, no more."""
        if self._news is None:
            return
        (scope, window, bars), self._news = self._news, None
        tick = _tick_at(conn, scope.world, window.built_by)
        if tick is None:
            return
        try:
            self._write(scope, window, bars, tick)
        except OSError as error:
            log.warning("the look-back could not be kept in %s (%s): ticks read it whole", self._folder, error)

    def _path(self, world: str) -> Path:
        return self._folder / f"bars-{hashlib.sha256(world.encode()).hexdigest()[:16]}"

    def _open(self, conn: psycopg.Connection[Any], scope: Scope) -> tuple[Window, memoryview] | None:
        """What the file says it is, and its arrays; None if it is not to be believed."""
        try:
            raw = memoryview(self._path(scope.world).read_bytes())
        except OSError:
            return None  # there is none
        content = raw[_CHECKSUM_BYTES:]
        # First of all: nothing of a damaged file is read, its own description included.
        if len(raw) < _CHECKSUM_BYTES + _LENGTH_BYTES or _number(raw[:_CHECKSUM_BYTES]) != zlib.crc32(content):
            return None
        length = _number(content[:_LENGTH_BYTES])
        header = json.loads(bytes(content[_LENGTH_BYTES : _LENGTH_BYTES + length]))
        if header["scope"] != _scope_of(scope):
            return None
        seen = Window(**header["window"])
        if header["tick"] != _tick_at(conn, scope.world, seen.built_by):
            return None
        return seen, content[_LENGTH_BYTES + length :]

    def _load(self, conn: psycopg.Connection[Any], scope: Scope, window: Window) -> tuple[BarArrays, Window] | None:
        """Bars as the tick that wrote the file saw them, moved to the window; None if that cannot be done."""
        found = self._open(conn, scope)
        if found is None:
            return None
        seen, payload = found
        if (
            not seen.first <= window.first <= seen.last <= window.last
            or seen.whole_from > window.whole_from
            or seen.built_by > window.built_by
        ):
            return None
        bars = empty_bars(scope.symbols, scope.venues, window.first, STEP_SECONDS, window.count)
        moved = (window.first - seen.first) // STEP_SECONDS
        start = 0
        for name in _in_order():
            begin = 0 if name in LONG_COLUMNS else seen.whole_index
            source, start = _column(payload, start, bars, name, seen.count - begin)
            from_index = moved if name in LONG_COLUMNS else window.whole_index + moved
            getattr(bars, name)[..., from_index - moved : seen.count - moved] = source[..., from_index - begin :]
        return bars, seen

    def _write(self, scope: Scope, window: Window, bars: BarArrays, tick: list[str]) -> None:
        parts = [
            np.ascontiguousarray(getattr(bars, name)[..., 0 if name in LONG_COLUMNS else window.whole_index :])
            for name in _in_order()
        ]
        header = json.dumps({"scope": _scope_of(scope), "window": vars(window), "tick": tick}).encode()
        pieces: list[bytes | memoryview] = [
            len(header).to_bytes(_LENGTH_BYTES, "big"),
            header,
            *(part.data for part in parts),
        ]
        checksum = 0
        for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(scope.world)
        # One name: ticks of a world take turns, and what a killed one left is written over. Not flushed to the disk: a
        # file that a power cut leaves torn has a wrong checksum.
        beside = path.with_name(f".{path.name}")
        with open(beside, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(checksum.to_bytes(_CHECKSUM_BYTES, "big"))
            file.writelines(pieces)
        os.replace(beside, path)
        files = sorted(self._folder.glob("bars-*"), key=lambda one: one.stat().st_mtime)
        for old in files[:-_FILES_KEPT]:
            old.unlink(missing_ok=True)


def _column(payload: memoryview, start: int, bars: BarArrays, name: str, count: int) -> tuple[NDArray[Any], int]:
    """One column of the file, which begins at that byte, as (symbols, venues, count); and where the next begins."""
    like = getattr(bars, name)
    shape = (*like.shape[:2], count)
    stop = start + int(np.prod(shape)) * like.itemsize
    return np.frombuffer(payload[start:stop], dtype=like.dtype).reshape(shape), stop


def _number(raw: memoryview) -> int:
    return int.from_bytes(raw, "big")


def _in_order() -> tuple[str, ...]:
    return (*LONG_COLUMNS, *(name for name in BAR_COLUMNS if name not in LONG_COLUMNS))


def _scope_of(scope: Scope) -> list[Any]:
    return [FORMAT, scope.world, list(scope.symbols), list(scope.venues)]


def _tick_at(conn: psycopg.Connection[Any], world: str, time_seconds: int) -> list[str] | None:
    """Start and commit of the market's tick at a time, as text; None if the database has none."""
    row = conn.execute(
        "SELECT started_at, committed_at FROM ticks WHERE world = %s AND stream = 'market' AND time = %s",
        [world, market_lookback.time_of(time_seconds)],
    ).fetchone()
    return None if row is None else [moment.isoformat() for moment in row]
