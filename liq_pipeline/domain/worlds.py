"""Worlds: which data belongs together, what is expected of it, and which clock it has.

Belongs here: the description of a world. Does not: where it is stored (store/worlds.py) or who plays it (sources/).
Worlds never mix in a score, a window or an alert.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

REAL = "real"
MARKET_STEP_SECONDS = 10
FLOWS_STEP_SECONDS = 15


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """Which venues a world's sources offer for one record type, and how often each speaks."""

    venues: tuple[str, ...]
    cadence_seconds: float
    venue_cadence_seconds: dict[str, float] = {}
    """Venues that speak at another pace, such as funding settled every 8 h beside every hour."""

    def cadence_of(self, venue: str) -> float:
        """Seconds between two records of the venue."""
        return self.venue_cadence_seconds.get(venue, self.cadence_seconds)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a world is expected to bring. A topic that is absent is expected from nobody: its component is unknown."""

    symbols: tuple[str, ...]
    expected: dict[str, Expectation]
    """topic -> expectation"""
    description: str = ""
    not_listed: dict[str, tuple[str, ...]] = {}
    """venue -> symbols that it does not list: nothing is expected of it for them. The real world's listings change and
    stand in the table venue_listings."""


class World(msgspec.Struct, frozen=True, kw_only=True):
    """A world and its tick grid (seconds). first_time/last_time: the span of a recording, if it is one."""

    name: str
    kind: Literal["real", "simulated", "recorded"]
    market_step_seconds: int
    flows_step_seconds: int
    manifest: Manifest
    first_time: datetime | None = None
    last_time: datetime | None = None

    @property
    def is_real(self) -> bool:
        """Whether its messages may go to external channels without LIQ_ALERT_UNREAL."""
        return self.kind == "real"
