"""A new model from this installation's own history: a candidate, in shadow until somebody or the gate promotes it.

Belongs here: whether there is enough to learn from, the walk-forward that a candidate is judged by, its early-warning
rule and facts. Does not: fitting (training.py), the models' table (pipeline/models.py), comparing it live
(promotion_gate.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.figures import metrics as m
from liq_pipeline.evaluation.labels.version_1 import POSITIVE, UNKNOWN, label_panel
from liq_pipeline.evaluation.models.training import fit_model, training_rows
from liq_pipeline.evaluation.models.walk_forward import SAMPLE_SECONDS, walk_forward
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.panels.stored import History
from liq_pipeline.scoring.model import HORIZON_HOURS
from liq_pipeline.scoring.probability import CascadeModel, feature_arrays
from liq_pipeline.settings import Settings

MIN_DAYS: Final = 120
"""The walk-forward learns for 45 days, sets its threshold on half of the rest and is judged on the other half."""
MIN_EVENTS: Final = 40
"""4 h events in the whole history: with fewer, 15 coefficients are noise."""


class TooLittleHistoryError(LiqError):
    """There is not enough to learn from; the message says what there is and what is needed."""


def retrain(history: History, settings: Settings, in_force: CascadeModel) -> CascadeModel:
    """Fit on everything stored. Raises TooLittleHistoryError; the shipped model then goes on.

    Its facts hold the walk-forward's figures beside those of the model in force on the same rows, which may have been
    trained on them: the shadow is what decides.
    """
    panel = history.panel
    labels, events = label_panel(
        panel.time, panel.symbols, panel["price_usd"], panel["open_interest_base"], panel.step_seconds
    )
    days = float((panel.time[-1] - panel.time[0]) / 86_400)
    count = len(events[desk.DESK_HORIZON_HOURS])
    if days < MIN_DAYS or count < MIN_EVENTS:
        raise TooLittleHistoryError(
            f"{days:.0f} days with {count} cascades within 4 h are stored in {history.world.name}; a model needs"
            f" {MIN_DAYS} days and {MIN_EVENTS} cascades: load more with `liq backfill`"
        )
    found = feature_arrays(history.bars)
    forward = walk_forward(panel, found, labels, events, settings)
    if not np.isfinite(forward.early_warning.rank):
        raise TooLittleHistoryError(
            f"no month of {history.world.name} could be judged by a model of the months before it: there are too few"
            " cascades in the first ones"
        )
    rows = training_rows(panel, found, labels, sample_seconds=SAMPLE_SECONDS)
    try:
        model = fit_model(rows, "", forward.early_warning)
    except ValueError as error:
        raise TooLittleHistoryError(f"{history.world.name} cannot be learnt from: {error}") from error
    shipped = in_force.from_features(found, panel.time)
    facts: dict[str, Any] = {
        **model.facts,
        "world": history.world.name,
        "symbols": list(panel.symbols),
        "data_hash": panel.data_hash,
        "events": {str(hours): len(events[hours]) for hours in HORIZON_HOURS},
        "early_warning_rule": f"at most {desk.FALSE_PAGES_PER_WEEK:g} false market pages a week, in the walk-forward",
        "walk_forward": {
            str(hours): _figures(labels[hours], forward.by_hours[hours], shipped.by_hours[hours])
            for hours in HORIZON_HOURS
        },
        "compared_with": in_force.model_id,
    }
    last = np.datetime_as_string(np.datetime64(int(panel.time[-1]), "s"), unit="D")
    return replace(model, model_id=f"retrained-{last}-{panel.data_hash[:6]}", facts=facts)


def _figures(labels: Any, mine: Any, theirs: Any) -> dict[str, float | None]:
    """Within-symbol ROC-AUC and Brier skill of the walk-forward, and of the model in force on the same rows."""
    usable = (labels != UNKNOWN) & np.isfinite(mine) & np.isfinite(theirs)
    symbol, target = np.nonzero(usable)[0], labels[usable] == POSITIVE
    result: dict[str, float | None] = {}
    for name, score in (("", mine), ("in_force_", theirs)):
        own = m.by_symbol(symbol, target, score[usable])
        roc = m.mean_over(own, lambda rows: rows.roc_auc())
        skill = m.brier_skill(symbol, target, score[usable]) if target.any() else float("nan")
        result[f"{name}roc_auc_within"] = round(roc, 4) if np.isfinite(roc) else None
        result[f"{name}brier_skill"] = round(skill, 5) if np.isfinite(skill) else None
    return result
