"""Kraken Futures multi-collateral perpetuals (PF_): one call brings marks, funding and open interest of all.

Belongs here: Kraken's endpoints, names, units and limits. Does not: anything about other venues.

Units: open interest of PF_ contracts in coins. The tickers' fundingRate is ABSOLUTE, in USD per coin and hour: divided
by the index price it is a fraction per ONE hour; the history also gives relativeFundingRate, which already is one.
Liquidations are trades whose `type` is "liquidation", which speaks of the taker, as `side` does: a sell closed a long.
Terminations and assignments (a position moved to another trader) are no orders in the market: not counted.
PI_ contracts are inverse and counted in USD: not used beside PF_. XBT is BTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from liq_pipeline.sources.access.http import RejectedError, Request, SourceError, ThrottledError
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
from liq_pipeline.sources.live.values import ShapeError, number, number_or_none, time_of_iso, time_of_ms

NAME = "kraken_futures"
# Granted: 500 cost units in 10 s for the derivatives API; public calls are cheap, the margin is wide.
REQUESTS = Limit("kraken_futures", 100, 10)
COST = {REQUESTS.scope: 1}
FUNDING_INTERVAL_HOURS = 1.0
FIVE_MINUTES = timedelta(minutes=5)

TICKERS = Request("/derivatives/api/v3/tickers", costs=COST)


def classify(status: int, payload: Any) -> SourceError | None:
    """{"result": "error", "error": "apiLimitExceeded"} comes with HTTP 200."""
    if status != 200 or not isinstance(payload, dict) or payload.get("result") != "error":
        return None
    error = str(payload.get("error", ""))[:100]
    if error == "apiLimitExceeded":
        return ThrottledError(NAME, "asked too often")
    return RejectedError(NAME, error)


def _instruments(answers: Sequence[Any]) -> Iterable[Instrument]:
    for row in answers[0]["tickers"]:
        native = row["symbol"]
        if row.get("tag") != "perpetual" or not native.startswith("PF_") or not native.endswith("USD"):
            continue
        symbol, coins = coin_of(native[3:-3])
        yield Instrument(symbol, native, coins, funding_interval_hours=FUNDING_INTERVAL_HOURS)


def _wanted(payload: Any, reading: Reading) -> list[Any]:
    return [row for row in payload["tickers"] if row.get("symbol") in reading.instruments and not row.get("suspended")]


def _marks(payload: Any, reading: Reading) -> None:
    moment = time_of_iso(payload["serverTime"])

    def row(entry: Any) -> None:
        reading.price(reading.instruments[entry["symbol"]], number(entry["markPrice"]), moment)

    reading.each(_wanted(payload, reading), row)


def _open_interest(payload: Any, reading: Reading) -> None:
    moment = time_of_iso(payload["serverTime"])

    def row(entry: Any) -> None:
        instrument = reading.instruments[entry["symbol"]]
        reading.open_interest(
            instrument,
            moment,
            coins=number(entry["openInterest"]),
            mark_usd=number(entry["markPrice"]) / instrument.coins_per_unit,
        )

    reading.each(_wanted(payload, reading), row)


def _funding(payload: Any, reading: Reading) -> None:
    moment = time_of_iso(payload["serverTime"])

    def row(entry: Any) -> None:
        absolute = number_or_none(entry.get("fundingRate"))
        if absolute is not None:
            reading.funding(
                reading.instruments[entry["symbol"]],
                "predicted",
                absolute / number(entry["indexPrice"]),
                FUNDING_INTERVAL_HOURS,
                moment,
                native_mark=number(entry["markPrice"]),
            )

    reading.each(_wanted(payload, reading), row)


def _settled_history(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        reading.funding(
            reading.asked,
            "settled",
            number(entry["relativeFundingRate"]),
            FUNDING_INTERVAL_HOURS,
            time_of_iso(entry["timestamp"]),
        )

    reading.each(payload["rates"], row)


def _settled(payload: Any, reading: Reading) -> None:
    # Years come each time: the newest few rows heal what a missed poll left out.
    _settled_history({"rates": sorted(payload["rates"], key=lambda row: str(row["timestamp"]))[-3:]}, reading)


def _mark_candles(payload: Any, reading: Reading) -> None:
    # `time` is the start of the bar: the close is true at its end.
    def row(bar: Any) -> None:
        reading.price(reading.asked, number(bar["close"]), time_of_ms(bar["time"]) + FIVE_MINUTES)

    reading.each(payload["candles"], row)


def parse_stream(message: Any, reading: Reading) -> None:
    """One websocket message: a trade, or the last hundred that come with a subscription."""
    if not isinstance(message, dict) or "event" in message:
        return
    if message.get("feed") == "trade":
        reading.each([message], lambda trade: _liquidation(trade, reading))
    elif message.get("feed") == "trade_snapshot":
        reading.each(message["trades"], lambda trade: _liquidation(trade, reading))


def _liquidation(trade: Any, reading: Reading) -> None:
    instrument = reading.instruments.get(trade["product_id"])
    if trade["type"] != "liquidation" or instrument is None:
        return
    if trade["side"] not in ("buy", "sell"):
        raise ShapeError(f"{trade['side']!r} is no side of a trade")
    reading.liquidation(
        instrument,
        time_of_ms(trade["time"]),
        event_id=str(trade["uid"]),
        side="long" if trade["side"] == "sell" else "short",
        native_price=number(trade["price"]),
        units=number(trade["qty"]),
        is_sample=False,
        source_topic="trade",
    )


def _subscribe(instruments: Sequence[Instrument]) -> list[str]:
    message = {"event": "subscribe", "feed": "trade", "product_ids": [instrument.native for instrument in instruments]}
    return [msgspec.json.encode(message).decode()] if instruments else []


def _confirms(message: Any) -> bool:
    return isinstance(message, dict) and message.get("event") == "subscribed" and message.get("feed") == "trade"


def _refusal(message: Any) -> str | None:
    if isinstance(message, dict) and message.get("event") in ("error", "alert", "subscribed_failed"):
        return str(message.get("message", message["event"]))[:100]
    return None


def _settlements(native: str) -> Request:
    return Request("/derivatives/api/v4/historicalfundingrates", {"symbol": native}, costs=COST)


def _candle_page(instrument: Instrument, start: datetime, end: datetime) -> Request:
    return Request(
        f"/api/charts/v1/mark/{instrument.native}/5m",
        {"from": int(start.timestamp()), "to": int(end.timestamp())},
        costs=COST,
    )


SOURCE = Source(
    name=NAME,
    rest_url="https://futures.kraken.com",
    ws_url="wss://futures.kraken.com",
    limits=(REQUESTS,),
    offers=("prices", "funding_rates", "open_interest", "liquidations"),
    probe=Request("/derivatives/api/v3/tickers/PF_XBTUSD", costs=COST),
    classify=classify,
    instruments=InstrumentList((TICKERS,), _instruments),
    feeds=(
        Feed("mark_price", ("prices",), "market", one_request(TICKERS), _marks),
        Feed("open_interest", ("open_interest",), "market", one_request(TICKERS), _open_interest),
        Feed("funding", ("funding_rates",), "funding", one_request(TICKERS), _funding),
        Feed(
            "settled_funding",
            ("funding_rates",),
            "settled",
            of_symbol(_settlements),
            _settled,
            per_symbol=True,
        ),
    ),
    stream=Stream(
        path=lambda _: "/ws/v1",
        subscribe=_subscribe,
        parse=parse_stream,
        confirms=_confirms,
        refusal=_refusal,
    ),
    histories=(
        History(
            name="mark_price",
            topic="prices",
            request=_candle_page,
            parse=_mark_candles,
            page=FIVE_MINUTES * 1_900,  # of 2,000 that an answer holds
            reaches_back=timedelta(days=365),
            declared_delay=timedelta(seconds=5),
            step=FIVE_MINUTES,
        ),
        History(
            name="settled_funding",
            topic="funding_rates",
            kinds=("settled",),
            request=lambda instrument, _start, _end: _settlements(instrument.native),
            parse=_settled_history,
            page=timedelta(days=365),
            reaches_back=timedelta(days=365),
            declared_delay=timedelta(minutes=1),
            step=timedelta(hours=1),
        ),
    ),
)
