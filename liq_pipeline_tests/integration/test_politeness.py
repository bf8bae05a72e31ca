"""History gives way: it works between ticks, waits for late ones, and is not held up by what has ended."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from liq_pipeline.pipeline.politeness import RUN_END_SECONDS, Politeness, Stream
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.scoring_support import START, make_world


def tick(database_url: str, seconds_ago: float, time: datetime = START) -> None:
    """The newest tick of the active world committed that long ago."""
    with connect(database_url) as conn:
        conn.execute("DELETE FROM ticks")
        conn.execute(
            "INSERT INTO ticks (world, stream, time, cut, started_at, committed_at, rows_landed)"
            " SELECT world, 'market', %s, '{}', now(), now() - %s, 0 FROM worlds WHERE is_active",
            [time, timedelta(seconds=seconds_ago)],
        )


@pytest.fixture
def url(database_url: str) -> str:
    with connect(database_url) as conn:
        make_world(conn, step_seconds=10)
    return database_url


def newest_point() -> datetime:
    """Of the grid of 10 s, on the clock on the wall."""
    return datetime.fromtimestamp(time.time() // 10 * 10, UTC)


@pytest.mark.parametrize(
    ("now", "piece", "wait"),
    [
        (999.0, 0.5, 0.0),  # the point of 990 is done since 992, and half a second fits in before that of 1000
        (999.0, 1.5, 1.1),  # more than that does not: look again when the next tick is under way
        (992.5, 1.5, 0.3),  # the run that scored it is still writing what it did
        (993.0, 1.5, 0.0),
        (1000.1, 0.1, 0.1),  # the point of 1000 is due or under way
        (1004.0, 0.1, 0.1),
    ],
)
def test_a_piece_begins_only_where_it_fits_between_two_ticks(now: float, piece: float, wait: float) -> None:
    stream = Stream(step_seconds=10, time=990.0, committed_at=992.0)
    assert stream.seconds_to_gap(now, piece) == pytest.approx(wait)


def test_it_waits_for_the_tick_that_is_due_and_for_its_run_to_end(url: str) -> None:
    tick(url, 5, newest_point() - timedelta(seconds=10))
    commit = threading.Timer(0.4, tick, [url, 0.0, newest_point()])
    with Politeness(url) as politeness:
        commit.start()
        started = time.monotonic()
        politeness.hold_back()
        assert time.monotonic() - started >= 0.4 + RUN_END_SECONDS
    commit.join()


def test_ticks_that_do_not_go_with_the_wall_clock_cannot_be_foreseen_so_it_rests_as_long_as_it_worked(url: str) -> None:
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
