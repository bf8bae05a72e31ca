"""Fifty symbols at every venue: every budget holds, and a round ends within its bound though answers are slow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.polling import poll_due
from liq_pipeline.sources.registry import SOURCES
from liq_pipeline_tests.live_support import Reply, VenueServer, rows, venue_server

COINS = tuple(f"C{number:02d}" for number in range(50))
POLLED = [name for name, source in SOURCES.items() if source.feeds and name != "coingecko"]
DELAY_SECONDS = 0.3


def _answers(server: VenueServer) -> None:
    """Every venue lists all coins; what a coin's own endpoints answer is empty: here only the questions count."""
    lists: dict[tuple[str, str], Any] = {
        ("binance", "/fapi/v1/exchangeInfo"): {
            "symbols": [
                {
                    "symbol": f"{c}USDT",
                    "contractType": "PERPETUAL",
                    "status": "TRADING",
                    "baseAsset": c,
                    "quoteAsset": "USDT",
                }
                for c in COINS
            ]
        },
        ("binance", "/fapi/v1/fundingInfo"): [],
        ("bybit", "/v5/market/instruments-info"): {
            "retCode": 0,
            "result": {
                "list": [
                    {
                        "symbol": f"{c}USDT",
                        "contractType": "LinearPerpetual",
                        "status": "Trading",
                        "baseCoin": c,
                        "quoteCoin": "USDT",
                        "fundingInterval": 480,
                    }
                    for c in COINS
                ]
            },
        },
        ("okx", "/api/v5/public/instruments"): {
            "code": "0",
            "data": [
                {
                    "instId": f"{c}-USDT-SWAP",
                    "ctType": "linear",
                    "ctVal": "1",
                    "ctMult": "1",
                    "ctValCcy": c,
                    "settleCcy": "USDT",
                    "state": "live",
                }
                for c in COINS
            ],
        },
        ("gate", "/api/v4/futures/usdt/contracts"): [
            {"name": f"{c}_USDT", "type": "direct", "quanto_multiplier": "1", "funding_interval": 28800} for c in COINS
        ],
        ("dydx", "/v4/perpetualMarkets"): {
            "markets": {
                f"{c}-USD": {
                    "ticker": f"{c}-USD",
                    "status": "ACTIVE",
                    "oraclePrice": "1",
                    "nextFundingRate": "0",
                    "openInterest": "1",
                }
                for c in COINS
            }
        },
        ("deribit", "/api/v2/public/get_instruments"): {
            "result": [
                {
                    "instrument_name": f"{c}_USDC-PERPETUAL",
                    "base_currency": c,
                    "quote_currency": "USDC",
                    "settlement_period": "perpetual",
                    "is_active": True,
                }
                for c in COINS
            ]
        },
        ("bitget", "/api/v2/mix/market/contracts"): {
            "code": "00000",
            "data": [
                {
                    "symbol": f"{c}USDT",
                    "baseCoin": c,
                    "quoteCoin": "USDT",
                    "symbolType": "perpetual",
                    "symbolStatus": "normal",
                    "fundInterval": "8",
                }
                for c in COINS
            ],
        },
        ("kraken_futures", "/derivatives/api/v3/tickers"): {
            "result": "success",
            "serverTime": "2024-06-01T08:00:00Z",
            "tickers": [
                {
                    "symbol": f"PF_{c}USD",
                    "tag": "perpetual",
                    "markPrice": 1,
                    "indexPrice": 1,
                    "openInterest": 1,
                    "fundingRate": 0,
                }
                for c in COINS
            ],
        },
    }
    universe = {"universe": [{"name": c} for c in COINS]}
    empty: dict[str, Any] = {
        "binance": [],
        "bybit": {"retCode": 0, "result": {"list": []}, "time": 1717228800000},
        "okx": {"code": "0", "data": []},
        "gate": [],
        "hyperliquid": [],
        "dydx": {"historicalFunding": []},
        "deribit": {"result": []},
        "bitget": {"code": "00000", "requestTime": 1717228800000, "data": []},
        "kraken_futures": {"result": "success", "rates": []},
    }

    def answer(source: str, path: str, query: dict[str, str]) -> Reply:
        body: Any = lists.get((source, path), empty.get(source))
        if source == "hyperliquid" and '"meta"' in query.get("body", ""):
            body = universe
        if source == "hyperliquid" and "metaAndAssetCtxs" in query.get("body", ""):
            body = [universe, [{"markPx": "1", "openInterest": "1", "funding": "0"} for _ in COINS]]
        if source == "deribit" and path.endswith("/ticker"):
            body = {"result": {"timestamp": 1717228800000, "mark_price": 1, "open_interest": 1, "current_funding": 0}}
        if source == "binance" and path.endswith("/openInterest"):
            body = {"symbol": query["symbol"], "openInterest": "1", "time": 1717228800000}
        return Reply(body, delay_seconds=DELAY_SECONDS)

    server.fault = answer


def test_fifty_symbols_stay_within_every_budget_and_every_round_within_its_bound(
    database_url: str, kafka_server: str, topic_prefix: str, settings: Callable[..., Settings]
) -> None:
    with venue_server() as server:
        _answers(server)
        chosen = settings(
            mode="live",
            symbols=COINS,
            venues=tuple(POLLED),
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(urls={name: server.url(name) for name in (*POLLED, "coingecko")}),
        )
        now = datetime.now(UTC)
        spent: Counter[str] = Counter()
        seconds = []
        for round_number in range(7):  # one minute, a round every ten seconds
            server.asked.clear()
            begun = time.monotonic()
            result = poll_due(database_url, kafka_server, chosen, now + timedelta(seconds=10 * round_number))
            seconds.append(time.monotonic() - begun)
            assert result.failures.keys() <= {"coingecko"}, result.failures
            spent += server.counts()
        budgets = rows(database_url, "SELECT source, budget FROM source_status")
    for row in budgets:
        for scope, budget in row["budget"].items():
            assert budget["used"] <= budget["capacity"], scope
    # One request each, whatever the number of coins, beside their coins' own endpoints.
    assert spent["hyperliquid"] < 7 * 2 + 60
    assert spent["binance"] <= 900 + 1800
    assert spent["bybit"] <= 60 / 5 * 200
    assert spent["gate"] <= 60 / 10 * 150
    assert spent["dydx"] <= 7 * 75
    assert spent["deribit"] <= 70 * 10
    # Every coin's open interest at the venue with one request per coin was read in the rounds after the first two.
    state = rows(
        database_url,
        "SELECT count(*) AS n FROM poll_state WHERE source = 'binance' AND feed = 'open_interest' AND failures = 0",
    )
    assert state == [{"n": 50}]
    # The bound is 3 s; the machine may be busy with other tests.
    assert sorted(seconds)[len(seconds) // 2] < 4.0
