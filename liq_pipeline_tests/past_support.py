"""A market with a past, served by every venue that offers history, in each venue's own form, page limits and bounds.

Belongs here: the market as functions of time, and the venues' REST history on a local server. Does not: assertions.
Times are the venues' own: candles are named by their start, statistics by their moment, settlements by theirs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from liq_pipeline_tests.live_support import Reply, VenueServer

STEP = 300
"""Seconds between two values of a statistic or a candle."""
HOUR = 3600
KINDS = ("accounts", "top_accounts", "top_positions", "taker")
VENUES = ("binance", "bybit", "okx", "gate", "hyperliquid", "dydx", "deribit", "bitget", "kraken_futures")
SETTLES_EVERY = {venue: 8 if venue in ("binance", "bybit", "okx", "gate", "bitget") else 1 for venue in VENUES}
"""Hours."""
_SEED = {venue: number for number, venue in enumerate(VENUES, start=1)}


def _wave(venue: str, second: float, period: float) -> float:
    return math.sin(second / period + _SEED[venue]) + 0.2 * math.sin(second * 7.3 / period)


def price(venue: str, second: float) -> float:
    """USD per coin, to the cent."""
    return round(60_000 * (1 + 0.01 * _wave(venue, second, 9_000)), 2)


def interest(venue: str, second: float) -> float:
    """Coins of open interest."""
    return round(100_000 * (1 + 0.05 * _wave(venue, second, 14_000)), 1)


def long_share(venue: str, second: float, kind: str = "accounts") -> float:
    """The share that is long, of each kind another: a mixed-up one would not be told from its neighbour."""
    return round(0.5 + 0.1 * _wave(venue, second + 5_000 * KINDS.index(kind), 21_000), 4)


def settled(venue: str, second: float) -> float:
    """The settled rate per interval."""
    return round(0.0001 + 0.0003 * _wave(venue, second, 30_000), 8)


class HistoryServer:
    """Answers history requests of all venues up to `now` and not before `served_from`; everything else as framed.

    away: venues whose every request fails with 503. holes: {(venue, topic): [(from, to)]} that are served by nobody.
    """

    def __init__(self, server: VenueServer, now: datetime, *, served_from: datetime | None = None) -> None:
        self.server = server
        self.now = now
        self.served_from = served_from or datetime(2000, 1, 1, tzinfo=UTC)
        self.away: set[str] = set()
        self.holes: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
        self.asked: list[tuple[str, str]] = []
        server.fault = self._answer

    def times(self, venue: str, topic: str, step: int, first: float, last: float) -> list[int]:
        """The moments served in [first, last]."""
        first, last = max(first, self.served_from.timestamp()), min(last, self.now.timestamp())
        holes = [(a.timestamp(), b.timestamp()) for a, b in self.holes.get((venue, topic), [])]
        return [
            t
            for t in range(math.ceil(first / step) * step, math.floor(last) + 1, step)
            if not any(a < t < b for a, b in holes)
        ]

    def _answer(self, source: str, path: str, query: dict[str, str]) -> Reply | None:
        if source in self.away:
            return Reply(b"", status=503)
        if source not in VENUES:
            return None
        body = _HISTORY[source](self, path, query)
        if body is None:
            return None
        self.asked.append((source, path))
        return Reply(body)

    def _binance(self, path: str, query: dict[str, str]) -> Any:
        if "startTime" not in query:
            return None
        first, last, limit = (int(query[name]) for name in ("startTime", "endTime", "limit"))
        v = "binance"
        if path == "/fapi/v1/fundingRate":
            times = self.times(v, "funding_rates", 8 * HOUR, first / 1000, last / 1000)[:limit]
            return [{"fundingRate": f"{settled(v, t)}", "fundingTime": t * 1000 + 3, "markPrice": ""} for t in times]
        if path == "/fapi/v1/markPriceKlines":
            times = self.times(v, "prices", STEP, first / 1000, min(last / 1000, self.now.timestamp() - STEP))[:limit]
            return [[*_candle(v, t), "0", t * 1000 + STEP * 1000 - 1] for t in times if self._closes(v, t)]
        if path == "/futures/data/openInterestHist":
            times = self.times(v, "open_interest", STEP, first / 1000, last / 1000)[:limit]
            return [
                {
                    "sumOpenInterest": str(interest(v, t)),
                    "sumOpenInterestValue": str(interest(v, t) * price(v, t)),
                    "timestamp": t * 1000,
                }
                for t in times
            ]
        times = self.times(v, "long_short_ratio", STEP, first / 1000, last / 1000)[:limit]
        kind = _BINANCE_KINDS[path]
        long, short = ("buyVol", "sellVol") if kind == "taker" else ("longAccount", "shortAccount")
        return [
            {long: str(long_share(v, t, kind)), short: f"{1 - long_share(v, t, kind):.4f}", "timestamp": t * 1000}
            for t in times
        ]

    def _bybit(self, path: str, query: dict[str, str]) -> Any:
        start = query.get("startTime", query.get("start"))
        if start is None:
            return None
        first, last = int(start) / 1000, int(query.get("endTime", query.get("end", "0"))) / 1000
        limit, v = int(query["limit"]), "bybit"
        if path == "/v5/market/funding/history":
            times = self.times(v, "funding_rates", 8 * HOUR, first, last)
            rows: list[Any] = [
                {"symbol": "BTCUSDT", "fundingRate": f"{settled(v, t)}", "fundingRateTimestamp": str(t * 1000)}
                for t in times
            ]
        elif path == "/v5/market/mark-price-kline":
            times = self.times(v, "prices", STEP, first, min(last, self.now.timestamp() - STEP))
            rows = [_candle(v, t, text=True) for t in times if self._closes(v, t)]
        elif path == "/v5/market/open-interest":
            times = self.times(v, "open_interest", STEP, first, last)
            rows = [{"openInterest": str(interest(v, t)), "timestamp": str(t * 1000)} for t in times]
        else:
            times = self.times(v, "long_short_ratio", STEP, first, last)
            rows = [
                {
                    "symbol": "BTCUSDT",
                    "buyRatio": str(long_share(v, t)),
                    "sellRatio": f"{1 - long_share(v, t):.4f}",
                    "timestamp": str(t * 1000),
                }
                for t in times
            ]
        # Newest first, and where there are too many it is the oldest that are left out.
        return {"retCode": 0, "retMsg": "OK", "result": {"list": rows[::-1][:limit]}, "time": 0}

    def _okx(self, path: str, query: dict[str, str]) -> Any:
        start = query.get("begin", query.get("before"))
        if start is None:
            return None
        # Exclusive at both ends.
        first = (int(start) + 1) / 1000
        last = (int(query.get("end", query.get("after", "0"))) - 1) / 1000
        v, limit = "okx", int(query["limit"])
        if path == "/api/v5/public/funding-rate-history":
            times = self.times(v, "funding_rates", 8 * HOUR, first, last)
            rows: list[Any] = [
                {
                    "instId": "BTC-USDT-SWAP",
                    "fundingRate": f"{settled(v, t)}",
                    "realizedRate": f"{settled(v, t)}",
                    "fundingTime": str(t * 1000),
                }
                for t in times
            ]
        elif path == "/api/v5/market/history-mark-price-candles":
            times = self.times(v, "prices", STEP, first, min(last, self.now.timestamp() - STEP))
            rows = [[*_candle(v, t, text=True), "1"] for t in times if self._closes(v, t)]
        elif path.endswith("open-interest-history"):
            times = self.times(v, "open_interest", STEP, first, last)
            rows = [[str(t * 1000), "1", str(interest(v, t)), str(interest(v, t) * price(v, t))] for t in times]
        else:
            times = self.times(v, "long_short_ratio", STEP, first, last)
            kind = _OKX_KINDS[path.rpartition("/")[2]]
            rows = [[str(t * 1000), repr(_ratio(v, t, kind))] for t in times]
        return {"code": "0", "msg": "", "data": rows[::-1][:limit]}

    def _gate(self, path: str, query: dict[str, str]) -> Any:
        if "from" not in query:
            return None
        first, v, limit = int(query["from"]), "gate", int(query["limit"])
        if path.endswith("funding_rate"):
            times = self.times(v, "funding_rates", 8 * HOUR, first, int(query["to"]))
            return [{"t": t, "r": f"{settled(v, t)}"} for t in times][::-1][:limit]
        times = self.times(v, "open_interest", STEP, first, self.now.timestamp())[:limit]
        # Other contracts are of other sizes than bitcoin's 0.0001: any number of them will do.
        size = 0.0001 if query["contract"] == "BTC_USDT" else 100.0
        return [
            {
                "time": t,
                "open_interest": round(interest(v, t) / size),
                "open_interest_usd": interest(v, t) * price(v, t),
                "mark_price": price(v, t),
                "lsr_account": _ratio(v, t, "accounts"),
                "lsr_taker": _ratio(v, t, "taker"),
                "top_lsr_account": _ratio(v, t, "top_accounts"),
                "top_lsr_size": _ratio(v, t, "top_positions"),
            }
            for t in times
        ]

    def _hyperliquid(self, _path: str, query: dict[str, str]) -> Any:
        body = json.loads(query["body"])
        v = "hyperliquid"
        if body["type"] == "candleSnapshot":
            request = body["req"]
            last = min(request["endTime"] / 1000, self.now.timestamp() - STEP)
            times = self.times(v, "prices", STEP, request["startTime"] / 1000, last)
            return [{"t": t * 1000, "T": (t + STEP) * 1000 - 1, "c": str(price(v, t + STEP))} for t in times]
        if body["type"] == "fundingHistory" and "endTime" in body:
            times = self.times(v, "funding_rates", HOUR, body["startTime"] / 1000, body["endTime"] / 1000)[:500]
            return [{"coin": "BTC", "fundingRate": f"{settled(v, t)}", "time": t * 1000} for t in times]
        return None

    def _dydx(self, path: str, query: dict[str, str]) -> Any:
        if "effectiveBeforeOrAt" not in query:
            return None
        last = datetime.fromisoformat(query["effectiveBeforeOrAt"]).timestamp()
        v, limit = "dydx", int(query["limit"])
        times = self.times(v, "funding_rates", HOUR, last - limit * HOUR, last)[::-1][:limit]
        return {
            "historicalFunding": [
                {
                    "ticker": path.rpartition("/")[2],
                    "rate": f"{settled(v, t)}",
                    "price": str(price(v, t)),
                    "effectiveAt": datetime.fromtimestamp(t, UTC).isoformat().replace("+00:00", "Z"),
                }
                for t in times
            ]
        }

    def _deribit(self, path: str, query: dict[str, str]) -> Any:
        if not path.endswith("get_funding_rate_history"):
            return None
        first, last, v = int(query["start_timestamp"]) / 1000, int(query["end_timestamp"]) / 1000, "deribit"
        times = self.times(v, "funding_rates", HOUR, first, last)
        return {"jsonrpc": "2.0", "result": [{"timestamp": t * 1000, "interest_1h": settled(v, t)} for t in times]}

    def _bitget(self, path: str, query: dict[str, str]) -> Any:
        v, now = "bitget", self.now.timestamp()
        if path.endswith("history-mark-candles"):
            last = min(int(query["endTime"]) / 1000, now - STEP)
            times = self.times(v, "prices", STEP, last - 200 * STEP, last)[-int(query["limit"]) :]
            rows: list[Any] = [_candle(v, t, text=True) for t in times if self._closes(v, t)]
        elif path.endswith("history-fund-rate"):
            times = self.times(v, "funding_rates", 8 * HOUR, now - 800 * HOUR, now)[::-1][: int(query["pageSize"])]
            rows = [{"fundingRate": f"{settled(v, t)}", "fundingTime": str(t * 1000)} for t in times]
        elif path.endswith("account-long-short"):
            times = self.times(v, "long_short_ratio", STEP, now - 24 * HOUR, now)
            rows = [
                {
                    "longAccountRatio": str(long_share(v, t)),
                    "shortAccountRatio": f"{1 - long_share(v, t):.4f}",
                    "ts": str(t * 1000),
                }
                for t in times
            ]
        else:
            return None
        return {"code": "00000", "msg": "success", "requestTime": int(now * 1000), "data": rows}

    def _kraken_futures(self, path: str, query: dict[str, str]) -> Any:
        v, now = "kraken_futures", self.now.timestamp()
        if path.startswith("/api/charts/v1/mark/"):
            times = self.times(v, "prices", STEP, int(query["from"]), min(int(query["to"]), now - STEP))[:2_000]
            candles = [
                {"time": t * 1000, "open": "1", "high": "1", "low": "1", "close": str(price(v, t + STEP)), "volume": 0}
                for t in times
                if self._closes(v, t)
            ]
            return {"candles": candles, "more_candles": False}
        if path.endswith("historicalfundingrates"):
            times = self.times(v, "funding_rates", HOUR, now - 60 * 24 * HOUR, now)
            rates = [
                {
                    "timestamp": datetime.fromtimestamp(t, UTC).isoformat().replace("+00:00", "Z"),
                    "fundingRate": 0.5,
                    "relativeFundingRate": settled(v, t),
                }
                for t in times
            ]
            return {"result": "success", "rates": rates}
        return None

    def _closes(self, venue: str, start: int) -> bool:
        """Whether the close of this candle is served: its end may lie in a hole."""
        return not any(a.timestamp() < start + STEP < b.timestamp() for a, b in self.holes.get((venue, "prices"), []))


def _candle(venue: str, start: int, *, text: bool = False) -> list[Any]:
    close = str(price(venue, start + STEP))
    return [str(start * 1000) if text else start * 1000, "1", "1", "1", close]


def _ratio(venue: str, second: float, kind: str) -> float:
    return long_share(venue, second, kind) / (1 - long_share(venue, second, kind))


_BINANCE_KINDS = {
    "/futures/data/globalLongShortAccountRatio": "accounts",
    "/futures/data/topLongShortAccountRatio": "top_accounts",
    "/futures/data/topLongShortPositionRatio": "top_positions",
    "/futures/data/takerlongshortRatio": "taker",
}
_OKX_KINDS = {
    "long-short-account-ratio-contract": "accounts",
    "long-short-account-ratio-contract-top-trader": "top_accounts",
    "long-short-position-ratio-contract-top-trader": "top_positions",
}
_HISTORY: dict[str, Callable[[HistoryServer, str, dict[str, str]], Any]] = {
    "binance": HistoryServer._binance,
    "bybit": HistoryServer._bybit,
    "okx": HistoryServer._okx,
    "gate": HistoryServer._gate,
    "hyperliquid": HistoryServer._hyperliquid,
    "dydx": HistoryServer._dydx,
    "deribit": HistoryServer._deribit,
    "bitget": HistoryServer._bitget,
    "kraken_futures": HistoryServer._kraken_futures,
}

SERVES = {
    "binance": ("prices", "open_interest", *KINDS, "settled"),
    "bybit": ("prices", "open_interest", "accounts", "settled"),
    "okx": ("prices", "open_interest", "accounts", "top_accounts", "top_positions", "settled"),
    "gate": ("prices", "open_interest", *KINDS, "settled"),
    "hyperliquid": ("prices", "settled"),
    "dydx": ("settled",),
    "deribit": ("settled",),
    "bitget": ("prices", "accounts", "settled"),
    "kraken_futures": ("prices", "settled"),
}
"""venue -> what its history brings: a record type, or the kind of a ratio or rate."""


def expected_rows(venue: str, series: str, first: datetime, last: datetime) -> Iterator[tuple[datetime, float]]:
    """What the tables must hold of a series in (first, last]: (event_time, value)."""
    step = SETTLES_EVERY[venue] * HOUR if series == "settled" else STEP
    begin = math.floor(first.timestamp() / step) * step + step
    for t in range(begin, math.floor(last.timestamp()) + 1, step):
        yield datetime.fromtimestamp(t, UTC), value(venue, series, t)


def value(venue: str, series: str, second: float) -> float:
    """What the series' main column says at that time."""
    if series in KINDS:
        return long_share(venue, second, series)
    return {"prices": price, "open_interest": interest, "settled": settled}[series](venue, second)


def last_step(now: datetime, delay: timedelta, step: timedelta) -> datetime:
    """The newest moment that a catch-up at `now` loads of a series."""
    return datetime.fromtimestamp(
        math.floor((now - delay - step).timestamp() / step.total_seconds()) * step.total_seconds(), UTC
    )
