"""Deleting old runs, with their events and checks, from Dagster's own storage.

Belongs here: what of Dagster's bookkeeping may go, and when. Does not: our own tables (store/schema/retention.py) or
evaluations of sensors and schedules, which Dagster prunes itself (dagster.yaml: retention).
A run every few seconds writes some 400,000 events a day. Dagster deletes runs one by one and never their rows in
asset_check_executions, so whole batches go here in one transaction each, through Dagster's own table definitions.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.storage.dagster_run import RunsFilter

from liq_pipeline.errors import LiqError
from liq_pipeline.launcher.coordinator import LANE_TAG, LIVE_LANE

BATCH_RUNS: Final = 500
FINISHED: Final = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)


@dataclass(frozen=True)
class Pruned:
    """How much went."""

    runs: int = 0
    events: int = 0


def prune_runs(instance: DagsterInstance, live_before: datetime, others_before: datetime) -> Pruned:
    """Delete successful live runs created before live_before, and any finished run created before others_before.

    Live runs that failed or were cancelled stay as long as the others: they are what one wants to look at later.
    LiqError if Dagster's storage is not an SQL one.
    """
    live = RunsFilter(statuses=[DagsterRunStatus.SUCCESS], tags={LANE_TAG: LIVE_LANE}, created_before=live_before)
    others = RunsFilter(statuses=list(FINISHED), created_before=others_before)
    runs = events = 0
    for which in (live, others):
        while True:
            run_ids = instance.get_run_ids(which, limit=BATCH_RUNS)
            if not run_ids:
                break
            events += _delete(instance, run_ids)
            runs += len(run_ids)
            _delete_compute_logs(instance, run_ids)
    return Pruned(runs, events)


def storage_bytes(instance: DagsterInstance) -> int:
    """Bytes of Dagster's own tables, with their indexes. LiqError if its storage is not an SQL one."""
    import sqlalchemy
    from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

    if not isinstance(instance.run_storage, SqlRunStorage):
        raise LiqError("Dagster's storage is not an SQL database: set `storage: postgres` in dagster.yaml")
    # A schema of our own database where it has none of its own: hence the tables and not the database.
    statement = sqlalchemy.text(
        "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
    )
    with instance.run_storage.connect() as connection:
        return int(connection.execute(statement).scalar_one())


def _delete(instance: DagsterInstance, run_ids: Sequence[str]) -> int:
    # Here, because Dagster's storage brings alembic, mako and pygments: a fifth of the definitions' import time.
    import sqlalchemy
    from dagster._core.storage.event_log.schema import (
        AssetCheckExecutionsTable,
        AssetEventTagsTable,
        SqlEventLogStorageTable,
    )
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
    from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
    from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

    events_storage, run_storage = instance.event_log_storage, instance.run_storage
    if not isinstance(events_storage, SqlEventLogStorage) or not isinstance(run_storage, SqlRunStorage):
        raise LiqError("Dagster's storage is not an SQL database: set `storage: postgres` in dagster.yaml")
    log = SqlEventLogStorageTable
    with events_storage.index_connection() as connection:
        ids = sqlalchemy.select(log.c.id).where(log.c.run_id.in_(run_ids))
        connection.execute(sqlalchemy.delete(AssetEventTagsTable).where(AssetEventTagsTable.c.event_id.in_(ids)))
        connection.execute(
            sqlalchemy.delete(AssetCheckExecutionsTable).where(AssetCheckExecutionsTable.c.run_id.in_(run_ids))
        )
        deleted = connection.execute(sqlalchemy.delete(log).where(log.c.run_id.in_(run_ids))).rowcount
    with run_storage.connect() as connection:
        connection.execute(sqlalchemy.delete(RunTagsTable).where(RunTagsTable.c.run_id.in_(run_ids)))
        connection.execute(sqlalchemy.delete(RunsTable).where(RunsTable.c.run_id.in_(run_ids)))
    return deleted


def _delete_compute_logs(instance: DagsterInstance, run_ids: Sequence[str]) -> None:
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

    manager = instance.compute_log_manager
    if not isinstance(manager, LocalComputeLogManager):
        return
    for run_id in run_ids:
        folder = Path(manager.get_captured_local_path([run_id, "compute_logs", "any"], "out")).parent.parent
        if folder.name == run_id:
            shutil.rmtree(folder, ignore_errors=True)
