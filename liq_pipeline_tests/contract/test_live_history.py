"""Every series that a venue serves by REST for the past: a frame over a socket, through Kafka and landing, by value.

Archive rows are known when a live collector would have had them: at their time plus the declared delay.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from liq_pipeline.pipeline.backfill import backfill
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.archives.catalogue import open_source
from liq_pipeline.sources.history.catchup import catch_up
from liq_pipeline.sources.history.pages import HistoryReader, floor_to_step
from liq_pipeline.sources.live.values import milliseconds
from liq_pipeline.sources.registry import SOURCES
from liq_pipeline_tests.live_support import land_everything, rows, venue_server

EIGHT = datetime(2024, 6, 1, 8, tzinfo=UTC)
# Late enough that settlements every 8 h are history and not the live poll's.
NOW = EIGHT + timedelta(hours=22)
S = 1_717_228_800
MS = S * 1000
BAR_MS = MS - 300_000
"""A bar that starts five minutes before eight is true at eight."""

ROUTES: dict[str, dict[str, Any]] = {
    "binance": {
        "/futures/data/openInterestHist": [
            {"symbol": "BTCUSDT", "sumOpenInterest": "79000", "sumOpenInterestValue": "5372000000", "timestamp": MS}
        ],
        "/fapi/v1/markPriceKlines": [[BAR_MS, "1", "1", "1", "68000.5", "0", MS - 1, "0", 300, "0", "0", "0"]],
        "/fapi/v1/fundingRate": [{"fundingRate": "0.0001", "fundingTime": MS + 3, "markPrice": "68000"}],
        "/futures/data/globalLongShortAccountRatio": [{"longAccount": "0.6", "shortAccount": "0.4", "timestamp": MS}],
        "/futures/data/topLongShortAccountRatio": [{"longAccount": "0.5", "shortAccount": "0.5", "timestamp": MS}],
        "/futures/data/topLongShortPositionRatio": [{"longAccount": "0.75", "shortAccount": "0.25", "timestamp": MS}],
        "/futures/data/takerlongshortRatio": [{"buyVol": "100.0", "sellVol": "300.0", "timestamp": MS}],
    },
    "bybit": {
        "/v5/market/open-interest": {
            "retCode": 0,
            "result": {"list": [{"openInterest": "49000", "timestamp": str(MS)}]},
            "time": MS,
        },
        "/v5/market/mark-price-kline": {
            "retCode": 0,
            "result": {"list": [[str(BAR_MS), "1", "1", "1", "68000.5"]]},
            "time": MS,
        },
        "/v5/market/funding/history": {
            "retCode": 0,
            "result": {"list": [{"symbol": "BTCUSDT", "fundingRate": "0.0001", "fundingRateTimestamp": str(MS)}]},
            "time": MS,
        },
        "/v5/market/account-ratio": {
            "retCode": 0,
            "result": {"list": [{"symbol": "BTCUSDT", "buyRatio": "0.6", "sellRatio": "0.4", "timestamp": str(MS)}]},
            "time": MS,
        },
    },
    "okx": {
        "/api/v5/rubik/stat/contracts/open-interest-history": {
            "code": "0",
            "data": [[str(MS), "2700000", "27000", "1836000000"]],
        },
        # The newest bar is not finished: its close is nobody's price yet.
        "/api/v5/market/history-mark-price-candles": {
            "code": "0",
            "data": [[str(MS), "1", "1", "1", "9", "0"], [str(BAR_MS), "1", "1", "1", "68000.5", "1"]],
        },
        "/api/v5/public/funding-rate-history": {
            "code": "0",
            # The gap to the row before is the interval.
            "data": [
                {"fundingRate": "0.0009", "realizedRate": "0.0001", "fundingTime": str(MS)},
                {"fundingRate": "0.0009", "realizedRate": "0.0003", "fundingTime": str(MS - 8 * 3_600_000)},
            ],
        },
        "/api/v5/rubik/stat/contracts/long-short-account-ratio-contract": {"code": "0", "data": [[str(MS), "1.5"]]},
        "/api/v5/rubik/stat/contracts/long-short-account-ratio-contract-top-trader": {
            "code": "0",
            "data": [[str(MS), "1.0"]],
        },
        "/api/v5/rubik/stat/contracts/long-short-position-ratio-contract-top-trader": {
            "code": "0",
            "data": [[str(MS), "3.0"]],
        },
    },
    "gate": {
        # The newest row is of the five minutes under way.
        "/api/v4/futures/usdt/contract_stats": [
            {
                "time": S,
                "lsr_taker": 0.5,
                "lsr_account": 1.5,
                "top_lsr_account": 1.0,
                "top_lsr_size": "3.0",
                "open_interest": 69_000_000,
                "open_interest_usd": 469_200_000,
                "mark_price": 68_000.5,
            },
            {
                "time": S + 300,
                "lsr_taker": 9,
                "lsr_account": 9,
                "top_lsr_account": 9,
                "top_lsr_size": 9,
                "open_interest": 1,
                "open_interest_usd": 6.8,
                "mark_price": 9,
            },
        ],
        "/api/v4/futures/usdt/funding_rate": [{"t": S, "r": "0.0001"}],
    },
    "hyperliquid": {
        "/info fundingHistory": [{"coin": "BTC", "fundingRate": "0.0000125", "premium": "0.0003", "time": MS}],
        "/info candleSnapshot": [
            {"t": BAR_MS, "T": MS - 1, "s": "BTC", "i": "5m", "o": "1", "c": "68000.5", "h": "1", "l": "1", "v": "1"}
        ],
    },
    "dydx": {
        "/v4/historicalFunding/BTC-USD": {
            "historicalFunding": [
                {"ticker": "BTC-USD", "rate": "0.0000125", "price": "68000", "effectiveAt": "2024-06-01T08:00:00.000Z"}
            ]
        },
    },
    "coingecko": {
        "/coins/bitcoin/market_chart/range": {
            "prices": [[MS, 68_000.5]],
            "market_caps": [[MS, 1.34e12]],
            "total_volumes": [[MS, 3.1e10]],
        }
    },
    "deribit": {
        "/api/v2/public/get_funding_rate_history": {
            "result": [{"timestamp": MS, "index_price": 68_000.0, "interest_8h": 0.00009, "interest_1h": 0.0000125}]
        },
    },
    "bitget": {
        "/api/v2/mix/market/history-mark-candles": {
            "code": "00000",
            "data": [[str(BAR_MS), "1", "1", "1", "68000.5", "0", "0"]],
        },
        "/api/v2/mix/market/history-fund-rate": {
            "code": "00000",
            "data": [{"symbol": "BTCUSDT", "fundingRate": "0.0001", "fundingTime": str(MS)}],
        },
        # The ratio as sent contradicts the shares beside it.
        "/api/v2/mix/market/account-long-short": {
            "code": "00000",
            "data": [
                {
                    "longAccountRatio": "0.6",
                    "shortAccountRatio": "0.4",
                    "longShortAccountRatio": "0.0138",
                    "ts": str(MS),
                }
            ],
        },
    },
    "kraken_futures": {
        "/api/charts/v1/mark/PF_XBTUSD/5m": {
            "candles": [
                {"time": BAR_MS, "open": "1", "high": "1", "low": "1", "close": "68000.5", "volume": 0},
            ],
            "more_candles": False,
        },
        "/derivatives/api/v4/historicalfundingrates": {
            "result": "success",
            "rates": [
                {"timestamp": "2024-06-01T08:00:00Z", "fundingRate": 0.85, "relativeFundingRate": 0.0000125},
            ],
        },
    },
}

# {history: (table, columns, rows)}: all of BTC at eight o'clock
EIGHT_HOURLY = ("funding_rates", "kind, rate, interval_hours", [("settled", 0.0001, 8)])
HOURLY = ("funding_rates", "kind, rate, interval_hours", [("settled", 0.0000125, 1)])
PRICE = ("prices", "price_usd", [(68_000.5,)])
ACCOUNTS = ("long_short_ratio", "kind, long_share", [("accounts", 0.6)])
BINANCE_RATIOS = (
    "long_short_ratio",
    "kind, long_share",
    [("accounts", 0.6), ("taker", 0.25), ("top_accounts", 0.5), ("top_positions", 0.75)],
)
OKX_RATIOS = (
    "long_short_ratio",
    "kind, long_share",
    [("accounts", 0.6), ("top_accounts", 0.5), ("top_positions", 0.75)],
)
EXPECTED: dict[str, dict[str, tuple[str, str, list[tuple[Any, ...]]]]] = {
    "binance": {
        "open_interest": ("open_interest", "open_interest_base, open_interest_usd", [(79_000, 5.372e9)]),
        "mark_price": PRICE,
        "settled_funding": EIGHT_HOURLY,
        "long_short_accounts": BINANCE_RATIOS,
        "long_short_top_accounts": BINANCE_RATIOS,
        "long_short_top_positions": BINANCE_RATIOS,
        "long_short_taker": BINANCE_RATIOS,
    },
    "bybit": {
        # coins alone; what they were worth then is not said
        "open_interest": ("open_interest", "open_interest_base, open_interest_usd", [(49_000, None)]),
        "mark_price": PRICE,
        "settled_funding": EIGHT_HOURLY,
        "long_short_accounts": ACCOUNTS,
    },
    "okx": {
        "open_interest": ("open_interest", "open_interest_base, open_interest_usd", [(27_000, 1.836e9)]),
        "mark_price": PRICE,
        "settled_funding": EIGHT_HOURLY,
        "long_short_accounts": OKX_RATIOS,
        "long_short_top_accounts": OKX_RATIOS,
        "long_short_top_positions": OKX_RATIOS,
    },
    "gate": {
        "open_interest": ("open_interest", "open_interest_base, open_interest_usd", [(6_900, 4.692e8)]),
        "mark_price": PRICE,
        "long_short": (
            "long_short_ratio", "kind, long_share",
            [("accounts", 0.6), ("taker", 1 / 3), ("top_accounts", 0.5), ("top_positions", 0.75)],
        ),
        "settled_funding": EIGHT_HOURLY,
    },
    "hyperliquid": {"settled_funding": HOURLY, "mark_price": PRICE},
    "dydx": {"settled_funding": HOURLY},
    "deribit": {"settled_funding": HOURLY},
    "bitget": {"mark_price": PRICE, "settled_funding": EIGHT_HOURLY, "long_short_accounts": ACCOUNTS},
    "kraken_futures": {"mark_price": PRICE, "settled_funding": HOURLY},
    "coingecko": {
        "market_chart": ("prices", "price_usd, volume_24h_usd, market_cap_usd", [(68_000.5, 3.1e10, 1.34e12)]),
    },
}  # fmt: skip


@pytest.mark.parametrize("source", sorted(EXPECTED))
def test_history_becomes_archive_rows(
    source: str, database_url: str, kafka_server: str, topic_prefix: str, settings: Callable[..., Settings]
) -> None:
    with venue_server(source) as server:
        server.routes[source] |= ROUTES[source]
        chosen = settings(
            mode="live",
            symbols=("BTC",),
            venues=(source,) if SOURCES[source].offers else ("dydx",),
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(urls={"coingecko": server.url("nobody")} | server.urls()),
        )
        if SOURCES[source].offers:
            result = catch_up(chosen, database_url, kafka_server, NOW, look_back=timedelta(hours=32))
            assert result.failures == {}
        else:  # no venue: read by `liq backfill` alone
            with open_source(source, chosen, database_url) as history_source:
                backfill(database_url, kafka_server, chosen, history_source, ("BTC",), EIGHT, NOW, wall_now=lambda: NOW)
    land_everything(database_url, kafka_server, topic_prefix)
    for history in SOURCES[source].histories:
        table, columns, expected = EXPECTED[source][history.name]
        found = rows(
            database_url,
            f"SELECT {columns}, event_time, known_at, origin, venue FROM {table}"  # noqa: S608 - own constants
            " WHERE symbol = 'BTC' AND event_time >= %s ORDER BY 1",
            EIGHT,
        )
        assert [tuple(row.values())[:-4] for row in found] == [pytest.approx(row, rel=1e-12) for row in expected]
        for row in found:
            assert (row["event_time"], row["origin"], row["venue"]) == (EIGHT, "archive", source)
            assert row["known_at"] == EIGHT + history.declared_delay
    assert rows(database_url, "SELECT reason FROM dead_letters") == []


def test_the_bar_under_way_is_nobodys_price_yet(database_url: str, settings: Callable[..., Settings]) -> None:
    """A page up to now ends with it; its close so far would stand under the time of its end, which is to come."""
    step = timedelta(minutes=5)
    last_start = floor_to_step(datetime.now(UTC), step)
    starts = [milliseconds(last_start - step), milliseconds(last_start)]
    routes: dict[str, dict[str, Any]] = {
        "binance": {"/fapi/v1/markPriceKlines": [[start, "1", "1", "1", "68000.5"] for start in starts]},
        "bybit": {
            "/v5/market/mark-price-kline": {
                "retCode": 0,
                "result": {"list": [[str(start), "1", "1", "1", "68000.5"] for start in reversed(starts)]},
            }
        },
        "hyperliquid": {"/info candleSnapshot": [{"t": start, "c": "68000.5"} for start in starts]},
    }
    with venue_server(*routes) as server:
        chosen = settings(mode="live", symbols=("BTC",), sources=SourceSettings(urls=server.urls()))
        for source, answers in routes.items():
            server.routes[source] |= answers
            reader = HistoryReader(SOURCES[source], chosen, database_url)
            try:
                (instrument,) = reader.instruments()
                history = next(one for one in SOURCES[source].histories if one.topic == "prices")
                found = reader.page(history, instrument, last_start - step, datetime.now(UTC))
            finally:
                reader.close()
            times = [record.event_time for record in found]
            assert last_start in times, source
            assert max(times) <= datetime.now(UTC), source
