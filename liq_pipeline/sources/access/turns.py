"""Which of a venue's two feeds of liquidations speaks for a moment: its stream, or its list.

Belongs here: the rule that no forced order becomes two rows where stream and list name it differently. Does not: how
far a venue has been read (collector/coverage.py), sockets, Kafka.

Some venues give a forced order no id, or one in their list only (Gate, Bitget, HTX). There the stream speaks for the
time in which its subscription stood, and the list for the rest: before the first subscription, and in the gaps. At the
edges of such a time both may tell one order (venues push what happened up to a second ago): two that agree in
symbol, side, quantity and, to two seconds, in time are one. What the list says of a time in which the stream stands
is not decided but left: the list says it again, and is heard if the stream is lost.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from liq_pipeline.domain.records import Liquidation
from liq_pipeline.sources.live.base import Source

TWIN: Final = timedelta(seconds=2)
"""Gate's list rounds to whole seconds, and venues push up to a second late."""
SAME_QUANTITY: Final = 0.001
REMEMBERED: Final = 20_000
UNSURE: Final = timedelta(seconds=8)
"""Past the last heartbeat of an earlier process it may have sent so much more: heartbeats come every 5 s and stay 2 s
behind the stream."""
LANDING_SECONDS: Final = 60.0
"""By then what an earlier process has sent is in the table: several ticks have landed it."""

Key = tuple[str, str]
"""(symbol, liquidated side)."""


@dataclass
class _Heard:
    """What one feed has told, for the other to be compared with. is_met: it was found in the other feed already."""

    moment: datetime
    quantity: float
    is_met: bool = False


@dataclass(frozen=True)
class Landed:
    """A stream's event of an earlier process, as it stands in the table."""

    symbol: str
    side: str
    moment: datetime
    quantity: float


def needs_turns(source: Source) -> bool:
    """Whether the source has a stream and a list that give one order different ids."""
    return source.stream is not None and bool(source.event_feeds) and not source.stream.ids_are_the_lists


class Turns:
    """One venue's two feeds. Threads may share it."""

    def __init__(
        self,
        told: datetime | None = None,
        landed: Callable[[datetime, datetime], Sequence[Landed] | None] = lambda _start, _end: (),
    ) -> None:
        """told: up to when earlier processes have read the venue. landed: the stream's rows of a time, from the
        table; None if they cannot be had now.
        """
        self._spans: list[tuple[datetime, datetime]] = []
        if told is not None:
            self._spans.append((datetime.min.replace(tzinfo=UTC), told))
        self._since: datetime | None = None
        self._unsure = None if told is None else (told, told + UNSURE)
        self._landed = landed
        self._settles_at = time.monotonic() + LANDING_SECONDS
        self._heard: dict[str, dict[Key, deque[_Heard]]] = {"stream": defaultdict(_few), "list": defaultdict(_few)}
        self._decided: dict[str, OrderedDict[str, bool]] = {"stream": OrderedDict(), "list": OrderedDict()}
        self._lock = threading.Lock()
        self.twins = 0
        """Orders that both feeds have told and that became one row."""

    def stream_stands(self, since: datetime) -> None:
        """The subscription was confirmed: from `since` on the stream speaks."""
        with self._lock:
            if self._since is None:
                self._since = since

    def stream_lost(self, until: datetime) -> None:
        """The connection is gone; everything up to `until` was read from it."""
        with self._lock:
            if self._since is not None and until > self._since:
                # Those of a bad day are many and old ones are of no list any more: Bitget's reaches back three days.
                self._spans = [*self._spans[-5_000:], (self._since, until)]
            self._since = None

    def list_proves_until(self, moment: datetime) -> datetime:
        """How far a list that was asked at `moment` proves the venue: what came later is the stream's to prove."""
        with self._lock:
            return moment if self._since is None else min(moment, self._since)

    def of_stream(self, events: Sequence[Liquidation]) -> list[Liquidation]:
        """Those that are to become rows."""
        with self._lock:
            return [event for event in events if self._decide("stream", "list", event)]

    def of_list(self, events: Sequence[Liquidation]) -> list[Liquidation]:
        """Those that are to become rows: of the times when no stream stood, and not told by it."""
        with self._lock:
            self._settle()
            return [event for event in events if self._is_the_lists(event) and self._decide("list", "stream", event)]

    def _is_the_lists(self, event: Liquidation) -> bool:
        moment = event.event_time
        if self._since is not None and moment >= self._since:
            return False
        if self._unsure is not None and self._unsure[0] < moment <= self._unsure[1]:
            return False
        return not any(start <= moment <= end for start, end in self._spans)

    def _decide(self, of: str, other: str, event: Liquidation) -> bool:
        """Whether the event becomes a row; asked again for the same one, the answer is the same."""
        identity = f"{event.symbol} {event.event_id}"
        decided = self._decided[of]
        if identity not in decided:
            key = event.symbol, event.liquidated_side
            twin = self._twin(self._heard[other][key], event)
            if twin is None:
                self._heard[of][key].append(_Heard(event.event_time, event.quantity_base))
            else:
                twin.is_met = True
                self.twins += 1
            decided[identity] = twin is None
            if len(decided) > REMEMBERED:
                decided.popitem(last=False)
        return decided[identity]

    def _twin(self, heard: deque[_Heard], event: Liquidation) -> _Heard | None:
        near = [
            one
            for one in heard
            if not one.is_met
            and abs(one.moment - event.event_time) <= TWIN
            and abs(one.quantity - event.quantity_base) <= SAME_QUANTITY * event.quantity_base
        ]
        return min(near, key=lambda one: abs(one.moment - event.event_time), default=None)

    def _settle(self) -> None:
        """Learn from the table what an earlier process sent after its last heartbeat."""
        if self._unsure is None or time.monotonic() < self._settles_at:
            return
        start, end = self._unsure
        rows = self._landed(start - TWIN, end + TWIN)
        if rows is None:
            return
        for row in rows:
            self._heard["stream"][row.symbol, row.side].append(_Heard(row.moment, row.quantity))
        self._unsure = None


def _few() -> deque[_Heard]:
    return deque(maxlen=2_000)
