"""Where streamed events wait for Kafka: bounded, in order, each once.

Belongs here: the buffer between sockets and the sender, and what it had to let go. Does not: sockets or Kafka.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import datetime

from liq_pipeline.domain.records import Liquidation

REMEMBERED_IDS = 200_000
"""Event ids kept to tell a repetition (a REST list beside its stream, a push repeated after a reconnection)."""


@dataclass(frozen=True)
class Dropped:
    """Events of one venue that did not fit while Kafka was away."""

    venue: str
    count: int
    first_event_time: datetime
    last_event_time: datetime


class EventBuffer:
    """A bounded queue of events, safe for many producers and one consumer."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._events: deque[Liquidation] = deque()
        self._seen: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._dropped: dict[str, Dropped] = {}
        self._lock = threading.Lock()
        self._filled = threading.Event()
        self.duplicates = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def capacity(self) -> int:
        """The stated bound, in events."""
        return self._capacity

    def put(self, events: list[Liquidation]) -> int:
        """Add events that have not been seen before; returns how many were new. Past the bound the oldest go."""
        added = 0
        with self._lock:
            for event in events:
                identity = (event.venue, event.symbol, event.event_id)
                if identity in self._seen:
                    self._seen.move_to_end(identity)
                    self.duplicates += 1
                    continue
                self._seen[identity] = None
                if len(self._seen) > REMEMBERED_IDS:
                    self._seen.popitem(last=False)
                self._events.append(event)
                added += 1
                if len(self._events) > self._capacity:
                    self._drop(self._events.popleft())
            if added:
                self._filled.set()
        return added

    def take(self, most: int, timeout_seconds: float) -> list[Liquidation]:
        """Up to `most` events, oldest first; waits for the first one at most timeout_seconds."""
        self._filled.wait(timeout_seconds)
        with self._lock:
            taken = [self._events.popleft() for _ in range(min(most, len(self._events)))]
            if not self._events:
                self._filled.clear()
        return taken

    def give_back(self, events: list[Liquidation]) -> None:
        """Put events that Kafka did not take back in front."""
        with self._lock:
            self._events.extendleft(reversed(events))
            while len(self._events) > self._capacity:
                self._drop(self._events.popleft())
            if self._events:
                self._filled.set()

    def take_dropped(self) -> list[Dropped]:
        """What had to be let go since the last call, per venue."""
        with self._lock:
            dropped, self._dropped = list(self._dropped.values()), {}
        return dropped

    def _drop(self, event: Liquidation) -> None:
        known = self._dropped.get(event.venue)
        if known is None:
            self._dropped[event.venue] = Dropped(event.venue, 1, event.event_time, event.event_time)
        else:
            self._dropped[event.venue] = Dropped(
                event.venue,
                known.count + 1,
                min(known.first_event_time, event.event_time),
                max(known.last_event_time, event.event_time),
            )
