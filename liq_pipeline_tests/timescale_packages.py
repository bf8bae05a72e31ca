"""A real TimescaleDB (Apache edition) for the tests, from Debian's packages, without root and without Docker.

Belongs here: getting the binaries and the server they make, with the program's own EmbeddedPostgres. Does not: tests.

The packages are those of Debian 13. They are fetched through a private apt root, from the mirror that this machine's
own apt uses and signed by Debian's keyring, unpacked into the shared cache, and run by the C library they were built
for: each binary stands behind a small wrapper that calls that library's own loader.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from filelock import FileLock

from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.kafka_jars import cache_directory
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres

SUITE: Final = "trixie"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
BIN: Final = Path("usr/lib/postgresql/17/bin")
PACKAGES: Final = (
    "postgresql-17",
    "postgresql-17-timescaledb",
    "libc6",
    "libc-bin",
    "tzdata",
    "libgcc-s1",
    "libstdc++6",
    "libtinfo6",
    "libreadline8t64",
    "libpq5",
    "libldap2",
    "libsasl2-2",
    "libssl3t64",
    "libpam0g",
    "libaudit1",
    "libcap-ng0",
    "libcap2",
    "libsystemd0",
    "libgssapi-krb5-2",
    "libkrb5-3",
    "libkrb5support0",
    "libk5crypto3",
    "libcom-err2",
    "libkeyutils1",
    "libicu76",
    "libxml2",
    "liblzma5",
    "liblz4-1",
    "libzstd1",
    "zlib1g",
    "libxxhash0",
)
KEPT: Final = ("usr/lib/postgresql", "usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/share/postgresql")

_WRAPPER: Final = """\
#!/bin/sh
bin=$(dirname "$0")
root=$(cd "$bin/../../../../.." && pwd)
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --inhibit-cache \\
    --library-path "$root/usr/lib/x86_64-linux-gnu" --argv0 "$0" "$bin/real/$(basename "$0")" "$@"
"""


class TimescaleUnavailableError(Exception):
    """This machine cannot have it; the sentence says why."""


def timescale_server(home: Path, settings: Mapping[str, str] | None = None) -> EmbeddedPostgres:
    """A server of its own in home, not started yet. TimescaleUnavailableError where this machine cannot have it."""
    root = timescale_root()
    if os.geteuid() == 0:
        # The cache lies in root's own home, where the server's user may not look.
        root = Path(shutil.copytree(root, home / "root", symlinks=True))
    preloaded = {
        **(settings or {}),
        "shared_preload_libraries": "timescaledb",
        "timescaledb.telemetry_level": "off",
        "max_worker_processes": "32",  # each database with the extension keeps a scheduler
    }
    return EmbeddedPostgres(home, free_port(), binaries=root / BIN, settings=preloaded)


def timescale_root() -> Path:
    """The folder with usr/lib/postgresql/17/bin and all libraries; fetched at the first call, then kept.

    TimescaleUnavailableError where Debian packages cannot be had or run.
    """
    target = cache_directory() / "timescaledb"
    target.mkdir(parents=True, exist_ok=True)
    with FileLock(target / ".lock"):
        root = target / "root"
        if not (root / ".complete").is_file():
            _require_debian()
            shutil.rmtree(root, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=target) as scratch:
                _fetch(Path(scratch))
                _unpack(Path(scratch), root)
            (root / ".complete").touch()
        return root


def _require_debian() -> None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise TimescaleUnavailableError("TimescaleDB is tested on Linux x86-64 only")
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing or not KEYRING.is_file():
        raise TimescaleUnavailableError("TimescaleDB comes from Debian's packages, and this is no Debian")


def _mirrors() -> list[str]:
    """The sources.list lines for SUITE, on the mirrors that this machine's own apt uses."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found: dict[str, str] = {}
    for line in listed.splitlines():
        uri, _, release = line.partition(" ")
        path = uri.rstrip("/")
        if path.endswith("-security") and release.endswith("-security"):
            found.setdefault(f"{SUITE}-security", uri)
        elif path.endswith("/debian"):
            found.setdefault(SUITE, uri)
    if SUITE not in found:
        raise TimescaleUnavailableError("this machine's apt names no Debian mirror to fetch TimescaleDB from")
    return [f"deb [signed-by={KEYRING}] {uri} {suite} main" for suite, uri in found.items()]


def _fetch(scratch: Path) -> None:
    for folder in ("state/lists/partial", "cache/archives/partial", "etc/parts", "packages"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "state/status").touch()
    (scratch / "etc/sources.list").write_text("\n".join(_mirrors()) + "\n")
    (scratch / "apt.conf").write_text(
        f'Dir::State "{scratch}/state";\n'
        f'Dir::State::status "{scratch}/state/status";\n'
        f'Dir::Cache "{scratch}/cache";\n'
        f'Dir::Etc::sourcelist "{scratch}/etc/sources.list";\n'
        f'Dir::Etc::sourceparts "{scratch}/etc/parts";\n'
        f'Dir::Etc::preferencesparts "{scratch}/etc/parts";\n'
        'APT::Architecture "amd64";\n'
        'APT::Sandbox::User "";\n'  # as root, apt would drop to a user that cannot write here
        'Acquire::Retries "3";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(scratch / "apt.conf")}
    for command in (["apt-get", "update"], ["apt-get", "download", *PACKAGES]):
        done = subprocess.run(
            command,
            cwd=scratch / "packages",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            words = " ".join(line for line in done.stderr.splitlines() if line.startswith("E:"))
            raise TimescaleUnavailableError(f"Debian's packages of TimescaleDB cannot be fetched: {words}")


def _unpack(scratch: Path, root: Path) -> None:
    everything = scratch / "everything"
    for package in sorted((scratch / "packages").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(everything)], check=True, capture_output=True)
    root.mkdir()
    for kept in KEPT:
        (root / kept).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(everything / kept, root / kept)
    shutil.rmtree(root / "usr/lib/postgresql/17/lib/bitcode", ignore_errors=True)
    real = root / BIN / "real"
    real.mkdir()
    for name in ("postgres", "initdb"):
        (root / BIN / name).rename(real / name)
        (root / BIN / name).write_text(_WRAPPER)
        (root / BIN / name).chmod(0o755)
