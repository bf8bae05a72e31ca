"""The desk figures of a report: pages of each alert rule, as it is in force and at the budget.

Belongs here: which rules, and at which ranks, are judged. Does not: pages and verdicts themselves (desk.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.alerting.deciding.machine import step
from liq_pipeline.alerting.deciding.state import Book
from liq_pipeline.evaluation.figures.baselines import VOLATILITY_4H, VOLATILITY_24H
from liq_pipeline.evaluation.figures.severities import LEVELS, levels_held
from liq_pipeline.evaluation.labels.version_1 import CascadeEvent
from liq_pipeline.evaluation.models.walk_forward import WalkForward
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.early_warning import WarningRule
from liq_pipeline.scoring.probability import CascadeModel
from liq_pipeline.scoring.results import PointResult, RiskResult, Severity, SignalResult
from liq_pipeline.scoring.risk import COMPONENTS, LONG, SHORT, RiskArrays
from liq_pipeline.settings import Settings

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


def rule_figures(
    data: Panel,
    span: Booleans,
    scores: Mapping[str, Floats],
    events: Mapping[int, list[CascadeEvent]],
    shipped_4h: Floats,
    forward: WalkForward,
    model: CascadeModel,
    settings: Settings,
    unseen: Booleans,
) -> dict[str, Any]:
    """Pages of the early warning as shipped, and of every score at the rank that just keeps the budget.

    unseen: (times,) where the shipped model was trained on nothing; its pages there are judged apart.
    """
    policy = desk.desk_policy(data.step_seconds, "early_warning", data.symbols, settings)
    first, last = int(data.time[span][0]), int(data.time[span][-1])
    happened = [e for e in events[desk.DESK_HORIZON_HOURS] if first <= e.onset <= last]

    def figures(score: Floats, rule: WarningRule, since: float = first, last: int = last) -> dict[str, Any]:
        if not np.isfinite(rule.rank) or not np.isfinite(since):
            return {"note": "nothing known to set a rank on"}
        warnings = desk.market_warnings(data.time, score, rule)
        inside = np.where(span & (data.time >= since) & (data.time <= last), warnings, np.nan)
        pages = desk.early_warning_pages(data.time, data.symbols, inside, policy)
        # Judged from where something is known: before that nobody could have been warned.
        known = data.time[np.isfinite(inside).any(axis=0)]
        judged_from = max(first, int(since), int(known[0]) if known.size else first)
        return {**rule.as_json(), "judged_from": judged_from} | desk.desk_figures(
            pages, [e for e in happened if judged_from <= e.onset <= last], judged_from, last
        )

    result: dict[str, Any] = {
        "horizon_hours": desk.DESK_HORIZON_HOURS,
        "delivery_seconds": desk.DELIVERY_SECONDS,
        "false_pages_per_week_allowed": desk.FALSE_PAGES_PER_WEEK,
        "early_warning_as_shipped": figures(shipped_4h, model.early_warning),
        "early_warning_walk_forward": figures(
            scores["cascade_probability_4h_walk_forward"], forward.early_warning, forward.judged_from
        ),
        "at_the_budget_in_hindsight": {},
    }
    judged = np.flatnonzero(span & unseen)
    if judged.size and not unseen[span].all():
        # Training windows are stretches: the longest stretch without one is judged, so that no page spans a seam.
        stretches = np.split(judged, np.flatnonzero(np.diff(judged) > 1) + 1)
        longest = max(stretches, key=len)
        result["early_warning_outside_training"] = figures(
            shipped_4h, model.early_warning, float(data.time[longest[0]]), int(data.time[longest[-1]])
        )
    # The rank is set on the judged rows themselves: the best each score could have done, for comparison only.
    for name in ("cascade_probability_4h", "liquidation_risk", VOLATILITY_4H, VOLATILITY_24H, "naive_point_table"):
        score = np.where(span, scores[name], np.nan)
        weeks = (last - first) / desk.WEEK_SECONDS
        rule = desk.rank_for_budget(data.time, data.symbols, score, happened, policy, weeks=weeks)
        result["at_the_budget_in_hindsight"][name] = figures(scores[name], rule)
    return result


def severity_pages(
    data: Panel, span: Booleans, risk: RiskArrays, pressure: Floats | None, settings: Settings
) -> list[desk.Page]:
    """Pages of the severity rule, through the alert machine.

    The machine runs where a symbol reaches the level that is sent, or an alert is open; an alert below that level is
    recorded and told to nobody, so calm stretches are passed over.
    """
    policy = desk.desk_policy(data.step_seconds, "severity", data.symbols, settings)
    held = levels_held(risk, pressure, settings.severity, data)
    sent = LEVELS.index(settings.alert_min_severity)
    reached = held[sent] & span
    hot = np.flatnonzero(reached.any(axis=0))
    book, heard = Book(), desk.PagesHeard(policy)
    position, stop = 0, int(np.flatnonzero(span)[-1]) + 1
    while position < stop:
        if not book.open:
            following = int(np.searchsorted(hot, position))
            if following >= hot.size:
                break
            position = int(hot[following])
        at = datetime.fromtimestamp(int(data.time[position]), UTC)
        watched = {int(index) for index in np.flatnonzero(reached[:, position])}
        watched |= {data.symbols.index(alert.subject) for alert in book.open.values() if not alert.is_group}
        risks, signals = {}, {}
        for index in sorted(watched):
            symbol = data.symbols[index]
            now = None if pressure is None or np.isnan(pressure[position]) else float(pressure[position])
            risks[symbol], signals[symbol] = _reading(symbol, at, risk, held, index, position, now)
        outcome = step(book, PointResult(at, risks, signals, None), policy, "evaluation")
        book = outcome.book
        heard.hear(outcome.messages, int(data.time[position]))
        position += 1
    return heard.found(int(data.time[stop - 1]))


def _reading(
    symbol: str, at: datetime, risk: RiskArrays, held: Sequence[Booleans], s: int, p: int, pressure: float | None
) -> tuple[RiskResult, SignalResult]:
    """What the severity rule reads of one symbol at one point."""
    side = int(risk.side[s, p])
    points = {}
    for name in COMPONENTS:
        component = risk.components[name]
        points[f"{name}_points"] = _known((component.short if side == SHORT else component.long)[s, p])
    score = _known(risk.score[s, p])
    severity: Severity = "UNKNOWN" if score is None else "NONE"
    for level, holds in zip(LEVELS, held, strict=True):
        if score is not None and holds[s, p]:
            severity = level
    result = RiskResult(
        symbol=symbol,
        time=at,
        score=score,
        score_high=_known(risk.score_high[s, p]),
        side="long" if side == LONG else "short" if side == SHORT else None,
        long_squeeze=_known(risk.long_squeeze[s, p]),
        short_squeeze=_known(risk.short_squeeze[s, p]),
        coverage=float(risk.coverage[s, p]),
        inputs={name: {"share": float(risk.components[name].share[s, p])} for name in COMPONENTS},
        **points,
    )
    return result, SignalResult(symbol, at, score, pressure, severity, severity, pressure is not None, "")


def _known(value: Any) -> float | None:
    number = float(value)
    return None if np.isnan(number) else number
