"""What a person asks of a liquidation map: how much lies near the price, and where the nearest large heap is.

Belongs here: sums within a distance and the nearest cluster. Does not: the map (maps.py), words (alerting/telling/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from liq_pipeline.scoring.bars import Floats
from liq_pipeline.scoring.levels.cohorts import LONG, SHORT
from liq_pipeline.scoring.levels.maps import LevelMaps
from liq_pipeline.scoring.levels.method import BIN_WIDTH

WITHIN_PERCENT: Final = (1, 3, 5)
CLUSTER_FACTOR: Final = 2.0
"""A bin is part of a cluster if it holds so many times the mean of its side's bins within REACH."""
REACH: Final = 0.10
_REACH_BINS: Final = round(REACH / BIN_WIDTH)


@dataclass(frozen=True)
class Cluster:
    """The nearest run of bins that hold CLUSTER_FACTOR times their side's mean. distance: of its nearest edge, a
    fraction of the price; price_usd: of its densest bin's middle."""

    side: str
    distance: float
    price_usd: float
    notional_usd: float


@dataclass(frozen=True)
class Fuel:
    """Of one symbol; every amount is None where nobody's open interest is known. high_factor: the true amounts may be
    that many times larger for what venues fell silent or was opened before the window; None: nothing is known."""

    within_below_usd: dict[int, float | None]
    within_above_usd: dict[int, float | None]
    cluster_below: Cluster | None
    cluster_above: Cluster | None
    high_factor: float | None


def fuel_of(found: LevelMaps, symbol: int) -> Fuel:
    """The summary of one symbol's map."""
    reference = float(found.reference_usd[symbol])
    longs, shorts = found.notional_usd[LONG, symbol], found.notional_usd[SHORT, symbol]
    coverage = float(found.coverage[symbol])
    return Fuel(
        {percent: _within(longs, percent) for percent in WITHIN_PERCENT},
        {percent: _within(shorts, percent) for percent in WITHIN_PERCENT},
        nearest_cluster(longs, reference, "long"),
        nearest_cluster(shorts, reference, "short"),
        1.0 / coverage if coverage > 0.0 else None,
    )


def nearest_cluster(notional: Floats, reference_usd: float, side: str) -> Cluster | None:
    """The nearest cluster of one side; None where nothing is known, or all lies even."""
    near = notional[:_REACH_BINS]
    if not np.isfinite(near).all() or not near.any():
        return None
    dense = near > CLUSTER_FACTOR * in_order(near) / near.size
    if not dense.any():
        return None
    first = int(np.argmax(dense))
    stop = first + int(np.argmin(dense[first:])) if not dense[first:].all() else near.size
    peak = first + int(np.argmax(near[first:stop]))
    sign = -1.0 if side == "long" else 1.0
    price = reference_usd * (1.0 + sign * (peak + 0.5) * BIN_WIDTH)
    return Cluster(side, first * BIN_WIDTH, price, in_order(near[first:stop]))


def in_order(values: Floats) -> float:
    """A sum whose order of additions is fixed."""
    return float(np.cumsum(values)[-1]) if values.size else 0.0


def _within(notional: Floats, percent: int) -> float | None:
    part = notional[: round(percent / 100 / BIN_WIDTH)]
    return in_order(part) if np.isfinite(part).all() else None
