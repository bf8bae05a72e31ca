"""The assumptions of the liquidation map, as numbers under one version.

Belongs here: what a method is, its files, which of them a venue is read with, and how near a venue lets a position be
to its liquidation. Does not: the arithmetic (cohorts.py, maps.py), fitting the numbers (evaluation/levels/fit.py).

A tier is a distance: the fraction the price has to go against a position, from where it was opened, until it is closed
by force. For leverage l and maintenance margin m it is about 1/l - m; cross margin, added margin and part-closed
positions make it anything else, which is why the weights of the tiers are fitted and not read off a leverage table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import numpy as np

from liq_pipeline.scoring.bars import Floats

CODE_VERSION: Final = 1
"""Raised with every change of the arithmetic that changes a map."""
BIN_WIDTH: Final = 0.0025
"""Of a map's bins, as a fraction of its reference price."""
BINS: Final = 60
"""Bins on each side of the price: the map reaches 15 % down and up."""
METHODS_FILE: Final = "levels.json"
SIMULATED_PREFIX: Final = "sim_"


@dataclass(frozen=True)
class Tier:
    """One distance to liquidation. weight: share of what is opened that stands there; lean_weight: added to it where
    the crowd stands wholly on that side (lean 1)."""

    distance: float
    weight: float
    lean_weight: float


@dataclass(frozen=True)
class Method:
    """Everything a map depends on besides its bars."""

    name: str
    window_hours: int
    """Bars that a map at T looks back on. What was opened before is not on it."""
    block_minutes: int
    """Openings are told from changes of open interest over so long; a finer step mistakes noise for turnover."""
    closed_per_hour: float
    """Share of open positions that are closed by their holders within an hour, and replaced by others."""
    tiers: tuple[Tier, ...]
    source: str
    """Where the numbers come from, for people."""

    def __post_init__(self) -> None:
        if not 0.0 < self.closed_per_hour < 1.0:
            raise ValueError(
                f"levels method {self.name}: closed_per_hour is {self.closed_per_hour}, not within 0 and 1"
            )
        if self.block_minutes <= 0 or (self.window_hours * 60) % self.block_minutes:
            raise ValueError(f"levels method {self.name}: {self.block_minutes} min do not divide its window")
        distances = [tier.distance for tier in self.tiers]
        if distances != sorted(distances) or not distances or distances[0] <= 0.0 or distances[-1] >= 1.0:
            raise ValueError(f"levels method {self.name}: distances must rise, within 0 and 1")

    @property
    def version(self) -> str:
        """Name and a hash of every number: two maps of one version were made the same way."""
        text = json.dumps([CODE_VERSION, BIN_WIDTH, BINS, asdict(self)], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Method:
        """The inverse of to_json()."""
        return cls(**{**values, "tiers": tuple(Tier(**tier) for tier in values["tiers"])})


@dataclass(frozen=True)
class Nearest:
    """The least distance to liquidation at which a venue lets a position be opened: 1/leverage - maintenance margin,
    of the lowest bracket. source and date say where it was read."""

    distance: float
    source: str
    date: str


NEAREST: Final[Mapping[str, Nearest]] = {
    "okx": Nearest(0.0040, "OKX, position tiers of BTCUSD, tier 1: 125 x, 0.4 %", "2024"),
    "hyperliquid": Nearest(0.0125, "BTC: maxLeverage 40 in metaAndAssetCtxs; maintenance half of that margin", "2025"),
    "dydx": Nearest(0.0080, "BTC-USD in perpetualMarkets: initial 2 %, maintenance 1.2 %", "2025"),
}
"""By venue, for its largest contract; others take OTHER_NEAREST. Smaller contracts allow less leverage, which fitted
weights know and this table does not."""
OTHER_NEAREST: Final = Nearest(0.0040, "assumed: 125 x with 0.4 %, the most that large venues offer", "2025")


def nearest_distances(venues: tuple[str, ...]) -> list[float]:
    """The least distance per venue."""
    return [NEAREST.get(venue, OTHER_NEAREST).distance for venue in venues]


@lru_cache(maxsize=1)
def shipped_methods() -> dict[str, Method]:
    """The methods that come with the program: `real` and `simulated`."""
    file = resources.files("liq_pipeline.scoring") / "models" / METHODS_FILE
    return {name: Method.from_json(values) for name, values in json.loads(file.read_text()).items()}


def method_of(world: str) -> Method:
    """The method a world is read with: a simulated market has a crowd of its own."""
    return shipped_methods()["simulated" if world.startswith("simulated/") else "real"]


def weights(method: Method) -> tuple[Floats, Floats, Floats]:
    """distance, weight, lean_weight, each (tiers,)."""
    rows = np.array([[tier.distance, tier.weight, tier.lean_weight] for tier in method.tiers], dtype=np.float64)
    return rows[:, 0].copy(), rows[:, 1].copy(), rows[:, 2].copy()
