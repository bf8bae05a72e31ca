"""The panel: history of many symbols on one regular grid, as arrays.

Belongs here: reading CSV and Parquet panels (CONTRACTS.md, "Panel format") and what is repaired or refused on the
way. Does not: scores, labels, or where a panel came from. Unknown is NaN, never zero.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from liq_pipeline.domain.symbols import coin_of
from liq_pipeline.errors import LiqError
from liq_pipeline.scoring.probability import LEADERS

Floats = NDArray[np.float64]

VALUE_COLUMNS = (
    "price_usd",
    "open_interest_base",
    "open_interest_usd",
    "funding_rate_per_8h",
    "long_short_ratio",
    "long_liquidations_usd",
    "short_liquidations_usd",
    "stablecoin_net_inflow_usd",
)
POSITIVE_COLUMNS = (*VALUE_COLUMNS[:3], "long_short_ratio")
EPOCH_UNITS = (
    (1e11, 1.0, "seconds"),
    (1e14, 1e3, "milliseconds"),
    (1e17, 1e6, "microseconds"),
    (float("inf"), 1e9, "nanoseconds"),
)
"""Up to which size an epoch number counts as which unit: 1e11 s lie in the year 5138, 1e11 ms in 1973."""
NEVER_NEGATIVE_COLUMNS = ("long_liquidations_usd", "short_liquidations_usd")
MOST_ROWS = 200_000_000
MOST_CSV_BYTES = 16 * 2**30
"""Far past what fits: 50 coins over six years of 5 min are 32 million rows, 3 GB as CSV. A small file can say anything,
and unpack to anything."""
SNAP_SECONDS = 30
"""A stamp this close to a grid point (venues' clocks run seconds off) is that point; any other moves to the next."""


@dataclass(frozen=True)
class Panel:
    """`time` is a regular grid (seconds since 1970 UTC); each column has the shape symbols x times."""

    symbols: tuple[str, ...]
    time: NDArray[np.int64]
    step_seconds: int
    columns: Mapping[str, Floats]
    notes: tuple[str, ...] = ()
    data_hash: str = field(default="", compare=False)

    def __getitem__(self, column: str) -> Floats:
        return self.columns[column]

    def has(self, column: str) -> bool:
        """Whether any cell of the column is known."""
        return bool(np.isfinite(self.columns[column]).any())

    @property
    def rows(self) -> int:
        """Rows with a known price."""
        return int(np.isfinite(self["price_usd"]).sum())

    def between(self, from_time: datetime | None, to_time: datetime | None) -> NDArray[np.bool_]:
        """Which grid points lie in [from_time, to_time)."""
        inside = np.ones(self.time.size, dtype=bool)
        if from_time is not None:
            inside &= self.time >= from_time.timestamp()
        if to_time is not None:
            inside &= self.time < to_time.timestamp()
        return inside

    def coarser(self, step_seconds: int) -> Panel:
        """Every point of a coarser grid, nothing averaged."""
        keep = self.time % step_seconds == 0
        columns = {name: np.ascontiguousarray(values[:, keep]) for name, values in self.columns.items()}
        return Panel(self.symbols, self.time[keep], step_seconds, columns, self.notes, self.data_hash)


def load_panel(path: Path) -> Panel:
    """Read a panel file (.csv, .csv.gz, .parquet), or every such file of a folder as one panel.

    Raises LiqError with one sentence if it cannot be read as a panel.
    """
    files = (
        sorted(p for p in path.iterdir() if p.name.endswith((".csv", ".csv.gz", ".parquet")))
        if path.is_dir()
        else [path]
    )
    if not files:
        raise LiqError(f"no .csv or .parquet file in {path}: give a panel file or a folder of them")
    digest = hashlib.sha256()
    frames = []
    for file in files:
        frames.append(_read(file))
        digest.update(file.read_bytes())
    return panel_from_frame(pd.concat(frames, ignore_index=True), data_hash=digest.hexdigest())


def _read(file: Path) -> pd.DataFrame:
    try:
        if file.name.endswith(".parquet"):
            return _parquet(file)
        with gzip.open(file, "rb") if file.name.endswith(".gz") else file.open("rb") as content:
            bounded = cast("IO[bytes]", _Bounded(content, file))
            return pd.read_csv(bounded, dtype={"symbol": str}, keep_default_na=True, na_values=["", "null", "None"])
    except FileNotFoundError as error:
        raise LiqError(f"no panel at {file}: check the path given to --panel") from error
    except (ValueError, OSError, EOFError, zlib.error, pd.errors.ParserError) as error:
        raise LiqError(f"{file} cannot be read as a CSV or Parquet panel: {error}") from error


def _parquet(file: Path) -> pd.DataFrame:
    """The file's columns that a panel has: what its footer declares is looked at before anything is unpacked."""
    import pyarrow.parquet as pq

    rows = pq.read_metadata(file).num_rows
    if rows > MOST_ROWS:
        raise LiqError(f"{file} says that it has {rows:,} rows: a panel has at most {MOST_ROWS:,}, split it")
    return pd.read_parquet(file)


class _Bounded:
    """A stream that ends in a sentence where it gives more than a panel can hold, for what reads it piece by piece."""

    def __init__(self, content: IO[bytes] | gzip.GzipFile, file: Path) -> None:
        self._content = content
        self._file = file
        self._given = 0

    def read(self, size: int = -1) -> bytes:
        left = MOST_CSV_BYTES - self._given
        part = self._content.read(left + 1 if size < 0 else min(size, left + 1))
        self._given += len(part)
        if self._given > MOST_CSV_BYTES:
            limit = f"{MOST_CSV_BYTES // 2**30} GB"
            raise LiqError(f"{self._file} unpacks to more than {limit}: split it, or give it as Parquet")
        return part

    def __iter__(self) -> _Bounded:
        return self  # pandas asks whether it is a file by this

    def __next__(self) -> bytes:
        line = self.read(1 << 16)
        if not line:
            raise StopIteration
        return line


def panel_from_frame(frame: pd.DataFrame, data_hash: str = "") -> Panel:
    """Long rows (CONTRACTS.md, "Panel format") to a Panel; raises LiqError if a needed column is missing."""
    missing = [name for name in ("time", "symbol") if name not in frame.columns]
    if missing or frame.empty:
        what = f"has no column {' and '.join(missing)}" if missing else "has no rows"
        raise LiqError(f"the panel {what}: it needs time, symbol and value columns (docs/evaluation.md)")
    if "price_usd" not in frame.columns and not {"open_interest_base", "open_interest_usd"} <= set(frame.columns):
        raise LiqError("the panel has no column price_usd, nor open interest in coins and in USD to derive it from")
    notes: list[str] = []
    seconds = _seconds(frame["time"], notes)
    codes, names = pd.factorize(_coins(frame["symbol"], notes), sort=True)
    step = _infer_step(seconds, codes)
    grid, moved = _snap(seconds, step)
    if moved:
        notes.append(f"{moved} of {len(grid)} rows were off the {step} s grid and count from the next grid point")
    order = np.lexsort((np.arange(len(grid)), seconds, grid, codes))
    keep = np.ones(len(order), dtype=bool)
    keep[:-1] = (np.diff(grid[order]) != 0) | (np.diff(codes[order]) != 0)
    if not keep.all():
        notes.append(f"{int((~keep).sum())} rows share symbol and time with a later row, which counts")
    chosen = order[keep]
    first, last = int(grid.min()), int(grid.max())
    time = np.arange(first, last + step, step, dtype=np.int64)
    columns: dict[str, Floats] = {}
    for name in VALUE_COLUMNS:
        values = np.full((len(names), time.size), np.nan)
        if name in frame.columns:
            given = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            values[codes[chosen], (grid[chosen] - first) // step] = _possible(name, given, notes)[chosen]
        columns[name] = values
    _derive(columns, notes)
    return Panel(tuple(map(str, names)), time, step, columns, tuple(notes), data_hash or _hash(columns, time))


def _coins(column: pd.Series, notes: list[str]) -> pd.Series:
    """The coins that the rows speak of. Contracts are read as their coin and said: under the name BTCUSDT the model
    would miss what it reads of BTC and ETH for every symbol."""
    given = column.astype(str).str.strip().str.upper()
    coins = {name: coin_of(name) for name in given.unique()}
    renamed = {name: coin for name, coin in coins.items() if name != coin}
    if renamed:
        notes.append("read as coins: " + ", ".join(f"{name} as {coin}" for name, coin in sorted(renamed.items())))
    several = sorted({coin for coin in coins.values() if list(coins.values()).count(coin) > 1})
    if several:
        names = ", ".join(sorted(name for name, coin in coins.items() if coin in several))
        raise LiqError(f"the panel has several series of {', '.join(several)} ({names}): keep one symbol per coin")
    absent = [coin for coin in LEADERS if coin not in coins.values()]
    if absent:
        notes.append(f"no {' and no '.join(absent)} in the panel: the model's terms of them are unknown in every row")
    return given.map(coins)


def _seconds(column: pd.Series, notes: list[str]) -> NDArray[np.int64]:
    """Seconds since 1970 UTC from datetimes, ISO text, or epoch numbers (s, ms, us or ns by their size: said)."""
    if not pd.api.types.is_numeric_dtype(column) and column.dtype.kind not in "M":
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().all():
            column = numbers
    if pd.api.types.is_numeric_dtype(column):
        stamps = np.asarray(column.to_numpy(dtype=np.float64), dtype=np.float64)
        if not np.isfinite(stamps).all():
            raise LiqError(f"{int((~np.isfinite(stamps)).sum())} rows of the panel have no time: every row needs one")
        size = float(np.median(np.abs(stamps)))
        unit, word = next((unit, word) for limit, unit, word in EPOCH_UNITS if size < limit)
        seconds: NDArray[np.int64] = np.floor(stamps / unit).astype(np.int64)
        first = datetime.fromtimestamp(int(seconds.min()), tz=UTC)
        notes.append(f"time read as {word} since 1970 UTC: the first row is of {first:%Y-%m-%d %H:%M:%S}")
        return seconds
    try:
        parsed = pd.to_datetime(column, utc=True, format="ISO8601") if column.dtype.kind not in "M" else column
        parsed = parsed.dt.tz_localize(UTC) if parsed.dt.tz is None else parsed.dt.tz_convert(UTC)
    except ValueError as error:
        reason = str(error).partition(". You might")[0]
        raise LiqError(f"a time of the panel cannot be read ({reason}): use 2026-01-16T00:05:00Z") from error
    if parsed.isna().any():
        raise LiqError(f"{int(parsed.isna().sum())} rows of the panel have no time: every row needs one")
    return np.asarray(parsed.dt.as_unit("s").astype("int64"), dtype=np.int64)


def _infer_step(seconds: NDArray[np.int64], codes: NDArray[np.intp]) -> int:
    """The commonest distance of a symbol's neighbouring rows, rounded to whole minutes."""
    order = np.lexsort((seconds, codes))
    apart = np.diff(seconds[order])[np.diff(codes[order]) == 0]
    apart = np.rint(apart[apart > 0] / 60).astype(np.int64) * 60
    apart = apart[apart > 0]
    if apart.size == 0:
        raise LiqError("the panel's step cannot be inferred: it needs at least two rows of one symbol")
    sizes, counts = np.unique(apart, return_counts=True)
    step = int(sizes[np.argmax(counts)])
    if 3600 % step:
        raise LiqError(f"the panel's step is {step // 60} min: it must divide an hour (5 min and 1 h are measured)")
    return step


def _snap(seconds: NDArray[np.int64], step: int) -> tuple[NDArray[np.int64], int]:
    """Stamps to grid points; how many were too far off and moved to the next point (never back: known is known)."""
    nearest = (seconds + step // 2) // step * step
    near = np.abs(seconds - nearest) <= min(SNAP_SECONDS, step // 10)
    following = -(-seconds // step) * step
    return np.where(near, nearest, following).astype(np.int64), int((~near).sum())


def _possible(name: str, values: Floats, notes: list[str]) -> Floats:
    """Impossible numbers become unknown, counted."""
    bad = np.isinf(values)
    with np.errstate(invalid="ignore"):
        if name in POSITIVE_COLUMNS:
            bad |= values <= 0
        elif name in NEVER_NEGATIVE_COLUMNS:
            bad |= values < 0
    if bad.any():
        notes.append(f"{int(bad.sum())} impossible values of {name} count as unknown")
        return np.where(bad, np.nan, values)
    return values


def _derive(columns: dict[str, Floats], notes: list[str]) -> None:
    """Each of price, open interest in coins and in USD follows from the other two of the same row."""
    price, base, usd = columns["price_usd"], columns["open_interest_base"], columns["open_interest_usd"]
    with np.errstate(divide="ignore", invalid="ignore"):
        derived = {"price_usd": usd / base, "open_interest_base": usd / price, "open_interest_usd": base * price}
    for name, values in derived.items():
        fill = np.isnan(columns[name]) & np.isfinite(values)
        if fill.any():
            notes.append(f"{int(fill.sum())} values of {name} were derived from the other two of their row")
            columns[name] = np.where(fill, values, columns[name])


def _hash(columns: Mapping[str, Floats], time: NDArray[np.int64]) -> str:
    digest = hashlib.sha256(time.tobytes())
    for name in sorted(columns):
        digest.update(name.encode())
        digest.update(columns[name].tobytes())
    return digest.hexdigest()
