"""What each part of a score is worth: the same rows judged with one part left out.

Belongs here: components, feature groups, venues, the pressure gate, the first days of an installation. Does not: the
scores themselves (scoring/), figures of whole scores (rows.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.figures import metrics as m
from liq_pipeline.evaluation.figures.rows import Rows
from liq_pipeline.evaluation.labels.version_1 import POSITIVE, UNKNOWN, Labels
from liq_pipeline.scoring import features as f
from liq_pipeline.scoring.bars import (
    CENTS_FIELDS,
    LEVEL_FIELDS,
    UNKNOWN_CENTS,
    BarArrays,
    bars_between,
    points_on_bars,
)
from liq_pipeline.scoring.probability import OPEN_INTEREST_FEATURES, CascadeModel, feature_arrays, sigmoid
from liq_pipeline.scoring.references import build_references
from liq_pipeline.scoring.risk import COMPONENTS, RiskArrays, risk_arrays
from liq_pipeline.settings import Settings

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

HOURS: Final = 4
INSTALLATION_DAYS: Final = (2, 8)
INSTALLATION_BLOCKS: Final = 24
"""Days on which an installation of that age is tried out, spread over the judged span."""
FEATURE_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "volatility": (
        "volatility_4h_over_threshold",
        "volatility_week_over_threshold",
        "volatility_4h_over_24h",
        "volatility_24h_over_week",
    ),
    "drawdown": ("drawdown_week",),
    "leaders (BTC, ETH)": ("leaders_return_1h", "leaders_cascade_4h"),
    "cascades under way": ("cascade_1h_within_a_day", "leaders_cascade_4h"),
    "runs of the last 4 h": ("excursion_4h", "open_interest_change_4h"),
    "market": ("market_excursion_4h", "market_open_interest_drawdown_week"),
    "hour of the week": ("hour_sin", "hour_cos", "us_morning", "weekend"),
    "open interest": OPEN_INTEREST_FEATURES,
}


def score_risk(bars: BarArrays, expected: Mapping[str, Booleans], settings: Settings) -> RiskArrays:
    """The risk score at every bar. A component that is expected and lacking is unknown, not zero."""
    points = points_on_bars(bars)
    references = build_references(
        bars,
        f.on_bars(bars),
        np.unique(bars.end_seconds // 86_400),
        lookback_hours=settings.risk.lookback_hours,
        min_lookback_hours=settings.risk.min_lookback_hours,
    )
    return risk_arrays(bars, points, references, expected, settings.risk.min_coverage)


def ablations(
    bars: BarArrays,
    expected: Mapping[str, Booleans],
    risk: RiskArrays,
    found: Mapping[str, Floats],
    probability: Floats,
    model: CascadeModel,
    labels: Mapping[int, Labels],
    judged: Rows,
    severities: Mapping[str, Any],
    settings: Settings,
) -> dict[str, Any]:
    """Within-symbol figures with one part left out, on the same rows; at 4 h. probability: of the model at 4 h."""
    target = labels[HOURS]
    return {
        "liquidation_risk_components": _components(risk, target, judged),
        "probability_feature_groups": _feature_groups(found, model, target, judged),
        "one_venue_out": _one_venue_out(bars, expected, risk, probability, model, target, judged, settings),
        "pressure_gate": _pressure_gate(severities),
        "after_installation": {
            f"{days}_days": _after_installation(
                bars, expected, risk, probability, model, target, judged, settings, days
            )
            for days in INSTALLATION_DAYS
        },
    }


def within(score: Floats, target: Labels, judged: Rows, known: Booleans | None = None) -> dict[str, Any]:
    """Figures inside each symbol, averaged; known: rows to which the comparison is held."""
    usable = judged.inside & (target != UNKNOWN) & np.isfinite(score)
    if known is not None:
        usable &= known
    ranked = m.by_symbol(np.nonzero(usable)[0], target[usable] == POSITIVE, score[usable])
    if not ranked:
        return {"rows": int(usable.sum()), "note": "too few positive rows for a figure"}
    return {
        "rows": int(usable.sum()),
        "roc_auc_within": m.mean_over(ranked, lambda rows: rows.roc_auc()),
        "pr_auc_over_base_rate_within": m.mean_over(ranked, m.precision_lift),
    }


def _components(risk: RiskArrays, target: Labels, judged: Rows) -> dict[str, Any]:
    parts = {name: np.nan_to_num(np.maximum(c.long, c.short)) for name, c in risk.components.items()}
    known = np.isfinite(risk.score)
    result: dict[str, Any] = {"all": within(risk.score, target, judged, known)}
    for name in COMPONENTS:
        component = risk.components[name]
        if not np.isfinite(component.long).any():
            result[f"without {name}"] = {"note": "unknown throughout this data"}
            continue
        long = risk.long_squeeze - np.nan_to_num(component.long)
        short = risk.short_squeeze - np.nan_to_num(component.short)
        result[f"without {name}"] = within(np.maximum(long, short), target, judged, known)
        alone = np.where(np.isfinite(component.long), parts[name], np.nan)
        result[f"{name} alone"] = within(alone, target, judged, known)
    return result


def _feature_groups(found: Mapping[str, Floats], model: CascadeModel, target: Labels, judged: Rows) -> dict[str, Any]:
    odds = model.full[HOURS].log_odds(found, HOURS)
    contributions = model.contributions(found, HOURS)
    known = np.isfinite(odds)
    result: dict[str, Any] = {"all": within(odds, target, judged, known)}
    grouped = {name for names in FEATURE_GROUPS.values() for name in names}
    groups = {**FEATURE_GROUPS, "other inputs": tuple(name for name in contributions if name not in grouped)}
    for group, names in groups.items():
        own = [name for name in names if name in contributions]
        if own:
            rest = odds - sum(np.nan_to_num(contributions[name]) for name in own)
            result[f"without {group}"] = within(rest, target, judged, known)
    price_only = sigmoid(model.price_only[HOURS].log_odds(found, HOURS))
    result["price only coefficients"] = within(price_only, target, judged, known)
    return result


def _one_venue_out(
    bars: BarArrays,
    expected: Mapping[str, Booleans],
    risk: RiskArrays,
    probability: Floats,
    model: CascadeModel,
    target: Labels,
    judged: Rows,
    settings: Settings,
) -> dict[str, Any]:
    """Each venue silent throughout. Coverage falls and the score's other venues carry on."""
    if len(bars.venues) == 1:
        return {"note": "the data have one venue: without it there is no score"}
    everything = {
        "liquidation_risk": within(risk.score, target, judged),
        "cascade_probability_4h": within(probability, target, judged),
    }
    result: dict[str, Any] = {"all": everything}
    for place, venue in enumerate(bars.venues):
        silent: dict[str, Any] = {}
        for name in LEVEL_FIELDS + CENTS_FIELDS:
            values = getattr(bars, name).copy()
            values[:, place] = np.nan if name in LEVEL_FIELDS else UNKNOWN_CENTS
            silent[name] = values
        without = replace(bars, **silent)
        score = score_risk(without, expected, settings)
        result[f"without {venue}"] = {
            "liquidation_risk": within(score.score, target, judged),
            "cascade_probability_4h": within(model.by_hours(feature_arrays(without))[0][HOURS], target, judged),
            "risk_known_share": float(np.isfinite(score.score[judged.inside]).mean()),
        }
    return result


def _pressure_gate(severities: Mapping[str, Any]) -> dict[str, Any]:
    """Precision of each severity with the pressure as stated, with its sign flipped, and with the gate off."""
    names = {
        "as stated": "sign_as_stated",
        "sign flipped": "sign_reversed",
        "gate off": "gate_off_flow_side_blind",
    }
    result: dict[str, Any] = {
        name: {
            level: {"alarms": figures["alarms"], "precision": figures["precision"]}
            for level, figures in severities[variant].items()
        }
        for name, variant in names.items()
        if variant in severities
    }
    if "note" in severities:
        result["note"] = severities["note"]
    return result


def _after_installation(
    bars: BarArrays,
    expected: Mapping[str, Booleans],
    risk: RiskArrays,
    probability: Floats,
    model: CascadeModel,
    target: Labels,
    judged: Rows,
    settings: Settings,
    days: int,
) -> dict[str, Any]:
    """Single days scored with only `days` days of history before them, beside the same days with all of it."""
    rows = 24 * bars.rows_of(1)
    columns = np.flatnonzero(judged.inside[0])
    starts = columns[(columns >= days * rows) & (bars.end_seconds[columns] % 86_400 == 0)]
    starts = starts[starts + rows <= bars.count]
    if not starts.size:
        return {"note": f"the data hold no day with {days} days before it"}
    chosen = starts[np.unique(np.linspace(0, starts.size - 1, INSTALLATION_BLOCKS).astype(np.int64))]
    young = {name: np.full(target.shape, np.nan) for name in ("liquidation_risk", "cascade_probability_4h")}
    tried = np.zeros(target.shape, dtype=bool)
    for start in chosen.tolist():
        part = bars_between(bars, start - days * rows, start + rows)
        today = slice(start, start + rows)
        tried[:, today] = True
        young["liquidation_risk"][:, today] = score_risk(part, expected, settings).score[:, -rows:]
        young["cascade_probability_4h"][:, today] = model.by_hours(feature_arrays(part))[0][HOURS][:, -rows:]
    old = {"liquidation_risk": risk.score, "cascade_probability_4h": probability}
    return {
        "days_tried": int(chosen.size),
        **{
            name: {
                "known_share": float(np.isfinite(young[name][tried]).mean()),
                "young": within(young[name], target, judged, tried),
                "with_all_history": within(old[name], target, judged, tried & np.isfinite(young[name])),
            }
            for name in young
        },
    }
