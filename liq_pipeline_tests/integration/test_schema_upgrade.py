"""An installation of the schema's first release, with rows in every table, comes to today's schema with all of them."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from liq_pipeline.store.connection import connect
from liq_pipeline.store.rollups import upkeep
from liq_pipeline.store.schema import editions
from liq_pipeline.store.schema.migrations import load, migrate
from liq_pipeline_tests.landing_support import select

FIRST_RELEASE: Final = 6
"""The files up to this number are what the first release had."""
DERIVED = "rollup_"
ROWS = 3

# Values of columns whose constraint or meaning a generated value would miss; the rest is made from the column's type.
SPECIAL: Final[dict[str, list[Any]]] = {
    "kind": ["predicted", "settled", "predicted"],
    "long_short_ratio.kind": ["accounts", "taker", "top_accounts"],
    "alert_changes.kind": ["opened", "eased", "resolved"],
    "worlds.kind": ["real", "simulated", "recorded"],
    "worlds.is_active": [True, False, False],
    "liquidated_side": ["long", "short", "long"],
    "side": ["long", "short", None],
    "direction": ["inflow", "outflow", "mint"],
    "cascade_events.direction": ["down", "up", "down"],
    "stream": ["market", "flows", "market"],
    "severity": ["INFO", "WARNING", "CRITICAL"],
    "severity_possible": ["INFO", "WARNING", "CRITICAL"],
    "peak_severity": ["INFO", "WARNING", "CRITICAL"],
    "calm_severity": ["NONE", None, "INFO"],
    "told_severity": ["INFO", None, "CRITICAL"],
    "rule": ["severity", "early_warning", "blind"],
    "outcome": ["right", "late", "false"],
    "alerts.state": ["open", "open", "open"],
    "resolved_at": [None, None, None],
    "outbox.state": ["due", "done", "failed"],
    "models.state": ["shipped", "champion", "candidate"],
    "source_status.state": ["up", "down", "off"],
    "topic": ["signals", "alerts", "channels"],
    "resolution": ["first_kept", "archive_replaced", "canonical_again"],
    "step": ["1m", "5m", "1h"],
    "coverage": [0.1, 0.5, 1.0],
    "group_id": [None, None, None],
    "table_name": ["prices", "prices", "prices"],
    "source_table": ["prices", "signals", "ticks_of_before"],
}
BY_TYPE: Final[dict[str, list[Any]]] = {
    "text": ["one", "two", "three"],
    "double precision": [1.5, 2.5, 3.5],
    "numeric": ["1.000000000000000001", "2", "3"],
    "smallint": [1, 2, 3],
    "integer": [1, 2, 3],
    "bigint": [1, 2, 3],
    "boolean": [True, False, True],
    "jsonb": ['{"a": 1}', "{}", '{"b": [2]}'],
    "bytea": [b"\x00", b"\xff", b"x"],
    "uuid": [f"00000000-0000-0000-0000-00000000000{n}" for n in (1, 2, 3)],
    "date": ["2026-01-01", "2026-01-02", "2026-01-03"],
    "timestamp with time zone": ["2026-01-01T00:00:10Z", "2026-01-01T00:50:20Z", "2026-02-01T02:00:00Z"],
    "ARRAY": [[1.0], [1.0, 2.0], [3.0]],
}
# Values within CHECKs: score and points between 0 and their budget.


def tables_of(conn: psycopg.Connection[Any]) -> list[str]:
    """Every table, parents before children."""
    return [
        name
        for (name,) in conn.execute(
            "SELECT c.relname FROM pg_class AS c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
            " AND c.relname <> 'schema_migrations'"
            " ORDER BY (SELECT count(*) FROM pg_constraint WHERE conrelid = c.oid AND contype = 'f'"
            " AND confrelid <> conrelid), c.relname"
        )
    ]


def fill(conn: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """ROWS rows in every table; their columns by table."""
    columns_by_table: dict[str, list[str]] = {}
    for table in tables_of(conn):
        columns = conn.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
            " AND table_name = %s AND is_identity = 'NO' ORDER BY ordinal_position",
            [table],
        ).fetchall()
        columns_by_table[table] = [name for name, _ in columns]
        values = [SPECIAL.get(f"{table}.{name}") or SPECIAL.get(name) or BY_TYPE[kind] for name, kind in columns]
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns),
            sql.SQL(", ").join(sql.Placeholder() * len(columns)),
        )
        conn.cursor().executemany(statement, list(zip(*values, strict=True)))
    return columns_by_table


def rows_of(conn: psycopg.Connection[Any], columns_by_table: dict[str, list[str]]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each table that holds what came from outside or was told, by their columns of then."""
    return {
        table: conn.execute(
            sql.SQL("SELECT {} FROM {} ORDER BY 1, 2").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table)
            )
        ).fetchall()
        for table, columns in columns_by_table.items()
        # Roll-ups are made from the rows; their progress is what a migration resets to have them made anew.
        if not table.startswith(DERIVED)
    }


@pytest.fixture
def first_release(tmp_path: Path) -> Path:
    """The folder of SQL files as the first release had it."""
    for migration in load():
        if migration.number <= FIRST_RELEASE:
            (tmp_path / migration.name).write_text(migration.text)
    return tmp_path


def _migrate_in_a_process(url: str, results: multiprocessing.Queue[list[str]]) -> None:
    results.put(migrate(url))


@pytest.mark.parametrize("edition", ["plain", "apache"])
def test_every_row_of_the_first_release_is_there_after_the_upgrade(
    request: pytest.FixtureRequest, edition: str, first_release: Path
) -> None:
    url = request.getfixturevalue("empty_database_url" if edition == "plain" else "timescale_url")
    migrate(url, directory=first_release)
    with connect(url) as conn:
        if edition == "apache":
            conn.commit()
            conn.autocommit = True
            editions.apply(conn)
            conn.autocommit = False
        columns = fill(conn)
        conn.commit()
        before = rows_of(conn, columns)
    assert len(before) >= 30
    assert all(len(rows) == ROWS for rows in before.values()), {t: len(r) for t, r in before.items() if len(r) != ROWS}
    # Two processes at once, as when a second part is started in the middle of an upgrade.
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[list[str]] = context.Queue()
    workers = [context.Process(target=_migrate_in_a_process, args=(url, results), daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    applied = [name for _ in workers for name in results.get(timeout=120)]
    for worker in workers:
        worker.join(60)
    assert [name for name in applied if name.endswith(".sql")] == [
        migration.name for migration in load() if migration.number > FIRST_RELEASE
    ]
    assert migrate(url) == [], "twice in a row"
    with connect(url) as conn:
        after = rows_of(conn, columns)
        for table, rows in before.items():
            assert after[table] == rows, table
        upkeep.refresh(conn)
        assert conn.execute("SELECT count(*) FROM prices_1h").fetchone() == (len(before["prices"]),)
    newest = {tuple(row) for row in select(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert {(table,) for table in before} <= newest
