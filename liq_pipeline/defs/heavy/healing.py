"""Healing holes in the data, when there are any.

Belongs here: the job and its schedule. Does not: the work (pipeline/healing.py). The search is part of the schedule's
question, so that no run is started where nothing is missing; the healing waits in the lane of the heavy runs.
"""

from datetime import UTC, datetime
from typing import Final

from dagster import (
    DefaultScheduleStatus,
    OpExecutionContext,
    ResourceParam,
    RunRequest,
    ScheduleEvaluationContext,
    SkipReason,
    in_process_executor,
    job,
    op,
    schedule,
)

from liq_pipeline.defs import keys
from liq_pipeline.defs.failures import in_one_sentence
from liq_pipeline.defs.resources import Services
from liq_pipeline.launcher.coordinator import LANE_TAG

HEAVY_LANE: Final = "heavy"


@op
def heal_gaps(context: OpExecutionContext, services: ResourceParam[Services]) -> None:
    """Load what venues still serve of the open gaps; give the scores that they had touched a new revision."""
    # Only live installations heal; the others need not import every venue.
    from liq_pipeline.pipeline.healing import heal
    from liq_pipeline.pipeline.models import model_in_force

    with in_one_sentence("The healing"):
        result = heal(
            services.settings,
            services.endpoints.database_url,
            services.endpoints.kafka_bootstrap_servers,
            load_model=model_in_force,
        )
    context.log.info(str(result))
    for source, reason in result.failures.items():
        context.log.warning(f"{source}: {reason}")
    rescored = result.rescored
    context.add_output_metadata(
        {
            "found": result.found,
            "healed": result.healed,
            "permanent": result.permanent,
            "left_open": result.left_open,
            "rows_sent": sum(result.records.values()),
            "new_revisions": 0 if rescored is None else rescored.written,
        }
    )


@job(
    executor_def=in_process_executor,
    tags={LANE_TAG: HEAVY_LANE, keys.STREAM_TAG: "healing", keys.MAX_RUNTIME_TAG: "3600"},
    description="Loads what venues still serve of the holes in the data and scores again what they had touched.",
)
def gap_healing() -> None:
    """One step: each of its parts stands in the tables when it is done, so that a repetition goes on from there."""
    heal_gaps()


@schedule(
    job=gap_healing,
    name="heal_every_ten_minutes",
    # Off the full minutes on which everything else starts.
    cron_schedule="8-59/10 * * * *",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Live mode only: searches the series for holes and requests a healing when any is open.",
)
def heal_when_open(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
    """Due work is found in the tables: an open gap, or one that is healed and whose scores do not know it yet."""
    services = Services.in_force()
    if services.endpoints.mode != "live":
        return SkipReason(f"There is no venue to ask again in {services.endpoints.mode} mode.")
    from liq_pipeline.pipeline.healing import is_due

    with services.connect("dagster healing schedule") as connection:
        due = is_due(services.settings, connection, datetime.now(UTC))
    return RunRequest() if due else SkipReason("No hole in the data is open.")
