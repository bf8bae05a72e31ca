"""Pages are those of the alert machine, and each is judged by what followed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from liq_pipeline.alerting.machine import Book, step
from liq_pipeline.evaluation import desk
from liq_pipeline.evaluation.desk import Page
from liq_pipeline.evaluation.labels import CascadeEvent
from liq_pipeline.scoring.results import PointResult, SignalResult
from liq_pipeline.settings import Settings

MINUTE, HOUR = 60, 3600
SYMBOLS = ("BTC", "ETH", "SOL")
START = 1_767_225_600


def policy() -> Any:
    return desk.desk_policy(300, "early_warning", SYMBOLS, Settings())


def event(symbol: str, onset: int, **changes: Any) -> CascadeEvent:
    made = CascadeEvent(symbol, 4, onset - HOUR, onset, onset + HOUR, onset, -1, -0.05, -0.05, 0.03, False)
    return replace(made, **changes)


def page(told: int, *symbols: str, ended: int | None = None) -> Page:
    return Page("p", told, told if ended is None else ended, dict.fromkeys(symbols, told), 2)


def pages_of_every_point(time: np.ndarray, score: np.ndarray, threshold: float) -> dict[str, int]:
    """The machine run at every point over every symbol, as the tick does: page id -> when it was told."""
    book, told = Book(), {}
    for column, seconds in enumerate(time):
        at = datetime.fromtimestamp(int(seconds), UTC)
        signals = {}
        for row, symbol in enumerate(SYMBOLS):
            value = score[row, column]
            warns = None if np.isnan(value) else bool(value >= threshold)
            signals[symbol] = SignalResult(symbol, at, None, None, "UNKNOWN", "UNKNOWN", False, "", early_warning=warns)
        outcome = step(book, PointResult(at, {}, signals, None), policy(), "evaluation")
        book = outcome.book
        for message in outcome.messages:
            if message.kind not in ("resolved", "eased", "reminder"):
                told.setdefault(str(message.alert.page_id), int(seconds) + desk.DELIVERY_SECONDS)
    return told


@pytest.mark.parametrize("seed", range(4))
def test_passing_over_calm_points_and_symbols_gives_the_machines_own_pages(seed: int) -> None:
    rng = np.random.default_rng(seed)
    time = START + 300 * np.arange(2500, dtype=np.int64)
    score = rng.random((3, time.size)) * np.repeat(rng.random((3, 50)), 50, axis=1)
    score[rng.random(score.shape) < 0.02] = np.nan
    found = desk.early_warning_pages(time, SYMBOLS, score, 0.75, policy())
    assert {p.page_id: p.told for p in found} == pages_of_every_point(time, score, 0.75)
    assert len(found) > 3


def test_three_symbols_at_once_are_one_market_page() -> None:
    time = START + 300 * np.arange(200, dtype=np.int64)
    score = np.zeros((3, 200))
    score[:, 100:103] = 1.0
    found = desk.early_warning_pages(time, SYMBOLS, score, 0.5, policy())
    assert len(found) == 1
    assert set(found[0].symbols) == set(SYMBOLS)
    assert found[0].told == time[100] + desk.DELIVERY_SECONDS


def test_unknown_probabilities_page_nobody() -> None:
    time = START + 300 * np.arange(50, dtype=np.int64)
    assert desk.early_warning_pages(time, SYMBOLS, np.full((3, 50), np.nan), 0.1, policy()) == []


def test_a_page_is_right_late_or_false() -> None:
    told = START
    assert desk.judge(page(told, "BTC"), [event("BTC", told + 3 * HOUR)]) == "right"
    assert desk.judge(page(told, "BTC"), [event("BTC", told + 5 * HOUR)]) == "false"
    assert desk.judge(page(told, "BTC", ended=told + 2 * HOUR), [event("BTC", told + 5 * HOUR)]) == "right"
    assert desk.judge(page(told, "BTC"), [event("ETH", told + HOUR)]) == "false"
    assert desk.judge(page(told, "BTC"), [event("BTC", told - 30 * MINUTE)]) == "late"
    assert desk.judge(page(told, "BTC"), [event("BTC", told - 2 * HOUR)]) == "false"


def test_leads_are_counted_from_the_first_page_that_still_claims() -> None:
    onset = START + 10 * HOUR
    pages = [page(START, "BTC"), page(onset - 2 * HOUR, "BTC"), page(onset - HOUR, "ETH")]
    assert desk.lead_seconds(event("BTC", onset), pages, by_market=False) == 2 * HOUR
    assert desk.lead_seconds(event("ETH", onset), pages, by_market=False) == HOUR
    assert desk.lead_seconds(event("ETH", onset), pages, by_market=True) == 2 * HOUR
    assert desk.lead_seconds(event("SOL", onset), pages, by_market=False) is None


def test_a_standing_alarm_earns_events_but_never_as_fresh() -> None:
    standing = [page(START, "BTC", ended=START + 100 * HOUR)]
    late = event("BTC", START + 90 * HOUR)
    assert desk.lead_seconds(late, standing, by_market=True) == 90 * HOUR
    assert desk.lead_seconds(late, standing, by_market=True, fresh=True) is None


def test_time_under_claim_counts_overlaps_once() -> None:
    pages = [page(START, "BTC"), page(START + HOUR, "ETH")]
    share = desk.time_under_claim(pages, START, START + 10 * HOUR)
    assert share == pytest.approx((5 - 0.5) / 10)


def test_misses_count_as_no_lead() -> None:
    events = [event("BTC", START + 10 * HOUR), event("BTC", START + 30 * HOUR)]
    pages = [page(START + 9 * HOUR, "BTC")]
    figures = desk.desk_figures(pages, events, START, START + 7 * 24 * HOUR)
    assert figures["weeks"] == 1
    assert (figures["right"], figures["false"]) == (1, 0)
    assert figures["paged_30_min_before_onset"]["all"]["by_symbol"]["share"] == 0.5
    assert figures["paged_30_min_before_onset"]["all"]["descriptive_only"]
    assert figures["lead_minutes_over_all_events"]["p10"] < 15
    assert figures["paged_30_min_before_onset"]["first_shock"]["by_market"]["share"] is None


def test_a_threshold_for_the_budget_keeps_it() -> None:
    rng = np.random.default_rng(5)
    time = START + 300 * np.arange(288 * 21, dtype=np.int64)
    score = rng.random((3, time.size)) ** 4
    chosen = desk.threshold_for_budget(time, SYMBOLS, score, [], policy())
    pages = desk.early_warning_pages(time, SYMBOLS, score, chosen, policy())
    assert len(pages) / 3 <= desk.FALSE_PAGES_PER_WEEK
