"""How far the playing of a recording has come: landed, scored, delivered; and what went wrong on the way.

Belongs here: reading that from the database. Does not: waiting for it (up.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from liq_pipeline.domain.worlds import World
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Progress:
    """clock: the world's, None before every partition has spoken. scored: last committed grid time per stream."""

    clock: datetime | None
    scored: dict[str, datetime]
    outbox_due: int
    is_landed: bool
    is_scored: bool

    @property
    def is_complete(self) -> bool:
        """Everything played has landed, every due point is scored, nothing waits to be sent."""
        return self.is_landed and self.is_scored and self.outbox_due == 0


def progress(database_url: str) -> Progress | None:
    """None while no world is active."""
    with connect(database_url, application_name="liq up") as connection:
        world = worlds.active(connection)
        if world is None:
            return None
        clock = worlds.clock(connection, world, datetime.now(UTC))
        rows = connection.execute(
            "SELECT stream, max(time) FROM ticks WHERE world = %s GROUP BY stream", (world.name,)
        ).fetchall()
        due = connection.execute(
            "SELECT count(*) FROM outbox WHERE world = %s AND state = 'due'", (world.name,)
        ).fetchone()
    scored = {str(stream): time for stream, time in rows}
    is_landed = clock is not None and (world.last_time is None or clock >= world.last_time)
    return Progress(
        clock=clock,
        scored=scored,
        outbox_due=int(due[0]) if due else 0,
        is_landed=is_landed,
        is_scored=clock is not None and _all_due_scored(world, clock, scored),
    )


def problems(database_url: str, since: datetime) -> list[str]:
    """What a script should know about: sentences, none if all went well. since: only what happened from then on."""
    with connect(database_url, application_name="liq up") as connection:
        return [
            *_dead_letters(connection, since),
            *_conflicts(connection, since),
        ]


def _all_due_scored(world: World, clock: datetime, scored: dict[str, datetime]) -> bool:
    for stream, step_seconds in (("market", world.market_step_seconds), ("flows", world.flows_step_seconds)):
        step = timedelta(seconds=step_seconds)
        last_due = _EPOCH + (clock - _EPOCH) // step * step
        if world.first_time is not None and last_due <= world.first_time:
            continue  # shorter than one step: nothing was ever due
        if stream not in scored or scored[stream] < last_due:
            return False
    return True


def _dead_letters(connection: psycopg.Connection[Any], since: datetime) -> list[str]:
    rows = connection.execute(
        "SELECT reason_code, count(*) FROM dead_letters WHERE dead_at >= %s GROUP BY 1 ORDER BY 2 DESC", (since,)
    ).fetchall()
    return [f"{count} messages lie in dead_letters with the reason {reason}" for reason, count in rows]


def _conflicts(connection: psycopg.Connection[Any], since: datetime) -> list[str]:
    rows = connection.execute(
        "SELECT table_name, count(*) FROM row_conflicts WHERE found_at >= %s GROUP BY 1 ORDER BY 1", (since,)
    ).fetchall()
    return [f"{count} rows came in two different versions in {table} (see row_conflicts)" for table, count in rows]
