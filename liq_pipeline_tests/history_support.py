"""A made panel, and a panel written into the tables as if it had been backfilled: for tests of what judges history."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg

from liq_pipeline.domain.worlds import World
from liq_pipeline.evaluation.panels.panel import VALUE_COLUMNS, Panel
from liq_pipeline_tests.scoring_support import CLUSTER_ID, make_world

VENUE = "alpha"


def made_panel(days: int = 120, columns: tuple[str, ...] = ("funding_rate_per_8h",)) -> Panel:
    """Four symbols by the hour: calm stretches, wild ones, and jumps in which open interest falls."""
    rng = np.random.default_rng(12)
    rows, symbols = days * 24, ("BTC", "ETH", "SOL", "WIF")
    wild = np.repeat(rng.random(rows // 24) < 0.3, 24)
    returns = rng.standard_t(4, (4, rows)) * np.where(wild, 0.006, 0.003)
    turns = rng.normal(0, 0.006, (4, rows))
    for start in rng.choice(np.flatnonzero(wild[: rows - 10]), 25):
        hit = rng.random(4) < 0.7
        returns[hit, start] -= 0.05
        turns[hit, start] -= 0.06
    values = {name: np.full((4, rows), np.nan) for name in VALUE_COLUMNS}
    values["price_usd"] = 100 * np.exp(np.cumsum(returns, axis=1))
    values["open_interest_base"] = 1e5 * np.exp(np.cumsum(turns, axis=1))
    values["open_interest_usd"] = values["price_usd"] * values["open_interest_base"]
    for name in columns:
        values[name] = np.abs(rng.normal(0, 1e-4 if name.startswith("funding") else 1e6, (4, rows)))
    if "stablecoin_net_inflow_usd" in columns:
        values["stablecoin_net_inflow_usd"] = np.tile(rng.normal(0, 1e6, rows), (4, 1))
    time = 1_775_001_600 + 3600 * np.arange(rows, dtype=np.int64)
    return Panel(symbols, time, 3600, values, (), "made")


def store_panel(
    conn: psycopg.Connection[Any],
    panel: Panel,
    name: str,
    *,
    venues: tuple[str, ...] = (VENUE,),
    origin: str = "archive",
) -> World:
    """Prices, open interest and funding of a panel under one or more venues (each the same), known when true."""
    first, last = (datetime.fromtimestamp(int(t), UTC) for t in (panel.time[0], panel.time[-1]))
    world = make_world(
        conn,
        name,
        symbols=panel.symbols,
        venues=venues,
        topics=("prices", "open_interest", "funding_rates"),
        cadence_seconds=panel.step_seconds,
        first_time=first,
        last_time=last,
    )
    tables = {
        "prices": ("price_usd", "price_usd", ""),
        "open_interest": ("open_interest_base", "open_interest_base", ""),
        "funding_rates": ("funding_rate_per_8h", "rate, rate_per_8h, kind, interval_hours", "funding"),
    }
    cluster = conn.execute("SELECT cluster_no FROM kafka_clusters WHERE cluster_id = %s", [CLUSTER_ID]).fetchone()
    assert cluster is not None
    for table, (column, names, kind) in tables.items():
        statement = (
            f"COPY {table} (world, symbol, venue, event_time, origin, received_at, known_at, event_time_source,"
            f" kafka_cluster, kafka_partition, kafka_offset, {names}) FROM STDIN"
        )
        with conn.cursor() as cursor, cursor.copy(statement) as copy:  # type: ignore[arg-type]
            for s, symbol in enumerate(panel.symbols):
                for venue in venues:
                    for index in np.flatnonzero(np.isfinite(panel[column][s])):
                        at = datetime.fromtimestamp(int(panel.time[index]), UTC)
                        value = float(panel[column][s, index])
                        values = (value, value, "predicted", 8.0) if kind else (value,)
                        copy.write_row(
                            (world.name, symbol, venue, at, origin, at, at, "venue", cluster[0], 0, 0, *values)
                        )
    return world
