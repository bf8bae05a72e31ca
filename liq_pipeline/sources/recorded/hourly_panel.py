"""Hourly panels of several venues: files `<SYMBOL>.csv` with candles, open interest and settled funding side by side.

Belongs here: that one format, and its traps:
* candle columns describe the hour that starts at `ts_utc`: the close is true, and known, one hour later;
* `oi_hyperliquid_usd` is in USD and its stamp is ambiguous (start or end of the hour): it counts as true at `ts_utc`
  and known one hour later, so that nothing is known early whichever it is; in coins it is divided by the price at
  `ts_utc`, the open of the hour;
* `funding_*` is the settled rate per the venue's interval (Binance and Bybit 8 h, Hyperliquid and Kraken 1 h), known
  when it settles; other hours are empty, which means no settlement and not zero.
The candles are of traded prices, not marks; nothing better is in the panel.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from liq_pipeline.domain.records import FundingRate, OpenInterest, Price, Record, RecordError
from liq_pipeline.domain.worlds import Expectation, Manifest
from liq_pipeline.sources.live.values import UNREADABLE
from liq_pipeline.sources.recorded.recording import (
    Findings,
    Recording,
    RecordingError,
    Selection,
    recorded_world,
    report,
)

NAME: Final = "hourly panel"
CADENCE_SECONDS: Final = 3600.0
_HOUR: Final = timedelta(hours=1)
_FILE: Final = re.compile(r"([A-Z0-9]{1,20})\.csv")
_TIME: Final = "ts_utc"
_CLOSE: Final = {"binance": "binance_close", "okx": "okx_close"}
_OPEN: Final = "binance_open"
_OPEN_INTEREST: Final = {"hyperliquid": "oi_hyperliquid_usd"}
_FUNDING: Final = {
    "binance": ("funding_binance", 8.0),
    "bybit": ("funding_bybit", 8.0),
    "hyperliquid": ("funding_hyperliquid", 1.0),
    "kraken": ("funding_kraken", 1.0),
}


def is_here(folder: Path) -> bool:
    """Whether the folder holds such files."""
    return any(_is_panel(path) for path in folder.iterdir())


def open_folder(folder: Path, selection: Selection, step_seconds: int) -> Recording:
    """The panel in the folder. Raises RecordingError if nothing in it can be played."""
    findings = Findings()
    files = [path for path in sorted(folder.iterdir()) if _is_panel(path) and selection.has_symbol(path.stem)]
    name = folder.name
    records: list[Record] = []
    symbols: list[str] = []
    # The world's name depends on nothing that is read, so the records can carry it from the start.
    placeholder = recorded_world(
        name,
        manifest=Manifest(symbols=(), expected={}),
        step_seconds=step_seconds,
        first_time=datetime.min.replace(tzinfo=UTC),
        last_time=datetime.min.replace(tzinfo=UTC),
        selection=selection,
    )
    for path in files:
        found = [record for record in _read(path, placeholder.name, findings) if selection.has_time(record.known)]
        if found:
            symbols.append(path.stem)
            records.extend(found)
    if not records:
        raise RecordingError(f"{folder} holds no row of the wanted symbols and times ({findings.sentence}).")
    records.sort(key=lambda record: record.known)
    findings.records = len(records)
    report(str(folder), findings)
    world = recorded_world(
        name,
        manifest=Manifest(symbols=tuple(symbols), expected=_expectations(), description=f"{NAME}: {findings.sentence}"),
        step_seconds=step_seconds,
        first_time=records[0].known,
        last_time=records[-1].known,
        selection=selection,
    )
    return Recording(world, lambda: iter(records), findings)


def _is_panel(path: Path) -> bool:
    if not _FILE.fullmatch(path.name):
        return False
    with path.open(encoding="utf-8") as file:
        header = file.readline().strip().split(",")
    return {_TIME, _OPEN, *_CLOSE.values()} <= set(header)


def _expectations() -> dict[str, Expectation]:
    return {
        "prices": Expectation(venues=tuple(_CLOSE), cadence_seconds=CADENCE_SECONDS),
        "open_interest": Expectation(venues=tuple(_OPEN_INTEREST), cadence_seconds=CADENCE_SECONDS),
        "funding_rates": Expectation(
            venues=tuple(_FUNDING),
            cadence_seconds=CADENCE_SECONDS,
            venue_cadence_seconds={venue: hours * 3600 for venue, (_, hours) in _FUNDING.items() if hours != 1.0},
        ),
    }


def _read(path: Path, world: str, findings: Findings) -> Iterator[Record]:
    seen: set[datetime] = set()
    previous: datetime | None = None
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        for number in itertools.count(2):
            try:
                row = next(rows, None)
                if row is None:
                    return
                findings.lines += 1
                time = datetime.fromisoformat(row[_TIME])
                time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
                records = list(_records(world, path.stem, time, row))
                for record in records:
                    record.check()
                    msgspec.convert(msgspec.to_builtins(record), type(record))
            except (*UNREADABLE, RecordError, msgspec.ValidationError) as error:
                findings.unreadable.append(f"{path.name}:{number}: {error}")
                continue
            findings.disordered += previous is not None and time < previous
            findings.repeated += len(records) if time in seen else 0
            seen.add(time)
            previous = time
            yield from records


def _records(world: str, symbol: str, time: datetime, row: dict[str, Any]) -> Iterator[Record]:
    def common(venue: str, event: datetime, known: datetime) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "event_time": event,
            "received_at": known,
            "origin": "recorded",
            "world": world,
            "venue": venue,
            "symbol": symbol,
        }

    for venue, column in _CLOSE.items():
        price = _number(row, column)
        if price is not None:
            yield Price(**common(venue, time + _HOUR, time + _HOUR), price_usd=price)
    price = _number(row, _OPEN)
    for venue, column in _OPEN_INTEREST.items():
        usd = _number(row, column)
        if usd is not None and price is not None:
            yield OpenInterest(
                **common(venue, time, time + _HOUR), open_interest_base=usd / price, open_interest_usd=usd
            )
    for venue, (column, hours) in _FUNDING.items():
        rate = _number(row, column)
        if rate is not None:
            yield FundingRate(**common(venue, time, time), kind="settled", rate=rate, interval_hours=hours)


def _number(row: dict[str, Any], column: str) -> float | None:
    """The cell's value; an empty cell or a column that is not there is unknown."""
    text = row.get(column)
    return float(text) if text else None
