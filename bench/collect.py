"""What the collector is promised to hold, for real: a venue's own frames, a real Kafka, the real `liq collect` process.

Belongs here: load, bad luck and the comparison of what happened with what stands in the table. Does not: the venues
(_venues.py) or landing's own proofs (kills.py).

Four trials, one after the other, each with what was sent as its baseline:

* steady: 1,000 liquidations a second over Bybit, Binance and OKX for 60 s, and 5,000 more at once;
* drops: every connection is lost every few seconds, by turns with and without a farewell;
* kafka: Kafka is killed (SIGKILL) under load and stays away for 30 s;
* kill: the collector is killed (SIGKILL) under load and started again.

What was written to a confirmed subscription must be in the table once; what happened while nobody listened must lie
inside a row of ingest_gaps. For a collector that was killed, so must everything that Kafka had not acknowledged.

    python -m bench collect --seconds=60 --away=30
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from kafka import KafkaConsumer, TopicPartition

from bench._venues import COINS, SHARES, Happened, Venues
from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.records import Liquidation
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline.store.schema.migrations import migrate

TOPIC = "liquidations"
SETTLE_SECONDS = 8.0
"""Past two heartbeats: what was read has been sent, and the holes are rows."""
PATIENCE_SECONDS = 60.0

Identity = tuple[str, str, int, float]


class Trial:
    """A venue process, PostgreSQL, Kafka and a collector process, all empty at the start."""

    def __init__(self, folder: Path) -> None:
        self.postgres = EmbeddedPostgres(folder, free_port())
        self.kafka = EmbeddedKafka(folder, free_port())
        self.postgres.start()
        self.kafka.start()
        self.url: str = self.postgres.ensure_database("collect")
        migrate(self.url)
        ensure_topics(self.kafka.bootstrap_servers)
        self.venues = Venues()
        self.ledger: list[Happened] = []
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LIQ_")},
            "LIQ_HOME": str(folder / "collector"),
            "LIQ_DATABASE_URL": self.url,
            "LIQ_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "LIQ_MODE": "live",
            "LIQ_SYMBOLS": ",".join(COINS),
            "LIQ_VENUES": ",".join(SHARES),
            **self.venues.environment(),
        }
        self._log = (folder / "collector.log").open("wb")
        self._collector: subprocess.Popen[bytes] | None = None

    def start_collector(self) -> None:
        """Start it and wait until it listens to every venue."""
        self._collector = subprocess.Popen(
            [sys.executable, "-m", "liq_pipeline.cli", "collect"],
            env=self._environment,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        wait_until(lambda: all(self.venues.listeners().values()), "the collector did not subscribe")

    def end_collector(self, how: signal.Signals) -> None:
        """Ask it to stop (SIGTERM), or kill it."""
        if self._collector is not None:
            self._collector.send_signal(how)
            self._collector.wait(PATIENCE_SECONDS)
            self._collector = None

    def happen(self, seconds: float, per_second: float, drop_seconds: float | None = None) -> None:
        """Let liquidations happen for so long."""
        self.venues.load(per_second, drop_seconds)
        time.sleep(seconds)
        self.venues.load(0.0)

    def settle(self) -> None:
        """Take the venue's ledger, wait until Kafka holds what was read, land it."""
        time.sleep(SETTLE_SECONDS)
        self.ledger += self.venues.ledger()
        with Lander(self.url, self.kafka.bootstrap_servers) as lander:
            if not lander.land_to_end(300).reached_end:
                sys.exit("landing did not reach the end within 300 s")

    def landed(self) -> Counter[Identity]:
        """What stands in the table, with how often."""
        with connect(self.url) as conn:
            rows = conn.execute(
                "SELECT venue, symbol, event_time, quantity_base FROM liquidations WHERE world = 'real'"
            ).fetchall()
        return Counter(
            (venue, symbol, round(moment.timestamp() * 1000), round(size, 3)) for venue, symbol, moment, size in rows
        )

    def holes(self) -> list[tuple[str, float, float]]:
        """(venue, from, to) of every gap row, in seconds since 1970."""
        with connect(self.url) as conn:
            rows = conn.execute("SELECT source, from_time, to_time FROM ingest_gaps").fetchall()
        return [(source.removesuffix(" liquidations"), a.timestamp(), b.timestamp()) for source, a, b in rows]

    def delays_ms(self) -> tuple[list[float], list[float]]:
        """Per event, from the venue's writing and from the collector's reading until it stood in Kafka's log."""
        written = {event.identity: event.sent_at for event in self.ledger}
        consumer = KafkaConsumer(bootstrap_servers=self.kafka.bootstrap_servers, enable_auto_commit=False)
        partitions = [TopicPartition(TOPIC, number) for number in sorted(consumer.partitions_for_topic(TOPIC) or ())]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        from_writing, from_reading = [], []
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for messages in consumer.poll(timeout_ms=1000).values():
                for message in messages:
                    if message.headers:
                        continue  # a heartbeat
                    event = msgspec.json.decode(message.value, type=Liquidation)
                    if event.venue not in SHARES:
                        continue
                    moment = round(event.event_time.timestamp() * 1000)
                    sent_at = written.get((event.venue, event.symbol, moment, round(event.quantity_base, 3)))
                    if sent_at is not None:
                        from_writing.append(message.timestamp - sent_at * 1000)
                    from_reading.append(message.timestamp - event.received_at.timestamp() * 1000)
        consumer.close()
        return from_writing, from_reading

    def stop(self) -> None:
        """Stop everything."""
        self.end_collector(signal.SIGKILL)
        self.venues.close()
        self.kafka.stop()
        self.postgres.stop()
        self._log.close()


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    """Return once the condition holds; end the benchmark with `otherwise` if it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{otherwise} within {PATIENCE_SECONDS:g} s")
        time.sleep(0.05)


def verdict(trial: Trial, *, owed: Sequence[Happened] | None = None) -> tuple[str, bool]:
    """One sentence, and whether the promise holds. owed: what had to arrive (None: all that was written)."""
    landed, holes = trial.landed(), trial.holes()
    owed = [event for event in trial.ledger if event.sent_at is not None] if owed is None else owed
    lost = [event for event in owed if event.identity not in landed]
    twice = sum(count - 1 for count in landed.values())
    unknown = len(landed.keys() - {event.identity for event in trial.ledger})
    missed = [event for event in trial.ledger if event.identity not in landed]
    untold = [
        event
        for event in missed
        if not any(venue == event.venue and a <= event.time_ms / 1000 <= b for venue, a, b in holes)
    ]
    sentence = (
        f"{len(trial.ledger):,} happened, {len(owed):,} owed, {len(landed):,} in the table: {len(lost)} lost, "
        f"{twice} twice, {unknown} unknown; {len(missed):,} missed, {len(untold)} of them in no gap row "
        f"({len(holes)} gap rows)"
    )
    return sentence, not (lost or twice or unknown or untold)


def quantile(values: Sequence[float], share: float) -> float:
    """The value at that share of the sorted values; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def kafka_alone_ms(trial: Trial, count: int = 200) -> list[float]:
    """One record sent and acknowledged after the other, by the same producer: what no collector can undercut."""
    moment = datetime.now(UTC)
    taken = []
    with RecordProducer(trial.kafka.bootstrap_servers, client_id="bench") as producer:
        for number in range(count):
            record = Liquidation(
                schema_version=1,
                event_time=moment,
                received_at=moment,
                origin="simulated",
                world="simulated/bench",
                venue="bench",
                symbol="BTC",
                event_id=f"alone-{number}",
                liquidated_side="long",
                price_usd=1.0,
                quantity_base=1.0,
                notional_usd=1.0,
                is_sample=False,
                source_topic="bench",
            )
            begun = time.perf_counter()
            producer.send(record)
            producer.flush(10)
            taken.append((time.perf_counter() - begun) * 1000)
    return taken


def steady(trial: Trial, options: argparse.Namespace) -> bool:
    """Volume and a burst."""
    alone = kafka_alone_ms(trial)
    trial.start_collector()
    begun = time.monotonic()
    trial.venues.load(options.rate)
    time.sleep(options.seconds / 2)
    trial.venues.burst(options.burst)
    time.sleep(max(0.0, options.seconds / 2 - (time.monotonic() - begun - options.seconds / 2)))
    trial.venues.load(0.0)
    seconds = time.monotonic() - begun
    trial.settle()
    sentence, holds = verdict(trial)
    reached = (len(trial.ledger) - options.burst) / seconds
    print(f"steady: {reached:,.0f} a second for {seconds:.0f} s and {options.burst:,} at once: {sentence}")
    from_writing, from_reading = trial.delays_ms()
    for name, values in (
        ("venue's socket to Kafka's log", from_writing),
        ("read from the socket to Kafka's log", from_reading),
        ("baseline: Kafka alone, one record", alone),
    ):
        print(f"  {name:<36} p50 {quantile(values, 0.5):7.1f} ms   p95 {quantile(values, 0.95):7.1f} ms", flush=True)
    return holds


def drops(trial: Trial, options: argparse.Namespace) -> bool:
    """Connections that do not last."""
    trial.start_collector()
    trial.happen(options.seconds / 2, options.rate / 4, drop_seconds=options.drop_every)
    trial.happen(2, options.rate / 4)
    wait_until(lambda: all(trial.venues.listeners().values()), "the collector did not come back")
    trial.happen(2, options.rate / 4)
    trial.settle()
    sentence, holds = verdict(trial)
    print(
        f"drops: {trial.venues.drops()} connections lost, one every {options.drop_every:g} s a venue: {sentence}",
        flush=True,
    )
    return holds


def kafka(trial: Trial, options: argparse.Namespace) -> bool:
    """Kafka away."""
    trial.start_collector()
    trial.happen(5, options.rate / 2)
    identity = trial.kafka.identity
    if identity is None:
        sys.exit("Kafka does not run")
    os.kill(identity.pid, signal.SIGKILL)
    begun = time.monotonic()
    trial.happen(options.away, options.rate / 2)
    away = time.monotonic() - begun
    trial.kafka.start()
    trial.happen(5, options.rate / 2)
    trial.settle()
    sentence, holds = verdict(trial)
    print(f"kafka: killed and away for {away:.0f} s under {options.rate / 2:,.0f} a second: {sentence}", flush=True)
    return holds


def kill(trial: Trial, options: argparse.Namespace) -> bool:
    """The collector killed."""
    trial.start_collector()
    trial.happen(8, options.rate / 2)
    trial.venues.load(options.rate / 2)
    time.sleep(4)
    trial.end_collector(signal.SIGKILL)
    trial.settle()  # as the ticks would: the new process learns from the table how far the old one had told
    acknowledged = trial.landed()
    trial.start_collector()
    time.sleep(5)
    trial.venues.load(0.0)
    trial.settle()
    # Owed is what Kafka had, and what was written to the second process.
    owed = [event for event in trial.ledger if event.identity in acknowledged]
    sentence, holds = verdict(trial, owed=owed)
    print(f"kill: SIGKILL under {options.rate / 2:,.0f} a second, then a new process: {sentence}", flush=True)
    return holds


TRIALS = {"steady": steady, "drops": drops, "kafka": kafka, "kill": kill}


def main(arguments: list[str]) -> None:
    """Run the trials; exit 1 if a promise does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench collect", description=__doc__)
    parser.add_argument("--rate", type=float, default=1_000, help="liquidations per second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--burst", type=int, default=5_000)
    parser.add_argument("--drop-every", type=float, default=3)
    parser.add_argument("--away", type=float, default=30, help="seconds without Kafka")
    parser.add_argument("--trials", default=",".join(TRIALS), help="which, with commas between")
    options, _ = parser.parse_known_args(arguments)
    failed = []
    for name in options.trials.split(","):
        with tempfile.TemporaryDirectory(prefix="liq-collect-") as folder:
            home = Path(folder)
            home.chmod(0o711)
            trial = Trial(home)
            try:
                if not TRIALS[name](trial, options):
                    failed.append(name)
                    print((home / "collector.log").read_text()[-2000:])
            finally:
                trial.stop()
    if failed:
        sys.exit(f"did not hold: {', '.join(failed)}")
