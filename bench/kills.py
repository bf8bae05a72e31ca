"""kill -9 under load: are the rows exactly the set that Kafka acknowledged?

Belongs here: killing and comparing. Does not: measuring speed (landing.py).

A producer sends records of all six topics without pause, some of them twice; a landing process lands them and is
started again whenever it ends. At random moments the landing process, PostgreSQL or Kafka is killed with SIGKILL and
started again. At the end every acknowledged record must be in its table once, by value, and nothing else.

    python -m bench kills --landing=200 --postgres=20 --kafka=20 [--edition=apache]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta
from decimal import Decimal
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.landing_support import SAMPLES, T0
from liq_pipeline_tests.timescale_packages import timescale_server

BATCH = 200


VALUES = {
    "prices": "price_usd",
    "funding_rates": "mark_price_usd",
    "open_interest": "open_interest_base",
    "long_short_ratio": "period_minutes",
    "liquidations": "event_id",
    "stablecoin_flows": "amount",
}
"""The column of each topic that tells its records apart; event_time does so too."""


def value_of(topic: str, number: int) -> Any:
    """What the number-th record sent has in that column."""
    if topic == "long_short_ratio":
        return 1 + number % 1440
    if topic == "liquidations":
        return f"e{number}"
    return Decimal(number) if topic == "stablecoin_flows" else 1.0 + number


class Load:
    """Sends records until stopped; those numbered below `sent` were acknowledged then. Number n is of topic n mod 6."""

    def __init__(self, bootstrap_servers: str, rate: int) -> None:
        self.sent = 0
        self.error: BaseException | None = None
        self._bootstrap_servers = bootstrap_servers
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            # Longer than any restart below: the producer's own retries bridge a killed broker.
            with RecordProducer(self._bootstrap_servers, delivery_timeout_seconds=300) as producer:
                while not self._stop.wait(0.05):
                    for _ in range(self._rate // 20):
                        topic = IN_TOPICS[self.sent % 6]
                        changes: dict[str, Any] = {VALUES[topic]: value_of(topic, self.sent)}
                        if topic == "open_interest":
                            changes.update(open_interest_usd=None, mark_price_usd=None)
                        record = SAMPLES[topic](self.sent / 1000, **changes)
                        for _ in range(2 if self.sent % 97 == 0 else 1):
                            producer.send(record)
                        self.sent += 1
                producer.flush(300)
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        """Stop and wait for every acknowledgement; raises what went wrong."""
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error


def land_for_ever(database_url: str, bootstrap_servers: str) -> None:
    """A landing process; a server that is away ends it with one sentence."""
    try:
        with Lander(database_url, bootstrap_servers, max_records=BATCH, connect_timeout_seconds=10) as lander:
            lander.run(threading.Event())
    except LiqError as error:
        sys.exit(str(error))


class Trial:
    """The three processes and the killing of them."""

    def __init__(self, home: Path, edition: str) -> None:
        self.postgres = timescale_server(home) if edition == "apache" else EmbeddedPostgres(home, free_port())
        self.kafka = EmbeddedKafka(home, free_port())
        self.postgres.start()
        self.kafka.start()
        self.url: str = self.postgres.ensure_database("kills")
        migrate(self.url)
        ensure_topics(self.kafka.bootstrap_servers)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["liq_pipeline.store.landing.lander"])
        self.landing: ForkServerProcess | None = None

    def keep_landing(self) -> None:
        """Start the landing process if none runs."""
        if self.landing is None or not self.landing.is_alive():
            self.landing = self._context.Process(
                target=land_for_ever, args=(self.url, self.kafka.bootstrap_servers), daemon=True
            )
            self.landing.start()

    def kill(self, what: str) -> None:
        """SIGKILL one of the three; a server is started again at once."""
        if what == "landing":
            # It may have ended by itself, because a server was away.
            if self.landing is not None:
                self.landing.kill()
                self.landing.join()
            return
        server: EmbeddedPostgres | EmbeddedKafka = self.postgres if what == "postgres" else self.kafka
        identity = server.identity
        if identity is not None:
            os.kill(identity.pid, signal.SIGKILL)
        while server.is_running:
            time.sleep(0.01)
        server.start()

    def stop(self) -> None:
        """Stop everything."""
        self.kill("landing")
        self.kafka.stop()
        self.postgres.stop()


def main(arguments: list[str]) -> None:
    """Kill, compare, say what was found; exit 1 if a row is missing, twice, changed or not ours."""
    parser = argparse.ArgumentParser(prog="bench kills", description=__doc__)
    parser.add_argument("--landing", type=int, default=20)
    parser.add_argument("--postgres", type=int, default=2)
    parser.add_argument("--kafka", type=int, default=2)
    parser.add_argument("--rate", type=int, default=1_000, help="records per second")
    parser.add_argument("--edition", choices=["plain", "apache"], default="plain")
    parser.add_argument("--seed", type=int, default=1)
    options, _ = parser.parse_known_args(arguments)
    moments = random.Random(options.seed)
    plan = ["landing"] * options.landing + ["postgres"] * options.postgres + ["kafka"] * options.kafka
    moments.shuffle(plan)
    with tempfile.TemporaryDirectory(prefix="liq-kills-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        trial = Trial(home, options.edition)
        try:
            load = Load(trial.kafka.bootstrap_servers, options.rate)
            for number, what in enumerate(plan, start=1):
                until = time.monotonic() + moments.uniform(0.2, 1.5)
                while time.monotonic() < until:
                    trial.keep_landing()
                    time.sleep(0.02)
                trial.kill(what)
                print(f"\rkilled {number} of {len(plan)}", end="", flush=True)
            load.stop()
            trial.kill("landing")
            with Lander(trial.url, trial.kafka.bootstrap_servers) as lander:
                if not lander.land_to_end(300).reached_end:
                    sys.exit("\nlanding did not reach the end within 300 s")
            lost, twice, unknown = compare(trial.url, load.sent)
            with connect(trial.url) as conn:
                dead = conn.execute("SELECT count(*) FROM dead_letters").fetchall()[0][0]
                conflicts = conn.execute("SELECT count(*) FROM row_conflicts").fetchall()[0][0]
                gaps = conn.execute("SELECT count(*) FROM ingest_gaps").fetchall()[0][0]
        finally:
            trial.stop()
    print(
        f"\r{options.edition}: {options.landing} kills of landing, {options.postgres} of PostgreSQL, {options.kafka} "
        f"of Kafka: {load.sent:,} acknowledged, {lost} lost, {twice} twice, {unknown} unknown or changed, {dead} dead, "
        f"{conflicts} conflicts, {gaps} gaps"
    )
    if lost or twice or unknown or dead or conflicts:
        sys.exit(1)


def compare(database_url: str, sent: int) -> tuple[int, int, int]:
    """Number of records that are lost, that are there twice, and of rows that nobody sent like that."""
    seen: set[int] = set()
    twice = unknown = 0
    with connect(database_url) as conn:
        for topic, column in VALUES.items():
            rows: list[tuple[datetime, Any]] = conn.execute(f"SELECT event_time, {column} FROM {topic}").fetchall()  # noqa: S608
            for event_time, value in rows:
                number = round((event_time - T0) / timedelta(milliseconds=1))
                if not 0 <= number < sent or IN_TOPICS[number % 6] != topic or value != value_of(topic, number):
                    unknown += 1
                elif number in seen:
                    twice += 1
                else:
                    seen.add(number)
    return sent - len(seen), twice, unknown
