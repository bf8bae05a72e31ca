"""Features and scores at T: bit-equal whether computed alone or among years, and blind to everything after T."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liq_pipeline.scoring import features
from liq_pipeline.scoring.bars import (
    CENTS_FIELDS,
    LEVEL_FIELDS,
    UNKNOWN_CENTS,
    BarArrays,
    Points,
    bars_between,
    empty_bars,
    points_on_bars,
)
from liq_pipeline.scoring.references import DAY_SECONDS, build_references
from liq_pipeline.scoring.risk import RiskArrays, risk_arrays
from liq_pipeline_tests.scoring_arrays import everyone_expected, random_bars, score_bars

ARRAYS = ("long_squeeze", "short_squeeze", "score", "score_high", "side", "coverage", "lean")


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal bit for bit; unknown equals unknown."""
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=True)


def assert_same(one: RiskArrays, other: RiskArrays, first: int, last: int) -> None:
    """The columns [first, last) of `one` are all of `other`."""
    for name in ARRAYS:
        assert same_bits(getattr(one, name)[..., first:last], getattr(other, name)), name
    for name, component in one.components.items():
        theirs = other.components[name]
        assert same_bits(component.venue_long[..., first:last], theirs.venue_long), name
        assert same_bits(component.venue_short[..., first:last], theirs.venue_short), name
    for name in features.FEATURES:
        assert same_bits(one.features[name][..., first:last], other.features[name]), name
        assert same_bits(one.percentiles[name][..., first:last], other.percentiles[name]), name


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), day=st.integers(32, 38), hour=st.integers(0, 23), length=st.integers(1, 30))
def test_a_slice_equals_the_batch_bit_for_bit(seed: int, day: int, hour: int, length: int) -> None:
    bars = random_bars(seed, days=40)
    whole = score_bars(bars)
    first = day * 24 + hour - 1
    last = min(first + length, bars.count)
    # What a live tick has: the look-back of its day's references and the bars of its lags, nothing else.
    start = (first + 1) // 24 * 24 - 1 - 720 - features.LOOKBACK_HOURS
    slice_of = bars_between(bars, max(0, start), last)
    offset = max(0, start)
    some = score_bars(slice_of, np.arange(first - offset, last - offset))
    assert np.isfinite(whole.score[..., first:last]).any()  # not one unknown beside another
    assert_same(whole, some, first, last)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), at=st.integers(24 * 10, 24 * 39))
def test_noise_after_a_time_changes_nothing_up_to_it(seed: int, at: int) -> None:
    bars = random_bars(seed, days=40)
    before = score_bars(bars)
    random = np.random.default_rng(seed + 1)
    for name in LEVEL_FIELDS:
        later = getattr(bars, name)[..., at + 1 :]
        later[...] = np.where(random.random(later.shape) < 0.3, np.nan, random.normal(0, 1e6, later.shape))
    for name in CENTS_FIELDS:
        later = getattr(bars, name)[..., at + 1 :]
        later[...] = np.where(random.random(later.shape) < 0.3, UNKNOWN_CENTS, 10**14)
    after = score_bars(bars, np.arange(at + 1))
    assert np.isfinite(before.score[..., at - 23 : at + 1]).any()
    assert_same(before, after, 0, at + 1)


@pytest.mark.parametrize("step_seconds", [300, 900, 3600])
def test_a_point_between_bars_uses_its_own_values_and_the_bars_before_it(step_seconds: int) -> None:
    """On the bar itself both ways of asking agree; a moment later only what is current has moved."""
    bars = random_bars(7, days=6, step_seconds=step_seconds, unknown_share=0.0)
    references = build_references(
        bars,
        features.on_bars(bars),
        np.unique(bars.end_seconds // DAY_SECONDS),
        lookback_hours=720,
        min_lookback_hours=72,
    )
    on_bars = points_on_bars(bars)
    index = np.arange(bars.count - 3, bars.count)
    at_bar = points_on_bars(bars, index)
    moment_later = Points(at_bar.time_seconds + 7, index, at_bar.now)
    expected = everyone_expected(bars)
    whole = risk_arrays(bars, on_bars, references, expected, 0.5)
    later = risk_arrays(bars, moment_later, references, expected, 0.5)
    assert_same(whole, later, bars.count - 3, bars.count)


def flat_bars(count: int, step_seconds: int = 300) -> BarArrays:
    bars = empty_bars(("BTC",), ("a",), step_seconds, step_seconds, count)
    bars.price_usd[...] = 100.0
    bars.open_interest_base[...] = 1000.0
    for name in CENTS_FIELDS:
        getattr(bars, name)[...] = 0
    return bars


def test_changes_are_relative_to_the_bar_that_many_hours_before() -> None:
    bars = flat_bars(300)
    bars.open_interest_base[..., -1] = 1100.0
    bars.price_usd[..., -1 - 288] = 80.0
    values = features.on_bars(bars)
    assert values["open_interest_change_4h"][0, 0, -1] == 1100.0 / 1000.0 - 1.0
    assert values["open_interest_change_24h"][0, 0, -1] == 1100.0 / 1000.0 - 1.0
    assert values["price_change_24h"][0, 0, -1] == 100.0 / 80.0 - 1.0
    assert np.isnan(values["price_change_24h"][0, 0, 287])


def test_a_change_from_nothing_is_unknown() -> None:
    bars = flat_bars(300)
    bars.open_interest_base[..., :-1] = 0.0
    assert np.isnan(features.on_bars(bars)["open_interest_change_4h"][0, 0, -1])


def test_liquidations_of_the_hour_are_unknown_unless_the_feed_was_alive_for_nine_tenths_of_it() -> None:
    bars = flat_bars(40)
    bars.long_liquidated_cents[0, 0, 30:] = 100
    name = features.LONG_LIQUIDATED
    assert features.on_bars(bars)[name][0, 0, -1] == 1000.0
    bars.long_liquidated_cents[0, 0, 35] = UNKNOWN_CENTS
    assert features.on_bars(bars)[name][0, 0, -1] == 900.0
    bars.long_liquidated_cents[0, 0, 36] = UNKNOWN_CENTS
    assert np.isnan(features.on_bars(bars)[name][0, 0, -1])


def test_an_empty_hour_of_a_living_feed_is_zero_and_a_silent_bar_unknown() -> None:
    bars = flat_bars(40)
    assert features.on_bars(bars)[features.SHORT_LIQUIDATED][0, 0, -1] == 0.0
    bars.short_liquidated_cents[0, 0, -1] = UNKNOWN_CENTS
    assert np.isnan(features.on_bars(bars)[features.SHORT_LIQUIDATED][0, 0, -1])


def test_volatility_is_the_root_mean_square_of_a_days_returns() -> None:
    random = np.random.default_rng(3)
    bars = flat_bars(600)
    bars.price_usd[0, 0] = 100 * np.exp(np.cumsum(random.normal(0, 0.002, 600)))
    returns = bars.price_usd[0, 0, 1:] / bars.price_usd[0, 0, :-1] - 1
    volatility = features.on_bars(bars)[features.VOLATILITY][0, 0]
    assert volatility[-1] == pytest.approx(np.sqrt(np.mean(returns[-288:] ** 2)), rel=1e-6)
    assert np.isnan(volatility[200])


def test_a_wrong_price_cannot_overflow_the_volatility() -> None:
    bars = flat_bars(600)
    bars.price_usd[0, 0, 300] = 1e-300
    bars.price_usd[0, 0, 301] = 1e300
    volatility = features.on_bars(bars)[features.VOLATILITY][0, 0]
    assert np.isfinite(volatility[300:]).all()
    assert (volatility[300:] >= 0).all()
