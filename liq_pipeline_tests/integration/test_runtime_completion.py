"""`liq up --once` is done when all is landed, every due point is scored and nothing waits to be sent."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from liq_pipeline.bus.topics import IN_TOPICS, PARTITIONS
from liq_pipeline.domain.worlds import Manifest, World
from liq_pipeline.runtime.completion import problems, progress
from liq_pipeline.store import worlds

Connection = psycopg.Connection[Any]

FIRST = datetime(2026, 6, 12, tzinfo=UTC)
LAST = FIRST + timedelta(minutes=10, seconds=30)
LAST_DUE = FIRST + timedelta(minutes=10)
WORLD = World(
    name="recorded/test",
    kind="recorded",
    market_step_seconds=60,
    flows_step_seconds=60,
    manifest=Manifest(symbols=("BTC",), expected={}),
    first_time=FIRST,
    last_time=LAST,
)


@pytest.fixture
def connection(database_url: str) -> Connection:
    made = psycopg.connect(database_url, autocommit=True)
    worlds.register(made, WORLD, activate=True)
    return made


def land_to(connection: Connection, time: datetime, *, partitions: int = PARTITIONS) -> None:
    for topic in IN_TOPICS:
        for partition in range(partitions):
            connection.execute(
                "INSERT INTO watermarks (world, topic, kafka_partition, watermark) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (world, topic, kafka_partition) DO UPDATE SET watermark = excluded.watermark",
                (WORLD.name, topic, partition, time),
            )


def score(connection: Connection, stream: str, time: datetime) -> None:
    connection.execute(
        "INSERT INTO ticks (world, stream, time, cut, started_at, rows_landed) VALUES (%s, %s, %s, '{}', now(), 0)",
        (WORLD.name, stream, time),
    )


def test_without_a_world_there_is_no_progress(database_url: str) -> None:
    assert progress(database_url) is None


def test_before_every_partition_has_spoken_nothing_is_known(connection: Connection, database_url: str) -> None:
    land_to(connection, LAST, partitions=PARTITIONS - 1)
    seen = progress(database_url)
    assert seen is not None
    assert (seen.clock, seen.is_landed, seen.is_scored, seen.is_complete) == (None, False, False, False)


def test_a_part_that_is_landed_and_scored_is_not_the_whole(connection: Connection, database_url: str) -> None:
    half = FIRST + timedelta(minutes=5)
    land_to(connection, half)
    score(connection, "market", half)
    score(connection, "flows", half)
    seen = progress(database_url)
    assert seen is not None
    assert (seen.is_landed, seen.is_scored, seen.is_complete) == (False, True, False)


@pytest.mark.parametrize(
    ("market", "flows", "complete"),
    [
        (LAST_DUE, LAST_DUE, True),
        (LAST_DUE - timedelta(minutes=1), LAST_DUE, False),
        (LAST_DUE, LAST_DUE - timedelta(minutes=1), False),
    ],
)
def test_both_streams_must_be_scored_up_to_the_last_due_point(
    connection: Connection,
    database_url: str,
    market: datetime,
    flows: datetime,
    complete: bool,
) -> None:
    land_to(connection, LAST)
    score(connection, "market", market)
    score(connection, "flows", flows)
    seen = progress(database_url)
    assert seen is not None
    assert seen.is_landed
    assert seen.is_complete is complete


def test_what_waits_to_be_sent_is_waited_for(connection: Connection, database_url: str) -> None:
    land_to(connection, LAST)
    for stream in ("market", "flows"):
        score(connection, stream, LAST_DUE)
    connection.execute(
        "INSERT INTO outbox (outbox_id, world, topic, message_key, payload, due_at) "
        "VALUES (%s, %s, 'signals', 'k', '{}', now())",
        (uuid.uuid4(), WORLD.name),
    )
    seen = progress(database_url)
    assert seen is not None
    assert (seen.outbox_due, seen.is_complete) == (1, False)
    connection.execute("UPDATE outbox SET state = 'done'")
    seen = progress(database_url)
    assert seen is not None
    assert seen.is_complete


def test_a_recording_shorter_than_a_step_has_nothing_to_score(connection: Connection, database_url: str) -> None:
    connection.execute("UPDATE worlds SET last_time = %s", (FIRST + timedelta(seconds=30),))
    land_to(connection, FIRST + timedelta(seconds=30))
    seen = progress(database_url)
    assert seen is not None
    assert seen.is_complete


def test_only_new_problems_count(connection: Connection, database_url: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert problems(database_url, before) == []
    for offset, dead_at in enumerate((datetime.now(UTC), before - timedelta(days=1))):
        connection.execute(
            "INSERT INTO dead_letters (cluster_id, topic, kafka_partition, kafka_offset, reason_code, reason, dead_at) "
            "VALUES ('c', 'prices', 0, %s, 'not_json', 'truncated', %s)",
            (offset, dead_at),
        )
    assert problems(database_url, before) == ["1 messages lie in dead_letters with the reason not_json"]
