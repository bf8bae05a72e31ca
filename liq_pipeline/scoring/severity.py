"""Severity: what a risk and a pressure amount to.

Belongs here: the product's conditions, in their order, with strict inequalities. Does not: scores, alert states.
"""

from __future__ import annotations

from liq_pipeline.scoring.results import Severity
from liq_pipeline.settings import SeveritySettings

FLOW_SIDE_BLIND = "flow side blind"


def severity_of(risk: float | None, pressure: float | None, settings: SeveritySettings) -> Severity:
    """CRITICAL, WARNING, INFO in that order, NONE otherwise; UNKNOWN if the risk is.

    pressure None: with risk_only `auto` the risk conditions alone decide, with `never` a condition that asks for the
    pressure fails. Called with score_high it gives severity_possible.
    """
    if risk is None:
        return "UNKNOWN"
    if risk > settings.critical_risk and _pressure_below(pressure, settings.critical_pressure, settings):
        return "CRITICAL"
    if risk > settings.warning_risk and _pressure_below(pressure, settings.warning_pressure, settings):
        return "WARNING"
    if risk > settings.info_risk:
        return "INFO"
    return "NONE"


def _pressure_below(pressure: float | None, threshold: float, settings: SeveritySettings) -> bool:
    if pressure is None:
        return settings.risk_only == "auto"
    return pressure < threshold
