"""Columns as numpy arrays, from and to PostgreSQL, without one Python object per value.

Belongs here: reading binary arrays, writing binary COPY. Does not: which queries and tables there are.

A query groups its rows and gives each group's columns as array_agg(...); PostgreSQL sends such an array as a header
and fixed-size elements, which numpy reads in place. A tick over 20 symbols reads 30,000 bars: as rows of Python objects
they would cost more than all the rest of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format

_HEADER: Final = struct.Struct("!iiI")
_DIMENSION_BYTES: Final = 8
_POSTGRES_EPOCH_US: Final = 946_684_800_000_000
"""2000-01-01 UTC in microseconds since 1970: where PostgreSQL's timestamps start."""
_FLOAT8_ARRAY, _INT8_ARRAY, _TIMESTAMPTZ_ARRAY = 1022, 1016, 1185
_ELEMENT: Final = {
    _FLOAT8_ARRAY: np.dtype([("length", ">i4"), ("value", ">f8")]),
    _INT8_ARRAY: np.dtype([("length", ">i4"), ("value", ">i8")]),
    _TIMESTAMPTZ_ARRAY: np.dtype([("length", ">i4"), ("value", ">i8")]),
}


class _ArrayLoader(Loader):
    """float8[], int8[] and timestamptz[] (as microseconds since 1970 UTC) without NULLs, one dimension."""

    format = Format.BINARY

    def load(self, data: Buffer) -> NDArray[Any]:
        raw = bytes(data)
        dimensions, has_null, _ = _HEADER.unpack_from(raw)
        element = _ELEMENT[self.oid]
        if dimensions == 0:
            return np.empty(0, dtype=element["value"].newbyteorder("="))
        if dimensions != 1 or has_null:
            raise ValueError("an array column holds NULLs or is nested: coalesce it in the query")
        values = np.frombuffer(raw, dtype=element, offset=_HEADER.size + _DIMENSION_BYTES)["value"]
        native = values.astype(element["value"].newbyteorder("="))
        return native + _POSTGRES_EPOCH_US if self.oid == _TIMESTAMPTZ_ARRAY else native


def fetch_arrays(
    conn: psycopg.Connection[Any], query: sql.SQL | sql.Composed, parameters: dict[str, Any]
) -> list[tuple[Any, ...]]:
    """All rows of the query, its array columns as numpy arrays (float64, int64; times in microseconds since 1970)."""
    with conn.cursor(binary=True) as cursor:
        for oid in _ELEMENT:
            cursor.adapters.register_loader(oid, _ArrayLoader)
        rows: list[tuple[Any, ...]] = cursor.execute(query, parameters).fetchall()
    return rows


@dataclass(frozen=True)
class Column:
    """One column of a binary COPY: a constant text, or one value per row (float8, bigint or timestamptz).

    values: float64, or int64, or for a timestamptz int64 microseconds since 1970 with is_time. known: None = all.
    """

    text: str | None = None
    values: NDArray[Any] | None = None
    known: NDArray[np.bool_] | None = None
    is_time: bool = False


_COPY_START: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_COPY_END: Final = struct.pack("!h", -1)
_NULL_LENGTH: Final = -1


def copy_columns(
    conn: psycopg.Connection[Any], statement: sql.SQL | sql.Composed, blocks: Iterable[tuple[int, Sequence[Column]]]
) -> int:
    """Run a COPY ... FROM STDIN (FORMAT BINARY) over blocks of (row count, columns); how many rows were sent.

    Rows of a block whose unknown cells are the same have one fixed size and are written as one numpy array.
    """
    sent = 0
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(_COPY_START)
        for count, columns in blocks:
            pattern = np.zeros(count, dtype=np.int64)
            for bit, column in enumerate(columns):
                if column.known is not None:
                    pattern |= column.known.astype(np.int64) << bit
            for one in np.unique(pattern):
                copy.write(_encode(columns, np.flatnonzero(pattern == one)))
            sent += count
        copy.write(_COPY_END)
    return sent


def _encode(columns: Sequence[Column], rows: NDArray[np.intp]) -> bytes:
    """Those rows in COPY's binary form; whether a cell is known is the same in all of them."""
    layout: list[tuple[str, Any]] = [("fields", ">i2")]
    cells: list[tuple[int, Any]] = []
    for number, column in enumerate(columns):
        layout.append((f"length{number}", ">i4"))
        if column.text is not None:
            raw = column.text.encode()
            layout.append((f"value{number}", f"V{len(raw)}"))
            cells.append((len(raw), np.void(raw)))
        elif column.values is None or (column.known is not None and not column.known[rows[0]]):
            cells.append((_NULL_LENGTH, None))
        else:
            values = column.values[rows] - (_POSTGRES_EPOCH_US if column.is_time else 0)
            layout.append((f"value{number}", ">f8" if values.dtype.kind == "f" else ">i8"))
            cells.append((8, values))
    records = np.empty(rows.size, dtype=layout)
    records["fields"] = len(columns)
    for number, (length, value) in enumerate(cells):
        records[f"length{number}"] = length
        if value is not None:
            records[f"value{number}"] = value
    return records.tobytes()
