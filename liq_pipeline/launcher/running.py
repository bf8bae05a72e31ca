"""The workers that run now, and the file that keeps them in mind when the zygote is replaced.

Belongs here: what is known of a worker, in memory, in the file, and in words. Does not: starting, watching or ending
one (zygote.py).
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from liq_pipeline.runtime.processes import ProcessIdentity


@dataclass(slots=True)
class Worker:
    """A run's process. A worker of an earlier zygote is not our child: its exit code is unknown."""

    run_id: str
    process: ProcessIdentity
    instance_ref: str
    is_child: bool
    cancelled: bool = False
    kill_at: float | None = None


def process_of(question: dict[str, Any]) -> ProcessIdentity | None:
    """The process named by a request, if it names one."""
    if question.get("pid") is None or question.get("start_time") is None:
        return None
    return ProcessIdentity(int(question["pid"]), float(question["start_time"]))


def describe_end(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        hint = ", by hand or for want of memory" if number == signal.SIGKILL else ""
        return f"was ended by signal {number} ({name}{hint})"
    return (
        f"ended with exit code {os.WEXITSTATUS(status)} before the run was finished; its output is in the zygote's log"
    )


def runs_path(socket_path: Path) -> Path:
    """Where the running workers are written down."""
    return socket_path.with_name(socket_path.name + ".runs.json")


def save(path: Path, workers: Iterable[Worker]) -> None:
    """Write down who runs, in one step and readable by the owner only."""
    rows = [
        {
            "run_id": w.run_id,
            "pid": w.process.pid,
            "start_time": w.process.started_at,
            "instance_ref": w.instance_ref,
            "cancelled": w.cancelled,
        }
        for w in workers
    ]
    fresh = path.with_name(path.name + ".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(rows))
    fresh.replace(path)


def load(path: Path) -> list[Worker]:
    """Whom an earlier zygote left running; none if it wrote nothing. ValueError if the file is damaged."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    own_children = {child.pid for child in psutil.Process().children()}
    return [
        Worker(
            row["run_id"],
            ProcessIdentity(int(row["pid"]), float(row["start_time"])),
            row["instance_ref"],
            is_child=int(row["pid"]) in own_children,
            cancelled=bool(row["cancelled"]),
        )
        for row in rows
    ]
