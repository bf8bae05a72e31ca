"""One polling round: ask every due feed of every source at once, and send what came to Kafka, within a bound.

Belongs here: what is due, who may be asked, and what each outcome means for the next round.
Does not: what answers mean (live/), how a request fails (http.py), limits (limits.py), or streams (collect.py).

A round: read the state; plan the due requests, oldest and fastest first; reserve their budgets; ask all sources
concurrently until the deadline; parse; send and flush; only then write the new state. A round that dies anywhere
leaves its feeds due, so the worst case is the same question twice, never a record that is believed sent.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.bus.topics import TOPIC_OF_RECORD
from liq_pipeline.domain.records import Record
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.settings import Settings
from liq_pipeline.sources import limits, polling_state, registry, status, wallet_lists
from liq_pipeline.sources.flows import FlowReading, read_flows, remember
from liq_pipeline.sources.http import (
    Answer,
    BadAnswerError,
    HttpClient,
    NoTimeLeftError,
    OnAnswer,
    RefusedError,
    RejectedError,
    Request,
    SourceError,
    ThrottledError,
    TransientError,
    UnknownSymbolError,
)
from liq_pipeline.sources.live.base import UNREADABLE, Feed, Instrument, Reading, Source, choose
from liq_pipeline.sources.polling_state import INSTRUMENTS, WHOLE_SOURCE, FeedKey, FeedState, Listing
from liq_pipeline.sources.raw_log import RawLog, raw_log_of
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect

log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS: Final = 30.0
"""A feed that is read once an hour does not wait an hour after a bad moment."""
LONGEST_BACKOFF_SECONDS: Final = 300.0
THROTTLED_SECONDS: Final = 60.0
"""How long a scope rests when the venue says "too often" and not until when."""
SETTLE_SECONDS: Final = 0.7
"""Kept of the round's bound for parsing, sending and writing the state."""
LEAST_ASKING_SECONDS: Final = 0.3
LARGEST_ROUND: Final = 8
"""Requests per source and round, as a multiple of those that may be under way at once."""
FLOWS: Final = "transfers"
"""The feed name of stablecoin transfers."""
_LOCK = "SELECT pg_try_advisory_lock(hashtext('liq_pipeline polling round'))"


@dataclass
class PollResult:
    """What a round did. records: {topic: sent}; failures: {source: newest reason}; skipped: another round ran."""

    started_at: datetime
    seconds: float = 0.0
    asked: int = 0
    answered: int = 0
    records: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    not_listed: dict[str, list[str]] = field(default_factory=dict)
    """{source: symbols}, in the round that found out."""
    skipped: bool = False


@dataclass
class _Task:
    """One request and everything that waits for its answer."""

    source: Source
    request: Request
    keys: list[tuple[FeedKey, Feed | None, float]]
    """(row of poll_state, feed or None for the list of instruments, cadence in seconds)"""
    instrument: Instrument | None = None
    answer: Answer | None = None
    more: list[Any] = field(default_factory=list)
    """The further answers of a list of instruments, in order."""
    error: SourceError | None = None
    started: bool = False
    started_at: float = float("inf")
    """time.monotonic(); never, before it is started."""


def poll_due(
    database_url: str,
    bootstrap_servers: str,
    settings: Settings,
    now: datetime | None = None,
) -> PollResult:
    """Poll what is due at `now` and send it to Kafka. Bounded by LIQ_SOURCE_ROUND_SECONDS.

    A source's failure never raises: it is in the result, in `source_status`, and decides when the source is asked
    again. Raises PublishError if Kafka does not take the records (the state is then not advanced), psycopg.Error if
    the database is away.
    """
    moment = now or datetime.now(UTC)
    begun = time.monotonic()
    knobs = settings.sources
    asking_until = begun + max(knobs.round_seconds - SETTLE_SECONDS, LEAST_ASKING_SECONDS)
    result = PollResult(started_at=moment)
    raw_log = raw_log_of(settings)
    on_answer = None if raw_log is None else raw_log.answer
    with connect(database_url, application_name="liq poll") as conn:
        row = conn.execute(_LOCK).fetchone()
        if row is None or not row[0]:
            result.skipped = True
            return result
        sources = registry.sources_in_force(settings)
        feeds = polling_state.load_feeds(conn)
        listings = polling_state.load_listings(conn, settings.symbols)
        tasks = _plan(sources, feeds, listings, settings, moment)
        tasks = _admit(conn, tasks, settings, moment)
        conn.commit()
        flows = _FlowTask(database_url, settings, feeds, moment, asking_until, raw_log)
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="beside") as beside:
            # Connecting takes about as long as a venue's answer: done meanwhile.
            connecting = beside.submit(
                RecordProducer, bootstrap_servers, settings.kafka_topic_prefix, client_id="liq-poll"
            )
            following = beside.submit(flows.run)
            _ask_all(tasks, settings, asking_until, on_answer)
            following.result()
            if raw_log is not None:
                raw_log.flush()
            producer = connecting.result()
        asked = [task for task in tasks if task.started]
        result.asked = len(asked)
        result.answered = sum(task.error is None for task in asked)
        outcome = _Outcome(settings, moment, feeds, listings)
        records: list[Record] = [*outcome.take(asked), *flows.reading.records]
        outcome.changed |= flows.changed
        outcome.failures |= flows.failures
        with producer:
            for record in records:
                producer.send(record)
            producer.flush(timeout_seconds=max(1.0, begun + knobs.round_seconds - time.monotonic()))
            if flows.reading.heartbeat is not None:
                # Only now is it true that everything up to this block has arrived.
                producer.send_heartbeat("stablecoin_flows", flows.reading.heartbeat)
                producer.flush(timeout_seconds=max(1.0, begun + knobs.round_seconds - time.monotonic()))
        result.records = dict(Counter(TOPIC_OF_RECORD[type(record)] for record in records))
        result.failures, result.problems = outcome.failures, outcome.problems
        result.not_listed = outcome.write(conn)
        remember(conn, flows.reading)
        _write_status(conn, sources, {**feeds, **outcome.changed}, settings, moment)
        register_real_world(conn, settings)
        conn.commit()
    result.seconds = time.monotonic() - begun
    return result


def register_real_world(conn: psycopg.Connection[Any], settings: Settings) -> None:
    """Bring the real world's manifest up to date; in live mode it is the active one."""
    world = registry.real_world(settings)
    if worlds.get(conn, REAL) != world or worlds.active(conn) is None:
        worlds.register(conn, world, activate=settings.mode == "live" or worlds.active(conn) is None)


def _plan(
    sources: Sequence[Source],
    feeds: dict[FeedKey, FeedState],
    listings: dict[str, Listing],
    settings: Settings,
    now: datetime,
) -> list[_Task]:
    """The requests that are due, per source in the order in which they matter: fast feeds first, then the latest."""
    planned: list[_Task] = []
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
) -> list[_Task]:
    tasks: list[_Task] = []
    if source.instruments is not None:
        key = FeedKey(source.name, INSTRUMENTS)
        cadence = source.instruments.refresh_seconds or settings.sources.instruments_seconds
        state = feeds.get(key)
        if state is not None and not state.failures and not listing.knows(settings.symbols):
            state = None  # LIQ_SYMBOLS has grown since the list was read
        if _is_due(state, cadence, now):
            tasks.append(_Task(source, source.instruments.requests[0], [(key, None, cadence)]))
    shared: dict[str, _Task] = {}
    for feed in source.feeds:
        cadence = registry.cadence_seconds(feed.cadence, settings)
        for group in _groups(feed, listing.instruments):
            key = FeedKey(source.name, feed.name, group[0].symbol if feed.per_symbol else "")
            if not _is_due(feeds.get(key), cadence, now):
                continue
            request = feed.request(group, now)
            identity = repr((request.path, request.params, request.body))
            task = shared.setdefault(identity, _Task(source, request, [], group[0] if feed.per_symbol else None))
            task.keys.append((key, feed, cadence))

    def urgency(task: _Task) -> tuple[float, datetime]:
        due = [feeds[key].next_due for key, _, _ in task.keys if key in feeds]
        return min(cadence for _, _, cadence in task.keys), min(due, default=now)

    return tasks + sorted(shared.values(), key=urgency)


def _groups(feed: Feed, instruments: tuple[Instrument, ...]) -> list[tuple[Instrument, ...]]:
    """What one request of the feed asks for."""
    if feed.per_symbol:
        return [(instrument,) for instrument in instruments]
    return [instruments] if instruments else []


def _is_due(state: FeedState | None, cadence: float, now: datetime) -> bool:
    # Rounds come on their own beat: a feed that would be due a moment after this one must not wait for the next.
    return state is None or state.next_due <= now + timedelta(seconds=min(cadence / 10, 1.0))


def _admit(conn: psycopg.Connection[Any], tasks: list[_Task], settings: Settings, now: datetime) -> list[_Task]:
    """The tasks whose budgets have room; the others stay due."""
    in_force: dict[str, limits.Limit] = {}
    for task in tasks:
        in_force |= task.source.limits_in_force(settings)
    granted = limits.reserve(conn, in_force, [_costs(task) for task in tasks], now)
    return [task for task, fits in zip(tasks, granted, strict=True) if fits]


def _requests(task: _Task) -> tuple[Request, ...]:
    listing = task.source.instruments
    return listing.requests if listing is not None and task.keys[0][1] is None else (task.request,)


def _costs(task: _Task) -> dict[str, int]:
    total: Counter[str] = Counter()
    for request in _requests(task):
        total.update(request.costs)
    return dict(total)


def _ask_all(tasks: list[_Task], settings: Settings, until: float, on_answer: OnAnswer | None) -> None:
    """Ask concurrently, at most so many at once per source; what has not been started by the deadline stays due."""
    by_source: dict[str, list[_Task]] = {}
    for task in tasks:
        by_source.setdefault(task.source.name, []).append(task)
    executors: list[ThreadPoolExecutor] = []
    clients: list[HttpClient] = []
    futures: dict[Future[None], _Task] = {}
    for name, own in by_source.items():
        http = registry.client(own[0].source, settings, on_answer=on_answer)
        clients.append(http)
        executor = ThreadPoolExecutor(
            max_workers=settings.sources.requests_at_once_per_source, thread_name_prefix=f"poll {name}"
        )
        executors.append(executor)
        futures |= {executor.submit(_ask, http, task, until): task for task in own}
    _, late = wait(futures, timeout=max(0.0, until - time.monotonic()) + 0.1)
    for future in late:
        task = futures[future]
        cancelled = future.cancel()
        had_its_time = time.monotonic() - task.started_at >= settings.sources.request_seconds
        task.started = not cancelled and had_its_time
        if task.started:
            # Its thread is left behind (a name that does not resolve cannot be interrupted).
            task.error = TransientError(task.source.name, "no answer before the end of the round")
    for executor in executors:
        executor.shutdown(wait=False, cancel_futures=True)
    if not late:
        for http in clients:
            http.close()


def _ask(http: HttpClient, task: _Task, until: float) -> None:
    if until - time.monotonic() < LEAST_ASKING_SECONDS / 3:
        return
    task.started, task.started_at = True, time.monotonic()
    try:
        answers = []
        for request in _requests(task):
            answers += _with_pages(http, task, request, until)
        task.answer, task.more = answers[0], [answer.payload for answer in answers[1:]]
    except NoTimeLeftError:
        task.started = False  # the round ended, not the source's patience: it stays due
    except SourceError as error:
        task.error = error


def _with_pages(http: HttpClient, task: _Task, request: Request, until: float) -> list[Answer]:
    answers = [http.ask(request, deadline=until)]
    listing = task.source.instruments
    if listing is None or task.keys[0][1] is not None or listing.next_page is None:
        return answers
    try:
        page = listing.next_page(request, answers[-1].payload)
        while page is not None:
            answers.append(http.ask(page, deadline=until))
            page = listing.next_page(page, answers[-1].payload)
    except UNREADABLE as error:
        raise _unreadable(task.source.name, error) from error
    return answers


def _unreadable(source: str, error: Exception) -> BadAnswerError:
    return BadAnswerError(source, f"the answer has another form than documented ({type(error).__name__}: {error})")


class _FlowTask:
    """Following the chain in a thread of its own, beside the venues and within the same bound."""

    def __init__(
        self,
        database_url: str,
        settings: Settings,
        feeds: dict[FeedKey, FeedState],
        now: datetime,
        until: float,
        raw_log: RawLog | None,
    ) -> None:
        self._database_url = database_url
        self._settings = settings
        self._now = now
        self._until = until
        self._raw_log = raw_log
        self._source = registry.flow_source(settings)
        self._key = FeedKey(self._source or "", FLOWS)
        self._before = feeds.get(self._key)
        self.reading = FlowReading(read_at=now)
        self.changed: dict[FeedKey, FeedState] = {}
        self.failures: dict[str, str] = {}

    def run(self) -> None:
        """Read, if it is due. Its failure is in `changed` and `failures`."""
        cadence = self._settings.sources.flows_seconds
        if self._source is None or not _is_due(self._before, cadence, self._now):
            return
        on_answer, on_chunk = (None, None) if self._raw_log is None else (self._raw_log.answer, self._raw_log.chunk)
        http = registry.flow_client(self._settings, on_answer=on_answer)
        budgets = limits.Budgets(self._database_url, registry.flow_limits(self._settings))
        before = self._before or FeedState(self._now, self._now)

        def acquire(costs: dict[str, int]) -> None:
            budgets.acquire(costs, timeout_seconds=max(0.0, self._until - time.monotonic()))

        try:
            with connect(self._database_url, application_name="liq flows") as conn:
                wallet_lists.ensure_shipped(conn, self._now)
                labels = wallet_lists.in_force(conn, self._now)
                reader = registry.flow_reader(http, acquire, self._until)
                knobs = self._settings.sources
                self.reading = read_flows(
                    reader, conn, labels, knobs, self._now, self._until, failures=before.failures, on_chunk=on_chunk
                )
            # Behind the chain, after an outage or at the first start: go on in the next round.
            due = self._now if self.reading.is_behind else self._now + timedelta(seconds=cadence)
            self.changed[self._key] = FeedState(due, self._now, self._now)
        except (SourceError, limits.BudgetError, *UNREADABLE) as problem:
            # Whatever is wrong with the chain's answers, the venues' must not be lost with them.
            known = isinstance(problem, (SourceError, limits.BudgetError))
            error = problem if known else _unreadable(self._source, problem)
            reason = error.reason if isinstance(error, SourceError) else str(error)
            seconds, failures = _wait(error, cadence, before.failures, self._settings)
            if isinstance(error, ThrottledError):
                budgets.block(list(registry.flow_limits(self._settings))[:1], seconds, reason)
            self.failures[self._source] = reason
            due = self._now + timedelta(seconds=seconds)
            self.changed[self._key] = FeedState(due, self._now, before.last_success, failures, reason)
        finally:
            http.close()
            budgets.close()


def _wait(error: Exception, cadence: float, failures: int, settings: Settings) -> tuple[float, int]:
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


class _Outcome:
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

    def take(self, asked: list[_Task]) -> list[Record]:
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
            if error is None and task.answer is not None:
                try:
                    if feed is None:
                        self._list(task)
                    else:
                        reading = self._read(task, feed)
                        records += reading.records
                        if reading.problems:
                            remark = f"{feed.name}: {reading.problems[0]}"
                            self.problems += [f"{task.source.name}: {problem}" for problem in reading.problems]
                except UNREADABLE as unreadable:
                    error = _unreadable(task.source.name, unreadable)
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

    def _list(self, task: _Task) -> None:
        listing, answer = task.source.instruments, task.answer
        if listing is None or answer is None:
            raise ValueError("only a source's list of instruments is read here")
        found = choose(listing.parse([answer.payload, *task.more]), self._settings.symbols)
        self._found.append((task.source, found))

    def _read(self, task: _Task, feed: Feed) -> Reading:
        answer = task.answer
        if answer is None:
            raise ValueError("there is no answer to read")
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

    def _settle(self, task: _Task, key: FeedKey, cadence: float, error: SourceError | None, remark: str | None) -> None:
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
        wait_seconds, failures = _wait(error, cadence, failures, self._settings)
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


def _write_status(
    conn: psycopg.Connection[Any],
    sources: Sequence[Source],
    feeds: dict[FeedKey, FeedState],
    settings: Settings,
    now: datetime,
) -> None:
    listings = polling_state.load_listings(conn, settings.symbols)
    rows = []
    for source in sources:
        if not source.feeds:
            continue  # only streamed or event feeds: the collector speaks for it
        budget = limits.usage(conn, source.limits_in_force(settings), now)
        listing = listings.get(source.name, Listing())
        symbols = {"", *(instrument.symbol for instrument in listing.instruments)}
        current = {key: state for key, state in feeds.items() if key.symbol in symbols}
        rows.append(replace(status.judge(source.name, current, listing.not_listed), budget=budget))
    in_force = {source.name for source in sources}
    rows += [status.SourceStatus(name, "off", "not in LIQ_VENUES") for name in registry.SOURCES if name not in in_force]
    flows = registry.flow_source(settings)
    if flows is not None:
        budget = limits.usage(conn, registry.flow_limits(settings), now)
        rows.append(replace(status.judge(flows, feeds), budget=budget))
    rows += [
        status.SourceStatus(name, "off", "no ETHERSCAN_API_KEY and no LIQ_ETHEREUM_RPC_URL, or the other is used")
        for name in ("etherscan", "ethereum_rpc")
        if name != flows
    ]
    status.write(conn, rows)
