"""Re-scoring stored history: new revisions, nothing overwritten.

Belongs here: which points are scored again and from what. Does not: formulas, queries, the live tick.

Points that a tick has scored are scored again from what that tick could read: rows below its cut with known_at <= T,
and the bars and references kept by then. With unchanged settings and code the new revision equals the old one bit for
bit. Hours in which no tick ran (history from archives) are scored on the LIQ_SCORE_STEP grid from all rows with
known_at <= T, with bars built for the occasion and not kept. Alerts and the out-topics are not touched: a revision is
for comparison.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import IsolationLevel

from liq_pipeline.domain.worlds import World
from liq_pipeline.errors import LiqError
from liq_pipeline.pipeline.points import KeptLookback, Lookback, score_flows, score_market
from liq_pipeline.pipeline.politeness import Politeness
from liq_pipeline.scoring.assemble import PRESSURE_MAX_AGE
from liq_pipeline.scoring.bars import BarArrays, Integers, bars_between
from liq_pipeline.scoring.early_warning import WarningReference, reference_days
from liq_pipeline.scoring.model import ProbabilityModel
from liq_pipeline.scoring.references import DAY_SECONDS, References
from liq_pipeline.scoring.results import PointResult, PressureResult
from liq_pipeline.scoring.version import score_version
from liq_pipeline.settings import Settings
from liq_pipeline.store import scores, worlds
from liq_pipeline.store.connection import connect
from liq_pipeline.store.inputs.as_known import Cut
from liq_pipeline.store.inputs.expected_sources import Scope, history_scope, scope_of
from liq_pipeline.store.lookback import flow_lookback, market_lookback
from liq_pipeline.store.lookback.flow_lookback import FlowReferences
from liq_pipeline.store.lookback.market_lookback import seconds_of

HOUR: Final = timedelta(hours=1)
HISTORY_SPAN: Final = timedelta(days=10)
"""Bars of so much history are built at once: the 31 days before it are read once per span."""
HISTORY_POINTS: Final = 1440
HISTORY_ROWS: Final = 7_200
"""Points, and rows of all symbols, per transaction of history: about a second's work, so that it can give way."""


@dataclass(frozen=True)
class RescoreResult:
    """What was written. changed: risks that differ from the revision before, of those that had one."""

    world: str
    score_version: str
    risks: int
    pressures: int
    changed: int

    def __str__(self) -> str:
        return (
            f"{self.risks} risks and {self.pressures} pressures of {self.world} scored under version "
            f"{self.score_version}; {self.changed} differ from the score before"
        )


@dataclass(frozen=True)
class _Batch:
    """Points that read the same snapshot: those of one tick transaction, or a stretch of history."""

    flows: Integers
    market: Integers
    cut: Cut | None
    """None: history, every row with known_at <= T."""


def rescore(
    database_url: str,
    settings: Settings,
    from_time: datetime,
    to_time: datetime,
    *,
    symbol: str | None = None,
    world_name: str | None = None,
    load_model: Callable[[psycopg.Connection[Any]], ProbabilityModel | None] = lambda conn: None,
    stop: threading.Event | None = None,
    politeness: Politeness | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RescoreResult:
    """Score every point in [from_time, to_time] again; symbol: only that one (and no pressure is written).

    world_name: None for the active one. Each batch commits on its own; `stop` ends it after the one under way.
    politeness: lets running ticks go first. progress is called with (batches done, batches in all). Raises LiqError if
    there is nothing to score.
    """
    if to_time < from_time:
        raise LiqError(f"--to {to_time.isoformat()} lies before --from {from_time.isoformat()}")
    with connect(database_url, application_name="liq score") as conn:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        with conn.transaction():
            world = worlds.active(conn) if world_name is None else worlds.get(conn, world_name)
            if world is None:
                raise LiqError(
                    f"there is no world {world_name}" if world_name else "no world is active: run liq up first"
                )
            if symbol is not None and symbol not in world.manifest.symbols:
                raise LiqError(f"{world.name} has no {symbol}: it has {', '.join(world.manifest.symbols)}")
            model = load_model(conn)
            batches = [*_ticked(conn, world, from_time, to_time), *_unticked(conn, world, settings, from_time, to_time)]
        version = score_version(settings, None if model is None else model.model_id)
        total = RescoreResult(world.name, version, 0, 0, 0)
        run = _Run(conn, world, settings, symbol, from_time, to_time, model, version)
        for number, batch in enumerate(batches, start=1):
            if stop is not None and stop.is_set():
                break
            if politeness is not None:
                politeness.hold_back()
            started = time.monotonic()
            with conn.transaction():
                done = run.score(batch)
            if politeness is not None:
                politeness.rest(time.monotonic() - started)
            total = replace(
                total,
                risks=total.risks + done.risks,
                pressures=total.pressures + done.pressures,
                changed=total.changed + done.changed,
            )
            progress(number, len(batches))
    if not total.risks and not total.pressures:
        span = f"from {from_time.isoformat()} to {to_time.isoformat()}"
        raise LiqError(f"nothing to score in {world.name} {span}: no tick ran and no price was known then")
    return total


def score_in_memory(
    conn: psycopg.Connection[Any],
    world: World,
    settings: Settings,
    from_time: datetime,
    to_time: datetime,
    model: ProbabilityModel | None,
    *,
    is_kept_lookback: bool = True,
) -> Iterator[list[PointResult]]:
    """Every point in [from_time, to_time] scored as `rescore` would, batch by batch; nothing is written.

    is_kept_lookback False: the settings ask for another look-back than the one that ticks have kept, so it is built
    anew from the raw rows. Give it one REPEATABLE READ transaction. Yields nothing if nothing can be scored.
    """
    batches = [*_ticked(conn, world, from_time, to_time), *_unticked(conn, world, settings, from_time, to_time)]
    version = score_version(settings, None if model is None else model.model_id)
    run = _Run(conn, world, settings, None, from_time, to_time, model, version, is_kept_lookback=is_kept_lookback)
    for batch in batches:
        points, _ = run.compute(batch)
        if points:
            yield points


def _ticked(conn: psycopg.Connection[Any], world: World, first: datetime, last: datetime) -> Iterator[_Batch]:
    """Batches of committed points, one per tick transaction (all its points have one cut)."""
    flows = scores.ticks_between(conn, world.name, "flows", first - PRESSURE_MAX_AGE, last)
    market = scores.ticks_between(conn, world.name, "market", first, last)
    ticks = [(tick.time, "flows", tick.cut) for tick in flows] + [(tick.time, "market", tick.cut) for tick in market]
    ticks.sort(key=lambda tick: (tick[0], tick[1]))
    for cut, group in groupby(ticks, key=lambda tick: tick[2]):
        members = list(group)
        yield _Batch(
            flows=_seconds([time for time, stream, _ in members if stream == "flows"]),
            market=_seconds([time for time, stream, _ in members if stream == "market"]),
            cut=cut,
        )


def _unticked(
    conn: psycopg.Connection[Any], world: World, settings: Settings, first: datetime, last: datetime
) -> Iterator[_Batch]:
    """Batches over the hours without a tick in which something was known."""
    ticked = {
        row[0]
        for row in conn.execute(
            "SELECT DISTINCT date_trunc('hour', time) FROM ticks WHERE world = %s AND time >= %s AND time <= %s",
            [world.name, first - HOUR, last],
        )
    }
    known = {
        row[0]
        for row in conn.execute(
            "SELECT DISTINCT date_trunc('hour', event_time) FROM prices"
            " WHERE world = %(world)s AND symbol = ANY(%(symbols)s) AND venue = ANY(%(venues)s)"
            " AND event_time >= %(first)s AND event_time <= %(last)s",
            {
                "world": world.name,
                "symbols": list(world.manifest.symbols),
                "venues": list(scope_of(world, settings.risk, history=True).venues),
                "first": first - HOUR,
                "last": last,
            },
        )
    }
    step = settings.score_step
    start = -(-seconds_of(first) // step) * step
    grid = np.arange(start, seconds_of(last) + 1, step, dtype=np.int64)
    hours = np.array([seconds_of(hour) for hour in known - ticked], dtype=np.int64)
    points = grid[np.isin(grid // 3600 * 3600, hours)]
    # A batch is read and looked back upon as one stretch: it must not reach over months without data.
    for stretch in np.split(points, np.flatnonzero(np.diff(points) > DAY_SECONDS) + 1):
        size = max(1, min(HISTORY_POINTS, HISTORY_ROWS // len(world.manifest.symbols)))
        for begin in range(0, stretch.size, size):
            batch = stretch[begin : begin + size]
            yield _Batch(flows=batch, market=batch, cut=None)


class _Run:
    """One re-score under way."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        world: World,
        settings: Settings,
        symbol: str | None,
        from_time: datetime,
        to_time: datetime,
        model: ProbabilityModel | None,
        version: str,
        *,
        is_kept_lookback: bool = True,
    ) -> None:
        self._conn = conn
        self._world = world
        self._settings = settings
        self._symbol = symbol
        self._from_time = from_time
        self._to_time = to_time
        self._model = model
        # Settings may ask for a shorter look-back than the model reads.
        self._model_hours = 0 if model is None else model.lookback_hours
        self._version = version
        self._is_kept_lookback = is_kept_lookback
        self._pressures: list[PressureResult] = []
        self._history: _HistoryLookback | None = None
        self._history_scope: Scope | None = None

    def score(self, batch: _Batch) -> RescoreResult:
        """Score and write one batch in the caller's transaction."""
        points, pressures = self.compute(batch)
        return self._write(points, [p for p in pressures if p.time >= self._from_time])

    def compute(self, batch: _Batch) -> tuple[list[PointResult], list[PressureResult]]:
        """Score one batch; batches come in order of time."""
        scope = scope_of(self._world, self._settings.risk)
        if batch.cut is None:
            if self._history_scope is None:
                self._history_scope = history_scope(self._conn, self._world, self._settings.risk)
            scope = self._history_scope
        pressures: list[PressureResult] = []
        if batch.flows.size:
            source = self._source(scope, batch)
            pressures = score_flows(self._conn, scope, batch.flows, self._settings, source, batch.cut)
            oldest = pressures[0].time - PRESSURE_MAX_AGE
            before = [p for p in self._pressures if oldest <= p.time < pressures[0].time]
            self._pressures = before + pressures
        points: list[PointResult] = []
        if batch.market.size:
            if self._symbol is not None and self._model is None:
                scope = replace(scope, symbols=(self._symbol,))
            points = score_market(
                self._conn, scope, batch.market, self._settings, self._source(scope, batch), self._pressures,
                self._model, batch.cut,
            )  # fmt: skip
            if self._symbol is not None:
                points = [_only(point, self._symbol) for point in points]
        return points, pressures

    def _source(self, scope: Scope, batch: _Batch) -> Lookback:
        if batch.cut is not None and self._is_kept_lookback:
            return KeptLookback(self._conn, scope, self._settings)
        wanted = batch.market if batch.market.size else batch.flows
        if self._history is None or not self._history.serves(scope, wanted):
            self._history = _HistoryLookback(
                self._conn, scope, self._settings, wanted, seconds_of(self._to_time), self._history, self._model_hours
            )
        return self._history

    def _write(self, points: Sequence[PointResult], pressures: Sequence[PressureResult]) -> RescoreResult:
        conn, world = self._conn, self._world.name
        risks = written = changed = 0
        if points:
            first, last = points[0].time, points[-1].time
            revisions = scores.next_risk_revisions(conn, world, first, last)
            before = scores.newest_scores(conn, world, first, last)
            risks = scores.write_risks_and_signals(conn, world, points, self._version, revisions)
            changed = sum(
                (symbol, point.time) in before and before[symbol, point.time] != risk.score
                for point in points
                for symbol, risk in point.risks.items()
            )
        if pressures and self._symbol is None:
            revised = scores.next_pressure_revisions(conn, world, pressures[0].time, pressures[-1].time)
            written = scores.write_pressures(conn, world, pressures, self._version, revised)
        return RescoreResult(world, self._version, risks, written, changed)


class _HistoryLookback:
    """Bars of a span of history, built once from raw rows and not kept in the store.

    before: the span in front of this one, whose bars are taken over where the look-back reaches into it: each bar of a
    year is built once.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        scope: Scope,
        settings: Settings,
        points: Integers,
        last_seconds: int,
        before: _HistoryLookback | None = None,
        least_hours: int = 0,
    ) -> None:
        self._conn = conn
        self._scope = scope
        self._settings = settings
        self._first = int(points[0])
        self._last = min(last_seconds, self._first + int(HISTORY_SPAN.total_seconds()))
        self._last = max(self._last, int(points[-1]))
        span = np.arange(self._first, self._last + 1, settings.score_step, dtype=np.int64)
        same = before is not None and (before._scope.symbols, before._scope.venues) == (scope.symbols, scope.venues)
        earlier = before._bars if before is not None and same else None
        self._bars: BarArrays
        self._bars, self._references = market_lookback.bars_in_memory(
            conn, scope, span, settings.risk, before=earlier, least_hours=least_hours
        )
        self._flows: dict[int, FlowReferences] = {}
        self._warnings: WarningReference | None = None

    def serves(self, scope: Scope, points: Integers) -> bool:
        """Whether the points lie in the span, for the same symbols."""
        return scope.symbols == self._scope.symbols and self._first <= points[0] and points[-1] <= self._last

    def market(self, times_seconds: Integers, hours: int) -> tuple[BarArrays, References]:
        """The bars that the points look back upon, and the span's references."""
        first, last = self._bars.index_at(times_seconds[[0, -1]])
        start = max(0, int(first) - self._bars.rows_of(hours))
        return bars_between(self._bars, start, int(last) + 1), self._references

    def flows(self, days: Integers, last_seconds: int) -> FlowReferences:
        """Each day's references, built on first use."""
        for day in days.tolist():
            if day not in self._flows:
                self._flows[day] = flow_lookback.flow_history_in_memory(
                    self._conn, self._scope, day, self._settings.risk, self._settings.pressure.window_minutes
                )
        return {key: found for day in days.tolist() for key, found in self._flows[day].items()}

    def warnings(self, model: ProbabilityModel, times_seconds: Integers) -> WarningReference:
        """Of the whole span's days, built on first use: a rescore asks one model."""
        if self._warnings is None:
            span = np.arange(self._first, self._last + 1, self._settings.score_step, dtype=np.int64)
            self._warnings = model.warning_reference(self._bars, reference_days(span))
        return self._warnings


def _only(point: PointResult, symbol: str) -> PointResult:
    def pick(results: Mapping[str, Any]) -> dict[str, Any]:
        return {symbol: results[symbol]}

    return replace(point, risks=pick(point.risks), signals=pick(point.signals))


def _seconds(times: Sequence[datetime]) -> Integers:
    return np.array([seconds_of(time.astimezone(UTC)) for time in times], dtype=np.int64)
