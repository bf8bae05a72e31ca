"""A made-up market as Binance's public archive would publish it: true names, columns, checksums and quirks, on disk.

Belongs here: prices, open interest and funding with cascades in them, as zips below a folder, and serving that folder;
where asked for, premium and depth, which know nothing of the cascades. Does not: reading them
(liq_pipeline/sources/archives).

Quirks: days of the first year without a header, stamps in microseconds from the second year on, rows that come twice,
empty and zero cells, days that are missing, days without mark candles (their trades serve), rows of another day; of
the book's depth also rows that cannot be read, a side that is zero, days on which the book is of another price, and
from the second year on bands of 0.2 % and two digits.
"""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.sources.archives import binance
from liq_pipeline.sources.archives.samples import DEPTH, PREMIUM, SampleKind

STEP = 300
PER_DAY = 288
Floats = NDArray[np.float64]


def market_of(symbol: str, first: datetime, days: int, seed: int = 7) -> dict[str, Floats]:
    """price, interest (coins) and ratio at each 5-min point from first on, one more than days hold.

    The whole market shares shocks: some hundred a year, in which price runs and open interest falls.
    """
    size = days * PER_DAY + 1
    common = np.random.default_rng(seed)
    own = np.random.default_rng([seed, zlib.crc32(symbol.encode())])
    hours = np.arange(size) / 12.0
    regime = 0.0011 * np.exp(0.35 * np.sin(hours / 400.0) + 0.25 * np.sin(hours / 67.0 + 1.0))
    steps = regime * (0.7 * common.standard_t(5, size) + 0.7 * own.standard_t(5, size))
    turns = 0.0012 * own.standard_normal(size)
    for _ in range(max(1, days // 3)):
        start = int(common.integers(0, size - 200))
        length, depth, side = int(common.integers(8, 60)), common.uniform(0.015, 0.09), common.choice([-1, -1, 1])
        if own.random() < 0.75:
            stop = min(size, start + length)
            steps[start:stop] += side * depth / length * own.uniform(0.6, 1.4)
            turns[start:stop] -= depth * own.uniform(0.4, 1.6) / length
    level = np.log(100.0 + zlib.crc32(symbol.encode()) % 900)
    price = np.exp(level + _pulled(steps, 4000))
    return {"price": price, "interest": np.exp(10.0 + _pulled(turns, 1500)), "ratio": 1.4 + 0.4 * np.sin(hours / 90.0)}


def _pulled(steps: Floats, rows: int) -> Floats:
    """A walk that is drawn back to its start over so many rows."""
    kept = 1.0 - 1.0 / rows
    walk, place = np.empty(steps.size), 0.0
    for number, step in enumerate(steps.tolist()):
        place = kept * place + step
        walk[number] = place
    return walk


def publish(
    folder: Path,
    symbol: str,
    first: datetime,
    days: int,
    besides: Collection[SampleKind] = (),
    depth_seconds: int = 30,
) -> int:
    """Write every file of one symbol; how many. besides: premium, depth. depth_seconds: between two books."""
    of, native, count = market_of(symbol, first, days), f"{symbol}USDT", 0
    odd = np.random.default_rng(zlib.crc32(native.encode()))
    for day in range(days):
        start = first + timedelta(days=day)
        luck = odd.random()
        rows = slice(day * PER_DAY, (day + 1) * PER_DAY)
        price = of["price"][day * PER_DAY : (day + 1) * PER_DAY + 1]
        if luck > 0.004:
            header = start.year > first.year or luck > 0.5
            lines = _metrics(native, start, of["interest"][rows], price[:-1], of["ratio"][rows], header)
            if luck < 0.05:
                lines[30:30] = lines[28:30]
                lines[60] = ",".join([*lines[60].split(",")[:2], "0.0", "0.0", "", "", "", ""])
                lines.append(lines[40].replace(f"{start:%Y-%m-%d}", f"{start + timedelta(days=3):%Y-%m-%d}"))
            count += _write(folder, binance.METRICS.path(native, start), lines)
        kind = "klines" if 0.05 < luck < 0.06 else None
        microseconds = start.year > first.year
        count += _write(folder, binance.PRICES.path(native, start, kind=kind), _klines(start, price, microseconds))
        if day == 0 or start.day == 1:
            month = start.replace(day=1)
            count += _write(folder, binance.FUNDING.path(native, month), _funding(month))
    if besides:
        count += publish_samples(folder, symbol, first, of["price"], besides, depth_seconds)
    return count


def publish_samples(
    folder: Path, symbol: str, first: datetime, price: Floats, kinds: Collection[SampleKind], depth_seconds: int = 30
) -> int:
    """Write premium and depth of the days that the price covers, one each 5 min and one more; how many files."""
    native, count = f"{symbol}USDT", 0
    odd = np.random.default_rng([11, zlib.crc32(native.encode())])
    for day in range((price.size - 1) // PER_DAY):
        start, luck = first + timedelta(days=day), odd.random()
        own = price[day * PER_DAY : (day + 1) * PER_DAY + 1]
        if PREMIUM in kinds and luck > 0.02:
            count += _write(folder, PREMIUM.path(native, start), _premium(start, odd, luck < 0.1))
        if DEPTH in kinds and luck < 0.98 and start >= DEPTH.begins:
            is_newer = start.year > first.year
            lines = _depth(start, own * (0.8 if 0.9 < luck < 0.93 else 1.0), odd, depth_seconds, is_newer)
            if luck < 0.1:
                # The lower one of the two bands that are read, in files of ten bands and of twelve.
                lines[206:206] = lines[204:206]
                lines[307] = ",".join([*lines[307].split(",")[:2], "not a number", ""])
                lines += [line.replace(f"{start:%Y-%m-%d}", f"{start - timedelta(days=2):%Y-%m-%d}")
                          for line in lines[1:13]]  # fmt: skip
            count += _write(folder, DEPTH.path(native, start), lines)
    return count


def _premium(start: datetime, odd: np.random.Generator, has_gaps: bool) -> list[str]:
    hours = (start.timestamp() + np.arange(PER_DAY) * STEP) / 3600.0
    values = 0.0003 * np.sin(hours / 31.0) + 0.0002 * odd.standard_normal(PER_DAY)
    values[np.abs(values) < 0.0001] = 0.0
    stamps = (int(start.timestamp()) + np.arange(PER_DAY) * STEP) * 1000
    lines = [",".join(binance.KLINE_COLUMNS)]
    for stamp, value in zip(stamps.tolist(), values.tolist(), strict=True):
        lines.append(f"{stamp},{value:.8f},{value:.8f},{value:.8f},{value:.8f},0,{stamp + 299_999},0,60,0,0,0")
    if has_gaps:
        lines[50] = ",".join([*lines[50].split(",")[:4], "", *lines[50].split(",")[5:]])
        del lines[60:70]
    return lines


def _depth(start: datetime, price: Floats, odd: np.random.Generator, apart: int, is_newer: bool) -> list[str]:
    bands = [*range(-5, 0), *range(1, 6)]
    percents = sorted([*bands, -0.2, 0.2]) if is_newer else bands
    written = [f"{percent:.2f}" if is_newer else f"{percent}" for percent in percents]
    seconds = np.arange(7, 86_400, apart)
    level = np.interp(seconds, np.arange(PER_DAY + 1) * STEP, price)
    thick = np.exp(0.3 * odd.standard_normal((seconds.size, 2))) * 2e6
    thick[odd.random(seconds.size) < 0.001, 1] = 0.0
    lines = [",".join(DEPTH.columns)]
    for second, middle, sides in zip(seconds.tolist(), level.tolist(), thick.tolist(), strict=True):
        moment = f"{start + timedelta(seconds=second):%Y-%m-%d %H:%M:%S}"
        for percent, text in zip(percents, written, strict=True):
            notional = sides[percent > 0] * abs(percent) ** 0.8
            coins = notional / (middle * (1.0 + percent / 200.0))
            lines.append(f"{moment},{text},{coins:.8f},{notional:.8f}")
    return lines


def _metrics(native: str, start: datetime, interest: Floats, price: Floats, ratio: Floats, header: bool) -> list[str]:
    lines = [",".join(binance.METRICS_COLUMNS)] if header else []
    for row in range(PER_DAY):
        r = ratio[row]
        lines.append(
            f"{start + timedelta(seconds=row * STEP):%Y-%m-%d %H:%M:%S},{native},{interest[row]:.8f},"
            f"{interest[row] * price[row]:.8f},{r:.8f},{r + 0.1:.8f},{r - 0.1:.8f},{1 / r:.8f}"
        )
    return lines


def _klines(start: datetime, price: Floats, microseconds: bool) -> list[str]:
    factor = 1_000_000 if microseconds else 1000
    opened = int(start.timestamp())
    lines = [",".join(binance.KLINE_COLUMNS)]
    for row in range(PER_DAY):
        a, b = price[row], price[row + 1]
        stamp = (opened + row * STEP) * factor
        lines.append(
            f"{stamp},{a:.8f},{max(a, b):.8f},{min(a, b):.8f},{b:.8f},0,{stamp + STEP * factor - 1},0,300,0,0,0"
        )
    return lines


def _funding(month: datetime) -> list[str]:
    lines, moment = [",".join(binance.FUNDING_COLUMNS)], month
    while moment.month == month.month:
        lines.append(f"{int(moment.timestamp() * 1000) + 4},8,{0.0001 * np.sin(moment.timestamp() / 90_000):.8f}")
        moment += timedelta(hours=8)
    return lines


def _write(folder: Path, path: str, lines: list[str]) -> int:
    place = folder / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        # A fixed time: the same market is the same bytes.
        file.writestr(zipfile.ZipInfo(f"{place.stem}.csv", (2020, 1, 1, 0, 0, 0)), "\n".join(lines) + "\n")
    place.write_bytes(buffer.getvalue())
    checksum = hashlib.sha256(buffer.getvalue()).hexdigest()
    place.with_name(f"{place.name}.CHECKSUM").write_text(f"{checksum}  {place.name}\n")
    return 1


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: Nagle would hold the second 40 ms for the client's delayed ACK.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a hundred thousand requests."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the folder on loopback; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, name="generated archive", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def start_of(text: str) -> datetime:
    """A UTC day."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
