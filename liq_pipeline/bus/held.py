"""Partitions that somebody's open transaction holds.

Belongs here: finding them, and what Kafka knows of the transaction. Does not: what a held partition means for a world's
clock (store/landing/held.py, store/worlds.py).

We read committed messages only, so behind the first message of an open transaction nothing can be read, whoever sent
it, until the transaction ends or Kafka gives it up (after 15 min, unless its producer asked for less).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.errors import KafkaError
from kafka.protocol.consumer import OffsetSpec


class Held(NamedTuple):
    """A log that cannot be read to its end. waiting: how many offsets lie behind the first that cannot be read."""

    stable_offset: int
    waiting: int


def held(admin: Any, stable_ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, Held]:
    """Which of these partitions end, for readers of committed messages, before their log does.

    admin: a KafkaAdminClient. stable_ends: up to where each can be read; asked before, so that what was appended since
    then looks held for a moment: only what is found at the same offset again is. Raises KafkaError.
    """
    ends = admin.list_partition_offsets(dict.fromkeys(stable_ends, OffsetSpec.LATEST))
    return {
        place: Held(stable, ends[place].offset - stable)
        for place, stable in stable_ends.items()
        if place in ends and ends[place].offset > stable
    }


def holder(admin: Any, place: TopicPartition, stable_offset: int) -> str | None:
    """The transaction that begins at that offset, in words; None if there is none (any more) or Kafka does not tell."""
    try:
        producers = admin.describe_producers([place])[place].active_producers
        ids = [p.producer_id for p in producers if p.current_transaction_start_offset == stable_offset]
        if not ids:
            return None
        listed = admin.list_transactions(producer_id_filters=ids)
    except KafkaError:
        return None
    names = [found.transactional_id for of_broker in listed.values() for found in of_broker]
    return f"transaction {names[0]!r} of producer {ids[0]}" if names else f"a transaction of producer {ids[0]}"
