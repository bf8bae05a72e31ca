"""Liquidation maps that are due, and drawing them.

Belongs here: which times are due, from the tables, and how many are drawn at once. Does not: the estimate
(scoring/levels/), the table (store/levels.py).

A map of T stands on the bars that were kept by T and on nothing else, so that one drawn at once and one drawn in a
batch are equal. No tick waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

import psycopg

from liq_pipeline.domain.worlds import World
from liq_pipeline.scoring.bars import STEP_SECONDS
from liq_pipeline.scoring.levels.maps import map_at
from liq_pipeline.scoring.levels.method import method_of
from liq_pipeline.settings import Settings
from liq_pipeline.store import levels
from liq_pipeline.store.inputs.expected_sources import scope_of
from liq_pipeline.store.lookback.bar_cache import BarCache

LONGEST_CATCH_UP_SECONDS: Final = 24 * 3600
"""After a longer pause maps are drawn from here on; older ones are not made up."""
BUDGET_SECONDS: Final = 20.0
"""A run begins no further map after that; the next run goes on."""


@dataclass(frozen=True)
class Drawn:
    """What a run added."""

    times: int
    rows: int
    newest: datetime | None


def due_times(conn: psycopg.Connection[Any], world: World, method_version: str) -> list[int]:
    """Ends of kept bars without a map, oldest first; seconds since 1970. The first ever is the newest bar: history that
    landed later than it happened was known to nobody at its time."""
    row = conn.execute("SELECT max(bar_end) FROM feature_bars WHERE world = %s", [world.name]).fetchone()
    if row is None or row[0] is None:
        return []
    last = int(row[0].timestamp())
    newest = levels.newest_time(conn, world.name, method_version)
    if newest is None:
        return [last]
    first = max(last - LONGEST_CATCH_UP_SECONDS, int(newest.timestamp()) + STEP_SECONDS)
    return list(range(first, last + 1, STEP_SECONDS))


def draw_due_maps(
    conn: psycopg.Connection[Any], world: World, settings: Settings, cache: BarCache | None = None
) -> Drawn:
    """Draw and keep the maps that are due, in the caller's transaction. cache: the last tick's look-back."""
    method = method_of(world.name)
    scope = scope_of(world, settings.risk)
    stop = monotonic() + BUDGET_SECONDS
    drawn: list[int] = []
    rows = 0
    for time in due_times(conn, world, method.version):
        if drawn and monotonic() > stop:
            break
        bars = levels.window_bars(conn, scope, method, time, cache)
        rows += levels.write_maps(conn, levels.rows_of(map_at(bars, method, bars.count - 1), scope))
        drawn.append(time)
    return Drawn(len(drawn), rows, datetime.fromtimestamp(drawn[-1], UTC) if drawn else None)
