"""kill -9 under load: are the rows exactly the set that Kafka acknowledged?

Belongs here: killing and comparing. Does not: measuring speed (landing.py).

A producer sends liquidations without pause; a landing process lands them and is started again whenever it ends. At
random moments the landing process, PostgreSQL or Kafka is killed with SIGKILL and started again. At the end every
acknowledged event must be in the table once, and nothing else.

    python -m bench kills --landing=200 --postgres=20 --kafka=20
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
from collections import Counter
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.records import Liquidation
from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.kafka import EmbeddedKafka
from liq_pipeline.runtime.postgres import EmbeddedPostgres
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing import Lander
from liq_pipeline.store.migrations import migrate

BATCH = 200


class Load:
    """Sends liquidations until stopped; `sent` is what was acknowledged then."""

    def __init__(self, bootstrap_servers: str, rate: int) -> None:
        self.sent: set[str] = set()
        self.error: BaseException | None = None
        self._bootstrap_servers = bootstrap_servers
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        start = datetime.now(UTC) - timedelta(days=1)
        try:
            # Longer than any restart below: the producer's own retries bridge a killed broker.
            with RecordProducer(self._bootstrap_servers, delivery_timeout_seconds=300) as producer:
                number = 0
                while not self._stop.wait(0.05):
                    for _ in range(self._rate // 20):
                        time_ = start + timedelta(milliseconds=number)
                        record = Liquidation(
                            schema_version=1,
                            event_time=time_,
                            received_at=time_,
                            origin="live",
                            world="real",
                            venue="okx",
                            symbol=f"S{number % 11}",
                            event_id=f"e{number}",
                            liquidated_side="long",
                            price_usd=100.0,
                            quantity_base=1.0,
                            notional_usd=100.0,
                            is_sample=False,
                            source_topic="bench",
                        )
                        producer.send(record)
                        self.sent.add(record.event_id)
                        number += 1
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

    def __init__(self, home: Path) -> None:
        self.postgres = EmbeddedPostgres(home, free_port())
        self.kafka = EmbeddedKafka(home, free_port())
        self.postgres.start()
        self.kafka.start()
        self.url: str = self.postgres.ensure_database("kills")
        migrate(self.url)
        ensure_topics(self.kafka.bootstrap_servers)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["liq_pipeline.store.landing"])
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
    """Kill, compare, say what was found; exit 1 if a row is missing or twice."""
    parser = argparse.ArgumentParser(prog="bench kills", description=__doc__)
    parser.add_argument("--landing", type=int, default=20)
    parser.add_argument("--postgres", type=int, default=2)
    parser.add_argument("--kafka", type=int, default=2)
    parser.add_argument("--rate", type=int, default=1_000, help="records per second")
    parser.add_argument("--seed", type=int, default=1)
    options, _ = parser.parse_known_args(arguments)
    moments = random.Random(options.seed)
    plan = ["landing"] * options.landing + ["postgres"] * options.postgres + ["kafka"] * options.kafka
    moments.shuffle(plan)
    with tempfile.TemporaryDirectory(prefix="liq-kills-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        trial = Trial(home)
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
            with connect(trial.url) as conn:
                rows = Counter(row[0] for row in conn.execute("SELECT event_id FROM liquidations"))
                dead = conn.execute("SELECT count(*) FROM dead_letters").fetchall()[0][0]
                gaps = conn.execute("SELECT count(*) FROM ingest_gaps").fetchall()[0][0]
        finally:
            trial.stop()
    lost, unknown = load.sent - rows.keys(), rows.keys() - load.sent
    twice = sum(count - 1 for count in rows.values())
    print(
        f"\r{options.landing} kills of landing, {options.postgres} of PostgreSQL, {options.kafka} of Kafka: "
        f"{len(load.sent):,} acknowledged, {len(lost)} lost, {twice} twice, {len(unknown)} unknown, "
        f"{dead} dead, {gaps} gaps"
    )
    if lost or twice or unknown or dead:
        sys.exit(1)
