"""What a running installation does when its parts are hurt: cancelled, killed, stopped. Is a grid point ever lost?

Belongs here: hurting the parts around a tick and timing what follows. Does not: kill -9 of the servers under load and
the rows they hold (kills.py), or the launcher alone (its tests).

    python -m bench faults_ticks --rounds=3

The whole program runs in simulated mode with a local heartbeat receiver. In turn: a hung tick is cancelled through
GraphQL, a tick's worker is killed, daemon, code server, launcher and webserver are killed, the supervisor is stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import psutil
import requests

from bench._installation import Installation, installation, symbol_names, wait_until
from liq_pipeline.launcher import protocol
from liq_pipeline.pipeline.tick import LATE_AFTER
from liq_pipeline.runtime.servers import dagster_home

KILLED_PARTS: Final = ("daemon", "code server", "launcher", "webserver")
TICKS_AFTER_A_KILL: Final = 3
PATIENCE_SECONDS: Final = 180.0
CANCEL_LIMIT_SECONDS: Final = 5.0
FAILED_LIMIT_SECONDS: Final = 30.0
HEARTBEAT_LIMIT_SECONDS: Final = 60.0
_CANCEL: Final = """
mutation Cancel($run: String!) { terminateRun(runId: $run) {
  __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }
"""


class Heartbeats:
    """A healthchecks-style receiver: when each path was last asked for."""

    def __init__(self) -> None:
        self.heard: dict[str, float] = {}
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                heard[self.path] = time.monotonic()
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/ping"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def is_ok_since(self, moment: float) -> bool:
        """Whether a healthy ping came after the moment."""
        return self.heard.get("/ping", 0.0) > moment

    def is_alarmed_since(self, moment: float) -> bool:
        """Whether a /fail came after the moment."""
        return self.heard.get("/ping/fail", 0.0) > moment


@contextmanager
def heartbeats() -> Iterator[Heartbeats]:
    """A running receiver."""
    made = Heartbeats()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


def ask_zygote(made: Installation, question: dict[str, Any]) -> dict[str, Any] | None:
    """Its answer; None while it is away."""
    try:
        return protocol.ask(str(dagster_home.zygote_socket(made.home)), question, 2.0)
    except (protocol.ZygoteUnreachableError, protocol.ZygoteFailedError):
        return None


def catch_tick(made: Installation) -> tuple[str, int]:
    """Wait for a tick that is at work; its run and the pid of its worker, which is stopped so that it stays caught."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        answer = ask_zygote(made, {"do": "ping"})
        for run_id in (answer or {}).get("runs", []):
            rows = made.ask(
                "SELECT (SELECT value FROM run_tags t WHERE t.run_id = r.run_id AND key = '.dagster/liq_worker')"
                " FROM runs r WHERE run_id = %s AND pipeline_name = 'live_tick' AND status = 'STARTED'",
                run_id,
                dagster=True,
            )
            if not rows or rows[0][0] is None:
                continue
            pid = int(json.loads(rows[0][0])["pid"])
            try:
                psutil.Process(pid).suspend()
            except psutil.NoSuchProcess:
                continue
            return run_id, pid
        time.sleep(0.02)
    raise SystemExit(f"no tick could be caught at work within {PATIENCE_SECONDS:.0f} s")


def status_of(made: Installation, run_id: str) -> str:
    """A run's state in Dagster's storage."""
    return str(made.ask("SELECT status FROM runs WHERE run_id = %s", run_id, dagster=True)[0][0])


def cancel_a_hung_tick(made: Installation) -> float:
    """Seconds from the request to GraphQL until the run is marked; its worker hears no interrupt."""
    run_id, _ = catch_tick(made)
    begun = time.monotonic()
    answer = requests.post(
        f"{made.endpoints.dagster_url}/graphql", json={"query": _CANCEL, "variables": {"run": run_id}}, timeout=30
    ).json()
    if answer["data"]["terminateRun"]["__typename"] != "TerminateRunSuccess":
        raise SystemExit(f"GraphQL did not cancel the run: {answer}")
    wait_until(lambda: status_of(made, run_id) == "CANCELED", PATIENCE_SECONDS, "the run to be cancelled", 0.05)
    return time.monotonic() - begun


def kill_a_worker(made: Installation) -> float:
    """Seconds from kill -9 until the run is marked failed."""
    run_id, pid = catch_tick(made)
    begun = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: status_of(made, run_id) == "FAILURE", PATIENCE_SECONDS, "the run to be marked failed", 0.05)
    return time.monotonic() - begun


def kill_a_part(made: Installation, name: str) -> tuple[float, float]:
    """Seconds until it is back, and until the ticks of three more grid points are committed."""
    killed, before = made.parts()[name], made.market_ticks()
    begun = time.monotonic()
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(
        lambda: (now := made.parts().get(name)) is not None and now != killed, PATIENCE_SECONDS, f"a new {name}", 0.1
    )
    back = time.monotonic() - begun
    wait_until(
        lambda: made.market_ticks() >= before + TICKS_AFTER_A_KILL, PATIENCE_SECONDS, f"ticks without the {name}", 0.2
    )
    return back, time.monotonic() - begun


def stop_the_supervisor(made: Installation, service: Heartbeats) -> tuple[float, float]:
    """Seconds until the receiver hears /fail, and until it hears a healthy ping again once the supervisor goes on."""
    assert made.process is not None
    wait_until(lambda: service.is_ok_since(0.0), PATIENCE_SECONDS, "a healthy ping", 0.1)
    begun = time.monotonic()
    os.kill(made.process.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: service.is_alarmed_since(begun), PATIENCE_SECONDS, "the receiver to hear /fail", 0.1)
        noticed = time.monotonic() - begun
    finally:
        os.kill(made.process.pid, signal.SIGCONT)
    resumed = time.monotonic()
    wait_until(lambda: service.is_ok_since(resumed), PATIENCE_SECONDS, "a healthy ping again", 0.1)
    return noticed, time.monotonic() - resumed


def grid_points(made: Installation, stream: str, step_seconds: int) -> tuple[int, int, int]:
    """Due, late and missed so far."""
    scored, first, last, late = made.ask(
        "SELECT count(*), min(time), max(time), count(*) FILTER (WHERE committed_at - time > %s)"
        " FROM ticks WHERE stream = %s",
        LATE_AFTER,
        stream,
    )[0]
    due = int((last - first).total_seconds()) // step_seconds + 1
    return due, late, due - scored


def seconds(values: list[float]) -> str:
    """All of them, for people."""
    return ", ".join(f"{value:.1f}" for value in values) + " s"


def main(arguments: list[str]) -> None:
    """Hurt, time and print."""
    parser = argparse.ArgumentParser(prog="python -m bench faults_ticks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--symbols", type=int, default=2)
    options, _ = parser.parse_known_args(arguments)
    variables = {"LIQ_SYMBOLS": ",".join(symbol_names(options.symbols))}
    with heartbeats() as service, installation("simulated", **variables, LIQ_HEARTBEAT_URL=service.url) as made:
        wait_until(lambda: made.market_ticks() >= TICKS_AFTER_A_KILL, 900, "the first ticks")
        print(f"\nfaults around the tick, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
        cancelled = [cancel_a_hung_tick(made) for _ in range(options.rounds)]
        print(f"  a hung tick cancelled through GraphQL is marked after {seconds(cancelled)}", flush=True)
        failed = [kill_a_worker(made) for _ in range(options.rounds)]
        print(f"  a killed worker's run is marked failed after {seconds(failed)}", flush=True)
        for name in KILLED_PARTS:
            back, ticked = kill_a_part(made, name)
            print(
                f"  {name} killed: back after {back:.1f} s, three more points scored after {ticked:.1f} s", flush=True
            )
        noticed, healthy = stop_the_supervisor(made, service)
        print(f"  supervisor stopped: the receiver hears /fail after {noticed:.1f} s,", end="")
        print(f" and a healthy ping {healthy:.1f} s after it goes on", flush=True)
        missed = 0
        for stream, step in (("market", 10), ("flows", 15)):
            due, late, lost = grid_points(made, stream, step)
            missed += lost
            print(f"  {stream}: {due} grid points due, {late} late, {lost} missed")
    for promise, is_kept in (
        (f"cancelling within {CANCEL_LIMIT_SECONDS:g} s", max(cancelled) <= CANCEL_LIMIT_SECONDS),
        (f"a killed worker's run failed within {FAILED_LIMIT_SECONDS:g} s", max(failed) <= FAILED_LIMIT_SECONDS),
        (f"a stopped supervisor noticed within {HEARTBEAT_LIMIT_SECONDS:g} s", noticed <= HEARTBEAT_LIMIT_SECONDS),
        ("no grid point lost", missed == 0),
    ):
        print(f"  {promise}: {'yes' if is_kept else 'NO'}")
