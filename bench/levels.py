"""What the liquidation map costs: drawing one for many symbols, a quarter of a year of them, and reading a past one.

Belongs here: measuring. Does not: anything that the product needs. --symbols=N --venues=N

CPU time is that of this process and of the database's own process for it together: on a busy machine the wall says
little.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from liq_pipeline.domain.worlds import Expectation, Manifest, World
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.scoring.levels.maps import map_at
from liq_pipeline.scoring.levels.method import method_of
from liq_pipeline.settings import Settings
from liq_pipeline.store import levels
from liq_pipeline.store.connection import connect
from liq_pipeline.store.inputs.expected_sources import scope_of
from liq_pipeline.store.lookback.bar_cache import BarCache, Window
from liq_pipeline.store.schema.migrations import migrate

LAST = datetime(2026, 3, 1, tzinfo=UTC)
ROUNDS = 3
WEEK_SECONDS, DAY_SECONDS = 7 * 86_400, 86_400
KEPT_SYMBOLS = 5
"""Of which 90 days are stored; the size of the others follows."""


def main(arguments: list[str]) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--venues", type=int, default=9)
    options = parser.parse_args(arguments)
    symbols = tuple(f"COIN{number}" for number in range(options.symbols))
    venues = tuple(f"venue{number}" for number in range(options.venues))
    expected = {topic: Expectation(venues=venues, cadence_seconds=10.0) for topic in ("prices", "open_interest")}
    world = World(
        name="recorded/bench",
        kind="recorded",
        market_step_seconds=60,
        flows_step_seconds=60,
        manifest=Manifest(symbols=symbols, expected=expected),
        first_time=None,
        last_time=None,
    )
    scope = scope_of(world, Settings().risk)
    method = method_of(world.name)
    with tempfile.TemporaryDirectory(prefix="liq-bench-") as home:
        Path(home).chmod(0o755)  # as root, PostgreSQL runs as a user of its own
        server = EmbeddedPostgres(Path(home) / "postgres", free_port())
        server.start()
        try:
            url = server.ensure_database("bench")
            migrate(url)
            with connect(url) as conn:
                conn.execute(
                    """
                    INSERT INTO feature_bars
                    SELECT %(world)s, s, v, t, 100 * (1 + 0.03 * sin(extract(epoch FROM t) / 40000)),
                           1e6 * (1 + 0.1 * sin(extract(epoch FROM t) / 90000)), 0.0001, 0.5, 0, 0, t
                    FROM generate_series(%(first)s, %(last)s, interval '5 min') AS t, unnest(%(symbols)s::text[]) AS s,
                         unnest(%(venues)s::text[]) AS v
                    """,
                    {
                        "world": world.name,
                        "first": LAST - timedelta(hours=method.window_hours),
                        "last": LAST,
                        "symbols": list(symbols),
                        "venues": list(venues),
                    },
                )
                conn.commit()
                conn.execute("ANALYZE feature_bars")
                conn.commit()
                conn.execute(
                    "INSERT INTO ticks (world, stream, time, cut, started_at, rows_landed)"
                    " VALUES (%s, 'market', %s, '{}', now(), 0)",
                    [world.name, LAST],
                )
                conn.commit()
                cache, last = BarCache(Path(home) / "cache"), int(LAST.timestamp())
                cache.read(conn, scope, Window(last - WEEK_SECONDS, last, last - DAY_SECONDS, last))
                cache.keep(conn)
                conn.commit()
                backend = psutil.Process(conn.info.backend_pid)
                parts: dict[str, list[float]] = {"read without the last tick's look-back": [], "read": []}
                parts |= {"draw": [], "write": []}
                for _ in range(ROUNDS):
                    conn.execute("DELETE FROM liquidation_levels")
                    marks = [_cpu(backend)]
                    levels.window_bars(conn, scope, method, last)
                    marks.append(_cpu(backend))
                    bars = levels.window_bars(conn, scope, method, last, cache)
                    marks.append(_cpu(backend))
                    rows = levels.rows_of(map_at(bars, method, bars.count - 1), scope)
                    marks.append(_cpu(backend))
                    levels.write_maps(conn, rows)
                    conn.commit()
                    marks.append(_cpu(backend))
                    for name, start, stop in zip(parts, marks, marks[1:], strict=False):
                        parts[name].append(stop - start)
                series = f"{options.symbols} symbols x {options.venues} venues"
                for name, seconds in parts.items():
                    print(f"| {name} a map of {series} | {statistics.median(seconds):.2f} s of CPU |")
                conn.execute(
                    f"""
                    INSERT INTO liquidation_levels ({", ".join(levels.COLUMNS)})
                    SELECT {", ".join("t" if name == "time" else "l." + name for name in levels.COLUMNS)}
                    FROM liquidation_levels AS l, generate_series(%(last)s - interval '90 days',
                         %(last)s - interval '5 min', interval '5 min') AS t
                    WHERE l.symbol = ANY(%(symbols)s)
                    AND (t > %(last)s - interval '30 days' OR t = date_trunc('hour', t))
                    """,  # noqa: S608 - own columns
                    {"last": LAST, "symbols": list(symbols[:KEPT_SYMBOLS])},
                )
                conn.execute("DELETE FROM liquidation_levels WHERE symbol <> ALL(%s)", [list(symbols[:KEPT_SYMBOLS])])
                conn.commit()
                row = conn.execute("SELECT pg_total_relation_size('liquidation_levels')").fetchone()
                size = 0 if row is None else row[0] / KEPT_SYMBOLS * options.symbols
                print(f"| 90 days of {options.symbols} symbols, hourly after 30 | {size / 1e6:.0f} MB |")
                waits = []
                for days in range(1, 90, 3):
                    begun = time.perf_counter()
                    levels.map_at_time(conn, world.name, symbols[1], LAST - timedelta(days=days, minutes=7))
                    waits.append(time.perf_counter() - begun)
                middle, worst = 1000 * statistics.median(waits), 1000 * max(waits)
                print(f"| a map at a past time, median and slowest of {len(waits)} | {middle:.1f}, {worst:.1f} ms |")
        finally:
            server.stop()


def _cpu(backend: psutil.Process) -> float:
    times = backend.cpu_times()
    return time.process_time() + times.user + times.system
