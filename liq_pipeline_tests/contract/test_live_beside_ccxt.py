"""What ccxt makes of the same answers: why these venues are read directly.

Each test feeds one frame to ccxt's own parser and to ours, and names what would be lost or mixed. The numbers of the
tests are those of the ten traps that are known of it. When a newer ccxt answers better, a test here fails: then the
reason to go past it has gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.live import binance, bitget, bybit, deribit, gate, htx, hyperliquid, okx
from liq_pipeline.sources.live.base import Reading, Source
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.sources.polling.round import poll_due
from liq_pipeline.sources.registry import SOURCES
from liq_pipeline_tests.live_support import Reply, frames_of, venue_server

ccxt = pytest.importorskip("ccxt")
pro = pytest.importorskip("ccxt.pro")

BTC = {
    "binance": Instrument("BTC", "BTCUSDT"),
    "bybit": Instrument("BTC", "BTCUSDT"),
    "okx": Instrument("BTC", "BTC-USDT-SWAP", 1, 0.01),
    "gate": Instrument("BTC", "BTC_USDT", 1, 0.0001),
    "htx": Instrument("BTC", "BTC-USDT", 1, 0.001),
    "hyperliquid": Instrument("BTC", "BTC"),
    "deribit": Instrument("BTC", "BTC-PERPETUAL"),
    "bitget": Instrument("BTC", "BTCUSDT"),
}


def route(source: str, path: str) -> Any:
    return frames_of(source)["routes"][path]


def market(source: str) -> dict[str, Any]:
    """The part of a ccxt market that its parsers look at."""
    instrument = BTC[source]
    return {
        "id": instrument.native,
        "symbol": "BTC/USDT:USDT",
        "type": "swap",
        "swap": True,
        "contract": True,
        "linear": True,
        "inverse": False,
        "contractSize": instrument.units_per_contract,
    }


def reading(source: str) -> Reading:
    now, instrument = datetime.now(UTC), BTC[source]
    marks = {"BTC": 68_000.0}
    return Reading(source, now, now, {instrument.native: instrument}, instrument, marks=marks)


def ours(source: Source, feed: str, payload: Any) -> list[Any]:
    """The records of one feed."""
    return parsed(source, next(known.parse for known in source.feeds if known.name == feed), payload)


def listed(source: Source, payload: Any) -> list[Any]:
    """The records of its list of liquidations."""
    return parsed(source, source.event_feeds[0].parse, payload)


def parsed(source: Source, parse: Any, payload: Any) -> list[Any]:
    found = reading(source.name)
    parse(payload, found)
    assert found.problems == []
    return found.records


def streamed(module: Any, message: Any) -> list[Any]:
    found = reading(module.NAME)
    module.parse_stream(message, found)
    assert found.problems == []
    return found.records


def test_1_open_interest_is_coins_at_one_venue_and_contracts_at_the_next() -> None:
    rows = {
        "binance": (ccxt.binanceusdm(), route("binance", "/fapi/v1/openInterest?symbol=BTCUSDT")),
        "bybit": (ccxt.bybit(), route("bybit", "/v5/market/tickers")["result"]["list"][0]),
        "okx": (ccxt.okx(), route("okx", "/api/v5/public/open-interest")["data"][0]),
        "gate": (ccxt.gate(), route("gate", "/api/v4/futures/usdt/contract_stats")[0]),
        "hyperliquid": (ccxt.hyperliquid(), {"info": route("hyperliquid", "/info metaAndAssetCtxs")[1][0]}),
    }
    theirs = {name: exchange.parse_open_interest(row, market(name)) for name, (exchange, row) in rows.items()}
    assert {name: found["openInterestAmount"] for name, found in theirs.items()} == {
        "binance": 80_000.0,  # coins
        "bybit": 50_000.0,  # coins
        "okx": 2_800_000.0,  # contracts of 0.01
        "gate": 69_000_000.0,  # contracts of 0.0001
        "hyperliquid": 30_000.0,  # coins
    }
    assert [name for name, found in theirs.items() if found["openInterestValue"] is None] == [
        "binance", "bybit", "hyperliquid",
    ]  # fmt: skip
    assert theirs["hyperliquid"]["timestamp"] is None
    found = {
        "binance": ours(binance.SOURCE, "open_interest", rows["binance"][1]),
        "bybit": ours(bybit.SOURCE, "open_interest", route("bybit", "/v5/market/tickers")),
        "okx": ours(okx.SOURCE, "open_interest", route("okx", "/api/v5/public/open-interest")),
        "gate": ours(gate.SOURCE, "open_interest", route("gate", "/api/v4/futures/usdt/tickers")),
        "hyperliquid": ours(hyperliquid.SOURCE, "open_interest", route("hyperliquid", "/info metaAndAssetCtxs")),
    }
    assert {name: record.open_interest_base for name, (record,) in found.items()} == pytest.approx(
        {"binance": 80_000, "bybit": 50_000, "okx": 28_000, "gate": 7_000, "hyperliquid": 30_000}
    )
    for (record,) in found.values():
        assert record.open_interest_usd == pytest.approx(record.open_interest_base * 68_000)


def test_2_okx_messages_keep_all_their_details() -> None:
    message = frames_of("okx")["stream"][2]
    theirs = pro.okx().parse_ws_liquidation(message["data"][0], market("okx"))
    assert theirs["contracts"] == 412  # one of two details
    assert [record.quantity_base for record in streamed(okx, message)] == [4.12, 1.0]


def test_3_streamed_liquidations_have_a_value_in_dollars() -> None:
    rows = {
        "binance": (pro.binanceusdm(), frames_of("binance")["stream"][1]["o"]),
        "bybit": (pro.bybit(), frames_of("bybit")["stream"][1]["data"][0]),
        "okx": (pro.okx(), frames_of("okx")["stream"][2]["data"][0]),
    }
    for name, (exchange, row) in rows.items():
        theirs = exchange.parse_ws_liquidation(row, market(name))
        assert (theirs["quoteValue"], theirs["baseValue"], theirs["contractSize"]) == (None, None, None), name
    assert streamed(binance, frames_of("binance")["stream"][1])[0].notional_usd == pytest.approx(2 * 67_600)
    assert streamed(bybit, frames_of("bybit")["stream"][1])[0].notional_usd == pytest.approx(0.25 * 67_000)
    assert streamed(okx, frames_of("okx")["stream"][2])[0].notional_usd == pytest.approx(4.12 * 67_310.1)


def test_4_binance_orders_count_all_their_fills() -> None:
    message = frames_of("binance")["stream"][1]
    theirs = pro.binanceusdm().parse_ws_liquidation(message["o"], market("binance"))
    assert (theirs["contracts"], theirs["price"]) == (1.0, 67_600.0)  # the last fill only
    assert [record.quantity_base for record in streamed(binance, message)] == [2.0]


def test_5_sides_are_the_positions_whatever_the_venue_names() -> None:
    """All five are liquidated longs but HTX's, a short; ccxt passes the venue's word on, in both of its meanings."""
    theirs = {
        "binance": pro.binanceusdm().parse_ws_liquidation(frames_of("binance")["stream"][1]["o"], market("binance")),
        "bybit": pro.bybit().parse_ws_liquidation(frames_of("bybit")["stream"][1]["data"][0], market("bybit")),
        "okx": pro.okx().parse_ws_liquidation(frames_of("okx")["stream"][2]["data"][0], market("okx")),
        "gate": ccxt.gate().parse_liquidation(route("gate", "/api/v4/futures/usdt/liq_orders")[0], market("gate")),
        "htx": ccxt.htx().parse_liquidation(
            route("htx", "/v5/market/liquidation_orders")["data"][0], market("htx")
        ),
    }  # fmt: skip
    assert {name: found["side"] for name, found in theirs.items()} == {
        "binance": "sell", "bybit": "buy", "okx": "sell", "gate": "buy", "htx": "buy",
    }  # fmt: skip
    assert theirs["gate"]["contracts"] == 1_000  # the position; 600 of it were closed
    assert theirs["htx"]["baseValue"] == 2.0  # contracts, where coins belong
    found = {
        "binance": streamed(binance, frames_of("binance")["stream"][1])[0],
        "bybit": streamed(bybit, frames_of("bybit")["stream"][1])[0],
        "okx": streamed(okx, frames_of("okx")["stream"][2])[0],
        "gate": listed(gate.SOURCE, route("gate", "/api/v4/futures/usdt/liq_orders"))[0],
        "htx": listed(htx.SOURCE, route("htx", "/v5/market/liquidation_orders"))[0],
    }
    assert {name: record.liquidated_side for name, record in found.items()} == {
        "binance": "long", "bybit": "long", "okx": "long", "gate": "long", "htx": "short",
    }  # fmt: skip
    assert (found["gate"].quantity_base, found["htx"].quantity_base) == pytest.approx((0.06, 0.002))


def test_6_deribit_liquidations_are_flagged_trades_not_bankruptcies() -> None:
    bankruptcy = {"type": "bankruptcy", "timestamp": 1696579200041, "funded": 1, "session_bankrupcy": 0.001}
    theirs = ccxt.deribit().parse_liquidation(bankruptcy, market("deribit"))
    assert (theirs["price"], theirs["contracts"], theirs["quoteValue"]) == (None, None, None)
    assert "side" not in theirs
    trades = streamed(deribit, frames_of("deribit")["stream"][2])
    found = [(trade.liquidated_side, round(trade.notional_usd)) for trade in trades]
    assert sorted(found) == [("long", 6_800), ("long", 34_000), ("short", 6_800)]


def test_7_bitget_ratios_come_from_the_shares() -> None:
    payload = route("bitget", "/api/v2/mix/market/account-long-short")
    theirs = ccxt.bitget().parse_long_short_ratio(payload["data"][0], market("bitget"))
    assert theirs["longShortRatio"] == 0.0138  # with shares of 0.6 and 0.4
    (record,) = ours(bitget.SOURCE, "long_short_accounts", payload)
    assert record.ratio == pytest.approx(1.5)


def test_8_deribit_funding_is_the_rate_now_not_the_sum_of_eight_hours() -> None:
    theirs = ccxt.deribit().parse_funding_rate({"result": 0.00009, "usIn": 1}, market("deribit"))
    assert (theirs["fundingRate"], theirs["interval"], theirs["timestamp"]) == (0.00009, "8h", None)
    (record,) = ours(deribit.SOURCE, "funding", route("deribit", "/api/v2/public/ticker?instrument_name=BTC-PERPETUAL"))
    assert (record.rate, record.rate_per_8h) == (0.0001, 0.0001)
    settled = ours(deribit.SOURCE, "settled_funding", route("deribit", "/api/v2/public/get_funding_rate_history"))
    assert [(row.rate, row.interval_hours) for row in settled] == [(0.0000125, 1)]


@pytest.mark.parametrize(("module", "exchange", "rows"), [(okx, ccxt.okx(), 100), (binance, ccxt.binanceusdm(), 1000)])
def test_9_pages_of_settled_funding_hold_every_row_even_at_one_hour(module: Any, exchange: Any, rows: int) -> None:
    """ccxt steps as if a settlement came every 8 h: of hourly ones, seven in eight fall between two pages."""
    calls: list[tuple[Any, ...]] = []
    known = market(module.NAME)
    exchange.markets, exchange.markets_by_id = {known["symbol"]: known}, {known["id"]: [known]}
    exchange.safe_deterministic_call = lambda *call: calls.append(call) or []
    days = 60
    exchange.fetch_funding_rate_history(
        known["symbol"], since=exchange.milliseconds() - days * 86_400_000, params={"paginate": True}
    )
    assert len(calls) * rows < days * 24  # too few rows for an hourly settlement
    (history,) = [history for history in module.SOURCE.histories if history.name == "settled_funding"]
    assert history.page <= timedelta(hours=rows)


def test_10_a_list_of_instruments_that_fails_takes_nothing_else_with_it(
    database_url: str, kafka_server: str, topic_prefix: str, settings: Callable[..., Settings]
) -> None:
    """ccxt loads all markets before its first answer; ours goes on with the list it read before."""
    with venue_server("binance") as server:
        chosen = settings(
            mode="live",
            symbols=("BTC",),
            venues=("binance",),
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(urls={"coingecko": server.url("nobody")} | server.urls()),
        )
        now = datetime.now(UTC)
        poll_due(database_url, kafka_server, chosen, now)
        server.routes["binance"]["/fapi/v1/exchangeInfo"] = Reply({"code": 0, "msg": "down"}, status=503)
        exchange = ccxt.binanceusdm({"options": {"fetchCurrencies": False}, "timeout": 2000})
        exchange.urls["api"] = dict.fromkeys(exchange.urls["api"], f"{server.url('binance')}/fapi/v1")
        server.asked.clear()
        with pytest.raises(ccxt.BaseError):
            exchange.fetch_open_interest("BTC/USDT:USDT")
        assert {request.path for request in server.asked} == {"/fapi/v1/exchangeInfo"}
        later = poll_due(database_url, kafka_server, chosen, now + timedelta(hours=2))
    assert "HTTP 503" in later.failures["binance"]
    assert later.records.keys() >= {"prices", "open_interest", "funding_rates", "long_short_ratio"}


NAMES = {"binance": "binanceusdm", "kraken_futures": "krakenfutures"}
NOT_IN_CCXT = {"okx": {"/api/v5/public/liquidation-orders"}}
"""Endpoints that other current clients use and ccxt does not."""
# Gate's paths carry the settlement currency in the middle, Kraken's candles the kind of price and the bar's length:
# {settle}/contract_stats, {price_type}/{symbol}/{interval}.
FILLED_IN = {
    "gate": ("/usdt/", "/NATIVE/"),
    "kraken_futures": ("/charts/v1/mark/NATIVE/5m", "/charts/v1/NATIVE/NATIVE/NATIVE"),
}


def endpoints(node: Any) -> Iterator[str]:
    """The endpoints in ccxt's description of an interface, written in either of its two ways."""
    if isinstance(node, str):
        yield re.sub(r"\{\w+\}", "NATIVE", node).strip("/")
    elif isinstance(node, dict):
        for name, inner in node.items():
            yield from endpoints(name)
            yield from endpoints(inner)
    elif isinstance(node, (list, tuple)):
        for inner in node:
            yield from endpoints(inner)


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"coingecko"}))
def test_every_endpoint_is_one_that_a_current_client_uses(name: str) -> None:
    """A path that a venue has renamed answers 404 for ever, and no frame of our own would tell."""
    source = SOURCES[name]
    known = set(endpoints(getattr(ccxt, NAMES.get(name, name))().describe()["api"]))
    now, instrument = datetime.now(UTC), Instrument("BTC", "NATIVE")
    requests = list(source.instruments.requests) if source.instruments is not None else []
    requests += [feed.request((instrument,), now) for feed in (*source.feeds, *source.event_feeds)]
    requests += [history.request(instrument, now - timedelta(days=1), now) for history in source.histories]
    paths = {request.path.replace(*FILLED_IN.get(name, ("", ""))) for request in requests}
    unknown = {path for path in paths if not any(part and path.endswith(f"/{part}") for part in known)}
    assert unknown == NOT_IN_CCXT.get(name, set())
