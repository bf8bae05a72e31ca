"""Bybit linear perpetuals: one call brings marks, funding and open interest; long/short accounts; all liquidations.

Belongs here: Bybit's endpoints, names, units and limits. Does not: anything about other venues.

Units: open interest in coins beside its value in USD; funding as a fraction per fundingIntervalHour (in
instruments-info: fundingInterval, in MINUTES). Long/short are shares of accounts.
Liquidations: `S` is the side of the POSITION (Buy = a long was liquidated), unlike most venues; `v` in coins, `p` the
bankruptcy price. allLiquidation carries every event, pushed every 500 ms; there is no REST list of them.
Errors come as HTTP 200 with retCode; a 403 "access too frequent" is a ban of ten minutes, an HTML 403 a blocked place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from liq_pipeline.sources.access.http import (
    RejectedError,
    Request,
    SourceError,
    ThrottledError,
    TransientError,
    UnknownSymbolError,
)
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.live.base import (
    Feed,
    History,
    InstrumentList,
    Reading,
    Source,
    Stream,
    of_symbol,
    one_request,
)
from liq_pipeline.sources.live.instruments import Instrument, coin_of
from liq_pipeline.sources.live.series import read_account_shares, read_closes, read_settlements
from liq_pipeline.sources.live.values import ShapeError, milliseconds, number, time_of_ms

NAME = "bybit"
# Granted: 600 requests in 5 s per IP, shared with whoever else uses the address.
REQUESTS = Limit("bybit", 200, 5)
COST = {REQUESTS.scope: 1}
BAN_SECONDS = 600.0

TICKERS = Request("/v5/market/tickers", {"category": "linear"}, costs=COST)
INSTRUMENTS = Request("/v5/market/instruments-info", {"category": "linear", "limit": 1000}, costs=COST)


def classify(status: int, payload: Any) -> SourceError | None:
    """retCode of the envelope, and the 403 that means "too fast" rather than "not from here"."""
    if status == 403 and "too frequent" in str(payload):
        return ThrottledError(NAME, "HTTP 403: access too frequent", retry_after_seconds=BAN_SECONDS)
    code = payload.get("retCode") if isinstance(payload, dict) else None
    if status != 200 or code in (None, 0):
        return None
    text = str(payload.get("retMsg", ""))[:100]
    if code == 10001 and "symbol" in text.lower():
        return UnknownSymbolError(NAME, "the symbol is not listed")
    if code in (10006, 10018):
        return ThrottledError(NAME, f"retCode {code}: asked too often")
    if code == 10016:
        return TransientError(NAME, "retCode 10016: server error")
    return RejectedError(NAME, f"retCode {code}: {text}")


def _instruments(answers: Sequence[Any]) -> Iterable[Instrument]:
    for answer in answers:
        for row in answer["result"]["list"]:
            if row["contractType"] != "LinearPerpetual" or row["quoteCoin"] != "USDT" or row["status"] != "Trading":
                continue
            symbol, coins = coin_of(row["baseCoin"])
            minutes = number(row["fundingInterval"])
            # Anything but whole hours is not an interval in minutes: unknown is better than 60 times too much.
            hours = minutes / 60 if minutes and minutes % 60 == 0 else None
            yield Instrument(symbol, row["symbol"], coins, funding_interval_hours=hours)


def _next_page(request: Request, answer: Any) -> Request | None:
    cursor = answer["result"].get("nextPageCursor")
    return replace(request, params={**request.params, "cursor": cursor}) if cursor else None


def _marks(payload: Any, reading: Reading) -> None:
    moment = time_of_ms(payload["time"])

    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["symbol"])
        if instrument is not None:
            reading.price(instrument, number(entry["markPrice"]), moment)

    reading.each(payload["result"]["list"], row)


def _open_interest(payload: Any, reading: Reading) -> None:
    moment = time_of_ms(payload["time"])

    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["symbol"])
        if instrument is not None:
            reading.open_interest(
                instrument,
                moment,
                coins=number(entry["openInterest"]),
                usd=number(entry["openInterestValue"]),
                mark_usd=number(entry["markPrice"]) / instrument.coins_per_unit,
            )

    reading.each(payload["result"]["list"], row)


def _funding(payload: Any, reading: Reading) -> None:
    moment = time_of_ms(payload["time"])

    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["symbol"])
        if instrument is None or entry["fundingRate"] == "":
            return
        hours = entry.get("fundingIntervalHour")
        reading.funding(
            instrument,
            "predicted",
            number(entry["fundingRate"]),
            number(hours) if hours else instrument.funding_interval_hours,
            moment,
            next_funding_time=time_of_ms(entry["nextFundingTime"]) if number(entry["nextFundingTime"]) else None,
            native_mark=number(entry["markPrice"]),
        )

    reading.each(payload["result"]["list"], row)


def _settled(payload: Any, reading: Reading) -> None:
    read_settlements(
        payload["result"]["list"],
        reading,
        moment=lambda row: time_of_ms(row["fundingRateTimestamp"]),
        rate=lambda row: number(row["fundingRate"]),
    )


def _long_short(payload: Any, reading: Reading) -> None:
    read_account_shares(payload["result"]["list"], reading, long="buyRatio", short="sellRatio", stamp="timestamp")


def _open_interest_history(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        reading.open_interest(reading.asked, time_of_ms(entry["timestamp"]), coins=number(entry["openInterest"]))

    reading.each(payload["result"]["list"], row)


def _mark_klines(payload: Any, reading: Reading) -> None:
    read_closes(payload["result"]["list"], reading)


def parse_stream(message: Any, reading: Reading) -> None:
    """One websocket message; confirmations and pongs are ignored."""
    if not isinstance(message, dict) or not str(message.get("topic", "")).startswith("allLiquidation."):
        return
    seen: Counter[str] = Counter()

    def row(event: Any) -> None:
        if event["S"] not in ("Buy", "Sell"):
            raise ShapeError(f"{event['S']!r} is no side of a position")
        # Two equal liquidations in one push are two events: a running number tells them apart.
        content = f"{event['s']}-{event['T']}-{event['S']}-{event['v']}-{event['p']}"
        seen[content] += 1
        instrument = reading.instruments.get(event["s"])
        if instrument is None:
            return
        reading.liquidation(
            instrument,
            time_of_ms(event["T"]),
            event_id=f"{content}-{seen[content]}",
            side="long" if event["S"] == "Buy" else "short",
            native_price=number(event["p"]),
            units=number(event["v"]),
            is_sample=False,
            source_topic="allLiquidation",
        )

    reading.each(message["data"], row)


def _subscribe(instruments: Sequence[Instrument]) -> list[str]:
    # Per symbol only, there is no wildcard; short messages, since the length of `args` is limited.
    topics = [f"allLiquidation.{instrument.native}" for instrument in instruments]
    return [
        msgspec.json.encode({"op": "subscribe", "args": topics[start : start + 50]}).decode()
        for start in range(0, len(topics), 50)
    ]


def _confirms(message: Any) -> bool:
    return isinstance(message, dict) and message.get("op") == "subscribe" and message.get("success") is True


def _refusal(message: Any) -> str | None:
    if isinstance(message, dict) and message.get("op") == "subscribe" and message.get("success") is False:
        return str(message.get("ret_msg", ""))[:100]
    return None


def _page(path: str, start_name: str, end_name: str, **extra: str | int) -> Callable[..., Request]:
    def request(instrument: Instrument, start: datetime, end: datetime) -> Request:
        times = {start_name: milliseconds(start), end_name: milliseconds(end) - 1}
        return Request(path, {"category": "linear", "symbol": instrument.native, **times, **extra}, costs=COST)

    return request


_FIVE_MINUTES = timedelta(minutes=5)

SOURCE = Source(
    name=NAME,
    rest_url="https://api.bybit.com",
    ws_url="wss://stream.bybit.com",
    limits=(REQUESTS,),
    offers=("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations"),
    probe=Request("/v5/market/tickers", {"category": "linear", "symbol": "BTCUSDT"}, costs=COST),
    classify=classify,
    instruments=InstrumentList((INSTRUMENTS,), _instruments, _next_page),
    feeds=(
        Feed("mark_price", ("prices",), "market", one_request(TICKERS), _marks),
        Feed("open_interest", ("open_interest",), "market", one_request(TICKERS), _open_interest),
        Feed("funding", ("funding_rates",), "funding", one_request(TICKERS), _funding),
        Feed(
            "long_short_accounts",
            ("long_short_ratio",),
            "long_short",
            of_symbol(
                lambda native: Request(
                    "/v5/market/account-ratio",
                    {"category": "linear", "symbol": native, "period": "5min", "limit": 3},
                    costs=COST,
                )
            ),
            _long_short,
            per_symbol=True,
        ),
        Feed(
            "settled_funding",
            ("funding_rates",),
            "settled",
            of_symbol(
                lambda native: Request(
                    "/v5/market/funding/history",
                    {"category": "linear", "symbol": native, "limit": 3},
                    costs=COST,
                )
            ),
            _settled,
            per_symbol=True,
        ),
    ),
    stream=Stream(
        path=lambda _: "/v5/public/linear",
        subscribe=_subscribe,
        parse=parse_stream,
        confirms=_confirms,
        refusal=_refusal,
        ping='{"op":"ping"}',
    ),
    histories=(
        History(
            name="open_interest",
            topic="open_interest",
            request=_page("/v5/market/open-interest", "startTime", "endTime", intervalTime="5min", limit=200),
            parse=_open_interest_history,
            page=_FIVE_MINUTES * 190,
            reaches_back=timedelta(days=365),
            declared_delay=_FIVE_MINUTES,
            step=_FIVE_MINUTES,
        ),
        History(
            name="mark_price",
            topic="prices",
            request=_page("/v5/market/mark-price-kline", "start", "end", interval="5", limit=1000),
            parse=_mark_klines,
            page=_FIVE_MINUTES * 990,
            reaches_back=timedelta(days=365),
            declared_delay=timedelta(seconds=5),
            step=_FIVE_MINUTES,
        ),
        History(
            name="settled_funding",
            topic="funding_rates",
            kinds=("settled",),
            request=_page("/v5/market/funding/history", "startTime", "endTime", limit=200),
            parse=_settled,
            page=timedelta(days=8),
            reaches_back=timedelta(days=365),
            declared_delay=timedelta(minutes=1),
            step=timedelta(hours=8),
        ),
        History(
            name="long_short_accounts",
            topic="long_short_ratio",
            kinds=("accounts",),
            request=_page("/v5/market/account-ratio", "startTime", "endTime", period="5min", limit=500),
            parse=_long_short,
            page=_FIVE_MINUTES * 490,
            reaches_back=timedelta(days=30),
            declared_delay=_FIVE_MINUTES,
            step=_FIVE_MINUTES,
        ),
    ),
)
