"""From the buffer to Kafka: in order, acknowledged, and told apart from silence by heartbeats.

Belongs here: sending, heartbeats, and what the collector writes into the database (gaps, its state).
Does not: sockets.

A heartbeat may only say what Kafka has acknowledged: the sender notes how far each venue has been read, then takes all
that waits, sends and flushes it, and only then sends the noted times. While Kafka is away nothing is lost until the
buffer is full (LIQ_SOURCE_COLLECTOR_BUFFER_EVENTS); past that the oldest events go, and a gap row says which.
An event that was sent and not acknowledged is sent again: landing drops the second copy.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from liq_pipeline.bus.producer import PublishError, RecordProducer
from liq_pipeline.collector.buffer import EventBuffer
from liq_pipeline.collector.coverage import Coverage
from liq_pipeline.domain.records import Heartbeat, Liquidation
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.sources.access.source_status import SourceStatus, write
from liq_pipeline.store.completeness import gaps
from liq_pipeline.store.connection import connect

log = logging.getLogger(__name__)

TOPIC: Final = "liquidations"
BATCH: Final = 5_000
HEARTBEAT_SECONDS: Final = 5.0
STATUS_SECONDS: Final = 5.0
DELIVERY_SECONDS: Final = 10.0
LONGEST_BACKOFF_SECONDS: Final = 2.0
_KNOCK_SECONDS: Final = 1.0


class Sender(threading.Thread):
    """Sends what the buffer holds until `stop` is set and the buffer is empty, or `drain_seconds` later."""

    def __init__(
        self,
        database_url: str,
        bootstrap_servers: str,
        topic_prefix: str,
        buffer: EventBuffer,
        coverages: Sequence[Coverage],
        states: Callable[[psycopg.Connection[Any]], list[SourceStatus]],
        stop: threading.Event,
        *,
        drain_seconds: float = 10.0,
        on_heartbeat: Callable[[Heartbeat], None] | None = None,
    ) -> None:
        super().__init__(name="sender", daemon=True)
        self._database_url = database_url
        self._servers = bootstrap_servers
        self._prefix = topic_prefix
        self._buffer = buffer
        self._coverages = coverages
        self._states = states
        self._halt = stop
        self._drain_seconds = drain_seconds
        self._on_heartbeat = on_heartbeat
        self._producer: RecordProducer | None = None
        self.told: dict[str, datetime] = {}
        """Up to when each venue is known to have been read, by the heartbeats that Kafka has acknowledged."""
        self._heartbeat_at = 0.0
        self._status_at = 0.0
        self._gaps: list[gaps.Gap] = []
        self.turned_at = time.monotonic()
        """When the loop last began a turn; one takes at most a delivery's time, also while Kafka is away."""
        self.sent = 0
        self.outage: str | None = None
        """Why Kafka does not take anything right now; None while it does."""

    def run(self) -> None:
        """Send, tell, report."""
        failures = 0
        stopping_since: float | None = None
        while True:
            self.turned_at = time.monotonic()
            if self._halt.is_set():
                stopping_since = stopping_since or time.monotonic()
                if not len(self._buffer) or time.monotonic() - stopping_since > self._drain_seconds:
                    break
            read_until = {coverage.venue: coverage.read_until for coverage in self._coverages}
            events = self._buffer.take(BATCH, timeout_seconds=0.2)
            try:
                self._send(events, {} if len(self._buffer) else read_until)
                failures, self.outage = 0, None
            except PublishError as error:
                self._buffer.give_back(events)
                failures += 1
                if self.outage is None:
                    log.warning("Kafka does not take events, they wait in memory: %s", error)
                self.outage = str(error)
                self._close_producer()
                self._rest(min(0.25 * 2.0 ** min(failures, 10), LONGEST_BACKOFF_SECONDS))
            self._report()
        if len(self._buffer):
            log.error("%d events could not be sent before the collector stopped", len(self._buffer))
            self._note_unsent()
        self._status_at = 0.0
        self._report()
        self._close_producer()

    def _rest(self, seconds: float) -> None:
        if self._halt.is_set():
            time.sleep(min(seconds, 0.5))
        else:
            self._halt.wait(seconds)

    def _send(self, events: list[Liquidation], read_until: dict[str, datetime | None]) -> None:
        tell = time.monotonic() - self._heartbeat_at >= HEARTBEAT_SECONDS
        beats = self._beats(read_until) if tell else []
        if not events and not beats:
            return
        if self._producer is None:
            self._knock()
            self._producer = RecordProducer(
                self._servers, self._prefix, client_id="liq-collect", delivery_timeout_seconds=DELIVERY_SECONDS
            )
        for event in events:
            self._producer.send(event)
        if events:
            self._producer.flush(timeout_seconds=DELIVERY_SECONDS + 5)
            self.sent += len(events)
        if beats:
            for beat in beats:
                self._producer.send_heartbeat(TOPIC, beat)
                if self._on_heartbeat is not None:
                    self._on_heartbeat(beat)
            self._producer.flush(timeout_seconds=DELIVERY_SECONDS + 5)
            self._heartbeat_at = time.monotonic()
            self.told |= {beat.venue: beat.event_time for beat in beats}

    def _knock(self) -> None:
        """Raise PublishError unless a broker's port is open: the client itself gives up only after half a minute."""
        for server in self._servers.split(","):
            host, _, port = server.strip().rpartition(":")
            try:
                with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS):
                    return
            except (OSError, ValueError):
                continue
        raise PublishError(f"Kafka at {self._servers} does not answer")

    def _beats(self, read_until: dict[str, datetime | None]) -> list[Heartbeat]:
        """For every venue that has been read further than was told."""
        now = datetime.now(UTC)
        return [
            Heartbeat(
                schema_version=1,
                event_time=moment,
                received_at=now,
                event_time_source="local",
                origin="live",
                world=REAL,
                venue=venue,
            )
            for venue, moment in read_until.items()
            if moment is not None and moment > self.told.get(venue, datetime.min.replace(tzinfo=UTC))
        ]

    def _report(self) -> None:
        """Write gaps and states; a database that is away is tried again later and never stops the sending."""
        if time.monotonic() - self._status_at < STATUS_SECONDS:
            return
        self._status_at = time.monotonic()
        for coverage in self._coverages:
            self._gaps += [
                gaps.Gap(
                    world=REAL,
                    source=f"{hole.venue} liquidations",
                    cause=hole.cause,
                    from_time=hole.from_time,
                    to_time=hole.to_time,
                    is_permanent=True,
                )
                for hole in coverage.take_holes()
            ]
        self._gaps += [
            gaps.Gap(
                world=REAL,
                source=f"{dropped.venue} liquidations",
                cause=f"{dropped.count} events did not fit the buffer of {self._buffer.capacity} while Kafka was away",
                from_time=dropped.first_event_time,
                to_time=dropped.last_event_time,
                is_permanent=True,
            )
            for dropped in self._buffer.take_dropped()
        ]
        try:
            with connect(self._database_url, application_name="liq collect") as conn:
                for gap in self._gaps:
                    gaps.record(conn, gap)
                write(conn, self._states(conn))
            self._gaps = []
        except psycopg.Error as error:
            log.warning("the collector's state cannot be written: %s", " ".join(str(error).split()))

    def _note_unsent(self) -> None:
        left = self._buffer.take(self._buffer.capacity + BATCH, timeout_seconds=0)
        for venue in sorted({event.venue for event in left}):
            times = [event.event_time for event in left if event.venue == venue]
            self._gaps.append(
                gaps.Gap(
                    world=REAL,
                    source=f"{venue} liquidations",
                    cause=f"{len(times)} events were in memory when the collector stopped without Kafka",
                    from_time=min(times),
                    to_time=max(times),
                    is_permanent=True,
                )
            )

    def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.close(timeout_seconds=1.0)
            except PublishError as error:
                log.debug("closing after an outage: %s", error)
