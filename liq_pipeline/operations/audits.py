"""Thorough checks of what is stored: what a tick has no time to look at.

Belongs here: questions to the database with a verdict each. Does not: mending, or when they are asked
(defs/upkeep/checks.py). Each audit reads the active world only; "now" is the world's own clock, so that a recorded day
is judged as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql

from liq_pipeline.bus.topics import EVENT_TOPICS, IN_TOPICS, PARTITIONS
from liq_pipeline.domain.worlds import World
from liq_pipeline.settings import Settings
from liq_pipeline.store import worlds
from liq_pipeline.store.inputs import listings
from liq_pipeline.store.schema import policies

LOOKBACK: Final = timedelta(hours=1)
"""Checks run several times an hour: each looks at the last hour, so nothing slips between two of them."""
TICK_LOOKBACK: Final = timedelta(hours=24)
LATE_AFTER_SECONDS: Final = 5.0
WATERMARK_SPREAD: Final = timedelta(minutes=10)
OUTBOX_PATIENCE: Final = timedelta(minutes=5)
MINIMUM_FRESH_SECONDS: Final = 30.0
POINTS_TOLERANCE: Final = 1e-6

# What no honest market has shown; narrower than what a record may hold, so a mix-up of units stands out.
_PLAUSIBLE: Final[dict[str, str]] = {
    "prices": "price_usd > 0",
    "funding_rates": "abs(rate_per_8h) <= 0.10",
    "open_interest": "open_interest_base >= 0 AND (open_interest_usd IS NULL OR open_interest_usd >= 0)",
    "long_short_ratio": "abs(long_share + short_share - 1) <= 0.01",
    "liquidations": "abs(notional_usd - price_usd * quantity_base) <= 0.01 * notional_usd",
    "stablecoin_flows": "amount >= 0",
}

TABLE_AUDITS: Final = ("rows_fit", "venues_speak", "values_plausible")
RISK_AUDITS: Final = ("points_add_up", "no_open_gaps")
SIGNAL_AUDITS: Final = ("ticks_complete", "watermarks_move")
ALERT_AUDITS: Final = ("outbox_empties",)
DATABASE_AUDITS: Final = ("policies_succeed",)


@dataclass(frozen=True)
class Finding:
    """One verdict. `subject`: a table's name, or database. is_error: it breaks a promise; otherwise worth a look."""

    subject: str
    audit: str
    passed: bool
    sentence: str
    is_error: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


def audit(conn: psycopg.Connection[Any], settings: Settings, wall_now: datetime) -> Iterator[Finding]:
    """Every audit's finding, each exactly once. Before any world is active all pass: there is nothing to find."""
    world = worlds.active(conn)
    now = worlds.clock(conn, world, wall_now) if world else None
    for table in IN_TOPICS:
        yield _rows_fit(conn, table, wall_now)
        if world is None or now is None:
            for name in TABLE_AUDITS[1:]:
                yield _nothing_yet(table, name)
        else:
            yield _venues_speak(conn, world, table, now, settings.risk.freshness_factor)
            yield _values_plausible(conn, world, table, now)
    if world is None or now is None:
        for subject, names in (
            ("liquidation_risk", RISK_AUDITS),
            ("signals", SIGNAL_AUDITS),
        ):
            for name in names:
                yield _nothing_yet(subject, name)
    else:
        yield _points_add_up(conn, world, now)
        yield _no_open_gaps(conn, world)
        yield _ticks_complete(conn, world)
        yield _watermarks_move(conn, world)
    yield _outbox_empties(conn, wall_now)
    yield _policies_succeed(conn, wall_now)


def _nothing_yet(subject: str, name: str) -> Finding:
    return Finding(subject, name, passed=True, sentence="No world has a clock yet: there is nothing to check.")


def _one(conn: psycopg.Connection[Any], query: sql.Composed | str, values: dict[str, Any]) -> tuple[Any, ...]:
    row = conn.execute(query, values).fetchone()
    return () if row is None else tuple(row)


def _rows_fit(conn: psycopg.Connection[Any], table: str, wall_now: datetime) -> Finding:
    count, newest = _one(
        conn,
        "SELECT count(*), (array_agg(reason_code ORDER BY dead_at DESC))[1] FROM dead_letters"
        " WHERE topic = %(topic)s AND dead_at > %(since)s AND resubmitted_at IS NULL",
        {"topic": table, "since": wall_now - LOOKBACK},
    )
    return Finding(
        table,
        "rows_fit",
        passed=count == 0,
        sentence="Every message of the last hour fitted."
        if count == 0
        else f"{count} messages of the last hour did not fit (newest reason: {newest}); they lie in dead_letters.",
        facts={"dead_letters_last_hour": count},
    )


def _venues_speak(
    conn: psycopg.Connection[Any], world: World, table: str, now: datetime, freshness_factor: float
) -> Finding:
    expectation = world.manifest.expected.get(table)
    if expectation is None:
        return Finding(table, "venues_speak", passed=True, sentence="Nobody is expected to bring this in this world.")
    if table in EVENT_TOPICS:
        # An event feed is alive while its heartbeats come; a calm market brings no rows.
        rows = conn.execute(
            "SELECT venue, max(event_time) FROM heartbeats WHERE world = %(world)s AND topic = %(topic)s"
            " AND event_time > %(since)s GROUP BY venue",
            {"world": world.name, "topic": table, "since": now - TICK_LOOKBACK},
        ).fetchall()
    else:
        rows = conn.execute(
            sql.SQL(
                "SELECT venue, max(event_time) FROM {}"
                " WHERE world = %(world)s AND event_time > %(since)s GROUP BY venue"
            ).format(sql.Identifier(table)),
            {"world": world.name, "since": now - TICK_LOOKBACK},
        ).fetchall()
    newest = dict(rows)
    silent = {}
    # A venue that lists none of our coins has nothing to say.
    absent = listings.venues_without(conn, world.manifest.symbols, now) if world.is_real else set()
    expected = [venue for venue in expectation.venues if venue not in absent]
    for venue in expected:
        limit = max(freshness_factor * expectation.cadence_of(venue), MINIMUM_FRESH_SECONDS)
        age = (now - newest[venue]).total_seconds() if venue in newest else None
        if age is None or age > limit:
            silent[venue] = age
    told = ", ".join(
        f"{venue} ({'never' if age is None else f'{age:.0f} s ago'})" for venue, age in sorted(silent.items())
    )
    return Finding(
        table,
        "venues_speak",
        passed=not silent,
        sentence=f"All {len(expected)} expected venues speak."
        if not silent
        else f"{len(silent)} of {len(expected)} expected venues are silent: {told}.",
        is_error=len(silent) == len(expectation.venues) > 0,
        facts={"expected": list(expectation.venues), "silent": sorted(silent)},
    )


def _values_plausible(conn: psycopg.Connection[Any], world: World, table: str, now: datetime) -> Finding:
    rows, odd, ahead = _one(
        conn,
        sql.SQL(
            "SELECT count(*), count(*) FILTER (WHERE NOT ({plausible})),"
            " count(*) FILTER (WHERE event_time > known_at + interval '60 seconds')"
            " FROM {table} WHERE world = %(world)s AND event_time > %(since)s"
        ).format(plausible=sql.SQL(_PLAUSIBLE[table]), table=sql.Identifier(table)),
        {"world": world.name, "since": now - LOOKBACK},
    )
    return Finding(
        table,
        "values_plausible",
        passed=odd == 0 and ahead == 0,
        sentence=f"All {rows} rows of the last hour are plausible."
        if odd == 0 and ahead == 0
        else f"Of {rows} rows of the last hour {odd} are outside what markets have shown, {ahead} lie in the future.",
        is_error=True,
        facts={"rows_last_hour": rows, "implausible": odd, "in_the_future": ahead},
    )


def _points_add_up(conn: psycopg.Connection[Any], world: World, now: datetime) -> Finding:
    rows, wrong = _one(
        conn,
        """
        SELECT count(*), count(*) FILTER (WHERE
            score_high < score
            OR abs(score - (coalesce(funding_points, 0) + coalesce(open_interest_points, 0)
                            + coalesce(long_short_points, 0) + coalesce(liquidation_points, 0))) > %(tolerance)s
            OR (score IS NOT NULL AND score < greatest(long_squeeze, short_squeeze) - %(tolerance)s))
        FROM liquidation_risk WHERE world = %(world)s AND time > %(since)s
        """,
        {"world": world.name, "since": now - LOOKBACK, "tolerance": POINTS_TOLERANCE},
    )
    return Finding(
        "liquidation_risk",
        "points_add_up",
        passed=wrong == 0,
        sentence=f"In all {rows} scores of the last hour the points add up to the score."
        if wrong == 0
        else f"In {wrong} of {rows} scores of the last hour the points do not add up to the score.",
        is_error=True,
        facts={"scores_last_hour": rows, "wrong": wrong},
    )


def _no_open_gaps(conn: psycopg.Connection[Any], world: World) -> Finding:
    rows = conn.execute(
        "SELECT source, count(*), min(from_time) FROM ingest_gaps"
        " WHERE world = %(world)s AND healed_at IS NULL AND NOT is_permanent GROUP BY source ORDER BY source",
        {"world": world.name},
    ).fetchall()
    total = sum(count for _, count, _ in rows)
    told = ", ".join(f"{source} ({count})" for source, count, _ in rows)
    return Finding(
        "liquidation_risk",
        "no_open_gaps",
        passed=total == 0,
        sentence="No hole in the data is open." if total == 0 else f"{total} holes in the data are open: {told}.",
        facts={"open_gaps": total},
    )


def _ticks_complete(conn: psycopg.Connection[Any], world: World) -> Finding:
    step = world.market_step_seconds
    scored, first, last, late = _one(
        conn,
        """
        WITH newest AS (SELECT max(time) AS time FROM ticks WHERE world = %(world)s AND stream = 'market')
        SELECT count(*), min(t.time), max(t.time),
               count(*) FILTER (WHERE t.committed_at > t.time + make_interval(secs => %(late)s))
        FROM ticks t, newest WHERE t.world = %(world)s AND t.stream = 'market' AND t.time > newest.time - %(window)s
        """,
        {"world": world.name, "late": LATE_AFTER_SECONDS, "window": TICK_LOOKBACK},
    )
    if not scored:
        return Finding("signals", "ticks_complete", passed=True, sentence="No tick has been committed yet.")
    due = int((last - first).total_seconds()) // step + 1
    missed = due - scored
    # A recording plays at any speed: a commit there is early or late by definition.
    late_told = late if world.kind != "recorded" else 0
    return Finding(
        "signals",
        "ticks_complete",
        passed=missed == 0,
        sentence=f"All {due} points of the last 24 h are scored, {late_told} of them late."
        if missed == 0
        else f"{missed} of {due} points of the last 24 h are missed, {late_told} were late.",
        is_error=True,
        facts={"due": due, "missed": missed, "late": late_told, "newest": last.isoformat()},
    )


def _watermarks_move(conn: psycopg.Connection[Any], world: World) -> Finding:
    if world.is_real:
        return Finding("signals", "watermarks_move", passed=True, sentence="The real world's clock is the wall's.")
    count, least, most = _one(
        conn,
        "SELECT count(*), min(watermark), max(watermark) FROM watermarks WHERE world = %(world)s",
        {"world": world.name},
    )
    expected = len(IN_TOPICS) * PARTITIONS
    spread = most - least if count else timedelta()
    passed = count == expected and spread <= WATERMARK_SPREAD
    return Finding(
        "signals",
        "watermarks_move",
        passed=passed,
        sentence=f"All {expected} partitions move together (spread {spread.total_seconds():.0f} s)."
        if passed
        else f"{count} of {expected} partitions have a watermark, and the slowest is {spread.total_seconds():.0f} s "
        "behind the fastest: the world's clock stands still.",
        is_error=True,
        facts={"partitions": count, "spread_seconds": spread.total_seconds()},
    )


def _outbox_empties(conn: psycopg.Connection[Any], wall_now: datetime) -> Finding:
    overdue, failed = _one(
        conn,
        "SELECT count(*) FILTER (WHERE state = 'due' AND due_at < %(since)s),"
        " count(*) FILTER (WHERE state = 'failed') FROM outbox WHERE state IN ('due', 'failed')",
        {"since": wall_now - OUTBOX_PATIENCE},
    )
    passed = overdue == 0 and failed == 0
    return Finding(
        "alerts",
        "outbox_empties",
        passed=passed,
        sentence="Everything that was to be sent was sent."
        if passed
        else f"{overdue} messages wait for more than {OUTBOX_PATIENCE.seconds // 60} min and {failed} were given up.",
        is_error=True,
        facts={"overdue": overdue, "given_up": failed},
    )


def _policies_succeed(conn: psycopg.Connection[Any], wall_now: datetime) -> Finding:
    found = policies.verdict(conn, wall_now)
    return Finding(
        "database",
        "policies_succeed",
        passed=not found.overdue,
        sentence=found.sentence(),
        facts={"policies": found.policies, "overdue": len(found.overdue)},
    )
