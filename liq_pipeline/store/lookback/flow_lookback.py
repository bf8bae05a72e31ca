"""The kept look-back of the flow side: net flows of each chain on the 5-min grid, and each day's reference of them.

Belongs here: the table flow_bars, and the references that scale the pressure. Does not: the market's bars and
references, and how versions are kept and seen (market_lookback.py), raw rows (store/inputs/as_known.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql

from liq_pipeline.domain.chains import chain_of
from liq_pipeline.scoring.bars import MICROSECONDS, STEP_SECONDS, Floats, Integers
from liq_pipeline.scoring.references import DAY_SECONDS, order_statistics
from liq_pipeline.settings import PressureSettings, RiskSettings
from liq_pipeline.store.columns import fetch_arrays
from liq_pipeline.store.inputs.as_known import flow_sources_fresh, flow_totals
from liq_pipeline.store.inputs.expected_sources import Scope, with_flow_spans
from liq_pipeline.store.lookback.market_lookback import (
    ALL,
    EPOCH_DAY,
    Built,
    copy_references,
    date_of,
    first_at_or_after,
    first_bar,
    floor_bar,
    reference_row,
    reference_rows,
    time_of,
)

NET_FLOW: Final = "stablecoin_net_flow_cents"
"""|outflow - inflow| of a chain over the pressure window; its reference stands under symbol `*`, the chain as venue."""
FlowReferences = Mapping[tuple[str, int], tuple[int, Floats]]
"""(chain, day since 1970) -> (observations, order statistics of |net| in cents)."""


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
    scope = with_flow_spans(conn, scope)
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
    kept = _kept_references(conn, scope.world, days)
    rows: list[tuple[Any, ...]] = []
    for day in days.tolist():
        for chain in scope.flow_chains:
            if (chain, day) in kept:
                continue
            end = day * DAY_SECONDS
            values = _flow_history(conn, scope, chain, end - risk.lookback_hours * 3600, end, pressure.window_minutes)
            quantiles, observations = order_statistics(values)
            built_at = first_at_or_after(times_seconds, end)
            rows.append(reference_row(scope.world, ALL, chain, NET_FLOW, day, built_at, observations, quantiles))
    copy_references(conn, rows)
    return Built(bars_kept, len(rows))


def flow_references(
    conn: psycopg.Connection[Any], scope: Scope, days: Integers, built_by_seconds: int
) -> FlowReferences:
    """Each chain's and day's reference, of those that there are."""
    return {
        (chain, (day - EPOCH_DAY).days): (int(observations), quantiles)
        for _, chain, feature, day, observations, quantiles in reference_rows(
            conn, scope.world, [ALL], days, built_by_seconds
        )
        if feature == NET_FLOW
    }


def flow_history_in_memory(
    conn: psycopg.Connection[Any], scope: Scope, day: int, risk: RiskSettings, window_minutes: int
) -> FlowReferences:
    """One day's flow references from raw rows, not kept."""
    last = day * DAY_SECONDS
    ends = np.arange(
        last - risk.lookback_hours * 3600 + STEP_SECONDS, last + STEP_SECONDS, STEP_SECONDS, dtype=np.int64
    )
    found = {}
    scope = with_flow_spans(conn, scope)
    for chain, (inflow, outflow, alive) in _flow_windows(conn, scope, ends, window_minutes).items():
        quantiles, observations = order_statistics(np.abs(outflow - inflow)[alive].astype(np.float64))
        found[chain, day] = observations, quantiles
    return found


def _kept_references(conn: psycopg.Connection[Any], world: str, days: Integers) -> set[tuple[str, int]]:
    rows = conn.execute(
        "SELECT DISTINCT venue, day FROM feature_references"
        " WHERE world = %s AND symbol = %s AND feature = %s AND day = ANY(%s)",
        [world, ALL, NET_FLOW, [date_of(int(day)) for day in days]],
    ).fetchall()
    return {(chain, (day - EPOCH_DAY).days) for chain, day in rows}


def _flow_windows(
    conn: psycopg.Connection[Any], scope: Scope, ends_seconds: Integers, window_minutes: int
) -> dict[str, tuple[Integers, Integers, Any]]:
    """Chain -> (inflow in cents, outflow in cents, whether it had been read) of each window."""
    ends_us = ends_seconds * MICROSECONDS
    sums = flow_totals(conn, scope, ends_us, window_minutes, origins="all")
    fresh, _ = flow_sources_fresh(conn, scope, ends_us, grace_us=STEP_SECONDS * MICROSECONDS, origins="all")
    found = {}
    for chain in scope.flow_chains:
        venues = np.array([chain_of(venue) == chain for venue in scope.flow_venues])
        alive = fresh[venues].any(axis=0)
        found[chain] = sums.cents("inflow", chain), sums.cents("outflow", chain), alive
    return found


def _keep_flow_bars(
    conn: psycopg.Connection[Any], scope: Scope, ends: Integers, times_seconds: Integers, window_minutes: int
) -> int:
    windows = _flow_windows(conn, scope, ends, window_minutes)
    statement = (
        "COPY flow_bars (world, chain, bar_end, window_minutes, inflow_cents, outflow_cents, built_at_time) FROM STDIN"
    )
    kept = 0
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for chain, (inflow, outflow, alive) in windows.items():
            for place in np.flatnonzero(alive):
                end = int(ends[place])
                copy.write_row(
                    (scope.world, chain, time_of(end), window_minutes, int(inflow[place]), int(outflow[place]),
                     time_of(first_at_or_after(times_seconds, end)))
                )  # fmt: skip
            kept += int(alive.sum())
    return kept


def _flow_history(
    conn: psycopg.Connection[Any], scope: Scope, chain: str, after_seconds: int, last_seconds: int, window_minutes: int
) -> Floats:
    """|net| in cents of the chain's kept windows that end in (after, last]."""
    query = sql.SQL(
        """
        SELECT array_agg(abs(outflow_cents - inflow_cents)::float8) FILTER (WHERE newest = 1)
        FROM (
            SELECT inflow_cents, outflow_cents,
                   row_number() OVER (PARTITION BY bar_end ORDER BY built_at_time DESC) AS newest
            FROM flow_bars
            WHERE world = %(world)s AND chain = %(chain)s AND window_minutes = %(window)s
              AND bar_end > %(after)s AND bar_end <= %(last)s
        ) AS versions
        """
    )
    parameters = {
        "world": scope.world,
        "chain": chain,
        "window": window_minutes,
        "after": time_of(after_seconds),
        "last": time_of(last_seconds),
    }
    values = fetch_arrays(conn, query, parameters)[0][0]
    return np.empty(0) if values is None else values
