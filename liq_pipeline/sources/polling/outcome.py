"""What the answers of a polling round mean: records, and when each feed is asked again.

Belongs here: parsing in the order of the feeds, the new state of every feed, resting scopes, lists of instruments.
Does not: what a venue's fields mean (live/), asking (ask.py), or the tables (state.py).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg

from liq_pipeline.domain.records import Record
from liq_pipeline.settings import Settings
from liq_pipeline.sources.access import limits
from liq_pipeline.sources.access.http import (
    RefusedError,
    RejectedError,
    SourceError,
    ThrottledError,
    UnknownSymbolError,
)
from liq_pipeline.sources.live.base import Feed, Reading, Source
from liq_pipeline.sources.live.instruments import Instrument, choose
from liq_pipeline.sources.live.values import UNREADABLE
from liq_pipeline.sources.polling import state as polling_state
from liq_pipeline.sources.polling.ask import unreadable
from liq_pipeline.sources.polling.plan import Task
from liq_pipeline.sources.polling.state import INSTRUMENTS, WHOLE_SOURCE, FeedKey, FeedState, Listing

log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS: Final = 30.0
"""A feed that is read once an hour does not wait an hour after a bad moment."""
LONGEST_BACKOFF_SECONDS: Final = 300.0
THROTTLED_SECONDS: Final = 60.0
"""How long a scope rests when the venue says "too often" and not until when."""


def wait_after(error: Exception, cadence: float, failures: int, settings: Settings) -> tuple[float, int]:
    """Seconds until the feed may be asked again, and its failures in a row."""
    after = error.retry_after_seconds if isinstance(error, SourceError) else None
    slow = settings.sources.slow_probe_seconds
    if isinstance(error, RefusedError):
        return max(slow, after or 0.0), failures + 1
    if isinstance(error, RejectedError):
        return max(slow, cadence), failures + 1
    if isinstance(error, ThrottledError):
        return max(after if after is not None else THROTTLED_SECONDS, cadence), failures + 1
    first = min(cadence, FIRST_BACKOFF_SECONDS)
    backoff = min(first * 2.0 ** min(failures, 10), LONGEST_BACKOFF_SECONDS)
    return max(backoff, after or 0.0), failures + 1


class Outcome:
    """What the answers of a round mean: records, and the new state of every feed that was asked."""

    def __init__(
        self, settings: Settings, now: datetime, feeds: dict[FeedKey, FeedState], listings: dict[str, Listing]
    ) -> None:
        self._settings = settings
        self._now = now
        self._feeds = feeds
        self._listings = listings
        self._marks: dict[str, dict[str, float]] = {}
        self._found: list[tuple[Source, list[Instrument]]] = []
        self._blocks: dict[str, limits.Block] = {}
        self.changed: dict[FeedKey, FeedState] = {}
        self.failures: dict[str, str] = {}
        self.problems: list[str] = []

    def take(self, asked: list[Task]) -> list[Record]:
        """Parse in the order of the feeds, since open interest in USD may need the marks of the same round."""
        work = [
            (task.source.feeds.index(feed) if feed is not None else -1, task, key, feed, cadence)
            for task in asked
            for key, feed, cadence in task.keys
        ]
        records: list[Record] = []
        for _, task, key, feed, cadence in sorted(work, key=lambda item: item[0]):
            error = task.error
            remark: str | None = None
            if error is None and task.answers:
                try:
                    if feed is None:
                        self._list(task)
                    else:
                        reading = self._read(task, feed)
                        records += reading.records
                        if reading.problems:
                            remark = f"{feed.name}: {reading.problems[0]}"
                            self.problems += [f"{task.source.name}: {problem}" for problem in reading.problems]
                except UNREADABLE as problem:
                    error = unreadable(task.source.name, problem)
            self._settle(task, key, cadence, error, remark)
        return records

    def write(self, conn: psycopg.Connection[Any]) -> dict[str, list[str]]:
        """Store the state. Returns what sources were found not to list."""
        news: dict[str, list[str]] = {}
        for source, found in self._found:
            absent = polling_state.save_listing(conn, source.name, found, self._settings.symbols, self._now)
            if absent:
                news[source.name] = absent
                log.warning("%s does not list %s: nothing is expected from it there", source.name, ", ".join(absent))
        for scope in sorted(self._blocks):
            limits.block(conn, scope, self._blocks[scope])
        polling_state.save_feeds(conn, self.changed)
        return news

    def _list(self, task: Task) -> None:
        listing = task.source.instruments
        if listing is None:
            raise ValueError("only a source's list of instruments is read here")
        found = choose(listing.parse([answer.payload for _, answer in task.answers]), self._settings.symbols)
        self._found.append((task.source, found))

    def _read(self, task: Task, feed: Feed) -> Reading:
        _, answer = task.answers[0]
        name = task.source.name
        reading = Reading(
            venue=name,
            sent_at=answer.sent_at,
            received_at=answer.received_at,
            instruments={i.native: i for i in self._listings[name].instruments},
            instrument=task.instrument,
            marks=self._marks.setdefault(name, {}),
        )
        feed.parse(answer.payload, reading)
        return reading

    def _settle(self, task: Task, key: FeedKey, cadence: float, error: SourceError | None, remark: str | None) -> None:
        now, before = self._now, self._feeds.get(key)
        failures = 0 if before is None else before.failures
        last_success = None if before is None else before.last_success
        whole = FeedKey(key.source, WHOLE_SOURCE)
        if error is None:
            due = now + timedelta(seconds=cadence)
            self.changed[key] = FeedState(due, now, now, 0, remark)
            if whole in self._feeds and self._feeds[whole].failures:
                self.changed[whole] = FeedState(now, now, now, 0, None)
                log.warning("%s answers again", key.source)
            return
        self.failures[key.source] = error.reason
        wait_seconds, failures = wait_after(error, cadence, failures, self._settings)
        due = now + timedelta(seconds=wait_seconds)
        self.changed[key] = FeedState(due, now, last_success, failures, error.reason)
        if isinstance(error, RefusedError):
            known = self._feeds.get(whole)
            self.changed[whole] = FeedState(due, now, None, (known.failures if known else 0) + 1, error.reason)
            # Its feeds did not fail one by one: they wait with the source.
            self.changed[key] = replace(self.changed[key], failures=failures, next_due=now)
            if known is None or not known.failures:
                log.warning("%s refuses us and is down: %s", key.source, error.reason)
        elif isinstance(error, UnknownSymbolError):
            # Only the venue's own list decides what it lists: read it again now.
            self.changed[FeedKey(key.source, INSTRUMENTS)] = FeedState(now, now, now)
        elif isinstance(error, ThrottledError) or error.retry_after_seconds is not None:
            rest = error.retry_after_seconds
            until = now + timedelta(seconds=THROTTLED_SECONDS if rest is None else rest)
            for scope in task.request.costs:
                self._blocks[scope] = limits.Block(until, error.reason)
