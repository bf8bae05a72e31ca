"""The cascade probability: no look ahead, a slice equals the batch bit for bit, unknown inputs are answered for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.labels import version_1
from liq_pipeline.scoring import features as f
from liq_pipeline.scoring import probability
from liq_pipeline.scoring.assemble import Scored, point_results
from liq_pipeline.scoring.bars import LEVEL_FIELDS, BarArrays, bars_between, empty_bars, points_on_bars
from liq_pipeline.scoring.model import HORIZON_HOURS, PROBABILITY_REDUCED, Probabilities
from liq_pipeline.scoring.probability import (
    FEATURES,
    LOOKBACK_HOURS,
    CascadeModel,
    feature_arrays,
    load_model,
    shipped_model,
)
from liq_pipeline.scoring.references import build_references
from liq_pipeline.scoring.risk import risk_arrays
from liq_pipeline.settings import RiskSettings, SeveritySettings

DAY = 288
START = 1_767_225_600  # 2026-01-01


def market(
    days: int = 16, step_seconds: int = 300, seed: int = 3, symbols: tuple[str, ...] = ("BTC", "ETH", "WIF")
) -> BarArrays:
    """A random market in which volatility comes in waves."""
    rng = np.random.default_rng(seed)
    count = days * 86_400 // step_seconds
    scale = np.sqrt(step_seconds / 3600)
    wave = np.exp(0.5 * np.sin(np.arange(count) * step_seconds / 50_000))
    bars = empty_bars(symbols, ("panel",), START, step_seconds, count)
    bars.price_usd[:, 0] = 100 * np.exp(
        np.cumsum(rng.standard_t(4, (len(symbols), count)) * 0.006 * scale * wave, axis=1)
    )
    bars.open_interest_base[:, 0] = 1e5 * np.exp(np.cumsum(rng.normal(0, 0.008 * scale, (len(symbols), count)), axis=1))
    return bars


def predicted(bars: BarArrays) -> Probabilities:
    return shipped_model().predict(bars, points_on_bars(bars))


def test_noise_after_a_time_changes_nothing_up_to_it() -> None:
    bars, cut = market(), 12 * DAY
    rng = np.random.default_rng(1)
    noisy = replace(bars, price_usd=bars.price_usd.copy(), open_interest_base=bars.open_interest_base.copy())
    noisy.price_usd[..., cut + 1 :] = rng.uniform(1, 1e5, noisy.price_usd[..., cut + 1 :].shape)
    noisy.open_interest_base[..., cut + 1 :] = np.nan
    before, after = predicted(bars), predicted(noisy)
    for hours in HORIZON_HOURS:
        assert np.isfinite(before.by_hours[hours][:, cut]).all()
        assert before.by_hours[hours][:, : cut + 1].tobytes() == after.by_hours[hours][:, : cut + 1].tobytes()


@pytest.mark.parametrize("end", [8 * DAY, 9 * DAY + 7, 12 * DAY + 143, 16 * DAY - 1])
def test_a_live_slice_equals_the_batch_bit_for_bit(end: int) -> None:
    bars = market()
    whole = predicted(bars)
    rows = bars.rows_of(LOOKBACK_HOURS)
    part = predicted(bars_between(bars, end - rows, end + 1))
    for hours in HORIZON_HOURS:
        assert part.by_hours[hours][:, -1].tobytes() == whole.by_hours[hours][:, end].tobytes()


@pytest.mark.parametrize("last", [1, 2, 8, 9, 60, 3000])
@pytest.mark.parametrize("count", [1, 13, 300, 2028, 2600])
@pytest.mark.parametrize("step_seconds", [300, 3600])
def test_the_last_rows_alone_are_those_of_the_whole_bit_for_bit(last: int, count: int, step_seconds: int) -> None:
    """With holes in it, and shorter than every window."""
    bars = bars_between(market(step_seconds=step_seconds), 0, count)
    rng = np.random.default_rng(count + last)
    for values in (bars.price_usd, bars.open_interest_base):
        values[rng.random(values.shape) < 0.2] = np.nan
        values[0, 0, max(0, count - 5) :] = np.nan
    whole, part = feature_arrays(bars), feature_arrays(bars, last=last)
    assert whole.keys() == part.keys()
    for name, values in whole.items():
        assert values[..., max(0, bars.count - last) :].tobytes() == np.ascontiguousarray(part[name]).tobytes(), name


def test_what_the_early_warning_compares_with_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    bars, days = market(days=40), np.array([START // 86_400 + 39, START // 86_400 + 40])
    whole = shipped_model().warning_reference(bars, days)
    monkeypatch.setattr(probability, "MOST_CELLS", 3 * (bars.rows_of(LOOKBACK_HOURS) + 700))
    pieces = shipped_model().warning_reference(bars, days)
    assert whole.quantiles.tobytes() == pieces.quantiles.tobytes()
    assert whole.observations.tolist() == pieces.observations.tolist()
    assert whole.observations.min() > 0


def test_points_outside_the_bars_have_no_probability() -> None:
    bars = bars_between(market(), 0, 2100)
    points = points_on_bars(bars)
    index = np.array([-3, 2099, 2100, 5000])
    moved = replace(
        points,
        time_seconds=bars.start_seconds + (index + 1) * bars.step_seconds,
        bar_index=index,
    )
    four = shipped_model().predict(bars, moved).by_hours[4]
    assert np.isnan(four[:, [0, 2, 3]]).all()
    assert four[:, 1].tobytes() == predicted(bars).by_hours[4][:, 2099].tobytes()


def test_every_feature_is_known_after_a_week_and_none_before_three_days() -> None:
    bars = market()
    found = feature_arrays(bars)
    assert {name.split("@")[0] for name in found} == set(FEATURES)
    for name, values in found.items():
        assert np.isfinite(values[:, 8 * DAY :]).all(), name
    assert np.isnan(predicted(bars).by_hours[4][:, : 3 * DAY]).all()


def test_probabilities_lie_between_0_and_1_and_grow_with_the_horizon_on_average() -> None:
    found = predicted(market()).by_hours
    means = [np.nanmean(found[hours]) for hours in HORIZON_HOURS]
    assert all(np.nanmin(p) >= 0 and np.nanmax(p) <= 1 for p in found.values())
    assert means == sorted(means)


def test_without_open_interest_the_price_answers_and_says_so() -> None:
    bars = market()
    bars.open_interest_base[2] = np.nan
    result = predicted(bars)
    late = slice(8 * DAY, None)
    assert result.is_reduced is not None
    assert result.is_reduced[2, late].all()
    assert not result.is_reduced[:2, late].any()
    assert np.isfinite(result.by_hours[4][2, late]).all()


def test_without_a_price_there_is_no_probability_and_no_warning() -> None:
    bars = market()
    bars.price_usd[2] = np.nan
    result = predicted(bars)
    assert np.isnan(result.by_hours[4][2]).all()
    assert not result.early_warning[2].any()


def test_a_world_without_btc_and_eth_still_has_probabilities() -> None:
    assert np.isfinite(predicted(market(symbols=("SOL", "WIF"))).by_hours[4][:, 8 * DAY :]).all()


def test_other_symbols_do_not_change_a_coin_that_leads() -> None:
    three, two = predicted(market()), predicted(bars_of_first_two())
    assert three.by_hours[4][:2].tobytes() == two.by_hours[4].tobytes()


def bars_of_first_two() -> BarArrays:
    bars = market()
    cut = {
        name: getattr(bars, name)[:2]
        for name in (
            "price_usd",
            "open_interest_base",
            "funding_rate_per_8h",
            "long_share",
            "long_liquidated_cents",
            "short_liquidated_cents",
        )
    }
    return BarArrays(bars.symbols[:2], bars.venues, bars.start_seconds, bars.step_seconds, **cut)


def test_a_cascade_under_way_is_measured_in_the_labels_own_thresholds() -> None:
    bars = market()
    price, interest = bars.price_usd.copy(), bars.open_interest_base.copy()
    at = 10 * DAY
    price[0, 0, at:] *= 0.90
    interest[0, 0, at:] *= 0.94
    found = feature_arrays(replace(bars, price_usd=price, open_interest_base=interest))
    own, leaders = found["cascade_1h_within_a_day"], found["leaders_cascade_4h"]
    assert own[0, at - 1] < 1.0
    assert own[0, at + 11] > 1.0, "a fall of 10 % with 6 % of open interest is a cascade of an hour"
    assert own[0, at + DAY - 1] > 1.0
    assert own[0, at + DAY + 12] < 1.0, "and is over a day later"
    assert np.array_equal(leaders[0], leaders[2], equal_nan=True)
    assert leaders[2, at] > leaders[2, at - 1], "other coins see what BTC does"
    price[0, 0, at:] *= 10.0
    calm = feature_arrays(replace(bars, price_usd=price / 9.0, open_interest_base=bars.open_interest_base))
    assert calm["cascade_1h_within_a_day"][0, at] < 1.0, "without a fall of open interest it is a move"


def test_scales_of_price_and_coins_do_not_matter() -> None:
    bars = market()
    scaled = replace(bars, price_usd=bars.price_usd * 1024, open_interest_base=bars.open_interest_base / 4096)
    assert np.allclose(predicted(bars).by_hours[4], predicted(scaled).by_hours[4], equal_nan=True, rtol=1e-9)


def test_two_venues_that_agree_are_one_venue() -> None:
    bars = market()
    both = empty_bars(bars.symbols, ("a", "b"), bars.start_seconds, bars.step_seconds, bars.count)
    both.price_usd[:] = bars.price_usd
    both.open_interest_base[:] = bars.open_interest_base
    assert np.allclose(predicted(bars).by_hours[4], predicted(both).by_hours[4], equal_nan=True, rtol=1e-9)


def test_a_silent_venue_leaves_the_other_to_answer() -> None:
    bars = market()
    both = empty_bars(bars.symbols, ("a", "b"), bars.start_seconds, bars.step_seconds, bars.count)
    both.price_usd[:, :1], both.open_interest_base[:, :1] = bars.price_usd, bars.open_interest_base
    assert predicted(bars).by_hours[4].tobytes() == predicted(both).by_hours[4].tobytes()


def test_thresholds_are_those_of_the_label() -> None:
    for hours, horizon in version_1.HORIZONS.items():
        assert probability.THRESHOLD_FLOOR[hours] == horizon.floor
        assert probability.THRESHOLD_SIGMAS[hours] == horizon.sigmas
    assert probability.OPEN_INTEREST_FALL == -version_1.OPEN_INTEREST_FALL
    price = market().price_usd[0, 0]
    assert np.array_equal(probability.hourly_sigma(price, 12)[DAY:], version_1.hourly_sigma(price, 300)[DAY:])


def test_an_hourly_grid_says_nearly_what_a_5_minute_grid_says() -> None:
    """The difference, stated in docs/evaluation.md: shorter windows hold fewer hourly steps and are noisier."""
    fine = market(days=30)
    index = np.arange(0, fine.count, 12)
    coarse = empty_bars(fine.symbols, fine.venues, fine.start_seconds, 3600, index.size)
    coarse.price_usd[:], coarse.open_interest_base[:] = fine.price_usd[..., index], fine.open_interest_base[..., index]
    a, b = predicted(fine).by_hours[4][:, index], predicted(coarse).by_hours[4]
    known = np.isfinite(a) & np.isfinite(b)
    difference = np.log(a[known] / (1 - a[known])) - np.log(b[known] / (1 - b[known]))
    assert abs(np.median(difference)) < 0.5
    assert np.corrcoef(np.log(a[known]), np.log(b[known]))[0, 1] > 0.5


def test_a_model_file_reads_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(shipped_model().as_json()))
    assert load_model(path).as_json() == shipped_model().as_json()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ('{"format": 99}', "format 99"),
        ('{"format": 2, "model_id": "x"}', "not a probability model"),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(LiqError, match=sentence):
        load_model(tmp_path / "model.json")


def test_a_model_with_features_nobody_knows_is_refused() -> None:
    data = shipped_model().as_json()
    data["full"]["4"]["features"]["moon_phase"] = {"coefficient": 1.0, "mean": 0.0, "deviation": 1.0}
    with pytest.raises(LiqError, match="moon_phase"):
        CascadeModel.from_json(data)


def test_the_shipped_model_states_its_training() -> None:
    facts = shipped_model().facts
    assert facts["label_version"] == version_1.LABEL_VERSION
    assert facts["trained_to"] < "2026-01-16"
    assert {"symbol_hours", "positive_hours", "base_rate", "panels", "early_warning_rule"} <= set(facts)
    assert 0.5 < shipped_model().early_warning.rank < 1
    assert 0 < shipped_model().early_warning.threshold < 1


def test_contributions_add_up_to_the_log_odds() -> None:
    found = feature_arrays(market())
    model = shipped_model()
    parts = model.contributions(found, 4)
    total = model.full[4].intercept + sum(parts.values())
    odds = model.full[4].log_odds(found, 4)
    assert np.allclose(total, odds, equal_nan=True)


def test_inference_needs_no_learning_library() -> None:
    code = (
        "import sys; from liq_pipeline.scoring.probability import shipped_model; shipped_model();"
        "sys.exit(any(name.split('.')[0] in ('sklearn', 'scipy', 'pandas') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_signal_says_that_only_the_price_answered() -> None:
    """The fall-back is seen by whoever reads the signal, not only by the model."""
    bars = market()
    bars.open_interest_base[2] = np.nan
    index = np.array([bars.count - 1])
    points = points_on_bars(bars, index)
    values = f.on_bars(bars)
    references = build_references(
        bars, values, np.unique(points.time_seconds // 86_400), lookback_hours=720, min_lookback_hours=72
    )
    expected = {"open_interest": np.ones(1, dtype=bool)}
    risk = risk_arrays(bars, points, references, expected, 0.0)
    scored = Scored(
        symbols=bars.symbols,
        venues=bars.venues,
        points=points,
        references=references,
        expected=expected,
        age_seconds={name: np.zeros((3, 1, 1)) for name in (*LEVEL_FIELDS, "liquidated_cents_1h")},
        risk=risk,
        probabilities=shipped_model().predict(bars, points, risk),
        model_id=shipped_model().model_id,
    )
    signals = point_results(scored, [], RiskSettings(), SeveritySettings())[0].signals
    assert PROBABILITY_REDUCED in signals["WIF"].note
    assert PROBABILITY_REDUCED not in signals["BTC"].note
    assert signals["WIF"].cascade_probability_4h is not None
