"""What was known at given times, read from the observation tables.

Belongs here: the queries that turn stored rows into the arrays of scoring/bars.py: current values, bars, flows. Does
not: whom a world expects (expected_sources.py), bars and references that are kept (store/lookback/market_lookback.py),
formulas (scoring/), writing scores (store/scores.py).

Every query filters on the world and on known_at; a replay also on its cut, the offsets below which a row had landed. In
the real world current values come from live rows, archive rows serve the look-back only. Nothing here reads landed_at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

import numpy as np
import psycopg
from psycopg import sql

from liq_pipeline.domain.chains import ZERO_ADDRESSES
from liq_pipeline.domain.wallets import CUSTODY_SUFFIX, TREASURY_SUFFIX
from liq_pipeline.scoring.bars import (
    MICROSECONDS,
    STEP_SECONDS,
    UNKNOWN_CENTS,
    BarArrays,
    Booleans,
    Floats,
    Integers,
    NowArrays,
    as_of,
    empty_bars,
    newest_of_series,
    window_sums,
)
from liq_pipeline.store.columns import fetch_arrays
from liq_pipeline.store.inputs.expected_sources import FLOW_TOPIC, Origins, Scope

ARCHIVE_MAX_AGE_SECONDS: Final = 75 * 60
"""Archives are hourly at the coarsest: their rows hold for an hour and their publication delay."""
CROWD_KIND: Final = "accounts"
"""The long/short ratio that is scored: the head count of all accounts. Top traders and takers are other quantities, and
mixing them in one history would make its percentiles meaningless."""
_HOUR_US: Final = 3600 * MICROSECONDS
_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)

Cut = Mapping[str, Mapping[str, Mapping[str, int]]]
"""cluster id -> topic -> partition (as text, as JSON has it) -> next offset."""


@dataclass(frozen=True)
class Current:
    """Values as of the points, and each one's age: field name -> (symbols, venues, points) seconds, NaN = unknown."""

    now: NowArrays
    age_seconds: dict[str, Floats]


def current_values(conn: psycopg.Connection[Any], scope: Scope, times_us: Integers, cut: Cut | None = None) -> Current:
    """Values as of each point (ascending), of fresh sources only; liquidated cents over the hour up to it."""
    levels, ages = _levels(conn, scope, times_us, grace_us=0, origins=scope.current_origins, cut=cut)
    cents, heartbeat_age = _liquidated(
        conn, scope, times_us, width_us=_HOUR_US, grace_us=0, origins=scope.current_origins, cut=cut
    )
    now = NowArrays(**levels, long_liquidated_cents_1h=cents["long"], short_liquidated_cents_1h=cents["short"])
    return Current(now, {**ages, "liquidated_cents_1h": heartbeat_age})


def build_bars(
    conn: psycopg.Connection[Any],
    scope: Scope,
    first_end_seconds: int,
    count: int,
    *,
    origins: Origins = "all",
    cut: Cut | None = None,
) -> BarArrays:
    """Bars of the 5-min grid from raw rows, each as known at its end.

    A bar may hold a value up to one step older than a current value may be: history comes in 5-min steps.
    """
    bars = empty_bars(scope.symbols, scope.venues, first_end_seconds, STEP_SECONDS, count)
    times_us = bars.end_seconds * MICROSECONDS
    step_us = STEP_SECONDS * MICROSECONDS
    levels, _ = _levels(conn, scope, times_us, grace_us=step_us, origins=origins, cut=cut)
    cents, _ = _liquidated(conn, scope, times_us, width_us=step_us, grace_us=step_us, origins=origins, cut=cut)
    for name, values in levels.items():
        getattr(bars, name)[...] = values
    bars.long_liquidated_cents[...] = cents["long"]
    bars.short_liquidated_cents[...] = cents["short"]
    return bars


@dataclass(frozen=True)
class FlowSums:
    """What moved over the window up to each point, in millionths of a dollar: (chain, token, direction) -> (points,).

    Directions: inflow and outflow of users, mint and burn. What is absent did not move.
    """

    points: int
    by_kind: dict[tuple[str, str, str], Integers]

    def cents(self, direction: str, chain: str | None = None, token: str | None = None) -> Integers:
        """One direction's sum in cents, of a chain and a token or of all.

        Rounded once: a thousand transfers of 0.4 cents are four dollars, not nothing.
        """
        total = np.zeros(self.points, dtype=np.int64)
        for (of_chain, of_token, of_direction), sums in self.by_kind.items():
            if of_direction == direction and chain in (None, of_chain) and token in (None, of_token):
                total += sums
        return (total + 5_000) // 10_000

    def tokens(self, chain: str) -> tuple[str, ...]:
        """The chain's tokens that moved."""
        return tuple(sorted({token for of_chain, token, _ in self.by_kind if of_chain == chain}))


def flow_totals(
    conn: psycopg.Connection[Any],
    scope: Scope,
    times_us: Integers,
    window_minutes: int,
    *,
    origins: Origins | None = None,
    cut: Cut | None = None,
) -> FlowSums:
    """What moved over the window up to each point, by the labels in force at that point.

    origins: None for those of current values.
    """
    sums = FlowSums(times_us.size, {})
    for list_version, part in _label_lists(conn, times_us):
        for kind, millionths in _flows_under(
            conn, scope, times_us[part], window_minutes, list_version, origins or scope.current_origins, cut
        ):
            sums.by_kind.setdefault(kind, np.zeros(times_us.size, dtype=np.int64))[part] += millionths
    return sums


def flow_sources_fresh(
    conn: psycopg.Connection[Any],
    scope: Scope,
    times_us: Integers,
    *,
    grace_us: int = 0,
    origins: Origins | None = None,
    cut: Cut | None = None,
) -> tuple[Booleans, Floats]:
    """Which flow venues had been read up to about each point: (flow venues, points), and the heartbeats' ages.

    origins: None for those of current values.
    """
    wanted = origins or scope.current_origins
    age = _heartbeat_age(conn, scope, FLOW_TOPIC, scope.flow_venues, times_us, grace_us, wanted, cut)
    return ~np.isnan(age), age


@dataclass(frozen=True)
class _Question:
    """Which rows of a topic may be fresh at some of the times. kind: of a ratio or a rate; None: the topic has none."""

    scope: Scope
    topic: str
    column: str
    kind: str | None
    times_us: Integers
    grace_us: int
    origins: Origins
    cut: Cut | None

    @property
    def max_age_us(self) -> dict[str, int]:
        """venue -> how old its rows may be; empty where nobody in this world tells the topic."""
        of_venues = self.scope.max_age_us.get(self.topic, {})
        return {venue: age_us + self.grace_us for venue, age_us in of_venues.items()}

    def limits_us(self, of_venue_us: Integers | int, is_archive: Integers, hours: Floats) -> Integers:
        """How old each row may be. of_venue_us: by its venue; hours: between two settlements."""
        ages = np.where(is_archive == 1, np.maximum(of_venue_us, ARCHIVE_MAX_AGE_SECONDS * MICROSECONDS), of_venue_us)
        # History has no rate being accrued: the settled one is in force until the next settlement, for a point too,
        # whether an archive brought it or a poll before a hole.
        holds = (is_archive == 1) | (self.grace_us > 0) | self.scope.is_history
        return ages + np.where(holds, np.rint(hours * _HOUR_US).astype(np.int64), 0)


def _levels(
    conn: psycopg.Connection[Any],
    scope: Scope,
    times_us: Integers,
    *,
    grace_us: int,
    origins: Origins,
    cut: Cut | None,
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    shape = (len(scope.symbols), len(scope.venues), times_us.size)
    values: dict[str, Floats] = {}
    ages: dict[str, Floats] = {}
    for topic, field, column, kinds in (
        ("prices", "price_usd", "price_usd", (None,)),
        ("open_interest", "open_interest_base", "open_interest_base", (None,)),
        ("long_short_ratio", "long_share", "long_share", (CROWD_KIND,)),
        # The rate being accrued now; where a venue or an archive has none, the one settled last.
        ("funding_rates", "funding_rate_per_8h", "rate_per_8h", ("predicted", "settled")),
    ):
        value, age = np.full(shape, np.nan), np.full(shape, np.nan)
        for kind in kinds:
            asked = _Question(scope, topic, column, kind, times_us, grace_us, origins, cut)
            if times_us.size == 1:
                _take_newest(conn, asked, value, age)
                continue
            for symbol, venue, event_us, known_us, max_age_us, numbers in _rows(conn, asked):
                row = as_of(event_us, known_us, times_us, max_age_us)
                take = (row >= 0) & np.isnan(value[symbol, venue])
                value[symbol, venue, take] = numbers[row[take]]
                age[symbol, venue, take] = (times_us[take] - event_us[row[take]]) / MICROSECONDS
        values[field], ages[field] = value, age
    return values, ages


def _take_newest(conn: psycopg.Connection[Any], asked: _Question, value: Floats, age: Floats) -> None:
    """What as_of gives of every series at one point, where it is not known yet; value, age: (symbols, venues, 1).

    A tick over 300 symbols at eight venues reads 2,400 series of some three rows per topic: as one flat array, not as
    2,400 of them.
    """
    scope, now_us = asked.scope, int(asked.times_us[0])
    found = _fetch(
        conn,
        asked,
        "array_agg(s.place), array_agg(v.place)",
        "JOIN unnest(%(symbols)s::text[]) WITH ORDINALITY AS s (symbol, place) USING (symbol)"
        " JOIN unnest(%(scope_venues)s::text[]) WITH ORDINALITY AS v (venue, place) USING (venue)",
        "",
    )
    if not found or found[0][0] is None:
        return
    symbol, venue, event_us, known_us, is_archive, hours, numbers = found[0]
    symbol, venue = symbol - 1, venue - 1
    row = newest_of_series(symbol * len(scope.venues) + venue, event_us, known_us)
    of_venue_us = np.array([asked.max_age_us.get(name, 0) for name in scope.venues], dtype=np.int64)[venue[row]]
    age_us = now_us - event_us[row]
    is_fresh = age_us <= asked.limits_us(of_venue_us, is_archive[row], hours[row])
    is_taken = is_fresh & np.isnan(value[symbol[row], venue[row], 0])
    row, age_us = row[is_taken], age_us[is_taken]
    value[symbol[row], venue[row], 0] = numbers[row]
    age[symbol[row], venue[row], 0] = age_us / MICROSECONDS


def _rows(
    conn: psycopg.Connection[Any], asked: _Question
) -> Iterator[tuple[int, int, Integers, Integers, Integers, Floats]]:
    """Series that may hold a fresh value at some of the times: positions, event and known times, max ages, values."""
    scope, of_venue = asked.scope, asked.max_age_us
    for symbol, venue, event_us, known_us, is_archive, hours, numbers in _fetch(
        conn, asked, "symbol, venue", "", "GROUP BY symbol, venue"
    ):
        ages = asked.limits_us(of_venue[venue], is_archive, hours)
        yield scope.symbols.index(symbol), scope.venues.index(venue), event_us, known_us, ages, numbers


def _fetch(
    conn: psycopg.Connection[Any],
    asked: _Question,
    names: LiteralString,
    joins: LiteralString,
    grouping: LiteralString,
) -> list[tuple[Any, ...]]:
    """The rows as arrays: names, event and known times, whether an archive's, hours of settlement, values."""
    scope, times_us = asked.scope, asked.times_us
    venues = scope.venues_of(asked.topic)
    if not venues or not times_us.size:
        return []
    is_settled = asked.kind == "settled"
    archive_us = ARCHIVE_MAX_AGE_SECONDS * MICROSECONDS if asked.origins != "live" else 0
    # A settled rate holds until the next settlement; between bars nothing newer could have been known of it.
    reach_us = max(*asked.max_age_us.values(), archive_us) + (24 * _HOUR_US if is_settled else 0)
    query = sql.SQL(
        """
        SELECT {names}, array_agg(event_time), array_agg(known_at),
               array_agg((origin = 'archive')::int::bigint), array_agg({interval}), array_agg({column})
        FROM {table} AS t {joins} {cut}
        WHERE world = %(world)s AND symbol = ANY(%(symbols)s) AND venue = ANY(%(venues)s) {kind}
          AND event_time > %(first)s AND event_time <= %(last)s AND known_at <= %(last)s {origins}
        {grouping}
        """
    ).format(
        names=sql.SQL(names),
        joins=sql.SQL(joins),
        grouping=sql.SQL(grouping),
        interval=sql.SQL("interval_hours" if is_settled else "0::float8"),
        column=sql.Identifier(asked.column),
        table=sql.Identifier(asked.topic),
        cut=_cut_join(asked.cut),
        kind=sql.SQL("") if asked.kind is None else sql.SQL("AND kind = {}").format(sql.Literal(asked.kind)),
        origins=_ORIGIN_FILTER[asked.origins],
    )
    parameters = {
        "world": scope.world,
        "symbols": list(scope.symbols),
        "venues": list(venues),
        "scope_venues": list(scope.venues),
        "first": _time(int(times_us[0]) - reach_us - 1),
        "last": _time(int(times_us[-1])),
        **_cut_parameters(conn, asked.cut, asked.topic),
    }
    return fetch_arrays(conn, query, parameters)


def _liquidated(
    conn: psycopg.Connection[Any],
    scope: Scope,
    times_us: Integers,
    *,
    width_us: int,
    grace_us: int,
    origins: Origins,
    cut: Cut | None,
) -> tuple[dict[str, Integers], Floats]:
    """Cents per side over the width up to each time, unknown where the feed's heartbeat is stale; heartbeats' ages."""
    topic = "liquidations"
    shape = (len(scope.symbols), len(scope.venues), times_us.size)
    venues = scope.venues_of(topic)
    age = np.full((len(scope.venues), times_us.size), np.nan)
    if venues:
        age[scope.expected[topic]] = _heartbeat_age(conn, scope, topic, venues, times_us, grace_us, origins, cut)
    alive = np.broadcast_to(~np.isnan(age), shape)
    cents = {side: np.where(alive, 0, UNKNOWN_CENTS).astype(np.int64) for side in ("long", "short")}
    ages = np.broadcast_to(age, shape)
    if not alive.any():
        return cents, ages
    # One point, as live ticks have it: the rows that are asked for are those that count, added up where they are.
    is_single = times_us.size == 1
    query = sql.SQL(
        """
        SELECT symbol, venue, liquidated_side, {columns}
        FROM liquidations AS t {cut}
        WHERE world = %(world)s AND symbol = ANY(%(symbols)s) AND venue = ANY(%(venues)s)
          AND event_time > %(first)s AND event_time <= %(last)s AND known_at <= %(last)s {origins}
        GROUP BY symbol, venue, liquidated_side
        """
    ).format(
        columns=sql.SQL(
            "sum(round(notional_usd * 100)::bigint)::bigint"
            if is_single
            else "array_agg(event_time), array_agg(known_at), array_agg(round(notional_usd * 100)::bigint)"
        ),
        cut=_cut_join(cut),
        origins=_ORIGIN_FILTER[origins],
    )
    parameters = {
        "world": scope.world,
        "symbols": list(scope.symbols),
        "venues": list(venues),
        "first": _time(int(times_us[0]) - width_us),
        "last": _time(int(times_us[-1])),
        **_cut_parameters(conn, cut, topic),
    }
    for symbol, venue, side, *found in fetch_arrays(conn, query, parameters):
        if is_single:
            sums = np.array(found, dtype=np.int64)
        else:
            event_us, known_us, amounts = found
            sums = window_sums(event_us, known_us, amounts, times_us, width_us)
        series = cents[side][scope.symbols.index(symbol), scope.venues.index(venue)]
        series[series != UNKNOWN_CENTS] += sums[series != UNKNOWN_CENTS]
    return cents, ages


def _heartbeat_age(
    conn: psycopg.Connection[Any],
    scope: Scope,
    topic: str,
    venues: tuple[str, ...],
    times_us: Integers,
    grace_us: int,
    origins: Origins,
    cut: Cut | None,
) -> Floats:
    """Seconds since each venue's feed had been read completely: (venues, points), NaN where that is too long ago."""
    ages = np.full((len(venues), times_us.size), np.nan)
    if not venues or not times_us.size:
        return ages
    limits = {venue: age_us + grace_us for venue, age_us in scope.max_age_us[topic].items()}
    query = sql.SQL(
        """
        SELECT venue, array_agg(event_time), array_agg(known_at)
        FROM heartbeats AS t {cut}
        WHERE world = %(world)s AND topic = %(topic)s AND venue = ANY(%(venues)s)
          AND event_time > %(first)s AND event_time <= %(last)s AND known_at <= %(last)s {origins}
        GROUP BY venue
        """
    ).format(cut=_cut_join(cut), origins=_ORIGIN_FILTER[origins])
    parameters = {
        "world": scope.world,
        "topic": topic,
        "venues": list(venues),
        "first": _time(int(times_us[0]) - max(limits.values()) - 1),
        "last": _time(int(times_us[-1])),
        **_cut_parameters(conn, cut, topic),
    }
    for venue, event_us, known_us in fetch_arrays(conn, query, parameters):
        row = as_of(event_us, known_us, times_us, limits[venue])
        ages[venues.index(venue)] = np.where(row >= 0, (times_us - event_us[row]) / MICROSECONDS, np.nan)
    return ages


def _label_lists(conn: psycopg.Connection[Any], times_us: Integers) -> Iterator[tuple[str | None, slice]]:
    """Runs of points under one label list, the newest known at each; None before the first list."""
    lists = conn.execute(
        "SELECT list_version, known_at FROM wallet_label_lists ORDER BY known_at, list_version"
    ).fetchall()
    known_us = np.array([microseconds(known_at) for _, known_at in lists], dtype=np.int64)
    in_force = np.searchsorted(known_us, times_us, side="right") - 1
    starts = np.flatnonzero(np.diff(in_force, prepend=-2))
    for start, stop in zip(starts, [*starts[1:], times_us.size], strict=True):
        position = int(in_force[start])
        yield (None if position < 0 else str(lists[position][0])), slice(int(start), int(stop))


COUNTED: Final = ("inflow", "outflow", "mint", "burn")
"""Directions that are summed: the rest moves no user's money and changes no supply."""
_ZEROS: Final = sql.SQL(", ").join(sql.Literal(address) for address in ZERO_ADDRESSES)
DIRECTION: Final = sql.SQL(
    """
    CASE WHEN from_address IN ({zeros}) THEN 'mint' WHEN to_address IN ({zeros}) THEN 'burn'
         WHEN right(f.entity, {t}) = {treasury}
              THEN CASE WHEN right(g.entity, {t}) = {treasury} THEN 'internal' ELSE 'mint' END
         WHEN right(g.entity, {t}) = {treasury} THEN 'burn'
         WHEN right(f.entity, {c}) = {custody} OR right(g.entity, {c}) = {custody} THEN 'internal'
         WHEN f.entity IS NULL AND g.entity IS NULL THEN 'other'
         WHEN f.entity IS NULL THEN 'inflow' WHEN g.entity IS NULL THEN 'outflow'
         WHEN f.entity = g.entity THEN 'internal' ELSE 'inter_exchange' END
    """
).format(
    zeros=_ZEROS,
    t=sql.Literal(len(TREASURY_SUFFIX)),
    treasury=sql.Literal(TREASURY_SUFFIX),
    c=sql.Literal(len(CUSTODY_SUFFIX)),
    custody=sql.Literal(CUSTODY_SUFFIX),
)
"""domain/wallets.py's direction(), where the rows are: what is not summed never leaves the database."""


def _flows_under(
    conn: psycopg.Connection[Any],
    scope: Scope,
    times_us: Integers,
    window_minutes: int,
    list_version: str | None,
    origins: Origins,
    cut: Cut | None,
) -> Iterator[tuple[tuple[str, str, str], Integers]]:
    """((chain, token, direction), millionths of a dollar per point) under a label list; without one, as first seen."""
    width_us = window_minutes * 60 * MICROSECONDS
    if list_version is None:
        direction: sql.Composable = sql.SQL("direction")
        joins: sql.Composable = sql.SQL("")
    else:
        direction = DIRECTION
        joins = sql.SQL(" ").join(
            sql.SQL(
                "LEFT JOIN wallet_labels AS {alias} ON {alias}.chain = t.chain AND {alias}.address = t.{address}"
                " AND {alias}.list_version = {version}"
                " AND ({alias}.valid_from IS NULL OR {alias}.valid_from <= t.event_time)"
                " AND ({alias}.valid_to IS NULL OR t.event_time < {alias}.valid_to)"
            ).format(alias=sql.Identifier(alias), address=sql.Identifier(address), version=sql.Literal(list_version))
            for alias, address in (("f", "from_address"), ("g", "to_address"))
        )
    # One point, as live ticks have it: added up where the rows are. Several share rows, which are then fetched once.
    is_single = times_us.size == 1
    columns = (
        "sum(millionths)::bigint"
        if is_single
        else "array_agg(event_time), array_agg(known_at), array_agg(until), array_agg(millionths)"
    )
    query = sql.SQL(
        """
        SELECT chain, token, direction, {columns} FROM (
            SELECT t.chain, t.token, {direction} AS direction, event_time, known_at,
                   coalesce(orphaned_known_at, %(never)s) AS until, round(amount * 1000000)::bigint AS millionths
            FROM stablecoin_flows AS t {joins} {cut}
            WHERE world = %(world)s AND event_time > %(first)s AND event_time <= %(last)s AND known_at <= %(last)s
              AND (is_canonical OR orphaned_known_at IS NOT NULL) {origins}
        ) AS told
        WHERE direction = ANY(%(counted)s) {standing}
        GROUP BY chain, token, direction
        """
    ).format(
        columns=sql.SQL(columns),
        direction=direction,
        joins=joins,
        cut=_cut_join(cut),
        origins=_ORIGIN_FILTER[origins],
        standing=sql.SQL("AND until > %(last)s" if is_single else ""),
    )
    parameters = {
        "world": scope.world,
        "never": _NEVER,
        "first": _time(int(times_us[0]) - width_us),
        "last": _time(int(times_us[-1])),
        "counted": list(COUNTED),
        **_cut_parameters(conn, cut, FLOW_TOPIC),
    }
    with _hash_joins_only(conn):
        rows = fetch_arrays(conn, query, parameters)
    for chain, token, kind, *found in rows:
        if is_single:
            yield (chain, token, kind), np.array(found, dtype=np.int64)
        else:
            event_us, known_us, until_us, millionths = found
            yield (chain, token, kind), window_sums(event_us, known_us, millionths, times_us, width_us, until_us)


@contextmanager
def _hash_joins_only(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Within a transaction: no row by row walk through the labels.

    The server knows neither how many labels a list has nor how many transfers an hour, as long as nobody has analysed
    them; it then walked all labels for each of 40,000 transfers, 1.1 s in place of 0.1 s a tick.
    """
    conn.execute("SET LOCAL enable_nestloop = off")
    yield
    conn.execute("SET LOCAL enable_nestloop = on")


_ORIGIN_FILTER: Final[dict[Origins, sql.SQL]] = {
    "all": sql.SQL(""),
    "live": sql.SQL("AND origin <> 'archive'"),
    "archive": sql.SQL("AND origin = 'archive'"),
}


def _cut_join(cut: Cut | None) -> sql.SQL:
    if cut is None:
        return sql.SQL("")
    return sql.SQL(
        "JOIN unnest(%(cut_clusters)s::smallint[], %(cut_partitions)s::smallint[], %(cut_offsets)s::bigint[])"
        " AS c(cluster_no, partition, next_offset)"
        " ON t.kafka_cluster = c.cluster_no AND t.kafka_partition = c.partition AND t.kafka_offset < c.next_offset"
    )


def _cut_parameters(conn: psycopg.Connection[Any], cut: Cut | None, topic: str) -> dict[str, list[int]]:
    if cut is None:
        return {}
    numbers = dict(conn.execute("SELECT cluster_id, cluster_no FROM kafka_clusters").fetchall())
    rows = [
        (numbers[cluster_id], int(partition), next_offset)
        for cluster_id, topics in cut.items()
        for partition, next_offset in topics.get(topic, {}).items()
    ]
    return {
        "cut_clusters": [cluster for cluster, _, _ in rows],
        "cut_partitions": [partition for _, partition, _ in rows],
        "cut_offsets": [offset for _, _, offset in rows],
    }


def microseconds(time: datetime) -> int:
    """Microseconds since 1970 UTC, exactly."""
    delta = time - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * MICROSECONDS + delta.microseconds


def _time(us: int) -> datetime:
    seconds, rest = divmod(us, MICROSECONDS)
    return datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=rest)
