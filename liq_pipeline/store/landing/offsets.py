"""Where landing stands in each log, and what it means when that place is no longer there.

Belongs here: the tables `consumer_offsets` and `kafka_clusters`, and gaps of the bus. Does not: rows, transactions.

A log is told by the cluster's id and the topic's own id. A topic that was deleted and made anew in the same cluster,
or a log that lost its tail, counts its offsets from the start again: it gets a new identity (`<cluster>~2`), so that
the coordinates of old rows, dead letters and cuts keep meaning what they meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from liq_pipeline.bus.reader import Bounds, Partition, Unreadable
from liq_pipeline.store.completeness import gaps

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Standing:
    """Where landing stands after it looked at the logs. next_offsets: what to read from, for every partition."""

    next_offsets: dict[Partition, int]
    identity_of_topic: dict[str, str]
    cluster_no_of_topic: dict[str, int]
    notices: tuple[str, ...]
    gaps: int

    @property
    def identities(self) -> dict[int, str]:
        """kafka_cluster -> the log identity it stands for."""
        return {self.cluster_no_of_topic[topic]: identity for topic, identity in self.identity_of_topic.items()}


@dataclass(frozen=True)
class _Stored:
    cluster_id: str
    topic_id: str
    next_offset: int
    updated_at: datetime


def synchronise(
    conn: Connection,
    consumer: str,
    cluster_id: str,
    topic_ids: Mapping[str, str],
    bounds: Mapping[Partition, Bounds],
) -> Standing:
    """Compare the stored offsets with the logs, in the caller's transaction.

    Rows of consumer_offsets are made where there are none and locked; holes become ingest_gaps rows.
    """
    world = gaps.world_in_force(conn)
    notices: list[str] = []
    begun: list[str] = []
    identity_of_topic: dict[str, str] = {}
    next_offsets: dict[Partition, int] = {}
    found = 0
    for topic in dict.fromkeys(partition.topic for partition in bounds):
        mine = {p: b for p, b in bounds.items() if p.topic == topic}
        identity, holes, new = _identify(conn, consumer, cluster_id, topic, topic_ids[topic], mine)
        begun += new
        identity_of_topic[topic] = identity
        _insert_missing(conn, consumer, identity, topic_ids[topic], mine)
        stored = lock(conn, consumer, {topic: identity}, mine)
        for partition, (begin, _) in mine.items():
            next_offsets[partition] = stored[partition]
            if stored[partition] < begin:
                cause = (
                    f"Kafka deleted offsets {stored[partition]} to {begin - 1} of {topic}[{partition.partition}] "
                    "before they were landed"
                )
                holes.append(_hole(world, partition, stored[partition], begin, cause))
                _set(conn, consumer, identity, partition, begin)
                next_offsets[partition] = begin
        for hole in holes:
            gaps.record(conn, hole)
            notices.append(hole.cause)
        found += len(holes)
    if begun:
        notices.insert(0, f"Kafka cluster {cluster_id} is new here: {', '.join(begun)} from the earliest offset")
    numbers = _cluster_numbers(conn, set(identity_of_topic.values()))
    return Standing(
        next_offsets=next_offsets,
        identity_of_topic=identity_of_topic,
        cluster_no_of_topic={topic: numbers[identity] for topic, identity in identity_of_topic.items()},
        notices=tuple(notices),
        gaps=found,
    )


def lock(
    conn: Connection, consumer: str, identity_of_topic: Mapping[str, str], partitions: Iterable[Partition]
) -> dict[Partition, int]:
    """Lock the offset rows of these partitions for this transaction and return the stored next offsets.

    Writers of the same partitions take turns here. Always in the same order, so that no two wait for each other.
    A partition without a row is absent from the answer.
    """
    wanted = sorted(partitions)
    rows = conn.execute(
        """
        SELECT o.topic, o.kafka_partition, o.next_offset
        FROM consumer_offsets AS o
        JOIN unnest(%(clusters)s::text[], %(topics)s::text[], %(partitions)s::smallint[])
          AS w (cluster_id, topic, kafka_partition) USING (cluster_id, topic, kafka_partition)
        WHERE o.consumer = %(consumer)s
        ORDER BY o.topic, o.kafka_partition
        FOR UPDATE OF o
        """,
        {
            "consumer": consumer,
            "clusters": [identity_of_topic[p.topic] for p in wanted],
            "topics": [p.topic for p in wanted],
            "partitions": [p.partition for p in wanted],
        },
    ).fetchall()
    return {Partition(topic, number): offset for topic, number, offset in rows}


def skip(conn: Connection, consumer: str, identity: str, broken: Unreadable) -> str | None:
    """Go past messages that cannot be read and record the gap, in the caller's transaction; return it in words.

    None if landing does not stand there any more: another worker was faster.
    """
    partition = broken.partition
    if lock(conn, consumer, {partition.topic: identity}, [partition]) != {partition: broken.from_offset}:
        return None
    cause = record_hole(conn, broken)
    _set(conn, consumer, identity, partition, broken.to_offset)
    return cause


def record_hole(conn: Connection, broken: Unreadable) -> str:
    """Record messages that cannot be read as a gap, in the caller's transaction; return it in words."""
    partition = broken.partition
    cause = (
        f"offsets {broken.from_offset} to {broken.to_offset - 1} of {partition.topic}[{partition.partition}] cannot be "
        f"taken apart ({broken.why}); they stay in Kafka for its retention"
    )
    world = gaps.world_in_force(conn)
    gaps.record(conn, _hole(world, partition, broken.from_offset, broken.to_offset, cause))
    return cause


def advance(
    conn: Connection,
    consumer: str,
    identity_of_topic: Mapping[str, str],
    next_offsets: Mapping[Partition, int],
    *,
    landed: Counter[Partition],
    duplicates: Counter[Partition],
    conflicts: Counter[Partition],
    dead: Counter[Partition],
) -> None:
    """Store the next offsets and add to the counters, in the transaction of the rows."""
    partitions: Sequence[Partition] = sorted(next_offsets)
    conn.execute(
        """
        UPDATE consumer_offsets AS o SET
            next_offset = n.next_offset,
            landed_total = landed_total + n.landed,
            duplicate_total = duplicate_total + n.duplicates,
            conflict_total = conflict_total + n.conflicts,
            dead_total = dead_total + n.dead,
            updated_at = clock_timestamp()
        FROM unnest(%(clusters)s::text[], %(topics)s::text[], %(partitions)s::smallint[], %(offsets)s::bigint[],
                    %(landed)s::bigint[], %(duplicates)s::bigint[], %(conflicts)s::bigint[], %(dead)s::bigint[])
          AS n (cluster_id, topic, kafka_partition, next_offset, landed, duplicates, conflicts, dead)
        WHERE o.consumer = %(consumer)s AND o.cluster_id = n.cluster_id AND o.topic = n.topic
          AND o.kafka_partition = n.kafka_partition
        """,
        {
            "consumer": consumer,
            "clusters": [identity_of_topic[p.topic] for p in partitions],
            "topics": [p.topic for p in partitions],
            "partitions": [p.partition for p in partitions],
            "offsets": [next_offsets[p] for p in partitions],
            "landed": [landed[p] for p in partitions],
            "duplicates": [duplicates[p] for p in partitions],
            "conflicts": [conflicts[p] for p in partitions],
            "dead": [dead[p] for p in partitions],
        },
    )


def _identify(
    conn: Connection,
    consumer: str,
    cluster_id: str,
    topic: str,
    topic_id: str,
    bounds: Mapping[Partition, Bounds],
) -> tuple[str, list[gaps.Gap], list[str]]:
    """The identity of this topic's log, the holes that finding it brought, and the topic if it was never landed."""
    stored: dict[int, list[_Stored]] = {}
    for number, *rest in conn.execute(
        "SELECT kafka_partition, cluster_id, topic_id, next_offset, updated_at FROM consumer_offsets"
        " WHERE consumer = %s AND topic = %s ORDER BY updated_at",
        [consumer, topic],
    ):
        stored.setdefault(number, []).append(_Stored(*rest))
    everything = [row for rows in stored.values() for row in rows]
    world = gaps.world_in_force(conn)
    here = [row for row in everything if row.cluster_id.partition("~")[0] == cluster_id]
    if not here:
        if not everything:
            return cluster_id, [], [topic]
        last = max(everything, key=lambda row: row.updated_at)
        cause = (
            f"{topic}: Kafka cluster {last.cluster_id} was replaced by {cluster_id}; what the old one held and was not "
            "landed is lost, landing starts at the new one's earliest offset"
        )
        return cluster_id, [_era_ends(world, topic, last, cause)], []
    same = [row for row in here if row.topic_id == topic_id]
    fresh = _next_identity(cluster_id, {row.cluster_id for row in here})
    if not same:
        last = max(here, key=lambda row: row.updated_at)
        cause = (
            f"{topic}: the topic was deleted and made anew in cluster {cluster_id}; what was not landed is lost, "
            "landing starts at its earliest offset"
        )
        return fresh, [_era_ends(world, topic, last, cause)], []
    identity = max(same, key=lambda row: _incarnation(row.cluster_id)).cluster_id
    holes = []
    for partition, (_, end) in bounds.items():
        for row in stored.get(partition.partition, []):
            if row.cluster_id == identity and row.next_offset > end:
                cause = (
                    f"{topic}[{partition.partition}]: the log ends at offset {end} but landing stood at "
                    f"{row.next_offset}: Kafka lost its tail; the log is read again from its start, "
                    "what has landed is not doubled"
                )
                holes.append(_hole(world, partition, end, row.next_offset, cause))
    return (fresh if holes else identity), holes, []


def _incarnation(identity: str) -> int:
    return int(identity.partition("~")[2] or "1")


def _next_identity(cluster_id: str, used: set[str]) -> str:
    return f"{cluster_id}~{max(_incarnation(identity) for identity in used) + 1}"


def _hole(world: str, partition: Partition, from_offset: int, to_offset: int, cause: str) -> gaps.Gap:
    source = f"kafka:{partition.topic}[{partition.partition}]"
    return gaps.Gap(world=world, source=source, cause=cause, from_offset=from_offset, to_offset=to_offset)


def _era_ends(world: str, topic: str, last: _Stored, cause: str) -> gaps.Gap:
    return gaps.Gap(world=world, source=f"kafka:{topic}", cause=cause, from_time=last.updated_at)


def _insert_missing(
    conn: Connection, consumer: str, identity: str, topic_id: str, bounds: Mapping[Partition, Bounds]
) -> None:
    for partition, (begin, _) in sorted(bounds.items()):
        conn.execute(
            """
            INSERT INTO consumer_offsets (consumer, cluster_id, topic, kafka_partition, topic_id, next_offset)
            VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
            """,
            [consumer, identity, partition.topic, partition.partition, topic_id, begin],
        )


def _set(conn: Connection, consumer: str, identity: str, partition: Partition, next_offset: int) -> None:
    conn.execute(
        "UPDATE consumer_offsets SET next_offset = %s, updated_at = clock_timestamp()"
        " WHERE consumer = %s AND cluster_id = %s AND topic = %s AND kafka_partition = %s",
        [next_offset, consumer, identity, partition.topic, partition.partition],
    )


def _cluster_numbers(conn: Connection, identities: set[str]) -> dict[str, int]:
    conn.execute(
        "INSERT INTO kafka_clusters (cluster_id) SELECT unnest(%s::text[]) AS id ORDER BY id ON CONFLICT DO NOTHING",
        [sorted(identities)],
    )
    rows = conn.execute(
        "SELECT cluster_id, cluster_no FROM kafka_clusters WHERE cluster_id = ANY(%s)", [list(identities)]
    )
    return dict(rows.fetchall())
