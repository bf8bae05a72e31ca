"""Read-only connections for the desk: few, bounded in time, shared by all readers.

Belongs here: the pool and what each connection is allowed. Does not: queries.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import psycopg
from psycopg.rows import BaseRowFactory
from psycopg_pool import ConnectionPool, PoolTimeout

from liq_pipeline.errors import LiqError
from liq_pipeline.store.connection import connect_arguments

STATEMENT_TIMEOUT_MS: Final = 5_000
WAIT_SECONDS: Final = 5.0
READERS: Final = 4
"""Queries at once. More would only share the same cores, with the ticks among them."""

Connection = psycopg.Connection[Any]
_P = ParamSpec("_P")
_T = TypeVar("_T")


class UnavailableError(LiqError):
    """The store cannot answer now; the same question may be answered later."""


class TooLongError(LiqError):
    """The question takes longer than a reader may; a smaller one is answered."""


class Reader:
    """A small pool of connections that cannot write, whatever role they log in as.

    Open with start(), close with stop(). run() is for any thread; `threads` is where an event loop sends its calls.
    """

    def __init__(self, database_url: str, *, readers: int = READERS, application_name: str = "liq serve") -> None:
        options = f"-c default_transaction_read_only=on -c statement_timeout={STATEMENT_TIMEOUT_MS} -c jit=off"
        arguments = connect_arguments(database_url, application_name=application_name, options=options)
        arguments["autocommit"] = True
        self.threads = ThreadPoolExecutor(readers, thread_name_prefix="reader")
        self._pool = ConnectionPool(
            arguments.pop("conninfo"),
            kwargs=arguments,
            min_size=1,
            max_size=readers,
            open=False,
            timeout=WAIT_SECONDS,
            reconnect_timeout=10.0,
            name="desk",
            check=ConnectionPool.check_connection,
        )

    def start(self) -> None:
        """Begin to connect; a server that is away is no error here, only in run()."""
        self._pool.open(wait=False)

    def stop(self) -> None:
        """Close everything."""
        self.threads.shutdown(wait=True, cancel_futures=True)
        self._pool.close()

    def run(self, read: Callable[Concatenate[Connection, _P], _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """read(connection, ...). UnavailableError if the database is away, TooLongError if the query is."""
        try:
            with self._pool.connection() as conn:
                return read(conn, *args, **kwargs)
        except psycopg.errors.QueryCanceled as error:
            raise TooLongError(
                f"the answer takes more than {STATEMENT_TIMEOUT_MS / 1000:g} s: ask for a shorter span"
            ) from error
        except PoolTimeout as error:
            raise UnavailableError("the database does not answer, or all readers are busy: try again") from error
        except psycopg.OperationalError as error:
            raise UnavailableError("the database does not answer: try again") from error


def struct_row(struct: Callable[..., _T]) -> BaseRowFactory[_T]:
    """Rows as structs, by column name: a column that the struct does not have is an error, not a shifted value."""

    def make(cursor: psycopg.Cursor[Any]) -> Callable[[Any], _T]:
        names = [column.name for column in cursor.description or ()]
        return lambda values: struct(**dict(zip(names, values, strict=True)))

    return make  # type: ignore[return-value]


def fetch(conn: Connection, struct: Callable[..., _T], query: str, parameters: dict[str, Any]) -> list[_T]:
    """The rows of a query as structs."""
    with conn.cursor(row_factory=struct_row(struct), binary=True) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


def fetch_rows(conn: Connection, query: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of a query as tuples."""
    return conn.execute(query.encode(), parameters, binary=True).fetchall()
