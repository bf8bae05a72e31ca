"""`liq serve`: the desk on a port, until a signal.

Belongs here: the server around the application, its limits, and where it listens. Does not: what is served (app.py).
"""

from __future__ import annotations

import ctypes
import logging
import resource
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn

from liq_pipeline.desk.app import Desk
from liq_pipeline.desk.doors import ImpatientProtocol, require_token_off_loopback
from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.settings import Settings

HEAD_BYTES: Final = 16_384
"""Of a request's head."""
_SOCKETS: Final = 8_192
_M_ARENA_MAX: Final = -8
"""malloc.h of glibc."""
_log = logging.getLogger(__name__)


def serve(settings: Settings, endpoints: Endpoints, *, host: str, port: int, lag_url: str | None = None) -> None:
    """Serve until SIGINT or SIGTERM. LiqError if it may not listen there, or the port cannot be had."""
    require_token_off_loopback(settings, host)
    _raise_socket_limit()
    _one_arena()
    # A reader's thread that turns rows into text must not keep the loop from handing events on.
    sys.setswitchinterval(0.001)
    desk = Desk(settings, endpoints, lag_url=lag_url)
    config = uvicorn.Config(
        desk.make(names=(host,)),
        host=host,
        port=port,
        http=ImpatientProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=3,
        backlog=2048,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    server = _Server(config)
    server.before_exit = desk.hub.dismiss
    try:
        server.run()
    except SystemExit as error:  # uvicorn has logged why it cannot listen
        raise LiqError(f"the desk cannot listen on {host}:{port}: choose another LIQ_WEB_PORT") from error


class _Server(uvicorn.Server):
    """Lets those who listen go at once: they come back by themselves, and would hold the end up otherwise."""

    before_exit: Callable[[], None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal asks to end."""
        if self.before_exit is not None:
            self.before_exit()
        super().handle_exit(sig, frame)


def _raise_socket_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _SOCKETS if hard == resource.RLIM_INFINITY else min(_SOCKETS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _one_arena() -> None:
    """Let all threads take memory from one heap: with one each, twenty readers of 90 days left 165 MB, so 147."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries than glibc have none, and no arenas
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
