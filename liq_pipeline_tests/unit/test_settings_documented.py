"""docs/settings.md is true: it names every setting the program has, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from liq_pipeline.operations.settings_page import render_settings_page

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_the_one_the_program_writes() -> None:
    assert PAGE.read_text() == render_settings_page(), "run `make docs`"


def test_every_setting_has_a_reason_to_exist_on_the_page() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|.*\| (.*) \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert len(rows) > 20
    assert [name for name, text in rows if not text.strip()] == []


def test_no_secret_shows_a_default() -> None:
    secrets = [line for line in PAGE.read_text().splitlines() if "_KEY`" in line or "DATABASE_URL`" in line]
    assert secrets
    assert all("| unset (secret) |" in line for line in secrets)
