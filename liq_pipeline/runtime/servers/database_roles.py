"""The roles of an embedded installation: made at set-up by the server's superuser, who then has nothing more to do.

Belongs here: their passwords (one file each, 0600, under home/postgres/roles) and the order of the set-up. Does not:
what a role may do (store/schema/roles.py).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.files import write_atomically
from liq_pipeline.runtime.servers import dagster_home
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline.store.schema import roles
from liq_pipeline.store.schema.migrations import migrate

DAGSTER_DATABASE = "dagster"


@dataclass(frozen=True)
class DatabaseUrls:
    """How each part logs in. Secrets: not part of the repr, never logged."""

    owner: str = field(repr=False)
    writer: str = field(repr=False)
    reader: str = field(repr=False)
    dagster_storage: str = field(repr=False)


def set_up(server: EmbeddedPostgres, database: str) -> tuple[DatabaseUrls, list[str]]:
    """Roles, both databases with their owners, the schema and everyone's rights; what the migrations did.

    Idempotent: at every start the roles have the passwords of the files. A home of an earlier version, whose tables
    the superuser owns, is handed over.
    """
    urls = make_roles(server, database)
    return urls, make_schema(urls.owner)


def make_roles(server: EmbeddedPostgres, database: str) -> DatabaseUrls:
    """Roles and both databases with their owners, as they are or empty; idempotent."""
    folder = server.directory / "roles"
    passwords = {role: _password(folder / role) for role in (roles.OWNER, roles.WRITER, roles.READER, roles.DAGSTER)}
    owners = {database: roles.OWNER, DAGSTER_DATABASE: roles.DAGSTER}
    with connect(server.url("postgres"), application_name="liq up: roles") as admin:
        for role, password in passwords.items():
            roles.create_login(admin, role, password)
    for name, owner in owners.items():
        with connect(server.ensure_database(name), application_name="liq up: roles") as admin:
            roles.hand_over(admin, owner)
            if name == DAGSTER_DATABASE:
                # The writer measures its size; it can read nothing there.
                admin.execute(
                    sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(*map(sql.Identifier, (name, roles.WRITER)))
                )

    def url(role: str, name: str) -> str:
        place = make_url(server.url(name)).set(username=role, password=passwords[role])
        return place.render_as_string(hide_password=False)

    return DatabaseUrls(
        owner=url(roles.OWNER, database),
        writer=url(roles.WRITER, database),
        reader=url(roles.READER, database),
        dagster_storage=dagster_home.ensure_storage(url(roles.DAGSTER, DAGSTER_DATABASE), DAGSTER_DATABASE),
    )


def make_schema(owner_url: str) -> list[str]:
    """The schema of this version, and everyone's rights in it; what the migrations did."""
    applied = migrate(owner_url)
    with connect(owner_url, application_name="liq up: roles") as conn:
        roles.grant(conn)
    return applied


def make_for_own_database(settings: Settings) -> Path:
    """A writer and a reader in the database of LIQ_DATABASE_URL; the file (0600) with the settings that use them.

    LIQ_DATABASE_OWNER_URL, else LIQ_DATABASE_URL, becomes the owner's; it must be able to create roles. Refuses where
    the server's roles serve another database: they are the server's, and a new password would lock that one out.
    """
    given = settings.database_owner_url or settings.database_url
    if given is None:
        raise LiqError("LIQ_DATABASE_URL is not set")
    owner = given.get_secret_value()
    passwords = {role: secrets.token_urlsafe(32) for role in (roles.WRITER, roles.READER)}
    try:
        migrate(owner)
        with connect(owner, application_name="liq roles") as conn:
            dagster_name = dagster_home.storage_name(conn.info.dbname)  # may be a database of this very installation
            if others := [name for name in roles.served_elsewhere(conn) if name != dagster_name]:
                raise LiqError(
                    f"{roles.WRITER} and {roles.READER} of this server serve the database {', '.join(others)} already, "
                    "which new passwords would lock out: use those of its settings here too (`liq migrate` as the "
                    "owner gives both roles their rights in this database), or give this one a server of its own"
                )
            roles.create(
                conn,
                writer_password=passwords[roles.WRITER],
                reader_password=passwords[roles.READER],
                writer_schema=dagster_name,
            )
    except psycopg.errors.InsufficientPrivilege as error:
        raise LiqError(
            f"this role may not create roles and schemas ({error.diag.message_primary}): name one that may"
        ) from error
    lines = [f"LIQ_DATABASE_OWNER_URL={owner}"]
    for role, name in ((roles.WRITER, "LIQ_DATABASE_URL"), (roles.READER, "LIQ_DATABASE_READER_URL")):
        url = make_url(owner).set(username=role, password=passwords[role]).render_as_string(hide_password=False)
        lines.append(f"{name}={url}")
    path = settings.home / "database-roles.env"
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def _password(path: Path) -> str:
    if not path.exists():
        write_atomically(path, secrets.token_urlsafe(32) + "\n")
    return path.read_text().strip()
