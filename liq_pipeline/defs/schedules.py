"""What runs by the clock.

Belongs here: schedules. Does not: what reacts to due work (sensors.py). Sensors and schedules run by default, so that
a fresh home needs no click.
"""

from __future__ import annotations

from typing import Final

from dagster import DefaultScheduleStatus, ScheduleDefinition

from liq_pipeline.defs.heavy import evaluation
from liq_pipeline.defs.heavy.healing import heal_when_open
from liq_pipeline.defs.live.levels import levels_every_five_minutes
from liq_pipeline.defs.upkeep.checks import checks_job
from liq_pipeline.defs.upkeep.maintenance import live_maintenance

SCHEDULES: Final = [
    ScheduleDefinition(
        name="checks_every_quarter_hour",
        job=checks_job,
        # Off the full minutes on which everything else starts.
        cron_schedule="3-59/15 * * * *",
        description="The thorough checks; each looks at the last hour.",
        default_status=DefaultScheduleStatus.RUNNING,
    ),
    ScheduleDefinition(
        name="maintenance_every_hour",
        job=live_maintenance,
        cron_schedule="41 * * * *",
        description="Deletes what has had its time, a little at a time.",
        default_status=DefaultScheduleStatus.RUNNING,
    ),
    levels_every_five_minutes,
    heal_when_open,
    *evaluation.SCHEDULES,
]
