"""The two ways in: stdin and stdout of a process (`liq mcp`), and `/mcp` of the desk.

Belongs here: transports. Does not: who may come in over HTTP (desk/doors.py: the same as for the API), tools.

Over HTTP every request stands alone: no session is kept, so none can be exhausted, stolen or lost by a restart.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from liq_pipeline.desk.read.database import Reader

PATH: Final = "/mcp"
AT_ONCE: Final = 8
"""Calls over HTTP that are worked on at once; the others wait."""


class OverHttp:
    """The ASGI application of PATH. The SDK is imported by the first call: a desk without such callers stays small."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._manager: Any = None
        self._starting = asyncio.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._task: asyncio.Task[None] | None = None
        self._end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._manager is None:
            await self._start()
        async with self._turns:
            await self._manager.handle_request(scope, receive, send)

    async def stop(self) -> None:
        """Let go of what runs."""
        self._end.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _start(self) -> None:
        async with self._starting:
            if self._manager is not None:
                return
            manager = await asyncio.to_thread(_manager, self._reader)
            begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            async def run() -> None:
                # Its task group must be left by the task that entered it.
                async with manager.run():
                    begun.set_result(None)
                    await self._end.wait()

            self._task = asyncio.create_task(run())
            await begun
            self._manager = manager


def _manager(reader: Reader) -> Any:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from liq_pipeline.desk.doors import MOST_BODY_BYTES
    from liq_pipeline.desk.mcp.server import make

    return StreamableHTTPSessionManager(
        make(reader), json_response=True, stateless=True, max_request_body_size=MOST_BODY_BYTES
    )


def over_stdio(database_url: str) -> None:
    """Serve who started this process, until stdin ends."""
    from mcp.server.stdio import stdio_server

    from liq_pipeline.desk.mcp.server import make

    reader = Reader(database_url, application_name="liq mcp")

    async def run() -> None:
        server = make(reader)
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    reader.start()
    try:
        asyncio.run(run())
    finally:
        reader.stop()
