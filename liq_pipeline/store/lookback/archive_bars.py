"""Bars that archives complete: unknown cells filled from archive rows, known ones left as they are.

Belongs here: the merge. Does not: when it happens, or where the result is kept (market_lookback.py).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import psycopg

from liq_pipeline.scoring.bars import CENTS_FIELDS, LEVEL_FIELDS, UNKNOWN_CENTS, BarArrays, Booleans, empty_bars
from liq_pipeline.store.inputs.as_known import build_bars
from liq_pipeline.store.inputs.expected_sources import Scope

BAR_COLUMNS: Final = LEVEL_FIELDS + CENTS_FIELDS


def is_known(name: str, values: np.ndarray[Any, Any]) -> Booleans:
    """Which cells of a bar's column hold a value."""
    return np.asarray(~np.isnan(values) if name in LEVEL_FIELDS else values != UNKNOWN_CENTS, dtype=bool)


def fill_from_archive(conn: psycopg.Connection[Any], scope: Scope, kept: BarArrays) -> tuple[BarArrays, Booleans]:
    """The kept bars with what the archive now knows of their unknown cells, and which bars that made richer.

    The mask is of shape (symbols, venues, bars). Known cells never change.
    """
    first = int(kept.end_seconds[0])
    archive = build_bars(conn, scope, first, kept.count, origins="archive")
    filled = empty_bars(scope.symbols, scope.venues, first, kept.step_seconds, kept.count)
    grown = np.zeros(kept.price_usd.shape, dtype=bool)
    for name in BAR_COLUMNS:
        mine, theirs = getattr(kept, name), getattr(archive, name)
        gain = is_known(name, theirs) & ~is_known(name, mine)
        getattr(filled, name)[...] = np.where(gain, theirs, mine)
        grown |= gain
    return filled, grown
