"""The kept look-back of the flow side: net flows on the 5-min grid, and each day's reference of them.

Belongs here: the table flow_bars, and the reference that scales the pressure. Does not: the market's bars and
references, and how versions are kept and seen (market_lookback.py), raw rows (store/inputs/as_known.py).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql

from liq_pipeline.scoring.bars import MICROSECONDS, STEP_SECONDS, Booleans, Floats, Integers
from liq_pipeline.scoring.references import DAY_SECONDS, order_statistics
from liq_pipeline.settings import PressureSettings, RiskSettings
from liq_pipeline.store.columns import fetch_arrays
from liq_pipeline.store.inputs.as_known import flow_sources_fresh, flow_sums
from liq_pipeline.store.inputs.expected_sources import Scope
from liq_pipeline.store.lookback.market_lookback import (
    ALL,
    EPOCH_DAY,
    Built,
    copy_references,
    days_with_references,
    first_at_or_after,
    first_bar,
    floor_bar,
    reference_row,
    reference_rows,
    time_of,
)

NET_FLOW: Final = "stablecoin_net_flow_cents"
"""|outflow - inflow| over the pressure window."""


def ensure_flow_lookback(
    conn: psycopg.Connection[Any],
    scope: Scope,
    times_seconds: Integers,
    last_scored_seconds: int | None,
    risk: RiskSettings,
    pressure: PressureSettings,
) -> Built:
    """Build and keep the flow windows and references that scoring `times_seconds` needs and lacks.

    last_scored_seconds: as for ensure_market_lookback.
    """
    if not scope.flow_venues:
        return Built()
    first_needed = first_bar(times_seconds, risk)
    last = floor_bar(int(times_seconds[-1]))
    first = first_needed if last_scored_seconds is None else floor_bar(last_scored_seconds) + STEP_SECONDS
    bars_kept = 0
    if first <= last:
        ends = np.arange(first, last + STEP_SECONDS, STEP_SECONDS, dtype=np.int64)
        bars_kept = _keep_flow_bars(conn, scope, ends, times_seconds, pressure.window_minutes)
    days = np.unique(times_seconds // DAY_SECONDS)
    kept = days_with_references(conn, scope.world, days, symbol=ALL)
    missing = [int(day) for day in days if int(day) not in kept]
    rows: list[tuple[Any, ...]] = []
    for day in missing:
        end = day * DAY_SECONDS
        values = _flow_history(conn, scope, end - risk.lookback_hours * 3600, end, pressure.window_minutes)
        quantiles, observations = order_statistics(values)
        built_at = first_at_or_after(times_seconds, end)
        rows.append(reference_row(scope.world, ALL, ALL, NET_FLOW, day, built_at, observations, quantiles))
    copy_references(conn, rows)
    return Built(bars_kept, len(rows))


def flow_references(
    conn: psycopg.Connection[Any], scope: Scope, days: Integers, built_by_seconds: int
) -> list[tuple[int, Floats]]:
    """(observations, quantiles of |net| in cents) of each day; (0, empty) for a day without."""
    found = {
        (day - EPOCH_DAY).days: (int(observations), quantiles)
        for _, _, feature, day, observations, quantiles in reference_rows(
            conn, scope.world, [ALL], days, built_by_seconds
        )
        if feature == NET_FLOW
    }
    return [found.get(int(day), (0, np.empty(0))) for day in days]


def flow_history_in_memory(
    conn: psycopg.Connection[Any], scope: Scope, day: int, risk: RiskSettings, window_minutes: int
) -> tuple[int, Floats]:
    """One day's flow reference from raw rows, not kept."""
    last = day * DAY_SECONDS
    ends = np.arange(
        last - risk.lookback_hours * 3600 + STEP_SECONDS, last + STEP_SECONDS, STEP_SECONDS, dtype=np.int64
    )
    inflow, outflow, alive = _flow_windows(conn, scope, ends, window_minutes)
    quantiles, observations = order_statistics(np.abs(outflow - inflow)[alive].astype(np.float64))
    return observations, quantiles


def _flow_windows(
    conn: psycopg.Connection[Any], scope: Scope, ends_seconds: Integers, window_minutes: int
) -> tuple[Integers, Integers, Booleans]:
    ends_us = ends_seconds * MICROSECONDS
    inflow, outflow = flow_sums(conn, scope, ends_us, window_minutes, origins="all")
    fresh, _ = flow_sources_fresh(conn, scope, ends_us, grace_us=STEP_SECONDS * MICROSECONDS, origins="all")
    return inflow, outflow, np.asarray(fresh.any(axis=0), dtype=bool)


def _keep_flow_bars(
    conn: psycopg.Connection[Any], scope: Scope, ends: Integers, times_seconds: Integers, window_minutes: int
) -> int:
    inflow, outflow, alive = _flow_windows(conn, scope, ends, window_minutes)
    statement = "COPY flow_bars (world, bar_end, window_minutes, inflow_cents, outflow_cents, built_at_time) FROM STDIN"
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for place in np.flatnonzero(alive):
            end = int(ends[place])
            copy.write_row(
                (scope.world, time_of(end), window_minutes, int(inflow[place]), int(outflow[place]),
                 time_of(first_at_or_after(times_seconds, end)))
            )  # fmt: skip
    return int(alive.sum())


def _flow_history(
    conn: psycopg.Connection[Any], scope: Scope, after_seconds: int, last_seconds: int, window_minutes: int
) -> Floats:
    """|net| in cents of the kept windows that end in (after, last]."""
    query = sql.SQL(
        """
        SELECT array_agg(abs(outflow_cents - inflow_cents)::float8) FILTER (WHERE newest = 1)
        FROM (
            SELECT inflow_cents, outflow_cents,
                   row_number() OVER (PARTITION BY bar_end ORDER BY built_at_time DESC) AS newest
            FROM flow_bars
            WHERE world = %(world)s AND window_minutes = %(window)s AND bar_end > %(after)s AND bar_end <= %(last)s
        ) AS versions
        """
    )
    parameters = {
        "world": scope.world,
        "window": window_minutes,
        "after": time_of(after_seconds),
        "last": time_of(last_seconds),
    }
    values = fetch_arrays(conn, query, parameters)[0][0]
    return np.empty(0) if values is None else values
