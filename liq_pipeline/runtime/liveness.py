"""Whether a part that runs also moves: a question to each kind of part, and stamps for those nobody can ask.

Belongs here: the probes and the stamps. Does not: what is done about a part that hangs (supervisor.py, watchdog.py).

A probe takes at most PROBE_SECONDS, never raises, and says yes to any answer, also to a refusal: what answers, moves.
Each asks the part itself: the kernel accepts connections for a process that is stopped.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg
import requests

from liq_pipeline.runtime.home import SUPERVISED_HOME, Home
from liq_pipeline.runtime.processes import ProcessIdentity

PROBE_SECONDS: Final = 5.0
STAMP_SECONDS: Final = 5.0
STALE_SECONDS: Final = 30.0
"""A part that stamps every 5 s and has not for this long stands still."""

TICK: Final = "tick"
"""The stamp of the newest tick that scored anything."""

Probe = Callable[[], bool]

# https://www.postgresql.org/docs/current/protocol-message-formats.html: SSLRequest, answered by a new backend with one
# byte before anybody logs in, and so without a password and without a line in its log.
_SSL_REQUEST: Final = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
# https://kafka.apache.org/protocol#protocol_messages: ApiVersions (18) version 0, correlation 1, no client id.
_API_VERSIONS: Final = b"".join(
    part.to_bytes(size, "big", signed=True) for part, size in ((10, 4), (18, 2), (0, 2), (1, 4), (-1, 2))
)


def postgres_answers(port: int) -> bool:
    """Whether the postmaster still makes backends."""
    return _answers(port, _SSL_REQUEST)


def kafka_answers(port: int) -> bool:
    """Whether the broker still takes requests off its sockets and answers them."""
    return _answers(port, _API_VERSIONS)


def http_answers(url: str) -> bool:
    """Whether anything comes back, whatever its status."""
    try:
        # Proxy settings must not come between this machine and itself.
        with requests.Session() as session:
            session.trust_env = False
            session.get(url, timeout=PROBE_SECONDS, stream=True).close()
    except requests.RequestException:
        return False
    return True


def grpc_answers(port: int) -> bool:
    """Whether a gRPC server's own threads still answer its health question (grpc.health.v1)."""
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=PROBE_SECONDS)
        except grpc.RpcError as error:
            silent = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
            return isinstance(error, grpc.Call) and error.code() not in silent
    return True


def launcher_answers(socket_path: Path) -> bool:
    """Whether the warm launcher's one loop goes round."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PROBE_SECONDS)
        try:
            connection.connect(str(socket_path))
            connection.sendall(b'{"do":"ping"}\n')
            return bool(connection.recv(1))
        except OSError:
            return False


def daemon_beats(storage_url: str, stale_seconds: float = 120.0) -> bool:
    """Whether Dagster's sensor loop has noted a heartbeat lately (it does every 30 s); yes while nobody can tell.

    storage_url: Dagster's own database, psycopg2 form, a secret.
    """
    try:
        plain = storage_url.replace("postgresql+psycopg2://", "postgresql://", 1)
        with psycopg.connect(plain, connect_timeout=int(PROBE_SECONDS), autocommit=True) as connection:
            connection.execute(f"SET statement_timeout = {int(1000 * PROBE_SECONDS)}")
            row = connection.execute(
                "SELECT extract(epoch FROM (now() AT TIME ZONE 'UTC') - max(timestamp)) FROM daemon_heartbeats"
                " WHERE daemon_type = 'SENSOR'"
            ).fetchone()
    except psycopg.Error:
        return True
    return row is None or row[0] is None or float(row[0]) < stale_seconds


def is_not_stopped(identity: ProcessIdentity | None) -> bool:
    """Whether the kernel lets the process run: SIGSTOP, a debugger or a frozen group do not."""
    import psutil

    process = None if identity is None else identity.process()
    try:
        return process is None or process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.NoSuchProcess:
        return True


# -- stamps ---------------------------------------------------------------------------------------------------------


def note_alive(name: str) -> None:
    """Touch the stamp of this name in the home that we run under; nothing under none, and never a failure."""
    path = os.environ.get(SUPERVISED_HOME)
    if path is None:
        return
    try:
        Home(Path(path)).alive_path(name).touch()
    except OSError:  # a full disk is said by others
        return


def forget_alive(name: str) -> None:
    """A part begins: the stamp of the one before says nothing of it."""
    path = os.environ.get(SUPERVISED_HOME)
    if path is not None:
        Home(Path(path)).alive_path(name).unlink(missing_ok=True)


def stamp_is_fresh(home: Home, name: str, stale_seconds: float = STALE_SECONDS) -> bool:
    """Whether the part has stamped lately. Yes before its first stamp: it may be loading a long history."""
    try:
        age = time.time() - home.alive_path(name).stat().st_mtime
    except FileNotFoundError:
        return True
    return age < stale_seconds


class StampingEvent(threading.Event):
    """An event whose waits show that the waiting thread moves. For the one loop that is a part's heart."""

    def __init__(self, name: str) -> None:
        super().__init__()
        forget_alive(name)
        self._name = name
        self._stamped_at = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        """As Event.wait(), stamping every few seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._stamp()
            left = STAMP_SECONDS if deadline is None else min(STAMP_SECONDS, deadline - time.monotonic())
            if super().wait(max(0.0, left)):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def is_set(self) -> bool:
        """As Event.is_set(); a loop that never waits asks this."""
        self._stamp()
        return super().is_set()

    def _stamp(self) -> None:
        if time.monotonic() - self._stamped_at >= STAMP_SECONDS:
            self._stamped_at = time.monotonic()
            note_alive(self._name)


def _answers(port: int, question: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_SECONDS) as connection:
            connection.sendall(question)
            return bool(connection.recv(1))
    except OSError:
        return False
