"""Dagster's tables are made once, by one process, whole: whoever starts at the same time, and whatever was killed."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from dagster import DagsterRun
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.servers import dagster_home
from liq_pipeline.runtime.servers.dagster_storage import ensure_tables
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres


@pytest.fixture
def url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    name = f"dagster_{uuid.uuid4().hex[:12]}"
    yield dagster_home.ensure_storage(postgres_server.url("postgres"), name)
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def tables(url: str) -> set[str]:
    with psycopg.connect(url.replace("+psycopg2", "")) as connection:
        return {name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def revision(url: str) -> list[tuple[str]]:
    with psycopg.connect(url.replace("+psycopg2", "")) as connection:
        return connection.execute("SELECT version_num FROM alembic_version").fetchall()


def test_four_starts_at_once_make_one_whole_store(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ensure_tables, [url] * 4))
    made = tables(url)
    assert {"runs", "instance_info", "event_logs", "asset_keys", "job_ticks", "alembic_version"} <= made
    assert len(revision(url)) == 1
    assert ensure_tables(url) is False
    # Dagster finds nothing left to do, and takes the store as its own.
    stores = PostgresRunStorage(url), PostgresEventLogStorage(url), PostgresScheduleStorage(url)
    assert tables(url) == made
    assert stores[0].get_runs_count() == 0
    for store in stores:
        store.dispose()


def test_what_a_killed_start_left_is_made_anew_and_what_is_used_stays(url: str) -> None:
    ensure_tables(url)
    whole = tables(url)
    with psycopg.connect(url.replace("+psycopg2", "")) as connection:
        connection.execute("DROP TABLE instance_info, daemon_heartbeats, asset_event_tags, alembic_version")
        connection.execute("COMMENT ON SCHEMA public IS NULL")
    assert ensure_tables(url) is True
    assert tables(url) == whole
    assert len(revision(url)) == 1

    storage = PostgresRunStorage(url)
    storage.add_run(DagsterRun(job_name="kept"))
    with psycopg.connect(url.replace("+psycopg2", "")) as connection:
        connection.execute("COMMENT ON SCHEMA public IS 'made by an older version'")
    assert ensure_tables(url) is True
    assert storage.get_runs_count() == 1
    storage.dispose()


def test_a_database_that_refuses_is_one_sentence_without_the_password(url: str) -> None:
    ensure_tables(url)
    role = f"weak_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url.replace("+psycopg2", ""), autocommit=True) as connection:
        connection.execute("COMMENT ON SCHEMA public IS NULL")
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'w3akS3cret'")
        place = psycopg.conninfo.conninfo_to_dict(url.replace("+psycopg2", ""))
        refused = f"postgresql+psycopg2://{role}:w3akS3cret@{place['host']}:{place['port']}/{place['dbname']}"
        try:
            with pytest.raises(LiqError, match="Dagster's tables could not be made: ") as raised:
                ensure_tables(refused)
        finally:
            connection.execute(f"DROP ROLE {role}")
    assert "w3akS3cret" not in str(raised.value)


def test_asking_costs_no_import_of_dagster() -> None:
    code = (
        "import liq_pipeline.runtime.up, sys; print([m for m in ('dagster', 'dagster_postgres') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
