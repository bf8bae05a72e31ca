"""How far the price has run since each bar of the last 4 h, in thresholds of a cascade, and what open interest did.

Belongs here: numbers of one symbol and of the group that it is read in. Does not: what they amount to (rules.py).

A move is measured from the end of a 5-min bar to the point itself: on a 10 s tick the newest start is seconds to five
minutes old. theta is that of label version 1 (4 h) at the start. **One venue's wick is no cascade**: a symbol's move is
what more than half of its venues show at least (with two venues: the smaller). Open interest is the sum over the venues
that were known at both ends, in coins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from liq_pipeline.scoring.bars import BarArrays, Booleans, Floats, Integers, Points, bars_between
from liq_pipeline.scoring.features import take
from liq_pipeline.scoring.probability import OPEN_INTEREST_FALL, THRESHOLD_FLOOR, THRESHOLD_SIGMAS, hourly_sigma

DOWN: Final = -1
UP: Final = 1
DIRECTIONS: Final = (DOWN, UP)
HORIZON_HOURS: Final = 4
LONGEST_MINUTES: Final = 240
LOOKBACK_HOURS: Final = 30
"""24 h of hourly returns behind a start that lies 4 h back, and room for the point's place within its bar."""
LONGEST_STEP_SECONDS: Final = 900
"""On coarser grids the first minutes of a cascade cannot be seen: everything is unknown there."""
PLAIN_MOVE: Final = 0.6
PLAIN_FALL: Final = 0.015
PLAIN_MINUTES: Final = 30
BURST_MINUTES: Final = 60
RUN_MINUTES: Final = 120
MOST: Final = 3.0
"""Multiples of a threshold are held to this: twice is already a major cascade."""
GROUP_SYMBOLS: Final = 7
"""The market is read from the first so many symbols of the world (and the symbol itself): the rule was measured with
seven, and the largest of fifty excursions is larger on any quiet day."""


@dataclass(frozen=True)
class Side:
    """Excursions in one direction, (symbols, points), never negative; NaN = unknown (a price or open interest is).

    run, recent: the largest move over starts up to 2 h and 30 min ago, in theta. cascade: the largest, over starts up
    to 4 h ago, of the smaller of move / theta and fall of open interest / 3 %: at 1 the label's own condition is met.
    burst: the same in the plain rule's units (0.6 theta, 1.5 %) over an hour; plain: over its 30 min.
    start_row: how many bars before the point's bar the start lies that `cascade` (else `run`) stands on; -1 = none.
    """

    run: Floats
    recent: Floats
    cascade: Floats
    burst: Floats
    plain: Floats
    start_row: Integers


@dataclass(frozen=True)
class Excursions:
    """sides: direction -> Side. changes of open interest are fractions, (symbols, points)."""

    sides: dict[int, Side]
    open_interest_change_30m: Floats
    price_known: Booleans
    open_interest_known: Booleans
    move_since: dict[int, Floats]
    """direction -> signed fraction of the price since start_row; NaN where there is none."""
    threshold_at: dict[int, Floats]
    open_interest_since: dict[int, Floats]


def excursions(bars: BarArrays, points: Points) -> Excursions:
    """Excursions at points, from bars that reach LOOKBACK_HOURS back. A slice gives the bits of a batch."""
    shape = (len(bars.symbols), points.time_seconds.size)
    if bars.step_seconds > LONGEST_STEP_SECONDS or not points.time_seconds.size:
        return _unknown(shape)
    first = max(0, int(points.bar_index.min()) - bars.rows_of(LOOKBACK_HOURS))
    stop = min(bars.count, int(points.bar_index.max()) + 1)
    if stop <= first:
        return _unknown(shape)
    part = bars_between(bars, first, stop)
    index = points.bar_index - first
    per_hour = bars.rows_of(1)
    sigma = hourly_sigma(part.price_usd, per_hour)
    theta = np.maximum(THRESHOLD_FLOOR[HORIZON_HOURS], THRESHOLD_SIGMAS[HORIZON_HOURS] * sigma)
    rows = {m: m * 60 // bars.step_seconds for m in (PLAIN_MINUTES, BURST_MINUTES, RUN_MINUTES, LONGEST_MINUTES)}

    found = {d: {name: np.zeros(shape) for name in ("run", "recent", "cascade", "burst", "plain")} for d in DIRECTIONS}
    best = {d: np.zeros(shape) for d in DIRECTIONS}
    start = {d: np.full(shape, -1, dtype=np.int64) for d in DIRECTIONS}
    since = {d: {name: np.full(shape, np.nan) for name in ("move", "theta", "interest")} for d in DIRECTIONS}
    now_price, now_interest = points.now.price_usd, points.now.open_interest_base
    price_known = np.zeros(shape, dtype=bool)
    interest_known = np.zeros(shape, dtype=bool)
    change_30m = np.full(shape, np.nan)
    for ago in range(rows[LONGEST_MINUTES] + 1):
        at = index - ago
        then, limit = take(part.price_usd, at), take(theta, at)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            fraction = now_price / then - 1.0
            in_theta = fraction / limit
        interest = _total_change(now_interest, take(part.open_interest_base, at))
        if ago == rows[PLAIN_MINUTES]:
            change_30m = interest
        price_known |= np.isfinite(in_theta).any(axis=1)
        interest_known |= np.isfinite(interest)
        with np.errstate(invalid="ignore"):
            fallen, fallen_plainly = -interest / OPEN_INTEREST_FALL, -interest / PLAIN_FALL
        for d in DIRECTIONS:
            move = _shown_by_most(d * in_theta)
            of = found[d]
            with np.errstate(invalid="ignore"):
                both = np.minimum(move, fallen)
                plainly = np.minimum(move / PLAIN_MOVE, fallen_plainly)
            of["cascade"] = np.fmax(of["cascade"], both)
            if ago <= rows[RUN_MINUTES]:
                of["run"] = np.fmax(of["run"], move)
            if ago <= rows[BURST_MINUTES]:
                of["burst"] = np.fmax(of["burst"], plainly)
            if ago <= rows[PLAIN_MINUTES]:
                of["recent"] = np.fmax(of["recent"], move)
                of["plain"] = np.fmax(of["plain"], plainly)
            # The start that a message speaks of: where the cascade is furthest, or, without a fall, the price.
            weight = np.fmax(both, 0.0) * 10.0 + np.fmax(move, 0.0)
            with np.errstate(invalid="ignore"):
                further = weight > best[d]
            best[d] = np.where(further, weight, best[d])
            start[d] = np.where(further, ago, start[d])
            since[d]["move"] = np.where(further, d * _shown_by_most(d * fraction), since[d]["move"])
            since[d]["theta"] = np.where(further, _middle(limit), since[d]["theta"])
            since[d]["interest"] = np.where(further, interest, since[d]["interest"])
    sides = {}
    for d in DIRECTIONS:
        held = {name: np.clip(values, 0.0, MOST) for name, values in found[d].items()}
        for name in ("run", "recent"):
            held[name] = np.where(price_known, held[name], np.nan)
        for name in ("cascade", "burst", "plain"):
            held[name] = np.where(price_known & interest_known, held[name], np.nan)
        sides[d] = Side(**held, start_row=start[d])
    return Excursions(
        sides,
        change_30m,
        price_known,
        interest_known,
        move_since={d: since[d]["move"] for d in DIRECTIONS},
        threshold_at={d: since[d]["theta"] for d in DIRECTIONS},
        open_interest_since={d: since[d]["interest"] for d in DIRECTIONS},
    )


@dataclass(frozen=True)
class Market:
    """What the group shows in one direction, as each symbol reads it, (symbols, points); NaN = unknown.

    third: of the third-largest, or the smallest where fewer are known; 0 where the symbol stands alone.
    """

    largest_cascade: Floats
    largest_burst: Floats
    third_burst: Floats
    largest_run: Floats
    in_excursion: Integers
    """(points,): how many of the group have run more than half a threshold."""


def market(side: Side) -> Market:
    """The group's numbers: its first GROUP_SYMBOLS symbols, and each symbol itself."""

    def largest(values: Floats, place: int) -> Floats:
        group = values[:GROUP_SYMBOLS]
        out = np.empty_like(values)
        for s in range(values.shape[0]):
            members = group if s < GROUP_SYMBOLS else np.concatenate([group, values[s : s + 1]])
            ordered = -np.sort(-members, axis=0)  # unknown ones last
            known = np.isfinite(members).sum(axis=0)
            at = np.minimum(place, np.maximum(known - 1, 0))
            out[s] = np.take_along_axis(ordered, at[np.newaxis, :], axis=0)[0]
            if place:
                out[s] = np.where(known < 2, np.where(known == 0, np.nan, 0.0), out[s])
        return out

    with np.errstate(invalid="ignore"):
        running = (side.run[:GROUP_SYMBOLS] > 0.5).sum(axis=0)
    return Market(
        largest(side.cascade, 0), largest(side.burst, 0), largest(side.burst, 2), largest(side.run, 0), running
    )


def _shown_by_most(values: Floats) -> Floats:
    """(symbols, venues, points) -> (symbols, points): what more than half of the venues that are known reach."""
    if values.shape[1] == 1:
        return values[:, 0]
    ordered = -np.sort(-values, axis=1)
    known = np.isfinite(values).sum(axis=1)
    at = np.minimum(known // 2, np.maximum(known - 1, 0))
    return np.take_along_axis(ordered, at[:, np.newaxis, :], axis=1)[:, 0]


def _middle(values: Floats) -> Floats:
    return _shown_by_most(values)


def _total_change(now: Floats, then: Floats) -> Floats:
    """Change of the sum over venues known at both times, added in the venues' order; NaN where none is."""
    total_now = np.zeros((now.shape[0], now.shape[2]))
    total_then = np.zeros_like(total_now)
    for venue in range(now.shape[1]):
        known = np.isfinite(now[:, venue]) & np.isfinite(then[:, venue])
        total_now = total_now + np.where(known, now[:, venue], 0.0)
        total_then = total_then + np.where(known, then[:, venue], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total_then > 0.0, total_now / total_then - 1.0, np.nan)


def _unknown(shape: tuple[int, int]) -> Excursions:
    nothing = np.full(shape, np.nan)
    none = np.zeros(shape, dtype=bool)
    side = Side(nothing, nothing, nothing, nothing, nothing, np.full(shape, -1, dtype=np.int64))
    by_direction = dict.fromkeys(DIRECTIONS, nothing)
    return Excursions(dict.fromkeys(DIRECTIONS, side), nothing, none, none, by_direction, by_direction, by_direction)
