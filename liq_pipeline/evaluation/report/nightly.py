"""The evaluation of stored history: judged, stored, and its alerts judged with it.

Belongs here: which span is judged and what is written of it. Does not: figures (run.py), rows (figure_rows.py), when it
runs (defs/heavy/evaluation.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg

from liq_pipeline.domain.worlds import World
from liq_pipeline.evaluation.labels.version_1 import label_panel
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.paging.outcomes import (
    judge_alerts,
    pages_as_sent,
    store_outcomes,
    stored_alerts,
    under_way_pages,
)
from liq_pipeline.evaluation.panels.stored import stored_history
from liq_pipeline.evaluation.report.figure_rows import store_events, store_report
from liq_pipeline.evaluation.report.run import evaluate
from liq_pipeline.pipeline.models import model_in_force
from liq_pipeline.settings import Settings

LOOK_BACK: Final = timedelta(days=32)
"""What scores and labels at the span's beginning look back on."""
RULES: Final = ("severity", "early_warning")
"""Rules whose pages claim what comes; those of `under_way` claim what is."""


@dataclass(frozen=True)
class Stored:
    """What an evaluation left in the store."""

    evaluation_id: UUID
    events: int
    outcomes: dict[str, int]
    """verdict -> alerts"""
    report: dict[str, Any]


def evaluate_store(
    conn: psycopg.Connection[Any],
    world: World,
    settings: Settings,
    first: datetime | None = None,
    last: datetime | None = None,
    out: Path | None = None,
) -> Stored:
    """Judge a world's history in [first, last) (None: all of it) and store the results, in the caller's transaction.

    Raises LiqError if nothing is stored there.
    """
    history = stored_history(conn, world, settings, None if first is None else first - LOOK_BACK, last)
    panel = history.panel
    begin = int(panel.time[0]) if first is None else max(int(first.timestamp()), int(panel.time[0]))
    end = int(panel.time[-1])
    alerts = stored_alerts(conn, world.name, _time(begin), _time(end))
    sent = {rule: pages_as_sent(alerts, rule, end) for rule in RULES}
    report = evaluate(
        None,
        first,
        last,
        out,
        settings=settings,
        model=model_in_force(conn),
        history=history,
        sent={rule: pages for rule, pages in sent.items() if pages},
        under_way_sent=under_way_pages(alerts, end),
    )
    _, events = label_panel(
        panel.time, panel.symbols, panel["price_usd"], panel["open_interest_base"], panel.step_seconds
    )
    count = store_events(conn, world.name, events, begin, end)
    outcomes = judge_alerts(alerts, events[desk.DESK_HORIZON_HOURS], panel)
    store_outcomes(conn, outcomes)
    verdicts: dict[str, int] = {}
    for outcome in outcomes:
        verdicts[outcome.verdict] = verdicts.get(outcome.verdict, 0) + 1
    return Stored(store_report(conn, world.name, report), count, verdicts, report)


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
