"""What a probability model offers to the tick.

Belongs here: the interface. Does not: any model (probability.py), or how one is trained (evaluation/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from liq_pipeline.scoring.bars import BarArrays, Booleans, Floats, Integers, Points
from liq_pipeline.scoring.early_warning import WarningReference
from liq_pipeline.scoring.risk import RiskArrays

HORIZON_HOURS: Final = (1, 4, 24)
ALL_COLUMNS_HOURS: Final = 36
"""How far back a tick reads all columns of the bars: the features' 25 h, the excursions' 30 h, and slack."""
PROBABILITY_REDUCED: Final = "probability from price alone"
"""The note of a signal whose model had to answer without open interest."""
PROBABILITY_OUTSIDE: Final = "probability outside its training range"
"""The note of a signal with an input that the model's training never saw; the inputs' names follow."""


@dataclass(frozen=True)
class Probabilities:
    """by_hours: horizon -> cascade probability, (symbols, points), NaN where an input is missing.

    early_warning: whether the market's 4 h probability is past its threshold (early_warning.py); only where the
    symbol's own is known.
    """

    by_hours: dict[int, Floats]
    early_warning: Booleans
    is_reduced: Booleans | None = None
    """Whether fewer inputs than the model wants answered (no open interest, say); None: the model does not tell."""
    outside: Mapping[str, Booleans] | None = None
    """Input -> where it lies outside what the model was trained on; None: the model does not tell."""
    market_probability: Floats | None = None
    """(points,): what the early warning reads, and the threshold it is held against; NaN = cannot be judged."""
    market_threshold: Floats | None = None


class ProbabilityModel(Protocol):
    """A model in force.

    lookback_hours: how much of the bars before a point it reads; beyond ALL_COLUMNS_HOURS price and open interest only,
    since nothing else is there then.
    """

    @property
    def model_id(self) -> str: ...

    @property
    def lookback_hours(self) -> int: ...

    def predict(
        self, bars: BarArrays, points: Points, risk: RiskArrays, reference: WarningReference | None = None
    ) -> Probabilities:
        """Probabilities of every symbol at every point, from what was known at the point."""
        ...

    def warning_reference(self, bars: BarArrays, days: Integers) -> WarningReference:
        """What the early warning of these days compares with, from the bars of the 30 days before and a look-back."""
        ...
