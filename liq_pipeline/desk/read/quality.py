"""How good the scores and alarms were: stored evaluation reports and their figures.

Belongs here: reading what `liq evaluate` and the nightly judgement wrote. Does not: judging anything.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import msgspec

from liq_pipeline.desk.read.database import Connection, fetch, fetch_rows
from liq_pipeline.desk.read.units import Open


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One report."""

    evaluation_id: uuid.UUID
    world: str
    label_version: int
    from_time: datetime
    to_time: datetime
    model_id: str | None
    config_hash: str
    data_hash: str
    created_at: datetime


class EvaluationDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One report with its desk figures: what the alarms, as delivered, were worth. desk is null in old reports."""

    evaluation: Evaluation
    desk: Open | None


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure; value_low and value_high bound its 90 % interval. null: too few events."""

    subject: str
    horizon_hours: int
    metric: str
    value: float | None
    value_low: float | None
    value_high: float | None


_COLUMNS = "evaluation_id, world, label_version, from_time, to_time, model_id, config_hash, data_hash, created_at"


def evaluations(
    conn: Connection, world: str | None, before: tuple[datetime, uuid.UUID] | None, limit: int
) -> list[Evaluation]:
    """Reports, newest first. before: the last one of the page before."""
    return fetch(
        conn,
        Evaluation,
        f"""
        SELECT {_COLUMNS} FROM evaluation_runs
        WHERE (%(world)s::text IS NULL OR world = %(world)s)
          AND (%(before)s::timestamptz IS NULL OR (created_at, evaluation_id) < (%(before)s, %(before_id)s::uuid))
        ORDER BY created_at DESC, evaluation_id DESC LIMIT %(limit)s
        """,  # noqa: S608 - own constant
        {
            "world": world,
            "before": before[0] if before else None,
            "before_id": before[1] if before else None,
            "limit": limit,
        },
    )


def one(conn: Connection, evaluation_id: uuid.UUID) -> EvaluationDetail | None:
    """A report with its desk figures, or None."""
    found = fetch(
        conn,
        Evaluation,
        f"SELECT {_COLUMNS} FROM evaluation_runs WHERE evaluation_id = %(id)s",  # noqa: S608 - own constant
        {"id": evaluation_id},
    )
    if not found:
        return None
    rows: list[tuple[Any, ...]] = fetch_rows(
        conn, "SELECT report -> 'desk' FROM evaluation_runs WHERE evaluation_id = %(id)s", {"id": evaluation_id}
    )
    return EvaluationDetail(evaluation=found[0], desk=rows[0][0])


def figures(conn: Connection, evaluation_id: uuid.UUID, after: tuple[str, int, str] | None, limit: int) -> list[Figure]:
    """Figures of a report by subject, horizon and metric. after: the last one of the page before."""
    return fetch(
        conn,
        Figure,
        """
        SELECT subject, horizon_hours, metric, value, value_low, value_high FROM evaluation_metrics
        WHERE evaluation_id = %(id)s AND (%(subject)s::text IS NULL
              OR (subject, horizon_hours, metric) > (%(subject)s, %(hours)s::int, %(metric)s))
        ORDER BY subject, horizon_hours, metric LIMIT %(limit)s
        """,
        {
            "id": evaluation_id,
            "subject": after[0] if after else None,
            "hours": after[1] if after else None,
            "metric": after[2] if after else None,
            "limit": limit,
        },
    )
