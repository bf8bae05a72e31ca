"""What judges the liquidation map: the fit finds weights that are known, the figures say what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from liq_pipeline.evaluation.levels import fit, forced_orders
from liq_pipeline.evaluation.levels.as_feature import FUEL_FEATURES, fuel_features
from liq_pipeline.evaluation.levels.later_moves import further_into_fuel, hourly_maps
from liq_pipeline.evaluation.levels.published import DISTANCES, real_method
from liq_pipeline.evaluation.levels.truth import REACH_BINS, figures_of, looks_of, rank_correlation
from liq_pipeline.evaluation.levels.worlds import TRUTH_EVERY, JudgedWorld, play
from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.scoring.levels.cohorts import LONG, SHORT
from liq_pipeline.scoring.levels.method import method_of, shipped_methods
from liq_pipeline_tests.history_support import made_panel


@pytest.fixture(scope="module")
def world() -> JudgedWorld:
    return play("a test", 12)


def test_the_simulator_s_own_positions_are_found_far_better_than_by_the_nulls(world: JudgedWorld) -> None:
    """Short: two days after the windows are full. The figures of docs/levels.md stand on twelve worlds of thirty."""
    looks = looks_of(world, method_of("simulated/x"))
    assert len(looks) == 2 * (12 - 8) * 4
    profile = world.truth_usd[:, :, :, :REACH_BINS].mean(axis=(0, 2)).reshape(-1)
    found = figures_of(looks, profile)
    assert found["tenth"] > 0.18
    assert found["tenth_best_possible"] >= found["tenth"]
    for null in ("tenth_profile", "tenth_atr", "tenth_shifted_3d", "tenth_shifted_7d"):
        assert found["tenth"] > found[null], null
    assert found["rank"] > max(found["rank_profile"], found["rank_shifted_1d"])
    assert 1 / 1.5 < found["total"] < 1.5


def test_the_truth_is_laid_on_the_map_s_own_bins(world: JudgedWorld) -> None:
    assert world.truth_at[0] == TRUTH_EVERY - 1
    assert (world.truth_usd >= 0.0).all()
    leveraged = world.truth_usd.sum(axis=3)
    price = world.bars.price_usd[:, 0, world.truth_at].T
    for side in (LONG, SHORT):
        assert (leveraged[:, side] <= 1.15 * world.truth_coins * price).all()
        assert (leveraged[:, side] > 0.0).all()


def test_the_fit_finds_a_crowd_that_it_is_shown() -> None:
    random = np.random.default_rng(3)
    crowd = fit.shapes(DISTANCES)[4] * 0.3  # around 4 %
    exposure = np.concatenate(
        [random.gamma(0.3, 0.02, (4000, DISTANCES.size)), np.zeros((4000, DISTANCES.size))], axis=1
    )
    seen = exposure[:, : DISTANCES.size] @ crowd * random.gamma(8.0, 1 / 8.0, 4000)
    weight, lean_weight = fit.fitted_weights([fit.Crossed(exposure, seen)], DISTANCES)
    assert weight.sum() == pytest.approx(0.3, rel=0.05)
    assert float((weight * DISTANCES).sum() / weight.sum()) == pytest.approx(
        float((crowd * DISTANCES).sum() / crowd.sum()), rel=0.1
    )
    assert (lean_weight == 0.0).all()


def test_rank_correlation_shares_ranks_between_equals() -> None:
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])) == pytest.approx(1.0)
    assert rank_correlation(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(np.sqrt(3) / 2)


def test_the_shipped_methods_are_those_that_the_code_describes() -> None:
    assert shipped_methods()["real"] == real_method()
    assert shipped_methods()["simulated"].name == "simulated"


def test_fuel_is_a_feature_that_knows_no_later_map() -> None:
    panel = made_panel(days=8)
    maps = hourly_maps(bars_of(panel), real_method())
    found = fuel_features(panel, maps, 4)
    assert set(found) == set(FUEL_FEATURES)
    cut = panel.time.size // 2
    half = hourly_maps(bars_of(panel), real_method())
    half.share[half.at >= cut] *= 9.0
    again = fuel_features(panel, half, 4)
    for name in FUEL_FEATURES:
        assert np.array_equal(found[name][:, :cut], again[name][:, :cut], equal_nan=True)
        assert np.isfinite(found[name][:, cut:]).any()


def test_real_forced_orders_are_read_and_judged(shared_data: Path) -> None:
    bars = forced_orders.hourly_bars(shared_data)
    events = forced_orders.events_of(shared_data, bars, 1)
    assert len(events) == 865
    assert all(bars.end_seconds[e.at] // 86_400 in (e.day, e.day + 1) for e in events)
    found = forced_orders.lifts(shared_data, real_method(), 1)
    whole = found["0-0.04"]
    assert whole["events"] == 846
    assert whole["lift_over_shifted"]["low"] <= whole["lift_over_shifted"]["lift"] <= whole["lift_over_shifted"]["high"]


def test_moves_are_judged_on_what_came_after_them() -> None:
    panel = made_panel(days=20)
    bars = bars_of(panel)
    found = further_into_fuel(bars, hourly_maps(bars, real_method()))
    assert found["moves"] > 10
    for name, row in found.items():
        if isinstance(row, dict):
            assert -1.0 <= row["rank_low"] <= row["rank_high"] <= 1.0, name
