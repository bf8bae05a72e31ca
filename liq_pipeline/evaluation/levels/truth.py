"""The liquidation map against the simulator's own positions.

Belongs here: figures of one world and their intervals over worlds, each beside the nulls. Does not: playing worlds
(worlds.py), fitting (fit.py).

Judged within 10 % of the price: 40 bins of 0.25 % on each side, longs below and shorts above, at every look together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from liq_pipeline.evaluation.levels.worlds import TRUTH_EVERY, JudgedWorld
from liq_pipeline.scoring.bars import Floats
from liq_pipeline.scoring.levels.maps import map_at
from liq_pipeline.scoring.levels.method import BIN_WIDTH, Method

REACH_BINS: Final = 40
TENTH: Final = 2 * REACH_BINS // 10
SHIFTS_DAYS: Final = (1, 3, 7)
BANDS: Final = ((0.0, 0.02), (0.02, 0.05), (0.05, 0.10))
WARM_DAYS: Final = 8
"""Looks before that have no full window, or no map of seven days ago."""


@dataclass(frozen=True)
class Look:
    """One symbol at one time; maps and truth (2 * REACH_BINS,), USD."""

    estimate: Floats
    truth: Floats
    shifted: dict[int, Floats]
    atr_wide: Floats
    """The ATR null: densest where a usual day would end, as wide as half of that; it knows no positions."""


def looks_of(world: JudgedWorld, method: Method) -> list[Look]:
    """Every look of a world that has what the nulls need."""
    maps = [map_at(world.bars, method, int(at)) for at in world.truth_at]
    per_day = 86_400 // (TRUTH_EVERY * world.bars.step_seconds)
    found = []
    for look in range(WARM_DAYS * per_day, len(maps)):
        for symbol in range(len(world.bars.symbols)):
            shifted = {
                days: maps[look - days * per_day].notional_usd[:, symbol, :REACH_BINS].reshape(-1)
                for days in SHIFTS_DAYS
            }
            found.append(
                Look(
                    estimate=maps[look].notional_usd[:, symbol, :REACH_BINS].reshape(-1),
                    truth=world.truth_usd[look, :, symbol, :REACH_BINS].reshape(-1),
                    shifted=shifted,
                    atr_wide=_atr_null(world, symbol, int(world.truth_at[look])),
                )
            )
    return found


def figures_of(looks: Sequence[Look], profile: Floats) -> dict[str, float]:
    """The mean figures of a world. profile: (2 * REACH_BINS,), the null that knows the mean truth by distance alone."""
    rows: list[dict[str, float]] = []
    for look in looks:
        row = {
            "tenth": _tenth(look.estimate, look.truth),
            "tenth_best_possible": _tenth(look.truth, look.truth),
            "tenth_profile": _tenth(profile, look.truth),
            "tenth_atr": _tenth(look.atr_wide, look.truth),
            "rank": rank_correlation(look.estimate, look.truth),
            "rank_profile": rank_correlation(profile, look.truth),
            "total": float(look.estimate.sum() / look.truth.sum()),
        }
        for days, shifted in look.shifted.items():
            row[f"tenth_shifted_{days}d"] = _tenth(shifted, look.truth)
            row[f"rank_shifted_{days}d"] = rank_correlation(shifted, look.truth)
        for low, high in BANDS:
            part = _band(low, high)
            row[f"rank_{low:g}_{high:g}"] = rank_correlation(look.estimate[part], look.truth[part])
            row[f"total_{low:g}_{high:g}"] = float(look.estimate[part].sum() / max(look.truth[part].sum(), 1.0))
        for side, name in enumerate(("long", "short")):
            part = slice(side * REACH_BINS, (side + 1) * REACH_BINS)
            row[f"total_{name}"] = float(look.estimate[part].sum() / look.truth[part].sum())
        rows.append(row)
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    figures = {
        name: float(np.median(series)) if name.startswith("total") else float(np.nanmean(series))
        for name, series in values.items()
    }
    for name in [n for n in values if n.startswith("total")]:
        figures[f"{name}_within_1.5"] = float(np.mean((values[name] < 1.5) & (values[name] > 1 / 1.5)))
    return figures


def judged(worlds: Sequence[JudgedWorld], others: Sequence[JudgedWorld], method: Method) -> dict[str, Any]:
    """Mean over worlds, its 90 % interval by drawing whole worlds; others: where the profile is from."""
    profile = np.mean([w.truth_usd[:, :, :, :REACH_BINS].mean(axis=(0, 2)).reshape(-1) for w in others], axis=0)
    rows = [figures_of(looks_of(world, method), profile) for world in worlds]
    random = np.random.default_rng(1)
    drawn = random.integers(0, len(rows), (2000, len(rows)))
    result: dict[str, Any] = {"worlds": len(rows), "method_version": method.version}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        low, high = np.quantile(values[drawn].mean(axis=1), [0.05, 0.95])
        result[name] = {"mean": float(values.mean()), "low": float(low), "high": float(high)}
    return result


def rank_correlation(one: Floats, other: Floats) -> float:
    """Spearman's, ties sharing their mean rank."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts).astype(np.float64)
    return np.asarray((last - (counts - 1) / 2.0)[place])


def _tenth(order: Floats, truth: Floats) -> float:
    """Share of the truth in the densest tenth of the bins by `order`."""
    chosen = np.argsort(-order, kind="stable")[:TENTH]
    return float(truth[chosen].sum() / truth.sum())


def _band(low: float, high: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    away = (np.arange(REACH_BINS) + 0.5) * BIN_WIDTH
    inside = (away >= low) & (away < high)
    return np.concatenate([inside, inside])


def _atr_null(world: JudgedWorld, symbol: int, at: int) -> Floats:
    """Density by distance alone, as wide as the mean range of a day over the last week."""
    day = 86_400 // world.bars.step_seconds
    price = world.bars.price_usd[symbol, 0, at - 7 * day + 1 : at + 1].reshape(7, day)
    width = float(np.mean(price.max(axis=1) / price.min(axis=1) - 1.0))
    away = (np.arange(REACH_BINS) + 0.5) * BIN_WIDTH
    side = np.exp(-0.5 * ((away - width) / (0.5 * width)) ** 2)
    return np.concatenate([side, side])
