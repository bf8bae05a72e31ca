"""Dagster's own tables, made by one process before the several start that would each make them.

Belongs here: making them and bringing them up to date. Does not: where they are (dagster_home.py) or what is in them.

Left alone, code server, webserver and daemon find an empty database at the same moment; one of them then meets a table
that another has just made, and ends: one first start in a few failed so on a busy machine. A process that is killed in
the middle of making them leaves a store that Dagster takes for whole. So this is done under a lock, and a comment on
the schema says with which versions it was done; another version of Dagster brings the tables up to date here, too.

    python -m liq_pipeline.runtime.servers.dagster_storage        the store of LIQ_DAGSTER_PG_URL
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from typing import Any, Final

import psycopg
from psycopg import sql

from liq_pipeline.errors import LiqError

VARIABLE: Final = "LIQ_DAGSTER_PG_URL"
_LOCK: Final = "liq_pipeline dagster storage"
_MARK: Final = f"Tables of dagster {version('dagster')}, dagster-postgres {version('dagster-postgres')}"


def ensure_tables(url: str) -> bool:
    """Make the tables if they are not there or not of this version; whether anything was done.

    url: psycopg2 form, a secret. In a process of its own: the caller need not carry Dagster in its memory for ever.
    LiqError if it fails.
    """
    with psycopg.connect(_plain(url), autocommit=True, connect_timeout=10) as connection:
        if _is_marked(connection):
            return False
    done = subprocess.run(
        [sys.executable, "-m", "liq_pipeline.runtime.servers.dagster_storage"],
        env={**os.environ, VARIABLE: url},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise LiqError(f"Dagster's tables could not be made: {words[0]}")
    return True


def make_tables(url: str) -> None:
    """Make or mend the tables, one process at a time. Raises what the database raises."""
    with psycopg.connect(_plain(url), autocommit=True, connect_timeout=10) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext(%s))", (_LOCK,))
        if _is_marked(connection):
            return
        _make(url, is_used=_is_used(connection))
        schema = connection.execute("SELECT current_schema()").fetchone()
        assert schema is not None  # noqa: S101 - one row by definition
        connection.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(schema[0]), sql.Literal(_MARK)))


def _make(url: str, *, is_used: bool) -> None:
    import sqlalchemy
    from dagster._core.storage.event_log import SqlEventLogStorageMetadata
    from dagster._core.storage.runs import RunStorageSqlMetadata
    from dagster._core.storage.schedules import ScheduleStorageSqlMetadata
    from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage

    if not is_used:
        # What a killed start left half made holds nothing yet, and Dagster would never complete it.
        engine = sqlalchemy.create_engine(url)
        for metadata in (RunStorageSqlMetadata, SqlEventLogStorageMetadata, ScheduleStorageSqlMetadata):
            metadata.drop_all(engine)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS alembic_version"))
        engine.dispose()
    for storage in (PostgresRunStorage(url), PostgresEventLogStorage(url), PostgresScheduleStorage(url)):
        storage.upgrade()
        storage.dispose()


def _is_marked(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT obj_description(current_schema()::regnamespace, 'pg_namespace')").fetchone()
    return row == (_MARK,)


def _is_used(connection: psycopg.Connection[Any]) -> bool:
    """Whether any run or event was ever stored."""
    for table in ("runs", "event_logs"):
        if connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone() == (True,):
            found = connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(table))).fetchone()
            if found is not None:
                return True
    return False


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg2://", "postgresql://", 1)


if __name__ == "__main__":
    make_tables(os.environ[VARIABLE])
