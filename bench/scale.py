"""What more partitions, workers and history processes bring on this machine, and what each record and row costs.

Belongs here: measuring for docs/scale.md. Does not: anything that the product needs.

Landing: the same backlog, spread by key over 1 to 6 partitions, landed by as many `liq land`, each with its own.
History: the same four symbols scored again from stored rows by `liq score`, one after the other, two at a time, four at
once. For each: the rate, and CPU seconds of the processes and of PostgreSQL, which are true on a busy machine too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from kafka.admin import KafkaAdminClient

from bench.history import START, fill
from bench.landing import landed_in, liq_land, records, servers
from liq_pipeline.bus.admin import TOPIC_CONFIG
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.bus.topics import IN_TOPICS, wire_name
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.store.connection import connect
from liq_pipeline.store.schema.migrations import migrate


def main(arguments: list[str]) -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(prog="python -m bench scale")
    parser.add_argument("--scale-records", type=int, default=120_000)
    parser.add_argument("--scale-partitions", default="1,2,3,4,6")
    parser.add_argument("--scale-processes", default="1,2,4")
    parser.add_argument("--scale-days", type=int, default=7)
    options, _ = parser.parse_known_args(arguments)
    with servers() as (postgres, kafka):
        home = postgres.directory.parent
        print(f"landing {options.scale_records:,} records; load of the machine {os.getloadavg()[0]:.1f}")
        print("partitions = workers   records/s   CPU-s per 100,000: workers   PostgreSQL")
        for count in [int(part) for part in options.scale_partitions.split(",") if part]:
            rate, ours, theirs = _land(postgres, home, kafka, count, options.scale_records)
            print(f"{count:>20} {rate:>11,.0f} {ours:>28.2f} {theirs:>12.2f}", flush=True)
        url = postgres.ensure_database("history")
        migrate(url)
        symbols = ("BTC", "ETH", "SOL", "XRP")
        last = START + timedelta(days=options.scale_days)
        with connect(url) as conn:
            written = fill(conn, symbols, last)
            conn.execute("UPDATE worlds SET is_active = true")
        print(f"\nscoring {options.scale_days} days of {len(symbols)} symbols at 60 s from {written:,} stored rows")
        print("processes   seconds   points/s   CPU-s per 1,000 points: processes   PostgreSQL")
        for count in [int(part) for part in options.scale_processes.split(",") if part]:
            seconds, points, ours, theirs = _score(postgres, url, home, symbols, last, count)
            print(
                f"{count:>9} {seconds:>9.1f} {points / seconds:>10,.0f} {1000 * ours / points:>34.2f} "
                f"{1000 * theirs / points:>12.2f}",
                flush=True,
            )


def _land(postgres: EmbeddedPostgres, home: Path, kafka: str, count: int, number: int) -> tuple[float, float, float]:
    """(records per second, CPU seconds of the workers, of PostgreSQL; both per 100,000 records)."""
    prefix, url = f"scale{count}.", postgres.ensure_database(f"scale_{count}")
    migrate(url)
    admin = KafkaAdminClient(bootstrap_servers=kafka, client_id="bench")
    names = [wire_name(topic, prefix) for topic in IN_TOPICS]
    admin.create_topics({name: {"num_partitions": count, "configs": TOPIC_CONFIG} for name in names})
    admin.wait_for_topics(names)
    admin.close()
    with RecordProducer(kafka, prefix) as producer:
        for record in records(number, datetime.now(UTC) - timedelta(days=2)):
            producer.send(record)
    with _postgres_cpu(postgres) as spent:
        started = time.monotonic()
        before = os.times()
        opened = [liq_land(home, url, kafka, prefix, "--partitions", str(share)) for share in range(count)]
        for worker in opened:
            worker.__enter__()
        try:
            landed_in(url, 600, number)
            seconds = time.monotonic() - started
        finally:
            for worker in opened:
                worker.__exit__(None, None, None)
    after = os.times()
    ours = after.children_user + after.children_system - before.children_user - before.children_system
    return number / seconds, ours * 1e5 / number, spent[0] * 1e5 / number


def _score(
    postgres: EmbeddedPostgres, url: str, home: Path, symbols: tuple[str, ...], last: datetime, count: int
) -> tuple[float, int, float, float]:
    """(seconds, points written, CPU seconds of the processes, of PostgreSQL)."""
    environment = {**os.environ, "LIQ_DATABASE_URL": url, "LIQ_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    environment |= {"LIQ_HOME": str(home), "LIQ_MODE": "live", "LIQ_SYMBOLS": ",".join(symbols)}
    points = _points(url)
    before, started = os.times(), time.monotonic()
    with _postgres_cpu(postgres) as spent:
        waiting, running = list(symbols), list[subprocess.Popen[bytes]]()
        while waiting or running:
            while waiting and len(running) < count:
                command = [sys.executable, "-m", "liq_pipeline.cli", "score", "--symbol", waiting.pop()]
                command += ["--from", (START).isoformat(), "--to", last.isoformat()]
                running.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
            running[0].wait()
            for process in running:
                if process.poll():
                    raise SystemExit(f"liq score ended with {process.returncode}")
            running = [process for process in running if process.poll() is None]
    seconds, after = time.monotonic() - started, os.times()
    ours = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, _points(url) - points, ours, spent[0]


def _points(url: str) -> int:
    with connect(url) as conn:
        return int(conn.execute("SELECT count(*) FROM liquidation_risk").fetchall()[0][0])


@contextmanager
def _postgres_cpu(server: EmbeddedPostgres) -> Iterator[list[float]]:
    """CPU seconds that the server and its backends spend meanwhile, in a list of one.

    Backends that ended are in their parent's count of children.
    """
    identity = server.identity
    if identity is None:
        raise RuntimeError("the server does not run")
    parent = psutil.Process(identity.pid)

    def total() -> float:
        seconds = sum(parent.cpu_times()[:4])
        for child in parent.children(recursive=True):
            try:
                times = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seconds += times.user + times.system
        return float(seconds)

    before = total()
    spent = [0.0]
    yield spent
    spent[0] = total() - before
