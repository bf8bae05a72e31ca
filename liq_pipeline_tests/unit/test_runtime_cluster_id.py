"""A Kafka cluster id that Kafka's own formatter accepts, whatever the dice say."""

from __future__ import annotations

import uuid

from liq_pipeline.runtime.servers.kafka import new_cluster_id


def test_an_id_that_would_be_taken_for_an_option_is_thrown_again() -> None:
    dashed = uuid.UUID(bytes=b"\xf8" + bytes(15))  # 0xf8 >> 2 is 62, which URL-safe base 64 writes as a dash
    fine = uuid.UUID(bytes=bytes(16))
    dice = iter([dashed, dashed, fine])
    assert new_cluster_id(lambda: next(dice)) == "A" * 22


def test_ids_differ() -> None:
    assert len({new_cluster_id() for _ in range(100)}) == 100
