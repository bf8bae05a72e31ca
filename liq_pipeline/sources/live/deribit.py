"""Deribit perpetuals: one ticker call per coin brings mark, funding and open interest; flagged trades are liquidations.

Belongs here: Deribit's endpoints, names and units. Does not: anything about other venues.

Units: open interest of the inverse perpetuals (BTC-PERPETUAL) is in USD, of the USDC-settled ones in coins. Funding
accrues without settlements: current_funding is the rate now, as a fraction per 8 hours; funding_8h is the sum of the
last 8 hours. The history's interest_1h is what one hour cost.
Liquidations are trades that carry `liquidation`: T the taker was liquidated, M the maker, MT both. `direction` is the
taker's: a taker that sells, and a maker that a taker buys from, closed a long. `amount` counts as open interest does.
The bankruptcy settlements that some libraries present as liquidations have no price and no side: not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from liq_pipeline.sources.access.http import RejectedError, Request, SourceError, ThrottledError, UnknownSymbolError
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.live.base import Feed, History, InstrumentList, Reading, Source, Stream, of_symbol
from liq_pipeline.sources.live.instruments import Instrument, coin_of
from liq_pipeline.sources.live.values import ShapeError, milliseconds, number, number_or_none, time_of_ms

NAME = "deribit"
# Granted without a key: credits for 20 requests a second that add up to 100. A coin is a request, and a round asks them
# at once: in a window of one second only ten coins of fifty would be asked each round.
REQUESTS = Limit("deribit", 60, 5)
COST = {REQUESTS.scope: 1}
CURRENT_FUNDING_HOURS = 8.0
_SUBSCRIPTION: Final = 1
_TEST: Final = 2
_CLOSED_BY: Final = {("T", "sell"): "long", ("T", "buy"): "short", ("M", "buy"): "long", ("M", "sell"): "short"}
"""(who was liquidated, the taker's direction) -> the side of the position that was closed."""


def classify(status: int, payload: Any) -> SourceError | None:
    """JSON-RPC errors: 10028 asks to slow down, 13020 and a reason name an unknown instrument."""
    error = payload.get("error") if isinstance(payload, dict) else None
    if not isinstance(error, dict):
        return None
    code, data = error.get("code"), error.get("data")
    if code in (10028, 10047):
        return ThrottledError(NAME, f"code {code}: asked too often")
    if code == 13020 or (isinstance(data, dict) and data.get("param") == "instrument_name"):
        return UnknownSymbolError(NAME, "the instrument is not listed")
    if status >= 500 or status in (401, 403, 429):
        return None
    return RejectedError(NAME, f"code {code}: {str(error.get('message', ''))[:100]}")


def is_inverse(native: str) -> bool:
    """BTC-PERPETUAL is settled in coins and counted in USD; BTC_USDC-PERPETUAL is settled and counted the other way."""
    return "_" not in native


def _instruments(answers: Sequence[Any]) -> Iterable[Instrument]:
    rows = [
        row
        for row in answers[0]["result"]
        if row["settlement_period"] == "perpetual" and row["is_active"] and row["quote_currency"] in ("USD", "USDC")
    ]
    # Where both exist the inverse one carries the open interest: it comes first, and the first of a coin counts.
    for row in sorted(rows, key=lambda row: not is_inverse(row["instrument_name"])):
        symbol, coins = coin_of(row["base_currency"])
        yield Instrument(symbol, row["instrument_name"], coins)


def _mark(payload: Any, reading: Reading) -> None:
    row = payload["result"]
    reading.price(reading.asked, number(row["mark_price"]), time_of_ms(row["timestamp"]))


def _open_interest(payload: Any, reading: Reading) -> None:
    row = payload["result"]
    instrument = reading.asked
    amount, mark = number(row["open_interest"]), number(row["mark_price"]) / instrument.coins_per_unit
    inverse = is_inverse(instrument.native)
    reading.open_interest(
        instrument,
        time_of_ms(row["timestamp"]),
        coins=None if inverse else amount,
        usd=amount if inverse else None,
        mark_usd=mark,
    )


def _funding(payload: Any, reading: Reading) -> None:
    row = payload["result"]
    rate = number_or_none(row.get("current_funding"))
    if rate is not None:
        reading.funding(
            reading.asked,
            "predicted",
            rate,
            CURRENT_FUNDING_HOURS,
            time_of_ms(row["timestamp"]),
            native_mark=number(row["mark_price"]),
        )


def _settled(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        reading.funding(reading.asked, "settled", number(entry["interest_1h"]), 1.0, time_of_ms(entry["timestamp"]))

    reading.each(payload["result"], row)


def parse_stream(message: Any, reading: Reading) -> None:
    """One websocket message: the flagged ones among the trades; answers to our own requests are ignored."""
    if not isinstance(message, dict) or message.get("method") != "subscription":
        return
    if not message["params"]["channel"].startswith("trades."):
        return
    reading.each(message["params"]["data"], lambda trade: _liquidation(trade, reading))


def _liquidation(trade: Any, reading: Reading) -> None:
    flag = trade.get("liquidation")
    instrument = reading.instruments.get(trade["instrument_name"])
    if flag is None or instrument is None:
        return
    if flag not in ("T", "M", "MT"):
        raise ShapeError(f"{flag!r} tells nobody who was liquidated")
    amount, price = number(trade["amount"]), number(trade["price"])
    for who in flag:
        side = _CLOSED_BY.get((who, trade["direction"]))
        if side is None:
            raise ShapeError(f"{trade['direction']!r} is no direction of a trade")
        reading.liquidation(
            instrument,
            time_of_ms(trade["timestamp"]),
            event_id=f"{trade['trade_id']}-{who}",
            side="long" if side == "long" else "short",
            native_price=price,
            units=amount / price if is_inverse(instrument.native) else amount,
            is_sample=False,
            source_topic="trades",
        )


def _subscribe(instruments: Sequence[Instrument]) -> list[str]:
    channels = [f"trades.{instrument.native}.100ms" for instrument in instruments]
    return [_call(_SUBSCRIPTION, "public/subscribe", {"channels": channels})] if channels else []


def _call(number_: int, method: str, params: dict[str, Any]) -> str:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number_, "method": method, "params": params}).decode()


def _confirms(message: Any) -> bool:
    return isinstance(message, dict) and message.get("id") == _SUBSCRIPTION and bool(message.get("result"))


def _refusal(message: Any) -> str | None:
    if not isinstance(message, dict) or message.get("id") != _SUBSCRIPTION or message.get("result"):
        return None
    return str(message.get("error", "none of the channels exists"))[:100]


def _funding_page(instrument: Instrument, start: datetime, end: datetime) -> Request:
    return Request(
        "/api/v2/public/get_funding_rate_history",
        {
            "instrument_name": instrument.native,
            "start_timestamp": milliseconds(start),
            "end_timestamp": milliseconds(end) - 1,
        },
        costs=COST,
    )


def _recent_funding(instruments: Sequence[Instrument], now: datetime) -> Request:
    hour = now.replace(minute=0, second=0, microsecond=0)
    return _funding_page(instruments[0], hour - timedelta(hours=3), hour + timedelta(hours=1))


def _ticker(native: str) -> Request:
    return Request("/api/v2/public/ticker", {"instrument_name": native}, costs=COST)


SOURCE = Source(
    name=NAME,
    rest_url="https://www.deribit.com",
    ws_url="wss://www.deribit.com",
    limits=(REQUESTS,),
    offers=("prices", "funding_rates", "open_interest", "liquidations"),
    probe=_ticker("BTC-PERPETUAL"),
    classify=classify,
    instruments=InstrumentList(
        (Request("/api/v2/public/get_instruments", {"currency": "any", "kind": "future"}, costs=COST),), _instruments
    ),
    feeds=(
        Feed("mark_price", ("prices",), "market", of_symbol(_ticker), _mark, per_symbol=True),
        Feed("open_interest", ("open_interest",), "market", of_symbol(_ticker), _open_interest, per_symbol=True),
        Feed("funding", ("funding_rates",), "funding", of_symbol(_ticker), _funding, per_symbol=True),
        Feed("settled_funding", ("funding_rates",), "settled", _recent_funding, _settled, per_symbol=True),
    ),
    stream=Stream(
        path=lambda _: "/ws/api/v2",
        subscribe=_subscribe,
        parse=parse_stream,
        confirms=_confirms,
        refusal=_refusal,
        ping=_call(_TEST, "public/test", {}),
    ),
    histories=(
        History(
            name="settled_funding",
            topic="funding_rates",
            kinds=("settled",),
            request=_funding_page,
            parse=_settled,
            page=timedelta(days=30),
            reaches_back=timedelta(days=365),
            declared_delay=timedelta(minutes=1),
            step=timedelta(hours=1),
        ),
    ),
)
