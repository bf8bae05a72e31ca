"""The early warning: one number for the market, held against its own last month, from what was known."""

from __future__ import annotations

import numpy as np
import pytest

from liq_pipeline.scoring.bars import bars_between, points_on_bars
from liq_pipeline.scoring.early_warning import (
    NEEDED_HOURS,
    REFERENCE_HOURS,
    WarningRule,
    is_past,
    market_mean,
    reference_days,
    warning_reference,
)
from liq_pipeline.scoring.probability import LOOKBACK_HOURS, feature_arrays, shipped_model
from liq_pipeline_tests.unit.test_probability_model import market

HOUR, DAY = 3600, 86_400
START = 1_767_225_600


def test_the_market_is_the_mean_of_the_known_symbols_and_unknown_with_fewer_than_half() -> None:
    values = np.array([[0.1, 0.1, np.nan], [0.3, np.nan, np.nan], [0.2, np.nan, 0.2], [0.2, 0.3, np.nan]])
    assert market_mean(values)[:2] == pytest.approx([0.2, 0.2])
    assert np.isnan(market_mean(values)[2])


def test_the_threshold_is_the_rank_within_the_30_days_before_the_utc_day() -> None:
    time = START + HOUR * np.arange(24 * 45, dtype=np.int64)
    values = np.arange(time.size, dtype=np.float64)
    rule = WarningRule(rank=0.5, threshold=-1.0)
    reference = warning_reference(time, values, reference_days(time))
    thresholds = rule.thresholds(time, reference)
    last_day = 44 * 24
    assert reference.observations[-1] == REFERENCE_HOURS
    assert thresholds[last_day] == pytest.approx(last_day - REFERENCE_HOURS / 2, abs=3)
    assert (thresholds[last_day:] == thresholds[last_day]).all(), "one threshold a day"


def test_the_fixed_threshold_answers_until_three_days_are_known() -> None:
    time = START + HOUR * np.arange(24 * 6, dtype=np.int64)
    values = np.linspace(0.0, 0.1, time.size)
    thresholds = WarningRule(0.9, 0.77).thresholds(time, warning_reference(time, values, reference_days(time)))
    assert (thresholds[: 24 * 3] == 0.77).all()
    assert NEEDED_HOURS == 72
    assert (thresholds[24 * 3 :] < 0.1).all()
    assert (WarningRule(0.9, 0.77).thresholds(time, None) == 0.77).all()


def test_an_unknown_market_is_never_past_and_an_equal_one_neither() -> None:
    assert is_past(np.array([np.nan, 0.5, 0.6]), np.array([0.5, 0.5, 0.5])).tolist() == [False, False, True]


def test_what_comes_later_moves_no_threshold() -> None:
    time = START + HOUR * np.arange(24 * 40, dtype=np.int64)
    rng = np.random.default_rng(4)
    values = rng.random(time.size)
    noisy = values.copy()
    cut = 24 * 35 + 5
    noisy[cut + 1 :] = 10.0
    days = reference_days(time)
    rule = WarningRule(0.9, 0.5)
    before = rule.thresholds(time, warning_reference(time, values, days))
    after = rule.thresholds(time, warning_reference(time, noisy, days))
    assert before[: cut + 1].tobytes() == after[: cut + 1].tobytes()


@pytest.mark.parametrize("end", [38 * 288 - 1, 39 * 288 + 100])
def test_a_live_point_with_its_days_reference_warns_as_the_batch_does(end: int) -> None:
    """What the tick has: the day's reference from 30 days of bars, and a week of bars for the point."""
    bars, model = market(days=40), shipped_model()
    whole = model.from_features(feature_arrays(bars), bars.end_seconds)
    day = int(bars.end_seconds[end]) // DAY
    first = int(bars.index_at(np.array([day * DAY - (REFERENCE_HOURS + LOOKBACK_HOURS) * HOUR]))[0])
    stop = int(bars.index_at(np.array([day * DAY]))[0]) + 1
    reference = model.warning_reference(bars_between(bars, max(first, 0), stop), np.array([day]))
    week = bars_between(bars, end - bars.rows_of(LOOKBACK_HOURS), end + 1)
    live = model.predict(week, points_on_bars(week, np.array([week.count - 1])), reference=reference)
    assert whole.market_threshold is not None
    assert live.market_threshold is not None
    assert whole.market_probability is not None
    assert live.market_probability is not None
    assert live.market_threshold.tobytes() == whole.market_threshold[end : end + 1].tobytes()
    assert live.market_probability.tobytes() == whole.market_probability[end : end + 1].tobytes()
    assert np.array_equal(live.early_warning[:, 0], whole.early_warning[:, end])


def test_a_rule_reads_back_as_written() -> None:
    rule = WarningRule(0.935, 0.0251)
    assert WarningRule.from_json(rule.as_json()) == rule
