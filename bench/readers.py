"""Whether ticks keep their pace while the desk is read: the same deployment without readers, with them, without again.

Belongs here: measuring. Does not: anything that the product needs.

The simulated market at real time on the embedded servers and the warm launcher, as they ship, with `liq serve` beside
them. Readers are threads that ask the desk's API (questions of `bench desk`) and rest --rest seconds between two; the
streams listen. Ticks are timed as in `bench ticks`, from the sensor's decision to committed scores.

Options: --symbols=N, --ticks=N, --readers=N, --streams=N, --rest=SECONDS (0: as fast as they are answered).
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench.desk import api_paths, fetch, p95, serving
from bench.ticks import Deployment, line, measure, symbol_names
from liq_pipeline.runtime.home import Home


@contextmanager
def reading(port: int, symbols: list[str], readers: int, streams: int, rest: float) -> Iterator[list[float]]:
    """Yields the ms of the answers, which grow while it lasts."""
    over, lock, took = threading.Event(), threading.Lock(), []  # type: ignore[var-annotated]
    paths = api_paths(symbols, datetime.now(UTC).replace(microsecond=0))

    def read() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not over.is_set():
            with lock:
                path = next(paths)
            try:
                status, _, seconds = fetch(port, path, connection)
            except (OSError, http.client.HTTPException):
                connection.close()
                continue
            if status == 200:
                took.append(seconds * 1000)
            over.wait(rest)

    def listen() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
            one.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            while not over.is_set():
                try:
                    if not one.recv(262_144):
                        return
                except TimeoutError:
                    continue

    threads = [threading.Thread(target=read) for _ in range(readers)]
    threads += [threading.Thread(target=listen) for _ in range(streams)]
    for thread in threads:
        thread.start()
    try:
        yield took
    finally:
        over.set()
        for thread in threads:
            thread.join()


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench readers", description=__doc__)
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--ticks", type=int, default=30)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--streams", type=int, default=40)
    parser.add_argument("--rest", type=float, default=1.0)
    options, _ = parser.parse_known_args(arguments)
    symbols = symbol_names(options.symbols)
    with ExitStack() as exits:
        folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="liq-bench-"))
        Path(folder).chmod(0o711)
        deployment = Deployment(Home(Path(folder)), options.symbols)
        exits.callback(deployment.stop)
        deployment.start()
        port, process = exits.enter_context(serving(deployment.url))
        print(f"{options.symbols} symbols, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)

        def ticks(title: str) -> float:
            figures = measure(deployment, options.ticks, stock=False, patience_seconds=900)
            times = [tick.to_scores for tick in figures.ticks]
            print(line(title, times), flush=True)
            return p95(times)

        before = ticks("without readers")
        cpu, begun = sum(process.cpu_times()[:2]), time.monotonic()
        with reading(port, symbols, options.readers, options.streams, options.rest) as took:
            during = ticks(f"{options.readers} readers, {options.streams} streams")
        share = (sum(process.cpu_times()[:2]) - cpu) / (time.monotonic() - begun)
        after = ticks("without readers again")
        print(
            f"  answers p50 {statistics.median(took):.0f} ms, p95 {p95(took):.0f} ms of {len(took)};"
            f" the desk took {share:.0%} of one core, {process.memory_info().rss / 1e6:.0f} MB"
        )
        print(f"  p95 of the ticks with readers over without: {during / ((before + after) / 2):.2f}")
