"""What if: a stored stretch scored again under other settings, in memory, its alerts decided again from a quiet book.

Belongs here: changed settings, and running scores and the alert machine over stored rows. Does not: scoring
(pipeline/rescore.py), the machine (alerting/deciding/machine.py), the page. Nothing is written to the store.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import psycopg
from pydantic import ValidationError

from liq_pipeline.alerting.book import message_records
from liq_pipeline.alerting.deciding.machine import step
from liq_pipeline.alerting.deciding.policy import LEVEL_NAMES, AlertPolicy
from liq_pipeline.alerting.deciding.state import Book, Step
from liq_pipeline.domain.worlds import World
from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.labels.version_1 import CascadeEvent
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.paging.outcomes import StoredAlert, judge_alerts
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.pipeline.models import model_in_force
from liq_pipeline.pipeline.rescore import score_in_memory
from liq_pipeline.replay.story import COMPONENTS, SERIES, Said, SymbolSeries, Told, count_notes, said_of
from liq_pipeline.scoring.results import PointResult
from liq_pipeline.scoring.version import score_version
from liq_pipeline.settings import PressureSettings, RiskSettings, Settings, SeveritySettings

_PARTS: Final[dict[str, type[RiskSettings | PressureSettings | SeveritySettings]]] = {
    "risk": RiskSettings,
    "pressure": PressureSettings,
    "severity": SeveritySettings,
}


def parse_changes(texts: Sequence[str]) -> dict[str, str]:
    """`LIQ_X=value` options as a mapping. Raises LiqError for anything else."""
    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise LiqError(f"--set takes NAME=VALUE such as LIQ_SEVERITY_WARNING_RISK=45, not {text!r}")
        changes[name.strip().upper()] = value.strip()
    return changes


def changed_settings(settings: Settings, changes: Mapping[str, str]) -> Settings:
    """The settings with some of LIQ_RISK_, LIQ_PRESSURE_, LIQ_SEVERITY_ and LIQ_ALERT_ replaced.

    Raises LiqError if a name is none of these or a value is not possible.
    """
    of_parts: dict[str, dict[str, str]] = {}
    for name, text in changes.items():
        word = name.removeprefix("LIQ_").lower()
        part = next((p for p, kind in _PARTS.items() if word.removeprefix(f"{p}_") in kind.model_fields), None)
        if part is not None and word.startswith(f"{part}_"):
            of_parts.setdefault(part, {})[word.removeprefix(f"{part}_")] = text
            continue
        if not word.startswith("alert_") or word not in Settings.model_fields:
            raise LiqError(
                f"{name} cannot be changed here: scores and alerts follow LIQ_RISK_, LIQ_PRESSURE_,"
                " LIQ_SEVERITY_ and LIQ_ALERT_ settings (docs/settings.md)"
            )
        try:
            settings = settings.model_copy(update={word: getattr(Settings(**_given(word, text)), word)})
        except ValidationError as error:
            raise _cannot_be(name, text, error) from error
    for part, given in of_parts.items():
        own = getattr(settings, part)
        try:
            # Together, as thresholds are held against each other; on their own variables nothing else is read.
            changed = _PARTS[part](**{**own.model_dump(), **given})
        except ValidationError as error:
            field = str(error.errors()[0]["loc"][0])
            told = field if field in given else next(iter(given))
            raise _cannot_be(f"LIQ_{part}_{told}".upper(), given[told], error) from error
        settings = settings.model_copy(update={part: changed})
    return settings


def _cannot_be(name: str, text: str, error: ValidationError) -> LiqError:
    reason = error.errors(include_input=False)[0]["msg"].removeprefix("Value error, ")
    return LiqError(f"{name} cannot be {text!r}: {reason}")


def _given(field: str, text: str) -> dict[str, Any]:
    """One setting as its text, for a constructor that makes a value of it."""
    return {field: text}


def would_have_told(
    conn: psycopg.Connection[Any],
    world: World,
    settings: Settings,
    changes: Mapping[str, str],
    first: datetime,
    last: datetime,
    symbols: Sequence[str],
    panel: Panel,
    events: Mapping[int, Sequence[CascadeEvent]],
) -> Told:
    """The stretch (first, last] under changed settings. changes may be empty: then it is what was, scored again."""
    other = changed_settings(settings, changes)
    model = model_in_force(conn)
    version = score_version(other, model.model_id)
    policy = AlertPolicy.build(other, world)
    keeps = (other.risk.lookback_hours, other.pressure.window_minutes) == (
        settings.risk.lookback_hours,
        settings.pressure.window_minutes,
    )
    book, alerts = Book(), _Alerts()
    points: list[PointResult] = []
    said: list[Said] = []
    for batch in score_in_memory(conn, world, other, first, last, model, is_kept_lookback=keeps):
        for point in batch:
            outcome = step(book, point, policy, version)
            book = outcome.book
            alerts.hear(outcome)
            said += [said_of(r, None) for r in message_records(outcome, point, world, policy, version, conn)]
            points.append(point)
    if not points:
        raise LiqError(f"nothing of {world.name} from {first.isoformat()} to {last.isoformat()} can be scored")
    stored = alerts.stored()
    outcomes = {str(o.alert.alert_id): o for o in judge_alerts(stored, events[desk.DESK_HORIZON_HOURS], panel)}
    said = [replace(m, outcome=outcomes.get(str(m.receipt.get("alert_id")))) for m in said]
    name = "as it was" if not changes else "with " + ", ".join(f"{n}={v}" for n, v in changes.items())
    series = {symbol: _series(points, symbol) for symbol in symbols}
    pages = len({alert.page_id for alert in stored if alert.is_told})
    return Told(name, series, said, pages, dict(changes), version)


class _Alerts:
    """The alerts of a run in memory, as the book would hold them."""

    def __init__(self) -> None:
        self._found: dict[uuid.UUID, StoredAlert] = {}

    def hear(self, outcome: Step) -> None:
        """Take note of one step."""
        for change in outcome.changes:
            alert = change.alert
            if alert.rule == "blind":
                continue
            known = self._found.get(alert.alert_id)
            severity = LEVEL_NAMES[alert.peak_level]
            if known is None:
                known = StoredAlert(
                    alert.alert_id, alert.page_id, alert.rule, alert.subject, severity, alert.side, alert.opened_at,
                    alert.opened_at, None, False, {} if alert.is_group else {alert.subject: alert.opened_at},
                )  # fmt: skip
            ended = change.time if change.kind == "resolved" else None
            self._found[alert.alert_id] = replace(known, severity=severity, ended=ended, page_id=alert.page_id)
        for message in outcome.messages:
            known = self._found.get(message.alert.alert_id)
            if known is None:
                continue
            since = known.since if known.is_told else message.time
            heard = dict(known.since_of) if known.is_told else dict.fromkeys(known.since_of, message.time)
            for member in message.members:
                heard.setdefault(member.subject, message.time)
            self._found[known.alert_id] = replace(
                known, is_told=True, since=since, since_of=heard, page_id=message.alert.page_id
            )

    def stored(self) -> list[StoredAlert]:
        """Oldest first."""
        return sorted(self._found.values(), key=lambda alert: (alert.since, alert.rule, alert.subject))


def _series(points: Sequence[PointResult], symbol: str) -> SymbolSeries:
    rows: list[list[Any]] = []
    for point in points:
        risk, signal = point.risks[symbol], point.signals[symbol]
        rows.append(
            [
                risk.score,
                risk.score_high,
                *(getattr(risk, f"{name}_points") for name in COMPONENTS),
                risk.coverage,
                signal.cascade_probability_1h,
                signal.cascade_probability_4h,
                signal.cascade_probability_24h,
                signal.pressure,
            ]
        )
    values = {
        name: np.array([np.nan if row[i] is None else row[i] for row in rows], dtype=np.float64)
        for i, name in enumerate(SERIES)
    }
    return SymbolSeries(
        np.array([int(point.time.timestamp()) for point in points], dtype=np.int64),
        values,
        [point.signals[symbol].severity for point in points],
        count_notes(point.signals[symbol].note for point in points),
    )
