"""Writing down what sources answered, word for word, so that it can be played again through the same parsers.

Belongs here: the format and the writer (`liq up --record DIR`, LIQ_SOURCE_RECORD_DIR). Does not: reading it
(sources/recorded/raw_answers.py).

One JSON line per answer or frame, in hourly files `raw-<YYYYMMDDTHH>.jsonl.gz`; several processes append to one file,
each a whole gzip member under a lock, so a process that is killed costs its own last seconds at most. Requests are
written without host and secrets. `raw-manifest.json` says what was expected of whom.
"""

from __future__ import annotations

import fcntl
import gzip
import logging
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from liq_pipeline.domain.records import Heartbeat
from liq_pipeline.domain.worlds import Manifest
from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access.http import Answer, Request
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.sources.polling.state import INSTRUMENTS, Listing

log = logging.getLogger(__name__)

MANIFEST: Final = "raw-manifest.json"
FORMAT: Final = "liq-raw"
FORMAT_VERSION: Final = 1
APPEND_SECONDS: Final = 5.0


class RawManifest(msgspec.Struct, frozen=True, kw_only=True):
    """raw-manifest.json."""

    format: str
    format_version: int
    symbols: tuple[str, ...]
    expected: Manifest
    flow_minimum_amount: float = 0.0
    """Tokens from which a transfer between unlabelled wallets was kept."""


class RawLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One answer (path, params, body, payload), frame (text) or heartbeat (event_time) of a source, the blocks of a
    chain that the answers before it have brought (first_block to last_block, complete at sent_at), or what was known
    of a source's instruments when the recording began (instruments, and the wanted symbols not_listed).

    feeds: what the answer was asked for, by name, since one answer may serve several feeds and not each time all that
    it could; None: whatever fits it. asked_in: the polling round, whose answers are read together: open interest may
    take the mark of another answer.
    """

    source: str
    kind: Literal["answer", "frame", "heartbeat", "chunk", "instruments", "turn"]
    received_at: datetime
    sent_at: datetime | None = None
    path: str = ""
    params: dict[str, str | int] = {}
    body: Any = None
    payload: msgspec.Raw = msgspec.Raw(b"null")
    text: str = ""
    event_time: datetime | None = None
    first_block: int | None = None
    last_block: int | None = None
    feeds: tuple[str, ...] | None = None
    asked_in: datetime | None = None
    instruments: tuple[Instrument, ...] = ()
    not_listed: tuple[str, ...] = ()


class RawLog:
    """Appends to a folder. Safe for threads; other processes may append to the same folder."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Make the folder, and its manifest if there is none yet."""
        self._folder = folder
        self._lines: list[bytes] = []
        self._lock = threading.Lock()
        self._appended = time.monotonic()
        self.is_new = False
        """Whether this log has made the folder's manifest: what was known before has to be written down first."""
        folder.mkdir(parents=True, exist_ok=True)
        manifest = folder / MANIFEST
        if not manifest.exists():
            self.is_new = True
            expected = registry.real_world(settings).manifest
            content = RawManifest(
                format=FORMAT,
                format_version=FORMAT_VERSION,
                symbols=settings.symbols,
                expected=expected,
                flow_minimum_amount=settings.sources.flow_minimum_amount,
            )
            manifest.write_bytes(msgspec.json.encode(content))

    def answer(
        self,
        source: str,
        request: Request,
        answer: Answer,
        feeds: tuple[str, ...] | None = None,
        asked_in: datetime | None = None,
    ) -> None:
        """An OnAnswer; a polling round also says what it asked for."""
        self._add(
            RawLine(
                source=source,
                kind="answer",
                received_at=answer.received_at,
                sent_at=answer.sent_at,
                path=request.path,
                params=dict(request.params),
                body=request.body,
                payload=msgspec.Raw(answer.body),
                feeds=feeds,
                asked_in=asked_in,
            )
        )

    def instrument_list(self, source: str, request: Request, answer: Answer) -> None:
        """An OnAnswer of a list that was asked for outside a polling round."""
        self.answer(source, request, answer, feeds=(INSTRUMENTS,))

    def known(self, listings: Mapping[str, Listing]) -> None:
        """What each source lists, as far as it is known: it is asked for again within the hour only."""
        for source, listing in listings.items():
            line = RawLine(
                source=source,
                kind="instruments",
                received_at=datetime.now(UTC),
                instruments=listing.instruments,
                not_listed=tuple(sorted(listing.not_listed)),
            )
            self._add(line)

    def frame(self, source: str, received_at: datetime, frame: str | bytes) -> None:
        """An OnFrame."""
        text = frame if isinstance(frame, str) else frame.decode(errors="replace")
        self._add(RawLine(source=source, kind="frame", received_at=received_at, text=text))

    def turn(self, source: str, received_at: datetime, moment: datetime, is_standing: bool) -> None:
        """An OnTurn: the source's stream stands since that moment, or is lost since then."""
        text = "stands" if is_standing else "lost"
        self._add(RawLine(source=source, kind="turn", received_at=received_at, event_time=moment, text=text))

    def heartbeat(self, heartbeat: Heartbeat) -> None:
        """What the collector told of its feed."""
        line = RawLine(
            source=heartbeat.venue,
            kind="heartbeat",
            received_at=heartbeat.received_at,
            event_time=heartbeat.event_time,
        )
        self._add(line)

    def chunk(self, source: str, first: int, last: int, complete_at: datetime) -> None:
        """An OnChunk: the answers since the one before have brought these blocks."""
        line = RawLine(
            source=source,
            kind="chunk",
            received_at=datetime.now(UTC),
            sent_at=complete_at,
            first_block=first,
            last_block=last,
        )
        self._add(line)

    def flush(self) -> None:
        """Append what waits. A disk that is full is told and costs the recording, never the data."""
        with self._lock:
            lines, self._lines = self._lines, []
            self._appended = time.monotonic()
        if not lines:
            return
        path = self._folder / f"raw-{datetime.now(UTC):%Y%m%dT%H}.jsonl.gz"
        member = gzip.compress(b"\n".join(lines) + b"\n", compresslevel=3)
        try:
            with path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(member)
        except OSError as error:
            log.warning("the recording in %s cannot be written: %s", self._folder, error.strerror)

    def _add(self, line: RawLine) -> None:
        # One line each, whatever line breaks the venue's own formatting has.
        encoded = msgspec.json.format(msgspec.json.encode(line), indent=-1)
        with self._lock:
            self._lines.append(encoded)
            due = time.monotonic() - self._appended > APPEND_SECONDS
        if due:
            self.flush()


def raw_log_of(settings: Settings) -> RawLog | None:
    """The log that LIQ_SOURCE_RECORD_DIR asks for, or None."""
    folder = settings.sources.record_dir
    return None if folder is None else RawLog(folder, settings)
