"""Playing a window through Kafka, landing and the ticks of a throw-away world.

Belongs here: the order of the three parts. Does not: what is played (window.py), what is told of it (story.py).

It is the same path as live data takes: the player's messages, the landing worker's transactions, the tick with its
alerts and its outbox. Only the delivery is left out: messages stay in the outbox, where the page reads them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from liq_pipeline.errors import LiqError
from liq_pipeline.pipeline.models import model_in_force
from liq_pipeline.pipeline.tick import TickContext, run_tick
from liq_pipeline.replay.servers import Servers
from liq_pipeline.replay.window import Window
from liq_pipeline.settings import Settings
from liq_pipeline.sources.playing.playable import Playable
from liq_pipeline.sources.playing.player import Player
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing.lander import Lander

LANDING_SECONDS: Final = 1800.0
TICK_SECONDS: Final = 30.0

Say = Callable[[str], None]


def play_through(window: Window, servers: Servers, settings: Settings, say: Say = lambda text: None) -> None:
    """Play, land and score the window, then land its aftermath. Raises LiqError if a part does not land."""
    with connect(servers.database_url, application_name="liq replay") as connection:
        worlds.register(connection, window.world, activate=True)
    context = TickContext(
        database_url=servers.database_url,
        bootstrap_servers=servers.bootstrap_servers,
        topic_prefix=servers.topic_prefix,
        settings=settings,
        load_model=model_in_force,
    )
    say(f"playing the look-back of {window.world.name}")
    _send(window.look_back(), servers)
    _land(servers)
    if not window.world.is_real and window.world.kind == "simulated":
        # A simulated world is scored from the point on which its first tick finds it.
        _score(context, say)
    say(f"playing {window.first:%Y-%m-%d %H:%M} to {window.last:%Y-%m-%d %H:%M} UTC")
    _send(window.stretch(), servers)
    _land(servers)
    _score(context, say)
    _send(window.aftermath(), servers)
    _land(servers)


def _send(part: Playable, servers: Servers) -> None:
    player = Player(
        part,
        servers=servers.bootstrap_servers,
        topic_prefix=servers.topic_prefix,
        landed_to=lambda: datetime.now(UTC),
        speed=None,
        stop_event=threading.Event(),
        max_ahead=10**9,
    )
    player.run(None)


def _land(servers: Servers) -> None:
    with Lander(servers.database_url, servers.bootstrap_servers, servers.topic_prefix) as lander:
        landed = lander.land_to_end(LANDING_SECONDS)
    if not landed.reached_end:
        raise LiqError(f"the throw-away world did not land within {LANDING_SECONDS:g} s: is the machine overloaded?")


def _score(context: TickContext, say: Say) -> None:
    while True:
        result = run_tick(context, time_limit_seconds=TICK_SECONDS, land=False)
        if result.points_scored == 0 and result.flow_points_scored == 0:
            return
        if result.last_time is not None:
            say(f"scored up to {result.last_time:%H:%M}")
