"""Binance USD-M perpetuals: marks, funding, open interest, four long/short ratios, liquidation stream, 30-day history.

Belongs here: Binance's endpoints, names, units and limits. Does not: anything about other venues.

Units: open interest in coins; funding as a fraction per interval (8 h unless fundingInfo lists the symbol).
`lastFundingRate` of premiumIndex is, despite its name, the rate being accrued for nextFundingTime.
Liquidations: `S` is the ORDER's side (SELL closes a long); quantity is `z` (all fills), price `ap` (their average).
The stream shows at most one order per symbol and second, so its sums are lower bounds: is_sample.
There is no public REST list of liquidations (closed in 2021) and no free archive since 2024-03-31.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from liq_pipeline.sources.access.http import Request, SourceError, ThrottledError, UnknownSymbolError
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.live.base import (
    Feed,
    History,
    InstrumentList,
    LongShortKind,
    Reading,
    Source,
    Stream,
    of_symbol,
    one_request,
)
from liq_pipeline.sources.live.instruments import Instrument, coin_of
from liq_pipeline.sources.live.series import read_closes, read_settlements
from liq_pipeline.sources.live.values import ShapeError, milliseconds, number, time_of_ms

NAME = "binance"
# Granted per IP: 2,400 weight a minute; /futures/data 1,000 requests in 5 minutes; fundingRate with fundingInfo 500
# in 5 minutes. Ours stay below, so that a person on the same address is not throttled because of us.
WEIGHT = Limit("binance_weight", 1_800, 60)
DATA = Limit("binance_data", 900, 300)
FUNDING = Limit("binance_funding", 400, 300)

SUBSCRIPTION_ID = 1

PREMIUM_INDEX = Request("/fapi/v1/premiumIndex", costs={WEIGHT.scope: 10})


def classify(status: int, payload: Any) -> SourceError | None:
    """{"code": -1121, "msg": ...}: what the status alone does not say."""
    code = payload.get("code") if isinstance(payload, dict) else None
    if code == -1121:
        return UnknownSymbolError(NAME, "the symbol is not listed")
    if code == -1003 and status not in (418, 403):
        return ThrottledError(NAME, "too much request weight was used")
    return None


def _instruments(answers: Sequence[Any]) -> Iterable[Instrument]:
    info, adjusted = answers
    intervals = {row["symbol"]: number(row["fundingIntervalHours"]) for row in adjusted}
    for row in info["symbols"]:
        if row["contractType"] != "PERPETUAL" or row["quoteAsset"] != "USDT" or row["status"] != "TRADING":
            continue
        symbol, coins = coin_of(row["baseAsset"])
        native = row["symbol"]
        # fundingInfo lists only the symbols that differ from 8 h.
        yield Instrument(symbol, native, coins, funding_interval_hours=intervals.get(native, 8.0))


def _rows(payload: Any) -> list[Any]:
    return payload if isinstance(payload, list) else [payload]


def _marks(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["symbol"])
        if instrument is not None:
            reading.price(instrument, number(entry["markPrice"]), time_of_ms(entry["time"]))

    reading.each(_rows(payload), row)


def _funding(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["symbol"])
        if instrument is None or entry["lastFundingRate"] == "":
            return
        reading.funding(
            instrument,
            "predicted",
            number(entry["lastFundingRate"]),
            instrument.funding_interval_hours,
            time_of_ms(entry["time"]),
            next_funding_time=time_of_ms(entry["nextFundingTime"]) if entry.get("nextFundingTime") else None,
            native_mark=number(entry["markPrice"]),
        )

    reading.each(_rows(payload), row)


def _settled(payload: Any, reading: Reading) -> None:
    read_settlements(
        payload,
        reading,
        # fundingTime carries some milliseconds of jitter: the settlement is at the full second.
        moment=lambda row: time_of_ms(int(row["fundingTime"]) // 1000 * 1000),
        rate=lambda row: number(row["fundingRate"]),
        mark=lambda row: number(row["markPrice"]) if row.get("markPrice") else None,  # empty in old rows
    )


def _open_interest(payload: Any, reading: Reading) -> None:
    instrument = reading.instruments[payload["symbol"]]
    reading.open_interest(
        instrument,
        time_of_ms(payload["time"]),
        coins=number(payload["openInterest"]),
        mark_usd=reading.marks.get(instrument.symbol),
    )


def _open_interest_history(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        reading.open_interest(
            reading.asked,
            time_of_ms(entry["timestamp"]),
            coins=number(entry["sumOpenInterest"]),
            usd=number(entry["sumOpenInterestValue"]),
        )

    reading.each(payload, row)


def _long_short(kind: LongShortKind) -> Callable[[Any, Reading], None]:
    def parse(payload: Any, reading: Reading) -> None:
        def row(entry: Any) -> None:
            if kind == "taker":
                long, short = number(entry["buyVol"]), number(entry["sellVol"])
            else:
                long, short = number(entry["longAccount"]), number(entry["shortAccount"])
            reading.long_short(reading.asked, kind, long, short, time_of_ms(entry["timestamp"]))

        reading.each(payload, row)

    return parse


def _mark_klines(payload: Any, reading: Reading) -> None:
    read_closes(payload, reading)


def _liquidation(message: Any, reading: Reading) -> None:
    order = message["o"]
    instrument = reading.instruments.get(order["s"])
    if instrument is None:
        return
    if order["S"] not in ("SELL", "BUY"):
        raise ShapeError(f"{order['S']!r} is no side of an order")
    reading.liquidation(
        instrument,
        time_of_ms(order["T"]),
        event_id=f"{order['s']}-{order['T']}-{order['S']}-{order['z']}-{order['ap']}",
        side="long" if order["S"] == "SELL" else "short",
        native_price=number(order["ap"]),
        units=number(order["z"]),
        is_sample=True,
        source_topic="forceOrder",
    )


def parse_stream(message: Any, reading: Reading) -> None:
    """One websocket message, alone or as {"stream", "data"}; confirmations and other events are ignored."""
    data = message.get("data", message) if isinstance(message, dict) else message
    events = [
        event
        for event in (data if isinstance(data, list) else [data])
        if isinstance(event, dict) and event.get("e") == "forceOrder"
    ]
    reading.each(events, lambda event: _liquidation(event, reading))


def _subscribe(instruments: Sequence[Instrument]) -> list[str]:
    # One stream for all symbols: per-symbol streams would have to be added and dropped with LIQ_SYMBOLS.
    message = {"method": "SUBSCRIBE", "params": ["!forceOrder@arr"], "id": SUBSCRIPTION_ID}
    return [msgspec.json.encode(message).decode()] if instruments else []


def _confirms(message: Any) -> bool:
    return isinstance(message, dict) and message.get("id") == SUBSCRIPTION_ID and message.get("result", "") is None


def _refusal(message: Any) -> str | None:
    if isinstance(message, dict) and isinstance(message.get("error"), dict):
        return f"code {message['error'].get('code')}: {str(message['error'].get('msg', ''))[:100]}"
    return None


def _ratio_feed(name: str, path: str, kind: LongShortKind) -> Feed:
    return Feed(
        name=name,
        topics=("long_short_ratio",),
        cadence="long_short",
        request=of_symbol(
            lambda native: Request(path, {"symbol": native, "period": "5m", "limit": 3}, costs={DATA.scope: 1})
        ),
        parse=_long_short(kind),
        per_symbol=True,
    )


def _page(path: str, scope: str, cost: int = 1, **extra: str | int) -> Callable[..., Request]:
    def request(instrument: Instrument, start: datetime, end: datetime) -> Request:
        # startTime and endTime are both inclusive; a page ends just before the next one starts.
        times = {"startTime": milliseconds(start), "endTime": milliseconds(end) - 1}
        return Request(path, {"symbol": instrument.native, **times, **extra}, costs={scope: cost})

    return request


def _ratio_history(name: str, path: str, kind: LongShortKind) -> History:
    return History(
        name=name,
        topic="long_short_ratio",
        kinds=(kind,),
        request=_page(path, DATA.scope, period="5m", limit=500),
        parse=_long_short(kind),
        page=timedelta(minutes=5 * 490),
        # One hour less than the 30 days served: a startTime older than that is an error, not an empty list.
        reaches_back=timedelta(days=30) - timedelta(hours=1),
        declared_delay=timedelta(minutes=5),
        step=timedelta(minutes=5),
        is_scored=kind == "accounts",
    )


SOURCE = Source(
    name=NAME,
    rest_url="https://fapi.binance.com",
    ws_url="wss://fstream.binance.com",
    limits=(WEIGHT, DATA, FUNDING),
    offers=("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations"),
    probe=Request("/fapi/v1/premiumIndex", {"symbol": "BTCUSDT"}, costs={WEIGHT.scope: 1}),
    classify=classify,
    instruments=InstrumentList(
        requests=(
            Request("/fapi/v1/exchangeInfo", costs={WEIGHT.scope: 1}),
            Request("/fapi/v1/fundingInfo", costs={FUNDING.scope: 1}),
        ),
        parse=_instruments,
    ),
    feeds=(
        Feed("mark_price", ("prices",), "market", one_request(PREMIUM_INDEX), _marks),
        Feed("funding", ("funding_rates",), "funding", one_request(PREMIUM_INDEX), _funding),
        Feed(
            "open_interest",
            ("open_interest",),
            "market",
            of_symbol(lambda native: Request("/fapi/v1/openInterest", {"symbol": native}, costs={WEIGHT.scope: 1})),
            _open_interest,
            per_symbol=True,
        ),
        _ratio_feed("long_short_accounts", "/futures/data/globalLongShortAccountRatio", "accounts"),
        _ratio_feed("long_short_top_accounts", "/futures/data/topLongShortAccountRatio", "top_accounts"),
        _ratio_feed("long_short_top_positions", "/futures/data/topLongShortPositionRatio", "top_positions"),
        _ratio_feed("long_short_taker", "/futures/data/takerlongshortRatio", "taker"),
        Feed(
            "settled_funding",
            ("funding_rates",),
            "settled",
            of_symbol(
                lambda native: Request("/fapi/v1/fundingRate", {"symbol": native, "limit": 3}, costs={FUNDING.scope: 1})
            ),
            _settled,
            per_symbol=True,
        ),
    ),
    stream=Stream(
        path=lambda _: "/market/ws", subscribe=_subscribe, parse=parse_stream, confirms=_confirms, refusal=_refusal
    ),
    histories=(
        History(
            name="open_interest",
            topic="open_interest",
            request=_page("/futures/data/openInterestHist", DATA.scope, period="5m", limit=500),
            parse=_open_interest_history,
            page=timedelta(minutes=5 * 490),
            reaches_back=timedelta(days=30) - timedelta(hours=1),
            declared_delay=timedelta(minutes=5),
            step=timedelta(minutes=5),
        ),
        History(
            name="mark_price",
            topic="prices",
            request=_page("/fapi/v1/markPriceKlines", WEIGHT.scope, 10, interval="5m", limit=1500),
            parse=_mark_klines,
            page=timedelta(minutes=5 * 1490),
            reaches_back=timedelta(days=365),
            declared_delay=timedelta(seconds=5),
            step=timedelta(minutes=5),
        ),
        History(
            name="settled_funding",
            topic="funding_rates",
            kinds=("settled",),
            request=_page("/fapi/v1/fundingRate", FUNDING.scope, limit=1000),
            parse=_settled,
            page=timedelta(days=40),
            reaches_back=timedelta(days=365),
            declared_delay=timedelta(minutes=1),
            step=timedelta(hours=8),
        ),
        _ratio_history("long_short_accounts", "/futures/data/globalLongShortAccountRatio", "accounts"),
        _ratio_history("long_short_top_accounts", "/futures/data/topLongShortAccountRatio", "top_accounts"),
        _ratio_history("long_short_top_positions", "/futures/data/topLongShortPositionRatio", "top_positions"),
        _ratio_history("long_short_taker", "/futures/data/takerlongshortRatio", "taker"),
    ),
)
