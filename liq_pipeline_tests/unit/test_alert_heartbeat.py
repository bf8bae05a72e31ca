"""The outside heartbeat: pings, says /fail, and never costs a tick more than two seconds or an exception."""

from __future__ import annotations

import time

import pytest
from pydantic import SecretStr

from liq_pipeline.alerting.sending.heartbeat import TIMEOUT_SECONDS, ping
from liq_pipeline.alerting.sending.outside import run_all
from liq_pipeline.settings import Settings
from liq_pipeline_tests.alert_receiver import receiver


def test_without_an_address_there_is_no_ping() -> None:
    assert ping(Settings(), ok=True) is None


def test_a_healthy_tick_pings_and_an_unhealthy_one_says_fail() -> None:
    with receiver() as service:
        settings = Settings(heartbeat_url=SecretStr(service.http))
        assert ping(settings, ok=True) is True
        assert ping(settings, ok=False) is True
        assert service.paths == ["/ping/s3cretT0ken", "/ping/s3cretT0ken/fail"]


def test_the_query_stays_behind_the_path() -> None:
    with receiver() as service:
        ping(Settings(heartbeat_url=SecretStr(f"{service.http}/?create=1")), ok=False)
        assert service.paths == ["/ping/s3cretT0ken/fail?create=1"]


def test_a_service_that_refuses_or_is_away_is_a_false_and_no_exception() -> None:
    with receiver(status=500) as service:
        assert ping(Settings(heartbeat_url=SecretStr(service.http)), ok=True) is False
    assert ping(Settings(heartbeat_url=SecretStr("http://127.0.0.1:1/x")), ok=True) is False
    assert ping(Settings(heartbeat_url=SecretStr("no address at all")), ok=True) is False


def test_a_service_that_stalls_costs_two_seconds_at_most() -> None:
    with receiver() as service:
        service.stall_seconds = 20.0
        started = time.monotonic()
        assert ping(Settings(heartbeat_url=SecretStr(service.http)), ok=True) is False
        assert time.monotonic() - started < TIMEOUT_SECONDS + 0.5


def test_calls_run_side_by_side_under_one_deadline() -> None:
    started = time.monotonic()
    results = run_all([lambda: 1, lambda: time.sleep(10) or 2, lambda: 3], 0.3)
    assert results == [1, None, 3]
    assert time.monotonic() - started < 2
    assert run_all([], 1.0) == []


def test_the_address_reaches_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"), receiver() as service:
        ping(Settings(heartbeat_url=SecretStr(service.http)), ok=True)
    assert len(service.paths) == 1
    assert "s3cretT0ken" not in caplog.text
