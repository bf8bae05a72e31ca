"""A backup of a running installation: one snapshot of the database, and what the home keeps.

Belongs here: the order of the steps. Does not: the manifest's form (manifest.py), running pg_dump (programs.py).

What Kafka had acknowledged when the backup began is landed first, by the same Lander as everywhere, so that it is in
the snapshot; rows, offsets and the cluster's id are then of one instant. Nothing stops meanwhile: the dump only reads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from liq_pipeline.backup import home_files, manifest, programs
from liq_pipeline.bus.reader import ReadError, TopicReader
from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.runtime.files import write_atomically
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.servers.dagster_storage import VARIABLE as DAGSTER_VARIABLE
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing.lander import Lander, LandingError
from liq_pipeline.store.schema import editions

Connection = psycopg.Connection[Any]

LANDING_SECONDS: Final = 120.0
"""How long landing may take before the backup goes on without the rest, which is said."""
LOCK_WAIT: Final = "60s"
COMPRESSION: Final = "gzip:1"
"""What every build of pg_dump can do; higher levels take three times as long for a few per cent."""


@dataclass(frozen=True)
class Progress:
    """How far it is, of all (bytes of tables, or rows); what is read or written now."""

    done: int
    total: int
    what: str


def back_up(
    settings: Settings,
    endpoints: Endpoints,
    directory: Path,
    *,
    say: Callable[[str], None],
    show: Callable[[Progress], None],
) -> manifest.Manifest:
    """Write a backup into directory, which must be absent or empty. What failed leaves nothing there.

    LiqError if it cannot be made. A Kafka that does not answer is said, and noted in the manifest.
    """
    directory = directory.expanduser().absolute()
    _make_empty(directory)
    try:
        made = _back_up(settings, endpoints, directory, say, show)
        manifest.write(directory, made)
    except BaseException:
        for path in directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
    return made


def _back_up(
    settings: Settings,
    endpoints: Endpoints,
    directory: Path,
    say: Callable[[str], None],
    show: Callable[[Progress], None],
) -> manifest.Manifest:
    cluster_id, everything_landed = _land(settings, endpoints, say)
    owner_url = endpoints.database_owner_url or endpoints.database_url
    with connect(owner_url, application_name="liq backup") as conn:
        conn.execute("SET idle_in_transaction_session_timeout = 0")
        conn.commit()
        # Rows are counted, and offsets read, in the very snapshot that pg_dump is given.
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.read_only = True
        snapshot = str(_one(conn, "SELECT pg_export_snapshot()"))
        made_at = _one(conn, "SELECT transaction_timestamp()")
        server = _server(conn)
        migrations = tuple(
            manifest.Migration(*row)
            for row in conn.execute("SELECT number, name, checksum FROM schema_migrations ORDER BY number")
        )
        if not migrations:
            raise LiqError("the database holds no schema of liq_pipeline yet: there is nothing to back up")
        offsets = read_offsets(conn)
        world = conn.execute("SELECT world FROM worlds WHERE is_active").fetchone()
        if cluster_id is None:
            row = conn.execute("SELECT cluster_id FROM consumer_offsets ORDER BY updated_at DESC LIMIT 1").fetchone()
            cluster_id = None if row is None else row[0].partition("~")[0]
        say("counting rows")
        rows = count_rows(conn)
        _dump(conn, owner_url, directory / manifest.DATABASE_DUMP, f"--snapshot={snapshot}", show)
    dagster_url = endpoints.dagster_storage_url or os.environ.get(DAGSTER_VARIABLE)
    if dagster_url is None:
        say("Dagster's database is not known here (LIQ_DAGSTER_PG_URL): its run history is not in the backup")
    elif _database(dagster_url) != _database(owner_url):
        plain = dagster_url.replace("postgresql+psycopg2://", "postgresql://", 1)
        with connect(plain, application_name="liq backup") as conn:
            _dump(conn, plain, directory / manifest.DAGSTER_DUMP, None, show)
    _keep_home(Home(settings.home), directory / manifest.HOME_FOLDER)
    say("computing checksums")
    return manifest.Manifest(
        format=manifest.FORMAT,
        made_at=made_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        program_version=version("liq_pipeline"),
        server=server,
        migrations=migrations,
        world=None if world is None else world[0],
        kafka_cluster_id=cluster_id,
        everything_landed=everything_landed,
        offsets=offsets,
        rows=rows,
        files={
            path.relative_to(directory).as_posix(): manifest.describe(path)
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        },
    )


def count_rows(conn: Connection) -> dict[str, int]:
    """Rows of each of our tables, by name."""
    names = conn.execute(
        """
        SELECT c.relname FROM pg_class AS c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
          AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
        ORDER BY c.relname
        """
    ).fetchall()
    return {
        name: int(_one(conn, sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(name))))
        for (name,) in names
    }


def read_offsets(conn: Connection) -> tuple[manifest.Offset, ...]:
    """All rows of consumer_offsets, in order."""
    found = conn.execute(
        "SELECT consumer, cluster_id, topic, kafka_partition, topic_id, next_offset FROM consumer_offsets"
    )
    return tuple(sorted(manifest.Offset(*row) for row in found))


def table_bytes(conn: Connection) -> dict[str, int]:
    """ "schema.table" -> its bytes without indexes, of everything that pg_dump reads."""
    return dict(
        conn.execute(
            """
            SELECT n.nspname || '.' || c.relname, pg_table_size(c.oid)
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
            """
        ).fetchall()
    )


class Meter:
    """Turns "this table begins" into bytes done of all."""

    def __init__(self, sizes: dict[str, int], show: Callable[[Progress], None]) -> None:
        self._sizes = sizes
        self._show = show
        self._done = 0
        self._current: str | None = None

    def at_table(self, name: str) -> None:
        """The rows of "schema.table" begin; those of the one before have ended."""
        self._done += self._sizes.get(self._current or "", 0)
        self._current = name
        self._show(Progress(self._done, sum(self._sizes.values()), name))

    def finish(self) -> None:
        total = sum(self._sizes.values())
        self._show(Progress(total, total, "done"))


def _land(settings: Settings, endpoints: Endpoints, say: Callable[[str], None]) -> tuple[str | None, bool]:
    """Land what Kafka holds now; the cluster's id, and whether all of it has landed."""
    say("landing what Kafka has acknowledged")
    arguments = (endpoints.database_url, endpoints.kafka_bootstrap_servers, settings.kafka_topic_prefix)
    try:
        with Lander(*arguments) as lander:
            reached = lander.land_to_end(LANDING_SECONDS).reached_end
        reader = TopicReader(endpoints.kafka_bootstrap_servers, settings.kafka_topic_prefix, client_id="liq-backup")
        try:
            cluster_id = reader.cluster_id
        finally:
            reader.close()
    except (ReadError, LandingError) as error:
        say(f"what Kafka holds and has not landed is not in the backup: {error}")
        return None, False
    if not reached:
        say(f"not all of it landed within {LANDING_SECONDS:.0f} s: the rest stays in Kafka and is not in the backup")
    return cluster_id, reached


def _server(conn: Connection) -> manifest.Server:
    row = conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
    edition = editions.detect(conn)
    return manifest.Server(conn.info.server_version, edition, None if row is None or edition == "none" else row[0])


def _dump(conn: Connection, url: str, path: Path, snapshot: str | None, show: Callable[[Progress], None]) -> None:
    meter = Meter(table_bytes(conn), show)
    programs.run(
        programs.directory_for(conn.info.server_version // 10_000) / "pg_dump",
        url,
        [
            *("--format=custom", f"--compress={COMPRESSION}", f"--file={path}", f"--lock-wait-timeout={LOCK_WAIT}"),
            *([] if snapshot is None else [snapshot]),
        ],
        at_table=meter.at_table,
    )
    meter.finish()


def _keep_home(home: Home, target: Path) -> None:
    target.mkdir(mode=0o700)
    for path in home_files.kept(home.path):
        home_files.copy(home.path / path, target / path)
    write_atomically(target / home_files.SETTINGS_FILE, home_files.settings_in_force(home))


def _make_empty(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise LiqError(f"{directory} is not empty: name a new folder, each backup has its own")
        directory.chmod(0o700)
    except OSError as error:
        raise LiqError(f"the backup cannot be written into {directory}: {error.strerror}") from error


def _database(url: str) -> tuple[str, ...]:
    parts = conninfo_to_dict(url.replace("postgresql+psycopg2://", "postgresql://", 1))
    return tuple(str(parts.get(name, "")) for name in ("host", "port", "dbname"))


def _one(conn: Connection, query: str | sql.Composed) -> Any:
    row = conn.execute(query.encode() if isinstance(query, str) else query).fetchone()
    assert row is not None  # noqa: S101 - each of these queries has one row
    return row[0]
