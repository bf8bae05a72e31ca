"""Evaluation and training in the heavy lane: nightly figures, hourly shadows, a weekly candidate.

Belongs here: these assets, their jobs and schedules. Does not: the work (evaluation/), limits (dagster.yaml).
Everything heavy is imported inside the steps: a live tick's process pays for none of it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from dagster import (
    AssetExecutionContext,
    AssetSelection,
    DefaultScheduleStatus,
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
from liq_pipeline.domain.worlds import World
from liq_pipeline.launcher.coordinator import LANE_TAG
from liq_pipeline.store import worlds

HEAVY_LANE: Final = "heavy"


def _judged_world(connection: Any) -> World | None:
    """The active world: figures of a simulation stand under its own name and never beside real ones."""
    return worlds.active(connection)


@asset(
    key=keys.ALARM_QUALITY,
    deps=[keys.LIVE_ALERTS],
    description="How good the scores and alarms were on everything stored: evaluation_runs, evaluation_metrics, "
    "cascade_events, and what followed each alert (alert_outcomes).",
    kinds={"postgres", "numpy"},
    group_name=keys.EVALUATION,
    owners=[keys.OWNER],
)
def alarm_quality(context: AssetExecutionContext, services: ResourceParam[Services]) -> MaterializeResult[Any]:
    """Judge the active world's whole history; a store without one is no failure."""
    from liq_pipeline.errors import LiqError
    from liq_pipeline.evaluation.report.nightly import evaluate_store

    with in_one_sentence("The evaluation"), services.connect("dagster evaluation") as connection:
        world = _judged_world(connection)
        if world is None:
            return MaterializeResult(metadata={"skipped": "no world is active"})
        try:
            stored = evaluate_store(connection, world, services.settings)
        except LiqError as nothing:
            context.log.warning(str(nothing))
            return MaterializeResult(metadata={"world": world.name, "skipped": str(nothing)})
    four = stored.report["scores"]["cascade_probability_4h"]["4h"]
    found = {
        "world": world.name,
        "evaluation_id": str(stored.evaluation_id),
        "events": stored.events,
        "rows": stored.report["panel"]["rows"],
        "roc_auc_within_4h": four.get("roc_auc_within"),
        "seconds": stored.report["seconds"],
        **{f"alerts_{verdict}": count for verdict, count in stored.outcomes.items()},
    }
    return MaterializeResult(metadata={name: value for name, value in found.items() if value is not None})


@asset(
    key=keys.SHADOW,
    deps=[keys.FEATURE_BARS],
    description="What the candidates would have said beside the model in force, and the pages they would have sent: "
    "logged, never sent. States whether the written gate lets one through.",
    kinds={"postgres", "numpy"},
    group_name=keys.EVALUATION,
    owners=[keys.OWNER],
)
def shadow(context: AssetExecutionContext, services: ResourceParam[Services]) -> MaterializeResult[Any]:
    """Extend every shadow; with LIQ_MODEL_AUTO_PROMOTE a candidate that passes the gate becomes champion."""
    from liq_pipeline.evaluation.models.promotion_gate import judge_candidate
    from liq_pipeline.evaluation.models.shadow import extend_shadows
    from liq_pipeline.pipeline import models

    with in_one_sentence("The shadow"), services.connect("dagster shadow") as connection:
        world = _judged_world(connection)
        waiting = models.candidates(connection)
        if world is None or not waiting:
            return MaterializeResult(metadata={"candidates": len(waiting)})
        done = extend_shadows(connection, world, services.settings, worlds.clock(connection, world, datetime.now(UTC))
                              or datetime.now(UTC))  # fmt: skip
        connection.commit()
        verdicts = {}
        for model in waiting:
            in_force = models.model_in_force(connection).model_id
            verdict = judge_candidate(connection, world, services.settings, model.model_id, in_force)
            verdicts[model.model_id] = verdict.because
            if verdict.passes and services.settings.model_auto_promote:
                models.promote(connection, model.model_id, f"the gate: {verdict.because}")
                connection.commit()
                context.log.warning(f"{model.model_id} speaks from the next tick on, in the place of {in_force}")
    return MaterializeResult(metadata={"rows": done.rows, "alarms": done.alarms, "verdicts": verdicts})


@asset(
    key=keys.CANDIDATE,
    deps=[keys.FEATURE_BARS],
    description="A model fitted on this installation's own history, walk-forward: a candidate in shadow. Too little "
    "history makes none.",
    kinds={"postgres", "scikitlearn"},
    group_name=keys.EVALUATION,
    owners=[keys.OWNER],
)
def candidate(context: AssetExecutionContext, services: ResourceParam[Services]) -> MaterializeResult[Any]:
    """Train when there is enough; the real world only, a model of a simulation would be worthless."""
    from liq_pipeline.errors import LiqError
    from liq_pipeline.evaluation.models.retrain import retrain
    from liq_pipeline.evaluation.panels.stored import stored_history
    from liq_pipeline.pipeline import models

    with in_one_sentence("The training"), services.connect("dagster training") as connection:
        world = worlds.get(connection, "real")
        if world is None:
            return MaterializeResult(metadata={"skipped": "there is no real world in this store"})
        try:
            history = stored_history(connection, world, services.settings)
            model = retrain(history, services.settings, models.model_in_force(connection))
            models.add_candidate(connection, model, "trained on all stored history")
        except LiqError as nothing:
            context.log.info(str(nothing))
            return MaterializeResult(metadata={"skipped": str(nothing)})
    return MaterializeResult(metadata={"model_id": model.model_id, "walk_forward": dict(model.facts["walk_forward"])})


def _job(name: str, of: Any, text: str, max_runtime_seconds: int) -> Any:
    return define_asset_job(
        name,
        selection=AssetSelection.assets(of.key).without_checks(),
        description=text,
        executor_def=in_process_executor,
        tags={LANE_TAG: HEAVY_LANE, keys.STREAM_TAG: name, keys.MAX_RUNTIME_TAG: str(max_runtime_seconds)},
    )


ASSETS: Final = [alarm_quality, shadow, candidate]
alarm_quality_job = _job("evaluate_nightly", alarm_quality, "Judge everything stored.", 3600)
shadow_job = _job("shadow_hourly", shadow, "Let the candidates answer beside the model in force.", 1800)
candidate_job = _job("train_weekly", candidate, "Fit a candidate on everything stored.", 7200)
JOBS: Final = [alarm_quality_job, shadow_job, candidate_job]


def schedules() -> Iterator[ScheduleDefinition]:
    """Off the full hours; at night by UTC."""
    for name, job, cron, text in (
        ("evaluation_every_night", alarm_quality_job, "17 3 * * *", "How good were the alarms?"),
        ("shadow_every_hour", shadow_job, "23 * * * *", "Candidates answer in shadow."),
        ("training_every_week", candidate_job, "47 4 * * 1", "A candidate from all stored history."),
    ):
        yield ScheduleDefinition(
            name=name,
            job=job,
            cron_schedule=cron,
            description=text,
            default_status=DefaultScheduleStatus.RUNNING,
        )


SCHEDULES: Final = list(schedules())
