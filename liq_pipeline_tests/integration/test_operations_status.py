"""`liq status` tells the truth: healthy, degraded or down, each problem as a sentence, unknown shown as unknown."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg
import pytest
from rich.console import Console

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.worlds import Expectation, Manifest, World
from liq_pipeline.operations.doctor import examine
from liq_pipeline.operations.metrics import StatusCollector
from liq_pipeline.operations.query import json_value
from liq_pipeline.operations.status import addresses, collect_status
from liq_pipeline.operations.watch import render
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.runtime.home import Home
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.registry import SOURCES
from liq_pipeline.store import worlds

NOW = datetime(2026, 3, 1, 12, 0, 2, tzinfo=UTC)
GRID = NOW.replace(second=0)
WORLD = World(
    name="simulated/7",
    kind="simulated",
    market_step_seconds=10,
    flows_step_seconds=15,
    manifest=Manifest(symbols=("BTC",), expected={"prices": Expectation(venues=("sim",), cadence_seconds=10)}),
)


def _endpoints(database_url: str, kafka_server: str) -> Endpoints:
    return Endpoints(
        database_url=database_url,
        kafka_bootstrap_servers=kafka_server,
        dagster_url="http://127.0.0.1:3000",
        mode="simulated",
        mode_reason="nothing answers",
        world="simulated/7",
    )


def _prepare(
    database_url: str, *, ticks: int = 4, skip: int | None = None, risk: float | None = 41.0, severity: str = "INFO"
) -> None:
    """A world with `ticks` market ticks up to GRID, one of them left out if asked."""
    with psycopg.connect(database_url) as connection:
        worlds.register(connection, WORLD, activate=True)
        for index in range(ticks):
            if index == skip:
                continue
            time = GRID - timedelta(seconds=10 * (ticks - 1 - index))
            connection.execute(
                "INSERT INTO ticks (world, stream, time, cut, started_at, committed_at, rows_landed)"
                " VALUES (%s, 'market', %s, '{}', %s, %s, 5)",
                (WORLD.name, time, time, time + timedelta(seconds=1)),
            )
        connection.execute(
            "INSERT INTO liquidation_risk (world, symbol, time, score_version, score, score_high, side, funding_points,"
            " coverage, inputs) VALUES (%s, 'BTC', %s, 'v', %s, 81, 'long', 20.5, %s, '{}')",
            (WORLD.name, GRID, risk, 0.6 if risk is not None else 0.3),
        )
        connection.execute(
            "INSERT INTO signals (world, symbol, time, score_version, risk, severity, severity_possible,"
            " flow_side_known, note) VALUES (%s, 'BTC', %s, 'v', %s, %s, 'CRITICAL', false, 'flow side blind')",
            (WORLD.name, GRID, risk, severity),
        )


def test_a_working_system_is_healthy(database_url: str, kafka_server: str, topic_prefix: str) -> None:
    _prepare(database_url)
    settings = Settings(kafka_topic_prefix=topic_prefix)
    status = collect_status(settings, _endpoints(database_url, kafka_server), NOW)
    assert status.problems == []
    assert status.health == "healthy"
    assert status.ticks["due"] == 4
    assert status.ticks["missed"] == 0
    assert status.lag == dict.fromkeys(
        ("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations", "stablecoin_flows"), 0
    )
    assert status.symbols["BTC"]["risk"] == 41.0
    assert status.symbols["BTC"]["pressure"] is None


def test_the_json_form_has_the_names_scripts_hold_on_to(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    _prepare(database_url)
    status = collect_status(Settings(kafka_topic_prefix=topic_prefix), _endpoints(database_url, kafka_server), NOW)
    report = json.loads(json.dumps(dataclasses.asdict(status), default=json_value))
    assert report["kafka"]["bootstrap_servers"] == kafka_server
    assert report["database"]["edition"] == "plain"
    assert report["dagster"]["url"] == "http://127.0.0.1:3000"
    assert {"health", "mode", "world", "sources", "lag", "ticks", "symbols"} <= report.keys()
    assert {"last", "late", "missed"} <= report["ticks"].keys()
    assert {"risk", "pressure", "severity", "probability", "coverage", "time"} <= report["symbols"]["BTC"].keys()


def test_a_missed_tick_degrades_and_is_counted(database_url: str, kafka_server: str, topic_prefix: str) -> None:
    _prepare(database_url, skip=2)
    status = collect_status(Settings(kafka_topic_prefix=topic_prefix), _endpoints(database_url, kafka_server), NOW)
    assert status.health == "degraded"
    assert status.ticks["missed"] == 1
    assert "1 of 4 ticks of the last hour are missed." in status.problems


def test_silence_of_the_tick_is_down(database_url: str, kafka_server: str, topic_prefix: str) -> None:
    _prepare(database_url)
    status = collect_status(
        Settings(kafka_topic_prefix=topic_prefix),
        _endpoints(database_url, kafka_server),
        NOW + timedelta(minutes=10),
    )
    assert status.health == "down"
    assert any("the monitor is blind" in problem for problem in status.problems)


def test_a_symbol_without_a_score_is_said(database_url: str, kafka_server: str, topic_prefix: str) -> None:
    _prepare(database_url, risk=None, severity="UNKNOWN")
    status = collect_status(Settings(kafka_topic_prefix=topic_prefix), _endpoints(database_url, kafka_server), NOW)
    assert status.health == "down", "it is the only one: the monitor sees nothing"
    assert any(problem.startswith("BTC cannot be scored") for problem in status.problems)


def _world_without_a_tick(database_url: str) -> datetime:
    """When it was registered."""
    with psycopg.connect(database_url) as connection:
        worlds.register(connection, WORLD, activate=True)
        row = connection.execute("SELECT created_at FROM worlds WHERE is_active").fetchone()
    assert row is not None
    registered: datetime = row[0]
    return registered


def test_a_first_tick_that_never_comes_is_down_where_nobody_knows_of_a_start(
    database_url: str, kafka_server: str, topic_prefix: str, tmp_path: Path
) -> None:
    registered = _world_without_a_tick(database_url)
    settings = Settings(kafka_topic_prefix=topic_prefix, home=tmp_path)
    endpoints = _endpoints(database_url, kafka_server)
    early = collect_status(settings, endpoints, registered + timedelta(seconds=119))
    assert (early.health, early.blinding) == ("degraded", [])
    late = collect_status(settings, endpoints, registered + timedelta(seconds=181))
    assert late.health == "down"
    assert late.blinding == ["No tick has been committed yet, for 181 s: the monitor is blind."]


def test_a_first_tick_is_awaited_anew_after_each_start(
    database_url: str, kafka_server: str, topic_prefix: str, tmp_path: Path
) -> None:
    registered = _world_without_a_tick(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE worlds SET created_at = created_at - interval '1 day'")
    settings = Settings(kafka_topic_prefix=topic_prefix, home=tmp_path)
    endpoints = _endpoints(database_url, kafka_server)
    home = Home(tmp_path)
    home.acquire()  # this process stands for `liq up`
    try:
        supervisor = home.holder()
        assert supervisor is not None
        started = datetime.fromtimestamp(supervisor.started_at, UTC)
        assert collect_status(settings, endpoints, started + timedelta(seconds=119)).health == "degraded"
        assert collect_status(settings, endpoints, started + timedelta(seconds=181)).health == "down"
        with psycopg.connect(database_url) as connection:  # a world that began long after the start
            connection.execute("UPDATE worlds SET created_at = %s", (registered + timedelta(hours=1),))
        moment = registered + timedelta(hours=1, seconds=119)
        assert collect_status(settings, endpoints, moment).health == "degraded"
    finally:
        home.release()


# Holds a home as `liq up` does, with one part of its own; says the part's pid and waits to be killed.
_HOLDER = """
import subprocess, sys, time
from pathlib import Path
from liq_pipeline.runtime.endpoints import Endpoints, publish
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.processes import ProcessIdentity
home = Home(Path(sys.argv[1]))
home.prepare()
home.acquire()
part = subprocess.Popen(["sleep", "300"], start_new_session=True, stdout=subprocess.DEVNULL)
home.note_processes({"launcher": ProcessIdentity.of(part.pid)})
if len(sys.argv) > 2:
    publish(home, Endpoints(sys.argv[2], sys.argv[3], mode="simulated", world="simulated/7"))
home.stamp()
print(part.pid, flush=True)
time.sleep(300)
"""


@contextlib.contextmanager
def _killed_up(home: Path, *addresses: str) -> Iterator[int]:
    """The pid of the part that a killed `liq up` has left behind."""
    command = [sys.executable, "-c", _HOLDER, str(home), *addresses]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        part = int(holder.stdout.readline())
        holder.kill()
    try:
        yield part
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(part, signal.SIGKILL)


def _liq_status(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LIQ_HOME": str(home), "COLUMNS": "200"}
    command = [sys.executable, "-m", "liq_pipeline.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_killed_liq_up_is_said_beside_what_its_parts_still_do(
    database_url: str, kafka_server: str, tmp_path: Path
) -> None:
    _prepare(database_url)
    with _killed_up(tmp_path, database_url, kafka_server) as part:
        told = _liq_status(tmp_path, "status", "--json")
        report = json.loads(told.stdout)
        assert "`liq up` was killed; its parts run on without a watch: start `liq up` anew." in report["problems"]
        assert report["world"] == WORLD.name
        assert report["symbols"]["BTC"]["risk"] == 41.0
        assert "`liq up` was killed" in _liq_status(tmp_path, "watch", "--once").stdout
        given = Settings(home=tmp_path, kafka_bootstrap_servers="127.0.0.1:1")
        assert addresses(given).kafka_bootstrap_servers == "127.0.0.1:1", "what is set wins"
        assert addresses(given).database_url == database_url
        os.kill(part, signal.SIGKILL)
        told = _wait_for_nothing(tmp_path)
    assert told.returncode == 2
    assert "nothing is running" in told.stderr


def _wait_for_nothing(home: Path) -> subprocess.CompletedProcess[str]:
    deadline = time.monotonic() + 10
    while Home(home).noted_processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    return _liq_status(home, "status")


def test_a_killed_liq_up_alone_only_degrades(
    database_url: str, kafka_server: str, topic_prefix: str, tmp_path: Path
) -> None:
    _prepare(database_url)
    settings = Settings(kafka_topic_prefix=topic_prefix, home=tmp_path)
    with _killed_up(tmp_path, database_url, kafka_server):
        status = collect_status(settings, addresses(settings), NOW)
    assert status.problems == ["`liq up` was killed; its parts run on without a watch: start `liq up` anew."]
    assert status.health == "degraded"


def test_a_liq_up_that_was_killed_during_its_start_is_said(tmp_path: Path) -> None:
    with _killed_up(tmp_path):
        told = _liq_status(tmp_path, "status")
    assert told.returncode == 2, "nothing is known of its parts"
    assert told.stderr == "liq: `liq up` was killed; its parts run on without a watch: start `liq up` anew\n"


def test_a_supervisor_that_stands_still_is_said(
    database_url: str, kafka_server: str, topic_prefix: str, tmp_path: Path
) -> None:
    _prepare(database_url)
    settings = Settings(kafka_topic_prefix=topic_prefix, home=tmp_path)
    home, endpoints = Home(tmp_path), _endpoints(database_url, kafka_server)
    assert collect_status(settings, endpoints, NOW).supervisor_silence_seconds is None
    home.stamp()
    assert collect_status(settings, endpoints, NOW).problems == []
    os.utime(home.stamp_path, (time.time() - 33, time.time() - 33))
    status = collect_status(settings, endpoints, NOW)
    assert status.health == "degraded"
    assert any("has not moved for 33 s" in problem for problem in status.problems)


def test_metrics_hold_what_the_tables_hold(database_url: str, kafka_server: str, topic_prefix: str) -> None:
    _prepare(database_url, ticks=6, skip=2)
    with psycopg.connect(database_url) as connection:
        late = GRID - timedelta(seconds=10)
        connection.execute("UPDATE ticks SET committed_at = time + interval '7 s' WHERE time = %s", (late,))
        connection.execute(
            "INSERT INTO outbox (outbox_id, world, topic, message_key, payload, due_at)"
            " SELECT gen_random_uuid(), %s, 'channels', 'k', '{}', now() FROM generate_series(1, 3)",
            (WORLD.name,),
        )
        connection.execute(
            "INSERT INTO source_status (source, state, reason) VALUES ('binance', 'down', 'HTTP 451: not from here')"
        )
        connection.execute(
            "INSERT INTO dead_letters (cluster_id, topic, kafka_partition, kafka_offset, reason_code, reason)"
            " VALUES ('c', 'prices', 0, 1, 'not_json', 'no JSON'), ('c', 'prices', 0, 2, 'not_json', 'no JSON')"
        )
    ensure_topics(kafka_server, topic_prefix)
    with RecordProducer(kafka_server, topic_prefix) as producer:
        for number in range(5):
            producer.send_bytes("prices", b"never landed", key=str(number).encode())
    settings = Settings(kafka_topic_prefix=topic_prefix)
    seen = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in StatusCollector(
            lambda: collect_status(settings, _endpoints(database_url, kafka_server), NOW)
        ).collect()
        for sample in family.samples
    }
    world = ("world", WORLD.name)
    assert seen["liq_ticks_due", world] == 6
    assert seen["liq_ticks_missed", world] == 1
    assert seen["liq_ticks_late", world] == 1
    assert seen["liq_outbox_messages", ("state", "due")] == 3
    assert seen["liq_source_state", ("source", "binance"), ("state", "down")] == 1
    assert seen["liq_dead_letters",] == 2
    assert seen["liq_lag_messages", ("topic", "prices")] == 5
    assert seen["liq_coverage", ("symbol", "BTC"), world] == 0.6
    age = (datetime.now(UTC) - GRID - timedelta(seconds=1)).total_seconds()
    assert seen["liq_tick_age_seconds", world] == pytest.approx(age, abs=5)
    assert seen["liq_health",] == 1


def test_servers_that_are_away_are_findings_not_crashes(topic_prefix: str) -> None:
    endpoints = _endpoints("postgresql://nobody:wrong@127.0.0.1:1/none", "127.0.0.1:1")
    status = collect_status(Settings(kafka_topic_prefix=topic_prefix), endpoints, NOW)
    assert status.health == "down"
    assert any("database cannot be used" in problem for problem in status.problems)
    assert any("Kafka at 127.0.0.1:1" in problem for problem in status.problems)
    assert not any("wrong" in problem for problem in status.problems), "a password must not show"
    assert set(status.lag.values()) == {None}, "unknown is not zero"


def test_without_the_database_nobody_knows_what_has_landed(kafka_server: str, topic_prefix: str) -> None:
    ensure_topics(kafka_server, topic_prefix)
    with RecordProducer(kafka_server, topic_prefix) as producer:
        producer.send_bytes("prices", b"landed long ago", key=b"k")
    endpoints = _endpoints("postgresql://nobody:wrong@127.0.0.1:1/none", kafka_server)
    status = collect_status(Settings(kafka_topic_prefix=topic_prefix), endpoints, NOW)
    assert status.kafka["reachable"]
    assert set(status.lag.values()) == {None}


def test_the_table_shows_unknown_as_a_question_mark_and_an_unreal_world_loudly(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    _prepare(database_url)
    status = collect_status(Settings(kafka_topic_prefix=topic_prefix), _endpoints(database_url, kafka_server), NOW)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(status, NOW))
    text = console.export_text()
    assert "NOT REAL: world simulated/7" in text
    assert "41..81" in text
    assert "blind" in text
    row = next(line.strip(" │┃") for line in text.splitlines() if line.strip(" │┃").startswith("BTC"))
    assert row.replace("│", " ").split()[:4] == ["BTC", "41..81", "20.5", "?"]


def test_a_coin_that_no_venue_lists_is_said_once_with_what_to_do(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    expected = {"prices": Expectation(venues=("binance", "dydx"), cadence_seconds=10)}
    manifest = Manifest(symbols=("BTC", "GONE", "SOON"), expected=expected)
    world = msgspec.structs.replace(WORLD, name="real", kind="real", manifest=manifest)
    with psycopg.connect(database_url) as connection:
        worlds.register(connection, world, activate=True)
        # dYdX has not told its list for SOON yet; CoinGecko is no venue, whatever it lists.
        for venue, symbol, native in (
            ("binance", "BTC", "BTCUSDT"),
            ("dydx", "BTC", None),
            ("binance", "GONE", None),
            ("dydx", "GONE", None),
            ("coingecko", "GONE", "gone"),
            ("binance", "SOON", "SOONUSDT"),
        ):
            connection.execute(
                "INSERT INTO venue_instruments (venue, symbol, native_symbol, updated_at) VALUES (%s, %s, %s, %s)",
                (venue, symbol, native, NOW),
            )
        for symbol in ("BTC", "GONE"):
            connection.execute(
                "INSERT INTO liquidation_risk (world, symbol, time, score_version, coverage, inputs)"
                " VALUES ('real', %s, %s, 'v', 0, '{}')",
                (symbol, GRID),
            )
            connection.execute(
                "INSERT INTO signals (world, symbol, time, score_version, severity, severity_possible,"
                " flow_side_known, note) VALUES ('real', %s, %s, 'v', 'UNKNOWN', 'CRITICAL', false, 'a note')",
                (symbol, GRID),
            )
    nowhere = SourceSettings(urls=dict.fromkeys(SOURCES, "http://127.0.0.1:9"))
    settings = Settings(kafka_topic_prefix=topic_prefix, symbols=("BTC", "GONE", "SOON"), sources=nowhere)
    endpoints = dataclasses.replace(_endpoints(database_url, kafka_server), mode="live", world="real")
    problems = collect_status(settings, endpoints, NOW).problems
    assert [sentence for sentence in problems if "GONE" in sentence] == ["No venue lists GONE."]
    assert any("BTC cannot be scored" in sentence for sentence in problems)
    findings = [found for found in examine(settings, endpoints) if "GONE" in found.detail]
    assert [(found.grade, found.detail) for found in findings] == [("warn", "No venue lists GONE.")]
    assert "LIQ_SYMBOLS" in findings[0].mend
