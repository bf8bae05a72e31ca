"""What-if over the store in force: both readings made the same way, from the same stored rows.

Belongs here: the reading transaction around what_if.py. Does not: scoring. The store is only read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from psycopg import IsolationLevel

from liq_pipeline.errors import LiqError
from liq_pipeline.pipeline.models import model_in_force
from liq_pipeline.replay.page import write_page
from liq_pipeline.replay.story import Story, what_happened
from liq_pipeline.replay.what_if import changed_settings, would_have_told
from liq_pipeline.settings import Settings
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect


def stored_what_if(
    database_url: str,
    settings: Settings,
    first: datetime,
    last: datetime,
    changes: Mapping[str, str],
    *,
    world_name: str | None = None,
    symbol: str | None = None,
    out: Path | None = None,
) -> Story:
    """[first, last] of a world (None: the active one) under the settings in force and under the changed ones.

    Alerts start from a quiet book at `first` in both readings, so that they differ by the settings alone. Raises
    LiqError if there is nothing to score, or a setting cannot be changed so.
    """
    if last < first:
        raise LiqError(f"--to {last.isoformat()} lies before --from {first.isoformat()}")
    changed = changed_settings(settings, changes)
    with connect(database_url, application_name="liq what-if") as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        world = worlds.active(connection) if world_name is None else worlds.get(connection, world_name)
        if world is None:
            raise LiqError(f"there is no world {world_name}" if world_name else "no world is active: run liq up first")
        symbols = world.manifest.symbols if symbol is None else (symbol,)
        if symbol is not None and symbol not in world.manifest.symbols:
            raise LiqError(f"{world.name} has no {symbol}: it has {', '.join(world.manifest.symbols)}")
        panel, events = what_happened(connection, world, settings, first, last)
        told, other = (
            would_have_told(connection, world, settings, what, first, last, symbols, panel, events)
            for what in ({}, changes)
        )
        story = Story(
            world=world,
            first=first,
            last=last,
            panel=panel,
            events=events,
            told=told,
            model=model_in_force(connection),
            said_of_it=("both readings are made from the stored rows, from a quiet alert book at the beginning",),
            symbols=tuple(symbols),
            what_if=other,
            is_stored=True,
        )
        connection.rollback()
    if out is not None:
        write_page(story, changed, out)
    return story
