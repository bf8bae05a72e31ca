"""The liquidation map as an asset: drawn every 5 min from the kept bars, beside the ticks and never in their way.

Belongs here: asset, job and schedule. Does not: the work (pipeline/levels.py).
"""

from datetime import timedelta
from typing import Any, Final

from dagster import (
    AssetExecutionContext,
    DefaultScheduleStatus,
    FreshnessPolicy,
    MaterializeResult,
    ResourceParam,
    ScheduleDefinition,
    asset,
    define_asset_job,
    in_process_executor,
)

from liq_pipeline.defs import keys
from liq_pipeline.defs.failures import in_one_sentence
from liq_pipeline.defs.resources import Services
from liq_pipeline.scoring.levels.method import CODE_VERSION
from liq_pipeline.store import worlds
from liq_pipeline.store.lookback.bar_cache import BarCache


@asset(
    key=keys.LIQUIDATION_LEVELS,
    deps=[keys.FEATURE_BARS],
    description="Where open positions would be closed by force, as an estimate: notional by price around each symbol, "
    "per 5 min (docs/levels.md).",
    kinds={"postgres", "numpy"},
    group_name=keys.SCORES,
    owners=[keys.OWNER],
    code_version=str(CODE_VERSION),
    # Every 5 min; a run may be skipped by a busy machine before it is worth a look.
    freshness_policy=FreshnessPolicy.time_window(fail_window=timedelta(minutes=30), warn_window=timedelta(minutes=15)),
)
def liquidation_levels(context: AssetExecutionContext, services: ResourceParam[Services]) -> MaterializeResult[Any]:
    """Draw what is due of the active world; a bounded number of maps, the next run goes on."""
    from liq_pipeline.pipeline.levels import draw_due_maps

    with in_one_sentence("Drawing the liquidation map"), services.connect("dagster levels") as connection:
        world = worlds.active(connection)
        if world is None:
            return MaterializeResult(metadata={"skipped": "no world is active"})
        cache = BarCache(services.settings.home / "cache")
        drawn = draw_due_maps(connection, world, services.settings, cache)
        connection.commit()
    found: dict[str, Any] = {"world": world.name, "maps": drawn.times, "rows": drawn.rows}
    if drawn.newest is not None:
        found["newest"] = drawn.newest.isoformat()
    context.log.debug(f"{drawn.rows} rows")
    return MaterializeResult(metadata=found)


levels_job = define_asset_job(
    "live_levels",
    selection=[liquidation_levels],
    description="Draw the liquidation maps that are due.",
    executor_def=in_process_executor,
    tags={keys.STREAM_TAG: "levels", keys.MAX_RUNTIME_TAG: "240"},
)

levels_every_five_minutes: Final = ScheduleDefinition(
    name="levels_every_five_minutes",
    job=levels_job,
    # A minute after the bar's end: its tick has kept the bar by then, and the checks start at other minutes.
    cron_schedule="1-59/5 * * * *",
    description="A map for each new 5-min bar.",
    default_status=DefaultScheduleStatus.RUNNING,
)
