"""How fast a tick is: from the sensor's decision to committed scores and to the run's end, warm beside stock.

Belongs here: measuring. Does not: anything that the product needs.

One run, one machine, one database: the simulated market plays at real time; first the deployment as it ships (warm
launcher, live lane), then the same definitions, sensors and job on Dagster's stock launcher, queue, storage and
compute logs. CPU seconds are those of ended run workers, as the kernel counts them for their parent.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg
import yaml

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.defs.sensors import DECIDED_TAG
from liq_pipeline.runtime import parts
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers import dagster_home, dagster_storage
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.runtime.supervisor import KAFKA_RANK, POSTGRES_RANK, Part, Supervisor
from liq_pipeline.store.schema.migrations import migrate

JOB = "live_tick"
WARM_UP_TICKS = 3


@dataclass(frozen=True)
class Tick:
    """Seconds from the sensor's decision; rows in Dagster's event log."""

    to_scores: float
    to_end: float
    events: int


@dataclass(frozen=True)
class Figures:
    """One deployment's ticks, and the CPU seconds of a run worker."""

    ticks: Sequence[Tick]
    cpu_seconds: float


class Deployment:
    """The servers and the player, kept up, and Dagster's processes in one of two ways."""

    def __init__(self, home: Home, symbols: int) -> None:
        self.home = home
        home.prepare()
        names = ["dagster", "code_server", "postgres", "kafka", "kafka_controller"]
        self.ports: dict[str, int] = {}
        for name in names:
            self.ports[name] = free_port(taken=self.ports.values())
        self._servers = Supervisor(home, lambda _: None)
        os.environ["LIQ_SYMBOLS"] = ",".join(symbol_names(symbols))

    def start(self) -> None:
        postgres = EmbeddedPostgres(self.home.path, self.ports["postgres"])
        kafka = EmbeddedKafka(self.home.path, self.ports["kafka"], controller_port=self.ports["kafka_controller"])
        self._servers.start([Part("postgres", postgres, POSTGRES_RANK), Part("kafka", kafka, KAFKA_RANK)])
        self.url = postgres.ensure_database("liq")
        self.dagster_url = dagster_home.ensure_storage(self.url, "dagster")
        dagster_storage.ensure_tables(self.dagster_url)
        migrate(self.url)
        ensure_topics(kafka.bootstrap_servers, "")
        self.endpoints = Endpoints(
            self.url,
            kafka.bootstrap_servers,
            dagster_storage_url=self.dagster_url,
            code_server_port=self.ports["code_server"],
            mode="simulated",
        )
        self.environment = parts.environment(self.home, self.endpoints)
        player = parts.source_part(self.home, self.environment, "simulated", recording=None, speed=1.0, once=False)
        self._servers.start([player])

    def stop(self) -> None:
        self._servers.stop()

    @contextmanager
    def dagster(self, *, stock: bool) -> Iterator[Callable[[], float]]:
        """Dagster's processes; yields a function that tells the CPU seconds of the run workers that have ended."""
        dagster_home.prepare(self.home)
        environment = dict(self.environment)
        if stock:
            path = self.home.dagster / "dagster.yaml"
            configuration = yaml.safe_load(path.read_text())
            for name in ("run_launcher", "run_coordinator", "compute_logs", "event_log_storage"):
                del configuration[name]
            for name in ("run_storage", "schedule_storage"):
                del configuration[name]
            configuration["storage"] = {"postgres": {"postgres_url": {"env": "LIQ_DAGSTER_PG_URL"}}}
            path.write_text(yaml.safe_dump(configuration))
        supervisor = Supervisor(self.home, lambda _: None)
        chosen = parts.dagster_parts(self.home, environment, self.ports)
        if stock:
            chosen = [part for part in chosen if part.name != "launcher"]
        try:
            supervisor.start(chosen)
            parent = supervisor.part("code server" if stock else "launcher").service.identity
            assert parent is not None
            process = psutil.Process(parent.pid)

            def cpu_seconds() -> float:
                times = process.cpu_times()
                return float(times.children_user + times.children_system)

            yield cpu_seconds
        finally:
            supervisor.stop()

    def query(self, text: str, values: dict[str, Any], *, dagster: bool) -> list[tuple[Any, ...]]:
        url = self.url
        if dagster:
            url = self.dagster_url.replace("postgresql+psycopg2://", "postgresql://")
        with psycopg.connect(url) as connection:
            return connection.execute(text, values).fetchall()

    def runs_since(self, begin: datetime) -> list[str]:
        """Ids of ended, successful ticks, oldest first."""
        rows = self.query(
            "SELECT run_id FROM runs WHERE pipeline_name = %(job)s AND status = 'SUCCESS'"
            " AND create_timestamp >= %(begin)s ORDER BY id",
            {"job": JOB, "begin": begin.replace(tzinfo=None)},
            dagster=True,
        )
        return [run_id for (run_id,) in rows]

    def tick(self, run_id: str) -> Tick | None:
        """A run's figures; None if it had nothing to score."""
        (ended, decided, events) = self.query(
            "SELECT r.end_time, (SELECT value FROM run_tags t WHERE t.run_id = r.run_id AND key = %(tag)s),"
            " (SELECT count(*) FROM event_logs e WHERE e.run_id = r.run_id) FROM runs r WHERE r.run_id = %(run)s",
            {"run": run_id, "tag": DECIDED_TAG},
            dagster=True,
        )[0]
        committed = self.query(
            "SELECT max(committed_at) FROM ticks WHERE dagster_run_id = %(run)s", {"run": run_id}, dagster=False
        )[0][0]
        if committed is None or decided is None:
            return None
        begin = datetime.fromisoformat(decided).timestamp()
        return Tick(committed.timestamp() - begin, ended - begin, events)


def symbol_names(count: int) -> list[str]:
    """BTC and ETH first, as the defaults."""
    return (["BTC", "ETH"] + [f"COIN{number}" for number in range(count)])[:count]


def measure(deployment: Deployment, ticks: int, *, stock: bool, patience_seconds: float) -> Figures:
    """Let Dagster run until enough ticks are done; the first few, which warm caches up, do not count."""
    with deployment.dagster(stock=stock) as cpu_seconds:
        begin = deployment.query("SELECT clock_timestamp()", {}, dagster=True)[0][0]
        deadline = time.monotonic() + patience_seconds
        counted: dict[str, Tick] = {}
        scored: dict[str, Tick] = {}
        looked_at: set[str] = set()
        cpu_before: float | None = None
        runs_before = 0
        while len(counted) < ticks:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(counted)} of {ticks} ticks within {patience_seconds:.0f} s")
            time.sleep(0.5)
            seen = deployment.runs_since(begin)
            for run_id in seen:  # each is asked for once: looking must not cost the ticks their time
                if run_id not in looked_at:
                    looked_at.add(run_id)
                    tick = deployment.tick(run_id)
                    if tick is not None:
                        scored[run_id] = tick
            if cpu_before is None and len(scored) >= WARM_UP_TICKS:
                cpu_before, runs_before = cpu_seconds(), len(seen)
            if cpu_before is not None:
                counted = dict(list(scored.items())[WARM_UP_TICKS:])
        time.sleep(2.0)
        assert cpu_before is not None
        runs = len(deployment.runs_since(begin)) - runs_before
        return Figures(list(counted.values()), (cpu_seconds() - cpu_before) / max(runs, 1))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def line(name: str, values: Sequence[float]) -> str:
    """p50, p95 and maximum."""
    p50, p95 = quantile(values, 0.5), quantile(values, 0.95)
    return f"  {name:<34} p50 {p50:6.2f} s   p95 {p95:6.2f} s   max {max(values):6.2f} s"


def show(title: str, figures: Figures) -> None:
    """One deployment's figures."""
    print(f"{title}: {len(figures.ticks)} ticks")
    print(line("decision to scores committed", [tick.to_scores for tick in figures.ticks]))
    print(line("decision to run end", [tick.to_end for tick in figures.ticks]))
    events = [tick.events for tick in figures.ticks]
    print(f"  {'CPU of the run worker':<34} {figures.cpu_seconds:.2f} s a tick")
    print(f"  {'rows in the event log':<34} {quantile(events, 0.5):.0f} a tick (at most {max(events)})", flush=True)


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench ticks", description=__doc__)
    parser.add_argument("--tick-symbols", default="2,20", help="how many, one deployment after the other")
    parser.add_argument("--warm-ticks", type=int, default=30)
    parser.add_argument("--stock-ticks", type=int, default=10)
    options, _ = parser.parse_known_args(arguments)
    for symbols in map(int, options.tick_symbols.split(",")):
        with ExitStack() as exits:
            folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="liq-bench-"))
            Path(folder).chmod(0o711)
            deployment = Deployment(Home(Path(folder)), symbols)
            exits.callback(deployment.stop)
            deployment.start()
            load = os.getloadavg()[0]
            print(f"\nticks, {symbols} symbols, {os.cpu_count()} cores, load {load:.1f} before", flush=True)
            warm = measure(deployment, options.warm_ticks, stock=False, patience_seconds=900)
            show("warm launcher, as shipped", warm)
            stock = measure(deployment, options.stock_ticks, stock=True, patience_seconds=900)
            show("stock launcher and queue", stock)
            for name, figure in (("scores committed", "to_scores"), ("run end", "to_end")):
                ours, theirs = (
                    quantile([getattr(tick, figure) for tick in figures.ticks], 0.5) for figures in (warm, stock)
                )
                print(f"  {name}: warm is {theirs / ours:.1f} times as fast (p50)")
            print(f"  CPU of the run worker: stock takes {stock.cpu_seconds / warm.cpu_seconds:.1f} times as much")
