"""Sending records to Kafka so that what was acknowledged is never lost.

Belongs here: the one producer that sources, players and backfills use. Does not: what they send, or reading.

Every record is checked before it is sent (the reader checks again: other programs produce too). The producer waits
for all in-sync replicas and is idempotent, so a retry neither loses, doubles nor reorders. Sending is asynchronous;
`flush()` is the only statement that what was sent has arrived.
"""

from __future__ import annotations

import threading
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from liq_pipeline.bus.codec import encode, headers_of
from liq_pipeline.bus.topics import EVENT_TOPICS, IN_TOPICS, TOPIC_OF_RECORD, key_of, wire_name
from liq_pipeline.domain.records import Heartbeat, Record, Watermark
from liq_pipeline.errors import LiqError

# kafka-python 3 buffers without a bound: past this many unacknowledged messages send() waits for the broker.
MAX_UNACKNOWLEDGED: Final = 20_000
_LINGER_MS: Final = 5
_BATCH_BYTES: Final = 128 * 1024


class PublishError(LiqError):
    """Something that was sent is not known to have arrived."""


class RecordProducer:
    """Sends records, heartbeats and watermarks to the in-topics. One thread at a time; use as a context manager."""

    def __init__(
        self,
        bootstrap_servers: str,
        topic_prefix: str = "",
        *,
        client_id: str = "liq-producer",
        delivery_timeout_seconds: float = 120.0,
    ) -> None:
        """Connect. delivery_timeout_seconds bounds how long a message may wait for its acknowledgement.

        Raises PublishError if the cluster does not answer.
        """
        self._servers = bootstrap_servers
        self._prefix = topic_prefix
        self._delivery_timeout_seconds = delivery_timeout_seconds
        self._lock = threading.Lock()
        self._unacknowledged = 0
        self._failed = 0
        self._first_failure: str | None = None
        self._client_id = client_id
        self._producer = self._open()

    def _open(self) -> KafkaProducer:
        bounded_ms = int(min(self._delivery_timeout_seconds, 30.0) * 1000)
        try:
            return KafkaProducer(
                bootstrap_servers=self._servers,
                client_id=self._client_id,
                acks="all",
                enable_idempotence=True,
                linger_ms=_LINGER_MS,
                batch_size=_BATCH_BYTES,
                delivery_timeout_ms=int(self._delivery_timeout_seconds * 1000),
                request_timeout_ms=bounded_ms - _LINGER_MS,
                max_block_ms=bounded_ms,
                bootstrap_timeout_ms=bounded_ms,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
        except KafkaError as error:
            raise PublishError(f"Kafka at {self._servers} does not answer: {error}") from error

    def send(self, record: Record) -> None:
        """Queue a record for its topic. Raises RecordError if it cannot be true, PublishError if it cannot queue."""
        record.check()
        self._send(TOPIC_OF_RECORD[type(record)], encode(record), key=key_of(record), headers=[])

    def send_heartbeat(self, topic: str, heartbeat: Heartbeat) -> None:
        """Queue "this feed was read completely up to event_time" for an event topic."""
        if topic not in EVENT_TOPICS:
            raise ValueError(f"heartbeats belong to {' and '.join(EVENT_TOPICS)}, not to {topic}")
        heartbeat.check()
        self._send(topic, encode(heartbeat), key=heartbeat.venue.encode(), headers=headers_of(heartbeat))

    def send_watermark(self, world: str, time: datetime) -> None:
        """Queue the watermark for every partition of every in-topic, behind what was sent before."""
        watermark = Watermark(schema_version=1, world=world, watermark=time)
        value, headers = encode(watermark), headers_of(watermark)
        for topic in IN_TOPICS:
            for partition in sorted(self._partitions(topic)):
                self._send(topic, value, key=world.encode(), headers=headers, partition=partition)

    def send_bytes(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
    ) -> None:
        """Queue bytes as they are, for dead letters that are tried again and for out-topics."""
        self._send(topic, value, key=key, headers=headers or [], partition=partition)

    def flush(self, timeout_seconds: float = 30.0) -> None:
        """Wait until everything sent so far is acknowledged.

        Raises PublishError if the time runs out, or if any message since the last flush was not acknowledged.
        """
        try:
            self._producer.flush(timeout=timeout_seconds)
        except KafkaTimeoutError as error:
            raise PublishError(
                f"{self._unacknowledged} messages were not acknowledged by Kafka at {self._servers} "
                f"within {timeout_seconds:g} s"
            ) from error
        with self._lock:
            failed, first = self._failed, self._first_failure
            self._failed, self._first_failure = 0, None
        if failed:
            # An idempotent producer refuses to go on after a message that can never be sent: the next one can.
            self._producer.close(timeout=0)
            self._producer = self._open()
            raise PublishError(f"{failed} messages were not acknowledged by Kafka at {self._servers}; first: {first}")

    def close(self, timeout_seconds: float = 30.0) -> None:
        """Flush and close. Raises PublishError like flush()."""
        try:
            self.flush(timeout_seconds)
        finally:
            self._producer.close(timeout=timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            # The error under way is the story to tell; what is still queued gets a short chance.
            self._producer.close(timeout=5.0)

    def _partitions(self, topic: str) -> set[int]:
        try:
            found: set[int] | None = self._producer.partitions_for(wire_name(topic, self._prefix))
        except KafkaError as error:
            raise PublishError(
                f"Kafka at {self._servers} does not know topic {wire_name(topic, self._prefix)}: {error}"
            ) from error
        if not found:
            raise PublishError(
                f"Kafka at {self._servers} has no topic {wire_name(topic, self._prefix)}: run liq topics"
            )
        return found

    def _send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None,
        headers: list[tuple[str, bytes]],
        partition: int | None = None,
    ) -> None:
        if self._unacknowledged >= MAX_UNACKNOWLEDGED:
            self.flush(self._delivery_timeout_seconds)
        try:
            future = self._producer.send(
                wire_name(topic, self._prefix), value=value, key=key, headers=headers, partition=partition
            )
        except KafkaError as error:
            raise PublishError(f"a message for topic {topic} could not be queued: {error}") from error
        with self._lock:
            self._unacknowledged += 1
        future.add_both(self._settle)
        future.add_errback(self._fail)

    def _settle(self, _: Any) -> None:
        with self._lock:
            self._unacknowledged -= 1

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._failed += 1
            if self._first_failure is None:
                self._first_failure = f"{type(error).__name__}: {error}"
