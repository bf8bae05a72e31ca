"""From Kafka to the tables: every record by value, everything else with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from liq_pipeline.bus import reader
from liq_pipeline.bus.codec import encode
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.bus.reader import ReadError
from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing import dead_letters
from liq_pipeline.store.landing import write as landing_write
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline_tests.landing_support import (
    BLOCK,
    HASH,
    OTHER_BLOCK,
    SAMPLES,
    T0,
    RawProducer,
    count,
    heartbeat,
    liquidation,
    price,
    raw,
    select,
    stablecoin_flow,
)


@pytest.fixture
def producer(kafka_server: str, topic_prefix: str) -> Iterator[RecordProducer]:
    with RecordProducer(kafka_server, topic_prefix) as producer:
        yield producer


@pytest.fixture
def raw_producer(kafka_server: str, topic_prefix: str) -> Iterator[RawProducer]:
    with RawProducer(kafka_server, topic_prefix) as producer:
        yield producer


@pytest.fixture
def lander(database_url: str, kafka_server: str, topic_prefix: str) -> Iterator[Lander]:
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        yield lander


def land(lander: Lander) -> Any:
    result = lander.land_to_end(60)
    assert result.reached_end
    accounted = (
        result.rows_landed + result.duplicates + result.conflicts + result.dead + result.heartbeats + result.watermarks
    )
    assert result.read == accounted
    return result


EXPECTED: dict[str, dict[str, Any]] = {
    "prices": {"symbol": "BTC", "venue": "coingecko", "price_usd": 90_000.5, "market_cap_usd": 1.8e12},
    "funding_rates": {
        "kind": "predicted",
        "rate": 0.0001,
        "interval_hours": 4.0,
        "rate_per_8h": 0.0002,
        "next_funding_time": T0 + timedelta(hours=4),
        "mark_price_usd": 90_001.0,
    },
    "open_interest": {"symbol": "ETH", "venue": "okx", "open_interest_base": 1000.0, "open_interest_usd": 3e6},
    "long_short_ratio": {"kind": "accounts", "period_minutes": 5, "long_share": 0.6, "short_share": 0.4, "ratio": 1.5},
    "liquidations": {
        "event_id": "liq-0",
        "liquidated_side": "long",
        "price_usd": 89_000.0,
        "quantity_base": 2.0,
        "notional_usd": 178_000.0,
        "is_sample": True,
        "source_topic": "forceOrder",
    },
    "stablecoin_flows": {
        "chain": "ethereum",
        "token": "USDT",
        "tx_hash": HASH,
        "block_hash": BLOCK,
        "amount": Decimal("1234567.000001"),
        "from_entity": None,
        "to_entity": "binance",
        "direction": "inflow",
        "is_canonical": True,
        "orphaned_known_at": None,
    },
}


@pytest.mark.parametrize("many", [1, 700])
def test_every_topic_lands_by_value(
    producer: RecordProducer, lander: Lander, database_url: str, kafka_server: str, many: int
) -> None:
    """One row travels as arrays, 700 by COPY: the rows are the same."""
    for topic in IN_TOPICS:
        for index in range(many):
            producer.send(SAMPLES[topic](index))
    producer.flush()

    result = land(lander)

    assert result.landed == dict.fromkeys(IN_TOPICS, many)
    for topic in IN_TOPICS:
        with connect(database_url) as conn:
            cursor = conn.execute(f"SELECT * FROM {topic} WHERE event_time = %s", [T0])  # noqa: S608
            columns = [column.name for column in cursor.description or []]
            rows = cursor.fetchall()
        assert len(rows) == 1
        row = dict(zip(columns, rows[0], strict=True))
        assert {name: row[name] for name in EXPECTED[topic]} == EXPECTED[topic]
        assert (row["world"], row["origin"], row["event_time_source"]) == ("real", "live", "venue")
        assert row["received_at"] == row["known_at"] == T0 + timedelta(milliseconds=250)
        assert abs(row["landed_at"] - datetime.now(UTC)) < timedelta(minutes=1)
        assert row["kafka_offset"] == 0
        assert count(database_url, topic) == many
    assert sum(row[0] for row in select(database_url, "SELECT landed_total FROM consumer_offsets")) == 6 * many


def test_nothing_new_lands_nothing(producer: RecordProducer, lander: Lander) -> None:
    producer.send(price())
    producer.flush()
    assert land(lander).rows_landed == 1
    again = land(lander)
    assert (again.read, again.notices, again.batches) == (0, (), 0)
    assert lander.land_batch(0.01).read == 0


def test_a_new_lander_goes_on_where_the_last_one_stood(
    producer: RecordProducer, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    for seconds in (1, 2):
        producer.send(price(seconds))
        producer.flush()
        with Lander(database_url, kafka_server, topic_prefix) as lander:
            result = land(lander)
        assert result.landed == {"prices": 1}
    assert result.notices == ()


def test_land_batch_is_bounded(
    producer: RecordProducer, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    for seconds in range(25):
        producer.send(price(seconds))
    producer.flush()
    with Lander(database_url, kafka_server, topic_prefix, max_records=10) as lander:
        first = lander.land_batch(10)
        assert 1 <= first.read <= 10
        assert land(lander).read == 25 - first.read
    assert count(database_url, "prices") == 25


def _garbage(topic: str) -> dict[bytes | None, str]:
    sample = SAMPLES[topic]
    future = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    number = {
        "prices": "price_usd",
        "funding_rates": "rate",
        "open_interest": "open_interest_base",
        "long_short_ratio": "ratio",
        "liquidations": "quantity_base",
        "stablecoin_flows": "log_index",
    }[topic]
    wrong_unit: dict[str, dict[str, Any]] = {
        "prices": {"price_usd": 9e12},
        "funding_rates": {"rate": 0.2},
        "open_interest": {"open_interest_usd": 17.0},
        "long_short_ratio": {"long_share": 60.0},
        "liquidations": {"notional_usd": 1.0},
        "stablecoin_flows": {"amount": "1234567000001000000"},
    }
    return {
        None: "empty_value",
        b"": "empty_value",
        b"{not json": "not_json",
        encode(sample())[:-9]: "not_json",
        b"\xff\xfe\xfd": "not_json",
        raw(sample(), **{number: 12345.5}).replace(b"12345.5", b"NaN"): "not_json",
        raw(sample(), **{number: 12345.5}).replace(b"12345.5", b"-Infinity"): "not_json",
        raw(sample(), **{number: -5}): "impossible_number",
        raw(sample(), schema_version=99): "unknown_version",
        raw(sample(), venue=None): "missing_field",
        raw(sample(), venue="NUL\x00"): "invalid_field",
        raw(sample(), **wrong_unit[topic]): "wrong_unit"
        if topic not in ("prices", "long_short_ratio")
        else "impossible_number",
        raw(sample(), event_time=future, received_at=future): "future_event",
        raw(sample(), event_time="2031-01-01T00:00:00Z"): "future_event",
        raw(sample(), origin="simulated"): "world_mismatch",
    }


@pytest.mark.parametrize("topic", IN_TOPICS)
def test_garbage_goes_to_dead_letters_with_its_reason_and_the_rest_lands(
    raw_producer: RawProducer, lander: Lander, database_url: str, topic: str
) -> None:
    garbage = _garbage(topic)
    headers = [("traceparent", b"\x00\xff"), ("record_type", b"surprise")]
    for seconds, value in enumerate(garbage):
        raw_producer.send(topic, encode(SAMPLES[topic](seconds)), key=b"good")
        raw_producer.send(topic, value, key=b"bad")
    raw_producer.send(topic, encode(SAMPLES[topic]()), key=None, headers=headers).get(30)

    result = land(lander)

    assert result.landed == {topic: len(garbage)}
    assert result.dead == len(garbage) + 1
    with connect(database_url) as conn:
        letters = dead_letters.list_letters(conn, topic=topic)
        codes = dead_letters.counts(conn)
    by_value = {letter.value_bytes: letter for letter in letters if letter.key_bytes == b"bad"}
    assert {value: letter.reason_code for value, letter in by_value.items()} == garbage
    assert all(letter.reason and letter.appended_at is not None for letter in letters)
    (odd,) = [letter for letter in letters if letter.reason_code == "wrong_record_type"]
    assert dead_letters.unpack_headers(odd.headers) == headers
    assert odd.key_bytes is None
    assert sum(codes.values()) == result.dead
    assert sum(row[0] for row in select(database_url, "SELECT dead_total FROM consumer_offsets")) == result.dead


def test_only_the_rows_the_database_refuses_die(producer: RecordProducer, lander: Lander, database_url: str) -> None:
    with connect(database_url) as conn:
        conn.execute("ALTER TABLE prices ADD CONSTRAINT sane CHECK (price_usd <> 666)")
    poison = {3, 4, 400, 999}
    for seconds in range(1000):
        producer.send(price(seconds, price_usd=666.0 if seconds in poison else 1000.0 + seconds))
    producer.send(liquidation())
    producer.flush()

    result = land(lander)

    assert (result.landed, result.dead) == ({"prices": 996, "liquidations": 1}, 4)
    with connect(database_url) as conn:
        letters = dead_letters.list_letters(conn)
    assert {letter.value_bytes for letter in letters} == {encode(price(s, price_usd=666.0)) for s in poison}
    assert {letter.reason_code for letter in letters} == {"refused_by_database"}
    assert all("sane" in letter.reason and "23514" in letter.reason for letter in letters)


def test_one_poison_row_among_thousands_is_found_by_halving(
    producer: RecordProducer, lander: Lander, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(database_url) as conn:
        conn.execute("ALTER TABLE prices ADD CONSTRAINT sane CHECK (price_usd <> 666)")
    for seconds in range(5000):
        producer.send(price(seconds, price_usd=666.0 if seconds == 3210 else 1000.0 + seconds))
    producer.flush()
    sizes: list[int] = []
    real = landing_write.write

    def counted(conn: Any, table: Any, rows: Any, **others: Any) -> Any:
        sizes.append(len(rows))
        return real(conn, table, rows, **others)

    monkeypatch.setattr(landing_write, "write", counted)

    result = land(lander)

    assert (result.landed, result.dead) == ({"prices": 4999}, 1)
    assert result.batches == 1
    # The whole, then two halves at each of 13 levels: not 5,000 single writes.
    assert len(sizes) <= 1 + 2 * math.ceil(math.log2(5000))
    assert sizes[0] == 5000
    (letter,) = select(database_url, "SELECT value_bytes FROM dead_letters")
    assert letter == (encode(price(3210, price_usd=666.0)),)


def test_dead_letters_are_sent_again_once_the_reason_is_gone(
    producer: RecordProducer, lander: Lander, database_url: str
) -> None:
    with connect(database_url) as conn:
        conn.execute("ALTER TABLE liquidations ADD CONSTRAINT sane CHECK (price_usd > 1e6)")
    producer.send(liquidation())
    producer.send_heartbeat("liquidations", heartbeat())
    producer.flush()
    assert land(lander).dead == 1
    with connect(database_url) as conn:
        conn.execute("ALTER TABLE liquidations DROP CONSTRAINT sane")
    with connect(database_url) as conn:
        assert dead_letters.resubmit(conn, producer, topic="liquidations") == 1
        assert dead_letters.resubmit(conn, producer, topic="liquidations") == 0
        (letter,) = dead_letters.list_letters(conn, resubmitted=True)
        assert letter.resubmitted_at is not None
        assert dead_letters.list_letters(conn) == []

    assert land(lander).landed == {"liquidations": 1}


def test_duplicates_are_ignored_and_counted(producer: RecordProducer, lander: Lander, database_url: str) -> None:
    for _ in range(3):  # within one batch
        producer.send(price(0))
        producer.send(stablecoin_flow(0))
    producer.flush()
    first = land(lander)
    assert (first.rows_landed, first.duplicates) == (2, 4)

    producer.send(price(0, received_at=T0 + timedelta(seconds=9)))  # against the table
    producer.send(price(1))
    producer.flush()
    second = land(lander)
    assert (second.landed, second.duplicates, second.conflicts) == ({"prices": 1}, 1, 0)
    assert select(database_url, "SELECT received_at FROM prices WHERE event_time = %s", [T0]) == [
        (T0 + timedelta(milliseconds=250),)
    ]
    assert count(database_url, "row_conflicts") == 0


@pytest.mark.parametrize("batches", ["one batch", "two batches"])
def test_another_version_goes_to_row_conflicts(
    producer: RecordProducer, lander: Lander, database_url: str, batches: str
) -> None:
    archived: dict[str, Any] = {"origin": "archive", "known_at": T0 + timedelta(minutes=5)}
    producer.send(price(0))
    producer.send(price(60, **archived))
    producer.send(price(120))
    if batches == "two batches":
        producer.flush()
        land(lander)
    producer.send(price(0, price_usd=1.0))
    producer.send(price(60, price_usd=2.0, **archived))
    producer.send(price(120, price_usd=3.0, **archived))
    producer.flush()

    assert land(lander).conflicts == 3

    assert select(database_url, "SELECT price_usd, origin FROM prices ORDER BY event_time") == [
        (90_000.5, "live"),
        (2.0, "archive"),
        (90_000.5, "live"),
    ]
    rows = select(
        database_url,
        "SELECT resolution, kept->>'price_usd', other->>'price_usd', row_key->>'symbol', world FROM row_conflicts"
        " ORDER BY conflict_id",
    )
    assert [(r, float(kept), float(other), symbol, world) for r, kept, other, symbol, world in rows] == [
        ("first_kept", 90_000.5, 1.0, "BTC", "real"),
        ("archive_replaced", 2.0, 90_000.5, "BTC", "real"),
        ("first_kept", 90_000.5, 3.0, "BTC", "real"),
    ]


def test_a_reorg_orphans_a_transfer_without_a_conflict(
    producer: RecordProducer, lander: Lander, database_url: str
) -> None:
    known = T0 + timedelta(minutes=3)
    producer.send(stablecoin_flow(0))
    producer.flush()
    land(lander)
    producer.send(stablecoin_flow(0, is_canonical=False, received_at=known))
    producer.send(stablecoin_flow(0, block_hash=OTHER_BLOCK))
    producer.flush()

    result = land(lander)

    assert (result.landed, result.conflicts) == ({"stablecoin_flows": 2}, 0)
    assert select(
        database_url, "SELECT block_hash, is_canonical, orphaned_known_at FROM stablecoin_flows ORDER BY block_hash"
    ) == [(BLOCK, False, known), (OTHER_BLOCK, True, None)]


def test_heartbeats_and_watermarks_land_and_are_no_rows(
    producer: RecordProducer, lander: Lander, database_url: str
) -> None:
    producer.send_heartbeat("liquidations", heartbeat(0))
    producer.send_heartbeat("stablecoin_flows", heartbeat(5, venue="etherscan"))
    producer.send_watermark("recorded/x", T0 + timedelta(minutes=1))
    producer.send_watermark("recorded/x", T0)  # late: a watermark never goes back
    producer.flush()

    result = land(lander)

    assert (result.rows_landed, result.heartbeats, result.watermarks) == (0, 2, 36)
    assert select(database_url, "SELECT topic, venue, event_time FROM heartbeats ORDER BY topic") == [
        ("liquidations", "binance", T0),
        ("stablecoin_flows", "etherscan", T0 + timedelta(seconds=5)),
    ]
    assert select(database_url, "SELECT DISTINCT world, watermark FROM watermarks") == [
        ("recorded/x", T0 + timedelta(minutes=1))
    ]
    assert count(database_url, "watermarks") == 18


def test_rows_known_before_a_committed_tick_are_late(
    producer: RecordProducer, lander: Lander, database_url: str
) -> None:
    with connect(database_url) as conn:
        conn.execute(
            "INSERT INTO ticks (world, stream, time, cut, started_at, rows_landed) VALUES"
            " ('real', 'market', %s, '{}', now(), 0), ('real', 'flows', %s, '{}', now(), 0)",
            [T0 + timedelta(seconds=10), T0 + timedelta(seconds=60)],
        )
    for seconds in (0, 5, 10, 30):
        producer.send(price(seconds))
    producer.send(price(0, origin="recorded", world="recorded/x"))
    producer.flush()
    assert land(lander).late == {"real": 2}


def test_two_workers_on_the_same_partitions_land_each_message_once(
    producer: RecordProducer, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    for seconds in range(200):
        producer.send(price(seconds))
    producer.flush()
    with (
        Lander(database_url, kafka_server, topic_prefix, max_records=50) as one,
        Lander(database_url, kafka_server, topic_prefix, max_records=80) as two,
    ):
        read = 0
        while read < 200:
            step = one.land_batch(5).read + two.land_batch(5).read
            assert step > 0
            read += step
    assert read == 200
    assert count(database_url, "prices") == 200
    assert select(database_url, "SELECT sum(landed_total), sum(duplicate_total) FROM consumer_offsets") == [(200, 0)]


def test_three_workers_at_once_land_each_message_once_and_by_value(
    producer: RecordProducer, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    """In threads of their own, on the same partitions, in batches of different sizes."""
    sent = {(f"S{number % 11}", T0 + timedelta(seconds=number)): 1.0 + number for number in range(3000)}
    for number, (symbol, _) in enumerate(sent):
        producer.send(price(number, symbol=symbol, price_usd=1.0 + number))
    producer.flush()

    def work(size: int) -> Any:
        with Lander(database_url, kafka_server, topic_prefix, max_records=size) as lander:
            return lander.land_to_end(60)

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(work, (70, 110, 190)))

    assert all(result.reached_end for result in results)
    assert sum(result.read for result in results) == sum(result.rows_landed for result in results) == 3000
    rows = select(database_url, "SELECT symbol, event_time, price_usd FROM prices")
    assert {(symbol, time): value for symbol, time, value in rows} == sent
    assert select(database_url, "SELECT sum(landed_total), sum(duplicate_total) FROM consumer_offsets") == [(3000, 0)]


def test_a_batch_is_bounded_in_bytes_too(
    raw_producer: RawProducer,
    database_url: str,
    kafka_server: str,
    topic_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "POLL_MAX_BYTES", 100_000)
    for seconds in range(40):
        raw_producer.send("prices", raw(price(seconds), unknown="x" * 20_000))
    raw_producer.send("liquidations", encode(liquidation())).get(30)
    batches = []
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        while sum(result.read for result in batches) < 41:
            batches.append(lander.land_batch(5))
    # The message that passes the bound is still in.
    assert max(result.read for result in batches) <= 6
    assert sum(result.rows_landed for result in batches) == 41
    assert count(database_url, "prices") == 40


def test_workers_may_split_the_partitions(
    producer: RecordProducer, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    for symbol in ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "BNB"):
        producer.send(price(0, symbol=symbol))
    producer.flush()
    landed = 0
    for number in range(3):
        with Lander(database_url, kafka_server, topic_prefix, partitions=[number]) as lander:
            landed += land(lander).rows_landed
    assert landed == count(database_url, "prices") == 7
    with pytest.raises(ReadError, match="have no partition 3: the last is 2"):
        Lander(database_url, kafka_server, topic_prefix, partitions=[1, 3]).land_batch()
