"""Numbers and times as venues write them: read strictly, or not at all.

Belongs here: JSON values to floats and UTC times, and what a parser raises. Does not: units or records (base.py).
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta


class ShapeError(ValueError):
    """A field is missing or of another kind than the venue documents."""


UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, csv.Error)
"""What a parser raises over an answer of another form than documented. csv.Error is none of the others: a field of more
than 128 kB raises it."""


def number(value: object) -> float:
    """A finite number from a JSON number or string. Raises ShapeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ShapeError(f"{value!r} is not a number")
    try:
        result = float(value)
    except ValueError as error:
        raise ShapeError(f"{value!r} is not a number") from error
    if result != result or result in (float("inf"), float("-inf")):
        raise ShapeError(f"{value!r} is not a finite number")
    return result


def number_or_none(value: object) -> float | None:
    """None for an absent or empty field: unknown, never zero."""
    return None if value is None or value == "" else number(value)


def time_of_ms(value: object) -> datetime:
    """UTC time of milliseconds since 1970."""
    return _time_of(number(value) / 1e3)


def time_of_seconds(value: object) -> datetime:
    """UTC time of seconds since 1970."""
    return _time_of(number(value))


def time_of_iso(value: object) -> datetime:
    """UTC time of an ISO 8601 text with an offset."""
    if not isinstance(value, str):
        raise ShapeError(f"{value!r} is not a time")
    try:
        result = datetime.fromisoformat(value)
    except ValueError as error:
        raise ShapeError(f"{value!r} is not a time") from error
    if result.tzinfo is None:
        raise ShapeError(f"{value!r} has no offset")
    return result.astimezone(UTC)


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970, rounded."""
    return round(moment.timestamp() * 1000)


def _time_of(seconds: float) -> datetime:
    # Venues stamp in ms or s; whole microseconds keep equal stamps equal.
    if not 1e9 < seconds < 1e10:
        raise ShapeError(f"{seconds:g} s since 1970 is outside 2001 to 2286: another unit?")
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=round(seconds * 1e6))
