"""The embedded Kafka: a real broker, ours alone, and back after whatever happens to it."""

from __future__ import annotations

import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, UnknownTopicOrPartitionError

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.topics import wire_name
from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.processes import free_port, wait_until_gone
from liq_pipeline.runtime.servers import kafka_jars
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka

pytestmark = pytest.mark.xdist_group("own-broker")


@pytest.fixture(scope="module")
def broker(server_home: Path) -> Iterator[EmbeddedKafka]:
    """A broker of these tests' own: they stop and kill it. Each leaves it running."""
    home = server_home / "own-broker"
    made = EmbeddedKafka(home, free_port(), memory_mb=256)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def topic(broker: EmbeddedKafka) -> str:
    prefix = f"{uuid.uuid4().hex[:8]}."
    ensure_topics(broker.bootstrap_servers, prefix)
    return wire_name("prices", prefix)


def send(broker: EmbeddedKafka, topic: str, values: list[bytes], **options: object) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all", **options)
    try:
        for future in [producer.send(topic, value, partition=0, timestamp_ms=1) for value in values]:
            future.get(timeout=30)
    finally:
        producer.close()


def read(broker: EmbeddedKafka, topic: str, count: int) -> list[tuple[bytes, int]]:
    """(value, broker timestamp in ms) of the first count messages of partition 0."""
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, enable_auto_commit=False, consumer_timeout_ms=30_000
    )
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        consumer.seek(place, 0)
        found: list[tuple[bytes, int]] = []
        for message in consumer:
            found.append((message.value, message.timestamp))
            if len(found) == count:
                break
        return found
    finally:
        consumer.close()


def test_messages_come_back_stamped_with_the_broker_s_clock(broker: EmbeddedKafka, topic: str) -> None:
    before = time.time()
    send(broker, topic, [b"one", b"two"])
    found = read(broker, topic, 2)
    assert [value for value, _ in found] == [b"one", b"two"]
    assert all(before - 1 <= stamp / 1000 <= time.time() + 1 for _, stamp in found)


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_whatever_codec_a_producer_chose_is_taken(broker: EmbeddedKafka, topic: str, compression: str) -> None:
    try:
        send(broker, topic, [b"x" * 4096], compression_type=compression)
    except AssertionError as missing:
        pytest.skip(f"no library for this codec: {missing}")
    assert read(broker, topic, 1)[0][0] == b"x" * 4096


def test_acknowledged_messages_outlive_kill_9_under_the_same_cluster_id(broker: EmbeddedKafka, topic: str) -> None:
    values = [f"{number}".encode() for number in range(500)]
    send(broker, topic, values)
    killed = broker.identity
    assert killed is not None
    os.kill(killed.pid, signal.SIGKILL)
    assert wait_until_gone([killed], 5) == []
    cluster = broker.cluster_id
    broker.start()
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    assert admin.describe_cluster()["cluster_id"] == cluster
    admin.close()
    assert [value for value, _ in read(broker, topic, 500)] == values


def test_a_broker_left_behind_by_a_killed_owner_is_stopped_and_replaced(broker: EmbeddedKafka, topic: str) -> None:
    send(broker, topic, [b"kept"])
    orphan = broker.identity
    assert orphan is not None
    successor = EmbeddedKafka(broker.directory.parent, free_port(), memory_mb=256)
    successor.start()
    assert wait_until_gone([orphan], 5) == []
    assert successor.cluster_id == broker.cluster_id
    assert read(successor, topic, 1)[0][0] == b"kept"
    successor.stop()
    broker.start()


def test_it_listens_on_loopback_only_with_its_heap_capped(broker: EmbeddedKafka) -> None:
    identity = broker.identity
    assert identity is not None
    process = psutil.Process(identity.pid)
    addresses = {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}
    assert "-Xmx256m" in process.cmdline()


def test_a_misspelt_topic_is_an_error_not_a_new_topic(broker: EmbeddedKafka) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, max_block_ms=3_000)
    try:
        with pytest.raises(KafkaError):
            producer.send("pricess", b"x").get(timeout=10)
    finally:
        producer.close()
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    try:
        assert "pricess" not in admin.list_topics()
    except UnknownTopicOrPartitionError:  # pragma: no cover - some brokers answer so
        pytest.fail("the broker knows of the misspelt topic")
    finally:
        admin.close()


def test_a_taken_port_is_one_clear_sentence_and_leaves_nothing_running(server_home: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = int(listener.getsockname()[1])
        kafka = EmbeddedKafka(server_home / "no-port", port, memory_mb=256)
        with pytest.raises(LiqError, match=rf"Kafka did not start on port {port}"):
            kafka.start()
    assert not kafka.is_running


# -- jars ----------------------------------------------------------------------------------------------------------


def test_a_damaged_jar_is_fetched_again_and_the_others_are_left_alone(tmp_path: Path) -> None:
    have = kafka_jars.ensure_jars()
    smallest = min(kafka_jars.locked_jars(), key=lambda jar: jar.size_bytes)
    for jar in have:
        os.link(jar, tmp_path / jar.name) if jar.stat().st_dev == tmp_path.stat().st_dev else (
            tmp_path / jar.name
        ).write_bytes(jar.read_bytes())
    damaged = tmp_path / smallest.file_name
    damaged.unlink()
    damaged.write_bytes(b"\0" * smallest.size_bytes)
    untouched = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.jar") if path != damaged}
    assert {path.name for path in kafka_jars.ensure_jars(tmp_path)} == {path.name for path in have}
    assert kafka_jars._is_verified(damaged, smallest)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in untouched} == untouched
