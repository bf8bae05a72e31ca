"""From arrays to the results that are stored, each with the inputs and the words that explain it.

Belongs here: RiskResult, PressureResult and SignalResult out of RiskArrays and PressureArrays; notes. Does not: numbers
(risk.py, pressure.py), storing them (store/scores.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import isnan
from typing import Any, Final, Literal

import numpy as np

from liq_pipeline.domain.chains import chain_of
from liq_pipeline.scoring import features as f
from liq_pipeline.scoring.bars import Booleans, Floats, Integers, Points
from liq_pipeline.scoring.model import PROBABILITY_OUTSIDE, PROBABILITY_REDUCED, Probabilities
from liq_pipeline.scoring.pressure import ChainFlows, PressureArrays
from liq_pipeline.scoring.references import References
from liq_pipeline.scoring.results import PointResult, PressureResult, RiskResult, SignalResult, UnderWay
from liq_pipeline.scoring.risk import COMPONENTS, LONG, SHORT, TOPIC, RiskArrays, everywhere, venue_mean
from liq_pipeline.scoring.severity import FLOW_SIDE_BLIND, severity_of
from liq_pipeline.settings import RiskSettings, SeveritySettings

PRESSURE_MAX_AGE: Final = timedelta(seconds=60)
"""A signal uses the newest pressure at or before its time that is at most this old."""
HOURS_PER_DAY: Final = 24

WORDS: Final = {
    "funding": "funding",
    "open_interest": "open interest",
    "long_short": "long/short",
    "liquidation": "liquidations",
}
_FEATURES: Final = {
    "funding": (f.FUNDING,),
    "open_interest": (f.OPEN_INTEREST, *f.OPEN_INTEREST_CHANGE.values()),
    "long_short": (f.LONG_SHARE,),
    "liquidation": (f.LONG_LIQUIDATED, f.SHORT_LIQUIDATED),
}
_AGE_OF: Final = {
    "funding": "funding_rate_per_8h",
    "open_interest": "open_interest_base",
    "long_short": "long_share",
    "liquidation": "liquidated_cents_1h",
}

_MOVED: Final = {"inflow": "inflow_usd", "outflow": "outflow_usd", "mint": "minted_usd", "burn": "burned_usd"}

VenueState = Literal["counted", "silent", "warming", "no look-back"]


@dataclass(frozen=True)
class Scored:
    """All that is known of one batch of market points."""

    symbols: tuple[str, ...]
    venues: tuple[str, ...]
    points: Points
    references: References
    expected: Mapping[str, Booleans]
    age_seconds: Mapping[str, Floats]
    """field -> (symbols, venues, points), NaN = not fresh"""
    risk: RiskArrays
    probabilities: Probabilities | None = None
    model_id: str | None = None
    under_way: Sequence[Sequence[UnderWay]] | None = None
    """[symbol][point]"""
    not_listed: Booleans | None = None
    """(symbols, venues, points): venues that do not list the symbol, so that nothing is expected of them."""


def point_results(
    scored: Scored, pressures: Sequence[PressureResult], risk: RiskSettings, severity: SeveritySettings
) -> list[PointResult]:
    """One PointResult per point, in order. pressures: ascending by time, reaching back PRESSURE_MAX_AGE."""
    times = [datetime.fromtimestamp(int(second), tz=UTC) for second in scored.points.time_seconds]
    newest = pressure_at(times, pressures)
    plain = _plain(scored)
    results = []
    for p, time in enumerate(times):
        risks, signals = {}, {}
        for s, symbol in enumerate(scored.symbols):
            risks[symbol], notes = _risk_result(scored, plain, s, p, time, risk)
            signals[symbol] = _signal_result(scored, plain, risks[symbol], newest[p], notes, severity, s, p)
        results.append(PointResult(time=time, risks=risks, signals=signals, pressure=newest[p]))
    return results


@dataclass(frozen=True)
class PressureInputs:
    """What pressures stand on. expected, age_seconds: (venues, points); observations: (chains, points), of the scales'
    look-back; by_token: (chain, token, direction) -> cents (points,), mints and burns among them."""

    venues: tuple[str, ...]
    expected: Booleans
    age_seconds: Floats
    flows: ChainFlows
    by_token: Mapping[tuple[str, str, str], Integers]
    observations: Integers
    needed: int


def pressure_results(
    arrays: PressureArrays,
    times_seconds: Integers,
    venues: tuple[str, ...],
    age_seconds: Floats,
    observations: Integers,
    needed: int,
    window_minutes: int,
    min_lookback_hours: int,
) -> list[PressureResult]:
    """One PressureResult per point of one chain, which all the venues read; arrays by pressure_arrays().

    age_seconds: (venues, points); observations: (points,) of the scale's look-back.
    """
    everywhere_expected = np.ones((len(venues), times_seconds.size), dtype=bool)
    flows = ChainFlows(
        names=(chain_of(venues[0]),) if venues else (),
        inflow_cents=arrays.inflow_cents[np.newaxis],
        outflow_cents=arrays.outflow_cents[np.newaxis],
        expected=np.ones((1, times_seconds.size), dtype=bool),
        share=arrays.share[np.newaxis],
        scale_cents=arrays.scale_cents[np.newaxis],
    )
    inputs = PressureInputs(
        venues=venues,
        expected=everywhere_expected,
        age_seconds=age_seconds,
        flows=flows,
        by_token={},
        observations=observations[np.newaxis],
        needed=needed,
    )
    results = chain_pressure_results(arrays, inputs, times_seconds, window_minutes, min_lookback_hours)
    # One chain is no split.
    return [replace(one, inputs={key: said for key, said in one.inputs.items() if key != "chains"}) for one in results]


def chain_pressure_results(
    arrays: PressureArrays,
    inputs: PressureInputs,
    times_seconds: Integers,
    window_minutes: int,
    min_lookback_hours: int,
) -> list[PressureResult]:
    """One PressureResult per point, over all chains."""
    results = []
    for p, second in enumerate(times_seconds):
        is_read = bool(arrays.share[p] > 0)
        venues = [(v, venue) for v, venue in enumerate(inputs.venues) if inputs.expected[v, p]]
        said: dict[str, Any] = {
            "venues": {venue: {"age_seconds": _rounded(inputs.age_seconds[v, p], 1)} for v, venue in venues}
        }
        if not np.isnan(arrays.scale_cents[p]):
            said["scale_usd"] = float(arrays.scale_cents[p]) / 100.0
        chains = {
            name: _chain_inputs(arrays, inputs, c, p)
            for c, name in enumerate(inputs.flows.names)
            if inputs.flows.expected[c, p]
        }
        if chains:
            said["chains"] = chains
        note = _pressure_note(arrays, inputs, chains, [venue for _, venue in venues], p, min_lookback_hours)
        if note:
            said["note"] = note
        score = _number(arrays.score[p])
        results.append(
            PressureResult(
                time=datetime.fromtimestamp(int(second), tz=UTC),
                score=score,
                inflow_usd=int(arrays.inflow_cents[p]) / 100.0 if is_read else None,
                outflow_usd=int(arrays.outflow_cents[p]) / 100.0 if is_read else None,
                window_minutes=window_minutes,
                coverage=min(1.0, float(arrays.share[p])),
                inputs=said,
                score_low=None if score is None else _number(arrays.score_low[p]),
                score_high=None if score is None else _number(arrays.score_high[p]),
            )
        )
    return results


def _chain_inputs(arrays: PressureArrays, inputs: PressureInputs, c: int, p: int) -> dict[str, Any]:
    """What a chain tells at a point: whether it counts, its share of what is expected, its flows by token."""
    flows = inputs.flows
    chain = flows.names[c]
    is_read = flows.share[c, p] > 0
    entry: dict[str, Any] = {
        "state": "counted" if arrays.counted[c, p] else "warming" if is_read else "silent",
        "share": round(float(arrays.weight[c, p]), 4),
    }
    if not np.isnan(flows.scale_cents[c, p]):
        entry["scale_usd"] = float(flows.scale_cents[c, p]) / 100.0
    if not is_read:
        return entry
    inflow, outflow = int(flows.inflow_cents[c, p]), int(flows.outflow_cents[c, p])
    entry |= {
        "inflow_usd": inflow / 100.0,
        "outflow_usd": outflow / 100.0,
        "net_outflow_usd": (outflow - inflow) / 100.0,
    }
    tokens: dict[str, dict[str, float]] = {}
    for (of_chain, token, direction), cents in inputs.by_token.items():
        if of_chain == chain and cents[p]:
            tokens.setdefault(token, {})[_MOVED[direction]] = int(cents[p]) / 100.0
    entry["tokens"] = tokens
    return entry


def _pressure_note(
    arrays: PressureArrays,
    inputs: PressureInputs,
    chains: Mapping[str, Mapping[str, Any]],
    venues: Sequence[str],
    p: int,
    min_lookback_hours: int,
) -> str:
    """What limits the pressure, or nothing."""
    if not venues:
        return "no source of flows in this world"
    silent = [chain for chain, said in chains.items() if said["state"] == "silent"]
    if len(silent) == len(chains):
        return f"flow sources silent: {', '.join(venues)}"
    parts = [f"flows of {', '.join(silent)} silent"] if silent else []
    for c, chain in enumerate(inputs.flows.names):
        if chain in chains and chains[chain]["state"] == "warming":
            word = "flows" if len(chains) == 1 else f"flows of {chain}"
            parts.append(_warming(word, int(inputs.observations[c, p]), inputs.needed, min_lookback_hours))
    return "; ".join(parts)


def pressure_at(times: Sequence[datetime], pressures: Sequence[PressureResult]) -> list[PressureResult | None]:
    """For each time (ascending) the newest pressure at or before it, unless older than PRESSURE_MAX_AGE."""
    chosen: list[PressureResult | None] = []
    position = -1
    for time in times:
        while position + 1 < len(pressures) and pressures[position + 1].time <= time:
            position += 1
        newest = pressures[position] if position >= 0 else None
        chosen.append(newest if newest is not None and time - newest.time <= PRESSURE_MAX_AGE else None)
    return chosen


def _observations(scored: Scored) -> dict[str, Integers]:
    """Per component, how much look-back its references hold at each point: (symbols, venues, points)."""
    day = scored.references.day_index(scored.points.time_seconds)
    least = {}
    for name in COMPONENTS:
        counts = [scored.references.features[feature].observations[..., day] for feature in _FEATURES[name]]
        least[name] = np.minimum.reduce(counts)
    return least


@dataclass(frozen=True)
class _PlainComponent:
    """A component of a batch: [symbol][point], venues' points and the look-back [symbol][venue][point].

    expected: [symbol][venue][point] whether the venue counts for it. features: (name, name of its percentile).
    """

    long: Any
    short: Any
    share: Any
    venue_long: Any
    venue_short: Any
    age: Any
    observations: Any
    expected: Any
    features: list[tuple[str, str]]


@dataclass(frozen=True)
class _Plain:
    """The arrays of a batch as nested lists, [symbol][point] or [symbol][venue][point].

    Years of history are assembled number by number, and one number out of a list costs a tenth of one out of an array.
    """

    side: Any
    lean: Any
    score: Any
    score_high: Any
    long_squeeze: Any
    short_squeeze: Any
    coverage: Any
    volatility: Any
    price: Any
    price_age: Any
    not_listed: Any
    features: dict[str, Any]
    percentiles: dict[str, Any]
    components: dict[str, _PlainComponent]
    by_hours: dict[int, Any]
    early_warning: Any
    market: Any
    market_threshold: Any
    is_reduced: Any
    outside: dict[str, Any]


def _plain(scored: Scored) -> _Plain:
    arrays, model = scored.risk, scored.probabilities
    observations = _observations(scored)
    nobody = np.zeros(len(scored.venues), dtype=bool)
    not_listed = scored.not_listed
    if not_listed is None:
        not_listed = np.zeros(scored.points.now.price_usd.shape, dtype=bool)
    components = {}
    for name in COMPONENTS:
        component = arrays.components[name]
        expected = everywhere(scored.expected.get(TOPIC[name], nobody), component.venue_long.shape)
        components[name] = _PlainComponent(
            long=component.long.tolist(),
            short=component.short.tolist(),
            share=component.share.tolist(),
            venue_long=component.venue_long.tolist(),
            venue_short=component.venue_short.tolist(),
            age=scored.age_seconds[_AGE_OF[name]].tolist(),
            observations=observations[name].tolist(),
            expected=expected.tolist(),
            features=[(feature, f"{feature}_percentile") for feature in _FEATURES[name]],
        )
    return _Plain(
        side=arrays.side.tolist(),
        lean=arrays.lean.tolist(),
        score=arrays.score.tolist(),
        score_high=arrays.score_high.tolist(),
        long_squeeze=arrays.long_squeeze.tolist(),
        short_squeeze=arrays.short_squeeze.tolist(),
        coverage=arrays.coverage.tolist(),
        volatility=venue_mean(arrays.percentiles[f.VOLATILITY]).tolist(),
        price=scored.points.now.price_usd.tolist(),
        price_age=scored.age_seconds["price_usd"].tolist(),
        not_listed=not_listed.tolist(),
        features={name: values.tolist() for name, values in arrays.features.items()},
        percentiles={name: values.tolist() for name, values in arrays.percentiles.items()},
        components=components,
        by_hours={} if model is None else {hours: array.tolist() for hours, array in model.by_hours.items()},
        early_warning=None if model is None else model.early_warning.tolist(),
        market=_of_points(None if model is None else model.market_probability, scored),
        market_threshold=_of_points(None if model is None else model.market_threshold, scored),
        is_reduced=None if model is None or model.is_reduced is None else model.is_reduced.tolist(),
        outside={} if model is None or model.outside is None else {n: at.tolist() for n, at in model.outside.items()},
    )


def _of_points(values: Floats | None, scored: Scored) -> Any:
    """(points,) as a list; unknown throughout where the model does not tell."""
    return [float("nan")] * scored.points.time_seconds.size if values is None else values.tolist()


def _risk_result(
    scored: Scored, plain: _Plain, s: int, p: int, time: datetime, settings: RiskSettings
) -> tuple[RiskResult, list[str]]:
    side = plain.side[s][p]
    notes: list[str] = []
    inputs: dict[str, Any] = {}
    points: dict[str, float | None] = {}
    for name, component in plain.components.items():
        stored = component.short if side == SHORT else component.long
        points[name] = _number(stored[s][p])
        venues, states = _venues(scored, plain, component, s, p)
        inputs[name] = {"share": _rounded(component.share[s][p], 4), "venues": venues}
        note = _component_note(name, states, component.observations[s], p, scored, settings)
        if note:
            notes.append(note)
    inputs["lean"] = _rounded(plain.lean[s][p], 4)
    changes = plain.features[f.PRICE_CHANGE][s]
    inputs["price"] = {
        "venues": {
            venue: {
                "price_usd": price,
                "age_seconds": _rounded(plain.price_age[s][v][p], 1),
                "change_24h": _rounded(changes[v][p], 6),
            }
            for v, venue in enumerate(scored.venues)
            if not isnan(price := plain.price[s][v][p])
        }
    }
    absent = [venue for v, venue in enumerate(scored.venues) if plain.not_listed[s][v][p]]
    if absent:
        inputs["not_listed"] = absent
    if len(absent) == len(scored.venues):
        notes = [f"no venue lists {scored.symbols[s]}"]
    coverage = plain.coverage[s][p]
    score = _number(plain.score[s][p])
    if score is None:
        notes.insert(0, f"coverage {coverage:.2f} is below {settings.min_coverage:g}: UNKNOWN")
    result = RiskResult(
        symbol=scored.symbols[s],
        time=time,
        score=score,
        score_high=_number(plain.score_high[s][p]),
        side="long" if side == LONG else "short" if side == SHORT else None,
        funding_points=points["funding"],
        open_interest_points=points["open_interest"],
        long_short_points=points["long_short"],
        liquidation_points=points["liquidation"],
        long_squeeze=_number(plain.long_squeeze[s][p]),
        short_squeeze=_number(plain.short_squeeze[s][p]),
        coverage=coverage,
        inputs=inputs,
    )
    return result, notes


def _venues(
    scored: Scored, plain: _Plain, component: _PlainComponent, s: int, p: int
) -> tuple[dict[str, Any], dict[str, VenueState]]:
    """What each expected venue said for a component, and whether it counts."""
    said: dict[str, Any] = {}
    states: dict[str, VenueState] = {}
    for v, venue in enumerate(scored.venues):
        if not component.expected[s][v][p]:
            continue
        age = component.age[s][v][p]
        long = component.venue_long[s][v][p]
        if not isnan(long):
            states[venue] = "counted"
        elif isnan(age):
            states[venue] = "silent"
        elif component.observations[s][v][p] < scored.references.needed:
            states[venue] = "warming"
        else:
            states[venue] = "no look-back"
        entry: dict[str, Any] = {"state": states[venue]}
        if not isnan(age):
            entry["age_seconds"] = round(age, 1)
            for feature, rank_name in component.features:
                value, rank = plain.features[feature][s][v][p], plain.percentiles[feature][s][v][p]
                if not isnan(value):
                    entry[feature] = _significant(value)
                if not isnan(rank):
                    entry[rank_name] = round(rank, 4)
        if not isnan(long):
            entry["long_points"] = round(long, 4)
            entry["short_points"] = _rounded(component.venue_short[s][v][p], 4)
        said[venue] = entry
    return said, states


def _component_note(
    name: str,
    states: dict[str, VenueState],
    observations: Any,
    p: int,
    scored: Scored,
    settings: RiskSettings,
) -> str:
    """What limits a component, or nothing. observations: [venue][point] of one symbol."""
    word = WORDS[name]
    if not states:
        return f"{word}: no source"
    parts = []
    silent = [venue for venue, state in states.items() if state == "silent"]
    if silent:
        parts.append(f"{word}: {', '.join(silent)} silent")
    warming = [venue for venue, state in states.items() if state == "warming"]
    if warming:
        most = max(observations[scored.venues.index(venue)][p] for venue in warming)
        parts.append(_warming(word, most, scored.references.needed, settings.min_lookback_hours))
    holes = [venue for venue, state in states.items() if state == "no look-back"]
    if holes:
        parts.append(f"{word}: {', '.join(holes)} has a hole in the last hours")
    return "; ".join(parts)


def _warming(word: str, observations: int, needed: int, min_lookback_hours: int) -> str:
    days = min_lookback_hours / HOURS_PER_DAY
    done = int(days * min(observations, needed) / needed)
    return f"{word} warming: {done} of {days:g} days"


def _signal_result(
    scored: Scored,
    plain: _Plain,
    risk: RiskResult,
    pressure: PressureResult | None,
    notes: list[str],
    severity: SeveritySettings,
    s: int,
    p: int,
) -> SignalResult:
    value = None if pressure is None else pressure.score
    if value is None:
        why = "no pressure of the last 60 s" if pressure is None else pressure.inputs.get("note", "unknown")
        notes = [f"{FLOW_SIDE_BLIND} ({why})", *notes]
    by_hours = {hours: _number(values[s][p]) for hours, values in plain.by_hours.items()}
    market, limit = _number(plain.market[p]), _number(plain.market_threshold[p])
    # A world whose symbols are mostly unknown has no market to warn of: unknown is not calm.
    knows = by_hours.get(4) is not None and (market is not None or limit is None)
    if plain.is_reduced is not None and plain.is_reduced[s][p]:
        notes = [*notes, PROBABILITY_REDUCED]
    outside = [name for name, at in plain.outside.items() if at[s][p]]
    if knows and outside:
        notes = [*notes, f"{PROBABILITY_OUTSIDE} ({', '.join(name.replace('_', ' ') for name in outside)})"]
    return SignalResult(
        symbol=risk.symbol,
        time=risk.time,
        risk=risk.score,
        pressure=value,
        severity=severity_of(risk.score, value, severity),
        severity_possible=severity_of(risk.score_high, value, severity),
        flow_side_known=value is not None,
        note="; ".join(notes),
        cascade_probability_1h=by_hours.get(1),
        cascade_probability_4h=by_hours.get(4),
        cascade_probability_24h=by_hours.get(24),
        model_id=scored.model_id,
        early_warning=plain.early_warning[s][p] if knows else None,
        market_probability_4h=market,
        market_threshold_4h=limit,
        baseline_volatility_percentile=_number(plain.volatility[s][p]),
        under_way=None if scored.under_way is None else scored.under_way[s][p],
    )


def _number(value: float) -> float | None:
    return None if isnan(value) else float(value)


def _rounded(value: float, digits: int) -> float | None:
    return None if isnan(value) else round(float(value), digits)


def _significant(value: float) -> float:
    """Inputs are for people: six digits say what a value was without filling the table."""
    return float(f"{value:.6g}")
