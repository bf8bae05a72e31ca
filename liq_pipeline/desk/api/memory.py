"""An answer is made once per point, not once per reader.

Belongs here: keeping ready bytes for a moment, and letting those who ask the same at once wait for one. Does not: what
they hold.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from liq_pipeline.desk.api.answering import Body
from liq_pipeline.desk.read.database import UnavailableError

KEPT_SECONDS: Final = 5.0
MOST_BYTES: Final = 8 * 2**20
MOST_PENDING: Final = 128
"""Different questions that may wait for a reader's thread: more would only wait longer than anyone does."""


class Memory:
    """Ready answers by question, at most MOST_BYTES, the least recently asked leaving first.

    forget() when something new was committed: what was asked before must not be answered from before.
    """

    def __init__(self, threads: Executor, *, most_bytes: int = MOST_BYTES) -> None:
        self._threads = threads
        self._most = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[float, Body]] = OrderedDict()
        self._pending: dict[str, asyncio.Future[Body]] = {}
        self._generation = 0

    async def get(self, question: str, make: Callable[[], Body], seconds: float = KEPT_SECONDS) -> Body:
        """The kept answer, or the one that make() gives in a reader's thread; its errors reach all who wait."""
        kept = self._kept.get(question)
        if kept is not None and kept[0] > time.monotonic():
            self._kept.move_to_end(question)
            return kept[1]
        pending = self._pending.get(question)
        if pending is None:
            if len(self._pending) >= MOST_PENDING:
                raise UnavailableError("too many questions are being answered at once: try again")
            loop = asyncio.get_running_loop()
            pending = loop.run_in_executor(self._threads, make)
            self._pending[question] = pending
            generation = self._generation

            def done(future: asyncio.Future[Body]) -> None:
                if self._pending.get(question) is future:
                    del self._pending[question]
                if not future.cancelled() and future.exception() is None and generation == self._generation:
                    self._keep(question, future.result(), seconds)

            pending.add_done_callback(done)
        # One reader who leaves must not take the answer away from the others.
        return await asyncio.shield(pending)

    def forget(self) -> None:
        """Answer everything anew; what is being made is for those who wait for it already."""
        self._kept.clear()
        self._pending.clear()
        self._bytes = 0
        self._generation += 1

    def _keep(self, question: str, body: Body, seconds: float) -> None:
        former = self._kept.pop(question, None)
        if former is not None:
            self._bytes -= former[1].size
        if body.size > self._most // 4:
            return
        self._kept[question] = (time.monotonic() + seconds, body)
        self._bytes += body.size
        while self._bytes > self._most:
            _, (_, old) = self._kept.popitem(last=False)
            self._bytes -= old.size
