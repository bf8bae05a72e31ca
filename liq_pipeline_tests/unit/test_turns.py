"""Stream or list: no forced order becomes two rows, none of a gap is lost, and asking again changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from liq_pipeline.domain.records import Liquidation
from liq_pipeline.sources.access import turns as module
from liq_pipeline.sources.access.turns import Landed, Turns, needs_turns
from liq_pipeline.sources.registry import SOURCES

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def event(name: str, seconds: float, quantity: float = 1.0, side: str = "long", symbol: str = "BTC") -> Liquidation:
    return Liquidation(
        schema_version=1,
        event_time=at(seconds),
        received_at=at(seconds + 1),
        event_time_source="venue",
        origin="live",
        world="real",
        venue="gate",
        symbol=symbol,
        event_id=name,
        liquidated_side="long" if side == "long" else "short",
        price_usd=100.0,
        quantity_base=quantity,
        notional_usd=100.0 * quantity,
        is_sample=False,
        source_topic="test",
    )


def names(events: list[Liquidation]) -> list[str]:
    return [one.event_id for one in events]


def test_those_venues_whose_list_names_events_differently_take_turns() -> None:
    assert {name for name, source in SOURCES.items() if needs_turns(source)} == {"gate", "bitget", "htx"}


def test_the_list_speaks_before_the_stream_stands_and_in_its_gaps() -> None:
    turns = Turns()
    listed = [event("l-before", -60), event("l-while", 30), event("l-gap", 90), event("l-again", 150)]
    assert names(turns.of_list(listed[:1])) == ["l-before"]
    turns.stream_stands(at(0))
    assert names(turns.of_stream([event("s-while", 30.4, 2.0)])) == ["s-while"]
    assert names(turns.of_list(listed[:2])) == ["l-before"]
    turns.stream_lost(at(60))
    assert names(turns.of_list(listed[:3])) == ["l-before", "l-gap"]
    turns.stream_stands(at(120))
    assert names(turns.of_list(listed)) == ["l-before", "l-gap"]


def test_what_the_list_says_of_a_time_in_which_the_stream_dies_unread_is_heard_afterwards() -> None:
    turns = Turns()
    turns.stream_stands(at(0))
    late = event("l", 50)
    assert turns.of_list([late]) == []
    turns.stream_lost(at(45))  # the last sign of life
    assert names(turns.of_list([late])) == ["l"]


@pytest.mark.parametrize(
    ("second", "is_one"),
    [
        (event("l", 61.6), True),
        (event("l", 63.1), False),
        (event("l", 61.6, 1.01), False),
        (event("l", 61.6, side="short"), False),
        (event("l", 61.6, symbol="ETH"), False),
    ],
    ids=["twin", "later", "larger", "other side", "other symbol"],
)
def test_at_the_edge_two_that_agree_are_one(second: Liquidation, is_one: bool) -> None:
    turns = Turns()
    turns.stream_stands(at(0))
    assert names(turns.of_stream([event("s", 61)])) == ["s"]
    turns.stream_lost(at(60))
    for _ in range(3):  # a list is read again and again
        assert names(turns.of_list([second])) == ([] if is_one else ["l"])


def test_each_order_has_one_twin_only() -> None:
    turns = Turns()
    turns.stream_stands(at(0))
    turns.of_stream([event("s", 61)])
    turns.stream_lost(at(60))
    assert names(turns.of_list([event("l1", 61.5), event("l2", 61.2)])) == ["l2"]


def test_the_stream_does_not_repeat_what_the_list_told_just_before_it_stood() -> None:
    turns = Turns()
    assert names(turns.of_list([event("l", -1)])) == ["l"]
    turns.stream_stands(at(0))
    assert names(turns.of_stream([event("s1", -0.6), event("s2", 0.2, 3.0)])) == ["s2"]
    assert turns.twins == 1


def test_what_an_earlier_process_was_told_is_not_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to its last heartbeat all is known; of the seconds after it the table says what it had sent."""
    monkeypatch.setattr(module, "LANDING_SECONDS", 0.0)
    answers: list[list[Landed] | None] = [None, [Landed("BTC", "long", at(3.2), 1.0)]]
    turns = Turns(told=at(0), landed=lambda _start, _end: answers.pop(0))
    listed = [event("known", -10), event("sent", 3), event("unsent", 5), event("after", 20)]
    assert names(turns.of_list(listed)) == ["after"]  # the table could not be read
    assert names(turns.of_list(listed)) == ["unsent", "after"]
    assert answers == []


def test_a_list_proves_nothing_of_the_streams_time() -> None:
    turns = Turns()
    assert turns.list_proves_until(at(5)) == at(5)
    turns.stream_stands(at(0))
    assert turns.list_proves_until(at(5)) == at(0)
    turns.stream_lost(at(3))
    assert turns.list_proves_until(at(5)) == at(5)
