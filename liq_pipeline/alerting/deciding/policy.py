"""How the alert machine behaves: the settings of one installation in one world, as plain numbers.

Belongs here: durations, margins and which rules run. Does not: the machine (machine.py), thresholds of the severities
(settings.py, applied in levels.py).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Final, Literal

from liq_pipeline.domain.worlds import World
from liq_pipeline.scoring.risk import BUDGET, TOPIC
from liq_pipeline.settings import Settings, SeveritySettings

Rule = Literal["under_way", "severity", "early_warning", "blind"]

LEVEL_NAMES: Final = ("NONE", "INFO", "WARNING", "CRITICAL")
LEVEL_OF_NAME: Final[dict[str, int]] = {name: level for level, name in enumerate(LEVEL_NAMES)}
INFO: Final = 1
WARNING: Final = 2
CRITICAL: Final = 3
NEVER: Final = 4
"""As a page level: recorded and shown everywhere, sent to nobody."""


def _with_margin(thresholds: SeveritySettings, points: float) -> SeveritySettings:
    """The thresholds that keep an open alert: each moved `points` towards calm.

    An unknown pressure then always leaves the risk conditions alone: a flow side that falls silent calms nothing.
    """
    return thresholds.model_copy(
        update={
            "critical_risk": max(thresholds.critical_risk - points, 0.0),
            "critical_pressure": thresholds.critical_pressure + points,
            "warning_risk": max(thresholds.warning_risk - points, 0.0),
            "warning_pressure": thresholds.warning_pressure + points,
            "info_risk": max(thresholds.info_risk - points, 0.0),
            "risk_only": "auto",
        }
    )


@dataclass(frozen=True, slots=True)
class RulePolicy:
    """One rule: when it rises, when it falls, and which group speaks for several symbols."""

    rule: Rule
    _: KW_ONLY
    raise_after: timedelta
    """How long a level must hold without a break before the alert takes it."""
    hold: timedelta
    """How long it must be calm before the alert leaves its level."""
    cooldown: timedelta
    """How long after a page was resolved the same rule, subject and side stays quiet, unless it comes back higher."""
    group_subject: str
    page_level: int
    """The least level (1 INFO, 2 WARNING, 3 CRITICAL) that is sent to people; NEVER: none is."""


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """Everything the machine needs beside the points."""

    world: str
    rules: tuple[RulePolicy, ...]
    group_window: timedelta
    reminder: timedelta | None
    longest_gap: timedelta
    """Two judged points further apart than this do not prove calm in between."""
    full_coverage: float
    """Coverage (0..1) when every source that this world expects is fresh."""
    severity: SeveritySettings
    """Thresholds that raise an alert; keeping: those that it must fall under to leave its level."""
    keeping: SeveritySettings

    @classmethod
    def build(cls, settings: Settings, world: World) -> AlertPolicy:
        """The policy of an installation's settings in a world."""
        step = timedelta(seconds=world.market_step_seconds)
        hold = timedelta(minutes=settings.alert_hold_minutes)
        cooldown = timedelta(minutes=settings.alert_cooldown_minutes)
        # At least three points, so that one late source of a slow grid is not an alarm.
        blind_after = max(timedelta(seconds=settings.alert_blind_seconds), 2 * step)
        expected = {topic for topic, of in world.manifest.expected.items() if of.venues}
        instantly = timedelta(0)

        def page_level(rule: str, level: int) -> int:
            return level if rule in settings.alert_policy else NEVER

        return cls(
            world=world.name,
            rules=(
                # Told first, and without a cool-down: the next cascade an hour later is another one. "Over" waits as
                # long for calm as the severities do.
                RulePolicy(
                    "under_way",
                    raise_after=instantly,
                    hold=hold,
                    cooldown=instantly,
                    group_subject="market",
                    page_level=page_level("under_way", WARNING),
                ),
                RulePolicy(
                    "severity",
                    raise_after=instantly,
                    hold=hold,
                    cooldown=cooldown,
                    group_subject="market",
                    page_level=page_level("severity", LEVEL_OF_NAME[settings.alert_min_severity]),
                ),
                RulePolicy(
                    "early_warning",
                    raise_after=instantly,
                    hold=timedelta(minutes=settings.alert_early_warning_hold_minutes),
                    cooldown=cooldown,
                    group_subject="market",
                    page_level=page_level("early_warning", WARNING),
                ),
                # Blindness is always told, whatever the installation asks of the severities, and at once after "sees
                # again": a longer hold keeps a flapping source from talking all the time, never a silence.
                RulePolicy(
                    "blind",
                    raise_after=blind_after,
                    hold=max(blind_after, hold / 3),
                    cooldown=instantly,
                    group_subject="monitor",
                    page_level=WARNING,
                ),
            ),
            group_window=timedelta(minutes=settings.alert_group_minutes),
            reminder=None
            if settings.alert_reminder_minutes is None
            else timedelta(minutes=settings.alert_reminder_minutes),
            longest_gap=max(hold / 3, 2 * step),
            full_coverage=sum(BUDGET[name] for name, topic in TOPIC.items() if topic in expected) / 100.0,
            severity=settings.severity,
            keeping=_with_margin(settings.severity, settings.alert_hysteresis_points),
        )
