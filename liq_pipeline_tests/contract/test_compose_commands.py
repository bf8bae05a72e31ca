"""The commands of docker-compose.yml as bare processes: no container, but the words, variables and health checks as
they stand there, on a real PostgreSQL and a real Kafka.

What a container would give (names of hosts, folders, fixed ports) is put in the place of its name. The collector is not
among them, because it asks the venues; its own tests run it against servers of ours.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer.main
from sqlalchemy.engine import make_url

from liq_pipeline.cli import app
from liq_pipeline.runtime.processes import free_port
from liq_pipeline_tests.contract.test_compose_file import EXAMPLE_VALUES, OURS, ROOT, SECRETS, interpolate

PORTS = ("8000", "3000", "4266", "9109")
VALUES = {
    **EXAMPLE_VALUES,
    **dict.fromkeys(SECRETS, "a-secret-of-this-test"),
    "LIQ_SYMBOLS": "BTC",  # its simulated history of 30 days, 100,000 records, lands before the first tick
}
PATIENCE_SECONDS = 300
"""For one health check. It comes within seconds on a quiet machine; CI's is not."""


def liq_words(command: list[str]) -> Iterator[list[str]]:
    """The calls of `liq` in a command, each as its words after `liq`."""
    if command[0] == "liq":
        yield command[1:]
    elif command[:2] == ["sh", "-c"]:
        yield from ([*part.split()[1:]] for part in command[2].split("&&"))


@pytest.mark.parametrize("name", [name for name, service in OURS.items() if list(liq_words(service["command"]))])
def test_every_call_of_liq_is_one_that_liq_understands(name: str) -> None:
    """Options and arguments too, without running it."""
    group: Any = typer.main.get_command(app)
    for command, *arguments in liq_words(OURS[name]["command"]):
        group.commands[command].make_context(command, list(arguments))


def test_a_wrong_option_would_be_found() -> None:
    group: Any = typer.main.get_command(app)
    command, *arguments = OURS["desk"]["command"][1:]
    with pytest.raises(Exception, match="No such option"):  # typer brings a click of its own, and so do we
        group.commands[command].make_context(command, [each.replace("--host", "--hosts") for each in arguments])


@dataclass
class Machine:
    """This machine in the place of the containers: what stands for what, and the processes that run."""

    folder: Path
    names: dict[str, str]
    urls: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def here(self, text: str) -> str:
        """Text of the compose file with this machine's names in it."""
        for name, own in self.names.items():
            text = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", own, text)
        return text

    def environment(self, service: str) -> dict[str, str]:
        """As compose would make it: .env, then what the service says; nothing of this process but PATH."""
        given = {**VALUES, **{k: interpolate(v, VALUES) for k, v in OURS[service]["environment"].items()}}
        made = {name: self.here(value) for name, value in given.items()} | self.urls
        # The image has the program installed; here it is the checkout whose file this is.
        return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), **made}

    def start(self, service: str) -> subprocess.Popen[bytes]:
        """The service's command in its environment; output goes to a file of its name."""
        with (self.folder / f"{service}.log").open("wb") as log:
            self.running[service] = subprocess.Popen(
                [self.here(word) for word in OURS[service]["command"]],
                env=self.environment(service),
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.running[service]

    def logs(self) -> str:
        """The end of what each has printed."""
        return "\n".join(
            f"== {path.stem}\n{path.read_text(errors='replace')[-1500:]}" for path in sorted(self.folder.glob("*.log"))
        )

    def until(self, what: str, service: str, holds: Callable[[], bool]) -> None:
        """Wait for it while the service runs; fail with what the service printed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert self.running[service].poll() is None, f"{service} ended: {self.logs()}"
            assert time.monotonic() < deadline, f"{what} did not come: {self.logs()}"
            time.sleep(0.2)

    def healthy(self, service: str) -> None:
        """Wait until the service's own health check, as it stands in the file, is content."""
        kind, *words = OURS[service]["healthcheck"]["test"]
        assert kind == "CMD"
        words = [self.here(word) for word in words]
        environment = self.environment(service)
        self.until(
            f"the health of {service}", service,
            lambda: subprocess.run(
                words, env=environment, cwd=self.folder, check=False, capture_output=True
            ).returncode == 0,
        )  # fmt: skip

    def stop(self) -> None:
        """All of them, the newest first."""
        for process in reversed(self.running.values()):
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def machine(folder: Path, database: str, dagster: str, kafka: str, prefix: str) -> Iterator[Machine]:
    """Folders as the volumes would be, free ports, and the servers' addresses."""
    for name in ("home", "dagster", "run"):
        (folder / name).mkdir(mode=0o700)
    names = {
        "/var/lib/liq_pipeline": str(folder / "home"),
        "/var/lib/dagster/workspace.yaml": str(folder / "dagster" / "workspace.yaml"),
        "/var/lib/dagster": str(folder / "dagster"),
        "/run/liq/zygote.sock": str(folder / "run" / "z.sock"),
        "kafka:19092": kafka,
        "0.0.0.0": "127.0.0.1",  # noqa: S104 - what the file says; here everything stays on loopback
        "metrics": "127.0.0.1",
        **{port: str(free_port()) for port in PORTS},
    }
    del names["metrics"]
    names["http://metrics:9109/metrics"] = f"http://127.0.0.1:{names['9109']}/metrics"
    names = dict(sorted(names.items(), key=lambda each: -len(each[0])))
    urls = {
        **dict.fromkeys(("LIQ_DATABASE_URL", "LIQ_DATABASE_OWNER_URL", "LIQ_DATABASE_READER_URL"), database),
        "LIQ_DAGSTER_PG_URL": make_url(dagster).set(drivername="postgresql+psycopg2").render_as_string(False),
        "LIQ_KAFKA_TOPIC_PREFIX": prefix,
        "LIQ_WEB_PORT": names["8000"],
        "LIQ_METRICS_PORT": names["9109"],
    }
    made = Machine(folder, names, urls)
    for mount in OURS["code"]["volumes"]:
        source, inside, *_ = mount.split(":")
        if source.startswith("./"):
            text = (ROOT / source).read_text().replace("host: code", "host: 127.0.0.1")
            Path(made.here(inside) if inside in names else folder / "dagster" / Path(inside).name).write_text(text)
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.timeout(900)
def test_what_the_containers_would_run_works_together(
    tmp_path: Path, empty_database_url: str, new_database_url: Callable[[], str], kafka_server: str, topic_prefix: str
) -> None:
    """All but the venues' collector, with the simulated market as the source, until a tick is committed."""
    dagster = new_database_url().rpartition("/")
    with psycopg.connect(f"{dagster[0]}/postgres", autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{dagster[2]}"')
        admin.execute(f'CREATE DATABASE "{dagster[2]}"')
    with machine(tmp_path, empty_database_url, "".join(dagster), kafka_server, topic_prefix) as here:
        assert here.start("init").wait(PATIENCE_SECONDS) == 0, here.logs()
        del here.running["init"]
        for service in ("launcher", "code"):
            here.start(service)
        for service in ("launcher", "code"):
            here.healthy(service)
        for service in ("daemon", "webserver", "metrics", "desk", "player"):
            here.start(service)

        def ticked() -> bool:
            with psycopg.connect(empty_database_url) as conn:
                return conn.execute("SELECT count(*) > 0 FROM ticks WHERE stream = 'market'").fetchone() == (True,)

        for service in ("webserver", "desk"):
            here.healthy(service)
        here.until("a tick", "daemon", ticked)
        for service in ("daemon", "metrics"):
            here.healthy(service)
        assert [name for name, process in here.running.items() if process.poll() is not None] == []
