"""dYdX v4 (the public indexer): one call brings oracle price, funding and open interest of all; liquidations.

Belongs here: the indexer's endpoints, names and units. Does not: anything about other venues. The smallest venue:
CONTRIBUTING.md takes it as the example.

Units: open interest in coins; funding as a fraction per ONE hour. Margin is kept at the oracle price, which is
therefore its mark. The market list carries no time, so event_time is when we asked.
Liquidations are trades of the type LIQUIDATED, which speaks of the taker, as `side` does: a SELL closed a long; `size`
in coins. A DELEVERAGED one moves a position to another trader and is no order in the market: not counted.
The websocket's channel v4_trades has the same trades under the same ids, first those of a while back, then new ones.
The indexer grants a connection 32 markets and two subscriptions a second (README of its service "socks"); the list is
read beside it, and proves what the stream does not follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from liq_pipeline.sources.access.http import Request
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
from liq_pipeline.sources.live.values import ShapeError, number, time_of_iso

NAME = "dydx"
# Granted: 100 requests in 10 s per IP.
REQUESTS = Limit("dydx", 75, 10)
COST = {REQUESTS.scope: 1}
FUNDING_INTERVAL_HOURS = 1.0

MARKETS = Request("/v4/perpetualMarkets", costs=COST)
CHANNEL = "v4_trades"
TRADES_AT_ONCE = 200
"""Of 1,000 that a page may hold: ten seconds of a market with some ten thousand trades a day, hundredfold."""


def _instruments(answers: Sequence[Any]) -> Iterable[Instrument]:
    for row in answers[0]["markets"].values():
        if row["status"] == "ACTIVE":
            symbol, coins = coin_of(row["ticker"].removesuffix("-USD"))
            yield Instrument(symbol, row["ticker"], coins, funding_interval_hours=FUNDING_INTERVAL_HOURS)


def _wanted(payload: Any, reading: Reading) -> list[Any]:
    return [row for name, row in payload["markets"].items() if name in reading.instruments]


def _marks(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        reading.price(reading.instruments[entry["ticker"]], number(entry["oraclePrice"]), None)

    reading.each(_wanted(payload, reading), row)


def _open_interest(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        instrument = reading.instruments[entry["ticker"]]
        reading.open_interest(
            instrument,
            None,
            coins=number(entry["openInterest"]),
            mark_usd=number(entry["oraclePrice"]) / instrument.coins_per_unit,
        )

    reading.each(_wanted(payload, reading), row)


def _funding(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        reading.funding(
            reading.instruments[entry["ticker"]],
            "predicted",
            number(entry["nextFundingRate"]),
            FUNDING_INTERVAL_HOURS,
            None,
            native_mark=number(entry["oraclePrice"]),
        )

    reading.each(_wanted(payload, reading), row)


def _settled(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        reading.funding(
            reading.asked,
            "settled",
            number(entry["rate"]),
            FUNDING_INTERVAL_HOURS,
            time_of_iso(entry["effectiveAt"]),
            native_mark=number(entry["price"]),
        )

    reading.each(payload["historicalFunding"], row)


def _take_liquidations(trades: Any, instrument: Instrument, reading: Reading) -> None:
    def row(trade: Any) -> None:
        if trade["type"] != "LIQUIDATED":
            return
        if trade["side"] not in ("BUY", "SELL"):
            raise ShapeError(f"{trade['side']!r} is no side of a trade")
        reading.liquidation(
            instrument,
            time_of_iso(trade["createdAt"]),
            event_id=str(trade["id"]),
            side="long" if trade["side"] == "SELL" else "short",
            native_price=number(trade["price"]),
            units=number(trade["size"]),
            is_sample=False,
            source_topic="trades",
        )

    reading.each(trades, row)


def _liquidations(payload: Any, reading: Reading) -> None:
    trades = payload["trades"]
    if len(trades) >= TRADES_AT_ONCE:
        reading.reaches_back_to = min(time_of_iso(trade["createdAt"]) for trade in trades)
    _take_liquidations(trades, reading.asked, reading)


def parse_stream(message: Any, reading: Reading) -> None:
    """One websocket message: the first answer, or new trades, whose `contents` are a list where they come batched."""
    if not isinstance(message, dict) or message.get("channel") != CHANNEL or "contents" not in message:
        return
    instrument = reading.instruments.get(message["id"])
    if instrument is None:
        return
    contents = message["contents"]
    for part in contents if isinstance(contents, list) else [contents]:
        _take_liquidations(part["trades"], instrument, reading)


def _subscribe(instruments: Sequence[Instrument]) -> list[str]:
    requests = [{"type": "subscribe", "channel": CHANNEL, "id": known.native, "batched": True} for known in instruments]
    return [msgspec.json.encode(request).decode() for request in requests]


def _confirms(message: Any) -> bool:
    return isinstance(message, dict) and message.get("type") == "subscribed" and message.get("channel") == CHANNEL


def _refusal(message: Any) -> str | None:
    if isinstance(message, dict) and message.get("type") == "error":
        return str(message.get("message", ""))[:100]
    return None


def _funding_page(instrument: Instrument, _start: datetime, end: datetime) -> Request:
    # Newest first from `effectiveBeforeOrAt`; the page's span is what 100 hourly rows cover.
    before = (end - timedelta(milliseconds=1)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return Request(
        f"/v4/historicalFunding/{instrument.native}", {"limit": 100, "effectiveBeforeOrAt": before}, costs=COST
    )


SOURCE = Source(
    name=NAME,
    rest_url="https://indexer.dydx.trade",
    ws_url="wss://indexer.dydx.trade",
    limits=(REQUESTS,),
    offers=("prices", "funding_rates", "open_interest", "liquidations"),
    probe=Request("/v4/perpetualMarkets", {"ticker": "BTC-USD"}, costs=COST),
    instruments=InstrumentList((MARKETS,), _instruments),
    feeds=(
        Feed("mark_price", ("prices",), "market", one_request(MARKETS), _marks),
        Feed("open_interest", ("open_interest",), "market", one_request(MARKETS), _open_interest),
        Feed("funding", ("funding_rates",), "funding", one_request(MARKETS), _funding),
        Feed(
            "settled_funding",
            ("funding_rates",),
            "settled",
            of_symbol(lambda native: Request(f"/v4/historicalFunding/{native}", {"limit": 3}, costs=COST)),
            _settled,
            per_symbol=True,
        ),
    ),
    stream=Stream(
        path=lambda _: "/v4/ws",
        subscribe=_subscribe,
        parse=parse_stream,
        confirms=_confirms,
        refusal=_refusal,
        subscribe_every_seconds=0.55,
        most_instruments=32,
    ),
    event_feeds=(
        Feed(
            "trades",
            ("liquidations",),
            "market",
            of_symbol(
                lambda native: Request(f"/v4/trades/perpetualMarket/{native}", {"limit": TRADES_AT_ONCE}, costs=COST)
            ),
            _liquidations,
            per_symbol=True,
        ),
    ),
    histories=(
        History(
            name="settled_funding",
            topic="funding_rates",
            kinds=("settled",),
            request=_funding_page,
            parse=_settled,
            page=timedelta(hours=95),
            reaches_back=timedelta(days=365),
            declared_delay=timedelta(minutes=1),
            step=timedelta(hours=1),
        ),
    ),
)
