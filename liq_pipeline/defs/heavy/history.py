"""History as partitioned assets: hours of UTC, one run for a range, in the heavy lane.

Belongs here: the two assets and what they tell. Does not: the work (pipeline/backfill.py, pipeline/rescore.py), or the
lane of their runs (launcher/coordinator.py tags every run that is made of history alone).
A range of a year is one run of one step per asset: a run per hour would cost 8,760 of them.
"""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from dagster import (
    AssetExecutionContext,
    AssetSpec,
    BackfillPolicy,
    Config,
    Failure,
    HourlyPartitionsDefinition,
    MaterializeResult,
    ResourceParam,
    multi_asset,
)
from pydantic import Field

from liq_pipeline.defs import keys
from liq_pipeline.defs.failures import in_one_sentence
from liq_pipeline.defs.resources import Services
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.pipeline import rescore as scoring
from liq_pipeline.pipeline.models import model_in_force
from liq_pipeline.pipeline.politeness import Politeness
from liq_pipeline.scoring.version import SCORING_CODE_VERSION

HOURS: Final = HourlyPartitionsDefinition(start_date="2020-01-01-00:00", timezone="UTC")
"""From the oldest day that the archives have."""
POLITENESS: Final = 10
EVENTS_PER_WRITE: Final = 500
SAY_EVERY: Final = 200


class HistorySource(Config):
    """What to load. The default is what `liq backfill --source binance_archive` loads."""

    source: str = Field(default="binance_archive", description="binance_archive, a venue, coingecko, etherscan, ...")
    symbols: list[str] = Field(default=[], description="Coins, e.g. BTC; empty: LIQ_SYMBOLS.")


@multi_asset(
    name="load_history",
    specs=[
        AssetSpec(
            keys.HISTORY_OBSERVATIONS,
            deps=[keys.PUBLIC_ARCHIVES],
            description="Past prices, funding, open interest and account ratios from public archives and venues, "
            "through the six topics into the same tables as live rows, with origin archive.",
            group_name=keys.HISTORY,
            kinds={"kafka", "postgres"},
            owners=[keys.OWNER],
        )
    ],
    partitions_def=HOURS,
    backfill_policy=BackfillPolicy.single_run(),
)
def load_history(
    context: AssetExecutionContext, config: HistorySource, services: ResourceParam[Services]
) -> MaterializeResult[Any]:
    """Load the range's files; those that are loaded already cost one small request each."""
    # Here and not above: the venues' modules are no part of a tick.
    from liq_pipeline.pipeline.backfill import Progress, backfill
    from liq_pipeline.sources.archives.catalogue import open_source

    def say(progress: Progress) -> None:
        if progress.piece is not None and progress.done % SAY_EVERY == 0:
            context.log.info(f"{progress.done} of {progress.total} pieces, {progress.rows_sent} new rows")

    start, end = context.partition_time_window
    settings, endpoints = services.settings, services.endpoints
    symbols = tuple(config.symbols) or settings.symbols
    settle_into_process()
    with (
        in_one_sentence("Loading history"),
        open_source(config.source, settings, endpoints.database_url, symbols) as source,
    ):
        result = backfill(
            endpoints.database_url,
            endpoints.kafka_bootstrap_servers,
            settings,
            source,
            symbols,
            start,
            end,
            progress=say,
        )
    for problem in result.problems:
        context.log.warning(problem)
    for symbol in result.empty_symbols:
        context.log.warning(f"{config.source} has nothing of {symbol}")
    if result.refused:
        # Hours that lack a file they should have are not up to date; the other files stay loaded.
        raise Failure(f"{result.refused} of {result.pieces} pieces were refused: {result.problems[0]}")
    return MaterializeResult(
        asset_key=keys.HISTORY_OBSERVATIONS,
        metadata={
            "source": config.source,
            "pieces_loaded": result.loaded,
            "pieces_loaded_before": result.unchanged,
            "pieces_corrected": result.corrected,
            "pieces_absent": result.absent,
            "pieces_not_yet": result.not_yet,
            "rows": result.rows,
            "rows_new": result.rows_sent,
            "problems": len(result.problems),
            "held_back_seconds": result.held_back_seconds,
        },
    )


@multi_asset(
    name="score_history",
    specs=[
        AssetSpec(
            keys.HISTORY_SIGNALS,
            deps=[keys.HISTORY_OBSERVATIONS],
            description="Risk, pressure and signals of past hours, scored from what is stored: new revisions, nothing "
            "overwritten, no alert sent.",
            group_name=keys.HISTORY,
            kinds={"postgres", "numpy"},
            owners=[keys.OWNER],
            code_version=str(SCORING_CODE_VERSION),
        )
    ],
    partitions_def=HOURS,
    backfill_policy=BackfillPolicy.single_run(),
)
def score_history(context: AssetExecutionContext, services: ResourceParam[Services]) -> MaterializeResult[Any]:
    """Score every point of the range again, as `liq score` does."""
    start, end = context.partition_time_window
    settle_into_process()
    with in_one_sentence("Scoring history"):
        result = _score(services, start, end, _say_points(context))
    return MaterializeResult(
        asset_key=keys.HISTORY_SIGNALS,
        metadata={
            "world": result.world,
            "risks": result.risks,
            "pressures": result.pressures,
            "changed": result.changed,
            "score_version": result.score_version,
        },
    )


def _score(
    services: Services, start: datetime, end: datetime, progress: Callable[[int, int], None]
) -> scoring.RescoreResult:
    """The hours of [start, end). Raises LiqError if nothing is known of them."""
    settings = services.settings
    last = end - timedelta(seconds=1)
    with Politeness(services.endpoints.database_url) as politeness:
        return scoring.rescore(
            services.endpoints.database_url,
            settings,
            start,
            last,
            world_name=REAL,
            load_model=model_in_force,
            politeness=politeness,
            progress=progress,
        )


def settle_into_process() -> None:
    """The process of a run is its own: it steps behind the ticks, and may write its events as it suits a long range.

    Dagster writes one event per partition. One by one those of a year took 183 s, 21 ms each, and as many commits
    beside the ticks'; it reads this variable whenever it writes.
    """
    os.nice(POLITENESS)
    os.environ["DAGSTER_EVENT_BATCH_SIZE"] = str(EVENTS_PER_WRITE)


def _say_points(context: AssetExecutionContext) -> Callable[[int, int], None]:
    def say(done: int, total: int) -> None:
        if done % SAY_EVERY == 0 or done == total:
            context.log.info(f"{done} of {total} batches scored")

    return say
