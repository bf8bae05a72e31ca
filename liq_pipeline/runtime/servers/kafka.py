"""A real Apache Kafka broker of our own: one node (KRaft), loopback only, capped memory.

Belongs here: making, starting and stopping the broker. Does not: topics (bus/topics.py), clients (bus/).
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from rich.console import Console

from liq_pipeline.bus.topics import PARTITIONS, RETENTION_DAYS
from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.files import read_json, write_atomically, write_json
from liq_pipeline.runtime.processes import ProcessIdentity, dying_with_us, end, free_port, last_lines, refuse_taken_port
from liq_pipeline.runtime.servers.java import find_java
from liq_pipeline.runtime.servers.kafka_jars import ensure_jars

MEMORY_MB: Final = 256

_LOG4J2 = """\
# Written at every start. Standard output only: whoever started the broker keeps and rotates its log.
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSS'Z'}{UTC} %-5p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


def new_cluster_id(make: Callable[[], uuid.UUID] = uuid.uuid4) -> str:
    """A random id in Kafka's form (22 characters of URL-safe base 64).

    Never with a leading dash: Kafka's own formatter takes such an id for an option, and one start in 64 failed.
    """
    while True:
        cluster_id = base64.urlsafe_b64encode(make().bytes).decode().rstrip("=")
        if not cluster_id.startswith("-"):
            return cluster_id


class EmbeddedKafka:
    """One broker with everything it owns under home/kafka.

    home: the LIQ_HOME in force, created if missing. port: loopback TCP port of the clients. memory_mb: heap.
    controller_port: loopback port of the KRaft controller, a free one by default (nobody else needs to know it).
    dies_with_us: the broker does not outlive the thread that starts it, even if that is killed (Linux only).
    """

    def __init__(
        self,
        home: Path,
        port: int,
        memory_mb: int = MEMORY_MB,
        *,
        controller_port: int | None = None,
        log_path: Path | None = None,
        console: Console | None = None,
        dies_with_us: bool = False,
    ) -> None:
        self.directory = home / "kafka"
        self.port = port
        self.memory_mb = memory_mb
        self.data = self.directory / "data"
        self.log_path = log_path or home / "logs" / "kafka.log"
        self._controller_port = controller_port
        self._console = console
        self._dies_with_us = dies_with_us
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def identity(self) -> ProcessIdentity | None:
        return None if self._process is None else ProcessIdentity.of(self._process.pid)

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def bootstrap_servers(self) -> str:
        """127.0.0.1:<port>"""
        return f"127.0.0.1:{self.port}"

    @property
    def cluster_id(self) -> str:
        """Made once and kept in the home: offsets in the database belong to it."""
        path = self.directory / "cluster_id"
        if not path.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(path, new_cluster_id() + "\n")
        return path.read_text().strip()

    def start(self, timeout_seconds: float = 90) -> None:
        """Start the broker and wait until it answers; fetch its jars and format its log directory first if needed.

        A broker of this home that a killed predecessor left behind is stopped first.
        LiqError with the broker's own last words if it does not come up.
        """
        if self.is_running:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.stop_orphan()
        refuse_taken_port(self.port, "Kafka")
        java, classpath = find_java(), os.pathsep.join(str(jar) for jar in ensure_jars(console=self._console))
        self._write_configuration()
        if not (self.data / "meta.properties").is_file():
            self._format(java, classpath)
        self._process = self._spawn(java, classpath)
        identity = self.identity
        if identity is not None:
            write_json(self.directory / "broker.json", {"pid": identity.pid, "started_at": identity.started_at})
        if not self._wait_until_it_answers(time.monotonic() + timeout_seconds):
            self.stop()
            words = last_lines(self.log_path, 2, holding=("ERROR", "FATAL", "Exception"))
            raise LiqError(f"Kafka did not start on port {self.port}: {words} (log: {self.log_path})")

    def stop(self, timeout_seconds: float = 30) -> None:
        """Clean shutdown by SIGTERM; killed after timeout_seconds (the log is then recovered at the next start)."""
        process = self._process  # a failing start and the supervisor may both stop it
        if process is None:
            return
        identity = self.identity
        if identity is not None:
            end(identity, wait_seconds=timeout_seconds)
        process.wait(5)
        self._process = None
        (self.directory / "broker.json").unlink(missing_ok=True)

    def stop_orphan(self) -> None:
        """A broker of this home that a killed predecessor left behind: stop it."""
        left = read_json(self.directory / "broker.json")
        if left is None:
            return
        end(
            ProcessIdentity(int(left["pid"]), float(left["started_at"])),
            wait_seconds=30,
            first=signal.SIGTERM,
        )

    # -- internals ---------------------------------------------------------------------------------------------

    def _write_configuration(self) -> None:
        controller_port = self._controller_port or free_port(taken=[self.port])
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "listeners": f"CLIENTS://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"CLIENTS://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "CLIENTS",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.data),
            "auto.create.topics.enable": "false",  # a misspelt topic must be an error, not a new topic
            "num.partitions": str(PARTITIONS),
            "default.replication.factor": "1",
            "min.insync.replicas": "1",
            "log.message.timestamp.type": "LogAppendTime",  # the broker's word for when a message came in
            "log.retention.hours": str(24 * RETENTION_DAYS),
            "log.segment.bytes": str(128 * 1024 * 1024),  # retention works by whole segments
            "log.roll.hours": "24",
            "log.flush.interval.ms": "1000",  # one node has no replica: a power cut may cost a second, not minutes
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",  # our offsets live in the database
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "group.initial.rebalance.delay.ms": "0",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),  # the default of 128 MB is a third of the heap
            "metadata.log.max.snapshot.interval.ms": "3600000",
        }
        text = "".join(f"{name}={value}\n" for name, value in properties.items())
        write_atomically(self.directory / "server.properties", text)
        write_atomically(self.directory / "log4j2.properties", _LOG4J2)

    def _format(self, java: str, classpath: str) -> None:
        """Write the cluster id into an empty log directory; a half-written one of a killed start is made anew."""
        if self.data.exists():
            # Without meta.properties nothing was ever appended: the broker refuses to run on it.
            shutil.rmtree(self.data)
        self.data.mkdir(mode=0o700)
        done = subprocess.run(
            [
                *(java, "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}",
                *("-cp", classpath, "kafka.tools.StorageTool", "format"),
                *("-t", self.cluster_id, "-c", str(self.directory / "server.properties")),
            ],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise LiqError(f"Kafka could not format its log directory {self.data}: {''.join(words)}")

    def _spawn(self, java: str, classpath: str) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [
                    # The whole heap from the start: the serial collector lets it grow to its cap within hours before
                    # it looks for garbage among what is old, which would read as a leak for as long.
                    *(java, f"-Xms{self.memory_mb}m", f"-Xmx{self.memory_mb}m", "-XX:+AlwaysPreTouch"),
                    # A small heap on two cores: the serial collector and the quick compiler cost least (3.3 instead
                    # of 5.3 CPU-s for a start, 50 MB less memory). Out of memory must be a visible death (the
                    # supervisor starts it again), not a broker that half works.
                    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"),
                    "-Djava.awt.headless=true",
                    f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}",
                    *("-cp", classpath, "kafka.Kafka", str(self.directory / "server.properties")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
                preexec_fn=dying_with_us(signal.SIGTERM) if self._dies_with_us else None,
            )

    def _wait_until_it_answers(self, deadline: float) -> bool:
        while self.is_running and time.monotonic() < deadline:
            if not self._is_listening():
                time.sleep(0.05)
                continue
            try:
                client = KafkaAdminClient(
                    bootstrap_servers=self.bootstrap_servers,
                    client_id="liq-up",
                    request_timeout_ms=5_000,
                    bootstrap_timeout_ms=2_000,
                )
            except KafkaError:
                time.sleep(0.1)
                continue
            try:
                answered = client.describe_cluster()
            except KafkaError:
                time.sleep(0.1)
                continue
            finally:
                client.close()
            # Another broker may hold the port: ours is known by its cluster id.
            return str(answered.get("cluster_id")) == self.cluster_id
        return False

    def _is_listening(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False
