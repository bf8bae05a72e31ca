"""Foreign clients of Kafka: what one of them sends, or leaves open, must neither stop landing nor fill memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kafka import KafkaProducer
from psycopg.rows import dict_row

from liq_pipeline.bus import unpack
from liq_pipeline.bus.codec import MAX_VALUE_BYTES, encode
from liq_pipeline.bus.held import Held
from liq_pipeline.bus.reader import Partition
from liq_pipeline.bus.topics import IN_TOPICS, PARTITIONS, wire_name
from liq_pipeline.bus.uncompress import MAX_UNPACKED_BYTES, uncompress
from liq_pipeline.defs.live import due
from liq_pipeline.domain.records import Watermark
from liq_pipeline.domain.worlds import Manifest, World
from liq_pipeline.operations.status import Status, _read_held
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing import dead_letters, held
from liq_pipeline.store.landing import lander as lander_module
from liq_pipeline.store.landing.lander import DatabaseAwayError, Lander
from liq_pipeline_tests.landing_support import SAMPLES, T0, count, price, select

WORLD = World(
    name="simulated/neighbours",
    kind="simulated",
    market_step_seconds=10,
    flows_step_seconds=15,
    manifest=Manifest(symbols=("BTC",), expected={}),
    first_time=T0,
)


@pytest.fixture
def neighbour(kafka_server: str, topic_prefix: str) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(bootstrap_servers=kafka_server, transactional_id=f"{topic_prefix}neighbour")
    producer.init_transactions()
    yield producer
    producer.close(timeout=5)


@pytest.fixture
def ours(kafka_server: str) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(bootstrap_servers=kafka_server)
    yield producer
    producer.close()


def send_watermarks(producer: KafkaProducer, prefix: str, seconds: float) -> datetime:
    mark = Watermark(schema_version=1, world=WORLD.name, watermark=T0 + timedelta(seconds=seconds))
    for topic in IN_TOPICS:
        for partition in range(PARTITIONS):
            producer.send(
                wire_name(topic, prefix), encode(mark), partition=partition, headers=[("record_type", b"watermark")]
            )
    producer.flush()
    return mark.watermark


def until(moment: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not moment():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_an_open_transaction_holds_its_own_partition_and_nothing_else(
    kafka_server: str, topic_prefix: str, database_url: str, neighbour: KafkaProducer, ours: KafkaProducer
) -> None:
    """The clock goes on without it after 5 s, health names its producer, and what waited lands when it ends."""
    prices = wire_name("prices", topic_prefix)
    with connect(database_url) as conn, Lander(database_url, kafka_server, topic_prefix) as lander:
        worlds.register(conn, WORLD, activate=True)
        conn.commit()
        before = send_watermarks(ours, topic_prefix, 0)
        lander.land_to_end(30)
        neighbour.begin_transaction()
        neighbour.send(prices, encode(price(1, symbol="FOREIGN")), partition=0).get(10)
        after = send_watermarks(ours, topic_prefix, 10)
        for number in range(PARTITIONS):
            ours.send(prices, encode(price(2, symbol=f"OURS{number}")), partition=number).get(10)

        result = lander.land_to_end(30)
        assert (result.rows_landed, result.reached_end, result.gaps) == (2, True, 0)
        assert worlds.clock(conn, WORLD, datetime.now(UTC)) == worlds.landed_to(conn, WORLD) == before
        conn.rollback()

        said: list[str] = []

        def goes_on() -> bool:
            said.extend(lander.land_to_end(30).notices)
            conn.rollback()
            return worlds.clock(conn, WORLD, datetime.now(UTC)) == after

        until(goes_on)
        assert worlds.landed_to(conn, WORLD) == before  # a player that starts anew sends from here
        assert len(said) == 1
        assert f"transaction '{topic_prefix}neighbour' of producer" in said[0]
        assert "prices[0] can be read only up to offset" in said[0]
        assert health_of(conn) == [f"{said[0]}."]

        neighbour.commit_transaction()
        until(lambda: lander.land_to_end(30).reached_end and count(database_url, "prices") == 4)
        conn.rollback()
        assert worlds.landed_to(conn, WORLD) == after
        assert lander.land_to_end(30).notices == ()
        assert health_of(conn) == []
        assert count(database_url, "held_partitions") == 0


def test_workers_that_split_the_partitions_leave_each_other_s_findings_alone(database_url: str) -> None:
    """One that looks at partition 1 knows nothing of partition 0."""
    identity = {"prices": "cluster"}
    both = {Partition("prices", 0): Held(7, 3)}
    with connect(database_url) as conn:
        held.note(conn, "landing", identity, [Partition("prices", 0)], both, lambda *_: None)
        held.note(conn, "landing", identity, [Partition("prices", 1)], {}, lambda *_: None)
        assert conn.execute("SELECT kafka_partition, stable_offset FROM held_partitions").fetchall() == [(0, 7)]
        held.note(conn, "landing", identity, [Partition("prices", 0)], {}, lambda *_: None)
        assert conn.execute("SELECT count(*) FROM held_partitions").fetchone() == (0,)


def health_of(conn: Any) -> list[str]:
    status = Status()
    with conn.cursor(row_factory=dict_row) as cursor:
        _read_held(cursor, status)
    conn.rollback()
    return [problem for problem in status.problems if "can be read only" in problem]


def test_a_recording_waits_for_a_held_partition(database_url: str) -> None:
    """Its scores are to be the same however it was played."""
    recorded = World(
        name="recorded/x",
        kind="recorded",
        market_step_seconds=300,
        flows_step_seconds=300,
        manifest=Manifest(symbols=("BTC",), expected={}),
        first_time=T0,
        last_time=T0 + timedelta(hours=1),
    )
    with connect(database_url) as conn:
        for world in (recorded, WORLD):
            worlds.register(conn, world, activate=False)
            for topic in IN_TOPICS:
                for number in range(PARTITIONS):
                    late = (topic, number) == ("prices", 1)
                    conn.execute(
                        "INSERT INTO watermarks (world, topic, kafka_partition, watermark) VALUES (%s, %s, %s, %s)",
                        [world.name, topic, number, T0 if late else T0 + timedelta(minutes=5)],
                    )
        conn.execute(
            "INSERT INTO held_partitions (consumer, cluster_id, topic, kafka_partition, stable_offset,"
            " waiting_messages, held_since) VALUES ('landing', 'c', 'prices', 1, 7, 3, now() - interval '1 minute')"
        )
        now = datetime.now(UTC)
        assert worlds.clock(conn, recorded, now) == T0
        assert worlds.clock(conn, WORLD, now) == T0 + timedelta(minutes=5)
        conn.execute("UPDATE held_partitions SET seen_at = now() - interval '2 minutes'")  # nobody has looked since
        assert worlds.clock(conn, WORLD, now) == T0


_LAND = """
import resource, sys
from liq_pipeline.store.landing import lander as lander_module
from liq_pipeline.store.landing.lander import DatabaseAwayError, Lander
with Lander(*sys.argv[1:4]) as lander:
    lander.land_to_end(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("ready", flush=True)
    sys.stdin.readline()
    result = lander.land_to_end(120)
    print(result.rows_landed, result.gaps, result.dead, result.reached_end, before,
          resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, result.duration_seconds)
"""


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_message_that_unpacks_to_more_than_memory_is_passed_over_and_told(
    kafka_server: str, topic_prefix: str, database_url: str, codec: str
) -> None:
    """One on each topic; snappy packs zeros only 1:20, so there it is what the broker takes."""
    size = (15 if codec == "snappy" else 100) * 1024 * 1024
    child = subprocess.Popen(
        [sys.executable, "-c", _LAND, database_url, kafka_server, topic_prefix],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    bomb = KafkaProducer(bootstrap_servers=kafka_server, compression_type=codec, max_request_size=2**30)
    plain = KafkaProducer(bootstrap_servers=kafka_server)
    places = {}
    for topic in IN_TOPICS:
        name = wire_name(topic, topic_prefix)
        plain.send(name, encode(SAMPLES[topic](1)), partition=0).get(30)
        places[topic] = bomb.send(name, bytes(size), partition=0).get(60).offset
        plain.send(name, encode(SAMPLES[topic](2)), partition=0).get(30)
    bomb.close()
    plain.close()
    told, _ = child.communicate("go\n", timeout=150)
    rows, gaps, dead, reached, before_kib, peak_kib, _seconds = told.split()
    passed = size > MAX_UNPACKED_BYTES
    assert (int(rows), reached) == (2 * len(IN_TOPICS), "True")
    assert (int(gaps), int(dead)) == ((len(IN_TOPICS), 0) if passed else (0, len(IN_TOPICS)))
    assert int(peak_kib) - int(before_kib) < 4 * MAX_UNPACKED_BYTES // 1024
    if passed:
        found = select(database_url, "SELECT source, from_offset, to_offset, cause FROM ingest_gaps ORDER BY source")
        assert [(source, start, end) for source, start, end, _ in found] == sorted(
            (f"kafka:{topic}[0]", offset, offset + 1) for topic, offset in places.items()
        )
        assert all("unpacked, the batch is larger than 32 MiB" in cause for *_, cause in found)
    else:
        assert select(
            database_url, "SELECT DISTINCT reason_code, is_cut, octet_length(value_bytes) FROM dead_letters"
        ) == [("too_large", True, dead_letters.KEPT_BYTES)]


def test_bombs_at_the_start_of_a_fetch_are_passed_over_once_each(
    kafka_server: str, topic_prefix: str, database_url: str, ours: KafkaProducer
) -> None:
    """Nothing lies before them that could be taken first: they were fetched again until the tick's time was up, and
    each tick came past one of them only."""
    bomb = KafkaProducer(bootstrap_servers=kafka_server, compression_type="zstd", max_request_size=2**30)
    names = [wire_name(topic, topic_prefix) for topic in ("prices", "open_interest")]
    for name in names:
        for _ in range(3):
            bomb.send(name, bytes(2 * MAX_UNPACKED_BYTES), partition=0).get(60)
    bomb.close()
    ours.send(names[0], encode(price(1)), partition=0).get(30)
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        result = lander.land_to_end(60)
    assert (result.rows_landed, result.reached_end, result.gaps) == (1, True, 6)
    found = select(database_url, "SELECT source, from_offset, to_offset FROM ingest_gaps ORDER BY source, from_offset")
    assert found == [
        (f"kafka:{topic}[0]", offset, offset + 1) for topic in ("open_interest", "prices") for offset in range(3)
    ]


def test_the_sensor_opens_a_bomb_once_and_knows_the_newest_time(
    kafka_server: str, topic_prefix: str, ours: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks four times a second at the last fifty messages; four bombs among them cost it 0.3 s at each look."""
    opened: list[int] = []

    def opening(codec: int, packed: memoryview) -> bytes:
        opened.append(codec)
        return uncompress(codec, packed)

    monkeypatch.setattr(unpack, "uncompress", opening)
    before = send_watermarks(ours, topic_prefix, 0)
    bomb = KafkaProducer(bootstrap_servers=kafka_server, compression_type="zstd", max_request_size=2**30)
    for place in due._PEEKS:
        bomb.send(wire_name(place.topic, topic_prefix), bytes(2 * MAX_UNPACKED_BYTES), partition=place.partition)
    bomb.flush()
    bomb.close()
    clock = due.BusClock(kafka_server, topic_prefix)
    try:
        for _ in range(2):
            assert clock_of(clock, WORLD.name) == before
        after = send_watermarks(ours, topic_prefix, 10)
        assert clock_of(clock, WORLD.name) == after
        assert len(opened) == len(due._PEEKS)
        assert clock_of(clock, "simulated/another") is None
        assert clock_of(clock, WORLD.name) == after
    finally:
        clock.close()


def clock_of(clock: due.BusClock, world: str) -> datetime | None:
    state = clock.read(world)
    assert state is not None
    return state.clock


def test_many_small_bombs_do_not_hold_one_poll(kafka_server: str, topic_prefix: str, database_url: str) -> None:
    """Sixty batches of 24 MiB in one fetch: each is dealt with alone, and what follows them lands."""
    bomb = KafkaProducer(bootstrap_servers=kafka_server, compression_type="zstd", max_request_size=2**30)
    name = wire_name("prices", topic_prefix)
    for _ in range(60):
        bomb.send(name, bytes(24 * 1024 * 1024), partition=0)
        bomb.flush()
    bomb.close()
    plain = KafkaProducer(bootstrap_servers=kafka_server)
    plain.send(name, encode(price(2)), partition=0).get(30)
    plain.close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        result = lander.land_to_end(120)
    assert (result.rows_landed, result.dead, result.reached_end) == (1, 60, True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 6 * MAX_UNPACKED_BYTES // 1024


def test_a_message_larger_than_any_of_ours_is_dead_and_only_its_start_is_kept(
    kafka_server: str, topic_prefix: str, database_url: str, ours: KafkaProducer
) -> None:
    value = encode(price(1))[:-1] + b', "more": "' + b"x" * MAX_VALUE_BYTES + b'"}'
    name = wire_name("prices", topic_prefix)
    headers = [("h", b"y" * 100_000)]
    ours.send(name, value, key=b"k" * 70_000, headers=headers, partition=0).get(30)
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        assert lander.land_to_end(30).dead == 1
    with connect(database_url) as conn:
        (letter,) = dead_letters.list_letters(conn)
    assert letter.reason_code == "too_large"
    assert letter.value_bytes == value[: dead_letters.KEPT_BYTES]
    assert letter.key_bytes is not None
    assert len(letter.key_bytes) == dead_letters.KEPT_BYTES
    assert letter.headers == []
    assert select(database_url, "SELECT is_cut FROM dead_letters") == [(True,)]


def test_a_session_that_holds_a_table_is_told_instead_of_waited_for(
    kafka_server: str, topic_prefix: str, database_url: str, ours: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ALTER TABLE that somebody left open; with it gone landing goes on."""
    monkeypatch.setattr(lander_module, "LIVE_LOCK_SECONDS", 0.2)
    monkeypatch.setattr(lander_module, "BACKOFF_SECONDS", (0.1,))
    ours.send(wire_name("prices", topic_prefix), encode(price(1)), partition=0).get(30)
    with connect(database_url) as holder, Lander(database_url, kafka_server, topic_prefix) as lander:
        holder.execute("LOCK TABLE prices IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseAwayError, match="another session has held a lock"):
            lander.land_to_end(30)
        holder.rollback()
        assert lander.land_to_end(30).rows_landed == 1
