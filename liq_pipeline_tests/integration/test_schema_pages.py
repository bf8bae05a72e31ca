"""docs/schema is what sql/ makes: one page a table, every table and column explained."""

from __future__ import annotations

import re
from typing import Final

from liq_pipeline.operations.schema_pages import INDEX, PAGES, render, without_meaning
from liq_pipeline.store.connection import connect
from liq_pipeline.store.schema.migrations import load

LATER: Final = "\n".join(migration.text for migration in load() if migration.number > 9)
"""Files whose tables explain what their columns' names do not; up to 0009 every column has its own words."""


def test_the_pages_are_those_that_the_schema_makes(database_url: str) -> None:
    with connect(database_url) as conn:
        pages = render(conn)
    assert {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")} == pages, "run `make docs`"


def test_every_table_and_column_is_explained(database_url: str) -> None:
    later = re.compile("|".join(re.findall(r"^CREATE TABLE (\w+)", LATER, re.MULTILINE)) or "nothing")
    with connect(database_url) as conn:
        silent = without_meaning(conn)
    assert [name for name in silent if "." not in name] == [], "COMMENT ON TABLE in the file of sql/ that makes it"
    assert [name for name in silent if not later.match(name)] == [], "COMMENT ON COLUMN in the file that makes it"


def test_a_page_says_types_units_keys_and_who_made_it(database_url: str) -> None:
    with connect(database_url) as conn:
        pages = render(conn)
    page = pages["prices.md"]
    assert "| `price_usd` | double precision |  |  | US dollars per coin |" in page
    assert "PRIMARY KEY (world, symbol, venue, event_time)" in page
    assert "sql/0001_observations_and_landing.sql" in page
    assert "`prices_1h`" in page
    assert all(f"({name})" in pages[INDEX] for name in pages if name != INDEX)
