"""Processes told apart from their namesakes: a pid counts only together with the time its process started.

Belongs here: identity, ending, readable exits. Does not: which processes there are, or when they start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from liq_pipeline.errors import LiqError


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that cannot be confused with a later one of the same pid.

    started_at is the kernel's start time (seconds since the epoch, as psutil reports it).
    """

    pid: int
    started_at: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The identity of a running process, None if there is none (a zombie counts as none)."""
        try:
            process = psutil.Process(pid)
            # A killed process with many threads (the broker) is a zombie before its last thread has let go of ports
            # and locks: only then has it ended.
            if process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1:
                return None
            return cls(pid, process.create_time())
        except psutil.NoSuchProcess:
            return None

    def process(self) -> psutil.Process | None:
        """The live process, None once it ended or its pid went to another."""
        found = ProcessIdentity.of(self.pid)
        # The kernel counts in ticks of 10 ms from boot, so a tiny difference is the same process.
        if found is None or abs(found.started_at - self.started_at) > 0.05:
            return None
        return psutil.Process(self.pid)

    @property
    def is_alive(self) -> bool:
        return self.process() is not None


def family(identities: Iterable[ProcessIdentity]) -> list[psutil.Process]:
    """The live processes themselves, their descendants, and everything in the sessions they lead.

    A child whose parent died is handed to init and drops out of the parent's tree, but it keeps the session,
    so both ways of finding them are needed.
    """
    found: dict[int, psutil.Process] = {}
    leaders: set[int] = set()
    for identity in identities:
        process = identity.process()
        if process is None:
            continue
        leaders.add(identity.pid)
        found[identity.pid] = process
        try:
            for descendant in process.children(recursive=True):
                found[descendant.pid] = descendant
        except psutil.NoSuchProcess:
            continue
    for member in session_members(leaders):
        found.setdefault(member.pid, member)
    return list(found.values())


def session_members(leaders: set[int]) -> list[psutil.Process]:
    """Every live process whose session leader's pid is in leaders."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in leaders:
                members.append(process)
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    return members


def wait_until_gone(identities: Iterable[ProcessIdentity], seconds: float) -> list[ProcessIdentity]:
    """Wait until all have ended (a zombie has ended, whoever fails to reap it); those still alive after seconds."""
    deadline = time.monotonic() + seconds
    while True:
        alive = [identity for identity in identities if identity.is_alive]
        if not alive or time.monotonic() >= deadline:
            return alive
        time.sleep(0.05)


def end(identity: ProcessIdentity, *, wait_seconds: float, first: signal.Signals = signal.SIGTERM) -> bool:
    """Ask a process to end by the signal `first`, and kill it if it has not after wait_seconds; then its family too.

    True if it went by itself. Its descendants get SIGTERM and two seconds once it is gone.
    """
    relatives = [
        relative
        for process in family([identity])
        if (relative := ProcessIdentity.of(process.pid)) is not None and relative.pid != identity.pid
    ]
    _send(identity, first)
    went_by_itself = not wait_until_gone([identity], wait_seconds)
    if not went_by_itself:
        _send(identity, signal.SIGKILL)
        wait_until_gone([identity], 5)
    for relative in relatives:
        _send(relative, signal.SIGTERM)
    for survivor in wait_until_gone(relatives, 2):
        _send(survivor, signal.SIGKILL)
    wait_until_gone(relatives, 5)
    return went_by_itself


def _send(identity: ProcessIdentity, number: signal.Signals) -> None:
    process = identity.process()
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def dying_with_us(number: signal.Signals) -> Callable[[], None] | None:
    """For Popen's preexec_fn: the kernel sends the child this signal when the thread that starts it ends.

    That holds for kill -9 too. Set after Popen has changed the user, which would undo it. None where only Linux can.
    """
    if sys.platform != "linux":
        return None
    # Loaded here: between fork and exec nothing may be loaded.
    prctl, set_parent_death_signal, ours = ctypes.CDLL(None).prctl, 1, os.getpid()

    def set_it() -> None:
        prctl(set_parent_death_signal, number)
        if os.getppid() != ours:  # we ended in between: nobody is left whose end could be told
            os._exit(1)

    return set_it


_LEAST_PORT: Final = 15_000
_EPHEMERAL_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(preferred: int | None = None, *, taken: Iterable[int] = ()) -> int:
    """preferred if nothing listens on it (on any address) and it is not in taken, else a free one.

    Not one of those that the kernel gives to outgoing connections: while a server is down, a connection of anybody may
    sit on such a port (even a client's to that very server, which then talks to itself), and the server cannot return.
    """
    avoid = set(taken)
    if preferred is not None and preferred not in avoid and port_is_free(preferred):
        return preferred
    end = _first_ephemeral_port()
    while True:
        port = _LEAST_PORT + secrets.randbelow(end - _LEAST_PORT)
        if port not in avoid and port_is_free(port):
            return port


def _first_ephemeral_port() -> int:
    """Where the kernel's range begins, if there is room below it; else the end of all ports."""
    try:
        first = int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32_768  # Linux' default; other systems begin higher
    return first if first >= _LEAST_PORT + 1_000 else 65_536


def port_is_free(port: int) -> bool:
    """True if this machine could listen on the port, on loopback and on every other address."""
    for address in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - asked about, never listened on
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
                probe.listen(1)
            except OSError:
                return False
    return True


def refuse_taken_port(port: int, title: str) -> None:
    """LiqError if another program listens on the port that a server is about to take."""
    if not port_is_free(port):
        raise LiqError(
            f"{title} did not start on port {port}: another program listens there, so stop that one or choose another "
            "port"
        )


def last_lines(path: Path, count: int = 3, *, holding: tuple[str, ...] = ()) -> str:
    """The last lines of a log as one line of text, for an error message; those holding a word if given."""
    try:
        with path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - 64_000))
            lines = log.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return "no log"
    lines = [line.strip() for line in lines if line.strip()]
    chosen = [line for line in lines if any(word in line for word in holding)] if holding else lines
    return " | ".join((chosen or lines)[-count:]) or "empty log"
