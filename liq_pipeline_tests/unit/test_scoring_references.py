"""A value against its own past: order statistics, mid-ranks, and when a reference counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liq_pipeline.scoring.bars import empty_bars
from liq_pipeline.scoring.references import (
    DAY_SECONDS,
    QUANTILES,
    Reference,
    References,
    build_references,
    needed_observations,
    order_statistics,
    percentile,
)

finite = st.floats(-1e12, 1e12, allow_nan=False)


def reference_of(values: list[float], needed: int = 1) -> References:
    quantiles, count = order_statistics(np.array(values))
    one = Reference(quantiles[np.newaxis, np.newaxis, np.newaxis], np.array([[[count]]]))
    return References(np.array([0]), {"x": one}, needed)


def rank(reference: References, *values: float) -> list[float]:
    day = np.zeros(len(values), dtype=np.int64)
    return percentile(reference, "x", day, np.array(values)[np.newaxis, np.newaxis])[0, 0].tolist()


class TestOrderStatistics:
    @given(st.lists(finite, min_size=1, max_size=600))
    def test_they_are_values_that_were_seen_ascending_with_both_extremes(self, values: list[float]) -> None:
        quantiles, count = order_statistics(np.array(values))
        assert count == len(values)
        assert quantiles.size == QUANTILES
        assert set(quantiles) <= set(values)
        assert (np.diff(quantiles) >= 0).all()
        assert (quantiles[0], quantiles[-1]) == (min(values), max(values))

    def test_unknown_values_do_not_count(self) -> None:
        quantiles, count = order_statistics(np.array([np.nan, 3.0, np.nan]))
        assert count == 1
        assert (quantiles == 3.0).all()

    def test_of_257_values_each_is_one(self) -> None:
        values = np.random.default_rng(1).permutation(QUANTILES).astype(float)
        assert order_statistics(values)[0].tolist() == list(range(QUANTILES))


class TestPercentile:
    def test_the_middle_of_a_uniform_past_is_one_half(self) -> None:
        assert rank(reference_of(list(range(QUANTILES))), 128.0) == [0.5]

    def test_a_past_that_never_moved_puts_its_value_at_one_half(self) -> None:
        """Funding stands at 0.01 % for days on many venues: that is ordinary, not extreme."""
        assert rank(reference_of([1e-4] * 500), 1e-4, 2e-4, 0.0) == [0.5, 1.0, 0.0]

    @given(st.lists(finite, min_size=1, max_size=300), st.lists(finite, min_size=2, max_size=20))
    def test_it_lies_between_0_and_1_and_grows_with_the_value(self, past: list[float], values: list[float]) -> None:
        ranks = rank(reference_of(past), *sorted(values))
        assert all(0 <= r <= 1 for r in ranks)
        assert ranks == sorted(ranks)

    def test_unknown_stays_unknown(self) -> None:
        assert np.isnan(rank(reference_of([1.0, 2.0]), np.nan)).all()

    def test_a_reference_with_too_few_observations_gives_nothing(self) -> None:
        assert np.isnan(rank(reference_of([1.0] * 9, needed=10), 1.0)).all()
        assert rank(reference_of([1.0] * 10, needed=10), 1.0) == [0.5]

    def test_a_day_without_references_is_an_error_and_no_guess(self) -> None:
        with pytest.raises(ValueError, match="references are missing"):
            reference_of([1.0]).day_index(np.array([DAY_SECONDS]))


class TestLookback:
    def test_nine_tenths_of_the_least_look_back_must_be_known(self) -> None:
        assert needed_observations(72, 300) == 778  # 72 h of 5-min bars are 864
        assert needed_observations(72, 3600) == 65

    def test_a_day_looks_at_the_bars_up_to_its_first_instant_and_no_further_back_than_the_look_back(self) -> None:
        hours = 24 * 5
        bars = empty_bars(("BTC",), ("a",), 3600, 3600, hours)
        values = np.arange(1.0, hours + 1)[np.newaxis, np.newaxis]
        days = np.array([1, 3])
        built = build_references(bars, {"x": values}, days, lookback_hours=48, min_lookback_hours=10).features["x"]
        assert built.observations[0, 0].tolist() == [24, 48]
        assert (built.quantiles[0, 0, 0, 0], built.quantiles[0, 0, 0, -1]) == (1.0, 24.0)
        assert (built.quantiles[0, 0, 1, 0], built.quantiles[0, 0, 1, -1]) == (25.0, 72.0)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.one_of(st.integers(0, 5).map(float), st.just(float("nan"))), min_size=72, max_size=240),
        st.lists(st.integers(0, 12), min_size=1, max_size=6, unique=True),
        st.integers(1, 60),
    )
    def test_sliding_from_day_to_day_equals_sorting_each_window_anew(
        self, values: list[float], days: list[int], hours: int
    ) -> None:
        bars = empty_bars(("BTC",), ("a",), 3600, 3600, len(values))
        series = np.array(values)
        chosen = np.array(sorted(days))
        built = build_references(
            bars, {"x": series[np.newaxis, np.newaxis]}, chosen, lookback_hours=hours, min_lookback_hours=1
        ).features["x"]
        for position, day in enumerate(sorted(days)):
            window = series[max(0, 24 * day - hours) : 24 * day]
            quantiles, count = order_statistics(window)
            assert built.observations[0, 0, position] == count
            assert np.array_equal(built.quantiles[0, 0, position], quantiles, equal_nan=True)
