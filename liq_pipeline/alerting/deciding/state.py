"""The state of the alert machine and what comes out of it: alerts, the book of them, changes, messages.

Belongs here: the types, and what identifies an alert. Does not: what moves them (machine.py), rows (alerting/book.py),
texts (alerting/telling/messages.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

import msgspec

from liq_pipeline.alerting.deciding.policy import Rule
from liq_pipeline.scoring.results import Side

ChangeKind = Literal["opened", "escalated", "eased", "resolved"]
MessageKind = Literal["opened", "spread", "escalated", "joined", "eased", "resolved", "reminder"]
Key = tuple[Rule, str]

_NAMESPACE: Final = uuid.UUID("5f0e8d4e-6d5b-5d0c-9a56-0d7e8f6f2b11")


class Alert(msgspec.Struct, frozen=True):
    """One open alert. Levels: 1 INFO, 2 WARNING, 3 CRITICAL. All times are the world's.

    A msgspec struct, because an evaluation replaces tens of thousands of them a second.
    """

    alert_id: uuid.UUID
    page_id: uuid.UUID
    rule: Rule
    subject: str
    side: Side | None
    level: int
    peak_level: int
    opened_at: datetime
    judged_at: datetime
    last_seen_at: datetime
    changed_at: datetime
    score_version: str
    component_shares: dict[str, float] = msgspec.field(default_factory=dict)
    raised_at: datetime | None = None
    calm_since: datetime | None = None
    calm_level: int = 0
    told_level: int | None = None
    told_at: datetime | None = None
    """When people were last told of it."""
    first_told_at: datetime | None = None
    """When they first heard of it: what a track record is judged from."""
    group_id: uuid.UUID | None = None
    is_group: bool = False
    is_acknowledged: bool = False

    @property
    def key(self) -> Key:
        """At most one alert is open per key (and world)."""
        return (self.rule, self.subject)


@dataclass(frozen=True, slots=True)
class Cooling:
    """A page ended a short while ago at this peak: until then, the same again stays quiet."""

    until: datetime
    peak_level: int


CoolingKey = tuple[Rule, str, Side | None]


@dataclass(frozen=True, slots=True)
class Book:
    """All state of the machine. pending: since when a level holds that its rule has not taken yet."""

    open: Mapping[Key, Alert] = field(default_factory=dict)
    pending: Mapping[tuple[Rule, str, int], datetime] = field(default_factory=dict)
    cooling: Mapping[CoolingKey, Cooling] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One alert changed its level. `alert` is it afterwards; level_after is 0 when it was resolved."""

    kind: ChangeKind
    time: datetime
    alert: Alert
    level_before: int
    level_after: int
    reason: str


@dataclass(frozen=True, slots=True)
class Message:
    """Something to tell people. `alert` speaks for `members`, open symbol alerts (itself, or those of a group; none
    when it is resolved). told_before: the level people were told last, 0 if none. news: symbols they hear of first."""

    kind: MessageKind
    time: datetime
    alert: Alert
    told_before: int
    members: tuple[Alert, ...]
    news: tuple[str, ...]
    reason: str
    together: tuple[Message, ...] = ()
    """Messages of other rules that open for the same subject at the same point, told in this one."""


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of one point: the next book, and what happened, in a fixed order."""

    book: Book
    changes: tuple[Change, ...]
    messages: tuple[Message, ...]


def alert_id(
    world: str, rule: Rule, subject: str, side: Side | None, opened_at: datetime, score_version: str
) -> uuid.UUID:
    """The id of an alert: the same points give the same ids."""
    return uuid.uuid5(_NAMESPACE, "|".join((world, rule, subject, side or "", opened_at.isoformat(), score_version)))
