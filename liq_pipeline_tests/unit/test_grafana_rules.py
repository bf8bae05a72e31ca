"""The dashboards against Grafana's own schema and the lint; and that both find what they are there to find."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from bench._grafana import GRAFANA, dashboards
from liq_pipeline_tests.grafana_rules import Dashboard, lint, schema_findings

NAMES = sorted(path.stem for path in (GRAFANA / "dashboards").glob("*.json"))
Harm = Callable[[Dashboard], None]


def panel(dashboard: Dashboard, kind: str) -> dict[str, Any]:
    """The first panel of that type."""
    found: dict[str, Any] = next(each for each in dashboard["panels"] if each["type"] == kind)
    return found


def harmed(harm: Harm) -> Dashboard:
    """The dashboard of the market with one thing changed."""
    dashboard = copy.deepcopy(dashboards("market")[0])
    harm(dashboard)
    return dashboard


@pytest.mark.parametrize("name", NAMES)
def test_grafana_s_own_schema_knows_everything_in_the_file(name: str) -> None:
    assert list(schema_findings(dashboards(name)[0])) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_lint_finds_nothing(name: str) -> None:
    assert list(lint(dashboards(name)[0])) == []


def test_the_dashboards_are_those_that_the_docs_name() -> None:
    titles = {dashboard["title"]: dashboard["uid"] for dashboard in dashboards()}
    assert titles == {
        "Liquidation Cascade Monitor": "liq-risk",
        "Market": "liq-market",
        "Stablecoin flows": "liq-flows",
        "Under way": "liq-under-way",
        "Pipeline health": "liq-pipeline",
        "Alarm quality": "liq-quality",
    }
    told = (GRAFANA.parent / "docs" / "grafana.md").read_text()
    assert all(f"*{title}*" in told for title in titles)


SCHEMA_HARMS: dict[str, tuple[Harm, str]] = {
    "a panel's key": (lambda d: panel(d, "stat").update(tooltip="x"), "tooltip is not in the schema"),
    "a chart's own key": (
        lambda d: panel(d, "timeseries")["fieldConfig"]["defaults"]["custom"].update(spanNul=False),
        "spanNul is not in the schema",
    ),
    "a chart's word": (
        lambda d: panel(d, "timeseries")["fieldConfig"]["defaults"]["custom"].update(drawStyle="curve"),
        "'curve' is no",
    ),
    "an option": (lambda d: panel(d, "table")["options"].update(showHeader="yes"), "'yes' is no"),
    "a number": (lambda d: panel(d, "stat")["gridPos"].update(w="8"), "'8' is no"),
    "a threshold": (
        lambda d: panel(d, "stat")["fieldConfig"]["defaults"].update(thresholds={"mode": "total", "steps": []}),
        "'total' is no",
    ),
    "a variable's kind": (lambda d: d["templating"]["list"][1].update(type="sql"), "'sql' is no"),
    "the dashboard's own": (lambda d: d.update(autoRefresh="5s"), "autoRefresh is not in the schema"),
    "a link's kind": (lambda d: d["links"][0].update(type="page"), "'page' is no"),
}


@pytest.mark.parametrize(("harm", "said"), SCHEMA_HARMS.values(), ids=SCHEMA_HARMS)
def test_what_grafana_does_not_know_is_found(harm: Harm, said: str) -> None:
    assert any(said in finding for finding in schema_findings(harmed(harm)))


LINT_HARMS: dict[str, Harm] = {
    "template-uneditable-rule": lambda d: d.update(editable=True),
    "template-datasource-rule": lambda d: d["templating"]["list"].pop(0),
    "template-on-time-change-reload-rule": lambda d: d["templating"]["list"][1].update(refresh=1),
    "panel-datasource-rule": lambda d: panel(d, "stat")["targets"][0]["datasource"].update(uid="another"),
    "panel-no-targets-rule": lambda d: panel(d, "stat").update(targets=[]),
    "panel-title-description-rule": lambda d: panel(d, "timeseries").update(description=""),
    "panel-units-rule": lambda d: panel(d, "table")["fieldConfig"]["defaults"].update(unit="dollars"),
    "uid": lambda d: d.update(uid="market"),
    "timezone": lambda d: d.update(timezone="browser"),
    "tags": lambda d: d.update(tags=[]),
    "titles": lambda d: panel(d, "table").update(title=panel(d, "stat")["title"]),
    "types": lambda d: panel(d, "table").update(type="gauge"),
    "variables": lambda d: panel(d, "stat")["targets"][0].update(rawSql="SELECT ${market:sqlstring}"),
    "links": lambda d: d["links"].pop(),
    "unknown": lambda d: panel(d, "timeseries")["fieldConfig"]["defaults"]["custom"].update(spanNulls=True),
    "layout": lambda d: panel(d, "table")["gridPos"].update(x=20),
}


@pytest.mark.parametrize(("rule", "harm"), LINT_HARMS.items(), ids=LINT_HARMS)
def test_each_rule_finds_what_breaks_it(rule: str, harm: Harm) -> None:
    assert any(finding.startswith(f"{rule}:") for finding in lint(harmed(harm)))


@pytest.mark.parametrize(
    "harm",
    [
        lambda d: panel(d, "stat")["fieldConfig"]["defaults"].pop("noValue"),
        lambda d: panel(d, "timeseries")["targets"][0].update(rawSql="SELECT time, coalesce(price, 0) FROM prices"),
        lambda d: panel(d, "stat")["targets"][0].update(rawSql="SELECT '${world}'"),
        lambda d: d["templating"]["list"].append(d["templating"]["list"][1] | {"name": "idle"}),
    ],
    ids=["nothing said for nothing", "zero for NULL", "a text that is not quoted", "an idle variable"],
)
def test_other_ways_to_break_a_rule_are_found_too(harm: Harm) -> None:
    assert list(lint(harmed(harm))) != []
