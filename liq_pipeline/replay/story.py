"""What a page tells of a stretch of a world: series, messages, cascades, verdicts.

Belongs here: gathering them from the tables (what was stored) or from points scored in memory (what would have been).
Does not: scoring, drawing (charts.py), words around it (page.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from liq_pipeline.domain.worlds import World
from liq_pipeline.evaluation.labels.version_1 import CascadeEvent, label_panel
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.paging.outcomes import Outcome, judge_alerts, stored_alerts
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.evaluation.panels.stored import stored_history
from liq_pipeline.scoring.probability import CascadeModel
from liq_pipeline.settings import Settings

Floats = NDArray[np.float64]
Connection = psycopg.Connection[Any]

COMPONENTS: Final = ("funding", "open_interest", "long_short", "liquidation")
LABEL_LOOK_BACK: Final = timedelta(days=2)
SERIES: Final = (
    "score",
    "score_high",
    *(f"{name}_points" for name in COMPONENTS),
    "coverage",
    "probability_1h",
    "probability_4h",
    "probability_24h",
    "pressure",
)


@dataclass(frozen=True)
class Said:
    """One message to people. receipt: what the number was made of. outcome: what followed, once it can be judged."""

    time: datetime
    kind: str
    rule: str
    severity: str
    symbols: tuple[str, ...]
    title: str
    body: str
    receipt: dict[str, Any]
    outcome: Outcome | None = None


@dataclass(frozen=True)
class SymbolSeries:
    """One symbol's scores: `time` in seconds, each of SERIES an array of the same length, NaN = unknown."""

    time: NDArray[np.int64]
    values: Mapping[str, Floats]
    severity: Sequence[str]
    notes: Mapping[str, int]
    """Note -> how many points carried it."""


@dataclass(frozen=True)
class Told:
    """One reading of the stretch: as stored, or under other settings."""

    name: str
    series: Mapping[str, SymbolSeries]
    messages: Sequence[Said]
    pages: int
    settings_changed: Mapping[str, str] = field(default_factory=dict)
    score_version: str = ""


@dataclass(frozen=True)
class Story:
    """Everything on the page. panel: reaches from before the stretch into the aftermath. is_stored: read from the store
    in force and scored again in memory, not played."""

    world: World
    first: datetime
    last: datetime
    panel: Panel
    events: Mapping[int, Sequence[CascadeEvent]]
    told: Told
    model: CascadeModel
    said_of_it: Sequence[str]
    symbols: tuple[str, ...]
    what_if: Told | None = None
    is_stored: bool = False


def what_happened(
    conn: Connection, world: World, settings: Settings, first: datetime, last: datetime
) -> tuple[Panel, dict[int, list[CascadeEvent]]]:
    """Prices and open interest around the stretch, and the cascades whose onset lies in it or within 24 h after it."""
    history = stored_history(conn, world, settings, first - LABEL_LOOK_BACK, last + timedelta(days=1, hours=1))
    panel = history.panel
    cadence = world.manifest.expected["prices"].cadence_seconds
    if cadence >= 3600 and (panel.time % 3600 == 0).sum() >= 2:
        # Hourly data on a finer grid would stand still for an hour and jump.
        panel = panel.coarser(3600)
    _, found = label_panel(
        panel.time, panel.symbols, panel["price_usd"], panel["open_interest_base"], panel.step_seconds
    )
    since = int(first.timestamp())
    return panel, {hours: [e for e in events if e.onset >= since] for hours, events in found.items()}


def as_stored(
    conn: Connection,
    world: World,
    panel: Panel,
    events: Mapping[int, Sequence[CascadeEvent]],
    first: datetime,
    last: datetime,
    symbols: Sequence[str],
) -> Told:
    """The first scores, and the messages that were decided with them."""
    series = {symbol: _stored_series(conn, world.name, symbol, first, last) for symbol in symbols}
    alerts = stored_alerts(conn, world.name, first, last)
    outcomes = {o.alert.alert_id: o for o in judge_alerts(alerts, events[desk.DESK_HORIZON_HOURS], panel)}
    rows = conn.execute(
        """
        SELECT payload, alert_id FROM outbox
        WHERE world = %s AND topic = 'alerts' AND payload ->> 'type' = 'message'
          AND (payload ->> 'time')::timestamptz BETWEEN %s AND %s
        ORDER BY (payload ->> 'time')::timestamptz, created_at, outbox_id
        """,
        [world.name, first, last],
    ).fetchall()
    messages = [said_of(payload, outcomes.get(alert_id)) for payload, alert_id in rows]
    version = conn.execute(
        "SELECT max(score_version) FROM signals WHERE world = %s AND time BETWEEN %s AND %s AND revision = 0",
        [world.name, first, last],
    ).fetchone()
    pages = len({str(alert.page_id) for alert in alerts if alert.is_told})
    return Told("as it was", series, messages, pages, {}, str(version[0]) if version else "")


def said_of(record: Mapping[str, Any], outcome: Outcome | None) -> Said:
    """A message's record (alerting/book.py) as a line of the page."""
    time = datetime.fromisoformat(str(record["time"])).astimezone(UTC)
    return Said(
        time=time,
        kind=str(record["kind"]),
        rule=str(record["rule"]),
        severity=str(record["severity"]),
        symbols=tuple(record["symbols"]),
        title=str(record["title"]),
        body=str(record["body"]),
        receipt=dict(record["receipt"]),
        outcome=outcome,
    )


def _stored_series(conn: Connection, world: str, symbol: str, first: datetime, last: datetime) -> SymbolSeries:
    rows = conn.execute(
        """
        SELECT extract(epoch FROM r.time)::bigint, r.score, r.score_high, r.funding_points, r.open_interest_points,
               r.long_short_points, r.liquidation_points, r.coverage, s.cascade_probability_1h,
               s.cascade_probability_4h, s.cascade_probability_24h, s.pressure, s.severity, s.note
        FROM liquidation_risk AS r JOIN signals AS s USING (world, symbol, time, score_version, revision)
        WHERE r.world = %s AND r.symbol = %s AND r.time BETWEEN %s AND %s AND r.revision = 0 ORDER BY r.time
        """,
        [world, symbol, first, last],
    ).fetchall()
    time = np.array([row[0] for row in rows], dtype=np.int64)
    values = {
        name: np.array([np.nan if row[1 + i] is None else row[1 + i] for row in rows], dtype=np.float64)
        for i, name in enumerate(SERIES)
    }
    return SymbolSeries(time, values, [row[12] for row in rows], count_notes(row[13] for row in rows))


def count_notes(notes: Any) -> dict[str, int]:
    """How often each part of the notes was said, most often first."""
    counts: dict[str, int] = {}
    for note in notes:
        for part in (note or "").split("; "):
            if part:
                counts[part] = counts.get(part, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
