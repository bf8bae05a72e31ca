"""The second pass: the terms of the market and of its leaders, from the shares that every symbol's file holds.

Belongs here: joining the symbols of one quarter. Does not: a single symbol's features (features.py), fitting (fit.py).

A symbol's own file was computed as if it were the whole market, so its market columns are its own share. Joined here by
the functions that scoring itself uses, they are what scoring would have said of all symbols at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.archive.months import facts_of
from liq_pipeline.evaluation.archive.plan import Plan, Quarter
from liq_pipeline.evaluation.labels.version_1 import CascadeEvent
from liq_pipeline.evaluation.models.training import SAMPLE_SECONDS
from liq_pipeline.scoring.early_warning import market_mean
from liq_pipeline.scoring.probability import LEADERS, MARKET_FEATURES
from liq_pipeline.scoring.risk import venue_mean

LEADER_FEATURES: Final = ("leaders_return_1h", "leaders_cascade_4h")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class QuarterRows:
    """All symbols of a quarter on the sampling grid. columns: name -> (symbols, times); unknown is NaN, a label -1."""

    symbols: tuple[str, ...]
    time: NDArray[np.int64]
    is_known: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]]
    events: tuple[CascadeEvent, ...]


def load_quarter(plan: Plan, quarter: Quarter) -> QuarterRows | None:
    """The quarter with its market terms; None if no symbol has a row in it."""
    import pyarrow.parquet as pq

    begin, end = int(quarter.start.timestamp()), int(quarter.end.timestamp())
    time = np.arange(begin, end, SAMPLE_SECONDS, dtype=np.int64)
    shape = (len(plan.symbols), time.size)
    known = np.zeros(shape, dtype=bool)
    columns: dict[str, NDArray[Any]] = {}
    events: list[CascadeEvent] = []
    for index, symbol in enumerate(plan.symbols):
        path = plan.feature_file(symbol, quarter)
        if not path.is_file():
            continue
        table = pq.read_table(path)
        place = (table.column("time").to_numpy() - begin) // SAMPLE_SECONDS
        known[index, place] = True
        for name in table.column_names[1:]:
            values = table.column(name).to_numpy()
            if name not in columns:
                empty: Any = -1 if name.startswith("label_") else False if name.startswith("near_") else np.nan
                columns[name] = np.full(shape, empty, dtype=values.dtype)
            columns[name][index, place] = values
        events += [CascadeEvent(**event) for event in facts_of(path)["events"]]
    span = (time >= plan.first.timestamp()) & (time < plan.last.timestamp())
    known &= span
    if not known.any():
        return None
    for name in MARKET_FEATURES:
        own = columns[name].astype(np.float64)
        columns[name] = np.broadcast_to(market_mean(own), shape).astype(np.float32)
    leaders = [plan.symbols.index(name) for name in LEADERS if name in plan.symbols]
    for name in LEADER_FEATURES:
        if leaders:
            mean = venue_mean(columns[name][np.newaxis, leaders, :].astype(np.float64))
            columns[name] = np.broadcast_to(mean, shape).astype(np.float32)
    happened = tuple(e for e in events if plan.first.timestamp() <= e.onset < plan.last.timestamp())
    return QuarterRows(plan.symbols, time, known, columns, happened)
