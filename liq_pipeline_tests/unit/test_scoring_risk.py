"""Liquidation risk: what each component gives, how they add up, and what silence does to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liq_pipeline.scoring import features as f
from liq_pipeline.scoring.bars import BarArrays, empty_bars, points_on_bars
from liq_pipeline.scoring.risk import BUDGET, COMPONENTS, LONG, NO_SIDE, SHORT, RiskArrays, risk_arrays
from liq_pipeline_tests.scoring_arrays import everyone_expected, random_bars, score_bars, uniform_references

RANGES = {
    f.FUNDING: (-1.0, 1.0),
    f.OPEN_INTEREST: (0.0, 2000.0),
    f.OPEN_INTEREST_CHANGE[4]: (-1.0, 1.0),
    f.OPEN_INTEREST_CHANGE[24]: (-1.0, 1.0),
    f.PRICE_CHANGE: (-1.0, 1.0),
    f.LONG_SHARE: (0.0, 1.0),
    f.LONG_LIQUIDATED: (0.0, 1000.0),
    f.SHORT_LIQUIDATED: (0.0, 1000.0),
}


def one_point(
    *,
    funding: float = 0.0,
    interest: float = 1000.0,
    interest_before: float | None = None,
    price: float = 100.0,
    price_before: float = 100.0,
    long_share: float = 0.5,
    long_liquidated: int = 0,
    short_liquidated: int = 0,
) -> BarArrays:
    """Hourly bars of one venue; the last one holds the given values, everything before it is calm."""
    bars = empty_bars(("BTC",), ("a",), 3600, 3600, 26)
    bars.price_usd[...] = price_before
    bars.price_usd[..., -1] = price
    bars.open_interest_base[...] = interest if interest_before is None else interest_before
    bars.open_interest_base[..., -1] = interest
    bars.funding_rate_per_8h[...] = funding
    bars.long_share[...] = long_share
    bars.long_liquidated_cents[...] = long_liquidated
    bars.short_liquidated_cents[...] = short_liquidated
    return bars


def score(bars: BarArrays, min_coverage: float = 0.5) -> RiskArrays:
    """The last bar, against references that rise evenly over RANGES: a value's percentile is read off its range."""
    points = points_on_bars(bars, np.array([bars.count - 1]))
    references = uniform_references(bars, points, RANGES)
    return risk_arrays(bars, points, references, everyone_expected(bars), min_coverage)


def points(bars: BarArrays, component: str) -> tuple[float, float]:
    """(long, short) points of one component, rounded to half a percent of a percentile."""
    arrays = score(bars).components[component]
    return round(float(arrays.long[0, 0]), 0), round(float(arrays.short[0, 0]), 0)


class TestFunding:
    @pytest.mark.parametrize(
        ("rate", "long", "short"),
        [(1.0, 30, 0), (0.75, 15, 0), (0.5, 0, 0), (0.0, 0, 0), (-0.5, 0, 0), (-0.75, 0, 15), (-1.0, 0, 30)],
    )
    def test_the_highest_quarter_crowds_longs_and_the_lowest_shorts(self, rate: float, long: int, short: int) -> None:
        crowded = one_point(funding=rate, interest=2000.0, interest_before=1000.0)
        assert points(crowded, "funding") == (long, short)

    def test_a_rate_counts_as_far_as_open_interest_stands_behind_it(self) -> None:
        assert points(one_point(funding=1.0), "funding") == (0, 0)
        assert points(one_point(funding=1.0, interest=2000.0), "funding") == (15, 0)

    def test_where_nobody_tells_of_open_interest_the_rate_counts_in_full(self) -> None:
        silent = one_point(funding=1.0, interest=float("nan"))
        assert points(silent, "funding") == (30, 0)

    def test_a_rate_that_is_low_for_its_venue_but_positive_crowds_no_shorts(self) -> None:
        bars = one_point(funding=1e-5)
        at = points_on_bars(bars, np.array([25]))
        references = uniform_references(bars, at, {**RANGES, f.FUNDING: (1e-5, 1e-3)})
        funding = risk_arrays(bars, at, references, everyone_expected(bars), 0.5).components["funding"]
        assert (funding.long[0, 0], funding.short[0, 0]) == (0.0, 0.0)


class TestOpenInterest:
    def test_a_high_level_alone_gives_half_the_budget_to_both_sides(self) -> None:
        assert points(one_point(interest=2000.0), "open_interest") == (15, 15)

    def test_an_ordinary_level_that_does_not_grow_gives_nothing(self) -> None:
        assert points(one_point(interest=1000.0), "open_interest") == (0, 0)

    def test_a_fresh_build_up_with_a_flat_price_gives_the_other_half_to_both_sides(self) -> None:
        assert points(one_point(interest=1000.0, interest_before=500.0), "open_interest") == (15, 15)

    def test_level_and_build_up_together_fill_the_budget(self) -> None:
        assert points(one_point(interest=2000.0, interest_before=1000.0), "open_interest") == (30, 30)

    def test_a_fall_builds_nothing_however_small_beside_other_falls(self) -> None:
        bars = one_point(interest=999.0, interest_before=1000.0)
        at = points_on_bars(bars, np.array([25]))
        falls = dict.fromkeys(f.OPEN_INTEREST_CHANGE.values(), (-1.0, -0.5))
        arrays = risk_arrays(bars, at, uniform_references(bars, at, {**RANGES, **falls}), everyone_expected(bars), 0.5)
        assert arrays.components["open_interest"].long[0, 0] == 0.0

    def test_the_side_that_the_price_drifted_with_holds_all_points_and_the_other_loses_them(self) -> None:
        up = points(one_point(interest=2000.0, price=200.0, funding=1.0), "open_interest")
        down = points(one_point(interest=2000.0, price=0.01, funding=-1.0), "open_interest")
        assert (up, down) == ((15, 0), (0, 15))

    def test_without_a_price_nothing_tells_the_side_unless_funding_does(self) -> None:
        bars = one_point(interest=2000.0)
        bars.price_usd[...] = np.nan
        assert points(bars, "open_interest") == (15, 15)
        bars.funding_rate_per_8h[...] = 1.0
        assert points(bars, "open_interest") == (15, 0)


class TestLongShort:
    @pytest.mark.parametrize(
        ("share", "long", "short"), [(1.0, 20, 0), (0.9, 10, 0), (0.8, 0, 0), (0.5, 0, 0), (0.1, 0, 10), (0.0, 0, 20)]
    )
    def test_only_extremes_of_the_own_history_count_either_way(self, share: float, long: int, short: int) -> None:
        assert points(one_point(long_share=share), "long_short") == (long, short)


class TestLiquidations:
    @pytest.mark.parametrize(("cents", "expected"), [(0, 0), (900, 0), (945, 0), (960, 10), (985, 10), (1000, 20)])
    def test_they_count_in_two_steps_from_the_95th_percentile(self, cents: int, expected: int) -> None:
        assert points(one_point(long_liquidated=cents), "liquidation") == (expected, 0)
        assert points(one_point(short_liquidated=cents), "liquidation") == (0, expected)

    def test_nothing_liquidated_is_no_points_even_if_nothing_ever_was(self) -> None:
        bars = one_point()
        at = points_on_bars(bars, np.array([25]))
        never = {f.LONG_LIQUIDATED: (0.0, 0.0), f.SHORT_LIQUIDATED: (0.0, 0.0)}
        arrays = risk_arrays(bars, at, uniform_references(bars, at, {**RANGES, **never}), everyone_expected(bars), 0.5)
        assert arrays.components["liquidation"].long[0, 0] == 0.0


class TestTotal:
    def test_the_score_is_the_larger_side_and_names_it(self) -> None:
        long = score(one_point(funding=1.0, long_share=1.0, interest=2000.0))
        assert (round(long.score[0, 0]), long.side[0, 0]) == (50, LONG)
        short = score(one_point(funding=-1.0, long_share=0.0, interest=2000.0))
        assert (round(short.score[0, 0]), short.side[0, 0]) == (50, SHORT)

    def test_of_equal_sides_with_points_it_names_the_longs_and_of_none_nobody(self) -> None:
        """A fall liquidates more than a rise: 84 % of what was liquidated on 2025-10-10 were longs."""
        assert score(one_point(interest=2000.0)).side[0, 0] == LONG
        assert score(one_point()).side[0, 0] == NO_SIDE

    def test_everything_at_its_worst_is_100(self) -> None:
        worst = score(
            one_point(
                funding=1.0, interest=2000.0, interest_before=1000.0, price=200.0, long_share=1.0, long_liquidated=1001
            )
        )
        assert worst.score[0, 0] == pytest.approx(100, abs=1)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 2**32))
    def test_scores_points_and_coverage_stay_in_their_bounds(self, seed: int) -> None:
        arrays = score_bars(random_bars(seed, days=12, unknown_share=0.1))
        for name in COMPONENTS:
            for side in (arrays.components[name].long, arrays.components[name].short):
                known = side[~np.isnan(side)]
                assert ((known >= 0) & (known <= BUDGET[name])).all()
        known = ~np.isnan(arrays.score)
        assert known.any()
        larger = np.fmax(arrays.long_squeeze, arrays.short_squeeze)
        assert (arrays.score[known] == larger[known]).all()
        assert (arrays.score[known] <= arrays.score_high[known]).all()
        assert ((arrays.score_high >= 0) & (arrays.score_high <= 100)).all()
        assert ((arrays.coverage >= 0) & (arrays.coverage <= 1)).all()
        assert (known == (arrays.coverage >= 0.5)).all()

    @settings(max_examples=20, deadline=None)
    @given(low=st.floats(-1, 1), high=st.floats(-1, 1))
    def test_a_higher_rate_never_lowers_the_long_side_of_funding_nor_raises_the_short_side(
        self, low: float, high: float
    ) -> None:
        (less_long, less_short), (more_long, more_short) = (
            (float(c.long[0, 0]), float(c.short[0, 0]))
            for c in (score(one_point(funding=rate)).components["funding"] for rate in sorted((low, high)))
        )
        assert more_long >= less_long
        assert more_short <= less_short


class TestSilence:
    def silence(self, bars: BarArrays, field: str, venue: int = 0) -> BarArrays:
        getattr(bars, field)[:, venue] = -1 if field.endswith("cents") else np.nan
        return bars

    def test_an_unknown_component_is_not_zero(self) -> None:
        arrays = score(self.silence(one_point(long_share=1.0), "funding_rate_per_8h"))
        assert np.isnan(arrays.components["funding"].long[0, 0])
        assert arrays.coverage[0, 0] == 0.7
        assert round(arrays.score[0, 0]) == 20
        assert round(arrays.score_high[0, 0]) == 50

    def test_below_the_least_coverage_there_is_no_score_but_still_its_upper_end(self) -> None:
        bars = self.silence(self.silence(one_point(), "funding_rate_per_8h"), "open_interest_base")
        arrays = score(bars)
        assert arrays.coverage[0, 0] == 0.4
        assert np.isnan(arrays.score[0, 0])
        assert arrays.score_high[0, 0] == 60.0
        assert score(bars, min_coverage=0.4).score[0, 0] == 0.0

    def test_when_all_is_silent_nothing_is_known_and_anything_possible(self) -> None:
        bars = empty_bars(("BTC",), ("a",), 3600, 3600, 26)
        arrays = score(bars)
        assert np.isnan(arrays.score[0, 0])
        assert np.isnan(arrays.long_squeeze[0, 0])
        assert (arrays.score_high[0, 0], arrays.coverage[0, 0], arrays.side[0, 0]) == (100.0, 0.0, NO_SIDE)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 2**32), venue=st.integers(0, 2), field=st.sampled_from(["funding", "interest", "crowd"]))
    def test_a_venue_that_falls_silent_lowers_coverage_and_never_the_upper_end(
        self, seed: int, venue: int, field: str
    ) -> None:
        """What a silent venue would say may be the worst: silence alone must not calm."""
        name = {"funding": "funding_rate_per_8h", "interest": "open_interest_base", "crowd": "long_share"}[field]
        bars = random_bars(seed, days=8, venues=3, unknown_share=0.0)
        at = np.array([bars.count - 1])
        before = score_bars(bars, at)
        getattr(bars, name)[:, venue, -1] = np.nan
        after = score_bars(bars, at)
        assert (after.coverage < before.coverage).all()
        if field != "funding":  # funding also tells the side that built the open interest
            assert (after.score_high >= before.score_high - 1e-9).all()
        component = {"funding": "funding", "interest": "open_interest", "crowd": "long_short"}[field]
        for side in ("long", "short"):
            highest = [
                getattr(arrays.components[component], side) * arrays.components[component].share
                + BUDGET[component] * (1 - arrays.components[component].share)
                for arrays in (before, after)
            ]
            assert (highest[1] >= highest[0] - 1e-9).all()

    def test_a_component_that_nobody_is_expected_to_bring_is_unknown(self) -> None:
        bars = one_point(long_share=1.0)
        at = points_on_bars(bars, np.array([25]))
        expected = everyone_expected(bars)
        del expected["long_short_ratio"]
        arrays = risk_arrays(bars, at, uniform_references(bars, at, RANGES), expected, 0.5)
        assert np.isnan(arrays.components["long_short"].long[0, 0])
        assert arrays.coverage[0, 0] == 0.8

    def test_a_venue_that_is_not_expected_does_not_count(self) -> None:
        bars = random_bars(5, days=8, venues=2, unknown_share=0.0)
        expected = everyone_expected(bars)
        expected["funding_rates"] = np.array([True, False])
        one = score_bars(bars, expected=expected)
        component = one.components["funding"]
        assert np.isnan(component.venue_long[:, 1]).all()
        assert np.array_equal(component.long, component.venue_long[:, 0], equal_nan=True)

    def test_an_ablated_component_counts_as_unknown(self) -> None:
        bars = random_bars(5, days=8, unknown_share=0.0)
        arrays = score_bars(bars, np.array([bars.count - 1]), without=frozenset({"open_interest"}))
        assert np.isnan(arrays.components["open_interest"].long).all()
        assert arrays.coverage.tolist() == [[0.7], [0.7]]


def test_the_numbers_of_this_code_version() -> None:
    """A change of these numbers is a change of the score: raise SCORING_CODE_VERSION with it."""
    arrays = score_bars(random_bars(2026, days=12, unknown_share=0.02), np.array([200, 250, 287]))
    assert arrays.score[0].round(6).tolist() == FROZEN_SCORES
    assert arrays.score_high[1].round(6).tolist() == FROZEN_HIGHS


FROZEN_SCORES = [13.657588, 9.649805, 12.930892]
FROZEN_HIGHS = [29.621266, 7.09144, 13.33915]
