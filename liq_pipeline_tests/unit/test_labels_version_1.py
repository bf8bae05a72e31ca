"""Label version 1 is what CONTRACTS.md says a cascade is; the worked cases stand in cases/labels_v1.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liq_pipeline.evaluation.labels.version_1 import (
    NEGATIVE,
    POSITIVE,
    UNKNOWN,
    CascadeEvent,
    find_events,
    grade_events,
    hourly_sigma,
    label_panel,
    label_rows,
    threshold,
)

CASES = json.loads((Path(__file__).parent / "cases" / "labels_v1.json").read_text())["cases"]
HOURS_BEFORE = 48


def series(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minutes, price and open interest of a worked case."""
    minutes = np.arange(-HOURS_BEFORE * 60, case["hours_after"] * 60 + 1, case["step_seconds"] // 60)
    price, coins = np.full(minutes.size, 100.0), np.full(minutes.size, 1000.0)
    for minute, price_usd, open_interest in case["steps"]:
        price[minutes >= minute], coins[minutes >= minute] = price_usd, open_interest
    for first, last in case.get("missing", []):
        gap = (minutes >= first) & (minutes <= last)
        price[gap] = coins[gap] = np.nan
    return minutes, price, coins


def within(minutes: np.ndarray, ranges: list[list[int]]) -> np.ndarray:
    inside = np.zeros(minutes.size, dtype=bool)
    for first, last in ranges:
        inside |= (minutes >= first) & (minutes <= last)
    return inside


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_worked_case(case: dict[str, Any]) -> None:
    minutes, price, coins = series(case)
    for horizon, ranges in case["positives"].items():
        labels = label_rows(price, coins, case["step_seconds"], int(horizon))
        assert minutes[labels == POSITIVE].tolist() == minutes[within(minutes, ranges)].tolist(), horizon
        if horizon in case.get("unknowns", {}):
            expected = minutes[within(minutes, case["unknowns"][horizon])]
            surely = minutes[(labels == UNKNOWN)]
            first_day_and_end = within(
                minutes, [[-2880, -1445], [case["hours_after"] * 60 - int(horizon) * 60 + 5, 10**6]]
            )
            assert (
                sorted(set(surely) - set(minutes[first_day_and_end] if case.get("missing") else []))
                == expected.tolist()
            )
    for horizon, expected_events in case["events"].items():
        labels = label_rows(price, coins, case["step_seconds"], int(horizon))
        events = find_events("BTC", minutes.astype(np.int64), price, coins, labels, case["step_seconds"], int(horizon))
        assert len(events) == len(expected_events)
        for event, expected in zip(events, expected_events, strict=True):
            for name, value in expected.items():
                assert getattr(event, name) == pytest.approx(value, abs=1e-8), (horizon, name)


def test_sigma_is_the_sample_deviation_of_overlapping_hourly_log_returns_over_a_day() -> None:
    rng = np.random.default_rng(7)
    price = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, 2000)))
    returns = np.log(price[12:] / price[:-12])
    at = 1500
    expected = np.std(returns[at - 12 - 288 + 1 : at - 12 + 1], ddof=1)
    assert hourly_sigma(price, 300)[at] == pytest.approx(expected, rel=1e-7)


def test_sigma_does_not_look_ahead() -> None:
    rng = np.random.default_rng(8)
    price = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, 1000)))
    noisy = price.copy()
    noisy[600:] = rng.uniform(50, 150, 400)
    assert np.array_equal(hourly_sigma(price, 300)[:600], hourly_sigma(noisy, 300)[:600], equal_nan=True)


def test_threshold_grows_with_volatility_above_its_floor() -> None:
    rng = np.random.default_rng(9)
    price = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, 200)))
    sigma = hourly_sigma(price, 3600)
    assert np.allclose(threshold(price, 3600, 1)[30:], np.maximum(0.02, 3 * sigma[30:]))
    assert np.allclose(threshold(price, 3600, 24)[30:], np.maximum(0.06, 6 * sigma[30:]))


@pytest.mark.parametrize("step_seconds", [300, 3600])
@pytest.mark.parametrize("horizon", [1, 4, 24])
def test_labels_equal_the_definition_read_row_by_row(step_seconds: int, horizon: int) -> None:
    rng = np.random.default_rng(11)
    n, rows = 700, horizon * 3600 // step_seconds
    price = 100 * np.exp(np.cumsum(rng.standard_t(3, n) * 0.006))
    coins = 1000 * np.exp(np.cumsum(rng.normal(0, 0.02, n)))
    for row in (200, 420, 610):
        price[row:] *= 0.85
        coins[row:] *= 0.9
    price[rng.integers(0, n, 5)] = np.nan
    theta = threshold(price, step_seconds, horizon)
    labels = label_rows(price, coins, step_seconds, horizon)
    seen = set()
    for t in range(n):
        ahead = range(t + 1, min(t + rows, n - 1) + 1)
        hit = any(
            abs(price[u] / price[t] - 1) >= theta[t] and coins[u] / coins[t] - 1 <= -0.03
            for u in ahead
            if np.isfinite([price[u], price[t], theta[t]]).all()
        )
        known = sum(np.isfinite(price[u]) for u in ahead)
        if hit:
            expected = POSITIVE
        elif np.isfinite([theta[t], price[t]]).all() and t + rows < n and known >= 0.9 * rows:
            expected = NEGATIVE
        else:
            expected = UNKNOWN
        assert labels[t] == expected, t
        seen.add(expected)
    assert POSITIVE in seen


def event(symbol: str, onset_minute: int, horizon: int = 4) -> CascadeEvent:
    onset = onset_minute * 60
    return CascadeEvent(symbol, horizon, onset - 600, onset, onset + 600, onset, -1, -0.05, -0.05, 0.03, False)


def test_three_symbols_within_30_min_are_systemic_and_two_are_not() -> None:
    graded = grade_events([event("BTC", 10000), event("ETH", 10015), event("SOL", 10030), event("DOGE", 10061)])
    assert {e.symbol: e.is_systemic for e in graded} == {"BTC": True, "ETH": True, "SOL": True, "DOGE": False}


def test_one_symbol_three_times_is_not_systemic() -> None:
    assert not any(e.is_systemic for e in grade_events([event("BTC", m) for m in (10000, 10010, 10020)]))


def test_first_shock_needs_a_day_without_any_onset() -> None:
    graded = grade_events([event("BTC", 10000), event("ETH", 10005), event("SOL", 11440), event("BTC", 12881)])
    assert [(e.symbol, e.is_first_shock) for e in graded] == [
        ("BTC", True),
        ("ETH", False),
        ("SOL", False),
        ("BTC", True),
    ]


def test_simultaneous_onsets_are_all_first() -> None:
    assert all(e.is_first_shock for e in grade_events([event("BTC", 10000), event("ETH", 10000)]))


def test_panel_labels_are_those_of_its_symbols() -> None:
    minutes, price, coins = series(CASES[0])
    labels, events = label_panel(
        minutes.astype(np.int64) * 60, ("BTC", "ETH"), np.stack([price] * 2), np.stack([coins] * 2), 300
    )
    assert labels[1].shape == (2, minutes.size)
    assert np.array_equal(labels[1][0], label_rows(price, coins, 300, 1))
    assert [e.symbol for e in events[1]] == ["BTC", "ETH"]


def test_a_step_that_does_not_divide_an_hour_is_refused() -> None:
    with pytest.raises(ValueError, match="divides an hour"):
        label_rows(np.ones(10), np.ones(10), 420, 1)
