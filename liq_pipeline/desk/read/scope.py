"""Which world is shown and how far it is: what stands on every page and in every answer.

Belongs here: the world, its clock and its newest point. Does not: scores.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from liq_pipeline.desk.read.database import Connection, fetch
from liq_pipeline.desk.read.units import Time
from liq_pipeline.errors import LiqError

Mode = Literal["live", "simulated", "recorded"]


class NoWorldError(LiqError):
    """There is nothing to show yet, or no world of that name."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """A world and its newest committed point. as_of is null before the first one."""

    world: str
    """real, simulated/<seed> or recorded/<name>"""
    kind: Literal["real", "simulated", "recorded"]
    is_real: bool
    is_active: bool
    mode: Mode
    as_of: Time | None
    """the newest point that is scored"""
    committed_at: Time | None
    """when its scores were committed, wall clock"""
    clock: Time | None
    """the world's own time; null in the real one, where it is the wall clock"""
    first_time: Time | None
    last_time: Time | None
    step_seconds: int
    symbols: list[str]
    venues: list[str]
    """those that are expected to bring prices"""


_SCOPE = """
    SELECT w.world, w.kind, w.kind = 'real' AS is_real, w.is_active,
           CASE w.kind WHEN 'real' THEN 'live' ELSE w.kind END AS mode, t.time AS as_of, t.committed_at,
           CASE WHEN w.kind <> 'real' THEN (SELECT c.clock FROM world_clocks c WHERE c.world = w.world) END AS clock,
           w.first_time, w.last_time, w.market_step_seconds AS step_seconds,
           coalesce(w.manifest -> 'symbols', '[]'::jsonb) AS symbols,
           coalesce(w.manifest #> '{expected,prices,venues}', '[]'::jsonb) AS venues
    FROM worlds w LEFT JOIN LATERAL (
        SELECT time, committed_at FROM ticks WHERE world = w.world AND stream = 'market' ORDER BY time DESC LIMIT 1
    ) t ON true
    WHERE CASE WHEN %(world)s::text IS NULL THEN w.is_active ELSE w.world = %(world)s END
"""


def scope(conn: Connection, world: str | None = None) -> Scope:
    """The world of that name, or the active one. NoWorldError if there is none."""
    found = fetch(conn, Scope, _SCOPE, {"world": world})
    if found:
        return found[0]
    if world is None:
        raise NoWorldError("no world is active: nothing has been started on this database yet")
    raise NoWorldError("there is no world of that name; /api/v1/worlds lists them")


def known_symbol(of: Scope, symbol: str) -> bool:
    """Whether the world watches it."""
    return symbol in of.symbols


class WorldEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One world in the store."""

    world: str
    kind: Literal["real", "simulated", "recorded"]
    is_active: bool
    created_at: datetime


def worlds(conn: Connection) -> list[WorldEntry]:
    """Every world, the active one first."""
    query = "SELECT world, kind, is_active, created_at FROM worlds ORDER BY is_active DESC, created_at DESC LIMIT 200"
    return fetch(conn, WorldEntry, query, {})
