"""Panels from the folder of real market data that the project is developed on (not shipped with it).

Belongs here: how each of its files becomes rows of "what was known at `time`". Does not: evaluation.
Known-at rules: a candle is known when its hour ends; open interest of doubtful stamp one hour later; a settled
funding rate from its settlement until the next one (at most FUNDING_HOURS).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.panels.panel import Panel, panel_from_frame

HOUR = pd.Timedelta(hours=1)
FUNDING_HOURS = 9
"""A settled 8-hour rate counts until shortly after the next is due; then it is unknown."""
FIVE_MINUTE_SYMBOLS = ("ARB", "AVAX", "BTC", "DOGE", "ETH", "SOL", "WIF")


def hourly_frame(data: Path) -> pd.DataFrame:
    """BTC, ETH, SOL, DOGE, HYPE, 2025-03 to 2025-11: Binance candles and funding, Hyperliquid open interest."""
    folder = data / "perp-multi-venue"
    try:
        candles = pd.read_parquet(folder / "candles.parquet")
        interest = pd.read_parquet(folder / "open_interest_1h_2e39652.parquet")
        funding = pd.read_parquet(folder / "funding_rates.parquet")
    except FileNotFoundError as error:
        raise LiqError(f"{folder} is not there: give the folder of development data") from error
    # HYPE has Binance candles from 2025-05-30 only; Bybit's, which have no gaps either, serve it throughout.
    preferred = candles["coin"].map(lambda coin: "bybit" if coin == "HYPE" else "binance")
    candles = candles[candles["venue"] == preferred]
    rates = funding[funding["venue"] == funding["coin"].map(lambda c: "bybit" if c == "HYPE" else "binance")]
    rows = candles.rename(columns={"coin": "symbol", "c": "price_usd"})[["symbol", "timestamp", "price_usd"]]
    usd = interest[interest["venue"] == "hyperliquid"].rename(columns={"coin": "symbol", "oi_usd": "open_interest_usd"})
    rows = rows.merge(usd[["symbol", "timestamp", "open_interest_usd"]], on=["symbol", "timestamp"], how="left")
    rows["time"] = rows["timestamp"] + HOUR
    rates = rates.rename(columns={"coin": "symbol", "funding_rate": "funding_rate_per_8h"})
    return pd.merge_asof(
        rows.drop(columns="timestamp").sort_values("time"),
        rates[["symbol", "timestamp", "funding_rate_per_8h"]].sort_values("timestamp"),
        left_on="time",
        right_on="timestamp",
        by="symbol",
        tolerance=pd.Timedelta(hours=FUNDING_HOURS),
    ).drop(columns="timestamp")


def five_minute_frame(data: Path) -> pd.DataFrame:
    """Seven coins, 2025-12-01 to 2026-03-15: Binance open interest in coins and USD, whose quotient is the price."""
    parts = []
    for symbol in FIVE_MINUTE_SYMBOLS:
        folder = data / "open-interest-5m"
        try:
            rows = pd.read_csv(folder / f"{symbol}_oi_5m.csv")
            rates = pd.read_csv(folder / f"{symbol}_funding.csv")
        except FileNotFoundError as error:
            raise LiqError(f"{folder} is not complete: {error.filename} is missing") from error
        rows["time"] = pd.to_datetime(rows["t"], unit="ms", utc=True).dt.as_unit("ns")
        rates["settled"] = pd.to_datetime(rates["ts"], unit="ms", utc=True).dt.as_unit("ns")
        rates["funding_rate_per_8h"] = rates["rate"] * 8.0  # the file's rate is per hour
        rows = pd.merge_asof(
            rows.sort_values("time"),
            rates.sort_values("settled")[["settled", "funding_rate_per_8h"]],
            left_on="time",
            right_on="settled",
            tolerance=pd.Timedelta(hours=FUNDING_HOURS),
        )
        rows = rows.rename(columns={"oi": "open_interest_base", "oi_usd": "open_interest_usd"})
        rows["symbol"] = symbol
        columns = ["time", "symbol", "open_interest_base", "open_interest_usd", "funding_rate_per_8h"]
        parts.append(rows[columns])
    return pd.concat(parts, ignore_index=True)


def hourly_panel(data: Path) -> Panel:
    """hourly_frame as a Panel."""
    return panel_from_frame(hourly_frame(data))


def five_minute_panel(data: Path) -> Panel:
    """five_minute_frame as a Panel."""
    return panel_from_frame(five_minute_frame(data))
