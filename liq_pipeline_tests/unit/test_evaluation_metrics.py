"""Figures are those of the textbooks (scikit-learn's), and intervals come from whole days drawn together."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from liq_pipeline.evaluation.figures import metrics as m


@pytest.mark.parametrize("levels", [0, 7])
@pytest.mark.parametrize("seed", range(5))
def test_auc_and_average_precision_equal_scikit_learn(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(800) < 0.07
    score = rng.normal(size=800) + positive
    if levels:  # many ties
        score = np.round(score * levels / 7)
    assert m.roc_auc(positive, score) == pytest.approx(roc_auc_score(positive, score))
    assert m.average_precision(positive, score) == pytest.approx(average_precision_score(positive, score))


def test_a_constant_ranks_nothing() -> None:
    positive = np.arange(100) < 9
    assert m.roc_auc(positive, np.zeros(100)) == 0.5
    assert m.precision_lift(m.Counts.of(positive, np.zeros(100))) == pytest.approx(1.0)


def test_within_symbols_does_not_reward_knowing_the_livelier_coin() -> None:
    rng = np.random.default_rng(0)
    symbol = np.repeat([0, 1], 4000)
    positive = rng.random(8000) < np.where(symbol == 0, 0.02, 0.2)
    score = symbol + rng.normal(0, 1e-3, 8000)
    assert m.roc_auc(positive, score) > 0.6
    assert m.mean_over(m.by_symbol(symbol, positive, score), m.Counts.roc_auc) == pytest.approx(0.5, abs=0.06)


def test_a_symbol_with_too_few_positives_does_not_count() -> None:
    symbol, positive = np.repeat([0, 1], 100), np.zeros(200, dtype=bool)
    positive[:4], positive[100:110] = True, True
    assert len(m.by_symbol(symbol, positive, np.arange(200.0))) == 1


def test_reweighted_days_equal_repeated_days() -> None:
    rng = np.random.default_rng(4)
    day = np.repeat(np.arange(6), 50)
    positive, score = rng.random(300) < 0.1, np.round(rng.normal(size=300), 1)
    weights = np.array([2.0, 0.0, 1.0, 3.0, 1.0, 0.0])
    rows = np.concatenate([np.flatnonzero(day == d) for d in range(6) for _ in range(int(weights[d]))])
    block = m.DayBlocks.of(positive, score, day, 6)
    assert block.roc_auc(weights[None])[0] == pytest.approx(roc_auc_score(positive[rows], score[rows]))
    lift = average_precision_score(positive[rows], score[rows]) / positive[rows].mean()
    assert block.precision_lift(weights[None])[0] == pytest.approx(lift)


def test_a_better_score_has_a_gain_whose_interval_is_above_zero_and_itself_has_none() -> None:
    rng = np.random.default_rng(2)
    symbol, day = np.repeat([0, 1], 6000), np.tile(np.repeat(np.arange(120), 50), 2)
    positive = rng.random(12000) < 0.04
    good, poor = positive + rng.normal(0, 0.7, 12000), positive + rng.normal(0, 3, 12000)
    draws = m.day_draws(120)
    blocks = [m.day_blocks(symbol, positive, score, day, 120) for score in (good, poor)]
    gain = m.bootstrap(blocks[0], blocks[1], m.DayBlocks.roc_auc, draws)
    assert 0 < gain.low < gain.value < gain.high
    none = m.bootstrap(blocks[0], blocks[0], m.DayBlocks.roc_auc, draws)
    assert (none.low, none.value, none.high) == (0.0, 0.0, 0.0)


def test_brier_skill_is_zero_for_the_base_rate_of_each_symbol_and_one_for_the_truth() -> None:
    symbol = np.repeat([0, 3], 500)
    positive = np.arange(1000) % np.where(symbol == 0, 10, 4) == 0
    base = np.where(symbol == 0, positive[:500].mean(), positive[500:].mean())
    assert m.brier_skill(symbol, positive, base) == pytest.approx(0.0)
    assert m.brier_skill(symbol, positive, positive.astype(float)) == 1.0


def test_reliability_and_the_highest_percent_state_and_observe() -> None:
    rng = np.random.default_rng(6)
    stated = rng.random(100_000) ** 3
    happened = rng.random(100_000) < stated
    for part in m.reliability(happened, stated):
        assert part["observed"] == pytest.approx(part["stated"], abs=0.02)
    top = m.highest_percent(happened, stated)
    assert top["rows"] == 1000
    assert top["stated"] > 0.95
    assert top["observed"] == pytest.approx(top["stated"], abs=0.03)


def test_events_of_one_day_are_drawn_together() -> None:
    hits, one_day, many_days = [True] * 10 + [False] * 10, [0] * 10 + [1] * 10, list(range(20))
    together, apart = m.share_interval(hits, one_day), m.share_interval(hits, many_days)
    assert together.value == apart.value == 0.5
    assert together.high - together.low > apart.high - apart.low
    assert np.isnan(m.share_interval([], []).value)
