"""Minute recordings of Hyperliquid contexts: files `ctx_<SYMBOL>_<YYYYMMDD>.jsonl[.gz]`.

Belongs here: that one format. A line is {"ts": ms, "funding": fraction per hour, "oi": coins, "mark": USD, "oracle":
USD}, written about once a minute by a live recorder; ts is when it read the venue. Each line is three records: the
mark price, the funding rate being accrued (predicted, 1 h), and the open interest (in USD: coins x mark).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from liq_pipeline.domain.records import FundingRate, OpenInterest, Price, Record, RecordError
from liq_pipeline.domain.worlds import Expectation, Manifest, World
from liq_pipeline.sources.recorded.lines import DamagedFileError, numbered_lines
from liq_pipeline.sources.recorded.recording import (
    Findings,
    Recording,
    RecordingError,
    Selection,
    recorded_world,
    report,
    tidy,
)

NAME: Final = "minute lines (Hyperliquid contexts)"
VENUE: Final = "hyperliquid"
CADENCE_SECONDS: Final = 60.0
_FILE: Final = re.compile(r"ctx_([A-Z0-9]{1,20})_(\d{8})\.jsonl(\.gz)?")


class _Line(msgspec.Struct):
    ts: int
    funding: float
    oi: float
    mark: float


_decoder: Final = msgspec.json.Decoder(_Line)


def is_here(folder: Path) -> bool:
    """Whether the folder holds such files."""
    return any(_FILE.fullmatch(path.name) for path in folder.iterdir())


def open_folder(folder: Path, selection: Selection, step_seconds: int) -> Recording:
    """The recording in the folder. Raises RecordingError if nothing in it can be played."""
    findings = Findings()
    # Of one venue and symbol the time is the whole key.
    seen: set[tuple[str, datetime]] = set()
    lines: list[tuple[datetime, str, _Line]] = []
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is None or not selection.has_symbol(match[1]):
            continue
        previous: datetime | None = None
        for number, line in _lines(path, findings):
            time = datetime.fromtimestamp(line.ts // 1000, UTC).replace(microsecond=line.ts % 1000 * 1000)
            if not selection.has_time(time):
                continue
            try:
                for record in _records("recorded/check", match[1], time, line):
                    record.check()
                    msgspec.convert(msgspec.to_builtins(record), type(record))
            except (RecordError, msgspec.ValidationError) as error:
                findings.unreadable.append(f"{path.name}:{number}: {error}")
                continue
            findings.disordered += previous is not None and time < previous
            findings.repeated += 3 * ((match[1], time) in seen)
            seen.add((match[1], time))
            previous = time
            lines.append((time, match[1], line))
    if not lines:
        raise RecordingError(f"{folder} holds no line of the wanted symbols and times ({findings.sentence}).")
    lines.sort(key=lambda row: row[:2])
    findings.records = 3 * len(lines)
    report(str(folder), findings)
    world = _world(folder, selection, step_seconds, lines, findings)

    def read() -> Iterator[Record]:
        for time, symbol, line in lines:
            yield from _records(world.name, symbol, time, line)

    return Recording(world, read, findings)


def _lines(path: Path, findings: Findings) -> Iterator[tuple[int, _Line]]:
    """Numbered lines of one file; what is no line of the format becomes a finding."""
    try:
        for number, raw in numbered_lines(path):
            findings.lines += 1
            try:
                yield number, _decoder.decode(raw)
            except msgspec.DecodeError as error:
                findings.unreadable.append(f"{path.name}:{number}: {error}")
    except DamagedFileError as error:
        findings.unreadable.append(f"{path.name}: {error}")


def _records(world: str, symbol: str, time: datetime, line: _Line) -> tuple[Price, FundingRate, OpenInterest]:
    common: dict[str, Any] = {
        "schema_version": 1,
        "event_time": time,
        "received_at": time,
        "event_time_source": "local",  # the venue gives no time: ts is the recorder's
        "origin": "recorded",
        "world": world,
        "venue": VENUE,
        "symbol": symbol,
    }
    return (
        Price(**common, price_usd=line.mark),
        FundingRate(**common, kind="predicted", rate=line.funding, interval_hours=1.0, mark_price_usd=line.mark),
        OpenInterest(
            **common,
            open_interest_base=line.oi,
            open_interest_usd=round(line.oi * line.mark, 2),
            mark_price_usd=line.mark,
        ),
    )


def _world(
    folder: Path,
    selection: Selection,
    step_seconds: int,
    lines: list[tuple[datetime, str, _Line]],
    findings: Findings,
) -> World:
    expectation = Expectation(venues=(VENUE,), cadence_seconds=CADENCE_SECONDS)
    return recorded_world(
        tidy(folder.name),
        manifest=Manifest(
            symbols=tuple(sorted({symbol for _, symbol, _ in lines})),
            expected=dict.fromkeys(("prices", "funding_rates", "open_interest"), expectation),
            description=f"{NAME}: {findings.sentence}",
        ),
        step_seconds=step_seconds,
        first_time=lines[0][0],
        last_time=lines[-1][0],
        selection=selection,
    )
