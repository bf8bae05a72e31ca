"""Liquidation maps in the database: the bars they stand on, writing, reading, thinning out.

Belongs here: the table liquidation_levels. Does not: the estimate (scoring/levels/), which maps are due
(pipeline/levels.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql
from psycopg.rows import class_row

from liq_pipeline.scoring.bars import MICROSECONDS, STEP_SECONDS, BarArrays, Floats, empty_bars
from liq_pipeline.scoring.levels.cohorts import LONG, SHORT
from liq_pipeline.scoring.levels.fuel import Cluster, fuel_of
from liq_pipeline.scoring.levels.maps import LevelMaps
from liq_pipeline.scoring.levels.method import BIN_WIDTH, Method
from liq_pipeline.store.columns import fetch_arrays
from liq_pipeline.store.inputs.expected_sources import Scope
from liq_pipeline.store.lookback.bar_cache import BarCache
from liq_pipeline.store.lookback.market_lookback import market_bars

FINE_FOR: Final = timedelta(days=30)
"""Maps of every 5 min are kept so long, then those of full hours."""
PRUNE_BATCH: Final = 20_000


_WINDOW: Final = sql.SQL(
    """
    SELECT symbol, venue, array_agg(bar_end), array_agg(coalesce(price_usd, 'NaN'::float8)),
           array_agg(coalesce(open_interest_base, 'NaN'::float8)),
           coalesce(array_agg(bar_end) FILTER (WHERE long_liquidated_cents > 0), '{}'),
           coalesce(array_agg(long_liquidated_cents) FILTER (WHERE long_liquidated_cents > 0), '{}'),
           coalesce(array_agg(bar_end) FILTER (WHERE short_liquidated_cents > 0), '{}'),
           coalesce(array_agg(short_liquidated_cents) FILTER (WHERE short_liquidated_cents > 0), '{}')
    FROM feature_bars
    WHERE world = %(world)s AND symbol = ANY(%(symbols)s) AND venue = ANY(%(venues)s)
      AND bar_end >= %(first)s AND bar_end <= %(last)s AND built_at_time <= %(last)s
    GROUP BY symbol, venue
    """
)


_FORCED: Final = sql.SQL(
    """
    SELECT symbol, venue, array_agg(bar_end), array_agg(coalesce(long_liquidated_cents, 0)),
           array_agg(coalesce(short_liquidated_cents, 0))
    FROM feature_bars
    WHERE world = %(world)s AND symbol = ANY(%(symbols)s) AND venue = ANY(%(venues)s)
      AND bar_end >= %(first)s AND bar_end <= %(last)s AND built_at_time <= %(last)s
      AND (long_liquidated_cents > 0 OR short_liquidated_cents > 0)
    GROUP BY symbol, venue
    """
)


@dataclass(frozen=True)
class StoredMap:
    """One row, by its columns."""

    world: str
    symbol: str
    time: datetime
    method_version: str
    reference_usd: float | None
    bin_width: float
    long_notional_usd: list[float] | None
    short_notional_usd: list[float] | None
    long_within_1_usd: float | None
    long_within_3_usd: float | None
    long_within_5_usd: float | None
    short_within_1_usd: float | None
    short_within_3_usd: float | None
    short_within_5_usd: float | None
    long_cluster_usd: float | None
    long_cluster_price_usd: float | None
    long_cluster_distance: float | None
    short_cluster_usd: float | None
    short_cluster_price_usd: float | None
    short_cluster_distance: float | None
    high_factor: float | None
    coverage: float
    venues: list[str]
    silent_venues: list[str]
    unheard_venues: list[str]


COLUMNS: Final = tuple(StoredMap.__dataclass_fields__)
_SELECTED: Final = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))


def window_bars(
    conn: psycopg.Connection[Any], scope: Scope, method: Method, time_seconds: int, cache: BarCache | None = None
) -> BarArrays:
    """The kept bars that a map of the time looks back on, the newest ending with it, as they were known then.

    Archives that warm the look-back later add to earlier bars; a map must not see those, whenever it is drawn. Only
    what a map reads is filled in, and forced orders where there are any: whole bars of 450 series take twice the time.
    cache: the last tick's look-back, which spares most of the reading.
    """
    start = time_seconds - method.window_hours * 3600 + STEP_SECONDS
    bars = empty_bars(scope.symbols, scope.venues, start, STEP_SECONDS, method.window_hours * 3600 // STEP_SECONDS)
    parameters = {
        "world": scope.world,
        "symbols": list(scope.symbols),
        "venues": list(scope.venues),
        "first": datetime.fromtimestamp(start, UTC),
        "last": datetime.fromtimestamp(time_seconds, UTC),
    }
    if cache is not None and cache.fill_levels(conn, scope, bars, time_seconds):
        # A bar whose forced orders are known keeps them in each later version.
        for symbol, venue, bar_end, longs, shorts in fetch_arrays(conn, _FORCED, parameters):
            series, place = (
                (scope.symbols.index(symbol), scope.venues.index(venue)),
                bars.index_at(bar_end // MICROSECONDS),
            )
            for cents, amounts in ((bars.long_liquidated_cents, longs), (bars.short_liquidated_cents, shorts)):
                cents[series][place[amounts > 0]] = amounts[amounts > 0]
        return bars
    warmed = set()
    for symbol, venue, bar_end, price, base, *forced in fetch_arrays(conn, _WINDOW, parameters):
        series = scope.symbols.index(symbol), scope.venues.index(venue)
        place = bars.index_at(bar_end // MICROSECONDS)
        if np.unique(place).size < place.size:
            warmed.add(symbol)
        bars.price_usd[series][place] = price
        bars.open_interest_base[series][place] = base
        for cents, ends, amounts in (
            (bars.long_liquidated_cents, forced[0], forced[1]),
            (bars.short_liquidated_cents, forced[2], forced[3]),
        ):
            cents[series][bars.index_at(ends // MICROSECONDS)] = amounts
    for symbol in sorted(warmed):  # several versions of one bar: which cell counts is known there
        one = market_bars(conn, replace(scope, symbols=(symbol,)), start, time_seconds, time_seconds)
        for name in ("price_usd", "open_interest_base", "long_liquidated_cents", "short_liquidated_cents"):
            getattr(bars, name)[scope.symbols.index(symbol)] = getattr(one, name)[0]
    return bars


def rows_of(found: LevelMaps, scope: Scope) -> list[StoredMap]:
    """A map as rows, one per symbol."""
    expected = scope.expected["open_interest"]
    rows = []
    for place, symbol in enumerate(found.symbols):
        fuel = fuel_of(found, place)
        known = [v for v, is_known in zip(found.venues, found.known[place], strict=True) if is_known]
        silent = [v for v, is_silent in zip(found.venues, found.silent[place], strict=True) if is_silent]
        unheard = [
            venue
            for venue, is_expected in zip(scope.venues, expected, strict=True)
            if is_expected and (symbol, venue) not in scope.not_listed and venue not in known and venue not in silent
        ]
        rows.append(
            StoredMap(
                world=scope.world,
                symbol=symbol,
                time=datetime.fromtimestamp(found.time_seconds, UTC),
                method_version=found.method_version,
                reference_usd=_known(float(found.reference_usd[place])),
                bin_width=BIN_WIDTH,
                long_notional_usd=_list(found.notional_usd[LONG, place]),
                short_notional_usd=_list(found.notional_usd[SHORT, place]),
                long_within_1_usd=fuel.within_below_usd[1],
                long_within_3_usd=fuel.within_below_usd[3],
                long_within_5_usd=fuel.within_below_usd[5],
                short_within_1_usd=fuel.within_above_usd[1],
                short_within_3_usd=fuel.within_above_usd[3],
                short_within_5_usd=fuel.within_above_usd[5],
                **_cluster("long", fuel.cluster_below),
                **_cluster("short", fuel.cluster_above),
                high_factor=None if unheard else fuel.high_factor,
                coverage=float(found.coverage[place]),
                venues=known,
                silent_venues=silent,
                unheard_venues=unheard,
            )
        )
    return rows


def write_maps(conn: psycopg.Connection[Any], rows: Sequence[StoredMap]) -> int:
    """Insert rows, in the caller's transaction; one that is there stays. How many were new."""
    if not rows:
        return 0
    statement = sql.SQL("INSERT INTO liquidation_levels ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
        _SELECTED, sql.SQL(", ").join(sql.Placeholder() * len(COLUMNS))
    )
    with conn.cursor() as cursor:
        cursor.executemany(statement, [[getattr(row, name) for name in COLUMNS] for row in rows])
        return cursor.rowcount


def newest_time(conn: psycopg.Connection[Any], world: str, method_version: str) -> datetime | None:
    """The time of the world's newest map by that method."""
    row = conn.execute(
        "SELECT max(time) FROM liquidation_levels WHERE world = %s AND method_version = %s", [world, method_version]
    ).fetchone()
    return None if row is None else row[0]


def map_at_time(conn: psycopg.Connection[Any], world: str, symbol: str, at: datetime | None = None) -> StoredMap | None:
    """The newest map of a symbol at or before a time (None: the newest); of two methods the one written last."""
    query = sql.SQL(
        "SELECT {} FROM liquidation_levels WHERE world = %(world)s AND symbol = %(symbol)s"
        " AND time <= coalesce(%(at)s, 'infinity'::timestamptz) ORDER BY time DESC, created_at DESC LIMIT 1"
    ).format(_SELECTED)
    with conn.cursor(row_factory=class_row(StoredMap)) as cursor:
        return cursor.execute(query, {"world": world, "symbol": symbol, "at": at}).fetchone()


def fuel_known_at(
    conn: psycopg.Connection[Any], world: str, symbols: Sequence[str], at: datetime
) -> dict[str, dict[str, Any] | None]:
    """The summary of each symbol's map as it was known at a moment; None where there was none (sql/0027)."""
    query = "SELECT symbol, liquidation_fuel(%s, symbol, %s) FROM unnest(%s::text[]) AS asked (symbol)"
    return dict(conn.execute(query, [world, at, list(symbols)]).fetchall())


def maps_between(
    conn: psycopg.Connection[Any], world: str, symbol: str, first: datetime, last: datetime, most: int = 500
) -> list[StoredMap]:
    """Maps of (first, last], oldest first; where there are more than `most`, evenly thinned out."""
    query = sql.SQL(
        """
        SELECT {columns} FROM (
            SELECT *, row_number() OVER (ORDER BY time DESC) AS place, count(*) OVER () AS rows FROM (
                SELECT DISTINCT ON (time) * FROM liquidation_levels
                WHERE world = %(world)s AND symbol = %(symbol)s AND time > %(first)s AND time <= %(last)s
                ORDER BY time, created_at DESC
            ) AS newest
        ) AS placed
        WHERE (place - 1) %% ceil(rows::numeric / %(most)s) = 0 ORDER BY time
        """
    ).format(columns=_SELECTED)
    parameters = {"world": world, "symbol": symbol, "first": first, "last": last, "most": most}
    with conn.cursor(row_factory=class_row(StoredMap)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def thin_out(conn: psycopg.Connection[Any], now: datetime, retention_days: int | None = None) -> int:
    """Delete maps older than FINE_FOR that are not of a full hour, and those past the retention. Commits as it goes.

    The table is a plain one on every edition: it is bounded, and rows between others leave it.
    """
    statement = (
        "DELETE FROM liquidation_levels WHERE ctid IN (SELECT ctid FROM liquidation_levels"
        " WHERE (time < %(fine)s AND time <> date_trunc('hour', time, 'UTC')) OR time < %(kept)s LIMIT %(batch)s)"
    )
    kept = datetime.min.replace(tzinfo=UTC) if retention_days is None else now - timedelta(days=retention_days)
    deleted = 0
    while True:
        count = conn.execute(statement, {"fine": now - FINE_FOR, "kept": kept, "batch": PRUNE_BATCH}).rowcount
        conn.commit()
        deleted += count
        if count < PRUNE_BATCH:
            return deleted


def _cluster(side: str, cluster: Cluster | None) -> dict[str, float | None]:
    return {
        f"{side}_cluster_usd": None if cluster is None else cluster.notional_usd,
        f"{side}_cluster_price_usd": None if cluster is None else cluster.price_usd,
        f"{side}_cluster_distance": None if cluster is None else cluster.distance,
    }


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _list(values: Floats) -> list[float] | None:
    return values.tolist() if np.isfinite(values).all() else None
