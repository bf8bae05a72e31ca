"""A soak: the whole program in simulated mode for an hour; does it miss, leak or fill the disk?

Belongs here: watching a running installation and adding up. Does not: measuring the speed of a tick (ticks.py) or
hurting it (faults_ticks.py).

    python -m bench soak --minutes=60 --symbols=20

Private memory is what a process alone holds (USS); the launcher's is its anonymous memory, because a run worker at work
shares pages with it, which would read as a loss. The total counts shared pages once (PSS), PostgreSQL's with it.
Looking at Dagster's pages meanwhile makes the webserver cache: leave it alone.
A process is judged by medians over two minutes: around minute 10, when every cache has been used, and at the end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
from dagster import DagsterInstance

from bench._installation import Installation, installation, symbol_names, wait_until
from liq_pipeline.defs.upkeep.pruning import prune_runs
from liq_pipeline.pipeline.tick import LATE_AFTER
from liq_pipeline.runtime.processes import ProcessIdentity
from liq_pipeline.runtime.servers import dagster_home

SAMPLE_SECONDS = 15.0
SETTLED_MINUTES = 10.0
WINDOW_SECONDS = 120.0
FIRST_TICK_SECONDS = 1200.0
"""A bound for a crowded machine: the simulated look-back of 20 symbols lands first."""
MEBIBYTE = 1 << 20
DAY_SECONDS = 86_400
DAGSTER = "dagster: "
ROLLUP = "rollup_"
GROWTH_ALLOWED = 1.10
TOTAL_ALLOWED_BYTES = 3 * 1024 * MEBIBYTE


@dataclass
class Memory:
    """Samples of one installation. private: part -> [(seconds since the start, bytes)]."""

    private: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    total: list[tuple[float, int]] = field(default_factory=list)

    def sample(self, made: Installation, at: float) -> None:
        """Add one sample. Run workers are not a part of their own: each lives for a second; the total has them."""
        assert made.process is not None
        roots = dict(made.parts())
        supervisor = ProcessIdentity.of(made.process.pid)
        if supervisor is not None:
            roots["supervisor"] = supervisor
        everything: dict[int, psutil.Process] = {}
        for name, identity in roots.items():
            members = tree_of(identity, with_children=name != "supervisor")
            everything.update({member.pid: member for member in members})
            own = members if name == "postgres" else members[:1]
            if name == "launcher":
                private = anonymous_bytes(identity.pid)
            else:
                private = sum(use.uss for process in own if (use := memory_of(process)) is not None)
            if private:
                self.private[name].append((at, private))
        uses = [memory_of(process) for process in everything.values()]
        self.total.append((at, sum(use.pss for use in uses if use is not None)))


def tree_of(identity: ProcessIdentity, *, with_children: bool) -> list[psutil.Process]:
    """The process and, if asked for, all that it started; empty if it has ended."""
    process = identity.process()
    if process is None:
        return []
    try:
        return [process, *(process.children(recursive=True) if with_children else ())]
    except psutil.NoSuchProcess:
        return []


def memory_of(process: psutil.Process) -> Any:
    """uss and pss in bytes; None if it has just ended."""
    try:
        return process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return None


def anonymous_bytes(pid: int) -> int:
    """Memory that no file backs, shared with forked children or not; 0 if the process has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


def median_around(samples: Iterable[tuple[float, int]], at: float) -> float:
    """The median of the samples within a minute of a moment (or the nearest one, in a very short soak)."""
    known = list(samples)
    near = [size for moment, size in known if abs(moment - at) <= WINDOW_SECONDS / 2]
    return statistics.median(near or [min(known, key=lambda sample: abs(sample[0] - at))[1]])


@dataclass(frozen=True)
class Sizes:
    """What lies on disk at one moment. bytes: table with its indexes, Dagster's under `dagster: `."""

    at: datetime
    bytes: dict[str, int]
    event_rows: int

    @classmethod
    def of(cls, made: Installation) -> Sizes:
        """As PostgreSQL counts them."""
        query: LiteralString = (
            "SELECT relname, pg_total_relation_size(oid) FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        ours = dict(made.ask(query))
        theirs = {f"{DAGSTER}{table}": size for table, size in made.ask(query, dagster=True)}
        events = made.ask("SELECT count(*) FROM event_logs", dagster=True)[0][0]
        return cls(datetime.now(UTC), {**ours, **theirs}, events)


def per_day(before: Sizes, after: Sizes) -> dict[str, float]:
    """table -> growth in bytes a day."""
    seconds = (after.at - before.at).total_seconds()
    return {t: (size - before.bytes.get(t, 0)) / seconds * DAY_SECONDS for t, size in after.bytes.items()}


def settled_seconds(minutes: float) -> float:
    """Since the start: minute 10, or the middle of a shorter soak."""
    return min(SETTLED_MINUTES, minutes / 2) * 60


def show_ticks(made: Installation) -> bool:
    """Due, late and missed grid points of both streams; whether none is missed."""
    complete = True
    for stream, step in (("market", 10), ("flows", 15)):
        (scored, first, last, late, delays) = made.ask(
            "SELECT count(*), min(time), max(time), count(*) FILTER (WHERE committed_at - time > %s),"
            " percentile_disc(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM committed_at - time))"
            " FROM ticks WHERE stream = %s",
            LATE_AFTER,
            stream,
        )[0]
        due = int((last - first).total_seconds()) // step + 1
        complete = complete and scored == due
        told = " / ".join(f"{float(delay):.2f}" for delay in delays)
        print(
            f"  {stream:<8} {due} grid points due, {late} late, {due - scored} missed; committed {told} s after", end=""
        )
        print(" their time (p50 / p95 / max)")
    return complete


def show_runs(made: Installation) -> bool:
    """Runs by job and state; whether all that ended were successful."""
    rows = made.ask("SELECT pipeline_name, status, count(*) FROM runs GROUP BY 1, 2 ORDER BY 1, 2", dagster=True)
    for job, status, count in rows:
        print(f"  {job:<18} {count:>5} {status}")
    return not any(status in ("FAILURE", "CANCELED") for _, status, _ in rows)


def show_memory(memory: Memory, minutes: float) -> bool:
    """Each part at minute 10 and at the end; whether all stay within bounds."""
    settled = settled_seconds(minutes)
    good = True
    for name, samples in sorted(memory.private.items()):
        first, last = median_around(samples, settled), median_around(samples, samples[-1][0] - WINDOW_SECONDS / 2)
        good = good and last <= first * GROWTH_ALLOWED
        before, after = first / MEBIBYTE, last / MEBIBYTE
        minute = f"minute {settled / 60:.0f}"
        print(f"  {name:<12} {before:7.1f} MB at {minute}, {after:7.1f} MB at the end, ratio {last / first:.3f}")
    most = max(size for _, size in memory.total)
    print(f"  all together {most / MEBIBYTE:.0f} MB at most, run workers included, shared pages once")
    return good and most < TOTAL_ALLOWED_BYTES


def show_growth(made: Installation, begin: Sizes, end: Sizes) -> None:
    """Growth per day as written, and as kept once all that may go has gone."""
    events = (end.event_rows - begin.event_rows) / (end.at - begin.at).total_seconds() * DAY_SECONDS
    print(f"  Dagster's event log: {events:,.0f} rows a day")
    # The hourly maintenance builds the roll-ups of the whole simulated look-back once: no daily growth.
    once = sum(size for table, size in end.bytes.items() if table.startswith(ROLLUP))
    written = {table: size for table, size in per_day(begin, end).items() if not table.startswith(ROLLUP)}
    show_day("before pruning", written)
    largest = sorted(written.items(), key=lambda item: -item[1])[:8]
    print("    most of it: " + ", ".join(f"{table} {size / MEBIBYTE:.0f}" for table, size in largest))
    prune_dagster(made)
    # All of a pruned store's bytes stem from this soak; ours reuses the room of delivered messages after a day.
    whole = (end.at - made.started_at).total_seconds()
    kept = Sizes.of(made).bytes
    theirs = {table: size / whole * DAY_SECONDS for table, size in kept.items() if table.startswith(DAGSTER)}
    ours = {table: size for table, size in written.items() if not table.startswith(DAGSTER) and table != "outbox"}
    show_day("after pruning ", {**ours, **theirs})
    print(f"  beside it, roll-ups of 30 simulated days: {once / MEBIBYTE:.0f} MB, built once")


def show_day(title: str, growth: dict[str, float]) -> None:
    """One line: the two databases and their sum."""
    theirs = sum(size for table, size in growth.items() if table.startswith(DAGSTER))
    ours = sum(growth.values()) - theirs
    print(
        f"  {title}: {ours / MEBIBYTE:,.0f} MB a day of ours, {theirs / MEBIBYTE:,.0f} of Dagster's,"
        f" together {(ours + theirs) / MEBIBYTE:,.0f}"
    )


def prune_dagster(made: Installation) -> None:
    """What the maintenance job deletes in time, at once: successful live runs. The tables are then written anew."""
    now = datetime.now(UTC)
    os.environ["DAGSTER_HOME"] = str(made.home.dagster)
    os.environ["LIQ_DAGSTER_PG_URL"] = dagster_home.ensure_storage(made.database_url("dagster"), "dagster")
    os.environ["LIQ_ZYGOTE_SOCKET"] = str(dagster_home.zygote_socket(made.home))
    with DagsterInstance.get() as instance:
        prune_runs(instance, live_before=now, others_before=now - timedelta(days=30))
    with psycopg.connect(made.database_url("dagster"), autocommit=True) as connection:
        connection.execute("VACUUM FULL")


def main(arguments: list[str]) -> None:
    """Watch, add up and print."""
    parser = argparse.ArgumentParser(prog="python -m bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="60 for the acceptance figures")
    parser.add_argument("--symbols", type=int, default=20)
    options, _ = parser.parse_known_args(arguments)
    with installation("simulated", LIQ_SYMBOLS=",".join(symbol_names(options.symbols))) as made:
        print(f"\nsoak of {options.minutes:g} minutes, {options.symbols} symbols, {os.cpu_count()} cores", flush=True)
        waited = wait_until(lambda: made.market_ticks() > 0, FIRST_TICK_SECONDS, "the first tick")
        print(f"  first tick {waited:.0f} s after the address was there", flush=True)
        begun = time.monotonic()
        memory, begin = Memory(), None
        while (at := time.monotonic() - begun) < options.minutes * 60:
            memory.sample(made, at)
            if begin is None and at >= settled_seconds(options.minutes):
                begin = Sizes.of(made)
            time.sleep(SAMPLE_SECONDS)
        end = Sizes.of(made)
        verdicts = {
            "no grid point missed": show_ticks(made),
            "every run successful": show_runs(made),
            "memory within bounds": show_memory(memory, options.minutes),
        }
        print(f"  load of the machine at the end: {os.getloadavg()[0]:.1f}")
        show_restarts(made)
        show_growth(made, begin or end, end)
        for promise, is_kept in verdicts.items():
            print(f"  {promise}: {'yes' if is_kept else 'NO'}")


def show_restarts(made: Installation) -> None:
    """What the supervisor had to start again, in its own words."""
    for line in made.said().splitlines():
        if "started again" in line or "keeps dying" in line:
            print(f"  {line}")
