"""Who is expected to say what: a world's manifest as the arrays and limits that reading needs.

Belongs here: Scope and how it is made for ticks and for history. Does not: reading observations (as_known.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
import numpy as np
import psycopg
from psycopg import sql

from liq_pipeline.domain.chains import chain_of
from liq_pipeline.domain.worlds import World
from liq_pipeline.scoring.bars import MICROSECONDS, Booleans, Integers
from liq_pipeline.settings import RiskSettings

MARKET_TOPICS: Final = ("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations")
FLOW_TOPIC: Final = "stablecoin_flows"
LEAST_MAX_AGE_SECONDS: Final = 30.0
ALWAYS_US: Final = 0
NEVER_US: Final = np.iinfo(np.int64).max

Origins = Literal["all", "live", "archive"]


@dataclass(frozen=True)
class Scope:
    """Who is expected to say what in a world.

    expected: topic -> (venues,); max_age_us: topic -> venue -> age up to which a value is current.
    """

    world: str
    symbols: tuple[str, ...]
    venues: tuple[str, ...]
    expected: dict[str, Booleans]
    max_age_us: dict[str, dict[str, int]]
    flow_venues: tuple[str, ...]
    """The manifest's, and those of before where with_flow_spans() has found them."""
    current_origins: Origins
    not_listed: frozenset[tuple[str, str]] = frozenset()
    """(symbol, venue) by the world's manifest."""
    is_real: bool = False
    is_history: bool = False
    flow_spans_us: tuple[tuple[str, int, int], ...] = ()
    """(flow venue, after, until) in microseconds: points that expect it, for venues that have not always been."""

    @property
    def flow_chains(self) -> tuple[str, ...]:
        """The chains that the flow venues read."""
        return tuple(dict.fromkeys(chain_of(venue) for venue in self.flow_venues))

    def flows_expected(self, times_us: Integers) -> Booleans:
        """Which flow venues are expected at each point: (flow venues, points)."""
        expected = np.ones((len(self.flow_venues), times_us.size), dtype=bool)
        for v, venue in enumerate(self.flow_venues):
            spans = [(after, until) for name, after, until in self.flow_spans_us if name == venue]
            if spans:
                expected[v] = np.logical_or.reduce([(times_us > after) & (times_us <= until) for after, until in spans])
        return expected

    def venues_of(self, topic: str) -> tuple[str, ...]:
        """The venues expected to bring the topic."""
        if topic == FLOW_TOPIC:
            return self.flow_venues
        return tuple(venue for venue, is_expected in zip(self.venues, self.expected[topic], strict=True) if is_expected)


def scope_of(world: World, risk: RiskSettings, *, history: bool = False) -> Scope:
    """The scope of a world by its manifest. history: scoring archives, whose rows are then the current values."""
    expected = world.manifest.expected
    venues = tuple(sorted({v for topic in MARKET_TOPICS if topic in expected for v in expected[topic].venues}))
    masks = {
        topic: np.array([topic in expected and venue in expected[topic].venues for venue in venues], dtype=bool)
        for topic in MARKET_TOPICS
    }
    max_age = {
        topic: {
            venue: round(max(LEAST_MAX_AGE_SECONDS, risk.freshness_factor * of.cadence_of(venue)) * MICROSECONDS)
            for venue in of.venues
        }
        for topic, of in expected.items()
    }
    return Scope(
        world=world.name,
        symbols=world.manifest.symbols,
        venues=venues,
        expected=masks,
        max_age_us=max_age,
        flow_venues=tuple(sorted(expected[FLOW_TOPIC].venues)) if FLOW_TOPIC in expected else (),
        current_origins="live" if world.is_real and not history else "all",
        not_listed=frozenset(
            (symbol, venue)
            for venue in venues
            for symbol in world.manifest.not_listed.get(venue, ())
            if symbol in world.manifest.symbols
        ),
        is_real=world.is_real,
        is_history=history,
    )


def with_flow_spans(conn: psycopg.Connection[Any], scope: Scope) -> Scope:
    """The scope with the points at which each flow venue is expected, and with venues that were and no longer are."""
    rows = conn.execute(
        "SELECT venue, from_time, to_time FROM flow_venues WHERE world = %s ORDER BY venue, entry_id", [scope.world]
    ).fetchall()
    if not rows:
        return scope
    spans = tuple(
        (venue, ALWAYS_US if first is None else _us(first), NEVER_US if last is None else _us(last))
        for venue, first, last in rows
    )
    former = {venue for venue, _, _ in spans} - set(scope.flow_venues)
    ages = dict(scope.max_age_us.get(FLOW_TOPIC, {}))
    usual = max(ages.values(), default=round(LEAST_MAX_AGE_SECONDS * MICROSECONDS))
    return replace(
        scope,
        flow_venues=tuple(sorted({*scope.flow_venues, *former})),
        max_age_us={**scope.max_age_us, FLOW_TOPIC: {**dict.fromkeys(former, usual), **ages}},
        flow_spans_us=spans,
    )


def _us(time: datetime) -> int:
    return round(time.timestamp() * 1000) * 1000


def history_scope(conn: psycopg.Connection[Any], world: World, risk: RiskSettings) -> Scope:
    """The scope of hours in which no tick ran: of the expected venues those that the store holds anything of.

    A live venue of which no archive exists did not fall silent in 2021: counting it as such would leave all history
    below the least coverage. The venues that are left stand in each score's inputs.
    """
    expected = dict(world.manifest.expected)
    for topic in MARKET_TOPICS:
        of = expected.pop(topic, None)
        if of is None:
            continue
        rows = conn.execute(
            sql.SQL(
                "SELECT v FROM unnest(%(venues)s::text[]) AS v WHERE EXISTS (SELECT FROM {table} AS t,"
                " unnest(%(symbols)s::text[]) AS s WHERE t.world = %(world)s AND t.symbol = s AND t.venue = v)"
            ).format(table=sql.Identifier(topic)),
            {"venues": list(of.venues), "symbols": list(world.manifest.symbols), "world": world.name},
        ).fetchall()
        heard = {venue for (venue,) in rows}
        if heard:
            expected[topic] = msgspec.structs.replace(of, venues=tuple(v for v in of.venues if v in heard))
    manifest = msgspec.structs.replace(world.manifest, expected=expected)
    return scope_of(msgspec.structs.replace(world, manifest=manifest), risk, history=True)
