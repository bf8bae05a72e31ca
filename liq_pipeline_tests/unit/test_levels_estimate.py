"""The liquidation map's arithmetic: worked cases, and what holds for any market."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.scoring.bars import BarArrays, bars_between, empty_bars
from liq_pipeline.scoring.levels.cohorts import LONG, SHORT, blocks_at, cohorts_at, openings
from liq_pipeline.scoring.levels.maps import LevelMaps, map_at
from liq_pipeline.scoring.levels.method import BIN_WIDTH, Method, Tier, method_of, shipped_methods
from liq_pipeline_tests.scoring_arrays import random_bars

NOBODY_CLOSES = 1e-12
ONE_TIER = Method("test", 48, 60, NOBODY_CLOSES, (Tier(0.051, 1.0, 0.0),), "")
TIERS = Method("test", 48, 60, 0.04, (Tier(0.02, 0.1, 0.2), Tier(0.05, 0.2, 0.1), Tier(0.09, 0.3, 0.0)), "")


def quiet_bars(*, hours: int = 60, price: float = 100.0, coins: float = 1000.0, venues: int = 1) -> BarArrays:
    bars = empty_bars(("BTC",), tuple(f"v{i}" for i in range(venues)), 3600, 3600, hours)
    bars.price_usd[...] = price
    bars.open_interest_base[...] = coins
    bars.long_liquidated_cents[...] = 0
    bars.short_liquidated_cents[...] = 0
    return bars


def cell(away: float) -> int:
    return int(away / BIN_WIDTH)


def test_growth_of_open_interest_lies_at_its_tier_s_distance_from_where_it_was_opened() -> None:
    bars = quiet_bars()
    bars.open_interest_base[..., 40:] += 500.0
    found = map_at(bars, ONE_TIER, 59)
    # 500 coins, opened at 100: longs go at 94.9, shorts at 105.1.
    longs, shorts = found.notional_usd[LONG, 0], found.notional_usd[SHORT, 0]
    assert np.flatnonzero(longs > 1.0).tolist() == [cell(0.051)]
    assert np.flatnonzero(shorts > 1.0).tolist() == [cell(0.051)]
    assert longs.sum() == pytest.approx(500 * 94.9)
    assert shorts.sum() == pytest.approx(500 * 105.1)


def test_a_level_that_the_price_has_crossed_is_spent_for_good() -> None:
    bars = quiet_bars()
    bars.open_interest_base[..., 40:] += 500.0
    bars.price_usd[..., 50] = 94.0  # below 94.9, and back
    found = map_at(bars, ONE_TIER, 59)
    assert found.notional_usd[LONG, 0].sum() == pytest.approx(0.0, abs=1e-3)
    assert found.notional_usd[SHORT, 0].sum() == pytest.approx(500 * 105.1)


def test_a_fall_closes_in_proportion_and_forced_orders_of_the_side_come_off_first() -> None:
    bars = quiet_bars()
    bars.open_interest_base[..., 40:] += 500.0
    bars.open_interest_base[..., 50:] -= 300.0  # 1500 to 1200
    found = map_at(bars, ONE_TIER, 59)
    assert found.notional_usd[LONG, 0].sum() == pytest.approx(500 * 94.9 * 0.8)
    assert found.notional_usd[SHORT, 0].sum() == pytest.approx(500 * 105.1 * 0.8)
    bars.long_liquidated_cents[..., 50] = round(300 * 100.0 * 100)  # those 300 were forced longs
    found = map_at(bars, ONE_TIER, 59)
    assert found.notional_usd[LONG, 0].sum() == pytest.approx(500 * 94.9)
    assert found.notional_usd[SHORT, 0].sum() == pytest.approx(500 * 105.1 * 0.8)


def test_a_crowd_that_leans_is_read_with_more_leverage_on_its_side() -> None:
    bars = quiet_bars()
    bars.price_usd[..., :] = 100.0 + np.arange(60) * 0.2
    bars.open_interest_base[..., 59] += 500.0
    nobody_closes = dataclasses.replace(TIERS, closed_per_hour=NOBODY_CLOSES)
    found = map_at(bars, nobody_closes, 59)
    near = slice(0, cell(0.03))  # one tier of three: a tenth of the openings, and two tenths more where all lean
    price = float(bars.price_usd[0, 0, 59])
    assert found.notional_usd[LONG, 0, near].sum() == pytest.approx(500 * 0.3 * price * 0.98)
    assert found.notional_usd[SHORT, 0, near].sum() == pytest.approx(500 * 0.1 * price * 1.02)


def test_a_silent_venue_widens_the_range_and_adds_nothing() -> None:
    both = quiet_bars(venues=2)
    silent = quiet_bars(venues=2)
    for bars in (both, silent):
        bars.open_interest_base[..., 40:] += 500.0
    silent.price_usd[:, 1, 55:] = np.nan
    silent.open_interest_base[:, 1, 55:] = np.nan
    whole, part = map_at(both, ONE_TIER, 59), map_at(silent, ONE_TIER, 59)
    assert part.known.tolist() == [[True, False]]
    assert part.silent.tolist() == [[False, True]]
    assert part.notional_usd.sum() == pytest.approx(whole.notional_usd.sum() / 2)
    assert part.coverage[0] == pytest.approx(whole.coverage[0] / 2)


def test_what_nobody_knows_is_unknown_and_not_zero() -> None:
    bars = quiet_bars()
    bars.open_interest_base[..., 30:] = np.nan
    found = map_at(bars, ONE_TIER, 59)
    assert np.isnan(found.notional_usd).all()
    assert found.coverage.tolist() == [0.0]
    assert np.isnan(map_at(quiet_bars(hours=10), ONE_TIER, 9).notional_usd).all()  # installed ten hours ago


def test_a_tier_nearer_than_its_venue_allows_holds_nothing() -> None:
    near = dataclasses.replace(ONE_TIER, tiers=(Tier(0.009, 1.0, 0.0),))
    bars = quiet_bars(venues=2)
    bars.open_interest_base[..., 40:] += 500.0
    named = dataclasses.replace(bars, venues=("hyperliquid", "okx"))
    assert map_at(named, near, 59).notional_usd[LONG, 0].sum() == pytest.approx(500 * 99.1)


def test_a_method_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="closed_per_hour"):
        dataclasses.replace(ONE_TIER, closed_per_hour=0.0)
    with pytest.raises(ValueError, match="distances must rise"):
        dataclasses.replace(ONE_TIER, tiers=(Tier(0.1, 1.0, 0.0), Tier(0.05, 1.0, 0.0)))


def test_methods_are_told_apart_and_survive_their_file() -> None:
    real, simulated = method_of("real"), method_of("simulated/7")
    assert real.version != simulated.version
    assert Method.from_json(real.to_json()) == real
    assert dataclasses.replace(real, closed_per_hour=0.05).version != real.version
    for method in shipped_methods().values():
        assert sum(tier.weight + tier.lean_weight for tier in method.tiers) <= 1.0  # nobody opens twice


def _same(one: LevelMaps, other: LevelMaps) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name not in ("known", "silent"))
        for name in ("reference_usd", "notional_usd", "known", "silent", "coverage")
    )


@given(seed=st.integers(0, 10**6), back=st.integers(0, 40), extra=st.integers(0, 30))
def test_live_and_batch_are_equal_bit_for_bit(seed: int, back: int, extra: int) -> None:
    """A slice that holds just the window, and one that holds what came before and after it."""
    bars = random_bars(seed, days=4, symbols=3, venues=2)
    index = bars.count - 1 - back
    batch = map_at(bars, TIERS, index)
    first = index - 48 + 1 - extra
    live = map_at(bars_between(bars, max(first, 0), index + 1), TIERS, index - max(first, 0))
    assert _same(batch, live)


@given(seed=st.integers(0, 10**6))
def test_a_symbol_alone_has_the_map_it_has_among_others(seed: int) -> None:
    bars = random_bars(seed, days=3, symbols=3, venues=2)
    whole = map_at(bars, TIERS, bars.count - 1)
    arrays = {
        f.name: getattr(bars, f.name)[1:2]
        for f in dataclasses.fields(bars)
        if isinstance(getattr(bars, f.name), np.ndarray)
    }
    alone = map_at(dataclasses.replace(bars, symbols=bars.symbols[1:2], **arrays), TIERS, bars.count - 1)
    assert np.array_equal(whole.notional_usd[:, 1:2], alone.notional_usd, equal_nan=True)


@given(seed=st.integers(0, 10**6))
def test_coins_add_up_whatever_the_market_did(seed: int) -> None:
    """Per side: what was open, less forced orders, times what survived, plus what was opened, is what is open."""
    bars = random_bars(seed, days=3, symbols=1, venues=2, unknown_share=0.0)
    blocks = blocks_at(bars, TIERS, bars.count - 1)
    opened, survived = openings(blocks, TIERS)
    assert (opened >= 0.0).all()
    assert (survived <= 1.0).all()
    before, after = blocks.end_base[:, :-1], blocks.end_base[:, 1:]
    for side in (LONG, SHORT):
        held = before - np.minimum(blocks.forced_base[side, :, 1:], before)
        use = held > 0.0
        told = held * survived[side, :, 1:] + opened[side, :, 1:]
        np.testing.assert_allclose(told[use], after[use], rtol=1e-9)


@given(seed=st.integers(0, 10**6))
def test_a_map_never_holds_more_than_what_is_open(seed: int) -> None:
    bars = random_bars(seed, days=3, symbols=2, venues=2)
    found = map_at(bars, TIERS, bars.count - 1)
    cohorts = cohorts_at(bars, TIERS, bars.count - 1)
    coins = np.where(cohorts.known, cohorts.total_base, 0.0).reshape(2, 2).sum(axis=1)
    highest = found.reference_usd * (1 + 0.15)
    total = np.nansum(found.notional_usd, axis=2)
    assert (total <= np.nan_to_num(coins * highest) * (1 + 1e-9)).all()
    assert not (found.notional_usd < 0.0).any()


@given(seed=st.integers(0, 10**6), at=st.integers(50, 80))
def test_nothing_after_the_time_of_a_map_changes_it(seed: int, at: int) -> None:
    bars = random_bars(seed, days=4, symbols=2, venues=2)
    before = map_at(bars, TIERS, at)
    bars.price_usd[..., at + 1 :] *= 3.0
    bars.open_interest_base[..., at + 1 :] = np.nan
    assert _same(before, map_at(bars, TIERS, at))
