"""pg_dump and pg_restore: which ones fit a server, and running them with progress.

Belongs here: finding, starting and understanding the two programs. Does not: what is dumped, or into what.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.servers.postgres import find_binaries

_TABLE: Final = re.compile(r'(?:dumping contents of|processing data for) table "([^"]+)"')
_KEPT_LINES: Final = 200
_HARMLESS: Final = ('unrecognized configuration parameter "transaction_timeout"',)
"""What pg_restore 17 and newer say to a server older than 17. Nothing depends on it."""


def directory_for(major: int) -> Path:
    """A folder with pg_dump and pg_restore for a server of this major version: the same or a newer one.

    LiqError if this machine has none.
    """
    for directory in _installed():
        if all((directory / name).is_file() for name in ("pg_dump", "pg_restore")) and _major(directory) >= major:
            return directory
    raise LiqError(
        f"the server is PostgreSQL {major}, and this machine has no pg_dump of version {major} or newer: install the "
        f"client programs of PostgreSQL {major}"
    )


def _installed() -> list[Path]:
    """Ours first: a dump is read by the same version that wrote it, wherever it is restored."""
    found = sorted(
        (path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()),
        key=lambda path: int(path.parent.name),
        reverse=True,
    )
    on_path = shutil.which("pg_dump")
    if on_path is not None:
        found.append(Path(on_path).parent)
    try:
        return [find_binaries(), *found]
    except LiqError:
        return found


def _major(directory: Path) -> int:
    said = subprocess.run([directory / "pg_dump", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"(\d+)(\.|beta|rc|devel)", said)
    return 0 if match is None else int(match[1])


def run(
    program: Path,
    database_url: str,
    arguments: Sequence[str],
    *,
    at_table: Callable[[str], None],
    ignore: Collection[str] = _HARMLESS,
) -> None:
    """Run pg_dump or pg_restore on a database. Files that it makes are its owner's alone.

    at_table: told each table ("public.prices") when its rows begin. ignore: errors that contain one of these texts do
    not count. LiqError with the program's own words if it failed.
    """
    parts = conninfo_to_dict(database_url.replace("postgresql+psycopg2://", "postgresql://", 1))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    environment |= {"LC_ALL": "C", "TZ": "UTC"}
    password = parts.pop("password", None)
    if password:
        # A command line is everybody's to read; an environment is not.
        environment["PGPASSWORD"] = str(password)
    target = make_conninfo("", **{name: value for name, value in parts.items() if value is not None})
    said: list[str] = []
    with subprocess.Popen(
        [program, "--verbose", f"--dbname={target}", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        umask=0o077,
    ) as process:
        assert process.stderr is not None  # noqa: S101 - asked for above
        try:
            for line in process.stderr:
                table = _TABLE.search(line)
                if table is not None:
                    at_table(table[1])
                said = [*said[1 - _KEPT_LINES :], line.strip()] if "error:" in line or "FATAL" in line else said
        except BaseException:
            process.terminate()
            raise
    wrong = [line for line in said if not any(text in line for text in ignore)]
    if process.returncode < 0 or wrong or (process.returncode != 0 and not said):
        words = wrong[0] if wrong else f"it ended with {process.returncode}"
        raise LiqError(f"{program.name} failed: {words}")


def tables_in(pg_restore: Path, dump: Path) -> list[str]:
    """ "schema.table" of every table whose rows the dump holds. LiqError if it cannot be read."""
    done = subprocess.run([pg_restore, "--list", dump], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LiqError(f"{dump} cannot be read: {' '.join(done.stderr.split())}")
    return [f"{found[1]}.{found[2]}" for found in re.finditer(r" TABLE DATA (\S+) (\S+) ", done.stdout)]
