"""Migrations: from nothing, twice, two at once, and refusals in one sentence."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import psycopg
import pytest

from liq_pipeline.store.connection import DatabaseUrlError, connect, engine
from liq_pipeline.store.schema import editions
from liq_pipeline.store.schema.migrations import SQL_DIRECTORY, MigrationError, load, migrate, pending
from liq_pipeline_tests.landing_support import select

TABLES = {
    "prices",
    "funding_rates",
    "open_interest",
    "long_short_ratio",
    "liquidations",
    "stablecoin_flows",
    "ticks",
    "liquidation_risk",
    "stablecoin_pressure",
    "signals",
    "alerts",
    "alert_deliveries",
    "alert_outcomes",
    "outbox",
    "dead_letters",
    "row_conflicts",
    "ingest_gaps",
    "consumer_offsets",
    "wallet_labels",
    "cascade_events",
    "models",
    "evaluation_runs",
    "evaluation_metrics",
    "source_status",
    "worlds",
    "heartbeats",
    "watermarks",
    "feature_bars",
    "feature_references",
}


def folder(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / f"{name}.sql").write_text(text)
    return tmp_path


def test_an_empty_database_gets_the_whole_schema_once(empty_database_url: str) -> None:
    names = [migration.name for migration in load()]
    with connect(empty_database_url) as conn:
        assert pending(conn) == names
    assert [name for name in migrate(empty_database_url) if name.endswith(".sql")] == names
    found = {
        row[0] for row in select(empty_database_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    }
    assert found >= TABLES
    assert migrate(empty_database_url) == []
    with connect(empty_database_url) as conn:
        assert pending(conn) == []


def test_every_contract_view_exists(database_url: str) -> None:
    for view in ("liquidation_risk_current", "stablecoin_pressure_current", "signals_current"):
        assert select(database_url, f"SELECT * FROM {view}") == []  # noqa: S608


def _migrate_in_a_process(url: str, results: multiprocessing.Queue[list[str]]) -> None:
    results.put(migrate(url))


def test_two_processes_at_once_apply_each_migration_once(empty_database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[list[str]] = context.Queue()
    workers = [
        context.Process(target=_migrate_in_a_process, args=(empty_database_url, results), daemon=True) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    done = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    names = [migration.name for migration in load()]
    assert sorted(name for part in done for name in part if name.endswith(".sql")) == names
    assert select(empty_database_url, "SELECT name FROM schema_migrations ORDER BY number") == [(n,) for n in names]


def test_a_new_file_is_applied_to_a_database_with_data(empty_database_url: str, tmp_path: Path) -> None:
    migrate(
        empty_database_url,
        directory=folder(tmp_path, **{"0001_first": "CREATE TABLE t (a int); INSERT INTO t VALUES (1)"}),
    )
    folder(tmp_path, **{"0002_second": "ALTER TABLE t ADD b int DEFAULT 7 -- 100 % of rows"})
    assert migrate(empty_database_url, directory=tmp_path) == ["0002_second.sql"]
    assert select(empty_database_url, "SELECT a, b FROM t") == [(1, 7)]


def test_a_failing_file_leaves_what_came_before_and_nothing_of_itself(empty_database_url: str, tmp_path: Path) -> None:
    directory = folder(
        tmp_path, **{"0001_good": "CREATE TABLE t (a int)", "0002_bad": "CREATE TABLE u (a int); SELECT nonsense"}
    )
    with pytest.raises(MigrationError, match=r"0002_bad\.sql failed and was rolled back"):
        migrate(empty_database_url, directory=directory)
    assert select(empty_database_url, "SELECT to_regclass('t') IS NULL, to_regclass('u') IS NULL") == [(False, True)]
    folder(tmp_path, **{"0002_bad": "CREATE TABLE u (a int)"})
    assert migrate(empty_database_url, directory=directory) == ["0002_bad.sql"]


def test_a_file_changed_after_it_ran_is_refused(empty_database_url: str, tmp_path: Path) -> None:
    migrate(empty_database_url, directory=folder(tmp_path, **{"0001_first": "CREATE TABLE t (a int)"}))
    folder(tmp_path, **{"0001_first": "CREATE TABLE t (a bigint)"})
    with pytest.raises(MigrationError, match=r"0001_first\.sql was changed after it had been applied"):
        migrate(empty_database_url, directory=tmp_path)


def test_a_database_of_a_newer_version_is_refused(empty_database_url: str, tmp_path: Path) -> None:
    migrate(empty_database_url, directory=folder(tmp_path, **{"0001_a": "SELECT 1", "0002_b": "SELECT 2"}))
    (tmp_path / "0002_b.sql").unlink()
    with pytest.raises(MigrationError, match="install the newer version"):
        migrate(empty_database_url, directory=tmp_path)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"first": ""}, "first.sql in .* is not named NNNN_words.sql"),
        ({"0001_a": "", "0001_b": ""}, "carry the same number"),
    ],
)
def test_files_with_wrong_names_are_refused(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    with pytest.raises(MigrationError, match=sentence):
        load(folder(tmp_path, **files))


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="is missing"):
        load(tmp_path / "nowhere")


def test_the_schema_needs_no_superuser(empty_database_url: str) -> None:
    with connect(empty_database_url) as conn:
        conn.execute("DROP ROLE IF EXISTS liq_plain_owner")
        conn.execute("CREATE ROLE liq_plain_owner LOGIN PASSWORD 'x' NOSUPERUSER NOCREATEDB NOCREATEROLE")
        database = conn.info.dbname
        conn.execute(f'ALTER DATABASE "{database}" OWNER TO liq_plain_owner')
        server = f"127.0.0.1:{conn.info.port}"
    assert migrate(f"postgresql://liq_plain_owner:x@{server}/{database}")
    with connect(empty_database_url) as conn:
        conn.execute(f'ALTER DATABASE "{database}" OWNER TO CURRENT_USER')
        conn.execute("REASSIGN OWNED BY liq_plain_owner TO CURRENT_USER")
        conn.execute("DROP OWNED BY liq_plain_owner")
        conn.execute("DROP ROLE liq_plain_owner")


def test_plain_postgresql_is_detected(database_url: str) -> None:
    with connect(database_url) as conn:
        assert editions.detect(conn) == "none"


def test_every_time_series_table_has_its_time_in_every_unique_key(database_url: str) -> None:
    """Hypertables demand it, so the plain edition is held to it too."""
    for hypertable in editions.HYPERTABLES:
        keys = select(
            database_url,
            """
            SELECT array_agg(a.attname::text) FROM pg_index AS i
            JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
            WHERE i.indrelid = %s::regclass AND i.indisunique GROUP BY i.indexrelid
            """,
            [hypertable.table],
        )
        assert keys
        assert all(hypertable.time_column in columns for (columns,) in keys)


def test_sessions_speak_utc_whatever_the_server_does(database_url: str) -> None:
    with connect(database_url) as conn:
        conn.execute(f"ALTER DATABASE {conn.info.dbname} SET timezone TO 'Asia/Tokyo'")
    with connect(database_url) as conn:
        assert conn.execute("SHOW timezone").fetchone() == ("UTC",)
        assert not conn.autocommit
    with engine(database_url).connect() as connection:
        assert connection.exec_driver_sql("SHOW timezone").scalar() == "UTC"


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "not a url", "postgresql"])
def test_a_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(DatabaseUrlError) as caught:
        connect(url)
    assert "secret" not in str(caught.value)
    assert "LIQ_DATABASE_URL" in str(caught.value)


def test_a_server_that_is_not_there_is_an_operational_error_without_the_password() -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        connect("postgresql://u:secret@127.0.0.1:1/d")
    assert "secret" not in str(caught.value)


def test_the_sql_folder_is_part_of_the_project() -> None:
    assert SQL_DIRECTORY.is_dir()
    numbers = [migration.number for migration in load()]
    assert numbers == sorted(set(numbers))
    assert numbers[:6] == [1, 2, 3, 4, 5, 6]
