"""What any score has to beat.

Belongs here: realised volatility and its rank, percentiles of funding and open interest, the naive reading of the
point table, a constant. Does not: our own scores.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.risk import RiskArrays, venue_mean
from liq_pipeline.scoring.windows import lag, rolling_mean

Floats = NDArray[np.float64]

VOLATILITY_4H: Final = "realised_volatility_4h"
VOLATILITY_24H: Final = "realised_volatility_24h"
CONSTANT: Final = "constant_per_symbol"
NAIVE: Final = "naive_point_table"
RANK_DAYS: Final = 30

NAIVE_FUNDING_FULL: Final = 0.001
NAIVE_OPEN_INTEREST_FULL: Final = 0.10
NAIVE_FLAT_PRICE: Final = 0.02
"""The point table read literally: funding of 0.1 % per 8 h is full points, so is open interest up 10 % in a day while
the price moved less than 2 %."""


def baseline_scores(panel: Panel, risk: RiskArrays) -> dict[str, Floats]:
    """Baseline name -> (symbols, times); NaN where unknown."""
    per_hour = 3600 // panel.step_seconds
    price, interest = panel["price_usd"], panel["open_interest_base"]
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.clip(np.log(price / lag(price, 1)), -0.7, 0.7)
        day_move = np.abs(price / lag(price, 24 * per_hour) - 1.0)
        day_build = interest / lag(interest, 24 * per_hour) - 1.0
    volatility = {h: np.sqrt(rolling_mean(steps * steps, h * per_hour, 0.5) * per_hour) for h in (4, 24)}
    funding = panel["funding_rate_per_8h"]
    naive_funding = 30.0 * np.clip(np.abs(funding) / NAIVE_FUNDING_FULL, 0.0, 1.0)
    naive_interest = 30.0 * np.clip(day_build / NAIVE_OPEN_INTEREST_FULL, 0.0, 1.0)
    naive_interest = np.where(day_move < NAIVE_FLAT_PRICE, naive_interest, 0.0 * day_build)
    naive = np.where(np.isnan(naive_funding), naive_interest, naive_funding + naive_interest)
    scores = {
        VOLATILITY_4H: volatility[4],
        VOLATILITY_24H: volatility[24],
        f"{VOLATILITY_4H}_rank": trailing_rank(volatility[4], panel),
        f"{VOLATILITY_24H}_rank": trailing_rank(volatility[24], panel),
        "funding_percentile": venue_mean(risk.percentiles["funding_rate_per_8h"]),
        "open_interest_percentile": venue_mean(risk.percentiles["open_interest_base"]),
        NAIVE: np.where(np.isnan(interest), np.nan, naive),
        CONSTANT: np.where(np.isnan(price), np.nan, 0.0),
    }
    return {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}


def trailing_rank(values: Floats, panel: Panel) -> Floats:
    """Rank of each value among the symbol's hourly values of the 30 days before its UTC day, 0..1."""
    day = panel.time // 86_400
    hourly = panel.time % 3600 == 0
    rank = np.full(values.shape, np.nan)
    for index in range(values.shape[0]):
        series, days = values[index, hourly], day[hourly]
        for current in np.unique(day):
            first, stop = np.searchsorted(days, [current - RANK_DAYS, current])
            past = np.sort(series[first:stop][~np.isnan(series[first:stop])])
            if past.size < 24 * 3:
                continue
            today = slice(*np.searchsorted(day, [current, current + 1]))
            now = values[index, today]
            place = (np.searchsorted(past, now, "left") + np.searchsorted(past, now, "right")) / (2.0 * past.size)
            rank[index, today] = np.where(np.isnan(now), np.nan, place)
    return rank
