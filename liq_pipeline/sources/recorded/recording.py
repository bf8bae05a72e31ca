"""What every recording format shares: the span that is asked for, what was found on reading, and the playable world.

Belongs here: cutting messages into steps, naming the world. Does not: reading any particular format.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from liq_pipeline.domain.worlds import Manifest, World
from liq_pipeline.errors import LiqError
from liq_pipeline.sources.playing.playable import Message, Step, known_time

_LOG = logging.getLogger(__name__)


class RecordingError(LiqError):
    """A folder that cannot be played; the message says which file and why."""


@dataclass(frozen=True)
class Selection:
    """What of a recording is wanted. start and end bound the known time: start < known <= end; None: all of it."""

    symbols: tuple[str, ...] | None = None
    start: datetime | None = None
    end: datetime | None = None

    def has_symbol(self, symbol: str) -> bool:
        """Whether records of the symbol are wanted."""
        return self.symbols is None or symbol in self.symbols

    def has_time(self, known: datetime) -> bool:
        """Whether what became known then is wanted."""
        return (self.start is None or known > self.start) and (self.end is None or known <= self.end)

    @property
    def suffix(self) -> str:
        """What tells the world of a part from the world of the whole, as a part of its name."""
        parts = ["-".join(self.symbols)] if self.symbols else []
        if self.start or self.end:
            parts.append(
                "-".join(f"{time.astimezone(UTC):%Y%m%dT%H%M}" if time else "" for time in (self.start, self.end))
            )
        return "".join(f".{part}" for part in parts)


@dataclass
class Findings:
    """What reading a recording brought to light. Nothing of it is repaired in silence."""

    lines: int = 0
    records: int = 0
    unreadable: list[str] = field(default_factory=list)
    """`file:line: reason` of each line that is no record."""
    repeated: int = 0
    """Records whose key an earlier record had already: landing ignores equal ones and keeps the first of others."""
    disordered: int = 0
    """Lines whose time lies before that of the line above."""

    @property
    def sentence(self) -> str:
        """One line for people."""
        notes = [f"{self.lines} lines, {self.records} records"]
        if self.unreadable:
            notes.append(f"{len(self.unreadable)} lines unreadable (first: {self.unreadable[0]})")
        if self.repeated:
            notes.append(f"{self.repeated} records repeat the key of an earlier one")
        if self.disordered:
            notes.append(f"{self.disordered} lines stand before an earlier time and are played in order of time")
        return "; ".join(notes)


class Recording:
    """A finite world. `read` gives its messages in known order, from the beginning each time it is called."""

    def __init__(self, world: World, read: Callable[[], Iterable[Message]], findings: Findings | None = None) -> None:
        if world.first_time is None or world.last_time is None:
            raise ValueError("a recording has a first and a last time")
        self._world = world
        self._read = read
        self.findings = findings or Findings()

    @property
    def world(self) -> World:
        """Its description."""
        return self._world

    def landed(self, time: datetime) -> None:
        """A recording keeps nothing that landing would free."""

    def steps(self, after: datetime | None) -> Iterator[Step]:
        """One step per grid point of the world, also where nothing happened; the last one ends at the last record."""
        first, last = self._world.first_time, self._world.last_time
        if first is None or last is None:
            raise ValueError("a recording has a first and a last time")
        grid = timedelta(seconds=self._world.market_step_seconds)
        end = next_grid_point(first, self._world.market_step_seconds)
        previous = first
        waiting: list[Message] = []
        for message in self._read():
            known = known_time(message)
            if known < previous:
                raise RecordingError(
                    f"{self._world.name}: a record known at {known.isoformat()} follows one known at "
                    f"{previous.isoformat()}; a recording must be in order of known time"
                )
            previous = known
            while known > end:
                if after is None or end > after:
                    yield Step(end, waiting)
                waiting = []
                end += grid
            waiting.append(message)
        if after is None or last > after:
            yield Step(last, waiting)


def next_grid_point(time: datetime, step_seconds: int) -> datetime:
    """The first point of the UTC grid at or after `time`."""
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    return time + (-since % timedelta(seconds=step_seconds))


def recorded_world(
    name: str,
    *,
    manifest: Manifest,
    step_seconds: int,
    first_time: datetime,
    last_time: datetime,
    selection: Selection,
) -> World:
    """The world of a recording. Both streams are scored on one grid: a recording has no live clock to keep up with."""
    return World(
        name=f"recorded/{tidy(name)}{selection.suffix}"[:100],
        kind="recorded",
        market_step_seconds=step_seconds,
        flows_step_seconds=step_seconds,
        manifest=manifest,
        first_time=first_time,
        last_time=last_time,
    )


def tidy(name: str) -> str:
    """A name that can stand in a world's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "recording"


def report(source: str, findings: Findings) -> None:
    """Tell what was found; as a warning if anything was wrong."""
    wrong = findings.unreadable or findings.repeated or findings.disordered
    _LOG.log(logging.WARNING if wrong else logging.INFO, "%s: %s", source, findings.sentence)
