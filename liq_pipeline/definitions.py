"""The one Definitions object: everything that Dagster shows, runs, watches.

Belongs here: putting it together. Does not: any asset, job or sensor itself (defs/). Importing this must stay quick:
the code server, the zygote and every cold run pay for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster import Definitions, in_process_executor

from liq_pipeline.defs import lineage
from liq_pipeline.defs.attached import say_if_detached
from liq_pipeline.defs.heavy import evaluation
from liq_pipeline.defs.heavy.healing import gap_healing
from liq_pipeline.defs.heavy.history import load_history, score_history
from liq_pipeline.defs.live.alerts import alert_delivery
from liq_pipeline.defs.live.ingest import live_ingest
from liq_pipeline.defs.live.levels import levels_job, liquidation_levels
from liq_pipeline.defs.live.tick import live_tick, tick_job
from liq_pipeline.defs.resources import services_in_force
from liq_pipeline.defs.schedules import SCHEDULES
from liq_pipeline.defs.sensors import SENSORS
from liq_pipeline.defs.upkeep.checks import checks_job, thorough_checks
from liq_pipeline.defs.upkeep.maintenance import live_maintenance


def build_definitions(*, resources: Mapping[str, Any] | None = None) -> Definitions:
    """All definitions. resources: replacements by name, for tests."""
    return Definitions(
        assets=[
            *lineage.source_specs(),
            *lineage.topic_specs(),
            live_tick,
            liquidation_levels,
            thorough_checks,
            load_history,
            score_history,
            *evaluation.ASSETS,
            *lineage.outside_specs(),
        ],
        jobs=[
            tick_job,
            live_ingest,
            alert_delivery,
            levels_job,
            checks_job,
            live_maintenance,
            gap_healing,
            *evaluation.JOBS,
        ],
        schedules=SCHEDULES,
        sensors=SENSORS,
        # Runs that a person starts from the asset graph, too: a process per step would only cost.
        executor=in_process_executor,
        resources={"services": services_in_force, **(resources or {})},
    )


say_if_detached()
defs = build_definitions()
