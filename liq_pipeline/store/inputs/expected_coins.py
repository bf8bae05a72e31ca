"""Of which venue a coin can be expected at all, as known at given times.

Belongs here: the listings that turn a world's expectation per record type into one per coin and time. Does not: the
table's writing (listings.py), values (as_known.py), or what follows for a score (scoring/risk.py).

A coin that a venue does not list must not lower that coin's coverage.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg

from liq_pipeline.scoring.bars import Booleans, Integers
from liq_pipeline.store.inputs.as_known import microseconds
from liq_pipeline.store.inputs.expected_sources import Scope


def not_listed_at(conn: psycopg.Connection[Any], scope: Scope, times_us: Integers) -> Booleans:
    """Who was known not to list what at each time: (symbols, venues, times).

    Other worlds than the real one say so in their manifest, for all times. Archives reach back before any list was
    read: scored as history, a coin takes the first answer for what lies before it.
    """
    shape = (len(scope.symbols), len(scope.venues), times_us.size)
    absent = np.zeros(shape, dtype=bool)
    for symbol, venue in scope.not_listed:
        absent[scope.symbols.index(symbol), scope.venues.index(venue)] = True
    if not scope.is_real:
        return absent
    rows = conn.execute(
        "SELECT venue, symbol, array_agg(valid_from ORDER BY valid_from), array_agg(is_listed ORDER BY valid_from)"
        " FROM venue_listings WHERE venue = ANY(%s) AND symbol = ANY(%s) GROUP BY venue, symbol",
        [list(scope.venues), list(scope.symbols)],
    )
    for venue, symbol, moments, listed in rows:
        from_us = np.array([microseconds(moment) for moment in moments], dtype=np.int64)
        row = np.searchsorted(from_us, times_us, side="right") - 1
        if scope.is_history:
            row = np.maximum(row, 0)
        series = absent[scope.symbols.index(symbol), scope.venues.index(venue)]
        series[...] = (row >= 0) & ~np.array(listed, dtype=bool)[row]
    return absent
