"""One past day from the public archives, with the look-back that its scores need, as a world that can be played.

Belongs here: `open_day`. Does not: files (binance.py), playing (sources/playing/player.py), the page that is written of
it.

The world is a throw-away one, `recorded/<archive>-<day>...`: its records carry origin recorded and are known when a
live collector would have known them. The look-back is one history that only makes sense as a whole; scoring starts at
the day's first instant. Verified files are kept in LIQ_HOME/archives: the same day can be played again offline.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from liq_pipeline.domain.records import Record
from liq_pipeline.domain.worlds import Expectation, Manifest, World
from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import RejectedError
from liq_pipeline.sources.archives import binance
from liq_pipeline.sources.archives.files import ArchiveFiles
from liq_pipeline.sources.archives.pieces import Absent, Content, Piece
from liq_pipeline.sources.playing.playable import Message, Step
from liq_pipeline.sources.recorded.recording import Recording

LOOK_BACK: Final = timedelta(days=32)
"""Percentiles look back 30 days, and the oldest of their changes one day further."""
CACHE: Final = "archives"
_STEP_RECORDS: Final = 5_000
_DAY: Final = timedelta(days=1)


@dataclass
class ArchiveDay:
    """A playable day (sources/playing/playable.py). missing: what the archive has not, a sentence each, for people.

    symbols: those of which anything was found for the day itself.
    """

    world: World
    symbols: tuple[str, ...]
    records_total: int
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _series: list[list[Record]] = field(default_factory=list, repr=False)

    def records(self) -> Iterator[Record]:
        """Every record, look-back first, in order of known_at."""
        return heapq.merge(*self._series, key=lambda record: record.known)

    def steps(self, after: datetime | None) -> Iterator[Step]:
        """The look-back as one incomplete history, then one step per grid point of the day."""
        start = self.world.first_time
        if start is None:
            raise ValueError("an archive day has a first time")
        waiting: list[Message] = []
        rest: list[Record] = []
        ordered = self.records()
        for record in ordered:
            if record.known > start:
                rest.append(record)
                break
            waiting.append(record)
            if len(waiting) >= _STEP_RECORDS:
                if after is None:
                    yield Step(start, waiting, is_complete=False)
                waiting = []
        if after is None:
            yield Step(start, waiting)

        def of_the_day() -> Iterator[Message]:
            yield from rest
            yield from ordered

        yield from Recording(self.world, of_the_day).steps(start if after is None else after)

    def landed(self, time: datetime) -> None:
        """Nothing is freed: a day may be played again."""


def open_day(
    settings: Settings,
    day: date,
    symbols: Sequence[str],
    *,
    look_back: timedelta = LOOK_BACK,
    world_name: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    now: datetime | None = None,
) -> ArchiveDay:
    """Fetch one UTC day of these symbols from the public archives, with its look-back, as a throw-away world.

    progress: called with (files done, files in all). world_name: replaces recorded/binance-archive-<day>-<symbols>.
    Raises RejectedError if the archive has nothing of the day, another SourceError if it cannot be read.
    """
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    end = start + _DAY
    clock = now or datetime.now(UTC)
    name = world_name or f"recorded/binance-archive-{day.isoformat()}-{'-'.join(symbols)}"[:100]
    files = ArchiveFiles(
        binance.NAME,
        settings.sources.urls.get(binance.NAME) or binance.URL,
        cache=Path(settings.home) / CACHE,
    )
    try:
        archive = binance.BinanceArchive(files)
        pieces = list(archive.pieces(symbols, start - look_back, end))
        found: list[tuple[Piece, Content]] = []
        absent: list[tuple[Piece, Absent]] = []

        def read(piece: Piece) -> Content | Absent | None:
            return archive.read(piece, lambda _path: None, clock)

        with ThreadPoolExecutor(archive.concurrency, thread_name_prefix="archive day") as pool:
            for number, (piece, content) in enumerate(zip(pieces, pool.map(read, pieces), strict=True), start=1):
                if isinstance(content, Content):
                    found.append((piece, content))
                elif isinstance(content, Absent):
                    absent.append((piece, content))
                progress(number, len(pieces))
    finally:
        files.close()
    # The day's own files decide: a symbol of which only the look-back exists was not traded that day.
    traded = {piece.symbol for piece, content in found if content.records and not binance.KINDS[piece.series].is_monthly
              and piece.first == start}  # fmt: skip
    chosen = tuple(symbol for symbol in symbols if symbol in traded)
    if not chosen:
        raise RejectedError(
            binance.NAME, f"there is nothing of {', '.join(symbols)} on {day.isoformat()}{_why(absent)}"
        )
    series: dict[tuple[str, str], list[Record]] = {}
    for piece, content in found:
        if piece.symbol not in traded:
            continue
        for record in content.records:
            if start - look_back <= record.known <= end:
                known = record.known
                own = msgspec.structs.replace(record, origin="recorded", world=name, received_at=known)
                series.setdefault((piece.symbol, piece.series), []).append(own)
    for records in series.values():
        records.sort(key=lambda record: record.known)
    return ArchiveDay(
        world=_world(name, chosen, start, end, settings.score_step),
        symbols=chosen,
        records_total=sum(map(len, series.values())),
        missing=_sentences(absent),
        problems=[f"{piece.symbol} {piece.series}: {text}" for piece, content in found for text in content.problems],
        _series=list(series.values()),
    )


def _world(name: str, symbols: tuple[str, ...], start: datetime, end: datetime, step_seconds: int) -> World:
    bar = binance.BAR.total_seconds()
    return World(
        name=name,
        kind="recorded",
        market_step_seconds=step_seconds,
        flows_step_seconds=step_seconds,
        manifest=Manifest(
            symbols=symbols,
            expected={
                "prices": Expectation(venues=(binance.VENUE,), cadence_seconds=bar),
                "open_interest": Expectation(venues=(binance.VENUE,), cadence_seconds=bar),
                "long_short_ratio": Expectation(venues=(binance.VENUE,), cadence_seconds=bar),
                # Settled every 8 h at most: a rate is in force until the next one.
                "funding_rates": Expectation(venues=(binance.VENUE,), cadence_seconds=8 * 3600),
            },
            description=f"Binance's public archive, {start:%Y-%m-%d}",
        ),
        first_time=start,
        last_time=end,
    )


def _why(absent: list[tuple[Piece, Absent]]) -> str:
    return ": the files of that day may still be published" if any(gone.is_expected for _, gone in absent) else ""


def _sentences(absent: list[tuple[Piece, Absent]]) -> list[str]:
    days: dict[tuple[str, str], list[datetime]] = {}
    for piece, _ in absent:
        days.setdefault((piece.symbol, piece.series), []).append(piece.first)
    return [
        f"{symbol}: the archive has no {series} of {len(firsts)} of the days or months, "
        f"{min(firsts):%Y-%m-%d} to {max(firsts):%Y-%m-%d}"
        for (symbol, series), firsts in sorted(days.items())
    ]
