"""Liquidation risk: four components, both sides on the same budgets, over arrays of symbols and points.

Belongs here: how percentiles become points, how venues and components add up. Does not: percentiles (references.py),
severities (severity.py), rows (pipeline/). docs/scores.md gives the reasons in full; in short:

* funding (30): the percentile of the rate within its own venue and symbol, from the 75th up, times how much open
  interest stands behind it. Positive and high crowds longs, negative and low crowds shorts; a rate of the other sign
  scores nothing on that side, however unusual it is.
* open interest (30): half for how much of it there is (the fuel: level percentile), half for how fast it was built in
  coins over 4 or 24 h, whether or not the price moved with it (a discount for moves was tried and measured worse).
  Price drift and funding say which side built it; without a lean (a flat price) both sides hold all points.
* long/short (20): extremes of the share of long accounts within its own history, either way, and nothing between.
* liquidations (20): a step at the 95th and the 99th percentile of the side's own hourly sums, and nothing below.

A component is the mean over its venues that are fresh and warm, each with equal weight: every venue is judged by its
own past, and weights by size would let the largest venue's outage move the score. Unknown is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from liq_pipeline.scoring import features as f
from liq_pipeline.scoring.bars import BarArrays, Booleans, Floats, Integers, Points
from liq_pipeline.scoring.references import References, percentile
from liq_pipeline.scoring.results import (
    FUNDING_BUDGET,
    LIQUIDATION_BUDGET,
    LONG_SHORT_BUDGET,
    OPEN_INTEREST_BUDGET,
)

COMPONENTS: Final = ("funding", "open_interest", "long_short", "liquidation")
BUDGET: Final = {
    "funding": FUNDING_BUDGET,
    "open_interest": OPEN_INTEREST_BUDGET,
    "long_short": LONG_SHORT_BUDGET,
    "liquidation": LIQUIDATION_BUDGET,
}
TOPIC: Final = {
    "funding": "funding_rates",
    "open_interest": "open_interest",
    "long_short": "long_short_ratio",
    "liquidation": "liquidations",
}
"""Whose venues a component expects."""

FUNDING_START: Final = 0.75
OPEN_INTEREST_START: Final = 0.5
CROWD_START: Final = 0.8
"""Percentile where points begin; they grow linearly from there to the full budget at the largest value seen."""
LIQUIDATION_STEPS: Final = ((0.95, 0.5), (0.99, 1.0))
"""(percentile, share of the budget) at or past it: below the 95th, liquidations tell nothing (FIELD 0.2)."""

LONG, SHORT, NO_SIDE = 1, -1, 0


@dataclass(frozen=True)
class Component:
    """long, short: points of each side (symbols, points), NaN = unknown. share: of its expected venues that count.

    venue_long, venue_short: each venue's own points, (symbols, venues, points). at_most: long and short if
    the venues whose silence lowers their weight stood at their most; None: nothing weighs them.
    """

    long: Floats
    short: Floats
    share: Floats
    venue_long: Floats
    venue_short: Floats
    at_most: tuple[Floats, Floats] | None = None


@dataclass(frozen=True)
class RiskArrays:
    """All of shape (symbols, points). score is NaN below the minimum coverage; side: LONG, SHORT or NO_SIDE.

    features and percentiles: name -> (symbols, venues, points), for receipts, models and ablations.
    """

    components: dict[str, Component]
    long_squeeze: Floats
    short_squeeze: Floats
    score: Floats
    score_high: Floats
    side: Integers
    coverage: Floats
    lean: Floats
    features: dict[str, Floats]
    percentiles: dict[str, Floats]


def risk_arrays(
    bars: BarArrays,
    points: Points,
    references: References,
    expected: Mapping[str, Booleans],
    min_coverage: float,
    without: frozenset[str] = frozenset(),
) -> RiskArrays:
    """Score every point of every symbol.

    expected: topic -> whether the venue is expected to bring it: (venues,) where all symbols and points agree, else
    (symbols, venues, points); an absent topic is expected from nobody.
    without: components taken as unknown (ablation).
    """
    values = f.at_points(bars, points)
    day = references.day_index(points.time_seconds)
    ranks = {name: percentile(references, name, day, value) for name, value in values.items()}
    nobody = np.zeros(len(bars.venues), dtype=bool)
    lean = _lean(values, ranks)
    interest = _open_interest_share(values, ranks)
    behind, behind_at_most = _behind(interest, expected.get(TOPIC["open_interest"], nobody))
    by_venue = {
        "funding": _funding(values, ranks),
        "open_interest": _open_interest(interest, lean),
        "long_short": _long_short(ranks),
        "liquidation": _liquidation(values, ranks),
    }
    components = {}
    for name in COMPONENTS:
        long, short = by_venue[name]
        if name in without:
            long, short = np.full_like(long, np.nan), np.full_like(short, np.nan)
        components[name] = _over_venues(long, short, expected.get(TOPIC[name], nobody))
    components["funding"] = _weighed(components["funding"], behind, behind_at_most)
    return _total(components, min_coverage, lean, values, ranks)


def ramp(rank: Floats, start: float) -> Floats:
    """0 up to `start`, then linear to 1 at the 100th percentile; NaN stays NaN."""
    return np.clip((rank - start) / (1.0 - start), 0.0, 1.0)


def venue_mean(values: Floats) -> Floats:
    """Mean over the venues that are known, (symbols, venues, points) -> (symbols, points); NaN where none is.

    Added in the venues' order, so that the result does not depend on how many points are computed at once.
    """
    if values.shape[1] == 1:
        return values[:, 0]
    known = ~np.isnan(values)
    total = np.zeros((values.shape[0], values.shape[2]))
    for venue in range(values.shape[1]):
        total = total + np.where(known[:, venue], values[:, venue], 0.0)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)


def _funding(values: dict[str, Floats], ranks: dict[str, Floats]) -> tuple[Floats, Floats]:
    rate, rank = values[f.FUNDING], ranks[f.FUNDING]
    unknown = np.isnan(rank)
    long = np.where(rate > 0, ramp(rank, FUNDING_START), 0.0) * FUNDING_BUDGET
    short = np.where(rate < 0, ramp(1.0 - rank, FUNDING_START), 0.0) * FUNDING_BUDGET
    return np.where(unknown, np.nan, long), np.where(unknown, np.nan, short)


def _lean(values: dict[str, Floats], ranks: dict[str, Floats]) -> Floats:
    """Which side built the open interest, per symbol: -1 (shorts) to 1 (longs), 0 if nothing tells.

    The price's drift over 24 h and funding in equal parts, or the one that is known.
    """
    drift = 2.0 * venue_mean(ranks[f.PRICE_CHANGE]) - 1.0
    signed = 2.0 * ranks[f.FUNDING] - 1.0
    agrees = np.sign(signed) == np.sign(values[f.FUNDING])
    funding = venue_mean(np.where(np.isnan(signed), np.nan, np.where(agrees, signed, 0.0)))
    either = np.where(np.isnan(drift), funding, np.where(np.isnan(funding), drift, 0.5 * drift + 0.5 * funding))
    return np.where(np.isnan(either), 0.0, either)


def _behind(interest: Floats, expected: Booleans) -> tuple[Floats, Floats]:
    """How much open interest stands behind a rate, 0..1 (symbols, points): the mean over the expected venues that tell,
    and that mean if the silent ones stood at 1. Where none tells, the rate counts in full.
    """
    wanted = everywhere(expected, interest.shape)
    known = ~np.isnan(interest) & wanted
    mean = venue_mean(np.where(known, interest, np.nan))
    share = known.sum(axis=1) / np.maximum(1, wanted.sum(axis=1))
    mean = np.where(np.isnan(mean), 1.0, mean)
    return mean, mean * share + (1.0 - share)


def _weighed(component: Component, weight: Floats, most: Floats) -> Component:
    """The component with all its points times `weight` (symbols, points), at most times `most`."""
    by_venue = weight[:, np.newaxis, :]
    return Component(
        component.long * weight,
        component.short * weight,
        component.share,
        component.venue_long * by_venue,
        component.venue_short * by_venue,
        (component.long * most, component.short * most),
    )


def _open_interest_share(values: dict[str, Floats], ranks: dict[str, Floats]) -> Floats:
    """How high and how fast built open interest is, 0..1 per venue, before sides."""
    level = ramp(ranks[f.OPEN_INTEREST], OPEN_INTEREST_START)
    built = []
    for name in f.OPEN_INTEREST_CHANGE.values():
        rank = ramp(ranks[name], OPEN_INTEREST_START)
        # A fall builds nothing, however small it is beside other falls; an unknown change stays unknown (NaN * 0).
        built.append(np.where(values[name] <= 0, 0.0 * rank, rank))
    return np.asarray(0.5 * level + 0.5 * np.maximum(built[0], built[1]), dtype=np.float64)


def _open_interest(share: Floats, lean: Floats) -> tuple[Floats, Floats]:
    points = share * OPEN_INTEREST_BUDGET
    sided = lean[:, np.newaxis, :]
    return points * np.minimum(1.0, 1.0 + sided), points * np.minimum(1.0, 1.0 - sided)


def _long_short(ranks: dict[str, Floats]) -> tuple[Floats, Floats]:
    rank = ranks[f.LONG_SHARE]
    return ramp(rank, CROWD_START) * LONG_SHORT_BUDGET, ramp(1.0 - rank, CROWD_START) * LONG_SHORT_BUDGET


def _liquidation(values: dict[str, Floats], ranks: dict[str, Floats]) -> tuple[Floats, Floats]:
    sides = []
    for name in (f.LONG_LIQUIDATED, f.SHORT_LIQUIDATED):
        share = np.zeros_like(ranks[name])
        for at, part in LIQUIDATION_STEPS:
            share = np.where(ranks[name] >= at, part, share)
        # Nothing liquidated is no points, even on a venue whose whole past is empty.
        share = np.where(values[name] > 0, share, 0.0)
        sides.append(np.where(np.isnan(ranks[name]), np.nan, share * LIQUIDATION_BUDGET))
    return sides[0], sides[1]


def everywhere(expected: Booleans, shape: tuple[int, ...]) -> Booleans:
    """An expectation, of (venues,) or (symbols, venues, points), in the second shape."""
    return np.broadcast_to(expected if expected.ndim == 3 else expected[np.newaxis, :, np.newaxis], shape)


def _over_venues(long: Floats, short: Floats, expected: Booleans) -> Component:
    """Mean over the expected venues whose points are known on both sides."""
    wanted = everywhere(expected, long.shape)
    known = ~np.isnan(long) & ~np.isnan(short) & wanted
    long, short = np.where(known, long, np.nan), np.where(known, short, np.nan)
    share = known.sum(axis=1) / np.maximum(1, wanted.sum(axis=1))
    return Component(venue_mean(long), venue_mean(short), share, long, short)


def _total(
    components: dict[str, Component],
    min_coverage: float,
    lean: Floats,
    values: dict[str, Floats],
    ranks: dict[str, Floats],
) -> RiskArrays:
    shape = lean.shape
    sums = {"long": np.zeros(shape), "short": np.zeros(shape)}
    highs = {"long": np.zeros(shape), "short": np.zeros(shape)}
    coverage = np.zeros(shape)
    anything = np.zeros(shape, dtype=bool)
    for name in COMPONENTS:
        component, budget = components[name], BUDGET[name]
        known = ~np.isnan(component.long)
        anything |= known
        coverage = coverage + budget * component.share
        most_long, most_short = component.at_most or (component.long, component.short)
        sides = (("long", component.long, most_long), ("short", component.short, most_short))
        for name_of_side, points, most in sides:
            sums[name_of_side] = sums[name_of_side] + np.where(known, points, 0.0)
            at_least = np.where(known, most, 0.0)
            # A silent venue could stand at the full budget: what it would add to the mean is left open.
            open_part = budget * (1.0 - component.share)
            highs[name_of_side] = highs[name_of_side] + at_least * component.share + open_part
    coverage = coverage / 100.0
    long = np.where(anything, sums["long"], np.nan)
    short = np.where(anything, sums["short"], np.nan)
    side = np.where(long > short, LONG, np.where(short > long, SHORT, np.where(long > 0, LONG, NO_SIDE)))
    score = np.where(coverage < min_coverage, np.nan, np.maximum(long, short))
    high = np.minimum(
        100.0, np.maximum(np.maximum(highs["long"], highs["short"]), np.maximum(sums["long"], sums["short"]))
    )
    return RiskArrays(components, long, short, score, high, side, coverage, lean, values, ranks)
