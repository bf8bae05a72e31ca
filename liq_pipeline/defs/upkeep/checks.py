"""Thorough checks on a schedule: gaps, dead letters, silent venues, late and missed ticks, watermarks, bounds.

Belongs here: the asset that they hang on and what each promises. Does not: the questions (operations/audits.py) or the
cheap checks that a tick makes of itself (defs/live/tick.py). One step asks them all: two dozen runs would cost more
than the answers.

They hang on an asset of their own and not on the tables: Dagster calls a check "not evaluated" as soon as its asset is
materialised anew, so beside a table that a tick renews every ten seconds a failed one would show for ten seconds.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetSpec,
    FreshnessPolicy,
    MaterializeResult,
    MetadataValue,
    ResourceParam,
    define_asset_job,
    in_process_executor,
    multi_asset,
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
    "policies_succeed": "TimescaleDB's policies, where there are any, have succeeded in their time.",
}

AUDITED: Final = AssetSpec(
    keys.STORED_DATA,
    deps=[*keys.TABLE.values(), keys.LIQUIDATION_RISK, keys.LIVE_SIGNALS, keys.LIVE_ALERTS],
    description="What is stored, asked everything that a tick has no time to ask: one check per table and question.",
    group_name=keys.AUDIT,
    kinds={"postgres", "python"},
    owners=[keys.OWNER],
    # Every quarter of an hour; two rounds may be skipped by a busy machine before it is worth a look.
    freshness_policy=FreshnessPolicy.time_window(fail_window=timedelta(hours=1), warn_window=timedelta(minutes=40)),
)


def check_name(subject: str, audit: str) -> str:
    """prices_rows_fit, signals_ticks_complete ..."""
    return f"{subject}_{audit}"


def _spec(subject: str, audit: str) -> AssetCheckSpec:
    return AssetCheckSpec(check_name(subject, audit), asset=keys.STORED_DATA, description=_TEXT[audit])


SPECS: Final = [
    *(_spec(table, audit) for table in IN_TOPICS for audit in audits.TABLE_AUDITS),
    *(_spec("liquidation_risk", audit) for audit in audits.RISK_AUDITS),
    *(_spec("signals", audit) for audit in audits.SIGNAL_AUDITS),
    *(_spec("alerts", audit) for audit in audits.ALERT_AUDITS),
    *(_spec("database", audit) for audit in audits.DATABASE_AUDITS),
]


@multi_asset(name="thorough_checks", specs=[AUDITED], check_specs=SPECS)
def thorough_checks(services: ResourceParam[Services]) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
    """Ask the stored data everything that a tick has no time to ask."""
    with services.connect("dagster checks") as connection:
        connection.read_only = True
        findings = list(audits.audit(connection, services.settings, datetime.now(UTC)))
    failed = [finding for finding in findings if not finding.passed]
    yield MaterializeResult(
        asset_key=keys.STORED_DATA,
        metadata={
            "passed": len(findings) - len(failed),
            "failed": len(failed),
            "findings": MetadataValue.md(
                "\n".join(f"* **{finding.subject}**: {finding.sentence}" for finding in failed) or "Nothing is wrong."
            ),
        },
    )
    for finding in findings:
        yield AssetCheckResult(
            asset_key=keys.STORED_DATA,
            check_name=check_name(finding.subject, finding.audit),
            passed=finding.passed,
            severity=AssetCheckSeverity.ERROR if finding.is_error else AssetCheckSeverity.WARN,
            description=finding.sentence,
            metadata=finding.facts,
        )


checks_job = define_asset_job(
    "live_checks",
    selection=[thorough_checks],
    description="All thorough checks of the live tables, in one step.",
    executor_def=in_process_executor,
    tags={keys.STREAM_TAG: "checks", keys.MAX_RUNTIME_TAG: "300"},
)
