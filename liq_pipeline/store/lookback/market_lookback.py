"""The kept look-back: bars of the 5-min grid and each day's references.

Belongs here: the tables feature_bars and feature_references, when they are built and which version a score may see.
Does not: the flows' windows (flow_lookback.py), raw rows (store/inputs/as_known.py), formulas (scoring/).

All of it is append-only and says at which grid time it was built; a score at T sees what was built by T, so a replay
finds what the first score found even when archives have warmed the look-back since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql

from liq_pipeline.scoring import features
from liq_pipeline.scoring.bars import (
    LEVEL_FIELDS,
    MICROSECONDS,
    STEP_SECONDS,
    UNKNOWN_CENTS,
    BarArrays,
    Floats,
    Integers,
    bars_between,
    empty_bars,
    joined,
)
from liq_pipeline.scoring.references import (
    DAY_SECONDS,
    QUANTILES,
    Reference,
    References,
    build_references,
    needed_observations,
)
from liq_pipeline.settings import RiskSettings
from liq_pipeline.store.columns import Column, copy_columns, fetch_arrays
from liq_pipeline.store.inputs.as_known import ARCHIVE_MAX_AGE_SECONDS, Cut, build_bars, microseconds
from liq_pipeline.store.inputs.expected_sources import MARKET_TOPICS, Scope
from liq_pipeline.store.lookback.archive_bars import BAR_COLUMNS, fill_from_archive, is_known

ALL = "*"
"""The symbol and venue of a reference of none: the flows', and the market's, whose venue is the model."""
BUILD_CHUNK: Final = 864
"""Bars built at once, three days: a month of rows every 10 s would not fit into memory."""
SYMBOLS_AT_ONCE: Final = 25
"""Whose references are built together."""
ARCHIVE_REACH_SECONDS: Final = ARCHIVE_MAX_AGE_SECONDS + STEP_SECONDS + 24 * 3600
"""How long after its event an archive row may be the newest one known: a settled rate holds up to 24 h."""
LONG_COLUMNS: Final = ("price_usd", "open_interest_base")
"""What a score reads further back than a day or so; of the rest it reads ALL_COLUMNS_HOURS (scoring/model.py)."""
EPOCH_DAY: Final = date(1970, 1, 1)


@dataclass(frozen=True)
class Built:
    """What a tick added to the look-back."""

    bars: int = 0
    references: int = 0


def ensure_market_lookback(
    conn: psycopg.Connection[Any],
    scope: Scope,
    times_seconds: Integers,
    last_scored_seconds: int | None,
    risk: RiskSettings,
) -> Built:
    """Build and keep the bars and references that scoring `times_seconds` (ascending grid points) needs and lacks.

    last_scored_seconds: the newest point scored before; every bar up to it has been built. None: the first ever, which
    builds the whole look-back from whatever history has landed.
    """
    first_needed = first_bar(times_seconds, risk)
    last = floor_bar(int(times_seconds[-1]))
    first = first_needed if last_scored_seconds is None else floor_bar(last_scored_seconds) + STEP_SECONDS
    bars_kept = 0
    warmed = False
    if first <= last:
        for start in range(first, last + STEP_SECONDS, BUILD_CHUNK * STEP_SECONDS):
            count = min(BUILD_CHUNK, (last - start) // STEP_SECONDS + 1)
            bars_kept += _keep_bars(conn, build_bars(conn, scope, start, count), scope.world, times_seconds)
        if last_scored_seconds is not None and scope.current_origins == "live":
            since = datetime.fromtimestamp(floor_bar(last_scored_seconds), tz=UTC) - timedelta(minutes=1)
            span = _archive_span_since(conn, scope.world, since, first_needed, first - STEP_SECONDS)
            if span is not None:
                warmed_bars = _warm_from_archive(conn, scope, *span, int(times_seconds[0]))
                bars_kept += warmed_bars
                warmed = warmed_bars > 0
    days = np.unique(times_seconds // DAY_SECONDS)
    kept = days_with_references(conn, scope.world, days)
    missing = np.array([day for day in days if warmed or int(day) not in kept], dtype=np.int64)
    if not missing.size:
        return Built(bars_kept)
    return Built(bars_kept, _keep_market_references(conn, scope, missing, times_seconds, risk))


def market_bars(
    conn: psycopg.Connection[Any],
    scope: Scope,
    first_seconds: int,
    last_seconds: int,
    built_by_seconds: int,
    *,
    all_from_seconds: int | None = None,
) -> BarArrays:
    """The kept bars that end in [first, last] (both on the grid), as a score at `built_by_seconds` may see them.

    all_from_seconds: before it only LONG_COLUMNS are read and the rest stays unknown; None: everything is.
    """
    bars = empty_bars(
        scope.symbols, scope.venues, first_seconds, STEP_SECONDS, (last_seconds - first_seconds) // STEP_SECONDS + 1
    )
    whole_from = first_seconds if all_from_seconds is None else min(max(all_from_seconds, first_seconds), last_seconds)
    if whole_from > first_seconds:
        _read_bars(conn, scope, bars, LONG_COLUMNS, first_seconds, whole_from - STEP_SECONDS, built_by_seconds)
    _read_bars(conn, scope, bars, BAR_COLUMNS, whole_from, last_seconds, built_by_seconds)
    return bars


def add_bars_built_after(
    conn: psycopg.Connection[Any],
    scope: Scope,
    bars: BarArrays,
    seen_by_seconds: int,
    built_by_seconds: int,
    *,
    all_from_seconds: int,
) -> bool:
    """Write the bars built in (seen_by, built_by] into bars that hold what was built before; whether there were any."""
    ends = bars.end_seconds
    first, last, whole = int(ends[0]), int(ends[-1]), all_from_seconds
    after = seen_by_seconds
    older = _read_bars(conn, scope, bars, LONG_COLUMNS, first, whole - STEP_SECONDS, built_by_seconds, after)
    return _read_bars(conn, scope, bars, BAR_COLUMNS, whole, last, built_by_seconds, after) + older > 0


def add_levels_built_after(
    conn: psycopg.Connection[Any], scope: Scope, bars: BarArrays, seen_by_seconds: int, built_by_seconds: int
) -> None:
    """The same for LONG_COLUMNS alone."""
    if built_by_seconds > seen_by_seconds:
        first, last = int(bars.end_seconds[0]), int(bars.end_seconds[-1])
        _read_bars(conn, scope, bars, LONG_COLUMNS, first, last, built_by_seconds, seen_by_seconds)


def is_built_between(
    conn: psycopg.Connection[Any],
    world: str,
    first_seconds: int,
    last_seconds: int,
    after_seconds: int,
    until_seconds: int,
) -> bool:
    """Whether any bar that ends in [first, last] was built in (after, until]."""
    return (
        conn.execute(
            "SELECT 1 FROM feature_bars WHERE world = %s AND bar_end BETWEEN %s AND %s"
            " AND built_at_time > %s AND built_at_time <= %s LIMIT 1",
            [world, *map(time_of, (first_seconds, last_seconds, after_seconds, until_seconds))],
        ).fetchone()
        is not None
    )


def _read_bars(
    conn: psycopg.Connection[Any],
    scope: Scope,
    bars: BarArrays,
    names: tuple[str, ...],
    first_seconds: int,
    last_seconds: int,
    built_by_seconds: int,
    built_after_seconds: int | None = None,
) -> int:
    """Fill bars in place; how many rows were read."""
    columns = sql.SQL(", ").join(
        sql.SQL("array_agg(coalesce({}, {}))").format(
            sql.Identifier(name), sql.SQL("'NaN'::float8") if name in LEVEL_FIELDS else sql.Literal(UNKNOWN_CENTS)
        )
        for name in names
    )
    query = sql.SQL(
        """
        SELECT symbol, venue, array_agg(bar_end), array_agg(built_at_time), {columns}
        FROM feature_bars
        WHERE world = %(world)s AND symbol = ANY(%(symbols)s) AND venue = ANY(%(venues)s)
          AND bar_end >= %(first)s AND bar_end <= %(last)s AND built_at_time <= %(built_by)s {after}
        GROUP BY symbol, venue
        """
    ).format(
        columns=columns,
        after=sql.SQL("" if built_after_seconds is None else "AND built_at_time > %(built_after)s"),
    )
    parameters = {
        "world": scope.world,
        "symbols": list(scope.symbols),
        "venues": list(scope.venues),
        "first": time_of(first_seconds),
        "last": time_of(last_seconds),
        "built_by": time_of(built_by_seconds),
    }
    if built_after_seconds is not None:
        parameters["built_after"] = time_of(built_after_seconds)
    read = 0
    symbols, venues = ({name: place for place, name in enumerate(known)} for known in (scope.symbols, scope.venues))
    for symbol, venue, bar_end, built_at, *values in fetch_arrays(conn, query, parameters):
        read += bar_end.size
        at = symbols[symbol], venues[venue]
        place = bars.index_at(bar_end // MICROSECONDS)
        if (built_at[1:] < built_at[:-1]).any():
            oldest_first = np.argsort(built_at, kind="stable")  # of two versions the newer one is written last
            place, values = place[oldest_first], [column[oldest_first] for column in values]
        for name, column in zip(names, values, strict=True):
            getattr(bars, name)[*at, place] = column
    return read


def market_references(
    conn: psycopg.Connection[Any], scope: Scope, days: Integers, built_by_seconds: int, risk: RiskSettings
) -> References:
    """The kept references of the days (whole days since 1970), as a score at `built_by_seconds` may see them."""
    shape = (len(scope.symbols), len(scope.venues), days.size)
    found = {
        name: Reference(np.full((*shape, QUANTILES), np.nan), np.zeros(shape, dtype=np.int64))
        for name in features.FEATURES
    }
    position = {int(day): place for place, day in enumerate(days)}
    symbols, venues = ({name: place for place, name in enumerate(names)} for names in (scope.symbols, scope.venues))
    for symbol, venue, feature, day, observations, quantiles in reference_rows(
        conn, scope.world, list(scope.symbols), days, built_by_seconds
    ):
        if feature not in found or venue not in venues or not quantiles.size:
            continue
        at = symbols[symbol], venues[venue], position[(day - EPOCH_DAY).days]
        found[feature].quantiles[at] = quantiles
        found[feature].observations[at] = observations
    return References(days, found, needed_observations(risk.min_lookback_hours, STEP_SECONDS))


def bars_in_memory(
    conn: psycopg.Connection[Any],
    scope: Scope,
    times_seconds: Integers,
    risk: RiskSettings,
    cut: Cut | None = None,
    before: BarArrays | None = None,
    least_hours: int = 0,
) -> tuple[BarArrays, References]:
    """Bars and references for points that no tick has scored (archives), built from raw rows and not kept.

    least_hours: how far back the bars reach before the first point's day, whatever the references ask.
    before: bars of the same scope and cut that were built for earlier points; those that still serve are taken over.
    """
    day = int(times_seconds[0]) // DAY_SECONDS * DAY_SECONDS
    first = min(first_bar(times_seconds, risk), day - least_hours * 3600)
    last = floor_bar(int(times_seconds[-1]))
    parts = []
    start = first
    if before is not None and before.start_seconds <= first <= int(before.end_seconds[-1]):
        kept = bars_between(before, (first - before.start_seconds) // STEP_SECONDS, before.count)
        parts.append(kept)
        start = int(kept.end_seconds[-1]) + STEP_SECONDS
    for begin in range(start, last + STEP_SECONDS, BUILD_CHUNK * STEP_SECONDS):
        count = min(BUILD_CHUNK, (last - begin) // STEP_SECONDS + 1)
        parts.append(build_bars(conn, scope, begin, count, cut=cut))
    bars = joined(parts)
    references = build_references(
        bars,
        features.on_bars(bars),
        np.unique(times_seconds // DAY_SECONDS),
        lookback_hours=risk.lookback_hours,
        min_lookback_hours=risk.min_lookback_hours,
    )
    return bars, references


def first_bar(times_seconds: Integers, risk: RiskSettings) -> int:
    """The oldest bar that a reference of the first point's day reaches back to."""
    day = int(times_seconds[0]) // DAY_SECONDS * DAY_SECONDS
    return day - (risk.lookback_hours + features.LOOKBACK_HOURS) * 3600


def floor_bar(seconds: int) -> int:
    """The last end of a bar at or before a time."""
    return seconds // STEP_SECONDS * STEP_SECONDS


def first_at_or_after(times_seconds: Integers, seconds: int) -> int:
    """The first point at or after a time: when what ends then can have been built first, however points are batched."""
    return int(times_seconds[min(int(np.searchsorted(times_seconds, seconds)), times_seconds.size - 1)])


def _keep_bars(conn: psycopg.Connection[Any], bars: BarArrays, world: str, times_seconds: Integers) -> int:
    """Insert every bar of which anything is known; how many."""
    columns = [getattr(bars, name) for name in BAR_COLUMNS]
    known = np.zeros(columns[0].shape, dtype=bool)
    for name, values in zip(BAR_COLUMNS, columns, strict=True):
        known |= is_known(name, values)
    ends = bars.end_seconds
    built = times_seconds[np.minimum(np.searchsorted(times_seconds, ends), times_seconds.size - 1)]
    statement = sql.SQL(
        "COPY feature_bars (world, symbol, venue, bar_end, {}, built_at_time) FROM STDIN (FORMAT BINARY)"
    ).format(sql.SQL(", ").join(map(sql.Identifier, BAR_COLUMNS)))

    def blocks() -> Iterator[tuple[int, list[Column]]]:
        for s, symbol in enumerate(bars.symbols):
            for v, venue in enumerate(bars.venues):
                rows = np.flatnonzero(known[s, v])
                if not rows.size:
                    continue
                cells = []
                for name, values in zip(BAR_COLUMNS, columns, strict=True):
                    series = values[s, v, rows]
                    cells.append(Column(values=series, known=is_known(name, series)))
                head = [Column(text=world), Column(text=symbol), Column(text=venue)]
                end, at = ends[rows] * MICROSECONDS, built[rows] * MICROSECONDS
                yield rows.size, [*head, Column(values=end, is_time=True), *cells, Column(values=at, is_time=True)]

    return copy_columns(conn, statement, blocks())


def _warm_from_archive(
    conn: psycopg.Connection[Any], scope: Scope, first: int, last: int, built_at_seconds: int
) -> int:
    """Add versions of bars in [first, last] whose unknown cells the archive now knows; known cells never change."""
    filled, grown = fill_from_archive(conn, scope, market_bars(conn, scope, first, last, built_at_seconds))
    versions = empty_bars(scope.symbols, scope.venues, first, STEP_SECONDS, filled.count)
    for name in BAR_COLUMNS:
        getattr(versions, name)[grown] = getattr(filled, name)[grown]
    return _keep_bars(conn, versions, scope.world, np.array([built_at_seconds], dtype=np.int64))


def _archive_span_since(
    conn: psycopg.Connection[Any], world: str, since: datetime, first: int, last: int
) -> tuple[int, int] | None:
    """First and last of the bars [first, last] on which archive rows that have landed since may bear; None: no bar.

    A hint for where to look, never an input to a score. A backfill of years lands beside the ticks for hours, and most
    of it lies before any look-back: no tick may read a month of rows for that.
    """
    spans = sql.SQL(" UNION ALL ").join(
        sql.SQL(
            "SELECT event_time FROM {} WHERE world = %(world)s AND origin = 'archive' AND landed_at > %(since)s"
            " AND event_time > %(after)s AND event_time <= %(until)s"
        ).format(sql.Identifier(topic))
        for topic in MARKET_TOPICS
    )
    row = conn.execute(
        sql.SQL("SELECT min(event_time), max(event_time) FROM ({}) AS landed").format(spans),
        {"world": world, "since": since, "after": time_of(first - ARCHIVE_REACH_SECONDS), "until": time_of(last)},
    ).fetchone()
    if row is None or row[0] is None:
        return None
    oldest, newest = seconds_of(row[0]), seconds_of(row[1])
    return max(first, floor_bar(oldest)), min(last, floor_bar(newest + ARCHIVE_REACH_SECONDS))


def days_with_references(
    conn: psycopg.Connection[Any], world: str, days: Integers, symbol: str | None = None
) -> set[int]:
    """Those of the days (whole days since 1970) for which references are kept; symbol ALL: the flows'."""
    owner = sql.SQL("symbol <> {}" if symbol is None else "symbol = {}").format(sql.Literal(ALL))
    rows = conn.execute(
        sql.SQL(
            "SELECT day FROM unnest(%(days)s::date[]) AS d(day)"
            " WHERE EXISTS (SELECT FROM feature_references AS r WHERE r.world = %(world)s AND r.day = d.day AND {})"
        ).format(owner),
        {"world": world, "days": [date_of(int(day)) for day in days]},
    ).fetchall()
    return {(day - EPOCH_DAY).days for (day,) in rows}


def _keep_market_references(
    conn: psycopg.Connection[Any], scope: Scope, days: Integers, times_seconds: Integers, risk: RiskSettings
) -> int:
    """Blocks of symbols: a month of 300 at once took the first tick to 4 GB."""
    blocks = (scope.symbols[start : start + SYMBOLS_AT_ONCE] for start in range(0, len(scope.symbols), SYMBOLS_AT_ONCE))
    return sum(_keep_references_of(conn, replace(scope, symbols=block), days, times_seconds, risk) for block in blocks)


def _keep_references_of(
    conn: psycopg.Connection[Any], scope: Scope, days: Integers, times_seconds: Integers, risk: RiskSettings
) -> int:
    built_by = int(times_seconds[-1])
    first = int(days[0]) * DAY_SECONDS - (risk.lookback_hours + features.LOOKBACK_HOURS) * 3600
    bars = market_bars(conn, scope, first, int(days[-1]) * DAY_SECONDS, built_by)
    references = build_references(
        bars,
        features.on_bars(bars),
        days,
        lookback_hours=risk.lookback_hours,
        min_lookback_hours=risk.min_lookback_hours,
    )
    rows = []
    for name, reference in references.features.items():
        for s, symbol in enumerate(scope.symbols):
            for v, venue in enumerate(scope.venues):
                for d, day in enumerate(days):
                    observations = int(reference.observations[s, v, d])
                    built_at = first_at_or_after(times_seconds, int(day) * DAY_SECONDS)
                    quantiles = reference.quantiles[s, v, d]
                    rows.append(
                        reference_row(scope.world, symbol, venue, name, int(day), built_at, observations, quantiles)
                    )
    copy_references(conn, rows)
    return len(rows)


def reference_row(
    world: str,
    symbol: str,
    venue: str,
    feature: str,
    day: int,
    built_at_seconds: int,
    observations: int,
    quantiles: Floats,
) -> tuple[Any, ...]:
    """An empty list of quantiles says: looked, nothing known."""
    values = quantiles.tolist() if observations else []
    return world, symbol, venue, feature, date_of(day), time_of(built_at_seconds), observations, values


def copy_references(conn: psycopg.Connection[Any], rows: list[tuple[Any, ...]]) -> None:
    if not rows:
        return
    columns = "world, symbol, venue, feature, day, built_at_time, observations, quantiles"
    statement = sql.SQL(f"COPY feature_references ({columns}) FROM STDIN")
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def reference_rows(
    conn: psycopg.Connection[Any], world: str, symbols: list[str], days: Integers, built_by_seconds: int
) -> list[tuple[Any, ...]]:
    query = sql.SQL(
        """
        SELECT DISTINCT ON (symbol, venue, feature, day) symbol, venue, feature, day, observations, quantiles
        FROM feature_references
        WHERE world = %(world)s AND symbol = ANY(%(symbols)s) AND day = ANY(%(days)s) AND built_at_time <= %(built_by)s
        ORDER BY symbol, venue, feature, day, built_at_time DESC
        """
    )
    dates = [date_of(int(day)) for day in days]
    parameters = {"world": world, "symbols": symbols, "days": dates, "built_by": time_of(built_by_seconds)}
    return fetch_arrays(conn, query, parameters)


def time_of(seconds: int) -> datetime:
    """Seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC)


def date_of(day: int) -> date:
    return EPOCH_DAY + timedelta(days=day)


def seconds_of(time: datetime) -> int:
    """Whole seconds since 1970 UTC (grid points have no fractions)."""
    return microseconds(time) // MICROSECONDS
