"""Bitget USDT perpetuals: one call brings marks, open interest and funding; long/short accounts; liquidations.

Belongs here: Bitget's endpoints, names, units and limits. Does not: anything about other venues.

History: marks by candle and settled funding by row number, newest first; the ratios come whole each time, how far back
is not documented: a day is taken. There is none of open interest.

Units: holdingAmount is open interest in coins; funding a fraction per fundingRateInterval hours. The
longShortAccountRatio of the answer has been seen to contradict its own shares: the ratio is computed from the shares.
The list of liquidations (interface v3, three days back) names the POSITION's side, "buy" for a long: in a fall of the
price all are buys. `amount` is in coins, `price` the bankruptcy price; events have no id. The list is documented as
delayed. The public websocket (interface v3, topic `liquidation`) has the same rows a second after they happened, but of
each contract and side the largest of that second only: a sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from liq_pipeline.sources.access.http import RejectedError, Request, SourceError, ThrottledError, UnknownSymbolError
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
from liq_pipeline.sources.live.values import ShapeError, milliseconds, number, number_or_none, time_of_ms

NAME = "bitget"
# Granted: 20 requests a second per IP and endpoint; the long/short statistics one a second.
REQUESTS = Limit("bitget", 10, 1)
STATISTICS = Limit("bitget_statistics", 1, 1)
LIQUIDATIONS = Limit("bitget_liquidations", 4, 1)  # granted: 5 a second
COST = {REQUESTS.scope: 1}
FIVE_MINUTES = timedelta(minutes=5)
PRODUCT: dict[str, str | int] = {"productType": "USDT-FUTURES"}

TOPIC = "liquidation"

TICKERS = Request("/api/v2/mix/market/tickers", PRODUCT, costs=COST)
FUNDING = Request("/api/v2/mix/market/current-fund-rate", PRODUCT, costs=COST)


def classify(status: int, payload: Any) -> SourceError | None:
    """`code` of the envelope, a text; "00000" is success."""
    code = payload.get("code") if isinstance(payload, dict) else None
    if code in (None, "00000") or status in (401, 403, 451) or status >= 500:
        return None
    if code in ("429", "30007"):
        return ThrottledError(NAME, f"code {code}: asked too often")
    if code in ("40034", "40309"):
        return UnknownSymbolError(NAME, "the symbol is not listed")
    return RejectedError(NAME, f"code {code}: {str(payload.get('msg', ''))[:100]}")


def _instruments(answers: Sequence[Any]) -> Iterable[Instrument]:
    for row in answers[0]["data"]:
        if row["quoteCoin"] != "USDT" or row["symbolType"] != "perpetual" or row["symbolStatus"] != "normal":
            continue
        symbol, coins = coin_of(row["baseCoin"])
        yield Instrument(symbol, row["symbol"], coins, funding_interval_hours=number_or_none(row.get("fundInterval")))


def _marks(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["symbol"])
        if instrument is not None:
            reading.price(instrument, number(entry["markPrice"]), time_of_ms(entry["ts"]))

    reading.each(payload["data"], row)


def _open_interest(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["symbol"])
        if instrument is not None:
            reading.open_interest(
                instrument,
                time_of_ms(entry["ts"]),
                coins=number(entry["holdingAmount"]),
                mark_usd=number(entry["markPrice"]) / instrument.coins_per_unit,
            )

    reading.each(payload["data"], row)


def _funding(payload: Any, reading: Reading) -> None:
    moment = time_of_ms(payload["requestTime"])

    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["symbol"])
        if instrument is None or entry["fundingRate"] == "":
            return
        reading.funding(
            instrument,
            "predicted",
            number(entry["fundingRate"]),
            number_or_none(entry.get("fundingRateInterval")) or instrument.funding_interval_hours,
            moment,
            next_funding_time=time_of_ms(entry["nextUpdate"]) if entry.get("nextUpdate") else None,
        )

    reading.each(payload["data"], row)


def _settled(payload: Any, reading: Reading) -> None:
    read_settlements(
        payload["data"],
        reading,
        moment=lambda row: time_of_ms(row["fundingTime"]),
        rate=lambda row: number(row["fundingRate"]),
    )


def _long_short_history(payload: Any, reading: Reading) -> None:
    read_account_shares(payload["data"], reading, long="longAccountRatio", short="shortAccountRatio", stamp="ts")


def _long_short(payload: Any, reading: Reading) -> None:
    # The whole history comes each time: the newest few rows heal what a missed poll left out.
    newest = sorted(payload["data"], key=lambda row: int(row["ts"]))[-3:]
    _long_short_history({"data": newest}, reading)


def _mark_candles(payload: Any, reading: Reading) -> None:
    read_closes(payload["data"], reading)


def _take_liquidations(rows: Any, reading: Reading, *, is_sample: bool, source_topic: str) -> None:
    seen: Counter[str] = Counter()

    def row(event: Any) -> None:
        if event["side"] not in ("buy", "sell"):
            raise ShapeError(f"{event['side']!r} is no side of a position")
        # Two equal events of one millisecond are two events: a running number tells them apart.
        content = f"{event['symbol']}-{event['ts']}-{event['side']}-{event['amount']}-{event['price']}"
        seen[content] += 1
        instrument = reading.instruments.get(event["symbol"])
        if instrument is not None:
            reading.liquidation(
                instrument,
                time_of_ms(event["ts"]),
                event_id=f"{content}-{seen[content]}",
                side="long" if event["side"] == "buy" else "short",
                native_price=number(event["price"]),
                units=number(event["amount"]),
                is_sample=is_sample,
                source_topic=source_topic,
            )

    reading.each(rows, row)


def _liquidations(payload: Any, reading: Reading) -> None:
    _take_liquidations(payload["data"]["list"], reading, is_sample=False, source_topic="market/liquidations")


def _is_topic(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("arg"), dict) and message["arg"].get("topic") == TOPIC


def parse_stream(message: Any, reading: Reading) -> None:
    """One websocket message; confirmations and pongs are ignored."""
    if _is_topic(message) and "data" in message:
        _take_liquidations(message["data"], reading, is_sample=True, source_topic=TOPIC)


def _subscribe(_instruments: Sequence[Instrument]) -> list[str]:
    return [msgspec.json.encode({"op": "subscribe", "args": [{"instType": "usdt-futures", "topic": TOPIC}]}).decode()]


def _confirms(message: Any) -> bool:
    return _is_topic(message) and message.get("event") == "subscribe"


def _refusal(message: Any) -> str | None:
    if isinstance(message, dict) and message.get("event") == "error":
        return f"{message.get('code')}: {str(message.get('msg', ''))[:100]}"
    return None


def _ratios(native: str) -> Request:
    path = "/api/v2/mix/market/account-long-short"
    return Request(path, {"symbol": native, "period": "5m"}, costs={STATISTICS.scope: 1})


def _settlements(native: str, rows: int) -> Request:
    path = "/api/v2/mix/market/history-fund-rate"
    return Request(path, {**PRODUCT, "symbol": native, "pageSize": rows}, costs=COST)


def _candle_page(instrument: Instrument, _start: datetime, end: datetime) -> Request:
    # The newest ones before endTime: a startTime is not heeded.
    return Request(
        "/api/v2/mix/market/history-mark-candles",
        {**PRODUCT, "symbol": instrument.native, "granularity": "5m", "endTime": milliseconds(end), "limit": 200},
        costs=COST,
    )


SOURCE = Source(
    name=NAME,
    rest_url="https://api.bitget.com",
    ws_url="wss://ws.bitget.com",
    limits=(REQUESTS, STATISTICS, LIQUIDATIONS),
    offers=("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations"),
    probe=Request("/api/v2/mix/market/ticker", {**PRODUCT, "symbol": "BTCUSDT"}, costs=COST),
    classify=classify,
    instruments=InstrumentList((Request("/api/v2/mix/market/contracts", PRODUCT, costs=COST),), _instruments),
    feeds=(
        Feed("mark_price", ("prices",), "market", one_request(TICKERS), _marks),
        Feed("open_interest", ("open_interest",), "market", one_request(TICKERS), _open_interest),
        Feed("funding", ("funding_rates",), "funding", one_request(FUNDING), _funding),
        Feed(
            "long_short_accounts",
            ("long_short_ratio",),
            "long_short",
            of_symbol(_ratios),
            _long_short,
            per_symbol=True,
        ),
        Feed(
            "settled_funding",
            ("funding_rates",),
            "settled",
            of_symbol(lambda native: _settlements(native, 3)),
            _settled,
            per_symbol=True,
        ),
    ),
    stream=Stream(
        path=lambda _: "/v3/ws/public",
        subscribe=_subscribe,
        parse=parse_stream,
        confirms=_confirms,
        refusal=_refusal,
        ping="ping",
        ids_are_the_lists=False,
    ),
    event_feeds=(
        Feed(
            "liquidations",
            ("liquidations",),
            "market",
            of_symbol(
                lambda native: Request(
                    "/api/v3/market/liquidations",
                    {"category": "USDT-FUTURES", "symbol": native, "limit": 100},
                    costs={LIQUIDATIONS.scope: 1},
                )
            ),
            _liquidations,
            per_symbol=True,
        ),
    ),
    histories=(
        History(
            name="mark_price",
            topic="prices",
            request=_candle_page,
            parse=_mark_candles,
            page=FIVE_MINUTES * 190,
            reaches_back=timedelta(days=30),
            declared_delay=timedelta(seconds=5),
            step=FIVE_MINUTES,
        ),
        History(
            name="settled_funding",
            topic="funding_rates",
            kinds=("settled",),
            request=lambda instrument, _start, _end: _settlements(instrument.native, 100),
            parse=_settled,
            # The newest hundred rows: 33 days of settlements every 8 h, but 4 of hourly ones.
            page=timedelta(days=4),
            reaches_back=timedelta(days=4),
            declared_delay=timedelta(minutes=1),
            step=timedelta(hours=8),
        ),
        History(
            name="long_short_accounts",
            topic="long_short_ratio",
            kinds=("accounts",),
            request=lambda instrument, _start, _end: _ratios(instrument.native),
            parse=_long_short_history,
            page=timedelta(days=1),
            reaches_back=timedelta(days=1),
            declared_delay=FIVE_MINUTES,
            step=FIVE_MINUTES,
        ),
    ),
)
