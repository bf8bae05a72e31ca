"""`liq sql`: one read-only query against the store in force.

Belongs here: running a query without any chance to write, and shaping its rows. Does not: the store's own queries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import psycopg

from liq_pipeline.errors import LiqError
from liq_pipeline.store.connection import connect

STATEMENT_TIMEOUT_MS = 60_000


@dataclass(frozen=True)
class QueryResult:
    """Column names and rows, in the server's order."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    has_more: bool = False
    """Whether the limit cut it."""


def read_only_query(database_url: str, statement: str, limit: int | None = None) -> QueryResult:
    """Run one statement in a READ ONLY transaction that is rolled back.

    A single statement through the extended protocol, so that a second one (`COMMIT; DELETE ...`) cannot ride along.
    limit: at most so many rows. Raises LiqError with the server's own words when the query is refused or wrong, and
    for a role that could run programs or touch files of the server: no transaction is read-only to `COPY ... PROGRAM`.
    """
    if not statement.strip(" \n\t;"):
        raise LiqError('The query is empty: give one statement such as "SELECT * FROM signals_current LIMIT 5".')
    with connect(database_url, application_name="liq sql") as connection:
        connection.read_only = True
        try:
            with connection.cursor() as cursor:
                _refuse_the_mighty(cursor)
                cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
                cursor.execute(statement.strip().encode(), prepare=True)
                if cursor.description is None:
                    return QueryResult(columns=(), rows=[])
                rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
                has_more = limit is not None and cursor.fetchone() is not None
                return QueryResult(tuple(c.name for c in cursor.description), rows, has_more)
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise LiqError("liq sql only reads: the statement would have changed the database.") from error
        except psycopg.Error as error:
            words = " ".join(str(error).split())
            raise LiqError(f"The database refused the query: {words}") from error
        finally:
            connection.rollback()


def _refuse_the_mighty(cursor: psycopg.Cursor[Any]) -> None:
    """LiqError if reading would not be all that this role can do."""
    cursor.execute(
        """
        SELECT current_user, r.rolsuper, array(
            SELECT m.rolname::text FROM pg_roles AS m
            WHERE m.rolname IN ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files')
              AND pg_has_role(current_user, m.oid, 'member'))
        FROM pg_roles AS r WHERE r.rolname = current_user
        """
    )
    name, is_superuser, memberships = cursor.fetchone() or ("nobody", True, [])
    if is_superuser or memberships:
        might = "a superuser" if is_superuser else f"a member of {', '.join(memberships)}"
        raise LiqError(
            f"liq sql would run as {name}, {might}, who can run programs and touch files on the server even where "
            "nothing may be written: make a role that only reads with `liq roles`, and name it in "
            "LIQ_DATABASE_READER_URL"
        )


def json_value(value: Any) -> Any:
    """A JSON form that loses nothing: decimals as strings, times in RFC 3339."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, dict | list | str | int | float | bool) or value is None:
        return value
    return str(value)


def json_lines(result: QueryResult) -> Iterator[str]:
    """One JSON object per row."""
    for row in result.rows:
        yield json.dumps({name: json_value(value) for name, value in zip(result.columns, row, strict=True)})
