"""The liquidation map against real forced orders: do they fall where the map is dense?

Belongs here: the ten-day sample of one venue, maps before each event, nulls, intervals over whole days. Does not: what
a move does next (later_moves.py).

The sample says "sell" for every row, also where prices rise into their high; a side is therefore told by the price: an
order above the price before it closed a short, one below it a long. Fills of one coin in one millisecond are one event.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from liq_pipeline.errors import LiqError
from liq_pipeline.scoring.bars import BarArrays, Floats, Integers, empty_bars
from liq_pipeline.scoring.levels.cohorts import LONG, SHORT
from liq_pipeline.scoring.levels.maps import map_at
from liq_pipeline.scoring.levels.method import BIN_WIDTH, BINS, Method

COINS: Final = ("BTC", "ETH", "SOL", "DOGE", "HYPE")
VENUE: Final = "hyperliquid"
HOUR: Final = 3600
SHIFTS_DAYS: Final = (-3, -2, -1, 1, 2, 3)
"""Whole days, so that the hour of the day stays the same. Later maps know the future, which makes that null harder."""
BANDS: Final = ((0.0, 0.005), (0.005, 0.01), (0.01, 0.02), (0.02, 0.04), (0.0, 0.04))
DENSE_SHARE: Final = 0.2
"""An event's bin is dense if it is among this share of the bins of its band and side."""


@dataclass(frozen=True)
class Event:
    """One forced order. at: index of the newest map before it; away: distance from that map's reference."""

    coin: int
    day: int
    at: int
    side: int
    away: float
    usd: float


def hourly_bars(data: Path) -> BarArrays:
    """Hyperliquid's open interest, stamped an hour later than it says, with Bybit's prices, each known at the hour's
    end: five coins, 2025-03 to 2025-11."""
    folder = data / "perp-multi-venue"
    try:
        candles = pd.read_parquet(folder / "candles.parquet")
        interest = pd.read_parquet(folder / "open_interest_1h_2e39652.parquet")
    except FileNotFoundError as error:
        raise LiqError(f"{folder} is not there: give the folder of development data") from error
    candles = candles[candles["venue"] == "bybit"]
    interest = interest[interest["venue"] == VENUE]
    starts = _seconds(candles["timestamp"])
    first = int(starts.min()) + HOUR
    count = (int(starts.max()) - int(starts.min())) // HOUR + 1
    bars = empty_bars(COINS, (VENUE,), first, HOUR, count)
    for place, coin in enumerate(COINS):
        own = candles["coin"] == coin
        bars.price_usd[place, 0, (_seconds(candles[own]["timestamp"]) + HOUR - first) // HOUR] = candles[own]["c"]
        rows = interest[interest["coin"] == coin]
        at = (_seconds(rows["timestamp"]) + HOUR - first) // HOUR
        inside = (at >= 0) & (at < count)
        usd = np.full(count, np.nan)
        usd[at[inside]] = rows["oi_usd"].to_numpy()[inside]
        bars.open_interest_base[place, 0] = usd / bars.price_usd[place, 0]
    return bars


def events_of(data: Path, bars: BarArrays, hours_before: int) -> list[Event]:
    """The sample's events, each with the newest map at least one bar and a multiple of hours_before old."""
    rows = pd.read_parquet(data / "perp-multi-venue" / "liquidation_events_fadd49d.parquet")
    rows = rows.groupby(["coin", "timestamp"], as_index=False).agg(usd=("size_usd", "sum"), price=("price", "median"))
    found = []
    for coin, stamp, usd, price in rows[["coin", "timestamp", "usd", "price"]].itertuples(index=False):
        second = int(stamp.timestamp())
        known = second - second % (hours_before * HOUR)
        at = (known - bars.start_seconds) // HOUR
        reference = float(bars.price_usd[COINS.index(coin), 0, at])
        away = price / reference - 1.0
        found.append(
            Event(COINS.index(coin), second // 86_400, at, SHORT if away > 0 else LONG, abs(float(away)), float(usd))
        )
    return found


def lifts(data: Path, method: Method, hours_before: int) -> dict[str, Any]:
    """Per band of distance: the share of events in dense bins, under the map and under each null, and the lift."""
    bars = hourly_bars(data)
    events = events_of(data, bars, hours_before)
    maps: dict[int, Floats] = {}

    def density(at: int, coin: int, side: int) -> Floats:
        if at not in maps:
            maps[at] = map_at(bars, method, at).notional_usd
        return np.asarray(maps[at][side, coin])

    result: dict[str, Any] = {"events": len(events), "days": len({e.day for e in events}), "hours_before": hours_before}
    for low, high in BANDS:
        band = slice(round(low / BIN_WIDTH), min(round(high / BIN_WIDTH), BINS))
        chosen = [e for e in events if low <= e.away < high and band.stop - band.start >= 2]
        if not chosen:
            continue
        days = np.array([e.day for e in chosen])
        own = np.array([_dense(density(e.at, e.coin, e.side)[band], e, band) for e in chosen])
        shifted = np.array(
            [
                np.mean([_dense(density(e.at + 24 * d, e.coin, e.side)[band], e, band) for d in SHIFTS_DAYS])
                for e in chosen
            ]
        )
        atr = np.array([_dense(_atr_density(bars, e, band), e, band) for e in chosen])
        usd = np.array([e.usd for e in chosen])
        result[f"{low:g}-{high:g}"] = {
            "events": len(chosen),
            "days": len(set(days.tolist())),
            "in_dense_bins": float(own.mean()),
            "in_dense_bins_by_usd": float((own * usd).sum() / usd.sum()),
            "shifted": float(shifted.mean()),
            "atr": float(atr.mean()),
            "lift_over_shifted": _lift(own, shifted, days),
            "lift_over_atr": _lift(own, atr, days),
        }
    return result


def _dense(density: Floats, event: Event, band: slice) -> float:
    """How much of the event's bin counts as dense: 1 if it is among the densest, shared out where bins are equal.

    The bins of a band are ranked among themselves: that a price comes by near bins more often than by far ones lifts
    nobody.
    """
    place = min(int(event.away / BIN_WIDTH) - band.start, density.size - 1)
    room = DENSE_SHARE * density.size
    mine = density[place]
    above, equal = float((density > mine).sum()), float((density == mine).sum())
    return float(min(max((room - above) / equal, 0.0), 1.0))


def _atr_density(bars: BarArrays, event: Event, band: slice) -> Floats:
    """Densest one mean range of a map's life away, half as wide."""
    price = bars.price_usd[event.coin, 0, event.at - 7 * 24 + 1 : event.at + 1].reshape(7, 24)
    width = float(np.mean(price.max(axis=1) / price.min(axis=1) - 1.0))
    away = (np.arange(band.start, band.stop) + 0.5) * BIN_WIDTH
    return np.asarray(np.exp(-0.5 * ((away - width) / (0.5 * width)) ** 2))


def _lift(own: Floats, null: Floats, days: Integers) -> dict[str, float]:
    """Ratio of the means with a 90 % interval over whole days."""
    names = np.unique(days)
    mine = np.array([own[days == day].sum() for day in names])
    theirs = np.array([null[days == day].sum() for day in names])
    drawn = np.random.default_rng(1).integers(0, names.size, (2000, names.size))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = mine[drawn].sum(axis=1) / theirs[drawn].sum(axis=1)
    ratios = ratios[np.isfinite(ratios)]
    low, high = np.quantile(ratios, [0.05, 0.95]) if ratios.size else (np.nan, np.nan)
    total = theirs.sum()
    return {"lift": float(mine.sum() / total) if total else float("nan"), "low": float(low), "high": float(high)}


def _seconds(times: pd.Series) -> Integers:
    return np.asarray(pd.to_datetime(times, utc=True).dt.as_unit("s").astype("int64"), dtype=np.int64)
