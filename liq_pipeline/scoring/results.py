"""What a tick computes: one value object per row of liquidation_risk, stablecoin_pressure and signals.

Belongs here: shapes shared by scoring, storage and alerting. Does not: how they are computed.
None means unknown, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Side = Literal["long", "short"]
Severity = Literal["CRITICAL", "WARNING", "INFO", "NONE", "UNKNOWN"]

FUNDING_BUDGET = 30.0
OPEN_INTEREST_BUDGET = 30.0
LONG_SHORT_BUDGET = 20.0
LIQUIDATION_BUDGET = 20.0


@dataclass(frozen=True, slots=True)
class RiskResult:
    """One liquidation_risk row. Points are those of `side`; inputs explains every point (values, ages, venues)."""

    symbol: str
    time: datetime
    score: float | None
    score_high: float | None
    side: Side | None
    funding_points: float | None
    open_interest_points: float | None
    long_short_points: float | None
    liquidation_points: float | None
    long_squeeze: float | None
    short_squeeze: float | None
    coverage: float
    inputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PressureResult:
    """One stablecoin_pressure row; USD sums over (time - window, time]. score_low, score_high: what the score might be
    if the chains that are silent or warming were known."""

    time: datetime
    score: float | None
    inflow_usd: float | None
    outflow_usd: float | None
    window_minutes: int
    coverage: float
    inputs: dict[str, Any] = field(default_factory=dict)
    score_low: float | None = None
    score_high: float | None = None


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Whether a cascade is under way in one symbol at one point (scoring/under_way/)."""

    side: Side | None
    """Whose positions are being closed: long while the price falls, short while it rises. None: no excursion."""
    is_open: bool | None
    """The rule in force says that a cascade of that side is under way; None: cannot be judged."""
    is_calm: bool | None
    """Open interest has stopped falling and the price has calmed: what "over" waits for. None: unknown."""
    probability: float | None
    """That the move in progress is a cascade of the label; None: unknown, or the rule states none."""
    rule: Literal["plain", "model"]
    started_at: datetime | None
    """Where the excursion began."""
    excursion: float | None
    """Signed fraction of the price since then."""
    threshold: float | None
    """theta at that start, a fraction."""
    open_interest_change: float | None
    """Fraction of open interest, in coins, since then."""
    inputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SignalResult:
    """One signals row."""

    symbol: str
    time: datetime
    risk: float | None
    pressure: float | None
    severity: Severity
    severity_possible: Severity
    flow_side_known: bool
    note: str
    cascade_probability_1h: float | None = None
    cascade_probability_4h: float | None = None
    cascade_probability_24h: float | None = None
    model_id: str | None = None
    early_warning: bool | None = None
    """Whether the market's 4 h probability is past its threshold; None = the symbol or the market has none."""
    market_probability_4h: float | None = None
    """What the early warning reads: the mean over the symbols. Not a column; receipts keep it."""
    market_threshold_4h: float | None = None
    baseline_volatility_percentile: float | None = None
    under_way: UnderWay | None = None


@dataclass(frozen=True, slots=True)
class PointResult:
    """Everything scored at one market grid point; pressure is the newest at or before it (at most 60 s old)."""

    time: datetime
    risks: dict[str, RiskResult]
    signals: dict[str, SignalResult]
    pressure: PressureResult | None
