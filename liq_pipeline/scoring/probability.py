"""The cascade probability: features of price, open interest and the hour, and a logistic model over them.

Belongs here: the features (pure, vectorised), the model file and inference with numpy. Does not: fitting
(evaluation/models/training.py), labels (evaluation/labels/version_1.py), or which model is in force (store).

A cascade is a move past a threshold theta(t) together with a fall of open interest (CONTRACTS.md). The features ask
what stands against that: how large the volatility is beside theta, how lively open interest is, how much was built up
within the week, how deep the price stands under its high, whether a cascade is under way (of the symbol within the day,
of BTC and ETH within 4 h: cascades come in clusters), what BTC and ETH did in the last hour, and the hour of the week.
Each is scale-free, so that coins and grids share one set of coefficients. docs/evaluation.md gives what each
one adds. Every feature is computed per venue and averaged over the venues that know it. Unknown is NaN: without
open interest the price-only coefficients answer, and `is_reduced` says so; without a price nothing does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np

from liq_pipeline.errors import LiqError
from liq_pipeline.scoring.bars import BarArrays, Booleans, Floats, Integers, Points, bars_between
from liq_pipeline.scoring.early_warning import (
    WARNING_HORIZON_HOURS,
    WarningReference,
    WarningRule,
    is_past,
    market_mean,
    reference_days,
    warning_reference,
)
from liq_pipeline.scoring.features import take
from liq_pipeline.scoring.model import HORIZON_HOURS, Probabilities
from liq_pipeline.scoring.risk import RiskArrays, venue_mean
from liq_pipeline.scoring.windows import (
    lag,
    rolling_count,
    rolling_max,
    rolling_mean,
    rolling_min,
    rolling_sum,
    tail,
)

MODEL_FORMAT: Final = 2
SHIPPED_MODEL: Final = "shipped.json"

WEEK_HOURS: Final = 168
LOOKBACK_HOURS: Final = WEEK_HOURS + 1
HALF_KNOWN: Final = 0.5
"""Share of a window that must be known; with less the feature is unknown."""
LEADERS: Final = ("BTC", "ETH")

THRESHOLD_FLOOR: Final = {1: 0.02, 4: 0.03, 24: 0.06}
THRESHOLD_SIGMAS: Final = {1: 3.0, 4: 3.0, 24: 6.0}
OPEN_INTEREST_FALL: Final = 0.03
"""theta and the fall of label version 1; held equal to evaluation/labels/version_1.py by a test (scoring looks at
nothing above
it)."""
LARGEST_CASCADE: Final = 2.0
"""How far a past move counts, in thresholds."""
US_MORNING_HOURS: Final = (12, 16)
"""UTC, Monday to Friday: American data releases and the opening of the stock market."""

MOST_CELLS: Final = 12_000_000
"""(symbols x venues x bars) of which features are computed at once: some twenty arrays of 100 MB."""
PRICE_VARIANCE_FLOOR: Final = 1e-8
INTEREST_VARIANCE_FLOOR: Final = 1e-7
"""Added to hourly variances: a frozen series has a small volatility, not minus infinity."""
LARGEST_INTEREST_STEP: Final = 0.5
LARGEST_PRICE_STEP: Final = 0.7
"""Log changes of one step are held to these: one wrong print must not rule a week of volatility."""
LARGEST_DEVIATION: Final = 4.0
"""Standardised features are held to +-4: outside what was trained on, the model does not extrapolate."""

PRICE_FEATURES: Final = (
    "volatility_4h_over_threshold",
    "volatility_week_over_threshold",
    "volatility_4h_over_24h",
    "volatility_24h_over_week",
    "drawdown_week",
    "leaders_return_1h",
    "hour_sin",
    "hour_cos",
    "us_morning",
    "weekend",
)
OPEN_INTEREST_FEATURES: Final = (
    "open_interest_volatility_4h",
    "open_interest_volatility_week",
    "open_interest_build_up_24h",
    "open_interest_build_up_week",
    "price_open_interest_correlation_24h",
    "cascade_1h_within_a_day",
    "leaders_cascade_4h",
)
FEATURES: Final = PRICE_FEATURES + OPEN_INTEREST_FEATURES
NEUTRAL_WHEN_UNKNOWN: Final = frozenset({"leaders_return_1h", "leaders_cascade_4h"})
"""Taken at its training mean when unknown: a world without BTC and ETH still has probabilities."""


def hourly_sigma(price: Floats, per_hour: int) -> Floats:
    """sigma(t) of label version 1: sample deviation of overlapping 1-hour log returns over 24 h."""
    rows = 24 * per_hour
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.log(price / lag(price, per_hour))
    count = rolling_count(np.isfinite(returns), rows).astype(np.float64)
    total, squares = rolling_sum(returns, rows), rolling_sum(returns * returns, rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.sqrt(np.maximum(squares - total * total / count, 0.0) / (count - 1.0))
    return np.where((count >= 0.75 * rows) & (count >= 2), sigma, np.nan)


def feature_arrays(bars: BarArrays, last: int | None = None) -> dict[str, Floats]:
    """Every feature at every bar, (symbols, bars); names as in FEATURES, with `@H` where it depends on the horizon.

    last: of the last so many bars only, the same bits: a tick asks for one, and reads of the rest what its windows
    reach.
    """
    per_hour = bars.rows_of(1)
    want = bars.price_usd.shape[-1] if last is None else min(last, bars.price_usd.shape[-1])
    day, week = 24 * per_hour, WEEK_HOURS * per_hour
    price, interest = tail(bars.price_usd, want + week), tail(bars.open_interest_base, want + week)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_price, log_interest = np.log(price), np.log(interest)
    steps = np.clip(log_price - lag(log_price, 1), -LARGEST_PRICE_STEP, LARGEST_PRICE_STEP)
    turns = np.clip(log_interest - lag(log_interest, 1), -LARGEST_INTEREST_STEP, LARGEST_INTEREST_STEP)
    squares, turn_squares = steps * steps, turns * turns

    def log_volatility(values: Floats, hours: int, floor: float) -> Floats:
        mean = rolling_mean(values, hours * per_hour, HALF_KNOWN, last)
        return np.asarray(0.5 * np.log(mean * per_hour + floor), dtype=np.float64)

    volatility = {h: log_volatility(squares, h, PRICE_VARIANCE_FLOOR) for h in (4, 24, WEEK_HOURS)}
    interest_volatility = {h: log_volatility(turn_squares, h, INTEREST_VARIANCE_FLOOR) for h in (4, WEEK_HOURS)}
    price_scale, interest_scale = np.exp(volatility[WEEK_HOURS]), np.exp(interest_volatility[WEEK_HOURS])

    # Thresholds as far back as a cascade of the day may have begun, each from its own day of returns.
    thresholds_back = day + 4 * per_hour
    sigma = tail(hourly_sigma(tail(price, want + thresholds_back + day + per_hour), per_hour), want + thresholds_back)
    threshold = {h: np.maximum(THRESHOLD_FLOOR[h], THRESHOLD_SIGMAS[h] * sigma) for h in HORIZON_HOURS}
    found: dict[str, Floats] = {}
    for hours in HORIZON_HOURS:
        theta = np.log(tail(threshold[hours], want))
        found[f"volatility_4h_over_threshold@{hours}"] = venue_mean(volatility[4] - theta)
        found[f"volatility_week_over_threshold@{hours}"] = venue_mean(volatility[WEEK_HOURS] - theta)
    found["volatility_4h_over_24h"] = venue_mean(volatility[4] - volatility[24])
    found["volatility_24h_over_week"] = venue_mean(volatility[24] - volatility[WEEK_HOURS])
    week_root = float(np.sqrt(WEEK_HOURS))
    now = tail(log_price, want)
    found["drawdown_week"] = venue_mean((now - rolling_max(log_price, week, last)) / (price_scale * week_root))
    hour_return = venue_mean((now - tail(lag(tail(log_price, want + per_hour), per_hour), want)) / price_scale)
    found["leaders_return_1h"] = _leaders(bars.symbols, hour_return)
    found["open_interest_volatility_4h"] = venue_mean(interest_volatility[4])
    found["open_interest_volatility_week"] = venue_mean(interest_volatility[WEEK_HOURS])
    for name, hours in (("24h", 24), ("week", WEEK_HOURS)):
        rise = tail(log_interest, want) - rolling_min(log_interest, hours * per_hour, last)
        found[f"open_interest_build_up_{name}"] = venue_mean(rise / (interest_scale * float(np.sqrt(hours))))
    together, together_interest = (
        _hourly_change(tail(values, want + day + per_hour), per_hour, largest)
        for values, largest in ((log_price, LARGEST_PRICE_STEP), (log_interest, LARGEST_INTEREST_STEP))
    )
    scales = [
        rolling_mean(change * change, day, HALF_KNOWN, last) + floor
        for change, floor in ((together, PRICE_VARIANCE_FLOOR), (together_interest, INTEREST_VARIANCE_FLOOR))
    ]
    product = rolling_mean(together * together_interest, day, HALF_KNOWN, last)
    found["price_open_interest_correlation_24h"] = venue_mean(product / np.sqrt(scales[0] * scales[1]))

    def under_way(hours: int, rows: int) -> Floats:
        """Of the last `rows` bars."""
        held = [tail(values, rows + hours * per_hour) for values in (price, interest, threshold[hours])]
        return np.asarray(tail(cascade_under_way(held[0], held[1], held[2], per_hour, hours), rows))

    found["cascade_1h_within_a_day"] = venue_mean(rolling_max(under_way(1, want + day - 1), day, last))
    found["leaders_cascade_4h"] = _leaders(bars.symbols, venue_mean(under_way(4, want)))
    for name, values in _calendar(tail(bars.end_seconds, want)).items():
        found[name] = np.broadcast_to(values, hour_return.shape)
    return found


def _in_blocks(bars: BarArrays, lookback_hours: int) -> Iterator[tuple[BarArrays, int]]:
    """The bars in pieces that fit into memory: each with the look-back before it, and how many of its rows are new.

    A month of 300 symbols at once was 4 GB of intermediate arrays.
    """
    series = max(1, len(bars.symbols) * len(bars.venues))
    reach = bars.rows_of(lookback_hours)
    rows = max(bars.rows_of(24), MOST_CELLS // series - reach)
    for first in range(0, bars.count, rows):
        stop = min(first + rows, bars.count)
        yield bars_between(bars, max(0, first - reach), stop), stop - first
    if not bars.count:
        yield bars, 0


def _hourly_change(log_values: Floats, per_hour: int, largest: float) -> Floats:
    return np.asarray(np.clip(log_values - lag(log_values, per_hour), -largest, largest), dtype=np.float64)


def cascade_under_way(price: Floats, interest: Floats, threshold: Floats, per_hour: int, hours: int) -> Floats:
    """How far a cascade had gone at each bar: 1 where the label's move and its fall of open interest are both reached.

    The largest over starts 1, 2, .. `hours` hours ago of the lesser of (move / theta then) and (fall of open interest /
    3 %), cut at LARGEST_CASCADE; zero while open interest rose.
    """
    best = np.full(price.shape, np.nan)
    for ago in range(per_hour, hours * per_hour + 1, per_hour):
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.abs(price / lag(price, ago) - 1.0) / lag(threshold, ago)
            fell = (1.0 - interest / lag(interest, ago)) / OPEN_INTEREST_FALL
        best = np.fmax(best, np.minimum(moved, fell))
    return np.asarray(np.clip(best, 0.0, LARGEST_CASCADE), dtype=np.float64)


def _leaders(symbols: tuple[str, ...], values: Floats) -> Floats:
    """Mean over BTC and ETH, as far as they are known, the same for every symbol."""
    rows = [symbols.index(name) for name in LEADERS if name in symbols]
    if not rows:
        return np.full(values.shape, np.nan)
    mean = venue_mean(values[np.newaxis, rows, :])
    return np.asarray(np.broadcast_to(mean, values.shape), dtype=np.float64)


def _calendar(end_seconds: Integers) -> dict[str, Floats]:
    """The hour of the UTC day (looked up: equal minutes give equal bits), the American morning, and the weekend."""
    minutes = np.arange(1440) * (2.0 * np.pi / 1440.0)
    minute = (end_seconds % 86_400) // 60
    weekday = (end_seconds // 86_400 + 3) % 7  # 1970-01-01 was a Thursday; 0 is Monday
    first, stop = US_MORNING_HOURS
    return {
        "hour_sin": np.sin(minutes)[minute],
        "hour_cos": np.cos(minutes)[minute],
        "us_morning": ((minute >= first * 60) & (minute < stop * 60) & (weekday < 5)).astype(np.float64),
        "weekend": (weekday >= 5).astype(np.float64),
    }


def at_horizon(found: Mapping[str, Floats], name: str, hours: int) -> Floats:
    """The array of a feature for one horizon."""
    return found[f"{name}@{hours}"] if f"{name}@{hours}" in found else found[name]


@dataclass(frozen=True)
class LogisticModel:
    """log-odds = intercept + sum of coefficient x (feature - mean) / deviation, the quotient held to +-4."""

    intercept: float
    coefficients: Mapping[str, float]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]

    def log_odds(self, found: Mapping[str, Floats], hours: int) -> Floats:
        """NaN where a feature is unknown; summed in the coefficients' order, so that a slice equals a batch."""
        total: Floats | None = None
        for name, coefficient in self.coefficients.items():
            standard = (at_horizon(found, name, hours) - self.mean[name]) / self.deviation[name]
            standard = np.clip(standard, -LARGEST_DEVIATION, LARGEST_DEVIATION)
            if name in NEUTRAL_WHEN_UNKNOWN:
                standard = np.where(np.isnan(standard), 0.0, standard)
            term = coefficient * standard
            total = self.intercept + term if total is None else total + term
        if total is None:
            raise ValueError("a model without coefficients")
        return total

    def as_json(self) -> dict[str, Any]:
        """Rounded to what matters, in the order of summation."""
        return {
            "intercept": self.intercept,
            "features": {
                name: {"coefficient": value, "mean": self.mean[name], "deviation": self.deviation[name]}
                for name, value in self.coefficients.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LogisticModel:
        """Read what as_json wrote; raises KeyError or ValueError on anything else."""
        features = data["features"]
        unknown = set(features) - set(FEATURES)
        if unknown:
            raise ValueError(f"unknown features {sorted(unknown)}")
        # jsonb forgets the order of keys, and the order of summation decides the last bit.
        features = {name: features[name] for name in FEATURES if name in features}
        return cls(
            float(data["intercept"]),
            {name: float(part["coefficient"]) for name, part in features.items()},
            {name: float(part["mean"]) for name, part in features.items()},
            {name: float(part["deviation"]) for name, part in features.items()},
        )


@dataclass(frozen=True)
class CascadeModel:
    """A probability model in force (scoring.model.ProbabilityModel).

    full, price_only: one LogisticModel per horizon. early_warning: the rule that pages, chosen for the false-alarm
    budget named in facts.
    """

    model_id: str
    full: Mapping[int, LogisticModel]
    price_only: Mapping[int, LogisticModel]
    early_warning: WarningRule
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lookback_hours(self) -> int:
        """Hours of bars before a point that the features read."""
        return LOOKBACK_HOURS

    def predict(
        self,
        bars: BarArrays,
        points: Points,
        risk: RiskArrays | None = None,
        reference: WarningReference | None = None,
    ) -> Probabilities:
        """Probabilities at points; `risk` is not read (the points' percentiles added nothing, docs/evaluation.md).

        reference: what the early warning compares with, of the points' days; None: nothing is known yet.
        """
        first = max(0, min(int(points.bar_index.min(initial=bars.count)), bars.count - 1))
        place = np.where(points.bar_index < 0, -1, points.bar_index - first)
        arrays = feature_arrays(bars, last=bars.count - first)
        found = {name: take(values, place) for name, values in arrays.items()}
        by_hours, reduced = self.by_hours(found)
        market = market_mean(by_hours[WARNING_HORIZON_HOURS])
        said = self._said(by_hours, reduced, market, points.time_seconds, reference)
        return replace(said, outside=self.outside_training(found))

    def warning_reference(self, bars: BarArrays, days: Integers) -> WarningReference:
        """What the early warning of these days compares with, from bars that reach 30 days and the look-back before."""
        probability = np.concatenate(
            [
                self.by_hours(feature_arrays(part, last))[0][WARNING_HORIZON_HOURS]
                for part, last in _in_blocks(bars, self.lookback_hours)
            ],
            axis=-1,
        )
        return warning_reference(bars.end_seconds, market_mean(probability), days)

    def outside_training(self, found: Mapping[str, Floats], hours: int = 4) -> dict[str, Booleans]:
        """Where each input of the full model is past the deviations that training held it to: drift, seen at once.

        The model does not extrapolate there: the input counts as the largest deviation. Unknown is not outside.
        """
        model = self.full[hours]
        outside: dict[str, Booleans] = {}
        for name in model.coefficients:
            standard = (at_horizon(found, name, hours) - model.mean[name]) / model.deviation[name]
            with np.errstate(invalid="ignore"):
                outside[name] = np.asarray(np.abs(standard) > LARGEST_DEVIATION)
        return outside

    def from_features(self, found: Mapping[str, Floats], end_seconds: Integers) -> Probabilities:
        """Probabilities at every bar of feature_arrays; the early warning compares with these same bars' past."""
        by_hours, reduced = self.by_hours(found)
        market = market_mean(by_hours[WARNING_HORIZON_HOURS])
        reference = warning_reference(end_seconds, market, reference_days(end_seconds))
        return self._said(by_hours, reduced, market, end_seconds, reference)

    def _said(
        self,
        by_hours: dict[int, Floats],
        reduced: Booleans,
        market: Floats,
        time_seconds: Integers,
        reference: WarningReference | None,
    ) -> Probabilities:
        threshold = self.early_warning.thresholds(time_seconds, reference)
        warns = is_past(market, threshold) & np.isfinite(by_hours[WARNING_HORIZON_HOURS])
        return Probabilities(by_hours, warns, reduced, market_probability=market, market_threshold=threshold)

    def by_hours(self, found: Mapping[str, Floats]) -> tuple[dict[int, Floats], Booleans]:
        """horizon -> probabilities, and where the price alone answered."""
        by_hours: dict[int, Floats] = {}
        reduced: Booleans | None = None
        for hours in HORIZON_HOURS:
            odds = self.full[hours].log_odds(found, hours)
            without = self.price_only[hours].log_odds(found, hours)
            if reduced is None:
                reduced = np.isnan(odds) & ~np.isnan(without)
            by_hours[hours] = sigmoid(np.where(np.isnan(odds), without, odds))
        if reduced is None:
            raise ValueError("a model without horizons")
        return by_hours, reduced

    def contributions(self, found: Mapping[str, Floats], hours: int) -> dict[str, Floats]:
        """What each feature adds to the log-odds, for receipts and ablations."""
        model = self.full[hours]
        parts = {}
        for name, coefficient in model.coefficients.items():
            standard = (at_horizon(found, name, hours) - model.mean[name]) / model.deviation[name]
            parts[name] = coefficient * np.clip(standard, -LARGEST_DEVIATION, LARGEST_DEVIATION)
        return parts

    def as_json(self) -> dict[str, Any]:
        """The model file: format, id, threshold, training facts, coefficients. No data."""
        return {
            "format": MODEL_FORMAT,
            "model_id": self.model_id,
            "early_warning": self.early_warning.as_json(),
            "facts": dict(self.facts),
            "full": {str(hours): model.as_json() for hours, model in self.full.items()},
            "price_only": {str(hours): model.as_json() for hours, model in self.price_only.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CascadeModel:
        """Read a model file's object. Raises LiqError with one sentence if it is not one."""
        try:
            if data["format"] != MODEL_FORMAT:
                raise LiqError(f"this model file has format {data['format']}, this program reads {MODEL_FORMAT}")
            return cls(
                str(data["model_id"]),
                {hours: LogisticModel.from_json(data["full"][str(hours)]) for hours in HORIZON_HOURS},
                {hours: LogisticModel.from_json(data["price_only"][str(hours)]) for hours in HORIZON_HOURS},
                WarningRule.from_json(data["early_warning"]),
                dict(data.get("facts", {})),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LiqError(f"this is not a probability model of this program: {error}") from error


def sigmoid(log_odds: Floats) -> Floats:
    """1 / (1 + exp(-x)); NaN stays NaN."""
    return np.asarray(1.0 / (1.0 + np.exp(-log_odds)), dtype=np.float64)


def load_model(path: Path) -> CascadeModel:
    """A model from a file. Raises LiqError if it cannot be read as one."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LiqError(f"{path} cannot be read as a probability model: {error}") from error
    return CascadeModel.from_json(data)


@lru_cache(maxsize=1)
def shipped_model() -> CascadeModel:
    """The model that comes with the program: a probability on the first day, before anything was trained here."""
    text = (resources.files("liq_pipeline.scoring") / "models" / SHIPPED_MODEL).read_text()
    return CascadeModel.from_json(json.loads(text))
