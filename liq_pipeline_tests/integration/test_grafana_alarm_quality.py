"""The dashboard of alarm quality: every query runs on the real schema and shows what the evaluation stored."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from liq_pipeline.evaluation.report.nightly import evaluate_store
from liq_pipeline.pipeline.models import register_shipped
from liq_pipeline.settings import Settings
from liq_pipeline_tests.history_support import made_panel, store_panel
from liq_pipeline_tests.integration.test_evaluation_stored import START, add_alert

DASHBOARD = json.loads(
    (Path(__file__).resolve().parents[2] / "grafana" / "dashboards" / "alarm_quality.json").read_text()
)
EMPTY_UNTIL_SOMEBODY_PROMOTES = "Who promoted what"


def test_every_panel_shows_rows_after_one_evaluation(database_url: str) -> None:
    with psycopg.connect(database_url, options="-c timezone=UTC") as connection:
        world = store_panel(connection, made_panel(days=40), "recorded/quality")
        add_alert(connection, world, "BTC", START + timedelta(days=20), START + timedelta(days=20, hours=1))
        register_shipped(connection)
        evaluate_store(connection, world, Settings())
        for panel in DASHBOARD["panels"]:
            for target in panel["targets"]:
                rows = connection.execute(filled_in(target["rawSql"], world.name)).fetchall()
                assert rows or panel["title"] == EMPTY_UNTIL_SOMEBODY_PROMOTES, panel["title"]


def filled_in(query: str, world: str) -> Any:
    """As Grafana's PostgreSQL data source would send it."""
    query = re.sub(r"\$__timeFilter\(([^()]+)\)", r"\1 BETWEEN '2020-01-01' AND '2100-01-01'", query)
    return query.replace("${world:sqlstring}", f"'{world}'")


def test_every_panel_says_what_it_shows_and_none_overlaps() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["description"], panel["title"]
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    asked = [target["rawSql"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert set(re.findall(r"\$\{(\w+)", json.dumps(asked))) == {"world"}
