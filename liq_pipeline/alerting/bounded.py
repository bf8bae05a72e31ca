"""Calls to the outside world that end in time, whatever the other side does.

Belongs here: running calls side by side under one deadline. Does not: what is called.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


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
