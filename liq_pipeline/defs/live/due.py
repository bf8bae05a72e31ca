"""Whether a tick is due now, computed from the tables; the Kafka log is only asked how far a played world has come.

Belongs here: the question that the tick sensor asks, as plain functions. Does not: ticking (pipeline/tick.py decides
for itself which points are due) or Dagster. A wrong answer costs a run that finds nothing to do, or a few seconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

import psycopg

from liq_pipeline.bus.codec import DecodeError, decode
from liq_pipeline.bus.reader import OffsetsGoneError, Partition, ReadError, TopicReader, UnreadableError
from liq_pipeline.domain.records import Watermark
from liq_pipeline.domain.worlds import World
from liq_pipeline.pipeline.tick import LANDING_CONSUMER, due_points
from liq_pipeline.store import worlds

DEADLINE_SECONDS: Final = 2.0
"""No question to Kafka or the database may hold the sensor up longer than this."""
POLL_SECONDS: Final = 0.25
# A watermark goes into every partition of every in-topic; these carry few other messages. Three topics, since
# somebody's open transaction may hold one, and behind it no newer watermark can be read.
_PEEKS: Final = (Partition("long_short_ratio", 0), Partition("stablecoin_flows", 1), Partition("funding_rates", 2))
_PEEK_MESSAGES: Final = 50


@dataclass(frozen=True)
class Due:
    """is_due: request a run. reason: for people."""

    is_due: bool
    reason: str


@dataclass(frozen=True)
class _Look:
    due: Due
    next_in_seconds: float | None
    """When a real world's next point comes; None where only looking again can tell."""


@dataclass(frozen=True)
class BusState:
    """clock: the newest watermark that was read, if there is one. ends: where each partition ends."""

    clock: datetime | None
    ends: dict[Partition, int]


class BusClock:
    """The newest watermark in Kafka, ahead of what has landed. Connects when first asked, and anew after an error.

    What it has read it does not read again: a batch that unpacks to much costs one look its time, not each of the next
    fifty messages' looks.
    """

    def __init__(self, bootstrap_servers: str, topic_prefix: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic_prefix = topic_prefix
        self._reader: TopicReader | None = None
        self._forget()

    def read(self, world: str) -> BusState | None:
        """How far the world has come in Kafka; None if Kafka does not answer in time."""
        try:
            return self._read(world)
        except (ReadError, OffsetsGoneError, UnreadableError):
            self.close()
            return None

    def close(self) -> None:
        """Disconnect."""
        self._forget()
        if self._reader is not None:
            with contextlib.suppress(Exception):
                self._reader.close()
            self._reader = None

    def _forget(self, world: str | None = None) -> None:
        self._world = world
        self._newest: datetime | None = None
        self._read_to: dict[Partition, int] = {}

    def _read(self, world: str) -> BusState:
        if self._reader is None:
            self._reader = TopicReader(
                self._bootstrap_servers,
                self._topic_prefix,
                client_id="liq-tick-sensor",
                timeout_seconds=DEADLINE_SECONDS,
            )
        bounds = self._reader.bounds()
        ends = {partition: bound.end for partition, bound in bounds.items()}
        # An end before what was read: these are other logs, made anew under the same names.
        if world != self._world or any(offset > ends[place] for place, offset in self._read_to.items()):
            self._forget(world)
        peeks = {
            place: max(bounds[place].begin, bounds[place].end - _PEEK_MESSAGES, self._read_to.get(place, 0))
            for place in _PEEKS
        }
        self._reader.seek({**ends, **peeks})
        deadline = time.monotonic() + DEADLINE_SECONDS
        while any(self._reader.position(place) < ends[place] for place in _PEEKS) and time.monotonic() < deadline:
            for place, messages in self._reader.poll(len(_PEEKS) * _PEEK_MESSAGES, POLL_SECONDS).items():
                for message in messages:
                    # What cannot be decoded is landing's business.
                    with contextlib.suppress(DecodeError):
                        mark = decode(place.topic, message.value, message.headers, None)
                        if isinstance(mark, Watermark) and mark.world == world:
                            self._newest = max(self._newest or mark.watermark, mark.watermark)
            self._reader.passed_over()  # landing records it
        self._read_to = {place: self._reader.position(place) for place in _PEEKS}
        return BusState(self._newest, ends)


def wait_for_due(
    conn: psycopg.Connection[Any],
    bus_clock: BusClock,
    in_flight: Callable[[], bool],
    patience_seconds: float,
    wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Due:
    """Whether a tick is due, waiting up to patience_seconds for one to become due.

    The sensor loop wakes every 5 s and a grid point may come right after; waiting here lets the run start at the
    point itself and not up to 5 s later. in_flight: whether a tick is being run; none is due while one is.
    """
    deadline = time.monotonic() + patience_seconds
    conn.execute(f"SET statement_timeout = {int(DEADLINE_SECONDS * 1000)}")
    conn.commit()
    while True:
        if in_flight():
            look = _Look(Due(is_due=False, reason="A tick is being run."), None)
        else:
            look = _look(conn, bus_clock, wall_clock())
            conn.rollback()
            if look.due.is_due:
                return look.due
        left = deadline - time.monotonic()
        if left <= 0 or (look.next_in_seconds is not None and look.next_in_seconds > left):
            return look.due
        time.sleep(min(left, look.next_in_seconds or POLL_SECONDS))


def _look(conn: psycopg.Connection[Any], bus_clock: BusClock, wall_now: datetime) -> _Look:
    world = worlds.active(conn)
    if world is None:
        return _Look(Due(is_due=False, reason="No world is active yet."), None)
    last = _last_ticks(conn, world)
    if world.is_real:
        now: datetime | None = wall_now
    else:
        landed = worlds.clock(conn, world, wall_now)
        bus = bus_clock.read(world.name)
        now = max((t for t in (landed, bus.clock if bus else None) if t is not None), default=None)
        if bus is not None and bus.clock is None and _waits_to_land(conn, bus.ends):
            # A long history comes before the first watermark: land it while the rest is still being sent.
            return _Look(Due(is_due=True, reason="Records wait in Kafka to be landed."), None)
    if now is None:
        return _Look(Due(is_due=False, reason=f"World {world.name} has no clock yet."), None)
    steps = {"market": world.market_step_seconds, "flows": world.flows_step_seconds}
    counts = {stream: due_points(world, step, last.get(stream), now).points.size for stream, step in steps.items()}
    if any(counts.values()):
        told = " and ".join(f"{count} of {stream}" for stream, count in counts.items() if count)
        return _Look(Due(is_due=True, reason=f"Points due in world {world.name}: {told}."), None)
    if not world.is_real:
        return _Look(Due(is_due=False, reason=f"World {world.name} stands at {now:%H:%M:%S}: nothing is due."), None)
    following = min(floor_to(now, step) + timedelta(seconds=step) for step in steps.values())
    reason = f"The next point is {following:%H:%M:%S}."
    return _Look(Due(is_due=False, reason=reason), (following - now).total_seconds())


def floor_to(moment: datetime, step_seconds: int) -> datetime:
    """The last point of the UTC grid at or before the moment."""
    seconds = int(moment.timestamp())
    return datetime.fromtimestamp(seconds - seconds % step_seconds, UTC)


def _last_ticks(conn: psycopg.Connection[Any], world: World) -> dict[str, datetime]:
    rows = conn.execute(
        "SELECT stream, (SELECT max(time) FROM ticks WHERE world = %(world)s AND stream = s.stream)"
        " FROM (VALUES ('market'), ('flows')) AS s (stream)",
        {"world": world.name},
    ).fetchall()
    return {stream: newest for stream, newest in rows if newest is not None}


def _waits_to_land(conn: psycopg.Connection[Any], ends: dict[Partition, int]) -> bool:
    rows = conn.execute(
        "SELECT topic, kafka_partition, next_offset FROM consumer_offsets WHERE consumer = %s AND cluster_id ="
        " (SELECT cluster_id FROM consumer_offsets WHERE consumer = %s ORDER BY updated_at DESC LIMIT 1)",
        [LANDING_CONSUMER, LANDING_CONSUMER],
    ).fetchall()
    landed = {Partition(topic, number): offset for topic, number, offset in rows}
    return any(end > landed.get(partition, 0) for partition, end in ends.items())


def outbox_due(conn: psycopg.Connection[Any], now: datetime) -> bool:
    """Whether any message in the outbox is due."""
    return _exists(conn, "SELECT 1 FROM outbox WHERE state = 'due' AND due_at <= %s LIMIT 1", now)


def messages_to_people_due(conn: psycopg.Connection[Any], now: datetime) -> bool:
    """Whether any of them is for people."""
    return _exists(
        conn, "SELECT 1 FROM outbox WHERE state = 'due' AND topic = 'channels' AND due_at <= %s LIMIT 1", now
    )


def _exists(conn: psycopg.Connection[Any], query: LiteralString, now: datetime) -> bool:
    return conn.execute(query, [now]).fetchone() is not None


def poll_slot(now: datetime, cadence_seconds: float, lead_seconds: float) -> int:
    """The number of the polling round that belongs to this moment.

    Rounds begin lead_seconds before the points of the cadence's grid, so that answers are there at the points.
    """
    return int((now.timestamp() + lead_seconds) // cadence_seconds)


def seconds_to_next_slot(now: datetime, cadence_seconds: float, lead_seconds: float) -> float:
    """How long until the next round begins."""
    return float(cadence_seconds - (now.timestamp() + lead_seconds) % cadence_seconds)
