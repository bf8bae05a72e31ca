"""Months of what only inputs on trial read, premium and depth: one Parquet per series, symbol and month.

Belongs here: samples to columns on the 5-min grid. Does not: files and quirks (sources/archives/samples.py), the months
that every training reads (months.py), what is made of them (inputs.py).

Columns: time (seconds since 1970 UTC), and of premiumIndexKlines premium_index (fraction of the index); of bookDepth
bid_depth_usd, ask_depth_usd (all that rests within 1 % of the middle) and book_price_usd. A row is the median of the
samples since the row before: of ten samples a wrong one moves nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.archive.months import STEP_SECONDS, first_facts, is_final, together, write_month
from liq_pipeline.evaluation.archive.plan import Plan, next_month
from liq_pipeline.sources.archives.binance import BinanceArchive
from liq_pipeline.sources.archives.pieces import Absent
from liq_pipeline.sources.archives.samples import SampleKind, read_samples

Floats = NDArray[np.float64]


def samples_are_kept(plan: Plan, kind: SampleKind, symbol: str, month: datetime) -> bool:
    """Whether the series' month is there and final."""
    return is_final(plan.sample_file(kind.name, symbol, month))


def keep_samples(
    archive: BinanceArchive, plan: Plan, kind: SampleKind, symbol: str, month: datetime, now: datetime
) -> dict[str, Any]:
    """Fetch, check and write one month. Returns its facts; raises SourceError where the archive cannot be read."""
    end = next_month(month)
    pieces = list(kind.pieces(symbol, month, min(end, now)))
    found = together(lambda piece: read_samples(archive, piece, now), pieces)
    facts = first_facts(symbol, month, now)
    size = int((end - month).total_seconds()) // STEP_SECONDS + 1
    columns = {name: np.full(size, np.nan) for name in kind.names}
    time: list[int] = []
    values: list[tuple[float, ...]] = []
    for piece, samples in zip(pieces, found, strict=True):
        if isinstance(samples, Absent):
            facts["absent"] += 1
            continue
        facts["files"] += 1
        facts["unknown_cells"] += samples.unknown_cells
        facts["doubled"] += samples.doubled
        facts["problems"] += [f"{piece.path.rpartition('/')[2]}: {text}" for text in samples.problems[:3]]
        time += [int(moment.timestamp()) for moment in samples.time]
        values += samples.values
    if time:
        # As in months.py: what is stamped a second late is no bar early.
        place = -((int(month.timestamp()) - np.array(time, dtype=np.int64)) // STEP_SECONDS)
        for name, own in zip(kind.names, np.array(values, dtype=np.float64).T, strict=True):
            places, middle = _medians(place, own)
            columns[name][places] = middle
    write_month(plan.sample_file(kind.name, symbol, month), month, columns, facts)
    return facts


def _medians(place: NDArray[np.int64], values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The places that occur, ascending, and the median of the values at each."""
    order = np.lexsort((values, place))
    values = values[order]
    places, first, count = np.unique(place[order], return_index=True, return_counts=True)
    return places, np.asarray(0.5 * (values[first + (count - 1) // 2] + values[first + count // 2]))
