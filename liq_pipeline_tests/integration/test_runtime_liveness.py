"""Probes: each says yes to a part that moves and no to one that is stopped, whose socket the kernel still serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from liq_pipeline.runtime import liveness
from liq_pipeline.runtime.files import write_json
from liq_pipeline.runtime.home import SUPERVISED_HOME, Home
from liq_pipeline.runtime.processes import ProcessIdentity, free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.runtime.watchdog import Watchdog
from liq_pipeline.settings import Settings
from liq_pipeline_tests.alert_receiver import receiver

_GRPC = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
from grpc_health.v1 import health, health_pb2_grpc
server = grpc.server(ThreadPoolExecutor(2))
health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
print("ready", flush=True)
server.wait_for_termination()
"""
_LAUNCHER = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    assert connection.recv(1000) == b'{"do":"ping"}\\n'
    try:
        connection.sendall(b"{}\\n")
    except OSError:
        pass  # whoever asked has gone
    connection.close()
"""


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "PROBE_SECONDS", 2.0)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline


def says_no_while_stopped(pid: int, probe: Callable[[], bool]) -> None:
    assert probe()
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: not liveness.is_not_stopped(ProcessIdentity.of(pid)))
        assert not probe()
    finally:
        os.kill(pid, signal.SIGCONT)
    until(probe)
    assert liveness.is_not_stopped(ProcessIdentity.of(pid))


def test_postgres(new_home: Path) -> None:
    server = EmbeddedPostgres(new_home, free_port())
    server.start()
    try:
        assert server.identity is not None
        size = server.log_path.stat().st_size
        says_no_while_stopped(server.identity.pid, lambda: liveness.postgres_answers(server.port))
        assert "incomplete startup packet" not in server.log_path.read_text()[size:]
    finally:
        server.stop()
    assert not liveness.postgres_answers(server.port)


def test_kafka(new_home: Path) -> None:
    server = EmbeddedKafka(new_home, free_port(), 256)
    server.start()
    try:
        assert server.identity is not None
        says_no_while_stopped(server.identity.pid, lambda: liveness.kafka_answers(server.port))
    finally:
        server.stop()
    assert not liveness.kafka_answers(server.port)


@pytest.mark.parametrize("kind", ["grpc", "launcher"])
def test_a_server_of_python(kind: str, tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "s"
    code, place = (_GRPC, str(port)) if kind == "grpc" else (_LAUNCHER, str(path))
    child = subprocess.Popen([sys.executable, "-c", code, place], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        says_no_while_stopped(
            child.pid,
            lambda: liveness.grpc_answers(port) if kind == "grpc" else liveness.launcher_answers(path),
        )
    finally:
        child.kill()
        child.wait()
    assert not (liveness.grpc_answers(port) if kind == "grpc" else liveness.launcher_answers(path))


def test_a_page_answers_with_whatever_status_but_not_with_silence() -> None:
    with receiver(status=503) as page:
        assert liveness.http_answers(page.http)
        page.stall_seconds = 5
        assert not liveness.http_answers(page.http)
    assert not liveness.http_answers(f"http://127.0.0.1:{free_port()}/")


def test_the_daemon_is_known_by_the_heartbeats_of_its_sensor_loop(database_url: str) -> None:
    assert liveness.daemon_beats(database_url), "without Dagster's tables nobody can tell"
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("CREATE TABLE daemon_heartbeats (daemon_type text PRIMARY KEY, timestamp timestamp)")
        assert liveness.daemon_beats(database_url), "before the first"
        for age, expected in ((10, True), (119, True), (300, False)):
            conn.execute(
                "INSERT INTO daemon_heartbeats VALUES ('SENSOR', %s)"
                " ON CONFLICT (daemon_type) DO UPDATE SET timestamp = excluded.timestamp",
                [(datetime.now(UTC) - timedelta(seconds=age)).replace(tzinfo=None)],
            )
            assert liveness.daemon_beats(database_url) is expected
    gone = f"postgresql://nobody@127.0.0.1:{free_port()}/x"
    assert liveness.daemon_beats(gone), "a database that is away says nothing of the daemon"


def test_waiting_on_a_stamping_event_shows_that_the_waiter_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "STAMP_SECONDS", 0.05)
    home = Home(tmp_path)
    home.prepare()
    monkeypatch.setenv(SUPERVISED_HOME, str(tmp_path))
    home.alive_path("player").touch()
    os.utime(home.alive_path("player"), (0, 0))
    assert not liveness.stamp_is_fresh(home, "player")
    event = liveness.StampingEvent("player")
    assert liveness.stamp_is_fresh(home, "player"), "the stamp of the part before is gone"
    assert event.wait(0.2) is False
    first = home.alive_path("player").stat().st_mtime_ns
    threading.Timer(0.3, event.set).start()
    assert event.wait() is True
    assert home.alive_path("player").stat().st_mtime_ns > first
    assert event.is_set()
    assert event.wait(10) is True
    assert not liveness.stamp_is_fresh(home, "player", stale_seconds=-1)


def test_under_no_supervisor_nothing_is_stamped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SUPERVISED_HOME, raising=False)
    liveness.note_alive("tick")
    assert liveness.StampingEvent("x").wait(0.01) is False
    assert list(tmp_path.iterdir()) == []


def test_a_sensor_that_somebody_stopped_is_named_in_the_blind_message(
    database_url: str, new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is broken then, and nobody would find it. The row is as Dagster's storage holds it."""
    home = Home(new_home)
    home.prepare()
    write_json(
        home.runtime_path, {"dagster_storage_url": database_url.replace("postgresql://", "postgresql+psycopg2://")}
    )
    body = {"__class__": "InstigatorState", "origin": {"__class__": "ExternalJobOrigin", "job_name": "tick_when_due"}}
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(
            "CREATE TABLE instigators (status text, instigator_type text, instigator_body text, update_timestamp"
            " timestamp)"
        )
        for status, name in (("STOPPED", "tick_when_due"), ("RUNNING", "deliver_when_due")):
            body["origin"]["job_name"] = name  # type: ignore[index]
            conn.execute("INSERT INTO instigators VALUES (%s, 'SENSOR', %s, now())", [status, json.dumps(body)])
    monkeypatch.setenv("LIQ_HOME", str(new_home))
    with receiver() as channel:
        monkeypatch.setenv("LIQ_ALERT_URLS", channel.url)
        watchdog = Watchdog(
            home, Settings(), "real", say=lambda _: None, troubles=list, blind_seconds=-1.0, first_tick_seconds=0.0
        )
        watchdog.look()
        (message,) = channel.messages
    assert "Somebody stopped tick_when_due in Dagster at" in message["message"]
    assert "deliver_when_due" not in message["message"]
