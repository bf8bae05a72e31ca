"""After a first start and after every outage: what venues still serve by REST is loaded as archive; the rest is a gap.

Belongs here: finding what is missing, paging through what is served, and naming what cannot be had.
Does not: a venue's endpoints (live/), liquidations (collector/, whose holes are its own), or old archives (backfills).

What is missing is asked of the tables, series by series on the series' own step, so that nothing has to be remembered:
a catch-up that dies goes on where the tables end. Only what is missing is kept of an answer. It shares the live polls'
budgets and may use LIQ_SOURCE_HISTORY_BUDGET_SHARE of each, so that it never slows them. Newest pages come first:
percentiles warm up from the present backwards.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from psycopg import sql

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.records import Record
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.http import BadAnswerError, HttpClient, SourceError, ThrottledError
from liq_pipeline.sources.limits import BudgetError, Budgets
from liq_pipeline.sources.listing import instruments_of
from liq_pipeline.sources.live.base import UNREADABLE, History, Instrument, Reading, Source
from liq_pipeline.store import gaps
from liq_pipeline.store.connection import connect

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 600.0
LATER_LOOK_BACK: Final = timedelta(days=2)
"""How far back every check after the first one looks: outages are noticed within CHECK_SECONDS."""
ADMIT_SECONDS: Final = 600.0
SERIES_TOPICS: Final = ("open_interest", "prices", "funding_rates", "long_short_ratio")
NO_HISTORY: Final = "the venue serves no history of this"
NOT_SERVED: Final = "the venue's history has nothing there"
_STEP_WITHOUT_HISTORY: Final = timedelta(minutes=5)


@dataclass
class CatchUpResult:
    """What was loaded. records: {"venue history": sent}; gaps: rows written; failures: {source: reason}."""

    records: dict[str, int] = field(default_factory=dict)
    gaps: int = 0
    failures: dict[str, str] = field(default_factory=dict)


class _Publisher:
    """One producer for all sources' threads: what publish() returns from has been acknowledged."""

    def __init__(self, producer: RecordProducer) -> None:
        self._producer = producer
        self._lock = threading.Lock()

    def publish(self, records: Sequence[Record]) -> None:
        with self._lock:
            for record in records:
                self._producer.send(record)
            self._producer.flush(timeout_seconds=30)


def catch_up(
    settings: Settings,
    database_url: str,
    bootstrap_servers: str,
    now: datetime,
    *,
    look_back: timedelta | None = None,
    stop: threading.Event | None = None,
) -> CatchUpResult:
    """Load what is missing of the last `look_back` (default: LIQ_SOURCE_HISTORY_DAYS) from every source, concurrently.

    A source's failure is in the result and does not stop the others. Raises PublishError if Kafka is away.
    """
    window = timedelta(days=settings.sources.history_days) if look_back is None else look_back
    result = CatchUpResult()
    halt = stop or threading.Event()
    sources = [source for source in registry.sources_in_force(settings) if source.offers and source.feeds]
    with RecordProducer(bootstrap_servers, settings.kafka_topic_prefix, client_id="liq-catch-up") as producer:
        publisher = _Publisher(producer)
        with ThreadPoolExecutor(max_workers=max(1, len(sources)), thread_name_prefix="catch up") as executor:
            workers = [_SourceCatchUp(s, settings, database_url, publisher, now, window, result, halt) for s in sources]
            for future in [executor.submit(worker.run) for worker in workers]:
                future.result()
    return result


def keep_caught_up(settings: Settings, database_url: str, bootstrap_servers: str, stop: threading.Event) -> None:
    """Once over the whole window, then every ten minutes over the last two days, until `stop` is set."""
    look_back: timedelta | None = None
    while not stop.is_set():
        try:
            done = catch_up(
                settings, database_url, bootstrap_servers, datetime.now(UTC), look_back=look_back, stop=stop
            )
        except Exception:
            # The collector's streams must go on whatever happens here; the next check tries again.
            log.exception("catching up failed; it is tried again in %.0f s", CHECK_SECONDS)
        else:
            if done.records or done.gaps:
                log.info("caught up: %s; %d gaps", done.records or "nothing was missing", done.gaps)
            if not done.failures:
                look_back = LATER_LOOK_BACK
        stop.wait(CHECK_SECONDS)


class _SourceCatchUp:
    """One source: series after series."""

    def __init__(
        self,
        source: Source,
        settings: Settings,
        database_url: str,
        publisher: _Publisher,
        now: datetime,
        window: timedelta,
        result: CatchUpResult,
        halt: threading.Event,
    ) -> None:
        self._source = source
        self._settings = settings
        self._database_url = database_url
        self._publisher = publisher
        self._now = now
        self._window = window
        self._result = result
        self._halt = halt
        self._budgets = Budgets(
            database_url, source.limits_in_force(settings), share=settings.sources.history_budget_share
        )

    def run(self) -> None:
        http = registry.client(self._source, self._settings)
        try:
            instruments = instruments_of(self._source, http, self._budgets, self._database_url, self._settings)
            for history in self._source.histories:
                for instrument in instruments:
                    self._series(http, history, instrument)
            served = {history.topic for history in self._source.histories}
            for topic in SERIES_TOPICS:
                if topic in self._source.offers and topic not in served:
                    for instrument in instruments:
                        self._unserved(topic, instrument)
        except (SourceError, BudgetError) as error:
            self._result.failures[self._source.name] = str(error)
            log.warning("history of %s is incomplete and tried again later: %s", self._source.name, error)
        finally:
            self._budgets.close()
            http.close()

    def _series(self, http: HttpClient, history: History, instrument: Instrument) -> None:
        end = _floor(self._now - history.declared_delay - history.step, history.step)
        # Both on the grid of the step: what is missing is told by the step that a row lies in.
        earliest = _floor(end - self._window, history.step)
        start = max(earliest, _floor(self._now - history.reaches_back, history.step) + history.step)
        missing = self._missing(history.topic, instrument.symbol, start, end, history.step)
        page_end = end
        loaded = 0
        while page_end > start and missing and not self._halt.is_set():
            page_start = max(start, page_end - history.page)
            if any(page_start <= begin < page_end for begin in missing):
                records = self._page(http, history, instrument, page_start, page_end)
                kept = [r for r in records if _bin_of(r.event_time, history.step) in missing]
                if kept:
                    self._publisher.publish(kept)
                loaded += len(kept)
                missing -= {_bin_of(record.event_time, history.step) for record in kept}
            page_end = page_start
        if loaded:
            name = f"{self._source.name} {history.name}"
            self._result.records[name] = self._result.records.get(name, 0) + loaded
        if not self._halt.is_set():
            if earliest < start:
                missing |= self._missing(history.topic, instrument.symbol, earliest, start, history.step)
            self._write_gaps(history.topic, instrument.symbol, missing, history.step, NOT_SERVED)

    def _page(
        self, http: HttpClient, history: History, instrument: Instrument, start: datetime, end: datetime
    ) -> list[Record]:
        # Both ends belong to the page: a row at `end` is true of the last step before it.
        request = history.request(instrument, start, end + timedelta(milliseconds=1))
        self._budgets.acquire(request.costs, timeout_seconds=ADMIT_SECONDS)
        try:
            answer = http.ask(request, attempts=3)
        except ThrottledError as error:
            self._budgets.block(list(request.costs), error.retry_after_seconds or 60.0, error.reason)
            raise
        reading = Reading(
            self._source.name,
            sent_at=answer.sent_at,
            received_at=answer.received_at,
            instruments={instrument.native: instrument},
            instrument=instrument,
            origin="archive",
            declared_delay=history.declared_delay,
        )
        try:
            history.parse(answer.payload, reading)
        except UNREADABLE as error:
            raise BadAnswerError(self._source.name, f"history cannot be read ({error})") from error
        for problem in reading.problems[:3]:
            log.warning("%s history: %s", self._source.name, problem)
        return reading.records

    def _unserved(self, topic: str, instrument: Instrument) -> None:
        end = _floor(self._now, _STEP_WITHOUT_HISTORY)
        start = _floor(end - self._window, _STEP_WITHOUT_HISTORY)
        missing = self._missing(topic, instrument.symbol, start, end, _STEP_WITHOUT_HISTORY)
        self._write_gaps(topic, instrument.symbol, missing, _STEP_WITHOUT_HISTORY, NO_HISTORY)

    def _missing(self, topic: str, symbol: str, start: datetime, end: datetime, step: timedelta) -> set[datetime]:
        """Starts of the steps (begin, begin + step] within start..end that have no row and are no known gap."""
        settled = sql.SQL("AND kind = 'settled'") if topic == "funding_rates" else sql.SQL("")
        query = sql.SQL(
            """
            SELECT begin FROM generate_series(%(start)s, %(end)s - %(step)s, %(step)s) AS begin
            WHERE NOT EXISTS (
                SELECT 1 FROM {table} WHERE world = %(world)s AND symbol = %(symbol)s AND venue = %(venue)s {settled}
                  AND event_time > begin AND event_time <= begin + %(step)s)
              AND NOT EXISTS (
                SELECT 1 FROM ingest_gaps WHERE world = %(world)s AND source = %(source)s AND symbol = %(symbol)s
                  AND is_permanent AND from_time <= begin AND to_time >= begin + %(step)s)
            """
        ).format(table=sql.Identifier(topic), settled=settled)
        if end <= start:
            return set()
        with connect(self._database_url, application_name="liq catch up") as conn:
            rows = conn.execute(
                query,
                {
                    "start": start,
                    "end": end,
                    "step": step,
                    "world": REAL,
                    "symbol": symbol,
                    "venue": self._source.name,
                    "source": self._gap_source(topic),
                },
            ).fetchall()
        return {row[0] for row in rows}

    def _write_gaps(self, topic: str, symbol: str, missing: set[datetime], step: timedelta, cause: str) -> None:
        if not missing:
            return
        with connect(self._database_url, application_name="liq catch up") as conn:
            for start, end in _merge(missing, step):
                gaps.record(
                    conn,
                    gaps.Gap(
                        world=REAL,
                        source=self._gap_source(topic),
                        symbol=symbol,
                        cause=cause,
                        from_time=start,
                        to_time=end,
                        is_permanent=True,
                    ),
                )
                self._result.gaps += 1

    def _gap_source(self, topic: str) -> str:
        return f"{self._source.name} {topic}"


def _floor(moment: datetime, step: timedelta) -> datetime:
    return moment - timedelta(seconds=moment.timestamp() % step.total_seconds())


def _bin_of(moment: datetime, step: timedelta) -> datetime:
    """The start of the step (begin, begin + step] that the moment lies in."""
    floor = _floor(moment, step)
    return floor - step if floor == moment else floor


def _merge(begins: set[datetime], step: timedelta) -> list[tuple[datetime, datetime]]:
    merged: list[tuple[datetime, datetime]] = []
    for begin in sorted(begins):
        if merged and merged[-1][1] == begin:
            merged[-1] = (merged[-1][0], begin + step)
        else:
            merged.append((begin, begin + step))
    return merged
