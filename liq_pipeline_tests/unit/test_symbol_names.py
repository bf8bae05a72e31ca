"""Coins by the names that people write: what is certain is read as the coin, everything else stays as it is."""

from __future__ import annotations

import pytest

from liq_pipeline.domain.symbols import coin_of


@pytest.mark.parametrize(
    ("name", "coin"),
    [
        ("BTC", "BTC"),
        (" eth ", "ETH"),
        ("BTCUSDT", "BTC"),
        ("BTC-PERP", "BTC"),
        ("BTC-USD-SWAP", "BTC"),
        ("BTC_USDT", "BTC"),
        ("BTC/USDT", "BTC"),
        ("BTC/USDT:USDT", "BTC"),
        ("BINANCE:BTCUSDT.P", "BTC"),
        ("XBTUSD", "BTC"),
        ("PF_XBTUSD", "BTC"),
        ("XBT", "BTC"),
        ("ETHUSDC", "ETH"),
        ("SOLPERP", "SOL"),
        ("DOGEFDUSD", "DOGE"),
        ("BTCUSDT_UMCBL", "BTC"),
    ],
)
def test_a_contract_is_read_as_its_coin(name: str, coin: str) -> None:
    assert coin_of(name) == coin


@pytest.mark.parametrize("name", ["USDT", "USDC", "USD", "1000PEPE", "PERP", "WIF", "SWAP", "USDE", "BTCDOM", "P"])
def test_a_coin_stays_itself(name: str) -> None:
    assert coin_of(name) == name


@pytest.mark.parametrize("name", ["BTCUSDT", "BTC/USDT:USDT", "1000PEPEUSDT", "ETH-PERP", "USDT"])
def test_reading_twice_changes_nothing(name: str) -> None:
    assert coin_of(coin_of(name)) == coin_of(name)
