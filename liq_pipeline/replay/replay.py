"""From a window to a page: servers, playing, gathering, what-if.

Belongs here: the order of things. Does not: any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from liq_pipeline.errors import LiqError
from liq_pipeline.pipeline.models import model_in_force
from liq_pipeline.replay.page import write_page
from liq_pipeline.replay.play import Say, play_through
from liq_pipeline.replay.servers import throw_away
from liq_pipeline.replay.story import Story, as_stored, what_happened
from liq_pipeline.replay.what_if import would_have_told
from liq_pipeline.replay.window import Window
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect


def replay(
    window: Window,
    settings: Settings,
    out: Path,
    *,
    symbol: str | None = None,
    changed: Mapping[str, str] | None = None,
    say: Say = lambda text: None,
) -> Story:
    """Play the window in a throw-away world and write its page.

    symbol: show only that one. changed: settings (LIQ_...) of a second reading beside the first. Raises LiqError.
    """
    symbols = window.world.manifest.symbols if symbol is None else (symbol,)
    unknown = [name for name in symbols if name not in window.world.manifest.symbols]
    if unknown:
        there = ", ".join(window.world.manifest.symbols)
        raise LiqError(f"{window.world.name} has no {', '.join(unknown)}: it has {there}")
    with throw_away(settings) as servers:
        play_through(window, servers, settings, say)
        say("gathering what was said and what happened")
        with connect(servers.database_url, application_name="liq replay") as connection:
            first, last = window.first - timedelta(seconds=1), window.last
            panel, events = what_happened(connection, window.world, settings, window.first, last)
            told = as_stored(connection, window.world, panel, events, first, last, symbols)
            if not any(series.time.size for series in told.series.values()):
                raise LiqError(f"no point of {window.world.name} could be scored: is there a price in it?")
            other = None
            if changed:
                say("scoring again under the other settings")
                other = would_have_told(
                    connection, window.world, settings, changed, first, last, symbols, panel, events
                )
            story = Story(
                world=window.world,
                first=window.first,
                last=last,
                panel=panel,
                events=events,
                told=told,
                model=model_in_force(connection),
                said_of_it=window.said_of_it,
                symbols=tuple(symbols),
                what_if=other,
            )
    say("writing the page")
    write_page(story, settings, out)
    return story
