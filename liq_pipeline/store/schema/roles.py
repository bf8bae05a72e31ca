"""Database roles: who may change the schema, who may write rows, who may only read.

Belongs here: creating the roles, their rights, and handing a database to its owner. Does not: keeping passwords
(runtime/servers/database_roles.py).

`liq_owner` migrates. `liq_writer` lands, scores and alerts: rows, no schema. `liq_reader` serves dashboards and
`liq sql`: read-only even by default setting. `liq_dagster` owns Dagster's database and sees no other. An installation
on a server of its user's may run as one role, whatever LIQ_DATABASE_URL names.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

OWNER: Final = "liq_owner"
DAGSTER: Final = "liq_dagster"
WRITER: Final = "liq_writer"
READER: Final = "liq_reader"
READER_STATEMENT_TIMEOUT: Final = "30s"
RESTRICTED_FUNCTIONS: Final = (
    "drop_old_chunks(regclass, timestamptz)",
    "open_chunks(text[], timestamptz, timestamptz)",
    "close_chunks(regclass[])",
)
"""Run as the owner; the writer may call them, the reader may not. They exist where TimescaleDB does."""


def create(
    conn: Connection,
    *,
    writer_password: str | None = None,
    reader_password: str | None = None,
    writer_schema: str | None = None,
) -> list[str]:
    """Create the roles whose password is given, or give them that password; grant their rights. Returns their names.

    writer_schema: made for the writer to own, who may create none. Needs a role that may create roles, once; nothing
    afterwards does. The server sees SCRAM verifiers only, so no password can end in its log. Commits all of it or
    nothing: a new password that nobody was told would lock out what runs.
    """
    done = []
    for role, password in ((WRITER, writer_password), (READER, reader_password)):
        if password is not None:
            create_login(conn, role, password)
            done.append(role)
    if writer_schema is not None:
        _give_schema(conn, WRITER, writer_schema)
    grant(conn)
    conn.commit()
    return done


def _give_schema(conn: Connection, role: str, schema: str) -> None:
    """Make a schema in this database that the role owns, unless it is there."""
    if conn.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is None:
        owner = sql.Identifier(role)
        is_superuser = _is_superuser(conn)
        if not is_superuser:  # who hands a schema over has to be a member for that moment
            conn.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(owner))
        conn.execute(sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(sql.Identifier(schema), owner))
        if not is_superuser:
            conn.execute(sql.SQL("REVOKE {} FROM CURRENT_USER").format(owner))


def create_login(conn: Connection, role: str, password: str) -> None:
    """Create the role, or give it that password. The reader is read-only by its own setting as well."""
    verifier = conn.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    name, is_there = sql.Identifier(role), _exists(conn, role)
    # Only a superuser may say of a role that is there that it shall be none.
    powers = "" if is_there and not _is_superuser(conn) else "NOSUPERUSER NOCREATEDB NOCREATEROLE"
    conn.execute(
        sql.SQL("{} ROLE {} LOGIN {} PASSWORD {}").format(
            sql.SQL("ALTER" if is_there else "CREATE"), name, sql.SQL(powers), sql.Literal(verifier)
        )
    )
    if role == READER:
        conn.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(name))
        conn.execute(
            sql.SQL("ALTER ROLE {} SET statement_timeout = {}").format(name, sql.Literal(READER_STATEMENT_TIMEOUT))
        )


def hand_over(conn: Connection, owner: str) -> int:
    """Make `owner` own this database and what is in its schema `public`; how many things changed hands.

    Needs a superuser, who may own it all so far, as in homes of earlier versions. Nobody else may connect unless
    granted. What an extension brought stays with it.
    """
    role, database = sql.Identifier(owner), sql.Identifier(conn.info.dbname)
    conn.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, role))
    conn.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(database))
    changed = 0
    for kind, name in conn.execute(
        """
        SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
               ELSE 'TABLE' END, c.oid::regclass::text
        FROM pg_class AS c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'S', 'v', 'm')
          AND pg_get_userbyid(c.relowner) <> %(owner)s
          AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype IN ('e', 'a', 'i'))
        UNION ALL
        SELECT 'ROUTINE', p.oid::regprocedure::text FROM pg_proc AS p
        WHERE p.pronamespace = 'public'::regnamespace AND pg_get_userbyid(p.proowner) <> %(owner)s
          AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
        UNION ALL
        SELECT 'TYPE', t.oid::regtype::text FROM pg_type AS t
        WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('e', 'd')
          AND pg_get_userbyid(t.typowner) <> %(owner)s
        """,
        {"owner": owner},
    ).fetchall():
        conn.execute(sql.SQL("ALTER {} {} OWNER TO {}").format(sql.SQL(kind), sql.SQL(name), role))
        changed += 1
    return changed


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
            *(f"GRANT EXECUTE ON FUNCTION {name} TO {{role}}" for name in _own_functions(conn)),
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


def served_elsewhere(conn: Connection) -> list[str]:
    """The other databases of this server in which the writer or the reader has rights."""
    return [
        name
        for (name,) in conn.execute(
            """
            SELECT DISTINCT d.datname FROM pg_shdepend AS s JOIN pg_database AS d ON d.oid = s.dbid
            WHERE s.refclassid = 'pg_authid'::regclass AND d.datname <> current_database()
              AND s.refobjid IN (SELECT oid FROM pg_roles WHERE rolname IN (%s, %s)) ORDER BY 1
            """,
            [WRITER, READER],
        )
    ]


def _own_functions(conn: Connection) -> list[str]:
    """Our functions that are not everybody's, with their argument types, as SQL; an extension's stay its own."""
    return [
        name
        for (name,) in conn.execute(
            "SELECT to_regprocedure(n)::text FROM unnest(%s::text[]) AS n WHERE to_regprocedure(n) IS NOT NULL",
            [list(RESTRICTED_FUNCTIONS)],
        )
    ]


def _is_superuser(conn: Connection) -> bool:
    return conn.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (True,)


def _exists(conn: Connection, role: str) -> bool:
    return conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None
