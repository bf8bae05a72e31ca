"""Stablecoin pressure: user money moving into or out of exchanges, -100..100.

Belongs here: which directions count, netting over the window, and the scale. Does not: what a transfer is under a label
list (domain/wallets.py), reading flows or labels (store/inputs/as_known.py), or fetching them (sources/).

net = outflow - inflow over (T - window, T], in USD (the tokens are dollars), of the transfers that were known and
canonical as known at T. Only user flow counts: moves within an exchange, between exchanges, mints and burns move no
user's money. The score is net / scale, cut to -100..100, times the sign setting. The scale is the 95th percentile of
|net| over the look-back (the day's reference), so that zero stays zero, the sign keeps its meaning, and 100 is a flow
that one window in twenty reaches; LIQ_PRESSURE_SCALE_USD states one instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from liq_pipeline.scoring.bars import Booleans, Floats, Integers
from liq_pipeline.scoring.references import QUANTILES

SCALE_QUANTILE: Final = round(0.95 * (QUANTILES - 1))
"""Which of the 257 order statistics of |net| scales the score."""
INFLOW, OUTFLOW, NEITHER = -1, 1, 0


@dataclass(frozen=True)
class PressureArrays:
    """Per point: score (NaN = unknown), exact cents, share of the expected venues that are fresh, scale in cents."""

    score: Floats
    inflow_cents: Integers
    outflow_cents: Integers
    share: Floats
    scale_cents: Floats


def user_flow(direction: str) -> int:
    """INFLOW, OUTFLOW, or NEITHER for what is no user's money."""
    return {"inflow": INFLOW, "outflow": OUTFLOW}.get(direction, NEITHER)


def scale_of(quantiles: Floats) -> float:
    """The scale, in cents, from the order statistics of |net|."""
    return float(quantiles[SCALE_QUANTILE])


def pressure_arrays(
    inflow_cents: Integers,
    outflow_cents: Integers,
    fresh: Booleans,
    scale_cents: Floats,
    sign: int,
) -> PressureArrays:
    """Score every point. fresh: (venues, points) of the expected flow venues; scale_cents: (points,), NaN = warming.

    One fresh venue is enough to know the flows (each reads the whole chain); the share says how many agree to be alive.
    """
    share = fresh.sum(axis=0) / float(max(1, fresh.shape[0]))
    net = (outflow_cents - inflow_cents).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A past without any flow has scale 0: any flow at all is then the largest ever seen.
        ratio = np.where(net == 0.0, 0.0, net / scale_cents)
    ratio = np.where(np.isnan(scale_cents), np.nan, ratio)
    score = np.where(share > 0, sign * 100.0 * np.clip(ratio, -1.0, 1.0), np.nan)
    return PressureArrays(score + 0.0, inflow_cents, outflow_cents, share, scale_cents)
