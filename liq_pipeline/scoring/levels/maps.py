"""The liquidation map: notional by price, from the cohorts of every venue.

Belongs here: liquidation prices per tier, what the price has crossed since, bins around the reference price, and how
much of the market a map knows of. Does not: cohorts (cohorts.py), what people ask of it (fuel.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from liq_pipeline.scoring.bars import BarArrays, Booleans, Floats
from liq_pipeline.scoring.levels.cohorts import LONG, SHORT, Cohorts, cohorts_at
from liq_pipeline.scoring.levels.method import BIN_WIDTH, BINS, Method, nearest_distances, weights

SIDES: Final = ("long", "short")


@dataclass(frozen=True)
class LevelMaps:
    """Maps of all symbols at one time.

    reference_usd: (symbols,), the median of the venues' prices. notional_usd: (2, symbols, BINS): bin k holds what
    would be closed by force at prices k to k+1 widths from the reference, longs below it, shorts above it; NaN where no
    venue is known. known: (symbols, venues). coverage: (symbols,), placed open interest / all that is known or was
    within the window; the true notional may be as high as notional / coverage as far as that goes.
    """

    time_seconds: int
    symbols: tuple[str, ...]
    venues: tuple[str, ...]
    method_version: str
    reference_usd: Floats
    notional_usd: Floats
    known: Booleans
    silent: Booleans
    """(symbols, venues): known within the window and not now: they widen the range and add nothing."""
    coverage: Floats


def map_at(bars: BarArrays, method: Method, index: int) -> LevelMaps:
    """The map at the end of bar `index`, from the bars of the method's window up to it and no others."""
    shape = (len(bars.symbols), len(bars.venues))
    cohorts = cohorts_at(bars, method, index)
    known = cohorts.known.reshape(shape)
    prices = np.where(known, cohorts.last_usd.reshape(shape), np.nan)
    reference = _median(prices)
    by_series = notional_by_series(cohorts, method, np.repeat(reference, shape[1]), bars.venues)
    notional = np.zeros((2, shape[0], BINS))
    for venue in range(shape[1]):  # in a fixed order: a sum of floats depends on it
        part = by_series.reshape(2, *shape, BINS)[:, :, venue]
        notional = notional + np.where(known[:, venue, None], part, 0.0)
    placed = np.zeros(shape[0])
    everything = np.zeros(shape[0])
    last = cohorts.last_base.reshape(shape)
    # Coins on the map's cohorts, of the side that has fewer: what was open before the window is placed on neither.
    opened = np.cumsum(cohorts.open_base.min(axis=0), axis=1)[:, -1].reshape(shape)
    for venue in range(shape[1]):
        placed = placed + np.where(known[:, venue], opened[:, venue], 0.0)
        everything = everything + np.where(np.isfinite(last[:, venue]), last[:, venue], 0.0)
    anything = known.any(axis=1) & (everything > 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        coverage = np.where(anything, np.minimum(placed / everything, 1.0), 0.0)
    return LevelMaps(
        time_seconds=int(bars.start_seconds + index * bars.step_seconds),
        symbols=bars.symbols,
        venues=bars.venues,
        method_version=method.version,
        reference_usd=np.where(anything, reference, np.nan),
        notional_usd=np.where(anything[None, :, None], notional, np.nan),
        known=known,
        silent=np.isfinite(last) & ~known,
        coverage=coverage,
    )


def notional_by_series(cohorts: Cohorts, method: Method, reference_usd: Floats, venues: tuple[str, ...]) -> Floats:
    """(2, series, BINS) USD per bin; reference_usd: (series,). A tier nearer than its venue allows holds nothing."""
    distance, weight, lean_weight = weights(method)
    count = reference_usd.size
    allowed = np.tile(np.array(nearest_distances(venues)), count // len(venues))[:, None] <= distance[None, :]
    notional = np.empty((2, count, BINS))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = cohorts.price_usd / reference_usd[:, None]
    for side, sign in ((LONG, -1.0), (SHORT, 1.0)):
        level = relative[:, :, None] * (1.0 + sign * distance)
        away = sign * (level - 1.0)
        worst = (cohorts.low_usd if side == LONG else cohorts.high_usd) / reference_usd[:, None]
        alive = level < worst[:, :, None] if side == LONG else level > worst[:, :, None]
        lean = np.maximum(-sign * cohorts.lean, 0.0)
        share = (weight + lean[:, :, None] * lean_weight) * allowed[:, None, :]
        mass = (cohorts.open_base[side][:, :, None] * share) * (level * reference_usd[:, None, None])
        place = np.floor(away / BIN_WIDTH)
        # A level on the wrong side of the price, yet not crossed by any bar's end, goes at once: the first bin.
        usable = alive & (place < BINS) & np.isfinite(mass) & (place >= 0)
        series = np.broadcast_to(np.arange(count)[:, None, None], place.shape)[usable]
        cell = series * BINS + place[usable].astype(np.int64)
        notional[side] = np.bincount(cell, weights=mass[usable], minlength=count * BINS).reshape(count, BINS)
    return notional


def _median(prices: Floats) -> Floats:
    """Per symbol, of the known venues; NaN where none is."""
    known = np.isfinite(prices)
    count = known.sum(axis=1)
    ordered = np.sort(np.where(known, prices, np.inf), axis=1)
    rows = np.arange(prices.shape[0])
    low = ordered[rows, np.maximum((count - 1) // 2, 0)]
    high = ordered[rows, np.minimum(count // 2, prices.shape[1] - 1)]
    known_low, known_high = np.where(count > 0, low, np.nan), np.where(count > 0, high, np.nan)
    return known_low + (known_high - known_low) / 2.0
