"""Rows that several venues write alike: settlements, shares of accounts, 5-minute candles.

Belongs here: what such rows mean, whatever their fields are called. Does not: a venue's endpoints and fields (its own
module), units (base.py). A venue whose rows mean something else keeps its own parser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from liq_pipeline.sources.live.base import Reading, settled_intervals
from liq_pipeline.sources.live.values import number, time_of_ms

FIVE_MINUTES: Final = timedelta(minutes=5)


def read_settlements(
    rows: Sequence[Any],
    reading: Reading,
    *,
    moment: Callable[[Any], datetime],
    rate: Callable[[Any], float],
    mark: Callable[[Any], float | None] = lambda row: None,
) -> None:
    """Settled funding rates in any order; the interval of each is the gap to the one before, else the contract's."""
    ordered = sorted(rows, key=moment)
    times = [moment(row) for row in ordered]
    instrument = reading.asked
    for row, time, hours in zip(
        ordered, times, settled_intervals(times, instrument.funding_interval_hours), strict=True
    ):
        reading.funding(instrument, "settled", rate(row), hours, time, native_mark=mark(row))


def read_account_shares(rows: Iterable[Any], reading: Reading, *, long: str, short: str, stamp: str) -> None:
    """Shares of long and short accounts by the names of their fields; `stamp` is in milliseconds."""
    reading.each(
        rows,
        lambda row: reading.long_short(
            reading.asked, "accounts", number(row[long]), number(row[short]), time_of_ms(row[stamp])
        ),
    )


def read_closes(rows: Iterable[Any], reading: Reading) -> None:
    """[start in ms, open, high, low, close, ...] of five minutes: the close is true at the end of the bar."""

    def row(bar: Any) -> None:
        reading.price(reading.asked, number(bar[4]), time_of_ms(bar[0]) + FIVE_MINUTES)

    reading.each(rows, row)
