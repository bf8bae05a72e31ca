"""What every source of history gives: pieces of a series, each read as a whole.

Belongs here: the shapes that archives, venue history and the chain share. Does not: any of them, Kafka, the ledger of
what was loaded (store/completeness/archive_files.py).

A piece is the smallest unit that is fetched, checked, landed and remembered: a file, a page, a span of blocks. Its
limits lie on a fixed grid, so that the same range asked for again, or a larger one, is made of the same pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from liq_pipeline.domain.records import Heartbeat, Record


@dataclass(frozen=True)
class Piece:
    """One file or page. series: for people, e.g. `metrics`. It covers first <= time < last (UTC)."""

    source: str
    series: str
    symbol: str
    first: datetime
    last: datetime
    path: str
    """Where it is, below the source's own address; of several places that may hold it, the one looked at first."""


@dataclass
class Content:
    """What a piece held. path: where it was found. checksum: of the file or the answer, sha256 in hexadecimal."""

    path: str
    checksum: str
    fetched_at: datetime
    records: list[Record]
    heartbeats: list[tuple[str, Heartbeat]] = field(default_factory=list)
    """(topic, heartbeat): the feed was read completely up to then."""
    doubled: int = 0
    """Rows that came twice, word for word, and were taken once."""
    unknown_cells: int = 0
    """Cells that were empty or 0 where 0 means that nobody knew."""
    problems: list[str] = field(default_factory=list)
    """What could not be read or cannot be true, a sentence each."""
    is_final: bool = True
    """False: more of this piece is still to come, so it is read again next time."""


@dataclass(frozen=True)
class Absent:
    """There is no such piece. is_expected: it may still be published, which is no error."""

    is_expected: bool


Known = Callable[[str], str | None]
"""path -> the checksum under which it was loaded last, None if it never was."""


class HistorySource(Protocol):
    """One place history comes from. read() may be called from several threads."""

    @property
    def name(self) -> str:
        """As `liq backfill --source` names it."""
        ...

    @property
    def concurrency(self) -> int:
        """Pieces that may be read at once without being rude."""
        ...

    def pieces(self, symbols: Sequence[str], start: datetime, end: datetime) -> Iterator[Piece]:
        """The pieces that hold start <= time < end, oldest first. Raises SourceError."""
        ...

    def read(self, piece: Piece, known: Known, now: datetime) -> Content | Absent | None:
        """Fetch and check it; None if it is as it was when it was loaded. Raises SourceError, BudgetError."""
        ...
