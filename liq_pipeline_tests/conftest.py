"""The servers and data that tests share. Real PostgreSQL and real Kafka, one of each per test process.

Belongs here: fixtures that several test files need. Does not: helpers of one subject (they stand beside its tests).
Tests that stop or kill a server start one of their own; the shared ones stay up for everybody.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.topics import IN_TOPICS, OUT_TOPICS, wire_name
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.settings import Settings, get_settings
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests import timescale_packages

REPOSITORY = Path(__file__).resolve().parents[1]
_SHARED_DATA = Path(os.environ.get("LIQ_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
_COMMUNITY_URL = os.environ.get("LIQ_TEST_TIMESCALE_URL")  # read before the environment is cleaned
_FOREIGN = ("COINGECKO_API_KEY", "ETHERSCAN_API_KEY", "DAGSTER_HOME")
# Nothing of a test must survive a power cut, so its commits need not wait for the disk.
_RELAXED = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the TimescaleDB server share one process: unpacking and starting it twice is the dearest part."""
    for item in items:
        if "timescale_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("timescale"))


@pytest.fixture(autouse=True)
def children_that_hear() -> None:
    """What an earlier test in this process blocked would be blocked in every child of this one."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the settings of the person who runs it."""
    for name in list(os.environ):
        if name.startswith("LIQ_") or name in _FOREIGN:
            monkeypatch.delenv(name)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def server_home() -> Iterator[Path]:
    """Where this test process keeps its servers; every folder on the way may be passed by PostgreSQL's own user."""
    home = Path(tempfile.mkdtemp(prefix="liq-tests-"))
    home.chmod(0o711)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def new_home() -> Iterator[Path]:
    """An empty LIQ_HOME for a test that runs servers of its own (pytest's tmp_path is closed to other users)."""
    home = Path(tempfile.mkdtemp(prefix="liq-home-"))
    home.chmod(0o711)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(server_home: Path) -> Iterator[EmbeddedPostgres]:
    """A running embedded PostgreSQL. Not for stopping."""
    server = EmbeddedPostgres(server_home, free_port(), settings=_RELAXED)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _template_database(postgres_server: EmbeddedPostgres) -> str:
    """The schema, built once; each test's database is a copy."""
    migrate(postgres_server.ensure_database("liq_template"))
    return "liq_template"


def _create_database(server: EmbeddedPostgres, template: str) -> str:
    """A copy. By files: through the log, as is the default, the 600 relations take 0.2 to 0.4 s, so 0.05 to 0.1 s."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    return name


def _drop_database(server: EmbeddedPostgres, name: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, _template_database: str) -> Iterator[str]:
    """A fresh database with the whole schema, dropped after the test."""
    name = _create_database(postgres_server, _template_database)
    yield postgres_server.url(name)
    _drop_database(postgres_server, name)


@pytest.fixture
def new_database_url(postgres_server: EmbeddedPostgres, _template_database: str) -> Iterator[Callable[[], str]]:
    """A maker of fresh databases with the whole schema, for tests that compare several."""
    made: list[str] = []

    def make() -> str:
        made.append(_create_database(postgres_server, _template_database))
        return postgres_server.url(made[-1])

    yield make
    for name in made:
        _drop_database(postgres_server, name)


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A fresh database with nothing in it, dropped after the test."""
    name = _create_database(postgres_server, "template1")
    yield postgres_server.url(name)
    _drop_database(postgres_server, name)


@pytest.fixture(scope="session")
def timescale_server(server_home: Path) -> Iterator[EmbeddedPostgres]:
    """A running TimescaleDB, Apache edition. Not for stopping. Skips, with the reason, where it cannot be had."""
    home = server_home / "timescale"
    home.mkdir(mode=0o711)
    try:
        server = timescale_packages.timescale_server(home, _RELAXED)
    except timescale_packages.TimescaleUnavailableError as reason:
        pytest.skip(str(reason))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def timescale_url(timescale_server: EmbeddedPostgres) -> Iterator[str]:
    """A fresh, empty database on a TimescaleDB server of the Apache edition, dropped after the test."""
    name = _create_database(timescale_server, "template0")
    yield timescale_server.url(name)
    _drop_database(timescale_server, name)


@pytest.fixture
def community_url() -> Iterator[str]:
    """A fresh, empty database on the server of LIQ_TEST_TIMESCALE_URL, if that is TimescaleDB's community edition."""
    if _COMMUNITY_URL is None:
        pytest.skip("no TimescaleDB community edition: set LIQ_TEST_TIMESCALE_URL to a server of it")
    name = f"test_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(_COMMUNITY_URL, autocommit=True) as connection:
        licence = connection.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
        if licence != ("timescale",):
            pytest.skip(f"the server of LIQ_TEST_TIMESCALE_URL has the licence {licence}, not timescale")
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    yield make_url(_COMMUNITY_URL).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(_COMMUNITY_URL, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def kafka_server(server_home: Path) -> Iterator[str]:
    """The bootstrap servers of a running embedded Kafka. Not for stopping."""
    server = EmbeddedKafka(server_home, free_port(), memory_mb=256)
    server.start()
    yield server.bootstrap_servers
    server.stop()


@pytest.fixture
def topic_prefix(kafka_server: str) -> Iterator[str]:
    """A prefix nobody else uses, its eight topics made."""
    from kafka.admin import KafkaAdminClient

    prefix = f"t{uuid.uuid4().hex[:10]}."
    ensure_topics(kafka_server, prefix)
    yield prefix
    admin = KafkaAdminClient(bootstrap_servers=kafka_server, client_id="liq-tests")
    try:
        admin.delete_topics([wire_name(topic, prefix) for topic in (*IN_TOPICS, *OUT_TOPICS)], raise_errors=False)
    finally:
        admin.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: $LIQ_SHARED_DATA, or shared/data beside the repository. Skips where it is absent."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("no real data: set LIQ_SHARED_DATA, or lay shared/data beside the repository")
    return _SHARED_DATA


@pytest.fixture
def settings(new_home: Path) -> Callable[..., Settings]:
    """A maker of Settings with an empty home of their own: settings(symbols=("BTC",), kafka_topic_prefix="x.")."""

    def make(**values: Any) -> Settings:
        return Settings(**{"home": new_home, **values})

    return make
