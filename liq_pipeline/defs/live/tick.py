"""The live tick: one fat step that lands, scores, decides and writes, and says what it did.

Belongs here: the assets a tick keeps up to date, their metadata and the cheap checks. Does not: the work
(pipeline/tick.py), when it runs (defs/sensors.py), or the thorough checks (defs/upkeep/checks.py).
One step, because each further one costs events, commits and time: a tick has seconds, not minutes.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetSpec,
    FreshnessPolicy,
    MaterializeResult,
    MetadataValue,
    ResourceParam,
    define_asset_job,
    in_process_executor,
    multi_asset,
)

from liq_pipeline.alerting.sending.delivery import deliver_due
from liq_pipeline.alerting.sending.heartbeat import ping
from liq_pipeline.bus.topics import EVENT_TOPICS, IN_TOPICS
from liq_pipeline.defs import keys
from liq_pipeline.defs.failures import in_one_sentence
from liq_pipeline.defs.live.alerts import alert_delivery
from liq_pipeline.defs.live.due import messages_to_people_due
from liq_pipeline.defs.live.handover import start_run
from liq_pipeline.defs.resources import Services
from liq_pipeline.launcher.coordinator import LANE_TAG, LIVE_LANE
from liq_pipeline.pipeline.models import model_in_force
from liq_pipeline.pipeline.tick import TickContext, TickResult, run_tick
from liq_pipeline.runtime.home import supervisor_moves
from liq_pipeline.runtime.liveness import TICK, note_alive
from liq_pipeline.scoring.version import SCORING_CODE_VERSION
from liq_pipeline.store.lookback.bar_cache import BarCache

CODE_VERSION: Final = str(SCORING_CODE_VERSION)
PUBLISH_BUDGET_SECONDS: Final = 3.0
MAX_RUNTIME_SECONDS: Final = 60
"""A tick bounds itself to 20 s: one that still runs after this hangs, and is ended so that the next can come."""
# Policies measure that runs happen, by the wall clock; how old data is in its own world is a check's business.
_TICKING: Final = FreshnessPolicy.time_window(fail_window=timedelta(minutes=2), warn_window=timedelta(minutes=1))
_LANDING: Final = FreshnessPolicy.time_window(fail_window=timedelta(minutes=10), warn_window=timedelta(minutes=5))
_SLOW: Final = FreshnessPolicy.time_window(fail_window=timedelta(minutes=30), warn_window=timedelta(minutes=15))

_TABLE_TEXT: Final[dict[str, str]] = {
    "prices": "Mark and average prices, one row per symbol, venue and time.",
    "funding_rates": "Funding rates with their own interval, and the same per 8 h.",
    "open_interest": "Open interest in coins and USD.",
    "long_short_ratio": "Long and short shares of accounts, positions and takers.",
    "liquidations": "Forced closes by the side of the position.",
    "stablecoin_flows": "Stablecoin transfers, canonical and orphaned.",
}


def _table_specs() -> list[AssetSpec]:
    return [
        AssetSpec(
            keys.TABLE[topic],
            deps=[keys.TOPIC[topic]],
            description=f"{text} Landed exactly once, in the transaction that stores the Kafka offsets.",
            group_name=keys.TABLES,
            kinds={"postgres", "table"},
            owners=[keys.OWNER],
            code_version=CODE_VERSION,
            skippable=True,
            freshness_policy=_SLOW if topic == "long_short_ratio" else _LANDING,
        )
        for topic, text in _TABLE_TEXT.items()
    ]


def _score_spec(key: AssetKey, group: str, deps: list[AssetKey], text: str, kinds: set[str]) -> AssetSpec:
    return AssetSpec(
        key,
        deps=deps,
        description=text,
        group_name=group,
        kinds=kinds,
        owners=[keys.OWNER],
        code_version=CODE_VERSION,
        skippable=True,
        freshness_policy=_TICKING if key != keys.FEATURE_BARS else _LANDING,
    )


# Edges that follow from others are left out: Dagster writes two rows of provenance per edge and tick.
SPECS: Final = [
    *_table_specs(),
    _score_spec(
        keys.FEATURE_BARS,
        keys.FEATURES,
        [keys.TABLE[topic] for topic in IN_TOPICS],
        "The 5-minute grid that look-backs and percentiles stand on: bars per symbol and venue, and windows of flows, "
        "as they were known at each bar's end.",
        {"postgres", "numpy"},
    ),
    _score_spec(
        keys.LIQUIDATION_RISK,
        keys.SCORES,
        [keys.FEATURE_BARS],
        "How likely a liquidation cascade is, 0 to 100: funding 0..30 + open interest 0..30 + long/short 0..20 + "
        "recent liquidations 0..20, for the more endangered side. Unknown parts widen score .. score_high.",
        {"postgres", "numpy"},
    ),
    _score_spec(
        keys.STABLECOIN_PRESSURE,
        keys.SCORES,
        [keys.FEATURE_BARS],
        "Net flow of stablecoins out of (+) or into (-) exchanges over the last hour, -100 to +100.",
        {"postgres", "numpy"},
    ),
    _score_spec(
        keys.LIVE_SIGNALS,
        keys.SIGNALS,
        [keys.LIQUIDATION_RISK, keys.STABLECOIN_PRESSURE],
        "Risk and pressure as a severity, and the probability of a cascade within 1, 4 and 24 h.",
        {"postgres", "python"},
    ),
    _score_spec(
        keys.LIVE_ALERTS,
        keys.SIGNALS,
        [keys.LIVE_SIGNALS],
        "What a person is told: opened, raised and resolved with hysteresis, one page per market event, each with a "
        "receipt that takes the score apart.",
        {"postgres", "python"},
    ),
]

CHECKS: Final = [
    AssetCheckSpec(
        "scores_in_bounds", asset=keys.LIQUIDATION_RISK, description="The newest scores are possible numbers."
    ),
    AssetCheckSpec(
        "inputs_known",
        asset=keys.LIQUIDATION_RISK,
        description="Every symbol's coverage is at least LIQ_RISK_MIN_COVERAGE: no venue is silent or unknown that "
        "would make the score blind.",
    ),
    AssetCheckSpec(
        "messages_fit", asset=keys.LIVE_SIGNALS, description="No message of this tick ended in dead_letters."
    ),
    AssetCheckSpec(
        "on_time",
        asset=keys.LIVE_SIGNALS,
        description="Everything in Kafka landed, and no point was late, missed or left over.",
    ),
]


@multi_asset(name="land_score_decide", specs=SPECS, check_specs=CHECKS)
def live_tick(
    context: AssetExecutionContext, services: ResourceParam[Services]
) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
    """Land what is in Kafka, score every due grid point, decide alerts: one bounded, repeatable run."""
    tick = TickContext(
        database_url=services.endpoints.database_url,
        bootstrap_servers=services.endpoints.kafka_bootstrap_servers,
        topic_prefix=services.settings.kafka_topic_prefix,
        settings=services.settings,
        dagster_run_id=context.run.run_id,
        load_model=model_in_force,
        bar_cache=BarCache(services.settings.home / "cache"),
    )
    try:
        with in_one_sentence("The tick"):
            result = run_tick(tick)
            hand_on(context, services, result)
    except BaseException:
        # A tick that fails is blind; whoever watches from outside hears it before the pings run out.
        ping(services.settings, ok=False)
        raise
    yield from _landed(result)
    yield from _scored(result)
    yield from checks_of(result, services.settings.risk.min_coverage)


def hand_on(context: AssetExecutionContext, services: Services, result: TickResult) -> None:
    """After the commit: tell the outside that we live, publish, and start a run of its own for messages to people.

    Publishing is quick and bounded; a person's channel may hang for many seconds, which no tick may wait for.
    """
    if result.newest is not None:
        note_alive(TICK)
        sees = not blind_symbols(result, services.settings.risk.min_coverage)
        # Ticks go on under a supervisor that stands still, until a part dies that nobody starts again.
        ping(services.settings, ok=sees and supervisor_moves())
    if not result.outbox_due:
        return
    with services.connect("dagster tick outbox") as connection:
        people_wait = messages_to_people_due(connection, datetime.now(UTC))
    if people_wait and start_run(context, alert_delivery.name) is not None:
        return
    if not people_wait:
        report = deliver_due(services.endpoints.database_url, services.settings, budget_seconds=PUBLISH_BUDGET_SECONDS)
        for error in report.errors:
            context.log.warning(error)


def _landed(result: TickResult) -> Iterator[MaterializeResult[Any]]:
    """A table counts as brought up to date when something came: rows, or the heartbeat of a calm event feed."""
    for topic in IN_TOPICS:
        rows = result.landing.landed.get(topic, 0)
        if rows or (topic in EVENT_TOPICS and result.landing.heartbeats):
            yield MaterializeResult(asset_key=keys.TABLE[topic], metadata={"rows": rows})


def _scored(result: TickResult) -> Iterator[MaterializeResult[Any]]:
    if result.bars_built:
        yield MaterializeResult(
            asset_key=keys.FEATURE_BARS,
            metadata={"bars": result.bars_built, "references": result.references_built},
        )
    if result.newest_pressure is not None:
        pressure = result.newest_pressure
        yield MaterializeResult(
            asset_key=keys.STABLECOIN_PRESSURE,
            metadata=known(
                world=result.world,
                time=pressure.time.isoformat(),
                points=result.flow_points_scored,
                pressure=pressure.score,
                coverage=pressure.coverage,
                inflow_usd=pressure.inflow_usd,
                outflow_usd=pressure.outflow_usd,
            ),
        )
    if result.newest is None:
        return
    risks = result.newest.risks
    yield MaterializeResult(
        asset_key=keys.LIQUIDATION_RISK,
        metadata=known(
            world=result.world,
            time=result.newest.time.isoformat(),
            points=result.points_scored,
            newest=MetadataValue.md(risk_table(result)),
            lowest_coverage=min((risk.coverage for risk in risks.values()), default=None),
            # Numbers of their own, because Dagster plots numbers over time.
            **{f"risk_{s}": None if risk.score is None else round(risk.score, 2) for s, risk in risks.items()},
        ),
    )
    yield MaterializeResult(
        asset_key=keys.LIVE_SIGNALS,
        metadata=known(
            world=result.world,
            time=result.newest.time.isoformat(),
            lag_seconds=result.lag_seconds,
            rows=result.points_scored * len(risks),
            rows_landed=result.landing.rows_landed,
            late_rows=result.late_rows,
            points_left=result.points_left,
            tick_seconds=result.durations.get("total"),
            score_version=result.score_version,
        ),
    )
    yield MaterializeResult(
        asset_key=keys.LIVE_ALERTS,
        metadata={"changes": result.alert_changes, "outbox_due": result.outbox_due},
    )


def checks_of(result: TickResult, min_coverage: float) -> Iterator[AssetCheckResult]:
    """What a tick can say of itself for nothing. A tick that scored nothing has nothing wrong in its scores."""
    risks = {} if result.newest is None else result.newest.risks
    odd = [
        symbol
        for symbol, risk in risks.items()
        if not 0 <= risk.coverage <= 1
        or (risk.score is not None and not 0 <= risk.score <= (100 if risk.score_high is None else risk.score_high))
    ]
    yield AssetCheckResult(
        asset_key=keys.LIQUIDATION_RISK,
        check_name="scores_in_bounds",
        passed=not odd,
        description=f"Impossible scores: {', '.join(odd)}." if odd else None,
    )
    blind = blind_symbols(result, min_coverage)
    notes = {} if result.newest is None else {s: signal.note for s, signal in result.newest.signals.items()}
    yield AssetCheckResult(
        asset_key=keys.LIQUIDATION_RISK,
        check_name="inputs_known",
        passed=not blind,
        severity=AssetCheckSeverity.WARN,
        description="; ".join(f"{s} has a coverage of {c:.0%}: {notes.get(s)}" for s, c in blind.items()) or None,
        metadata=known(lowest_coverage=min(result.coverage.values(), default=None)),
    )
    landing = result.landing
    yield AssetCheckResult(
        asset_key=keys.LIVE_SIGNALS,
        check_name="messages_fit",
        passed=landing.dead == 0,
        severity=AssetCheckSeverity.WARN,
        description=f"{landing.dead} of {landing.read} messages went to dead_letters." if landing.dead else None,
    )
    behind = known(
        late=result.points_late or None,
        missed=result.points_missed or None,
        left_for_the_next_tick=result.points_left or None,
        messages_left_in_kafka=None if landing.reached_end else "some",
    )
    yield AssetCheckResult(
        asset_key=keys.LIVE_SIGNALS,
        check_name="on_time",
        passed=not behind,
        severity=AssetCheckSeverity.WARN,
        description=", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in behind.items()) or None,
        metadata=known(lag_seconds=result.lag_seconds),
    )


def blind_symbols(result: TickResult, min_coverage: float) -> dict[str, float]:
    """symbol -> coverage, of the symbols whose newest point is too poorly covered for a score."""
    return {symbol: coverage for symbol, coverage in result.coverage.items() if coverage < min_coverage}


def known(**values: Any) -> dict[str, Any]:
    """The values that are known: Dagster would plot an unknown as nothing at all, which is right."""
    return {name: value for name, value in values.items() if value is not None}


def risk_table(result: TickResult) -> str:
    """Every symbol's newest score as a Markdown table."""
    lines = ["| symbol | risk | up to | side | coverage | severity |", "|---|---|---|---|---|---|"]
    if result.newest is not None:
        for symbol, risk in sorted(result.newest.risks.items()):
            signal = result.newest.signals[symbol]
            lines.append(
                f"| {symbol} | {number(risk.score)} | {number(risk.score_high)} | {risk.side or ''} "
                f"| {risk.coverage:.0%} | {signal.severity} |"
            )
    return "\n".join(lines)


def number(value: float | None) -> str:
    """For people: unknown is a word, never a zero."""
    return "unknown" if value is None else f"{value:.1f}"


tick_job = define_asset_job(
    "live_tick",
    selection=[live_tick],
    description="One tick: everything that is due in the active world.",
    executor_def=in_process_executor,
    tags={LANE_TAG: LIVE_LANE, keys.STREAM_TAG: "tick", keys.MAX_RUNTIME_TAG: str(MAX_RUNTIME_SECONDS)},
)
