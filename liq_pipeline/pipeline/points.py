"""Scoring a batch of points from the store: inputs in, results out.

Belongs here: what the live tick and a re-score have in common. Does not: which points are due (tick.py, rescore.py),
formulas (scoring/), queries (store/).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import psycopg

from liq_pipeline.domain.chains import chain_of
from liq_pipeline.scoring import features
from liq_pipeline.scoring.assemble import PressureInputs, Scored, chain_pressure_results, point_results
from liq_pipeline.scoring.bars import MICROSECONDS, STEP_SECONDS, BarArrays, Integers, Points
from liq_pipeline.scoring.early_warning import WarningReference, reference_days
from liq_pipeline.scoring.model import ALL_COLUMNS_HOURS, ProbabilityModel
from liq_pipeline.scoring.pressure import ChainFlows, pressure_over_chains, scale_of
from liq_pipeline.scoring.references import DAY_SECONDS, References, needed_observations
from liq_pipeline.scoring.results import PointResult, PressureResult
from liq_pipeline.scoring.risk import risk_arrays
from liq_pipeline.scoring.under_way.decide import under_way_results
from liq_pipeline.scoring.under_way.excursions import LOOKBACK_HOURS
from liq_pipeline.scoring.under_way.rules import shipped_under_way_model
from liq_pipeline.settings import Settings
from liq_pipeline.store.inputs.as_known import Cut, FlowSums, current_values, flow_sources_fresh, flow_totals
from liq_pipeline.store.inputs.expected_coins import not_listed_at
from liq_pipeline.store.inputs.expected_sources import Scope, with_flow_spans
from liq_pipeline.store.lookback import flow_lookback, market_lookback, warning_references
from liq_pipeline.store.lookback.bar_cache import BarCache, Window
from liq_pipeline.store.lookback.flow_lookback import FlowReferences

Connection = psycopg.Connection[Any]


class Lookback(Protocol):
    """Where bars and references come from."""

    def market(self, times_seconds: Integers, hours: int) -> tuple[BarArrays, References]:
        """Bars that reach at least `hours` back from the first point, and the references of the points' days.

        Beyond ALL_COLUMNS_HOURS they may hold price and open interest only.
        """
        ...

    def flows(self, days: Integers, last_seconds: int) -> FlowReferences:
        """(observations, order statistics of |net| in cents) of each chain and day; what is absent is unknown."""
        ...

    def warnings(self, model: ProbabilityModel, times_seconds: Integers) -> WarningReference:
        """What the model's early warning compares with on the points' days."""
        ...


@dataclass(frozen=True)
class KeptLookback:
    """What ticks have built and kept, as the newest point scored may see it."""

    conn: Connection
    scope: Scope
    settings: Settings
    cache: BarCache | None = None

    def market(self, times_seconds: Integers, hours: int) -> tuple[BarArrays, References]:
        """Bars and references from feature_bars and feature_references."""
        first = int(times_seconds[0]) // STEP_SECONDS * STEP_SECONDS - hours * 3600
        last = int(times_seconds[-1]) // STEP_SECONDS * STEP_SECONDS
        built_by = int(times_seconds[-1])
        whole = first + (hours - ALL_COLUMNS_HOURS) * 3600
        if self.cache is not None:
            bars = self.cache.read(self.conn, self.scope, Window(first, last, whole, built_by))
        else:
            bars = market_lookback.market_bars(self.conn, self.scope, first, last, built_by, all_from_seconds=whole)
        days = np.unique(times_seconds // DAY_SECONDS)
        return bars, market_lookback.market_references(self.conn, self.scope, days, built_by, self.settings.risk)

    def flows(self, days: Integers, last_seconds: int) -> FlowReferences:
        """From feature_references."""
        return flow_lookback.flow_references(self.conn, self.scope, days, last_seconds)

    def warnings(self, model: ProbabilityModel, times_seconds: Integers) -> WarningReference:
        """From feature_references."""
        days = reference_days(times_seconds)
        return warning_references.warning_reference(self.conn, self.scope, model, days, int(times_seconds[-1]))


def score_flows(
    conn: Connection,
    scope: Scope,
    times_seconds: Integers,
    settings: Settings,
    source: Lookback,
    cut: Cut | None = None,
) -> list[PressureResult]:
    """The stablecoin pressure at each point (ascending)."""
    times_us = times_seconds * MICROSECONDS
    scope = with_flow_spans(conn, scope)
    window = settings.pressure.window_minutes
    fresh, ages = flow_sources_fresh(conn, scope, times_us, cut=cut)
    sums = FlowSums(times_us.size, {})
    if fresh.any():
        sums = flow_totals(conn, scope, times_us, window, cut=cut)
    needed = needed_observations(settings.risk.min_lookback_hours, STEP_SECONDS)
    days, day_of_point = np.unique(times_seconds // DAY_SECONDS, return_inverse=True)
    known = source.flows(days, int(times_seconds[-1])) if scope.flow_venues else {}
    chains = scope.flow_chains
    expected = scope.flows_expected(times_us)
    if scope.is_history:
        expected = expected | fresh  # what history tells of a chain counts, whenever it came to be followed
    is_expected, share = (np.zeros((len(chains), times_us.size), dtype=kind) for kind in (bool, float))
    observations = np.zeros((len(chains), times_us.size), dtype=np.int64)
    scales = np.full((len(chains), times_us.size), np.nan)
    for c, chain in enumerate(chains):
        venues = np.array([chain_of(venue) == chain for venue in scope.flow_venues])
        wanted = expected[venues]
        is_expected[c] = wanted.any(axis=0)
        share[c] = (fresh[venues] & wanted).sum(axis=0) / np.maximum(wanted.sum(axis=0), 1)
        of_days = [known.get((chain, int(day)), (0, np.empty(0))) for day in days]
        observations[c] = np.array([count for count, _ in of_days], dtype=np.int64)[day_of_point]
        by_day = [scale_of(quantiles) if count >= needed else np.nan for count, quantiles in of_days]
        scales[c] = np.array(by_day)[day_of_point]
    flows = ChainFlows(
        names=chains,
        inflow_cents=_by_chain(sums, "inflow", chains),
        outflow_cents=_by_chain(sums, "outflow", chains),
        expected=is_expected,
        share=share,
        scale_cents=scales,
    )
    stated = settings.pressure.scale_usd
    arrays = pressure_over_chains(flows, settings.pressure.sign, None if stated is None else stated * 100.0)
    inputs = PressureInputs(
        venues=scope.flow_venues,
        expected=expected,
        age_seconds=ages,
        flows=flows,
        by_token={kind: (millionths + 5_000) // 10_000 for kind, millionths in sums.by_kind.items()},
        observations=observations,
        needed=needed,
    )
    return chain_pressure_results(arrays, inputs, times_seconds, window, settings.risk.min_lookback_hours)


def _by_chain(sums: FlowSums, direction: str, chains: Sequence[str]) -> Integers:
    """Cents of each chain: (chains, points)."""
    rows = [sums.cents(direction, chain) for chain in chains]
    return np.stack(rows) if rows else np.zeros((0, sums.points), dtype=np.int64)


def score_market(
    conn: Connection,
    scope: Scope,
    times_seconds: Integers,
    settings: Settings,
    source: Lookback,
    pressures: Sequence[PressureResult],
    model: ProbabilityModel | None,
    cut: Cut | None = None,
) -> list[PointResult]:
    """Risks and signals of every symbol at each point (ascending). pressures: ascending, reaching 60 s further back."""
    hours = max(features.LOOKBACK_HOURS, LOOKBACK_HOURS, model.lookback_hours if model is not None else 0)
    bars, references = source.market(times_seconds, hours)
    current = current_values(conn, scope, times_seconds * MICROSECONDS, cut)
    points = Points(times_seconds, bars.index_at(times_seconds), current.now)
    absent = not_listed_at(conn, scope, times_seconds * MICROSECONDS)
    expected = {topic: venues[np.newaxis, :, np.newaxis] & ~absent for topic, venues in scope.expected.items()}
    risk = risk_arrays(bars, points, references, expected, settings.risk.min_coverage)
    said = None if model is None else model.predict(bars, points, risk, source.warnings(model, times_seconds))
    scored = Scored(
        symbols=scope.symbols,
        venues=scope.venues,
        points=points,
        references=references,
        expected=expected,
        age_seconds=current.age_seconds,
        risk=risk,
        probabilities=said,
        model_id=None if model is None else model.model_id,
        under_way=under_way_results(bars, points, shipped_under_way_model()),
        not_listed=absent,
    )
    return point_results(scored, pressures, settings.risk, settings.severity)
