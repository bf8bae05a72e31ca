"""A busy Tron through the whole path, an hour of it caught up, and what several chains cost a tick.

Belongs here: measuring. Does not: anything that the product needs.

A process of its own plays a Tron node: a block every 3 s, 100 USDT transfers a second, of which one in ten touches a
labelled wallet, one in a hundred is large, and one in ten is poisoning. Polls, Kafka, landing and PostgreSQL are as in
`liq up`; the poller's process also lands, so its CPU is that of reading, decoding, sending and landing.

* reading: the CPU of decoding, filtering and encoding alone, of some minutes, as of an hour.
* busy: `--minutes` of it as time goes by, polled every 15 s: rows against those that were crafted, age of the newest
  heartbeat at each poll, calls against the node's budget, CPU, memory.
* catch-up: an hour that has passed, from a cold start to the head: CPU and memory of it.
* tick: the pressure of one point from rows that lie on one chain, the same number spread over four, and four times as
  many on four. The baseline is the one chain.

    python -m bench chains --minutes=10
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import psutil
from pydantic import SecretStr

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.codec import encode
from liq_pipeline.domain.chains import CHAINS, TRON
from liq_pipeline.domain.tron_address import base58_of, hex_of
from liq_pipeline.domain.wallets import shipped_labels
from liq_pipeline.domain.worlds import Expectation, Manifest, World
from liq_pipeline.pipeline.points import KeptLookback, score_flows
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.access.http import Answer, HttpClient, Request
from liq_pipeline.sources.chain import wallet_lists
from liq_pipeline.sources.chain.ethereum import TRANSFER_TOPIC
from liq_pipeline.sources.chain.ethereum_rpc import RpcReader
from liq_pipeline.sources.chain.following import records_of
from liq_pipeline.sources.polling.round import poll_due
from liq_pipeline.store.connection import connect
from liq_pipeline.store.inputs.expected_sources import scope_of
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline.store.schema.migrations import migrate

PER_SECOND: Final = 100
BLOCK_SECONDS: Final = 3
POLL_SECONDS: Final = 15.0
FIRST_BLOCK: Final = 80_000_000
ROUNDS: Final = 15
CONTRACT: Final = hex_of(TRON.tokens[0].contract)


class Node:
    """The chain from a start on: block n comes 3 s after block n - 1. Blocks are made of their numbers alone."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.wallets = [hex_of(label.address) for label in shipped_labels() if label.chain == TRON.name]

    def head(self) -> int:
        return FIRST_BLOCK + int((time.time() - self.started) // BLOCK_SECONDS)

    def transfers(self, number: int) -> list[tuple[str, str, int]]:
        """(from, to, millionths) of a block."""
        chance = random.Random(number)
        found = []
        for _ in range(PER_SECOND * BLOCK_SECONDS):
            sender, receiver = (f"0x{chance.getrandbits(160):040x}" for _ in range(2))
            raw = chance.randrange(1_000_000, 5_000_000_000)
            kind = chance.random()
            if kind < 0.1:
                exchange = chance.choice(self.wallets)
                sender, receiver = (exchange, receiver) if kind < 0.05 else (sender, exchange)
            elif kind < 0.11:
                raw = chance.randrange(100_000_000_000, 1_000_000_000_000)
            elif kind < 0.21:
                raw = chance.choice((0, 1_000))
            found.append((sender, receiver, raw))
        return found

    def kept(self, number: int) -> int:
        """How many of a block's transfers are to be stored."""
        wallets = set(self.wallets)
        return sum(
            raw >= 1_000_000 and (raw >= 100_000_000_000 or bool({sender, receiver} & wallets))
            for sender, receiver, raw in self.transfers(number)
        )

    def header(self, number: int) -> dict[str, str]:
        stamp = int(self.started) + (number - FIRST_BLOCK) * BLOCK_SECONDS
        return {"number": hex(number), "hash": f"0x{number:064x}", "timestamp": hex(stamp)}

    def logs(self, number: int) -> list[dict[str, Any]]:
        header = self.header(number)
        return [
            {
                "address": CONTRACT,
                "topics": [TRANSFER_TOPIC, *("0x" + "0" * 24 + address[2:] for address in (sender, receiver))],
                "data": f"0x{raw:064x}",
                "blockNumber": header["number"],
                "blockHash": header["hash"],
                "logIndex": hex(index),
                "transactionHash": f"0x{number:056x}{index:08x}",
                "removed": False,
            }
            for index, (sender, receiver, raw) in enumerate(self.transfers(number))
        ]


def serve(node: Node, port: int) -> None:
    """The node, until the process is ended. What has passed is made before it answers."""
    made: dict[int, str] = {number: json.dumps(node.logs(number))[1:-1] for number in range(FIRST_BLOCK, node.head())}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are two writes: Nagle would hold the second 40 ms for the client's delayed ACK.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            many = asked if isinstance(asked, list) else [asked]
            answers = [f'{{"id": {json.dumps(one["id"])}, "result": {self.result(one)}}}' for one in many]
            body = (f"[{','.join(answers)}]" if isinstance(asked, list) else answers[0]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def result(self, asked: Any) -> str:
            if asked["method"] == "eth_blockNumber":
                return json.dumps(hex(node.head()))
            if asked["method"] == "eth_getBlockByNumber":
                return json.dumps(node.header(int(asked["params"][0], 16)))
            first, last = (int(asked["params"][0][name], 16) for name in ("fromBlock", "toBlock"))
            parts = []
            for number in range(first, min(last, node.head()) + 1):
                if number not in made:
                    made[number] = json.dumps(node.logs(number))[1:-1]
                parts.append(made[number])
            return f"[{','.join(part for part in parts if part)}]"

        def log_message(self, *_arguments: Any) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_arguments: Any) -> None:
            """Who asked has given up."""

    Server(("127.0.0.1", port), Handler).serve_forever()


@contextmanager
def playing(started: float) -> Iterator[tuple[Node, str]]:
    """The node in a process of its own, and its address."""
    node, port = Node(started), free_port()
    process = multiprocessing.get_context("fork").Process(target=serve, args=(node, port), daemon=True)
    process.start()
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.2)
    try:
        yield node, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.join()


class FromMemory(HttpClient):
    """Answers of the node without a network, decoded as the real client decodes them."""

    def __init__(self, node: Node) -> None:
        super().__init__("tron_rpc", "", request_seconds=1.0)
        self._node = node
        self.made: dict[str, bytes] = {}

    def ask(self, request: Request, **_how: Any) -> Answer:
        body = request.body
        if isinstance(body, list):
            raw = json.dumps([{"id": one["id"], "result": self._node.header(one["id"])} for one in body]).encode()
        else:
            raw = self.made[body["params"][0]["fromBlock"]]
        now = datetime.now(UTC)
        return Answer(msgspec.json.decode(raw), raw, now, now)


def reading(blocks: int = 240) -> None:
    """What an hour costs to decode, filter and encode, from some blocks of it; without network, Kafka and database."""
    node = Node(time.time() - 3600)
    source = FromMemory(node)
    spans = [
        (first, first + TRON.chunk_blocks - 1) for first in range(FIRST_BLOCK, FIRST_BLOCK + blocks, TRON.chunk_blocks)
    ]
    for first, last in spans:
        rows = [row for number in range(first, last + 1) for row in node.logs(number)]
        source.made[hex(first)] = json.dumps({"result": rows}).encode()
    reader = RpcReader(source, lambda _costs: None, None, TRON)
    labels = wallet_lists.LabelList("bench", shipped_labels(), TRON.name)
    knobs, transfers, kept = SourceSettings(), 0, 0
    begun = time.process_time()
    for first, last in spans:
        chunk = reader.read(TRON.tokens, first, last)
        records = records_of(chunk, labels, knobs, reader.name, TRON)
        for record in records:
            encode(record)
        transfers, kept = transfers + len(chunk.transfers), kept + len(records)
    seconds = time.process_time() - begun
    hour = PER_SECOND * 3600
    print(
        f"reading: {transfers:,} transfers, {kept:,} kept: CPU {seconds:.2f} s; an hour of {hour:,}:"
        f" {seconds * hour / transfers:.1f} s",
        flush=True,
    )


def settings_for(url: str, prefix: str, lookback_blocks: int, round_seconds: float) -> Settings:
    """An installation that follows Tron alone; its only other venue does not answer."""
    return Settings(
        mode="live",
        symbols=("BTC",),
        venues=("dydx",),
        kafka_topic_prefix=prefix,
        flow_chains=("tron",),
        tron_rpc_url=SecretStr(url),
        sources=SourceSettings(
            urls=dict.fromkeys(("dydx", "coingecko"), "http://127.0.0.1:9"),
            flow_lookback_blocks=lookback_blocks,
            round_seconds=round_seconds,
            request_seconds=round_seconds * 2 / 3,
        ),
    )


class Poller:
    """Polls and lands, and keeps the figures of it."""

    def __init__(self, settings: Settings, url: str, kafka: str) -> None:
        self._settings, self._url, self._kafka = settings, url, kafka
        self._process = psutil.Process()
        self.seconds: list[float] = []
        self.ages: list[float] = []
        self.memory_mb = 0.0
        self.cpu_before = sum(self._process.cpu_times()[:2])

    @property
    def cpu_seconds(self) -> float:
        return sum(self._process.cpu_times()[:2]) - self.cpu_before

    def poll(self) -> None:
        begun = time.monotonic()
        now = datetime.now(UTC)
        with connect(self._url) as conn:
            conn.execute("UPDATE poll_state SET next_due = %s WHERE source = 'tron_rpc'", [now])
        result = poll_due(self._url, self._kafka, self._settings, now)
        if "tron_rpc" in result.failures:
            print(f"  a poll failed: {result.failures['tron_rpc']}")
        with Lander(self._url, self._kafka, self._settings.kafka_topic_prefix, consumer="landing") as lander:
            lander.land_to_end(30.0)
        self.seconds.append(time.monotonic() - begun)
        self.memory_mb = max(self.memory_mb, self._process.memory_info().rss / 1e6)
        with connect(self._url) as conn:
            row = conn.execute("SELECT max(event_time) FROM heartbeats WHERE venue = 'tron_rpc'").fetchone()
        if row and row[0] is not None:
            self.ages.append((datetime.now(UTC) - row[0]).total_seconds())

    def read_to(self) -> int:
        with connect(self._url) as conn:
            row = conn.execute("SELECT max(block_number) FROM chain_blocks WHERE chain = 'tron'").fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def stored(self) -> int:
        with connect(self._url) as conn:
            row = conn.execute("SELECT count(*) FROM stablecoin_flows WHERE chain = 'tron'").fetchone()
        return int(row[0]) if row else 0


def busy(url: str, kafka: str, minutes: float, round_seconds: float) -> None:
    """As time goes by."""
    with playing(time.time() - 60) as (node, address):
        first = FIRST_BLOCK
        settings = settings_for(address, "busy.", 5, round_seconds)  # a minute back
        ensure_topics(kafka, settings.kafka_topic_prefix)
        poller = Poller(settings, url, kafka)
        until = time.monotonic() + minutes * 60
        while time.monotonic() < until:
            begun = time.monotonic()
            poller.poll()
            time.sleep(max(0.0, POLL_SECONDS - (time.monotonic() - begun)))
        poller.poll()
        last = poller.read_to()
        with connect(url) as conn:
            row = conn.execute("SELECT min(block_number) FROM chain_blocks WHERE chain = 'tron'").fetchone()
        first = int(row[0]) if row else first
        expected = sum(node.kept(number) for number in range(first, last + 1))
        print(
            f"busy: {minutes:g} min of {PER_SECOND} transfers a second, {last - first + 1} blocks;"
            f" {poller.stored():,} rows stored of {expected:,} crafted to be kept;"
            f" head missed by {node.head() - last} blocks at the end"
        )
        later = poller.ages[1:] or poller.ages
        print(
            f"  a round with landing {statistics.median(poller.seconds):.2f} s (max {max(poller.seconds):.2f}),"
            f" newest heartbeat {statistics.median(later):.1f} s old after it (max {max(later):.1f}),"
            f" CPU {poller.cpu_seconds / (minutes * 60):.1%} of a core, memory {poller.memory_mb:.0f} MB at most"
        )


def catch_up(url: str, kafka: str, round_seconds: float) -> None:
    """An hour from a cold start."""
    with playing(time.time() - 3600) as (node, address):
        settings = settings_for(address, "past.", 300, round_seconds)  # an hour of Ethereum's blocks
        ensure_topics(kafka, settings.kafka_topic_prefix)
        with connect(url) as conn:
            conn.execute("DELETE FROM chain_blocks")
            conn.execute("DELETE FROM stablecoin_flows")
        poller = Poller(settings, url, kafka)
        begun = time.monotonic()
        while poller.read_to() < node.head() - 2:
            poller.poll()
        seconds = time.monotonic() - begun
        last = poller.read_to()
        with connect(url) as conn:
            row = conn.execute("SELECT min(block_number) FROM stablecoin_flows").fetchone()
        first = int(row[0]) if row else 0
        expected = sum(node.kept(number) for number in range(first, last + 1))
        print(
            f"catch-up: {last - first + 1} blocks, {(last - first + 1) * PER_SECOND * BLOCK_SECONDS:,} transfers,"
            f" {poller.stored():,} rows of {expected:,}: CPU {poller.cpu_seconds:.1f} s, {seconds:.1f} s by the clock"
            f" in {len(poller.seconds)} rounds, memory {poller.memory_mb:.0f} MB at most",
            flush=True,
        )


def tick(url: str, rows: int) -> None:
    """The pressure of one point."""
    figures: dict[str, list[float]] = {}
    cases = {"one chain": (1, rows), "four chains": (4, rows), "four chains, four times the rows": (4, 4 * rows)}
    scopes = {}
    now = datetime.now(UTC).replace(microsecond=0)
    settings = Settings()
    with connect(url) as conn:
        wallet_lists.ensure_shipped(conn, now - timedelta(days=1))
        conn.commit()
        for number, (name, (chains, count)) in enumerate(cases.items()):
            world = f"simulated/{number}"
            names = list(CHAINS)[:chains]
            venues = tuple(f"{chain}_rpc" for chain in names)
            for chain, venue in zip(names, venues, strict=True):
                wallet = next(label.address for label in shipped_labels() if label.chain == chain)
                user = base58_of("11" * 20) if chain == TRON.name else "0x" + "11" * 20
                conn.execute(
                    """
                    INSERT INTO stablecoin_flows (world, chain, token, tx_hash, log_index, block_hash, event_time,
                        block_number, is_canonical, from_address, to_address, amount, direction, label_version, venue,
                        origin, event_time_source, received_at, known_at, kafka_cluster, kafka_partition, kafka_offset)
                    SELECT %(world)s, %(chain)s, CASE WHEN n %% 3 = 0 THEN 'USDC' ELSE 'USDT' END,
                        lpad(to_hex(n), 64, '0'), n, repeat('a', 64),
                        %(now)s::timestamptz - n * interval '1 hour' / %(count)s, n, true,
                        CASE n %% 4 WHEN 0 THEN %(wallet)s ELSE %(user)s END,
                        CASE n %% 4 WHEN 1 THEN %(wallet)s ELSE %(user)s END,
                        1000.25 + n, 'other', 'v', %(venue)s, 'simulated', 'venue', %(now)s, %(now)s::timestamptz -
                        n * interval '1 hour' / %(count)s, 1, 0, n
                    FROM generate_series(0, %(count)s - 1) AS n
                    """,
                    {"world": world, "chain": chain, "venue": venue, "wallet": wallet, "user": user, "now": now,
                     "count": count // chains},
                )  # fmt: skip
                conn.execute(
                    "INSERT INTO heartbeats (world, topic, venue, event_time, origin, received_at, known_at,"
                    " kafka_cluster, kafka_partition, kafka_offset)"
                    " VALUES (%s, 'stablecoin_flows', %s, %s, 'simulated', %s, %s, 1, 0, 1)",
                    [world, venue, now, now, now],
                )
            expected = {"stablecoin_flows": Expectation(venues=venues, cadence_seconds=15)}
            manifest = Manifest(symbols=("BTC",), expected=expected)
            made = World(name=world, kind="simulated", market_step_seconds=10, flows_step_seconds=15, manifest=manifest)
            scopes[name] = scope_of(made, settings.risk)
            figures[name] = []
        conn.commit()
        conn.execute("ANALYZE stablecoin_flows")
        conn.commit()
        point = np.array([int(now.timestamp())], dtype=np.int64)
        for _ in range(ROUNDS):
            for name, scope in scopes.items():
                begun = time.perf_counter()
                result = score_flows(conn, scope, point, settings, KeptLookback(conn, scope, settings))
                figures[name].append(time.perf_counter() - begun)
                conn.commit()
                if result[0].inflow_usd is None or not result[0].inflow_usd:
                    raise SystemExit(f"{name}: nothing was read")
    base = statistics.median(figures["one chain"])
    for name, seconds in figures.items():
        middle = statistics.median(seconds)
        told = f"{middle * 1000:.1f} ms ({middle / base:.2f} of one chain)"
        print(f"tick: {name}, {cases[name][1]:,} rows in the hour: {told}", flush=True)


def main(arguments: list[str]) -> None:
    """Run it; --minutes of the busy chain (0: leave it out), --rows in the hour of a tick.

    --round-seconds: as LIQ_SOURCE_ROUND_SECONDS; more than 3 on a machine that is busy with other things.
    """
    parser = argparse.ArgumentParser(prog="python -m bench chains")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--round-seconds", type=float, default=3.0)
    options = parser.parse_args(arguments)
    reading()
    with tempfile.TemporaryDirectory(prefix="liq-bench-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        postgres, kafka = EmbeddedPostgres(home, free_port()), EmbeddedKafka(home, free_port())
        try:
            postgres.start()
            kafka.start()
            url = postgres.ensure_database("chains")
            migrate(url)
            tick(url, options.rows)
            catch_up(url, kafka.bootstrap_servers, options.round_seconds)
            if options.minutes > 0:
                with connect(url) as conn:
                    for table in ("chain_blocks", "stablecoin_flows", "heartbeats", "poll_state"):
                        conn.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
                busy(url, kafka.bootstrap_servers, options.minutes, options.round_seconds)
        finally:
            kafka.stop()
            postgres.stop()
