"""A thing the supervisor starts, watches and stops; and the kind that is simply a program with arguments.

Belongs here: one process each. Does not: policies over several of them (supervisor.py).
EmbeddedPostgres and EmbeddedKafka satisfy Service as they are.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.processes import ProcessIdentity, end, last_lines


class Service(Protocol):
    """What the supervisor needs of a part."""

    log_path: Path

    @property
    def is_running(self) -> bool: ...

    @property
    def identity(self) -> ProcessIdentity | None: ...

    @property
    def exit_code(self) -> int | None:
        """None while it runs or before it was started; negative: the signal that ended it."""
        ...

    def start(self, timeout_seconds: float = ...) -> None:
        """Start and wait until it is of use. LiqError, one sentence, if it does not come up."""
        ...

    def stop(self, timeout_seconds: float = ...) -> None:
        """Ask it to end; kill it after timeout_seconds. Harmless if it does not run."""
        ...


class Program:
    """A child program in a session of its own, so that a Ctrl-C in the terminal reaches only the supervisor.

    ready: asked every 0.1 s after the start until it says yes; None: being alive is enough.
    """

    def __init__(
        self,
        title: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_path: Path,
        *,
        directory: Path,
        ready: Callable[[], bool] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.title = title
        self.log_path = log_path
        self._command = list(command)
        self._environment = dict(environment)
        self._directory = directory
        self._ready = ready
        self._stop_signal = stop_signal
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

    def start(self, timeout_seconds: float = 90) -> None:
        if self.is_running:
            return
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_seconds
        while self._ready is not None and not self._ready():
            code = self._process.poll()
            if code is not None:
                raise LiqError(
                    f"{self.title} ended at its start {describe_exit(code)}: {last_lines(self.log_path, 2)} "
                    f"(log: {self.log_path})"
                )
            if time.monotonic() > deadline:
                self.stop()
                raise LiqError(
                    f"{self.title} did not answer within {timeout_seconds:.0f} s: {last_lines(self.log_path, 2)} "
                    f"(log: {self.log_path})"
                )
            time.sleep(0.1)

    def stop(self, timeout_seconds: float = 15) -> None:
        if self._process is None:
            return
        identity = self.identity
        if identity is not None:
            end(identity, wait_seconds=timeout_seconds, first=self._stop_signal)
        self._process.wait(5)


def describe_exit(code: int | None) -> str:
    """In words: `with exit code 2`, `by SIGKILL`."""
    if code is None:
        return "for an unknown reason"
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
