"""One polling round: ask every due feed of every source at once, and send what came to Kafka, within a bound.

Belongs here: the order of a round, sending to Kafka, and the state of each source. Does not: what is due
(plan.py), asking (ask.py), what an outcome means for the next round (outcome.py), the chain
(flows.py), limits (sources/access/limits.py), or streams (collector/collect.py).

A round: read the state; plan the due requests, oldest and fastest first; reserve their budgets; ask all sources
concurrently until the deadline; parse; send and flush; only then write the new state. A round that dies anywhere
leaves its feeds due, so the worst case is the same question twice, never a record that is believed sent.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.bus.topics import TOPIC_OF_RECORD
from liq_pipeline.domain.chains import chain_of
from liq_pipeline.domain.records import Record
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access import limits, source_status
from liq_pipeline.sources.access.raw_log import RawLog, raw_log_of
from liq_pipeline.sources.chain.following import remember
from liq_pipeline.sources.live.base import Source
from liq_pipeline.sources.polling import state as polling_state
from liq_pipeline.sources.polling.ask import LEAST_ASKING_SECONDS, ask_all
from liq_pipeline.sources.polling.flows import FlowTask
from liq_pipeline.sources.polling.outcome import Outcome
from liq_pipeline.sources.polling.plan import Task, admit, limits_of, plan
from liq_pipeline.sources.polling.state import INSTRUMENTS, FeedKey, FeedState, Listing
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect

log = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 0.7
"""Kept of the round's bound for parsing, sending and writing the state."""
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
    with connect(database_url, application_name="liq poll") as conn:
        row = conn.execute(_LOCK).fetchone()
        if row is None or not row[0]:
            result.skipped = True
            return result
        sources = registry.sources_in_force(settings)
        feeds = polling_state.load_feeds(conn)
        listings = polling_state.load_listings(conn, settings.symbols)
        if raw_log is not None and raw_log.is_new:
            raw_log.known(listings)
        tasks = plan(sources, feeds, listings, settings, moment)
        tasks = admit(conn, tasks, settings, moment)
        conn.commit()
        flows = [
            FlowTask(source, database_url, settings, feeds, moment, asking_until, raw_log)
            for source in registry.flow_sources(settings)
        ]
        with ThreadPoolExecutor(max_workers=1 + len(flows), thread_name_prefix="beside") as beside:
            # Connecting takes about as long as a venue's answer: done meanwhile.
            connecting = beside.submit(
                RecordProducer, bootstrap_servers, settings.kafka_topic_prefix, client_id="liq-poll"
            )
            following = [beside.submit(task.run) for task in flows]
            retries = limits.Budgets(database_url, limits_of(tasks, settings))
            ask_all(tasks, settings, asking_until, retries)
            for chain in following:
                chain.result()
            asked = [task for task in tasks if task.started]
            if raw_log is not None:
                _write_down(raw_log, asked, moment)
            producer = connecting.result()
        result.asked = len(asked)
        result.answered = sum(task.error is None for task in asked)
        outcome = Outcome(settings, moment, feeds, listings)
        records: list[Record] = outcome.take(asked)
        for followed in flows:
            records += followed.reading.records
            outcome.changed |= followed.changed
            outcome.failures |= followed.failures
        heartbeats = [task.reading.heartbeat for task in flows if task.reading.heartbeat is not None]
        with producer:
            for record in records:
                producer.send(record)
            producer.flush(timeout_seconds=max(1.0, begun + knobs.round_seconds - time.monotonic()))
            if heartbeats:
                # Only now is it true that everything up to these blocks has arrived.
                for heartbeat in heartbeats:
                    producer.send_heartbeat("stablecoin_flows", heartbeat)
                producer.flush(timeout_seconds=max(1.0, begun + knobs.round_seconds - time.monotonic()))
        result.records = dict(Counter(TOPIC_OF_RECORD[type(record)] for record in records))
        result.failures, result.problems = outcome.failures, outcome.problems
        result.not_listed = outcome.write(conn)
        for followed in flows:
            remember(conn, followed.reading)
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


def _write_down(raw_log: RawLog, asked: list[Task], moment: datetime) -> None:
    """The answers that this round goes by, and for which feeds it takes them."""
    for task in asked:
        feeds = tuple(INSTRUMENTS if feed is None else feed.name for _, feed, _ in task.keys)
        for request, answer in task.answers if task.error is None else ():
            raw_log.answer(task.source.name, request, answer, feeds=feeds, asked_in=moment)
    raw_log.flush()


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
        rows.append(replace(source_status.judge(source.name, current, listing.not_listed), budget=budget))
    in_force = {source.name for source in sources}
    rows += [
        source_status.SourceStatus(name, "off", "not in LIQ_VENUES")
        for name in registry.SOURCES
        if name not in in_force
    ]
    followed = registry.flow_sources(settings)
    for venue in followed:
        budget = limits.usage(conn, registry.flow_limits(settings, venue), now)
        rows.append(replace(source_status.judge(venue, feeds), budget=budget))
    # The usual ways to the flow side; a chain that was never asked for is not missed.
    rows += [
        source_status.SourceStatus(name, "off", f"{keys}, or another way to {chain_of(name)} is used")
        for name, keys in (
            ("etherscan", "no ETHERSCAN_API_KEY"),
            ("ethereum_rpc", "no LIQ_ETHEREUM_RPC_URL"),
            ("trongrid", "no TRONGRID_API_KEY and no tron in LIQ_FLOW_CHAINS"),
        )
        if name not in followed
    ]
    known = {*registry.all_flow_venues()} - {"etherscan", "ethereum_rpc", "trongrid", *followed}
    conn.execute("DELETE FROM source_status WHERE source = ANY(%s)", [sorted(known)])
    source_status.write(conn, rows)
