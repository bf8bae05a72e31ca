"""A whole installation is copied while it works, its home is wiped, and it goes on from the copy."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from liq_pipeline.backup import manifest
from liq_pipeline.runtime.endpoints import resolve
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.settings import Settings

pytestmark = [pytest.mark.xdist_group("liq-up"), pytest.mark.timeout(900)]

START_SECONDS = 240  # a bound for a crowded machine, not a promise
OBSERVATIONS = ("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations", "stablecoin_flows")


class Installation:
    """A home, its ports, and the `liq up` on it."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.output = folder / "output"
        self.ports: dict[str, int] = {}
        for name in ("postgres", "kafka", "dagster", "code_server", "metrics", "web"):
            self.ports[name] = free_port(taken=self.ports.values())
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        given = {**os.environ, "LIQ_HOME": str(self.home.path), "COINGECKO_API_KEY": "a key with $ and '"}
        given["LIQ_SYMBOLS"] = "BTC"  # the history of a second coin would be copied and compared to no purpose
        return given | {f"LIQ_{name.upper()}_PORT": str(port) for name, port in self.ports.items()}

    def liq(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "liq_pipeline.cli", *arguments],
            env=self.environment(), cwd=self.output.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def start(self) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "liq_pipeline.cli", "up", "--mode", "simulated"],
                env=self.environment(), cwd=self.output.parent, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        wait_for(lambda: "up: the desk at" in self.output.read_text() or self.process_ended(), self.output.read_text)
        assert not self.process_ended(), self.output.read_text()

    def process_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(120) == 0, self.output.read_text()

    def select(self, query: str) -> list[tuple[Any, ...]]:
        url = resolve(Settings(home=self.home.path)).database_owner_url
        assert url is not None
        with psycopg.connect(url) as conn:
            return conn.execute(query.encode()).fetchall()


def wait_for(condition: Callable[[], bool], said: Callable[[], str], seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.2)


@pytest.fixture
def installation() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="liq-backup-"))
    folder.chmod(0o711)
    made = Installation(folder)
    yield made
    if not made.process_ended():
        made.stop()
    for left in made.home.noted_processes().values():
        psutil.Process(left.pid).kill()
    shutil.rmtree(folder, ignore_errors=True)


def stopped(home: Path) -> Iterator[str]:
    """The URL of a stopped installation's database, while it is looked at."""
    server = EmbeddedPostgres(home, free_port())
    server.start()
    try:
        yield server.url("liq")
    finally:
        server.stop()


def row_sums(url: str, table: str) -> list[str]:
    with psycopg.connect(url) as conn:
        return [row[0] for row in conn.execute(f"SELECT md5(t::text) FROM {table} AS t".encode())]  # noqa: S608


def test_a_working_installation_is_copied_wiped_and_goes_on(installation: Installation) -> None:
    copy = installation.output.parent / "copy"
    installation.start()
    ticks = "SELECT count(*) FROM ticks"
    wait_for(lambda: installation.select(ticks)[0][0] >= 4, installation.output.read_text)
    before = installation.select(ticks)[0][0]
    done = installation.liq("backup", str(copy))
    assert done.returncode == 0, done.stderr
    assert "It holds passwords and keys" in done.stdout
    made = manifest.read(copy)
    assert made.everything_landed
    assert made.rows["ticks"] >= before
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in copy.rglob("*") if path.is_file())
    shown = subprocess.run(
        ["sh", "-c", f". {copy}/home/settings.env; printf %s \"$COINGECKO_API_KEY\""],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout == "a key with $ and '"
    # It works on, and what it does after the copy is not part of it.
    now = installation.select(ticks)[0][0]
    wait_for(lambda: installation.select(ticks)[0][0] > now, installation.output.read_text)
    installation.stop()

    source = {}
    for url in stopped(installation.home.path):
        source = {table: set(row_sums(url, table)) for table in OBSERVATIONS}
    former = (installation.home.path / "postgres" / "roles" / "liq_writer").read_text()
    shutil.rmtree(installation.home.path)
    done = installation.liq("restore", str(copy))
    assert done.returncode == 0, done.stderr
    assert (installation.home.path / "postgres" / "roles" / "liq_writer").read_text() == former
    for url in stopped(installation.home.path):
        for table in OBSERVATIONS:
            back = row_sums(url, table)
            assert len(back) == made.rows[table]
            assert set(back) <= source[table], f"{table}: a row came back that was never there"

    installation.start()
    wait_for(lambda: installation.select(ticks)[0][0] > made.rows["ticks"] + 2, installation.output.read_text)
    for table in OBSERVATIONS:
        # Every row that was restored is there, once: keys are unique, and nothing was landed a second time.
        assert installation.select(f"SELECT count(*) FROM {table}")[0][0] >= made.rows[table]  # noqa: S608
    assert installation.select("SELECT count(*) FROM dead_letters")[0][0] == made.rows["dead_letters"]
    assert installation.select("SELECT count(*) FROM row_conflicts")[0][0] == made.rows["row_conflicts"]
    # The broker is a new one, and the hole between copy and restore is told, topic by topic.
    gaps = installation.select("SELECT cause FROM ingest_gaps")
    assert len(gaps) == made.rows["ingest_gaps"] + 6
    assert all(f"Kafka cluster {made.kafka_cluster_id} was replaced" in cause for (cause,) in gaps)
    kept = set(installation.select("SELECT cluster_id, topic, kafka_partition, next_offset FROM consumer_offsets"))
    assert {(o.cluster_id, o.topic, o.kafka_partition, o.next_offset) for o in made.offsets} <= kept
    second = installation.liq("backup", str(installation.output.parent / "second"))
    assert second.returncode == 0, second.stderr
    refused = installation.liq("restore", str(copy))
    assert refused.returncode == 2
    assert "is running on" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
