"""Binance's public archive of USD-M perpetuals: open interest, long/short ratios, settled funding, mark prices.

Belongs here: the archive's layout, columns and quirks. Does not: downloading (files.py), what no record holds
(samples.py), the live venue (sources/live/binance.py).

Layout: data/futures/um/{daily,monthly}/<kind>/<SYMBOL>[/<interval>]/<SYMBOL>-<kind or interval>-<day or month>.zip.
What is read of it:
* metrics (daily, 5 min): open interest in coins and USD; ratios of all accounts, top accounts, top positions, takers.
* fundingRate (monthly): settled rates with the interval then in force, which no other free source has.
* markPriceKlines (daily, 5 min): the close, true at the end of the bar; klines (last trades) where a day has none.
bookDepth and premiumIndexKlines are none of its pieces: no record holds depth or basis and no score uses them, and a
funding rate worked out of the premium would be a number that the venue never published. A training that is asked to
try them reads them by samples.py. Liquidations: none since 2024-03-31.

Quirks reported of its files: no header in old ones; empty cells, and 0 where nobody knew; rows that come twice;
stamps in milliseconds or microseconds; a file that is replaced after the fact; a day that appears two days late. Rows
of another day than the file's are not taken, and said.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from liq_pipeline.domain.records import Record
from liq_pipeline.sources.access.http import BadAnswerError
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.archives.files import ArchiveFile, ArchiveFiles, NotThereError
from liq_pipeline.sources.archives.pieces import Absent, Content, Known, Piece
from liq_pipeline.sources.live.base import LongShortKind, Reading, settled_intervals
from liq_pipeline.sources.live.instruments import Instrument, coin_of
from liq_pipeline.sources.live.values import UNREADABLE, ShapeError, number

NAME: Final = "binance_archive"
VENUE: Final = "binance"
URL: Final = "https://data.binance.vision"
REQUESTS: Final = Limit(NAME, 1_200, 60)
"""No limit is published; twenty small files a second is what a careful person's script would ask for."""
ROOT: Final = "/data/futures/um"
FIRST_DAY: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""Before it the archive has nothing of these kinds (metrics: 2020-09-01 for BTC, later for the others)."""
PUBLISHED_WITHIN: Final = timedelta(days=4)
"""A day's file has been seen up to two days late; one that is missing for longer is missing."""
MONTH_PUBLISHED_WITHIN: Final = timedelta(days=6)
BAR: Final = timedelta(minutes=5)

METRICS_COLUMNS: Final = (
    "create_time", "symbol", "sum_open_interest", "sum_open_interest_value", "count_toptrader_long_short_ratio",
    "sum_toptrader_long_short_ratio", "count_long_short_ratio", "sum_taker_long_short_vol_ratio",
)  # fmt: skip
KLINE_COLUMNS: Final = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count", "taker_buy_volume",
    "taker_buy_quote_volume", "ignore",
)  # fmt: skip
FUNDING_COLUMNS: Final = ("calc_time", "funding_interval_hours", "last_funding_rate")
_RATIOS: Final[dict[str, LongShortKind]] = {
    "count_long_short_ratio": "accounts",
    "count_toptrader_long_short_ratio": "top_accounts",
    "sum_toptrader_long_short_ratio": "top_positions",
    "sum_taker_long_short_vol_ratio": "taker",
}
_MULTIPLIERS: Final = ("", "1000", "1000000", "1M")
"""Coins that cost a fraction of a cent are listed by the thousand or million: 1000PEPE."""

Row = dict[str, str]


@dataclass(frozen=True)
class Layout:
    """Where the files of one kind are, and their columns in the archive's order."""

    name: str
    is_monthly: bool
    columns: tuple[str, ...]
    interval: str | None = None
    instead: str | None = None
    """Another kind of the same columns, taken where this one has no file."""

    def path(self, native: str, first: datetime, *, kind: str | None = None) -> str:
        """Where the file of this day or month is."""
        name = kind or self.name
        folder = f"{ROOT}/{'monthly' if self.is_monthly else 'daily'}/{name}/{native}"
        if self.interval is not None:
            folder += f"/{self.interval}"
        return f"{folder}/{native}-{self.interval or name}-{first:{'%Y-%m' if self.is_monthly else '%Y-%m-%d'}}.zip"


@dataclass(frozen=True, kw_only=True)
class Kind(Layout):
    """A kind of file that becomes records. delay: how long after event_time a live collector would have had the
    value."""

    delay: timedelta
    parse: Callable[[list[Row], Reading, Content], None]


@dataclass(frozen=True)
class Found:
    """Where a file was. native: the venue's name of the coin there. file: None if it is as it was loaded."""

    native: str
    path: str
    file: ArchiveFile | None


def _metrics(rows: list[Row], reading: Reading, content: Content) -> None:
    instrument = reading.asked

    def row(cells: Row) -> None:
        if cells["symbol"] != instrument.native:
            raise ShapeError(f"{cells['symbol']!r} in a file of {instrument.native}")
        moment = text_time(cells["create_time"])
        coins, usd = _known(cells["sum_open_interest"], content), _known(cells["sum_open_interest_value"], content)
        if coins is not None:
            reading.open_interest(instrument, moment, coins=coins, usd=usd)
        for column, kind in _RATIOS.items():
            ratio = _known(cells.get(column, ""), content)
            if ratio is not None:
                reading.long_short(instrument, kind, ratio, 1.0, moment)

    reading.each(rows, row)


def _funding(rows: list[Row], reading: Reading, content: Content) -> None:
    rows = sorted(rows, key=lambda cells: int(cells["calc_time"]))
    # Some milliseconds of jitter: the settlement is at the full second.
    times = [stamp(cells["calc_time"]).replace(microsecond=0) for cells in rows]
    from_gaps = settled_intervals(times, None)

    def row(item: tuple[Row, datetime, float | None]) -> None:
        cells, moment, from_gap = item
        hours = _known(cells["funding_interval_hours"], content)
        rate = cells["last_funding_rate"]  # 0 is a rate; an empty cell is none
        if rate != "":
            reading.funding(reading.asked, "settled", number(rate), hours or from_gap, moment)

    reading.each(list(zip(rows, times, from_gaps, strict=True)), row)


def _klines(rows: list[Row], reading: Reading, content: Content) -> None:
    def row(cells: Row) -> None:
        close = _known(cells["close"], content)
        if close is not None:
            reading.price(reading.asked, close, stamp(cells["open_time"]) + BAR)

    reading.each(rows, row)


METRICS: Final = Kind("metrics", False, METRICS_COLUMNS, delay=BAR, parse=_metrics)
PRICES: Final = Kind("markPriceKlines", False, KLINE_COLUMNS, "5m", "klines", delay=timedelta(seconds=5), parse=_klines)
FUNDING: Final = Kind("fundingRate", True, FUNDING_COLUMNS, delay=timedelta(minutes=1), parse=_funding)
KINDS: Final = {kind.name: kind for kind in (METRICS, PRICES, FUNDING)}


class BinanceArchive:
    """The archive as a source of history."""

    name = NAME
    concurrency = 4

    def __init__(self, files: ArchiveFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._native: dict[str, str] = {}
        """symbol -> the name under which a file was found"""

    def pieces(self, symbols: Sequence[str], start: datetime, end: datetime) -> Iterator[Piece]:
        """Whole days, and with the first day of a month that month's funding."""
        day = _day(max(start, FIRST_DAY))
        month: datetime | None = None
        while day < end:
            kinds = [METRICS, PRICES]
            if month != day.replace(day=1):
                month = day.replace(day=1)
                kinds.insert(0, FUNDING)
            for kind in kinds:
                first, last = (month, _next_month(month)) if kind.is_monthly else (day, day + timedelta(days=1))
                for symbol in symbols:
                    native = self._native.get(symbol, f"{symbol}USDT")
                    yield Piece(NAME, kind.name, symbol, first, last, kind.path(native, first))
            day += timedelta(days=1)

    def read(self, piece: Piece, known: Known, now: datetime) -> Content | Absent | None:
        """The file's records, checked; None if it is as it was loaded."""
        kind = KINDS[piece.series]
        found = self.find(kind, piece, known, now)
        if isinstance(found, Absent):
            return found
        if found.file is None:
            return None
        return _content(kind, piece, found.native, found.path, found.file.text, found.file.checksum, now)

    def find(self, kind: Layout, piece: Piece, known: Known, now: datetime) -> Found | Absent:
        """The piece's file, by whichever name its coin has. Raises SourceError."""
        for native, path in self._places(kind, piece):
            try:
                file = self._files.fetch(path, known(path))
            except NotThereError:
                continue
            with self._lock:
                self._native[piece.symbol] = native
            return Found(native, path, file)
        within = MONTH_PUBLISHED_WITHIN if kind.is_monthly else PUBLISHED_WITHIN
        return Absent(is_expected=now < piece.last + within)

    def _places(self, kind: Layout, piece: Piece) -> Iterator[tuple[str, str]]:
        with self._lock:
            found = self._native.get(piece.symbol)
        natives = [found] if found else [f"{multiplier}{piece.symbol}USDT" for multiplier in _MULTIPLIERS]
        for name in filter(None, (kind.name, kind.instead)):
            for native in natives:
                yield native, kind.path(native, piece.first, kind=name)


def instrument_of(piece: Piece, native: str) -> Instrument:
    """The piece's coin as the file's name has it: 1000PEPE counts by the thousand."""
    symbol, coins = coin_of(native.removesuffix("USDT"))
    return Instrument(piece.symbol, native, coins if symbol == piece.symbol else 1.0)


def _content(kind: Kind, piece: Piece, native: str, path: str, text: str, checksum: str, now: datetime) -> Content:
    reading = Reading(
        VENUE,
        sent_at=now,
        received_at=now,
        instruments={},
        instrument=instrument_of(piece, native),
        origin="archive",
        declared_delay=kind.delay,
    )
    content = Content(path, checksum, now, [])
    try:
        rows, content.doubled = rows_of(text, kind.columns)
        kind.parse(rows, reading, content)
    except UNREADABLE as error:
        raise BadAnswerError(NAME, f"{path.rpartition('/')[2]} cannot be read ({error})") from error
    content.records, strange = _of_the_piece(reading.records, piece)
    content.problems = reading.problems + strange
    return content


def _of_the_piece(records: list[Record], piece: Piece) -> tuple[list[Record], list[str]]:
    """The records of the file's own day or month, and a sentence if there were others: they would overwrite what the
    right file says. A value at the very end belongs to it: candles close there, and metrics are stamped so too."""
    own = [record for record in records if piece.first <= record.event_time <= piece.last]
    if len(own) == len(records):
        return records, []
    others = [record.event_time for record in records if not piece.first <= record.event_time <= piece.last]
    return own, [of_another_time(others, len(records), piece)]


def of_another_time(others: Collection[datetime], total: int, piece: Piece) -> str:
    """A sentence about the values of a file that are not of its own day or month."""
    until = piece.last - timedelta(seconds=1)
    span = f"{piece.first:%Y-%m-%d}" if until.date() == piece.first.date() else f"{piece.first:%Y-%m}"
    return (
        f"{len(others)} of {total} values are of another time than the file's own {span} "
        f"({min(others):%Y-%m-%d %H:%M} to {max(others):%Y-%m-%d %H:%M} UTC): they were not used"
    )


def rows_of(text: str, columns: tuple[str, ...]) -> tuple[list[Row], int]:
    """Rows by column name, and how many came again word for word; without a header the archive's order holds."""
    everything = [tuple(cell.strip() for cell in row) for row in csv.reader(text.splitlines()) if row]
    rows = list(dict.fromkeys(everything))
    header = header_of(rows[0], columns) if rows else None
    named = header or list(columns)
    rows = rows[1:] if header else rows
    return [dict(zip(named, row, strict=False)) for row in rows], len(everything) - len(set(everything))


def header_of(row: Sequence[str], columns: tuple[str, ...]) -> list[str] | None:
    """The file's own order of columns if its first row says one. Raises ShapeError if it lacks what is read."""
    if row[0] != columns[0]:
        return None
    missing = set(columns[:5]) - set(row)
    if missing:
        raise ShapeError(f"the header lacks {', '.join(sorted(missing))}")
    return list(row)


def _known(cell: str, content: Content) -> float | None:
    """The cell's number; an empty cell or 0 is unknown: no perpetual has open interest, a ratio or a price of zero."""
    value = number(cell) if cell not in ("", "NaN", "nan", "null") else 0.0
    if value == 0.0:
        content.unknown_cells += 1
        return None
    return value


def text_time(cell: str) -> datetime:
    """UTC, as `2024-01-31 23:55:00`."""
    return datetime.fromisoformat(cell).replace(tzinfo=UTC)


def stamp(cell: str) -> datetime:
    """Milliseconds or microseconds since 1970: the archive changed from one to the other."""
    value = int(number(cell))
    microseconds = value if value > 10**14 else value * 1000
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def _day(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _next_month(month: datetime) -> datetime:
    return (month + timedelta(days=32)).replace(day=1)
