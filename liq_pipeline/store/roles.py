"""Database roles: who may change the schema, who may write rows, who may only read.

Belongs here: creating the writer and the reader, and their rights. Does not: the owner, who runs the migrations and
is whoever LIQ_DATABASE_URL names then; keeping passwords.

The owner migrates. `liq_writer` lands, scores and alerts: rows, no schema. `liq_reader` serves dashboards and
`liq sql`: read-only even by default setting. Both are optional: an installation of one person runs as the owner.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

WRITER: Final = "liq_writer"
READER: Final = "liq_reader"
READER_STATEMENT_TIMEOUT: Final = "30s"


def create(conn: Connection, *, writer_password: str | None = None, reader_password: str | None = None) -> list[str]:
    """Create the roles whose password is given, or give them that password; grant their rights. Returns their names.

    Needs a role that may create roles, once; nothing afterwards does. The server sees SCRAM verifiers only, so no
    password can end in its log. Commits.
    """
    done = []
    for role, password in ((WRITER, writer_password), (READER, reader_password)):
        if password is None:
            continue
        verifier = conn.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        verb = "ALTER" if _exists(conn, role) else "CREATE"
        conn.execute(
            sql.SQL("{} ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}").format(
                sql.SQL(verb), sql.Identifier(role), sql.Literal(verifier)
            )
        )
        done.append(role)
    if READER in done:
        reader = sql.Identifier(READER)
        conn.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(reader))
        conn.execute(
            sql.SQL("ALTER ROLE {} SET statement_timeout = {}").format(reader, sql.Literal(READER_STATEMENT_TIMEOUT))
        )
    grant(conn)
    conn.commit()
    return done


def grant(conn: Connection) -> None:
    """Give the roles that exist their rights to everything in the schema, now and for tables made later.

    Run by the owner after each migration; idempotent.
    """
    database = sql.Identifier(conn.info.dbname)
    if _exists(conn, WRITER):
        # TEMPORARY: landing copies into temporary tables.
        for statement in (
            "GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role}",
            "GRANT USAGE ON SCHEMA public TO {role}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
            "REVOKE INSERT, UPDATE, DELETE ON schema_migrations FROM {role}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO {role}",
        ):
            conn.execute(sql.SQL(statement).format(database=database, role=sql.Identifier(WRITER)))
    if _exists(conn, READER):
        for statement in (
            "GRANT CONNECT ON DATABASE {database} TO {role}",
            "GRANT USAGE ON SCHEMA public TO {role}",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role}",
        ):
            conn.execute(sql.SQL(statement).format(database=database, role=sql.Identifier(READER)))


def _exists(conn: Connection, role: str) -> bool:
    return conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None
