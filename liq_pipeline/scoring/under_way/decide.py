"""What a signal holds of a cascade under way: one UnderWay per symbol and point, with the words that explain it.

Belongs here: from readings to results. Does not: rules and numbers (rules.py, excursions.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan
from typing import Any

import numpy as np

from liq_pipeline.scoring.bars import UNKNOWN_CENTS, BarArrays, Booleans, Integers, Points
from liq_pipeline.scoring.results import UnderWay
from liq_pipeline.scoring.under_way.excursions import DIRECTIONS, DOWN, UP, Excursions, excursions, market
from liq_pipeline.scoring.under_way.rules import Readings, UnderWayModel, by_model, by_plain_rule, calm

SIDE_OF = {DOWN: "long", UP: "short"}
"""A fall closes longs, a rise closes shorts."""


@dataclass(frozen=True)
class Decided:
    """Arrays of a batch, (symbols, points). direction: the one that is spoken of; 0 = no excursion."""

    found: Excursions
    readings: Readings
    direction: Integers
    is_open: Booleans
    is_calm: Booleans
    calm_known: Booleans
    rule: str


def decide(bars: BarArrays, points: Points, model: UnderWayModel | None) -> Decided:
    """The rule in force over a batch: the model where there is one, else the plain rule."""
    return decide_on(excursions(bars, points), model)


def decide_on(found: Excursions, model: UnderWayModel | None) -> Decided:
    """The same from excursions."""
    readings = by_plain_rule(found) if model is None else by_model(found, model)
    strength = {d: np.nan_to_num(found.sides[d].cascade) * 10.0 + np.nan_to_num(found.sides[d].run) for d in DIRECTIONS}
    direction = np.where(strength[DOWN] >= strength[UP], DOWN, UP)
    direction = np.where(np.maximum(strength[DOWN], strength[UP]) > 0.0, direction, 0)
    # What holds is spoken of, whichever side has run further.
    only = {d: readings.holds[d] & ~readings.holds[-d] for d in DIRECTIONS}
    direction = np.where(only[DOWN], DOWN, np.where(only[UP], UP, direction))
    is_open = readings.holds[DOWN] | readings.holds[UP]
    is_calm, calm_known = calm(found)
    return Decided(
        found, readings, direction, is_open, is_calm & ~is_open, calm_known, "plain" if model is None else "model"
    )


def under_way_results(bars: BarArrays, points: Points, model: UnderWayModel | None) -> list[list[UnderWay]]:
    """[symbol][point]."""
    decided = decide(bars, points, model)
    whole = {d: market(decided.found.sides[d]).in_excursion for d in DIRECTIONS}
    return [
        [_result(decided, whole, bars, points, s, p) for p in range(points.time_seconds.size)]
        for s in range(len(bars.symbols))
    ]


def _result(
    decided: Decided, in_excursion: Mapping[int, Integers], bars: BarArrays, points: Points, s: int, p: int
) -> UnderWay:
    found, readings = decided.found, decided.readings
    direction = int(decided.direction[s, p])
    known = bool(readings.known[s, p])
    missing = []
    if not found.price_known[s, p]:
        missing.append("price of the last day")
    if not found.open_interest_known[s, p]:
        missing.append("open interest")
    forced = _forced(points, s, p)
    if not forced:
        missing.append("liquidations")
    inputs: dict[str, Any] = {"missing": missing}
    if forced:
        inputs["forced_usd_1h"] = forced
    calm_now = bool(decided.is_calm[s, p]) if decided.calm_known[s, p] else None
    if direction == 0:
        return UnderWay(
            side=None, is_open=False if known else None, is_calm=calm_now, probability=None, rule=_rule(decided),
            started_at=None, excursion=None, threshold=None, open_interest_change=None, inputs=inputs,
        )  # fmt: skip
    side = found.sides[direction]
    ago = int(side.start_row[s, p])
    began = bars.start_seconds + (int(points.bar_index[p]) - ago) * bars.step_seconds
    inputs |= {
        "in_thresholds": {name: _rounded(getattr(side, name)[s, p]) for name in ("run", "recent", "cascade", "burst")},
        "open_interest_change_30m": _rounded(found.open_interest_change_30m[s, p], 5),
        "symbols_in_excursion": int(in_excursion[direction][p]),
        "market_probability": _rounded(readings.market_probability[direction][s, p]),
        "venues": _venues(bars, points, s, p),
    }
    return UnderWay(
        side="long" if direction == DOWN else "short",
        is_open=bool(decided.is_open[s, p]) if known else None,
        is_calm=calm_now,
        probability=_number(readings.probability[direction][s, p]) if known else None,
        rule=_rule(decided),
        started_at=datetime.fromtimestamp(began, tz=UTC) if ago >= 0 else None,
        excursion=_rounded(found.move_since[direction][s, p], 6),
        threshold=_rounded(found.threshold_at[direction][s, p], 6),
        open_interest_change=_rounded(found.open_interest_since[direction][s, p], 6),
        inputs=inputs,
    )


def _rule(decided: Decided) -> Any:
    return decided.rule


def _venues(bars: BarArrays, points: Points, s: int, p: int) -> list[str]:
    """Whose prices spoke."""
    return [venue for v, venue in enumerate(bars.venues) if not isnan(points.now.price_usd[s, v, p])]


def _forced(points: Points, s: int, p: int) -> dict[str, float]:
    """Forced orders of the last hour by the side that was liquidated, over the venues whose feed is alive, in USD."""
    sums = {}
    for side, cents in (("long", points.now.long_liquidated_cents_1h), ("short", points.now.short_liquidated_cents_1h)):
        known = cents[s, :, p] != UNKNOWN_CENTS
        if known.any():
            sums[side] = float(cents[s, known, p].sum()) / 100.0
    return sums


def _number(value: float) -> float | None:
    return None if isnan(value) else float(value)


def _rounded(value: float, digits: int = 4) -> float | None:
    return None if isnan(value) else round(float(value), digits)
