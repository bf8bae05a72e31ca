"""The whole program, as a user starts it: a recording played through Kafka, PostgreSQL and Dagster.

Played at two speeds into two empty homes, the second time with every process killed once on the way, it leaves the
same rows, bit for bit in every business column.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from liq_pipeline.runtime.files import read_json
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.processes import end, free_port
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline_tests.player_support import write_minute_lines

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("whole-system")]

START = datetime(2026, 1, 1, 21, 0, tzinfo=UTC)
MINUTES = 300
SCORES = {
    "ticks": "stream, time",
    "liquidation_risk": (
        "symbol, time, score_version, revision, score, score_high, side, funding_points, open_interest_points,"
        " long_short_points, liquidation_points, long_squeeze, short_squeeze, coverage, inputs"
    ),
    "stablecoin_pressure": "time, score_version, revision, score, inflow_usd, outflow_usd, coverage, inputs",
    "signals": "symbol, time, score_version, revision, risk, pressure, severity, severity_possible, note",
    "alerts": "alert_id, rule, subject, side, severity, state, opened_at, resolved_at",
    "prices": "symbol, venue, event_time, known_at, price_usd",
    "open_interest": "symbol, venue, event_time, known_at, open_interest_base, open_interest_usd",
    "funding_rates": "symbol, venue, kind, event_time, known_at, rate_per_8h",
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five hours of two coins around midnight; after midnight there is enough look-back for scores."""
    folder = tmp_path_factory.mktemp("recordings") / "night"
    first = int(START.timestamp()) * 1000
    for phase, symbol in enumerate(("BTC", "ETH")):
        lines = []
        for index in range(MINUTES):
            wave = math.sin(index / 17 + phase)
            price = 60_000 / (1 + 19 * phase) * (1 + 0.01 * wave - (0.04 if index > 260 else 0))
            lines.append(
                {
                    "ts": first + index * 60_000 + 700,
                    "funding": 1e-5 * (1 + 2 * wave),
                    "oi": 30_000 + 40 * index - (3_000 if index > 260 else 0),
                    "mark": round(price, 1),
                    "oracle": round(price, 1),
                }
            )
        write_minute_lines(folder, symbol, lines, START.strftime("%Y%m%d"))
    folder.chmod(0o755)
    return folder


def _environment(home: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("LIQ_")},
        "LIQ_HOME": str(home),
        "LIQ_RISK_MIN_LOOKBACK_HOURS": "1",
        "LIQ_RISK_MIN_COVERAGE": "0.2",  # after so short a past only funding is known
        "LIQ_POSTGRES_PORT": str(free_port()),
        "LIQ_KAFKA_PORT": str(free_port()),
        "LIQ_DAGSTER_PORT": str(free_port()),
        "LIQ_CODE_SERVER_PORT": str(free_port()),
        "LIQ_METRICS_PORT": str(free_port()),
        "LIQ_KAFKA_MEMORY_MB": "256",
    }


def _start(home: Path, recording: Path, speed: str, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "liq_pipeline.cli", "up", "--mode", "recorded", "--recording", str(recording)]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, "--speed", speed, "--once"], env=_environment(home), stdout=output, stderr=output
        )


@contextmanager
def _database(home: Path) -> Iterator[str]:
    """The home's own database, after everything was stopped."""
    port = int((read_json(home / "installation.json") or {})["ports"]["postgres"])
    server = EmbeddedPostgres(home, port)
    server.start()
    try:
        yield server.url("liq")
    finally:
        server.stop()


def _rows(home: Path) -> dict[str, tuple[int, str]]:
    """table -> (rows, hash over its business columns)."""
    found = {}
    with _database(home) as url, psycopg.connect(url) as connection:
        connection.execute("SET timezone = 'UTC'")
        for table, columns in SCORES.items():
            rows = connection.execute(f"SELECT {columns} FROM {table} ORDER BY {columns}").fetchall()  # noqa: S608
            text = json.dumps(rows, default=str, sort_keys=True)
            found[table] = (len(rows), hashlib.sha256(text.encode()).hexdigest())
        scored = connection.execute("SELECT count(*) FROM liquidation_risk WHERE score IS NOT NULL").fetchone()
        dead = connection.execute("SELECT count(*) FROM dead_letters").fetchone()
    assert dead == (0,)
    assert scored is not None
    assert scored[0] > 100, "the recording is long enough to be scored"
    return found


def _wait(condition: Any, seconds: float, what: str) -> None:
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        pause.wait(0.2)


def _ticks(home: Path) -> int:
    """Market ticks committed so far; 0 while the database cannot be asked."""
    runtime = read_json(home / "runtime.json")
    if runtime is None:
        return 0
    try:
        with psycopg.connect(runtime["database_url"], connect_timeout=2) as connection:
            row = connection.execute("SELECT count(*) FROM ticks WHERE stream = 'market'").fetchone()
    except psycopg.Error:
        return 0
    return row[0] if row else 0


def _kill_each_part_once(home: Path, supervisor: subprocess.Popen[bytes]) -> list[str]:
    """kill -9 of every supervised process, one after the other, then of the supervisor itself."""
    killed = []
    _wait(lambda: _ticks(home) >= 5, 180, "the first ticks")
    for name, identity in sorted(Home(home).noted_processes().items()):
        ticks = _ticks(home)
        psutil.Process(identity.pid).kill()
        killed.append(name)
        _wait(
            lambda name=name, pid=identity.pid: (
                ((again := Home(home).noted_processes().get(name)) is not None and again.pid != pid)
                or supervisor.poll() is not None
            ),
            90,
            f"{name} started again",
        )
        assert supervisor.poll() is None, f"liq up gave up after {name} was killed"
        _wait(lambda ticks=ticks: _ticks(home) > ticks, 120, f"a tick after {name} was killed")
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    return killed


def _alive(home: Path) -> list[str]:
    return [
        " ".join(process.cmdline())[:120]
        for process in psutil.process_iter()
        if str(home) in " ".join(_safe(process)) and process.pid != os.getpid()
    ]


def _safe(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def homes(new_home: Path) -> Iterator[tuple[Path, Path]]:
    """Two empty homes; whatever a failed test leaves running in them is ended."""
    calm, stormy = new_home / "calm", new_home / "stormy"
    yield calm, stormy
    for home in (calm, stormy):
        for identity in Home(home).strays():
            end(identity, wait_seconds=0)


def test_every_process_killed_once_changes_no_row(recording: Path, homes: tuple[Path, Path], tmp_path: Path) -> None:
    calm, stormy = homes
    log = tmp_path / "calm.log"
    assert _start(calm, recording, "max", log).wait(timeout=300) == 0, log.read_text()
    undisturbed = _rows(calm)
    assert undisturbed["ticks"][0] >= 2 * (MINUTES - 1)
    assert undisturbed["prices"][0] == 2 * MINUTES
    assert _alive(calm) == []

    log = tmp_path / "stormy.log"
    # Slow enough that minutes are still being played while the processes die one after the other.
    killed = _kill_each_part_once(stormy, _start(stormy, recording, "60", log))
    assert {"postgres", "kafka", "player", "daemon", "code server"} <= set(killed)
    assert _start(stormy, recording, "max", log).wait(timeout=300) == 0, log.read_text()
    assert _rows(stormy) == undisturbed
    assert _alive(stormy) == []
