"""Dagster's event log in PostgreSQL, spared of questions whose answer does not change.

Belongs here: that. Does not: tables or queries, which stay Dagster's own. The stock store asks the server for the
columns of one of its tables several times per asset event, to work with schemas of older versions too; that was half
of all statements of a short run.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine, set_pg_statement_timeout
from sqlalchemy.engine import Connection

POOL_SIZE = 3
"""Connections that a process keeps where it keeps any: storing one asset event nests up to three."""


class LeanEventLogStorage(PostgresEventLogStorage):
    """PostgresEventLogStorage that asks once per process which columns there are, and keeps enough connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._known_columns: frozenset[str] | None = None
        super().__init__(*args, **kwargs)

    def upgrade(self) -> None:
        """Bring the schema up to date (`dagster instance migrate`), and look at it again."""
        super().upgrade()
        self._known_columns = None

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Keep connections; as Dagster's own, but as many as one event needs at once."""
        arguments: dict[str, Any] = {}
        if options := self._engine.url.query.get("options"):
            arguments["connect_args"] = {"options": options}
        self._engine = create_pg_engine(
            self.postgres_url,
            self._token_provider,
            isolation_level="AUTOCOMMIT",
            pool_size=POOL_SIZE,
            pool_recycle=pool_recycle,
            max_overflow=max_overflow,
            **arguments,
        )
        sqlalchemy.event.listen(
            self._engine,
            "connect",
            lambda connection, _: set_pg_statement_timeout(connection, statement_timeout),
        )

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        if self._known_columns is None:
            columns = sqlalchemy.inspect(conn).get_columns("asset_keys")
            self._known_columns = frozenset(str(column["name"]) for column in columns)
        return column_name in self._known_columns

    def has_asset_key_col(self, column_name: str) -> bool:
        """Whether the table of assets has this column."""
        if self._known_columns is not None:
            return column_name in self._known_columns
        return bool(super().has_asset_key_col(column_name))
