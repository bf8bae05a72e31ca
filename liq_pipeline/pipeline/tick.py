"""The tick: land what is in Kafka, score the grid points that are due, decide alerts, all points in order.

Belongs here: what a tick does, in which order, in which transaction. Does not: when it runs (defs/), landing
(store/landing/lander.py), formulas (scoring/), the alert machine (alerting/).

One transaction, REPEATABLE READ, scores at most 60 points: it reads the cut and the inputs from one snapshot, adds
missing bars and references, writes pressures, then risks and signals, alert changes, the outbox and the tick rows. It
commits whole or not at all, so a tick that dies anywhere is repeated by the next one from the same state. Which points
are due follows from the tables alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import IsolationLevel

from liq_pipeline.alerting import book
from liq_pipeline.alerting.sending import outbox
from liq_pipeline.domain.worlds import World
from liq_pipeline.pipeline.points import KeptLookback, score_flows, score_market
from liq_pipeline.scoring.assemble import PRESSURE_MAX_AGE
from liq_pipeline.scoring.bars import Integers
from liq_pipeline.scoring.model import ProbabilityModel
from liq_pipeline.scoring.results import PointResult, PressureResult
from liq_pipeline.scoring.version import score_version
from liq_pipeline.settings import Settings
from liq_pipeline.store import scores, worlds
from liq_pipeline.store.connection import LIVE_LOCK_SECONDS, connect
from liq_pipeline.store.inputs.expected_sources import scope_of
from liq_pipeline.store.landing.lander import Lander, LandResult
from liq_pipeline.store.lookback import flow_lookback, market_lookback, warning_references
from liq_pipeline.store.lookback.bar_cache import BarCache
from liq_pipeline.store.lookback.market_lookback import seconds_of

MAX_POINTS: Final = 60
"""Points of each stream per transaction: bounds its length, and is what vectorised scoring gains most from."""
REAL_CATCH_UP: Final = timedelta(hours=1)
"""Older points of the real world stay missed: a score that was no use to anyone is not worth delaying the next."""
LATE_AFTER: Final = timedelta(seconds=5)
SERIALIZATION_ATTEMPTS: Final = 3
LANDING_CONSUMER: Final = "landing"


@dataclass(frozen=True, kw_only=True)
class TickContext:
    """Where a tick runs. wall_now: the clock of the real world, an argument so that tests can set it.

    load_model: the probability model in force, read in the tick's own snapshot; None: none is.
    bar_cache: what the last tick looked back on; None: each reads all of it.
    """

    database_url: str
    bootstrap_servers: str
    topic_prefix: str
    settings: Settings
    dagster_run_id: str | None = None
    wall_now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    load_model: Callable[[psycopg.Connection[Any]], ProbabilityModel | None] = field(default=lambda conn: None)
    bar_cache: BarCache | None = None


@dataclass
class TickResult:
    """What a tick did. Counts of points are of the market stream unless the name says flows."""

    world: str | None = None
    skipped: str | None = None
    """Why nothing was scored, in a sentence; None if something was."""
    clock: datetime | None = None
    points_due: int = 0
    points_scored: int = 0
    flow_points_scored: int = 0
    points_missed: int = 0
    """Points that will never be scored by a tick: too old when this one came."""
    points_left: int = 0
    """Still due when the time was up: the next tick takes them."""
    points_late: int = 0
    first_time: datetime | None = None
    last_time: datetime | None = None
    landing: LandResult = field(default_factory=LandResult)
    late_rows: int = 0
    bars_built: int = 0
    references_built: int = 0
    score_version: str | None = None
    newest: PointResult | None = None
    newest_pressure: PressureResult | None = None
    alert_changes: int = 0
    outbox_due: int = 0
    durations: dict[str, float] = field(default_factory=dict)
    """phase -> seconds"""

    @property
    def lag_seconds(self) -> float | None:
        """How far the newest score is behind the world's clock."""
        if self.clock is None or self.last_time is None:
            return None
        return (self.clock - self.last_time).total_seconds()

    @property
    def coverage(self) -> dict[str, float]:
        """symbol -> coverage of the newest point."""
        return {} if self.newest is None else {symbol: r.coverage for symbol, r in self.newest.risks.items()}

    @property
    def scores(self) -> dict[str, float | None]:
        """symbol -> risk of the newest point."""
        return {} if self.newest is None else {symbol: r.score for symbol, r in self.newest.risks.items()}


def run_tick(context: TickContext, *, time_limit_seconds: float = 20.0, land: bool = True) -> TickResult:
    """Land, then score what is due, oldest first, until nothing is or the time is up.

    land False: score what has landed, because a resident `liq land` does the landing.
    Two ticks of one world never run at once: the second returns with `skipped`. Raises LandingError or psycopg.Error
    with everything before the failing transaction committed.
    """
    started = time.monotonic()
    started_at = context.wall_now()
    result = TickResult()
    with connect(context.database_url, application_name="liq tick", lock_seconds=LIVE_LOCK_SECONDS) as conn:
        world = worlds.active(conn)
        conn.commit()
        if world is None:
            result.skipped = "no world is active"
            return result
        result.world = world.name
        if not _lock(conn, world.name):
            result.skipped = f"another tick of {world.name} is running"
            return result
        if land:
            with _phase(result, "land"):
                result.landing = _land(context, time_limit_seconds / 2)
        result.late_rows = result.landing.late.get(world.name, 0)
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        while _score_some(conn, context, world, started_at, result):
            if time.monotonic() - started > time_limit_seconds:
                break
        result.outbox_due = _outbox_due(conn)
        conn.rollback()
    if result.points_scored == 0 and result.flow_points_scored == 0 and result.skipped is None:
        result.skipped = "no grid point is due" if result.clock is not None else f"{world.name} has no clock yet"
    result.durations["total"] = time.monotonic() - started
    return result


@dataclass(frozen=True)
class Due:
    """Grid points to score (seconds since 1970, ascending), and how many were given up before them."""

    points: Integers
    missed: int = 0


def due_points(world: World, step_seconds: int, last: datetime | None, clock: datetime) -> Due:
    """The grid points in (last, clock]; a world's first tick starts at the newest one, or at the recording's start."""
    until = seconds_of(clock)
    if world.kind == "recorded" and world.last_time is not None:
        until = min(until, seconds_of(world.last_time))
    newest = until // step_seconds * step_seconds
    if last is not None:
        first = (seconds_of(last) // step_seconds + 1) * step_seconds
    elif world.kind == "recorded" and world.first_time is not None:
        first = (seconds_of(world.first_time) // step_seconds + 1) * step_seconds
    else:
        first = newest
    missed = 0
    if world.is_real:
        oldest = -(-seconds_of(clock - REAL_CATCH_UP) // step_seconds) * step_seconds
        missed = max(0, (oldest - first) // step_seconds)
        first = max(first, oldest)
    return Due(np.arange(first, newest + 1, step_seconds, dtype=np.int64), missed)


def _score_some(
    conn: psycopg.Connection[Any], context: TickContext, world: World, started_at: datetime, result: TickResult
) -> bool:
    """One transaction, repeated if another one changed what it decided on; whether more may be due."""
    for attempt in range(SERIALIZATION_ATTEMPTS):
        try:
            with conn.transaction():
                done = _score_in_transaction(conn, context, world, started_at, result)
            break
        except psycopg.errors.SerializationFailure:
            # Somebody acknowledged an alert in between: decide again on the new state.
            if attempt == SERIALIZATION_ATTEMPTS - 1:
                raise
    if done is None:
        return False
    committed = context.wall_now()
    if context.bar_cache is not None:
        context.bar_cache.keep(conn)
        conn.commit()
    if world.is_real:
        result.points_late += sum(committed - point.time > LATE_AFTER for point in done.points)
    result.points_scored += len(done.points)
    result.flow_points_scored += len(done.pressures)
    result.bars_built += done.bars_built
    result.references_built += done.references_built
    result.alert_changes += done.alert_changes
    result.points_missed += done.missed
    result.points_due = max(result.points_due, done.due)
    result.points_left = done.due - len(done.points)
    result.score_version = done.score_version
    if done.points:
        result.first_time = result.first_time or done.points[0].time
        result.last_time = done.points[-1].time
        result.newest = done.points[-1]
    if done.pressures:
        result.newest_pressure = done.pressures[-1]
    return done.more


@dataclass(frozen=True)
class _Done:
    """What one transaction did."""

    points: Sequence[PointResult]
    pressures: Sequence[PressureResult]
    score_version: str
    due: int
    missed: int
    more: bool
    bars_built: int
    references_built: int
    alert_changes: int


def _score_in_transaction(
    conn: psycopg.Connection[Any], context: TickContext, world: World, started_at: datetime, result: TickResult
) -> _Done | None:
    """Score the oldest due points; None if none is due."""
    settings = context.settings
    cut = scores.read_cut(conn, LANDING_CONSUMER)
    clock = worlds.clock(conn, world, started_at)
    result.clock = clock
    if clock is None:
        return None
    last_market = scores.last_tick(conn, world.name, "market")
    last_flows = scores.last_tick(conn, world.name, "flows")
    market = due_points(world, world.market_step_seconds, last_market, clock)
    flows = due_points(world, world.flows_step_seconds, last_flows, clock)
    if not market.points.size and not flows.points.size:
        return None
    # Both streams advance to the same moment, flows first: a market point sees every pressure up to it, whatever the
    # number of points per transaction.
    limits = [int(due.points[MAX_POINTS - 1]) for due in (market, flows) if due.points.size > MAX_POINTS]
    until = min(limits, default=seconds_of(clock))
    market_now, flows_now = (due.points[due.points <= until] for due in (market, flows))
    model = context.load_model(conn)
    version = score_version(settings, None if model is None else model.model_id)
    scope = scope_of(world, settings.risk)
    source = KeptLookback(conn, scope, settings, context.bar_cache)
    bars_built = references_built = 0

    pressures: list[PressureResult] = []
    if flows_now.size:
        with _phase(result, "lookback"):
            built = flow_lookback.ensure_flow_lookback(
                conn, scope, flows_now, _seconds(last_flows), settings.risk, settings.pressure
            )
        bars_built, references_built = built.bars, built.references
        with _phase(result, "score"):
            pressures = score_flows(conn, scope, flows_now, settings, source)
        with _phase(result, "write"):
            scores.write_pressures(conn, world.name, pressures, version)

    points: list[PointResult] = []
    changes = 0
    if market_now.size:
        with _phase(result, "lookback"):
            built = market_lookback.ensure_market_lookback(
                conn, scope, market_now, _seconds(last_market), settings.risk
            )
            if model is not None:
                again = built.references > 0  # a new day, or archives have changed the bars
                warning_references.keep_warning_reference(conn, scope, model, market_now, again=again)
        bars_built, references_built = bars_built + built.bars, references_built + built.references
        with _phase(result, "score"):
            first = datetime.fromtimestamp(int(market_now[0]), tz=UTC)
            last = datetime.fromtimestamp(int(market_now[-1]), tz=UTC)
            known = scores.pressures_between(conn, world.name, first - PRESSURE_MAX_AGE - timedelta(seconds=1), last)
            points = score_market(conn, scope, market_now, settings, source, known, model)
        with _phase(result, "write"):
            scores.write_risks_and_signals(conn, world.name, points, version)
        with _phase(result, "alerts"):
            changes = len(book.advance(conn, world, points, settings, version).changes)
            outbox.enqueue_signals(conn, world, points, score_version=version)

    with _phase(result, "write"):
        streams: tuple[tuple[scores.Stream, list[datetime]], ...] = (
            ("flows", [p.time for p in pressures]),
            ("market", [p.time for p in points]),
        )
        for stream, done in streams:
            if done:
                scores.write_ticks(
                    conn,
                    world.name,
                    stream,
                    done,
                    cut,
                    started_at=started_at,
                    rows_landed=result.landing.rows_landed,
                    late_rows=result.late_rows,
                    dagster_run_id=context.dagster_run_id,
                )
    return _Done(
        points=points,
        pressures=pressures,
        score_version=version,
        due=int(market.points.size),
        missed=market.missed,
        more=bool(limits),
        bars_built=bars_built,
        references_built=references_built,
        alert_changes=changes,
    )


def _land(context: TickContext, time_limit_seconds: float) -> LandResult:
    servers, prefix = context.bootstrap_servers, context.topic_prefix
    with Lander(context.database_url, servers, prefix, consumer=LANDING_CONSUMER) as lander:
        return lander.land_to_end(time_limit_seconds)


def _lock(conn: psycopg.Connection[Any], world: str) -> bool:
    """Hold the world's tick until the connection ends; False if somebody else does."""
    row = conn.execute("SELECT pg_try_advisory_lock(hashtext('liq_pipeline tick'), hashtext(%s))", [world]).fetchone()
    conn.commit()
    return bool(row and row[0])


def _outbox_due(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT count(*) FROM outbox WHERE state = 'due'").fetchone()
    return int(row[0]) if row else 0


def _seconds(time_or_none: datetime | None) -> int | None:
    return None if time_or_none is None else seconds_of(time_or_none)


@contextmanager
def _phase(result: TickResult, name: str) -> Iterator[None]:
    """Add the time spent inside to the result's durations."""
    started = time.monotonic()
    try:
        yield
    finally:
        result.durations[name] = result.durations.get(name, 0.0) + time.monotonic() - started
