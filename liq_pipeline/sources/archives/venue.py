"""History that a venue serves by REST, page by page, for a stated range.

Belongs here: the pages of a range. Does not: reading one (sources/history/pages.py), the venues' endpoints (live/), or
finding what an installation lacks of the last weeks (catchup.py).

Pages lie on a grid of their own length, so that every range is made of the same pages and none is asked for twice. A
page that reaches into the present is read again next time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from liq_pipeline.domain.records import Record
from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import TransientError
from liq_pipeline.sources.archives.pieces import Absent, Content, Known, Piece
from liq_pipeline.sources.history.pages import HistoryReader
from liq_pipeline.sources.live.base import History, Source
from liq_pipeline.sources.live.instruments import Instrument

ATTEMPTS: Final = 5
LONGEST_WAIT_SECONDS: Final = 60.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class VenueHistory:
    """One venue's REST history as a source of pieces. It takes the history's share of the live polls' budgets."""

    concurrency = 1

    def __init__(self, source: Source, symbols: Sequence[str], settings: Settings, database_url: str) -> None:
        self.name = source.name
        self._histories = source.histories
        wanted = settings.model_copy(update={"symbols": tuple(symbols)})
        self._reader = HistoryReader(source, wanted, database_url)
        self._instruments: dict[str, Instrument] = {}

    def close(self) -> None:
        """Close the connections."""
        self._reader.close()

    def pieces(self, symbols: Sequence[str], start: datetime, end: datetime) -> Iterator[Piece]:
        """The pages of every series the venue has, oldest first. Raises SourceError, BudgetError."""
        self._instruments = {instrument.symbol: instrument for instrument in self._reader.instruments()}
        pages = [
            Piece(self.name, history.name, symbol, first, first + length, self._path(history, symbol, first, length))
            for history in self._histories
            for symbol in symbols
            for length in [_page_length(history)]
            for first in _grid(start, end, length)
        ]
        yield from sorted(pages, key=lambda piece: (piece.first, piece.series, piece.symbol))

    def read(self, piece: Piece, known: Known, now: datetime) -> Content | Absent | None:
        """One page; None if it was loaded before (a venue's history is not corrected)."""
        history = next(history for history in self._histories if history.name == piece.series)
        instrument = self._instruments.get(piece.symbol)
        if instrument is None or piece.last <= now - history.reaches_back:
            return Absent(is_expected=False)
        if known(piece.path) is not None:
            return None
        first = max(piece.first, _ceil(now - history.reaches_back, history.step))
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_SECONDS),
            reraise=True,
        )
        records = retrying(self._reader.page, history, instrument, first, min(piece.last, now))
        is_final = piece.last + history.declared_delay + 2 * history.step <= now
        if not records and is_final:
            return Absent(is_expected=False)
        return Content(piece.path, _digest(records), now, records, is_final=is_final)

    def _path(self, history: History, symbol: str, first: datetime, length: timedelta) -> str:
        instrument = self._instruments.get(symbol)
        native = instrument.native if instrument is not None else symbol
        return f"/{history.name}/{native}/{first:%Y-%m-%dT%H%MZ}+{int(length.total_seconds() // 60)}min"


def _digest(records: Sequence[Record]) -> str:
    """Of what a page said; the answer itself carries the time of asking."""
    said = hashlib.sha256()
    for record in records:
        said.update(msgspec.json.encode(msgspec.structs.replace(record, received_at=record.event_time)))
    return said.hexdigest()


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
