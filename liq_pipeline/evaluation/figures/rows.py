"""Row-wise figures of a score against a label, and the rows that are judged.

Belongs here: ROC-AUC, PR-AUC, gains, Brier skill and reliability of one score. Does not: the arithmetic (metrics.py),
which scores there are (evaluation/report/run.py), pages (evaluation/paging/rules.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.figures import metrics as m
from liq_pipeline.evaluation.figures.baselines import VOLATILITY_4H, VOLATILITY_24H
from liq_pipeline.evaluation.labels.version_1 import POSITIVE, UNKNOWN, Labels
from liq_pipeline.scoring.model import HORIZON_HOURS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Which rows of the panel are judged: (symbols, times) masks, each time's block (day), and resampled days."""

    inside: Booleans
    day: Integers
    days: int
    hourly: Booleans
    draws: Floats


def horizons_of(name: str) -> tuple[int, ...]:
    """The horizons against which a score is judged: a probability's own, all for the others."""
    for hours in HORIZON_HOURS:
        if name.startswith(f"cascade_probability_{hours}h"):
            return (hours,)
    return HORIZON_HOURS


def score_figures(
    name: str, score: Floats, labels: Labels, judged: Rows, baselines: Mapping[str, Floats], hours: int
) -> dict[str, Any]:
    """Row-wise figures of one score against one label."""
    volatility = baselines[VOLATILITY_24H if hours == 24 else VOLATILITY_4H]
    usable = judged.inside & (labels != UNKNOWN) & np.isfinite(score)
    symbol = np.nonzero(usable)[0]
    target = labels[usable] == POSITIVE
    figures: dict[str, Any] = {
        "rows": int(target.size),
        "positive_rows": int(target.sum()),
        "base_rate": float(target.mean()) if target.size else math.nan,
    }
    if target.sum() < m.MIN_POSITIVES or target.all():
        return figures | {"note": "too few positive rows for a figure"}
    values = score[usable]
    own, pooled = m.by_symbol(symbol, target, values), m.Counts.of(target, values)
    figures |= {
        "symbols_counted": len(own),
        "roc_auc_pooled": pooled.roc_auc(),
        "pr_auc_pooled": pooled.average_precision(),
        "roc_auc_within": m.mean_over(own, lambda rows: rows.roc_auc()),
        "pr_auc_within": m.mean_over(own, lambda rows: rows.average_precision()),
        "pr_auc_over_base_rate_within": m.mean_over(own, m.precision_lift),
    }
    both = usable & np.isfinite(volatility) & judged.hourly
    at_symbol, at_column = np.nonzero(both)
    truth, block = labels[both] == POSITIVE, judged.day[at_column]
    mine = m.day_blocks(at_symbol, truth, score[both], block, judged.days)
    figures["baseline"] = VOLATILITY_24H if hours == 24 else VOLATILITY_4H
    figures["interval_rows"] = int(truth.size)
    roc, lift = m.DayBlocks.roc_auc, m.DayBlocks.precision_lift
    figures["roc_auc_within_interval"] = asdict(m.bootstrap(mine, None, roc, judged.draws))
    if not name.startswith(("realised", "constant")):
        theirs = m.day_blocks(at_symbol, truth, volatility[both], block, judged.days)
        figures["gain_over_volatility_roc_auc"] = asdict(m.bootstrap(mine, theirs, roc, judged.draws))
        figures["gain_over_volatility_pr_auc_over_base"] = asdict(m.bootstrap(mine, theirs, lift, judged.draws))
    if name.startswith("cascade_probability"):
        figures |= {
            "brier_skill_over_symbol_base_rate": m.brier_skill(symbol, target, values),
            "mean_stated": float(values.mean()),
            "reliability": m.reliability(target, values),
            "highest_1_percent": m.highest_percent(target, values),
        }
    return figures
