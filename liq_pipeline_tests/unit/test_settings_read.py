"""Settings as people write them: what is taken, what is refused, and what is said about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from rich.console import Console

from liq_pipeline.commands.shared import in_plain_words, playing_speed, settings_in_force
from liq_pipeline.errors import LiqError
from liq_pipeline.operations.doctor import _channels
from liq_pipeline.operations.misspelt import misspelt
from liq_pipeline.runtime.up import up
from liq_pipeline.settings import Settings, get_settings
from liq_pipeline.store.connection import check_url, connect


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.parametrize("sign", ["1", "-1"])
def test_the_sign_of_the_pressure_can_be_set(monkeypatch: pytest.MonkeyPatch, sign: str) -> None:
    monkeypatch.setenv("LIQ_PRESSURE_SIGN", sign)
    assert settings_in_force().pressure.sign == int(sign)


@pytest.mark.parametrize("name", ["ETHERSCAN_API_KEY", "LIQ_ETHEREUM_RPC_URL", "LIQ_DATABASE_URL", "LIQ_HEARTBEAT_URL"])
def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert getattr(settings_in_force(), name.removeprefix("LIQ_").lower()) is None


def test_coins_and_venues_are_read_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIQ_SYMBOLS", "btc, BTC,eth,")
    monkeypatch.setenv("LIQ_VENUES", "Binance, okx,binance")
    assert settings_in_force().symbols == ("BTC", "ETH")
    assert settings_in_force().venues == ("binance", "okx")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("LIQ_SYMBOLS", "BTC/USDT", "such as BTC,ETH"),
        ("LIQ_SYMBOLS", "ETH,BTCUSDT", "was BTC meant?"),
        ("LIQ_SYMBOLS", "XBTUSD", "was BTC meant?"),
        ("LIQ_SEVERITY_WARNING_RISK", "500", "less than 100"),
        ("LIQ_SEVERITY_CRITICAL_RISK", "100", "less than 100"),
        ("LIQ_SEVERITY_CRITICAL_PRESSURE", "-100", "greater than -100"),
        ("LIQ_SEVERITY_INFO_RISK", "60", "above LIQ_SEVERITY_WARNING_RISK (50)"),
        ("LIQ_SEVERITY_WARNING_PRESSURE", "-60", "below LIQ_SEVERITY_CRITICAL_PRESSURE (-30)"),
        ("LIQ_MODE", "life", "it must be 'auto', 'live'"),
        ("LIQ_RISK_MIN_COVERAGE", "2", "less than or equal to 1"),
        ("LIQ_SEVERITY_CRITICAL_RISK", "nan", "a finite number"),
        ("LIQ_POSTGRES_PORT", "99999", "less than or equal to 65535"),
        ("LIQ_PRESSURE_SIGN", "2", "1 or -1"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_sentence_with_the_variable_s_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(LiqError, match=f"^The setting {name} is not usable: .*{re.escape(says)}.*[.]$"):
        settings_in_force()


def test_a_level_that_could_never_be_reached_is_refused_whichever_of_the_two_was_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIQ_SEVERITY_CRITICAL_RISK", "40")
    with pytest.raises(LiqError, match=r"LIQ_SEVERITY_WARNING_RISK .* above LIQ_SEVERITY_CRITICAL_RISK \(40\)"):
        settings_in_force()
    monkeypatch.setenv("LIQ_SEVERITY_WARNING_RISK", "40")
    get_settings.cache_clear()
    assert settings_in_force().severity.critical_risk == 40


def test_a_misspelt_variable_is_told_with_what_was_meant() -> None:
    told = misspelt(
        ["LIQ_SYMBOL", "LIQ_BINANC_URL", "LIQ_PONIES", "ETHERSCAN_KEY", "LIQ_BYBIT_WS_URL", "LIQ_HOME", "HOME"]
    )
    assert told == [
        "ETHERSCAN_KEY is not a setting and changes nothing: did you mean ETHERSCAN_API_KEY?",
        "LIQ_BINANC_URL is not a setting and changes nothing: did you mean LIQ_BINANCE_URL?",
        "LIQ_PONIES is not a setting and changes nothing: docs/settings.md lists them all.",
        "LIQ_SYMBOL is not a setting and changes nothing: did you mean LIQ_SYMBOLS?",
    ]


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "inf", "fast"])
def test_a_speed_is_a_number_above_zero(speed: str) -> None:
    with pytest.raises(LiqError, match="--speed must be a number above 0"):
        playing_speed(speed)


def test_a_venue_that_does_not_exist_is_told_before_anything_is_started(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", venues=("binanse",))
    with pytest.raises(LiqError, match="LIQ_VENUES names binanse"):
        up(settings, mode="live", recording=None, speed=1.0, once=False, record_dir=None, console=Console())
    assert not settings.home.exists()


def test_the_database_s_refusals_say_what_to_do_and_show_no_password() -> None:
    with pytest.raises(psycopg.OperationalError) as away:
        connect("postgresql://liq:s3cret@127.0.0.1:1/liq")
    assert "LIQ_DATABASE_URL" in in_plain_words(away.value)
    assert "liq migrate" in in_plain_words(psycopg.errors.UndefinedTable('relation "alerts" does not exist'))
    assert in_plain_words(KeyError("x")) == "KeyError: 'x' (run again with --debug for the traceback)"
    with pytest.raises(LiqError, match="names a mysql database") as wrong:
        check_url("mysql://liq:s3cret@127.0.0.1/liq")
    assert "s3cret" not in f"{in_plain_words(away.value)} {wrong.value}"


def test_doctor_finds_addresses_that_can_never_be_reached_without_showing_them() -> None:
    urls = (SecretStr("json://127.0.0.1:1/s3cret"), SecretStr("telegam://s3cret/1"))
    findings = {f.check: f for f in _channels(Settings(alert_urls=urls, heartbeat_url=SecretStr("hc-ping/s3cret")))}
    assert [finding.grade for finding in findings.values()] == ["fail", "fail"]
    assert findings["alert channels"].detail.startswith("telegam-")
    assert "s3cret" not in str(findings)
