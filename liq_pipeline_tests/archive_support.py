"""Archive files in their true format, quirks included, served by the local venue server.

Belongs here: making the zips, their checksums and a plausible market in them. Does not: assertions.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

from liq_pipeline.sources.archives import binance
from liq_pipeline.sources.archives.binance import BinanceArchive
from liq_pipeline.sources.archives.files import ArchiveFiles
from liq_pipeline_tests.live_support import Reply, VenueServer, venue_server

BAR = timedelta(minutes=5)
BARS_PER_DAY = 288


def zipped(name: str, lines: Iterable[str]) -> bytes:
    """A zip with one CSV file, as the archive makes them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{name}.csv", "\n".join(lines) + "\n")
    return buffer.getvalue()


@contextmanager
def served_archive() -> Iterator[tuple[VenueServer, BinanceArchive]]:
    """A local server with nothing published yet, and the archive's reader of it."""
    with venue_server() as server:
        server.serve(binance.NAME, {})
        files = ArchiveFiles(binance.NAME, server.url(binance.NAME), wait=lambda _seconds: None)
        yield server, BinanceArchive(files)
        files.close()


def publish(
    server: VenueServer, path: str, lines: Sequence[str], *, checksum: str | None = None, body: bytes | None = None
) -> str:
    """Serve a file and its .CHECKSUM; checksum: another one than the file's own. Returns the sha256 that is served."""
    name = path.rpartition("/")[2]
    content = zipped(name.removesuffix(".zip"), lines) if body is None else body
    told = checksum or hashlib.sha256(content).hexdigest()
    routes = server.routes.setdefault(binance.NAME, {})
    routes[path] = Reply(content)
    routes[f"{path}.CHECKSUM"] = Reply(f"{told}  {name}\n".encode())
    return told


def withdraw(server: VenueServer, path: str) -> None:
    """The archive has the file no more."""
    for name in (path, f"{path}.CHECKSUM"):
        server.routes[binance.NAME].pop(name, None)


def start_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def price_at(symbol: str, moment: datetime) -> float:
    """A market that swings over days and hours, another one for each coin, the same for each call."""
    hours = moment.timestamp() / 3600 + 7.0 * sum(map(ord, symbol))
    swing = 0.04 * math.sin(hours / 31) + 0.01 * math.sin(hours / 3.1) + 0.002 * math.sin(hours * 2.3)
    return round((sum(map(ord, symbol)) * 10) * (1 + swing), 2)


def open_interest_at(symbol: str, moment: datetime) -> float:
    hours = moment.timestamp() / 3600 + 3.0 * sum(map(ord, symbol))
    return round(50_000 * (1 + 0.1 * math.sin(hours / 47) + 0.02 * math.sin(hours / 5)), 3)


def metrics_lines(symbol: str, day: date, *, header: bool = True, native: str | None = None) -> list[str]:
    """A day of metrics: 288 rows stamped 00:00 to 23:55."""
    lines = [",".join(binance.METRICS_COLUMNS)] if header else []
    for number in range(BARS_PER_DAY):
        moment = start_of(day) + number * BAR
        coins = open_interest_at(symbol, moment)
        ratio = 1.5 + 0.3 * math.sin(moment.timestamp() / 40_000)
        lines.append(
            f"{moment:%Y-%m-%d %H:%M:%S},{native or symbol + 'USDT'},{coins:.8f},"
            f"{coins * price_at(symbol, moment):.8f},{ratio:.8f},{ratio + 0.1:.8f},{ratio - 0.1:.8f},{1 / ratio:.8f}"
        )
    return lines


def kline_lines(symbol: str, day: date, *, header: bool = True, unit: str = "ms", scale: float = 1.0) -> list[str]:
    """A day of 5-minute candles; the close is the price at the end of its bar. unit: ms or us."""
    factor = {"ms": 1, "us": 1000}[unit]
    lines = [",".join(binance.KLINE_COLUMNS)] if header else []
    for number in range(BARS_PER_DAY):
        opened = start_of(day) + number * BAR
        first, close = (price_at(symbol, opened) * scale, price_at(symbol, opened + BAR) * scale)
        last_ms = ms(opened + BAR) * factor - 1
        lines.append(
            f"{ms(opened) * factor},{first:.8f},{max(first, close):.8f},{min(first, close):.8f},{close:.8f},0,"
            f"{last_ms},0,300,0,0,0"
        )
    return lines


def funding_lines(month: date, *, hours: int = 8, header: bool = True) -> list[str]:
    """A month of settlements with a few milliseconds of jitter."""
    lines = [",".join(binance.FUNDING_COLUMNS)] if header else []
    moment = start_of(month.replace(day=1))
    while moment.month == month.month:
        rate = 0.0001 * math.sin(moment.timestamp() / 90_000)
        lines.append(f"{ms(moment) + 4},{hours},{rate:.8f}")
        moment += timedelta(hours=hours)
    return lines


def serve_market(server: VenueServer, symbols: Sequence[str], first: date, last: date) -> None:
    """Everything the archive has of these coins from first to last, both whole days."""
    day = first
    while day <= last:
        for symbol in symbols:
            native = f"{symbol}USDT"
            publish(server, binance.METRICS.path(native, start_of(day)), metrics_lines(symbol, day))
            publish(server, binance.PRICES.path(native, start_of(day)), kline_lines(symbol, day))
            if day == first or day.day == 1:
                publish(server, binance.FUNDING.path(native, start_of(day)), funding_lines(day))
        day += timedelta(days=1)
