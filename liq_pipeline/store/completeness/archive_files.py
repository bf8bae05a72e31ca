"""The ledger of loaded history, and which rows of a file the tables have not.

Belongs here: the table `archive_files`, and comparing records with stored rows. Does not: fetching (sources/archives/),
sending or landing (pipeline/backfill.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg import sql

from liq_pipeline.bus.topics import TOPIC_OF_RECORD
from liq_pipeline.domain.records import Record
from liq_pipeline.store.landing.tables import TABLES, LandingTable, Row

Connection = psycopg.Connection[Any]

ROUNDING: Final = 1e-3
"""Two sources of one series round differently (a share of 0.6340 beside a ratio of 1.7322): that is no disagreement."""


@dataclass(frozen=True, kw_only=True)
class LoadedFile:
    """One version of a piece whose rows have landed."""

    world: str
    source: str
    path: str
    checksum: str
    series: str
    symbol: str
    from_time: datetime
    to_time: datetime
    rows: int
    rows_sent: int
    fetched_at: datetime


def checksums(conn: Connection, world: str, source: str) -> dict[str, str]:
    """path -> the checksum in force, of everything that was loaded."""
    rows = conn.execute(
        "SELECT DISTINCT ON (path) path, checksum FROM archive_files WHERE world = %s AND source = %s"
        " ORDER BY path, landed_at DESC",
        [world, source],
    )
    return dict(rows.fetchall())


def record(conn: Connection, files: Iterable[LoadedFile]) -> None:
    """Write that these have landed, in the caller's transaction."""
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO archive_files (world, source, path, checksum, series, symbol, from_time, to_time, rows,
                                       rows_sent, fetched_at)
            VALUES (%(world)s, %(source)s, %(path)s, %(checksum)s, %(series)s, %(symbol)s, %(from_time)s, %(to_time)s,
                    %(rows)s, %(rows_sent)s, %(fetched_at)s)
            ON CONFLICT (world, source, path, checksum)
            DO UPDATE SET fetched_at = excluded.fetched_at, landed_at = clock_timestamp(), rows = excluded.rows,
                          rows_sent = archive_files.rows_sent + excluded.rows_sent
            """,
            [vars(file) for file in files],
        )


@dataclass(frozen=True)
class Sorted:
    """new: to be sent. known: how many are stored already. differing: of those, how many say something else."""

    new: list[Record]
    known: int
    differing: int


def without_stored(conn: Connection, records: Sequence[Record], *, is_correction: bool) -> Sorted:
    """Leave out the records whose key is stored. Their world and venue are one and the same.

    What was seen live stays, whatever the archive says: scores and alerts rest on it. Another archive row stays too,
    unless this is a correction, a new version of a file that brought it: then it is sent again where it differs.
    """
    new: list[Record] = []
    known = differing = 0
    by_type: dict[type[Record], list[Record]] = {}
    for one in records:
        by_type.setdefault(type(one), []).append(one)
    for kind, some in by_type.items():
        table = TABLES[kind]
        stored = _stored(conn, table, some)
        for one in some:
            row = table.build(one, TOPIC_OF_RECORD[kind], 0, 0, 0)
            found = stored.get(table.key_of(row))
            if found is None:
                new.append(one)
                continue
            origin, substance = found
            mine = table.substance_of(row)
            if is_correction and origin == "archive" and substance != mine:
                new.append(one)
                continue
            known += 1
            differing += not _agree(substance, mine)
    return Sorted(new, known, differing)


def _stored(conn: Connection, table: LandingTable, records: Sequence[Record]) -> dict[Row, tuple[str, Row]]:
    """Key -> (origin, substance) of the stored rows in the records' span of time."""
    columns = [*table.key, "origin", *table.substance]
    same: dict[str, Any] = {}
    for name in ("world", "symbol", "venue"):
        values = {getattr(one, name) for one in records} if name in table.key else set()
        if len(values) == 1:
            same[name] = values.pop()
    query = sql.SQL(
        "SELECT {columns} FROM {table} WHERE {same} AND event_time >= %(first)s AND event_time <= %(last)s"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        table=sql.Identifier(table.name),
        same=sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in same
        ),
    )
    times = [one.event_time for one in records]
    rows = conn.execute(query, {**same, "first": min(times), "last": max(times)}).fetchall()
    size = len(table.key)
    return {row[:size]: (row[size], row[size + 1 :]) for row in rows}


def _agree(stored: Row, mine: Row) -> bool:
    """Whether two versions say the same, up to rounding; what only one of them knows is no disagreement."""
    for left, right in zip(stored, mine, strict=True):
        if left is None or right is None:
            continue
        if isinstance(left, float) and isinstance(right, float):
            if abs(left - right) > ROUNDING * max(abs(left), abs(right)):
                return False
        elif left != right:
            return False
    return True
