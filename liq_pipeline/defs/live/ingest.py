"""Polling live sources: one bounded round per run, into Kafka.

Belongs here: the ingest job. Does not: which feeds are due, how they are asked (sources/polling/round.py), streams
(`liq collect`).
"""

from dagster import OpExecutionContext, ResourceParam, in_process_executor, job, op

from liq_pipeline.defs import keys
from liq_pipeline.defs.failures import in_one_sentence
from liq_pipeline.defs.resources import Services
from liq_pipeline.launcher.coordinator import LANE_TAG, LIVE_LANE


@op
def poll_sources(context: OpExecutionContext, services: ResourceParam[Services]) -> None:
    """Ask every source that is due, all at once, and send what came to Kafka. A source that fails is no failed run."""
    # Only live installations poll; the others need not import every venue.
    from liq_pipeline.sources.polling.round import poll_due

    with in_one_sentence("The poll"):
        result = poll_due(
            services.endpoints.database_url, services.endpoints.kafka_bootstrap_servers, services.settings
        )
    for source, reason in result.failures.items():
        context.log.warning(f"{source}: {reason}")
    context.add_output_metadata(
        {
            "asked": result.asked,
            "answered": result.answered,
            "seconds": result.seconds,
            **{f"records_{topic}": count for topic, count in result.records.items()},
        }
    )


@job(
    executor_def=in_process_executor,
    tags={LANE_TAG: LIVE_LANE, keys.STREAM_TAG: "ingest", keys.MAX_RUNTIME_TAG: "60"},
    description="One polling round over all live sources that are due.",
)
def live_ingest() -> None:
    """One step, because a round is concurrent inside."""
    poll_sources()
