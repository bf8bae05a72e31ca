"""Retention: nothing goes unless asked, and then exactly what is old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from liq_pipeline.store.connection import connect
from liq_pipeline.store.schema import editions, retention
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.landing_support import select

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def fill(url: str) -> None:
    """One row a day over 100 days: a chunk holds seven, so rows of many chunks lie at the same place in theirs."""
    with connect(url) as conn:
        conn.execute(
            "INSERT INTO prices (world, symbol, venue, event_time, price_usd, origin, event_time_source, received_at,"
            " known_at, kafka_cluster, kafka_partition, kafka_offset)"
            " SELECT 'real', 'BTC', 'okx', %s::timestamptz - n * interval '1 day', n, 'live', 'venue', now(), now(),"
            " 1, 0, n FROM generate_series(0, 99) AS n",
            [NOW],
        )
        conn.execute(
            "INSERT INTO signals (world, symbol, time, score_version, severity, severity_possible, flow_side_known)"
            " SELECT 'real', 'BTC', %s::timestamptz - n * interval '1 day', 'v', 'NONE', 'NONE', true"
            " FROM generate_series(0, 99) AS n",
            [NOW],
        )


def test_nothing_is_deleted_by_default(database_url: str) -> None:
    fill(database_url)
    with connect(database_url) as conn:
        assert retention.prune_history(conn, NOW + 10_000 * DAY, None) == {}
    assert select(database_url, "SELECT count(*) FROM prices") == [(100,)]


@pytest.mark.parametrize("edition", ["plain", "apache"])
@pytest.mark.parametrize("batch", [7, 50_000])
def test_exactly_what_is_older_goes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, edition: str, batch: int
) -> None:
    url = request.getfixturevalue("database_url" if edition == "plain" else "timescale_url")
    migrate(url)
    fill(url)
    monkeypatch.setattr(retention, "BATCH_ROWS", batch)
    with connect(url) as conn:
        for path, days in (("old", 31), ("new", 29)):
            to_time = NOW - days * DAY
            conn.execute(
                "INSERT INTO archive_files VALUES ('real', 'a', %s, 'c', 'metrics', 'BTC', %s, %s, 1, 1, %s)",
                [path, to_time - DAY, to_time, NOW],
            )
        deleted = retention.prune_history(conn, NOW, 30)
        # A file whose rows are gone may be loaded again.
        assert conn.execute("SELECT path FROM archive_files").fetchall() == [("new",)]
        assert deleted.pop("archive_files") == 1
    assert deleted == {h.table: 0 for h in editions.HYPERTABLES} | {"prices": 69, "signals": 69}
    for table, column in (("prices", "event_time"), ("signals", "time")):
        kept = select(url, f"SELECT {column} FROM {table} ORDER BY 1 DESC")  # noqa: S608
        assert kept == [(NOW - n * DAY,) for n in range(31)]
