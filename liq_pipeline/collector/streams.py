"""One websocket feed, kept alive: connect, subscribe, read, notice silence, come back.

Belongs here: the life of a connection. Does not: what messages mean (sources/live/), sending to Kafka (sender.py).
"""

from __future__ import annotations

import logging
import random
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from liq_pipeline.collector.buffer import EventBuffer
from liq_pipeline.collector.coverage import Coverage
from liq_pipeline.domain.records import Liquidation
from liq_pipeline.sources.access.http import REFUSED_STATUS, retry_after_seconds
from liq_pipeline.sources.access.turns import Turns
from liq_pipeline.sources.live.base import Reading, Source, Stream
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.sources.live.values import UNREADABLE

log = logging.getLogger(__name__)

SETTLING: Final = timedelta(seconds=2)
"""Venues push what happened up to a second ago: a sign of life proves the feed up to this long before it."""
PING_SECONDS: Final = 5.0
TEXT_PING_SECONDS: Final = 20.0
LONGEST_BACKOFF_SECONDS: Final = 60.0
RELISTING_SECONDS: Final = 60.0
NOTHING_TO_READ: Final = "its list of instruments is not known yet, or it lists none of ours"
_STABLE_SECONDS: Final = 1.0
"""A connection that held this long was a success: the next backoff starts anew. A venue that drops us every few seconds
is read in between, at 150 connections in five minutes at most (Binance grants 300); with 30 s here the backoff grew
until such a venue was unread two thirds of the time."""

OnFrame = Callable[[str, datetime, str | bytes], None]
"""(source, received_at, frame): where recordings are made."""
OnTurn = Callable[[str, datetime, datetime, bool], None]
"""(source, when it was found, since or until when, whether the stream stands): the same."""


class StreamReader(threading.Thread):
    """Reads one source's stream until `stop` is set. `state` and `reason` are for source_status."""

    def __init__(
        self,
        source: Source,
        stream: Stream,
        url: str,
        instruments: Callable[[], Sequence[Instrument]],
        buffer: EventBuffer,
        coverage: Coverage,
        stop: threading.Event,
        *,
        slow_probe_seconds: float,
        first_backoff_seconds: float = 1.0,
        on_frame: OnFrame | None = None,
        turns: Turns | None = None,
        on_turn: OnTurn | None = None,
    ) -> None:
        """instruments: what is wanted of this source right now; asked again about once a minute. turns: where the
        source's list names events differently.
        """
        super().__init__(name=f"stream {source.name}", daemon=True)
        self._source = source
        self._stream = stream
        self._url = url
        self._instruments = instruments
        self._buffer = buffer
        self._coverage = coverage
        # A name of our own: Thread uses _stop for itself.
        self._halt = stop
        self._slow_probe_seconds = slow_probe_seconds
        self._first_backoff_seconds = first_backoff_seconds
        self._on_frame = on_frame
        self._turns = turns
        self._on_turn = on_turn
        self.venue = source.name
        self.state = "starting"
        self.reason: str | None = None
        self.events = 0
        self.problems = 0
        self.connections = 0
        self._loss = "the collector was not running"

    def run(self) -> None:
        """Connect again and again, with backoff and jitter, until told to stop."""
        failures = 0
        while not self._halt.is_set():
            instruments = self._instruments()
            if not instruments:
                self.state, self.reason = (
                    "starting",
                    NOTHING_TO_READ,
                )
                self._halt.wait(1.0)
                continue
            begun = time.monotonic()
            wait_seconds: float | None = None
            try:
                self._read(instruments)
                continue  # told to stop, or other instruments are wanted now
            except InvalidStatus as error:
                status = error.response.status_code
                self.reason = f"HTTP {status} on connecting"
                wait_seconds = retry_after_seconds(error.response.headers.get("Retry-After"), datetime.now(UTC))
                if status in REFUSED_STATUS:
                    wait_seconds = max(self._slow_probe_seconds, wait_seconds or 0.0)
            except _SubscriptionRefusedError as error:
                self.reason = f"the subscription was refused: {error}"
                wait_seconds = LONGEST_BACKOFF_SECONDS
            except (WebSocketException, OSError, EOFError, TimeoutError) as error:
                self.reason = f"connection lost ({type(error).__name__})"
            if self._halt.is_set():
                return
            self.state, self._loss = "down", self.reason or "connection lost"
            failures = 1 if time.monotonic() - begun > _STABLE_SECONDS else failures + 1
            if wait_seconds is None:
                wait_seconds = min(self._first_backoff_seconds * 2.0 ** min(failures - 1, 10), LONGEST_BACKOFF_SECONDS)
            log.warning("%s: %s; connecting again in about %.1f s", self.venue, self.reason, wait_seconds)
            # Jitter, so that many collectors do not come back in the same instant. No secret hangs on it.
            self._halt.wait(wait_seconds * random.uniform(1.0, 1.5))  # noqa: S311

    def _read(self, instruments: Sequence[Instrument]) -> None:
        """One connection, until it ends, falls silent, or the wanted instruments change."""
        followed = instruments[: self._stream.most_instruments]
        by_native = {instrument.native: instrument for instrument in followed}
        url = self._url + self._stream.path(followed)
        # Its keepalive would close the connection without telling when it last lived: we ping ourselves.
        with connect(
            url,
            ping_interval=None,
            open_timeout=10,
            close_timeout=2,
            max_queue=1024,
            additional_headers=dict(self._stream.headers),
        ) as socket:
            self.connections += 1
            messages = deque(self._stream.subscribe(followed))
            watch = _Watch(socket, self._stream, confirmations=len(messages))
            try:
                while not self._halt.is_set():
                    watch.subscribe(messages)
                    watch.ping()
                    frame = self._receive(socket, 0)
                    if frame is None:
                        watch.caught_up()
                        self._prove(watch, is_whole=len(followed) == len(instruments))
                        frame = self._receive(socket, watch.patience(messages))
                    if frame is not None:
                        watch.heard()
                        self._take(frame, by_native, watch, socket)
                    if watch.is_silent():
                        raise TimeoutError
                    if watch.relist_due() and set(self._instruments()) != set(instruments):
                        return
            finally:
                self._lost(watch)

    def _lost(self, watch: _Watch) -> None:
        if self._turns is None or watch.confirmed_at is None:
            return
        until = watch.alive_at - SETTLING
        self._turns.stream_lost(until)
        if self._on_turn is not None:
            self._on_turn(self.venue, datetime.now(UTC), until, False)

    def _prove(self, watch: _Watch, *, is_whole: bool) -> None:
        if watch.confirmed_at is None:
            return
        if self.state != "up":
            self.state, self.reason = "up", None
        if not is_whole:
            return
        self._coverage.prove(
            watch.confirmed_at,
            watch.alive_at - SETTLING,
            cause=f"the stream was not connected: {self._loss}",
            may_jump=not self._source.event_feeds,
        )

    def _receive(self, socket: ClientConnection, timeout: float) -> str | bytes | None:
        try:
            return socket.recv(timeout=timeout)
        except TimeoutError:
            return None

    def _take(
        self, frame: str | bytes, by_native: dict[str, Instrument], watch: _Watch, socket: ClientConnection
    ) -> None:
        now = datetime.now(UTC)
        if self._stream.unpack is not None and isinstance(frame, bytes):
            try:
                frame = self._stream.unpack(frame)
            except zlib.error as error:
                self._note(f"a frame cannot be unpacked ({error})")
                return
        if self._on_frame is not None:
            self._on_frame(self._source.name, now, frame)
        try:
            message: Any = msgspec.json.decode(frame)
        except msgspec.DecodeError:
            message = frame  # "pong" and the like
        answer = self._stream.answer(message)
        if answer is not None:
            socket.send(answer)
        if self._stream.confirms(message) and watch.confirm():
            self._stands(watch)
        refusal = self._stream.refusal(message)
        if refusal is not None:
            raise _SubscriptionRefusedError(refusal)
        reading = Reading(self._source.name, sent_at=now, received_at=now, instruments=by_native)
        try:
            self._stream.parse(message, reading)
        except UNREADABLE as error:
            reading.problems.append(f"a message cannot be read ({type(error).__name__}: {error})")
        self._note(*reading.problems)
        events = [record for record in reading.records if isinstance(record, Liquidation)]
        if self._turns is not None:
            events = self._turns.of_stream(events)
        if events:
            self.events += self._buffer.put(events)

    def _stands(self, watch: _Watch) -> None:
        if self._turns is None or watch.confirmed_at is None:
            return
        self._turns.stream_stands(watch.confirmed_at)
        if self._on_turn is not None:
            self._on_turn(self.venue, watch.confirmed_at, watch.confirmed_at, True)

    def _note(self, *problems: str) -> None:
        if problems:
            self.problems += len(problems)
            self.reason = problems[0]
            log.warning("%s: %s", self._source.name, problems[0])


class _SubscriptionRefusedError(Exception):
    """The venue does not give us what we asked for, in its own words."""


class _Watch:
    """The signs of life of one connection.

    A pong may overtake frames that wait to be read, so a sign of life counts only once all frames are read.
    """

    def __init__(self, socket: ClientConnection, stream: Stream, *, confirmations: int) -> None:
        """confirmations: how many the venue owes us."""
        self._socket = socket
        self._stream = stream
        self._begun = self._next_message = time.monotonic()
        self._heard = self._pinged = self._text_pinged = self._relisted = self._begun
        self._pong: threading.Event | None = None
        self._ping_at = self._heard_at = datetime.now(UTC)
        self.alive_at = self._heard_at
        """Everything the venue sent up to here has been read."""
        self._owed = confirmations
        self.confirmed_at: datetime | None = None
        """Since when the whole subscription stands."""

    def subscribe(self, messages: deque[str]) -> None:
        """Send what is left of the subscription, as fast as the venue lets us."""
        while messages and time.monotonic() >= self._next_message:
            self._socket.send(messages.popleft())
            self._next_message = time.monotonic() + self._stream.subscribe_every_seconds

    def patience(self, messages: deque[str]) -> float:
        """How long to wait for a frame, in seconds."""
        return min(0.5, max(0.0, self._next_message - time.monotonic())) if messages else 0.5

    def confirm(self) -> bool:
        """The venue has accepted a subscription. Returns whether this was the last one owed."""
        self._owed -= 1
        if self.confirmed_at is not None or self._owed > 0:
            return False
        self.confirmed_at = datetime.now(UTC)
        return True

    def heard(self) -> None:
        """A message came."""
        self._heard = time.monotonic()
        self._heard_at = datetime.now(UTC)

    def caught_up(self) -> None:
        """No frame waits to be read."""
        self.alive_at = max(self.alive_at, self._heard_at)

    def ping(self) -> None:
        """Ask for a sign of life now and then; an answer proves the connection at the time of asking."""
        now = time.monotonic()
        if self._pong is not None and self._pong.is_set():
            self._pong = None
            self._heard = now
            self._heard_at = max(self._heard_at, self._ping_at)
        if self._pong is None and now - self._pinged >= PING_SECONDS:
            self._pinged, self._ping_at = now, datetime.now(UTC)
            self._pong = self._socket.ping()
        if self._stream.ping is not None and now - self._text_pinged >= TEXT_PING_SECONDS:
            self._text_pinged = now
            self._socket.send(self._stream.ping)

    def is_silent(self) -> bool:
        """Nothing was heard for too long, or the subscription was never confirmed."""
        now = time.monotonic()
        unconfirmed = self.confirmed_at is None and now - self._begun > self._stream.silence_seconds
        return unconfirmed or now - self._heard > self._stream.silence_seconds

    def relist_due(self) -> bool:
        """About once a minute."""
        now = time.monotonic()
        if now - self._relisted < RELISTING_SECONDS:
            return False
        self._relisted = now
        return True
