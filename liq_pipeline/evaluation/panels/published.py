"""The docs' figures rebuilt from public archives: files to a panel, the panel to the same evaluation.

Belongs here: which coins and days the published figures stand on, and records to rows of "what was known at `time`".
Does not: fetching and checking files (sources/archives), figures (evaluation/report/run.py). No server is needed.

What the archives allow is the 5-min panel of docs/evaluation.md. The hourly panel there stands on Hyperliquid's open
interest, which no public archive serves without a key.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.domain.records import FundingRate, LongShortRatio, OpenInterest, Price, Record
from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.panels.panel import VALUE_COLUMNS, Panel
from liq_pipeline.scoring.bars import MICROSECONDS, as_of
from liq_pipeline.settings import Settings
from liq_pipeline.sources.archives import binance
from liq_pipeline.sources.archives.day import CACHE
from liq_pipeline.sources.archives.files import ArchiveFiles
from liq_pipeline.sources.archives.pieces import Absent, Content
from liq_pipeline.store.inputs.as_known import microseconds

SYMBOLS: Final = ("ARB", "AVAX", "BTC", "DOGE", "ETH", "SOL", "WIF")
FIRST: Final = datetime(2025, 12, 1, tzinfo=UTC)
LAST: Final = datetime(2026, 1, 15, tzinfo=UTC)
"""The 5-min panel of docs/evaluation.md."""
STEP_SECONDS: Final = 300
LEVEL_AGE: Final = timedelta(minutes=15)
FUNDING_AGE: Final = timedelta(hours=9)
"""A settled rate counts until shortly after the next is due."""

Floats = NDArray[np.float64]
_Rows = list[tuple[int, int, float]]


def published_panel(
    settings: Settings,
    first: datetime | None = None,
    last: datetime | None = None,
    out: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    symbols: Sequence[str] | None = None,
) -> Panel:
    """Fetch (or take from LIQ_HOME/archives) what was published of the coins and put it on a 5-min grid.

    symbols: other coins than those of the docs' figures. out: where panel.parquet is written, so that
    `liq evaluate --panel` repeats it offline. Raises LiqError if nothing was published of the span, SourceError if the
    archive cannot be read.
    """
    start, end, coins = first or FIRST, last or LAST, tuple(symbols or SYMBOLS)
    url = settings.sources.urls.get(binance.NAME) or binance.URL
    files = ArchiveFiles(binance.NAME, url, cache=Path(settings.home) / CACHE)
    rows: dict[tuple[str, str], _Rows] = defaultdict(list)
    digest = hashlib.sha256()
    problems: list[str] = []
    absent: Counter[str] = Counter()
    try:
        archive = binance.BinanceArchive(files)
        # A rate settled before the first row is in force at it.
        pieces = list(archive.pieces(coins, start - FUNDING_AGE, end))
        now = datetime.now(UTC)
        with ThreadPoolExecutor(archive.concurrency, thread_name_prefix="published") as pool:
            read = pool.map(lambda piece: archive.read(piece, lambda _path: None, now), pieces)
            for number, (piece, content) in enumerate(zip(pieces, read, strict=True), start=1):
                if number % 100 == 0 or number == len(pieces):
                    say(f"archive files: {number} of {len(pieces)}")
                if isinstance(content, Content):
                    digest.update(f"{content.path} {content.checksum}\n".encode())
                    problems += [f"{piece.symbol} {piece.series}: {text}" for text in content.problems]
                    for record in content.records:
                        _put(rows, record)
                elif isinstance(content, Absent):
                    absent[f"{piece.symbol} {piece.series}"] += 1
    finally:
        files.close()
    if not any(name == "price_usd" for _, name in rows):
        raise LiqError(f"the archive has no price of {', '.join(coins)} from {start:%Y-%m-%d} to {end:%Y-%m-%d}")
    missing = [f"{series}: {count} of the files are not in the archive" for series, count in sorted(absent.items())]
    panel = _panel(rows, start, end, digest.hexdigest(), [*missing, *problems])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _write(panel, out / "panel.parquet")
    return panel


def _put(rows: dict[tuple[str, str], _Rows], record: Record) -> None:
    """One record's value under its column: (event, known, value), times in microseconds."""
    found: tuple[str, str, float] | None = None
    if isinstance(record, Price):
        found = record.symbol, "price_usd", record.price_usd
    elif isinstance(record, OpenInterest) and record.open_interest_base is not None:
        found = record.symbol, "open_interest_base", record.open_interest_base
    elif isinstance(record, FundingRate):
        found = record.symbol, "funding_rate_per_8h", record.rate * 8.0 / record.interval_hours
    elif isinstance(record, LongShortRatio) and record.kind == "accounts":
        found = record.symbol, "long_short_ratio", record.long_share / (1.0 - record.long_share)
    if found is not None:
        symbol, name, value = found
        rows[symbol, name].append((microseconds(record.event_time), microseconds(record.known), value))


def _panel(
    rows: dict[tuple[str, str], _Rows], start: datetime, end: datetime, data_hash: str, problems: list[str]
) -> Panel:
    symbols = tuple(sorted({symbol for symbol, _ in rows}))
    begin = -(-int(start.timestamp()) // STEP_SECONDS) * STEP_SECONDS
    time = np.arange(begin, int(end.timestamp()), STEP_SECONDS, dtype=np.int64)
    columns = {name: np.full((len(symbols), time.size), np.nan) for name in VALUE_COLUMNS}
    for (symbol, name), found in rows.items():
        events, known, values = (np.array(part) for part in zip(*found, strict=True))
        age = FUNDING_AGE if name == "funding_rate_per_8h" else LEVEL_AGE
        row = as_of(events, known, time * MICROSECONDS, round(age.total_seconds()) * MICROSECONDS)
        columns[name][symbols.index(symbol)] = np.where(row >= 0, values[np.maximum(row, 0)], np.nan)
    columns["open_interest_usd"] = columns["open_interest_base"] * columns["price_usd"]
    notes = (f"Binance's public archive, {len(symbols)} coins, each value from when it was published", *problems[:20])
    return Panel(symbols, time, STEP_SECONDS, columns, notes, data_hash)


def _write(panel: Panel, path: Path) -> None:
    import pandas as pd

    size = panel.time.size
    frame = pd.DataFrame(
        {
            "time": pd.to_datetime(np.tile(panel.time, len(panel.symbols)), unit="s", utc=True),
            "symbol": np.repeat(panel.symbols, size),
            **{name: values.reshape(-1) for name, values in panel.columns.items()},
        }
    )
    frame.to_parquet(path, index=False)
