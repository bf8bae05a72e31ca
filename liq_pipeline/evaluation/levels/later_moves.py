"""Does a move go further into dense fuel? The liquidation map against what the price did next.

Belongs here: hourly maps of the 5-min panel, moves that have begun, how much further they went, nulls. Does not: forced
orders themselves (forced_orders.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from liq_pipeline.evaluation.levels.truth import rank_correlation
from liq_pipeline.scoring.bars import BarArrays, Floats, Integers
from liq_pipeline.scoring.levels.cohorts import LONG, SHORT
from liq_pipeline.scoring.levels.maps import map_at
from liq_pipeline.scoring.levels.method import BIN_WIDTH, BINS, Method

LEAST_MOVE: Final = 0.01
"""A move has begun: the price has gone this far within an hour."""
AHEAD_HOURS: Final = 1
BANDS: Final = ((0.0, 0.01), (0.0, 0.02), (0.0, 0.03), (0.0, 0.05))
SHIFTS_DAYS: Final = (1, 2, 3)


@dataclass(frozen=True)
class HourlyMaps:
    """share: (hours, 2, symbols, BINS), notional as a share of open interest; at: (hours,) bar indices."""

    share: Floats
    at: Integers


def hourly_maps(bars: BarArrays, method: Method) -> HourlyMaps:
    """A map at every hour of the bars."""
    step = bars.rows_of(1)
    at = np.arange(step - 1, bars.count, step, dtype=np.int64)
    share = np.full((at.size, 2, len(bars.symbols), BINS), np.nan)
    for place, index in enumerate(at):
        found = map_at(bars, method, int(index))
        open_usd = np.nansum(bars.open_interest_base[:, :, index] * bars.price_usd[:, :, index], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share[place] = found.notional_usd / open_usd[None, :, None]
    return HourlyMaps(share, at)


def further_into_fuel(bars: BarArrays, maps: HourlyMaps) -> dict[str, Any]:
    """Rank correlation of the fuel ahead of a move with how much further it went within an hour, in units of the day's
    volatility; beside it the same with maps of 1 to 3 days before, and their difference over whole days."""
    hour = bars.rows_of(1)
    price = bars.price_usd[:, 0]
    rows: list[tuple[int, int, int, int, float]] = []
    for place, index in enumerate(maps.at):
        if place < 24 * 9 or index + hour * AHEAD_HOURS >= bars.count:
            continue
        day = price[:, index - 24 * hour : index + 1 : hour]
        with np.errstate(divide="ignore", invalid="ignore"):
            sigma = np.std(day[:, 1:] / day[:, :-1] - 1.0, axis=1)
            ahead = price[:, index + 1 : index + 1 + hour * AHEAD_HOURS] / price[:, index, None] - 1.0
            past = price[:, index] / price[:, index - hour] - 1.0
        for symbol in range(len(bars.symbols)):
            if not np.isfinite(past[symbol]) or abs(past[symbol]) < LEAST_MOVE or not np.isfinite(ahead[symbol]).all():
                continue
            side = LONG if past[symbol] < 0 else SHORT
            further = float(max((ahead[symbol] * (-1 if side == LONG else 1)).max(), 0.0) / sigma[symbol])
            rows.append((place, symbol, side, int(bars.end_seconds[index] // 86_400), further))
    further = np.array([row[4] for row in rows])
    days = np.array([row[3] for row in rows])
    result: dict[str, Any] = {"moves": len(rows), "days": int(np.unique(days).size)}
    for low, high in BANDS:
        band = slice(round(low / BIN_WIDTH), round(high / BIN_WIDTH))

        def fuel(back: int, band: slice = band) -> Floats:
            return np.array(
                [maps.share[place - 24 * back, side, symbol, band].sum() for place, symbol, side, _, _ in rows]
            )

        own, nulls = fuel(0), [fuel(back) for back in SHIFTS_DAYS]
        known = np.isfinite(own) & np.isfinite(further) & np.isfinite(np.sum(nulls, axis=0))
        low_rank, high_rank, gain_low, gain_high = _intervals(own, nulls, further, days, known)
        tercile = np.quantile(own[known], [1 / 3, 2 / 3])
        result[f"{low:g}-{high:g}"] = {
            "moves": int(known.sum()),
            "rank": rank_correlation(own[known], further[known]),
            "rank_low": low_rank,
            "rank_high": high_rank,
            "rank_shifted": float(np.mean([rank_correlation(null[known], further[known]) for null in nulls])),
            "gain_low": gain_low,
            "gain_high": gain_high,
            "further_sparse_third": float(np.median(further[known & (own <= tercile[0])])),
            "further_dense_third": float(np.median(further[known & (own >= tercile[1])])),
        }
    return result


def _intervals(
    own: Floats, nulls: list[Floats], further: Floats, days: Integers, known: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[float, float, float, float]:
    """90 % intervals over whole days: of the rank correlation, and of its gain over the shifted maps'."""
    places = [np.flatnonzero(known & (days == day)) for day in np.unique(days[known])]
    random = np.random.default_rng(1)
    ranks, gains = [], []
    for _ in range(300):
        drawn = np.concatenate([places[i] for i in random.integers(0, len(places), len(places))])
        rank = rank_correlation(own[drawn], further[drawn])
        ranks.append(rank)
        gains.append(rank - float(np.mean([rank_correlation(null[drawn], further[drawn]) for null in nulls])))
    return (*np.quantile(ranks, [0.05, 0.95]).tolist(), *np.quantile(gains, [0.05, 0.95]).tolist())
