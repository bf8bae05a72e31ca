"""Figures about a score: ROC-AUC, PR-AUC, Brier skill, reliability, and day-block bootstrap intervals.

Belongs here: arithmetic on labels and scores. Does not: which scores, pages or reports there are.

"Within symbols" is the mean over symbols of the figure computed inside each: it does not reward knowing that one
coin is livelier than another. A symbol counts from MIN_POSITIVES positive rows on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

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
class Ranked:
    """Rows of one symbol in order of a score, so that a weighted figure costs one pass and no sort."""

    is_positive: Booleans
    day: Integers
    group_start: Integers
    """First row of each group of equal scores."""

    @classmethod
    def of(cls, is_positive: Booleans, score: Floats, day: Integers) -> Ranked:
        """Sort once; `day` is an index of blocks."""
        order = np.argsort(score, kind="stable")
        ordered = score[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if score.size else np.zeros(0)
        return cls(is_positive[order], day[order], starts.astype(np.int64))

    def sums(self, day_weight: Floats | None) -> tuple[Floats, Floats]:
        """Weight of positives and of negatives in each group, ascending by score."""
        weight = np.ones(self.day.size) if day_weight is None else day_weight[self.day]
        positive = np.add.reduceat(np.where(self.is_positive, weight, 0.0), self.group_start)
        negative = np.add.reduceat(np.where(self.is_positive, 0.0, weight), self.group_start)
        return positive, negative

    def roc_auc(self, day_weight: Floats | None = None) -> float:
        """Probability that a positive row outranks a negative one, ties counting half; NaN without both kinds."""
        positive, negative = self.sums(day_weight)
        total = positive.sum() * negative.sum()
        if total <= 0:
            return float("nan")
        below = np.cumsum(negative) - negative
        return float((positive * (below + 0.5 * negative)).sum() / total)

    def average_precision(self, day_weight: Floats | None = None) -> float:
        """Area under the precision-recall curve as the mean precision at each recall; NaN without positives."""
        positive, negative = self.sums(day_weight)
        if positive.sum() <= 0:
            return float("nan")
        hits, all_rows = np.cumsum(positive[::-1]), np.cumsum((positive + negative)[::-1])
        precision = hits / np.maximum(all_rows, 1e-300)
        return float((precision * positive[::-1]).sum() / positive.sum())

    def base_rate(self, day_weight: Floats | None = None) -> float:
        """Share of positive rows."""
        positive, negative = self.sums(day_weight)
        return float(positive.sum() / max(positive.sum() + negative.sum(), 1e-300))


def roc_auc(is_positive: Booleans, score: Floats) -> float:
    """ROC-AUC of known scores."""
    return Ranked.of(is_positive, score, np.zeros(score.size, dtype=np.int64)).roc_auc()


def average_precision(is_positive: Booleans, score: Floats) -> float:
    """PR-AUC (average precision) of known scores."""
    return Ranked.of(is_positive, score, np.zeros(score.size, dtype=np.int64)).average_precision()


def by_symbol(symbol: Integers, is_positive: Booleans, score: Floats, day: Integers) -> dict[int, Ranked]:
    """Ranked rows of every symbol with enough positives and at least one negative."""
    found = {}
    for index in np.unique(symbol):
        rows = symbol == index
        if is_positive[rows].sum() >= MIN_POSITIVES and not is_positive[rows].all():
            found[int(index)] = Ranked.of(is_positive[rows], score[rows], day[rows])
    return found


def mean_over(ranked: dict[int, Ranked], figure: Callable[[Ranked], float]) -> float:
    """Mean of a figure over symbols; NaN if none has one."""
    values = np.array([figure(rows) for rows in ranked.values()], dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


def precision_lift(rows: Ranked, day_weight: Floats | None = None) -> float:
    """PR-AUC over the base rate: how many times better than a constant."""
    base = rows.base_rate(day_weight)
    return rows.average_precision(day_weight) / base if base > 0 else float("nan")


@dataclass(frozen=True)
class Interval:
    """A figure with its 90 % interval from resampled days."""

    value: float
    low: float
    high: float


def paired_bootstrap(
    score: dict[int, Ranked],
    baseline: dict[int, Ranked] | None,
    figure: Callable[[Ranked, Floats | None], float],
    days: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """Within-symbol figure of a score (minus that of a baseline on the same rows), days drawn with replacement.

    Whole UTC days are drawn, the same for all symbols and both scores: rows of one day, and of one market, are not
    independent observations.
    """

    def value(day_weight: Floats | None) -> float:
        own = mean_over(score, lambda rows: figure(rows, day_weight))
        if baseline is None:
            return own
        return own - mean_over(baseline, lambda rows: figure(rows, day_weight))

    generator = np.random.default_rng(SEED)
    draws = [
        value(np.bincount(generator.integers(0, days, days), minlength=days).astype(np.float64))
        for _ in range(resamples)
    ]
    known = np.array([draw for draw in draws if np.isfinite(draw)])
    if known.size == 0:
        return Interval(value(None), float("nan"), float("nan"))
    low, high = np.percentile(known, INTERVAL)
    return Interval(value(None), float(low), float(high))


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
