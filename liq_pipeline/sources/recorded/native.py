"""Recordings of our own records: `manifest.json` and files `records-<number>.jsonl.gz` in known order.

Belongs here: writing and reading that format. A line is {"topic": ..., "record": {...}} or {"topic": ..., "heartbeat":
{...}}, with the record as it goes through Kafka; the manifest holds the world as it was recorded (name, expectations,
span). Played again it is a world of its own, recorded/<name>, whatever it was recorded from.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from liq_pipeline.bus.topics import RECORD_OF_TOPIC, TOPIC_OF_RECORD
from liq_pipeline.domain.records import Heartbeat, Record, RecordError
from liq_pipeline.domain.worlds import Manifest, World
from liq_pipeline.sources.playing.playable import Message, known_time
from liq_pipeline.sources.recorded.lines import DamagedFileError, numbered_lines
from liq_pipeline.sources.recorded.recording import (
    Findings,
    Recording,
    RecordingError,
    Selection,
    recorded_world,
    report,
)

NAME: Final = "records of our own"
MANIFEST: Final = "manifest.json"
FORMAT: Final = "liq-records"
FORMAT_VERSION: Final = 1
LINES_PER_FILE: Final = 250_000


class RecordingManifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json: what was recorded, and the span of known times in it."""

    format: str
    format_version: int
    recorded_world: str
    expected: Manifest
    first_time: datetime
    last_time: datetime
    lines: int


class _Line(msgspec.Struct, omit_defaults=True):
    topic: str
    record: msgspec.Raw = msgspec.Raw()
    heartbeat: msgspec.Raw = msgspec.Raw()


_encoder: Final = msgspec.json.Encoder(decimal_format="string")
_decoder: Final = msgspec.json.Decoder(_Line)
_decoders: Final = {topic: msgspec.json.Decoder(record) for topic, record in RECORD_OF_TOPIC.items()}
_heartbeat_decoder: Final = msgspec.json.Decoder(Heartbeat)


class RecordingWriter:
    """Writes messages in known order into a new folder; the manifest is written at the end, by close()."""

    def __init__(self, folder: Path, world: World) -> None:
        """Make the folder. Raises RecordingError if it holds anything already."""
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RecordingError(f"{folder} is not empty; a recording needs a folder of its own.")
        self._folder = folder
        self._world = world
        self._file: gzip.GzipFile | None = None
        self._lines = 0
        self._first: datetime | None = None
        self._last: datetime | None = None

    def write(self, message: Message) -> None:
        """Append a record or heartbeat. Raises ValueError if it was known before the one before it."""
        known = known_time(message)
        if self._last is not None and known < self._last:
            raise ValueError(f"a record known at {known.isoformat()} comes after one known at {self._last.isoformat()}")
        if isinstance(message, tuple):
            line = {"topic": message[0], "heartbeat": message[1]}
        else:
            line = {"topic": TOPIC_OF_RECORD[type(message)], "record": message}
        if self._lines % LINES_PER_FILE == 0:
            self._next_file()
        if self._file is None:
            raise ValueError("the recording is closed")
        self._file.write(_encoder.encode(line) + b"\n")
        self._lines += 1
        self._first = self._first or known
        self._last = known

    def close(self) -> None:
        """Finish the files and write the manifest."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._first is None or self._last is None:
            raise RecordingError(f"nothing was recorded into {self._folder}.")
        manifest = RecordingManifest(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            recorded_world=self._world.name,
            expected=self._world.manifest,
            first_time=self._first,
            last_time=self._last,
            lines=self._lines,
        )
        (self._folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif self._file is not None:
            self._file.close()

    def _next_file(self) -> None:
        if self._file is not None:
            self._file.close()
        path = self._folder / f"records-{self._lines // LINES_PER_FILE:05d}.jsonl.gz"
        self._file = gzip.open(path, "wb", compresslevel=5)  # noqa: SIM115 - closed by close()


def is_here(folder: Path) -> bool:
    """Whether the folder holds such a recording."""
    try:
        content = msgspec.json.decode((folder / MANIFEST).read_bytes())
    except (OSError, msgspec.DecodeError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def open_folder(folder: Path, selection: Selection, step_seconds: int) -> Recording:
    """The recording in the folder. Raises RecordingError if its manifest or version is not understood."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=RecordingManifest)
    except (OSError, msgspec.DecodeError) as error:
        raise RecordingError(f"{folder / MANIFEST} cannot be read: {error}") from error
    if manifest.format_version != FORMAT_VERSION:
        raise RecordingError(
            f"{folder} has format version {manifest.format_version}; this program knows {FORMAT_VERSION}."
        )
    symbols = tuple(symbol for symbol in manifest.expected.symbols if selection.has_symbol(symbol))
    first = max(manifest.first_time, selection.start) if selection.start else manifest.first_time
    last = min(manifest.last_time, selection.end) if selection.end else manifest.last_time
    if not symbols or first > last:
        raise RecordingError(f"{folder} holds nothing of the wanted symbols and times.")
    findings = Findings(lines=manifest.lines, records=manifest.lines)
    report(str(folder), findings)
    expected = msgspec.structs.replace(
        manifest.expected, symbols=symbols, description=f"{NAME}, recorded from {manifest.recorded_world}"
    )
    world = recorded_world(
        folder.name,
        manifest=expected,
        step_seconds=step_seconds,
        first_time=first,
        last_time=last,
        selection=selection,
    )
    return Recording(world, lambda: _read(folder, world.name, selection), findings)


def _read(folder: Path, world: str, selection: Selection) -> Iterator[Message]:
    for path in sorted(folder.glob("records-*.jsonl.gz")):
        try:
            yield from _messages(path, world, selection)
        except DamagedFileError as error:
            raise RecordingError(f"{path} cannot be read {error}") from error


def _messages(path: Path, world: str, selection: Selection) -> Iterator[Message]:
    for number, raw in numbered_lines(path):
        try:
            line = _decoder.decode(raw)
            is_heartbeat = bool(bytes(line.heartbeat))
            record: Record = (
                _heartbeat_decoder.decode(line.heartbeat) if is_heartbeat else _decoders[line.topic].decode(line.record)
            )
            record = msgspec.structs.replace(record, origin="recorded", world=world)
            record.check()
        except (msgspec.DecodeError, KeyError, RecordError) as error:
            raise RecordingError(f"{path}:{number} is no record: {error}") from error
        symbol = getattr(record, "symbol", None)
        if not selection.has_time(record.known) or (symbol is not None and not selection.has_symbol(symbol)):
            continue
        yield (line.topic, record) if isinstance(record, Heartbeat) else record
