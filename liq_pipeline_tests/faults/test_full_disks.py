"""Disks that are really full: a small file system of their own for PostgreSQL's data, and for Kafka's.

Only root may mount one; elsewhere these tests are skipped, and test_landing_faults.py raises the server's own error.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.producer import PublishError, RecordProducer
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.runtime.supervisor import Part, RestartPolicy, Supervisor
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.landing_support import liquidation, select

PATIENT = RestartPolicy(limit=2, window_seconds=600, first_pause_seconds=0.5, patience_seconds=1)


class SmallDisk:
    """An ext4 file system in a file. Nothing on it but what a test puts there."""

    def __init__(self, image: Path, path: Path, megabytes: int) -> None:
        self.path = path
        self._ballast = path / "ballast"
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, capture_output=True)
        path.mkdir()
        subprocess.run(["mount", "-o", "loop", str(image), str(path)], check=True, capture_output=True)
        path.chmod(0o711)

    def fill(self) -> None:
        """Leave no block free."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096):
                block = bytes(size)
                try:
                    while file.write(block) == size:
                        pass
                except OSError:
                    continue

    def make_room(self) -> None:
        self._ballast.unlink()

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True, capture_output=True)


@pytest.fixture
def small_disk(new_home: Path) -> Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    if shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        pytest.skip("this machine has no mkfs.ext4 or no loop devices")
    disk = SmallDisk(new_home / "disk.image", new_home / "disk", megabytes=400)
    yield disk
    disk.unmount()


@pytest.fixture
def announced() -> list[str]:
    """What the supervisor tells the terminal."""
    return []


@pytest.fixture
def supervisor(new_home: Path, announced: list[str]) -> Iterator[Supervisor]:
    home = Home(new_home / "home")
    home.prepare()
    made = Supervisor(home, announced.append)
    yield made
    made.stop()


def eventually(condition: Callable[[], bool], what: str, seconds: float = 90, said: Sequence[str] = ()) -> None:
    """said: what the supervisor told, for whoever reads the failure."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds} s; told last: {said[-4:]}"
        time.sleep(0.05)


class Load:
    """Sends liquidations without pause; knows which were acknowledged and which may or may not have arrived."""

    def __init__(self, bootstrap_servers: str, prefix: str = "") -> None:
        self.acknowledged: set[str] = set()
        self.uncertain: set[str] = set()
        self._arguments = (bootstrap_servers, prefix)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            try:
                with RecordProducer(*self._arguments, delivery_timeout_seconds=4) as producer:
                    while not self._stop.wait(0.01):
                        group = [liquidation(n / 10, event_id=f"e{n}") for n in range(number, number + 50)]
                        number += 50
                        self.uncertain |= {record.event_id for record in group}
                        for record in group:
                            producer.send(record)
                        producer.flush(10)
                        self.uncertain -= {record.event_id for record in group}
                        self.acknowledged |= {record.event_id for record in group}
            except PublishError:
                self._stop.wait(0.2)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


class Worker:
    """`liq land` as a thread."""

    def __init__(self, *arguments: Any) -> None:
        self._stop = threading.Event()
        self._lander = Lander(*arguments, connect_timeout_seconds=5)
        self._thread = threading.Thread(target=self._lander.run, args=(self._stop,), daemon=True)

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread.is_alive(), "the worker gave up"
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._lander.close()


def landed(database_url: str) -> int:
    """Rows of liquidations; -1 while the server does not answer."""
    try:
        return int(select(database_url, "SELECT count(*) FROM liquidations")[0][0])
    except psycopg.Error:
        return -1


def fill_the_servers_log(database_url: str) -> None:
    """Write to PostgreSQL's own log until it needs more files. Raises what the server or its end says."""
    with connect(database_url) as conn:
        conn.autocommit = True
        for _ in range(20):
            conn.execute("SELECT pg_logical_emit_message(false, 'x', repeat('y', 1000000)), pg_switch_wal()")


def assert_nothing_lost(database_url: str, kafka_server: str, prefix: str, load: Load) -> None:
    with Lander(database_url, kafka_server, prefix) as lander:
        assert lander.land_to_end(120).reached_end
    rows = [row[0] for row in select(database_url, "SELECT event_id FROM liquidations")]
    assert len(rows) == len(set(rows))
    assert load.acknowledged <= set(rows) <= load.acknowledged | load.uncertain
    assert select(database_url, "SELECT count(*) FROM dead_letters") == [(0,)]


def test_postgresqls_full_disk_stops_landing_with_one_sentence_and_room_lets_it_go_on(
    small_disk: SmallDisk,
    supervisor: Supervisor,
    kafka_server: str,
    topic_prefix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="liq_pipeline.store.landing.lander")

    def said(words: str) -> int:
        return sum(words in record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)

    server = EmbeddedPostgres(small_disk.path, free_port(), settings={"max_wal_size": "64MB", "min_wal_size": "32MB"})
    supervisor.start([Part("PostgreSQL", server, rank=1, policy=PATIENT)])
    url = server.ensure_database("liq")
    migrate(url)
    with Load(kafka_server, topic_prefix) as load, Worker(url, kafka_server, topic_prefix):
        eventually(lambda: landed(url) > 500, "landing at work")

        # No room for a row: the server says so and lives on.
        small_disk.fill()
        eventually(lambda: said("disk is full: landing stands still, nothing is lost") > 0, "the sentence")
        before = landed(url)
        sent = len(load.acknowledged)
        eventually(lambda: len(load.acknowledged) > sent + 500, "Kafka taking on records meanwhile")
        assert landed(url) == before
        assert said("disk is full") == 1
        small_disk.make_room()
        eventually(lambda: landed(url) > before + 500, "landing going on")
        eventually(lambda: "landing goes on" in caplog.text, "saying so")

        # No room for the server's own log: it panics, and cannot start again before there is room.
        small_disk.fill()
        with pytest.raises(psycopg.OperationalError):
            fill_the_servers_log(url)
        eventually(lambda: said("PostgreSQL failed") > 0, "the sentence")
        before = len(load.acknowledged)
        small_disk.make_room()
        eventually(lambda: landed(url) > before, "landing going on after the panic")
    assert_nothing_lost(url, kafka_server, topic_prefix, load)


def test_kafkas_full_disk_costs_nothing_that_was_acknowledged_and_room_lets_it_go_on(
    small_disk: SmallDisk, supervisor: Supervisor, announced: list[str], database_url: str
) -> None:
    broker = EmbeddedKafka(small_disk.path, free_port(), memory_mb=192)
    supervisor.start([Part("Kafka", broker, rank=1, policy=PATIENT)])
    ensure_topics(broker.bootstrap_servers)
    with Load(broker.bootstrap_servers) as load, Worker(database_url, broker.bootstrap_servers):
        eventually(lambda: len(load.acknowledged) > 500, "Kafka taking on records")
        small_disk.fill()
        eventually(lambda: any("Kafka ended" in sentence for sentence in announced), "the broker's end")
        # A start on the full disk fails too, and is tried again.
        eventually(lambda: any("No space left" in sentence for sentence in announced), "a start without room")
        before = len(load.acknowledged)
        small_disk.make_room()
        eventually(lambda: len(load.acknowledged) > before + 500, "Kafka taking on records again", 180, announced)
        eventually(lambda: landed(database_url) > before + 500, "landing going on", 180, announced)
    assert_nothing_lost(database_url, broker.bootstrap_servers, "", load)
