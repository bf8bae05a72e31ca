"""HTX linear swaps: liquidations, streamed and listed, nothing else.

Belongs here: HTX's endpoint, names and units. Does not: anything about other venues.

Units: `volume` is in contracts, `bankrupt_price` in USDT, `trade_turnover` in USDT. `amount` is not used: documentation
calls it coins, and a recorded answer had contracts there, a thousand times more than its own turnover. The turnover
checks the size of a contract. `position_side` is the side of the position, `side` that of the order which closed it.
The stream (public.*.liquidation_orders; it needs no key, although it stands among the private ones) calls these
`volume`, `price`, `trade_turnover`, and `direction`, which is the order's: a sell closes a long. It gives no id. Its
frames are gzip, its pings are messages of its own ({"op": "ping"}), and who does not answer them is cut off.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from liq_pipeline.sources.access.http import RejectedError, Request, SourceError
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.live.base import Feed, InstrumentList, Reading, Source, Stream, of_symbol
from liq_pipeline.sources.live.instruments import Instrument, coin_of
from liq_pipeline.sources.live.values import ShapeError, number, number_or_none, time_of_ms

NAME = "htx"
# Granted: 800 requests in 10 s per IP for public market data [not confirmed]: ours stay far below.
REQUESTS = Limit("htx", 50, 10)
COST = {REQUESTS.scope: 1}
TURNOVER_TOLERANCE = 0.1
"""The turnover may be at fill prices; a wrong size of a contract is off by a factor of ten at least."""
MAX_UNPACKED_BYTES = 16 * 1024 * 1024
"""Of one frame: 16 times what a connection takes packed, in which gzip can hold a gigabyte. Recorded ones have 1 kB."""
_GZIP = 31
"""What zlib calls a stream with gzip's header."""


def classify(status: int, payload: Any) -> SourceError | None:
    """The v5 envelope: code 200 is success; the older one: status "ok"."""
    if status != 200 or not isinstance(payload, dict):
        return None
    if payload.get("status") == "error":
        return RejectedError(NAME, str(payload.get("err_msg", ""))[:100])
    code = payload.get("code")
    if code in (None, 200):
        return None
    return RejectedError(NAME, f"code {code}: {str(payload.get('message', ''))[:100]}")


def _instruments(answers: Sequence[Any]) -> Iterable[Instrument]:
    for row in answers[0]["data"]:
        if row["contract_status"] == 1 and row["contract_code"].endswith("-USDT"):
            symbol, coins = coin_of(row["symbol"])
            yield Instrument(symbol, row["contract_code"], coins, units_per_contract=number(row["contract_size"]))


def _check_turnover(instrument: Instrument, contracts: float, price: float, event: Any) -> None:
    """Raise ShapeError if the event's own turnover says that a contract has another size."""
    turnover = number_or_none(event.get("trade_turnover"))
    notional = contracts * instrument.units_per_contract * price
    if turnover is not None and abs(notional - turnover) > TURNOVER_TOLERANCE * notional:
        raise ShapeError(f"{contracts:g} contracts at {price:g} are no turnover of {turnover:g}")


def _liquidations(payload: Any, reading: Reading) -> None:
    def row(event: Any) -> None:
        instrument = reading.instruments.get(event["contract_code"])
        if instrument is None:
            return
        if event["position_side"] not in ("long", "short"):
            raise ShapeError(f"{event['position_side']!r} is no side of a position")
        contracts, price = number(event["volume"]), number(event["bankrupt_price"])
        _check_turnover(instrument, contracts, price, event)
        reading.liquidation(
            instrument,
            time_of_ms(event["liquidation_time"]),
            event_id=str(event["id"]),
            side=event["position_side"],
            native_price=price,
            contracts=contracts,
            is_sample=False,
            source_topic="liquidation-orders",
        )

    reading.each(payload["data"], row)


def unpack(frame: bytes) -> bytes:
    """The text behind a frame. Raises zlib.error where it is not gzip, not one whole or past MAX_UNPACKED_BYTES."""
    stream = zlib.decompressobj(_GZIP)
    text = stream.decompress(frame, MAX_UNPACKED_BYTES)
    if not stream.eof:
        more = len(text) >= MAX_UNPACKED_BYTES
        raise zlib.error(f"it holds more than {MAX_UNPACKED_BYTES >> 20} MiB" if more else "it is cut short")
    if stream.unused_data:
        raise zlib.error(f"{len(stream.unused_data)} bytes follow its end")
    return text


def parse_stream(message: Any, reading: Reading) -> None:
    """One unpacked websocket message; confirmations and pings are ignored."""
    if not _is_topic(message) or message.get("op") != "notify":
        return
    seen: Counter[str] = Counter()

    def row(event: Any) -> None:
        instrument = reading.instruments.get(event["contract_code"])
        if instrument is None:
            return
        if event["direction"] not in ("buy", "sell"):
            raise ShapeError(f"{event['direction']!r} is no side of an order")
        contracts, price = number(event["volume"]), number(event["price"])
        _check_turnover(instrument, contracts, price, event)
        content = f"{instrument.native}-{event['created_at']}-{event['direction']}-{contracts:g}-{price:g}"
        seen[content] += 1
        reading.liquidation(
            instrument,
            time_of_ms(event["created_at"]),
            event_id=f"{content}-{seen[content]}",
            side="long" if event["direction"] == "sell" else "short",
            native_price=price,
            contracts=contracts,
            is_sample=False,
            source_topic="public.liquidation_orders",
        )

    reading.each(message["data"], row)


def _is_topic(message: Any) -> bool:
    return isinstance(message, dict) and str(message.get("topic", "")).endswith(".liquidation_orders")


def _subscribe(_instruments: Sequence[Instrument]) -> list[str]:
    request = {"op": "sub", "cid": "liq", "topic": "public.*.liquidation_orders", "business_type": "swap"}
    return [msgspec.json.encode(request).decode()]


def _confirms(message: Any) -> bool:
    return _is_topic(message) and message.get("op") == "sub" and message.get("err-code") == 0


def _refusal(message: Any) -> str | None:
    if isinstance(message, dict) and message.get("op") in ("sub", "error", "close") and message.get("err-code") != 0:
        return f"{message.get('err-code')}: {str(message.get('err-msg', ''))[:100]}"
    return None


def _answer(message: Any) -> str | None:
    if isinstance(message, dict) and message.get("op") == "ping":
        return msgspec.json.encode({"op": "pong", "ts": message.get("ts")}).decode()
    return None


SOURCE = Source(
    name=NAME,
    rest_url="https://api.hbdm.com",
    ws_url="wss://api.hbdm.com",
    limits=(REQUESTS,),
    offers=("liquidations",),
    probe=Request("/v5/market/liquidation_orders", {"contract_code": "BTC-USDT"}, costs=COST),
    classify=classify,
    instruments=InstrumentList(
        (Request("/linear-swap-api/v1/swap_contract_info", {"business_type": "swap"}, costs=COST),), _instruments
    ),
    stream=Stream(
        path=lambda _: "/linear-swap-notification",
        subscribe=_subscribe,
        parse=parse_stream,
        confirms=_confirms,
        refusal=_refusal,
        answer=_answer,
        unpack=unpack,
        ids_are_the_lists=False,
    ),
    event_feeds=(
        Feed(
            "liquidation_orders",
            ("liquidations",),
            "market",
            of_symbol(
                lambda native: Request(
                    "/v5/market/liquidation_orders", {"contract_code": native, "limit": 100}, costs=COST
                )
            ),
            _liquidations,
            per_symbol=True,
        ),
    ),
)
