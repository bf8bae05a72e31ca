"""`liq up` as a person runs it: a second one is refused, what is killed comes back, nothing stays behind.

One installation is started, hurt and stopped through the whole file, in order; a start is too dear for each test.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import pytest
import requests

from liq_pipeline.runtime.endpoints import Endpoints, resolve
from liq_pipeline.runtime.files import read_json
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.processes import ProcessIdentity, free_port, port_is_free, wait_until_gone
from liq_pipeline.runtime.servers import dagster_home
from liq_pipeline.settings import Settings

pytestmark = [pytest.mark.xdist_group("liq-up"), pytest.mark.timeout(600)]

PARTS = {"postgres", "kafka", "launcher", "code server", "daemon", "webserver", "player", "metrics", "desk"}
START_SECONDS = 240  # a bound for a crowded machine, not a promise


@dataclass
class Installation:
    """A home and the `liq up` that runs on it."""

    home: Home
    ports: dict[str, int]
    output: Path
    process: subprocess.Popen[bytes] | None = None
    children_before: dict[str, ProcessIdentity] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "LIQ_HOME": str(self.home.path), "COLUMNS": "200"} | {
            f"LIQ_{name.upper()}_PORT": str(port) for name, port in self.ports.items()
        }

    def liq(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "liq_pipeline.cli", *arguments],
            env=self.environment(),
            cwd=self.home.path.parent,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "liq_pipeline.cli", "up", "--mode", "simulated"],
                env=self.environment(),
                cwd=self.home.path.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        assert eventually(lambda: "up: the desk at" in self.said() or self.has_ended(), START_SECONDS), self.said()
        assert not self.has_ended(), self.said()

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def children(self) -> dict[str, ProcessIdentity]:
        return self.home.noted_processes()

    def endpoints(self) -> Endpoints:
        return resolve(Settings(home=self.home.path))


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="liq-up-"))
    folder.chmod(0o711)
    names = ("postgres", "kafka", "dagster", "code_server", "metrics", "web")
    ports: dict[str, int] = {}
    for name in names:
        ports[name] = free_port(taken=ports.values())
    made = Installation(Home(folder / "home"), ports, folder / "output")
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.terminate()
        made.process.wait(120)
    for left in made.home.noted_processes().values():
        psutil.Process(left.pid).kill()
    shutil.rmtree(folder, ignore_errors=True)


def test_it_says_what_it_does_then_the_address_the_mode_and_what_to_do_next(installation: Installation) -> None:
    assert eventually(lambda: "Next, in another shell" in installation.said(), 30)
    said = installation.said()
    for expected in ("starting PostgreSQL", "starting Apache Kafka", "schema:", "topics:", "SIMULATED MARKET"):
        assert expected in said
    assert f"http://127.0.0.1:{installation.ports['dagster']}" in said
    assert "simulated: asked for" in said


def test_dagster_s_own_tools_work_on_it_once_liq_env_attached_them(installation: Installation) -> None:
    printed = installation.liq("env")
    assert printed.returncode == 0, printed.stderr
    tools = Path(sys.executable).parent

    def attached(*command: str) -> str:
        script = f"{printed.stdout}\n{tools}/{shlex.join(command)}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=dagster_home.PROJECT.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert eventually(lambda: "Run: " in attached("dagster", "run", "list", "--limit", "3"), 120)
    assert '"RepositoryConnection"' in attached("dagster-graphql", "-t", "{ repositoriesOrError { __typename } }")
    url = installation.endpoints().dagster_url
    answer = requests.post(f"{url}/graphql", json={"query": "{ version }"}, timeout=20).json()
    assert answer["data"]["version"]
    as_object = json.loads(installation.liq("env", "--json").stdout)
    assert as_object["DAGSTER_HOME"] == str(installation.home.dagster)


def test_no_other_site_can_stop_the_ticks_through_dagster_and_its_own_page_can(installation: Installation) -> None:
    """The fault that was: an <img> on any web page could stop the sensor that asks for ticks."""
    url = f"{installation.endpoints().dagster_url}/graphql"
    stop = 'mutation { stopSensor(id: "x") { __typename } }'
    evil = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert requests.get(url, params={"query": stop}, headers=evil, timeout=20).status_code == 405
    assert requests.get(url, params={"query": stop}, timeout=20).status_code == 405
    assert requests.post(url, json={"query": stop}, headers=evil, timeout=20).status_code == 403
    assert requests.post(url, data={"query": stop}, timeout=20).status_code == 415
    assert (
        requests.post(url, json={"query": "{ version }"}, headers={"Host": "evil.example"}, timeout=20).status_code
        == 421
    )
    ours = {"Origin": url.removesuffix("/graphql"), "Sec-Fetch-Site": "same-origin"}
    # A change of Dagster's own that does no harm here: an unknown sensor's id is an error 500 of its own.
    answer = requests.post(
        url, json={"query": 'mutation { freeConcurrencySlots(runId: "none") }'}, headers=ours, timeout=20
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == {"freeConcurrencySlots": True}
    assert requests.get(url, params={"query": "{ version }"}, timeout=20).json()["data"]["version"]
    page = requests.get(url.removesuffix("/graphql"), timeout=20)
    assert page.status_code == 200
    assert "<html" in page.text.lower()


def test_every_part_runs_in_a_session_of_its_own(installation: Installation) -> None:
    children = installation.children()
    assert set(children) == PARTS
    for child in children.values():
        assert os.getsid(child.pid) == child.pid


def test_another_shell_finds_the_servers_and_nobody_else_their_password(installation: Installation) -> None:
    path = installation.home.runtime_path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    endpoints = installation.endpoints()
    with psycopg.connect(endpoints.database_url) as connection:
        assert connection.execute("SELECT to_regclass('prices') IS NOT NULL").fetchone() == (True,)
    password = endpoints.database_url.split(":")[2].split("@")[0]
    assert password not in installation.said()
    for log in installation.home.logs.glob("*.log"):
        assert password not in log.read_text(errors="replace"), log


def test_everything_runs_as_the_role_that_it_needs_and_nothing_as_the_superuser(installation: Installation) -> None:
    """By value: who is logged in, and that what a role must not do is refused."""
    endpoints = installation.endpoints()
    seen: dict[str, set[str]] = {}

    def all_have_been_seen() -> bool:
        with psycopg.connect(endpoints.database_url) as connection:
            for database, role, name in connection.execute(
                "SELECT datname, usename, application_name FROM pg_stat_activity"
                " WHERE datname IS NOT NULL AND pid <> pg_backend_pid()"
            ):
                seen.setdefault(f"{database} as {role}", set()).add(name)
        return {"liq as liq_writer", "dagster as liq_dagster"} <= seen.keys()

    assert eventually(all_have_been_seen, 60), seen
    assert seen.keys() <= {"liq as liq_writer", "liq as liq_reader", "dagster as liq_dagster"}, seen
    assert seen.get("liq as liq_reader", set()) <= {"liq serve"}, seen  # the desk reads, and cannot write
    assert endpoints.database_owner_url is not None
    assert endpoints.database_reader_url is not None
    with psycopg.connect(endpoints.database_owner_url) as owner:
        assert owner.execute("SELECT current_user, usesuper FROM pg_user WHERE usename = current_user").fetchone() == (
            "liq_owner",
            False,
        )
        owners = owner.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert owners == [("liq_owner",)]
    for url, statement in (
        (endpoints.database_url, "CREATE TABLE mine (a int)"),
        (endpoints.database_url, "DROP TABLE prices"),
        (endpoints.database_reader_url, "SET TRANSACTION READ WRITE; DELETE FROM prices"),
    ):
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
    said = installation.liq("sql", "--json", "SELECT current_user AS who")
    assert json.loads(said.stdout) == {"who": "liq_reader"}
    for path in (installation.home.path / "postgres" / "roles").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for log in installation.home.logs.glob("*.log"):
            assert path.read_text().strip() not in log.read_text(errors="replace"), log


def test_a_second_liq_up_on_the_same_home_is_refused_with_the_holder_s_pid(installation: Installation) -> None:
    assert installation.process is not None
    refused = installation.liq("up", "--mode", "simulated")
    assert refused.returncode == 2
    assert f"(pid {installation.process.pid})" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert set(installation.children()) == PARTS


@pytest.mark.parametrize(
    "name", ["desk", "metrics", "player", "launcher", "code server", "daemon", "webserver", "kafka", "postgres"]
)
def test_a_killed_part_comes_back(installation: Installation, name: str) -> None:
    killed = installation.children()[name]
    os.kill(killed.pid, signal.SIGKILL)

    def is_back() -> bool:
        now = installation.children().get(name)
        return now is not None and now != killed

    assert eventually(is_back, 120), installation.said()
    assert f"{name} ended by SIGKILL; it is started again" in installation.said()


def test_after_all_that_everything_answers(installation: Installation) -> None:
    endpoints = installation.endpoints()

    def answers() -> bool:
        try:
            with psycopg.connect(endpoints.database_url):
                return requests.get(f"{endpoints.dagster_url}/server_info", timeout=5).ok
        except (psycopg.Error, requests.RequestException):
            return False

    assert eventually(answers, 60)
    assert eventually(lambda: set(installation.children()) == PARTS, 120)


def test_a_killed_supervisor_leaves_its_children_and_the_next_start_replaces_them(
    installation: Installation,
) -> None:
    assert installation.process is not None
    orphans = installation.children()
    cluster_id = (installation.home.path / "kafka" / "cluster_id").read_text()
    ports = installation.home.remembered()["ports"]
    installation.process.kill()
    installation.process.wait()
    assert installation.liq("sql", "SELECT 1").returncode == 2  # the addresses of the dead are not believed
    assert orphans["postgres"].is_alive

    installation.start()
    assert wait_until_gone(orphans.values(), 1) == []
    assert "an earlier `liq up` on this home was killed" in installation.said()
    assert installation.home.remembered()["ports"] == ports
    assert (installation.home.path / "kafka" / "cluster_id").read_text() == cluster_id
    assert eventually(lambda: set(installation.children()) == PARTS, 60)


def test_ctrl_c_stops_everything_cleanly_and_leaves_no_process_behind(installation: Installation) -> None:
    assert installation.process is not None
    children = list(installation.children().values())
    strays = installation.home.strays()
    installation.process.send_signal(signal.SIGINT)
    assert installation.process.wait(120) == 0
    assert wait_until_gone([*children, *strays], 1) == []
    assert installation.home.strays() == []
    assert not installation.home.runtime_path.exists()
    assert read_json(installation.home.path / "processes.json") == {}
    assert all(port_is_free(port) for port in installation.home.remembered()["ports"].values())
    assert "stopped" in installation.said().splitlines()[-1]
    log = (installation.home.logs / "postgres.log").read_text()
    assert "database system is shut down" in log.splitlines()[-1]
