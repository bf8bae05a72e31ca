"""Connections to the database: one way to open each kind.

Belongs here: turning LIQ_DATABASE_URL into a psycopg connection or a SQLAlchemy engine with the same session settings.
Does not: SQL, retries, the schema.
"""

from __future__ import annotations

from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url

from liq_pipeline.errors import LiqError

CONNECT_TIMEOUT_SECONDS = 10
LIVE_LOCK_SECONDS = 20.0
"""For landing and ticks: a session of somebody else that holds a table must be an error that is told, no silence. Our
own hold one for a second or two."""
SESSION_OPTIONS = "-c timezone=UTC -c datestyle=ISO"
"""Every session speaks UTC, whatever the server's or the user's own setting is."""

# A server that vanished without a word (power, network) is noticed after about 40 s instead of hours.
_KEEPALIVES: dict[str, Any] = {"keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 4}


class DatabaseUrlError(LiqError):
    """LIQ_DATABASE_URL cannot be used; the message says why and never shows the URL, which holds a password."""


def check_url(database_url: str) -> None:
    """DatabaseUrlError if the URL is none of PostgreSQL's. psycopg's own words would repeat it, password and all."""
    _url(database_url)


def connect(
    database_url: str, *, application_name: str = "liq_pipeline", lock_seconds: float | None = None
) -> psycopg.Connection[Any]:
    """Open a psycopg connection: autocommit off, UTC.

    lock_seconds: give up on a statement (psycopg.errors.LockNotAvailable) that waits longer for somebody else's lock.
    Raises psycopg.OperationalError if the server does not answer, DatabaseUrlError if the URL is none.
    """
    options = "" if lock_seconds is None else f"-c lock_timeout={int(1000 * lock_seconds)}"
    return psycopg.connect(**connect_arguments(database_url, application_name=application_name, options=options))


def connect_arguments(database_url: str, *, application_name: str, options: str = "") -> dict[str, Any]:
    """What psycopg is told, for those who open connections in another way (a pool). options: further `-c` settings."""
    return {
        "conninfo": _conninfo(database_url),
        "autocommit": False,
        "application_name": application_name,
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "options": f"{SESSION_OPTIONS} {options}".strip(),
        **_KEEPALIVES,
    }


def engine(database_url: str, *, application_name: str = "liq_pipeline") -> Engine:
    """A SQLAlchemy engine over psycopg 3 for code that speaks pandas; a dead pooled connection is replaced on use."""
    return create_engine(
        _url(database_url).set(drivername="postgresql+psycopg"),
        connect_args={
            "application_name": application_name,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "options": SESSION_OPTIONS,
            **_KEEPALIVES,
        },
        pool_pre_ping=True,
    )


def _url(database_url: str) -> URL:
    try:
        url = make_url(database_url)
    except Exception as error:
        raise DatabaseUrlError(
            "LIQ_DATABASE_URL is not a URL of the form postgresql://user:password@host:port/database"
        ) from error
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise DatabaseUrlError(
            f"LIQ_DATABASE_URL names a {url.get_backend_name()} database; liq_pipeline needs postgresql://..."
        )
    return url


def _conninfo(database_url: str) -> str:
    return _url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
