"""The shared 5-min data served as the public archive in its true format: real days for replays.

Belongs here: rows of the shared files as archive files. Does not: assertions, or any data of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd

from liq_pipeline.evaluation.panels.development import five_minute_frame
from liq_pipeline.sources.archives import binance
from liq_pipeline_tests.archive_support import BAR, ms, publish, start_of
from liq_pipeline_tests.live_support import VenueServer


def serve_days(server: VenueServer, data: Path, symbols: Sequence[str], first: date, last: date) -> None:
    """Metrics, candles and funding of these coins, both days whole. Ratios have no history here: their cells are empty.

    The price is that of open interest (USD over coins), so a candle's high and low are its ends.
    """
    rows = five_minute_frame(data)
    rows = rows[rows["symbol"].isin(symbols)]
    rows = rows[
        (rows["time"] >= pd.Timestamp(first, tz=UTC)) & (rows["time"] < pd.Timestamp(last, tz=UTC) + 2 * BAR * 288)
    ]
    for symbol, of in rows.groupby("symbol"):
        values = of.set_index("time")
        values = values[~values.index.duplicated()].sort_index()
        price = (values["open_interest_usd"] / values["open_interest_base"]).asfreq("5min").ffill(limit=6)
        native = f"{symbol}USDT"
        day = first
        while day <= last:
            _serve_day(server, native, values, price, day)
            day += timedelta(days=1)


def _serve_day(server: VenueServer, native: str, values: pd.DataFrame, price: pd.Series, day: date) -> None:
    start = start_of(day)
    of_day = values[(values.index >= start) & (values.index < start + timedelta(days=1))]
    metrics = [",".join(binance.METRICS_COLUMNS)] + [
        f"{moment:%Y-%m-%d %H:%M:%S},{native},{row.open_interest_base:.8f},{row.open_interest_usd:.8f},,,,"
        for moment, row in zip(of_day.index, of_day.itertuples(), strict=True)
    ]
    publish(server, binance.METRICS.path(native, start), metrics)
    candles = [",".join(binance.KLINE_COLUMNS)]
    for number in range(288):
        opened = start + number * BAR
        first, close = price.get(opened), price.get(opened + BAR)
        if first is None or close is None or pd.isna(first) or pd.isna(close):
            continue
        candles.append(
            f"{ms(opened)},{first:.8f},{max(first, close):.8f},{min(first, close):.8f},{close:.8f},0,"
            f"{ms(opened + BAR) - 1},0,300,0,0,0"
        )
    publish(server, binance.PRICES.path(native, start), candles)
    if day.day == 1 or binance.FUNDING.path(native, start) not in server.routes[binance.NAME]:
        publish(server, binance.FUNDING.path(native, start), _funding(values, day))


def _funding(values: pd.DataFrame, day: date) -> list[str]:
    """A month of settlements every 8 h, as far as the shared files know them."""
    lines = [",".join(binance.FUNDING_COLUMNS)]
    moment = datetime(day.year, day.month, 1, tzinfo=UTC)
    while moment.month == day.month:
        rate = values["funding_rate_per_8h"].get(moment)
        if rate is not None and not pd.isna(rate):
            lines.append(f"{ms(moment) + 4},8,{rate:.8f}")
        moment += timedelta(hours=8)
    return lines
