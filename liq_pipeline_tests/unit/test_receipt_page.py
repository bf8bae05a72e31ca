"""`liq alerts show`: a receipt that a person reads at 80 columns: what, why, what is missing, what would end it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from liq_pipeline.alerting.deciding.machine import step
from liq_pipeline.alerting.deciding.policy import AlertPolicy
from liq_pipeline.alerting.deciding.state import Alert, Book
from liq_pipeline.alerting.telling.receipt import group_receipt, symbol_receipt
from liq_pipeline.operations.receipt_page import WIDTH, receipt_lines
from liq_pipeline.settings import Settings
from liq_pipeline_tests.alert_support import START, VERSION, Reading, point, world

POLICY = AlertPolicy.build(Settings(alert_policy="both"), world())


def _row(alert: Alert, receipt: dict[str, Any], **more: Any) -> dict[str, Any]:
    """As show_alert reads it."""
    levels = ("NONE", "INFO", "WARNING", "CRITICAL")
    return {
        "alert_id": alert.alert_id,
        "world": "real",
        "rule": alert.rule,
        "subject": alert.subject,
        "side": alert.side,
        "severity": levels[alert.level],
        "peak_severity": levels[alert.peak_level],
        "state": "open",
        "opened_at": alert.opened_at,
        "told_at": alert.told_at,
        "receipt": receipt,
        **more,
    }


def _opened(readings: dict[str, Any], rule: str, pressure: float | None = -40.0) -> tuple[Alert, Any]:
    at = point(0, readings, pressure)
    outcome = step(Book(), at, POLICY, VERSION)
    [alert] = [a for a in outcome.book.open.values() if a.rule == rule and not a.is_group][:1]
    return alert, at


def test_it_says_what_why_and_what_ends_it_within_80_columns() -> None:
    alert, at = _opened({"BTC": Reading(risk=80.0)}, "severity")
    lines = receipt_lines(_row(alert, symbol_receipt(alert, at, world(), POLICY, VERSION, {})))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= WIDTH
    assert lines[0] == "CRITICAL BTC: longs at risk"
    assert "Risk       80.0 of 100" in text
    assert "funding           24.0 of 30" in text
    assert "binance" in text
    assert "12 s old" in text
    assert "Flows      pressure -40: 2.5 M USD in, 1.0 M USD out in 60 min" in text
    assert "Ends when  the risk stays at 65.0 or under, or the pressure at -25 or more, for" in text
    assert str(alert.alert_id) in text


def test_what_is_unknown_is_a_word_and_never_a_zero() -> None:
    reading = Reading(risk=60.0, silent=("long_short",), parts={"funding": 30.0, "open_interest": 30.0})
    alert, at = _opened({"BTC": reading}, "severity", pressure=None)
    text = "\n".join(receipt_lines(_row(alert, symbol_receipt(alert, at, world(), POLICY, VERSION, {}))))
    assert "long/short     unknown of 20" in text
    assert "Flows      flow side blind" in text
    assert "possible up to" in text


def test_a_market_s_receipt_holds_that_of_each_symbol() -> None:
    readings = {"BTC": Reading(risk=80.0), "ETH": Reading(risk=75.0)}
    at = point(0, readings, -40.0)
    outcome = step(Book(), at, POLICY, VERSION)
    group = next(a for a in outcome.book.open.values() if a.is_group and a.rule == "severity")
    members = [a for a in outcome.book.open.values() if a.group_id == group.alert_id]
    told = [{"subject": a.subject, "severity": "CRITICAL", "state": "open"} for a in members]
    lines = receipt_lines(_row(group, group_receipt(group, members, at, world(), POLICY, VERSION, {}), members=told))
    assert any(line.startswith("--- BTC") for line in lines)
    assert any(line.startswith("--- ETH") for line in lines)
    assert "Speaks for BTC (CRITICAL, open), ETH (CRITICAL, open)" in "\n".join(lines)


def test_an_unreal_world_is_marked_before_anything_else() -> None:
    alert, at = _opened({"BTC": Reading(risk=80.0)}, "severity")
    row = _row(alert, symbol_receipt(alert, at, world(), POLICY, VERSION, {})) | {"world": "simulated/7"}
    assert receipt_lines(row)[0] == "*** NOT REAL: world simulated/7 ***"


def test_an_ended_alert_says_since_when_why_and_who_was_told() -> None:
    alert, at = _opened({"BTC": Reading(risk=80.0)}, "severity")
    row = _row(
        alert,
        symbol_receipt(alert, at, world(), POLICY, VERSION, {}),
        state="resolved",
        resolved_at=START + timedelta(hours=1),
        resolved_because="calm for 15 min",
        changes=[{"time": START, "kind": "opened", "severity": "CRITICAL", "reason": "the condition holds"}],
        deliveries=[
            {"attempted_at": START, "channel": "tgram-1f2e", "attempt": 1, "ok": False, "error": "HTTP 502"},
            {"attempted_at": START, "channel": "tgram-1f2e", "attempt": 2, "ok": True, "error": None},
        ],
    )
    text = "\n".join(receipt_lines(row))
    assert "ended 2025-10-10 13:00:00 UTC, opened 2025-10-10 12:00:00 UTC (calm for 15 min)" in " ".join(text.split())
    assert "attempt 1: failed: HTTP 502" in text
    assert "attempt 2: sent" in text
    assert "Ends when" not in text


@pytest.mark.parametrize("receipt", [{}, None, {"rule": "severity"}])
def test_a_receipt_of_an_older_version_is_shown_as_far_as_it_goes(receipt: dict[str, Any] | None) -> None:
    alert, _ = _opened({"BTC": Reading(risk=80.0)}, "severity")
    lines = receipt_lines(_row(alert, receipt or {}) | {"receipt": receipt})
    assert lines[0] == "CRITICAL BTC: longs at risk"
