"""One look at the database for the whole process, and everyone who listens to what it finds.

Belongs here: looking, telling, and letting go of who does not keep up. Does not: the wire (wire.py), queries
(changes.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from liq_pipeline.desk.api.answering import envelope
from liq_pipeline.desk.read.database import Connection, Reader
from liq_pipeline.desk.read.market import SymbolNow, symbols_now
from liq_pipeline.desk.read.scope import NoWorldError, Scope, scope
from liq_pipeline.desk.stream.changes import AlertChange, EventId, changes_since, start
from liq_pipeline.errors import LiqError

LOOK_SECONDS: Final = 0.5
MOST_LISTENERS: Final = 400
QUEUE: Final = 64
"""Events that may wait for one listener; who is further behind is let go and comes back with its last id."""
REMEMBERED: Final = 30_000
"""Alert changes that are known to have been told."""
_log = logging.getLogger(__name__)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Event:
    """One event, ready for the wire. key: tells a repetition; None for a state."""

    name: str
    identity: str
    data: bytes
    key: str | None = None

    def wire(self) -> bytes:
        """As server-sent events want it; the data is JSON without line ends."""
        return b"event: %s\nid: %s\ndata: %s\n\n" % (self.name.encode(), self.identity.encode(), self.data)


@dataclass(eq=False)
class Listener:
    """Who listens. lost: it did not keep up, or the process ends."""

    queue: asyncio.Queue[Event | None] = field(default_factory=lambda: asyncio.Queue(QUEUE))
    lost: bool = False


@dataclass(frozen=True)
class _Seen:
    of: Scope | None
    symbols: list[SymbolNow] | None
    changes: list[AlertChange]
    start: datetime | None = None


class Hub:
    """Looks every LOOK_SECONDS while it runs. on_change is called in the loop whenever something new was committed."""

    def __init__(self, reader: Reader, on_change: Callable[[], None]) -> None:
        self._reader = reader
        self._on_change = on_change
        self._listeners: set[Listener] = set()
        self._told: OrderedDict[str, None] = OrderedDict()
        self._scope: Scope | None = None
        self._at = EventId(_EPOCH, _EPOCH)
        self._newest: Event | None = None
        self._under_way: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_away = False

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @property
    def scope(self) -> Scope | None:
        """The world as it was last seen; None before the first look and where there is none."""
        return self._scope

    @property
    def at(self) -> EventId:
        """How far the process is."""
        return self._at

    @property
    def newest(self) -> Event | None:
        """The newest point as an event."""
        return self._newest

    def begin(self) -> None:
        """Start looking."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    async def end(self) -> None:
        """Stop looking and let everyone go."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._let_all_go()

    def dismiss(self) -> None:
        """Let everyone go, called from anywhere, a signal's handler too."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._let_all_go)

    def _let_all_go(self) -> None:
        for listener in list(self._listeners):
            self._let_go(listener)

    def listen(self) -> Listener | None:
        """A new listener, or None if there are too many."""
        if len(self._listeners) >= MOST_LISTENERS:
            return None
        listener = Listener()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """It does not listen any more."""
        self._listeners.discard(listener)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                seen = await loop.run_in_executor(self._reader.threads, self._look)
                self._tell(seen)
                if self._is_away:
                    _log.warning("the database answers again")
                self._is_away = False
            except LiqError as error:
                if not self._is_away:
                    _log.warning("no new events: %s", error)
                self._is_away = True
            except Exception:
                _log.exception("a look for new events failed; the next one follows")
            await asyncio.sleep(max(0.05, LOOK_SECONDS - (loop.time() - begun)))

    def _look(self) -> _Seen:
        return self._reader.run(self._read)

    def _read(self, conn: Connection) -> _Seen:
        try:
            of = scope(conn)
        except NoWorldError:
            return _Seen(None, None, [])
        if self._scope is None or of.world != self._scope.world:
            return _Seen(of, symbols_now(conn, of), [], start(conn, of.world))
        is_new = of.as_of is not None and of.as_of != self._scope.as_of
        since = self._at if of.as_of is None else EventId(min(self._at.point, of.as_of), self._at.change)
        return _Seen(of, symbols_now(conn, of) if is_new else None, changes_since(conn, of.world, since))

    def _tell(self, seen: _Seen) -> None:
        of = seen.of
        if of is None:
            if self._scope is not None:
                self._scope, self._newest = None, None
                self._on_change()
            return
        events: list[Event] = []
        is_other = self._scope is None or self._scope.world != of.world
        if is_other:
            self._at = EventId(of.as_of or _EPOCH, seen.start or _EPOCH)
            self._told.clear()
            self._under_way = {}
        self._scope = of
        if is_other:
            events.append(self._event("world", msgspec.json.encode(of)))
        for change in seen.changes:
            if change.change_id in self._told:
                continue
            self._told[change.change_id] = None
            while len(self._told) > REMEMBERED:
                self._told.popitem(last=False)
            # What the first look overlaps was told by the process before this one, or is in the book.
            self._at = EventId(self._at.point, max(self._at.change, change.created_at))
            events.append(self._event("alert", msgspec.json.encode(change), change.change_id))
        if seen.symbols is not None and of.as_of is not None:
            self._at = EventId(of.as_of, self._at.change)
            events += self._under_way_events(of, seen.symbols, is_first=is_other)
            self._newest = self._event("signals", msgspec.json.encode(envelope(of, seen.symbols), enc_hook=str))
            events.append(self._newest)
        if events:
            self._on_change()
            for event in events:
                self._send(event)

    def _under_way_events(self, of: Scope, symbols: list[SymbolNow], *, is_first: bool) -> list[Event]:
        """A symbol whose under-way rule changed its mind."""
        events = []
        for row in symbols:
            now = None if row.under_way is None else (row.under_way.get("is_open"), row.under_way.get("side"))
            before, self._under_way[row.symbol] = self._under_way.get(row.symbol), now
            if is_first or now == before or not ((now and now[0]) or (before and before[0])):
                continue
            data = {
                "symbol": row.symbol,
                "time": row.time,
                "is_open": None if now is None else now[0],
                "side": None if now is None else now[1],
                "under_way_probability": row.under_way_probability,
                "under_way": row.under_way,
            }
            events.append(self._event("under_way", msgspec.json.encode(envelope(of, data))))
        return events

    def _event(self, name: str, data: bytes, key: str | None = None) -> Event:
        return Event(name, str(self._at), data, key)

    def _send(self, event: Event) -> None:
        for listener in list(self._listeners):
            try:
                listener.queue.put_nowait(event)
            except asyncio.QueueFull:
                self._let_go(listener)

    def _let_go(self, listener: Listener) -> None:
        listener.lost = True
        self._listeners.discard(listener)
        while not listener.queue.empty():
            listener.queue.get_nowait()
        listener.queue.put_nowait(None)
