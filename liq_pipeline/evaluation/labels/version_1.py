"""What a cascade is: label version 1.

Belongs here: the one, frozen function that turns closes and open interest into labels, events and grades.
Does not: anything that predicts them. A change of meaning is a new label version beside this one.

The definition is CONTRACTS.md, "What a cascade is"; docs/labels.md gives it with worked cases. Where the text
leaves a choice, the choice is made here, named in docs/labels.md and held by the file of cases:
  * sigma(t) needs the full 24 h of look-back, and three quarters of its hourly returns known;
  * a row with a hit is positive; a row without one is negative only if its whole window lies inside the data and
    at least nine tenths of it are known; any other row is unknown;
  * two positive rows belong to one chain if less than 60 min, or one step of the grid, lie between them;
  * an event spans from its first positive row to `horizon` after its last; its move is measured from its first row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.scoring.windows import lag, rolling_count, rolling_max, rolling_min, rolling_sum

LABEL_VERSION = 1

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1

HOUR_SECONDS = 3600
SIGMA_HOURS = 24
SIGMA_KNOWN_SHARE = 0.75
WINDOW_KNOWN_SHARE = 0.9
OPEN_INTEREST_FALL = -0.03
MAJOR_MOVE, MAJOR_OPEN_INTEREST_FALL, MAJOR_THRESHOLDS = 0.08, -0.08, 2.0
CHAIN_GAP_SECONDS = 60 * 60
SYSTEMIC_SYMBOLS, SYSTEMIC_SECONDS = 3, 30 * 60
FIRST_SHOCK_QUIET_SECONDS = 24 * HOUR_SECONDS


@dataclass(frozen=True, slots=True)
class Horizon:
    """Threshold theta(t) = max(floor, sigmas * sigma(t)) for moves within `hours`."""

    hours: int
    floor: float
    sigmas: float


HORIZONS: dict[int, Horizon] = {
    1: Horizon(1, 0.02, 3.0),
    4: Horizon(4, 0.03, 3.0),
    24: Horizon(24, 0.06, 6.0),
}


@dataclass(frozen=True, slots=True)
class CascadeEvent:
    """One cascade of one symbol; times are seconds since 1970 UTC, moves are fractions of the first row's value."""

    symbol: str
    horizon_hours: int
    start: int
    """First positive row: from here the cascade was less than `horizon_hours` away."""
    onset: int
    """First row past half the threshold, in the direction of the largest move."""
    peak: int
    end: int
    """Last positive row."""
    direction: int
    """-1 down, +1 up."""
    price_move: float
    open_interest_move: float
    """Largest fall of open interest within the event."""
    threshold: float
    is_major: bool
    is_systemic: bool = False
    is_first_shock: bool = False


def hourly_sigma(price: Floats, step_seconds: int) -> Floats:
    """Sample standard deviation of overlapping 1-hour log returns over the 24 h up to each row; shape of `price`."""
    per_hour = HOUR_SECONDS // step_seconds
    rows = SIGMA_HOURS * per_hour
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.log(price / lag(price, per_hour))
    known = np.isfinite(returns)
    count = rolling_count(known, rows).astype(np.float64)
    total = rolling_sum(returns, rows)
    squares = rolling_sum(returns * returns, rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.maximum(squares - total * total / count, 0.0) / (count - 1.0)
        sigma = np.sqrt(variance)
    sigma[(count < SIGMA_KNOWN_SHARE * rows) | (count < 2)] = np.nan
    sigma[..., :rows] = np.nan
    return sigma


def threshold(price: Floats, step_seconds: int, horizon_hours: int) -> Floats:
    """theta(t), a fraction of the price; NaN where sigma is unknown."""
    horizon = HORIZONS[horizon_hours]
    return np.maximum(horizon.floor, horizon.sigmas * hourly_sigma(price, step_seconds))


def label_rows(price: Floats, open_interest_base: Floats, step_seconds: int, horizon_hours: int) -> Labels:
    """POSITIVE, NEGATIVE or UNKNOWN for each row of one symbol (1-D arrays of equal length, NaN = unknown).

    Raises ValueError for a step that does not divide an hour.
    """
    _check_step(step_seconds)
    rows = horizon_hours * HOUR_SECONDS // step_seconds
    n = price.shape[0]
    theta = threshold(price, step_seconds, horizon_hours)
    usable = np.isfinite(theta) & np.isfinite(price) & np.isfinite(open_interest_base)
    both = np.isfinite(price) & np.isfinite(open_interest_base)
    known_ahead = _ahead(rolling_count(both, rows).astype(np.float64), rows)
    labels = np.full(n, UNKNOWN, dtype=np.int8)
    labels[usable & (known_ahead >= WINDOW_KNOWN_SHARE * rows)] = NEGATIVE

    # The joint condition is tested lag by lag only where each half of it is met somewhere in the window.
    p_seen, o_seen = np.where(both, price, np.nan), np.where(both, open_interest_base, np.nan)
    padded_p = np.concatenate([p_seen, np.full(rows, np.nan)])
    padded_o = np.concatenate([o_seen, np.full(rows, np.nan)])
    highest = rolling_max(padded_p, rows)[rows:]
    lowest = rolling_min(padded_p, rows)[rows:]
    smallest = rolling_min(padded_o, rows)[rows:]
    with np.errstate(invalid="ignore"):
        far = (highest / price - 1.0 >= theta) | (1.0 - lowest / price >= theta)
        possible = usable & far & (smallest / open_interest_base - 1.0 <= OPEN_INTEREST_FALL)
    waiting = np.flatnonzero(possible)
    for ahead in range(1, rows + 1):
        if waiting.size == 0:
            break
        with np.errstate(invalid="ignore"):
            moved = np.abs(padded_p[waiting + ahead] / price[waiting] - 1.0) >= theta[waiting]
            fell = padded_o[waiting + ahead] / open_interest_base[waiting] - 1.0 <= OPEN_INTEREST_FALL
        hit = moved & fell
        labels[waiting[hit]] = POSITIVE
        waiting = waiting[~hit]
    return labels


def find_events(
    symbol: str,
    time: NDArray[np.int64],
    price: Floats,
    open_interest_base: Floats,
    labels: Labels,
    step_seconds: int,
    horizon_hours: int,
) -> list[CascadeEvent]:
    """Chain the positive rows of one symbol into events, oldest first; grades across symbols come later."""
    positive = np.flatnonzero(labels == POSITIVE)
    if positive.size == 0:
        return []
    theta = threshold(price, step_seconds, horizon_hours)
    rows = horizon_hours * HOUR_SECONDS // step_seconds
    apart = np.diff(positive) * step_seconds
    breaks = np.flatnonzero((apart >= CHAIN_GAP_SECONDS) & (apart > step_seconds))
    firsts = positive[np.concatenate([[0], breaks + 1])]
    lasts = positive[np.concatenate([breaks, [positive.size - 1]])]
    events = []
    for first, last in zip(firsts, lasts, strict=True):
        after = slice(first + 1, min(last + rows, price.shape[0] - 1) + 1)
        move = price[after] / price[first] - 1.0
        change = open_interest_base[after] / open_interest_base[first] - 1.0
        peak = int(np.nanargmax(np.abs(move)))
        direction = 1 if move[peak] > 0 else -1
        with np.errstate(invalid="ignore"):
            onset = int(np.argmax(direction * move >= theta[first] / 2.0))
            deep = (direction * move >= MAJOR_MOVE) & (change <= MAJOR_OPEN_INTEREST_FALL)
        size = abs(float(move[peak]))
        events.append(
            CascadeEvent(
                symbol=symbol,
                horizon_hours=horizon_hours,
                start=int(time[first]),
                onset=int(time[first + 1 + onset]),
                peak=int(time[first + 1 + peak]),
                end=int(time[last]),
                direction=direction,
                price_move=float(move[peak]),
                open_interest_move=float(np.nanmin(change)),
                threshold=float(theta[first]),
                is_major=size >= MAJOR_THRESHOLDS * float(theta[first]) or bool(deep.any()),
            )
        )
    return events


def grade_events(events: Sequence[CascadeEvent]) -> list[CascadeEvent]:
    """Set `is_systemic` and `is_first_shock` from the onsets of all symbols of one horizon, in order of onset."""
    ordered = sorted(events, key=lambda event: (event.onset, event.symbol))
    onsets = np.array([event.onset for event in ordered], dtype=np.int64)
    systemic = np.zeros(len(ordered), dtype=bool)
    for index in range(len(ordered)):
        end = int(np.searchsorted(onsets, onsets[index] + SYSTEMIC_SECONDS, side="right"))
        if len({event.symbol for event in ordered[index:end]}) >= SYSTEMIC_SYMBOLS:
            systemic[index:end] = True
    graded = []
    for index, event in enumerate(ordered):
        since = int(np.searchsorted(onsets, event.onset - FIRST_SHOCK_QUIET_SECONDS, side="left"))
        before = int(np.searchsorted(onsets, event.onset, side="left"))
        graded.append(replace(event, is_systemic=bool(systemic[index]), is_first_shock=since == before))
    return graded


def label_panel(
    time: NDArray[np.int64],
    symbols: Sequence[str],
    price: Floats,
    open_interest_base: Floats,
    step_seconds: int,
) -> tuple[Mapping[int, Labels], Mapping[int, list[CascadeEvent]]]:
    """Labels (shape symbols x times) and graded events of every horizon.

    `time` is a regular grid in seconds since 1970 UTC; `price` and `open_interest_base` (coins) have the shape
    symbols x times, NaN = unknown. Raises ValueError for a step that does not divide an hour.
    """
    labels: dict[int, Labels] = {}
    events: dict[int, list[CascadeEvent]] = {}
    for hours in HORIZONS:
        rows = [label_rows(price[i], open_interest_base[i], step_seconds, hours) for i in range(len(symbols))]
        found = [
            event
            for i, symbol in enumerate(symbols)
            for event in find_events(symbol, time, price[i], open_interest_base[i], rows[i], step_seconds, hours)
        ]
        labels[hours] = np.stack(rows)
        events[hours] = grade_events(found)
    return labels, events


def _ahead(trailing: Floats, rows: int) -> Floats:
    """A trailing window read at its start: the value for (t, t + rows]; -inf where it passes the end."""
    ahead = np.full_like(trailing, -np.inf)
    if rows < trailing.shape[-1]:
        ahead[..., :-rows] = trailing[..., rows:]
    return ahead


def _check_step(step_seconds: int) -> None:
    if step_seconds <= 0 or HOUR_SECONDS % step_seconds:
        raise ValueError(f"labels need a step that divides an hour, not {step_seconds} s")
