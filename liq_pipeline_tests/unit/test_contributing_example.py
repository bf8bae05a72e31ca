"""The walk through adding a score component works as CONTRIBUTING.md states it."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from liq_pipeline_tests.history_support import made_panel

REPOSITORY = Path(__file__).resolve().parents[2]
SECTION = (REPOSITORY / "CONTRIBUTING.md").read_text().split("## Add a score component")[1].split("\n## ")[0]


def test_the_example_runs_and_is_measured_beside_the_score() -> None:
    blocks = re.findall(r"(?:^ {7}\S.*\n|^ {7,}\S.*\n|^\n(?= {7}))+", SECTION, flags=re.MULTILINE)
    code = [textwrap.dedent(block) for block in blocks if "import" in block]
    assert len(code) == 2
    names: dict[str, Any] = {"panel": made_panel(days=60)}
    for block in code:
        exec(block, names)  # noqa: S102 - the project's own page
    figures = names["figures"]
    assert set(figures) == {"alone", "score", "score with it"}
    rows = {part["rows"] for part in figures.values()}
    assert len(rows) == 1, "compared on the same rows"
    assert figures["score with it"]["roc_auc_within"] != figures["score"]["roc_auc_within"]


def test_every_place_that_is_named_exists() -> None:
    named = re.findall(r"`((?:liq_pipeline|liq_pipeline_tests|docs|sql)/[\w/.]*)`", SECTION)
    assert len(named) >= 9
    for path in named:
        assert (REPOSITORY / path).exists(), path
    version = (REPOSITORY / "liq_pipeline/scoring/version.py").read_text()
    assert "SCORING_CODE_VERSION" in version
