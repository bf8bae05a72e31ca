"""Writing rows of one table so that each key lands once, and saying exactly what became of every row.

Belongs here: COPY, insert on conflict, and the rules for a key that is there already. Does not: Kafka, offsets,
transactions (the caller's).

The rules (CONTRACTS: conflicts). Same key and substance: a duplicate, ignored. Same key, other substance: the first
stays and the other goes to `row_conflicts`; only an archive row over an archive row, being a correction of it, replaces
it, and the replaced version goes there. What was seen live stays whatever an archive says later, by whichever way it
came: scores and alerts stand on that row, and with another value, known_at and offset their replay would not be
bit-equal. A flow with is_canonical false marks the row of its key as orphaned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from operator import itemgetter
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from liq_pipeline.store.landing.tables import FLOWS, IS_CANONICAL, ORPHANED_KNOWN_AT, LandingTable, Row, with_canonicity

Connection = psycopg.Connection[Any]

COPY_FROM_ROWS: Final = 300
"""Fewer rows travel as arrays in one statement: a temporary table costs more than it saves (a tick brings tens)."""

CANONICAL_AGAIN: Final = "canonical_again"
"""A resolution for the record only: the chain went back to a block that had been orphaned. Not counted as conflict."""


@dataclass(frozen=True)
class Conflict:
    """Two versions of one key; `delivery` is the row that brought the conflict up."""

    kept: Row
    other: Row
    resolution: str
    delivery: Row


@dataclass
class Outcome:
    """What became of rows, by Kafka partition: landed + duplicates + conflicts = rows given."""

    landed: Counter[int] = field(default_factory=Counter)
    duplicates: Counter[int] = field(default_factory=Counter)
    conflicts: Counter[int] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    """Landed rows by world whose known_at is not after the world's last committed market tick."""


def write(
    conn: Connection,
    table: LandingTable,
    rows: Sequence[Row],
    *,
    stamp: datetime,
    identities: dict[int, str],
    last_ticks: dict[str, datetime],
) -> Outcome:
    """Write rows, in order of delivery, in the caller's transaction.

    stamp: landed_at of all of them; no earlier write of this table carries the same, which is how a row that was
    inserted now is told from one that was there. identities: kafka_cluster -> its id. last_ticks: world -> the time
    of its last committed market tick. Raises psycopg.Error.
    """
    outcome = Outcome()
    source = _source(conn, table, rows)
    # A key that comes twice in the batch is written once, its first row: the server goes through them in order.
    inserted = conn.execute(_insert_sql(table, source.relation), {**source.arguments, "stamp": stamp}).rowcount
    if inserted == len(rows):
        outcome.landed.update(map(itemgetter(table.partition), rows))
        _count_late(conn, table, rows, stamp, last_ticks, outcome)
        return outcome
    firsts: dict[Row, Row] = {}
    # setdefault answers with the first row of the key, which for a later one is another.
    later = [row for row in rows if firsts.setdefault(row[: table.key_length], row) is not row]
    if later:
        source = _source(conn, table, list(firsts.values()))  # what follows counts keys, not deliveries
    outcome.landed.update(row[table.partition] for row in firsts.values())
    contested: list[Row] = []
    states: dict[Row, Row] = {}
    if inserted < len(firsts):
        for partition, count in conn.execute(
            _present_sql(table, source.relation), {**source.arguments, "stamp": stamp}
        ):
            outcome.landed[partition] -= count
            outcome.duplicates[partition] += count
        # A key that comes again within the batch is judged against what is stored, whatever its first row was.
        every = bool(later)
        statement = _stored_sql(table, source.relation, every=every)
        for stored in conn.execute(statement, {**source.arguments, "stamp": stamp}):
            key = table.key_of(stored)
            states[key] = stored
            first = firsts[key]
            outcome.duplicates[first[table.partition]] -= 1
            contested.append(first)
    _count_late(conn, table, firsts.values(), stamp, last_ticks, outcome)
    if contested or later:
        _settle(conn, table, contested + later, firsts, states, stamp, identities, outcome)
    return outcome


@dataclass(frozen=True)
class _Source:
    """Where the first row of every key can be selected from: a filled temporary table, or arrays as arguments."""

    relation: sql.Composable
    arguments: dict[str, Any]


def _source(conn: Connection, table: LandingTable, rows: Sequence[Row]) -> _Source:
    if len(rows) < COPY_FROM_ROWS:
        columns = zip(*rows, strict=True) if rows else iter(() for _ in table.columns)
        arguments = {f"c{index}": list(values) for index, values in enumerate(columns)}
        return _Source(_arrays_sql(table), arguments)
    # TRUNCATE: an earlier part of this transaction may have filled it.
    conn.execute(_staging_sql(table))
    with conn.cursor() as cursor, cursor.copy(_copy_sql(table)) as copy:
        copy.set_types(list(table.columns.values()))
        for row in rows:
            copy.write_row(row)
    return _Source(sql.Identifier("pg_temp", _staging_name(table)), {})


def _settle(
    conn: Connection,
    table: LandingTable,
    queue: list[Row],
    firsts: dict[Row, Row],
    states: dict[Row, Row],
    stamp: datetime,
    identities: dict[int, str],
    outcome: Outcome,
) -> None:
    """Go through the rows whose key is taken, in order of delivery, each against the version in force before it."""
    changed: dict[Row, Row] = {}
    conflicts: list[Conflict] = []
    for row in queue:
        key = table.key_of(row)
        state = states.get(key, firsts[key])
        partition = row[table.partition]
        after, conflict = resolve(table, state, row)
        if after is not state:
            states[key] = changed[key] = after
        if conflict is not None:
            conflicts.append(conflict)
        if conflict is None or conflict.resolution == CANONICAL_AGAIN:
            counter = outcome.duplicates if after is state else outcome.landed
            counter[partition] += 1
    if changed:
        with conn.cursor() as cursor:
            cursor.executemany(
                _update_sql(table),
                [{**{f"c{i}": v for i, v in enumerate(row)}, "stamp": stamp} for row in changed.values()],
            )
    if conflicts:
        _record_conflicts(conn, table, conflicts, identities, outcome)


def resolve(table: LandingTable, state: Row, row: Row) -> tuple[Row, Conflict | None]:
    """The version in force after `row` was delivered onto `state`, and the conflict that made, if any.

    The same object comes back if nothing changed.
    """
    if table is FLOWS:
        settled = _resolve_canonicity(state, row)
        if settled is not None:
            return settled
    if table.substance_of(state) == table.substance_of(row):
        return state, None
    if _delivered_before(table, row, state):
        return state, None
    if not row[table.origin] == state[table.origin] == "archive":
        return state, Conflict(kept=state, other=row, resolution="first_kept", delivery=row)
    return row, Conflict(kept=row, other=state, resolution="archive_replaced", delivery=row)


def _resolve_canonicity(state: Row, row: Row) -> tuple[Row, Conflict | None] | None:
    """Re-org marks. None where canonicity is not in question and the common rules decide."""
    known: datetime = row[FLOWS.known_at]
    if not row[IS_CANONICAL]:
        if not state[IS_CANONICAL]:
            return state, None
        return with_canonicity(state, orphaned_known_at=known), None
    if state[IS_CANONICAL] or FLOWS.substance_of(state) != FLOWS.substance_of(row):
        return None
    if known <= state[ORPHANED_KNOWN_AT]:
        return state, None
    # Seen as canonical after it was orphaned: the chain went back. The marked version is kept for the record.
    restored = with_canonicity(state, orphaned_known_at=None)
    return restored, Conflict(kept=restored, other=state, resolution=CANONICAL_AGAIN, delivery=row)


def _delivered_before(table: LandingTable, row: Row, state: Row) -> bool:
    """Whether `row` is an old delivery read again (offsets were lost): what is stored came after it and stands."""
    return bool(
        row[table.cluster] == state[table.cluster]
        and row[table.partition] == state[table.partition]
        and row[table.offset] <= state[table.offset]
    )


def _record_conflicts(
    conn: Connection, table: LandingTable, conflicts: list[Conflict], identities: dict[int, str], outcome: Outcome
) -> None:
    """Write conflicts; those of a delivery that is read again after its offset was lost count as duplicates."""
    deliveries = [conflict.delivery for conflict in conflicts]
    written = conn.execute(
        """
        INSERT INTO row_conflicts (table_name, world, row_key, kept, other, resolution,
                                   cluster_id, topic, kafka_partition, kafka_offset)
        SELECT %(table)s, w, k, a, b, r, c, %(table)s, p, o
        FROM unnest(%(worlds)s::text[], %(keys)s::jsonb[], %(kept)s::jsonb[], %(other)s::jsonb[],
                    %(resolutions)s::text[], %(clusters)s::text[], %(partitions)s::smallint[], %(offsets)s::bigint[])
          AS n (w, k, a, b, r, c, p, o)
        ON CONFLICT (cluster_id, topic, kafka_partition, kafka_offset) DO NOTHING
        RETURNING cluster_id, kafka_partition, kafka_offset
        """,
        {
            "table": table.name,
            "worlds": [row[0] for row in deliveries],
            "keys": [_json(dict(zip(table.key, row, strict=False))) for row in deliveries],
            "kept": [_json(table.as_dict(conflict.kept)) for conflict in conflicts],
            "other": [_json(table.as_dict(conflict.other)) for conflict in conflicts],
            "resolutions": [conflict.resolution for conflict in conflicts],
            "clusters": [identities[row[table.cluster]] for row in deliveries],
            "partitions": [row[table.partition] for row in deliveries],
            "offsets": [row[table.offset] for row in deliveries],
        },
    ).fetchall()
    new = set(written)
    for conflict in conflicts:
        row = conflict.delivery
        coordinates = (identities[row[table.cluster]], row[table.partition], row[table.offset])
        if conflict.resolution != CANONICAL_AGAIN:
            counter = outcome.conflicts if coordinates in new else outcome.duplicates
            counter[row[table.partition]] += 1


def _count_late(
    conn: Connection,
    table: LandingTable,
    rows: Any,
    stamp: datetime,
    last_ticks: dict[str, datetime],
    outcome: Outcome,
) -> None:
    """Late: known before a tick that has been committed without it. Asked of the database only where one may be."""
    if table.name == "heartbeats" or not last_ticks:
        return
    if not any(row[0] in last_ticks and row[table.known_at] <= last_ticks[row[0]] for row in rows):
        return
    times = [row[table.event_time] for row in rows]
    bounds = {"stamp": stamp, "first": min(times), "last": max(times)}
    for world, tick in last_ticks.items():
        found = conn.execute(_late_sql(table), {**bounds, "world": world, "tick": tick}).fetchone()
        if found is not None and found[0]:
            outcome.late[world] += found[0]


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


# -- statements ------------------------------------------------------------------------------------------------


def _staging_name(table: LandingTable) -> str:
    return f"landing_{table.name}"


def _list(table: LandingTable, prefix: str = "") -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(*((prefix, name) if prefix else (name,))) for name in table.columns)


def _on_key(table: LandingTable) -> sql.Composable:
    return sql.SQL(" AND ").join(sql.SQL("t.{0} = s.{0}").format(sql.Identifier(name)) for name in table.key)


@cache
def _staging_sql(table: LandingTable) -> bytes:
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in table.columns.items()
    )
    name = sql.Identifier(_staging_name(table))
    return (
        sql.SQL("CREATE TEMP TABLE IF NOT EXISTS {name} ({columns}) ON COMMIT DELETE ROWS; TRUNCATE pg_temp.{name}")
        .format(name=name, columns=columns)
        .as_bytes(None)
    )


@cache
def _copy_sql(table: LandingTable) -> bytes:
    return (
        sql.SQL("COPY {} FROM STDIN (FORMAT binary)")
        .format(sql.Identifier("pg_temp", _staging_name(table)))
        .as_bytes(None)
    )


@cache
def _arrays_sql(table: LandingTable) -> sql.Composable:
    arrays = sql.SQL(", ").join(
        sql.SQL("{}::{}[]").format(sql.Placeholder(f"c{index}"), sql.SQL(kind))
        for index, kind in enumerate(table.columns.values())
    )
    return sql.SQL("(SELECT * FROM unnest({}) AS u ({}))").format(arrays, _list(table))


def _insert_sql(table: LandingTable, source: sql.Composable) -> sql.Composed:
    return sql.SQL(
        "INSERT INTO {table} ({columns}, landed_at) SELECT {selected}, %(stamp)s FROM {source} AS s"
        " ON CONFLICT ({key}) DO NOTHING"
    ).format(
        table=sql.Identifier(table.name),
        columns=_list(table),
        selected=_list(table, "s"),
        source=source,
        key=sql.SQL(", ").join(map(sql.Identifier, table.key)),
    )


def _present_sql(table: LandingTable, source: sql.Composable) -> sql.Composed:
    """Partition and number of the rows whose key was there before."""
    return sql.SQL(
        "SELECT s.kafka_partition, count(*) FROM {source} AS s JOIN {table} AS t ON {on_key}"
        " WHERE t.landed_at <> %(stamp)s GROUP BY s.kafka_partition"
    ).format(table=sql.Identifier(table.name), source=source, on_key=_on_key(table))


def _stored_sql(table: LandingTable, source: sql.Composable, *, every: bool) -> sql.Composed:
    """The stored versions of keys that were there before: every one, or those that the new row disagrees with."""
    compared = [*table.substance, *(["is_canonical"] if table is FLOWS else [])]
    differs = sql.SQL(" OR ").join(
        sql.SQL("t.{0} IS DISTINCT FROM s.{0}").format(sql.Identifier(name)) for name in compared
    )
    condition = sql.SQL("true") if every else (sql.SQL("({})").format(differs) if compared else sql.SQL("false"))
    return sql.SQL(
        "SELECT {selected} FROM {source} AS s JOIN {table} AS t ON {on_key}"
        " WHERE t.landed_at <> %(stamp)s AND {condition}"
    ).format(
        selected=_list(table, "t"),
        source=source,
        table=sql.Identifier(table.name),
        on_key=_on_key(table),
        condition=condition,
    )


def _late_sql(table: LandingTable) -> sql.Composed:
    """Of the batch's rows that are new those that a tick should have seen; the times spare it all other chunks.

    Not by a join with the batch: the server knows neither how many rows that has nor how many have this stamp, took
    both for a handful, compared 10,000 with 10,000 for twenty seconds, and ticks waited while a hole was healed.
    """
    return sql.SQL(
        "SELECT count(*) FROM {table} WHERE landed_at = %(stamp)s AND world = %(world)s AND known_at <= %(tick)s"
        " AND event_time BETWEEN %(first)s AND %(last)s"
    ).format(table=sql.Identifier(table.name))


@cache
def _update_sql(table: LandingTable) -> sql.Composed:
    names = list(table.columns)
    changed = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(f"c{index}"))
        for index, name in enumerate(names)
        if index >= table.key_length
    )
    key = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(f"c{index}"))
        for index, name in enumerate(table.key)
    )
    return sql.SQL("UPDATE {table} SET {changed}, landed_at = %(stamp)s WHERE {key}").format(
        table=sql.Identifier(table.name), changed=changed, key=key
    )
