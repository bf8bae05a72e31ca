"""What each rule reads from one point: the level that holds, and the level that the hysteresis still keeps.

Belongs here: turning a scored point into readings (0 none, 1 INFO, 2 WARNING, 3 CRITICAL, None = cannot be judged).
Does not: what follows from them (machine.py), or the severity itself (scoring).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from liq_pipeline.alerting.deciding.policy import INFO, LEVEL_OF_NAME, WARNING, AlertPolicy
from liq_pipeline.scoring.results import RiskResult, Side, SignalResult, UnderWay
from liq_pipeline.scoring.risk import BUDGET, COMPONENTS
from liq_pipeline.scoring.severity import severity_of

# Coverage is a sum of shares; this much under the full sum is a silent venue and not rounding.
_COVERAGE_TOLERANCE = 0.001


@dataclass(frozen=True, slots=True)
class Held:
    """What an open alert brings to its next reading."""

    level: int
    side: Side | None
    component_shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """level: what holds now. kept: the highest level not yet left by the margin. None: cannot be judged."""

    level: int | None
    kept: int | None
    side: Side | None = None
    side_changed: bool = False
    """The other side has taken over: this alert ends and one of the other side opens, without waiting for calm."""


UNJUDGED = Reading(level=None, kept=None)


def component_shares(risk: RiskResult | None) -> dict[str, float]:
    """Component -> the share (0..1) of its expected venues that its points come from; 0 while they are unknown."""
    if risk is None:
        return {}
    shares = {}
    for name in COMPONENTS:
        is_known = getattr(risk, f"{name}_points") is not None
        shares[name] = float(risk.inputs.get(name, {}).get("share", 1.0)) if is_known else 0.0
    return shares


def read_severity(risk: RiskResult | None, signal: SignalResult, held: Held | None, policy: AlertPolicy) -> Reading:
    """The severity rule. Without an open alert it is the signal's severity and nothing else."""
    if signal.severity == "UNKNOWN" or risk is None or risk.score is None:
        return UNJUDGED
    level = LEVEL_OF_NAME[signal.severity]
    if held is None:
        return Reading(level=level, kept=level, side=risk.side)
    own = {"long": risk.long_squeeze, "short": risk.short_squeeze, None: risk.score}[held.side]
    own = risk.score if own is None else own
    # A venue that helped to reach the level and is silent now may still stand where it stood: its part of the budget
    # counts against calm, so that silence neither lowers nor closes an alert.
    now = component_shares(risk)
    silent = sum(BUDGET[name] * max(share - now[name], 0.0) for name, share in held.component_shares.items())
    highest = min(own + silent, 100.0)
    kept = LEVEL_OF_NAME[severity_of(highest, signal.pressure, policy.keeping)]
    if held.side is None or risk.side is None or risk.side == held.side:
        return Reading(level=level, kept=max(level, kept), side=held.side or risk.side)
    if level > held.level or (level == held.level and kept < held.level):
        return Reading(level=level, kept=level, side=risk.side, side_changed=True)
    own_level = min(level, LEVEL_OF_NAME[severity_of(own, signal.pressure, policy.severity)])
    return Reading(level=own_level, kept=max(own_level, kept), side=held.side)


def read_under_way(under_way: UnderWay | None, held: Held | None) -> Reading:
    """Under way: WARNING while the rule holds, kept until price and open interest are calm. Unknown is not calm."""
    if under_way is None or (under_way.is_open is None and under_way.is_calm is None):
        return UNJUDGED
    level = WARNING if under_way.is_open else 0
    kept = 0 if under_way.is_calm and not under_way.is_open else WARNING
    if held is not None and under_way.is_open and under_way.side not in (None, held.side):
        return Reading(level=level, kept=kept, side=under_way.side, side_changed=True)
    return Reading(level=level, kept=kept, side=under_way.side if held is None else held.side)


def read_early_warning(risk: RiskResult | None, signal: SignalResult) -> Reading:
    """The early warning: WARNING while cascade_probability_4h is past the model's threshold."""
    if signal.early_warning is None:
        return UNJUDGED
    level = WARNING if signal.early_warning else 0
    return Reading(level=level, kept=level, side=None if risk is None else risk.side)


def read_blind(risk: RiskResult | None, signal: SignalResult, policy: AlertPolicy) -> Reading:
    """Blindness of one symbol: WARNING when its risk is UNKNOWN, INFO when an expected source is missing."""
    if signal.severity == "UNKNOWN" or risk is None or risk.score is None:
        return Reading(level=WARNING, kept=WARNING)
    level = INFO if risk.coverage < _full_coverage(risk, policy) - _COVERAGE_TOLERANCE else 0
    return Reading(level=level, kept=level)


def _full_coverage(risk: RiskResult, policy: AlertPolicy) -> float:
    """What the symbol can reach: a component that no venue offers for this coin is not missing."""
    offered = sum(BUDGET[name] for name in COMPONENTS if risk.inputs.get(name, {}).get("venues") != {})
    return min(policy.full_coverage, offered / 100.0)
