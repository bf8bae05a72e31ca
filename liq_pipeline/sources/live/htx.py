"""HTX linear swaps: the public list of liquidations, nothing else.

Belongs here: HTX's endpoint, names and units. Does not: anything about other venues.

Units: `volume` is in contracts, `bankrupt_price` in USDT, `trade_turnover` in USDT. `amount` is not used: documentation
calls it coins, and a recorded answer had contracts there, a thousand times more than its own turnover. The turnover
checks the size of a contract. `position_side` is the side of the position, `side` that of the order which closed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from liq_pipeline.sources.access.http import RejectedError, Request, SourceError
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.live.base import Feed, InstrumentList, Reading, Source, of_symbol
from liq_pipeline.sources.live.instruments import Instrument, coin_of
from liq_pipeline.sources.live.values import ShapeError, number, number_or_none, time_of_ms

NAME = "htx"
# Granted: 800 requests in 10 s per IP for public market data [not confirmed]: ours stay far below.
REQUESTS = Limit("htx", 50, 10)
COST = {REQUESTS.scope: 1}
TURNOVER_TOLERANCE = 0.1
"""The turnover may be at fill prices; a wrong size of a contract is off by a factor of ten at least."""


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


def _liquidations(payload: Any, reading: Reading) -> None:
    def row(event: Any) -> None:
        instrument = reading.instruments.get(event["contract_code"])
        if instrument is None:
            return
        if event["position_side"] not in ("long", "short"):
            raise ShapeError(f"{event['position_side']!r} is no side of a position")
        contracts, price = number(event["volume"]), number(event["bankrupt_price"])
        turnover = number_or_none(event.get("trade_turnover"))
        notional = contracts * instrument.units_per_contract * price
        if turnover is not None and abs(notional - turnover) > TURNOVER_TOLERANCE * notional:
            raise ShapeError(f"{contracts:g} contracts at {price:g} are no turnover of {turnover:g}")
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


SOURCE = Source(
    name=NAME,
    rest_url="https://api.hbdm.com",
    limits=(REQUESTS,),
    offers=("liquidations",),
    probe=Request("/v5/market/liquidation_orders", {"contract_code": "BTC-USDT"}, costs=COST),
    classify=classify,
    instruments=InstrumentList(
        (Request("/linear-swap-api/v1/swap_contract_info", {"business_type": "swap"}, costs=COST),), _instruments
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
