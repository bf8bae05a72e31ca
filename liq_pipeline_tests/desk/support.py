"""A simulated day with a cascade in a database, and a desk in front of it, as a process of its own.

Belongs here: filling, starting, asking. Does not: assertions.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from liq_pipeline.replay.play import play_through
from liq_pipeline.replay.servers import Servers
from liq_pipeline.replay.window import Window
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.settings import RiskSettings, Settings
from liq_pipeline.sources.playing.playable import Message, known_time
from liq_pipeline.sources.simulated.market import MODEL_VERSION, Script
from liq_pipeline.sources.simulated.source import SimulatedSource
from liq_pipeline.sources.simulated.world import Simulation
from liq_pipeline.store.connection import connect
from liq_pipeline.store.rollups import upkeep

WORLD = "simulated/desk"
SYMBOLS = ("BTC", "ETH")
EPOCH = datetime(2026, 3, 2, 0, tzinfo=UTC)
BEFORE, AFTER = timedelta(hours=3), timedelta(hours=3)
LAST = EPOCH + BEFORE + AFTER
# Four days of history instead of thirty: what is shown does not depend on the length.
SETTINGS = Settings(symbols=SYMBOLS, risk=RiskSettings(lookback_hours=96, min_lookback_hours=24))


def cascade_day() -> Window:
    """Six hours of a simulated market with a cascade in their middle, four days before them."""
    hit = EPOCH + BEFORE
    simulation = Simulation(
        seed="desk",
        epoch=EPOCH,
        symbols=SYMBOLS,
        model_version=MODEL_VERSION,
        scripts=(Script(build_from=int(EPOCH.timestamp()), hit_at=int(hit.timestamp())),),
        history_hours=100,
        generated_to=EPOCH,
    )
    source = SimulatedSource(simulation)
    messages: list[Message] = []
    for step in source.steps(None):
        if step.time > LAST:
            break
        messages += step.messages
    messages.sort(key=known_time)
    world = msgspec.structs.replace(
        source.world, market_step_seconds=60, flows_step_seconds=60, first_time=EPOCH, last_time=LAST
    )
    return Window(world, EPOCH, LAST, messages, ())


def fill(database_url: str, kafka: str, prefix: str) -> None:
    """The day in the database, through the same path as live data, with its roll-ups."""
    play_through(cascade_day(), Servers(database_url, kafka, prefix), SETTINGS)
    with connect(database_url) as conn:
        upkeep.refresh(conn)
        conn.execute("UPDATE source_status SET state = 'up'")
        conn.commit()


@dataclass
class Reply:
    """What a desk answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RunningDesk:
    """`liq serve` as a process."""

    database_url: str
    home: Path
    port: int
    process: subprocess.Popen[bytes]
    environment: dict[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, *, method: str = "GET", data: bytes | None = None, timeout: float = 20.0, **headers: str
    ) -> Reply:
        """One request; names of headers with underscores. No error is raised for a status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data, named, method=method)  # noqa: S310 - our own server
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
        try:
            with opener.open(request, timeout=timeout) as answer:
                return Reply(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())

    def get(self, path: str, **headers: str) -> Any:
        """The decoded answer of an address that must be there."""
        reply = self.ask(path, **headers)
        assert reply.status == 200, (path, reply.status, reply.body[:300])
        return reply.json()

    def kill(self) -> None:
        """As by SIGKILL from outside."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def start(self) -> None:
        """Start (again) on the same port."""
        log = (self.home / "desk.log").open("ab")
        command = [sys.executable, "-m", "liq_pipeline.cli", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.home)
        log.close()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.home / "desk.log").read_text()
            try:
                if self.ask("/healthz").status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the desk did not answer within 60 s")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@contextmanager
def desk(database_url: str, home: Path, **more: str) -> Iterator[RunningDesk]:
    """A desk of its own on a free port. more: further environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIQ_")}
    environment |= {
        "LIQ_HOME": str(home),
        "LIQ_DATABASE_URL": database_url,
        "LIQ_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        **more,
    }
    made = RunningDesk(database_url, home, free_port(), None, environment)  # type: ignore[arg-type]
    made.start()
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.terminate()
            made.process.wait(15)
