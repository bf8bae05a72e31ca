"""Fit the shipped model from the folder of development data: python -m liq_pipeline.evaluation.models.ship DATA [OUT].

Belongs here: which panels it is fitted on, and its early-warning rule from out-of-fold probabilities. Does not:
fitting (training.py) or judging (evaluation/report/run.py). Run again on the same data it writes the same file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.labels.version_1 import label_panel
from liq_pipeline.evaluation.models.training import (
    EMBARGO_SECONDS,
    TrainingRows,
    fit_logistic,
    fit_model,
    joined,
    training_rows,
)
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.evaluation.panels.development import five_minute_panel, hourly_panel
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.early_warning import WarningRule
from liq_pipeline.scoring.model import HORIZON_HOURS
from liq_pipeline.scoring.probability import FEATURES, SHIPPED_MODEL, CascadeModel, feature_arrays, sigmoid
from liq_pipeline.settings import Settings

Floats = NDArray[np.float64]
MODEL_ID: Final = "shipped-2026-03-15.1"


def out_of_fold(panel: Panel, found: Mapping[str, Floats], rows: TrainingRows, hours: int) -> Floats:
    """Probabilities of each month from a model that saw nothing of it, nor of the embargo on both sides."""
    month = panel.time.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    result = np.full(panel["price_usd"].shape, np.nan)
    for fold in np.unique(month):
        inside = month == fold
        first, last = panel.time[inside].min(), panel.time[inside].max()
        others = (rows.time < first - EMBARGO_SECONDS) | (rows.time > last + EMBARGO_SECONDS)
        model = fit_logistic(rows.where(others), hours, list(FEATURES), calibrate=True)
        result[:, inside] = sigmoid(model.log_odds({name: v[:, inside] for name, v in found.items()}, hours))
    return result


def fit_shipped(panels: Sequence[Panel], settings: Settings) -> CascadeModel:
    """The model on all rows of all panels; its early warning keeps the budget of false pages on each, out of fold."""
    found = [feature_arrays(bars_of(panel)) for panel in panels]
    labelled = [label_panel(p.time, p.symbols, p["price_usd"], p["open_interest_base"], p.step_seconds) for p in panels]
    rows = joined([training_rows(p, f, labels) for p, f, (labels, _) in zip(panels, found, labelled, strict=True)])
    rules = []
    for panel, features, (_, events) in zip(panels, found, labelled, strict=True):
        probability = out_of_fold(panel, features, rows, desk.DESK_HORIZON_HOURS)
        policy = desk.desk_policy(panel.step_seconds, "early_warning", panel.symbols, settings)
        rules.append(
            desk.rank_for_budget(panel.time, panel.symbols, probability, events[desk.DESK_HORIZON_HOURS], policy)
        )
    facts = {
        "panels": [
            {
                "symbols": list(panel.symbols),
                "step_seconds": panel.step_seconds,
                "from": str(np.datetime64(int(panel.time[0]), "s")) + "Z",
                "to": str(np.datetime64(int(panel.time[-1]), "s")) + "Z",
                "events": {str(hours): len(events[hours]) for hours in HORIZON_HOURS},
            }
            for panel, (_, events) in zip(panels, labelled, strict=True)
        ],
        "early_warning_rule": f"at most {desk.FALSE_PAGES_PER_WEEK:g} false market-level pages a week, out of fold",
    }
    rule = WarningRule(max(r.rank for r in rules), round(max(r.threshold for r in rules), 4))
    return fit_model(rows, MODEL_ID, rule, facts)


def main(arguments: Sequence[str]) -> None:
    """Write the model file beside the code, or to OUT."""
    data = Path(arguments[0])
    default = Path(__file__).resolve().parents[2] / "scoring" / "models" / SHIPPED_MODEL
    out = Path(arguments[1]) if len(arguments) > 1 else default
    model = fit_shipped([hourly_panel(data), five_minute_panel(data)], Settings())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(model.as_json(), indent=1) + "\n")
    print(f"{model.model_id}: {model.early_warning}, written to {out}")


if __name__ == "__main__":
    main(sys.argv[1:])
