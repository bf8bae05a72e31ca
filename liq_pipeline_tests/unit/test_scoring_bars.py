"""What was known of a series at a time: as-of values and exact window sums, against the plainest way to say them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.scoring.bars import (
    MICROSECONDS,
    UNKNOWN_CENTS,
    as_of,
    bars_between,
    empty_bars,
    newest_of_series,
    points_on_bars,
    trailing_sum,
    window_sums,
)

S = MICROSECONDS


def array(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


class TestAsOf:
    def test_the_latest_event_that_was_known_counts(self) -> None:
        events, known = array(10 * S, 20 * S, 30 * S), array(11 * S, 21 * S, 31 * S)
        assert as_of(events, known, array(10 * S, 11 * S, 20 * S, 21 * S, 40 * S), 100 * S).tolist() == [-1, 0, 0, 1, 2]

    def test_a_row_known_late_counts_from_then_on_and_never_replaces_a_newer_one(self) -> None:
        events, known = array(10 * S, 20 * S), array(50 * S, 20 * S)
        assert as_of(events, known, array(15 * S, 20 * S, 60 * S), 100 * S).tolist() == [-1, 1, 1]

    def test_an_event_ahead_of_its_arrival_waits_for_its_own_time(self) -> None:
        """Venues' clocks run fast: a value is not used before it is true."""
        assert as_of(array(20 * S), array(10 * S), array(15 * S, 20 * S), 100 * S).tolist() == [-1, 0]

    def test_a_value_is_fresh_up_to_its_limit_and_not_a_microsecond_longer(self) -> None:
        assert as_of(array(0), array(0), array(30 * S, 30 * S + 1), 30 * S).tolist() == [0, -1]

    def test_each_row_may_have_a_limit_of_its_own(self) -> None:
        events = array(0, 100 * S)
        assert as_of(events, events, array(90 * S, 190 * S), array(95 * S, 10 * S)).tolist() == [0, -1]

    def test_no_rows_is_nothing_known(self) -> None:
        assert as_of(array(), array(), array(1, 2), 5).tolist() == [-1, -1]

    @given(
        st.lists(st.tuples(st.integers(0, 50), st.integers(-5, 40)), max_size=30),
        st.lists(st.integers(0, 100), min_size=1, max_size=20),
        st.integers(0, 60),
    )
    def test_it_equals_looking_at_every_row_at_every_time(
        self, rows: list[tuple[int, int]], times: list[int], max_age: int
    ) -> None:
        events = array(*(event for event, _ in rows))
        known = array(*(event + delay for event, delay in rows))
        for time, row in zip(sorted(times), as_of(events, known, array(*sorted(times)), max_age), strict=True):
            usable = [event for event, k in zip(events, known, strict=True) if event <= time and k <= time]
            expected = max(usable, default=None)
            if expected is None or time - expected > max_age:
                assert row == -1
            else:
                assert events[row] == expected
                assert known[row] <= time


class TestNewestOfSeries:
    @given(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=40),
        st.integers(0, 100),
    )
    def test_it_chooses_of_each_series_what_as_of_does(self, rows: list[tuple[int, int, int]], now: int) -> None:
        """Of two rows of one event time that became known together either may be taken: a series has no such two."""
        found = {(series, event, event + delay) for series, event, delay in rows if event + delay <= now}
        series, events, known = (array(*column) for column in zip(*found, strict=True)) if found else [array()] * 3
        expected = set()
        for one in np.unique(series):
            inside = np.flatnonzero(series == one)
            row = as_of(events[inside], known[inside], array(now), now + 1)
            expected.add(int(inside[row[0]]))
        assert set(newest_of_series(series, events, known).tolist()) == expected


class TestWindowSums:
    def test_the_window_is_open_at_its_start_and_closed_at_its_end(self) -> None:
        sums = window_sums(array(10), array(10), array(7), array(9, 10, 19, 20), 10)
        assert sums.tolist() == [0, 7, 7, 0]

    def test_an_event_counts_from_when_it_was_known_until_it_was_withdrawn(self) -> None:
        sums = window_sums(array(10), array(15), array(7), array(12, 15, 17, 18), 100, until_us=array(18))
        assert sums.tolist() == [0, 7, 7, 0]

    def test_what_was_known_only_after_its_window_never_counts(self) -> None:
        assert window_sums(array(10), array(40), array(7), array(10, 40, 50), 10).tolist() == [0, 0, 0]

    @given(
        st.lists(
            st.tuples(st.integers(0, 50), st.integers(0, 30), st.integers(0, 10**15), st.integers(1, 80)), max_size=30
        ),
        st.lists(st.integers(0, 100), min_size=1, max_size=20),
        st.integers(1, 60),
    )
    def test_it_equals_adding_row_by_row(
        self, rows: list[tuple[int, int, int, int]], times: list[int], width: int
    ) -> None:
        events = array(*(r[0] for r in rows))
        known = events + array(*(r[1] for r in rows))
        until = events + array(*(r[3] for r in rows))
        amounts = array(*(r[2] for r in rows))
        sums = window_sums(events, known, amounts, array(*sorted(times)), width, until)
        for time, total in zip(sorted(times), sums, strict=True):
            counted = (time - width < events) & (events <= time) & (known <= time) & (time < until)
            assert total == int(amounts[counted].sum())


class TestBars:
    def test_a_step_that_does_not_divide_an_hour_is_refused(self) -> None:
        with pytest.raises(ValueError, match="420 s does not divide an hour"):
            empty_bars(("BTC",), ("a",), 0, 420, 3)

    def test_a_time_belongs_to_the_newest_bar_that_had_ended(self) -> None:
        bars = empty_bars(("BTC",), ("a",), 300, 300, 3)
        assert bars.index_at(array(299, 300, 599, 600, 900, 1200)).tolist() == [-1, 0, 0, 1, 2, 3]
        assert bars_between(bars, 1, 3).end_seconds.tolist() == [600, 900]

    def test_a_point_on_a_bar_sees_the_hour_up_to_it_unless_the_feed_is_silent(self) -> None:
        bars = empty_bars(("BTC",), ("a",), 300, 300, 14)
        bars.long_liquidated_cents[0, 0] = [5] * 13 + [UNKNOWN_CENTS]
        now = points_on_bars(bars).now.long_liquidated_cents_1h[0, 0]
        assert now.tolist() == [*range(5, 61, 5), 60, UNKNOWN_CENTS]

    @given(st.lists(st.integers(0, 2**50), min_size=1, max_size=40), st.integers(1, 50))
    def test_trailing_sums_are_exact(self, values: list[int], rows: int) -> None:
        expected = [sum(values[max(0, i + 1 - rows) : i + 1]) for i in range(len(values))]
        assert trailing_sum(array(*values), rows).tolist() == expected
