"""The early warning: is the market's 4 h probability among the highest of its own last month?

Belongs here: the market's probability, the reference it is compared with, the rule that pages. Does not: the
probability itself (probability.py), what people are told (alerting/).

Cascades come to the market as a whole, so the rule reads one number: the mean over the symbols of their
`cascade_probability_4h`. A threshold fixed in one regime is silent or shouting in the next (a threshold that kept the
budget on 2025's hourly data paged one major cascade in twenty of the winter after); the place within the own last 30
days keeps the rate of pages. For the UTC day D the reference are the hourly values of (D - 30 days, D], as for the
percentiles of the risk; until three days of them are known, the fixed threshold of the model answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from liq_pipeline.scoring.bars import Booleans, Floats, Integers
from liq_pipeline.scoring.references import DAY_SECONDS, KNOWN_SHARE, QUANTILES, order_statistics

WARNING_HORIZON_HOURS: Final = 4
MARKET_PROBABILITY: Final = "market_cascade_probability_4h"
"""The name of its reference where references are kept."""
REFERENCE_HOURS: Final = 720
SAMPLE_SECONDS: Final = 3600
"""The reference holds the values of whole hours: neighbouring bars say the same, and every grid has whole hours."""
NEEDED_HOURS: Final = 72
LEAST_KNOWN_SHARE: Final = 0.5
"""Share of the symbols that must have a probability; with fewer the mean speaks for others than it names."""


@dataclass(frozen=True)
class WarningReference:
    """days: whole days since 1970 UTC, ascending. quantiles: (days, 257); observations: (days,) whole hours known."""

    days: Integers
    quantiles: Floats
    observations: Integers


@dataclass(frozen=True)
class WarningRule:
    """rank: share (0..1) of the own last month that the market's probability must exceed. threshold: until that is
    known."""

    rank: float
    threshold: float

    def thresholds(self, time_seconds: Integers, reference: WarningReference | None) -> Floats:
        """The threshold at each time, from the reference of its UTC day where that has enough hours."""
        found = np.full(time_seconds.shape, self.threshold)
        if reference is None or not reference.days.size:
            return found
        day = time_seconds // DAY_SECONDS
        place = np.minimum(np.searchsorted(reference.days, day), reference.days.size - 1)
        counts = (reference.days[place] == day) & (reference.observations[place] >= KNOWN_SHARE * NEEDED_HOURS)
        at = int(np.ceil(self.rank * (QUANTILES - 1)))
        return np.where(counts, reference.quantiles[place, at], found)

    def as_json(self) -> dict[str, Any]:
        """For the model file."""
        return {"rank_within_30_days": self.rank, "threshold_until_known": self.threshold}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WarningRule:
        """Read what as_json wrote; raises KeyError, TypeError or ValueError on anything else."""
        return cls(float(data["rank_within_30_days"]), float(data["threshold_until_known"]))


def market_mean(values: Floats) -> Floats:
    """Mean over the symbols that are known, (symbols, times) -> (times,); NaN where fewer than half are.

    Added in the symbols' order, so that the result does not depend on how many times are computed at once.
    """
    known = ~np.isnan(values)
    total = np.zeros(values.shape[1])
    for symbol in range(values.shape[0]):
        total = total + np.where(known[symbol], values[symbol], 0.0)
    count = known.sum(axis=0)
    enough = (count > 0) & (count >= LEAST_KNOWN_SHARE * values.shape[0])
    return np.where(enough, total / np.maximum(count, 1), np.nan)


def is_past(market: Floats, threshold: Floats) -> Booleans:
    """Where the market's value exceeds its threshold; never where it is unknown."""
    with np.errstate(invalid="ignore"):
        return np.asarray(market > threshold)


def reference_days(time_seconds: Integers) -> Integers:
    """The UTC days of a grid."""
    return np.unique(time_seconds // DAY_SECONDS)


def warning_reference(time_seconds: Integers, market: Floats, days: Integers) -> WarningReference:
    """The reference of each day from the market's values on an ascending grid; what the grid lacks is unknown."""
    whole = time_seconds % SAMPLE_SECONDS == 0
    hours, values = time_seconds[whole], market[whole]
    quantiles = np.full((days.size, QUANTILES), np.nan)
    observations = np.zeros(days.size, dtype=np.int64)
    for place, day in enumerate(days):
        end = int(day) * DAY_SECONDS
        first, stop = np.searchsorted(hours, [end - REFERENCE_HOURS * 3600, end], side="right")
        quantiles[place], observations[place] = order_statistics(values[first:stop])
    return WarningReference(days, quantiles, observations)
