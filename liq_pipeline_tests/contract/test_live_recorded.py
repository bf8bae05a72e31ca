"""Recorded and documented answers of real venues, from the shared data, through our parsers, by value."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from liq_pipeline.sources.chain import ethereum
from liq_pipeline.sources.live import binance, bybit, deribit, dydx, hyperliquid, kraken_futures, okx
from liq_pipeline.sources.live.base import Reading, Source
from liq_pipeline.sources.live.instruments import Instrument


@pytest.fixture
def fixtures(shared_data: Path) -> Path:
    return shared_data / "fixtures"


def load(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes())


def read(source: Source, feed: str, payload: Any, *instruments: Instrument) -> list[Any]:
    """The records that a feed (or history) makes of a payload; problems fail the test."""
    now = datetime.now(UTC)
    reading = Reading(
        source.name,
        sent_at=now,
        received_at=now,
        instruments={instrument.native: instrument for instrument in instruments},
        instrument=instruments[0],
    )
    parse = next(f.parse for f in (*source.feeds, *source.histories) if f.name == feed)
    parse(payload, reading)
    assert reading.problems == []
    return list(reading.records)


BTC = Instrument("BTC", "BTCUSDT", funding_interval_hours=8)


class TestBinance:
    @pytest.fixture
    def folder(self, fixtures: Path) -> Path:
        return fixtures / "nautilus/binance_py/http_responses"

    def test_marks_and_funding(self, folder: Path) -> None:
        payload = load(folder / "http_futures_market_premium_index.json")
        (price,) = read(binance.SOURCE, "mark_price", payload, BTC)
        assert price.price_usd == 11793.63104562
        (funding,) = read(binance.SOURCE, "funding", payload, BTC)
        assert (funding.rate, funding.interval_hours) == (0.00038246, 8)
        assert funding.next_funding_time == datetime(2020, 8, 14, 8, tzinfo=UTC)

    def test_settled_funding(self, folder: Path) -> None:
        first = load(folder / "http_futures_market_funding_rate.json")
        found = read(binance.SOURCE, "settled_funding", first, BTC)
        assert [(row.rate, row.interval_hours, row.event_time.hour) for row in found] == [
            (-0.0375, 8, 8),
            (0.0001, 8, 16),
        ]

    def test_open_interest_in_coins(self, folder: Path) -> None:
        (now,) = read(binance.SOURCE, "open_interest", load(folder / "http_futures_market_open_interest.json"), BTC)
        assert (now.open_interest_base, now.open_interest_usd) == (10659.509, None)  # no price in this answer

    def test_the_ratio_follows_from_the_shares(self, folder: Path) -> None:
        """The documented sample's own longShortRatio (0.1960) contradicts its shares (0.6622, 0.3378)."""
        payload = load(folder / "http_futures_market_global_long_short_account_ratio.json")
        found = read(binance.SOURCE, "long_short_accounts", payload, BTC)
        assert found[0].ratio == pytest.approx(0.6622 / 0.3378)
        assert found[0].kind == "accounts"

    def test_takers(self, folder: Path) -> None:
        payload = load(folder / "http_futures_market_taker_long_short_ratio.json")
        found = read(binance.SOURCE, "long_short_taker", payload, BTC)
        assert found[0].ratio == pytest.approx(1.5586, abs=1e-4)

    def test_instruments(self, folder: Path) -> None:
        info = load(folder / "http_futures_market_exchange_info.json")
        lists = binance.SOURCE.instruments
        assert lists is not None
        listed = {instrument.native: instrument for instrument in lists.parse([info, []])}
        assert listed["BTCUSDT"] == Instrument("BTC", "BTCUSDT", funding_interval_hours=8.0)


def test_bybit_ticker(fixtures: Path) -> None:
    ticker = load(fixtures / "nautilus/bybit/ws_ticker_linear.json")
    payload = {"result": {"list": [ticker["data"]]}, "time": ticker["ts"]}
    (price,) = read(bybit.SOURCE, "mark_price", payload, BTC)
    (interest,) = read(bybit.SOURCE, "open_interest", payload, BTC)
    (funding,) = read(bybit.SOURCE, "funding", payload, BTC)
    assert price.price_usd == 17217.33
    assert (interest.open_interest_base, interest.open_interest_usd) == (68744.761, 1183601235.91)
    assert (funding.rate, funding.interval_hours) == (-0.000212, 8)


def test_bybit_settled_funding_and_an_interval_that_cannot_be_minutes(fixtures: Path) -> None:
    found = read(bybit.SOURCE, "settled_funding", load(fixtures / "nautilus/bybit/http_get_funding_history.json"), BTC)
    assert [(row.rate, row.interval_hours) for row in found] == [(0.00015, 8), (0.0001, 8)]
    lists = bybit.SOURCE.instruments
    assert lists is not None
    listed = lists.parse([load(fixtures / "nautilus/bybit/http_get_instruments_linear.json")])
    # The sample says 8 where the unit is minutes: unknown is better than sixty times too much.
    assert {instrument.funding_interval_hours for instrument in listed} == {None}


def test_okx_contracts_marks_and_funding(fixtures: Path) -> None:
    folder = fixtures / "nautilus/okx"
    lists = okx.SOURCE.instruments
    assert lists is not None
    listed = {i.native: i for i in lists.parse([load(folder / "http_get_instruments_swap.json")])}
    assert listed.keys() == {"BTC-USDT-SWAP", "ETH-USDT-SWAP"}  # the inverse one is counted in USD
    assert (listed["BTC-USDT-SWAP"].coins_per_contract, listed["ETH-USDT-SWAP"].coins_per_contract) == (0.01, 0.1)
    swap = listed["BTC-USDT-SWAP"]
    (price,) = read(okx.SOURCE, "mark_price", load(folder / "http_get_mark_price.json"), swap)
    assert price.price_usd == 84660.1
    (funding,) = read(okx.SOURCE, "funding", load(folder / "ws_funding_rate.json"), swap)
    assert (funding.rate, funding.interval_hours) == (0.0001, 8)
    found = read(okx.SOURCE, "settled_funding", load(folder / "http_get_funding_rate_history.json"), swap)
    assert [row.rate for row in found] == [-0.00002, 0.00015]  # what was realised, not what was announced


def test_deribit_ticker_counts_inverse_open_interest_in_usd(fixtures: Path) -> None:
    ticker = load(fixtures / "nautilus/deribit/ws_ticker.json")
    payload = {"result": ticker["params"]["data"]}
    perpetual = Instrument("BTC", "BTC-PERPETUAL")
    (interest,) = read(deribit.SOURCE, "open_interest", payload, perpetual)
    assert interest.open_interest_usd == 1132329370.0
    assert interest.open_interest_base == pytest.approx(1132329370.0 / 92281.78)


def test_dydx_markets_and_funding(fixtures: Path) -> None:
    markets = load(fixtures / "nautilus/dydx/http_get_perpetual_markets.json")["result"]
    ticker = Instrument("BTC", "BTC-USD")
    (interest,) = read(dydx.SOURCE, "open_interest", markets, ticker)
    assert interest.open_interest_base == 381.7348
    (funding,) = read(dydx.SOURCE, "funding", markets, ticker)
    assert funding.rate_per_8h == pytest.approx(8 * 0.00000254545454545455)
    history = load(fixtures / "nautilus/dydx/http_get_historical_funding.json")["result"]
    found = read(dydx.SOURCE, "settled_funding", history, ticker)
    assert [row.rate for row in found] == [0.000002375, 0.000000375, 0.000000625]


def test_hyperliquid_contexts_and_funding(fixtures: Path) -> None:
    contexts = load(fixtures / "nautilus/hyperliquid/ws_all_dexs_asset_ctxs.json")["data"]["ctxs"][0][1]
    payload = [{"universe": [{"name": "BTC"}, {"name": "ETH"}]}, contexts[:2]]
    coins = (Instrument("BTC", "BTC"), Instrument("ETH", "ETH"))
    prices = read(hyperliquid.SOURCE, "mark_price", payload, *coins)
    assert [price.price_usd for price in prices] == [77562.0, 2123.7]
    interest = read(hyperliquid.SOURCE, "open_interest", payload, *coins)
    assert interest[0].open_interest_base == 27353.17682
    history = load(fixtures / "nautilus/hyperliquid/http_funding_history.json")
    (parse,) = [h.parse for h in hyperliquid.SOURCE.histories if h.name == "settled_funding"]
    now = datetime.now(UTC)
    reading = Reading("hyperliquid", now, now, {"BTC": coins[0]}, coins[0])
    parse(history, reading)
    assert [row.rate_per_8h for row in reading.records] == pytest.approx([0.0001, -0.0000648, 0.0000264])  # type: ignore[attr-defined]


def test_kraken_absolute_rates_become_relative(fixtures: Path) -> None:
    tickers = load(fixtures / "nautilus/kraken/http_futures_tickers.json")
    perpetual = Instrument("ETH", "PF_ETHUSD")
    (funding,) = read(kraken_futures.SOURCE, "funding", tickers, perpetual)
    assert funding.rate == pytest.approx(1.5e-05 / 3202.75)
    rates = load(fixtures / "nautilus/kraken/http_futures_historical_funding_rates.json")
    found = read(kraken_futures.SOURCE, "settled_funding", rates, perpetual)
    assert [row.rate for row in found] == [0.00015, -0.00005, 0.0001]


def _transfer_rows(fixtures: Path) -> Iterator[dict[str, str]]:
    name = "get_erc20_token_transfer_events_by_contract_address_paginated.json"
    yield from load(fixtures / "etherscan" / name)["res"]


def test_recorded_etherscan_transfers_page_by_block_without_loss(fixtures: Path) -> None:
    """Real rows, some of them equal within one transaction, cut into small pages that end inside a block."""
    from liq_pipeline.sources.chain import etherscan

    recorded = sorted(_transfer_rows(fixtures), key=lambda row: int(row["blockNumber"]))
    size = etherscan.PAGE_ROWS
    padded = recorded * (size // len(recorded) + 2)
    padded = sorted(padded, key=lambda row: int(row["blockNumber"]))

    def page(start: int, number: int) -> list[dict[str, str]]:
        last = int(padded[-1]["blockNumber"]) if number == 1 else start
        left = [row for row in padded if start <= int(row["blockNumber"]) <= last]
        return left[(number - 1) * size : number * size]

    first, last = int(padded[0]["blockNumber"]), int(padded[-1]["blockNumber"])
    found = list(
        etherscan._key_set_pages(page, first, last, lambda r: int(r["blockNumber"]), etherscan._transaction_identity)
    )
    assert len(found) == len(padded)
    assert ethereum.hex_number("0x") == 0
