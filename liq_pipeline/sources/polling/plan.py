"""What a polling round asks: the requests that are due and whose budgets have room.

Belongs here: a request with everything that waits for its answer, and the order in which they matter. Does not: sending
(ask.py), or what an answer means (outcome.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg

from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access import limits
from liq_pipeline.sources.access.http import Answer, Request, SourceError
from liq_pipeline.sources.live.base import Feed, Source
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.sources.polling.state import INSTRUMENTS, WHOLE_SOURCE, FeedKey, FeedState, Listing

LARGEST_ROUND: Final = 8
"""Requests per source and round, as a multiple of those that may be under way at once."""


@dataclass
class Task:
    """One request and everything that waits for its answer."""

    source: Source
    request: Request
    keys: list[tuple[FeedKey, Feed | None, float]]
    """(row of poll_state, feed or None for the list of instruments, cadence in seconds)"""
    instrument: Instrument | None = None
    answers: list[tuple[Request, Answer]] = field(default_factory=list)
    """One, or the several of a list of instruments, in order."""
    error: SourceError | None = None
    started: bool = False
    started_at: float = float("inf")
    """time.monotonic(); never, before it is started."""


def plan(
    sources: Sequence[Source],
    feeds: dict[FeedKey, FeedState],
    listings: dict[str, Listing],
    settings: Settings,
    now: datetime,
) -> list[Task]:
    """The requests that are due, per source in the order in which they matter: fast feeds first, then the latest."""
    planned: list[Task] = []
    most = LARGEST_ROUND * settings.sources.requests_at_once_per_source
    for source in sources:
        whole = feeds.get(FeedKey(source.name, WHOLE_SOURCE))
        if whole is not None and whole.failures and whole.next_due > now:
            continue
        due = _due_of(source, feeds, listings.get(source.name, Listing()), settings, now)
        # A source that refused us gets one request as a probe, not a burst.
        planned += due[:1] if whole is not None and whole.failures else due[:most]
    return planned


def _due_of(
    source: Source, feeds: dict[FeedKey, FeedState], listing: Listing, settings: Settings, now: datetime
) -> list[Task]:
    tasks: list[Task] = []
    if source.instruments is not None:
        key = FeedKey(source.name, INSTRUMENTS)
        cadence = source.instruments.refresh_seconds or settings.sources.instruments_seconds
        state = feeds.get(key)
        if state is not None and not state.failures and not listing.knows(settings.symbols):
            state = None  # LIQ_SYMBOLS has grown since the list was read
        if is_due(state, cadence, now):
            tasks.append(Task(source, source.instruments.requests[0], [(key, None, cadence)]))
    shared: dict[str, Task] = {}
    for feed in source.feeds:
        cadence = registry.cadence_seconds(feed.cadence, settings)
        for group in _groups(feed, listing.instruments):
            key = FeedKey(source.name, feed.name, group[0].symbol if feed.per_symbol else "")
            if not is_due(feeds.get(key), cadence, now):
                continue
            request = feed.request(group, now)
            identity = repr((request.path, request.params, request.body))
            task = shared.setdefault(identity, Task(source, request, [], group[0] if feed.per_symbol else None))
            task.keys.append((key, feed, cadence))

    def urgency(task: Task) -> tuple[float, datetime]:
        due = [feeds[key].next_due for key, _, _ in task.keys if key in feeds]
        return min(cadence for _, _, cadence in task.keys), min(due, default=now)

    return tasks + sorted(shared.values(), key=urgency)


def _groups(feed: Feed, instruments: tuple[Instrument, ...]) -> list[tuple[Instrument, ...]]:
    """What one request of the feed asks for."""
    if feed.per_symbol:
        return [(instrument,) for instrument in instruments]
    return [instruments] if instruments else []


def is_due(state: FeedState | None, cadence: float, now: datetime) -> bool:
    """Whether a feed is asked in the round of `now`; state None: it never was."""
    # Rounds come on their own beat: a feed that would be due a moment after this one must not wait for the next.
    return state is None or state.next_due <= now + timedelta(seconds=min(cadence / 10, 1.0))


def admit(conn: psycopg.Connection[Any], tasks: list[Task], settings: Settings, now: datetime) -> list[Task]:
    """The tasks whose budgets have room; the others stay due."""
    granted = limits.reserve(conn, limits_of(tasks, settings), [_costs(task) for task in tasks], now)
    return [task for task, fits in zip(tasks, granted, strict=True) if fits]


def limits_of(tasks: Sequence[Task], settings: Settings) -> dict[str, limits.Limit]:
    """The limits of the tasks' sources, by scope."""
    in_force: dict[str, limits.Limit] = {}
    for task in tasks:
        in_force |= task.source.limits_in_force(settings)
    return in_force


def requests_of(task: Task) -> tuple[Request, ...]:
    """Several for a list of instruments only."""
    listing = task.source.instruments
    return listing.requests if listing is not None and task.keys[0][1] is None else (task.request,)


def _costs(task: Task) -> dict[str, int]:
    total: Counter[str] = Counter()
    for request in requests_of(task):
        total.update(request.costs)
    return dict(total)
