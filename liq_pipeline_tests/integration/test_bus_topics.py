"""Topics as promised, and a producer whose word can be taken."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from liq_pipeline.bus.admin import TOPIC_CONFIG, TopicsError, ensure_topics
from liq_pipeline.bus.codec import encode
from liq_pipeline.bus.producer import PublishError, RecordProducer
from liq_pipeline.bus.reader import Partition, ReadError, TopicReader
from liq_pipeline.bus.topics import IN_TOPICS, OUT_TOPICS, PARTITIONS, key_of, wire_name
from liq_pipeline.domain.records import RecordError
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline_tests.landing_support import T0, heartbeat, price, stablecoin_flow


@pytest.fixture
def admin(kafka_server: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=kafka_server)
    yield client
    client.close()


@pytest.fixture
def unused_prefix(admin: KafkaAdminClient) -> Iterator[str]:
    prefix = f"t{uuid.uuid4().hex[:10]}."
    yield prefix
    admin.delete_topics([name for name in admin.list_topics() if name.startswith(prefix)], raise_errors=False)


def test_all_eight_topics_are_made_once(kafka_server: str, admin: KafkaAdminClient, unused_prefix: str) -> None:
    names = [wire_name(topic, unused_prefix) for topic in (*IN_TOPICS, *OUT_TOPICS)]
    assert ensure_topics(kafka_server, unused_prefix) == [f"created {name}" for name in names]
    assert ensure_topics(kafka_server, unused_prefix) == []
    for topic in admin.describe_topics(names):
        assert len(topic["partitions"]) == PARTITIONS
    found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, names[0])], config_filter="all")["topic"]
    assert {key: found[names[0]][key]["value"] for key in TOPIC_CONFIG} == {
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(7 * 24 * 3600 * 1000),
        "cleanup.policy": "delete",
    }


def test_two_at_once_make_all_topics(kafka_server: str, admin: KafkaAdminClient, unused_prefix: str) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            ensure_topics(kafka_server, unused_prefix)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len([name for name in admin.list_topics() if name.startswith(unused_prefix)]) == 8


def test_a_topic_made_by_hand_is_corrected(kafka_server: str, admin: KafkaAdminClient, unused_prefix: str) -> None:
    name = wire_name("prices", unused_prefix)
    admin.create_topics({name: {"num_partitions": 3, "configs": {"message.timestamp.type": "CreateTime"}}})
    done = ensure_topics(kafka_server, unused_prefix)
    assert f"created {name}" not in done
    (corrected,) = [entry for entry in done if entry.startswith("corrected")]
    assert "message.timestamp.type" in corrected
    assert name in corrected
    assert ensure_topics(kafka_server, unused_prefix) == []


def test_too_few_partitions_are_refused_in_one_sentence(
    kafka_server: str, admin: KafkaAdminClient, unused_prefix: str
) -> None:
    admin.create_topics({wire_name("prices", unused_prefix): {"num_partitions": 1}})
    with pytest.raises(TopicsError, match=r"prices has 1 partitions and needs 3"):
        ensure_topics(kafka_server, unused_prefix)


def test_a_cluster_that_is_not_there_is_said() -> None:
    with pytest.raises(TopicsError, match="does not answer"):
        ensure_topics("127.0.0.1:1", timeout_seconds=1)
    with pytest.raises(PublishError, match="does not answer"):
        RecordProducer("127.0.0.1:1", delivery_timeout_seconds=1)
    with pytest.raises(ReadError, match="does not answer"):
        TopicReader("127.0.0.1:1", timeout_seconds=1)


def test_records_keep_their_order_and_carry_the_brokers_time(kafka_server: str, topic_prefix: str) -> None:
    with RecordProducer(kafka_server, topic_prefix) as producer:
        for second in range(50):
            producer.send(price(second))
    with TopicReader(kafka_server, topic_prefix) as reader:
        bounds = reader.bounds()
        reader.seek({partition: bound.begin for partition, bound in bounds.items()})
        (polled,) = reader.poll(1000, 10).items()
        partition, messages = polled
    assert partition.topic == "prices"
    assert [message.offset for message in messages] == list(range(50))
    assert {message.key for message in messages} == {b"BTC"}
    for message in messages:
        assert abs(datetime.fromtimestamp(message.timestamp / 1000, UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    assert bounds[partition].end == 50


def test_flows_are_keyed_by_chain_and_token() -> None:
    assert key_of(stablecoin_flow()) == b"ethereum:USDT"
    assert key_of(price()) == b"BTC"


def test_a_watermark_reaches_every_partition_behind_what_was_sent(kafka_server: str, topic_prefix: str) -> None:
    with RecordProducer(kafka_server, topic_prefix) as producer:
        producer.send(price())
        producer.send_watermark("simulated/7", T0)
    with TopicReader(kafka_server, topic_prefix) as reader:
        ends = {partition: bound.end for partition, bound in reader.bounds().items()}
        assert set(ends) == {Partition(topic, number) for topic in IN_TOPICS for number in range(PARTITIONS)}
        assert sorted(ends.values()) == [1] * 17 + [2]
        reader.seek(dict.fromkeys(ends, 0))
        seen: dict[Partition, list[bytes]] = {}
        while sum(map(len, seen.values())) < 19:
            for partition, messages in reader.poll(100, 10).items():
                seen.setdefault(partition, []).extend(
                    dict(message.headers).get("record_type", b"-") for message in messages
                )
    assert sorted(map(tuple, seen.values())) == [(b"-", b"watermark")] + [(b"watermark",)] * 17


def test_what_cannot_be_true_is_not_sent(kafka_server: str, topic_prefix: str) -> None:
    with RecordProducer(kafka_server, topic_prefix) as producer:
        with pytest.raises(RecordError, match="cannot belong to world"):
            producer.send(price(world="simulated/1"))
        with pytest.raises(ValueError, match="heartbeats belong to liquidations and stablecoin_flows"):
            producer.send_heartbeat("prices", heartbeat())


def test_a_message_that_is_not_acknowledged_is_raised_by_flush(
    kafka_server: str, admin: KafkaAdminClient, unused_prefix: str
) -> None:
    """A message larger than the broker takes: the one failure that no retry mends."""
    admin.create_topics(
        {wire_name("prices", unused_prefix): {"num_partitions": 3, "configs": {"max.message.bytes": "2000"}}},
        wait_for_metadata=True,
    )
    with RecordProducer(kafka_server, unused_prefix) as producer:
        producer.send_bytes("prices", b"x" * 5000, partition=0)
        with pytest.raises(PublishError, match="1 messages were not acknowledged"):
            producer.flush()
        producer.send(price())
        producer.flush()


def test_a_topic_that_is_not_there_is_said(kafka_server: str) -> None:
    with RecordProducer(kafka_server, "nobody.", delivery_timeout_seconds=2) as producer:
        with pytest.raises(PublishError, match="prices"):
            producer.send(price())
        with pytest.raises(PublishError, match="prices"):
            producer.send_watermark("simulated/1", T0)


def test_aborted_transactions_do_not_land_and_their_markers_do_not_hold_landing_back(
    kafka_server: str, topic_prefix: str, database_url: str
) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka_server, transactional_id=topic_prefix)
    producer.init_transactions()
    for second, is_kept in ((0, False), (1, True), (2, False)):
        producer.begin_transaction()
        producer.send(wire_name("prices", topic_prefix), encode(price(second)), partition=0)
        producer.commit_transaction() if is_kept else producer.abort_transaction()
    producer.close()
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        result = lander.land_to_end(30)
        assert (result.read, result.rows_landed, result.reached_end) == (1, 1, True)
        again = lander.land_to_end(30)
        assert (again.read, again.reached_end) == (0, True)
