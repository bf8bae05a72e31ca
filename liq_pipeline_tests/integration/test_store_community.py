"""TimescaleDB's community edition: what can be shown without it, and all of it where LIQ_TEST_TIMESCALE_URL gives one.

Without it: each statement is understood and refused for its licence alone, what it computes is what the maintained
roll-ups compute, and every key is covered by the compression.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from liq_pipeline.store.connection import connect
from liq_pipeline.store.rollups import upkeep
from liq_pipeline.store.rollups.definitions import ROLLUPS, STEPS
from liq_pipeline.store.schema import community, editions, retention
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.integration.test_store_rollups import know, land, rows
from liq_pipeline_tests.landing_support import SAMPLES, T0, price, select

CONTINUOUS = [rollup for rollup in ROLLUPS if rollup.can_be_continuous]
DAY = timedelta(days=1)


def everything_landed(conn: psycopg.Connection[Any]) -> None:
    know(conn, "real", "recorded/x")
    land(conn, *(sample(seconds) for sample in SAMPLES.values() for seconds in range(0, 3 * 3600, 700)))
    conn.cursor().executemany(
        "INSERT INTO ticks (world, stream, time, cut, started_at, committed_at, rows_landed)"
        " VALUES ('real', 'market', %s, '{}', now(), %s, 3)",
        [(T0 + n * timedelta(minutes=20), T0 + n * timedelta(minutes=20, seconds=1)) for n in range(9)],
    )
    conn.execute("UPDATE open_interest SET open_interest_usd = NULL WHERE event_time >= %s", [T0 + timedelta(hours=1)])
    conn.commit()


def test_each_statement_is_understood_and_refused_for_its_licence_alone(timescale_url: str) -> None:
    migrate(timescale_url)
    aggregates = [community.continuous_aggregate(rollup, step) for rollup in CONTINUOUS for step in STEPS]
    others = [
        *(community.refresh_policy(f"{rollup.table}_{step}") for rollup in CONTINUOUS for step in STEPS),
        *(community.fine_retention(f"{rollup.table}_1m") for rollup in CONTINUOUS),
        *(community.compress_by(compression) for compression in community.COMPRESSIONS),
        *(community.compression_policy(compression) for compression in community.COMPRESSIONS),
        sql.SQL("CALL refresh_continuous_aggregate('prices_1h', now() - interval '1 day', now())"),
        sql.SQL("SELECT decompress_chunk('prices', if_compressed => true)"),
        sql.SQL("SELECT compress_chunk('prices', if_not_compressed => true)"),
    ]

    def refused(conn: psycopg.Connection[Any], statement: sql.Composable) -> None:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="license"):
            conn.execute(statement)

    with connect(timescale_url) as conn:
        conn.autocommit = True
        for rollup in CONTINUOUS:
            for step in STEPS:
                conn.execute(f"DROP VIEW {rollup.table}_{step}")
        for statement in aggregates:
            refused(conn, statement)
        upkeep.create_views(conn)
        for other in others:
            refused(conn, other)


def test_what_goes_with_them_is_accepted_by_the_apache_edition(timescale_url: str) -> None:
    migrate(timescale_url)
    with connect(timescale_url) as conn:
        for statement in (community.OPEN_CHUNKS, community.CLOSE_CHUNKS, community.CHUNKS_ARE_NOT_EVERYBODYS):
            conn.execute(statement.encode())
        conn.execute(community.no_decompression_limit(conn.info.dbname))
        land(conn, price(0))
        with community.opened(conn, ["prices"], T0, T0 + DAY) as chunks:
            assert chunks == [], "nothing is compressed in this edition"


def test_nothing_is_opened_where_there_are_no_chunks(database_url: str) -> None:
    with connect(database_url) as conn, community.opened(conn, ["prices"], T0, T0 + DAY) as chunks:
        assert chunks == []


@pytest.mark.parametrize("step", STEPS)
def test_a_continuous_aggregate_would_say_what_the_maintained_roll_up_says(timescale_url: str, step: str) -> None:
    """Its SELECT, run by the Apache edition, which has time_bucket, first and last."""
    migrate(timescale_url)
    with connect(timescale_url) as conn:
        everything_landed(conn)
        upkeep.refresh(conn)
        for rollup in CONTINUOUS:
            text = community.continuous_aggregate(rollup, step).as_string(conn)
            select_ = text[text.index(" AS SELECT ") + 4 : text.rindex(" WITH NO DATA")]
            view = f"{rollup.table}_{step}"
            expected = rows(conn, f"SELECT * FROM {view} ORDER BY {view}")  # noqa: S608
            assert expected
            assert rows(conn, f"SELECT * FROM ({select_}) AS computed ORDER BY computed") == expected  # noqa: S608
            types = f"SELECT attname, atttypid::regtype::text FROM pg_attribute WHERE attrelid = '{view}'::regclass"  # noqa: S608
            of_view = rows(conn, types + " AND attnum > 0 ORDER BY attnum")
            conn.execute(f"CREATE VIEW computed AS {select_}")
            of_aggregate = rows(conn, types.replace(f"'{view}'", "'computed'") + " AND attnum > 0 ORDER BY attnum")
            conn.execute("DROP VIEW computed")
            assert of_aggregate == of_view
        assert upkeep.continuous_tables(conn) == set()


def test_every_key_is_in_the_compression_and_every_hypertable_is_compressed(database_url: str) -> None:
    assert [compression.table for compression in community.COMPRESSIONS] == [h.table for h in editions.HYPERTABLES]
    for compression in community.COMPRESSIONS:
        ((key,),) = select(
            database_url,
            "SELECT array_agg(a.attname::text) FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid"
            " AND a.attnum = ANY (i.indkey) WHERE i.indrelid = %s::regclass AND i.indisprimary",
            [compression.table],
        )
        assert set(key) <= set(compression.segment_by) | set(compression.order_by), compression.table


def test_scores_and_flows_by_exchange_are_maintained_in_every_edition() -> None:
    assert {rollup.table for rollup in ROLLUPS if not rollup.can_be_continuous} == {
        "liquidation_risk",
        "stablecoin_pressure",
        "signals",
        "exchange_flows",
    }


# -- on a real one --


def test_community_views_say_the_same_and_stay_when_migrated_again(community_url: str, database_url: str) -> None:
    assert any(name.startswith("continuous aggregate") for name in migrate(community_url))
    assert migrate(community_url) == []
    with connect(community_url) as conn, connect(database_url) as plain:
        for one in (conn, plain):
            everything_landed(one)
        upkeep.refresh(plain)
        assert upkeep.continuous_tables(conn) == {rollup.table for rollup in CONTINUOUS}
        for stage in ("computed when read", "refreshed"):
            for rollup in CONTINUOUS:
                for step in STEPS:
                    view = f"{rollup.table}_{step}"
                    statement = f"SELECT * FROM {view} ORDER BY {view}"  # noqa: S608
                    assert rows(conn, statement) == rows(plain, statement), (stage, view)
            conn.autocommit = True
            community.refresh_late(conn)
            conn.autocommit = False


def test_community_archive_rows_land_in_compressed_chunks(community_url: str) -> None:
    """Policies are judged by their effect: each job is run in the foreground."""
    migrate(community_url)
    with connect(community_url) as conn:
        know(conn, "real")
        land(conn, *(price(seconds) for seconds in range(0, 20 * 86_400, 3600)))
        conn.autocommit = True
        jobs = conn.execute(
            "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_compression'"
            " AND hypertable_name = 'prices'"
        ).fetchall()
        for (job,) in jobs:
            conn.execute("CALL run_job(%s)", [job])
        conn.autocommit = False
        compressed = (
            "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'prices' AND is_compressed"
        )
        ((before,),) = rows(conn, compressed)
        assert before > 0
        with community.opened(conn, ["prices"], T0, T0 + DAY) as chunks:
            assert len(chunks) == 1
            assert rows(conn, compressed) == [(before - 1,)]
            land(conn, price(30, price_usd=5.0))
        assert rows(conn, compressed) == [(before,)]
        land(conn, price(90, price_usd=4.0))
        conn.autocommit = True
        assert community.refresh_late(conn)["prices"] > 0
        conn.autocommit = False
        assert rows(conn, "SELECT price_usd_low, samples FROM prices_1h ORDER BY bucket LIMIT 1") == [(4.0, 3)]


def test_community_retention_leaves_the_hours(community_url: str) -> None:
    migrate(community_url)
    with connect(community_url) as conn:
        know(conn, "real")
        land(conn, *(price(day * 86_400) for day in range(120)))
        conn.autocommit = True
        community.refresh_late(conn)
        conn.autocommit = False
        now = T0 + 120 * DAY
        assert retention.prune_history(conn, now, 35)["prices"] == 85
        conn.autocommit = True
        community.refresh_late(conn, not_before=now - 35 * DAY)
        conn.autocommit = False
        assert rows(conn, "SELECT count(*) FROM prices_1h") == [(120,)]
