"""After a first start: what venues still serve by REST of the time before is loaded as archive; the rest is a gap.

Belongs here: finding what is missing before a series' first live row, and naming what cannot be had.
Does not: holes after it (pipeline/healing.py), a page of history (pages.py), liquidations (collector/, whose
holes are its own), or old archives (backfills).

What is missing is asked of the tables, series by series on the series' own step, so that nothing has to be remembered:
a catch-up that dies goes on where the tables end. Only what is missing is kept of an answer. It shares the live polls'
budgets and may use LIQ_SOURCE_HISTORY_BUDGET_SHARE of each, so that it never slows them. What lies after the first live
row is left to the healer, which keeps a ledger of it and scores again what the hole had touched.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg import sql

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.records import Record
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access.http import SourceError
from liq_pipeline.sources.access.limits import BudgetError
from liq_pipeline.sources.history.pages import HistoryReader, Publisher, floor_to_step, step_of
from liq_pipeline.sources.live.base import History, Source
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.store.completeness import gaps
from liq_pipeline.store.connection import connect

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 600.0
LATER_LOOK_BACK: Final = timedelta(days=2)
"""How far back every check after the first complete one looks."""
FIRST_HOURS: Final = 49
"""Beside the least look-back: a feature looks 25 hours back, and the references of a day end at its midnight."""
SERIES_TOPICS: Final = ("open_interest", "prices", "funding_rates", "long_short_ratio")
BEFORE_THE_FIRST: Final = "from before the first live row"
NO_HISTORY: Final = "the venue serves no history of this"
NOT_SERVED: Final = "the venue's history has nothing there"
_STEP_WITHOUT_HISTORY: Final = timedelta(minutes=5)


@dataclass
class CatchUpResult:
    """What was loaded. records: {"venue history": sent}; gaps: rows written; failures: {source: reason}."""

    records: dict[str, int] = field(default_factory=dict)
    gaps: int = 0
    failures: dict[str, str] = field(default_factory=dict)


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
        publisher = Publisher(producer)
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


@dataclass(frozen=True)
class _Series:
    """What is looked for in one table. kind: of funding rates and ratios; None for every kind."""

    topic: str
    kind: str | None
    symbol: str

    @property
    def filter(self) -> sql.Composable:
        return sql.SQL("") if self.kind is None else sql.SQL("AND kind = {}").format(sql.Literal(self.kind))


class _SourceCatchUp:
    """One source: series after series."""

    def __init__(
        self,
        source: Source,
        settings: Settings,
        database_url: str,
        publisher: Publisher,
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

    def run(self) -> None:
        reader = HistoryReader(self._source, self._settings, self._database_url)
        try:
            instruments = reader.instruments()
            # Coin by coin, in the order of LIQ_SYMBOLS: one that has all it needs is worth more than a part of each.
            # First what a percentile cannot do without, for all of them; then the rest of the window; then what no
            # score waits for.
            scored = [history for history in self._source.histories if history.is_scored]
            others = [history for history in self._source.histories if not history.is_scored]
            for histories, window in [*((scored, window) for window in self._windows()), (others, self._window)]:
                for instrument in instruments:
                    for history in histories:
                        self._series(reader, history, instrument, window)
            served = {history.topic for history in self._source.histories}
            for topic in SERIES_TOPICS:
                if topic in self._source.offers and topic not in served:
                    for instrument in instruments:
                        self._unserved(topic, instrument)
        except (SourceError, BudgetError) as error:
            self._result.failures[self._source.name] = str(error)
            log.warning("history of %s is incomplete and tried again later: %s", self._source.name, error)
        finally:
            reader.close()

    def _windows(self) -> tuple[timedelta, ...]:
        needed = timedelta(hours=self._settings.risk.min_lookback_hours + FIRST_HOURS)
        return (needed, self._window) if needed < self._window else (self._window,)

    def _series(self, reader: HistoryReader, history: History, instrument: Instrument, window: timedelta) -> None:
        # One kind stands for all that come in the same answer.
        series = _Series(history.topic, history.kinds[0] if history.kinds else None, instrument.symbol)
        end = floor_to_step(self._now - history.declared_delay - history.step, history.step)
        # Both on the grid of the step: what is missing is told by the step that a row lies in.
        earliest = floor_to_step(end - window, history.step)
        start = max(earliest, floor_to_step(self._now - history.reaches_back, history.step) + history.step)
        end = min(end, self._first_live_step(series, earliest, history.step) or end)
        missing = self._missing(series, start, end, history.step)
        loaded = 0

        def is_wanted(page_start: datetime, page_end: datetime) -> bool:
            return not self._halt.is_set() and any(page_start <= begin < page_end for begin in missing)

        def take(records: list[Record]) -> None:
            nonlocal loaded
            kept = [r for r in records if step_of(r.event_time, history.step) in missing]
            if kept:
                self._publisher.publish(kept)
            loaded += len(kept)
            missing.difference_update({step_of(record.event_time, history.step) for record in kept})

        reader.pages(history, instrument, start, end, is_wanted, take)
        if loaded:
            name = f"{self._source.name} {history.name}"
            self._result.records[name] = self._result.records.get(name, 0) + loaded
        if not self._halt.is_set():
            if earliest < start:
                missing |= self._missing(series, earliest, min(start, end), history.step)
            self._write_gaps(series, missing, history.step, NOT_SERVED)

    def _unserved(self, topic: str, instrument: Instrument) -> None:
        series = _Series(topic, None, instrument.symbol)
        end = floor_to_step(self._now, _STEP_WITHOUT_HISTORY)
        start = floor_to_step(end - self._window, _STEP_WITHOUT_HISTORY)
        end = min(end, self._first_live_step(series, start, _STEP_WITHOUT_HISTORY) or end)
        missing = self._missing(series, start, end, _STEP_WITHOUT_HISTORY)
        self._write_gaps(series, missing, _STEP_WITHOUT_HISTORY, NO_HISTORY)

    def _first_live_step(self, series: _Series, since: datetime, step: timedelta) -> datetime | None:
        """The start of the step that holds the series' first live row since then; None without one."""
        query = sql.SQL(
            "SELECT min(event_time) FROM {table} WHERE world = %(world)s AND symbol = %(symbol)s AND venue = %(venue)s"
            " {kind} AND event_time > %(since)s AND origin = 'live'"
        ).format(table=sql.Identifier(series.topic), kind=series.filter)
        with connect(self._database_url, application_name="liq catch up") as conn:
            row = conn.execute(query, self._parameters(series) | {"since": since}).fetchone()
        return step_of(row[0], step) if row and row[0] is not None else None

    def _missing(self, series: _Series, start: datetime, end: datetime, step: timedelta) -> set[datetime]:
        """Starts of the steps (begin, begin + step] within start..end that have no row and are no known gap."""
        query = sql.SQL(
            """
            SELECT begin FROM generate_series(%(start)s, %(end)s - %(step)s, %(step)s) AS begin
            WHERE NOT EXISTS (
                SELECT 1 FROM {table} WHERE world = %(world)s AND symbol = %(symbol)s AND venue = %(venue)s {kind}
                  AND event_time > begin AND event_time <= begin + %(step)s)
              AND NOT EXISTS (
                SELECT 1 FROM ingest_gaps WHERE world = %(world)s AND source = %(source)s AND symbol = %(symbol)s
                  AND (kind IS NULL OR kind IS NOT DISTINCT FROM %(kind)s)
                  AND is_permanent AND from_time <= begin AND to_time >= begin + %(step)s)
            """
        ).format(table=sql.Identifier(series.topic), kind=series.filter)
        if end <= start:
            return set()
        with connect(self._database_url, application_name="liq catch up") as conn:
            rows = conn.execute(query, self._parameters(series) | {"start": start, "end": end, "step": step}).fetchall()
        return {row[0] for row in rows}

    def _parameters(self, series: _Series) -> dict[str, Any]:
        venue = self._source.name
        return {
            "world": REAL,
            "symbol": series.symbol,
            "venue": venue,
            "kind": series.kind,
            "source": f"{venue} {series.topic}",
        }

    def _write_gaps(self, series: _Series, missing: set[datetime], step: timedelta, reason: str) -> None:
        if not missing:
            return
        with connect(self._database_url, application_name="liq catch up") as conn:
            for start, end in _merge(missing, step):
                gap = gaps.series_gap(
                    REAL,
                    self._source.name,
                    series.topic,
                    series.symbol,
                    start,
                    end,
                    BEFORE_THE_FIRST,
                    kind=series.kind,
                    permanent_reason=reason,
                )
                gaps.record(conn, gap)
                self._result.gaps += 1


def _merge(begins: set[datetime], step: timedelta) -> list[tuple[datetime, datetime]]:
    merged: list[tuple[datetime, datetime]] = []
    for begin in sorted(begins):
        if merged and merged[-1][1] == begin:
            merged[-1] = (merged[-1][0], begin + step)
        else:
            merged.append((begin, begin + step))
    return merged
