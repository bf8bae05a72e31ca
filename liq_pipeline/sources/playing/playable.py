"""What the player can play: a world and its messages, cut into steps of known time.

Belongs here: the shape that the simulator and every recording format share. Does not: sending or pacing (player.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from liq_pipeline.domain.records import Heartbeat, Record
from liq_pipeline.domain.worlds import World

HeartbeatOf = tuple[str, Heartbeat]
"""A heartbeat and the event topic it belongs to."""
Message = Record | HeartbeatOf


@dataclass(frozen=True)
class Step:
    """Every message with known time in (end of the step before, time], in known order.

    is_complete: the world may say "all is known up to `time`" behind it. False inside a history that only makes sense
    as a whole: scoring starts where it ends.
    """

    time: datetime
    messages: list[Message]
    is_complete: bool = True


class Playable(Protocol):
    """A world that can be played from any point, with the same messages each time."""

    @property
    def world(self) -> World:
        """Its description, with a manifest of what is expected."""
        ...

    def steps(self, after: datetime | None) -> Iterator[Step]:
        """The steps that end after `after` (None: all), in order; endless for a simulation."""
        ...

    def landed(self, time: datetime) -> None:
        """Told now and then: everything up to `time` is in the database and will not be asked for again."""
        ...


def known_time(message: Message) -> datetime:
    """When a live collector could have had it."""
    return message[1].known if isinstance(message, tuple) else message.known
