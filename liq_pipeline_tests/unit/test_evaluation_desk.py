"""Pages are those of the alert machine, and each is judged by what followed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from liq_pipeline.alerting.deciding.machine import step
from liq_pipeline.alerting.deciding.state import Book
from liq_pipeline.evaluation.labels.version_1 import CascadeEvent
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.paging.desk import Page
from liq_pipeline.scoring.early_warning import WarningRule
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


@pytest.mark.parametrize("seed", range(2))
def test_passing_over_calm_points_and_symbols_gives_the_machines_own_pages(seed: int) -> None:
    rng = np.random.default_rng(seed)
    time = START + 300 * np.arange(1250, dtype=np.int64)
    score = rng.random((3, time.size)) * np.repeat(rng.random((3, 50)), 25, axis=1)
    score[rng.random(score.shape) < 0.02] = np.nan
    warnings = np.where(np.isnan(score), np.nan, score >= 0.75)
    found = desk.early_warning_pages(time, SYMBOLS, warnings, policy())
    assert {p.page_id: p.told for p in found} == pages_of_every_point(time, score, 0.75)
    assert len(found) > 3


def test_three_symbols_at_once_are_one_market_page() -> None:
    time = START + 300 * np.arange(200, dtype=np.int64)
    score = np.zeros((3, 200))
    score[:, 100:103] = 1.0
    found = desk.early_warning_pages(time, SYMBOLS, score, policy())
    assert len(found) == 1
    assert set(found[0].symbols) == set(SYMBOLS)
    assert found[0].told == time[100] + desk.DELIVERY_SECONDS


def test_unknown_probabilities_page_nobody() -> None:
    time = START + 300 * np.arange(50, dtype=np.int64)
    assert desk.early_warning_pages(time, SYMBOLS, np.full((3, 50), np.nan), policy()) == []


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


def test_a_rank_for_the_budget_keeps_it() -> None:
    rng = np.random.default_rng(5)
    time = START + 3600 * np.arange(24 * 70, dtype=np.int64)
    score = rng.random((3, time.size)) ** 4
    policy_1h = desk.desk_policy(3600, "early_warning", SYMBOLS, Settings())
    rule = desk.rank_for_budget(time, SYMBOLS, score, [], policy_1h)
    pages = desk.early_warning_pages(time, SYMBOLS, desk.market_warnings(time, score, rule), policy_1h)
    assert 0 < len(pages) / 10 <= desk.FALSE_PAGES_PER_WEEK
    assert rule.rank in desk.RANK_LADDER


def test_sketched_pages_of_the_market_rule_are_the_machines() -> None:
    """All symbols rise and fall together, so the sketch that picks the rank lacks only the cool-down."""
    rng = np.random.default_rng(8)
    time = START + 300 * np.arange(288 * 40, dtype=np.int64)
    score = np.tile(np.repeat(rng.random(480), 24), (3, 1))
    warnings = desk.market_warnings(time, score, WarningRule(0.95, 0.9))
    machine = desk.early_warning_pages(time, SYMBOLS, warnings, policy())
    sketched = desk.sketched_pages(time, SYMBOLS, warnings, policy())
    assert len(machine) > 5
    # The machine's calm begins at the first point that is calm, and its end is told a minute later.
    late = 300 + desk.DELIVERY_SECONDS
    assert {(p.told, p.ended - late) for p in machine} == {(p.told, p.ended) for p in sketched}


def test_the_market_rule_warns_of_every_known_symbol_in_the_highest_hours_of_its_own_month() -> None:
    time = START + 3600 * np.arange(24 * 40, dtype=np.int64)
    score = np.tile(np.linspace(0.01, 0.02, 24), (3, 40))
    score[2, -30:] = np.nan
    score[:2, -20:-18] = 0.5
    warnings = desk.market_warnings(time, score, WarningRule(0.999, 1.0))
    assert np.flatnonzero(warnings[0] > 0).tolist() == [24 * 40 - 20, 24 * 40 - 19]
    assert np.isnan(warnings[2, -20:]).all()


def test_chance_is_the_same_pages_on_other_days() -> None:
    """A page right before every event knows more than its moved likenesses; one that stands all week does not."""
    day = 24 * HOUR
    events = [event("BTC", START + k * 7 * day + 12 * HOUR) for k in range(8)]
    told = [page(e.onset - 2 * HOUR, "BTC") for e in events]
    until = START + 56 * day
    chance = desk.desk_figures(told, events, START, until)["by_chance"]
    assert chance["all"]["share"] < 0.2
    assert chance["all"]["moves_at_least_as_good"] <= 0.15
    standing = [page(START + k * 7 * day, "BTC", ended=START + (k * 7 + 6) * day) for k in range(8)]
    assert desk.desk_figures(standing, events, START, until)["by_chance"]["all"]["share"] > 0.7
