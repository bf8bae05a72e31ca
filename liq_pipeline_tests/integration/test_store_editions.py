"""TimescaleDB's Apache edition: the same schema, the same landing, on hypertables."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline.store.schema import editions
from liq_pipeline.store.schema.migrations import SQL_DIRECTORY, _apply, load, migrate
from liq_pipeline_tests.landing_support import SAMPLES, T0, count, price, select


def test_the_time_series_tables_become_hypertables_once(timescale_url: str) -> None:
    done = migrate(timescale_url)
    with connect(timescale_url) as conn:
        assert editions.detect(conn) == "apache"
    assert [name for name in done if name.startswith("hypertable")] == [
        f"hypertable {hypertable.table}" for hypertable in editions.HYPERTABLES
    ]
    found = dict(
        select(
            timescale_url,
            "SELECT hypertable_name, time_interval FROM timescaledb_information.dimensions WHERE dimension_number = 1",
        )
    )
    assert found == {h.table: timedelta(days=h.chunk_days) for h in editions.HYPERTABLES}
    assert migrate(timescale_url) == []


def test_a_plain_database_with_data_keeps_every_row_when_the_extension_comes(timescale_url: str) -> None:
    """As after a dump from plain PostgreSQL restored on a server that has TimescaleDB."""
    with connect(timescale_url) as conn:
        _apply(conn, load(SQL_DIRECTORY))
        conn.execute(
            "INSERT INTO prices (world, symbol, venue, event_time, price_usd, origin, event_time_source, received_at,"
            " known_at, kafka_cluster, kafka_partition, kafka_offset)"
            " SELECT 'real', 'BTC', 'okx', %s::timestamptz + n * interval '1 day', n, 'live', 'venue', now(), now(),"
            " 1, 0, n"
            " FROM generate_series(1, 100) AS n",
            [T0],
        )
    with connect(timescale_url) as conn:
        conn.autocommit = True
        assert len(editions.apply(conn)) >= len(editions.HYPERTABLES)
        assert editions.apply(conn) == []
    assert count(timescale_url, "prices") == 100
    ((chunks,),) = select(
        timescale_url, "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'prices'"
    )
    assert chunks >= 14


@pytest.mark.parametrize("rows", [5, 600])
def test_every_topic_lands_with_duplicates_and_conflicts(
    timescale_url: str, kafka_server: str, topic_prefix: str, rows: int
) -> None:
    migrate(timescale_url)
    order = random.Random(3)
    spread = [number * 86_400 // 10 for number in range(rows)]
    order.shuffle(spread)
    with (
        RecordProducer(kafka_server, topic_prefix) as producer,
        Lander(timescale_url, kafka_server, topic_prefix) as lander,
    ):
        for topic in IN_TOPICS:
            for seconds in spread:
                log_index = {"log_index": 1} if topic == "stablecoin_flows" else {}
                producer.send(SAMPLES[topic](seconds, **log_index))
        producer.flush()
        assert lander.land_to_end(60).landed == dict.fromkeys(IN_TOPICS, rows)
        for seconds in spread:
            producer.send(price(seconds))
        producer.send(price(0, price_usd=1.0))
        producer.send(price(0, price_usd=2.0, origin="archive", known_at=T0 + timedelta(seconds=60)))
        producer.flush()
        result = lander.land_to_end(60)
    assert (result.rows_landed, result.duplicates, result.conflicts) == (0, rows, 2)
    assert select(timescale_url, "SELECT price_usd, origin FROM prices WHERE event_time = %s", [T0]) == [
        (90_000.5, "live")
    ], "what was seen live stays"
    for topic in IN_TOPICS:
        assert count(timescale_url, topic) == rows
