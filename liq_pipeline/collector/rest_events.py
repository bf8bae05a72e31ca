"""Lists of liquidations by REST, read again and again beside the streams.

Belongs here: reading every venue's list at its cadence, and noticing that a list did not reach back far enough.
Does not: what rows mean (sources/live/), sending to Kafka (sender.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import psycopg

from liq_pipeline.collector.buffer import EventBuffer
from liq_pipeline.collector.coverage import Coverage
from liq_pipeline.domain.records import Liquidation
from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import HttpClient, RefusedError, SourceError, ThrottledError, UnknownSymbolError
from liq_pipeline.sources.access.limits import BudgetError, Budgets
from liq_pipeline.sources.access.turns import Turns
from liq_pipeline.sources.live.base import Feed, Reading, Source
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.sources.live.values import UNREADABLE

log = logging.getLogger(__name__)

PAGE_ROWS = 100
"""Rows of a full page: one without a known row may have left events out."""
LIST_REACH = timedelta(minutes=55)
"""A list that is not full shows everything of at least this long: Gate's reaches an hour back, HTX's two, OKX's a day,
Bitget's three days."""
SETTLING = timedelta(seconds=2)
LONGEST_BACKOFF_SECONDS = 300.0


class ListReader(threading.Thread):
    """Reads one source's lists until `stop` is set. `state` and `reason` are for source_status."""

    def __init__(
        self,
        source: Source,
        http: HttpClient,
        budgets: Budgets,
        instruments: Callable[[], Sequence[Instrument]],
        buffer: EventBuffer,
        coverage: Coverage,
        stop: threading.Event,
        settings: Settings,
        *,
        turns: Turns | None = None,
    ) -> None:
        """turns: where the source's stream names events differently."""
        super().__init__(name=f"list {source.name}", daemon=True)
        self._source = source
        self._http = http
        self._budgets = budgets
        self._instruments = instruments
        self._buffer = buffer
        self._coverage = coverage
        self._halt = stop
        self._settings = settings
        self._turns = turns
        self.venue = source.name
        self.state = "starting"
        self.reason: str | None = None
        self.events = 0

    def run(self) -> None:
        """One round after the other, slower while the venue fails."""
        failures = 0
        cadence = self._settings.sources.market_seconds
        while not self._halt.is_set():
            begun = time.monotonic()
            instruments = self._instruments()
            wait_seconds = cadence
            if not instruments:
                self.state, self.reason = (
                    "starting",
                    "its list of instruments is not known yet, or it lists none of ours",
                )
                wait_seconds = min(1.0, cadence)
            else:
                try:
                    self._round(instruments)
                    self.state, self.reason, failures = "up", None, 0
                except (SourceError, BudgetError, psycopg.Error) as error:
                    failures += 1
                    self.state = "down"
                    self.reason = error.reason if isinstance(error, SourceError) else str(error)
                    wait_seconds = self._wait(error, cadence, failures)
                    log.warning("%s: %s; asked again in %.0f s", self._source.name, self.reason, wait_seconds)
            self._halt.wait(max(0.0, wait_seconds - (time.monotonic() - begun)))
        self._http.close()
        self._budgets.close()

    def _wait(self, error: Exception, cadence: float, failures: int) -> float:
        after = error.retry_after_seconds if isinstance(error, SourceError) else None
        if isinstance(error, RefusedError):
            return max(self._settings.sources.slow_probe_seconds, after or 0.0)
        if isinstance(error, ThrottledError):
            return max(after or 60.0, cadence)
        return max(after or 0.0, min(cadence * 2.0 ** min(failures, 10), LONGEST_BACKOFF_SECONDS))

    def _round(self, instruments: Sequence[Instrument]) -> None:
        """Every list once. The venue's feed is proved up to the first request if all of them answered."""
        begun = datetime.now(UTC)
        oldest_proved = begun - LIST_REACH
        for feed in self._source.event_feeds:
            for instrument in instruments:
                if self._halt.is_set():
                    return
                try:
                    reading = self._ask(feed, instrument)
                except UnknownSymbolError:
                    log.warning("%s has no list of liquidations for %s", self._source.name, instrument.native)
                    continue
                events = [record for record in reading.records if isinstance(record, Liquidation)]
                new = self._buffer.put(events if self._turns is None else self._turns.of_list(events))
                self.events += new
                # A full page of news: older events may have been pushed off it.
                if len(events) >= PAGE_ROWS and new == len(events):
                    oldest_proved = max(oldest_proved, min(event.event_time for event in events))
                if reading.reaches_back_to is not None:
                    oldest_proved = max(oldest_proved, reading.reaches_back_to)
        newest_proved = begun - SETTLING
        if self._turns is not None:
            newest_proved = self._turns.list_proves_until(newest_proved)
        self._coverage.prove(oldest_proved, newest_proved, cause="the list of liquidations does not reach back")

    def _ask(self, feed: Feed, instrument: Instrument) -> Reading:
        request = feed.request((instrument,), datetime.now(UTC))
        self._budgets.acquire(request.costs, timeout_seconds=30)
        try:
            answer = self._http.ask(request, again=self._budgets.again)
        except ThrottledError as error:
            self._budgets.block(list(request.costs), error.retry_after_seconds or 60.0, error.reason)
            raise
        reading = Reading(
            self._source.name,
            sent_at=answer.sent_at,
            received_at=answer.received_at,
            instruments={instrument.native: instrument},
            instrument=instrument,
        )
        try:
            feed.parse(answer.payload, reading)
        except UNREADABLE as error:
            raise SourceError(self._source.name, f"the answer has another form than documented ({error})") from error
        for problem in reading.problems:
            log.warning("%s: %s", self._source.name, problem)
        return reading
