"""Which files of a home a backup keeps: choices of earlier starts, passwords, and the settings in force.

Belongs here: the choice, copying with 0600. Does not: the servers' own data.

Kept are the files of the home's top folder (installation.json, simulation.json, database-roles.env ...) and the
passwords under postgres/. Left out is what belongs to one run (locks, addresses, process ids), and what is fetched or
made anew: server data, programs, logs, caches, Dagster's folder.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from liq_pipeline.runtime.files import write_atomically
from liq_pipeline.runtime.home import Home

SETTINGS_FILE: Final = "settings.env"
_OF_ONE_RUN: Final = frozenset(
    {"holder.json", "processes.json", "runtime.json", "supervisor.alive", "up.lock", "restore.unfinished"}
)
_PREFIXES: Final = ("LIQ_", "COINGECKO_", "ETHERSCAN_")
_OF_ONE_MACHINE: Final = frozenset({"LIQ_HOME", "LIQ_SUPERVISED_HOME", "LIQ_RUN_AS"})


def kept(home: Path) -> Iterator[Path]:
    """The files to keep, as paths below the home."""
    for path in sorted(home.glob("*")):
        name = path.name
        if path.is_file() and name not in _OF_ONE_RUN and not name.startswith((".", "zygote.sock")):
            yield path.relative_to(home)
    for pattern in ("postgres/password", "postgres/roles/*"):
        yield from (path.relative_to(home) for path in sorted(home.glob(pattern)) if path.is_file())


def settings_in_force(home: Home) -> str:
    """The settings of the running `liq up`, else our own, as a file that a shell can read. Holds keys.

    They come from the environment only: without this file a lost machine takes them with it.
    """
    environment: Mapping[str, str] = os.environ
    holder = home.holder()
    process = None if holder is None else holder.process()
    if process is not None:
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            environment = os.environ
    lines = [
        f"{name}={shlex.quote(value)}\n"
        for name, value in sorted(environment.items())
        if name.startswith(_PREFIXES) and name not in _OF_ONE_MACHINE
    ]
    return "# The settings that were in force. To use them: set -a; . THIS_FILE; set +a\n" + "".join(lines)


def copy(source: Path, target: Path) -> None:
    """Copy a small text file, 0600, in one step."""
    write_atomically(target, source.read_text())
