"""History gives way: it rests beside running ticks, waits for late ones, and is not held up by what has ended."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from liq_pipeline.pipeline.politeness import Politeness
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.scoring_support import START, make_world


def tick(database_url: str, seconds_ago: float) -> None:
    """The newest tick of the active world committed that long ago."""
    with connect(database_url) as conn:
        conn.execute("DELETE FROM ticks")
        conn.execute(
            "INSERT INTO ticks (world, stream, time, cut, started_at, committed_at, rows_landed)"
            " SELECT world, 'market', %s, '{}', now(), now() - %s, 0 FROM worlds WHERE is_active",
            [START, timedelta(seconds=seconds_ago)],
        )


@pytest.fixture
def url(database_url: str) -> str:
    with connect(database_url) as conn:
        make_world(conn)
    return database_url


def test_beside_ticks_it_rests_as_long_as_it_worked_and_alone_not_at_all(url: str) -> None:
    with Politeness(url) as politeness:
        started = time.monotonic()
        politeness.rest(5.0)
        assert time.monotonic() - started < 4.0
        tick(url, 3)
        started = time.monotonic()
        politeness.rest(0.3)
        assert time.monotonic() - started >= 0.3


def test_it_waits_while_ticks_are_late_and_goes_on_when_one_has_come(url: str) -> None:
    tick(url, 30)
    told = 0

    def hear() -> None:
        nonlocal told
        told += 1
        tick(url, 1)

    with Politeness(url) as politeness:
        politeness.hold_back(hear)
        assert told == 1
        assert politeness.held_back_seconds >= 1.0


@pytest.mark.parametrize("seconds_ago", [5, 3600])
def test_it_does_not_wait_for_ticks_in_time_or_for_ticks_that_have_ended(url: str, seconds_ago: float) -> None:
    tick(url, seconds_ago)
    with Politeness(url) as politeness:
        politeness.hold_back(lambda: pytest.fail("nothing is late"))


def test_told_to_stop_it_waits_no_longer(url: str) -> None:
    tick(url, 30)
    stop = threading.Event()
    with Politeness(url, stop) as politeness:
        politeness.hold_back(stop.set)
        started = time.monotonic()
        politeness.rest(5.0)
        assert time.monotonic() - started < 4.0
