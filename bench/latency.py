"""How long a liquidation takes from Kafka to the signal that contains it, on a running installation.

Belongs here: that one figure and the proof of "contains". Does not: the speed of a tick alone (ticks.py).

    python -m bench latency --events=200 --symbols=2

The whole program runs in simulated mode. Beside its player this bench sends liquidations at random times; an event's
clock starts when Kafka has acknowledged it and stops when another connection can read the signal.

A signal at T contains an event if the event was known by T and lies below the cut that T's tick stored: the product's
own definition, by which a score is repeated bit for bit. It is then checked by value: the liquidated cents that the
signal's inputs state for the event's symbol, venue and side must be the sum of exactly those rows, the event among
them. The events are large, so that leaving one out would show.
"""

from __future__ import annotations

import argparse
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

from bench._installation import Installation, installation, symbol_names, wait_until
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.records import Liquidation
from liq_pipeline.domain.worlds import World
from liq_pipeline.store import worlds

MEAN_PAUSE_SECONDS: Final = 1.4
LOOK_SECONDS: Final = 0.05
FIRST_TICKS: Final = 3
NOTIONAL_USD: Final = 2_000_000.0
TOLERANCE: Final = 1e-4
"""Inputs are stored with six significant digits."""
TARGET_P50_SECONDS: Final = 7.0
TARGET_P95_SECONDS: Final = 15.0

# The first point that may see the event and whose tick had it landed.
_CONTAINING: Final = """
SELECT l.event_id, l.symbol, l.venue, l.liquidated_side, t.time, t.cut
FROM liquidations l JOIN kafka_clusters k ON k.cluster_no = l.kafka_cluster CROSS JOIN LATERAL (
    SELECT time, cut FROM ticks
    WHERE world = l.world AND stream = 'market' AND time >= l.known_at AND time >= l.event_time
      AND (cut -> k.cluster_id -> 'liquidations' ->> l.kafka_partition::text)::bigint > l.kafka_offset
    ORDER BY time LIMIT 1) t
WHERE l.world = %s AND l.source_topic = 'bench'
"""
_SUMMED: Final = """
SELECT sum(round(notional_usd * 100)), bool_or(event_id = %(event)s)
FROM liquidations JOIN kafka_clusters ON cluster_no = kafka_cluster
WHERE world = %(world)s AND symbol = %(symbol)s AND venue = %(venue)s AND liquidated_side = %(side)s
  AND event_time > %(time)s - interval '1 hour' AND event_time <= %(time)s AND known_at <= %(time)s
  AND (%(cut)s -> cluster_id -> 'liquidations' ->> kafka_partition::text)::bigint > kafka_offset
"""
_STATED: Final = """
SELECT (r.inputs #>> ARRAY['liquidation', 'venues', %(venue)s, %(side)s || '_liquidated_cents_1h'])::float
FROM signals s JOIN liquidation_risk r USING (world, symbol, time, score_version, revision)
WHERE s.world = %(world)s AND s.symbol = %(symbol)s AND s.time = %(time)s AND s.revision = 0
"""


class Watcher:
    """Notes when each market point's signals can first be read by another connection."""

    def __init__(self, database_url: str, world: str) -> None:
        self.seen_at: dict[datetime, float] = {}
        self._url, self._world = database_url, world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        newest = datetime.now(UTC)
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stop.wait(LOOK_SECONDS):
                rows = connection.execute(
                    "SELECT DISTINCT time FROM signals WHERE world = %s AND time > %s ORDER BY time",
                    (self._world, newest),
                ).fetchall()
                now = time.time()
                for (point,) in rows:
                    self.seen_at[point] = now
                    newest = point

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()


@dataclass(frozen=True)
class Result:
    """Seconds from the acknowledgement to the readable signal, per event; how many sums were checked."""

    latencies: Sequence[float]
    checked: int


def send_events(made: Installation, world: World, count: int, seed: int) -> dict[str, float]:
    """Send liquidations at random times; event id -> when Kafka had acknowledged it (seconds since the epoch)."""
    random_ = random.Random(seed)
    venues = world.manifest.expected["liquidations"].venues
    acknowledged: dict[str, float] = {}
    with RecordProducer(made.endpoints.kafka_bootstrap_servers, client_id="liq-bench") as producer:
        for number in range(count):
            time.sleep(random_.expovariate(1 / MEAN_PAUSE_SECONDS))
            now = datetime.now(UTC)
            record = Liquidation(
                schema_version=1,
                event_time=now,
                received_at=now,
                origin="simulated",
                world=world.name,
                venue=random_.choice(venues),
                symbol=random_.choice(world.manifest.symbols),
                event_id=f"bench-{number}",
                liquidated_side=random_.choice(("long", "short")),
                price_usd=1000.0,
                quantity_base=NOTIONAL_USD / 1000.0 + number,
                notional_usd=NOTIONAL_USD + number * 1000.0,
                is_sample=False,
                source_topic="bench",
            )
            producer.send(record)
            producer.flush()
            acknowledged[record.event_id] = time.time()
    return acknowledged


def check_sum(connection: psycopg.Connection[Any], world: str, row: tuple[Any, ...]) -> None:
    """SystemExit if the signal does not state exactly what it must, the event included."""
    event, symbol, venue, side, point, cut = row
    values = {"world": world, "event": event, "symbol": symbol, "venue": venue, "side": side, "time": point}
    summed, holds_it = connection.execute(_SUMMED, {**values, "cut": Jsonb(cut)}).fetchone() or (None, False)
    stated = (connection.execute(_STATED, values).fetchone() or (None,))[0]
    if summed is None or stated is None or not holds_it or abs(stated / float(summed) - 1) > TOLERANCE:
        raise SystemExit(f"{event}: the signal of {symbol} at {point} states {stated} cents, the rows sum to {summed}")


def measure(made: Installation, count: int, seed: int) -> Result:
    """Send, wait for the last one's signal, and join events with the signals that contain them."""
    with psycopg.connect(made.database_url("liq")) as connection:
        world = worlds.active(connection)
        assert world is not None
    watcher = Watcher(made.database_url("liq"), world.name)
    try:
        acknowledged = send_events(made, world, count, seed)
        with psycopg.connect(made.database_url("liq"), autocommit=True) as connection:
            wait_until(
                lambda: len(connection.execute(_CONTAINING, (world.name,)).fetchall()) == count,
                120,
                "the signals of all events",
                0.5,
            )
            time.sleep(4 * LOOK_SECONDS)
            found = connection.execute(_CONTAINING, (world.name,)).fetchall()
            for row in found:
                check_sum(connection, world.name, row)
    finally:
        watcher.close()
    return Result([watcher.seen_at[row[4]] - acknowledged[row[0]] for row in found], len(found))


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench latency", description=__doc__)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--symbols", type=int, default=2)
    parser.add_argument("--seed", type=int, default=5)
    options, _ = parser.parse_known_args(arguments)
    load = os.getloadavg()[0]
    print(
        f"\nliquidation to signal, {options.symbols} symbols, {os.cpu_count()} cores, load {load:.1f} before",
        flush=True,
    )
    with installation("simulated", LIQ_SYMBOLS=",".join(symbol_names(options.symbols))) as made:
        wait_until(lambda: made.market_ticks() >= FIRST_TICKS, 900, "the first ticks")
        result = measure(made, options.events, options.seed)
    ordered = sorted(result.latencies)
    p50, p95 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    print(f"  {len(ordered)} events at random times, each found by value in the inputs of its signal")
    print(f"  acknowledged by Kafka to readable signal: p50 {p50:.2f} s, p95 {p95:.2f} s, max {ordered[-1]:.2f} s")
    grid = sum(ordered) / len(ordered)
    print(f"  mean {grid:.2f} s, of which 5.00 s is the wait for the next point of a 10 s grid")
    is_kept = p50 < TARGET_P50_SECONDS and p95 < TARGET_P95_SECONDS
    print(f"  p50 under {TARGET_P50_SECONDS:g} s and p95 under {TARGET_P95_SECONDS:g} s: {'yes' if is_kept else 'NO'}")
