"""The rules that say a cascade is under way: the plain one, and the model that stands beside it.

Belongs here: what opens and what counts as calm, as arrays. Does not: excursions (excursions.py), results (decide.py),
what an alert makes of it (alerting/deciding/).

**Plain**: within 30 min the price has run 0.6 theta while open interest fell 1.5 %. **Model**: two logistic regressions
over a handful of numbers. The first reads the group: is a cascade of this direction running anywhere? The second reads
the symbol, with the first one's log-odds: is it running here? A symbol opens where both are past their thresholds. The
second one's probability is `under_way_probability`. docs/evaluation.md has the figures of both, on the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import numpy as np

from liq_pipeline.errors import LiqError
from liq_pipeline.scoring.bars import Booleans, Floats
from liq_pipeline.scoring.under_way.excursions import DIRECTIONS, Excursions, Market, Side, market

MODEL_FORMAT: Final = 1
SHIPPED_FILE: Final = "under_way.json"
CALM_MOVE: Final = 0.3
CALM_FALL: Final = 0.005
"""Calm: in the last 30 min the price ran less than this part of theta either way, and open interest fell by less."""
MARKET_FEATURES: Final = ("largest_cascade", "largest_burst", "third_burst", "largest_run")
OWN_FEATURES: Final = ("cascade", "burst", "run", "recent", "open_interest_fall_30m_percent", "market_log_odds")
LARGEST_LOG_ODDS: Final = 4.0


@dataclass(frozen=True)
class Logistic:
    """log-odds = intercept + sum of coefficient x feature, added in the features' order."""

    intercept: float
    coefficients: Mapping[str, float]

    def log_odds(self, found: Mapping[str, Floats]) -> Floats:
        """NaN where a feature is unknown."""
        total = np.full_like(next(iter(found.values())), self.intercept)
        for name, coefficient in self.coefficients.items():
            total = total + coefficient * found[name]
        return total

    def as_json(self) -> dict[str, Any]:
        return {"intercept": self.intercept, "coefficients": dict(self.coefficients)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], names: tuple[str, ...]) -> Logistic:
        given = data["coefficients"]
        if set(given) != set(names):
            raise ValueError(f"the features are {sorted(given)}, not {sorted(names)}")
        return cls(float(data["intercept"]), {name: float(given[name]) for name in names})


@dataclass(frozen=True)
class UnderWayModel:
    """A model of the moment. market_threshold, own_threshold: probabilities that both must be past; facts: how it was
    made and what it did (docs/models.md)."""

    model_id: str
    market: Logistic
    own: Logistic
    market_threshold: float
    own_threshold: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The model file."""
        return {
            "format": MODEL_FORMAT,
            "model_id": self.model_id,
            "market": self.market.as_json(),
            "own": self.own.as_json(),
            "market_threshold": self.market_threshold,
            "own_threshold": self.own_threshold,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> UnderWayModel:
        """Read a model file's object. Raises LiqError with one sentence if it is not one."""
        try:
            if data["format"] != MODEL_FORMAT:
                raise LiqError(f"this under-way model has format {data['format']}, this program reads {MODEL_FORMAT}")
            return cls(
                str(data["model_id"]),
                Logistic.from_json(data["market"], MARKET_FEATURES),
                Logistic.from_json(data["own"], OWN_FEATURES),
                float(data["market_threshold"]),
                float(data["own_threshold"]),
                dict(data.get("facts", {})),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LiqError(f"this is not an under-way model of this program: {error}") from error


@dataclass(frozen=True)
class Readings:
    """What a rule says of each direction, (symbols, points). probability: NaN = unknown, or the rule states none."""

    holds: dict[int, Booleans]
    probability: dict[int, Floats]
    market_probability: dict[int, Floats]
    known: Booleans
    """Where the rule can be judged at all."""


def market_features(of: Market) -> dict[str, Floats]:
    """The group's numbers by the model's names."""
    return {name: getattr(of, name) for name in MARKET_FEATURES}


def own_features(side: Side, found: Excursions, market_log_odds: Floats) -> dict[str, Floats]:
    """The symbol's numbers by the model's names."""
    fall = np.clip(-100.0 * found.open_interest_change_30m, -8.0, 8.0)
    return {
        "cascade": side.cascade,
        "burst": side.burst,
        "run": side.run,
        "recent": side.recent,
        # Half an hour ago is unknown after a hole: then the fall counts as none, and what is seen of it as `cascade`.
        "open_interest_fall_30m_percent": np.where(np.isfinite(fall), fall, 0.0),
        "market_log_odds": np.clip(market_log_odds, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS),
    }


def by_plain_rule(found: Excursions) -> Readings:
    """The plain rule."""
    nothing = np.full(found.price_known.shape, np.nan)
    holds = {}
    for d in DIRECTIONS:
        with np.errstate(invalid="ignore"):
            holds[d] = np.asarray(found.sides[d].plain >= 1.0)
    unknown = dict.fromkeys(DIRECTIONS, nothing)
    return Readings(holds, unknown, unknown, found.price_known & found.open_interest_known)


def by_model(found: Excursions, model: UnderWayModel) -> Readings:
    """The model's reading."""
    holds, own, whole = {}, {}, {}
    for d in DIRECTIONS:
        odds = model.market.log_odds(market_features(market(found.sides[d])))
        whole[d] = _sigmoid(odds)
        own[d] = _sigmoid(model.own.log_odds(own_features(found.sides[d], found, odds)))
        with np.errstate(invalid="ignore"):
            holds[d] = (whole[d] > model.market_threshold) & (own[d] > model.own_threshold)
    return Readings(holds, own, whole, found.price_known & found.open_interest_known)


def calm(found: Excursions) -> tuple[Booleans, Booleans]:
    """(is calm, can be judged): open interest has stopped falling and the price has calmed."""
    with np.errstate(invalid="ignore"):
        quiet = (found.sides[DIRECTIONS[0]].recent < CALM_MOVE) & (found.sides[DIRECTIONS[1]].recent < CALM_MOVE)
        steady = found.open_interest_change_30m > -CALM_FALL
    known = found.price_known & np.isfinite(found.open_interest_change_30m)
    return np.asarray(quiet & steady & known), np.asarray(known)


def _sigmoid(odds: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-odds)), dtype=np.float64)


@lru_cache(maxsize=1)
def shipped_under_way_model() -> UnderWayModel | None:
    """The model that comes with the program; None where the plain rule speaks because none has beaten it."""
    file = resources.files("liq_pipeline.scoring") / "models" / SHIPPED_FILE
    return UnderWayModel.from_json(json.loads(file.read_text())) if file.is_file() else None
