"""One filled database and one desk for all tests that only read."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.desk.support import RunningDesk, desk, fill


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They share one process: filling the database twice is the dearest part."""
    for item in items:
        if "filled_template" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("desk"))


@pytest.fixture(scope="session")
def filled_template(postgres_server: EmbeddedPostgres, kafka_server: str) -> str:
    """The name of a database that holds the simulated day. Not for use; for copies."""
    name = "desk_template"
    url = postgres_server.ensure_database(name)
    migrate(url)
    prefix = f"d{uuid.uuid4().hex[:8]}."
    ensure_topics(kafka_server, prefix)
    fill(url, kafka_server, prefix)
    return name


def _copy(server: EmbeddedPostgres, template: str) -> str:
    name = f"desk_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    return name


def _drop(server: EmbeddedPostgres, name: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def filled_url(postgres_server: EmbeddedPostgres, filled_template: str) -> Iterator[str]:
    """The simulated day, shared: only for reading."""
    name = _copy(postgres_server, filled_template)
    yield postgres_server.url(name)
    _drop(postgres_server, name)


@pytest.fixture
def own_url(postgres_server: EmbeddedPostgres, filled_template: str) -> Iterator[str]:
    """The simulated day for one test, which may write."""
    name = _copy(postgres_server, filled_template)
    yield postgres_server.url(name)
    _drop(postgres_server, name)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium. Skips, with the reason, where it is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no browser: install Debian's chromium (.ci/run does where it is root)")
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="session")
def desk_home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="liq-desk-"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_desk(filled_url: str, desk_home: Path) -> Iterator[RunningDesk]:
    """A desk on the shared day."""
    with desk(filled_url, desk_home) as made:
        yield made
