"""The simulated world as a stream of steps: days of history, then ten seconds at a time, and the flows' own points.

Belongs here: putting market, feeds and transfers together, and going on after an interruption. Does not: choosing the
world (world.py), sending its messages (player.py).

After an interruption the state comes from the newest snapshot before the wanted point and the steps from there are
simulated again; without a snapshot, from the beginning. Either way the messages are the same, byte for byte.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from liq_pipeline.domain.worlds import FLOWS_STEP_SECONDS, World
from liq_pipeline.sources.playing.playable import Message, Step, known_time
from liq_pipeline.sources.simulated.feeds import Feeds, FeedState
from liq_pipeline.sources.simulated.market import DAY, Market, MarketState
from liq_pipeline.sources.simulated.transfers import Transfers, TransferState
from liq_pipeline.sources.simulated.world import (
    HISTORY_STEP_SECONDS,
    STEP_SECONDS,
    Simulation,
    describe,
    instruments,
)

_LOG = logging.getLogger(__name__)

WARM_UP_SECONDS: Final = int(2 * DAY)
"""Simulated before the history begins and shown to nobody: an empty book is no market."""
SNAPSHOT_SECONDS: Final = 3600


class Engine:
    """The whole state of a simulated world; nothing else decides what the next step brings."""

    def __init__(self, simulation: Simulation) -> None:
        seed, name = simulation.seed_number, simulation.name
        self.market = Market(seed, instruments(simulation), simulation.scripts)
        self._feeds = Feeds(seed, name, self.market)
        self._transfers = Transfers(seed, name, self.market)

    def step(self, end: int, seconds: int) -> list[Message]:
        """Advance to `end` (unix seconds) and return what became known on the way, in known order."""
        orders = self.market.step(end, seconds)
        messages: list[Message] = [*self._feeds.step(end, seconds, orders), *self._transfers.step(end, seconds)]
        messages.sort(key=known_time)
        return [*messages, *self._feeds.heartbeats(end), *self._transfers.heartbeats(end)]

    def arrays(self) -> dict[str, Any]:
        """The state as named arrays."""
        parts = {
            "market": self.market.state.arrays(),
            "feeds": self._feeds.state.arrays(),
            "transfers": self._transfers.state.arrays(),
        }
        return {f"{part}.{name}": value for part, arrays in parts.items() for name, value in arrays.items()}

    def restore(self, arrays: dict[str, Any]) -> None:
        """The inverse of arrays()."""

        def of(part: str) -> dict[str, Any]:
            return {k.removeprefix(f"{part}."): v for k, v in arrays.items() if k.startswith(f"{part}.")}

        self.market.state = MarketState.from_arrays(of("market"))
        self._feeds.state = FeedState(**of("feeds"))
        self._transfers.state = TransferState(bias=float(of("transfers")["bias"]))


class SimulatedSource:
    """The playable simulated world. on_generate(t) is called before any step after the last such t is handed out."""

    def __init__(
        self,
        simulation: Simulation,
        snapshot_folder: Path | None = None,
        on_generate: Callable[[datetime], None] | None = None,
    ) -> None:
        self._simulation = simulation
        self._world = describe(simulation)
        self._snapshots = None if snapshot_folder is None else Snapshots(snapshot_folder)
        self._on_generate = on_generate

    @property
    def world(self) -> World:
        """Its description."""
        return self._world

    def landed(self, time: datetime) -> None:
        """Snapshots before the newest at or before `time` are not needed any more."""
        if self._snapshots is not None:
            self._snapshots.prune(int(time.timestamp()))

    def steps(self, after: datetime | None) -> Iterator[Step]:
        """History in steps of 300 s, complete only as a whole and at the epoch; then steps of 10 s without end.

        Points of the flows between two of them (:15, :45) are steps without messages: everything becomes known at a
        multiple of 10 s, so nothing is missing then, and the flows' tick need not wait 5 s for the next step.
        """
        start = None if after is None else int(after.timestamp())
        epoch, first = int(self._simulation.epoch.timestamp()), int(self._simulation.first_time.timestamp())
        engine, time = self._resume(start)
        while time < epoch:
            time += HISTORY_STEP_SECONDS
            messages = engine.step(time, HISTORY_STEP_SECONDS)
            if time > first and (start is None or time > start):
                yield Step(datetime.fromtimestamp(time, UTC), messages, is_complete=time == epoch)
        if self._snapshots is not None and time == epoch:
            self._snapshots.save(time, engine.arrays())
        announced = time
        while True:
            time += STEP_SECONDS
            is_wanted = start is None or time > start
            if is_wanted and time > announced:
                announced = time + 60
                if self._on_generate is not None:
                    self._on_generate(datetime.fromtimestamp(announced, UTC))
            between = (time - 1) // FLOWS_STEP_SECONDS * FLOWS_STEP_SECONDS
            if between > max(time - STEP_SECONDS, start or 0):
                yield Step(datetime.fromtimestamp(between, UTC), [])
            messages = engine.step(time, STEP_SECONDS)
            if is_wanted:
                yield Step(datetime.fromtimestamp(time, UTC), messages)
            if self._snapshots is not None and time % SNAPSHOT_SECONDS == 0:
                self._snapshots.save(time, engine.arrays())

    def _resume(self, start: int | None) -> tuple[Engine, int]:
        """An engine at the newest snapshot at or before `start`, or at the very beginning; and its time."""
        engine = Engine(self._simulation)
        if start is not None and self._snapshots is not None:
            found = self._snapshots.newest(start)
            if found is not None:
                time, arrays = found
                engine.restore(arrays)
                return engine, time
        return engine, int(self._simulation.first_time.timestamp()) - WARM_UP_SECONDS


class Snapshots:
    """States of one world on disk, one file per moment. Losing them costs time, nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, time: int, arrays: dict[str, Any]) -> None:
        """Keep the state at `time` (unix seconds)."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{time}.{os.getpid()}"
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        temporary.replace(self._path(time))

    def newest(self, at_or_before: int) -> tuple[int, dict[str, Any]] | None:
        """The newest readable state at or before a time."""
        for time in reversed(self._times()):
            if time <= at_or_before:
                try:
                    with np.load(self._path(time), allow_pickle=False) as file:
                        return time, dict(file)
                except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                    _LOG.warning(
                        "snapshot %s cannot be read (%s): simulating from an older one", self._path(time), error
                    )
        return None

    def prune(self, before: int) -> None:
        """Delete the states that are older than the newest at or before a time."""
        for time in [t for t in self._times() if t <= before][:-1]:
            self._path(time).unlink(missing_ok=True)

    def _path(self, time: int) -> Path:
        return self._folder / f"{time}.npz"

    def _times(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("*.npz") if path.stem.isdigit())
