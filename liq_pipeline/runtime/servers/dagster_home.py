"""What Dagster needs before its processes start: its home folder and its own database.

Belongs here: both of them. Does not: Dagster's settings (dagster_home/ in the project's root).
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.files import write_atomically
from liq_pipeline.runtime.home import Home

PROJECT: Final = Path(__file__).resolve().parents[3] / "dagster_home"
"""Not in the root itself: Dagster's tools take a dagster.yaml of the folder they are started in, and this one needs the
addresses of a running installation."""
FILES: Final = ("dagster.yaml", "workspace.yaml")
LONGEST_SOCKET_PATH: Final = 100  # the kernel's limit is 107 bytes; some room for the names beside it


def prepare(home: Home) -> None:
    """Copy the project's dagster.yaml and workspace.yaml into DAGSTER_HOME; at every start, so that edits count."""
    home.dagster.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        try:
            text = (PROJECT / name).read_text()
        except FileNotFoundError:
            raise LiqError(f"{PROJECT / name} is missing: run `liq up` from a full copy of the project") from None
        write_atomically(home.dagster / name, text)


def zygote_socket(home: Home) -> Path:
    """Where the warm launcher listens: in the home, or in a short folder of this user where the home is too deep."""
    path = home.path / "zygote.sock"
    if len(str(path).encode()) <= LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(str(home.path).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"liq-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not folder.is_dir() or folder.stat().st_mode & 0o077 or folder.is_symlink():
        raise LiqError(f"{folder} belongs to someone else: remove it, or choose a LIQ_HOME with a shorter path")
    return folder / "zygote.sock"


def storage_name(database: str) -> str:
    """The name of Dagster's database, or of its schema, beside a database of ours on a server of one's own."""
    return f"{database}_dagster"


def ensure_storage(database_url: str, name: str) -> str:
    """Dagster's own database on the same server, as a psycopg2 URL.

    Where the role may not create a database, a schema of that name in the given one. A secret: never log it.
    """
    parts = conninfo_to_dict(database_url)
    schema = None
    with psycopg.connect(database_url, autocommit=True, connect_timeout=10) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        if found is None:
            try:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            except psycopg.errors.InsufficientPrivilege:
                schema = name
                _ensure_schema(connection, name)
    user, password = quote(str(parts.get("user", "")), safe=""), quote(str(parts.get("password", "")), safe="")
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    host = str(parts.get("host", "localhost"))
    place = f"[{host}]" if ":" in host else host
    address = f"postgresql+psycopg2://{login}{place}:{parts.get('port', 5432)}"
    # Bookkeeping of runs may lose its last fraction of a second in a power cut (run monitoring settles what is left
    # open); waiting for the disk some 40 times a tick would cost more than the tick.
    settings = ["-csynchronous_commit=off"]
    if schema is not None:
        settings.append(f"-csearch_path={schema}")
    options = ["options=" + quote(" ".join(settings), safe="")]
    kept = [name for name in ("sslmode", "sslrootcert", "sslcert", "sslkey") if name in parts]
    options += [f"{name}={quote(str(parts[name]), safe='')}" for name in kept]
    target = str(parts.get("dbname", name)) if schema is not None else name
    return f"{address}/{quote(target, safe='')}" + ("?" + "&".join(options) if options else "")


def _ensure_schema(connection: psycopg.Connection[Any], name: str) -> None:
    if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (name,)).fetchone() is not None:
        return  # PostgreSQL refuses IF NOT EXISTS too, where the role may not create
    try:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege:
        database, role = connection.info.dbname, connection.info.user
        raise LiqError(
            f"the role {role} may make neither a database nor a schema for Dagster's tables: run `liq roles` with a "
            f"role that may, or CREATE SCHEMA {name} AUTHORIZATION {role} in the database {database}"
        ) from None
