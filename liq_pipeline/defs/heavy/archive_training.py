"""Learning from the public archives as assets: a partition is a coin and a quarter, so that a cluster fans them out.

Belongs here: the two assets and what they tell. Does not: the work (evaluation/archive/), or the lane of their runs
(launcher/coordinator.py tags every run that is made of history alone).
Unlike hours, these partitions are a minute's work each and a run of its own: on an installation that is attached to a
cluster, Dagster's own launchers and executors there spread them. Workers that share LIQ_HOME (a network file system)
share what is done.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from dagster import (
    AssetExecutionContext,
    Config,
    DynamicPartitionsDefinition,
    MaterializeResult,
    MultiPartitionKey,
    MultiPartitionsDefinition,
    ResourceParam,
    TimeWindowPartitionsDefinition,
    asset,
)
from pydantic import Field

from liq_pipeline.defs import keys
from liq_pipeline.defs.failures import in_one_sentence
from liq_pipeline.defs.heavy.history import settle_into_process
from liq_pipeline.defs.resources import Services

SYMBOLS: Final = DynamicPartitionsDefinition(name="archive_symbols")
"""Coins are added in the asset's partition dialog (BTC, ETH ...): which are worth learning from a person decides."""
QUARTERS: Final = TimeWindowPartitionsDefinition(
    start="2020-01-01", fmt="%Y-%m-%d", cron_schedule="0 0 1 1,4,7,10 *", timezone="UTC"
)
PARTITIONS: Final = MultiPartitionsDefinition({"symbol": SYMBOLS, "quarter": QUARTERS})


@asset(
    key=keys.ARCHIVE_FEATURES,
    deps=[keys.PUBLIC_ARCHIVES],
    description="Features and labels of one coin and quarter from public archives, as Parquet under LIQ_HOME; the "
    "months that they need are fetched and kept on the way.",
    kinds={"file", "numpy"},
    group_name=keys.HISTORY,
    owners=[keys.OWNER],
    partitions_def=PARTITIONS,
)
def archive_features(context: AssetExecutionContext, services: ResourceParam[Services]) -> MaterializeResult[Any]:
    """Make one partition, or find it made already."""
    from liq_pipeline.evaluation.archive.plan import Plan, Quarter, training_folder
    from liq_pipeline.evaluation.archive.run import keep_partition

    key = context.partition_key
    if not isinstance(key, MultiPartitionKey):
        raise TypeError("archive features are partitioned by symbol and quarter")
    parts = key.keys_by_dimension
    symbol = parts["symbol"].upper()
    quarter = Quarter.of(datetime.fromisoformat(parts["quarter"]).replace(tzinfo=UTC))
    folder = training_folder(Path(services.settings.home))
    settle_into_process()
    with in_one_sentence("The archive's features"):
        facts = keep_partition(Plan((symbol,), quarter.start, quarter.end, folder), services.settings, symbol, quarter)
    return MaterializeResult(
        metadata={"rows": facts["rows"], "cascades_4h": len(facts["events"]), "was_made_before": facts["was_kept"]}
    )


class ArchiveTraining(Config):
    """What to learn from, as `liq model train --archive` is told."""

    symbols: list[str] = Field(default=[], description="Coins, e.g. BTC; empty: LIQ_SYMBOLS.")
    first: str = Field(default="2020-09-01", description="First day, UTC.")
    last: str = Field(default="", description="The day after the last, UTC; empty: today.")
    workers: int = Field(default=1, description="Processes for partitions that are not made yet.")
    try_inputs: str = Field(
        default="", description="Inputs that the report judges besides: premium, depth ... or all; empty: none."
    )


@asset(
    key=keys.ARCHIVE_CANDIDATE,
    deps=[keys.ARCHIVE_FEATURES],
    description="A model fitted on years of the public archives, walk-forward by quarters: a candidate in shadow, with "
    "its report under LIQ_HOME. Partitions that are not there yet are made first.",
    kinds={"postgres", "scikitlearn"},
    group_name=keys.HISTORY,
    owners=[keys.OWNER],
)
def archive_candidate(
    context: AssetExecutionContext, config: ArchiveTraining, services: ResourceParam[Services]
) -> MaterializeResult[Any]:
    """Fit and put in shadow; the same data again make no second candidate."""
    from liq_pipeline.evaluation.archive.inputs import groups_named
    from liq_pipeline.evaluation.archive.plan import Plan, training_folder
    from liq_pipeline.evaluation.archive.run import Manner, train
    from liq_pipeline.pipeline import models

    settings = services.settings
    symbols = tuple(symbol.upper() for symbol in config.symbols) or settings.symbols
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    last = _day(config.last) if config.last else today
    plan = Plan(symbols, _day(config.first), min(last, today), training_folder(Path(settings.home)))
    settle_into_process()
    with in_one_sentence("The archive training"):
        with services.connect("dagster archive training") as connection:
            in_force = models.model_in_force(connection)
        # No connection stays open for the hours that this may take.
        trial = groups_named(config.try_inputs) if config.try_inputs else ()
        done = train(plan, settings, in_force, Manner(config.workers), say=_say_through(context), trial=trial)
    with services.connect("dagster archive training") as connection:
        if all(known.model_id != done.model.model_id for known in models.list_models(connection)):
            models.add_candidate(connection, done.model, f"trained on archives of {', '.join(symbols)}")
    for problem in done.problems[:10]:
        context.log.warning(problem)
    return MaterializeResult(
        metadata={
            "model_id": done.model.model_id,
            "report": str(done.report_file),
            "walk_forward": dict(done.model.facts["walk_forward"]),
            "inputs_worth_a_release": done.report.get("inputs", {}).get("worth_a_release", []),
        }
    )


def _day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _say_through(context: AssetExecutionContext) -> Callable[[str], None]:
    """Progress into the run's log, at most once a minute: every line is a row of Dagster's."""
    told = datetime.min.replace(tzinfo=UTC)

    def say(text: str) -> None:
        nonlocal told
        now = datetime.now(UTC)
        if now - told >= timedelta(minutes=1):
            told = now
            context.log.info(text)

    return say
