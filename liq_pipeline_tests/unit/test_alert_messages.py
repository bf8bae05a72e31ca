"""Receipts take a score apart to the last point; messages say it at one glance and never pretend."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.alerting.deciding.machine import step
from liq_pipeline.alerting.deciding.state import Message
from liq_pipeline.alerting.sending.outbox import to_jsonb
from liq_pipeline.alerting.telling.messages import Text, render, render_test
from liq_pipeline.alerting.telling.receipt import adds_up, group_receipt, symbol_receipt
from liq_pipeline.scoring.results import PointResult
from liq_pipeline_tests.alert_support import BUDGETS, VERSION, Reading, play, point, policy, series, world


def text_of(message: Message, at: PointResult, of_world: str = "real") -> Text:
    where, rules = world(of_world), policy()
    if message.alert.is_group:
        receipt = group_receipt(message.alert, message.members, at, where, rules, VERSION, {})
    else:
        receipt = symbol_receipt(message.alert, at, where, rules, VERSION, {})
    return render(message, receipt, where)


def last_text(points: list[PointResult], of_world: str = "real") -> Text:
    return text_of(play(points, policy(world(of_world))).messages[-1], points[-1], of_world)


def receipt_of(reading: Reading, pressure: float | None = -10.0) -> dict[str, object]:
    at = point(0, {"BTC": reading}, pressure)
    alert = play([at], policy()).changes[0].alert
    return symbol_receipt(alert, at, world(), policy(), VERSION, {})


@given(
    parts=st.fixed_dictionaries({name: st.floats(0, budget) for name, budget in BUDGETS.items()}),
    silent=st.sets(st.sampled_from(sorted(BUDGETS)), max_size=2),
)
def test_the_known_points_add_up_to_the_score_and_the_unknown_ones_to_the_rest(
    parts: dict[str, float], silent: set[str]
) -> None:
    parts["funding"] = 30.0
    parts["open_interest"] = max(parts["open_interest"], 5.0)
    silent -= {"funding", "open_interest"}
    receipt = receipt_of(Reading(90.0, parts=parts, silent=tuple(sorted(silent))))
    components = receipt["components"]
    assert isinstance(components, list)
    assert [c["name"] for c in components] == list(BUDGETS)
    score = receipt["score"]
    assert isinstance(score, dict)
    assert score["value"] == pytest.approx(math.fsum(c["points"] for c in components if c["is_known"]))
    unknown = sum(c["budget"] for c in components if not c["is_known"])
    assert score["high"] == pytest.approx(min(100.0, score["value"] + unknown))
    assert adds_up(receipt)


def test_points_that_do_not_add_up_are_said_loudly() -> None:
    at = point(0, {"BTC": 60.0})
    message = play([at], policy()).messages[0]
    receipt = symbol_receipt(message.alert, at, world(), policy(), VERSION, {})
    receipt["sum_check"] = {"sum_of_points": 40.0, "score": 60.0, "adds_up": False}
    assert not adds_up(receipt)
    assert "do not add up" in render(message, receipt, world()).body


def test_a_receipt_names_all_that_a_number_rests_on() -> None:
    receipt = receipt_of(Reading(60.0))
    assert receipt["score_version"] == VERSION
    assert receipt["world"] == "real"
    probability, thresholds, data = receipt["probability"], receipt["thresholds"], receipt["data"]
    assert isinstance(probability, dict)
    assert probability["model_id"] == "model-a"
    assert isinstance(thresholds, dict)
    assert thresholds["severity"]["warning_risk"] == 50
    assert thresholds["kept_until_under"]["warning_risk"] == 45
    assert isinstance(data, dict)
    assert data["oldest_age_seconds"] == 12
    assert data["cut_time"] == receipt["time"]
    inputs = point(0, {"BTC": 60.0}).risks["BTC"].inputs
    components = receipt["components"]
    assert isinstance(components, list)
    assert components[0]["inputs"] == inputs["funding"]
    assert receipt["inputs"] == {"lean": inputs["lean"], "price": inputs["price"]}


def test_a_blind_flow_side_is_said_in_receipt_and_message() -> None:
    pressure = receipt_of(Reading(60.0), None)["pressure"]
    assert pressure == {"is_known": False, "note": "flow side blind"}
    assert "flow side blind" in last_text([point(0, {"BTC": 60.0}, None)]).body


def test_a_message_answers_at_one_glance() -> None:
    text = last_text([point(0, {"BTC": 60.0})])
    assert text.title == "WARNING BTC: longs at risk, risk 60 of 100"
    assert text.notify_type == "warning"
    for words in (
        "Rule: severity",
        "Risk 60.0 of 100, possible up to 60.0 (coverage 100 %), longs at risk.",
        "funding 18.0/30",
        "liquidations 12.0/20",
        "pressure -10 (inflow 2.5 M USD, outflow 1.0 M USD in 60 min)",
        "Cascade within 4 h: 2.0 % (model model-a)",
        "oldest input 12 s",
        "Open since 2025-10-10 12:00:00 UTC",
        "liq alerts ack ",
        "liq alerts show ",
        "Not financial advice.",
    ):
        assert words in text.body, words


def test_a_missing_component_is_named_and_never_shown_as_zero() -> None:
    reading = Reading(54.0, parts={"funding": 24.0, "open_interest": 30.0, "liquidation": 0.0}, silent=("long_short",))
    body = last_text([point(0, {"BTC": reading})]).body
    assert "long/short ratio unknown/20" in body
    assert "possible up to 74.0 (coverage 80 %)" in body


@pytest.mark.parametrize(("name", "mark"), [("simulated/7", "SIMULATED"), ("recorded/october", "RECORDED")])
def test_an_unreal_world_is_said_first_in_title_and_body(name: str, mark: str) -> None:
    for points in (
        series("BTC", [60.0]),
        [point(0, {"BTC": 60.0, "ETH": 60.0})],
        series("BTC", [None, None, None]),
        series("BTC", [60.0] + [0.0] * 16),
    ):
        text = last_text(points, name)
        assert text.title.startswith(f"[{mark}] ")
        assert text.body.startswith(f"*** {mark}: ")
        assert name in text.body.splitlines()[0]


def test_the_real_world_carries_no_mark() -> None:
    text = last_text(series("BTC", [60.0]))
    assert "SIMULATED" not in text.title + text.body
    assert "RECORDED" not in text.title + text.body


def test_a_market_page_names_its_symbols_and_their_numbers() -> None:
    text = last_text([point(0, {"BTC": 60.0, "ETH": 66.0, "SOL": 0.0})])
    assert text.title == "WARNING market (BTC, ETH): longs at risk"
    assert text.body.index("ETH: WARNING, risk 66.0") < text.body.index("BTC: WARNING, risk 60.0")
    assert "SOL" not in text.body


def test_a_market_page_of_many_symbols_stays_short() -> None:
    symbols = {f"C{i:02}": 60.0 for i in range(30)}
    text = last_text([point(0, symbols)])
    assert len(text.title) < 100
    assert "and 22 more" in text.title
    assert "and 22 more symbols." in text.body


def test_a_blind_monitor_says_what_it_means() -> None:
    text = last_text(series("BTC", [None, None, None]))
    assert text.title == "CRITICAL monitor is blind: the whole monitor"
    assert "no risk alert can come until this ends" in text.body
    assert "BTC: coverage 0 %" in text.body
    assert text.notify_type == "failure"


def test_the_end_says_that_it_is_one_and_how_long_it_stays_quiet() -> None:
    text = last_text(series("BTC", [60.0] + [0.0] * 16))
    assert text.title == "RESOLVED BTC"
    assert text.notify_type == "success"
    assert "within 30 min is recorded, and told after that if it still holds" in text.body
    assert "liq alerts ack" not in text.body


def test_a_rise_and_an_easing_say_from_where() -> None:
    up = last_text([point(0, {"BTC": 60.0}, -40.0), point(1, {"BTC": 80.0}, -40.0)])
    assert up.title.startswith("UP to CRITICAL BTC")
    assert "CRITICAL, up from WARNING" in up.body
    down = last_text([point(0, {"BTC": 60.0})] + [point(1 + i, {"BTC": 40.0}) for i in range(16)])
    assert down.title.startswith("EASED to INFO BTC")
    assert "INFO, down from WARNING" in down.body


def test_the_test_message_cannot_be_taken_for_an_alert() -> None:
    assert render_test().title.startswith("[TEST]")
    assert "TEST MESSAGE" in render_test().body


def test_not_a_number_in_the_inputs_is_written_as_null() -> None:
    dumps = to_jsonb({}).dumps
    assert dumps is not None
    assert json.loads(dumps({"a": float("nan"), "b": 1.5})) == {"a": None, "b": 1.5}


def test_a_group_that_turned_is_told_with_its_reason() -> None:
    first = point(0, {"BTC": 60.0, "ETH": 60.0})
    turned = point(1, {"BTC": Reading(60.0, "short", other_side=5.0), "ETH": 60.0})
    book = step(play([first], policy()).book, turned, policy(), VERSION)
    assert [m.reason for m in book.messages] == ["the side changed for BTC"]
