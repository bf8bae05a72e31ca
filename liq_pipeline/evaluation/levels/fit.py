"""The tiers' weights, fitted from the forced orders of venues that show them all.

Belongs here: what the cohorts would have lost at each tier, and the weights under which that is most likely what was
seen. Does not: choosing data (the caller's), the map.

For each block of time, side and tier: the coins of earlier cohorts whose liquidation price the block was the first to
cross. Forced orders are taken as Poisson counts around their weighted sum; the weights follow by expectation
maximisation, which keeps them at or above zero and needs no step size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from liq_pipeline.scoring.bars import BarArrays, Floats
from liq_pipeline.scoring.levels.cohorts import LONG, SHORT, blocks_at, lean_of, openings
from liq_pipeline.scoring.levels.method import Method, Tier

SHAPE_MEDIANS: Final = (0.006, 0.01, 0.016, 0.025, 0.04, 0.065, 0.1, 0.16, 0.25)
SHAPE_WIDTH: Final = 0.4
_FLOOR: Final = 1e-9
"""Of the expected share in a block: what no cohort explains is not laid on the one that is nearest to it."""


@dataclass(frozen=True)
class Crossed:
    """exposure: (rows, 2 * tiers), share of open interest that each tier, and each tier of a leaning crowd, would have
    lost if all of it stood there; seen: (rows,), what was closed by force."""

    exposure: Floats
    seen: Floats


def crossed(bars: BarArrays, method: Method, venues: Collection[str]) -> Crossed:
    """All bars as one window that ends with the last; venues: those that show every forced order, not a sample."""
    hours = (bars.count - 1) * bars.step_seconds // 3600 // 24 * 24
    whole = Method(method.name, hours, method.block_minutes, method.closed_per_hour, method.tiers, method.source)
    blocks = blocks_at(bars, whole, bars.count - 1)
    opened, survived = openings(blocks, whole)
    lean = lean_of(blocks, whole)
    shows = np.tile(np.isin(bars.venues, list(venues)), len(bars.symbols))
    distance = np.array([tier.distance for tier in method.tiers])
    reach = method.window_hours * 60 // method.block_minutes
    parts = []
    seen = []
    for series in np.flatnonzero(shows):
        for side in (LONG, SHORT):
            exposure = _exposure(
                blocks.mean_usd[series],
                blocks.low_usd[series] if side == LONG else blocks.high_usd[series],
                opened[side, series],
                survived[side, series],
                np.maximum(lean[series] if side == LONG else -lean[series], 0.0),
                distance,
                side,
                reach,
            )
            before = np.concatenate([[np.nan], blocks.end_base[series, :-1]])
            use = np.arange(before.size) >= reach
            use &= np.isfinite(before) & (before > 0.0)
            parts.append(exposure[use] / before[use, None])
            seen.append(blocks.forced_base[side, series][use] / before[use])
    return Crossed(np.concatenate(parts), np.concatenate(seen))


def shapes(distance: Floats) -> Floats:
    """(SHAPES, tiers): what a crowd of each median distance looks like over the tiers, each adding up to 1.

    Log-normal in the distance. A tier that no price has reached says nothing about itself; its neighbours do.
    """
    step = np.log(distance[1] / distance[0])
    curves = np.exp(-0.5 * (np.log(distance[None] / np.array(SHAPE_MEDIANS)[:, None]) / SHAPE_WIDTH) ** 2)
    return np.asarray(curves * (step / (SHAPE_WIDTH * np.sqrt(2.0 * np.pi))))


def fitted_weights(data: Iterable[Crossed], distance: Floats, rounds: int = 400) -> tuple[Floats, Floats]:
    """weight and lean_weight per tier; distance: (tiers,), in equal ratios."""
    many = list(data)
    curves = shapes(distance)
    both = np.zeros((2 * curves.shape[0], 2 * curves.shape[1]))
    both[: curves.shape[0], : curves.shape[1]] = both[curves.shape[0] :, curves.shape[1] :] = curves
    exposure = np.concatenate([one.exposure for one in many]) @ both.T
    seen = np.concatenate([one.seen for one in many])
    total = exposure.sum(axis=0)
    value = np.full(exposure.shape[1], 1.0 / exposure.shape[1])
    for _ in range(rounds):
        gained = exposure.T @ (seen / (exposure @ value + _FLOOR))
        value = np.where(total > 0.0, value * gained / np.maximum(total, 1e-12), 0.0)
    weight = value @ both
    return weight[: distance.size], weight[distance.size :]


def with_weights(method: Method, weight: Floats, lean_weight: Floats, source: str) -> Method:
    """The method with other weights, rounded: a file should say what is known. Nobody opens more than everything."""
    whole = max(1.0, float(weight.sum() + lean_weight.sum()) * 1.0001)
    tiers = tuple(
        Tier(tier.distance, round(float(w) / whole, 6), round(float(lean) / whole, 6))
        for tier, w, lean in zip(method.tiers, weight, lean_weight, strict=True)
    )
    return Method(method.name, method.window_hours, method.block_minutes, method.closed_per_hour, tiers, source)


def _exposure(
    price: Floats,
    worst: Floats,
    opened: Floats,
    survived: Floats,
    lean: Floats,
    distance: Floats,
    side: int,
    reach: int,
) -> Floats:
    """(blocks, 2 * tiers) coins by the block that first crosses their level."""
    count, tiers = price.size, distance.size
    lost = np.zeros((count, 2 * tiers))
    sign = -1.0 if side == LONG else 1.0
    for born in range(count - 1):
        if not opened[born] > 0.0:
            continue
        stop = min(count, born + 1 + reach)
        path = sign * worst[born + 1 : stop]
        furthest = np.maximum.accumulate(np.where(np.isfinite(path), path, -np.inf))
        level = sign * price[born] * (1.0 + sign * distance)
        first = np.searchsorted(furthest, level, side="left")  # furthest >= level: crossed
        hit = first < furthest.size
        # Survived the blocks between; the block that crosses takes it before its holders close.
        alive = np.concatenate([[1.0], np.cumprod(survived[born + 1 : stop])])
        coins = opened[born] * alive[first[hit]]
        at = born + 1 + first[hit]
        tier = np.flatnonzero(hit)
        np.add.at(lost, (at, tier), coins)
        np.add.at(lost, (at, tiers + tier), coins * lean[born])
    return lost
