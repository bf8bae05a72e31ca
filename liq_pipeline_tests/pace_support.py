"""Every polled venue with fifty coins, slow to answer, in a process of its own.

Belongs here: what test_live_pace.py and bench/pace.py share. Does not: assertions, measuring.

Answers are the venues' frames (frames/<source>.json) with each coin in BTC's place: a list gets the row once per coin,
an endpoint of one coin that coin's name. So an answer is as large, and as much work, as fifty coins make it.
"""

from __future__ import annotations

import json
import multiprocessing
import re
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any

from liq_pipeline.sources.registry import SOURCES
from liq_pipeline_tests.live_support import Reply, VenueServer

COINS = tuple(f"C{number:02d}" for number in range(50))
POLLED = tuple(name for name, source in SOURCES.items() if source.feeds and name != "coingecko")
_COIN = re.compile("|".join(COINS))
_BTC = {"kraken_futures": "XBT"}


class SlowVenues:
    """The handle on the process. Leaving the context ends it."""

    def __init__(self, delay_seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, delay_seconds), daemon=True)
        self._process.start()
        self._port: int = self._pipe.recv()

    def urls(self) -> dict[str, str]:
        """For SourceSettings(urls=...). CoinGecko answers 404: it does not belong to the pace of the venues."""
        return {name: f"http://127.0.0.1:{self._port}/{name}" for name in (*POLLED, "coingecko")}

    def counts(self) -> Counter[str]:
        """Requests seen since the last call, per source."""
        self._pipe.send("counts")
        found: Counter[str] = self._pipe.recv()
        return found

    def __enter__(self) -> SlowVenues:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(5)


def _serve(pipe: Connection, delay_seconds: float) -> None:
    server = VenueServer()
    for name in POLLED:
        server.serve(name)
    cache: dict[tuple[str, str, str], bytes] = {}

    def answer(source: str, path: str, query: dict[str, str]) -> Reply:
        if source not in POLLED:
            return Reply({"error": "coin not found"}, status=404)
        key = source, path, json.dumps(query, sort_keys=True)
        if key not in cache:
            cache[key] = json.dumps(_answer(server, source, path, query)).encode()
        return Reply(cache[key], delay_seconds=delay_seconds)

    server.fault = answer
    pipe.send(server.port)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        asked, server.asked = server.asked, []
        pipe.send(Counter(request.source for request in asked))


def _answer(server: VenueServer, source: str, path: str, query: dict[str, str]) -> Any:
    btc = _BTC.get(source, "BTC")
    named = _COIN.search(path + json.dumps(query))
    if named is not None:
        path, query = path.replace(named[0], btc), {name: value.replace(named[0], btc) for name, value in query.items()}
    body = json.loads(query.get("body", "null"))
    frame = server.answer(source, path, query, body.get("type") if isinstance(body, dict) else None).body
    if named is not None:
        return json.loads(json.dumps(frame).replace(btc, named[0]))
    expanded = _for_every_coin(frame, btc)
    if source == "hyperliquid" and isinstance(expanded, list):
        expanded[1] = [expanded[1][0]] * len(COINS)  # told apart by their place alone
    return expanded


def _for_every_coin(value: Any, btc: str) -> Any:
    """Rows and keys that speak of BTC, once per coin; rows of other coins go."""
    if isinstance(value, list):
        rows = [row for row in value if isinstance(row, dict) and btc in json.dumps(row) and "universe" not in row]
        if not rows:
            return [_for_every_coin(row, btc) for row in value]
        return [json.loads(json.dumps(row).replace(btc, coin)) for row in rows for coin in COINS]
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for key, inner in value.items():
            if btc in key:
                found |= {key.replace(btc, coin): json.loads(json.dumps(inner).replace(btc, coin)) for coin in COINS}
            else:
                found[key] = _for_every_coin(inner, btc)
        return found
    return value
