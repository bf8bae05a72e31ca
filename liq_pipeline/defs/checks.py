"""Thorough checks on a schedule: gaps, dead letters, silent venues, late and missed ticks, watermarks, bounds.

Belongs here: which asset each audit speaks about. Does not: the questions (operations/audits.py) or the cheap checks
that a tick makes of itself (live.py). One step asks them all: two dozen runs would cost more than the answers.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    AssetSelection,
    ResourceParam,
    define_asset_job,
    in_process_executor,
    multi_asset_check,
)

from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.defs import keys
from liq_pipeline.defs.resources import Services
from liq_pipeline.operations import audits

_TEXT: Final[dict[str, str]] = {
    "rows_fit": "No message of the last hour ended in dead_letters.",
    "venues_speak": "Every venue that this world expects has been heard within its cadence.",
    "values_plausible": "No row of the last hour is outside what markets have shown, none lies in the future.",
    "points_add_up": "Each score is the sum of its points and the larger of its two sides.",
    "no_open_gaps": "No known hole in the data waits to be healed.",
    "ticks_complete": "Every grid point of the last 24 hours has a tick; late ones are counted.",
    "watermarks_move": "All partitions of a played world advance together.",
    "outbox_empties": "Nothing waits in the outbox for long, and nothing was given up.",
}


def _spec(subject: str, audit: str) -> AssetCheckSpec:
    return AssetCheckSpec(audit, asset=AssetKey(["live", subject]), description=_TEXT[audit])


SPECS: Final = [
    *(_spec(table, audit) for table in IN_TOPICS for audit in audits.TABLE_AUDITS),
    *(_spec("liquidation_risk", audit) for audit in audits.RISK_AUDITS),
    *(_spec("signals", audit) for audit in audits.SIGNAL_AUDITS),
    *(_spec("alerts", audit) for audit in audits.ALERT_AUDITS),
]


@multi_asset_check(name="thorough_checks", specs=SPECS)
def thorough_checks(services: ResourceParam[Services]) -> Iterator[AssetCheckResult]:
    """Ask the stored data everything that a tick has no time to ask."""
    with services.connect("dagster checks") as connection:
        connection.read_only = True
        for finding in audits.audit(connection, services.settings, datetime.now(UTC)):
            yield AssetCheckResult(
                asset_key=AssetKey(["live", finding.subject]),
                check_name=finding.audit,
                passed=finding.passed,
                severity=AssetCheckSeverity.ERROR if finding.is_error else AssetCheckSeverity.WARN,
                description=finding.sentence,
                metadata=finding.facts,
            )


checks_job = define_asset_job(
    "live_checks",
    selection=AssetSelection.checks(thorough_checks),
    description="All thorough checks of the live tables, in one step.",
    executor_def=in_process_executor,
    tags={keys.STREAM_TAG: "checks", keys.MAX_RUNTIME_TAG: "300"},
)
