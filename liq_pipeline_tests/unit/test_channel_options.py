"""What a channel's own address says about what it wants, and what is said about addresses that cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from liq_pipeline.alerting.sending.channels import is_address
from liq_pipeline.alerting.sending.options import read_options
from liq_pipeline.errors import LiqError

NOON = datetime(2026, 2, 5, 12, 0, tzinfo=UTC)


def message(rule: str = "severity", severity: str = "WARNING", before: str = "NONE", **more: Any) -> dict[str, Any]:
    return {"rule": rule, "severity": severity, "severity_before": before, **more}


def options(query: str) -> Any:
    return read_options(SecretStr(f"json://host/s3cretT0ken?{query}"))


def test_the_options_are_taken_off_and_the_rest_stays() -> None:
    found = options("method=post&liq_min=critical&liq_rules=under_way&overflow=split")
    assert found.url.get_secret_value() == "json://host/s3cretT0ken?method=post&overflow=split"
    plain = SecretStr("tgram://token/chat")
    assert read_options(plain).url == plain
    assert read_options(plain).withheld(message(severity="INFO"), NOON) is None


def test_a_least_level_keeps_what_is_below_it_and_lets_the_end_of_what_was_told_through() -> None:
    critical = options("liq_min=critical")
    assert critical.withheld(message(), NOON) == "below liq_min"
    assert critical.withheld(message(severity="CRITICAL"), NOON) is None
    assert critical.withheld(message(severity="NONE", before="CRITICAL"), NOON) is None


def test_rules_are_chosen_and_one_that_is_told_together_counts() -> None:
    only = options("liq_rules=early_warning,severity")
    assert only.withheld(message("under_way"), NOON) == "liq_rules leaves out under_way"
    assert only.withheld(message("under_way", also=[{"rule": "severity"}]), NOON) is None


@pytest.mark.parametrize(
    ("hour", "quiet"), [(21, False), (22, True), (23, True), (3, True), (6, True), (7, False), (12, False)]
)
def test_quiet_hours_pass_midnight_in_their_own_zone(hour: int, quiet: bool) -> None:
    of = options("liq_quiet=22:00-07:00@Europe/Berlin")
    now = datetime(2026, 2, 5, hour, 30, tzinfo=UTC).replace(hour=(hour - 1) % 24)  # Berlin is an hour ahead in winter
    assert (of.withheld(message(), now) is not None) == quiet
    assert of.withheld(message(severity="CRITICAL"), now) is None


def test_blindness_is_told_whatever_a_channel_wants() -> None:
    of = options("liq_min=critical&liq_rules=under_way&liq_quiet=00:00-23:59")
    assert of.withheld(message("blind"), NOON) is None


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("liq_min=loud", "info, warning or critical"),
        ("liq_rules=ponies", "under_way"),
        ("liq_quiet=22-07", "22:00-07:00@Europe/Berlin"),
        ("liq_quiet=25:00-07:00", "22:00-07:00"),
        ("liq_quiet=22:00-07:00@Nowhere/Atall", "22:00-07:00"),
        ("liq_minn=critical", "no option of an alert channel"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_without_the_address(query: str, says: str) -> None:
    with pytest.raises(LiqError, match=says) as caught:
        options(query)
    assert "s3cretT0ken" not in str(caught.value)
    assert not is_address(SecretStr(f"json://host/s3cretT0ken?{query}"))


@pytest.mark.parametrize(
    ("url", "usable"),
    [
        ("liq+https://host/x?secret=k", True),
        ("liq+https://host/x?secret=k&liq_min=critical", True),
        ("liq+http://127.0.0.1:8080/x?secret=k", True),
        ("liq+http://[::1]/x?secret=k", True),
        ("liq+http://example.org/x?secret=k", False),
        ("liq+https://host/x", False),
        ("liq+https:///x?secret=k", False),
    ],
)
def test_a_webhook_wants_a_key_and_encryption_to_any_other_machine(url: str, usable: bool) -> None:
    assert is_address(SecretStr(url)) == usable
