"""Rolling windows whose value at a row depends on the rows of the window alone, bit for bit.

Belongs here: trailing sums, extremes and lags over the last axis of an array. Does not: what the windows mean.

A running float sum depends on where the array began, so a live slice and a batch over years would differ in
the last bits. Sums here run over fixed-point integers, whose differences are exact wherever they start;
extremes and lags are exact by nature. So a caller may ask for the last few rows alone (`last`) and gets the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

FRACTION_BITS = 40
"""Fixed point of the sums: resolution 9e-13, and 8 million rows of magnitude 1 fit an int64."""
_FEW_ROWS = 8
"""Up to here each window is taken for itself."""


def lag(values: Floats, rows: int) -> Floats:
    """The value `rows` rows earlier (NaN before the array's start); a negative count looks ahead."""
    shifted = np.full_like(values, np.nan)
    if rows == 0:
        return values.copy()
    if abs(rows) >= values.shape[-1]:
        return shifted
    if rows > 0:
        shifted[..., rows:] = values[..., :-rows]
    else:
        shifted[..., :rows] = values[..., -rows:]
    return shifted


def tail(values: NDArray[Any], rows: int) -> NDArray[Any]:
    """The last `rows` rows; all of them where there are fewer."""
    return values[..., max(0, values.shape[-1] - rows) :]


def _trailing_integer_sum(values: Integers, rows: int, last: int | None) -> Integers:
    """Exact sum of the last `rows` rows, shorter at the array's start; of the last `last` rows only, if given.

    A tick asks for one row of a window of 2,000: summing that window reads it once, a running sum writes it three
    times. The sums are the same integers.
    """
    count = values.shape[-1]
    if last is not None and last <= _FEW_ROWS:
        ends = range(count - min(last, count) + 1, count + 1)
        sums = [values[..., max(0, end - rows) : end].sum(axis=-1, dtype=np.int64) for end in ends]
        return np.stack(sums, axis=-1) if sums else values[..., :0]
    values = values if last is None else tail(values, last + rows - 1)
    running = np.cumsum(values, axis=-1)
    running[..., rows:] = running[..., rows:] - running[..., :-rows].copy()
    return running if last is None else tail(running, last)


def rolling_count(known: Booleans, rows: int, last: int | None = None) -> Integers:
    """How many of the last `rows` rows are known."""
    known = known if last is None else tail(known, last + rows - 1)
    return _trailing_integer_sum(known.astype(np.int64), min(rows, known.shape[-1]), last)


def rolling_sum(values: Floats, rows: int, last: int | None = None) -> Floats:
    """Sum of the known values among the last `rows` rows, to FRACTION_BITS; magnitudes up to about 1."""
    values = values if last is None else tail(values, last + rows - 1)
    fixed = np.rint(np.where(np.isfinite(values), values, 0.0) * 2.0**FRACTION_BITS).astype(np.int64)
    return _trailing_integer_sum(fixed, min(rows, values.shape[-1]), last) / 2.0**FRACTION_BITS


def rolling_mean(values: Floats, rows: int, minimum_share: float, last: int | None = None) -> Floats:
    """Mean of the known values among the last `rows` rows; NaN where fewer than `minimum_share` of them are known."""
    count = rolling_count(np.isfinite(values), rows, last)
    enough = count >= max(1.0, minimum_share * rows)
    return np.where(enough, rolling_sum(values, rows, last) / np.maximum(count, 1), np.nan)


def rolling_max(values: Floats, rows: int, last: int | None = None) -> Floats:
    """Largest known value among the last `rows` rows (shorter at the array's start); NaN where none is known.

    Windows double: a window of 2k is the larger of two windows of k, so the work grows with log2(rows).
    """
    values = values if last is None else tail(values, last + rows - 1)
    best = np.where(np.isnan(values), -np.inf, values)
    count = values.shape[-1]
    rows = min(rows, count)
    if last is not None and last <= _FEW_ROWS:
        ends = range(count - min(last, count) + 1, count + 1)
        largest = [best[..., max(0, end - rows) : end].max(axis=-1) for end in ends]
        best = np.stack(largest, axis=-1) if largest else best[..., :0]
    else:
        width = 1
        while width < rows:
            step = min(width, rows - width)
            best[..., step:] = np.maximum(best[..., step:], best[..., :-step].copy())
            width += step
        best = best if last is None else tail(best, last)
    return np.where(np.isinf(best) & (best < 0), np.nan, best)


def rolling_min(values: Floats, rows: int, last: int | None = None) -> Floats:
    """Smallest known value among the last `rows` rows; NaN where none is known."""
    return -rolling_max(-values, rows, last)
