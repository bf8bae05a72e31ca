"""The venues' frames with times that go with the clock and figures that move with it, and a chain that grows.

Belongs here: what the tests and the bench of recordings share. Does not: assertions.
"""

from __future__ import annotations

import json
import math
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from liq_pipeline.sources.chain.ethereum import TOKENS
from liq_pipeline_tests.chain_support import FakeChain
from liq_pipeline_tests.live_support import Fault, Reply, VenueServer

GREETINGS: Final = {"binance": 1, "bybit": 1, "okx": 2, "deribit": 2, "kraken_futures": 2}
"""Frames that confirm a subscription; the ones after them bring liquidations."""
EPOCH: Final = datetime(2024, 6, 1, 8, tzinfo=UTC).timestamp()
NEWEST: Final = EPOCH + 12
"""No frame speaks of a later time, but for settlements to come."""
DAYS: Final = 40 * 86_400
PRICES: Final = frozenset({"markPrice", "markPx", "mark_price", "oraclePrice", "indexPrice", "index_price", "usd"})
COINS: Final = frozenset(
    {"openInterest", "oi", "oiCcy", "holdingAmount", "total_size", "open_interest", "baseOpenInterest"}
)
VALUES: Final = frozenset({"openInterestValue", "oiUsd"})
RATES: Final = frozenset(
    {"lastFundingRate", "fundingRate", "funding", "nextFundingRate", "funding_rate", "current_funding"}
)
SETTLEMENTS: Final = frozenset({"fundingTime", "nextFundingTime", "fundingRateTimestamp", "nextUpdate"})
IDS: Final = frozenset({"id", "trade_id", "uid"})
HOT, USER = "0x28c6c06298d514db089934071355e5743bf21d60", "0x" + "11" * 20


class MovingVenues:
    """Frames whose times follow the clock and whose figures follow the time."""

    def __init__(self, server: VenueServer, chain: FakeChain) -> None:
        self._server = server
        self._chain = chain
        self._lock = threading.Lock()
        # Settlements and five-minute statistics keep their places on the grid.
        self._whole_hours = (time.time() - EPOCH) // 3600 * 3600 - 3600
        server.fault = self.answer

    def answer(self, source: str, path: str, query: dict[str, str]) -> Reply | None:
        """A Fault: what is answered now."""
        body = query.get("body")
        if source == "node":
            with self._lock:
                return Reply(self._chain.rpc(json.loads(body or "{}")))
        decoded = json.loads(body) if body else {}
        reply = self._server.answer(source, path, query, decoded.get("type") if body else None)
        return Reply(self.moved(reply.body), status=reply.status)

    def delayed(self, paths: set[str], seconds: float) -> Fault:
        """The same, but that answers at these paths come later than they were made."""

        def answer(source: str, path: str, query: dict[str, str]) -> Reply | None:
            reply = self.answer(source, path, query)
            if reply is not None and path in paths:
                reply.delay_seconds = seconds
            return reply

        return answer

    def moved(self, value: Any) -> Any:
        """The frame as it would be now."""
        now = time.time()
        price, coins = 1 + 0.01 * math.sin(now / 7), 1 + 0.01 * math.sin(now / 11)

        def walk(inner: Any, name: str) -> Any:
            if isinstance(inner, dict):
                return {key: walk(one, key) for key, one in inner.items()}
            if isinstance(inner, list):
                return [walk(one, name) for one in inner]
            if name in PRICES | COINS | VALUES | RATES:
                factor = price if name in PRICES else price * coins if name in VALUES else coins
                return scaled(inner, factor)
            if name in IDS and isinstance(inner, str) and len(inner) >= 8:
                return f"{inner}-{now}"  # another event
            return self._time(inner, now, name in SETTLEMENTS)

        return walk(value, "")

    def _time(self, value: Any, now: float, on_the_hour: bool) -> Any:
        if isinstance(value, str) and value.startswith("2024-06-01T") and value.endswith("Z"):
            moment = datetime.fromisoformat(value).timestamp()
            return (
                datetime.fromtimestamp(self._shifted(moment, now, on_the_hour), UTC).isoformat().replace("+00:00", "Z")
            )
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return value
        try:
            number = float(value)
        except ValueError:
            return value
        for unit in (1.0, 1000.0):
            if abs(number / unit - EPOCH) < DAYS:
                moved = self._shifted(number / unit, now, on_the_hour) * unit
                whole = int(moved) if float(number).is_integer() else moved
                return str(whole) if isinstance(value, str) else whole
        return value

    def _shifted(self, moment: float, now: float, on_the_hour: bool) -> float:
        # Eight o'clock itself is when most frames say that they were answered.
        if on_the_hour or (moment % 300 == 0 and moment != EPOCH):
            return moment + self._whole_hours
        return moment + now - NEWEST

    def mine(self, replaced: bool = False) -> None:
        """A new block of four transfers, or another one in place of the newest."""
        with self._lock:
            usdt, usdc = TOKENS
            number = self._chain.head if replaced else None
            amount = str(100_000 + time.time_ns() % 10**6)
            self._chain.add(
                (usdt, USER, HOT, amount),
                (usdc, HOT, USER, "250000.000001"),
                (usdt, USER, "0x" + "22" * 20, "5"),
                (usdc, "0x" + "0" * 40, USER, "1000000"),
                salt=str(time.time_ns()),
                number=number,
                time=datetime.now(UTC) - timedelta(seconds=1),
            )


def scaled(value: Any, factor: float) -> Any:
    """The same figure a little larger or smaller, in the form it came in."""
    try:
        number = float(value) * factor
    except (TypeError, ValueError):
        return value
    text = f"{number:.12g}"
    return text if isinstance(value, str) else float(text)
