"""Landing under faults: killed at any moment, cut off, over a log that moved, fed with noise."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.codec import encode
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.bus.reader import ReadError
from liq_pipeline.bus.topics import IN_TOPICS, wire_name
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.store.completeness import gaps
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing import dead_letters
from liq_pipeline.store.landing import lander as landing
from liq_pipeline.store.landing.lander import Lander, LandingError, LandResult
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.landing_support import (
    T0,
    RawProducer,
    count,
    liquidation,
    price,
    raw,
    select,
)


class Load:
    """A producer that keeps sending liquidations from a thread; `sent` is what Kafka acknowledged once stopped."""

    def __init__(self, bootstrap_servers: str, prefix: str, seed: int) -> None:
        self.sent: set[str] = set()
        self._stop = threading.Event()
        self._random = random.Random(seed)
        self._arguments = (bootstrap_servers, prefix)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with RecordProducer(*self._arguments) as producer:
            number = 0
            while not self._stop.is_set():
                for _ in range(self._random.randint(1, 40)):
                    record = liquidation(number / 10, event_id=f"e{number}", symbol=f"S{number % 7}")
                    producer.send(record)
                    if self._random.random() < 0.05:
                        producer.send(record)
                    self.sent.add(record.event_id)
                    number += 1
                self._stop.wait(0.02)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def _land_for_ever(database_url: str, bootstrap_servers: str, prefix: str, progress: Connection) -> None:
    with Lander(database_url, bootstrap_servers, prefix, max_records=50) as lander:
        lander.run(threading.Event(), lambda result: progress.send_bytes(b"."))


def assert_exactly(database_url: str, sent: set[str]) -> None:
    """Every acknowledged event is there once, and the counters say the same."""
    rows = [row[0] for row in select(database_url, "SELECT event_id FROM liquidations")]
    assert len(rows) == len(set(rows))
    assert set(rows) == sent
    assert select(database_url, "SELECT sum(landed_total) FROM consumer_offsets") == [(len(sent),)]
    assert count(database_url, "dead_letters") == count(database_url, "row_conflicts") == 0


def kill_landing_at_random_moments(database_url: str, kafka_server: str, prefix: str, kills: int, seed: int) -> None:
    """Kill landing `kills` times under load, let a last one finish, and compare the rows with what was sent."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["liq_pipeline.store.landing.lander"])
    moments = random.Random(seed)
    arguments = (database_url, kafka_server, prefix)
    landed_at_kill = []
    with Load(kafka_server, prefix, seed=seed) as load:
        for _ in range(kills):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_land_for_ever, args=(*arguments, sender), daemon=True)
            process.start()
            sender.close()
            # Most kills hit landing at work, some hit it while it opens and looks where it stands.
            if moments.random() < 0.8:
                assert receiver.poll(60)
            time.sleep(moments.uniform(0, 0.3))
            assert process.is_alive()
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join(30)
            receiver.close()
            landed_at_kill.append(count(database_url, "liquidations"))
    assert len(set(landed_at_kill)) > kills // 2
    with Lander(database_url, kafka_server, prefix) as lander:
        assert lander.land_to_end(60).reached_end
    assert_exactly(database_url, load.sent)


def test_a_landing_process_killed_at_random_moments_loses_and_doubles_nothing(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    kill_landing_at_random_moments(database_url, kafka_server, topic_prefix, kills=12, seed=20)


def test_the_same_on_hypertables(timescale_url: str, kafka_server: str, topic_prefix: str) -> None:
    migrate(timescale_url)
    kill_landing_at_random_moments(timescale_url, kafka_server, topic_prefix, kills=8, seed=21)


def test_a_full_disk_stops_landing_with_a_clear_sentence_and_loses_nothing(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    """The server's own error, raised by a trigger: only root could mount a disk that is really full."""
    with connect(database_url) as conn:
        conn.execute(
            "CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$"
        )
        conn.execute("CREATE TRIGGER full_disk BEFORE INSERT ON prices FOR EACH ROW EXECUTE FUNCTION full()")
    send_prices(kafka_server, topic_prefix, range(10))
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        with pytest.raises(LandingError, match="disk is full: landing stands still, nothing is lost"):
            lander.land_to_end(60)
        assert count(database_url, "prices") == count(database_url, "dead_letters") == 0
        with connect(database_url) as conn:
            conn.execute("DROP TRIGGER full_disk ON prices")
        assert lander.land_to_end(60).rows_landed == 10


def test_a_connection_cut_again_and_again_is_not_the_records_fault(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    stop = threading.Event()
    total = LandResult()

    def note(result: LandResult) -> None:
        nonlocal total
        total += result

    with Load(kafka_server, topic_prefix, seed=2) as load:
        lander = Lander(database_url, kafka_server, topic_prefix, max_records=50)
        worker = threading.Thread(target=lander.run, args=(stop, note), daemon=True)
        worker.start()
        with connect(database_url) as conn:
            conn.autocommit = True
            cut = landed_before = 0
            deadline = time.monotonic() + 120
            while cut < 8 and time.monotonic() < deadline:
                # Only after progress: a server that never stays up long enough is rightly given up after a few tries.
                if total.batches > landed_before:
                    landed_before = total.batches
                    cut += conn.execute(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                        " WHERE application_name = 'liq landing' AND datname = current_database()"
                    ).fetchall()[0][0]
                time.sleep(0.01)
    stop.set()
    worker.join(60)
    assert not worker.is_alive()
    assert cut >= 8
    lander.close()
    with Lander(database_url, kafka_server, topic_prefix) as last:
        total += last.land_to_end(60)
    assert total.dead == 0
    assert_exactly(database_url, load.sent)


def test_servers_that_are_not_there_are_said_in_one_sentence(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    with pytest.raises(ReadError, match="does not answer"):
        Lander(database_url, "127.0.0.1:1", topic_prefix, connect_timeout_seconds=1).land_batch()
    with pytest.raises(ReadError, match=r"has no topic .*nobody\.prices.*: run liq topics"):
        Lander(database_url, kafka_server, "nobody.").land_batch()
    with pytest.raises(LandingError, match=r"PostgreSQL failed .* nothing is lost") as caught:
        Lander("postgresql://u:secret@127.0.0.1:1/d", kafka_server, topic_prefix).land_batch()
    assert "secret" not in str(caught.value)


def test_a_database_without_schema_asks_for_migration(
    empty_database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    with pytest.raises(LandingError, match="run liq migrate"):
        Lander(empty_database_url, kafka_server, topic_prefix).land_batch()


# -- logs that moved -------------------------------------------------------------------------------------------


@pytest.fixture
def admin(kafka_server: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=kafka_server)
    yield client
    client.close()


def send_prices(kafka_server: str, prefix: str, seconds: range) -> None:
    with RecordProducer(kafka_server, prefix) as producer:
        for second in seconds:
            producer.send(price(second))


def land(database_url: str, kafka_server: str, prefix: str) -> LandResult:
    with Lander(database_url, kafka_server, prefix) as lander:
        result = lander.land_to_end(60)
    assert result.reached_end
    return result


def price_partition(database_url: str) -> int:
    return int(select(database_url, "SELECT DISTINCT kafka_partition FROM prices")[0][0])


def test_offsets_deleted_before_they_were_landed_are_a_gap(
    database_url: str, kafka_server: str, topic_prefix: str, admin: KafkaAdminClient
) -> None:
    send_prices(kafka_server, topic_prefix, range(10))
    assert land(database_url, kafka_server, topic_prefix).rows_landed == 10
    send_prices(kafka_server, topic_prefix, range(10, 30))
    partition = price_partition(database_url)
    admin.delete_records({TopicPartition(wire_name("prices", topic_prefix), partition): 25})

    result = land(database_url, kafka_server, topic_prefix)

    assert (result.rows_landed, result.gaps) == (5, 1)
    with connect(database_url) as conn:
        (gap,) = gaps.unhealed(conn)
        assert (gap.source, gap.from_offset, gap.to_offset) == (f"kafka:prices[{partition}]", 10, 25)
        assert "deleted offsets 10 to 24" in gap.cause
        assert gap.world == "real"
        gaps.mark_permanent(conn, gap.gap_id, "the test says so")
        assert gaps.unhealed(conn) == []
    assert land(database_url, kafka_server, topic_prefix).gaps == 0


def test_a_log_cut_under_a_running_lander_is_a_gap_and_it_goes_on(
    database_url: str, kafka_server: str, topic_prefix: str, admin: KafkaAdminClient
) -> None:
    send_prices(kafka_server, topic_prefix, range(10))
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        assert lander.land_to_end(60).rows_landed == 10
        send_prices(kafka_server, topic_prefix, range(10, 30))
        admin.delete_records({TopicPartition(wire_name("prices", topic_prefix), price_partition(database_url)): 25})
        result = lander.land_to_end(60)
    assert (result.rows_landed, result.gaps, result.reached_end) == (5, 1, True)


def test_a_topic_made_anew_is_a_gap_and_is_read_from_its_start(
    database_url: str, kafka_server: str, topic_prefix: str, admin: KafkaAdminClient
) -> None:
    """Its offsets begin again: without its identity the new records below the old offset would be skipped silently."""
    with RawProducer(kafka_server, topic_prefix) as producer:
        producer.send("prices", b"old garbage", partition=0)
        for second in range(20):
            producer.send("prices", encode(price(second)), partition=0)
    assert land(database_url, kafka_server, topic_prefix).dead == 1
    admin.delete_topics([wire_name("prices", topic_prefix)])
    deadline = time.monotonic() + 30
    while wire_name("prices", topic_prefix) in admin.list_topics():
        assert time.monotonic() < deadline
    ensure_topics(kafka_server, topic_prefix)
    with RawProducer(kafka_server, topic_prefix) as producer:
        producer.send("prices", b"new garbage", partition=0)
        for second in range(15, 25):
            producer.send("prices", encode(price(second)), partition=0)

    result = land(database_url, kafka_server, topic_prefix)

    assert (result.rows_landed, result.duplicates, result.dead, result.gaps) == (5, 5, 1, 1)
    with connect(database_url) as conn:
        (gap,) = gaps.unhealed(conn)
        assert "deleted and made anew" in gap.cause
        letters = dead_letters.list_letters(conn)
    # The same partition and offset twice, told apart by the log's identity.
    assert {letter.value_bytes for letter in letters} == {b"old garbage", b"new garbage"}
    assert len({letter.cluster_id for letter in letters}) == 2
    assert land(database_url, kafka_server, topic_prefix).read == 0


def test_a_topic_made_anew_under_a_running_worker_is_noticed(
    database_url: str,
    kafka_server: str,
    topic_prefix: str,
    admin: KafkaAdminClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fetch names topic and offset: the new log, longer than the old one was, answers as if nothing had happened."""
    monkeypatch.setattr(landing, "IDENTITY_SECONDS", 0.2)

    def eventually_landed(number: int) -> None:
        deadline = time.monotonic() + 60
        while count(database_url, "prices") != number:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    send_prices(kafka_server, topic_prefix, range(10))
    stop = threading.Event()
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        worker = threading.Thread(target=lander.run, args=(stop,), daemon=True)
        worker.start()
        eventually_landed(10)
        admin.delete_topics([wire_name("prices", topic_prefix)])
        deadline = time.monotonic() + 30
        while wire_name("prices", topic_prefix) in admin.list_topics():
            assert time.monotonic() < deadline
        ensure_topics(kafka_server, topic_prefix)
        send_prices(kafka_server, topic_prefix, range(100, 140))
        eventually_landed(50)
        stop.set()
        worker.join(30)
        assert not worker.is_alive()
    with connect(database_url) as conn:
        (gap,) = gaps.unhealed(conn)
    assert "deleted and made anew" in gap.cause
    assert "deleted and made anew" in caplog.text


def test_a_changed_kafka_is_looked_at_only_after_the_batch_under_way(
    database_url: str, kafka_server: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both use the one connection: begun inside the other's transaction, the look would end or undo the batch."""
    looked = threading.Event()
    overlaps: list[bool] = []
    write, synchronise = landing.write_batch, landing.landing_offsets.synchronise

    def slow_write(*arguments: Any) -> LandResult:
        looked.clear()
        result = write(*arguments)
        overlaps.append(looked.wait(0.3))
        return result

    def look(*arguments: Any) -> landing.Standing:
        looked.set()
        return synchronise(*arguments)

    monkeypatch.setattr(landing, "IDENTITY_SECONDS", 0.0)
    monkeypatch.setattr(landing, "write_batch", slow_write)
    monkeypatch.setattr(landing.landing_offsets, "synchronise", look)
    monkeypatch.setattr(landing.TopicReader, "is_unchanged", lambda _: False)
    send_prices(kafka_server, topic_prefix, range(10))
    with Lander(database_url, kafka_server, topic_prefix, max_records=4) as lander:
        lander.land_to_end(60)
    assert len(overlaps) >= 3
    assert not any(overlaps)
    assert count(database_url, "prices") == 10


def test_a_log_that_lost_its_tail_is_read_again_without_doubles(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    send_prices(kafka_server, topic_prefix, range(10))
    land(database_url, kafka_server, topic_prefix)
    partition = price_partition(database_url)
    with connect(database_url) as conn:  # as if five more had been landed before the broker lost them
        conn.execute(
            "UPDATE consumer_offsets SET next_offset = 15 WHERE topic = 'prices' AND kafka_partition = %s", [partition]
        )
    result = land(database_url, kafka_server, topic_prefix)
    assert (result.rows_landed, result.duplicates, result.gaps) == (0, 10, 1)
    with connect(database_url) as conn:
        (gap,) = gaps.unhealed(conn)
    assert (gap.from_offset, gap.to_offset) == (10, 15)
    send_prices(kafka_server, topic_prefix, range(10, 12))
    assert land(database_url, kafka_server, topic_prefix).rows_landed == 2


def test_lost_offsets_cost_time_not_correctness(database_url: str, kafka_server: str, topic_prefix: str) -> None:
    send_prices(kafka_server, topic_prefix, range(10))
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        lander.land_to_end(60)
        with connect(database_url) as conn:
            conn.execute("DELETE FROM consumer_offsets")
        send_prices(kafka_server, topic_prefix, range(10, 12))
        result = lander.land_to_end(60)
    assert (result.rows_landed, result.duplicates, result.conflicts) == (2, 10, 0)
    assert count(database_url, "prices") == 12


def test_a_wiped_kafka_is_said_recorded_and_survived(database_url: str, new_home: Path) -> None:
    broker = EmbeddedKafka(new_home, free_port(), memory_mb=192)
    broker.start()
    try:
        ensure_topics(broker.bootstrap_servers)
        send_prices(broker.bootstrap_servers, "", range(10))
        first = land(database_url, broker.bootstrap_servers, "")
        assert (first.rows_landed, first.gaps) == (10, 0)
        assert any("is new here" in notice for notice in first.notices)
        broker.stop()
        shutil.rmtree(new_home / "kafka")
        broker.start()
        ensure_topics(broker.bootstrap_servers)
        send_prices(broker.bootstrap_servers, "", range(8, 13))

        second = land(database_url, broker.bootstrap_servers, "")
    finally:
        broker.stop()
    assert (second.rows_landed, second.duplicates, second.gaps) == (3, 2, len(IN_TOPICS))
    assert any("was replaced by" in notice for notice in second.notices)
    with connect(database_url) as conn:
        assert {gap.source for gap in gaps.unhealed(conn)} == {f"kafka:{topic}" for topic in IN_TOPICS}
    assert count(database_url, "kafka_clusters") == 2


# -- noise -----------------------------------------------------------------------------------------------------


class _BadName(str):
    """A header name as a careless client writes it: not UTF-8."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfename"


def test_a_batch_that_cannot_be_taken_apart_is_a_gap_and_the_rest_lands(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    with RawProducer(kafka_server, topic_prefix) as producer:
        for second in range(3):
            producer.send("prices", encode(price(second)), partition=1)
    with RawProducer(kafka_server, topic_prefix) as producer:
        producer.send("prices", encode(price(3)), partition=1, headers=[(_BadName("name"), b"x")])
    with RawProducer(kafka_server, topic_prefix) as producer:
        producer.send("prices", encode(price(4)), partition=1)
        producer.send("liquidations", encode(liquidation(0)))

    result = land(database_url, kafka_server, topic_prefix)

    assert (result.landed, result.gaps) == ({"prices": 4, "liquidations": 1}, 1)
    with connect(database_url) as conn:
        (gap,) = gaps.unhealed(conn)
    assert (gap.source, gap.from_offset, gap.to_offset) == ("kafka:prices[1]", 3, 4)
    assert "cannot be taken apart" in gap.cause
    assert land(database_url, kafka_server, topic_prefix).read == 0


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_compression_of_a_producer_is_read(
    database_url: str, kafka_server: str, topic_prefix: str, codec: str
) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=kafka_server, compression_type=codec, linger_ms=50)
    for second in range(20):
        producer.send(wire_name("prices", topic_prefix), encode(price(second)))
    producer.close()
    assert land(database_url, kafka_server, topic_prefix).rows_landed == 20


def test_a_record_of_the_far_future_waits_in_dead_letters_until_its_time(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    later = T0 + timedelta(days=36_500)
    with RawProducer(kafka_server, topic_prefix) as producer:
        producer.send("prices", raw(price(), event_time=later.isoformat(), received_at=later.isoformat()))
    assert land(database_url, kafka_server, topic_prefix).dead == 1
    assert select(database_url, "SELECT reason_code FROM dead_letters") == [("future_event",)]
