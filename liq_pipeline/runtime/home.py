"""LIQ_HOME: one installation's folder, who holds it, and what it remembers between starts.

Belongs here: the layout, the lock, remembered ports and choices, the list of processes in force. Does not: starting
or stopping any of them (supervisor.py).

    LIQ_HOME/
      postgres/ kafka/        the embedded servers' own folders
      dagster/                DAGSTER_HOME
      logs/                   one log per process, rotated
      installation.json       what a start chose and the next one keeps: ports, mode, whether it was ever live
      runtime.json            the addresses in force (0600), there while `liq up` runs
      processes.json          pid and start time of everything `liq up` started
      up.lock                 held by the running `liq up`
      restore.unfinished      a `liq restore` has begun here and not ended
      supervisor.alive        touched every few seconds by the supervisor while it can start dead parts again
      alive/                  the same for parts that cannot be asked, and for the newest tick (liveness.py)
      blind.json              that people were told of a blind monitor, until they are told that it sees (watchdog.py)
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.files import read_json, write_json
from liq_pipeline.runtime.processes import ProcessIdentity, free_port

SUPERVISED_HOME: Final = "LIQ_SUPERVISED_HOME"
"""Set in everything `liq up` starts: descendants that left their parent's session are still known by it."""

SUPERVISOR_SILENCE_SECONDS: Final = 20.0
"""A supervisor that has not moved for this long is stopped, hung or dead: four of its steps (supervisor.py)."""


class Home:
    """One LIQ_HOME. Making the object touches nothing; prepare() makes the folders."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock = FileLock(self.path / "up.lock")

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def dagster(self) -> Path:
        return self.path / "dagster"

    @property
    def runtime_path(self) -> Path:
        return self.path / "runtime.json"

    def prepare(self) -> None:
        """Make the folders. LiqError if this user may not write there."""
        try:
            for folder in (self.path, self.logs, self.dagster, self.path / "alive"):
                folder.mkdir(parents=True, exist_ok=True)
            (self.path / ".writable").touch()
            (self.path / ".writable").unlink()
        except OSError as error:
            reason = "it is a file, no folder" if self.path.is_file() else error.strerror
            raise LiqError(
                f"the home {self.path} cannot be written ({reason}): choose another folder in LIQ_HOME"
            ) from error

    @property
    def unfinished_path(self) -> Path:
        return self.path / "restore.unfinished"

    def refuse_unfinished(self) -> None:
        """LiqError if a restore into this home was cut short."""
        if self.unfinished_path.exists():
            raise LiqError(
                f"a restore into {self.path} was cut short and what is there is not whole: remove that folder (and "
                "empty the database, if it is your own), then run `liq restore` again"
            )

    # -- who holds it ------------------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Hold this home until release() or the end of this process. LiqError naming the holder if another does."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            holder = (read_json(self.path / "holder.json") or {}).get("pid", "unknown")
            raise LiqError(
                f"`liq up` is already running on {self.path} (pid {holder}): stop it first, or choose another LIQ_HOME"
            ) from None
        identity = ProcessIdentity.of(os.getpid())
        started_at = identity.started_at if identity else 0.0
        write_json(self.path / "holder.json", {"pid": os.getpid(), "started_at": started_at})

    def release(self) -> None:
        """Let go; harmless if it is not held."""
        if self._lock.is_locked:
            (self.path / "holder.json").unlink(missing_ok=True)
            self._lock.release()

    def holder(self) -> ProcessIdentity | None:
        """The running `liq up` of this home, None if there is none."""
        noted = read_json(self.path / "holder.json")
        if noted is None:
            return None
        identity = ProcessIdentity(int(noted["pid"]), float(noted["started_at"]))
        return identity if identity.is_alive else None

    # -- whether its supervisor moves --------------------------------------------------------------------------

    @property
    def stamp_path(self) -> Path:
        return self.path / "supervisor.alive"

    def alive_path(self, name: str) -> Path:
        """The stamp of a part that says by it that it moves, or of the newest tick."""
        return self.path / "alive" / name

    def stamp(self) -> None:
        """The supervisor moves."""
        self.stamp_path.touch()

    def supervisor_silence_seconds(self) -> float | None:
        """Since the supervisor last moved; None where none has been (servers run by something else) or it has ended
        in good order."""
        try:
            return max(0.0, time.time() - self.stamp_path.stat().st_mtime)
        except FileNotFoundError:
            return None

    # -- what it remembers -------------------------------------------------------------------------------------

    def remembered(self) -> dict[str, Any]:
        return read_json(self.path / "installation.json") or {}

    def remember(self, **values: Any) -> None:
        """Keep values for the next start, beside what is already kept."""
        write_json(self.path / "installation.json", {**self.remembered(), **values})

    def choose_ports(self, preferred: dict[str, int], *, asked: Collection[str] = ()) -> dict[str, int]:
        """A free loopback port for each name, the same as last time wherever that is still free.

        preferred: name -> port; tried after the remembered one, and before it for the names in `asked`: what a person
        sets holds at the next start. All results differ.
        """
        kept: dict[str, int] = self.remembered().get("ports", {})
        chosen: dict[str, int] = {}
        for name, default in preferred.items():
            order = (default, kept.get(name)) if name in asked else (kept.get(name), default)
            wanted = [port for port in order if port is not None]
            taken = [*chosen.values(), *(port for other, port in kept.items() if other != name)]
            for port in wanted:
                if free_port(port, taken=chosen.values()) == port:
                    chosen[name] = port
                    break
            else:
                chosen[name] = free_port(taken=taken)
        self.remember(ports={**kept, **chosen})
        return chosen

    # -- what it started ---------------------------------------------------------------------------------------

    def note_processes(self, processes: dict[str, ProcessIdentity]) -> None:
        """Write down everything that runs, so that a start after a kill -9 finds it."""
        write_json(
            self.path / "processes.json",
            {name: {"pid": item.pid, "started_at": item.started_at} for name, item in processes.items()},
        )

    def noted_processes(self) -> dict[str, ProcessIdentity]:
        """What an earlier `liq up` noted and is still alive."""
        noted = {
            name: ProcessIdentity(int(item["pid"]), float(item["started_at"]))
            for name, item in (read_json(self.path / "processes.json") or {}).items()
        }
        return {name: identity for name, identity in noted.items() if identity.is_alive}

    def strays(self, *, known: Iterable[int] = ()) -> list[ProcessIdentity]:
        """Live processes that carry this home's mark (see SUPERVISED_HOME), except known, ourselves and our parents."""
        import psutil

        ours = {os.getpid(), *known, *(parent.pid for parent in psutil.Process().parents())}
        found = []
        for process in psutil.process_iter():
            if process.pid in ours:
                continue
            try:
                marked = process.environ().get(SUPERVISED_HOME) == str(self.path)
            except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                continue
            identity = ProcessIdentity.of(process.pid) if marked else None
            if identity is not None:
                found.append(identity)
        return found


def supervisor_moves() -> bool:
    """Whether the supervisor that this process stands under could start a dead part again; True under none."""
    path = os.environ.get(SUPERVISED_HOME)
    silence = None if path is None else Home(Path(path)).supervisor_silence_seconds()
    return silence is None or silence <= SUPERVISOR_SILENCE_SECONDS
