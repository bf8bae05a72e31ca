"""The shared servers are real and clean for every test."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from kafka.admin import KafkaAdminClient

from liq_pipeline.bus.topics import IN_TOPICS, OUT_TOPICS
from liq_pipeline.settings import Settings


@pytest.mark.xdist_group("grouping-works")
def test_tests_of_one_group_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """Some pairs of pytest and pytest-xdist ignore groups without a word, and each group's servers then start twice."""
    if not request.config.option.__dict__.get("loadgroup"):
        pytest.skip("only with --dist loadgroup, as in make test")
    assert request.node.nodeid.endswith("@grouping-works")


def test_a_database_comes_with_the_schema_and_nothing_in_it(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM prices").fetchone() == (0,)
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)


def test_databases_are_apart(new_database_url: Callable[[], str]) -> None:
    first, second = new_database_url(), new_database_url()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE only_here (x integer)")
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)


def test_an_empty_database_is_empty(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regclass('public.prices')").fetchone() == (None,)


def test_a_prefix_comes_with_its_eight_topics(kafka_server: str, topic_prefix: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka_server)
    try:
        found = {name for name in admin.list_topics() if name.startswith(topic_prefix)}
    finally:
        admin.close()
    assert found == {topic_prefix + topic for topic in (*IN_TOPICS, *OUT_TOPICS)}


def test_settings_do_not_come_from_the_person_running_the_tests(settings: Callable[..., Settings]) -> None:
    assert settings().database_url is None


def test_the_timescale_server_is_the_real_thing_in_its_apache_edition(timescale_url: str) -> None:
    with psycopg.connect(timescale_url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        assert connection.execute("SHOW timescaledb.license").fetchone() == ("apache",)
        connection.execute("CREATE TABLE points (time timestamptz NOT NULL, x integer)")
        connection.execute("SELECT create_hypertable('points', 'time')")
        connection.execute("INSERT INTO points VALUES (now(), 1)")
        assert connection.execute("SELECT count(*) FROM points").fetchone() == (1,)
