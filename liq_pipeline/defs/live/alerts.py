"""Sending what the ticks decided: from the outbox to Kafka and to people.

Belongs here: the delivery job. Does not: what is sent, to whom, or again (alerting/sending/delivery.py).
"""

from dagster import AssetMaterialization, OpExecutionContext, ResourceParam, in_process_executor, job, op

from liq_pipeline.alerting.sending.delivery import deliver_due
from liq_pipeline.defs import keys
from liq_pipeline.defs.failures import in_one_sentence
from liq_pipeline.defs.resources import Services
from liq_pipeline.launcher.coordinator import LANE_TAG, LIVE_LANE


@op
def deliver_outbox(context: OpExecutionContext, services: ResourceParam[Services]) -> None:
    """Send every message that is due; what was not taken stays in the outbox, due again later."""
    with in_one_sentence("The delivery"):
        report = deliver_due(services.endpoints.database_url, services.settings)
    for error in report.errors:
        context.log.warning(error)
    context.add_output_metadata(
        {
            "sent_to_people": report.sent,
            "published": report.published_messages,
            "retried_later": report.retried,
            "given_up": report.failed,
            "held": report.held,
            "still_due": report.still_due,
        }
    )
    if report.sent:
        context.log_event(AssetMaterialization(keys.CHANNELS, metadata={"messages": report.sent}))


@job(
    executor_def=in_process_executor,
    tags={LANE_TAG: LIVE_LANE, keys.STREAM_TAG: "delivery", keys.MAX_RUNTIME_TAG: "120"},
    description="Delivers due messages from the outbox to the channels of LIQ_ALERT_URLS and to the out-topics.",
)
def alert_delivery() -> None:
    """One step: the outbox row is the unit that is locked, sent and marked."""
    deliver_outbox()
