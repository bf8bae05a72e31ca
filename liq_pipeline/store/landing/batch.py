"""A batch: what one poll of Kafka brought, decoded; and what landing it came to.

Belongs here: from messages to rows, and the counts. Does not: Kafka's client (bus/reader.py), decoding one message
(bus/codec.py), SQL (transaction.py).

This loop runs once per message: it is half of landing's cost in Python, so it does per message only what differs from
message to message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from liq_pipeline.bus.codec import DecodeError, decode
from liq_pipeline.bus.reader import Partition, Unreadable
from liq_pipeline.domain.records import LAST_YEAR, Watermark
from liq_pipeline.store.landing.tables import TABLES, LandingTable, Row

_LAST_MS: Final = int(datetime(LAST_YEAR, 1, 1, tzinfo=UTC).timestamp() * 1000)

Messages = dict[Partition, list[Any]]
"""As TopicReader.poll() gives them, in offset order."""


@dataclass(frozen=True, kw_only=True)
class LandResult:
    """What landing did. All counts are of messages; read = landed + duplicates + conflicts + dead + control."""

    read: int = 0
    landed: dict[str, int] = field(default_factory=dict)
    """By topic: observation rows that are new, corrected or marked orphaned."""
    duplicates: int = 0
    conflicts: int = 0
    dead: int = 0
    heartbeats: int = 0
    watermarks: int = 0
    late: dict[str, int] = field(default_factory=dict)
    """By world: landed rows that had been known before the world's last committed market tick."""
    gaps: int = 0
    notices: tuple[str, ...] = ()
    batches: int = 0
    reached_end: bool = False
    """land_to_end: everything that was in Kafka when it started has been dealt with."""
    duration_seconds: float = 0.0

    @property
    def rows_landed(self) -> int:
        """Observation rows over all topics."""
        return sum(self.landed.values())

    def __add__(self, other: LandResult) -> LandResult:
        return LandResult(
            read=self.read + other.read,
            landed=dict(Counter(self.landed) + Counter(other.landed)),
            duplicates=self.duplicates + other.duplicates,
            conflicts=self.conflicts + other.conflicts,
            dead=self.dead + other.dead,
            heartbeats=self.heartbeats + other.heartbeats,
            watermarks=self.watermarks + other.watermarks,
            late=dict(Counter(self.late) + Counter(other.late)),
            gaps=self.gaps + other.gaps,
            notices=self.notices + other.notices,
            batches=self.batches + other.batches,
            reached_end=self.reached_end or other.reached_end,
            duration_seconds=self.duration_seconds + other.duration_seconds,
        )


@dataclass
class Batch:
    """Decoded messages of one poll and the span of offsets they cover."""

    messages: Messages
    starts: dict[Partition, int]
    """The position each partition was read from; the next offset that its first message follows."""
    ends: dict[Partition, int] = field(default_factory=dict)
    rows: dict[tuple[LandingTable, str], list[Row]] = field(default_factory=dict)
    """(table, topic) -> rows in order of delivery"""
    watermarks: dict[tuple[str, str, int], datetime] = field(default_factory=dict)
    """(world, topic, partition) -> the greatest"""
    watermark_count: int = 0
    dead: list[tuple[Any, str, str, str]] = field(default_factory=list)
    """(message, topic, reason_code, reason)"""
    holes: Sequence[Unreadable] = ()
    """What lies between the messages and cannot be taken apart."""

    @property
    def read(self) -> int:
        """Number of messages."""
        return sum(map(len, self.messages.values()))


def decode_batch(
    messages: Messages,
    starts: dict[Partition, int],
    cluster_no_of_topic: Mapping[str, int],
    holes: Sequence[Unreadable] = (),
) -> Batch:
    """Turn messages into rows; what cannot be believed is set aside with its reason.

    starts: the position each partition was read from, those with nothing but holes too. cluster_no_of_topic: what rows
    carry as kafka_cluster.
    """
    batch = Batch(messages=messages, starts=starts, holes=holes)
    for partition, records in messages.items():
        topic, number = partition
        cluster = cluster_no_of_topic[topic]
        batch.ends[partition] = records[-1].offset + 1
        builders = {kind: (table.build, batch.rows.setdefault((table, topic), [])) for kind, table in TABLES.items()}
        # The broker stamps a whole batch of its own with one time.
        timestamp, appended = None, None
        for record in records:
            if record.timestamp != timestamp:
                timestamp, appended = record.timestamp, appended_at(record)
            try:
                message = decode(topic, record.value, record.headers, appended)
            except DecodeError as error:
                batch.dead.append((record, topic, error.code, str(error)))
                continue
            if isinstance(message, Watermark):
                _note_watermark(batch, message, partition)
                continue
            build, rows = builders[type(message)]
            rows.append(build(message, topic, cluster, number, record.offset))
    for hole in holes:
        batch.ends[hole.partition] = max(batch.ends.get(hole.partition, 0), hole.to_offset)
    batch.rows = {place: rows for place, rows in batch.rows.items() if rows}
    return batch


def appended_at(record: Any) -> datetime | None:
    """The broker's time of a message; brokers give milliseconds since 1970, -1 for none.

    None too for what no clock shows: a topic that was not made by us may carry the producers' own times.
    """
    return None if not 0 <= record.timestamp <= _LAST_MS else datetime.fromtimestamp(record.timestamp / 1000, UTC)


def _note_watermark(batch: Batch, message: Watermark, partition: Partition) -> None:
    place = (message.world, partition.topic, partition.partition)
    greatest = batch.watermarks.get(place)
    if greatest is None or message.watermark > greatest:
        batch.watermarks[place] = message.watermark
    batch.watermark_count += 1
