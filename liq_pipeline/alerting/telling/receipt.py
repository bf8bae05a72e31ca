"""The receipt of an alert: everything needed to take its number apart, as one JSON object.

Belongs here: gathering points, inputs, ages, thresholds and provenance of one scored symbol. Does not: words for people
(messages.py), or where receipts are kept (alerting/book.py).

A receipt states for each component its points, its budget and the inputs they came from, and checks that the known
points add up to the score. A group's receipt holds those of its symbols.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from liq_pipeline.alerting.deciding.policy import LEVEL_NAMES, NEVER, AlertPolicy
from liq_pipeline.alerting.deciding.state import Alert
from liq_pipeline.domain.worlds import World
from liq_pipeline.scoring.results import PointResult, PressureResult, RiskResult, SignalResult
from liq_pipeline.scoring.risk import BUDGET, COMPONENTS
from liq_pipeline.scoring.severity import FLOW_SIDE_BLIND
from liq_pipeline.scoring.under_way.rules import shipped_under_way_model

RECEIPT_VERSION: Final = 1
_SUM_TOLERANCE_POINTS: Final = 1e-6


Fuel = Mapping[str, dict[str, Any] | None]
"""Symbol -> the liquidation map's summary as it was known then (store/levels.py); no decision reads it."""


def symbol_receipt(
    alert: Alert, point: PointResult, world: World, policy: AlertPolicy, score_version: str, fuel: Fuel
) -> dict[str, Any]:
    """The receipt of a symbol's alert at one point. A symbol that the point does not hold gives one without a score."""
    risk, signal = point.risks.get(alert.subject), point.signals.get(alert.subject)
    ages = list(_ages(risk.inputs)) if risk is not None else []
    return {
        **_head(alert, point.time, world, score_version),
        "score": _score(risk),
        "components": [] if risk is None else _components(risk),
        "sum_check": _sum_check(risk),
        "pressure": _pressure(point.pressure, point.time),
        "probability": _probability(signal),
        "under_way": _under_way(signal),
        "liquidation_fuel": fuel.get(alert.subject),
        "what_followed": _what_followed() if alert.rule == "under_way" else None,
        "severity_possible": None if signal is None else signal.severity_possible,
        "note": "" if signal is None else signal.note,
        "inputs": {} if risk is None else {k: v for k, v in risk.inputs.items() if k not in COMPONENTS},
        "data": {
            "cut_time": point.time.isoformat(),
            "oldest_age_seconds": max(ages, default=None),
            "newest_age_seconds": min(ages, default=None),
            "coverage": None if risk is None else risk.coverage,
        },
        "thresholds": _thresholds(alert, policy),
    }


def group_receipt(
    alert: Alert,
    members: Iterable[Alert],
    point: PointResult,
    world: World,
    policy: AlertPolicy,
    score_version: str,
    fuel: Fuel,
) -> dict[str, Any]:
    """The receipt of a group's alert: the receipts of its symbols under `members`."""
    return {
        **_head(alert, point.time, world, score_version),
        "members": {a.subject: symbol_receipt(a, point, world, policy, score_version, fuel) for a in members},
        "thresholds": _thresholds(alert, policy),
    }


def adds_up(receipt: dict[str, Any]) -> bool:
    """Whether every score in the receipt is the sum of its points."""
    if "members" in receipt:
        return all(adds_up(member) for member in receipt["members"].values())
    return receipt["sum_check"]["adds_up"] is not False


def _head(alert: Alert, time: datetime, world: World, score_version: str) -> dict[str, Any]:
    return {
        "receipt_version": RECEIPT_VERSION,
        "alert_id": str(alert.alert_id),
        "page_id": str(alert.page_id),
        "rule": alert.rule,
        "subject": alert.subject,
        "side": alert.side,
        "severity": LEVEL_NAMES[alert.level],
        "time": time.isoformat(),
        "opened_at": alert.opened_at.isoformat(),
        "world": world.name,
        "world_kind": world.kind,
        "score_version": score_version,
    }


def _score(risk: RiskResult | None) -> dict[str, Any] | None:
    if risk is None:
        return None
    return {
        "value": risk.score,
        "high": risk.score_high,
        "side": risk.side,
        "long_squeeze": risk.long_squeeze,
        "short_squeeze": risk.short_squeeze,
        "coverage": risk.coverage,
    }


def _components(risk: RiskResult) -> list[dict[str, Any]]:
    components = []
    for name in COMPONENTS:
        points = getattr(risk, f"{name}_points")
        components.append(
            {
                "name": name,
                "points": points,
                "budget": BUDGET[name],
                "is_known": points is not None,
                "inputs": risk.inputs.get(name),
            }
        )
    return components


def _sum_check(risk: RiskResult | None) -> dict[str, Any]:
    """The known points, their sum, and whether it is the score; adds_up is null while the score is unknown."""
    if risk is None:
        return {"sum_of_points": None, "score": None, "adds_up": None}
    points = [getattr(risk, f"{name}_points") for name in COMPONENTS]
    total = math.fsum(value for value in points if value is not None)
    is_sum = None if risk.score is None else abs(total - risk.score) <= _SUM_TOLERANCE_POINTS
    return {"sum_of_points": total, "score": risk.score, "adds_up": is_sum}


def _pressure(pressure: PressureResult | None, now: datetime) -> dict[str, Any]:
    if pressure is None or pressure.score is None:
        return {"is_known": False, "note": FLOW_SIDE_BLIND}
    return {
        "is_known": True,
        "score": pressure.score,
        "score_low": pressure.score_low,
        "score_high": pressure.score_high,
        "inflow_usd": pressure.inflow_usd,
        "outflow_usd": pressure.outflow_usd,
        "window_minutes": pressure.window_minutes,
        "coverage": pressure.coverage,
        "time": pressure.time.isoformat(),
        "age_seconds": (now - pressure.time).total_seconds(),
        "inputs": pressure.inputs,
    }


def _probability(signal: SignalResult | None) -> dict[str, Any] | None:
    if signal is None or signal.cascade_probability_4h is None:
        return None
    return {
        "cascade_1h": signal.cascade_probability_1h,
        "cascade_4h": signal.cascade_probability_4h,
        "cascade_24h": signal.cascade_probability_24h,
        "is_past_threshold": signal.early_warning,
        "market_4h": signal.market_probability_4h,
        "market_threshold_4h": signal.market_threshold_4h,
        "model_id": signal.model_id,
        "baseline_volatility_percentile": signal.baseline_volatility_percentile,
    }


def _what_followed() -> dict[str, Any] | None:
    """What followed earlier alarms, from the facts of the model that ships."""
    model = shipped_under_way_model()
    return None if model is None else model.facts.get("what_followed")


def _under_way(signal: SignalResult | None) -> dict[str, Any] | None:
    """What was seen of a cascade; times as text. None: nothing was scored, or nothing moved."""
    if signal is None or signal.under_way is None or signal.under_way.side is None:
        return None
    found: dict[str, Any] = msgspec.to_builtins(signal.under_way)
    return found


def _thresholds(alert: Alert, policy: AlertPolicy) -> dict[str, Any]:
    rule = next(r for r in policy.rules if r.rule == alert.rule)
    return {
        "severity": policy.severity.model_dump(mode="json"),
        "kept_until_under": policy.keeping.model_dump(mode="json"),
        "hold_seconds": rule.hold.total_seconds(),
        "cooldown_seconds": rule.cooldown.total_seconds(),
        "raise_after_seconds": rule.raise_after.total_seconds(),
        "page_severity": LEVEL_NAMES[rule.page_level] if rule.page_level < NEVER else None,
    }


def _ages(value: Any) -> Iterator[float]:
    """Every age_seconds anywhere in the inputs."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "age_seconds" and isinstance(inner, int | float):
                yield float(inner)
            else:
                yield from _ages(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _ages(inner)
