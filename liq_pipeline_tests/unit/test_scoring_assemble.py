"""What a stored score says of itself: points of its side, inputs that explain them, and notes on what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from liq_pipeline.scoring import features
from liq_pipeline.scoring.assemble import Scored, point_results, pressure_at, pressure_results
from liq_pipeline.scoring.bars import BarArrays, points_on_bars
from liq_pipeline.scoring.model import Probabilities
from liq_pipeline.scoring.pressure import pressure_arrays
from liq_pipeline.scoring.references import DAY_SECONDS, build_references
from liq_pipeline.scoring.results import PointResult, PressureResult
from liq_pipeline.scoring.risk import risk_arrays
from liq_pipeline.settings import RiskSettings, SeveritySettings
from liq_pipeline_tests.scoring_arrays import everyone_expected, random_bars

AGES = {"funding_rate_per_8h": 5.0, "open_interest_base": 7.0, "long_share": 60.0, "liquidated_cents_1h": 1.0}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def scored(bars: BarArrays, *, min_lookback_hours: int = 72) -> Scored:
    """The last bar of the bars, scored."""
    points = points_on_bars(bars, np.array([bars.count - 1]))
    references = build_references(
        bars,
        features.on_bars(bars),
        np.unique(points.time_seconds // DAY_SECONDS),
        lookback_hours=720,
        min_lookback_hours=min_lookback_hours,
    )
    now = points.now
    fields = {
        "funding_rate_per_8h": now.funding_rate_per_8h,
        "open_interest_base": now.open_interest_base,
        "long_share": now.long_share,
        "liquidated_cents_1h": np.where(now.long_liquidated_cents_1h < 0, np.nan, 0.0),
        "price_usd": now.price_usd,
    }
    ages = {name: np.where(np.isnan(value), np.nan, AGES.get(name, 2.0)) for name, value in fields.items()}
    expected = everyone_expected(bars)
    risk = risk_arrays(bars, points, references, expected, 0.5)
    return Scored(bars.symbols, bars.venues, points, references, expected, ages, risk)


def result(one: Scored, pressures: list[PressureResult] | None = None, days: int = 3) -> PointResult:
    risk = RiskSettings(min_lookback_hours=24 * days)
    return point_results(one, pressures or [], risk, SeveritySettings())[0]


def pressure(time: datetime, score: float | None = -50.0) -> PressureResult:
    return PressureResult(time, score, 1.0, 2.0, 60, 1.0)


@pytest.fixture
def healthy() -> BarArrays:
    return random_bars(11, days=10, unknown_share=0.0)


class TestRisk:
    def test_the_stored_points_are_those_of_the_side_and_add_up(self, healthy: BarArrays) -> None:
        for risk in result(scored(healthy)).risks.values():
            points = (risk.funding_points, risk.open_interest_points, risk.long_short_points, risk.liquidation_points)
            assert None not in points
            side = {"long": risk.long_squeeze, "short": risk.short_squeeze}[risk.side or "long"]
            assert risk.score == side
            assert risk.score == pytest.approx(sum(p for p in points if p is not None))

    def test_the_inputs_give_each_venues_value_age_percentile_and_points(self, healthy: BarArrays) -> None:
        inputs = result(scored(healthy)).risks["S0"].inputs
        said = inputs["funding"]["venues"]["v1"]
        assert said["state"] == "counted"
        assert said["age_seconds"] == 5.0
        assert said["funding_rate_per_8h"] == pytest.approx(healthy.funding_rate_per_8h[0, 1, -1], rel=1e-5)
        assert 0 <= said["funding_rate_per_8h_percentile"] <= 1
        assert {"long_points", "short_points"} <= set(said)
        assert inputs["funding"]["share"] == 1.0
        assert set(inputs) == {"funding", "open_interest", "long_short", "liquidation", "lean", "price"}

    def test_a_silent_venue_is_named_in_inputs_and_note(self, healthy: BarArrays) -> None:
        healthy.funding_rate_per_8h[:, 1, -1] = np.nan
        point = result(scored(healthy))
        assert point.risks["S0"].inputs["funding"]["venues"]["v1"] == {"state": "silent"}
        assert "funding: v1 silent" in point.signals["S0"].note

    def test_a_hole_in_the_look_back_is_not_called_silence(self, healthy: BarArrays) -> None:
        healthy.open_interest_base[:, 0, -1 - 4] = np.nan
        point = result(scored(healthy))
        assert point.risks["S0"].inputs["open_interest"]["venues"]["v0"]["state"] == "no look-back"
        assert "open interest: v0 has a hole in the last hours" in point.signals["S0"].note

    def test_a_component_nobody_brings_is_named(self, healthy: BarArrays) -> None:
        one = scored(healthy)
        expected = dict(one.expected)
        expected["liquidations"] = np.zeros(2, dtype=bool)
        assert "liquidations: no source" in result(replace(one, expected=expected)).signals["S0"].note

    def test_warming_counts_whole_days_of_the_least_look_back(self) -> None:
        bars = random_bars(11, days=3, unknown_share=0.0)
        note = result(scored(bars, min_lookback_hours=96), days=4).signals["S0"].note
        assert "funding warming: 3 of 4 days" in note  # 72 of the 87 observations that four days ask for
        assert note.startswith("flow side blind (no pressure of the last 60 s); coverage 0.00 is below 0.5: UNKNOWN")

    def test_unknown_is_none_and_never_a_number(self) -> None:
        bars = random_bars(11, days=10, unknown_share=0.0)
        for name in ("price_usd", "open_interest_base", "funding_rate_per_8h", "long_share"):
            getattr(bars, name)[..., -1] = np.nan
        bars.long_liquidated_cents[..., -1] = -1
        risk = result(scored(bars)).risks["S1"]
        assert (risk.score, risk.score_high, risk.side, risk.coverage) == (None, 100.0, None, 0.0)
        assert (risk.funding_points, risk.long_squeeze, risk.short_squeeze) == (None, None, None)


class TestSignal:
    def test_pressure_and_severity_come_from_the_newest_pressure(self, healthy: BarArrays) -> None:
        one = scored(healthy)
        time = result(one).time
        signal = result(one, [pressure(time - timedelta(seconds=60))]).signals["S0"]
        assert (signal.pressure, signal.flow_side_known, signal.note) == (-50.0, True, "")

    def test_a_blind_flow_side_says_why(self, healthy: BarArrays) -> None:
        one = scored(healthy)
        silent = replace(pressure(result(one).time, None), inputs={"note": "flow sources silent: chain"})
        signal = result(one, [silent]).signals["S0"]
        assert (signal.pressure, signal.flow_side_known) == (None, False)
        assert signal.note == "flow side blind (flow sources silent: chain)"

    def test_without_a_model_there_is_no_probability(self, healthy: BarArrays) -> None:
        signal = result(scored(healthy)).signals["S0"]
        assert (signal.cascade_probability_4h, signal.model_id, signal.early_warning) == (None, None, None)
        assert signal.baseline_volatility_percentile is not None

    def test_a_models_probabilities_and_its_warning_are_passed_on_and_unknown_ones_warn_of_nothing(
        self, healthy: BarArrays
    ) -> None:
        column = np.array([[0.2], [np.nan]])
        model = Probabilities({1: column, 4: column, 24: column}, np.array([[True], [True]]))
        point = result(replace(scored(healthy), probabilities=model, model_id="m1"))
        known, unknown = point.signals["S0"], point.signals["S1"]
        assert (known.cascade_probability_1h, known.early_warning, known.model_id) == (0.2, True, "m1")
        assert (unknown.cascade_probability_4h, unknown.early_warning) == (None, None)


class TestPressureOfAPoint:
    def test_the_newest_at_or_before_the_point_counts_up_to_an_age_of_60_s(self) -> None:
        found = pressure_at(
            [NOON, NOON + timedelta(seconds=60), NOON + timedelta(seconds=61)],
            [pressure(NOON - timedelta(seconds=15)), pressure(NOON)],
        )
        assert [p.time if p else None for p in found] == [NOON, NOON, None]

    def test_one_of_the_future_does_not(self) -> None:
        assert pressure_at([NOON], [pressure(NOON + timedelta(seconds=1))]) == [None]


class TestPressure:
    def results(self, *, fresh: bool, observations: int, venues: tuple[str, ...] = ("chain",)) -> PressureResult:
        scale = np.array([1000.0 if observations >= 10 else np.nan])
        is_fresh = np.full((len(venues), 1), fresh)
        arrays = pressure_arrays(np.array([100]), np.array([600]), is_fresh, scale, 1)
        ages = np.full((len(venues), 1), 3.0 if fresh else np.nan)
        seconds = np.array([int(NOON.timestamp())])
        return pressure_results(arrays, seconds, venues, ages, np.array([observations]), 10, 60, 72)[0]

    def test_it_tells_sums_scale_and_ages(self) -> None:
        known = self.results(fresh=True, observations=10)
        assert (known.score, known.inflow_usd, known.outflow_usd, known.coverage) == (50.0, 1.0, 6.0, 1.0)
        assert known.inputs == {"venues": {"chain": {"age_seconds": 3.0}}, "scale_usd": 10.0}

    def test_while_it_warms_the_sums_are_known_and_the_score_is_not(self) -> None:
        warming = self.results(fresh=True, observations=5)
        assert (warming.score, warming.outflow_usd) == (None, 6.0)
        assert warming.inputs["note"] == "flows warming: 1 of 3 days"

    def test_a_silent_source_has_no_sums(self) -> None:
        silent = self.results(fresh=False, observations=10)
        assert (silent.score, silent.inflow_usd, silent.coverage) == (None, None, 0.0)
        assert silent.inputs["note"] == "flow sources silent: chain"

    def test_a_world_without_a_source_says_so(self) -> None:
        nothing = self.results(fresh=True, observations=0, venues=())
        assert nothing.score is None
        assert nothing.inputs["note"] == "no source of flows in this world"
