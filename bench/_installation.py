"""A whole installation in a throw-away home, as `liq up` makes it, for benches that measure the running program.

Belongs here: starting, asking and stopping it. Does not: what is measured (soak.py, latency.py, faults_ticks.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString, Self

import psycopg

from liq_pipeline.runtime.endpoints import Endpoints, resolve
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.processes import ProcessIdentity, free_port
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.settings import Settings

PORTS = ("postgres", "kafka", "dagster", "code_server", "metrics")
START_SECONDS = 240.0
STOP_SECONDS = 120.0


class Installation:
    """One `liq up` and the home it runs on. variables: LIQ_ settings beside the ports; arguments: of `liq up`."""

    def __init__(
        self, folder: Path, mode: str, variables: Mapping[str, str], arguments: Sequence[str | Path] = ()
    ) -> None:
        self.home = Home(folder / "home")
        self.ports: dict[str, int] = {}
        for name in PORTS:
            self.ports[name] = free_port(taken=self.ports.values())
        self._arguments = ["up", "--mode", mode, *map(str, arguments)]
        self._output = folder / "output"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LIQ_")},
            "LIQ_HOME": str(self.home.path),
            "COLUMNS": "200",
            **{f"LIQ_{name.upper()}_PORT": str(port) for name, port in self.ports.items()},
            **variables,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = datetime.now(UTC)

    def start(self) -> Self:
        """Start it and wait until it says where Dagster is; SystemExit with its words if it ends before that."""
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "liq_pipeline.cli", *self._arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = self.process
        wait_until(
            lambda: "up: the desk at" in self.said() or process.poll() is not None, START_SECONDS, "`liq up` to be up"
        )
        if process.poll() is not None:
            raise SystemExit(f"`liq up` ended with exit code {process.returncode}:\n{self.said()}")
        return self

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Another `liq` command on this home, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "liq_pipeline.cli", *map(str, arguments)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def stop(self) -> None:
        """Stop it as Ctrl-C would."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(STOP_SECONDS)

    def said(self) -> str:
        """All that it has printed."""
        return self._output.read_text(errors="replace")

    def parts(self) -> dict[str, ProcessIdentity]:
        """name -> process of everything that it started and that runs."""
        return self.home.noted_processes()

    @property
    def endpoints(self) -> Endpoints:
        """Addresses in force."""
        return resolve(Settings(home=self.home.path))

    def database_url(self, name: str) -> str:
        """The superuser's address of a database (liq, dagster); a secret."""
        return EmbeddedPostgres(self.home.path, self.ports["postgres"]).url(name)

    def ask(self, query: LiteralString, *values: Any, dagster: bool = False) -> list[tuple[Any, ...]]:
        """Rows of the product's database or of Dagster's."""
        with psycopg.connect(self.database_url("dagster" if dagster else "liq")) as connection:
            return connection.execute(query, values).fetchall()

    def market_ticks(self) -> int:
        """Ticks of the market stream committed so far."""
        return int(self.ask("SELECT count(*) FROM ticks WHERE stream = 'market'")[0][0])


@contextmanager
def installation(mode: str, **variables: str) -> Iterator[Installation]:
    """A started installation; stopped and wiped afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="liq-bench-"))
    folder.chmod(0o711)  # the user that PostgreSQL runs as must get through
    made = Installation(folder, mode, variables)
    try:
        yield made.start()
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition: Callable[[], bool], seconds: float, what: str, step_seconds: float = 0.1) -> float:
    """Wait for the condition and return how long that took; SystemExit naming `what` if it does not come true."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise SystemExit(f"waited {seconds:.0f} s for {what}")
        time.sleep(step_seconds)
    return time.monotonic() - begun


def symbol_names(count: int) -> list[str]:
    """BTC and ETH first, as the defaults."""
    return (["BTC", "ETH"] + [f"COIN{number}" for number in range(count)])[:count]
