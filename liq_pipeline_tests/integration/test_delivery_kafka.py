"""Publishing the outbox on the real Kafka: at least once, keyed by row id, and never lost while the broker is away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from pydantic import SecretStr

from liq_pipeline.alerting.book import advance
from liq_pipeline.alerting.sending.delivery import deliver_due
from liq_pipeline.alerting.sending.outbox import enqueue_signals
from liq_pipeline.bus.topics import PARTITIONS, wire_name
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.alert_support import VERSION, point, series, world


def published(servers: str, prefix: str, topic: str) -> list[tuple[str, dict[str, Any]]]:
    """(key, value) of everything in a topic."""
    name = wire_name(topic, prefix)
    consumer = KafkaConsumer(
        bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest", group_id=None
    )
    try:
        partitions = [TopicPartition(name, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        left = sum(consumer.end_offsets(partitions).values())
        found = []
        deadline = datetime.now(UTC) + timedelta(seconds=30)
        while len(found) < left and datetime.now(UTC) < deadline:
            for records in consumer.poll(timeout_ms=500).values():
                found += [(record.key.decode(), json.loads(record.value)) for record in records]
        assert len(found) == left
        return found
    finally:
        consumer.close()


def states(database_url: str, topic: str) -> list[tuple[str, int]]:
    with connect(database_url) as connection:
        return connection.execute(
            "SELECT state, attempts FROM outbox WHERE topic = %s ORDER BY created_at", [topic]
        ).fetchall()


@pytest.fixture
def kafka_settings(kafka_server: str, topic_prefix: str) -> Settings:
    return Settings(kafka_bootstrap_servers=kafka_server, kafka_topic_prefix=topic_prefix)


def test_sixty_points_of_twenty_symbols_are_published_in_one_go(
    database_url: str, kafka_settings: Settings, kafka_server: str, topic_prefix: str
) -> None:
    points = [point(i, {f"C{n}": 10.0 for n in range(20)}) for i in range(60)]
    with connect(database_url) as connection:
        enqueue_signals(connection, world(), points, score_version=VERSION)
    report = deliver_due(database_url, kafka_settings)
    assert (report.published_rows, report.published_messages, report.still_due, report.errors) == (60, 1200, 0, [])
    found = published(kafka_server, topic_prefix, "signals")
    assert len({key for key, _ in found}) == 1200
    assert all(key == value["id"] for key, value in found)
    assert {value["symbol"] for _, value in found} == {f"C{n}" for n in range(20)}
    assert found[0][1]["schema_version"] == 1
    assert states(database_url, "signals") == [("done", 1)] * 60


def test_changes_and_messages_of_alerts_are_published_with_their_receipts(
    database_url: str, kafka_settings: Settings, kafka_server: str, topic_prefix: str
) -> None:
    with connect(database_url) as connection:
        advance(connection, world("simulated/7"), series("BTC", [60.0]), kafka_settings, VERSION)
    deliver_due(database_url, kafka_settings)
    found = published(kafka_server, topic_prefix, "alerts")
    assert sorted((value["type"], value["kind"]) for _, value in found) == [("change", "opened"), ("message", "opened")]
    for key, value in found:
        assert key == value["id"]
        assert (value["world"], value["is_real"]) == ("simulated/7", False)
        assert value["receipt"]["sum_check"]["adds_up"] is True


def test_a_broker_that_is_away_leaves_the_rows_due_and_says_so(
    database_url: str, kafka_settings: Settings, kafka_server: str, topic_prefix: str
) -> None:
    with connect(database_url) as connection:
        advance(connection, world(), series("BTC", [60.0]), kafka_settings, VERSION)
    away = kafka_settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})
    report = deliver_due(database_url, away, kafka_timeout_seconds=1.5)
    assert report.published_rows == 0
    assert report.still_due == 2
    assert "does not answer" in report.errors[0]
    assert states(database_url, "alerts") == [("due", 0), ("due", 0)]
    assert deliver_due(database_url, kafka_settings).published_rows == 2
    assert len(published(kafka_server, topic_prefix, "alerts")) == 2


def test_people_are_told_while_the_broker_is_away(database_url: str) -> None:
    from liq_pipeline_tests.alert_receiver import receiver

    with receiver() as hook:
        settings = Settings(alert_urls=(SecretStr(hook.url),), kafka_bootstrap_servers=f"127.0.0.1:{free_port()}")
        with connect(database_url) as connection:
            advance(connection, world(), series("BTC", [60.0]), settings, VERSION)
        assert deliver_due(database_url, settings, kafka_timeout_seconds=1.5).sent == 1
        assert len(hook.messages) == 1


def test_without_a_broker_in_the_settings_the_rows_wait_and_the_report_says_why(database_url: str) -> None:
    with connect(database_url) as connection:
        advance(connection, world(), series("BTC", [60.0]), Settings(), VERSION)
    assert deliver_due(database_url, Settings()).errors == [
        "signals and alerts are not published: LIQ_KAFKA_BOOTSTRAP_SERVERS is not set"
    ]


def test_a_message_too_large_for_kafka_fails_alone(
    database_url: str, kafka_settings: Settings, kafka_server: str, topic_prefix: str
) -> None:
    with connect(database_url) as connection:
        advance(connection, world(), series("BTC", [60.0]), kafka_settings, VERSION)
        connection.execute(
            "UPDATE outbox SET payload = payload || jsonb_build_object('padding', repeat('x', 2000000))"
            " WHERE topic = 'alerts' AND payload ->> 'type' = 'change'"
        )
    report = deliver_due(database_url, kafka_settings)
    assert (report.published_rows, report.failed) == (1, 1)
    assert sorted(states(database_url, "alerts")) == [("done", 1), ("failed", 1)]
    assert len(published(kafka_server, topic_prefix, "alerts")) == 1


def test_a_process_killed_between_publishing_and_committing_publishes_again_under_the_same_keys(
    database_url: str, kafka_settings: Settings, kafka_server: str, topic_prefix: str
) -> None:
    with connect(database_url) as connection:
        advance(connection, world(), series("BTC", [60.0]), kafka_settings, VERSION)
    dies = textwrap.dedent(
        """
        import os, signal, sys
        from liq_pipeline.alerting.sending import delivery
        from liq_pipeline.bus.producer import RecordProducer
        from liq_pipeline.settings import Settings

        real = RecordProducer.flush

        def flush_and_die(self, timeout_seconds=30.0):
            real(self, timeout_seconds)
            os.kill(os.getpid(), signal.SIGKILL)

        RecordProducer.flush = flush_and_die
        delivery.deliver_due(sys.argv[1], Settings())
        """
    )
    environment = {
        **os.environ,
        "LIQ_KAFKA_BOOTSTRAP_SERVERS": kafka_server,
        "LIQ_KAFKA_TOPIC_PREFIX": topic_prefix,
    }
    killed = subprocess.run([sys.executable, "-c", dies, database_url], env=environment, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with connect(database_url) as connection:
        connection.execute("SET lock_timeout = '20s'")
        connection.execute("SELECT 1 FROM outbox FOR UPDATE")
    assert deliver_due(database_url, kafka_settings).published_rows == 2
    found = published(kafka_server, topic_prefix, "alerts")
    assert len(found) == 4
    assert len({key for key, _ in found}) == 2
