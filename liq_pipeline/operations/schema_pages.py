"""docs/schema: one page a table, written from the live schema.

Belongs here: reading the catalogue and rendering pages. Does not: what a column means (COMMENT ON in sql/).
`make docs` calls write_pages on a throw-away database; a test holds the pages to the schema.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, Final

import psycopg

from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.store.connection import connect
from liq_pipeline.store.schema.editions import HYPERTABLES
from liq_pipeline.store.schema.migrations import SQL_DIRECTORY, load, migrate

PAGES: Final = SQL_DIRECTORY.parent / "docs" / "schema"
INDEX: Final = "README.md"
_WRITTEN: Final = "Written by `make docs` from `sql/`; not by hand."

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
       coalesce(col_description(a.attrelid, a.attnum), (
           SELECT min(words) FROM (
               SELECT col_description(o.attrelid, o.attnum) AS words FROM pg_attribute AS o
               JOIN pg_class AS c ON c.oid = o.attrelid
               WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND o.attname = a.attname) AS others
           HAVING count(DISTINCT words) = 1))
FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_CONSTRAINTS = """
SELECT pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = %s::regclass AND contype IN ('p', 'u', 'f', 'c') ORDER BY contype = 'p' DESC, conname
"""
_INDEXES = """
SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index AS i
WHERE i.indrelid = %s::regclass AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = i.indexrelid)
ORDER BY 1
"""
_VIEWS = """
SELECT DISTINCT v.relname FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
JOIN pg_class AS v ON v.oid = r.ev_class
WHERE d.refobjid = %s::regclass AND v.relkind = 'v' AND v.oid <> d.refobjid ORDER BY 1
"""


def render(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """File name -> text of every page and the index, from the database that conn is connected to."""
    files = _files()
    tables = conn.execute(
        "SELECT relname, obj_description(oid, 'pg_class') FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
    ).fetchall()
    pages = {f"{table}.md": _page(conn, table, meaning, files.get(table)) for table, meaning in tables}
    rows = "\n".join(f"| [`{table}`]({table}.md) | {_cell(meaning)} |" for table, meaning in tables)
    pages[INDEX] = f"# The schema, one page a table\n\n{_WRITTEN}\n\n| table | holds |\n|---|---|\n{rows}\n"
    return pages


def without_meaning(conn: psycopg.Connection[Any]) -> list[str]:
    """Tables and columns that have no comment. A page gives a column that has none the meaning that its name has
    everywhere else, if that is one."""
    return [
        name
        for (name,) in conn.execute(
            """
            SELECT c.relname FROM pg_class AS c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
              AND obj_description(c.oid, 'pg_class') IS NULL
            UNION ALL
            SELECT c.relname || '.' || a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
            WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
              AND col_description(c.oid, a.attnum) IS NULL
            ORDER BY 1
            """
        )
    ]


def write_pages(folder: Path = PAGES) -> None:
    """Make the schema in a throw-away database and write its pages; pages of tables that are gone are removed."""
    with tempfile.TemporaryDirectory(prefix="liq-docs-") as home:
        Path(home).chmod(0o711)
        server = EmbeddedPostgres(Path(home), free_port(), settings={"fsync": "off"})
        server.start()
        try:
            url = server.ensure_database("docs")
            migrate(url)
            with connect(url) as conn:
                pages = render(conn)
        finally:
            server.stop()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


def _page(conn: psycopg.Connection[Any], table: str, meaning: str | None, file: str | None) -> str:
    made = f"Made by `sql/{file}`." if file else "Made by the migrator itself."
    parts = [f"# {table}", f"{meaning or ''}", f"{made} {_WRITTEN}"]
    parts.extend(
        f"On TimescaleDB a hypertable over `{one.time_column}`, {one.chunk_days} days a chunk."
        for one in HYPERTABLES
        if one.table == table
    )
    columns = [
        f"| `{name}` | {kind} | {'' if required else 'may be NULL'} | {_cell(default)} | {_cell(words)} |"
        for name, kind, required, default, words in conn.execute(_COLUMNS, [table])
    ]
    parts.append("\n".join(["| column | type | | default | means |", "|---|---|---|---|---|", *columns]))
    for title, rows in (
        ("Rules", [f"`{definition}`" for (definition,) in conn.execute(_CONSTRAINTS, [table])]),
        ("Indexes", [f"`{name}`: `{_index(text)}`" for name, text in conn.execute(_INDEXES, [table])]),
        ("Views over it", [f"`{name}`" for (name,) in conn.execute(_VIEWS, [table])]),
    ):
        if rows:
            parts.append("\n".join([f"## {title}", *(f"* {row}" for row in rows)]))
    return "\n\n".join(parts) + "\n"


def _files() -> dict[str, str]:
    """Table -> the file of sql/ that makes it."""
    return {
        table: migration.name
        for migration in load()
        for table in re.findall(r"^CREATE TABLE (\w+)", migration.text, re.MULTILINE)
    }


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


def _index(definition: str) -> str:
    return definition[definition.index(" USING ") + 7 :]


if __name__ == "__main__":
    write_pages()
