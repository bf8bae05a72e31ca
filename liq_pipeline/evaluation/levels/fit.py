"""The tiers' weights, fitted from the forced orders of venues that show them all.

Belongs here: what the cohorts would have lost at each tier, and the weights under which that is most likely what was
seen. Does not: choosing data (the caller's), the map.

For each block of time, side and tier: the coins of earlier cohorts whose liquidation price the block was the first to
cross. Forced orders are taken as Poisson counts around their weighted sum; the weights follow by expectation
maximisation, which keeps them at or above zero and needs no step size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from liq_pipeline.scoring.bars import BarArrays, Floats
from liq_pipeline.scoring.levels.cohorts import LONG, SHORT, blocks_at, lean_of, openings
from liq_pipeline.scoring.levels.method import Method, Tier


@dataclass(frozen=True)
class Crossed:
    """exposure: (rows, 2 * tiers), share of open interest that each tier, and each tier of a leaning crowd, would have
    lost if all of it stood there; seen: (rows,), what was closed by force."""

    exposure: Floats
    seen: Floats


def crossed(bars: BarArrays, method: Method) -> Crossed:
    """All bars as one window, of every series that shows its forced orders. Blocks end with the last bar."""
    hours = (bars.count - 1) * bars.step_seconds // 3600 // 24 * 24
    whole = Method(method.name, hours, method.block_minutes, method.closed_per_hour, method.tiers, method.source)
    blocks = blocks_at(bars, whole, bars.count - 1)
    opened, survived = openings(blocks, whole)
    lean = lean_of(blocks, whole)
    shows = ((bars.long_liquidated_cents >= 0) | (bars.short_liquidated_cents >= 0)).any(axis=2).reshape(-1)
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


def fitted_weights(data: Iterable[Crossed], tiers: int, rounds: int = 400) -> tuple[Floats, Floats]:
    """weight and lean_weight per tier."""
    many = list(data)
    exposure = np.concatenate([one.exposure for one in many])
    seen = np.concatenate([one.seen for one in many])
    total = exposure.sum(axis=0)
    value = np.full(exposure.shape[1], 1.0 / exposure.shape[1])
    floor = 1e-9
    for _ in range(rounds):
        expected = exposure @ value + floor
        gained = exposure.T @ (seen / expected)
        value = np.where(total > 0.0, value * gained / np.maximum(total, 1e-12), 0.0)
    return value[:tiers], value[tiers:]


def with_weights(method: Method, weight: Floats, lean_weight: Floats, source: str) -> Method:
    """The method with other weights, rounded: a file should say what is known."""
    tiers = tuple(
        Tier(tier.distance, round(float(w), 6), round(float(lean), 6))
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
