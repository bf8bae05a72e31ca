"""From the partitions to one candidate: walk-forward by quarters, calibration, the early warning's rule, a report.

Belongs here: which rows a fit sees, the folds, what is said of them. Does not: the regression
(evaluation/models/training.py), partitions (features.py, market.py).

A fit sees every row near a cascade and one in SHARE of the rest, which then weighs as much as all of them; figures
stand on all rows of a quarter. Quarters pass through memory one at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.archive.market import QuarterRows, load_quarter
from liq_pipeline.evaluation.archive.months import facts_of
from liq_pipeline.evaluation.archive.plan import Plan, Quarter
from liq_pipeline.evaluation.figures import metrics as m
from liq_pipeline.evaluation.labels.version_1 import POSITIVE, UNKNOWN, grade_events
from liq_pipeline.evaluation.models.training import (
    EMBARGO_SECONDS,
    SAMPLE_SECONDS,
    TrainingRows,
    fit_logistic,
    fit_model,
    joined,
)
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.scoring.model import HORIZON_HOURS
from liq_pipeline.scoring.probability import FEATURES, CascadeModel, LogisticModel, sigmoid
from liq_pipeline.settings import Settings

Floats = NDArray[np.float64]

SHARE: Final = 8
MIN_TRAINING_DAYS: Final = 80
MIN_POSITIVE_HOURS: Final = 20.0
CURVE_QUARTERS: Final = (1, 2, 4, 8, 12, 16, 20, 24)
RECALIBRATION: Final = 0.5
"""The share of the past quarters' error in level that a recalibrated probability corrects."""


@dataclass
class _Folds:
    """What the walk-forward leaves behind."""

    quarters: list[dict[str, Any]] = field(default_factory=list)
    time: list[NDArray[np.int64]] = field(default_factory=list)
    probability: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[NDArray[np.int8]] = field(default_factory=list)
    in_force: list[NDArray[np.float32]] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    stated: float = 0.0
    observed: float = 0.0
    rows: int = 0

    def shift(self) -> float:
        """What a point-in-time rule adds to the log-odds: a part of the judged quarters' error in level."""
        if not 0.0 < self.observed < self.rows or not 0.0 < self.stated < self.rows:
            return 0.0
        return RECALIBRATION * (_log_odds(self.observed / self.rows) - _log_odds(self.stated / self.rows))


def fit_archive(
    plan: Plan, settings: Settings, in_force: CascadeModel, say: Callable[[str], None] = lambda _text: None
) -> tuple[CascadeModel, dict[str, Any]]:
    """The candidate and its report. Raises LiqError if there is too little to learn from."""
    folds = _Folds()
    parts: list[TrainingRows] = []
    for quarter in plan.quarters:
        rows = load_quarter(plan, quarter)
        if rows is None:
            continue
        past = [part.between(-np.inf, quarter.start.timestamp() - EMBARGO_SECONDS) for part in parts[-1:]]
        past = parts[:-1] + past
        if parts and is_enough(past, quarter):
            _judge(folds, quarter, rows, joined(past), in_force)
            say(f"{quarter.name} judged by a model of the quarters before: {_said(folds.quarters[-1])}")
        parts.append(chosen_rows(rows))
    if not parts:
        raise LiqError("there is no row to learn from: the archive has nothing of these coins in this span")
    if not folds.quarters:
        raise LiqError(
            f"{len(parts)} quarters hold too few cascades to judge one by a model of those before it: take more coins"
            " or a longer span"
        )
    whole = joined(parts)
    say(f"fitting on {whole.time.size:,} rows")
    rule = _rule(plan, folds, settings)
    curve = _learning_curve(plan, parts)
    report = _report(plan, folds, curve, whole, in_force)
    facts = {
        "symbols": list(plan.symbols),
        "data_hash": _data_hash(plan),
        "events": {"4": len(folds.events)},
        "early_warning_rule": f"at most {desk.FALSE_PAGES_PER_WEEK:g} false market pages a week, in the walk-forward",
        "walk_forward": report["walk_forward"],
        "compared_with": in_force.model_id,
    }
    try:
        model = fit_model(whole, "", rule, facts)
    except ValueError as error:
        raise LiqError(f"the archive cannot be learnt from: {error}") from error
    name = f"archive-{plan.last:%Y-%m-%d}-{facts['data_hash'][:6]}"
    report["model_id"] = name
    return CascadeModel(name, model.full, model.price_only, model.early_warning, model.facts), report


def chosen_rows(rows: QuarterRows) -> TrainingRows:
    """The rows of a quarter that fits see, with the weights that make them stand for all."""
    columns = rows.columns
    near = columns["near_1"] | columns["near_4"] | (columns["label_24"] == POSITIVE)
    salt = np.array([zlib.crc32(symbol.encode()) for symbol in rows.symbols], dtype=np.uint64)
    mixed = (rows.time // SAMPLE_SECONDS).astype(np.uint64)[np.newaxis] * np.uint64(2_654_435_761) + salt[:, np.newaxis]
    # The upper bits of a product are mixed well; the draw depends on symbol and time alone.
    drawn = ((mixed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) % np.uint64(SHARE) == 0
    keep = rows.is_known & (near | drawn)
    hours = SAMPLE_SECONDS / 3600.0
    weight = np.where(near, hours, hours * SHARE)[keep]
    time = np.broadcast_to(rows.time, keep.shape)[keep]
    names = [name for name in columns if not name.startswith(("label_", "near_"))]
    return TrainingRows(
        time,
        weight,
        {name: columns[name][keep].astype(np.float64) for name in names},
        {h: columns[f"label_{h}"][keep] for h in HORIZON_HOURS},
        {h: columns[f"near_{h}"][keep] for h in HORIZON_HOURS},
    )


def is_enough(past: Sequence[TrainingRows], quarter: Quarter) -> bool:
    """Whether a model of these rows may judge the quarter: days and cascades enough."""
    first = min((int(part.time.min()) for part in past if part.time.size), default=None)
    if first is None or quarter.start.timestamp() - first < MIN_TRAINING_DAYS * 86_400:
        return False
    hours = sum(float(part.weight[part.labels[4] == POSITIVE].sum()) for part in past)
    return hours >= MIN_POSITIVE_HOURS


def _judge(folds: _Folds, quarter: Quarter, rows: QuarterRows, past: TrainingRows, in_force: CascadeModel) -> None:
    model = fit_logistic(past, 4, list(FEATURES), calibrate=False)
    mine, theirs = predicted(model, rows), predicted(in_force.full[4], rows)
    labels = rows.columns["label_4"]
    shift = folds.shift()
    found = figures(labels, mine)
    folds.quarters.append(
        {
            "quarter": quarter.name,
            "events": sum(quarter.start.timestamp() <= event.onset for event in rows.events),
            **found,
            "in_force": figures(labels, theirs),
            "recalibrated": figures(labels, sigmoid(np.log(mine / (1.0 - mine)) + shift)),
            "recalibrated_by_log_odds": round(shift, 4),
        }
    )
    usable = (labels != UNKNOWN) & np.isfinite(mine)
    folds.stated += float(mine[usable].sum())
    folds.observed += float((labels[usable] == POSITIVE).sum())
    folds.rows += int(usable.sum())
    folds.time.append(rows.time)
    folds.probability.append(mine.astype(np.float32))
    folds.in_force.append(theirs.astype(np.float32))
    folds.labels.append(labels)
    folds.events += rows.events


def predicted(model: LogisticModel, rows: QuarterRows) -> Floats:
    """Probabilities at 4 h of all rows of a quarter; NaN where an input is unknown."""
    found = {name: rows.columns[name if name in rows.columns else f"{name}@4"].astype(np.float64)
             for name in model.coefficients}  # fmt: skip
    return np.where(rows.is_known, sigmoid(model.log_odds(found, 4)), np.nan)


def figures(labels: NDArray[np.int8], probability: Floats) -> dict[str, Any]:
    """Ranking within symbols, Brier skill, stated and observed frequency; None where nothing can be said."""
    usable = (labels != UNKNOWN) & np.isfinite(probability)
    symbol, target, values = np.nonzero(usable)[0], labels[usable] == POSITIVE, probability[usable]
    found: dict[str, Any] = {"rows": int(target.size), "positive_rows": int(target.sum())}
    if target.sum() < m.MIN_POSITIVES or target.all():
        return found
    own = m.by_symbol(symbol, target, values)
    top = m.highest_percent(target, values)
    numbers = {
        "base_rate": float(target.mean()),
        "stated": float(values.mean()),
        "roc_auc_within": m.mean_over(own, lambda one: one.roc_auc()),
        "pr_auc_over_base_rate_within": m.mean_over(own, m.precision_lift),
        "brier_skill": m.brier_skill(symbol, target, values),
        "highest_1_percent_stated": top["stated"],
        "highest_1_percent_observed": top["observed"],
    }
    return found | {name: round(value, 5) if math.isfinite(value) else None for name, value in numbers.items()}


def _rule(plan: Plan, folds: _Folds, settings: Settings) -> Any:
    time = np.concatenate(folds.time)
    probability = np.concatenate(folds.probability, axis=1).astype(np.float64)
    policy = desk.desk_policy(SAMPLE_SECONDS, "early_warning", plan.symbols, settings)
    return desk.rank_for_budget(time, plan.symbols, probability, grade_events(folds.events), policy)


def _learning_curve(plan: Plan, parts: Sequence[TrainingRows]) -> list[dict[str, Any]]:
    """Skill on the last quarter against how many quarters before it were learnt from."""
    quarter = plan.quarters[-1]
    rows = load_quarter(plan, quarter)
    past = [part.between(-np.inf, quarter.start.timestamp() - EMBARGO_SECONDS) for part in parts[:-1]]
    curve = []
    if rows is not None:
        for count in (*(c for c in CURVE_QUARTERS if c < len(past)), len(past)):
            if count == 0 or not is_enough(past[-count:], quarter):
                continue
            model = fit_logistic(joined(past[-count:]), 4, list(FEATURES), calibrate=False)
            found = figures(rows.columns["label_4"], predicted(model, rows))
            curve.append({"quarters_learnt_from": count, "judged_on": quarter.name, **found})
    return curve


def _report(
    plan: Plan, folds: _Folds, curve: list[dict[str, Any]], whole: TrainingRows, in_force: CascadeModel
) -> dict[str, Any]:
    labels = np.concatenate(folds.labels, axis=1)
    mine, theirs = (np.concatenate(of, axis=1).astype(np.float64) for of in (folds.probability, folds.in_force))
    together = figures(labels, mine)
    compared = figures(labels, np.where(np.isfinite(mine), theirs, np.nan))
    together |= {f"in_force_{name}": value for name, value in compared.items() if not name.endswith("rows")}
    return {
        "symbols": list(plan.symbols),
        "from": plan.first.isoformat(),
        "to": plan.last.isoformat(),
        "rows_fitted": int(whole.time.size),
        "walk_forward": {"4": together},
        "quarters": folds.quarters,
        "learning_curve": curve,
        "compared_with": in_force.model_id,
    }


def _data_hash(plan: Plan) -> str:
    digest = hashlib.sha256(json.dumps([plan.first.isoformat(), plan.last.isoformat()]).encode())
    for quarter in plan.quarters:
        for symbol in plan.symbols:
            path = plan.feature_file(symbol, quarter)
            made_of = facts_of(path).get("made_of") if path.is_file() else None
            digest.update(json.dumps([quarter.name, symbol, made_of], sort_keys=True).encode())
    return digest.hexdigest()


def _said(found: dict[str, Any]) -> str:
    if found.get("roc_auc_within") is None:
        return f"{found['rows']:,} rows, too few cascades for a figure"
    return (
        f"{found['rows']:,} rows, ROC-AUC within symbols {found['roc_auc_within']:.3f},"
        f" Brier skill {found['brier_skill']:+.4f}"
    )


def _log_odds(share: float) -> float:
    return math.log(share / (1.0 - share))
