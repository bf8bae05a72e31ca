"""Historical data through the same topics and tables as everything else, piece by piece, behind the live records.

Belongs here: fetching ahead, sending, landing, the ledger, holding back. Does not: sources (sources/archives/), how a
row is written (store/landing/lander.py), scores (rescore.py).

Pieces are fetched a few ahead and leave out what is stored already. A batch of them is published and flushed, the end
offsets are noted, and the same Lander that ticks use lands past them; only then the ledger says that they are loaded.
So a backfill that is killed anywhere goes on with the pieces the ledger has not. It begins by landing what its
predecessor had sent, and of a piece whose rows are stored nothing is sent again.

Holding back: at most MAX_OUTSTANDING messages are in Kafka that have not landed, so a live record is never behind more
than those, a fraction of a second; where ticks are running the backfill rests as long as it worked, and stops while
they are late.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.domain.records import Heartbeat, Record
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.errors import LiqError
from liq_pipeline.pipeline.politeness import Politeness
from liq_pipeline.pipeline.tick import LANDING_CONSUMER
from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import BadAnswerError, SourceError
from liq_pipeline.sources.access.limits import BudgetError
from liq_pipeline.sources.archives.files import WrongChecksumError
from liq_pipeline.sources.archives.pieces import Absent, Content, HistorySource, Piece
from liq_pipeline.sources.registry import real_world
from liq_pipeline.store import worlds
from liq_pipeline.store.completeness import archive_files, gaps
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline.store.schema import community

log = logging.getLogger(__name__)

MAX_OUTSTANDING: Final = 2_000
"""Messages sent and not landed. Landing takes some 10,000 a second: a live record waits 0.2 s behind so many."""
FETCH_AHEAD: Final = 2
"""Pieces per reader that are fetched while others land."""
LAND_SECONDS: Final = 60.0
ABSENT: Final = "the archive has no such file"

Message = Record | tuple[str, Heartbeat]


@dataclass
class BackfillResult:
    """What a backfill did. Counts are of pieces unless the name says rows."""

    source: str
    symbols: tuple[str, ...]
    pieces: int = 0
    loaded: int = 0
    unchanged: int = 0
    corrected: int = 0
    """Of the loaded ones, those that had been loaded in another version."""
    not_yet: int = 0
    absent: int = 0
    refused: int = 0
    """Not loaded, because the file is not what its checksum says or cannot be read."""
    rows: int = 0
    rows_sent: int = 0
    rows_stored_before: int = 0
    rows_differing: int = 0
    """Of those stored before, the ones that say something else than the piece; what is stored stays."""
    doubled: int = 0
    unknown_cells: int = 0
    problems: list[str] = field(default_factory=list)
    """What was refused or could not be read, a sentence each."""
    empty_symbols: tuple[str, ...] = ()
    """Symbols of which nothing at all was found."""
    held_back_seconds: float = 0.0
    was_stopped: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether everything that should be there was there and could be used."""
        return not self.problems and not self.empty_symbols and not self.was_stopped


@dataclass(frozen=True)
class Progress:
    """Where a backfill stands. piece: the one read last. is_held: the live path is behind."""

    done: int
    total: int
    rows_sent: int
    piece: Piece | None
    is_held: bool = False


def backfill(
    database_url: str,
    bootstrap_servers: str,
    settings: Settings,
    source: HistorySource,
    symbols: Sequence[str],
    start: datetime,
    end: datetime,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
    wall_now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> BackfillResult:
    """Load start <= time < end of these symbols into the real world; files and pages that reach past it come whole.

    Raises SourceError if the source cannot be read, PublishError, ReadError or LandingError if a server is away; what
    was loaded by then stays loaded, and the same call goes on from there.
    """
    if end <= start:
        raise LiqError(f"--to {end.isoformat()} does not lie after --from {start.isoformat()}")
    with connect(database_url, application_name="liq backfill") as conn:
        conn.autocommit = True
        if worlds.get(conn, REAL) is None:
            with conn.transaction():
                worlds.register(conn, real_world(settings), activate=False)
        halt = stop or threading.Event()
        pieces = list(source.pieces(symbols, start, end))
        with (
            Politeness(database_url, halt) as politeness,
            community.opened(conn, list(IN_TOPICS), start, end),
            RecordProducer(bootstrap_servers, settings.kafka_topic_prefix, client_id="liq-backfill") as producer,
            Lander(
                database_url,
                bootstrap_servers,
                settings.kafka_topic_prefix,
                consumer=LANDING_CONSUMER,
                max_records=MAX_OUTSTANDING,
            ) as lander,
        ):
            run = _Run(conn, source, tuple(symbols), halt, politeness, progress, wall_now)
            run.load(pieces, producer, lander)
        run.note_absent()
        run.result.held_back_seconds = politeness.held_back_seconds
        return run.result


@dataclass(frozen=True)
class _Pending:
    """A piece that was read and sorted, on its way to the tables."""

    piece: Piece
    content: Content
    messages: list[Message]


class _Run:
    def __init__(
        self,
        conn: psycopg.Connection[Any],
        source: HistorySource,
        symbols: tuple[str, ...],
        stop: threading.Event,
        politeness: Politeness,
        progress: Callable[[Progress], None],
        wall_now: Callable[[], datetime],
    ) -> None:
        self._conn = conn
        self._source = source
        self._stop = stop
        self._politeness = politeness
        self._progress = progress
        self._wall_now = wall_now
        self._checksums = archive_files.checksums(conn, REAL, source.name)
        self._absent: list[Piece] = []
        self._found: set[str] = set()
        self.result = BackfillResult(source.name, symbols)

    def load(self, pieces: list[Piece], producer: RecordProducer, lander: Lander) -> None:
        """Read every piece, a few ahead, and bring them to the tables in their order."""
        self.result.pieces = len(pieces)
        self._land(lander)
        pending: list[_Pending] = []
        failure: LiqError | None = None
        try:
            for number, (piece, outcome) in enumerate(self._read_ahead(pieces), start=1):
                taken = self._take(piece, outcome)
                if taken is not None:
                    pending.append(taken)
                if sum(len(one.messages) for one in pending) >= MAX_OUTSTANDING:
                    self._deliver(pending, producer, lander)
                    pending = []
                self._progress(Progress(number, len(pieces), self.result.rows_sent, piece))
        except (SourceError, BudgetError) as error:
            failure = error  # what was read before it is good, and need not be asked for again
        self._deliver(pending, producer, lander)
        if failure is not None:
            raise failure
        self.result.empty_symbols = tuple(
            symbol for symbol in self.result.symbols if pieces and symbol not in self._found and self._was_due(symbol)
        )

    def _was_due(self, symbol: str) -> bool:
        """Whether something of the symbol should have been there."""
        return any(piece.symbol == symbol for piece in self._absent)

    def note_absent(self) -> None:
        """What should be there and is not becomes a gap, once; a symbol of which nothing exists is no gap."""
        for piece in self._absent:
            if piece.symbol not in self._found:
                continue
            source = f"{self._source.name} {piece.series}"
            known = self._conn.execute(
                "SELECT 1 FROM ingest_gaps WHERE world = %s AND source = %s AND symbol = %s"
                " AND from_time <= %s AND to_time >= %s AND healed_at IS NULL",
                [REAL, source, piece.symbol, piece.first, piece.last],
            ).fetchone()
            if known is None:
                gap = gaps.Gap(
                    world=REAL,
                    source=source,
                    symbol=piece.symbol,
                    cause=ABSENT,
                    from_time=piece.first,
                    to_time=piece.last,
                    is_permanent=True,
                )
                gaps.record(self._conn, gap)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read_ahead(self, pieces: list[Piece]) -> Iterator[tuple[Piece, Content | Absent | LiqError | None]]:
        """Outcomes in the order of the pieces. A file that must not be used is one; a source that is away ends it."""
        waiting: deque[tuple[Piece, Future[Content | Absent | None]]] = deque()
        left = iter(pieces)
        with ThreadPoolExecutor(self._source.concurrency, thread_name_prefix="backfill") as pool:
            try:
                while not self._stop.is_set():
                    while len(waiting) < self._source.concurrency * FETCH_AHEAD and (piece := next(left, None)):
                        waiting.append((piece, pool.submit(self._read, piece)))
                    if not waiting:
                        return
                    piece, future = waiting.popleft()
                    try:
                        yield piece, future.result()
                    except (WrongChecksumError, BadAnswerError) as error:
                        yield piece, error
                self.result.was_stopped = True
            finally:
                for _, future in waiting:
                    future.cancel()

    def _read(self, piece: Piece) -> Content | Absent | None:
        return self._source.read(piece, self._checksums.get, self._wall_now())

    def _take(self, piece: Piece, outcome: Content | Absent | LiqError | None) -> _Pending | None:
        """Count what a piece brought, and what of it is to be sent."""
        result = self.result
        if outcome is None:
            result.unchanged += 1
            self._found.add(piece.symbol)
            return None
        if isinstance(outcome, LiqError):
            result.problems.append(str(outcome))
            result.refused += 1
            self._found.add(piece.symbol)
            return None
        if isinstance(outcome, Absent):
            if outcome.is_expected:
                result.not_yet += 1
            else:
                result.absent += 1
                self._absent.append(piece)
            return None
        self._found.add(piece.symbol)
        before = self._checksums.get(outcome.path)
        is_correction = before is not None and before != outcome.checksum
        sorted_out = archive_files.without_stored(self._conn, outcome.records, is_correction=is_correction)
        result.loaded += 1
        result.corrected += is_correction
        result.rows += len(outcome.records)
        result.rows_sent += len(sorted_out.new)
        result.rows_stored_before += sorted_out.known
        result.rows_differing += sorted_out.differing
        result.doubled += outcome.doubled
        result.unknown_cells += outcome.unknown_cells
        result.problems += [f"{piece.source} {piece.symbol} {piece.series}: {text}" for text in outcome.problems[:3]]
        return _Pending(piece, outcome, [*sorted_out.new, *outcome.heartbeats])

    # -- sending and landing ---------------------------------------------------------------------------------------

    def _deliver(self, pending: list[_Pending], producer: RecordProducer, lander: Lander) -> None:
        """Send, land past it, and write into the ledger that it has landed."""
        if not pending:
            return
        messages = [message for one in pending for message in one.messages]
        for begin in range(0, len(messages), MAX_OUTSTANDING):
            self._politeness.hold_back(self._tell_held)
            started = time.monotonic()
            for message in messages[begin : begin + MAX_OUTSTANDING]:
                if isinstance(message, tuple):
                    producer.send_heartbeat(*message)
                else:
                    producer.send(message)
            producer.flush()
            # The end offsets are looked up when it begins, so ours are below them, now that they are acknowledged.
            self._land(lander)
            self._politeness.rest(time.monotonic() - started)
        loaded = [
            archive_files.LoadedFile(
                world=REAL,
                source=self._source.name,
                path=one.content.path,
                checksum=one.content.checksum,
                series=one.piece.series,
                symbol=one.piece.symbol,
                from_time=one.piece.first,
                to_time=one.piece.last,
                rows=len(one.content.records),
                rows_sent=len(one.messages) - len(one.content.heartbeats),
                fetched_at=one.content.fetched_at,
            )
            for one in pending
            if one.content.is_final
        ]
        with self._conn.transaction():
            archive_files.record(self._conn, loaded)
        self._checksums.update({file.path: file.checksum for file in loaded})

    def _tell_held(self) -> None:
        self._progress(Progress(0, self.result.pieces, self.result.rows_sent, None, is_held=True))

    def _land(self, lander: Lander) -> None:
        while not lander.land_to_end(LAND_SECONDS).reached_end:
            log.info("landing takes long; it goes on")
