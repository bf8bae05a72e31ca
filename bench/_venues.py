"""A local websocket venue in a process of its own, which writes down all that happened on it.

Belongs here: what bench/collect.py needs of the outside world: Bybit's, Binance's and OKX's liquidation frames over one
port, their lists of instruments, and every way of losing a connection. Does not: the collector, Kafka, comparing.

Liquidations happen here whether anybody listens or not; each has a time, a size and a coin that no other has. `sent` in
the ledger says whether it was written to a connection whose subscription had been confirmed.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import parse_qsl

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

COINS = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "LINK", "AVAX", "LTC", "TRX")
PUSH_SECONDS = 0.05
PRICE = 100.0
SHARES = {"bybit": 0.8, "binance": 0.1, "okx": 0.1}
"""Of the rate: Bybit pushes all events, the other two samples."""
OKX_DETAILS = 5
"""Events per OKX message."""
OKX_PAGE = 100
"""Events of OKX's list by REST, per coin."""


@dataclass(frozen=True)
class Happened:
    """One liquidation. time_ms and size (in coins, as text) are unique in a venue; sent_at: seconds, None if unsent."""

    venue: str
    coin: str
    time_ms: int
    size: str
    sent_at: float | None

    @property
    def identity(self) -> tuple[str, str, int, float]:
        """What must come back from the table."""
        return self.venue, self.coin, self.time_ms, float(self.size)


@dataclass
class Load:
    """What the venue does until told otherwise. drop_seconds: every so often the connections go."""

    per_second: float = 0.0
    drop_seconds: float | None = None


@dataclass
class _State:
    load: Load = field(default_factory=Load)
    burst: int = 0
    ledger: list[Happened] = field(default_factory=list)
    connections: dict[str, set[ServerConnection]] = field(default_factory=lambda: {venue: set() for venue in SHARES})
    drops: int = 0
    number: int = 0
    okx_list: dict[str, deque[Any]] = field(default_factory=lambda: {coin: deque(maxlen=OKX_PAGE) for coin in COINS})


class Venues:
    """The handle on the process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs,), daemon=True)
        self._process.start()
        self.port: int = self._pipe.recv()

    def load(self, per_second: float, drop_seconds: float | None = None) -> None:
        """Let so many liquidations happen a second, over all venues."""
        self._ask("load", Load(per_second, drop_seconds))

    def burst(self, count: int) -> None:
        """So many more at once, at Bybit."""
        self._ask("burst", count)

    def listeners(self) -> dict[str, int]:
        """Confirmed subscriptions per venue."""
        found: dict[str, int] = self._ask("listeners", None)
        return found

    def ledger(self) -> list[Happened]:
        """All that happened since the last call."""
        found: list[Happened] = self._ask("ledger", None)
        return found

    def drops(self) -> int:
        """Connections that were dropped so far."""
        found: int = self._ask("drops", None)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join(5)

    def environment(self) -> dict[str, str]:
        """LIQ_<VENUE>_URL and LIQ_<VENUE>_WS_URL."""
        urls = {f"LIQ_{venue.upper()}_URL": f"http://127.0.0.1:{self.port}/{venue}" for venue in SHARES}
        return urls | {f"LIQ_{venue.upper()}_WS_URL": f"ws://127.0.0.1:{self.port}/{venue}" for venue in SHARES}

    def _ask(self, what: str, value: Any) -> Any:
        self._pipe.send((what, value))
        return self._pipe.recv()


def _run(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    state = _State()

    async def handle(connection: ServerConnection) -> None:
        path = connection.request.path if connection.request is not None else ""
        venue = path.split("/")[1]
        try:
            async for received in connection:
                if "ubscribe" in str(received) or "SUBSCRIBE" in str(received):
                    # First it counts, then it is confirmed: what a venue confirms, it serves.
                    state.connections[venue].add(connection)
                    await connection.send(_CONFIRMATION[venue])
                elif "ping" in str(received):
                    await connection.send("pong")
        except ConnectionClosed:
            pass
        finally:
            state.connections[venue].discard(connection)

    def answer_http(_: ServerConnection, request: Request) -> Response | None:
        return None if request.headers.get("Upgrade") else _rest(state, request.path)

    async with serve(
        handle, "127.0.0.1", 0, process_request=answer_http, ping_interval=None, compression=None
    ) as server:
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.gather(_happen(state), _obey(state, pipe))


async def _obey(state: _State, pipe: Connection) -> None:
    while True:
        while not pipe.poll():
            await asyncio.sleep(0.01)
        what, value = pipe.recv()
        answer: Any = None
        if what == "load":
            state.load = value
        elif what == "burst":
            state.burst += value
        elif what == "listeners":
            answer = {venue: len(listening) for venue, listening in state.connections.items()}
        elif what == "drops":
            answer = state.drops
        elif what == "ledger":
            answer, state.ledger = state.ledger, []
        pipe.send(answer)


async def _happen(state: _State) -> None:
    """One push after the other, at the rate asked for; what is late is made up for."""
    due = dict.fromkeys(SHARES, 0.0)
    before = time.monotonic()
    dropped_at = before
    while True:
        await asyncio.sleep(PUSH_SECONDS)
        now = time.monotonic()
        for venue, share in SHARES.items():
            due[venue] += state.load.per_second * share * (now - before)
            count = int(due[venue])
            due[venue] -= count
            if venue == "bybit":
                count, state.burst = count + state.burst, 0
            await _push(state, venue, count)
        before = now
        if state.load.drop_seconds is not None and now - dropped_at > state.load.drop_seconds:
            dropped_at = now
            await _drop(state)


async def _drop(state: _State) -> None:
    """By turns with a farewell and without one; what was written before still arrives (FIN, no reset)."""
    for listening in state.connections.values():
        for connection in list(listening):
            state.drops += 1
            listening.discard(connection)
            if state.drops % 2:
                await connection.close()
            else:
                connection.transport.close()


async def _push(state: _State, venue: str, count: int) -> None:
    made = []
    for _ in range(count):
        state.number += 1
        coin = COINS[state.number % len(COINS)]
        made.append((coin, int(time.time() * 1000), f"{state.number / 1000:.3f}", state.number % 2 == 0))
    sent_at = None
    for message in _MESSAGES[venue](made):
        for connection in list(state.connections[venue]):
            try:
                await connection.send(message)
            except ConnectionClosed:
                state.connections[venue].discard(connection)
    if state.connections[venue]:
        sent_at = time.time()
    if venue == "okx":
        for event in made:
            state.okx_list[event[0]].append(_detail(event))
    state.ledger += [Happened(venue, coin, moment, size, sent_at) for coin, moment, size, _ in made]


_Made = list[tuple[str, int, str, bool]]
"""(coin, time in ms, size in coins, whether a long was liquidated)"""


def _bybit(made: _Made) -> Iterator[str]:
    """One message per symbol; S is the position's side."""
    for coin in COINS:
        own = [
            {"T": moment, "s": f"{coin}USDT", "S": "Buy" if is_long else "Sell", "v": size, "p": f"{PRICE:.2f}"}
            for of, moment, size, is_long in made
            if of == coin
        ]
        if own:
            topic = f"allLiquidation.{coin}USDT"
            yield json.dumps({"topic": topic, "type": "snapshot", "ts": own[-1]["T"], "data": own})


def _binance(made: _Made) -> Iterator[str]:
    """One message per order; S is the order's side, z all its fills, ap their average price."""
    for coin, moment, size, is_long in made:
        side = "SELL" if is_long else "BUY"
        order: dict[str, Any] = {"s": f"{coin}USDT", "S": side, "o": "LIMIT", "f": "IOC", "q": size, "p": "99.00"}
        order |= {"ap": f"{PRICE:.2f}", "X": "FILLED", "l": "0.001", "z": size, "T": moment}
        yield json.dumps({"e": "forceOrder", "E": moment + 3, "o": order})


def _okx(made: _Made) -> Iterator[str]:
    """Several details per message; sz is in contracts (of 0.001 coins here)."""
    for coin in COINS:
        own = [_detail(event) for event in made if event[0] == coin]
        for start in range(0, len(own), OKX_DETAILS):
            names = {"instFamily": f"{coin}-USDT", "instId": f"{coin}-USDT-SWAP", "uly": f"{coin}-USDT"}
            data = [{"instType": "SWAP", **names, "details": own[start : start + OKX_DETAILS]}]
            yield json.dumps({"arg": {"channel": "liquidation-orders", "instType": "SWAP"}, "data": data})


def _detail(event: tuple[str, int, str, bool]) -> dict[str, str]:
    _, moment, size, is_long = event
    sides = {"side": "sell", "posSide": "long"} if is_long else {"side": "buy", "posSide": "short"}
    contracts = str(round(float(size) * 1000))
    return {**sides, "bkPx": f"{PRICE:.2f}", "bkLoss": "0", "sz": contracts, "ccy": "", "ts": str(moment)}


_MESSAGES: dict[str, Callable[[_Made], Iterator[str]]] = {"bybit": _bybit, "binance": _binance, "okx": _okx}
_CONFIRMATION = {
    "bybit": '{"success":true,"ret_msg":"","conn_id":"local","op":"subscribe"}',
    "binance": '{"result":null,"id":1}',
    "okx": '{"event":"subscribe","arg":{"channel":"liquidation-orders","instType":"SWAP"},"connId":"local"}',
}


def _rest(state: _State, path: str) -> Response:
    """The lists of instruments, and OKX's list of its newest liquidations; nothing else is served by REST."""
    name, _, query = path.partition("?")
    body = _LISTS.get(name)
    if name == "/okx/api/v5/public/liquidation-orders":
        coin = dict(parse_qsl(query))["instFamily"].removesuffix("-USDT")
        newest_first = list(reversed(state.okx_list[coin]))
        body = {"code": "0", "data": [{"instId": f"{coin}-USDT-SWAP", "details": newest_first}]}
    status = HTTPStatus.NOT_FOUND if body is None else HTTPStatus.OK
    content = json.dumps(body if body is not None else {"error": "not served"}).encode()
    headers = Headers([("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
    return Response(status.value, status.phrase, headers, content)


_LISTS: dict[str, Any] = {
    "/bybit/v5/market/instruments-info": {
        "retCode": 0,
        "result": {
            "list": [
                {
                    "symbol": f"{coin}USDT",
                    "contractType": "LinearPerpetual",
                    "status": "Trading",
                    "baseCoin": coin,
                    "quoteCoin": "USDT",
                    "fundingInterval": 480,
                }
                for coin in COINS
            ]
        },
    },
    "/binance/fapi/v1/exchangeInfo": {
        "symbols": [
            {
                "symbol": f"{coin}USDT",
                "contractType": "PERPETUAL",
                "status": "TRADING",
                "baseAsset": coin,
                "quoteAsset": "USDT",
            }
            for coin in COINS
        ]
    },
    "/binance/fapi/v1/fundingInfo": [],
    "/okx/api/v5/public/instruments": {
        "code": "0",
        "data": [
            {
                "instId": f"{coin}-USDT-SWAP",
                "ctType": "linear",
                "ctVal": "0.001",
                "ctMult": "1",
                "ctValCcy": coin,
                "settleCcy": "USDT",
                "state": "live",
            }
            for coin in COINS
        ],
    },
}
