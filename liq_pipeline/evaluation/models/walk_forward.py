"""Walk-forward inside a panel: each month judged by a model fitted on the months before it.

Belongs here: the folds, and the early-warning rule that their first half sets. Does not: fitting (training.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.labels.version_1 import POSITIVE, UNKNOWN, CascadeEvent, Labels
from liq_pipeline.evaluation.models.training import EMBARGO_SECONDS, fit_logistic, training_rows
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.early_warning import WarningRule
from liq_pipeline.scoring.model import HORIZON_HOURS
from liq_pipeline.scoring.probability import FEATURES, sigmoid
from liq_pipeline.settings import Settings

Floats = NDArray[np.float64]

SAMPLE_SECONDS: Final = 3600
"""Hourly rows: many folds are fitted, and neighbouring rows tell them little."""
MIN_TRAINING_DAYS: Final = 45
MIN_POSITIVE_HOURS: Final = 20.0


@dataclass(frozen=True)
class WalkForward:
    """by_hours: out-of-sample probabilities, NaN before the first fold. early_warning: the rule, set on the first half
    of them; NaN if there are none."""

    by_hours: Mapping[int, Floats]
    early_warning: WarningRule
    judged_from: float
    """Where the second half begins (seconds since 1970): pages are judged from there."""
    description: str


def walk_forward(
    panel: Panel,
    found: Mapping[str, Floats],
    labels: Mapping[int, Labels],
    events: Mapping[int, list[CascadeEvent]],
    settings: Settings,
) -> WalkForward:
    """Expanding window by calendar month, embargo before each; a fold needs enough days and cascades to learn from."""
    rows = training_rows(panel, found, labels, sample_seconds=SAMPLE_SECONDS)
    month = panel.time.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    by_hours: dict[int, Floats] = {hours: np.full(panel["price_usd"].shape, np.nan) for hours in HORIZON_HOURS}
    folds = 0
    for fold in np.unique(month):
        inside = month == fold
        first = int(panel.time[inside][0])
        if first - int(panel.time[0]) < MIN_TRAINING_DAYS * 86_400:
            continue
        past = rows.between(-np.inf, first - EMBARGO_SECONDS)
        folds += 1
        for hours in HORIZON_HOURS:
            known = past.labels[hours] != UNKNOWN
            if past.weight[known & (past.labels[hours] == POSITIVE)].sum() < MIN_POSITIVE_HOURS:
                continue
            model = fit_logistic(past, hours, list(FEATURES), calibrate=False)
            part = {name: values[:, inside] for name, values in found.items()}
            by_hours[hours][:, inside] = sigmoid(model.log_odds(part, hours))
    description = (
        f"months of this panel, each by a model fitted on all months before it ({folds} folds, the first after"
        f" {MIN_TRAINING_DAYS} days); its early-warning rank is set on the first half of those probabilities"
    )
    rule, judged_from = _rule(panel, by_hours[4], events, settings)
    return WalkForward(by_hours, rule, judged_from, description)


def _rule(
    panel: Panel, probability: Floats, events: Mapping[int, list[CascadeEvent]], settings: Settings
) -> tuple[WarningRule, float]:
    columns = np.flatnonzero(np.isfinite(probability).any(axis=0))
    if columns.size < 2:
        return WarningRule(float("nan"), float("nan")), float("nan")
    half = columns[: columns.size // 2]
    early = np.full(probability.shape, np.nan)
    early[:, half] = probability[:, half]
    weeks = max((int(panel.time[half[-1]]) - int(panel.time[half[0]])) / desk.WEEK_SECONDS, 1e-9)
    policy = desk.desk_policy(panel.step_seconds, "early_warning", panel.symbols, settings)
    chosen = events[desk.DESK_HORIZON_HOURS]
    rule = desk.rank_for_budget(panel.time, panel.symbols, early, chosen, policy, weeks=weeks)
    return rule, float(panel.time[columns[columns.size // 2]] + EMBARGO_SECONDS)
