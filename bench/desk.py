"""The desk on 90 days of 50 symbols: first page, API under 20 readers, 200 event streams, memory, weight.

Belongs here: measuring `liq serve` as a process. Does not: anything that the product needs.

The data are those of `bench queries` (--keep leaves them in build/bench-queries for both). A point is committed as the
tick does it, one transaction of all symbols; the time of a stream is from that commit to the event in its socket.

Options: --days=N, --symbols=N, --keep, --streams=N, --readers=N, --seconds=N.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import itertools
import os
import random
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bench.queries import load, server
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.store.connection import connect
from liq_pipeline.store.schema.migrations import migrate

STEP = timedelta(minutes=1)


@contextmanager
def serving(url: str) -> Iterator[tuple[int, psutil.Process]]:
    """`liq serve` on a free port."""
    port = free_port()
    home = tempfile.mkdtemp(prefix="liq-bench-desk-")
    environment = os.environ | {
        "LIQ_HOME": home, "LIQ_DATABASE_URL": url, "LIQ_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }  # fmt: skip
    command = [sys.executable, "-m", "liq_pipeline.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                if fetch(port, "/healthz")[0] == 200:
                    break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit("the desk did not answer within 180 s: is the machine busy?") from None
                time.sleep(0.05)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def fetch(port: int, path: str, connection: http.client.HTTPConnection | None = None) -> tuple[int, bytes, float]:
    """(status, bytes on the wire, seconds)."""
    own = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    begun = time.perf_counter()
    own.request("GET", path, headers={"Accept-Encoding": "gzip"})
    answer = own.getresponse()
    body = answer.read()
    took = time.perf_counter() - begun
    if connection is None:
        own.close()
    return answer.status, body, took


def page_weight(port: int, path: str) -> tuple[int, float]:
    """(bytes of the page with its files, seconds of the page itself), as a browser without a cache loads it."""
    _, body, seconds = fetch(port, path)
    text = (gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body).decode()
    files = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', text))
    return len(body) + sum(len(fetch(port, file)[1]) for file in files), seconds


def api_paths(symbols: list[str], end: datetime) -> Iterator[str]:
    """Questions of every kind, of all symbols and spans: most of them are asked for the first time."""
    chance = random.Random(7)
    kinds = ("risk", "prices", "open-interest", "funding", "long-short", "liquidations")
    plain = ("/symbols", "/signals", "/alerts", "/alerts?state=open", "/world", "/flows", "/health/gaps", "/verdicts")
    for number in itertools.count():
        if number % 3 == 0:
            yield f"/api/v1{chance.choice(plain)}"
            continue
        symbol = chance.choice(symbols)
        if number % 3 == 1:
            yield f"/api/v1/symbols/{symbol}/{chance.choice(('signals', 'scores', ''))}".rstrip("/")
            continue
        last = end - timedelta(minutes=chance.randrange(600))
        first = last - chance.choice((timedelta(hours=6), timedelta(days=1), timedelta(days=7), timedelta(days=90)))
        yield (
            f"/api/v1/symbols/{symbol}/{chance.choice(kinds)}?from={first:%Y-%m-%dT%H:%M}Z&to={last:%Y-%m-%dT%H:%M}Z"
        )


def readers(port: int, paths: Iterator[str], count: int, seconds: float) -> dict[str, list[float]]:
    """kind of question -> ms of each answer, asked by `count` readers at once, one after the other each."""
    lock, times = threading.Lock(), {}  # type: ignore[var-annotated]
    until = time.monotonic() + seconds

    def read() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while time.monotonic() < until:
            with lock:
                path = next(paths)
            status, _, took = fetch(port, path, connection)
            assert status == 200, (path, status)
            kind = re.sub(r"/symbols/[^/?]+", "/symbols/{symbol}", path.partition("?")[0])
            with lock:
                times.setdefault(kind, []).append(took * 1000)

    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def commit_point(conn: Any, end: datetime, at: datetime) -> float:
    """One more point of all symbols and its tick; the monotonic time of the commit."""
    for table in ("signals", "liquidation_risk"):
        columns = [
            row[0]
            for row in conn.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
                " AND column_name NOT IN ('time', 'created_at')",
                [table],
            )
        ]
        names = ", ".join(columns)
        statement = (
            f"INSERT INTO {table} (time, {names}) SELECT %s, {names} FROM {table} WHERE world = 'real' AND time = %s"  # noqa: S608
        )
        conn.execute(statement.encode(), [at, end])
    conn.execute(
        "INSERT INTO ticks (world, stream, time, cut, started_at, rows_landed)"
        " VALUES ('real', 'market', %s, '{}', now(), 0)",
        [at],
    )
    conn.commit()
    return time.monotonic()


def streams(
    port: int, url: str, end: datetime, count: int, points: int, process: psutil.Process
) -> tuple[list[float], float]:
    """(seconds from each commit to each stream's event, share of one core that the process took meanwhile)."""
    selector, sockets = selectors.DefaultSelector(), []
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        selector.register(one, selectors.EVENT_READ)
        sockets.append(one)
    _drain(selector, 3.0)
    delays: list[float] = []
    before, begun = sum(process.cpu_times()[:2]), time.monotonic()
    with connect(url) as conn:
        # After what an earlier run on the kept data has committed.
        newest = conn.execute("SELECT max(time) FROM ticks WHERE world = 'real' AND stream = 'market'").fetchone()
        newest_at = max(end, newest[0]) if newest and newest[0] else end
        for number in range(1, points + 1):
            at = newest_at + number * timedelta(seconds=10)
            mark = f'"as_of":"{at:%Y-%m-%dT%H:%M:%SZ}"'.encode()
            committed = commit_point(conn, end, at)
            waiting, seen = set(sockets), dict.fromkeys(sockets, b"")
            while waiting and time.monotonic() < committed + 10:
                for key, _ in selector.select(0.5):
                    one: Any = key.fileobj
                    seen[one] = seen[one][-200:] + one.recv(262_144)
                    if one in waiting and mark in seen[one]:
                        waiting.discard(one)
                        delays.append(time.monotonic() - committed)
            assert not waiting, f"{len(waiting)} streams did not get the point"
            _drain(selector, max(committed + 10 - time.monotonic(), 0))
    share = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - begun)
    for one in sockets:
        one.close()
    return delays, share


def _drain(selector: selectors.BaseSelector, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for key, _ in selector.select(0.2):
            key.fileobj.recv(262_144)  # type: ignore[union-attr]


def p95(values: list[float]) -> float:
    """Of a list that need not be sorted."""
    return sorted(values)[min(int(len(values) * 0.95), len(values) - 1)]


def main(arguments: list[str]) -> None:
    """Load (or reuse), serve, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench desk", description=__doc__)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args(arguments)
    end = datetime(2026, 6, 1, tzinfo=UTC) - STEP
    symbols = [f"COIN{number:02d}" for number in range(options.symbols)]
    console = Console(width=150)
    with server(options.keep) as (postgres, there):
        url = postgres.ensure_database("liq")
        migrate(url)
        if not there:
            load(url, end, options.days, symbols, STEP)
            Path(postgres.directory.parent / "loaded").touch()
        with serving(url) as (port, process):
            begun = time.perf_counter()
            fetch(port, "/")
            console.print(f"first page, nothing remembered: {time.perf_counter() - begun:.3f} s")
            for path in ("/", f"/symbols/{symbols[0]}", "/flows", "/alerts", "/quality", "/health", "/api"):
                weight, seconds = page_weight(port, path)
                console.print(f"{path}: {weight / 1000:.0f} kB with its files, {seconds * 1000:.0f} ms")
            times = readers(port, api_paths(symbols, end), options.readers, options.seconds)
            every = [one for values in times.values() for one in values]
            console.print(
                f"{options.readers} readers: {len(every) / options.seconds:.0f} answers/s,"
                f" p50 {statistics.median(every):.1f} ms, p95 {p95(every):.1f} ms, most {max(every):.0f} ms"
            )
            for kind, values in sorted(times.items(), key=lambda item: -p95(item[1])):
                console.print(f"  {kind}: p95 {p95(values):.1f} ms of {len(values)}", highlight=False)
            delays, share = streams(port, url, end, options.streams, 6, process)
            console.print(
                f"{options.streams} streams: commit to event p50 {statistics.median(delays):.2f} s,"
                f" most {max(delays):.2f} s; {share:.1%} of one core at a point every 10 s"
            )
            console.print(f"memory of the process: {process.memory_info().rss / 1e6:.0f} MB")
