"""Stablecoin pressure: which transfers count, the sign, the scale, and what is unknown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.domain.wallets import direction_between
from liq_pipeline.scoring.pressure import (
    INFLOW,
    OUTFLOW,
    ChainFlows,
    PressureArrays,
    pressure_arrays,
    pressure_over_chains,
    user_flow,
)


def pressure(
    inflow: int, outflow: int, *, scale: float = 1000.0, fresh: tuple[bool, ...] = (True,), sign: int = 1
) -> PressureArrays:
    """One point; inflow, outflow and scale in cents."""
    columns = np.array([inflow]), np.array([outflow]), np.array(fresh)[:, np.newaxis], np.array([scale])
    return pressure_arrays(*columns, sign)


@pytest.mark.parametrize(
    ("from_entity", "to_entity", "direction", "flow"),
    [
        (None, "binance", "inflow", INFLOW),
        ("binance", None, "outflow", OUTFLOW),
        ("binance", "binance", "internal", 0),  # sweeps, hot to cold
        ("binance", "okx", "inter_exchange", 0),
        (None, None, "other", 0),
    ],
)
def test_only_what_crosses_the_border_of_the_exchanges_is_user_flow(
    from_entity: str | None, to_entity: str | None, direction: str, flow: int
) -> None:
    assert direction_between(from_entity, to_entity, is_mint=False, is_burn=False) == direction
    assert user_flow(direction) == flow


@pytest.mark.parametrize("other", [None, "binance"])
def test_mints_and_burns_move_no_users_money_even_at_an_exchange(other: str | None) -> None:
    assert direction_between(None, other, is_mint=True, is_burn=False) == "mint"
    assert direction_between(other, None, is_mint=False, is_burn=True) == "burn"
    assert user_flow("mint") == user_flow("burn") == 0


def test_net_outflow_is_positive_and_scaled_linearly() -> None:
    assert pressure(250, 750).score.tolist() == [50.0]
    assert pressure(750, 250).score.tolist() == [-50.0]


def test_the_sign_is_a_setting() -> None:
    assert pressure(250, 750, sign=-1).score.tolist() == [-50.0]


@given(st.integers(0, 10**16), st.integers(0, 10**16), st.floats(1, 1e15))
def test_it_stays_within_100_and_on_the_side_of_the_net_flow(inflow: int, outflow: int, scale: float) -> None:
    score = pressure(inflow, outflow, scale=scale).score[0]
    assert -100 <= score <= 100
    assert np.sign(score) == np.sign(outflow - inflow)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_more_outflow_never_lowers_it(inflow: int, outflow: int, more: int) -> None:
    assert pressure(inflow, outflow + more, scale=1e11).score[0] >= pressure(inflow, outflow, scale=1e11).score[0]


def test_an_empty_hour_of_a_living_source_is_zero_and_that_of_a_silent_one_unknown() -> None:
    assert pressure(0, 0).score.tolist() == [0.0]
    silent = pressure(0, 0, fresh=(False,))
    assert np.isnan(silent.score).all()
    assert silent.share.tolist() == [0.0]


def test_one_of_two_sources_is_enough_and_the_share_says_so() -> None:
    half = pressure(0, 1000, fresh=(True, False))
    assert (half.score.tolist(), half.share.tolist()) == ([100.0], [0.5])


def test_without_a_warm_history_it_is_unknown() -> None:
    assert np.isnan(pressure(0, 500, scale=np.nan).score).all()


def test_any_flow_after_a_past_without_flows_is_the_largest_ever() -> None:
    assert pressure(0, 1, scale=0.0).score.tolist() == [100.0]
    assert pressure(0, 0, scale=0.0).score.tolist() == [0.0]


def over_chains(*chains: tuple[int, int, float, float], sign: int = 1, stated: float | None = None) -> PressureArrays:
    """One point; each chain: inflow and outflow in cents, share of fresh sources, scale (nan = warming)."""
    columns = np.array(chains, dtype=float).T[:, :, np.newaxis]
    flows = ChainFlows(
        names=tuple(str(number) for number in range(len(chains))),
        inflow_cents=columns[0].astype(np.int64),
        outflow_cents=columns[1].astype(np.int64),
        expected=np.ones((len(chains), 1), dtype=bool),
        share=columns[2],
        scale_cents=columns[3],
    )
    return pressure_over_chains(flows, sign, stated)


ONE_CHAIN = (100, 700, 1.0, 1000.0)


def test_chains_are_netted_on_the_sum_of_their_scales() -> None:
    both = over_chains(ONE_CHAIN, (900, 200, 1.0, 3000.0))
    assert both.score.tolist() == [-2.5]  # (600 - 700) / 4000
    assert both.score_low.tolist() == both.score_high.tolist() == [-2.5]
    assert both.weight[:, 0].tolist() == [0.25, 0.75]
    assert (both.inflow_cents.tolist(), both.outflow_cents.tolist()) == ([1000], [900])


def test_a_silent_chain_lowers_coverage_and_widens_and_moves_nothing() -> None:
    alone = over_chains(ONE_CHAIN)
    with_silent = over_chains(ONE_CHAIN, (0, 0, 0.0, 3000.0))
    assert with_silent.score.tolist() == alone.score.tolist() == [60.0]
    assert with_silent.share.tolist() == [0.25]
    # It may have moved as much as its scale, either way: (600 - 3000) / 4000 and (600 + 3000) / 4000.
    assert with_silent.score_low.tolist() == [-60.0]
    assert with_silent.score_high.tolist() == [90.0]
    assert with_silent.counted[:, 0].tolist() == [True, False]
    flipped = over_chains(ONE_CHAIN, (0, 0, 0.0, 3000.0), sign=-1)
    assert (flipped.score_low[0], flipped.score[0], flipped.score_high[0]) == (-90.0, -60.0, 60.0)


def test_a_chain_whose_scale_is_not_known_yet_does_not_count_and_weighs_as_an_average_one() -> None:
    warming = over_chains(ONE_CHAIN, (900, 0, 1.0, np.nan))
    assert warming.score.tolist() == [60.0]
    assert warming.share.tolist() == [1.0]  # it was read
    assert warming.inflow_cents.tolist() == [1000]
    assert warming.weight[:, 0].tolist() == [0.5, 0.5]
    assert (warming.score_low.tolist(), warming.score_high.tolist()) == ([-20.0], [80.0])


def test_a_stated_scale_is_of_all_chains_together() -> None:
    assert over_chains(ONE_CHAIN, (0, 0, 0.0, np.nan), stated=1000.0).score.tolist() == [60.0]
    assert over_chains(ONE_CHAIN, (200, 0, 1.0, np.nan), stated=1000.0).score.tolist() == [40.0]


amounts, known = st.integers(0, 10**12), st.sampled_from([0.0, 1.0])
chain = st.tuples(amounts, amounts, known, st.floats(1, 1e12))


@given(st.lists(chain, min_size=1, max_size=6), chain)
def test_the_score_lies_within_its_bounds_and_no_silent_chain_moves_it(
    chains: list[tuple[int, int, float, float]], silent: tuple[int, int, float, float]
) -> None:
    before = over_chains(*chains)
    after = over_chains(*chains, (0, 0, 0.0, silent[3]))
    assert np.array_equal(before.score, after.score, equal_nan=True)
    assert after.share[0] <= before.share[0] + 1e-12
    if not np.isnan(before.score[0]):
        assert after.score_low[0] - 1e-6 <= before.score_low[0] <= before.score[0]
        assert before.score[0] <= before.score_high[0] <= after.score_high[0] + 1e-6
        assert after.score_low[0] >= -100
        assert after.score_high[0] <= 100
