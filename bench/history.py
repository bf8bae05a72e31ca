"""How long a year of history takes: hourly partitions of 20 symbols, scored from stored data in one Dagster run.

Belongs here: measuring. Does not: anything that the product needs.

One run, one machine, one database. A year of 5-minute rows is written into the tables; then, beside a simulated market
whose ticks go on, some days of archive files are loaded by `liq backfill` from a local server, and the asset
history/signals is brought up to date for one quarter and for four, each as the one run that a backfill from the asset
graph makes, through the queue and the heavy lane. Printed: time in all, per million rows, CPU of the process that does
it, how it grows, and what the ticks took without and beside it. Ticks without it are measured before, between and after
the backfills, so that a machine that grows busier meanwhile weighs on both; for the ticks alone, many short ones:

    python -m bench history --history-quarters=0.5,0.5,0.5,0.5 --history-load-days=0 --history-alone=100
"""

# ruff: noqa: S608 - statements out of own constants

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import psycopg
import requests

from bench.ticks import Deployment, quantile, symbol_names
from liq_pipeline.domain.worlds import REAL, Expectation, Manifest, World
from liq_pipeline.launcher.run_launcher import WORKER_TAG
from liq_pipeline.runtime.home import Home
from liq_pipeline.sources.archives import binance
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.archive_support import serve_market
from liq_pipeline_tests.live_support import venue_server

START = datetime(2024, 1, 1, tzinfo=UTC)
LOOK_BACK = timedelta(days=32)
QUARTER = timedelta(days=91)
TICK_SYMBOLS = 2
VENUE = "binance"
TOPICS = ("prices", "funding_rates", "open_interest", "long_short_ratio")
LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}
"""
_PROVENANCE = "origin, event_time_source, received_at, known_at, kafka_cluster, kafka_partition, kafka_offset"
_STORED = "'archive', 'venue', t, t + interval '5 min', 1, 0, 0"
_SERIES = (
    "FROM unnest(%(symbols)s::text[]) WITH ORDINALITY AS s (sym, n),"
    " generate_series(%(first)s::timestamptz, %(last)s, %(step)s::interval) AS t"
)


@dataclass(frozen=True)
class Figures:
    """One backfill. rows: risk rows written."""

    seconds: float
    cpu_seconds: float
    rows: int
    ticks: Sequence[float]
    """Seconds from the sensor's decision to committed scores, of the ticks meanwhile."""


def fill(conn: psycopg.Connection[tuple[object, ...]], symbols: Sequence[str], last: datetime) -> int:
    """Write the rows an archive backfill would have left; how many."""
    expectation = Expectation(venues=(VENUE,), cadence_seconds=10)
    manifest = Manifest(symbols=tuple(symbols), expected=dict.fromkeys(TOPICS, expectation))
    world = World(name=REAL, kind="real", market_step_seconds=10, flows_step_seconds=15, manifest=manifest)
    worlds.register(conn, world, activate=False)
    span = {"symbols": list(symbols), "first": START - LOOK_BACK, "last": last, "step": timedelta(minutes=5)}
    head = f"world, symbol, venue, event_time, {_PROVENANCE}"
    values = f"'{REAL}', sym, '{VENUE}', t, {_STORED}"
    wave = "sin(extract(epoch FROM t) / 90000 + n) + 0.1 * sin(extract(epoch FROM t) / 7000 * n) + 0.02 * random()"
    statements = [
        (f"INSERT INTO prices ({head}, price_usd) SELECT {values}, 1000 * n * (1 + 0.04 * ({wave})) {_SERIES}", span),
        (
            f"INSERT INTO open_interest ({head}, open_interest_base)"
            f" SELECT {values}, 50000 * n * (1 + 0.1 * ({wave})) {_SERIES}",
            span,
        ),
        (
            f"INSERT INTO long_short_ratio ({head}, kind, period_minutes, long_share, short_share, ratio)"
            f" SELECT {values}, 'accounts', 5, x, 1 - x, x / (1 - x)"
            f" FROM (SELECT sym, t, 0.55 + 0.05 * ({wave}) AS x {_SERIES}) AS shares",
            span,
        ),
        (
            f"INSERT INTO funding_rates ({head}, kind, rate, interval_hours, rate_per_8h)"
            f" SELECT {values}, 'settled', x, 8, x FROM (SELECT sym, t, 0.0001 * ({wave}) AS x {_SERIES}) AS rates",
            span | {"step": timedelta(hours=8)},
        ),
    ]
    written = 0
    for statement, parameters in statements:
        written += conn.execute(statement, parameters).rowcount  # type: ignore[arg-type]
    conn.commit()
    conn.autocommit = True
    for topic in TOPICS:
        conn.execute(f"ANALYZE {topic}")  # type: ignore[arg-type]
    return written


def backfill(deployment: Deployment, first: datetime, last: datetime, patience_seconds: float) -> Figures:
    """Start one from the asset graph, as the UI does, and wait for its run."""
    hours = int((last - first) / timedelta(hours=1))
    names = [f"{first + timedelta(hours=hour):%Y-%m-%d-%H:%M}" for hour in range(hours)]
    params = {"assetSelection": [{"path": ["history", "signals"]}], "partitionNames": names}
    url = f"http://127.0.0.1:{deployment.ports['dagster']}/graphql"
    before = _risks(deployment)
    began = deployment.query("SELECT clock_timestamp()", {}, dagster=True)[0][0]
    started = time.monotonic()
    answer = requests.post(url, json={"query": LAUNCH, "variables": {"params": params}}, timeout=60).json()
    launched = answer["data"]["launchPartitionBackfill"]
    if launched["__typename"] != "LaunchBackfillSuccess":
        raise SystemExit(f"the backfill was not started: {launched}")
    cpu = 0.0
    while True:
        if time.monotonic() - started > patience_seconds:
            raise SystemExit(f"the backfill of {hours} hours took more than {patience_seconds:.0f} s")
        time.sleep(1.0)
        rows = deployment.query(
            "SELECT r.status, (SELECT value FROM run_tags t WHERE t.run_id = r.run_id AND key = %(worker)s)"
            " FROM runs r JOIN run_tags b ON b.run_id = r.run_id AND b.key = 'dagster/backfill' AND b.value = %(id)s",
            {"id": launched["backfillId"], "worker": WORKER_TAG},
            dagster=True,
        )
        if not rows:
            continue
        if len(rows) > 1:
            raise SystemExit(f"{len(rows)} runs were started where one was promised")
        status, worker = rows[0]
        cpu = max(cpu, _cpu_seconds(worker))
        if status in ("SUCCESS", "FAILURE", "CANCELED"):
            break
    if status != "SUCCESS":
        said = deployment.query(
            "SELECT event FROM event_logs e JOIN run_tags b ON b.run_id = e.run_id AND b.key = 'dagster/backfill'"
            " AND b.value = %(id)s WHERE dagster_event_type IN ('STEP_FAILURE', 'PIPELINE_FAILURE')",
            {"id": launched["backfillId"]},
            dagster=True,
        )
        raise SystemExit(f"the run ended as {status}: {[text[-3000:] for (text,) in said]}")
    ticks = [tick.to_scores for run in deployment.runs_since(began) if (tick := deployment.tick(run)) is not None]
    return Figures(time.monotonic() - started, cpu, _risks(deployment) - before, ticks)


def _cpu_seconds(worker: str | None) -> float:
    """Of the run's process so far; 0 where it is not there any more."""
    if not worker:
        return 0.0
    try:
        times = psutil.Process(json.loads(worker)["pid"]).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _told(ticks: Sequence[float]) -> str:
    """Decision to committed scores."""
    if not ticks:
        return "none"
    return f"p50 {quantile(ticks, 0.5):.2f} s, p95 {quantile(ticks, 0.95):.2f} s"


def _risks(deployment: Deployment) -> int:
    found = deployment.query("SELECT count(*) FROM liquidation_risk WHERE world = 'real'", {}, dagster=False)
    return int(found[0][0])  # type: ignore[call-overload]


def load(deployment: Deployment, symbols: Sequence[str], days: int) -> Figures:
    """Load days of archive files with the command that a person types, from a server of the bench's own."""
    first = START - timedelta(days=400)
    with venue_server() as server:
        server.serve(binance.NAME, {})
        serve_market(server, symbols, first.date(), (first + timedelta(days=days - 1)).date())
        command = [sys.executable, "-m", "liq_pipeline.cli", "backfill", "--source", binance.NAME]
        command += ["--from", first.isoformat(), "--to", (first + timedelta(days=days)).isoformat()]
        command += [word for symbol in symbols for word in ("--symbol", symbol)]
        environment = {**deployment.environment, "LIQ_BINANCE_ARCHIVE_URL": server.url(binance.NAME)}
        began = deployment.query("SELECT clock_timestamp()", {}, dagster=True)[0][0]
        started = time.monotonic()
        before = os.times()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        after = os.times()
        if done.returncode:
            raise SystemExit(f"the backfill failed: {done.stderr}")
    seconds = time.monotonic() - started
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    rows = deployment.query("SELECT sum(rows_sent) FROM archive_files", {}, dagster=False)[0][0]
    ticks = [tick.to_scores for run in deployment.runs_since(began) if (tick := deployment.tick(run)) is not None]
    return Figures(seconds, cpu, int(rows), ticks)


def quiet_ticks(deployment: Deployment, seconds: float) -> list[float]:
    """What the ticks take with nothing beside them."""
    began = deployment.query("SELECT clock_timestamp()", {}, dagster=True)[0][0]
    time.sleep(seconds)
    return [tick.to_scores for run in deployment.runs_since(began) if (tick := deployment.tick(run)) is not None]


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench history", description=__doc__)
    parser.add_argument("--history-symbols", type=int, default=20)
    parser.add_argument("--history-quarters", default="1,4", help="how many quarters to score, one after the other")
    parser.add_argument("--history-step", type=int, default=300, help="seconds between scores; archives have 300")
    parser.add_argument("--history-load-days", type=int, default=5)
    parser.add_argument("--history-alone", type=float, default=120, help="seconds of ticks alone, each time")
    parser.add_argument("--history-patience", type=float, default=7200)
    options, _ = parser.parse_known_args(arguments)
    spans = [float(word) for word in options.history_quarters.split(",")]
    with ExitStack() as exits:
        folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="liq-bench-"))
        Path(folder).chmod(0o711)
        os.environ["LIQ_SCORE_STEP"] = str(options.history_step)
        deployment = Deployment(Home(Path(folder)), TICK_SYMBOLS)
        exits.callback(deployment.stop)
        deployment.start()
        symbols = symbol_names(options.history_symbols)
        with connect(deployment.url) as conn:
            started = time.monotonic()
            stored = fill(conn, symbols, START + max(spans) * QUARTER)
        print(
            f"\nhistory, {len(symbols)} symbols, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f};"
            f" {stored:,} stored rows written in {time.monotonic() - started:.0f} s",
            flush=True,
        )
        exits.enter_context(deployment.dagster(stock=False))
        time.sleep(30)
        alone: list[float] = []
        beside: list[float] = []

        def measure_alone() -> None:
            ticks = quiet_ticks(deployment, options.history_alone)
            alone.extend(ticks)
            print(f"  ticks alone ({len(ticks)}): {_told(ticks)}", flush=True)

        measure_alone()
        if options.history_load_days:
            loaded = load(deployment, symbols, options.history_load_days)
            print(
                f"  loading {options.history_load_days} days of files: {loaded.rows:,} rows in {loaded.seconds:.0f} s,"
                f" {loaded.rows / loaded.seconds:,.0f} rows/s, {loaded.cpu_seconds / loaded.rows * 1e6:.0f} CPU-s per"
                f" million; ticks beside it ({len(loaded.ticks)}): {_told(loaded.ticks)}",
                flush=True,
            )
        per_million: list[float] = []
        for quarters in spans:
            figures = backfill(deployment, START, START + quarters * QUARTER, options.history_patience)
            per_million.append(figures.cpu_seconds / figures.rows * 1e6)
            beside += figures.ticks
            print(
                f"  {quarters:g} quarter(s): {figures.rows:,} scores in {figures.seconds:.0f} s,"
                f" {figures.seconds / figures.rows * 1e6:.0f} s and {per_million[-1]:.0f} CPU-s per million;"
                f" ticks beside it ({len(figures.ticks)}): {_told(figures.ticks)}",
                flush=True,
            )
            measure_alone()
        grows = per_million[-1] / per_million[0]
        print(f"  CPU per row, {spans[-1]:g} quarters to {spans[0]:g}: {grows:.2f}")
        ratios = [quantile(beside, share) / quantile(alone, share) for share in (0.5, 0.95)]
        print(f"  ticks beside scoring ({len(beside)}): {_told(beside)}; alone ({len(alone)}): {_told(alone)};", end="")
        print(f" ratios {ratios[0]:.2f} and {ratios[1]:.2f}", flush=True)
