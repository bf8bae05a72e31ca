"""The broker's jars: fetched once by their Maven coordinates, checked against committed checksums, shared by all homes.

Belongs here: the lock file, the cache, the download. Does not: running the broker.

`python -m liq_pipeline.runtime.servers.kafka_jars` resolves COORDINATES afresh and rewrites the lock; nothing else
does. A start never resolves anything: the lock is the resolution.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from liq_pipeline.errors import LiqError

COORDINATES: Final = (
    "org.apache.kafka:kafka_2.13:4.3.1",  # the newest that kafka-python 3.0 knows
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",  # Kafka logs through slf4j 1.7; without a binding, nowhere
)
LOCK: Final = Path(__file__).with_name("kafka_jars.lock")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LockedJar:
    """One line of the lock."""

    coordinate: str
    """group:artifact:version"""
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def cache_directory() -> Path:
    """$XDG_CACHE_HOME/liq_pipeline or ~/.cache/liq_pipeline: downloads that every home and every test share."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "liq_pipeline"


@cache
def locked_jars() -> tuple[LockedJar, ...]:
    """The lock's lines. LiqError if the file was damaged."""
    jars = []
    for number, line in enumerate(LOCK.read_text().splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        parts = line.split()
        if len(parts) != 3 or parts[0].count(":") != 2 or len(parts[1]) != 64 or not parts[2].isdigit():
            raise LiqError(f"line {number} of {LOCK} is not `group:artifact:version sha256 bytes`: restore the file")
        jars.append(LockedJar(parts[0], parts[1], int(parts[2])))
    return tuple(jars)


def ensure_jars(directory: Path | None = None, console: Console | None = None) -> list[Path]:
    """The paths of all jars, every one checked against the lock; what is missing or damaged is fetched.

    directory: where they are kept (default: cache_directory()/kafka). Safe for several processes at once.
    LiqError, in one sentence, if something is missing and cannot be had, or does not match its checksum.
    """
    target = directory or cache_directory() / "kafka"
    target.mkdir(parents=True, exist_ok=True)
    jars = locked_jars()
    wanted = [jar for jar in jars if not _is_verified(target / jar.file_name, jar)]
    if wanted:
        with FileLock(target / ".lock"):
            # Another process may have fetched them while this one waited for the lock.
            wanted = [jar for jar in wanted if not _is_verified(target / jar.file_name, jar)]
            if wanted:
                _fetch(wanted, target, console or Console(stderr=True))
    return [target / jar.file_name for jar in jars]


def _is_verified(path: Path, jar: LockedJar) -> bool:
    return path.is_file() and path.stat().st_size == jar.size_bytes and _sha256(path) == jar.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(jars: list[LockedJar], target: Path, console: Console) -> None:
    import requests
    from jgo.maven import MavenContext, PythonResolver

    total = sum(jar.size_bytes for jar in jars)
    with (
        tempfile.TemporaryDirectory(dir=target, prefix="download-") as scratch,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
        ) as progress,
    ):
        task = progress.add_task(f"Apache Kafka, {len(jars)} jars, once", total=total)
        if not console.is_terminal:
            console.print(f"Downloading Apache Kafka: {len(jars)} jars, {total / 1e6:.0f} MB (once).")

        @contextmanager
        def counted(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
            yield lambda received: progress.advance(task, received)

        context = MavenContext(
            resolver=PythonResolver(progress_callback=counted),
            repo_cache=Path(scratch),
            local_repos=[_local_maven_repository()],
            timeout=30,
        )

        def fetch(jar: LockedJar) -> None:
            group, artifact, version = jar.coordinate.split(":")
            found = Path(context.project(group, artifact).at_version(version).artifact().resolve())
            digest = _sha256(found)
            if digest != jar.sha256:
                raise LiqError(
                    f"{jar.file_name} from the Maven repository has checksum {digest}, but {LOCK.name} says "
                    f"{jar.sha256}: it was changed on the way, so it is not used; try again from another network"
                )
            ready = target / f".{jar.file_name}.{os.getpid()}"
            shutil.copyfile(found, ready)
            ready.replace(target / jar.file_name)

        try:
            with ThreadPoolExecutor(max_workers=6) as pool:
                for _ in pool.map(fetch, jars):
                    pass
        except requests.exceptions.SSLError as error:
            raise LiqError(
                f"Apache Kafka's jars are not in {target} yet and the Maven repository's certificate is not trusted "
                "here: set REQUESTS_CA_BUNDLE to the file with your network's certificates"
            ) from error
        except (requests.RequestException, RuntimeError, OSError) as error:
            _log.debug("download failed", exc_info=error)
            raise LiqError(
                f"Apache Kafka's jars are not in {target} yet and the Maven repository could not be reached "
                f"({type(error).__name__}): connect this machine once, or give the address of a running broker in "
                "LIQ_KAFKA_BOOTSTRAP_SERVERS"
            ) from error


def _local_maven_repository() -> Path:
    """What Maven already has on this machine; read only, checked like everything else."""
    return Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")


def write_lock() -> int:
    """Resolve COORDINATES, download every jar, write names, checksums and sizes to the lock; the number of jars."""
    from jgo.maven import MavenContext
    from jgo.parse import Coordinate

    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch), timeout=60)
        dependencies = []
        for text in COORDINATES:
            group, artifact, version = text.split(":")
            dependencies.append(
                context.create_dependency(Coordinate(group, artifact, version, scope="compile", raw=True))
            )
        inputs, transitive = context.resolver.resolve(dependencies)
        needed = [item.artifact for item in inputs]
        needed += [item.artifact for item in transitive if item.scope in ("compile", "runtime")]
        lines = set()
        for jar in needed:
            path = Path(jar.resolve())
            coordinate = f"{jar.groupId}:{jar.artifactId}:{jar.version}"
            lines.add(f"{coordinate} {_sha256(path)} {path.stat().st_size}")
    header = [
        "# Every jar of the embedded broker: coordinate, sha256, bytes.",
        "# Refresh: python -m liq_pipeline.runtime.servers.kafka_jars",
    ]
    LOCK.write_text("\n".join([*header, *sorted(lines)]) + "\n")
    return len(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{write_lock()} jars locked in {LOCK}\n")
