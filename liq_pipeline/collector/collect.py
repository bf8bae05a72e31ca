"""`liq collect`: the one always-on process beside Dagster, for what a poll every few seconds would miss.

Belongs here: starting and stopping the collector's parts. Does not: what they do (collector/). It reads every venue's
liquidations (websocket streams, REST lists), and loads the history that a first start or an outage left out
(sources/history/catchup.py). With a source of stablecoin transfers it also refreshes the label list once a day.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from liq_pipeline.collector.buffer import EventBuffer
from liq_pipeline.collector.coverage import Coverage
from liq_pipeline.collector.rest_events import ListReader
from liq_pipeline.collector.sender import TOPIC, Sender
from liq_pipeline.collector.streams import StreamReader
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.runtime.endpoints import resolve
from liq_pipeline.runtime.liveness import STAMP_SECONDS, note_alive
from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access.http import SourceError
from liq_pipeline.sources.access.limits import BudgetError, Budgets, usage
from liq_pipeline.sources.access.listing import instruments_of
from liq_pipeline.sources.access.raw_log import raw_log_of
from liq_pipeline.sources.access.source_status import SourceStatus, State
from liq_pipeline.sources.chain.wallet_lists import keep_fresh
from liq_pipeline.sources.history.catchup import keep_caught_up
from liq_pipeline.sources.live.base import Source
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.sources.polling.state import load_listings
from liq_pipeline.store.connection import connect

log = logging.getLogger(__name__)

STOP_SECONDS = 15.0
STUCK_SECONDS = 90.0
"""A turn of the sender waits for at most three deliveries of 15 s, and for the database's 10 s."""


class Collector:
    """The collector's threads. start(), then stop(); or run() until an event is set."""

    def __init__(
        self,
        settings: Settings,
        database_url: str,
        bootstrap_servers: str,
        *,
        first_backoff_seconds: float = 1.0,
    ) -> None:
        self._raw_log = raw_log = raw_log_of(settings)
        if raw_log is not None and raw_log.is_new:
            with connect(database_url, application_name="liq collect") as conn:
                raw_log.known(load_listings(conn, settings.symbols))
        on_answer = None if raw_log is None else raw_log.answer
        on_frame = None if raw_log is None else raw_log.frame
        self._settings = settings
        self._database_url = database_url
        self._stop = threading.Event()
        self._sent_all = threading.Event()
        self.buffer = EventBuffer(settings.sources.collector_buffer_events)
        told = self._told()
        self.streams: list[StreamReader] = []
        self.lists: list[ListReader] = []
        coverages: list[Coverage] = []
        self._listed_only: dict[str, Source] = {}
        """Venues that nothing but the collector asks: their budgets are told here."""
        for source in registry.sources_in_force(settings):
            url = registry.ws_url(source, settings)
            if (source.stream is None or url is None) and not source.event_feeds:
                continue
            coverage = Coverage(source.name, told.get(source.name))
            coverages.append(coverage)
            if not source.feeds:
                self._listed_only[source.name] = source
            http = registry.client(source, settings, on_answer=on_answer)
            instruments = self._instruments(source)
            if source.stream is not None and url is not None:
                self.streams.append(
                    StreamReader(
                        source,
                        source.stream,
                        url,
                        instruments,
                        self.buffer,
                        coverage,
                        self._stop,
                        slow_probe_seconds=settings.sources.slow_probe_seconds,
                        first_backoff_seconds=first_backoff_seconds,
                        on_frame=on_frame,
                    )
                )
            if source.event_feeds:
                budgets = Budgets(database_url, source.limits_in_force(settings))
                self.lists.append(
                    ListReader(source, http, budgets, instruments, self.buffer, coverage, self._stop, settings)
                )
        self.sender = Sender(
            database_url,
            bootstrap_servers,
            settings.kafka_topic_prefix,
            self.buffer,
            coverages,
            self._states,
            self._sent_all,
            on_heartbeat=None if raw_log is None else raw_log.heartbeat,
        )
        self.coverages = {coverage.venue: coverage for coverage in coverages}

    def start(self) -> None:
        """Start reading and sending."""
        for thread in (*self.streams, *self.lists, self.sender):
            thread.start()

    def moves(self) -> bool:
        """Whether events still go their way: the sender's loop goes round, also while Kafka is away."""
        return self.sender.is_alive() and time.monotonic() - self.sender.turned_at < STUCK_SECONDS

    def stop(self) -> None:
        """Stop reading, send what was read, stop sending."""
        self._stop.set()
        for thread in (*self.streams, *self.lists):
            thread.join(STOP_SECONDS)
        self._sent_all.set()
        self.sender.join(STOP_SECONDS * 2)
        if self._raw_log is not None:
            self._raw_log.flush()

    def _told(self) -> dict[str, datetime]:
        """Up to when an earlier collector had read each venue: what lies between then and now is a hole."""
        with connect(self._database_url, application_name="liq collect") as conn:
            rows = conn.execute(
                "SELECT venue, max(event_time) FROM heartbeats WHERE world = %s AND topic = %s GROUP BY venue",
                [REAL, TOPIC],
            ).fetchall()
        return dict(rows)

    def _instruments(self, source: Source) -> Callable[[], Sequence[Instrument]]:
        known: list[Sequence[Instrument]] = [()]

        def wanted() -> Sequence[Instrument]:
            """What was known last, where neither the table nor the venue can be asked right now."""
            http = registry.client(
                source, self._settings, on_answer=None if self._raw_log is None else self._raw_log.instrument_list
            )
            budgets = Budgets(self._database_url, source.limits_in_force(self._settings))
            try:
                known[0] = instruments_of(source, http, budgets, self._database_url, self._settings)
            except (SourceError, BudgetError, psycopg.Error) as error:
                log.warning("%s: its list of instruments cannot be had now: %s", source.name, error)
            finally:
                http.close()
                budgets.close()
            return known[0]

        return wanted

    def _states(self, conn: psycopg.Connection[Any]) -> list[SourceStatus]:
        """One row per venue: its stream and its list are one feed of liquidations."""
        rows = []
        for venue, coverage in self.coverages.items():
            streams = [reader for reader in self.streams if reader.venue == venue]
            lists = [reader for reader in self.lists if reader.venue == venue]
            states = {*(reader.state for reader in streams), *(reader.state for reader in lists)}
            reasons = [f"stream: {reader.reason}" for reader in streams if reader.state != "up" and reader.reason]
            reasons += [f"list: {reader.reason}" for reader in lists if reader.state != "up" and reader.reason]
            if self.sender.outage is not None:
                reasons.append("Kafka does not take events: they wait in memory")
            budget: dict[str, Any] = {"buffered": len(self.buffer), "buffer": self.buffer.capacity}
            if venue in self._listed_only:
                limits = self._listed_only[venue].limits_in_force(self._settings)
                budget |= usage(conn, limits, datetime.now(UTC))
            state: State
            if states == {"up"} and self.sender.outage is None:
                state = "up"
            elif "up" in states:
                state = "degraded"
            else:
                state = "down" if "down" in states else "starting"
            rows.append(
                SourceStatus(
                    source=f"{venue}_liquidations",
                    state=state,
                    reason="; ".join(reasons) or None,
                    last_success=coverage.read_until,
                    budget=budget,
                )
            )
        return rows


def collect(settings: Settings, stop_event: threading.Event) -> None:
    """Collect until stop_event is set. Raises LiqError if there is no database or Kafka to collect into."""
    endpoints = resolve(settings)
    collector = Collector(settings, endpoints.database_url, endpoints.kafka_bootstrap_servers)
    collector.start()
    beside = [
        threading.Thread(
            target=keep_caught_up,
            args=(settings, endpoints.database_url, endpoints.kafka_bootstrap_servers, stop_event),
            name="catch up",
            daemon=True,
        )
    ]
    if registry.flow_source(settings) is not None:
        labels = (settings, endpoints.database_url, stop_event)
        beside.append(threading.Thread(target=keep_fresh, args=labels, name="wallet labels", daemon=True))
    for thread in beside:
        thread.start()
    try:
        while not stop_event.wait(STAMP_SECONDS):
            if collector.moves():
                note_alive("collector")
    finally:
        collector.stop()
        for thread in beside:
            thread.join(STOP_SECONDS)
