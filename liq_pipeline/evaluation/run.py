"""`liq evaluate`: one panel in, report.json and report.html out.

Belongs here: which scores are judged, on which rows, and the report's shape (CONTRACTS.md, "report.json"). Does not:
the arithmetic (metrics.py, desk.py), pictures (report.py), the command line (cli).
"""

from __future__ import annotations

import hashlib
import json
import math
import time as clock
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation import desk
from liq_pipeline.evaluation import metrics as m
from liq_pipeline.evaluation.bars import bars_of
from liq_pipeline.evaluation.baselines import VOLATILITY_4H, VOLATILITY_24H, baseline_scores
from liq_pipeline.evaluation.labels import LABEL_VERSION, POSITIVE, UNKNOWN, CascadeEvent, Labels, label_panel
from liq_pipeline.evaluation.panel import Panel, load_panel
from liq_pipeline.evaluation.report import write_html
from liq_pipeline.evaluation.severities import severity_figures
from liq_pipeline.evaluation.training import EMBARGO_SECONDS
from liq_pipeline.evaluation.walk_forward import WalkForward, walk_forward
from liq_pipeline.scoring import features as f
from liq_pipeline.scoring.bars import BarArrays, points_on_bars
from liq_pipeline.scoring.model import HORIZON_HOURS
from liq_pipeline.scoring.probability import (
    FEATURES,
    OPEN_INTEREST_FEATURES,
    CascadeModel,
    feature_arrays,
    shipped_model,
    sigmoid,
)
from liq_pipeline.scoring.references import build_references
from liq_pipeline.scoring.risk import COMPONENTS, RiskArrays, risk_arrays
from liq_pipeline.scoring.version import score_version
from liq_pipeline.settings import Settings, get_settings

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

REPORT_VERSION: Final = 1
INTERVAL_SECONDS: Final = 3600
"""Intervals are taken on rows of whole hours: neighbouring rows share their future and narrow nothing honestly."""

FEATURE_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "volatility": (
        "volatility_4h_over_threshold",
        "volatility_week_over_threshold",
        "volatility_4h_over_24h",
        "volatility_24h_over_week",
    ),
    "drawdown": ("drawdown_week",),
    "leaders (BTC, ETH)": ("leaders_return_1h",),
    "hour of the week": ("hour_sin", "hour_cos", "half_day_sin", "half_day_cos", "weekend"),
    "open interest": OPEN_INTEREST_FEATURES,
}


@dataclass(frozen=True)
class Rows:
    """Which rows of the panel are judged: (symbols, times) masks, each time's block (day), and resampled days."""

    inside: Booleans
    day: Integers
    days: int
    hourly: Booleans
    draws: Floats


def evaluate(
    panel: Path | Panel | None,
    from_: datetime | None = None,
    to: datetime | None = None,
    out: Path | None = None,
    *,
    settings: Settings | None = None,
    model: CascadeModel | None = None,
) -> dict[str, Any]:
    """Judge every score on a panel; writes report.json and report.html to `out` if given, and returns the report.

    Rows before `from_` serve as look-back only. Raises LiqError if there is nothing to judge.
    """
    if panel is None:
        raise LiqError("there is no panel to evaluate: give --panel FILE (format: docs/evaluation.md)")
    began = clock.perf_counter()
    settings = settings or get_settings()
    model = model or shipped_model()
    data = load_panel(panel) if isinstance(panel, Path) else panel
    span = data.between(from_, to)
    if not span.any():
        raise LiqError("no row of the panel lies between --from and --to")
    day = data.time // 86_400 - int(data.time[0]) // 86_400
    days = int(day[-1]) + 1
    judged = Rows(
        np.broadcast_to(span, data["price_usd"].shape),
        day,
        days,
        data.time % INTERVAL_SECONDS == 0,
        m.day_draws(days),
    )
    labels, events = label_panel(
        data.time, data.symbols, data["price_usd"], data["open_interest_base"], data.step_seconds
    )
    bars = bars_of(data)
    risk = _risk(bars, settings)
    found = feature_arrays(bars)
    shipped = model.from_features(found)
    forward = walk_forward(data, found, labels, events, settings)
    baselines = baseline_scores(data, risk)

    scores: dict[str, Floats] = {"liquidation_risk": risk.score}
    for hours in HORIZON_HOURS:
        scores[f"cascade_probability_{hours}h"] = shipped.by_hours[hours]
        scores[f"cascade_probability_{hours}h_walk_forward"] = forward.by_hours[hours]
    scores |= baselines
    report: dict[str, Any] = {
        "report_version": REPORT_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "panel": _panel_facts(data, span, events),
        "label_version": LABEL_VERSION,
        "model": _model_facts(model, data, span),
        "split": {
            "shipped": "fixed coefficients; rows inside its training window are flagged and judged apart",
            "walk_forward": forward.description,
            "embargo_hours": EMBARGO_SECONDS / 3600,
        },
        "score_version": score_version(settings, model.model_id),
        "config_hash": _config_hash(settings, model),
        "data_hash": data.data_hash,
        "scores": {
            name: {
                f"{hours}h": _score_figures(name, values, labels[hours], judged, baselines, hours)
                for hours in _horizons(name)
            }
            for name, values in scores.items()
        },
        "desk": _desk(data, span, scores, events, shipped.by_hours[4], forward, model, settings),
        "severities": severity_figures(data, span, risk, events[desk.DESK_HORIZON_HOURS], settings),
        "ablations": _ablations(bars, risk, found, model, labels, judged, settings),
        "two_days_after_installation": _first_days(data, risk, shipped.by_hours[4]),
    }
    inside_training = _in_training(model, data.time)
    if inside_training.any() and not inside_training.all():
        after = replace(judged, inside=judged.inside & ~inside_training)
        report["outside_training"] = {
            name: {f"{hours}h": _score_figures(name, scores[name], labels[hours], after, baselines, hours)}
            for hours in HORIZON_HOURS
            for name in (f"cascade_probability_{hours}h",)
        }
    report["limits"] = _limits(data, model, inside_training & span)
    report["seconds"] = round(clock.perf_counter() - began, 1)
    clean: dict[str, Any] = _without_nan(report)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(json.dumps(clean, indent=1, allow_nan=False) + "\n")
        write_html(clean, out / "report.html")
    return clean


def _risk(bars: BarArrays, settings: Settings, without: frozenset[str] = frozenset()) -> RiskArrays:
    """The risk score at every bar. Every component is expected: what the panel lacks is unknown, not zero."""
    points = points_on_bars(bars)
    days = np.unique(bars.end_seconds // 86_400)
    references = build_references(
        bars,
        f.on_bars(bars),
        days,
        lookback_hours=settings.risk.lookback_hours,
        min_lookback_hours=settings.risk.min_lookback_hours,
    )
    expected = {
        topic: np.ones(1, dtype=bool)
        for topic in ("funding_rates", "open_interest", "long_short_ratio", "liquidations")
    }
    return risk_arrays(bars, points, references, expected, settings.risk.min_coverage, without)


def _horizons(name: str) -> tuple[int, ...]:
    for hours in HORIZON_HOURS:
        if name.startswith(f"cascade_probability_{hours}h"):
            return (hours,)
    return HORIZON_HOURS


def _score_figures(
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
    own = m.by_symbol(symbol, target, values)
    figures |= {
        "symbols_counted": len(own),
        "roc_auc_pooled": m.roc_auc(target, values),
        "pr_auc_pooled": m.average_precision(target, values),
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


def _desk(
    data: Panel,
    span: Booleans,
    scores: Mapping[str, Floats],
    events: Mapping[int, list[CascadeEvent]],
    shipped_4h: Floats,
    forward: WalkForward,
    model: CascadeModel,
    settings: Settings,
) -> dict[str, Any]:
    """Pages of the early warning as shipped, and of every score at the threshold that just keeps the budget."""
    policy = desk.desk_policy(data.step_seconds, "early_warning", data.symbols, settings)
    first, last = int(data.time[span][0]), int(data.time[span][-1])
    happened = [e for e in events[desk.DESK_HORIZON_HOURS] if first <= e.onset <= last]

    def figures(score: Floats, threshold: float, since: float = first) -> dict[str, Any]:
        if not np.isfinite(threshold) or not np.isfinite(since):
            return {"note": "nothing known to set a threshold on"}
        inside = np.where(span & (data.time >= since), score, np.nan)
        pages = desk.early_warning_pages(data.time, data.symbols, inside, threshold, policy)
        judged_from = max(first, int(since))
        return {"threshold": threshold, "judged_from": judged_from} | desk.desk_figures(
            pages, happened, judged_from, last
        )

    result: dict[str, Any] = {
        "horizon_hours": desk.DESK_HORIZON_HOURS,
        "delivery_seconds": desk.DELIVERY_SECONDS,
        "false_pages_per_week_allowed": desk.FALSE_PAGES_PER_WEEK,
        "early_warning_as_shipped": figures(shipped_4h, model.early_warning_threshold),
        "early_warning_walk_forward": figures(
            scores["cascade_probability_4h_walk_forward"], forward.threshold, forward.judged_from
        ),
        "at_the_budget_in_hindsight": {},
    }
    # The threshold is set on the judged rows themselves: the best each score could have done, for comparison only.
    for name in ("cascade_probability_4h", "liquidation_risk", VOLATILITY_4H, VOLATILITY_24H, "naive_point_table"):
        score = np.where(span, scores[name], np.nan)
        weeks = (last - first) / desk.WEEK_SECONDS
        threshold = desk.threshold_for_budget(data.time, data.symbols, score, happened, policy, weeks=weeks)
        result["at_the_budget_in_hindsight"][name] = figures(scores[name], threshold)
    return result


def _ablations(
    bars: BarArrays,
    risk: RiskArrays,
    found: Mapping[str, Floats],
    model: CascadeModel,
    labels: Mapping[int, Labels],
    judged: Rows,
    settings: Settings,
) -> dict[str, Any]:
    """Within-symbol figures with one part left out, on the same rows; at 4 h."""
    target = labels[4]

    def within(score: Floats, known: Booleans) -> dict[str, float]:
        usable = judged.inside & (target != UNKNOWN) & known & np.isfinite(score)
        ranked = m.by_symbol(np.nonzero(usable)[0], target[usable] == POSITIVE, score[usable])
        return {
            "roc_auc_within": m.mean_over(ranked, lambda rows: rows.roc_auc()),
            "pr_auc_over_base_rate_within": m.mean_over(ranked, m.precision_lift),
        }

    parts = {name: np.nan_to_num(np.maximum(c.long, c.short)) for name, c in risk.components.items()}
    known = np.isfinite(risk.score)
    by_component: dict[str, Any] = {"all": within(risk.score, known)}
    for name in COMPONENTS:
        component = risk.components[name]
        if not np.isfinite(component.long).any():
            by_component[f"without {name}"] = {"note": "unknown throughout this panel"}
            continue
        long = risk.long_squeeze - np.nan_to_num(component.long)
        short = risk.short_squeeze - np.nan_to_num(component.short)
        by_component[f"without {name}"] = within(np.maximum(long, short), known)
        by_component[f"{name} alone"] = within(np.where(np.isfinite(component.long), parts[name], np.nan), known)

    odds = model.full[4].log_odds(found, 4)
    contributions = model.contributions(found, 4)
    by_feature: dict[str, Any] = {"all": within(odds, np.isfinite(odds))}
    for group, names in FEATURE_GROUPS.items():
        rest = odds
        for name in names:
            rest = rest - np.nan_to_num(contributions[name])
        by_feature[f"without {group}"] = within(rest, np.isfinite(odds))
    by_feature["price only coefficients"] = within(sigmoid(model.price_only[4].log_odds(found, 4)), np.isfinite(odds))
    return {
        "liquidation_risk_components": by_component,
        "probability_feature_groups": by_feature,
        "one_venue_out": {"note": "a panel has one venue"} if len(bars.venues) == 1 else {},
    }


def _first_days(data: Panel, risk: RiskArrays, probability: Floats) -> dict[str, Any]:
    """What is known early on: the panel's own first week is an installation without history."""
    result = {}
    for days in (2, 4, 7, 8):
        rows = (data.time >= data.time[0] + (days - 1) * 86_400) & (data.time < data.time[0] + days * 86_400)
        result[f"day_{days}"] = {
            "risk_known_share": float(np.isfinite(risk.score[:, rows]).mean()) if rows.any() else math.nan,
            "probability_known_share": float(np.isfinite(probability[:, rows]).mean()) if rows.any() else math.nan,
        }
    return result


def _panel_facts(data: Panel, span: Booleans, events: Mapping[int, list[CascadeEvent]]) -> dict[str, Any]:
    first, last = int(data.time[span][0]), int(data.time[span][-1])
    inside = {hours: [e for e in found if first <= e.onset <= last] for hours, found in events.items()}
    return {
        "symbols": list(data.symbols),
        "step_seconds": data.step_seconds,
        "from": datetime.fromtimestamp(first, UTC).isoformat(),
        "to": datetime.fromtimestamp(last, UTC).isoformat(),
        "weeks": (last - first) / desk.WEEK_SECONDS,
        "rows": int((np.isfinite(data["price_usd"]) & span).sum()),
        "known_share": {name: float(np.isfinite(values[:, span]).mean()) for name, values in data.columns.items()},
        "notes": list(data.notes),
        "events": {
            f"{hours}h": {
                "all": len(found),
                "major": sum(e.is_major for e in found),
                "systemic": sum(e.is_systemic for e in found),
                "first_shock": sum(e.is_first_shock for e in found),
                "market_episodes": market_episodes(found),
                "by_symbol": {s: sum(e.symbol == s for e in found) for s in data.symbols},
                "descriptive_only": len(found) < desk.FEW_EVENTS,
            }
            for hours, found in inside.items()
        },
    }


def market_episodes(events: list[CascadeEvent]) -> int:
    """Events whose spans (first positive row to peak) overlap or touch within an hour are one episode of the market."""
    reached, episodes = -(10**12), 0
    for event in sorted(events, key=lambda e: e.start):
        if event.start > reached + 3600:
            episodes += 1
        reached = max(reached, event.peak, event.end)
    return episodes


def _model_facts(model: CascadeModel, data: Panel, span: Booleans) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "early_warning_threshold": model.early_warning_threshold,
        "features": list(FEATURES),
        "facts": dict(model.facts),
        "share_of_rows_in_training_window": float(_in_training(model, data.time)[span].mean()),
    }


def _in_training(model: CascadeModel, time: Integers) -> Booleans:
    """Which times lie in the model's training window, embargo included."""
    try:
        first = datetime.fromisoformat(model.facts["trained_from"]).timestamp()
        last = datetime.fromisoformat(model.facts["trained_to"]).timestamp()
    except (KeyError, ValueError):
        return np.zeros(time.size, dtype=bool)
    return (time >= first) & (time <= last + EMBARGO_SECONDS)


def _limits(data: Panel, model: CascadeModel, trained: Booleans) -> list[str]:
    limits = []
    if trained.any():
        limits.append(
            f"{trained.mean():.0%} of the times lie in the training window of {model.model_id} (embargo included): its"
            " figures there are in sample; read the walk-forward figures, and outside_training if present"
        )
    names = {
        "funding_rate_per_8h": "funding",
        "long_short_ratio": "long/short ratio",
        "long_liquidations_usd": "liquidations",
        "stablecoin_net_inflow_usd": "stablecoin flows",
    }
    limits += [
        f"the panel has no {word}: what stands on it is unknown here and not measured"
        for column, word in names.items()
        if not data.has(column)
    ]
    return limits


def _config_hash(settings: Settings, model: CascadeModel) -> str:
    parts = {
        "risk": settings.risk.model_dump(mode="json"),
        "pressure": settings.pressure.model_dump(mode="json"),
        "severity": settings.severity.model_dump(mode="json"),
        "alerts": {
            name: value for name, value in settings.model_dump(mode="json").items() if name.endswith("_minutes")
        },
        "model": model.as_json(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a figure that could not be had is null. Floats keep six significant digits."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.6g}") if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
