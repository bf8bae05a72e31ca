"""Any coin by its plain name: how each venue writes it, and how many coins one of its units is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.sources.live.instruments import Instrument, choose, coin_of
from liq_pipeline.sources.live.values import ShapeError
from liq_pipeline.sources.registry import SOURCES
from liq_pipeline_tests.live_support import frames_of


@pytest.mark.parametrize(
    ("venue_name", "symbol", "coins"),
    [
        ("BTC", "BTC", 1),
        ("XBT", "BTC", 1),
        ("xbt", "BTC", 1),
        ("XDG", "DOGE", 1),
        ("1000PEPE", "PEPE", 1000),
        ("10000SATS", "SATS", 10_000),
        ("1000000MOG", "MOG", 1_000_000),
        ("1MBABYDOGE", "BABYDOGE", 1_000_000),
        ("SHIB1000", "SHIB", 1000),
        ("1INCH", "1INCH", 1),  # a name of its own: 1, not a multiplier
        ("1000X", "X", 1000),
        ("4", "4", 1),
    ],
)
def test_a_venues_name_is_a_coin_and_a_number_of_coins(venue_name: str, symbol: str, coins: float) -> None:
    assert coin_of(venue_name) == (symbol, coins)


@given(st.from_regex(r"[A-Z]{2,8}", fullmatch=True), st.sampled_from([1000, 10_000, 100_000, 1_000_000]))
def test_a_multiplier_before_or_behind_a_name_never_changes_the_coin(name: str, multiplier: int) -> None:
    symbol, coins = coin_of(name)
    if symbol == name:  # no alias such as XBT
        assert coin_of(f"{multiplier}{name}") == (name, float(multiplier))
    assert coins == 1


# (native name, coins in one unit of its quantities, coins per contract) of PEPE in each venue's own list
PEPE: dict[str, tuple[str, float, float]] = {
    "binance": ("1000PEPEUSDT", 1000, 1000),
    "bybit": ("1000PEPEUSDT", 1000, 1000),
    "okx": ("PEPE-USDT-SWAP", 1, 1e7),
    "gate": ("PEPE_USDT", 1, 1e7),
    "hyperliquid": ("kPEPE", 1000, 1000),
    "bitget": ("1000PEPEUSDT", 1000, 1000),
}
BTC = {
    "binance": "BTCUSDT",
    "bybit": "BTCUSDT",
    "okx": "BTC-USDT-SWAP",
    "gate": "BTC_USDT",
    "hyperliquid": "BTC",
    "dydx": "BTC-USD",
    "deribit": "BTC-PERPETUAL",
    "bitget": "BTCUSDT",
    "kraken_futures": "PF_XBTUSD",
    "htx": "BTC-USDT",
}


def listed(source: str) -> dict[str, Instrument]:
    """By symbol, from the venue's frames: every page of every request of its list."""
    lists = SOURCES[source].instruments
    assert lists is not None
    routes: dict[str, Any] = frames_of(source)["routes"]
    paths = [
        request.path if request.body is None else f"{request.path} {request.body['type']}" for request in lists.requests
    ]
    pages = [routes[name] for path in paths for name in routes if name.partition("?")[0] == path]
    if source == "bybit":
        rows = [row for page in pages for row in page["result"]["list"]]
        pages = [json.loads(json.dumps(pages[0]))]
        pages[0]["result"]["list"] = rows
    return {instrument.symbol: instrument for instrument in choose(lists.parse(pages), ("BTC", "PEPE"))}


@pytest.mark.parametrize("source", BTC)
def test_every_venues_name_of_bitcoin(source: str) -> None:
    assert listed(source)["BTC"].native == BTC[source]


@pytest.mark.parametrize("source", PEPE)
def test_every_venues_unit_of_a_coin_that_costs_a_fraction_of_a_cent(source: str) -> None:
    native, coins, per_contract = PEPE[source]
    found = listed(source)["PEPE"]
    assert (found.native, found.coins_per_unit, found.coins_per_contract) == (native, coins, per_contract)


def test_of_two_listings_of_a_coin_the_plainest_unit_is_read() -> None:
    thousands, plain = Instrument("PEPE", "1000PEPEUSDT", 1000), Instrument("PEPE", "PEPEUSDC", 1)
    assert choose([thousands, plain], ["PEPE"]) == choose([plain, thousands], ["PEPE"]) == [plain]


def test_a_list_that_names_nothing_is_a_fault_and_not_a_fact() -> None:
    """Taken as a fact, nothing would be expected of the venue, and its silence would be full coverage."""
    assert choose([Instrument("ETH", "ETHUSDT")], ["BTC"]) == []
    with pytest.raises(ShapeError, match="no perpetual at all"):
        choose([], ["BTC"])
