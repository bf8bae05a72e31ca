"""Gate USDT perpetuals: marks, funding and open interest in one call, 5-minute ratios, all liquidations.

Belongs here: Gate's endpoints, names, units and limits. Does not: anything about other venues.

Units: sizes are CONTRACTS (times quanto_multiplier: BTC_USDT 0.0001); funding is a fraction per funding_interval
(seconds, in the contract); times are seconds. Numbers come as texts or numbers.
Liquidations, listed: `size` is the user's POSITION (above 0: long), `order_size` the order that closed it. Streamed
(futures.public_liquidates, all contracts): `size` is the ORDER's (below 0 it sells, which closes a long), `price` the
order's too. Since 2026-08-20 what happens within a second (or 20 orders) comes as one list and nothing is dropped, and
`time` is in milliseconds; before, it was in seconds beside `time_ms`. Without the header X-Gate-Size-Decimal sizes are
cut to whole contracts.
contract_stats: the newest row is of the five minutes under way and still changes, so only rows with a successor count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
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
from liq_pipeline.sources.live.series import read_settlements
from liq_pipeline.sources.live.values import ShapeError, number, number_or_none, time_of_ms, time_of_seconds

NAME = "gate"
# Granted: 200 requests in 10 s per endpoint and IP.
REQUESTS = Limit("gate", 150, 10)
COST = {REQUESTS.scope: 1}
BASE = "/api/v4/futures/usdt"
RATIOS: tuple[tuple[str, LongShortKind], ...] = (
    ("lsr_account", "accounts"),
    ("lsr_taker", "taker"),
    ("top_lsr_account", "top_accounts"),
    ("top_lsr_size", "top_positions"),
)

CHANNEL = "futures.public_liquidates"
FIRST_MILLISECONDS = 1e11
"""A time of day in seconds passes this in the year 5138; in milliseconds it did in 1973."""

TICKERS = Request(f"{BASE}/tickers", costs=COST)


def classify(_status: int, payload: Any) -> SourceError | None:
    """{"label": "CONTRACT_NOT_FOUND", "message": ...}"""
    label = payload.get("label") if isinstance(payload, dict) else None
    if label == "CONTRACT_NOT_FOUND":
        return UnknownSymbolError(NAME, "the contract is not listed")
    if label == "TOO_MANY_REQUESTS":
        return ThrottledError(NAME, "asked too often")
    return None


def _instruments(answers: Sequence[Any]) -> Iterable[Instrument]:
    for row in answers[0]:
        if row.get("in_delisting") or row["type"] != "direct":
            continue
        symbol, coins = coin_of(row["name"].removesuffix("_USDT"))
        multiplier = number(row["quanto_multiplier"])
        seconds = number_or_none(row.get("funding_interval"))
        yield Instrument(
            symbol,
            row["name"],
            coins,
            units_per_contract=multiplier,
            funding_interval_hours=seconds / 3600 if seconds else None,
        )


def _marks(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["contract"])
        if instrument is not None:
            reading.price(instrument, number(entry["mark_price"]), None)

    reading.each(payload, row)


def _open_interest(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["contract"])
        if instrument is not None:
            reading.open_interest(
                instrument,
                None,
                contracts=number(entry["total_size"]),
                mark_usd=number(entry["mark_price"]) / instrument.coins_per_unit,
            )

    reading.each(payload, row)


def _funding(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["contract"])
        if instrument is not None and entry["funding_rate"] != "":
            reading.funding(
                instrument,
                "predicted",
                number(entry["funding_rate"]),
                instrument.funding_interval_hours,
                None,
                native_mark=number(entry["mark_price"]),
            )

    reading.each(payload, row)


def _settled(payload: Any, reading: Reading) -> None:
    read_settlements(payload, reading, moment=lambda row: time_of_seconds(row["t"]), rate=lambda row: number(row["r"]))


def _finished(payload: Any) -> list[Any]:
    return sorted(payload, key=lambda row: number(row["time"]))[:-1]


def _ratios(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        moment = time_of_seconds(entry["time"])
        for name, kind in RATIOS:
            ratio = number_or_none(entry.get(name))
            if ratio:  # 0 stands for "nothing to divide": unknown, not "no longs at all"
                reading.long_short(reading.asked, kind, ratio, 1.0, moment)

    reading.each(_finished(payload), row)


def _open_interest_history(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        reading.open_interest(
            reading.asked,
            time_of_seconds(entry["time"]),
            contracts=number(entry["open_interest"]),
            usd=number(entry["open_interest_usd"]),
        )

    reading.each(_finished(payload), row)


def _mark_history(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        reading.price(reading.asked, number(entry["mark_price"]), time_of_seconds(entry["time"]))

    reading.each(_finished(payload), row)


def _liquidations(payload: Any, reading: Reading) -> None:
    seen: Counter[str] = Counter()

    def row(event: Any) -> None:
        position = number(event["size"])
        closed = abs(number_or_none(event.get("order_size")) or 0.0) - abs(number_or_none(event.get("left")) or 0.0)
        price = number_or_none(event.get("fill_price")) or number(event["order_price"])
        content = f"{event['contract']}-{event['time']}-{position:g}-{closed:g}-{price:g}"
        seen[content] += 1  # the list has no ids: equal events of one second are told apart by a running number
        instrument = reading.instruments.get(event["contract"])
        if instrument is None:
            return
        reading.liquidation(
            instrument,
            time_of_seconds(event["time"]),
            event_id=f"{content}-{seen[content]}",
            side="long" if position > 0 else "short",
            native_price=price,
            contracts=closed if closed > 0 else abs(position),
            is_sample=False,
            source_topic="liq_orders",
        )

    reading.each(payload, row)


def parse_stream(message: Any, reading: Reading) -> None:
    """One websocket message; confirmations and pongs are ignored."""
    if not isinstance(message, dict) or message.get("channel") != CHANNEL or message.get("event") != "update":
        return
    seen: Counter[str] = Counter()

    def row(event: Any) -> None:
        stamp = number(event.get("time_ms") or event["time"])
        moment = time_of_ms(stamp) if stamp > FIRST_MILLISECONDS else time_of_seconds(stamp)
        size, price = number(event["size"]), number(event["price"])
        if size == 0:
            raise ShapeError("an order of no size has no side")
        content = f"{event['contract']}-{stamp:.0f}-{size:g}-{price:g}"
        seen[content] += 1
        instrument = reading.instruments.get(event["contract"])
        if instrument is None:
            return
        reading.liquidation(
            instrument,
            moment,
            event_id=f"{content}-{seen[content]}",
            side="long" if size < 0 else "short",
            native_price=price,
            contracts=abs(size),
            is_sample=False,
            source_topic="public_liquidates",
        )

    result = message["result"]
    reading.each(result if isinstance(result, list) else [result], row)


def _subscribe(_instruments: Sequence[Instrument]) -> list[str]:
    now = int(datetime.now(UTC).timestamp())
    request = {"time": now, "channel": CHANNEL, "event": "subscribe", "payload": ["!all"]}
    return [msgspec.json.encode(request).decode()]


def _is_answer(message: Any) -> bool:
    return isinstance(message, dict) and message.get("channel") == CHANNEL and message.get("event") == "subscribe"


def _confirms(message: Any) -> bool:
    return _is_answer(message) and not message.get("error")


def _refusal(message: Any) -> str | None:
    if _is_answer(message) and message.get("error"):
        return str(message["error"])[:100]
    return None


def _stats_page(instrument: Instrument, start: datetime, _end: datetime) -> Request:
    return Request(
        f"{BASE}/contract_stats",
        {"contract": instrument.native, "interval": "5m", "from": int(start.timestamp()), "limit": 100},
        costs=COST,
    )


def _funding_page(instrument: Instrument, start: datetime, end: datetime) -> Request:
    return Request(
        f"{BASE}/funding_rate",
        {
            "contract": instrument.native,
            "from": int(start.timestamp()),
            # Whole seconds, both inclusive: the end of a page is a millisecond past its last settlement.
            "to": math.ceil(end.timestamp()) - 1,
            "limit": 1000,
        },
        costs=COST,
    )


_FIVE_MINUTES = timedelta(minutes=5)


def _stats_history(name: str, topic: str, parse: Any, kinds: tuple[str, ...] = ()) -> History:
    return History(
        name=name,
        topic=topic,
        kinds=kinds,
        request=_stats_page,
        parse=parse,
        # 100 rows, the last of which has no successor and is read with the next page.
        page=_FIVE_MINUTES * 98,
        reaches_back=timedelta(days=30),
        declared_delay=_FIVE_MINUTES * 2,
        step=_FIVE_MINUTES,
    )


SOURCE = Source(
    name=NAME,
    rest_url="https://api.gateio.ws",
    ws_url="wss://fx-ws.gateio.ws",
    limits=(REQUESTS,),
    offers=("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations"),
    probe=Request(f"{BASE}/tickers", {"contract": "BTC_USDT"}, costs=COST),
    classify=classify,
    instruments=InstrumentList((Request(f"{BASE}/contracts", costs=COST),), _instruments),
    feeds=(
        Feed("mark_price", ("prices",), "market", one_request(TICKERS), _marks),
        Feed("open_interest", ("open_interest",), "market", one_request(TICKERS), _open_interest),
        Feed("funding", ("funding_rates",), "funding", one_request(TICKERS), _funding),
        Feed(
            "long_short",
            ("long_short_ratio",),
            "long_short",
            of_symbol(
                lambda native: Request(
                    f"{BASE}/contract_stats", {"contract": native, "interval": "5m", "limit": 3}, costs=COST
                )
            ),
            _ratios,
            per_symbol=True,
        ),
        Feed(
            "settled_funding",
            ("funding_rates",),
            "settled",
            of_symbol(lambda native: Request(f"{BASE}/funding_rate", {"contract": native, "limit": 3}, costs=COST)),
            _settled,
            per_symbol=True,
        ),
    ),
    stream=Stream(
        path=lambda _: "/v4/ws/usdt",
        subscribe=_subscribe,
        parse=parse_stream,
        confirms=_confirms,
        refusal=_refusal,
        headers={"X-Gate-Size-Decimal": "1"},
        ids_are_the_lists=False,
    ),
    event_feeds=(
        Feed(
            "liq_orders",
            ("liquidations",),
            "market",
            of_symbol(lambda native: Request(f"{BASE}/liq_orders", {"contract": native, "limit": 100}, costs=COST)),
            _liquidations,
            per_symbol=True,
        ),
    ),
    histories=(
        _stats_history("open_interest", "open_interest", _open_interest_history),
        _stats_history("mark_price", "prices", _mark_history),
        _stats_history("long_short", "long_short_ratio", _ratios, tuple(kind for _, kind in RATIOS)),
        History(
            name="settled_funding",
            topic="funding_rates",
            kinds=("settled",),
            request=_funding_page,
            parse=_settled,
            page=timedelta(days=30),
            reaches_back=timedelta(days=90),
            declared_delay=timedelta(minutes=1),
            step=timedelta(hours=8),
        ),
    ),
)
