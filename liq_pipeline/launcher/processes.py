"""How a run's process is ended, and which threads this process has.

Belongs here: signals to a worker. Does not: identity of processes (runtime/processes.py), runs, or Dagster.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

import psutil

from liq_pipeline.runtime.processes import ProcessIdentity


def interrupt(process: ProcessIdentity) -> bool:
    """Ask it to end, as Ctrl-C would. False if it is gone already."""
    return _signal(process, signal.SIGINT, group=False)


def kill(process: ProcessIdentity) -> bool:
    """End it and all that it started, without asking. False if it is gone already."""
    return _signal(process, signal.SIGKILL, group=True)


def end(process: ProcessIdentity, grace_seconds: float) -> bool:
    """Interrupt, wait, kill. Blocks at most a little longer than the grace. False if it was gone already."""
    if not interrupt(process):
        return False
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline:
        if not process.is_alive:
            return True
        time.sleep(0.05)
    kill(process)
    return True


def _signal(process: ProcessIdentity, number: signal.Signals, *, group: bool) -> bool:
    if not process.is_alive:
        return False
    try:
        # A worker leads its own session, so its process group is its own; one that has not come so far yet is still
        # in its parent's group, which must not be hit.
        if group and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def thread_names() -> list[str]:
    """The operating system's threads of this process, for the error that says there is more than one."""
    names = []
    for thread in psutil.Process().threads():
        name = f"thread {thread.id}"
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread.id}/comm", encoding="utf-8") as comm:
            name = comm.read().strip()
        names.append(name)
    return names
