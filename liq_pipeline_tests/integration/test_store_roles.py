"""Roles: the writer does the pipeline's work and no more, the reader reads."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.worlds import Manifest, World
from liq_pipeline.errors import LiqError
from liq_pipeline.operations.query import read_only_query
from liq_pipeline.runtime.endpoints import resolve
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.dagster_home import ensure_storage, storage_name
from liq_pipeline.runtime.servers.dagster_storage import ensure_tables
from liq_pipeline.runtime.servers.database_roles import make_for_own_database, set_up
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.settings import Settings
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline.store.rollups import upkeep
from liq_pipeline.store.schema import roles
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.landing_support import T0, count, price, select


def as_role(database_url: str, role: str, password: str) -> str:
    return make_url(database_url).set(username=role, password=password).render_as_string(hide_password=False)


@pytest.fixture
def with_roles(database_url: str) -> Iterator[str]:
    with connect(database_url) as conn:
        assert roles.create(conn, writer_password="w'%s", reader_password="r") == [roles.WRITER, roles.READER]
    yield database_url
    with connect(database_url) as conn:
        for role in (roles.WRITER, roles.READER):
            conn.execute(f"DROP OWNED BY {role}")
            conn.execute(f"DROP ROLE {role}")


def test_the_writer_lands_and_rolls_up_but_cannot_touch_the_schema(
    with_roles: str, kafka_server: str, topic_prefix: str
) -> None:
    url = as_role(with_roles, roles.WRITER, "w'%s")
    world = World(
        name="real",
        kind="real",
        market_step_seconds=10,
        flows_step_seconds=15,
        manifest=Manifest(symbols=(), expected={}),
    )
    with connect(url) as conn:
        worlds.register(conn, world, activate=True)
    with RecordProducer(kafka_server, topic_prefix) as producer:
        for second in (*range(399), 3 * 3600):
            producer.send(price(second))
        producer.send(price(0, price_usd=1.0, origin="archive", known_at=T0 + timedelta(minutes=1)))
    with Lander(url, kafka_server, topic_prefix) as lander:
        assert lander.land_to_end(60).rows_landed == 400
    with connect(url) as conn:
        assert upkeep.refresh(conn)["prices"] == 1
    for forbidden in (
        "CREATE TABLE mine (a int)",
        "DROP TABLE prices",
        "ALTER TABLE prices ADD COLUMN a int",
        "DELETE FROM schema_migrations",
    ):
        with connect(url) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(forbidden)


def test_the_reader_reads_and_cannot_write(with_roles: str) -> None:
    url = as_role(with_roles, roles.READER, "r")
    assert select(url, "SELECT count(*) FROM prices_1h") == [(0,)]
    assert select(url, "SHOW statement_timeout") == [("30s",)]
    with connect(url) as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        conn.execute("DELETE FROM prices")
    with connect(url) as conn:
        conn.execute("SET TRANSACTION READ WRITE")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("DELETE FROM prices")


def test_a_wrong_password_is_refused_and_a_new_one_replaces_the_old(with_roles: str) -> None:
    with connect(with_roles) as conn:
        roles.create(conn, reader_password="new")
    with pytest.raises(psycopg.OperationalError):
        connect(as_role(with_roles, roles.READER, "r"))
    assert count(as_role(with_roles, roles.READER, "new"), "signals") == 0
    assert urlsplit(with_roles).username != roles.READER


def test_tables_of_later_migrations_are_covered(with_roles: str) -> None:
    with connect(with_roles) as conn:
        conn.execute("CREATE TABLE later (a int)")
    assert count(as_role(with_roles, roles.READER, "r"), "later") == 0
    with connect(as_role(with_roles, roles.WRITER, "w'%s")) as conn:
        conn.execute("INSERT INTO later VALUES (1)")
    assert migrate(with_roles) == []


def test_a_database_of_the_user_s_own_gets_roles_by_one_command(
    empty_database_url: str, new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=new_home, database_url=SecretStr(empty_database_url))
    path = make_for_own_database(settings)
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        given = dict(line.split("=", 1) for line in path.read_text().splitlines())
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        endpoints = resolve(Settings(home=new_home, kafka_bootstrap_servers="127.0.0.1:1"))
        assert endpoints.database_owner_url == empty_database_url
        assert select(endpoints.database_url, "SELECT current_user") == [(roles.WRITER,)]
        assert endpoints.database_reader_url is not None
        assert read_only_query(endpoints.database_reader_url, "SELECT current_user").rows == [(roles.READER,)]
        assert migrate(empty_database_url) == []
        # Roles are the server's: a second installation on it must not lock out the first.
        with psycopg.connect(empty_database_url, autocommit=True) as conn:
            conn.execute("CREATE DATABASE second_installation")
        second = empty_database_url.rpartition("/")[0] + "/second_installation"
        with pytest.raises(LiqError, match=f"serve the database {empty_database_url.rpartition('/')[2]} already"):
            make_for_own_database(Settings(home=new_home, database_owner_url=SecretStr(second)))
        assert select(endpoints.database_url, "SELECT current_user") == [(roles.WRITER,)]
        migrate(second)
        writer = endpoints.database_url.rpartition("/")[0] + "/second_installation"
        assert select(writer, "SELECT count(*) FROM prices") == [(0,)]
        with psycopg.connect(empty_database_url, autocommit=True) as conn:
            conn.execute("DROP DATABASE second_installation")
        assert make_for_own_database(settings) == path, "its own passwords may be made anew"
    finally:
        with psycopg.connect(empty_database_url, autocommit=True) as conn:
            conn.execute("DROP DATABASE IF EXISTS second_installation")
        with connect(empty_database_url) as conn:
            for role in (roles.WRITER, roles.READER):
                conn.execute(f"DROP OWNED BY {role}")
                conn.execute(f"DROP ROLE {role}")


def test_its_writer_has_a_place_for_dagster_s_tables_though_it_may_make_none(new_home: Path) -> None:
    """On a server whose owner of the database is no superuser, as hosted ones are."""
    server = EmbeddedPostgres(new_home, free_port(), settings={"fsync": "off"})
    server.start()
    try:
        with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
            admin.execute("CREATE ROLE host LOGIN CREATEROLE PASSWORD 'h'")
            admin.execute("CREATE DATABASE ours OWNER host")
        owner = f"postgresql://host:h@127.0.0.1:{server.port}/ours"
        path = make_for_own_database(Settings(home=new_home, database_url=SecretStr(owner)))
        given = dict(line.split("=", 1) for line in path.read_text().splitlines())
        url = ensure_storage(given["LIQ_DATABASE_URL"], storage_name("ours"))
        assert ensure_tables(url)
        assert ensure_storage(given["LIQ_DATABASE_URL"], storage_name("ours")) == url
        assert not ensure_tables(url)
        assert select(owner, "SELECT pg_has_role('host', 'liq_writer', 'USAGE')") == [(False,)]
        make_for_own_database(Settings(home=new_home, database_url=SecretStr(owner)))  # new passwords, the same place
        with psycopg.connect(server.url("ours"), autocommit=True) as admin:
            admin.execute("DROP SCHEMA ours_dagster CASCADE")
            admin.execute("ALTER DATABASE ours OWNER TO liq")
            admin.execute("REVOKE CREATE ON DATABASE ours FROM host")
        before = path.read_text()
        with pytest.raises(LiqError, match="may not create roles and schemas"):
            make_for_own_database(Settings(home=new_home, database_url=SecretStr(owner)))
        assert path.read_text() == before
        given = dict(line.split("=", 1) for line in path.read_text().splitlines())
        with pytest.raises(LiqError, match="CREATE SCHEMA ours_dagster AUTHORIZATION liq_writer"):
            ensure_storage(given["LIQ_DATABASE_URL"], storage_name("ours"))
    finally:
        server.stop()


def test_a_home_of_an_earlier_version_is_handed_over_with_its_rows(new_home: Path) -> None:
    """There the superuser owned everything."""
    server = EmbeddedPostgres(new_home, free_port(), settings={"fsync": "off"})
    server.start()
    try:
        old = server.ensure_database("liq")
        migrate(old)
        with connect(old) as conn:
            conn.execute("INSERT INTO source_status (source, state) VALUES ('okx', 'up')")
        urls, applied = set_up(server, "liq")
        assert applied == []
        assert select(urls.owner, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == [
            (roles.OWNER,)
        ]
        assert select(urls.writer, "SELECT source FROM source_status") == [("okx",)]
        assert set_up(server, "liq")[0] == urls, "a second start changes no password"
        with connect(urls.owner) as conn:
            conn.execute("CREATE TABLE later (a int)")
        assert select(urls.reader, "SELECT * FROM later") == []
        dagster = urls.dagster_storage.replace("+psycopg2", "").split("?")[0]
        with connect(dagster) as conn:
            conn.execute("CREATE TABLE runs (a int)")
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            connect(urls.reader.rsplit("/", 1)[0] + "/dagster")
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            connect(dagster.rsplit("/", 1)[0] + "/liq")
    finally:
        server.stop()
