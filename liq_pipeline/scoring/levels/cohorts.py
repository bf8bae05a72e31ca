"""Cohorts: what was opened in each block of time, at which price, and how much of it is open still.

Belongs here: from price and open interest to openings, survival and the worst price since. Does not: tiers and prices
of liquidation (maps.py).

Per venue and symbol, over the window that ends at T, cut into blocks (an hour each):

* A share of what is open is closed by its holders in every block and opened anew by others: open interest that stands
  still is no sign that nobody trades. What open interest gained beyond that was opened too.
* Forced orders come off first: they explain a fall of open interest before holders do. The rest of a fall closes all
  positions of that side in proportion.
* What was open before the window is not placed: nobody knows at which price it was opened.

All of it follows from the rows of the window in a fixed order of operations, so that a live map and one of a batch over
years are equal bit for bit. Unknown values are carried forward inside the window; a series unknown at T has no map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from liq_pipeline.scoring.bars import UNKNOWN_CENTS, BarArrays, Booleans, Floats, Integers
from liq_pipeline.scoring.levels.method import Method

LONG: Final = 0
SHORT: Final = 1
LEAN_HOURS: Final = 24
"""The crowd is taken to lean to where the price went over so long."""
LEAN_AT: Final = 1.5
"""A move of so many standard deviations of that time makes the crowd lean wholly to one side."""
LEAST_HOURS: Final = 24
"""A series that was known for less than that has no map."""


@dataclass(frozen=True)
class Cohorts:
    """Of the window that ends at one time; series = (symbol, venue), blocks from the oldest on.

    price_usd: (series, blocks), where the block's positions were opened. open_base: (2, series, blocks) coins that were
    opened and are open at the end, by side, forced closes not counted. lean: (series, blocks), -1 (the crowd is short)
    to 1 (long). low_usd, high_usd: (series, blocks), the extremes of price since the block. total_base: (series,),
    open interest at the end. last_base: (series,), the last known within the window. known: (series,).
    """

    price_usd: Floats
    open_base: Floats
    lean: Floats
    low_usd: Floats
    high_usd: Floats
    total_base: Floats
    last_base: Floats
    last_usd: Floats
    known: Booleans


@dataclass(frozen=True)
class Blocks:
    """The window's rows as blocks; every array (series, blocks), forced_base (2, series, blocks)."""

    mean_usd: Floats
    low_usd: Floats
    high_usd: Floats
    end_usd: Floats
    end_base: Floats
    """Open interest at the block's end, carried forward; NaN before the first known."""
    forced_base: Floats
    known: Booleans
    """At T itself, per series."""


def window_rows(bars: BarArrays, method: Method) -> tuple[int, int]:
    """Bars of the window, and of one block."""
    per_block = max(1, method.block_minutes * 60 // bars.step_seconds)
    if (method.window_hours * 3600 // bars.step_seconds) % per_block:
        raise ValueError(f"levels: {method.window_hours} h are not whole blocks of {per_block} bars")
    return method.window_hours * 3600 // bars.step_seconds, per_block


def blocks_at(bars: BarArrays, method: Method, index: int) -> Blocks:
    """The window that ends with bar `index`, cut into blocks; rows before the first bar are unknown."""
    rows, per_block = window_rows(bars, method)
    price = _carried(_window(bars.price_usd, index, rows, np.nan))
    base = _carried(_window(bars.open_interest_base, index, rows, np.nan))
    shape = (price.shape[0], rows // per_block, per_block)
    grid, cells = price.reshape(shape), base.reshape(shape)
    forced = np.stack(
        [
            _coins(_window(cents, index, rows, UNKNOWN_CENTS), price).reshape(shape)
            for cents in (bars.long_liquidated_cents, bars.short_liquidated_cents)
        ]
    )
    now = _window(bars.price_usd, index, 1, np.nan)[:, 0], _window(bars.open_interest_base, index, 1, np.nan)[:, 0]
    return Blocks(
        mean_usd=_in_order(grid) / per_block,
        low_usd=grid.min(axis=2),
        high_usd=grid.max(axis=2),
        end_usd=grid[:, :, -1],
        end_base=cells[:, :, -1],
        forced_base=_in_order(forced),
        known=np.isfinite(now[0]) & np.isfinite(now[1]),
    )


def openings(blocks: Blocks, method: Method) -> tuple[Floats, Floats]:
    """Coins opened in each block and the share of earlier ones that survived it: both (2, series, blocks).

    Exact: what was open before, less forced orders, times the share that survived, plus what was opened, is what is
    open after.
    """
    turned = 1.0 - (1.0 - method.closed_per_hour) ** (method.block_minutes / 60.0)
    before = np.full_like(blocks.end_base, np.nan)
    before[:, 1:] = blocks.end_base[:, :-1]
    held = before[None] - np.minimum(np.nan_to_num(blocks.forced_base), np.nan_to_num(before)[None])
    after = blocks.end_base[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        survived = np.minimum(1.0 - turned, after / held)
    known = np.isfinite(held) & np.isfinite(after) & (held > 0.0)
    survived = np.where(known, survived, 0.0)
    opened = np.where(known, np.maximum(after - held * survived, 0.0), 0.0)
    return opened, survived


def lean_of(blocks: Blocks, method: Method) -> Floats:
    """Where the crowd leans, (series, blocks): the move of the last day against what moves of a day are usual."""
    day = max(1, LEAN_HOURS * 60 // method.block_minutes)
    price = blocks.end_usd
    lean = np.zeros_like(price)
    if price.shape[1] <= day:
        return lean
    with np.errstate(divide="ignore", invalid="ignore"):
        move = price[:, day:] / price[:, :-day] - 1.0
        steps = price[:, 1:] / price[:, :-1] - 1.0
    known = np.isfinite(steps)
    squares = np.cumsum(np.where(known, steps, 0.0) ** 2, axis=1)[:, -1]
    count = known.sum(axis=1)
    usual = np.sqrt(squares / np.maximum(count, 1) * day)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = move / (LEAN_AT * usual)[:, None]
    lean[:, day:] = np.where(np.isfinite(scaled), np.minimum(np.maximum(scaled, -1.0), 1.0), 0.0)
    return lean


def cohorts_at(bars: BarArrays, method: Method, index: int) -> Cohorts:
    """The cohorts at the end of bar `index`."""
    blocks = blocks_at(bars, method, index)
    opened, survived = openings(blocks, method)
    # Survival since block b: the product over the later blocks, built from the newest backwards.
    later = np.ones_like(survived)
    later[:, :, :-1] = np.cumprod(survived[:, :, :0:-1], axis=2)[:, :, ::-1]
    enough = np.isfinite(blocks.end_base).sum(axis=1) * method.block_minutes > LEAST_HOURS * 60
    return Cohorts(
        price_usd=blocks.mean_usd,
        open_base=opened * later,
        lean=lean_of(blocks, method),
        low_usd=_since(blocks.low_usd, np.minimum),
        high_usd=_since(blocks.high_usd, np.maximum),
        total_base=blocks.end_base[:, -1],
        last_base=blocks.end_base[:, -1],
        last_usd=blocks.end_usd[:, -1],
        known=blocks.known & enough,
    )


def _window(values: Floats | Integers, index: int, rows: int, unknown: float) -> Floats:
    """The last `rows` values up to `index` of every series, as floats: (series, rows)."""
    flat = values.reshape(-1, values.shape[-1])
    window = np.full((flat.shape[0], rows), unknown, dtype=np.float64)
    first = max(0, index - rows + 1)
    if index >= first:
        window[:, rows - (index + 1 - first) :] = flat[:, first : index + 1]
    return window


def _carried(values: Floats) -> Floats:
    """The last known value of each row so far; NaN before the first."""
    place = np.where(np.isfinite(values), np.arange(values.shape[1]), -1)
    last = np.maximum.accumulate(place, axis=1)
    carried = np.take_along_axis(values, np.maximum(last, 0), axis=1)
    return np.where(last >= 0, carried, np.nan)


def _coins(cents: Floats, price: Floats) -> Floats:
    """Forced orders in coins; unknown counts as none: the fall is then spread over all positions."""
    with np.errstate(divide="ignore", invalid="ignore"):
        coins = cents / 100.0 / price
    return np.where((cents > 0.0) & np.isfinite(coins), coins, 0.0)


def _in_order(values: Floats) -> Floats:
    """Sum over the last axis, one after the other: numpy's own order depends on an array's shape."""
    total = values[..., 0].copy()
    for at in range(1, values.shape[-1]):
        total = total + values[..., at]
    return total


def _since(values: Floats, extreme: np.ufunc) -> Floats:
    """The extreme over the blocks after each; after the newest, its own end is all there is: its extreme itself."""
    known = np.where(np.isfinite(values), values, np.inf if extreme is np.minimum else -np.inf)
    backwards = extreme.accumulate(known[:, ::-1], axis=1)[:, ::-1]
    since = np.empty_like(values)
    since[:, :-1] = backwards[:, 1:]
    since[:, -1] = np.inf if extreme is np.minimum else -np.inf
    return since
