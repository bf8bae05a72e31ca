"""Stablecoin pressure: which transfers count, the sign, the scale, and what is unknown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.domain.wallets import direction_between
from liq_pipeline.scoring.pressure import INFLOW, OUTFLOW, PressureArrays, pressure_arrays, user_flow


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
