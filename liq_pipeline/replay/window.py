"""What is played: a stretch of some world, with the look-back before it and the aftermath behind it.

Belongs here: finding the stretch in a recording, an archive or a simulation. Does not: playing it (play.py).

Scores are made inside the stretch only. The look-back fills the percentiles; the aftermath is landed after the last
score, so that what happened next can be told and cannot have been known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from liq_pipeline.domain.records import Price
from liq_pipeline.domain.worlds import World
from liq_pipeline.errors import LiqError
from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import RejectedError
from liq_pipeline.sources.playing.playable import Message, Playable, Step, known_time
from liq_pipeline.sources.recorded.formats import open_recording
from liq_pipeline.sources.recorded.recording import Recording, Selection
from liq_pipeline.sources.simulated.market import MODEL_VERSION, Script
from liq_pipeline.sources.simulated.source import SimulatedSource
from liq_pipeline.sources.simulated.world import Simulation

LOOK_BACK: Final = timedelta(days=32)
AFTERMATH: Final = timedelta(days=1)
DAY: Final = timedelta(days=1)
LONGEST: Final = timedelta(days=2)
"""A recording up to this long is played whole; of a longer one, one day."""
SIMULATED_BEFORE: Final = timedelta(hours=4)
SIMULATED_AFTER: Final = timedelta(hours=4)
_CHUNK: Final = 5_000


@dataclass(frozen=True)
class Window:
    """A world, the stretch (first, last] that is scored, and every message in known order, from the look-back on.

    said_of_it: sentences for the page: where the data is from, what of it is missing.
    """

    world: World
    first: datetime
    last: datetime
    messages: Sequence[Message]
    said_of_it: tuple[str, ...]

    def look_back(self) -> Playable:
        """Everything up to `first`, one history that only makes sense as a whole."""
        return _Part(self.world, lambda: self._chunks(self._between(None, self.first), self.first))

    def stretch(self) -> Playable:
        """(first, last], one step per grid point."""
        world = msgspec.structs.replace(self.world, first_time=self.first, last_time=self.last)
        return _Part(world, lambda: Recording(world, lambda: self._between(self.first, self.last)).steps(None))

    def aftermath(self) -> Playable:
        """What became known after `last`."""
        end = max((known_time(m) for m in self.messages), default=self.last)
        return _Part(self.world, lambda: self._chunks(self._between(self.last, None), max(end, self.last)))

    def _between(self, after: datetime | None, until: datetime | None) -> list[Message]:
        return [
            m
            for m in self.messages
            if (after is None or known_time(m) > after) and (until is None or known_time(m) <= until)
        ]

    @staticmethod
    def _chunks(messages: list[Message], end: datetime) -> Iterator[Step]:
        for start in range(0, len(messages), _CHUNK):
            yield Step(end, messages[start : start + _CHUNK], is_complete=False)
        yield Step(end, [])


@dataclass(frozen=True)
class _Part:
    """One part of a window as something that the player takes."""

    world: World
    read: Callable[[], Iterator[Step]]

    def steps(self, after: datetime | None) -> Iterator[Step]:
        """All of it: a throw-away world is never resumed."""
        yield from self.read()

    def landed(self, time: datetime) -> None:
        """Nothing is kept that could be freed."""


def of_recording(folder: Path, settings: Settings, day: date | None = None) -> Window:
    """A recording, or one day of a long one: the day asked for, else the one in which a price moved most.

    Raises LiqError if the folder cannot be played or does not hold the day.
    """
    playable = open_recording(folder, settings.score_step, Selection())
    messages = _messages(playable.steps(None))
    begin, end = known_time(messages[0]), known_time(messages[-1])
    said = [f"played from the recording {folder.name} ({playable.world.manifest.description})"]
    if day is None and end - begin > LONGEST:
        day = _wildest_day(messages, begin)
        said.append(
            f"of its {(end - begin).days} days this is the one in which a price moved most; --day takes another"
        )
    if day is None:
        # A short recording is played whole. Its first half day warms the scores up as far as it can.
        return _window(playable.world, begin, end, messages, said)
    first = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if first + DAY <= begin or first >= end:
        raise LiqError(f"{folder.name} has nothing of {day}: it reaches from {begin:%Y-%m-%d} to {end:%Y-%m-%d}")
    if first - begin < LOOK_BACK:
        said.append(f"only {max((first - begin).total_seconds(), 0) / 86_400:.1f} days of look-back lie before the day")
    return _window(playable.world, max(first, begin), min(first + DAY, end), messages, said)


def of_archive(
    day: date,
    symbols: Sequence[str],
    settings: Settings,
    progress: Callable[[int, int], None] = lambda done, all_: None,
) -> Window:
    """One UTC day from the public archives, with its look-back, and the day after it if it is published.

    Raises SourceError if the archive has nothing of the day or cannot be reached.
    """
    from liq_pipeline.sources.archives.day import open_day

    name = f"recorded/archive-{day.isoformat()}"
    try:
        found = open_day(settings, day + DAY, symbols, look_back=LOOK_BACK + DAY, world_name=name, progress=progress)
        after = "with the day after it, which no score could see"
    except RejectedError:
        found = open_day(settings, day, symbols, look_back=LOOK_BACK, world_name=name, progress=progress)
        after = "the day after it is not published yet, so the last hours cannot be judged"
    first = datetime(day.year, day.month, day.day, tzinfo=UTC)
    said = [f"from {found.world.manifest.description.partition(',')[0]}, {after}", *found.missing, *found.problems]
    return _window(found.world, first, first + DAY, list(found.records()), said)


def of_simulation(settings: Settings, seed: str = "replay", now: datetime | None = None) -> Window:
    """A simulated market with a cascade scripted into it, 30 days of history before it. Not real, and it says so."""
    end = (now or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
    epoch = end - SIMULATED_BEFORE - SIMULATED_AFTER
    hit = epoch + SIMULATED_BEFORE
    script = Script(build_from=int(epoch.timestamp()), hit_at=int(hit.timestamp()))
    simulation = Simulation(
        seed=seed,
        epoch=epoch,
        symbols=settings.symbols,
        model_version=MODEL_VERSION,
        scripts=(script,),
        generated_to=epoch,
    )
    last, stop = epoch + SIMULATED_BEFORE + SIMULATED_AFTER, end + timedelta(hours=4)
    messages: list[Message] = []
    source = SimulatedSource(simulation)
    for step in source.steps(None):
        if step.time > stop:
            break
        messages += step.messages
    said = [
        "SIMULATED: no market ever did this. Leverage piles up"
        f" from {epoch:%H:%M} on and is hit by bad news at {hit:%H:%M} UTC"
    ]
    world = msgspec.structs.replace(
        source.world, market_step_seconds=settings.score_step, flows_step_seconds=settings.score_step
    )
    return _window(world, epoch, last, messages, said)


def _window(world: World, first: datetime, last: datetime, messages: list[Message], said: Iterable[str]) -> Window:
    step = timedelta(seconds=world.market_step_seconds)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    first, last = (epoch + (time - epoch) // step * step for time in (first, last))
    if last <= first:
        raise LiqError(f"{world.name} holds no whole step of {step.total_seconds():g} s: nothing can be scored")
    chosen = [m for m in messages if first - LOOK_BACK <= known_time(m) <= last + AFTERMATH]
    chosen.sort(key=known_time)
    return Window(msgspec.structs.replace(world, first_time=first, last_time=last), first, last, chosen, tuple(said))


def _messages(steps: Iterator[Step]) -> list[Message]:
    messages = [message for step in steps for message in step.messages]
    if not messages:
        raise LiqError("the recording is empty: there is nothing to play")
    return messages


def _wildest_day(messages: Sequence[Message], begin: datetime) -> date:
    """The UTC day with the widest range of any price, once three days of look-back lie before it, if there is one."""
    lowest: dict[tuple[date, str, str], float] = defaultdict(lambda: float("inf"))
    highest: dict[tuple[date, str, str], float] = defaultdict(float)
    for message in messages:
        if isinstance(message, Price):
            key = (message.event_time.date(), message.symbol, message.venue)
            lowest[key] = min(lowest[key], message.price_usd)
            highest[key] = max(highest[key], message.price_usd)
    if not highest:
        return begin.date()
    warm = [key for key in highest if key[0] >= (begin + 3 * DAY).date()] or list(highest)
    return max(warm, key=lambda key: highest[key] / lowest[key])[0]
