"""How long a cascade takes from the venues' sockets to a person's message, on a running installation.

Run: python -m bench burst [--bursts=50]. The whole program (`liq up --mode live`) reads two local venues that speak
Binance's and Bybit's REST and websockets: two days of history, then at random moments a coin of both falls by 8 % while
its open interest falls by 7 % and forced orders are pushed. The clock starts with the first forced order and stops when
a local receiver has the message that names the coin. Between the bursts one venue alone falls by 12 % for ten seconds,
with forced orders: a wick, which must open nothing. Ticks are compared before and during.

The baselines: what the grid alone costs (prices are asked every 10 s, a tick reads them at the next multiple of 10 s:
10 s at the median, 20 s at most), and the ticks' own lateness before the first burst.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench._installation import Installation, installation, wait_until
from bench.ticks import quantile
from liq_pipeline_tests.alert_receiver import Receiver, receiver
from liq_pipeline_tests.live_support import Reply, StreamServer, VenueServer

CALM_COINS = ("BTC", "ETH", "C00", "C01", "C02", "C03", "C04")
"""The group that every symbol is read with: none of them falls, so each burst stands alone. They get the wicks."""
STEP_MS, HOUR_MS = 300_000, 3_600_000
FALL, FLUSH, WICK = 0.08, 0.07, 0.12
TARGET_P95_SECONDS = 20.0
WARM_SECONDS = 600.0
QUIET_TICKS = 12
BETWEEN_SECONDS = 11.0, 21.0
"""More than one poll: two coins that are first seen to fall at the same tick are one page of the market."""


@dataclass
class Market:
    """Prices and open interest of both venues at any time, and what has befallen a coin."""

    coins: tuple[str, ...]
    fallen: dict[str, int] = field(default_factory=dict)
    """coin -> since when (ms) it has fallen for good, at both venues."""
    wicks: dict[str, tuple[int, int]] = field(default_factory=dict)
    """coin -> from when to when (ms) Bybit alone shows it lower."""

    def price(self, venue: str, coin: str, at_ms: int) -> float:
        number = self.coins.index(coin)
        hours = at_ms / HOUR_MS + 1.7 * number
        value = 100.0 * (1 + 0.004 * math.sin(hours * 1.3) + 0.002 * math.sin(hours * 7.9))
        if at_ms >= self.fallen.get(coin, at_ms + 1):
            value *= 1 - FALL
        begin, end = self.wicks.get(coin, (0, 0))
        if venue == "bybit" and begin <= at_ms < end:
            value *= 1 - WICK
        return value

    def interest(self, venue: str, coin: str, at_ms: int) -> float:
        value = (80_000.0 if venue == "binance" else 50_000.0) * (1 + 0.003 * math.sin(at_ms / HOUR_MS))
        return value * (1 - FLUSH) if at_ms >= self.fallen.get(coin, at_ms + 1) else value


class Venues:
    """Both venues over local sockets."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self.rest = VenueServer()
        self.rest.serve("binance")
        self.rest.serve("bybit")
        self.rest.fault = self._answer
        self.streams = {
            "binance": StreamServer([{"result": None, "id": 1}]),
            "bybit": StreamServer([{"success": True, "ret_msg": "", "conn_id": "x", "op": "subscribe"}]),
        }

    def environment(self) -> dict[str, str]:
        """LIQ_ variables that lead here."""
        urls = {f"LIQ_{name.upper()}_URL": self.rest.url(name) for name in ("binance", "bybit")}
        urls |= {f"LIQ_{name.upper()}_WS_URL": stream.url for name, stream in self.streams.items()}
        return urls | {"LIQ_COINGECKO_URL": self.rest.url("nobody")}

    def force(self, coin: str, venues: Sequence[str], orders: int = 20) -> None:
        """Push forced orders of longs."""
        for number in range(orders):
            now = int(time.time() * 1000)
            if "bybit" in venues:
                order = {"T": now, "s": f"{coin}USDT", "S": "Buy", "v": f"{200 + number}", "p": "92.00"}
                topic = f"allLiquidation.{coin}USDT"
                self.streams["bybit"].send({"topic": topic, "type": "snapshot", "ts": now, "data": [order]})
            if "binance" in venues:
                size = f"{300 + number}"
                order = {"s": f"{coin}USDT", "S": "SELL", "o": "LIMIT", "f": "IOC", "q": size, "p": "91.00"}
                order |= {"ap": "92.00", "X": "FILLED", "l": size, "z": size, "T": now}
                self.streams["binance"].send({"e": "forceOrder", "E": now, "o": order})

    def close(self) -> None:
        """End it."""
        self.rest.close()
        for stream in self.streams.values():
            stream.close()

    def _answer(self, source: str, path: str, query: dict[str, str]) -> Reply | None:
        now = int(time.time() * 1000)
        if source == "binance":
            return self._binance(path, query, now)
        return self._bybit(path, query, now) if source == "bybit" else None

    def _binance(self, path: str, query: dict[str, str], now: int) -> Reply | None:
        coins = self._market.coins
        coin = query.get("symbol", "USDT").removesuffix("USDT")
        if path.endswith("exchangeInfo"):
            kind = {"contractType": "PERPETUAL", "status": "TRADING", "quoteAsset": "USDT"}
            return Reply({"symbols": [{"symbol": f"{one}USDT", "baseAsset": one, **kind} for one in coins]})
        if path.endswith("fundingInfo"):
            return Reply([])
        if path.endswith("premiumIndex"):
            wanted = [coin] if coin else coins
            rows = [
                {"symbol": f"{one}USDT", "markPrice": f"{self._market.price('binance', one, now):.6f}",
                 "lastFundingRate": "0.0001", "nextFundingTime": now + HOUR_MS, "time": now}
                for one in wanted
            ]  # fmt: skip
            return Reply(rows[0] if coin else rows)
        if path.endswith("openInterest"):
            return Reply({"symbol": f"{coin}USDT", "time": now,
                          "openInterest": f"{self._market.interest('binance', coin, now):.3f}"})  # fmt: skip
        if not path.endswith(("openInterestHist", "markPriceKlines", "fundingRate", "Ratio")):
            return None
        times = _times(query.get("startTime"), query.get("endTime"), query, path.endswith("fundingRate"), now)
        return Reply([self._binance_row(path, coin, at) for at in times])

    def _binance_row(self, path: str, coin: str, at: int) -> Any:
        if path.endswith("openInterestHist"):
            interest = self._market.interest("binance", coin, at)
            return {"sumOpenInterest": str(interest), "sumOpenInterestValue": str(interest * 100), "timestamp": at}
        if path.endswith("markPriceKlines"):
            close = str(self._market.price("binance", coin, at + STEP_MS - 1))
            return [at, "1", "1", "1", close, "0", at + STEP_MS - 1]
        if path.endswith("fundingRate"):
            return {"fundingRate": "0.0001", "fundingTime": at, "markPrice": ""}
        if "taker" in path:
            return {"buyVol": "1", "sellVol": "1", "timestamp": at}
        return {"longAccount": "0.5", "shortAccount": "0.5", "timestamp": at}

    def _bybit(self, path: str, query: dict[str, str], now: int) -> Reply | None:
        def reply(rows: list[Any]) -> Reply:
            return Reply({"retCode": 0, "retMsg": "OK", "result": {"list": rows, "nextPageCursor": ""}, "time": now})

        coin = query.get("symbol", "USDT").removesuffix("USDT")
        if path.endswith("instruments-info"):
            kind = {"contractType": "LinearPerpetual", "status": "Trading", "quoteCoin": "USDT", "fundingInterval": 480}
            return reply([{"symbol": f"{one}USDT", "baseCoin": one, **kind} for one in self._market.coins])
        if path.endswith("tickers"):
            return reply([self._bybit_ticker(one, now) for one in ([coin] if coin else self._market.coins)])
        start, end = query.get("startTime", query.get("start")), query.get("endTime", query.get("end"))
        if not path.endswith(("open-interest", "mark-price-kline", "funding/history", "account-ratio")):
            return None
        times = _times(start, end, query, path.endswith("funding/history"), now)
        return reply([self._bybit_row(path, coin, at) for at in reversed(times)])

    def _bybit_ticker(self, coin: str, now: int) -> dict[str, str]:
        price, interest = self._market.price("bybit", coin, now), self._market.interest("bybit", coin, now)
        return {
            "symbol": f"{coin}USDT", "markPrice": f"{price:.6f}", "openInterest": f"{interest:.3f}",
            "openInterestValue": f"{interest * price:.2f}", "fundingRate": "0.0001", "fundingIntervalHour": "8",
            "nextFundingTime": str(now + HOUR_MS),
        }  # fmt: skip

    def _bybit_row(self, path: str, coin: str, at: int) -> Any:
        if path.endswith("open-interest"):
            return {"openInterest": str(self._market.interest("bybit", coin, at)), "timestamp": str(at)}
        if path.endswith("mark-price-kline"):
            return [str(at), "1", "1", "1", str(self._market.price("bybit", coin, at + STEP_MS - 1))]
        if path.endswith("funding/history"):
            return {"symbol": f"{coin}USDT", "fundingRate": "0.0001", "fundingRateTimestamp": str(at)}
        return {"symbol": f"{coin}USDT", "buyRatio": "0.5", "sellRatio": "0.5", "timestamp": str(at)}


def _times(start: str | None, end: str | None, query: dict[str, str], is_funding: bool, now: int) -> list[int]:
    """Points of the venue's grid, rising; where no start is asked for, the newest ones.

    The recorded frames' own stamps of years ago would make a hole of years, and its healing the load of this bench.
    """
    step, limit = 8 * HOUR_MS if is_funding else STEP_MS, int(query.get("limit", "1"))
    last = min(int(end or now), now)
    first = (last // step - limit + 1) * step if start is None else -(-int(start) // step) * step
    return list(range(first, last + 1, step))[:limit]


class Arrivals:
    """When each message came, seen every 20 ms."""

    def __init__(self, person: Receiver) -> None:
        self.seen: list[tuple[float, str]] = []
        self._person = person
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def of(self, coin: str) -> float | None:
        """When a page of this coin came (time.time()), None while there is none."""
        words = f"UNDER WAY {coin}:"
        return next((at for at, title in list(self.seen) if words in title), None)

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            for message in self._person.messages[len(self.seen) :]:
                self.seen.append((time.time(), str(message.get("title", json.dumps(message)))))


def main(arguments: list[str]) -> None:
    """Measure and print; exit 1 if the target is missed, a burst is not told, or a wick opens something."""
    parser = argparse.ArgumentParser(prog="python -m bench burst", description=__doc__)
    parser.add_argument("--bursts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=11)
    options, _ = parser.parse_known_args(arguments)
    burst_coins = tuple(f"B{number:02d}" for number in range(options.bursts))
    market = Market((*CALM_COINS, *burst_coins))
    venues = Venues(market)
    try:
        with receiver() as person:
            variables = venues.environment() | {
                "LIQ_SYMBOLS": ",".join(market.coins),
                "LIQ_VENUES": "binance,bybit",
                "LIQ_SOURCE_HISTORY_DAYS": "2",
                "LIQ_ALERT_URLS": person.url,
                "LIQ_ALERT_POLICY": "under_way",
                "LIQ_ALERT_GROUP_MINUTES": "0.01",
                "LIQ_ALERT_HOURLY_CEILING": "1000",
            }
            with installation("live", **variables) as made:
                _measure(made, market, venues, Arrivals(person), burst_coins, options.seed)
    finally:
        venues.close()


def _measure(
    made: Installation, market: Market, venues: Venues, arrivals: Arrivals, coins: Sequence[str], seed: int
) -> None:
    wait_until(lambda: _judged(made) >= len(market.coins), WARM_SECONDS, "every symbol to be judged", 2.0)
    quiet_from = datetime.now(UTC)
    wait_until(lambda: len(_lateness(made, quiet_from)) >= QUIET_TICKS, 60.0 * QUIET_TICKS, "quiet ticks", 1.0)
    quiet = _lateness(made, quiet_from)
    random_ = random.Random(seed)
    begun: dict[str, float] = {}
    busy_from = datetime.now(UTC)
    wicks = 0
    for number, coin in enumerate(coins):
        time.sleep(random_.uniform(*BETWEEN_SECONDS))
        begun[coin] = time.time()
        market.fallen[coin] = int(begun[coin] * 1000)
        venues.force(coin, ("binance", "bybit"))
        if number % 3 == 0:
            time.sleep(random_.uniform(0.5, 3.0))
            wicked, now = CALM_COINS[number // 3 % len(CALM_COINS)], int(time.time() * 1000)
            market.wicks[wicked] = now, now + 10_000
            venues.force(wicked, ("bybit",))
            wicks += 1
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline and any(arrivals.of(coin) is None for coin in coins):
        time.sleep(0.2)
    busy = _lateness(made, busy_from)
    span = made.ask(
        "SELECT extract(epoch FROM max(time) - min(time))::float FROM ticks WHERE stream = 'market' AND time > %s",
        busy_from,
    )[0][0]
    missed = round(span / 10.0) + 1 - len(busy)
    arrivals.close()
    told = {coin: at - begun[coin] for coin in coins if (at := arrivals.of(coin)) is not None}
    opened = made.ask(
        "SELECT DISTINCT subject FROM alerts WHERE world = 'real' AND rule = 'under_way' AND subject <> 'market'"
    )
    false = sorted({subject for (subject,) in opened} - set(coins))
    _print(told, coins, wicks, false, quiet, busy, missed)


def _judged(made: Installation) -> int:
    """Symbols whose newest signal says whether a cascade is under way."""
    return int(
        made.ask(
            "SELECT count(DISTINCT symbol) FROM signals WHERE time > clock_timestamp() - interval '1 minute'"
            " AND under_way ->> 'is_open' IS NOT NULL"
        )[0][0]
    )


def _lateness(made: Installation, since: datetime) -> list[float]:
    """Seconds from each market point to its commit."""
    rows = made.ask(
        "SELECT extract(epoch FROM committed_at - time)::float FROM ticks"
        " WHERE stream = 'market' AND time > %s ORDER BY time",
        since,
    )
    return [seconds for (seconds,) in rows]


def _print(
    told: dict[str, float],
    coins: Sequence[str],
    wicks: int,
    false: Sequence[str],
    quiet: Sequence[float],
    busy: Sequence[float],
    missed: int,
) -> None:
    print(f"{len(told)} of {len(coins)} bursts were told; {wicks} wicks at one venue opened {len(false)} {false or ''}")
    if told:
        p50, p95, most = quantile(list(told.values()), 0.5), quantile(list(told.values()), 0.95), max(told.values())
        print(f"first forced order to the message received: p50 {p50:.1f} s, p95 {p95:.1f} s, longest {most:.1f} s")
        print("baseline, the grid alone: 10 s at the median, 20 s at most")
    for name, seconds in (("before", quiet), ("during", busy)):
        late = sum(second > 5.0 for second in seconds)
        print(
            f"ticks {name}: {len(seconds)}, committed p50 {quantile(seconds, 0.5):.2f} s and p95"
            f" {quantile(seconds, 0.95):.2f} s after their time, {late} late"
        )
    print(f"ticks missed: {missed}")
    if len(told) < len(coins) or false or quantile(list(told.values()), 0.95) > TARGET_P95_SECONDS:
        raise SystemExit(1)
