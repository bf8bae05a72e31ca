"""What reacts to due work. Each sensor asks a plain function and requests at most one run.

Belongs here: sensors. Does not: how due work is found (defs/live/due.py). The daemon's sensor loop wakes every 5 s, so
smaller intervals are fiction; an interval of exactly 5 s would skip every second loop when a loop comes a hair early.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRequest,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)
from dagster._core.storage.dagster_run import RunsFilter

from liq_pipeline.defs.live import due
from liq_pipeline.defs.live.alerts import alert_delivery
from liq_pipeline.defs.live.ingest import live_ingest
from liq_pipeline.defs.live.tick import tick_job
from liq_pipeline.defs.resources import Services
from liq_pipeline.settings import get_settings

EVERY_LOOP_SECONDS: Final = 3
SWEEP_SECONDS: Final = 15
PATIENCE_SECONDS: Final = 4.5
"""How long the tick sensor waits for a grid point that comes before the next loop does."""
POLL_LEAD_SECONDS: Final = 4.5
"""A round is bounded at 3 s, and its run takes about 1 s to start."""
STARTING_PATIENCE: Final = timedelta(seconds=30)
"""A run that has not started by then was left behind by a daemon that died: run monitoring settles it, and no tick
waits for that. The stock launcher takes about ten seconds."""
BEGUN: Final = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING, DagsterRunStatus.QUEUED]
BEGINNING: Final = [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING]
DECIDED_TAG: Final = ".dagster/liq_decided_at"
"""When the sensor decided that a run is due (RFC 3339, UTC); the UI hides tags that begin so."""


def is_in_flight(instance: DagsterInstance, job_name: str) -> bool:
    """Whether a run of the job is at work or about to be."""
    young = datetime.now(UTC) - STARTING_PATIENCE
    return any(
        instance.get_run_ids(filters, limit=1)
        for filters in (
            RunsFilter(job_name=job_name, statuses=BEGUN),
            RunsFilter(job_name=job_name, statuses=BEGINNING, created_after=young),
        )
    )


def request() -> RunRequest:
    """One run, with the time of the decision."""
    return RunRequest(tags={DECIDED_TAG: datetime.now(UTC).isoformat()})


@lru_cache(maxsize=1)
def _bus_clock(bootstrap_servers: str, topic_prefix: str) -> due.BusClock:
    # Kept between evaluations: connecting anew each time would cost more than asking. One evaluation at a time uses it.
    return due.BusClock(bootstrap_servers, topic_prefix)


@sensor(
    name="tick_when_due",
    job=tick_job,
    minimum_interval_seconds=EVERY_LOOP_SECONDS,
    default_status=DefaultSensorStatus.RUNNING,
    description="Requests one tick for all due grid points when any is due and none is being run.",
)
def tick_when_due(context: SensorEvaluationContext) -> RunRequest | SkipReason:
    """No cursor: due work is computed from the tables each time."""
    services = Services.in_force()
    bus_clock = _bus_clock(services.endpoints.kafka_bootstrap_servers, services.settings.kafka_topic_prefix)
    with services.connect("dagster tick sensor") as connection:
        found = due.wait_for_due(
            connection, bus_clock, lambda: is_in_flight(context.instance, tick_job.name), PATIENCE_SECONDS
        )
    return request() if found.is_due else SkipReason(found.reason)


@sensor(
    name="deliver_when_due",
    job=alert_delivery,
    minimum_interval_seconds=SWEEP_SECONDS - 2,
    default_status=DefaultSensorStatus.RUNNING,
    description="Sweeps the outbox for messages whose retry is due; new ones are delivered by the tick that made them.",
)
def deliver_when_due(context: SensorEvaluationContext) -> RunRequest | SkipReason:
    """The tick starts a delivery itself; this finds what that left behind."""
    if is_in_flight(context.instance, alert_delivery.name):
        return SkipReason("A delivery is being run.")
    with Services.in_force().connect("dagster delivery sensor") as connection:
        waiting = due.outbox_due(connection, datetime.now(UTC))
    return request() if waiting else SkipReason("Nothing is to be sent.")


@sensor(
    name="poll_when_due",
    job=live_ingest,
    minimum_interval_seconds=EVERY_LOOP_SECONDS,
    # `liq up` tells its children the mode in force; where it is not known, the evaluation asks each time.
    default_status=(
        DefaultSensorStatus.STOPPED if get_settings().mode in ("simulated", "recorded") else DefaultSensorStatus.RUNNING
    ),
    description="Live mode only: requests a polling round so that its answers are there at the next market point.",
)
def poll_when_due(context: SensorEvaluationContext) -> RunRequest | SkipReason:
    """The cursor is the last round requested; losing it costs a round in which no source is due."""
    services = Services.in_force()
    if services.endpoints.mode != "live":
        return SkipReason(f"Nothing is polled in {services.endpoints.mode} mode.")
    cadence = services.settings.sources.market_seconds
    last = int(context.cursor or 0)
    if due.poll_slot(datetime.now(UTC), cadence, POLL_LEAD_SECONDS) <= last:
        pause = due.seconds_to_next_slot(datetime.now(UTC), cadence, POLL_LEAD_SECONDS)
        if pause > PATIENCE_SECONDS:
            return SkipReason(f"The next round begins in {pause:.0f} s.")
        time.sleep(pause)
    if is_in_flight(context.instance, live_ingest.name):
        return SkipReason("A round is being run.")
    context.update_cursor(str(due.poll_slot(datetime.now(UTC), cadence, POLL_LEAD_SECONDS)))
    return request()


SENSORS: Final = [tick_when_due, poll_when_due, deliver_when_due]
