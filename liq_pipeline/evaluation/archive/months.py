"""The archive's files of one symbol and month as one Parquet: values at the time they were true, nothing filled.

Belongs here: pieces to columns on the 5-min grid. Does not: files and quirks (sources/archives/), when a value was
known (features.py).

Columns: time (seconds since 1970 UTC), price_usd, open_interest_base (coins), funding_rate_per_8h (where it was
settled), long/short ratios long_short_accounts, long_short_top_accounts, long_short_top_positions and long_short_taker.
A row is a point of the grid, both ends of the month included; unknown is NaN. The file's metadata (`liq`) says what was
read.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.domain.records import FundingRate, LongShortRatio, OpenInterest, Price, Record
from liq_pipeline.evaluation.archive.plan import Plan, next_month, write_whole
from liq_pipeline.sources.archives import binance
from liq_pipeline.sources.archives.pieces import Absent, Content, HistorySource, Piece

STEP_SECONDS: Final = 300
LEVELS: Final = ("price_usd", "open_interest_base", "funding_rate_per_8h")
RATIOS: Final = ("accounts", "top_accounts", "top_positions", "taker")
COLUMNS: Final = (*LEVELS, *(f"long_short_{kind}" for kind in RATIOS))
METADATA: Final = b"liq"
COMPLETE_AFTER: Final = binance.MONTH_PUBLISHED_WITHIN
"""A month whose end lies further back has all its files; a younger one is read again next time."""
THREADS: Final = 4

Floats = NDArray[np.float64]
_Read = TypeVar("_Read")


class Pace:
    """Requests at an even pace, so that several processes together stay polite. Threads may share it."""

    def __init__(self, per_second: float) -> None:
        self._apart = 1.0 / per_second
        self._lock = threading.Lock()
        self._next = 0.0

    def __call__(self) -> None:
        """Return when a request may be sent."""
        with self._lock:
            now = time.monotonic()
            wait = max(0.0, self._next - now)
            self._next = max(now, self._next) + self._apart
        if wait:
            time.sleep(wait)


def month_is_kept(plan: Plan, symbol: str, month: datetime) -> bool:
    """Whether the month's file is there and final."""
    return is_final(plan.month_file(symbol, month))


def is_final(path: Path) -> bool:
    """Whether a month's file is there and will not change."""
    return path.is_file() and bool(facts_of(path).get("is_final"))


def keep_month(archive: HistorySource, plan: Plan, symbol: str, month: datetime, now: datetime) -> dict[str, Any]:
    """Fetch, check and write one month. Returns its facts; raises SourceError where the archive cannot be read."""
    end = next_month(month)
    until = min(end, now)
    pieces = list(archive.pieces([symbol], month, until)) if until > month else []
    found = together(lambda piece: archive.read(piece, lambda _path: None, now), pieces)
    size = int((end - month).total_seconds()) // STEP_SECONDS + 1
    columns = {name: np.full(size, np.nan) for name in COLUMNS}
    start = int(month.timestamp())
    facts = first_facts(symbol, month, now)
    for piece, content in zip(pieces, found, strict=True):
        if isinstance(content, Absent):
            facts["absent"] += 1
        elif isinstance(content, Content):
            facts["files"] += 1
            facts["unknown_cells"] += content.unknown_cells
            facts["doubled"] += content.doubled
            facts["problems"] += [f"{piece.path.rpartition('/')[2]}: {text}" for text in content.problems[:3]]
            for record in content.records:
                _put(columns, record, start, size)
    write_month(plan.month_file(symbol, month), month, columns, facts)
    return facts


def together(read: Callable[[Piece], _Read], pieces: Sequence[Piece]) -> list[_Read]:
    """Every piece's answer, some at a time: waiting for the network is most of it."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="archive month") as pool:
        return list(pool.map(read, pieces))


def first_facts(symbol: str, month: datetime, now: datetime) -> dict[str, Any]:
    """What is said of a month before a file of it was read."""
    return {
        "symbol": symbol, "month": f"{month:%Y-%m}", "files": 0, "absent": 0, "unknown_cells": 0, "doubled": 0,
        "is_final": now >= next_month(month) + COMPLETE_AFTER, "problems": [],
    }  # fmt: skip


def write_month(path: Path, month: datetime, columns: dict[str, Floats], facts: dict[str, Any]) -> None:
    """A month's columns on the 5-min grid; what is made of them asks for their checksum."""
    digest = hashlib.sha256()
    for values in columns.values():
        digest.update(values.tobytes())
    facts["content"] = digest.hexdigest()
    size = next(iter(columns.values())).size
    times = int(month.timestamp()) + np.arange(size, dtype=np.int64) * STEP_SECONDS
    write_parquet(path, {"time": times, **columns}, facts)


def _put(columns: dict[str, Floats], record: Record, start: int, size: int) -> None:
    """One record's value at the grid point at or after its time: what is stamped a second late is no bar early."""
    if isinstance(record, OpenInterest) and record.open_interest_base is not None:
        name, value = "open_interest_base", record.open_interest_base
    elif isinstance(record, LongShortRatio):
        name, value = f"long_short_{record.kind}", record.ratio
    elif isinstance(record, Price):
        name, value = "price_usd", record.price_usd
    elif isinstance(record, FundingRate):
        name, value = "funding_rate_per_8h", record.rate * 8.0 / record.interval_hours
    else:
        return
    place = -((start - int(record.event_time.timestamp())) // STEP_SECONDS)
    if 0 <= place < size and value is not None:
        columns[name][place] = value


def load_span(
    plan: Plan, symbol: str, first: datetime, last: datetime, months: Callable[..., Any]
) -> dict[str, Floats]:
    """The kept months as columns on the grid of [first, last]; what is not there is NaN."""
    paths = [plan.month_file(symbol, month) for month in months(first, last + timedelta(seconds=1))]
    return load_columns(paths, COLUMNS, first, last)


def load_columns(paths: Iterable[Path], names: Sequence[str], first: datetime, last: datetime) -> dict[str, Floats]:
    """Columns of months' files on the grid of [first, last]; what is not there is NaN."""
    import pyarrow.parquet as pq

    start = int(first.timestamp())
    size = int((last - first).total_seconds()) // STEP_SECONDS + 1
    columns = {name: np.full(size, np.nan) for name in names}
    for path in paths:
        if not path.is_file():
            continue
        table = pq.read_table(path, columns=["time", *names])
        place = (table.column("time").to_numpy() - start) // STEP_SECONDS
        inside = (place >= 0) & (place < size)
        for name in names:
            values = table.column(name).to_numpy()[inside]
            known = np.isfinite(values)
            columns[name][place[inside][known]] = values[known]
    return columns


def write_parquet(path: Path, columns: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
    """One Parquet file, written in one step; the same content is the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    table = table.replace_schema_metadata({METADATA: json.dumps(facts, sort_keys=True).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    write_whole(path, buffer.getvalue())


def facts_of(path: Path) -> dict[str, Any]:
    """What the file's maker said of it; empty for a file that is none of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        facts = json.loads(metadata.get(METADATA, b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return facts if isinstance(facts, dict) else {}
