"""Reading the in-topics from stated offsets.

Belongs here: assigned partitions, seeking, polling, where each log begins and ends, which cluster this is.
Does not: what a message means (codec.py), or where landing stands (store/).

No consumer group: the offsets live in the database, in the transaction of the rows they brought. With assign and seek
there is no rebalance, hence no stalled or doubled member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Final, NamedTuple, Self

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import CorruptRecordError, KafkaError, LogTruncationError, OffsetOutOfRangeError

from liq_pipeline.bus import held
from liq_pipeline.bus.held import Held
from liq_pipeline.bus.topics import IN_TOPICS, wire_name
from liq_pipeline.bus.unpack import Room, RoomSpentError, lean_records
from liq_pipeline.errors import LiqError

REQUEST_TIMEOUT_SECONDS: Final = 30.0
# What one fetch may bring. A message is at most 1 MiB (the broker's default), so memory stays within a few of these.
_FETCH_MAX_BYTES: Final = 16 * 1024 * 1024
_PARTITION_FETCH_MAX_BYTES: Final = 2 * 1024 * 1024
POLL_MAX_BYTES: Final = 16 * 1024 * 1024
"""Of values that one poll() hands out: 10,000 messages of 1 MiB, or a batch that unpacks to a hundred times its size,
must not become one transaction. The message that passes the bound is still in, and no poll unpacks more than this and
one batch (uncompress.MAX_UNPACKED_BYTES)."""


class ReadError(LiqError):
    """Kafka cannot be read; one sentence says why and what to do."""


class KafkaAwayError(ReadError):
    """Kafka does not answer now; waiting may mend it."""


class OffsetsGoneError(Exception):
    """An offset to read from is no longer in its log: look at the logs' bounds again."""


class UnreadableError(Exception):
    """A batch in Kafka is damaged, so that it is unknown where the next one begins: see unreadable()."""


class Partition(NamedTuple):
    """A partition by the contract's topic name."""

    topic: str
    partition: int


class Bounds(NamedTuple):
    """First offset still in the log, and the offset the next message will get (for committed messages)."""

    begin: int
    end: int


class Unreadable(NamedTuple):
    """Messages that the client cannot take apart, from from_offset up to and without to_offset, and why."""

    partition: Partition
    from_offset: int
    to_offset: int
    why: str


class TopicReader:
    """Reads the given partitions of the in-topics; all of them by default. One thread at a time."""

    def __init__(
        self,
        bootstrap_servers: str,
        topic_prefix: str = "",
        *,
        topics: Iterable[str] = IN_TOPICS,
        partitions: Iterable[int] | None = None,
        client_id: str = "liq-reader",
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> None:
        """Connect and assign; reading starts after seek(). Raises ReadError if Kafka or a topic is not there."""
        self.bootstrap_servers = bootstrap_servers
        self._timeout_ms = int(timeout_seconds * 1000)
        self._client_id = client_id
        self._admin: KafkaAdminClient | None = None
        names = {wire_name(topic, topic_prefix): topic for topic in topics}
        wanted = None if partitions is None else frozenset(partitions)
        self._kept: dict[Partition, list[Any]] = {}
        self._room = Room(POLL_MAX_BYTES)
        try:
            self.cluster_id, self.topic_ids, counts = self._describe(names)
        except ReadError:
            self._close_admin()
            raise
        self.partitions = [
            Partition(topic, number)
            for topic, count in counts.items()
            for number in range(count)
            if wanted is None or number in wanted
        ]
        missing = sorted((wanted or frozenset()) - {partition.partition for partition in self.partitions})
        if missing:
            self._close_admin()
            raise ReadError(
                f"the topics on Kafka at {bootstrap_servers} have no partition {', '.join(map(str, missing))}: the "
                f"last is {max(counts.values()) - 1}"
            )
        self._wire = {
            Partition(topic, number): TopicPartition(name, number)
            for name, topic in names.items()
            for number in range(counts[topic])
        }
        self._topic_of_wire = names
        self._consumer = self._open()

    def is_unchanged(self) -> bool:
        """Whether cluster and topics are still those that this reader began with. True while Kafka does not answer.

        Raises ReadError if a topic is gone.
        """
        try:
            cluster_id, topic_ids, _ = self._describe(self._topic_of_wire)
        except KafkaAwayError:
            return True
        return (cluster_id, topic_ids) == (self.cluster_id, self.topic_ids)

    def _open(self) -> KafkaConsumer:
        try:
            consumer = KafkaConsumer(
                bootstrap_servers=self.bootstrap_servers,
                client_id=self._client_id,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",  # an offset that is gone is an event to record, never to skip over
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                metrics_enabled=False,
                fetch_max_wait_ms=100,
                fetch_max_bytes=_FETCH_MAX_BYTES,
                max_partition_fetch_bytes=_PARTITION_FETCH_MAX_BYTES,
                request_timeout_ms=self._timeout_ms,
                bootstrap_timeout_ms=self._timeout_ms,
            )
            consumer._fetcher.PartitionRecords = lean_records(self._room)
            consumer.assign([self._wire[partition] for partition in self.partitions])
        except KafkaError as error:
            raise KafkaAwayError(f"Kafka at {self.bootstrap_servers} does not answer: {error}") from error
        return consumer

    def _describe(self, names: Mapping[str, str]) -> tuple[str, dict[str, str], dict[str, int]]:
        """Cluster id, topic ids and partition counts by the contract's topic names."""
        try:
            if self._admin is None:
                self._admin = KafkaAdminClient(
                    bootstrap_servers=self.bootstrap_servers,
                    client_id=f"{self._client_id}-metadata",
                    bootstrap_timeout_ms=self._timeout_ms,
                    request_timeout_ms=self._timeout_ms,
                )
            cluster_id = self._admin.describe_cluster()["cluster_id"]
            described = self._admin.describe_topics(list(names))
        except KafkaError as error:
            raise KafkaAwayError(f"Kafka at {self.bootstrap_servers} does not answer: {error}") from error
        missing = sorted(topic["name"] for topic in described if topic["error_code"] or not topic["partitions"])
        if missing:
            raise ReadError(f"Kafka at {self.bootstrap_servers} has no topic {', '.join(missing)}: run liq topics")
        ids = {names[topic["name"]]: str(topic["topic_id"]) for topic in described}
        counts = {names[topic["name"]]: len(topic["partitions"]) for topic in described}
        return cluster_id, ids, {topic: counts[topic] for topic in names.values()}

    def bounds(self) -> dict[Partition, Bounds]:
        """Where each partition's log begins and ends now."""
        begin = self._offsets(self._consumer.beginning_offsets)
        return {partition: Bounds(begin[partition], end) for partition, end in self.ends().items()}

    def ends(self) -> dict[Partition, int]:
        """Where each partition's log ends now: half the questions of bounds()."""
        return self._offsets(self._consumer.end_offsets)

    def held(self, ends: Mapping[Partition, int]) -> dict[Partition, Held]:
        """Which partitions hold more than can be read up to these ends: somebody's transaction is open. See held.py."""
        place_of = {self._wire[partition]: partition for partition in ends}
        try:
            found = held.held(self._admin, {self._wire[partition]: end for partition, end in ends.items()})
        except KafkaError as error:
            raise KafkaAwayError(f"Kafka at {self.bootstrap_servers} does not tell its offsets: {error}") from error
        return {place_of[wire]: value for wire, value in found.items()}

    def holder(self, partition: Partition, stable_offset: int) -> str | None:
        """Who holds the partition from that offset on, in words; None where Kafka does not tell."""
        return held.holder(self._admin, self._wire[partition], stable_offset)

    def _offsets(self, ask: Callable[..., dict[Any, int]]) -> dict[Partition, int]:
        try:
            found = ask([self._wire[partition] for partition in self.partitions], timeout_ms=self._timeout_ms)
        except KafkaError as error:
            raise KafkaAwayError(f"Kafka at {self.bootstrap_servers} does not tell its offsets: {error}") from error
        return {partition: found[self._wire[partition]] for partition in self.partitions}

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Read on from these offsets; what was fetched ahead is dropped."""
        self._kept.clear()
        self._room.passed_over.clear()
        for partition, offset in offsets.items():
            self._consumer.seek(self._wire[partition], offset)

    def position(self, partition: Partition) -> int:
        """The offset that poll() will bring next."""
        if partition in self._kept:
            return int(self._kept[partition][0].offset)
        return int(self._consumer.position(self._wire[partition], timeout_ms=self._timeout_ms))

    def poll(self, max_records: int, timeout_seconds: float) -> dict[Partition, list[Any]]:
        """Up to max_records messages and about POLL_MAX_BYTES, in offset order per partition; empty if none in time.

        Ask passed_over() afterwards: what lies between these messages and cannot be taken apart.
        Messages are unpack.Message; kafka-python's ConsumerRecord, which has the same fields, from brokers that
        still keep formats older than 2.
        Raises OffsetsGoneError if a position fell out of its log, UnreadableError if a batch is damaged, ReadError if
        Kafka cannot be read.
        """
        if not self._kept:
            self._kept = self._fetched(max_records, timeout_seconds)
        if sum(map(_size_bytes, chain.from_iterable(self._kept.values()))) <= POLL_MAX_BYTES:
            everything, self._kept = self._kept, {}
            return everything
        return self._take()

    def _fetched(self, max_records: int, timeout_seconds: float) -> dict[Partition, list[Any]]:
        try:
            polled = self._polled(max_records, timeout_seconds)
        except (OffsetOutOfRangeError, LogTruncationError) as error:
            raise OffsetsGoneError(str(error)) from error
        except CorruptRecordError as error:
            self._reopen()
            raise UnreadableError(str(error)) from error
        except KafkaError as error:
            raise KafkaAwayError(f"Kafka at {self.bootstrap_servers} cannot be read: {error}") from error
        return {
            Partition(self._topic_of_wire[wire.topic], wire.partition): records
            for wire, records in polled.items()
            if records
        }

    def _polled(self, max_records: int, timeout_seconds: float) -> dict[Any, list[Any]]:
        while True:
            self._room.clear()
            try:
                polled: dict[Any, list[Any]] = self._consumer.poll(int(timeout_seconds * 1000), max_records)
            except RoomSpentError as spent:
                # The library raises what it kept, so that its frames and the error hold each other, and 24 MiB of
                # messages with them: sixty such polls held 1.4 GB until the collector came by.
                spent.__traceback__ = None
                # Of this poll, which met nothing but what it had to pass over; or of the one before, told late: the
                # library keeps an error until what came before it is out.
                if self._room.passed_over:
                    return {}
                continue
            return polled

    def passed_over(self) -> list[Unreadable]:
        """What polls up to now had to pass over, each told once, in order; nothing that lies behind a message kept."""
        told, waiting = [], []
        for hole in self._room.passed_over:
            partition = Partition(self._topic_of_wire[hole.place.topic], hole.place.partition)
            kept = self._kept.get(partition)
            if kept and kept[0].offset < hole.from_offset:
                waiting.append(hole)
            else:
                told.append(Unreadable(partition, hole.from_offset, hole.to_offset, hole.why))
        self._room.passed_over = waiting
        return told

    def _take(self) -> dict[Partition, list[Any]]:
        """The first POLL_MAX_BYTES of what was fetched; the rest is kept for the next poll()."""
        taken: dict[Partition, list[Any]] = {}
        room = POLL_MAX_BYTES
        for partition, records in list(self._kept.items()):
            number = 0
            while number < len(records) and room > 0:
                room -= _size_bytes(records[number])
                number += 1
            if number:
                taken[partition] = records[:number]
            if number < len(records):
                self._kept[partition] = records[number:]
                break
            del self._kept[partition]
        return taken

    def _reopen(self) -> None:
        """A consumer that met a broken batch is of no use any more: kafka-python 3.0.12 then spins in poll()."""
        self._consumer.close(autocommit=False)
        self._consumer = self._open()

    def unreadable(self, positions: Mapping[Partition, int]) -> list[Unreadable]:
        """Where poll() fails when it reads on from these positions. Positions are lost: seek() afterwards.

        A batch of messages is decoded in order, so behind a broken message the rest of its batch is out of reach too;
        the next batch is not. Offsets are tried one by one: only that finds the first readable one for certain.
        """
        self._kept.clear()
        found = []
        for partition, (_, end) in self.bounds().items():
            start = offset = positions[partition]
            why = None
            while offset < end and (reason := self._why_unreadable(partition, offset)) is not None:
                why = reason
                offset += 1
            if why is not None:
                found.append(Unreadable(partition, start, offset, why))
        self._room.passed_over.clear()  # met again by the poll that reads on
        self._consumer.assign([self._wire[partition] for partition in self.partitions])
        return found

    def _why_unreadable(self, partition: Partition, offset: int) -> str | None:
        wire = self._wire[partition]
        self._consumer.assign([wire])
        self._consumer.seek(wire, offset)
        try:
            self._fetched(1, 1.0)
        except UnreadableError as error:
            return str(error)
        except OffsetsGoneError:
            return None
        return None

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close(autocommit=False)
        self._close_admin()

    def _close_admin(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _size_bytes(message: Any) -> int:
    """What a message takes in memory, and one transaction in the database."""
    size = len(message.value or b"") + len(message.key or b"")
    if message.headers:
        size += sum(len(name) + len(value or b"") for name, value in message.headers)
    return size
