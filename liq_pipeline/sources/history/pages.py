"""Reading what a venue still serves of the past, page by page, as archive records.

Belongs here: one page of one series, its budget and its errors; publishing. Does not: what is missing (catchup.py,
store/completeness/gap_search.py), or a venue's endpoints (live/).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.records import Record
from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access.http import BadAnswerError, OnAnswer, ThrottledError
from liq_pipeline.sources.access.limits import Budgets
from liq_pipeline.sources.access.listing import instruments_of
from liq_pipeline.sources.live.base import History, Reading, Source
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.sources.live.values import UNREADABLE

log = logging.getLogger(__name__)

ADMIT_SECONDS: Final = 600.0
"""How long a page waits for its turn: history may use a share of each budget only."""
FLUSH_SECONDS: Final = 30.0


class Publisher:
    """One producer for all sources' threads: what publish() returns from has been acknowledged."""

    def __init__(self, producer: RecordProducer) -> None:
        self._producer = producer
        self._lock = threading.Lock()

    def publish(self, records: Sequence[Record]) -> None:
        """Send and wait for the acknowledgement. Raises PublishError if Kafka is away."""
        with self._lock:
            for record in records:
                self._producer.send(record)
            self._producer.flush(timeout_seconds=FLUSH_SECONDS)


class HistoryReader:
    """One source's history, within LIQ_SOURCE_HISTORY_BUDGET_SHARE of each of its budgets. Close it after use."""

    def __init__(
        self, source: Source, settings: Settings, database_url: str, *, on_answer: OnAnswer | None = None
    ) -> None:
        self.source = source
        self._settings = settings
        self._database_url = database_url
        self._http = registry.client(source, settings, on_answer=on_answer)
        self._budgets = Budgets(
            database_url, source.limits_in_force(settings), share=settings.sources.history_budget_share
        )

    def close(self) -> None:
        """Give back connections."""
        self._budgets.close()
        self._http.close()

    def instruments(self) -> tuple[Instrument, ...]:
        """The wanted coins as the venue names them. Raises SourceError, BudgetError."""
        return instruments_of(self.source, self._http, self._budgets, self._database_url, self._settings)

    def page(self, history: History, instrument: Instrument, start: datetime, end: datetime) -> list[Record]:
        """The records of [start, end], both ends included: a row at `end` is true of the last step before it.

        Raises SourceError, BudgetError.
        """
        request = history.request(instrument, start, end + timedelta(milliseconds=1))
        self._budgets.acquire(request.costs, timeout_seconds=ADMIT_SECONDS)
        try:
            answer = self._http.ask(request, attempts=3, again=self._budgets.again)
        except ThrottledError as error:
            self._budgets.block(list(request.costs), error.retry_after_seconds or 60.0, error.reason)
            raise
        reading = Reading(
            self.source.name,
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
            raise BadAnswerError(self.source.name, f"history cannot be read ({error})") from error
        for problem in reading.problems[:3]:
            log.warning("%s history: %s", self.source.name, problem)
        # A bar under way is listed too: its close so far would stand for ever under the time of its end.
        last = min(end, answer.received_at)
        return [record for record in reading.records if start <= record.event_time <= last]

    def pages(
        self,
        history: History,
        instrument: Instrument,
        start: datetime,
        end: datetime,
        wanted: Callable[[datetime, datetime], bool],
        take: Callable[[list[Record]], None],
    ) -> None:
        """Hand every page of start..end for which `wanted(page start, page end)` to `take`, newest page first.

        Newest first, so that percentiles warm up from the present backwards. Raises SourceError, BudgetError, and
        what `take` raises; pages handed over before stay.
        """
        page_end = end
        while page_end > start:
            page_start = max(start, page_end - history.page)
            if wanted(page_start, page_end):
                take(self.page(history, instrument, page_start, page_end))
            page_end = page_start


def floor_to_step(moment: datetime, step: timedelta) -> datetime:
    """The last point of the step's UTC grid at or before the moment."""
    return moment - timedelta(seconds=moment.timestamp() % step.total_seconds())


def step_of(moment: datetime, step: timedelta) -> datetime:
    """The start of the step (begin, begin + step] that the moment lies in."""
    floor = floor_to_step(moment, step)
    return floor - step if floor == moment else floor
