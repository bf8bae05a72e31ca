"""Worlds in the database: registering one, finding the active one, reading a world's clock.

Belongs here: the `worlds` and `watermarks` tables. Does not: what a world is (domain/worlds.py), or who plays it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
import psycopg

from liq_pipeline.bus.topics import IN_TOPICS, PARTITIONS
from liq_pipeline.domain.worlds import Manifest, World

_COLUMNS = "world, kind, market_step_seconds, flows_step_seconds, manifest, first_time, last_time"


def register(conn: psycopg.Connection[Any], world: World, activate: bool) -> None:
    """Insert the world or bring its description up to date, in the caller's transaction.

    activate: make it the one that is scored and shown; at most one world is active.
    """
    if activate:
        # First the others: the unique index on the active world is checked row by row. The lock makes two processes
        # that activate at once take turns instead of failing on that index.
        conn.execute("SELECT pg_advisory_xact_lock(hashtext('liq_pipeline active world'))")
        conn.execute("UPDATE worlds SET is_active = false WHERE is_active AND world <> %s", [world.name])
    conn.execute(
        """
        INSERT INTO worlds (world, kind, is_active, market_step_seconds, flows_step_seconds, manifest,
                            first_time, last_time)
        VALUES (%(name)s, %(kind)s, %(activate)s, %(market)s, %(flows)s, %(manifest)s, %(first)s, %(last)s)
        ON CONFLICT (world) DO UPDATE SET
            is_active = worlds.is_active OR excluded.is_active,
            market_step_seconds = excluded.market_step_seconds,
            flows_step_seconds = excluded.flows_step_seconds,
            manifest = excluded.manifest,
            first_time = excluded.first_time,
            last_time = excluded.last_time
        """,
        {
            "name": world.name,
            "kind": world.kind,
            "activate": activate,
            "market": world.market_step_seconds,
            "flows": world.flows_step_seconds,
            "manifest": msgspec.json.encode(world.manifest).decode(),
            "first": world.first_time,
            "last": world.last_time,
        },
    )


def active(conn: psycopg.Connection[Any]) -> World | None:
    """The active world, or None before any was activated."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM worlds WHERE is_active").fetchone()  # noqa: S608 - own constant
    return None if row is None else _world(row)


def get(conn: psycopg.Connection[Any], name: str) -> World | None:
    """The world of that name, or None."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM worlds WHERE world = %s", [name]).fetchone()  # noqa: S608 - own constant
    return None if row is None else _world(row)


def clock(conn: psycopg.Connection[Any], world: World, wall_now: datetime) -> datetime | None:
    """The time of the world: `wall_now` for the real one, else the least watermark over all partitions.

    None until every partition of every in-topic has brought a watermark: before that, rows of a partition that has
    not spoken yet may still be missing. A simulated world does not wait for a partition that somebody's open
    transaction holds: it counts as silent (the view world_clocks).
    """
    return wall_now if world.is_real else _played(conn, world, "clock")


def landed_to(conn: psycopg.Connection[Any], world: World) -> datetime | None:
    """Up to where everything of a played world has landed, held partitions included; None as with clock()."""
    return _played(conn, world, "landed_to")


def _played(conn: psycopg.Connection[Any], world: World, column: Literal["clock", "landed_to"]) -> datetime | None:
    row = conn.execute(
        f"SELECT partitions, {column} FROM world_clocks WHERE world = %s",  # noqa: S608 - one of two names
        [world.name],
    ).fetchone()
    if row is None or row[0] < len(IN_TOPICS) * PARTITIONS:
        return None
    found: datetime = row[1]
    return found


def _world(row: tuple[Any, ...]) -> World:
    name, kind, market, flows, manifest, first, last = row
    return World(
        name=name,
        kind=kind,
        market_step_seconds=market,
        flows_step_seconds=flows,
        manifest=msgspec.convert(manifest, Manifest),
        first_time=first,
        last_time=last,
    )
