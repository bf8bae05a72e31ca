"""Housekeeping, so that an installation can be left alone for months.

Belongs here: the job and its steps. Does not: what is deleted (pruning.py, store/schema/retention.py,
alerting/sending/outbox.py), or what a roll-up holds (store/rollups/upkeep.py).
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from dagster import In, Nothing, OpExecutionContext, ResourceParam, in_process_executor, job, op
from kafka.errors import KafkaError
from psycopg.errors import InsufficientPrivilege

from liq_pipeline.alerting.sending.outbox import prune_outbox
from liq_pipeline.bus.size import log_bytes
from liq_pipeline.defs import keys
from liq_pipeline.defs.resources import Services
from liq_pipeline.defs.upkeep.pruning import prune_runs, storage_bytes
from liq_pipeline.store import levels
from liq_pipeline.store.rollups import upkeep
from liq_pipeline.store.schema import community, retention, sizes

DELIVERED_FOR: Final = timedelta(days=1)
"""What was sent stays in alert_deliveries and, for a week, in Kafka; in the outbox it only shows that it went."""


@op
def prune_dagster(context: OpExecutionContext, services: ResourceParam[Services]) -> None:
    """Delete runs that have had their time from Dagster's storage, with their events, checks and output."""
    now = datetime.now(UTC)
    pruned = prune_runs(
        context.instance,
        live_before=now - timedelta(hours=services.settings.dagster_live_run_hours),
        others_before=now - timedelta(days=services.settings.dagster_run_days),
    )
    context.add_output_metadata({"runs_deleted": pruned.runs, "events_deleted": pruned.events})


@op(ins={"after": In(Nothing)})
def roll_up(context: OpExecutionContext, services: ResourceParam[Services]) -> None:
    """Build the 1 min, 5 min and 1 h roll-ups of the hours that changed; delete fine ones that have had their time."""
    now = datetime.now(UTC)
    days = services.settings.retention_days
    not_before = None if days is None else now - timedelta(days=days)
    with services.connect("dagster roll-ups") as connection:
        hours = upkeep.refresh(connection, not_before)
        pruned = upkeep.prune(connection, now)
        continuous = upkeep.continuous_tables(connection)
    if continuous:
        with services.connect_as_owner("dagster roll-ups") as owner:
            owner.autocommit = True
            try:
                hours |= community.refresh_late(owner, not_before)
            except InsufficientPrivilege:
                context.log.warning(
                    "Late rows are not in the roll-ups yet: only their owner may refresh continuous aggregates. "
                    "Set LIQ_DATABASE_OWNER_URL."
                )
    context.add_output_metadata(
        {**{f"{k}_hours": v for k, v in hours.items()}, "fine_buckets_deleted": sum(pruned.values())}
    )


@op(ins={"after": In(Nothing)})
def prune_tables(context: OpExecutionContext, services: ResourceParam[Services]) -> None:
    """Delete published outbox rows, liquidation maps between full hours after 30 days, and time series past
    LIQ_RETENTION_DAYS if that is set."""
    now = datetime.now(UTC)
    with services.connect("dagster maintenance") as connection:
        outbox = prune_outbox(connection, now - DELIVERED_FOR)
        connection.commit()
        maps = levels.thin_out(connection, now)
        history = retention.prune_history(connection, now, services.settings.retention_days)
    context.add_output_metadata(
        {"outbox_rows_deleted": outbox, "maps_thinned_out": maps, **{f"{k}_deleted": v for k, v in history.items()}}
    )


@op(ins={"after": In(Nothing)})
def measure_sizes(context: OpExecutionContext, services: ResourceParam[Services]) -> None:
    """Note how large our database, Dagster's and Kafka's log are: `liq status` tells growth from it."""
    measured: dict[sizes.Part, int] = {"dagster": storage_bytes(context.instance)}
    try:
        measured["kafka"] = log_bytes(services.endpoints.kafka_bootstrap_servers)
    except KafkaError as error:
        context.log.warning(f"Kafka did not tell the size of its log: {error}")
    with services.connect("dagster sizes") as connection:
        measured["postgres"] = sizes.measure_own(connection)
        sizes.keep(connection, measured, datetime.now(UTC))
        connection.commit()
    context.add_output_metadata({f"{part}_bytes": size for part, size in measured.items()})


@job(
    executor_def=in_process_executor,
    tags={keys.STREAM_TAG: "maintenance", keys.MAX_RUNTIME_TAG: "1800"},
    description="Deletes what has had its time: Dagster's runs and events, published messages, time series past "
    "LIQ_RETENTION_DAYS. Builds the roll-ups of what changed.",
)
def live_maintenance() -> None:
    """Dagster's storage first: it grows fastest. Roll-ups before the rows they stand on may go."""
    measure_sizes(prune_tables(roll_up(prune_dagster())))
