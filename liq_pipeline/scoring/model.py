"""What a probability model offers to the tick.

Belongs here: the interface. Does not: any model (probability.py), or how one is trained (evaluation/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from liq_pipeline.scoring.bars import BarArrays, Booleans, Floats, Points
from liq_pipeline.scoring.risk import RiskArrays

HORIZON_HOURS: Final = (1, 4, 24)
PROBABILITY_REDUCED: Final = "probability from price alone"
"""The note of a signal whose model had to answer without open interest."""
PROBABILITY_OUTSIDE: Final = "probability outside its training range"
"""The note of a signal with an input that the model's training never saw; the inputs' names follow."""


@dataclass(frozen=True)
class Probabilities:
    """by_hours: horizon -> cascade probability, (symbols, points), NaN where an input is missing.

    early_warning: whether the 4 h probability is past the threshold stored with the model; only where it is known.
    """

    by_hours: dict[int, Floats]
    early_warning: Booleans
    is_reduced: Booleans | None = None
    """Whether fewer inputs than the model wants answered (no open interest, say); None: the model does not tell."""
    outside: Mapping[str, Booleans] | None = None
    """Input -> where it lies outside what the model was trained on; None: the model does not tell."""


class ProbabilityModel(Protocol):
    """A model in force. lookback_hours: how much of the bars before a point it reads."""

    @property
    def model_id(self) -> str: ...

    @property
    def lookback_hours(self) -> int: ...

    def predict(self, bars: BarArrays, points: Points, risk: RiskArrays) -> Probabilities:
        """Probabilities of every symbol at every point, from what was known at the point."""
        ...
