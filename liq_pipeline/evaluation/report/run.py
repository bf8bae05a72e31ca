"""`liq evaluate`: history in, report.json and report.html out.

Belongs here: which scores are judged, and the report's shape (CONTRACTS.md, "report.json"). Does not: the arithmetic
(evaluation/figures/metrics.py, evaluation/paging/desk.py), figures by subject (evaluation/figures/rows.py,
evaluation/paging/rules.py, evaluation/figures/ablations.py), pictures (html_page.py), rows (figure_rows.py).
"""

from __future__ import annotations

import json
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.figures import metrics as m
from liq_pipeline.evaluation.figures.ablations import ablations, score_risk
from liq_pipeline.evaluation.figures.baselines import baseline_scores
from liq_pipeline.evaluation.figures.rows import Rows, horizons_of, score_figures
from liq_pipeline.evaluation.figures.severities import panel_pressure, severity_figures
from liq_pipeline.evaluation.labels.version_1 import LABEL_VERSION, label_panel
from liq_pipeline.evaluation.models.training import EMBARGO_SECONDS
from liq_pipeline.evaluation.models.under_way import under_way_report
from liq_pipeline.evaluation.models.walk_forward import walk_forward
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.paging.rules import rule_figures, severity_pages
from liq_pipeline.evaluation.paging.under_way import UnderWayPage
from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.evaluation.panels.panel import Panel, load_panel
from liq_pipeline.evaluation.panels.stored import History
from liq_pipeline.evaluation.report.facts import (
    config_hash,
    drift,
    in_training,
    limits_of,
    market_episodes,
    model_facts,
    panel_facts,
    without_nan,
)
from liq_pipeline.evaluation.report.html_page import write_html
from liq_pipeline.scoring.model import HORIZON_HOURS
from liq_pipeline.scoring.probability import CascadeModel, feature_arrays, shipped_model
from liq_pipeline.scoring.version import score_version
from liq_pipeline.settings import Settings, get_settings

__all__ = ["evaluate", "market_episodes"]

Floats = NDArray[np.float64]

REPORT_VERSION: Final = 2
INTERVAL_SECONDS: Final = 3600
"""Intervals are taken on rows of whole hours: neighbouring rows share their future and narrow nothing honestly."""
SCORED_TOPICS: Final = ("funding_rates", "open_interest", "long_short_ratio", "liquidations")


def evaluate(
    panel: Path | Panel | None = None,
    from_: datetime | None = None,
    to: datetime | None = None,
    out: Path | None = None,
    *,
    settings: Settings | None = None,
    model: CascadeModel | None = None,
    history: History | None = None,
    sent: Mapping[str, Sequence[desk.Page]] | None = None,
    under_way_sent: Sequence[UnderWayPage] = (),
) -> dict[str, Any]:
    """Judge every score on a panel or on stored history; writes report.json and report.html to `out` if given.

    Rows before `from_` serve as look-back only. sent: rule -> pages that people really had, judged beside those of
    today's rules. Raises LiqError if there is nothing to judge.
    """
    if panel is None and history is None:
        raise LiqError("there is nothing to evaluate: give --panel FILE (format: docs/evaluation.md), or a store")
    began = clock.perf_counter()
    settings = settings or get_settings()
    model = model or shipped_model()
    if history is not None:
        data, bars, expected = history.panel, history.bars, history.expected
    else:
        data = load_panel(panel) if isinstance(panel, Path) else panel  # type: ignore[assignment]
        bars = bars_of(data)
        expected = {topic: np.ones(1, dtype=bool) for topic in SCORED_TOPICS}
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
    risk = score_risk(bars, expected, settings)
    found = feature_arrays(bars)
    shipped = model.from_features(found, data.time)
    forward = walk_forward(data, found, labels, events, settings)
    baselines = baseline_scores(data, risk)

    scores: dict[str, Floats] = {"liquidation_risk": risk.score}
    for hours in HORIZON_HOURS:
        scores[f"cascade_probability_{hours}h"] = shipped.by_hours[hours]
        scores[f"cascade_probability_{hours}h_walk_forward"] = forward.by_hours[hours]
    scores |= baselines
    inside_training = in_training(model, data.time)
    severities = severity_figures(data, span, risk, events[desk.DESK_HORIZON_HOURS], settings)
    rules = rule_figures(data, span, scores, events, shipped.by_hours[4], forward, model, settings, ~inside_training)
    first, last = int(data.time[span][0]), int(data.time[span][-1])
    happened = [e for e in events[desk.DESK_HORIZON_HOURS] if first <= e.onset <= last]
    pages = severity_pages(data, span, risk, panel_pressure(data, settings), settings)
    rules["severity_rule"] = desk.desk_figures(pages, happened, first, last)
    rules["under_way"] = under_way_report(data, bars, span, happened, under_way_sent)
    for rule, had in (sent or {}).items():
        rules[f"as_sent_{rule}"] = desk.desk_figures(had, happened, first, last)
    report: dict[str, Any] = {
        "report_version": REPORT_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "world": None if history is None else history.world.name,
        "panel": panel_facts(data, span, events) | {"venues": list(bars.venues)},
        "label_version": LABEL_VERSION,
        "model": model_facts(model, data, span),
        "split": {
            "shipped": "fixed coefficients; rows inside its training window are flagged and judged apart",
            "walk_forward": forward.description,
            "embargo_hours": EMBARGO_SECONDS / 3600,
        },
        "score_version": score_version(settings, model.model_id),
        "config_hash": config_hash(settings, model),
        "data_hash": data.data_hash,
        "scores": {
            name: {
                f"{hours}h": score_figures(name, values, labels[hours], judged, baselines, hours)
                for hours in horizons_of(name)
            }
            for name, values in scores.items()
        },
        "desk": rules,
        "severities": severities,
        "ablations": ablations(
            bars, expected, risk, found, shipped.by_hours[4], model, labels, judged, severities, settings
        ),
        "drift": drift(model, found, span),
    }
    if inside_training.any() and not inside_training.all():
        after = replace(judged, inside=judged.inside & ~inside_training)
        report["outside_training"] = {
            name: {f"{hours}h": score_figures(name, scores[name], labels[hours], after, baselines, hours)}
            for hours in HORIZON_HOURS
            for name in (f"cascade_probability_{hours}h",)
        }
    report["limits"] = limits_of(data, model, inside_training & span)
    report["seconds"] = round(clock.perf_counter() - began, 1)
    clean: dict[str, Any] = without_nan(report)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(json.dumps(clean, indent=1, allow_nan=False) + "\n")
        write_html(clean, out / "report.html")
    return clean
