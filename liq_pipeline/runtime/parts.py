"""Which programs `liq up` runs beside the servers, with their commands and environment.

Belongs here: the list. Does not: starting or watching them (supervisor.py).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import requests

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime import liveness
from liq_pipeline.runtime.endpoints import EffectiveMode, Endpoints
from liq_pipeline.runtime.home import SUPERVISED_HOME, Home
from liq_pipeline.runtime.servers import dagster_home
from liq_pipeline.runtime.service import Program
from liq_pipeline.runtime.supervisor import DAGSTER_RANK, HANG_SECONDS, PLAYER_RANK, RUNS_RANK, SENSORS_RANK, Part

DEFINITIONS: Final = "liq_pipeline.definitions"

# Read before numpy is imported. Many small processes on few cores: a thread pool in each would only compete.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def environment(
    home: Home,
    endpoints: Endpoints,
    *,
    record_dir: Path | None = None,
) -> dict[str, str]:
    """What every child gets: our own environment with all addresses in force. Holds passwords: never log it."""
    given = dict(os.environ)
    given.update(
        {
            "LIQ_HOME": str(home.path),
            SUPERVISED_HOME: str(home.path),
            "LIQ_MODE": endpoints.mode or "auto",
            "LIQ_DATABASE_URL": endpoints.database_url,
            "LIQ_KAFKA_BOOTSTRAP_SERVERS": endpoints.kafka_bootstrap_servers,
            # Messages link to the page where it really is, also when its usual port was taken.
            "LIQ_ALERT_LINK_URL": os.environ.get("LIQ_ALERT_LINK_URL") or endpoints.desk_url or "",
            **dagster_variables(home, endpoints),
            "PYTHONUNBUFFERED": "1",
            "TZ": "UTC",
        }
    )
    if record_dir is not None:
        given["LIQ_SOURCE_RECORD_DIR"] = str(record_dir)
    for name in _ONE_THREAD:
        given.setdefault(name, "1")
    return given


def dagster_variables(home: Home, endpoints: Endpoints) -> dict[str, str]:
    """What dagster_home/*.yaml refer to: with these, Dagster's own tools work on this home. Holds a password.

    Raises LiqError if the home's Dagster is not known: nothing runs there, or an older version started it.
    """
    if endpoints.dagster_storage_url is None or endpoints.code_server_port is None:
        raise LiqError(
            f"no Dagster runs on {home.path}: start `liq up` (or `make run`) first, or set LIQ_HOME to the folder where"
            " it runs"
        )
    return {
        "DAGSTER_HOME": str(home.dagster),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "LIQ_DAGSTER_PG_URL": endpoints.dagster_storage_url,
        "LIQ_CODE_SERVER_PORT": str(endpoints.code_server_port),
        "LIQ_ZYGOTE_SOCKET": str(dagster_home.zygote_socket(home)),
    }


def dagster_parts(home: Home, child_environment: Mapping[str, str], ports: Mapping[str, int]) -> list[Part]:
    """Zygote, code server, daemon and webserver. ports: those named dagster and code_server."""
    python, workspace = sys.executable, str(home.dagster / "workspace.yaml")
    zygote_socket = dagster_home.zygote_socket(home)
    code_server, webserver = ports["code_server"], ports["dagster"]
    storage_url = child_environment["LIQ_DAGSTER_PG_URL"]

    def program(title: str, name: str, *arguments: str, ready: Callable[[], bool] | None = None) -> Program:
        return Program(
            title,
            [python, "-m", *arguments],
            child_environment,
            home.logs / f"{name}.log",
            directory=home.path,
            ready=ready,
        )

    return [
        Part(
            "launcher",
            program(
                "the warm launcher",
                "launcher",
                *("liq_pipeline.launcher.zygote", "--socket", str(zygote_socket)),
                ready=lambda: _accepts_on(zygote_socket),
            ),
            rank=RUNS_RANK,
            probe=lambda: liveness.launcher_answers(zygote_socket),
        ),
        Part(
            "code server",
            program(
                "Dagster's code server",
                "code-server",
                *("dagster", "api", "grpc", "-m", DEFINITIONS, "--location-name", "liq_pipeline"),
                *("-h", "127.0.0.1", "-p", str(code_server), "--log-level", "warning"),
                ready=lambda: _accepts(code_server),
            ),
            rank=DAGSTER_RANK,
            probe=lambda: liveness.grpc_answers(code_server),
        ),
        Part(
            "daemon",
            program(
                "Dagster's daemon",
                "daemon",
                *("dagster._daemon", "run", "-w", workspace, "--log-level", "warning"),
            ),
            rank=SENSORS_RANK,
            probe=lambda: liveness.daemon_beats(storage_url),
        ),
        Part(
            "webserver",
            program(
                "Dagster's webserver",
                "webserver",
                *("liq_pipeline.runtime.servers.guarded_webserver", "-h", "127.0.0.1", "-p", str(webserver)),
                *("-w", workspace),
                *("--dagster-log-level", "warning"),
                ready=lambda: _answers(f"http://127.0.0.1:{webserver}/server_info"),
            ),
            rank=DAGSTER_RANK,
            probe=lambda: liveness.http_answers(f"http://127.0.0.1:{webserver}/server_info"),
        ),
    ]


def desk_part(
    home: Home, child_environment: Mapping[str, str], endpoints: Endpoints, host: str, ports: Mapping[str, int]
) -> Part:
    """The desk: it reads with the role that only reads. ports: those named web and metrics."""
    environment = {
        **child_environment,
        "LIQ_DATABASE_READER_URL": endpoints.database_reader_url or endpoints.database_url,
        "LIQ_METRICS_PORT": str(ports["metrics"]),
    }
    port = ports["web"]
    asked = "127.0.0.1" if host in ("0.0.0.0", "localhost") else "[::1]" if host == "::" else _in_url(host)  # noqa: S104
    program = Program(
        "the desk",
        [sys.executable, "-m", "liq_pipeline.cli", "serve", "--host", host, "--port", str(port)],
        environment,
        home.logs / "desk.log",
        directory=home.path,
        ready=lambda: _answers(f"http://{asked}:{port}/healthz"),
    )
    probe = partial(liveness.http_answers, f"http://{asked}:{port}/healthz")
    return Part("desk", program, rank=PLAYER_RANK, probe=probe)


def desk_url(host: str, port: int) -> str:
    """Where a person opens the desk."""
    named = "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else _in_url(host)  # noqa: S104
    return f"http://{named}:{port}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def health_part(home: Home, child_environment: Mapping[str, str], port: int) -> Part:
    """/healthz and /metrics. The part that looks at all others: it is started last and stopped first."""
    program = Program(
        "the health page",
        [sys.executable, "-m", "liq_pipeline.cli", "metrics", "--port", str(port)],
        child_environment,
        home.logs / "metrics.log",
        directory=home.path,
    )
    # Its pages look at everything and take as long; that a path is unknown is answered at once.
    probe = partial(liveness.http_answers, f"http://127.0.0.1:{port}/")
    return Part("metrics", program, rank=PLAYER_RANK, probe=probe)


def source_part(
    home: Home,
    child_environment: Mapping[str, str],
    mode: EffectiveMode,
    *,
    recording: Path | None,
    speed: float | None,
    once: bool,
) -> Part:
    """The player of a simulated or recorded world, or the collector of live streams.

    speed: times real time, None as fast as it lands.
    """
    if mode == "live":
        name, arguments = "collector", ["collect"]
    else:
        name = "player"
        arguments = ["play", "--mode", mode, "--speed", "max" if speed is None else f"{speed:g}"]
        if recording is not None:
            arguments += ["--recording", str(recording)]
        if once:
            arguments.append("--once")
    program = Program(
        f"the {name}",
        [sys.executable, "-m", "liq_pipeline.cli", *arguments],
        child_environment,
        home.logs / f"{name}.log",
        directory=home.path,
    )
    return Part(
        name,
        program,
        rank=PLAYER_RANK,
        finishes=once or mode == "recorded",
        probe=lambda: liveness.stamp_is_fresh(home, name),
        hang_seconds=HANG_SECONDS - liveness.STALE_SECONDS,
    )


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False


def _accepts_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(0.5)
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def _answers(url: str) -> bool:
    try:
        # Its own proxy settings must not come between this machine and itself.
        with requests.Session() as session:
            session.trust_env = False
            return session.get(url, timeout=2).ok
    except requests.RequestException:
        return False
