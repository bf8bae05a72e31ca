"""What Binance's archive holds beyond records: the premium index and the depth of the order book, as numbers at times.

Belongs here: the two kinds of file, their columns and quirks. Does not: where files lie and how they are found
(binance.py), downloading (files.py), keeping and judging them (evaluation/archive/). Nothing here is among the pieces
of `liq backfill`: these files are read only where a training is asked to try them.

* premiumIndexKlines (daily, 5 min): the close, true at the end of the bar: (impact price - index) / index, a fraction.
* bookDepth (daily, 30 s, from 2023): of each side all that rests within so many percent of the middle: coins and USD.
  Read are the bands of -1 and +1 %.

Quirks reported of the second: bands written -1 or -1.00; since some day also +-0.2; a sample a minute instead of two;
days that are missing; days on which the whole book stands far from the price, which only a price can tell: so the
book's own price is given, too.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from liq_pipeline.sources.access.http import BadAnswerError
from liq_pipeline.sources.archives.binance import (
    BAR,
    KLINE_COLUMNS,
    NAME,
    BinanceArchive,
    Layout,
    header_of,
    instrument_of,
    of_another_time,
    rows_of,
    stamp,
    text_time,
)
from liq_pipeline.sources.archives.pieces import Absent, Piece
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.sources.live.values import UNREADABLE, ShapeError, number

DEPTH_COLUMNS: Final = ("timestamp", "percentage", "depth", "notional")
BAND_PERCENT: Final = 1.0
LARGEST_PREMIUM: Final = 0.5
"""No perpetual stood half its index away from it: such a number is none."""


@dataclass
class Samples:
    """What a file held. time: UTC, in the file's order; values: to each time one number per name of its kind."""

    time: list[datetime] = field(default_factory=list)
    values: list[tuple[float, ...]] = field(default_factory=list)
    doubled: int = 0
    """Rows that came twice, word for word, and were taken once."""
    unknown_cells: int = 0
    """Cells that were empty, or 0 where 0 means that nobody knew."""
    problems: list[str] = field(default_factory=list)
    """What could not be read or cannot be true, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class SampleKind(Layout):
    """A kind of file that becomes samples. begins: the archive has none before. names: of a sample's numbers."""

    begins: datetime
    names: tuple[str, ...]
    parse: Callable[[str, Instrument, Samples], None]

    def pieces(self, symbol: str, start: datetime, end: datetime) -> Iterator[Piece]:
        """The days of [start, end), which begins with a day."""
        day = max(start, self.begins)
        while day < end:
            yield Piece(NAME, self.name, symbol, day, day + timedelta(days=1), self.path(f"{symbol}USDT", day))
            day += timedelta(days=1)


def _premium(text: str, _instrument: Instrument, samples: Samples) -> None:
    rows, samples.doubled = rows_of(text, KLINE_COLUMNS)
    unreadable = _Unreadable(samples)
    for cells in rows:
        try:
            moment, cell = stamp(cells["open_time"]) + BAR, cells["close"]
            # 0 is a premium, and a frequent one: the index lies between the impact prices. An empty cell is none.
            if cell in ("", "NaN", "nan", "null"):
                samples.unknown_cells += 1
                continue
            premium = number(cell)
            if abs(premium) >= LARGEST_PREMIUM:
                raise ShapeError(f"a premium of {premium:g}")
        except UNREADABLE as error:
            unreadable.add(error)
            continue
        samples.time.append(moment)
        samples.values.append((premium,))
    unreadable.say()


def _depth(text: str, instrument: Instrument, samples: Samples) -> None:
    # A day has 35,000 rows, of which a sixth is of the two bands: the others never become more than a list.
    rows = csv.reader(text.splitlines())
    place = {name: index for index, name in enumerate(DEPTH_COLUMNS)}
    unreadable = _Unreadable(samples)
    found: dict[str, dict[float, tuple[str, str]]] = {}
    for line, row in enumerate(rows):
        if not row:
            continue
        header = header_of(row, DEPTH_COLUMNS) if line == 0 else None
        if header is not None:
            place = {name: header.index(name) for name in DEPTH_COLUMNS}
            continue
        try:
            band = number(row[place["percentage"]])
            if abs(band) != BAND_PERCENT:
                continue
            said = row[place["depth"]], row[place["notional"]]
            own = found.setdefault(row[place["timestamp"]], {})
        except UNREADABLE as error:
            unreadable.add(error)
            continue
        samples.doubled += own.get(band) == said
        own[band] = said
    for text_of_time, sides in found.items():
        try:
            moment = text_time(text_of_time.strip())
            cells = [cell.strip() for band in (-BAND_PERCENT, BAND_PERCENT) for cell in sides.get(band, ("", ""))]
            # A book of which one side is missing says nothing of the other that could be trusted.
            known = [number(cell) if cell not in ("", "NaN", "nan", "null") else 0.0 for cell in cells]
        except UNREADABLE as error:
            unreadable.add(error)
            continue
        samples.unknown_cells += sum(value <= 0.0 for value in known)
        if min(known) <= 0.0:
            continue
        bid_units, bid_usd, ask_units, ask_usd = known
        price = (bid_usd + ask_usd) / (bid_units + ask_units) / instrument.coins_per_unit
        samples.time.append(moment)
        samples.values.append((bid_usd, ask_usd, price))
    unreadable.say()


PREMIUM: Final = SampleKind(
    "premiumIndexKlines", False, KLINE_COLUMNS, "5m",
    begins=datetime(2020, 1, 1, tzinfo=UTC), names=("premium_index",), parse=_premium,
)  # fmt: skip
DEPTH: Final = SampleKind(
    "bookDepth", False, DEPTH_COLUMNS,
    begins=datetime(2023, 1, 1, tzinfo=UTC), names=("bid_depth_usd", "ask_depth_usd", "book_price_usd"), parse=_depth,
)  # fmt: skip
SAMPLE_KINDS: Final = {kind.name: kind for kind in (PREMIUM, DEPTH)}


def read_samples(archive: BinanceArchive, piece: Piece, now: datetime) -> Samples | Absent:
    """One file's samples of its own day, checked. Raises SourceError."""
    kind = SAMPLE_KINDS[piece.series]
    found = archive.find(kind, piece, lambda _path: None, now)
    if isinstance(found, Absent):
        return found
    if found.file is None:
        raise ValueError("a file without a known checksum was not fetched")
    read, own = Samples(), Samples()
    try:
        kind.parse(found.file.text, instrument_of(piece, found.native), read)
    except UNREADABLE as error:
        raise BadAnswerError(NAME, f"{found.path.rpartition('/')[2]} cannot be read ({error})") from error
    others = []
    for moment, values in zip(read.time, read.values, strict=True):
        if piece.first <= moment <= piece.last:
            own.time.append(moment)
            own.values.append(values)
        else:
            others.append(moment)
    own.doubled, own.unknown_cells, own.problems = read.doubled, read.unknown_cells, read.problems
    if others:
        own.problems.append(of_another_time(others, len(read.time), piece))
    return own


class _Unreadable:
    """Rows that cannot be read, in one sentence: a file has tens of thousands."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._count = 0
        self._first = ""

    def add(self, error: Exception) -> None:
        """One more."""
        self._first = self._first or f"{type(error).__name__}: {error}"
        self._count += 1

    def say(self) -> None:
        """Add the sentence, if there is anything to say."""
        if self._count:
            self._samples.problems.append(f"{self._count} rows cannot be read (the first: {self._first})")
