"""Partitions that an open transaction holds: which, since when, by whom.

Belongs here: the table `held_partitions`. Does not: asking Kafka (bus/held.py), a world's clock (the view
`world_clocks`, which leaves out of a simulated world's clock what has been held for more than 5 s).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

import psycopg

from liq_pipeline.bus.held import Held
from liq_pipeline.bus.reader import Partition

HELD_AFTER: Final = timedelta(seconds=5)
"""A transaction that ends within this is business as usual. As in the view world_clocks."""

Connection = psycopg.Connection[Any]


def note(
    conn: Connection,
    consumer: str,
    identity_of_topic: Mapping[str, str],
    asked: Iterable[Partition],
    found: Mapping[Partition, Held],
    holder: Callable[[Partition, int], str | None],
) -> list[str]:
    """Take over what Kafka says now, in the caller's transaction; sentences about partitions that are newly held.

    asked: the partitions that were looked at; several workers may each look at their own. found: those that are held.
    holder: names the transaction at an offset of a partition; asked once for each that has been held for a while.
    """
    places = sorted(found)
    looked_at = sorted(asked)
    arguments = {
        "consumer": consumer,
        "asked_topics": [place.topic for place in looked_at],
        "asked_partitions": [place.partition for place in looked_at],
        "clusters": [identity_of_topic[place.topic] for place in places],
        "topics": [place.topic for place in places],
        "partitions": [place.partition for place in places],
        "offsets": [found[place].stable_offset for place in places],
        "waiting": [found[place].waiting for place in places],
    }
    conn.execute(
        """
        DELETE FROM held_partitions AS h WHERE h.consumer = %(consumer)s
          AND (h.topic, h.kafka_partition) IN (
            SELECT * FROM unnest(%(asked_topics)s::text[], %(asked_partitions)s::smallint[]))
          AND NOT EXISTS (
            SELECT FROM unnest(%(clusters)s::text[], %(topics)s::text[], %(partitions)s::smallint[],
                               %(offsets)s::bigint[]) AS n (cluster_id, topic, kafka_partition, stable_offset)
            WHERE n.cluster_id = h.cluster_id AND n.topic = h.topic AND n.kafka_partition = h.kafka_partition
              AND n.stable_offset = h.stable_offset)
        """,
        arguments,
    )
    if not places:
        return []
    unnamed = conn.execute(
        """
        INSERT INTO held_partitions AS h
            (consumer, cluster_id, topic, kafka_partition, stable_offset, waiting_messages)
        SELECT %(consumer)s, * FROM unnest(%(clusters)s::text[], %(topics)s::text[], %(partitions)s::smallint[],
                                           %(offsets)s::bigint[], %(waiting)s::bigint[])
        ON CONFLICT (consumer, cluster_id, topic, kafka_partition)
        DO UPDATE SET waiting_messages = excluded.waiting_messages, seen_at = clock_timestamp()
        RETURNING h.topic, h.kafka_partition, h.stable_offset, h.held_by,
                  clock_timestamp() - h.held_since > %(after)s
        """,
        {**arguments, "after": HELD_AFTER},
    ).fetchall()
    said = []
    for topic, number, offset, held_by, is_long in unnamed:
        if held_by is not None or not is_long:
            continue
        name = holder(Partition(topic, number), offset) or "a transaction that Kafka does not name"
        conn.execute(
            "UPDATE held_partitions SET held_by = %s WHERE consumer = %s AND topic = %s AND kafka_partition = %s",
            [name, consumer, topic, number],
        )
        said.append(sentence(topic, number, offset, name))
    return said


def sentence(topic: str, number: int, offset: int, held_by: str | None) -> str:
    """A held partition in words, and what to do."""
    return (
        f"{topic}[{number}] can be read only up to offset {offset}: {held_by or 'an open transaction'} holds what lies "
        "behind it; it lands once that ends (kafka-transactions.sh abort ends it)"
    )
