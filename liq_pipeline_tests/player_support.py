"""What tests of sources and the player share: small worlds, and reading back what a world has left in the tables."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.sources.simulated.market import MODEL_VERSION, Script
from liq_pipeline.sources.simulated.world import Simulation
from liq_pipeline.store.landing.lander import Lander

EPOCH = datetime(2026, 3, 2, 12, 5, tzinfo=UTC)

COLUMNS = {
    "prices": "symbol, venue, event_time, known_at, price_usd, volume_24h_usd, market_cap_usd, origin",
    "funding_rates": "symbol, venue, kind, event_time, known_at, rate, interval_hours, next_funding_time, origin",
    "open_interest": "symbol, venue, event_time, known_at, open_interest_base, open_interest_usd, origin",
    "long_short_ratio": "symbol, venue, kind, event_time, known_at, long_share, ratio, origin",
    "liquidations": "symbol, venue, event_id, event_time, known_at, liquidated_side, price_usd, quantity_base, origin",
    "stablecoin_flows": "chain, tx_hash, log_index, block_hash, event_time, known_at, amount, direction, origin",
    "heartbeats": "topic, venue, event_time, known_at",
}


def simulation(
    seed: str = "test",
    symbols: tuple[str, ...] = ("BTC", "ETH"),
    scripts: tuple[Script, ...] = (),
    history_hours: int = 24,
) -> Simulation:
    """A simulated world that begins at EPOCH, with a short history."""
    return Simulation(
        seed=seed,
        epoch=EPOCH,
        symbols=symbols,
        model_version=MODEL_VERSION,
        scripts=scripts,
        history_hours=history_hours,
        generated_to=EPOCH,
    )


def write_minute_lines(folder: Path, symbol: str, lines: list[dict[str, Any]], day: str = "20260101") -> Path:
    """A minute recording's file from its lines."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ctx_{symbol}_{day}.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")
    return path


def minutes(
    count: int, start: datetime = datetime(2026, 1, 1, tzinfo=UTC), price: float = 100.0
) -> list[dict[str, Any]]:
    """Lines of a quiet minute recording, 2 s after each minute."""
    first = int(start.timestamp()) * 1000 + 2000
    return [
        {"ts": first + i * 60_000, "funding": 1.25e-5, "oi": 1000.0 + i, "mark": price + i % 7, "oracle": price}
        for i in range(count)
    ]


def counts(database_url: str, world: str) -> dict[str, int]:
    """Rows per table of a world."""
    with psycopg.connect(database_url) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table} WHERE world = %s", [world]).fetchone()[0]  # type: ignore[index] # noqa: S608
            for table in COLUMNS
        }


def fingerprint(database_url: str, world: str) -> str:
    """A hash over the business columns of everything a world has in the tables."""
    digest = hashlib.sha256()
    with psycopg.connect(database_url) as connection:
        connection.execute("SET timezone = 'UTC'")
        for table, columns in COLUMNS.items():
            query = f"SELECT {columns} FROM {table} WHERE world = %s ORDER BY {columns}"  # noqa: S608
            for row in connection.execute(query, [world]):
                digest.update(repr(row).encode())
    return digest.hexdigest()


def troubles(database_url: str) -> tuple[int, int]:
    """(dead letters, conflicts)."""
    with psycopg.connect(database_url) as connection:
        dead = connection.execute("SELECT count(*) FROM dead_letters").fetchone()
        conflicts = connection.execute("SELECT count(*) FROM row_conflicts").fetchone()
    assert dead is not None
    assert conflicts is not None
    return dead[0], conflicts[0]


def watermark_rows(database_url: str, world: str) -> list[datetime]:
    """The landed watermark of each partition that has one."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT watermark FROM watermarks WHERE world = %s AND topic = ANY(%s)", [world, list(IN_TOPICS)]
        ).fetchall()
    return [row[0] for row in rows]


def land_all(database_url: str, servers: str, prefix: str) -> None:
    """Land whatever is in the topics now."""
    with Lander(database_url, servers, prefix) as lander:
        lander.land_to_end(120)


@contextmanager
def landing(database_url: str, servers: str, prefix: str) -> Iterator[None]:
    """A resident landing worker for the length of a block."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with Lander(database_url, servers, prefix) as lander:
                while not stop.is_set():
                    lander.land_to_end(30)
                    stop.wait(0.1)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


def eventually(condition: Callable[[], bool], timeout_seconds: float, what: str) -> None:
    """Wait until the condition holds; fail by name if it does not in time."""
    pause = threading.Event()
    deadline = datetime.now(UTC).timestamp() + timeout_seconds
    while not condition():
        assert datetime.now(UTC).timestamp() < deadline, f"not within {timeout_seconds} s: {what}"
        pause.wait(0.05)
