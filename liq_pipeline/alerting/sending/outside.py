"""Calls to the outside world that end in time and whose addresses reach no log.

Belongs here: running calls side by side under one deadline, and keeping what HTTP libraries log while they run. Does
not: what is called.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

T = TypeVar("T")

_TALKATIVE: Final = ("apprise", "urllib3.connectionpool", "urllib3.util.retry")
"""Loggers that write whole addresses, tokens included."""


def run_all(calls: Sequence[Callable[[], T]], seconds: float) -> list[T | None]:
    """Run the calls at once and return their results in order; None for one that is not back within `seconds`.

    A call must not raise. One that is late goes on in a daemon thread, which does not keep the process from ending:
    socket timeouts bound each read, never the whole of an answer that comes byte by byte.
    """
    results: list[T | None] = [None] * len(calls)

    def run(index: int) -> None:
        results[index] = calls[index]()

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(calls))]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return list(results)


@contextmanager
def kept_logs() -> Iterator[list[str]]:
    """Keep what the talkative loggers say in this thread out of every log; its warnings and errors are in the list."""
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_KEEPER)  # adding it again changes nothing
    said = _KEEPER.begin()
    try:
        yield said
    finally:
        _KEEPER.end()


class _Keeper(logging.Filter):
    """Drops the records of threads that asked for it. A filter of the logger itself comes before every handler."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.local()

    def begin(self) -> list[str]:
        said: list[str] = []
        self._thread.said = said
        return said

    def end(self) -> None:
        self._thread.said = None

    def filter(self, record: logging.LogRecord) -> bool:
        said = getattr(self._thread, "said", None)
        if said is None:
            return True
        if record.levelno >= logging.WARNING:
            said.append(record.getMessage())
        return False


_KEEPER: Final = _Keeper()
