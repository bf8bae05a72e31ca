"""`liq up`: from an empty folder to a running monitor in the foreground, and back to nothing.

Belongs here: the order of the steps and what is said about them. Does not: the steps themselves.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import psycopg
from rich.console import Console

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime import completion, liveness, parts
from liq_pipeline.runtime.endpoints import EffectiveMode, Endpoints, publish, withdraw
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.mode import Probe, decide_mode
from liq_pipeline.runtime.processes import port_is_free
from liq_pipeline.runtime.servers import dagster_home, database_roles
from liq_pipeline.runtime.servers.dagster_storage import ensure_tables
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.runtime.servers.kafka_jars import ensure_jars
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.runtime.supervisor import KAFKA_RANK, POSTGRES_RANK, Part, Supervisor, stop_orphans
from liq_pipeline.runtime.watchdog import Watchdog
from liq_pipeline.settings import Settings, default_home

DATABASE: Final = "liq"
LOOK_SECONDS: Final = 1.0
STUCK_SECONDS: Final = 300.0
"""`--once` gives up when neither landing nor scoring has moved for this long."""


_T = TypeVar("_T")


class _InterruptedError(Exception):
    """Ctrl-C or a signal during the start."""


def up(
    settings: Settings,
    *,
    mode: str,
    recording: Path | None,
    speed: float | None,
    once: bool,
    record_dir: Path | None,
    console: Console,
) -> int:
    """Run everything until a signal (or, with once, until the recording is played, landed and scored).

    mode: auto, live, simulated or recorded. speed: times real time, None as fast as it lands. The exit code: 0, or
    1 if a recording went through with problems or was cut short. LiqError if it cannot run.
    """
    if once and mode not in ("recorded", "simulated"):
        raise LiqError("--once ends with a recording or a simulation: name one with --mode, live data have no end")
    settings = settings.model_copy(update={"mode": mode})
    if mode in ("auto", "live"):
        from liq_pipeline.sources.registry import sources_in_force

        sources_in_force(settings)  # a typo in LIQ_VENUES is told before anything is started or remembered
    home = Home(settings.home)
    home.prepare()
    home.acquire()
    try:
        home.refuse_unfinished()
        with _stop_on_signals() as stop:
            run = _Run(settings, home, console, stop)
            try:
                run.start(recording=recording, speed=speed, once=once, record_dir=record_dir)
                return run.watch(once=once)
            except _InterruptedError:
                return 0 if not once else 1
            finally:
                run.stop()
    finally:
        home.release()


class _Run:
    """One `liq up` from start to stop."""

    def __init__(self, settings: Settings, home: Home, console: Console, stop: threading.Event) -> None:
        self._settings = settings
        self._home = home
        self._console = console
        self._stop_event = stop
        self._supervisor = Supervisor(home, self._say)
        self._endpoints: Endpoints | None = None
        self._watchdog: Watchdog | None = None
        self._metrics_port = settings.metrics_port
        self._started = time.monotonic()
        self._started_at = datetime.now(UTC)
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="up")

    # -- start -------------------------------------------------------------------------------------------------

    def start(self, *, recording: Path | None, speed: float | None, once: bool, record_dir: Path | None) -> None:
        self._say(f"home {self._home.path}")
        stop_orphans(self._home, self._say)
        ports = self._choose_ports()
        self._metrics_port = ports["metrics"]

        database = self._submit(self._bring_up_database, ports["postgres"])
        broker = self._submit(self._bring_up_broker, ports["kafka"], ports["kafka_controller"])
        decision = self._submit(decide_mode, self._settings, self._home, _probe)

        mode, reason = self._wait_for(decision)
        self._say(f"mode {mode}: {reason}")
        urls = self._wait_for(database)
        kafka = self._settings.kafka_bootstrap_servers or f"127.0.0.1:{ports['kafka']}"
        self._endpoints = Endpoints(
            database_url=urls.writer,
            database_owner_url=urls.owner,
            database_reader_url=urls.reader,
            kafka_bootstrap_servers=kafka,
            desk_url=parts.desk_url(self._settings.web_host, ports["web"]),
            dagster_url=f"http://127.0.0.1:{ports['dagster']}",
            dagster_storage_url=urls.dagster_storage,
            code_server_port=ports["code_server"],
            mode=mode,
            mode_reason=reason,
        )
        if mode == "live":
            self._activate_real_world(urls.writer)
        dagster_home.prepare(self._home)
        environment = parts.environment(
            self._home,
            self._endpoints,
            record_dir=record_dir,
        )
        desk = parts.desk_part(self._home, environment, self._endpoints, self._settings.web_host, ports)
        showing = self._submit(self._show, desk)
        dagster = parts.dagster_parts(self._home, environment, ports)
        source = parts.source_part(self._home, environment, mode, recording=recording, speed=speed, once=once)
        self._say("starting Dagster: launcher, code server, webserver, daemon")
        # The daemon's sensors and the player need the topics; the others only need time to import.
        early = self._submit(self._supervisor.start, [part for part in dagster if part.name != "daemon"])
        self._wait_for(broker)
        late = [part for part in dagster if part.name == "daemon"]
        health = parts.health_part(self._home, environment, ports["metrics"])
        self._wait_for(self._submit(self._supervisor.start, [*late, source, health]))
        self._wait_for(early)
        self._wait_for(showing)
        publish(self._home, self._endpoints)
        if mode != "recorded" and not once:
            kind = "real" if mode == "live" else mode
            self._watchdog = Watchdog(
                self._home, self._settings, kind, say=self._say, troubles=self._supervisor.troubles
            )
            self._watchdog.start()
        self._announce(mode, reason)

    def _show(self, desk: Part) -> None:
        """The first address that is told: it says by itself what is still missing."""
        assert self._endpoints is not None  # noqa: S101 - called by start() after it is set
        self._supervisor.start([desk])
        self._say(f"desk: {self._endpoints.desk_url} (it fills itself as data come in)")

    def _choose_ports(self) -> dict[str, int]:
        settings = self._settings
        wanted = {
            "web": settings.web_port,
            "dagster": settings.dagster_port,
            "code_server": settings.code_server_port,
            "metrics": settings.metrics_port,
        }
        if settings.database_url is None:
            wanted["postgres"] = settings.postgres_port
        if settings.kafka_bootstrap_servers is None:
            wanted |= {"kafka": settings.kafka_port, "kafka_controller": settings.kafka_port + 1}
        asked = {name for name in wanted if f"{name}_port" in settings.model_fields_set}
        ports = self._home.choose_ports(wanted, asked=asked)
        for name, default in wanted.items():
            if ports[name] != default and name != "kafka_controller":
                # One that was taken at an earlier start may be free by now: what people have noted stays as it is.
                reason = "was taken at an earlier start" if port_is_free(default) else "is taken"
                self._say(f"port {default} ({name.replace('_', ' ')}) {reason}; using {ports[name]}")
        return {"postgres": 0, "kafka": 0, "kafka_controller": 0, **ports}

    def _bring_up_database(self, port: int) -> database_roles.DatabaseUrls:
        """Server, roles, databases, schema; how each part logs in."""
        from liq_pipeline.store.connection import check_url
        from liq_pipeline.store.schema.migrations import migrate

        given = self._settings.database_url
        if given is None:
            server = EmbeddedPostgres(self._home.path, port, self._settings.run_as)
            fresh = not (server.data / "PG_VERSION").exists()
            self._say(f"starting PostgreSQL on port {port}" + (" (making its data directory)" if fresh else ""))
            self._supervisor.start(
                [
                    Part(
                        "postgres",
                        server,
                        rank=POSTGRES_RANK,
                        stop_seconds=30,
                        probe=lambda: liveness.postgres_answers(port),
                    )
                ]
            )
            urls, applied = database_roles.set_up(server, DATABASE)
        else:
            writer = given.get_secret_value()
            owner, reader = self._settings.database_owner_url, self._settings.database_reader_url
            owner_url = writer if owner is None else owner.get_secret_value()
            for url in (writer, owner_url):
                check_url(url)
            name = psycopg.conninfo.conninfo_to_dict(writer).get("dbname", DATABASE)
            try:
                storage_url = dagster_home.ensure_storage(writer, dagster_home.storage_name(str(name)))
                applied = migrate(owner_url)
            except psycopg.OperationalError as error:
                words = " ".join(str(error).split())
                raise LiqError(f"the database of LIQ_DATABASE_URL cannot be reached: {words}") from None
            urls = database_roles.DatabaseUrls(
                owner=owner_url,
                writer=writer,
                reader=writer if reader is None else reader.get_secret_value(),
                dagster_storage=storage_url,
            )
        self._say(f"schema: {len(applied)} steps applied" if applied else "schema: up to date")
        if ensure_tables(urls.dagster_storage):
            self._say("schema: Dagster's tables made")
        return urls

    def _bring_up_broker(self, port: int, controller_port: int) -> None:
        """Broker and topics."""
        from liq_pipeline.bus.admin import ensure_topics

        servers = self._settings.kafka_bootstrap_servers
        if servers is None:
            ensure_jars(console=self._console)
            broker = EmbeddedKafka(
                self._home.path,
                port,
                self._settings.kafka_memory_mb,
                controller_port=controller_port,
                console=self._console,
            )
            self._say(f"starting Apache Kafka on port {port}")
            self._supervisor.start(
                [Part("kafka", broker, rank=KAFKA_RANK, stop_seconds=30, probe=lambda: liveness.kafka_answers(port))]
            )
            if self._supervisor.is_stopping:
                return  # something else failed meanwhile: waiting for this broker would only keep the reason back
            servers = broker.bootstrap_servers
        made = ensure_topics(servers, self._settings.kafka_topic_prefix)
        self._say(f"topics: {len(made)} made or corrected" if made else "topics: up to date")

    def _activate_real_world(self, database_url: str) -> None:
        """A home that showed a simulation or a recording before shows the market again; players do the same."""
        from liq_pipeline.sources.registry import real_world
        from liq_pipeline.store import worlds
        from liq_pipeline.store.connection import connect

        with connect(database_url, application_name="liq up") as connection:
            worlds.register(connection, real_world(self._settings), activate=True)
            connection.commit()

    def _submit(self, work: Callable[..., _T], *arguments: Any) -> Future[_T]:
        return self._pool.submit(work, *arguments)

    def _wait_for(self, future: Future[_T]) -> _T:
        """The future's result; _InterruptedError as soon as a signal asks to stop."""
        while not self._stop_event.is_set():
            try:
                return future.result(timeout=0.1)
            except TimeoutError:
                if future.done():
                    raise
        raise _InterruptedError

    # -- watch -------------------------------------------------------------------------------------------------

    def watch(self, *, once: bool) -> int:
        """Until a signal; with once, until all is landed and scored."""
        moved, last_seen, said_played = time.monotonic(), None, False
        while not self._stop_event.wait(LOOK_SECONDS):
            self._learn_world()
            source = self._source()
            if source.finished.is_set() and not said_played:
                said_played = True
                self._say("the recording has been played to its end; what is left is landed and scored")
            if not once:
                continue
            seen = self._progress()
            if seen is not None and source.finished.is_set() and seen.is_complete:
                return self._conclude()
            if seen != last_seen:
                moved, last_seen = time.monotonic(), seen
                self._say_progress(seen)
            if source.is_hopeless or time.monotonic() - moved > STUCK_SECONDS:
                self._say(
                    f"the recording was not finished: nothing has moved for {STUCK_SECONDS:.0f} s; see the logs in "
                    f"{self._home.logs}"
                )
                return 1
        return 1 if once else 0

    def _source(self) -> Part:
        names = {part.name for part in self._supervisor.parts}
        return self._supervisor.part("player" if "player" in names else "collector")

    def _progress(self) -> completion.Progress | None:
        assert self._endpoints is not None  # noqa: S101 - watch() follows start()
        try:
            return completion.progress(self._endpoints.database_url)
        except psycopg.OperationalError:
            return None  # it is being started again, which has been said

    def _say_progress(self, seen: completion.Progress | None) -> None:
        if seen is None or seen.clock is None or not self._console.is_terminal:
            return
        market = seen.scored.get("market")
        scored = f"{market:%Y-%m-%d %H:%M}" if market else "nothing yet"
        self._say(f"landed up to {seen.clock:%Y-%m-%d %H:%M}, scored up to {scored}")

    def _conclude(self) -> int:
        assert self._endpoints is not None  # noqa: S101 - watch() follows start()
        found = completion.problems(self._endpoints.database_url, self._started_at)
        for sentence in found:
            self._say(sentence)
        self._say("played, landed and scored to the end" + (", with problems" if found else ""))
        return 1 if found else 0

    def _learn_world(self) -> None:
        """The player or the first ingest run registers the world: put it beside the addresses once it is known."""
        from liq_pipeline.store import worlds
        from liq_pipeline.store.connection import connect

        if self._endpoints is None or self._endpoints.world is not None:
            return
        kind = "real" if self._endpoints.mode == "live" else self._endpoints.mode
        try:
            with connect(self._endpoints.database_url, application_name="liq up") as connection:
                world = worlds.active(connection)
        except psycopg.OperationalError:
            return
        if world is not None and world.kind == kind:
            self._endpoints = replace(self._endpoints, world=world.name)
            publish(self._home, self._endpoints)

    # -- stop --------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        if self._supervisor.parts:
            self._say("stopping (nothing is lost; this takes a few seconds)")
        withdraw(self._home)
        if self._watchdog is not None:
            self._watchdog.stop()
        self._supervisor.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._say("stopped")

    # -- words -------------------------------------------------------------------------------------------------

    def _say(self, sentence: str) -> None:
        seconds = time.monotonic() - self._started
        # A terminal that is gone, or its file on a full disk, must not end the thread that watches a part. rich answers
        # a broken pipe with SystemExit, which would end one thread in silence.
        with suppress(OSError, SystemExit):
            self._console.print(f"[{seconds:6.1f} s] {sentence}", markup=False, highlight=False, soft_wrap=True)

    def _announce(self, mode: EffectiveMode, reason: str) -> None:
        assert self._endpoints is not None  # noqa: S101 - called by start() after it is set
        place = urlsplit(self._endpoints.database_url)
        database = f"{place.hostname}:{place.port or 5432}, database {place.path.lstrip('/')}"
        self._say(f"up: the desk at {self._endpoints.desk_url}")
        lines = [
            "",
            f"  Desk        {self._endpoints.desk_url}",
            f"  Dagster     {self._endpoints.dagster_url}",
            f"  PostgreSQL  {database}",
            f"  Kafka       {self._endpoints.kafka_bootstrap_servers}",
            f"  Mode        {mode}: {reason}",
            "",
            "  Next, in another shell:",
            *(f"    {number}. {text}" for number, text in enumerate(self._next_steps(mode), start=1)),
            "",
            "  Ctrl-C stops everything cleanly.",
            "",
        ]
        if mode == "simulated":
            self._console.print(
                _simulated_words(self._settings), style="bold black on yellow", highlight=False, soft_wrap=True
            )
        for line in lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _next_steps(self, mode: EffectiveMode) -> list[str]:
        liq = _liq_command(self._settings)
        assert self._endpoints is not None  # noqa: S101 - called by start() after it is set
        steps = [
            f"{liq} watch: the live table of risk, its parts, pressure, coverage and alerts",
            f"{self._endpoints.dagster_url}/asset-groups: the asset graph, from topic to alert",
        ]
        if mode == "live":
            steps.append(f"{liq} alerts test: a test message through every channel of LIQ_ALERT_URLS")
        elif mode == "simulated":
            steps.append(f"{liq} doctor: what is missing to go live (LIQ_MODE=live), and how to mend it")
        else:
            steps.append(f"{liq} alerts list --all: the alerts of the recording, with their receipts")
        return steps


def _simulated_words(settings: Settings) -> str:
    """What a person must know before anything else, and whether others will hear of it."""
    channels = len(settings.alert_urls)
    if settings.alert_unreal and channels:
        told = f"marked as such, alerts DO go to {channels} channels (LIQ_ALERT_UNREAL=true)"
    else:
        told = "nothing goes to external channels unless LIQ_ALERT_UNREAL=true"
    return f" SIMULATED MARKET: every price, score and alert here is invented; {told} "


def _probe(settings: Settings) -> Probe:
    from liq_pipeline.sources.access.probe import probe_sources

    return probe_sources(settings)


def _liq_command(settings: Settings) -> str:
    """How a person in another shell calls us: with the path unless `liq` is found, with LIQ_HOME unless default."""
    program = Path(sys.prefix) / "bin" / "liq"
    found = shutil.which("liq")
    name = "liq"
    if found is None or Path(found).resolve() != program.resolve():
        relative = os.path.relpath(program)
        name = relative if not relative.startswith("..") else str(program)
    if settings.home.absolute() != default_home().absolute():
        return f"LIQ_HOME={settings.home.absolute()} {name}"
    return name


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """An event set by SIGINT, SIGTERM or SIGHUP; the former handlers come back afterwards.

    A second signal changes nothing: the stop is bounded, and cutting it short is what leaves processes behind.
    """
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
