"""The way back: a backup into an empty home, or into an empty database on a server of one's own.

Belongs here: refusing what cannot be restored, and the order of the steps. Does not: the manifest's form
(manifest.py), running pg_restore (programs.py).

Everything is checked before anything is written. What was restored is counted against the manifest before it counts as
restored. A home that a killed restore left half filled carries a mark, and `liq up` refuses it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from liq_pipeline.backup import home_files, manifest, programs
from liq_pipeline.backup.make import Meter, Progress, count_rows, read_offsets
from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers import dagster_home, database_roles
from liq_pipeline.runtime.servers.dagster_storage import VARIABLE as DAGSTER_VARIABLE
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import check_url, connect
from liq_pipeline.store.schema import editions, roles
from liq_pipeline.store.schema.migrations import load

Connection = psycopg.Connection[Any]
Say = Callable[[str], None]
Show = Callable[[Progress], None]

DATABASE: Final = "liq"
WORKERS: Final = 2
"""Of pg_restore into a server of our own: one loads rows while the other builds indexes."""
_FIRST_WITH_TRANSACTION_TIMEOUT: Final = 17


def restore(settings: Settings, directory: Path, *, say: Say, show: Show) -> manifest.Manifest:
    """Restore the backup in directory; what was in it. LiqError, with nothing written, if that cannot be done.

    LIQ_DATABASE_URL names a server of one's own, whose database must be empty; without it the home gets the embedded
    one. The home must be empty; it may keep the Kafka that the backup's offsets belong to.
    """
    directory = directory.expanduser().absolute()
    content = manifest.read(directory)
    _refuse_another_schema(directory, content)
    home = Home(settings.home)
    _refuse_used_home(home, content)
    manifest.check_files(directory, content, lambda name: say(f"checking {name}"))
    home.prepare()
    home.acquire()
    mark = home.unfinished_path
    try:
        if settings.database_url is None:
            _refuse_timescaledb(content)
            mark.write_text(f"{directory}\n")
            with _embedded(home, settings, directory, content) as urls:
                _fill(urls.owner, directory / manifest.DATABASE_DUMP, content, say, show, ["--jobs", str(WORKERS)])
                _fill_dagster(urls.dagster_storage, directory, say, show)
                database_roles.make_schema(urls.owner)
                _analyse(urls.owner)
        else:
            _restore_into_own(settings, directory, content, say, show, mark)
        for path in home_files.kept(directory / manifest.HOME_FOLDER):
            is_password = path.parts[0] == "postgres"
            if path.name != home_files.SETTINGS_FILE and not is_password:
                home_files.copy(directory / manifest.HOME_FOLDER / path, home.path / path)
        # Beside the home's own files, and never read by itself: whoever starts the program says what is in force.
        home_files.copy(
            directory / manifest.HOME_FOLDER / home_files.SETTINGS_FILE, home.path / home_files.SETTINGS_FILE
        )
        mark.unlink(missing_ok=True)
    finally:
        home.release()
    return content


# -- refusing ------------------------------------------------------------------------------------------------------


def _refuse_another_schema(directory: Path, content: manifest.Manifest) -> None:
    known = {migration.number: migration.checksum for migration in load()}
    for migration in content.migrations:
        if known.get(migration.number) != migration.checksum:
            raise LiqError(
                f"the backup {directory} was made by liq_pipeline {content.program_version} with the schema file "
                f"{migration.name}, which this version does not have: restore it with the version that made it"
            )


def _refuse_used_home(home: Home, content: manifest.Manifest) -> None:
    holder = home.holder()
    if holder is not None:
        raise LiqError(f"`liq up` is running on {home.path} (pid {holder.pid}): stop it, and restore into another home")
    home.refuse_unfinished()
    used = [name for name in ("postgres/data", "postgres/password", "installation.json") if (home.path / name).exists()]
    if used:
        raise LiqError(
            f"the home {home.path} is not empty ({used[0]} is there): a backup is restored into an empty home only, "
            "name another one in LIQ_HOME"
        )
    cluster_id_path = home.path / "kafka" / "cluster_id"
    if (home.path / "kafka").exists() and (
        not cluster_id_path.exists() or cluster_id_path.read_text().strip() != content.kafka_cluster_id
    ):
        raise LiqError(
            f"the home {home.path} holds a Kafka that is not the backup's ({content.kafka_cluster_id}): name an empty "
            "home in LIQ_HOME, or remove its folder kafka"
        )


def _refuse_timescaledb(content: manifest.Manifest) -> None:
    if content.server.edition != "none":
        raise LiqError(
            f"the backup holds TimescaleDB {content.server.timescaledb_version}, which the embedded PostgreSQL does "
            "not have: name a server with it in LIQ_DATABASE_URL"
        )


def _refuse_older_server(conn: Connection, content: manifest.Manifest) -> None:
    major = conn.info.server_version // 10_000
    if major < content.server.major:
        raise LiqError(
            f"the backup comes from PostgreSQL {content.server.major} and this server is PostgreSQL {major}: restore "
            f"it into PostgreSQL {content.server.major} or newer"
        )


# -- the embedded server -------------------------------------------------------------------------------------------


@contextmanager
def _embedded(
    home: Home, settings: Settings, directory: Path, content: manifest.Manifest
) -> Iterator[database_roles.DatabaseUrls]:
    """A running server in the home, with the backup's passwords, roles and two empty databases; stopped afterwards.

    What a failed restore made is removed again.
    """
    for path in home_files.kept(directory / manifest.HOME_FOLDER):
        if path.parts[0] == "postgres":
            home_files.copy(directory / manifest.HOME_FOLDER / path, home.path / path)
    server = EmbeddedPostgres(home.path, free_port(), settings.run_as, dies_with_us=True)
    try:
        server.start()
        urls = database_roles.make_roles(server, DATABASE)
        with connect(urls.owner, application_name="liq restore") as conn:
            _refuse_older_server(conn, content)
        yield urls
    except BaseException:
        server.stop()
        shutil.rmtree(server.directory, ignore_errors=True)
        home.unfinished_path.unlink(missing_ok=True)
        raise
    server.stop()


# -- a server of one's own -----------------------------------------------------------------------------------------


def _restore_into_own(
    settings: Settings, directory: Path, content: manifest.Manifest, say: Say, show: Show, mark: Path
) -> None:
    given = settings.database_owner_url or settings.database_url
    assert given is not None  # noqa: S101 - the caller looked
    url = given.get_secret_value()
    check_url(url)
    try:
        _ensure_database(url)
        with connect(url, application_name="liq restore") as conn:
            _refuse_older_server(conn, content)
            _refuse_used_database(conn)
            single = _single_transaction(conn, content)
            _prepare_timescale(conn, content)
            conn.commit()
    except psycopg.OperationalError as error:
        raise LiqError(f"the database to restore into cannot be reached: {' '.join(str(error).split())}") from None
    mark.write_text(f"{directory}\n")
    if content.server.edition == "none":
        try:
            _fill(url, directory / manifest.DATABASE_DUMP, content, say, show, single)
        except LiqError:
            if single:
                mark.unlink()  # the one transaction left nothing
            raise
    else:
        with _timescale_restoring(url):
            _load(url, directory / manifest.DATABASE_DUMP, content, say, show, single)
        _compare(url, content)
    database_roles.make_schema(url)
    with connect(url, application_name="liq restore") as conn:
        # A superuser may have restored, as TimescaleDB asks for: what came belongs to the database's owner.
        row = conn.execute(
            "SELECT pg_get_userbyid(datdba), current_user FROM pg_database WHERE datname = current_database()"
        ).fetchone()
        if row is not None and row[0] != row[1]:
            roles.hand_over(conn, row[0])
    _analyse(url)
    writer = settings.database_url
    if writer is None or not (directory / manifest.DAGSTER_DUMP).exists():
        return
    try:
        database = str(conninfo_to_dict(url).get("dbname", DATABASE))
        dagster_url = os.environ.get(DAGSTER_VARIABLE) or dagster_home.ensure_storage(
            writer.get_secret_value(), dagster_home.storage_name(database)
        )
        _fill_dagster(dagster_url, directory, say, show)
    except psycopg.Error as error:
        say(f"Dagster's run history was not restored: {str(error).splitlines()[0]}")


def _ensure_database(url: str) -> None:
    """Make the database of the URL if the server does not have it."""
    name = conninfo_to_dict(url).get("dbname")
    try:
        connect(url, application_name="liq restore").close()
    except psycopg.OperationalError as error:
        if f'database "{name}" does not exist' not in str(error):
            raise
        with psycopg.connect(make_conninfo(url, dbname="postgres"), autocommit=True) as conn:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(str(name))))


def _refuse_used_database(conn: Connection) -> None:
    row = conn.execute(
        """
        SELECT c.oid::regclass::text FROM pg_class AS c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
          AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
        ORDER BY 1 LIMIT 1
        """
    ).fetchone()
    if row is not None:
        raise LiqError(
            f"the database {conn.info.dbname} on {conn.info.host} is not empty ({row[0]} is there): a backup is "
            "restored into an empty database only, name another one in LIQ_DATABASE_URL"
        )


def _single_transaction(conn: Connection, content: manifest.Manifest) -> list[str]:
    """All or nothing, where pg_restore can: an older server refuses one of its settings, TimescaleDB needs steps."""
    plain = content.server.edition == "none"
    return (
        ["--single-transaction"]
        if plain and conn.info.server_version >= _FIRST_WITH_TRANSACTION_TIMEOUT * 10_000
        else []
    )


def _prepare_timescale(conn: Connection, content: manifest.Manifest) -> None:
    """The extension in exactly the backup's version: its own tables are part of the dump."""
    wanted = content.server.timescaledb_version
    if wanted is None:
        return
    available = conn.execute(
        "SELECT 1 FROM pg_available_extension_versions WHERE name = 'timescaledb' AND version = %s", [wanted]
    ).fetchone()
    row = conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
    if available is None or (row is not None and row[0] != wanted):
        have = "none" if row is None else row[0]
        raise LiqError(
            f"the backup holds TimescaleDB {wanted} and this database has {have}: a dump is restored into the same "
            "version only, install that one, restore, and then ALTER EXTENSION timescaledb UPDATE"
        )
    try:
        if row is None:
            conn.execute(sql.SQL("CREATE EXTENSION timescaledb VERSION {}").format(sql.Literal(wanted)))
            conn.commit()
    except psycopg.Error as error:
        words = str(error).splitlines()[0]
        raise LiqError(
            f"the extension timescaledb cannot be made in this database ({words}): make it, then restore"
        ) from error
    edition = editions.detect(conn)
    if content.server.edition == "timescale" and edition != "timescale":
        raise LiqError(
            "the backup comes from TimescaleDB's community edition (continuous aggregates, compressed chunks) and this "
            "server has the Apache edition: restore it into a community one"
        )
    superuser = conn.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    if superuser != (True,):
        raise LiqError(
            "only a superuser may restore TimescaleDB's own tables: name one in LIQ_DATABASE_OWNER_URL for this "
            "command, what it restores is handed to the owner of the database"
        )


@contextmanager
def _timescale_restoring(url: str) -> Iterator[None]:
    """Between TimescaleDB's own pre and post steps: background workers are stopped, hooks are off."""
    with psycopg.connect(url, autocommit=True, application_name="liq restore") as conn:
        conn.execute("SELECT timescaledb_pre_restore()")
    try:
        yield
    finally:
        with psycopg.connect(url, autocommit=True, application_name="liq restore") as conn:
            conn.execute("SELECT timescaledb_post_restore()")


# -- filling -------------------------------------------------------------------------------------------------------


def _fill(url: str, dump: Path, content: manifest.Manifest, say: Say, show: Show, options: list[str]) -> None:
    _load(url, dump, content, say, show, options)
    _compare(url, content)


def _load(url: str, dump: Path, content: manifest.Manifest | None, say: Say, show: Show, options: list[str]) -> None:
    """content: whose rows tell how far it is; None: by tables."""
    say(f"restoring {dump.name}")
    with connect(url, application_name="liq restore") as conn:
        major = conn.info.server_version // 10_000
    names = _tables_in(dump, major)
    rows = {} if content is None else {f"public.{name}": rows for name, rows in content.rows.items()}
    meter = Meter({name: 1 + rows.get(name, 0) for name in names}, show)
    programs.run(
        programs.directory_for(major) / "pg_restore",
        url,
        # Who owns what, and who may do what, is this installation's own: made anew afterwards.
        ["--no-owner", "--no-privileges", *options, str(dump)],
        at_table=meter.at_table,
    )
    meter.finish()


def _fill_dagster(url: str, directory: Path, say: Say, show: Show) -> None:
    """Dagster's runs and events, where the backup has them and nothing is there yet."""
    dump = directory / manifest.DAGSTER_DUMP
    if not dump.exists():
        return
    plain = url.replace("postgresql+psycopg2://", "postgresql://", 1)
    with connect(plain, application_name="liq restore") as conn:
        if conn.execute("SELECT to_regclass('runs') IS NOT NULL").fetchone() == (True,):
            say("Dagster's database is in use already: its run history was not restored")
            return
    _load(plain, dump, None, say, show, [])


def _compare(url: str, content: manifest.Manifest) -> None:
    """LiqError if a table or an offset is not what it was."""
    with connect(url, application_name="liq restore") as conn:
        rows, offsets = count_rows(conn), read_offsets(conn)
    for name, expected in content.rows.items():
        if rows.get(name) != expected:
            raise LiqError(f"the restored table {name} has {rows.get(name)} rows in place of {expected}: restore again")
    if offsets != content.offsets:
        raise LiqError("the restored offsets are not those of the backup: restore again")


def _analyse(url: str) -> None:
    """A dump brings no statistics, and without them the first queries would be planned blindly."""
    with psycopg.connect(url, autocommit=True, application_name="liq restore") as conn:
        conn.execute("ANALYZE")


def _tables_in(dump: Path, major: int) -> list[str]:
    return programs.tables_in(programs.directory_for(major) / "pg_restore", dump)
