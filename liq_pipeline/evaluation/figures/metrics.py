"""Figures about a score: ROC-AUC, PR-AUC, Brier skill, reliability, and day-block bootstrap intervals.

Belongs here: arithmetic on labels and scores. Does not: which scores, pages or reports there are.

"Within symbols" is the mean over symbols of the figure computed inside each: it does not reward knowing that one
coin is livelier than another. A symbol counts from MIN_POSITIVES positive rows on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

MIN_POSITIVES: Final = 5
RESAMPLES: Final = 200
INTERVAL: Final = (5.0, 95.0)
RELIABILITY_BINS: Final = 10
SEED: Final = 20_260_116


@dataclass(frozen=True)
class Counts:
    """Rows held against the positive ones in ascending order of score: all that ROC-AUC and PR-AUC need.

    Only the positives are sorted, and they are few.
    """

    at_least: Integers
    """For each positive: rows that score at least as high."""
    positives_at_least: Integers
    negatives_below: Floats
    """For each positive: negatives that score lower, ties counting half."""
    rows: int

    @classmethod
    def of(cls, is_positive: Booleans, score: Floats) -> Counts:
        """Count; scores must be known."""
        hits = np.sort(score[is_positive])
        negative = score[~is_positive]

        def at_least(values: Floats, side: Literal["left", "right"]) -> Integers:
            found = np.bincount(np.searchsorted(hits, values, side=side), minlength=hits.size + 1)
            return np.asarray(np.cumsum(found[::-1])[::-1][1:], dtype=np.int64)

        reaching, above, own = at_least(negative, "right"), at_least(negative, "left"), at_least(hits, "right")
        below = (negative.size - 0.5 * (reaching + above)).astype(np.float64)
        return cls(reaching + own, own, below, score.size)

    def roc_auc(self) -> float:
        """Probability that a positive row outranks a negative one, ties counting half; NaN without both kinds."""
        positives = self.at_least.size
        total = positives * (self.rows - positives)
        return float(self.negatives_below.sum() / total) if total else float("nan")

    def average_precision(self) -> float:
        """Area under the precision-recall curve as the mean precision at each recall; NaN without positives."""
        return float((self.positives_at_least / self.at_least).mean()) if self.at_least.size else float("nan")

    def base_rate(self) -> float:
        """Share of positive rows."""
        return self.at_least.size / self.rows if self.rows else float("nan")


def roc_auc(is_positive: Booleans, score: Floats) -> float:
    """ROC-AUC of known scores."""
    return Counts.of(is_positive, score).roc_auc()


def average_precision(is_positive: Booleans, score: Floats) -> float:
    """PR-AUC (average precision) of known scores."""
    return Counts.of(is_positive, score).average_precision()


def symbol_slices(symbol: Integers, is_positive: Booleans) -> list[slice]:
    """The rows of every symbol with enough positives and at least one negative; `symbol` must be ascending."""
    edges = np.flatnonzero(np.diff(symbol)) + 1
    bounds = [0, *edges.tolist(), symbol.size]
    found = []
    for first, stop in itertools.pairwise(bounds):
        positives = int(is_positive[first:stop].sum())
        if MIN_POSITIVES <= positives < stop - first:
            found.append(slice(first, stop))
    return found


def by_symbol(symbol: Integers, is_positive: Booleans, score: Floats) -> list[Counts]:
    """Counts of every symbol that counts; rows in ascending order of `symbol`."""
    return [Counts.of(is_positive[rows], score[rows]) for rows in symbol_slices(symbol, is_positive)]


def mean_over(counts: list[Counts], figure: Callable[[Counts], float]) -> float:
    """Mean of a figure over symbols; NaN if none has one."""
    return float(np.mean([figure(rows) for rows in counts])) if counts else float("nan")


def precision_lift(rows: Counts) -> float:
    """PR-AUC over the base rate: how many times better than a constant."""
    return rows.average_precision() / rows.base_rate()


@dataclass(frozen=True)
class Interval:
    """A figure with its 90 % interval from resampled days."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class DayBlocks:
    """Counts of one symbol's rows against its positive rows, by day: any reweighting of days is two matrix products.

    (positives, days): how many rows score at least as high as the positive, how many of them are positive, and how many
    negatives score lower (ties half).
    """

    day: Integers
    at_least: Floats
    positives_at_least: Floats
    negatives_below: Floats
    positives: Floats
    negatives: Floats

    @classmethod
    def of(cls, is_positive: Booleans, scores: Floats, day: Integers, days: int) -> DayBlocks:
        """From the rows of one symbol, in any order; `day` is each row's block, below `days`."""
        order = np.argsort(scores[is_positive], kind="stable")
        hits, hit_day = scores[is_positive][order], day[is_positive][order]
        count = hits.size

        def table(chosen: Booleans, side: Literal["left", "right"]) -> Floats:
            place = np.searchsorted(hits, scores[chosen], side=side)
            flat = np.bincount(place * days + day[chosen], minlength=(count + 1) * days)
            return flat.reshape(count + 1, days).astype(np.float64)

        def from_above(counts: Floats) -> Floats:
            return np.asarray(np.cumsum(counts[::-1], axis=0)[::-1][1:], dtype=np.float64)

        negative = ~is_positive
        negatives = np.bincount(day[negative], minlength=days).astype(np.float64)
        # A row is at or above positive i if its place from the right is past i, strictly above if from the left.
        at_or_above = from_above(table(negative, "right"))
        above = from_above(table(negative, "left"))
        own = from_above(table(is_positive, "right"))
        return cls(
            hit_day,
            at_or_above + own,
            own,
            negatives - 0.5 * (at_or_above + above),
            np.bincount(hit_day, minlength=days).astype(np.float64),
            negatives,
        )

    def roc_auc(self, weights: Floats) -> Floats:
        """ROC-AUC under each row of day weights (draws, days)."""
        own = weights[:, self.day]
        won = (own * (weights @ self.negatives_below.T)).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(won / ((weights @ self.positives) * (weights @ self.negatives)), dtype=np.float64)

    def precision_lift(self, weights: Floats) -> Floats:
        """PR-AUC over the base rate under each row of day weights."""
        own = weights[:, self.day]
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = (weights @ self.positives_at_least.T) / (weights @ self.at_least.T)
            hits, missed = weights @ self.positives, weights @ self.negatives
            mean = (own * np.where(own > 0, precision, 0.0)).sum(axis=1) / hits
            return np.asarray(mean / (hits / (hits + missed)), dtype=np.float64)


def day_draws(days: int, resamples: int = RESAMPLES) -> Floats:
    """The whole sample, then resamples of whole days with replacement, as day weights (1 + resamples, days)."""
    generator = np.random.default_rng(SEED)
    drawn = [np.bincount(generator.integers(0, days, days), minlength=days) for _ in range(resamples)]
    return np.vstack([np.ones(days), *drawn]).astype(np.float64)


def day_blocks(symbol: Integers, is_positive: Booleans, score: Floats, day: Integers, days: int) -> list[DayBlocks]:
    """Blocks of every symbol that counts; rows in ascending order of `symbol`."""
    return [
        DayBlocks.of(is_positive[rows], score[rows], day[rows], days) for rows in symbol_slices(symbol, is_positive)
    ]


def bootstrap(
    score: list[DayBlocks],
    baseline: list[DayBlocks] | None,
    figure: Callable[[DayBlocks, Floats], Floats],
    draws: Floats,
) -> Interval:
    """Within-symbol figure of a score (minus that of a baseline on the same rows) with its 90 % interval.

    Whole UTC days are drawn, the same for all symbols and both scores: rows of one day, and of one market, are not
    independent observations.
    """
    values = _mean_over_symbols(score, figure, draws)
    if baseline is not None:
        values = values - _mean_over_symbols(baseline, figure, draws)
    known = values[1:][np.isfinite(values[1:])]
    if known.size == 0:
        return Interval(float(values[0]), float("nan"), float("nan"))
    low, high = np.percentile(known, INTERVAL)
    return Interval(float(values[0]), float(low), float(high))


def _mean_over_symbols(blocks: list[DayBlocks], figure: Callable[[DayBlocks, Floats], Floats], draws: Floats) -> Floats:
    """Symbols without a positive in a draw are left out of it."""
    if not blocks:
        return np.full(draws.shape[0], np.nan)
    values = np.stack([figure(block, draws) for block in blocks])
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0), dtype=np.float64)


def share_interval(hits: Sequence[bool], block: Sequence[int], resamples: int = RESAMPLES * 5) -> Interval:
    """A share of events with its 90 % interval, events of one block (a day) drawn together."""
    if not hits:
        return Interval(float("nan"), float("nan"), float("nan"))
    _, index = np.unique(np.asarray(block), return_inverse=True)
    blocks = int(index.max()) + 1
    good = np.bincount(index, weights=np.asarray(hits, dtype=np.float64), minlength=blocks)
    size = np.bincount(index, minlength=blocks).astype(np.float64)
    drawn = np.random.default_rng(SEED).integers(0, blocks, (resamples, blocks))
    shares = good[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    low, high = np.percentile(shares, INTERVAL)
    return Interval(float(good.sum() / size.sum()), float(low), float(high))


def brier_skill(symbol: Integers, is_positive: Booleans, probability: Floats) -> float:
    """1 - Brier score / that of each symbol's own observed base rate (which no forecaster could know beforehand)."""
    target = is_positive.astype(np.float64)
    index, count = np.unique(symbol, return_inverse=True)[1], np.bincount(symbol)
    count = count[count > 0]
    base = np.bincount(index, weights=target) / count
    reference = float(((base[index] - target) ** 2).mean())
    return float("nan") if reference == 0 else 1.0 - float(((probability - target) ** 2).mean()) / reference


def reliability(is_positive: Booleans, probability: Floats) -> list[dict[str, float]]:
    """Stated and observed frequency in bins of equal numbers of rows, lowest first."""
    order = np.argsort(probability, kind="stable")
    return [
        {
            "rows": int(part.size),
            "stated": float(probability[part].mean()),
            "observed": float(is_positive[part].mean()),
        }
        for part in np.array_split(order, RELIABILITY_BINS)
        if part.size
    ]


def highest_percent(is_positive: Booleans, probability: Floats) -> dict[str, float]:
    """Stated and observed frequency in the highest 1 % of rows."""
    if probability.size == 0:
        return {"rows": 0, "stated": float("nan"), "observed": float("nan")}
    count = max(1, probability.size // 100)
    top = np.argpartition(probability, probability.size - count)[-count:]
    return {
        "rows": int(count),
        "stated": float(probability[top].mean()),
        "observed": float(is_positive[top].mean()),
    }
