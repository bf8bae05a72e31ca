"""Stablecoin pressure: user money moving into or out of exchanges, -100..100, over all chains that are followed.

Belongs here: which directions count, netting over the window and the chains, and the scale. Does not: what a transfer
is under a label list (domain/wallets.py), reading flows or labels (store/inputs/as_known.py), or fetching them
(sources/).

net = outflow - inflow over (T - window, T], in USD (the tokens are dollars), of the transfers that were known and
canonical as known at T. Only user flow counts: moves within an exchange, between exchanges, mints and burns move no
user's money. A chain's scale is the 95th percentile of its |net| over the look-back (the day's reference), so that zero
stays zero, the sign keeps its meaning, and 100 is a flow that one window in twenty reaches.

    score = net of the chains that count / scale of the chains that count, cut to -100..100, times the sign setting

A chain counts while it has been read and its look-back is warm. One that does not stands neither above nor below the
line: its silence moves nothing. It lowers coverage, by its share of all scales, and widens score_low .. score_high: it
may have moved as much as its scale, either way. LIQ_PRESSURE_SCALE_USD states one scale for all chains together.
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
class ChainFlows:
    """What is known of each chain: (chains, points).

    inflow_cents, outflow_cents: exact, 0 where not read; expected: whether anybody is expected to read the chain then;
    share: how many of those had done so, 0..1; scale_cents: NaN = warming.
    """

    names: tuple[str, ...]
    inflow_cents: Integers
    outflow_cents: Integers
    expected: Booleans
    share: Floats
    scale_cents: Floats


@dataclass(frozen=True)
class PressureArrays:
    """Per point: score (NaN = unknown) and how far it might be from it, exact cents, coverage, scale in cents.

    weight: (chains, points), each expected chain's share of all that is expected; counted: whether it is in the score.
    """

    score: Floats
    inflow_cents: Integers
    outflow_cents: Integers
    share: Floats
    scale_cents: Floats
    score_low: Floats
    score_high: Floats
    weight: Floats
    counted: Booleans


def user_flow(direction: str) -> int:
    """INFLOW, OUTFLOW, or NEITHER for what is no user's money."""
    return {"inflow": INFLOW, "outflow": OUTFLOW}.get(direction, NEITHER)


def scale_of(quantiles: Floats) -> float:
    """The scale, in cents, from the order statistics of |net|."""
    return float(quantiles[SCALE_QUANTILE])


def pressure_over_chains(chains: ChainFlows, sign: int, stated_scale_cents: float | None = None) -> PressureArrays:
    """Score every point over the chains. stated_scale_cents: of all of them together, in place of their own."""
    is_read = chains.expected & (chains.share > 0)
    warm = np.ones_like(is_read) if stated_scale_cents is not None else ~np.isnan(chains.scale_cents)
    counted = is_read & warm
    weight = _weights(chains)
    coverage = (weight * np.where(chains.expected, chains.share, 0.0)).sum(axis=0)
    inflow, outflow = (np.where(is_read, cents, 0).sum(axis=0) for cents in (chains.inflow_cents, chains.outflow_cents))
    net = np.where(counted, chains.outflow_cents - chains.inflow_cents, 0).sum(axis=0).astype(np.float64)
    if stated_scale_cents is None:
        scale = np.where(counted, chains.scale_cents, 0.0).sum(axis=0)
        scale = np.where(counted.any(axis=0), scale, np.nan)
        # What is not known weighs, against what is, as the shares of all that is expected say.
        with np.errstate(divide="ignore", invalid="ignore"):
            aside = scale * np.where(counted, 0.0, weight).sum(axis=0) / np.where(counted, weight, 0.0).sum(axis=0)
    else:
        scale = np.full(net.size, stated_scale_cents)
        aside = stated_scale_cents * np.where(counted, 0.0, weight).sum(axis=0)
    score = _scaled(net, scale)
    whole = scale if stated_scale_cents is not None else scale + aside
    low, high = (np.minimum(_scaled(net - aside, whole), score), np.maximum(_scaled(net + aside, whole), score))
    if sign < 0:
        low, high = high, low
    known = counted.any(axis=0)
    score, low, high = (np.where(known, sign * 100.0 * part + 0.0, np.nan) + 0.0 for part in (score, low, high))
    return PressureArrays(score, inflow, outflow, coverage, scale, low, high, weight, counted)


def pressure_arrays(
    inflow_cents: Integers,
    outflow_cents: Integers,
    fresh: Booleans,
    scale_cents: Floats,
    sign: int,
) -> PressureArrays:
    """Score every point of one chain. fresh: (venues, points) of its venues; scale_cents: (points,), NaN = warming.

    One fresh venue is enough to know the flows (each reads the whole chain); the share says how many agree to be alive.
    """
    share = fresh.sum(axis=0) / float(max(1, fresh.shape[0]))
    one = ChainFlows(
        names=("",),
        inflow_cents=inflow_cents[np.newaxis],
        outflow_cents=outflow_cents[np.newaxis],
        expected=np.ones((1, share.size), dtype=bool),
        share=share[np.newaxis],
        scale_cents=scale_cents[np.newaxis],
    )
    return pressure_over_chains(one, sign)


def _weights(chains: ChainFlows) -> Floats:
    """Each expected chain's share of all scales; one whose scale is not known yet counts as an average one."""
    known = chains.expected & ~np.isnan(chains.scale_cents)
    scales = np.where(known, chains.scale_cents, 0.0)
    count = known.sum(axis=0)
    average = np.where(count > 0, scales.sum(axis=0) / np.maximum(count, 1), 1.0)
    # A past without any flow has scale 0: where all have, each weighs the same.
    average = np.where(average == 0.0, 1.0, average)
    parts = np.where(chains.expected, np.where(known & (scales.sum(axis=0) > 0), scales, average), 0.0)
    weights: Floats = parts / np.maximum(parts.sum(axis=0), np.finfo(float).tiny)
    return weights


def _scaled(net: Floats, scale: Floats) -> Floats:
    """net / scale, cut to -1..1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        # A past without any flow has scale 0: any flow at all is then the largest ever seen.
        ratio = np.where(net == 0.0, 0.0, net / scale)
    ratio = np.where(np.isinf(net) & np.isinf(scale), np.sign(net), ratio)
    cut: Floats = np.clip(np.where(np.isnan(scale), np.nan, ratio), -1.0, 1.0)
    return cut
