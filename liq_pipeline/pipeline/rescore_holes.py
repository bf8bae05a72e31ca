"""Scoring again what a healed hole had touched: new revisions, the old ones stay.

Belongs here: which points a hole touches, and from what they are scored now. Does not: formulas, the live tick, a
re-score of unchanged history (rescore.py).

A hole touches two kinds of points:
* those inside it. The live rows they lacked will never come; the venue's history has come instead. It is known at the
  end of its bar plus the declared delay, so they are scored as history: rows of every origin with known_at <= T,
  archive rows standing in as current values, and the inputs say so. Points that no tick has scored are scored on the
  LIQ_SCORE_STEP grid.
* those after it, whose look-back reached into it. Their current values are those of their tick, below its cut; only the
  look-back is the healed one.
The look-back is what ticks have kept, with its unknown cells filled from archive rows: what it knew never changes.
A point whose score comes out as before gets no new revision. Alerts and the out-topics are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import IsolationLevel

from liq_pipeline.domain.worlds import World
from liq_pipeline.pipeline.points import KeptLookback, Lookback, score_market
from liq_pipeline.scoring import features
from liq_pipeline.scoring.assemble import PRESSURE_MAX_AGE
from liq_pipeline.scoring.bars import STEP_SECONDS, BarArrays, Integers
from liq_pipeline.scoring.early_warning import WarningReference
from liq_pipeline.scoring.model import ProbabilityModel
from liq_pipeline.scoring.references import DAY_SECONDS, References, build_references
from liq_pipeline.scoring.results import PointResult
from liq_pipeline.scoring.version import score_version
from liq_pipeline.settings import Settings
from liq_pipeline.store import scores
from liq_pipeline.store.connection import connect
from liq_pipeline.store.inputs.as_known import Cut
from liq_pipeline.store.inputs.expected_sources import Scope, scope_of
from liq_pipeline.store.lookback import market_lookback
from liq_pipeline.store.lookback.archive_bars import fill_from_archive
from liq_pipeline.store.lookback.flow_lookback import FlowReferences
from liq_pipeline.store.lookback.market_lookback import seconds_of

HISTORY_POINTS: Final = 360
_NEWEST: Final = seconds_of(datetime(9999, 1, 1, tzinfo=UTC))
"""Every version of bars and references that has been built by now."""
SCORED_AS_HISTORY: Final = "history: rows that the venue served later stand in as current values"


@dataclass(frozen=True)
class Span:
    """A healed hole of one symbol; symbol None: of all."""

    symbol: str | None
    from_time: datetime
    to_time: datetime


@dataclass(frozen=True)
class Rescored:
    """looked_at: scores computed again; written: those that came out differently, or for the first time."""

    looked_at: int = 0
    written: int = 0

    def __str__(self) -> str:
        return f"{self.written} of {self.looked_at} scores got a new revision"


@dataclass(frozen=True)
class _Batch:
    """Points that read the same rows. cut None: inside the hole, scored as history."""

    points: Integers
    cut: Cut | None


def rescore_holes(
    database_url: str,
    settings: Settings,
    world: World,
    spans: Sequence[Span],
    now: datetime,
    *,
    load_model: Callable[[psycopg.Connection[Any]], ProbabilityModel | None] = lambda conn: None,
) -> Rescored:
    """Score the points in and after the spans again. Each batch commits on its own; doing it twice writes nothing."""
    total = Rescored()
    with connect(database_url, application_name="liq heal") as conn:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        with conn.transaction():
            model = load_model(conn)
        for first, last, symbols in _merged(spans, world.manifest.symbols):
            reach = min(now, last + timedelta(hours=features.LOOKBACK_HOURS))
            with conn.transaction():
                batches = list(_batches(conn, world, settings, first, last, reach))
                if not batches:
                    continue
                scope = scope_of(world, settings.risk)
                span = np.concatenate([batch.points for batch in batches])
                healed = _HealedLookback(conn, scope, settings, int(span.min()), int(span.max()), model)
            for batch in batches:
                with conn.transaction():
                    total = _score(conn, world, settings, batch, healed, symbols, model, total)
    return total


def _merged(spans: Sequence[Span], all_symbols: tuple[str, ...]) -> Iterator[tuple[datetime, datetime, frozenset[str]]]:
    """Spans that touch, together: (first, last, symbols concerned)."""
    ordered = sorted(spans, key=lambda span: span.from_time)
    first: datetime | None = None
    last: datetime | None = None
    symbols: set[str] = set()
    for span in ordered:
        if first is None or last is None or span.from_time > last:
            if first is not None and last is not None:
                yield first, last, frozenset(symbols)
            first, last, symbols = span.from_time, span.to_time, set()
        last = max(last, span.to_time)
        symbols |= set(all_symbols if span.symbol is None else (span.symbol,))
    if first is not None and last is not None:
        yield first, last, frozenset(symbols)


def _batches(
    conn: psycopg.Connection[Any], world: World, settings: Settings, first: datetime, last: datetime, reach: datetime
) -> Iterator[_Batch]:
    ticks = scores.ticks_between(conn, world.name, "market", first, reach)
    inside = {seconds_of(tick.time) for tick in ticks if first < tick.time <= last}
    step = settings.score_step
    grid = range(-(-(seconds_of(first) + 1) // step) * step, seconds_of(last) + 1, step)
    points = np.array(sorted(inside | set(grid)), dtype=np.int64)
    for begin in range(0, points.size, HISTORY_POINTS):
        yield _Batch(points[begin : begin + HISTORY_POINTS], None)
    after = [tick for tick in ticks if tick.time > last]
    for cut, group in groupby(after, key=lambda tick: tick.cut):
        yield _Batch(np.array([seconds_of(tick.time) for tick in group], dtype=np.int64), cut)


def _score(
    conn: psycopg.Connection[Any],
    world: World,
    settings: Settings,
    batch: _Batch,
    healed: Lookback,
    symbols: frozenset[str],
    model: ProbabilityModel | None,
    total: Rescored,
) -> Rescored:
    is_inside = batch.cut is None
    scope = scope_of(world, settings.risk, history=is_inside)
    first, last = (datetime.fromtimestamp(int(batch.points[end]), tz=UTC) for end in (0, -1))
    pressures = scores.pressures_between(conn, world.name, first - PRESSURE_MAX_AGE - timedelta(seconds=1), last)
    points = score_market(conn, scope, batch.points, settings, healed, pressures, model, batch.cut)
    version = score_version(settings, None if model is None else model.model_id)
    before = scores.newest_risks(conn, world.name, first, last)
    changed = [_only_changed(point, symbols, before, is_inside=is_inside) for point in points]
    changed = [point for point in changed if point.risks]
    written = 0
    if changed:
        revisions = scores.next_risk_revisions(conn, world.name, first, last)
        written = scores.write_risks_and_signals(conn, world.name, changed, version, revisions)
    return Rescored(total.looked_at + len(points) * len(symbols), total.written + written)


def _only_changed(
    point: PointResult,
    symbols: frozenset[str],
    before: dict[tuple[str, datetime], tuple[Any, ...]],
    *,
    is_inside: bool,
) -> PointResult:
    risks = {
        symbol: replace(risk, inputs={**risk.inputs, "scored_as": SCORED_AS_HISTORY}) if is_inside else risk
        for symbol, risk in point.risks.items()
        if symbol in symbols and before.get((symbol, point.time)) != scores.figures_of(risk)
    }
    return replace(point, risks=risks, signals={symbol: point.signals[symbol] for symbol in risks})


class _HealedLookback:
    """The kept look-back of a span, loaded once, with its unknown cells filled from archive rows."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        scope: Scope,
        settings: Settings,
        first: int,
        last: int,
        model: ProbabilityModel | None,
    ) -> None:
        risk = settings.risk
        days = np.arange(first // DAY_SECONDS, last // DAY_SECONDS + 1)
        are_kept = len(market_lookback.days_with_references(conn, scope.world, days)) == days.size
        hours = max(features.LOOKBACK_HOURS, model.lookback_hours if model is not None else 0)
        if not are_kept:  # nothing ran on one of the days: its references are built now, and not kept
            hours = max(hours, 24 + risk.lookback_hours + features.LOOKBACK_HOURS)
        begin, end = first // STEP_SECONDS * STEP_SECONDS - hours * 3600, last // STEP_SECONDS * STEP_SECONDS
        self._kept = KeptLookback(conn, scope, settings)
        self._bars, _ = fill_from_archive(conn, scope, market_lookback.market_bars(conn, scope, begin, end, _NEWEST))
        if are_kept:
            self._references = market_lookback.market_references(conn, scope, days, _NEWEST, risk)
        else:
            self._references = build_references(
                self._bars,
                features.on_bars(self._bars),
                days,
                lookback_hours=risk.lookback_hours,
                min_lookback_hours=risk.min_lookback_hours,
            )

    def market(self, times_seconds: Integers, hours: int) -> tuple[BarArrays, References]:
        """The whole span's bars and references."""
        return self._bars, self._references

    def flows(self, days: Integers, last_seconds: int) -> FlowReferences:
        """What ticks have kept: holes of flows are read again from the chain and never loaded from a history."""
        return self._kept.flows(days, last_seconds)

    def warnings(self, model: ProbabilityModel, times_seconds: Integers) -> WarningReference:
        """What ticks have kept: a hole of hours moves no rank within 30 days by much, and alerts are not touched."""
        return self._kept.warnings(model, times_seconds)
