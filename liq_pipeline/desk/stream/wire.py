"""Server-sent events: what one listener gets, from its last id on.

Belongs here: the order of what is missed and what comes, and keeping the connection alive. Does not: looking (hub.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

import msgspec

from liq_pipeline.desk.read.database import Connection, Reader
from liq_pipeline.desk.read.scope import scope
from liq_pipeline.desk.stream.changes import LONGEST_ABSENCE, EventId, changes_since
from liq_pipeline.desk.stream.hub import Event, Hub, Listener

KEEP_ALIVE_SECONDS: Final = 15.0
RETRY_MS: Final = 2_000


async def events(hub: Hub, reader: Reader, listener: Listener, last: str | None) -> AsyncIterator[bytes]:
    """The bytes of one stream. last: the Last-Event-ID, if the listener has one.

    It listens before it reads what it has missed, so that nothing falls between; what comes twice is told once.
    """
    try:
        yield b"retry: %d\n: liq_pipeline\n\n" % RETRY_MS
        told: set[str] = set()
        since = EventId.parse(last) if last else None
        if since is not None:
            for old in await asyncio.get_running_loop().run_in_executor(reader.threads, missed, reader, since):
                told.add(old.key or "")
                yield old.wire()
        newest = hub.newest
        if newest is not None and (since is None or newest.identity.partition("-")[0] != last_point(since)):
            yield newest.wire()
        elif since is None:
            yield Event("hello", str(hub.at), msgspec.json.encode(hub.scope)).wire()
        while not listener.lost:
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    event = await listener.queue.get()
            except TimeoutError:
                yield b": still here\n\n"
                continue
            if event is None:
                return
            if event.key is None or event.key not in told:
                yield event.wire()
    finally:
        hub.leave(listener)


def last_point(since: EventId) -> str:
    """The point of an id, as ids write it."""
    return str(since).partition("-")[0]


def missed(reader: Reader, since: EventId) -> list[Event]:
    """Every alert change after the id, oldest first, each with the id of how far the listener is with it."""
    begin = max(since.change, datetime.now(UTC) - LONGEST_ABSENCE)

    def read(conn: Connection) -> list[Event]:
        of = scope(conn)
        found, at = [], EventId(since.point, begin)
        for change in changes_since(conn, of.world, at):
            at = EventId(at.point, max(at.change, change.created_at))
            found.append(Event("alert", str(at), msgspec.json.encode(change), change.change_id))
        return found

    return reader.run(read)
