"""Severity: the product's conditions, word for word."""

from __future__ import annotations

import pytest

from liq_pipeline.scoring.severity import severity_of
from liq_pipeline.settings import SeveritySettings


@pytest.mark.parametrize(
    ("risk", "pressure", "severity"),
    [
        (70.1, -30.1, "CRITICAL"),
        (70.0, -30.1, "WARNING"),  # strict: 70 is not more than 70
        (70.1, -30.0, "WARNING"),
        (100.0, 100.0, "INFO"),  # strong outflow calms whatever the risk
        (50.1, -0.1, "WARNING"),
        (50.0, -50.0, "INFO"),
        (50.1, 0.0, "INFO"),
        (30.1, 100.0, "INFO"),
        (30.0, -100.0, "NONE"),
        (0.0, -100.0, "NONE"),
        (None, -100.0, "UNKNOWN"),
        (None, None, "UNKNOWN"),
    ],
)
def test_conditions_are_checked_in_order_and_strictly(
    risk: float | None, pressure: float | None, severity: str
) -> None:
    assert severity_of(risk, pressure, SeveritySettings()) == severity


@pytest.mark.parametrize(("risk", "severity"), [(70.1, "CRITICAL"), (70.0, "WARNING"), (50.0, "INFO"), (30.0, "NONE")])
def test_without_a_pressure_the_risk_alone_decides(risk: float, severity: str) -> None:
    assert severity_of(risk, None, SeveritySettings()) == severity


@pytest.mark.parametrize("risk", [100.0, 60.0, 30.1])
def test_with_never_a_condition_on_an_unknown_pressure_fails(risk: float) -> None:
    assert severity_of(risk, None, SeveritySettings(risk_only="never")) == "INFO"


def test_thresholds_are_settings() -> None:
    strict = SeveritySettings(critical_risk=80, critical_pressure=-50, info_risk=10)
    assert severity_of(75, -60, strict) == "WARNING"
    assert severity_of(85, -60, strict) == "CRITICAL"
    assert severity_of(15, 0, strict) == "INFO"
