"""`liq status`: one picture of the system's health for people and scripts.

Belongs here: collecting facts and judging them. Does not: mending (doctor.py) or drawing (cli.py).
The object's names are a contract (CONTRACTS.md: Commands).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import psycopg
from psycopg.rows import dict_row

from liq_pipeline.bus.topics import IN_TOPICS, wire_name
from liq_pipeline.errors import LiqError
from liq_pipeline.operations import growth
from liq_pipeline.runtime.endpoints import Endpoints, resolve
from liq_pipeline.runtime.home import SUPERVISOR_SILENCE_SECONDS, Home
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing import held

Health = Literal["healthy", "degraded", "down"]
EXIT_CODE: dict[Health, int] = {"healthy": 0, "degraded": 1, "down": 2}
KILLED = "`liq up` was killed; its parts run on without a watch: start `liq up` anew"
LATE_AFTER_SECONDS = 5
TICK_SILENCE_SECONDS = 60
"""No tick for this long is a fault: six market steps, or one start of the stock launcher with its queue."""
FIRST_TICK_SECONDS = 180
"""What a start may take until its first tick, as the watchdog has it (runtime/watchdog.py)."""
MISSED_WINDOW = timedelta(hours=1)


@dataclass
class Status:
    """What `liq status --json` prints, plus the reasons behind `health`."""

    health: Health = "healthy"
    problems: list[str] = field(default_factory=list)
    blinding: list[str] = field(default_factory=list)
    """Those of the problems that make the monitor blind as a whole: with one of them the health is down."""
    mode: str | None = None
    mode_reason: str | None = None
    world: str | None = None
    world_clock: datetime | None = None
    kafka: dict[str, Any] = field(default_factory=dict)
    desk: dict[str, Any] = field(default_factory=dict)
    dagster: dict[str, Any] = field(default_factory=dict)
    database: dict[str, Any] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    lag: dict[str, int | None] = field(default_factory=dict)
    """Messages of each topic that have not landed; None, or no topic at all: unknown."""
    ticks: dict[str, Any] = field(default_factory=dict)
    symbols: dict[str, dict[str, Any]] = field(default_factory=dict)
    alerts: dict[str, Any] = field(default_factory=dict)
    dead_letters: dict[str, Any] = field(default_factory=dict)
    gaps_open: int | None = None
    storage: dict[str, Any] = field(default_factory=dict)
    """Storage.as_dict(): size and growth of each part, room on the disk, days until it is full."""
    supervisor_silence_seconds: float | None = None
    """None where no supervisor runs the parts."""

    def problem(self, sentence: str, *, down: bool = False) -> None:
        """Note a finding; `down` for what makes the monitor blind as a whole."""
        self.problems.append(sentence)
        if down:
            self.health = "down"
            self.blinding.append(sentence)
        elif self.health == "healthy":
            self.health = "degraded"


def addresses(settings: Settings) -> Endpoints:
    """Where to look: the addresses in force, or those that a killed `liq up` left behind together with its parts.

    LiqError if nothing runs. For looking only: whoever writes asks runtime/endpoints.py, which wants a supervisor.
    """
    try:
        return resolve(settings)
    except LiqError:
        home = Home(settings.home)
        if not _is_orphaned(home):
            raise
        try:
            left = msgspec.json.decode(home.runtime_path.read_bytes(), type=Endpoints)
        except (FileNotFoundError, msgspec.MsgspecError):
            # Killed during its start, before the addresses were known; or another version's file.
            raise LiqError(KILLED) from None
    # What is set wins here too; if both were set, resolve() would not have refused.
    if settings.database_url is not None:
        return replace(left, database_url=settings.database_url.get_secret_value())
    return replace(left, kafka_bootstrap_servers=settings.kafka_bootstrap_servers or left.kafka_bootstrap_servers)


def _is_orphaned(home: Home) -> bool:
    """Whether parts of this home run without the `liq up` that started them. A stop in good order ends them first."""
    return home.holder() is None and bool(home.noted_processes())


def collect_status(settings: Settings, endpoints: Endpoints, now: datetime | None = None) -> Status:
    """Ask the database, Kafka and the process table. Never raises for a server that is away: that is a finding."""
    status = read_store(settings, endpoints, now or datetime.now(UTC))
    _read_kafka(settings, endpoints, status)
    _read_supervisor(settings, status)
    return status


def read_store(settings: Settings, endpoints: Endpoints, moment: datetime) -> Status:
    """The part of it that the database tells; `kafka` and `lag` are not asked."""
    status = Status(mode=endpoints.mode, mode_reason=endpoints.mode_reason, world=endpoints.world)
    status.kafka = {"bootstrap_servers": endpoints.kafka_bootstrap_servers, "reachable": False}
    status.desk = {"url": endpoints.desk_url}
    status.dagster = {"url": endpoints.dagster_url}
    status.database = {"reachable": False, "edition": None}
    try:
        with connect(endpoints.database_url, application_name="liq status") as connection:
            connection.read_only = True
            _read_database(connection, settings, status, moment)
            found = growth.storage(connection, settings, moment)
            connection.rollback()
        status.storage = found.as_dict()
        for sentence in found.problems():
            status.problem(sentence)
    except psycopg.Error as error:
        status.problem(f"The database cannot be used: {' '.join(str(error).split())}", down=True)
    return status


def _read_supervisor(settings: Settings, status: Status) -> None:
    home = Home(settings.home)
    silence = home.supervisor_silence_seconds()
    status.supervisor_silence_seconds = silence
    if _is_orphaned(home):
        status.problem(f"{KILLED}.")
    elif silence is not None and silence > SUPERVISOR_SILENCE_SECONDS:
        status.problem(
            f"The supervisor has not moved for {silence:.0f} s, so what dies is not started again: start `liq up` anew."
        )


def _read_database(connection: psycopg.Connection[Any], settings: Settings, status: Status, moment: datetime) -> None:
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT current_setting('server_version') AS version, pg_database_size(current_database()) AS size"
        )
        server = cursor.fetchone() or {}
        status.database = {
            "reachable": True,
            "edition": _edition(connection),
            "version": server.get("version"),
            "size_bytes": server.get("size"),
        }
        cursor.execute(
            "SELECT source AS name, state, reason, last_success, last_error, last_error_text, budget"
            " FROM source_status ORDER BY source"
        )
        status.sources = cursor.fetchall()
        for source in status.sources:
            if source["state"] in ("down", "degraded"):
                status.problem(
                    f"Source {source['name']} is {source['state']}: {source['reason'] or 'no reason given'}."
                )

        cursor.execute("SELECT * FROM worlds WHERE is_active")
        world = cursor.fetchone()
        if world is None:
            status.problem("No world is active: nothing has been started on this database yet.", down=True)
            return
        status.world = world["world"]
        cursor.execute(
            "SELECT clock FROM world_clocks WHERE world = %s",
            (world["world"],),
        )
        marks = cursor.fetchone() or {}
        status.world_clock = moment if world["kind"] == "real" else marks.get("clock")

        _read_ticks(cursor, world, settings, status, moment)
        unlisted = _listed_nowhere(cursor, world)
        for symbol in unlisted:
            status.problem(f"No venue lists {symbol}.")
        _read_symbols(cursor, world["world"], settings, status, unlisted)

        cursor.execute(
            "SELECT count(*) FILTER (WHERE state = 'open') AS open, max(opened_at) AS newest FROM alerts"
            " WHERE world = %s",
            (world["world"],),
        )
        alerts = cursor.fetchone() or {}
        # Of what is done only the newest day is kept: a count of it says nothing.
        cursor.execute("SELECT state, count(*) AS n FROM outbox WHERE state <> 'done' GROUP BY state")
        status.alerts = {**alerts, "outbox": {row["state"]: row["n"] for row in cursor.fetchall()}}
        if status.alerts["outbox"].get("failed"):
            status.problem(
                f"{status.alerts['outbox']['failed']} messages could not be delivered: see `liq alerts list` and the"
                " alert_deliveries table."
            )

        _read_retries(cursor, status)
        _read_held(cursor, status)

        cursor.execute(
            "SELECT count(*) AS total, count(*) FILTER (WHERE dead_at > %s) AS last_hour FROM dead_letters"
            " WHERE resubmitted_at IS NULL",
            (moment - timedelta(hours=1),),
        )
        status.dead_letters = cursor.fetchone() or {}
        if status.dead_letters["last_hour"]:
            status.problem(
                f"{status.dead_letters['last_hour']} messages of the last hour did not fit and lie in dead_letters."
            )
        cursor.execute(
            "SELECT count(*) AS n FROM ingest_gaps WHERE healed_at IS NULL AND NOT is_permanent AND world = %s",
            (world["world"],),
        )
        status.gaps_open = (cursor.fetchone() or {}).get("n")


def _read_held(cursor: psycopg.Cursor[dict[str, Any]], status: Status) -> None:
    """Partitions of which the rest cannot be read, because somebody's transaction is open."""
    cursor.execute(
        "SELECT topic, kafka_partition, stable_offset, held_by FROM held_partitions"
        " WHERE consumer = 'landing' AND held_since < clock_timestamp() - %s AND seen_at > clock_timestamp() - %s"
        " ORDER BY topic, kafka_partition",
        (held.HELD_AFTER, timedelta(minutes=1)),
    )
    for row in cursor.fetchall():
        status.problem(f"{held.sentence(row['topic'], row['kafka_partition'], row['stable_offset'], row['held_by'])}.")


def _read_retries(cursor: psycopg.Cursor[dict[str, Any]], status: Status) -> None:
    """Messages that a channel has refused so far: a person is not told in time, long before the last attempt."""
    cursor.execute(
        """
        SELECT count(*) AS messages, string_agg(DISTINCT d.channel, ', ') AS channels
        FROM outbox o CROSS JOIN LATERAL (
            SELECT channel FROM alert_deliveries
            WHERE outbox_id = o.outbox_id AND NOT ok ORDER BY delivery_id DESC LIMIT 1) d
        WHERE o.state = 'due' AND o.topic = 'channels' AND o.attempts > 0
        """
    )
    waiting = cursor.fetchone() or {}
    if waiting.get("messages"):
        status.problem(
            f"{waiting['messages']} messages could not be delivered yet and are tried again: {waiting['channels']}."
        )


def _edition(connection: psycopg.Connection[Any]) -> str:
    """plain | apache | timescale: what the server itself says, never a guess."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'")
        if cursor.fetchone() is None:
            return "plain"
        cursor.execute("SHOW timescaledb.license")
        row = cursor.fetchone()
        return str(row[0]) if row else "plain"


def _read_ticks(
    cursor: psycopg.Cursor[dict[str, Any]],
    world: dict[str, Any],
    settings: Settings,
    status: Status,
    moment: datetime,
) -> None:
    step = world["market_step_seconds"]
    wall_clocked = world["kind"] != "recorded"
    cursor.execute(
        # The newest point is the one committed last: max(committed_at) would read every tick of the world.
        "SELECT time AS last, committed_at AS last_committed_at FROM ticks"
        " WHERE world = %s AND stream = 'market' ORDER BY time DESC LIMIT 1",
        (world["world"],),
    )
    last = cursor.fetchone() or {}
    if last.get("last") is None:
        status.ticks = {"last": None, "last_committed_at": None, "late": None, "missed": None}
        waited = _waited_for_first_tick(world, settings, moment)
        if waited > FIRST_TICK_SECONDS:
            status.problem(f"No tick has been committed yet, for {waited:.0f} s: the monitor is blind.", down=True)
        else:
            status.problem("No tick has been committed yet.")
        return
    since = last["last"] - MISSED_WINDOW
    cursor.execute(
        """
        SELECT count(*) AS scored, min(time) AS first,
               count(*) FILTER (WHERE committed_at > time + make_interval(secs => %s)) AS late
        FROM ticks WHERE world = %s AND stream = 'market' AND time > %s
        """,
        (LATE_AFTER_SECONDS, world["world"], since),
    )
    window = cursor.fetchone() or {}
    due = int((last["last"] - window["first"]).total_seconds()) // step + 1
    missed = due - window["scored"]
    status.ticks = {
        "last": last["last"],
        "last_committed_at": last["last_committed_at"],
        "window_hours": MISSED_WINDOW.total_seconds() / 3600,
        "due": due,
        "late": window["late"] if wall_clocked else None,
        "missed": missed,
    }
    if missed:
        status.problem(f"{missed} of {due} ticks of the last hour are missed.")
    finished = world["last_time"] is not None and last["last"] + timedelta(seconds=step) > world["last_time"]
    silence = (moment - last["last_committed_at"]).total_seconds()
    if silence > TICK_SILENCE_SECONDS and not finished:
        status.problem(f"No tick has been committed for {silence:.0f} s: the monitor is blind.", down=True)


def _waited_for_first_tick(world: dict[str, Any], settings: Settings, moment: datetime) -> float:
    """Seconds since a first tick became possible: since the world is known and, where there is one, `liq up` runs.

    The later of the two: a home may stand still between two starts, and a long-running one may get a new world.
    In containers nothing knows of a start, and the world is registered by the first part that works.
    """
    supervisor = Home(settings.home).holder()
    started_at = 0.0 if supervisor is None else supervisor.started_at
    registered: datetime = world["created_at"]
    return moment.timestamp() - max(started_at, registered.timestamp())


def _listed_nowhere(cursor: psycopg.Cursor[dict[str, Any]], world: dict[str, Any]) -> list[str]:
    """The real world's symbols that every venue which has told its list does not list."""
    if world["kind"] != "real":
        return []
    expected = world["manifest"]["expected"].values()
    cursor.execute(
        """
        SELECT symbol FROM venue_instruments WHERE symbol = ANY(%s) AND venue = ANY(%s)
        GROUP BY symbol HAVING bool_and(native_symbol IS NULL) ORDER BY symbol
        """,
        (world["manifest"]["symbols"], sorted({venue for of in expected for venue in of["venues"]})),
    )
    return [row["symbol"] for row in cursor.fetchall()]


def _read_symbols(
    cursor: psycopg.Cursor[dict[str, Any]], world: str, settings: Settings, status: Status, unlisted: list[str]
) -> None:
    cursor.execute("SELECT max(time) AS time FROM signals WHERE world = %s", (world,))
    newest = (cursor.fetchone() or {}).get("time")
    if newest is None:
        return
    cursor.execute(
        """
        SELECT s.symbol, s.time, s.risk, r.score_high, r.side, s.pressure, s.severity, s.severity_possible,
               s.flow_side_known, s.note, r.coverage, r.funding_points, r.open_interest_points, r.long_short_points,
               r.liquidation_points, s.cascade_probability_1h, s.cascade_probability_4h, s.cascade_probability_24h,
               s.under_way_probability, s.under_way ->> 'side' AS under_way_side,
               (s.under_way ->> 'is_open')::boolean AS is_under_way, (s.under_way ->> 'excursion')::float AS excursion,
               s.model_id, s.baseline_volatility_percentile, (m.facts #>> '{base_rate,4}')::float AS base_rate_4h
        FROM signals_current s JOIN liquidation_risk_current r USING (world, symbol, time)
        LEFT JOIN models m USING (model_id)
        WHERE s.world = %s AND s.time = %s ORDER BY s.symbol
        """,
        (world, newest),
    )
    rows = cursor.fetchall()
    if rows and all(row["severity"] == "UNKNOWN" for row in rows):
        status.problem("No symbol has a score: the monitor is blind.", down=True)
    for row in rows:
        symbol = row.pop("symbol")
        status.symbols[symbol] = {"probability": row["cascade_probability_4h"], **row}
        if symbol in unlisted:
            continue  # said once, with the reason
        if row["severity"] == "UNKNOWN":
            status.problem(f"{symbol} cannot be scored: coverage {row['coverage']:.0%} ({row['note'] or 'no note'}).")
        elif row["coverage"] < settings.risk.min_coverage:
            status.problem(f"{symbol} has a coverage of only {row['coverage']:.0%}.")


def _read_kafka(settings: Settings, endpoints: Endpoints, status: Status) -> None:
    from kafka import KafkaConsumer, TopicPartition
    from kafka.errors import KafkaError

    status.lag = dict.fromkeys(IN_TOPICS)  # unknown until it is measured, also when Kafka falls silent half way
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=endpoints.kafka_bootstrap_servers,
            enable_auto_commit=False,
            request_timeout_ms=5000,
            bootstrap_timeout_ms=5000,
            allow_auto_create_topics=False,
        )
    except (KafkaError, OSError, ValueError) as error:
        status.problem(f"Kafka at {endpoints.kafka_bootstrap_servers} cannot be reached: {error}", down=True)
        return
    try:
        status.kafka["reachable"] = True
        next_offsets = _next_offsets(endpoints)
        for topic in IN_TOPICS:
            wire = wire_name(topic, settings.kafka_topic_prefix)
            partitions = consumer.partitions_for_topic(wire)
            if not partitions:
                status.problem(f"Kafka has no topic {wire}: run `liq topics`.")
                continue
            if next_offsets is None:
                continue  # without the database nobody knows how far landing is
            ends = consumer.end_offsets([TopicPartition(wire, partition) for partition in partitions])
            status.lag[topic] = sum(
                max(end - next_offsets.get((topic, tp.partition), 0), 0) for tp, end in ends.items()
            )
    except (KafkaError, OSError) as error:
        status.problem(f"Kafka at {endpoints.kafka_bootstrap_servers} does not answer: {error}", down=True)
    finally:
        consumer.close()


def _next_offsets(endpoints: Endpoints) -> dict[tuple[str, int], int] | None:
    """(topic, partition) -> next offset, of the cluster that landing last read; None if the database cannot tell."""
    try:
        with (
            connect(endpoints.database_url, application_name="liq status") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(
                """
                SELECT topic, kafka_partition, next_offset FROM consumer_offsets
                WHERE consumer = 'landing' AND cluster_id = (
                    SELECT cluster_id FROM consumer_offsets WHERE consumer = 'landing'
                    ORDER BY updated_at DESC LIMIT 1)
                """
            )
            return {(topic, partition): offset for topic, partition, offset in cursor.fetchall()}
    except psycopg.Error:
        return None  # already a finding of the database part
