"""Fitting the cascade probability: rows from panels, a penalised logistic regression, out-of-fold calibration.

Belongs here: everything that needs labels or scikit-learn. Does not: features and inference (scoring/probability.py),
figures about a model (evaluation/figures/metrics.py, evaluation/paging/desk.py).

Rows are taken on a coarser grid than fine panels have (SAMPLE_SECONDS): neighbouring rows share their future and add
time, not knowledge. Each row weighs the part of an hour that it stands for, so that a panel's step does not decide
how much it counts.

Cascades are few, so the coefficients learn from near ones too (NEAR_SHARE of both thresholds, three to four times as
many rows), and only the level and the scale of the log-odds are then set on the cascades of the label. That ranked
better in every reading (docs/evaluation.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.labels.version_1 import (
    LABEL_VERSION,
    OPEN_INTEREST_FALL,
    POSITIVE,
    UNKNOWN,
    Labels,
    label_panel,
    threshold,
)
from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.early_warning import WarningRule
from liq_pipeline.scoring.model import HORIZON_HOURS
from liq_pipeline.scoring.probability import (
    FEATURES,
    LARGEST_DEVIATION,
    NEUTRAL_WHEN_UNKNOWN,
    PRICE_FEATURES,
    CascadeModel,
    LogisticModel,
    at_horizon,
    feature_arrays,
)

Floats = NDArray[np.float64]

SAMPLE_SECONDS: Final = 900
PENALTY: Final = {1: 0.03, 4: 0.02, 24: 0.003}
"""Inverse strength C of the ridge penalty beside a sum of hours: strong, events are few."""
NEAR_SHARE: Final = 2.0 / 3.0
"""A near cascade: at one moment within the horizon this share of theta and of the 3 % fall are both reached."""
TEMPER: Final = {1: 0.9, 4: 0.9, 24: 0.6}
"""Log-odds are drawn towards the base rate by this factor: from one regime to the next the model knows less than inside
one. Set where the Brier skill of transfer and walk-forward together was best."""
EMBARGO_SECONDS: Final = 48 * 3600
"""Kept free between training and test: the longest horizon (24 h) and a day for what clings to it."""
DIGITS: Final = 5


@dataclass(frozen=True)
class TrainingRows:
    """Rows of one or more panels, flat: time (seconds), weight (hours), features name -> values, labels per horizon,
    near cascades per horizon."""

    time: NDArray[np.int64]
    weight: Floats
    features: Mapping[str, Floats]
    labels: Mapping[int, Labels]
    near: Mapping[int, NDArray[np.bool_]]

    def between(self, from_seconds: float, to_seconds: float) -> TrainingRows:
        """The rows of [from, to)."""
        return self.where((self.time >= from_seconds) & (self.time < to_seconds))

    def where(self, keep: NDArray[np.bool_]) -> TrainingRows:
        """The rows kept."""
        return TrainingRows(
            self.time[keep],
            self.weight[keep],
            {name: values[keep] for name, values in self.features.items()},
            {hours: labels[keep] for hours, labels in self.labels.items()},
            {hours: near[keep] for hours, near in self.near.items()},
        )


def training_rows(
    panel: Panel,
    found: Mapping[str, Floats] | None = None,
    labels: Mapping[int, Labels] | None = None,
    sample_seconds: int = SAMPLE_SECONDS,
) -> TrainingRows:
    """Rows of a panel on the sampling grid; features and labels are computed unless given."""
    if found is None:
        found = feature_arrays(bars_of(panel))
    if labels is None:
        labels, _ = label_panel(
            panel.time, panel.symbols, panel["price_usd"], panel["open_interest_base"], panel.step_seconds
        )
    step = max(panel.step_seconds, sample_seconds)
    columns = np.flatnonzero(panel.time % step == 0)
    known = np.isfinite(panel["price_usd"][:, columns])
    time = np.broadcast_to(panel.time[columns], known.shape)[known]
    return TrainingRows(
        time,
        np.full(time.size, step / 3600.0),
        {name: values[:, columns][known] for name, values in found.items()},
        {hours: values[:, columns][known] for hours, values in labels.items()},
        {hours: near_cascades(panel, columns, hours)[known] for hours in labels},
    )


def near_cascades(panel: Panel, columns: NDArray[np.int64], hours: int) -> NDArray[np.bool_]:
    """Whether a near cascade lies within the horizon of each chosen column, (symbols, columns)."""
    price, interest = panel["price_usd"], panel["open_interest_base"]
    need = NEAR_SHARE * threshold(price, panel.step_seconds, hours)[:, columns]
    price_then, interest_then = price[:, columns], interest[:, columns]
    found = np.zeros(price_then.shape, dtype=bool)
    for ahead in range(1, hours * 3600 // panel.step_seconds + 1):
        inside = columns + ahead < panel.time.size
        later = np.minimum(columns + ahead, panel.time.size - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = np.abs(price[:, later] / price_then - 1.0) >= need
            fell = interest[:, later] / interest_then - 1.0 <= NEAR_SHARE * OPEN_INTEREST_FALL
        found |= moved & fell & inside
    return found


def joined(parts: Sequence[TrainingRows]) -> TrainingRows:
    """All rows of several panels."""
    return TrainingRows(
        np.concatenate([part.time for part in parts]),
        np.concatenate([part.weight for part in parts]),
        {name: np.concatenate([part.features[name] for part in parts]) for name in parts[0].features},
        {hours: np.concatenate([part.labels[hours] for part in parts]) for hours in parts[0].labels},
        {hours: np.concatenate([part.near[hours] for part in parts]) for hours in parts[0].near},
    )


def fit_model(
    rows: TrainingRows,
    model_id: str,
    early_warning: WarningRule,
    facts: Mapping[str, Any] | None = None,
    features: Sequence[str] = FEATURES,
    *,
    calibrate: bool = True,
) -> CascadeModel:
    """Fit both variants of every horizon. Raises ValueError if a horizon has no positive row.

    calibrate: set level and scale of the log-odds on out-of-fold ones (months left out, embargo on both sides) instead
    of those of the fit itself.
    """
    price_only = [name for name in features if name in PRICE_FEATURES]
    full = {hours: fit_logistic(rows, hours, list(features), calibrate=calibrate) for hours in HORIZON_HOURS}
    reduced = {hours: fit_logistic(rows, hours, price_only, calibrate=calibrate) for hours in HORIZON_HOURS}
    return CascadeModel(model_id, full, reduced, early_warning, {**training_facts(rows), **(facts or {})})


def training_facts(rows: TrainingRows) -> dict[str, Any]:
    """What a model's reader wants to know about its training."""
    known = rows.labels[4] != UNKNOWN
    return {
        "label_version": LABEL_VERSION,
        "trained_from": datetime.fromtimestamp(int(rows.time.min()), UTC).isoformat(),
        "trained_to": datetime.fromtimestamp(int(rows.time.max()), UTC).isoformat(),
        "symbol_hours": round(float(rows.weight[known].sum())),
        "positive_hours": {
            str(hours): round(float(rows.weight[labels == POSITIVE].sum()), 1) for hours, labels in rows.labels.items()
        },
        "base_rate": {
            str(hours): round(
                float(rows.weight[labels == POSITIVE].sum() / max(rows.weight[labels != UNKNOWN].sum(), 1e-9)), 6
            )
            for hours, labels in rows.labels.items()
        },
        "penalty_c": {str(hours): value for hours, value in PENALTY.items()},
        "near_cascade_share": round(NEAR_SHARE, 4),
        "log_odds_drawn_to_base_rate": {str(hours): value for hours, value in TEMPER.items()},
    }


def fit_logistic(rows: TrainingRows, hours: int, names: list[str], *, calibrate: bool) -> LogisticModel:
    """One ridge-penalised logistic regression on standardised features (module docstring)."""
    raw = _matrix(rows, hours, names)
    usable = np.isfinite(raw).all(axis=1) & (rows.labels[hours] != UNKNOWN)
    raw, weight, time = raw[usable], rows.weight[usable], rows.time[usable]
    target = (rows.labels[hours][usable] == POSITIVE).astype(np.int64)
    near = (rows.near[hours][usable] | (target > 0)).astype(np.int64)
    if target.sum() == 0:
        raise ValueError(f"no cascade within {hours} h in the training rows: nothing to learn from")
    mean = np.average(raw, axis=0, weights=weight)
    deviation = np.sqrt(np.average((raw - mean) ** 2, axis=0, weights=weight)) + 1e-9
    standard = np.clip((raw - mean) / deviation, -LARGEST_DEVIATION, LARGEST_DEVIATION)
    coefficients, intercept = _regress(standard, near, weight, PENALTY[hours])
    said = standard @ coefficients + intercept
    if calibrate:
        said = _out_of_fold(standard, near, weight, time, PENALTY[hours])
    slope, shift = _calibration(said, target, weight)
    base = float(np.average(target, weights=weight))
    base_odds = float(np.log(base / (1.0 - base)))
    shift = TEMPER[hours] * (shift - base_odds) + base_odds
    slope = TEMPER[hours] * slope
    return LogisticModel(
        round(intercept * slope + shift, DIGITS),
        {name: round(float(value) * slope, DIGITS) for name, value in zip(names, coefficients, strict=True)},
        {name: round(float(value), DIGITS) for name, value in zip(names, mean, strict=True)},
        {name: round(float(value), DIGITS) for name, value in zip(names, deviation, strict=True)},
    )


def _matrix(rows: TrainingRows, hours: int, names: list[str]) -> Floats:
    columns = []
    for name in names:
        values = at_horizon(rows.features, name, hours)
        if name in NEUTRAL_WHEN_UNKNOWN:
            known = np.isfinite(values)
            values = np.where(known, values, values[known].mean() if known.any() else 0.0)
        columns.append(values)
    return np.column_stack(columns)


def _regress(standard: Floats, target: NDArray[np.int64], weight: Floats, penalty: float) -> tuple[Floats, float]:
    from sklearn.linear_model import LogisticRegression  # a second of import that only training needs

    fitted = LogisticRegression(C=penalty, solver="newton-cholesky", max_iter=100).fit(
        standard, target, sample_weight=weight
    )
    return fitted.coef_[0], float(fitted.intercept_[0])


def _out_of_fold(
    standard: Floats, near: NDArray[np.int64], weight: Floats, time: NDArray[np.int64], penalty: float
) -> Floats:
    """Log-odds of each month from a fit that saw nothing of it, nor of the embargo on both sides."""
    month = time.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    out = np.full(near.size, np.nan)
    for fold in np.unique(month):
        inside = month == fold
        first, last = time[inside].min(), time[inside].max()
        others = (time < first - EMBARGO_SECONDS) | (time > last + EMBARGO_SECONDS)
        if near[others].sum() == 0:
            continue
        coefficients, intercept = _regress(standard[others], near[others], weight[others], penalty)
        out[inside] = standard[inside] @ coefficients + intercept
    return out


def _calibration(said: Floats, target: NDArray[np.int64], weight: Floats) -> tuple[float, float]:
    """Slope and shift that make log-odds match the cascades: a regression on them alone, practically unpenalised."""
    known = np.isfinite(said)
    if target[known].sum() == 0:
        return 1.0, 0.0
    slope, shift = _regress(said[known, np.newaxis], target[known], weight[known], 1e6)
    return float(slope[0]), shift
