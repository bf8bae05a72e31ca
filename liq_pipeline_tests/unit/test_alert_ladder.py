"""The ladder: a cascade under way opens one alert per symbol and side, is told at once, and ends when it is calm."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from liq_pipeline.alerting.deciding.policy import WARNING
from liq_pipeline.alerting.telling import under_way as words
from liq_pipeline.alerting.telling.messages import render
from liq_pipeline.alerting.telling.receipt import group_receipt, symbol_receipt
from liq_pipeline.scoring.results import PointResult
from liq_pipeline_tests.alert_support import (
    CALM,
    START,
    UNSEEN,
    UNSETTLED,
    VERSION,
    Reading,
    play,
    point,
    policy,
    running,
    world,
)

ONLY = {"alert_policy": "under_way"}
OVER = {
    "started_at": "2025-10-10T11:25:00+00:00",
    "ended_at": "2025-10-10T13:00:00+00:00",
    "opened_at": "2025-10-10T12:00:00+00:00",
    "first_told_at": "2025-10-10T12:00:00+00:00",
    "duration_minutes": 95.0,
    "depth": 0.064,
    "open_interest_change": -0.071,
    "liquidated_usd": [
        {"venue": "binance", "side": "long", "usd": 8.0e6, "is_sample": True},
        {"venue": "okx", "side": "long", "usd": 4.3e6, "is_sample": False},
    ],
    "warnings": [
        {
            "rule": "early_warning",
            "severity": "WARNING",
            "subject": "market",
            "opened_at": "2025-10-10T09:00:00+00:00",
            "first_told_at": None,
        }
    ],
}


def points(*states: Any, symbol: str = "BTC") -> list[PointResult]:
    """One point a minute."""
    return [point(i, {symbol: Reading(0.0, under_way=state)}) for i, state in enumerate(states)]


def test_it_opens_at_once_and_names_the_side() -> None:
    [message] = play(points(running("short")), policy(**ONLY)).messages
    assert (message.kind, message.alert.rule, message.alert.side, message.alert.level) == (
        "opened",
        "under_way",
        "short",
        WARNING,
    )


def test_a_signal_that_flutters_makes_one_alert() -> None:
    states = [running(), UNSETTLED, running(), CALM, running(), UNSETTLED] * 10
    assert [m.kind for m in play(points(*states), policy(**ONLY)).messages] == ["opened"]


def test_it_is_over_after_a_quarter_of_an_hour_of_calm_and_not_before() -> None:
    played = play(points(running(), *[CALM] * 15), policy(**ONLY))
    assert [m.kind for m in played.messages] == ["opened"]
    played = play(points(running(), *[CALM] * 16), policy(**ONLY))
    assert [m.kind for m in played.messages] == ["opened", "resolved"]


@pytest.mark.parametrize("state", [UNSETTLED, UNSEEN, None])
def test_what_is_unsettled_or_unknown_is_not_calm(state: Any) -> None:
    played = play(points(running(), *[state] * 200), policy(**ONLY))
    assert [m.kind for m in played.messages] == ["opened"]


def test_the_other_side_ends_it_and_opens_its_own_in_one_message() -> None:
    played = play(points(running("long"), running("short")), policy(**ONLY))
    assert [(m.kind, m.alert.side) for m in played.messages] == [("opened", "long"), ("opened", "short")]
    assert [c.kind for c in played.changes] == ["opened", "resolved", "opened"]


def test_the_next_cascade_soon_after_is_told_again() -> None:
    played = play(points(running(), *[CALM] * 16, running()), policy(**ONLY))
    assert [m.kind for m in played.messages] == ["opened", "resolved", "opened"]
    assert played.messages[0].alert.alert_id != played.messages[2].alert.alert_id


def test_several_symbols_are_one_message() -> None:
    both = [point(0, {s: Reading(0.0, under_way=running()) for s in ("BTC", "ETH")})]
    [message] = play(both, policy(**ONLY)).messages
    assert message.alert.subject == "market"
    assert [member.subject for member in message.members] == ["BTC", "ETH"]


def test_with_a_severity_at_the_same_moment_the_cascade_speaks_and_names_it() -> None:
    at = [point(0, {"BTC": Reading(60.0, under_way=running())})]
    [message] = play(at, policy()).messages
    assert message.alert.rule == "under_way"
    assert [other.alert.rule for other in message.together] == ["severity"]


def test_people_s_first_hearing_stays_while_messages_go_on() -> None:
    played = play(points(running(), *[UNSETTLED] * 90), policy(**ONLY, alert_reminder_minutes=20))
    assert {m.kind for m in played.messages} == {"opened", "reminder"}
    alert = played.book.open["under_way", "BTC"]
    assert alert.first_told_at == START
    assert alert.told_at is not None
    assert alert.told_at > START


# -- words --


def _text(message: Any, at: PointResult, name: str = "real", **more: Any) -> tuple[str, str]:
    rules = policy(**ONLY)
    if message.alert.is_group:
        receipt = group_receipt(message.alert, message.members, at, world(name), rules, VERSION, {})
    else:
        receipt = symbol_receipt(message.alert, at, world(name), rules, VERSION, {})
    text = render(message, receipt | more, world(name))
    return text.title, text.body


def test_the_first_two_lines_say_what_happened_and_what_followed_such_alarms_both_ways() -> None:
    at = points(running())
    [message] = play(at, policy(**ONLY)).messages
    title, body = _text(message, at[0])
    first, second, *rest = body.split("\n")
    assert title == "WARNING UNDER WAY BTC: longs at risk, -4.2 % in 35 min"
    assert first == "BTC 64,120 USD, -4.2 % in 35 min, open interest -3.8 %: longs are being liquidated."
    assert "earlier ones the next hour went" in second
    for word in ("further and", "back at the median", "1 in 10 went", "at ordinary times"):
        assert word in second
    assert words.NO_DIRECTION in rest
    assert "Missing: liquidations." in body
    assert f"Receipt: liq alerts show {message.alert.alert_id}" in body


def test_what_was_never_measured_is_left_out_and_few_are_a_count() -> None:
    assert words.what_followed(None) == []
    assert words.what_followed({"n": 0}) == []
    assert words.what_followed({"n": 7}) == [
        "Only 7 earlier alarms of this kind are judged: too few to say what follows."
    ]


def test_the_end_tells_what_happened_and_what_we_had_said() -> None:
    at = points(running(), *[CALM] * 16)
    over = play(at, policy(**ONLY)).messages[-1]
    title, body = _text(over, at[-1], what_happened=OVER)
    assert title == "OVER BTC: the cascade has ended"
    first, *rest = body.split("\n")
    assert first == "BTC fell 6.4 % within 95 min, open interest -7.1 %; calm now."
    assert "Liquidated longs: 12.3 M USD (binance 8.0, okx 4.3, some venues show a part only)." in rest
    assert (
        "What we had said: WARNING storm watch (recorded 09:00 UTC, not sent); under way was told at 12:00 UTC." in rest
    )


def test_an_end_of_which_nothing_is_known_says_unknown() -> None:
    unknown = OVER | {"depth": None, "open_interest_change": None, "liquidated_usd": [], "warnings": []}
    lines = words.over(unknown, "long", "BTC")
    assert lines[0] == "BTC fell an unknown part within 95 min, open interest unknown; calm now."
    assert lines[1] == "Liquidations: none known."


def test_an_unreal_world_is_marked_before_anything_else() -> None:
    at = points(running())
    [message] = play(at, policy(**ONLY)).messages
    title, body = _text(message, at[0], "simulated/7")
    assert title.startswith("[SIMULATED] ")
    assert body.startswith("*** SIMULATED")


def test_a_storm_watch_names_probabilities_and_no_risk() -> None:
    at = point(0, {s: Reading(3.8, early_warning=True) for s in ("BTC", "ETH")})
    signals = {
        s: dataclasses.replace(signal, market_probability_4h=0.036, market_threshold_4h=0.034)
        for s, signal in at.signals.items()
    }
    at = dataclasses.replace(at, signals=signals)
    [message] = play([at], policy(alert_policy="early_warning")).messages
    title, body = _text(message, at)
    assert title == "WARNING storm watch market (BTC, ETH)"
    assert "3.60 % on average over the symbols; it stands above 3.40 %" in body
    assert "3.8" not in body
    assert "no better than chance" in body
