"""History that a venue serves by REST, page by page, for a stated range.

Belongs here: the pages of a range and reading one. Does not: the venues' endpoints (live/), or finding what an
installation lacks of the last weeks (catchup.py).

Pages lie on a grid of their own length, so that every range is made of the same pages and none is asked for twice. A
page that reaches into the present is read again next time.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.archives.pieces import Absent, Content, Known, Piece
from liq_pipeline.sources.http import Answer, BadAnswerError, Request, ThrottledError, TransientError
from liq_pipeline.sources.limits import Budgets
from liq_pipeline.sources.listing import instruments_of
from liq_pipeline.sources.live.base import UNREADABLE, History, Instrument, Reading, Source

log = logging.getLogger(__name__)

ATTEMPTS: Final = 5
ADMIT_SECONDS: Final = 3600.0
"""A backfill waits for its share of a budget rather than give up: nobody waits for it."""
THROTTLED_SECONDS: Final = 60.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class VenueHistory:
    """One venue's REST history as a source of pieces. It takes the history's share of the live polls' budgets."""

    concurrency = 1

    def __init__(self, source: Source, settings: Settings, database_url: str) -> None:
        self.name = source.name
        self._source = source
        self._settings = settings
        self._database_url = database_url
        self._http = registry.client(source, settings)
        self._budgets = Budgets(
            database_url, source.limits_in_force(settings), share=settings.sources.history_budget_share
        )
        self._lock = threading.Lock()
        self._instruments: dict[str, Instrument] = {}

    def close(self) -> None:
        """Close the connections."""
        self._budgets.close()
        self._http.close()

    def pieces(self, symbols: Sequence[str], start: datetime, end: datetime) -> Iterator[Piece]:
        """The pages of every series the venue has, oldest first. Raises SourceError, BudgetError."""
        wanted = self._settings.model_copy(update={"symbols": tuple(symbols)})
        found = instruments_of(self._source, self._http, self._budgets, self._database_url, wanted)
        self._instruments = {instrument.symbol: instrument for instrument in found}
        pages = [
            Piece(self.name, history.name, symbol, first, first + length, self._path(history, symbol, first, length))
            for history in self._source.histories
            for symbol in symbols
            for length in [_page_length(history)]
            for first in _grid(start, end, length)
        ]
        yield from sorted(pages, key=lambda piece: (piece.first, piece.series, piece.symbol))

    def read(self, piece: Piece, known: Known, now: datetime) -> Content | Absent | None:
        """One page; None if it was loaded before (a venue's history is not corrected)."""
        history = next(history for history in self._source.histories if history.name == piece.series)
        instrument = self._instruments.get(piece.symbol)
        if instrument is None or piece.last <= now - history.reaches_back:
            return Absent(is_expected=False)
        if known(piece.path) is not None:
            return None
        first = max(piece.first, _ceil(now - history.reaches_back, history.step))
        last = min(piece.last, now)
        # Both ends belong to the page: a row at its end is true of the last step before it.
        answer = self._ask(history.request(instrument, first, last + timedelta(milliseconds=1)))
        reading = Reading(
            self.name,
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
            raise BadAnswerError(self.name, f"its {history.name} history cannot be read ({error})") from error
        is_final = piece.last + history.declared_delay + 2 * history.step <= now
        if not reading.records and is_final:
            return Absent(is_expected=False)
        return Content(
            path=piece.path,
            checksum=hashlib.sha256(answer.body).hexdigest(),
            fetched_at=answer.received_at,
            records=reading.records,
            problems=reading.problems,
            is_final=is_final,
        )

    def _path(self, history: History, symbol: str, first: datetime, length: timedelta) -> str:
        instrument = self._instruments.get(symbol)
        native = instrument.native if instrument is not None else symbol
        return f"/{history.name}/{native}/{first:%Y-%m-%dT%H%MZ}+{int(length.total_seconds() // 60)}min"

    def _ask(self, request: Request) -> Answer:
        """Ask, within the budget, again after a throttling or a passing failure. Raises SourceError, BudgetError."""
        with self._lock:
            for attempt in range(1, ATTEMPTS + 1):
                self._budgets.acquire(request.costs, timeout_seconds=ADMIT_SECONDS)
                try:
                    return self._http.ask(request, attempts=1)
                except ThrottledError as error:
                    # The block is shared: the live polls hold back too, as the venue demands.
                    self._budgets.block(
                        list(request.costs), error.retry_after_seconds or THROTTLED_SECONDS, error.reason
                    )
                    if attempt == ATTEMPTS:
                        raise
                except TransientError as error:
                    if attempt == ATTEMPTS:
                        raise
                    log.info("%s; asking again", error)
                    time.sleep(error.retry_after_seconds or 2.0 ** (attempt - 1))
        raise AssertionError("the loop returns or raises")


def _page_length(history: History) -> timedelta:
    """The longest whole number of steps that fits into a page."""
    return max(history.step, history.page // history.step * history.step)


def _grid(start: datetime, end: datetime, length: timedelta) -> Iterator[datetime]:
    """Starts of the grid's cells that hold start <= time < end."""
    first = _EPOCH + (start - _EPOCH) // length * length
    while first < end:
        yield first
        first += length


def _ceil(moment: datetime, step: timedelta) -> datetime:
    return _EPOCH - (_EPOCH - moment) // step * step
