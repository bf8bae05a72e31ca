"""How often each severity is followed by a cascade, with the pressure gate as stated, reversed and off.

Belongs here: severities over a panel and their precision. Does not: what a severity is (scoring/severity.py).

An alarm is the moment at which a symbol's severity rises to a level or above, having been under it for the horizon: a
severity that flickers around its threshold is one alarm. It is right if an onset of that symbol follows within the
horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.labels.version_1 import CascadeEvent
from liq_pipeline.evaluation.paging.desk import DESK_HORIZON_HOURS, FEW_EVENTS, LEAD_SECONDS
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.pressure import pressure_arrays, scale_of
from liq_pipeline.scoring.references import needed_observations, order_statistics
from liq_pipeline.scoring.risk import RiskArrays
from liq_pipeline.scoring.windows import rolling_max
from liq_pipeline.settings import Settings, SeveritySettings

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
LEVELS: Final[tuple[Literal["INFO", "WARNING", "CRITICAL"], ...]] = ("INFO", "WARNING", "CRITICAL")


def severity_figures(
    panel: Panel, span: Booleans, risk: RiskArrays, events: Sequence[CascadeEvent], settings: Settings
) -> dict[str, Any]:
    """Figures of each severity: flow side blind always; with flows, the stated sign, the opposite one and no gate."""
    result: dict[str, Any] = {"gate_off_flow_side_blind": _figures(panel, span, risk, events, settings.severity, None)}
    pressure = panel_pressure(panel, settings)
    if pressure is None:
        result["note"] = "no stablecoin flows in this panel: the pressure gate is not measured, with either sign"
        return result
    for name, sign in (("sign_as_stated", 1.0), ("sign_reversed", -1.0)):
        result[name] = _figures(panel, span, risk, events, settings.severity, sign * pressure)
    return result


def panel_pressure(panel: Panel, settings: Settings) -> Floats | None:
    """Pressure with the stated sign at each time, from net inflows per step; None if the panel has none."""
    if not panel.has("stablecoin_net_inflow_usd"):
        return None
    # Flows are of the market, not of a symbol: the first symbol that knows them tells.
    flows = panel["stablecoin_net_inflow_usd"]
    index = int(np.argmax(np.isfinite(flows).sum(axis=0) > 0))
    inflow = flows[int(np.argmax(np.isfinite(flows[:, index])))]
    rows = max(1, settings.pressure.window_minutes * 60 // panel.step_seconds)
    known = np.isfinite(inflow)
    cents = np.rint(np.where(known, inflow, 0.0) * 100.0).astype(np.int64)
    running = np.cumsum(cents)
    net = running.copy()
    net[rows:] -= running[:-rows]
    scale = np.full(panel.time.size, np.nan)
    span = settings.risk.lookback_hours * 3600 // panel.step_seconds
    needed = needed_observations(settings.risk.min_lookback_hours, panel.step_seconds)
    day = panel.time // 86_400
    for current in np.unique(day):
        end = int(np.searchsorted(panel.time, current * 86_400, side="right"))
        past = np.where(known, np.abs(net), np.nan)[max(0, end - span) : end].astype(np.float64)
        quantiles, count = order_statistics(past)
        if count >= needed:
            scale[day == current] = scale_of(quantiles)
    zero = np.zeros_like(net)
    return pressure_arrays(np.maximum(net, zero), np.maximum(-net, zero), known[np.newaxis], scale, 1).score


def _figures(
    panel: Panel,
    span: Booleans,
    risk: RiskArrays,
    events: Sequence[CascadeEvent],
    thresholds: SeveritySettings,
    pressure: Floats | None,
) -> dict[str, Any]:
    """Per level: alarms, precision, and the share of events an alarm preceded by 30 min."""
    info, warning, critical = levels_held(risk, pressure, thresholds, panel)
    rows = DESK_HORIZON_HOURS * 3600 // panel.step_seconds
    reach = DESK_HORIZON_HOURS * 3600
    known = np.isfinite(risk.score[:, span])
    figures: dict[str, Any] = {}
    for level, holds in zip(LEVELS, (info, warning, critical), strict=True):
        alarms = right = preceded = happened = 0
        for index, symbol in enumerate(panel.symbols):
            onsets = np.array(sorted(e.onset for e in events if e.symbol == symbol), dtype=np.int64)
            onsets = onsets[(onsets >= panel.time[span][0]) & (onsets <= panel.time[span][-1])]
            current = (holds[index] & span).astype(np.float64)
            before = np.concatenate([[0.0], rolling_max(current, rows)[:-1]])
            raised = panel.time[(current > 0) & (before == 0)]
            following = np.searchsorted(onsets, raised, side="right")
            hit = following < onsets.size
            hit[hit] = onsets[following[hit]] - raised[hit] <= reach
            alarms, right, happened = alarms + raised.size, right + int(hit.sum()), happened + onsets.size
            # An event is preceded if the level held at any row of [onset - horizon, onset - 30 min].
            held = panel.time[current > 0]
            first = np.searchsorted(held, onsets - reach, side="left")
            last = np.searchsorted(held, onsets - LEAD_SECONDS, side="right")
            preceded += int((last > first).sum())
        figures[level] = {
            "alarms": alarms,
            "right": right,
            "precision": right / alarms if alarms else None,
            "share_of_rows": float(holds[:, span][known].mean()) if known.any() else None,
            "events": happened,
            "events_preceded_by_30_min": preceded / happened if happened else None,
            "descriptive_only": happened < FEW_EVENTS,
        }
    return figures


def levels_held(
    risk: RiskArrays, pressure: Floats | None, thresholds: SeveritySettings, panel: Panel
) -> tuple[Booleans, Booleans, Booleans]:
    """Where INFO, WARNING and CRITICAL (or more) hold, (symbols, times) each."""
    with np.errstate(invalid="ignore"):
        critical = (risk.score > thresholds.critical_risk) & _gate(
            pressure, thresholds.critical_pressure, panel, thresholds
        )
        warning = critical | (
            (risk.score > thresholds.warning_risk) & _gate(pressure, thresholds.warning_pressure, panel, thresholds)
        )
        info = warning | (risk.score > thresholds.info_risk)
    return info, warning, critical


def _gate(pressure: Floats | None, limit: float, panel: Panel, thresholds: SeveritySettings) -> Booleans:
    """Where the pressure condition of a level holds; an unknown pressure leaves the risk alone (or fails it)."""
    unknown_passes = thresholds.risk_only == "auto"
    if pressure is None:
        return np.full(panel.time.size, unknown_passes)
    with np.errstate(invalid="ignore"):
        return np.where(np.isnan(pressure), unknown_passes, pressure < limit)
