"""Counting Dagster's runs before their time is up.

Belongs here: asking Dagster's storage. Does not: keeping the figures (store/dagster_runs.py), or deleting runs
(pruning.py).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus
from dagster._core.storage.dagster_run import RunsFilter

from liq_pipeline.errors import LiqError
from liq_pipeline.store.dagster_runs import Failure, RunCount

WINDOW: Final = timedelta(hours=4)
"""How far back a count looks: the hourly maintenance may be late thrice, and a run may take hours to end."""
MOST_FAILURES: Final = 200
MOST_LETTERS: Final = 500
_ENDED: Final = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)


def run_counts(instance: DagsterInstance, now: datetime) -> list[RunCount]:
    """Runs that ended, by the hour in which they were made, over the hours that begin within WINDOW before `now`.

    LiqError if Dagster's storage is not an SQL one.
    """
    # Here, because Dagster's storage brings alembic, mako and pygments: a fifth of the definitions' import time.
    import sqlalchemy
    from dagster._core.storage.runs.schema import RunsTable
    from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

    if not isinstance(instance.run_storage, SqlRunStorage):
        raise LiqError("Dagster's storage is not an SQL database: set `storage: postgres` in dagster.yaml")
    first = (now - WINDOW).replace(minute=0, second=0, microsecond=0)
    # Dagster writes UTC without a zone.
    hour = sqlalchemy.func.date_trunc("hour", RunsTable.c.create_timestamp)
    statement = (
        sqlalchemy.select(hour, RunsTable.c.pipeline_name, RunsTable.c.status, sqlalchemy.func.count())
        .where(RunsTable.c.create_timestamp >= first.astimezone(UTC).replace(tzinfo=None))
        .where(RunsTable.c.status.in_([status.value for status in _ENDED]))
        .group_by(hour, RunsTable.c.pipeline_name, RunsTable.c.status)
    )
    with instance.run_storage.connect() as connection:
        rows = connection.execute(statement).fetchall()
    return [RunCount(at.replace(tzinfo=UTC), job, status, runs) for at, job, status, runs in rows]


def failures(instance: DagsterInstance, now: datetime) -> list[Failure]:
    """The newest runs, of those made within WINDOW before `now`, that failed; at most MOST_FAILURES."""
    which = RunsFilter(statuses=[DagsterRunStatus.FAILURE], created_after=now - WINDOW)
    return [
        Failure(
            run_id=record.dagster_run.run_id,
            job=record.dagster_run.job_name,
            failed_at=_in_utc(record.update_timestamp),
            sentence=_why(instance, record.dagster_run.run_id),
        )
        for record in instance.get_run_records(which, limit=MOST_FAILURES)
    ]


def _in_utc(moment: datetime) -> datetime:
    """Dagster writes UTC, with a zone or without."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _why(instance: DagsterInstance, run_id: str) -> str:
    """The first failure of a step, else the run's own word; one line."""
    for kind in (DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE):
        for record in instance.get_records_for_run(run_id, of_type=kind, limit=1).records:
            event = record.event_log_entry.dagster_event
            if event is None:
                continue
            error = getattr(event.event_specific_data, "error", None)
            # A failure that we raised says what a person needs; around it stands only that a step failed.
            told = None if error is None else (error.cause.message if error.cause is not None else error.message)
            user = getattr(event.event_specific_data, "user_failure_data", None)
            text = (user.description if user is not None else None) or told or event.message or ""
            if text.strip():
                return " ".join(text.split())[:MOST_LETTERS]
    return "It told no reason."
