"""Fifty symbols at every venue, each answer 300 ms late: how long rounds take, and what each venue is asked.

Belongs here: measuring rounds of polling as the live lane runs them, one every 10 s. Does not: the venues
(liq_pipeline_tests/pace_support.py).

The baselines: the 3 s bound of a round, the delay that no round can undercut, and each venue's declared budget, against
which the requests are counted where they arrive.

    python -m bench pace --rounds=31
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from bench.collect import quantile
from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.polling.round import poll_due
from liq_pipeline.sources.registry import SOURCES
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.pace_support import COINS, POLLED, SlowVenues

MINUTE = 60.0


def main(arguments: list[str]) -> None:
    """Measure and print; exit 1 if a round passes its bound or a venue is asked more than its budget."""
    parser = argparse.ArgumentParser(prog="python -m bench pace", description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--delay", type=float, default=0.3, help="seconds before each answer")
    parser.add_argument("--profile", action="store_true", help="where the CPU of the rounds goes")
    options, _ = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory(prefix="liq-pace-") as folder, SlowVenues(options.delay) as venues:
        home = Path(folder)
        home.chmod(0o711)
        postgres, kafka = EmbeddedPostgres(home, free_port()), EmbeddedKafka(home, free_port())
        try:
            postgres.start()
            kafka.start()
            url = postgres.ensure_database("pace")
            migrate(url)
            ensure_topics(kafka.bootstrap_servers)
            settings = Settings(
                home=home,
                mode="live",
                symbols=COINS,
                venues=POLLED,
                sources=SourceSettings(urls=venues.urls()),
            )
            holds = _measure(url, kafka.bootstrap_servers, settings, venues, options)
        finally:
            kafka.stop()
            postgres.stop()
    if not holds:
        sys.exit(1)


def _measure(url: str, servers: str, settings: Settings, venues: SlowVenues, options: argparse.Namespace) -> bool:
    profile = cProfile.Profile() if options.profile else None
    seconds, cpu, records, asked = [], [], [], []
    per_minute: dict[int, Counter[str]] = defaultdict(Counter)
    failures: Counter[str] = Counter()
    start = time.monotonic()
    for number in range(options.rounds):
        time.sleep(max(0.0, start + number * settings.sources.market_seconds - time.monotonic()))
        begun, cpu_begun = time.monotonic(), _cpu_seconds()
        if profile is not None:
            profile.enable()
        result = poll_due(url, servers, settings)
        if profile is not None:
            profile.disable()
        seconds.append(time.monotonic() - begun)
        cpu.append(_cpu_seconds() - cpu_begun)
        records.append(sum(result.records.values()))
        asked.append(result.asked)
        failures.update(result.failures.keys())
        per_minute[int((begun - start) / MINUTE)] += venues.counts()
    bound = settings.sources.round_seconds
    print(
        f"pace: {len(COINS)} symbols, {len(POLLED)} venues, {options.rounds} rounds, answers after "
        f"{options.delay * 1000:.0f} ms, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(
        f"  round: p50 {quantile(seconds, 0.5):.2f} s, p95 {quantile(seconds, 0.95):.2f} s, max {max(seconds):.2f} s "
        f"(bound {bound:g} s; no round can be shorter than {options.delay:g} s)"
    )
    print(f"  CPU:   p50 {quantile(cpu, 0.5):.2f} s, max {max(cpu):.2f} s a round")
    print(
        f"  work:  p50 {quantile(asked, 0.5):.0f} requests and {quantile(records, 0.5):,.0f} records a round, "
        f"at most {max(asked)} and {max(records):,}; the five longest rounds (s, requests, records): "
        + ", ".join(f"{s:.2f} {a} {r:,}" for s, a, r in sorted(zip(seconds, asked, records, strict=True))[:-6:-1])
    )
    within = True
    for name in POLLED:
        # A budget counts weight; one request weighs at least one, so requests are bounded by the sum over its scopes.
        budget = sum(limit.capacity * MINUTE / limit.window_seconds for limit in SOURCES[name].limits)
        most = max(counted[name] for counted in per_minute.values())
        within &= most <= budget
        print(f"  {name:<16} {most:>5} requests in the busiest minute of {budget:>6.0f} its budget allows")
    if failures - Counter({"coingecko": failures["coingecko"]}):
        print(f"  failures: {dict(failures)}")
    if profile is not None:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    return within and max(seconds) <= bound


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
