"""Recordings of raw answers and frames (`liq up --record DIR`), played through the parsers of the live sources.

Belongs here: reading that format and finding the feed that each answer belongs to. Does not: writing it (raw_log.py)
or what answers mean (live/).

An answer belongs to the feeds that it was asked for (in older recordings: to every feed) whose request, made of the
instruments recorded before it, equals the recorded one; the lists of instruments come from the recording itself. The
answers of a polling round are read together, in the order of the feeds, as the round read them, and its list of
instruments holds from the next round on. Stablecoin transfers: raw_chain.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from liq_pipeline.domain.records import Heartbeat, Liquidation
from liq_pipeline.domain.worlds import Manifest
from liq_pipeline.sources.access.http import Request
from liq_pipeline.sources.access.raw_log import FORMAT, FORMAT_VERSION, MANIFEST, RawLine, RawManifest
from liq_pipeline.sources.access.turns import Turns, needs_turns
from liq_pipeline.sources.live.base import Feed, Reading, Source
from liq_pipeline.sources.live.instruments import Instrument, choose
from liq_pipeline.sources.live.values import UNREADABLE
from liq_pipeline.sources.playing.playable import Message
from liq_pipeline.sources.polling.state import INSTRUMENTS
from liq_pipeline.sources.recorded.lines import DamagedFileError, numbered_lines
from liq_pipeline.sources.recorded.raw_chain import CHAIN_SOURCES, FLOWS, ChainPlayer
from liq_pipeline.sources.recorded.recording import (
    Findings,
    Recording,
    RecordingError,
    Selection,
    recorded_world,
    report,
    tidy,
)
from liq_pipeline.sources.registry import SOURCES

NAME: Final = "raw answers"
LIQUIDATIONS: Final = "liquidations"
Taken = tuple[list[Message], list[str]]
"""(messages, problems) of one line."""
_decoder: Final = msgspec.json.Decoder(RawLine)


def is_here(folder: Path) -> bool:
    """Whether the folder holds such a recording."""
    return (folder / MANIFEST).is_file()


def open_folder(folder: Path, selection: Selection, step_seconds: int) -> Recording:
    """The recording in the folder. Raises RecordingError if nothing in it can be played."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=RawManifest)
    except (OSError, msgspec.DecodeError) as error:
        raise RecordingError(f"{folder / MANIFEST} cannot be read: {error}.") from error
    if (manifest.format, manifest.format_version) != (FORMAT, FORMAT_VERSION):
        raise RecordingError(f"{folder} is {manifest.format} {manifest.format_version}, not {FORMAT} {FORMAT_VERSION}.")
    files = sorted(folder.glob("raw-*.jsonl.gz"))
    symbols = tuple(symbol for symbol in manifest.symbols if selection.has_symbol(symbol))
    findings = Findings()
    name = f"recorded/{tidy(folder.name)}{selection.suffix}"[:100]
    first = last = None
    players = _players(name, symbols, manifest)
    has_flows = False
    for message in _messages(files, players, selection, findings):
        known = message[1].known if isinstance(message, tuple) else message.known
        first, last = first or known, known
        has_flows = has_flows or (isinstance(message, tuple) and message[0] == FLOWS)
        findings.records += 1
    if first is None or last is None:
        raise RecordingError(f"{folder} holds nothing of the wanted symbols and times ({findings.sentence}).")
    report(str(folder), findings)
    expected = {
        topic: expectation
        for topic, expectation in manifest.expected.expected.items()
        if topic != FLOWS or has_flows  # recordings of earlier versions do not say which blocks were read
    }
    world = recorded_world(
        folder.name,
        manifest=Manifest(
            symbols=symbols,
            expected=expected,
            description=f"raw answers: {findings.sentence}",
            not_listed={
                name: player.not_listed
                for name, player in players.items()
                if isinstance(player, _SourcePlayer) and player.not_listed
            },
        ),
        step_seconds=step_seconds,
        first_time=first,
        last_time=last,
        selection=selection,
    )
    return Recording(
        world, lambda: _messages(files, _players(world.name, symbols, manifest), selection, Findings()), findings
    )


def _players(world: str, symbols: tuple[str, ...], manifest: RawManifest) -> dict[str, _SourcePlayer | ChainPlayer]:
    players: dict[str, _SourcePlayer | ChainPlayer] = {
        name: _SourcePlayer(source, world, symbols) for name, source in SOURCES.items()
    }
    return players | {name: ChainPlayer(name, world, manifest.flow_minimum_amount) for name in CHAIN_SOURCES}


def _messages(
    files: list[Path], players: dict[str, _SourcePlayer | ChainPlayer], selection: Selection, findings: Findings
) -> Iterator[Message]:
    for path in files:
        # Several processes wrote into the hour: their lines are brought into the order of arrival.
        lines = sorted(_lines(path, findings), key=lambda line: line.received_at)
        rounds: dict[tuple[str, datetime | None], list[RawLine]] = {}
        for line in lines:
            if line.asked_in is not None:
                rounds.setdefault((line.source, line.asked_in), []).append(line)
        taken: dict[int, Taken] = {}
        for line in lines:
            player = players.get(line.source)
            if player is None:
                continue
            if line.asked_in is not None and isinstance(player, _SourcePlayer):
                together = rounds.pop((line.source, line.asked_in), [])
                taken |= {id(one): read for one, read in zip(together, player.take_round(together), strict=True)}
                messages, problems = taken.pop(id(line))
            else:
                messages, problems = player.take(line)
            findings.unreadable += [f"{path.name}: {line.source}: {problem}" for problem in problems]
            if selection.has_time(line.received_at):
                yield from messages


def _lines(path: Path, findings: Findings) -> list[RawLine]:
    lines: list[RawLine] = []
    try:
        for number, raw in numbered_lines(path):
            findings.lines += 1
            try:
                lines.append(_decoder.decode(raw))
            except msgspec.DecodeError as error:
                findings.unreadable.append(f"{path.name}:{number}: {error}")
    except DamagedFileError as error:
        findings.unreadable.append(f"{path.name}: {error}")
    return lines


class _SourcePlayer:
    """One source: the instruments its recorded lists named, and its parsers."""

    def __init__(self, source: Source, world: str, symbols: tuple[str, ...]) -> None:
        self._source = source
        self._world = world
        self._symbols = symbols
        self._instruments: tuple[Instrument, ...] = ()
        self._lists: dict[int, list[Any]] = {}
        self._marks: dict[str, float] = {}
        self._ever_listed: set[str] | None = None
        """None until a list was recorded."""
        self._turns = Turns() if needs_turns(source) else None
        """As the collector had them: a recording says when the stream stood."""

    @property
    def not_listed(self) -> tuple[str, ...]:
        """The wanted symbols that no recorded list of this venue names."""
        known = self._ever_listed
        return () if known is None else tuple(symbol for symbol in self._symbols if symbol not in known)

    def take(self, line: RawLine) -> tuple[list[Message], list[str]]:
        """(messages, problems) of one line."""
        if line.kind == "heartbeat" and line.event_time is not None:
            beat = Heartbeat(
                schema_version=1,
                event_time=line.event_time,
                received_at=line.received_at,
                event_time_source="local",
                origin="recorded",
                world=self._world,
                venue=self._source.name,
            )
            return [(LIQUIDATIONS, beat)], []
        if line.kind == "frame":
            return self._frame(line)
        if line.kind == "turn":
            if self._turns is not None and line.event_time is not None:
                turn = self._turns.stream_stands if line.text == "stands" else self._turns.stream_lost
                turn(line.event_time)
            return [], []
        if line.kind == "instruments":
            self._instruments = line.instruments
            self._ever_listed = {known.symbol for known in line.instruments}
            return [], []
        payload = msgspec.json.decode(line.payload)
        taken: Taken = ([], self._list(line, payload))
        for feed, instrument in self._feeds_of(line):
            self._read(feed, instrument, line, payload, self._marks, taken)
        return taken

    def take_round(self, lines: Sequence[RawLine]) -> list[Taken]:
        """(messages, problems) of each of the answers of one polling round."""
        payloads = [msgspec.json.decode(line.payload) for line in lines]
        taken: list[Taken] = [([], []) for _ in lines]
        lists = [number for number, line in enumerate(lines) if INSTRUMENTS in (line.feeds or ())]
        knows_nothing = not self._instruments
        if knows_nothing:
            for number in lists:
                taken[number][1].extend(self._list(lines[number], payloads[number]))
        order = {feed.name: number for number, feed in enumerate(self._source.feeds)}
        work = [
            (order[feed.name], number, feed, instrument)
            for number, line in enumerate(lines)
            for feed, instrument in self._feeds_of(line)
        ]
        marks: dict[str, float] = {}
        for _, number, feed, instrument in sorted(work, key=lambda item: item[:2]):
            self._read(feed, instrument, lines[number], payloads[number], marks, taken[number])
        if not knows_nothing:
            for number in lists:
                taken[number][1].extend(self._list(lines[number], payloads[number]))
        return taken

    def _read(
        self,
        feed: Feed,
        instrument: Instrument | None,
        line: RawLine,
        payload: Any,
        marks: dict[str, float],
        taken: Taken,
    ) -> None:
        messages, problems = taken
        reading = self._reading(line, instrument, marks)
        if feed in self._source.event_feeds and instrument is not None:
            reading.instruments = {instrument.native: instrument}  # as the collector reads a list: of the one asked for
        try:
            feed.parse(payload, reading)
        except UNREADABLE as error:
            problems.append(f"{feed.name}: {type(error).__name__}: {error}")
            return
        if self._turns is not None and feed in self._source.event_feeds:
            events = [record for record in reading.records if isinstance(record, Liquidation)]
            messages += self._turns.of_list(events)
        else:
            messages += reading.records
        problems += reading.problems

    def _frame(self, line: RawLine) -> tuple[list[Message], list[str]]:
        if self._source.stream is None:
            return [], []
        try:
            message: Any = msgspec.json.decode(line.text)
        except msgspec.DecodeError:
            return [], []  # "pong" and the like
        reading = self._reading(line, None, {})
        try:
            self._source.stream.parse(message, reading)
        except UNREADABLE as error:
            reading.problems.append(f"{type(error).__name__}: {error}")
        events = [record for record in reading.records if isinstance(record, Liquidation)]
        if self._turns is not None:
            events = self._turns.of_stream(events)
        return list(events), reading.problems

    def _reading(self, line: RawLine, instrument: Instrument | None, marks: dict[str, float]) -> Reading:
        return Reading(
            self._source.name,
            sent_at=line.sent_at or line.received_at,
            received_at=line.received_at,
            instruments={known.native: known for known in self._instruments},
            instrument=instrument,
            marks=marks,
            origin="recorded",
            world=self._world,
        )

    def _list(self, line: RawLine, payload: Any) -> list[str]:
        """Take the answer into the list of instruments if it is one of its parts."""
        lists = self._source.instruments
        if lists is None or (line.feeds is not None and INSTRUMENTS not in line.feeds):
            return []
        for number, request in enumerate(lists.requests):
            same = request.path == line.path and request.params.items() <= line.params.items()
            if same and request.body == line.body:
                if request.params == line.params:
                    self._lists[number] = []
                self._lists.setdefault(number, []).append(payload)
        if len(self._lists) < len(lists.requests):
            return []
        try:
            pages = [page for number in sorted(self._lists) for page in self._lists[number]]
            self._instruments = tuple(choose(lists.parse(pages), self._symbols))
            self._ever_listed = (self._ever_listed or set()) | {known.symbol for known in self._instruments}
        except UNREADABLE as error:
            return [f"its list of instruments: {type(error).__name__}: {error}"]
        return []

    def _feeds_of(self, line: RawLine) -> Iterator[tuple[Feed, Instrument | None]]:
        now = (line.sent_at or line.received_at).astimezone(UTC)
        for feed in (*self._source.feeds, *self._source.event_feeds):
            if line.feeds is not None and feed.name not in line.feeds:
                continue
            groups = [(known,) for known in self._instruments] if feed.per_symbol else [self._instruments]
            for group in groups:
                if group and _equal(feed.request(group, now), line):
                    yield feed, group[0] if feed.per_symbol else None
                    break


def _equal(request: Request, line: RawLine) -> bool:
    return request.path == line.path and dict(request.params) == line.params and request.body == line.body
