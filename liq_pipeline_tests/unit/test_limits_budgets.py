"""Budgets: never more than the limit in any rolling window, whoever asks, however the requests fall."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.sources.access.limits import Block, BudgetError, Budgets, Limit, Spent, block, reserve, take, usage
from liq_pipeline.store.connection import connect

START = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = Limit("venue", 10, 60)


@given(
    waits=st.lists(st.floats(min_value=0, max_value=40), max_size=80),
    costs=st.lists(st.integers(min_value=1, max_value=4), min_size=80, max_size=80),
)
def test_no_rolling_window_ever_holds_more_than_the_limit(waits: list[float], costs: list[int]) -> None:
    spent: Spent = {}
    granted: list[tuple[float, int]] = []
    clock = 0.0
    for wait, cost in zip(waits, costs, strict=False):
        clock += wait
        after = take(LIMIT, spent, cost, START + timedelta(seconds=clock))
        if after is not None:
            spent = after
            granted.append((clock, cost))
    for end, _ in granted:
        assert sum(cost for at, cost in granted if end - 60 < at <= end) <= 10


def test_idling_saves_nothing_up() -> None:
    """A token bucket would grant a full bucket and the refill within one window."""
    late = START + timedelta(hours=1)
    full = take(LIMIT, {}, 10, late)
    assert full is not None
    assert take(LIMIT, full, 1, late + timedelta(seconds=59)) is None
    assert take(LIMIT, full, 10, late + timedelta(seconds=64)) is not None


def test_history_may_use_its_share_and_no_more() -> None:
    half = take(LIMIT, {}, 5, START, share=0.5)
    assert half is not None
    assert take(LIMIT, half, 1, START, share=0.5) is None
    assert take(LIMIT, half, 5, START) is not None


def test_a_share_of_one_is_the_window_that_nobody_else_has_used() -> None:
    """Bitget grants one ratio a second: half of that would be none at all, for ever."""
    one = Limit("venue", 1, 1)
    used = take(one, {}, 1, START, share=0.5)
    assert used is not None
    assert take(one, used, 1, START, share=0.5) is None
    assert take(one, used, 1, START + timedelta(seconds=2), share=0.5) is not None
    assert take(LIMIT, {}, 11, START, share=0.5) is None


def test_processes_that_ask_at_once_share_one_limit(database_url: str) -> None:
    def ask(_: int) -> int:
        with connect(database_url) as conn:
            return sum(reserve(conn, {"venue": LIMIT}, [{"venue": 1}] * 3, START))

    with ThreadPoolExecutor(6) as executor:
        granted = list(executor.map(ask, range(6)))
    assert sum(granted) == 10
    with connect(database_url) as conn:
        assert usage(conn, {"venue": LIMIT}, START)["venue"]["used"] == 10


def test_a_request_takes_from_all_its_scopes_or_from_none(database_url: str) -> None:
    limits = {"venue": LIMIT, "month": Limit("month", 2, 86_400)}
    with connect(database_url) as conn:
        granted = reserve(conn, limits, [{"venue": 1, "month": 1}] * 3 + [{"venue": 1}], START)
        assert granted == [True, True, False, True]
        assert usage(conn, limits, START)["venue"]["used"] == 3


def test_a_blocked_scope_grants_nothing_until_its_time(database_url: str) -> None:
    with connect(database_url) as conn:
        block(conn, "venue", Block(START + timedelta(seconds=120), "HTTP 429"))
        block(conn, "venue", Block(START + timedelta(seconds=30), "a shorter one does not undo it"))
        soon, later = START + timedelta(seconds=119), START + timedelta(seconds=121)
        assert reserve(conn, {"venue": LIMIT}, [{"venue": 1}], soon) == [False]
        assert usage(conn, {"venue": LIMIT}, soon)["venue"]["blocked_reason"] == "HTTP 429"
        assert reserve(conn, {"venue": LIMIT}, [{"venue": 1}], later) == [True]


def test_waiting_ends_with_a_sentence(database_url: str) -> None:
    budgets = Budgets(database_url, {"venue": LIMIT})
    budgets.acquire({"venue": 10}, timeout_seconds=1)
    with pytest.raises(BudgetError, match=r"the budget of venue has no room within 0\.1 s"):
        budgets.acquire({"venue": 1}, timeout_seconds=0.1)
    with pytest.raises(BudgetError, match="can never fit"):
        budgets.acquire({"venue": 11}, timeout_seconds=1)
    budgets.close()


def test_an_undeclared_scope_is_a_mistake_in_the_venues_module(database_url: str) -> None:
    with connect(database_url) as conn, pytest.raises(BudgetError, match="no limit is declared for other"):
        reserve(conn, {"venue": LIMIT}, [{"other": 1}], START)
