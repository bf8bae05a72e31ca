"""Up to when each venue's liquidations have been read completely, and the holes before that.

Belongs here: the arithmetic of "read from .. to" over streams and REST lists. Does not: sockets, tables, Kafka.

A heartbeat says "nothing is missing up to here". A stream proves that from the moment its subscription stands to its
last sign of life; a REST list from its oldest row to the moment it was asked. What lies between two proofs is a hole.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Hole:
    """A stretch of a venue's feed that nobody read."""

    venue: str
    from_time: datetime
    to_time: datetime
    cause: str


class Coverage:
    """One venue's feed. Threads may share it."""

    def __init__(self, venue: str, read_until: datetime | None) -> None:
        """read_until: what earlier processes have read up to; None on the very first start."""
        self.venue = venue
        self._read_until = read_until
        self._holes: list[Hole] = []
        self._lock = threading.Lock()

    @property
    def read_until(self) -> datetime | None:
        """Everything up to here has been read, or is a known hole."""
        return self._read_until

    def prove(self, start: datetime, end: datetime, *, cause: str, may_jump: bool = True) -> None:
        """Everything in [start, end] was read. cause: why there would be a hole before `start`.

        may_jump False: a proof that does not reach back to what is known is ignored, because another reader of the
        same feed (a REST list that looks back) will close the hole.
        """
        with self._lock:
            if self._read_until is not None and start > self._read_until:
                if not may_jump:
                    return
                self._holes.append(Hole(self.venue, self._read_until, start, cause))
                self._read_until = start
            self._read_until = max(end, self._read_until or start)

    def take_holes(self) -> list[Hole]:
        """Holes found since the last call."""
        with self._lock:
            holes, self._holes = self._holes, []
        return holes
