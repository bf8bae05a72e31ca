"""The migrator: brings a database to the schema that the files under sql/ describe.

Belongs here: which numbered file has run, in which order, exactly once. Does not: the schema itself (sql/), or what
only some TimescaleDB editions can do (editions.py, run at the end).

Each file runs in a transaction of its own together with its row in `schema_migrations`, so a process that dies leaves
a whole number of migrations behind. A session-level advisory lock makes two migrators take turns. The checksum of a
file that has run is kept: a file changed afterwards is an error, because the database no longer is what it says.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from liq_pipeline.errors import LiqError
from liq_pipeline.store.connection import connect
from liq_pipeline.store.rollups import upkeep
from liq_pipeline.store.schema import community, editions, roles

log = logging.getLogger(__name__)

SQL_DIRECTORY = Path(__file__).resolve().parents[3] / "sql"
_FILE_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_LOCK_KEY = int.from_bytes(hashlib.sha256(b"liq_pipeline migrations").digest()[:8], "big", signed=True)

_BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


class MigrationError(LiqError):
    """The database cannot be brought up to date; one sentence says why and what to do."""


@dataclass(frozen=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load(directory: Path = SQL_DIRECTORY) -> list[Migration]:
    """All migrations of a directory, by number. Raises MigrationError for a stray name or a number used twice."""
    if not directory.is_dir():
        raise MigrationError(
            f"the folder {directory} with the schema's SQL files is missing: install the whole project"
        )
    migrations: dict[int, Migration] = {}
    for path in sorted(directory.glob("*.sql")):
        match = _FILE_NAME.match(path.name)
        if match is None:
            raise MigrationError(f"{path.name} in {directory} is not named NNNN_words.sql")
        number = int(match[1])
        if number in migrations:
            raise MigrationError(f"{path.name} and {migrations[number].name} in {directory} carry the same number")
        migrations[number] = Migration(number, path.name, path.read_text(encoding="utf-8"))
    return [migrations[number] for number in sorted(migrations)]


def migrate(database_url: str, *, directory: Path = SQL_DIRECTORY) -> list[str]:
    """Apply what is missing and return the names of what was done, in order; an empty list if nothing was.

    Safe to run at any time, by any number of processes. Raises MigrationError.
    """
    migrations = load(directory)
    with connect(database_url, application_name="liq migrate") as conn:
        conn.autocommit = True
        conn.execute("SELECT pg_advisory_lock(%s)", [_LOCK_KEY])
        try:
            done = _apply(conn, migrations)
            if directory == SQL_DIRECTORY:
                # What follows belongs to our own schema, not to whatever files a caller names.
                done += editions.apply(conn)
                if editions.detect(conn) == "timescale":
                    done += community.apply(conn)
                done += upkeep.create_views(conn)
            if done:
                roles.grant(conn)
            return done
        finally:
            if not conn.closed:
                conn.execute("SELECT pg_advisory_unlock(%s)", [_LOCK_KEY])


def pending(conn: psycopg.Connection[Any], *, directory: Path = SQL_DIRECTORY) -> list[str]:
    """Names of the migrations that have not run in this database yet."""
    exists = conn.execute("SELECT to_regclass('schema_migrations') IS NOT NULL").fetchone()
    applied = set()
    if exists is not None and exists[0]:
        applied = {row[0] for row in conn.execute("SELECT number FROM schema_migrations")}
    return [migration.name for migration in load(directory) if migration.number not in applied]


def _apply(conn: psycopg.Connection[Any], migrations: list[Migration]) -> list[str]:
    conn.execute(_BOOKKEEPING)
    applied = {row[0]: (row[1], row[2]) for row in conn.execute("SELECT number, name, checksum FROM schema_migrations")}
    _verify(migrations, applied)
    done = []
    for migration in migrations:
        if migration.number in applied:
            continue
        log.info("applying %s", migration.name)
        try:
            with conn.transaction():
                # As bytes: several statements in one text, and a % in a comment is not a placeholder.
                conn.execute(migration.text.encode())
                conn.execute(
                    "INSERT INTO schema_migrations (number, name, checksum) VALUES (%s, %s, %s)",
                    [migration.number, migration.name, migration.checksum],
                )
        except psycopg.Error as error:
            raise MigrationError(f"{migration.name} failed and was rolled back: {error}") from error
        done.append(migration.name)
    return done


def _verify(migrations: list[Migration], applied: dict[int, tuple[str, str]]) -> None:
    known = {migration.number: migration for migration in migrations}
    for number, (name, checksum) in sorted(applied.items()):
        if number not in known:
            raise MigrationError(
                f"the database has {name}, which this version of liq_pipeline does not know: install the newer version"
            )
        if known[number].checksum != checksum:
            raise MigrationError(
                f"{known[number].name} was changed after it had been applied to this database: "
                "restore the file and put the change into a new one"
            )
