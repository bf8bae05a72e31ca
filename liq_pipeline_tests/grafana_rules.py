"""What makes a dashboard a good one: Grafana's own schema, and a lint with the rules of Grafana's dashboard-linter.

Belongs here: judging a dashboard's JSON, one sentence a finding. Does not: running its queries (grafana_support.py).

The schema is that of Grafana's typed builders (grafana-foundation-sdk, generated from Grafana's sources): a dashboard
is read into their classes and written again. What they do not know is lost on the way, and each value is held against
the type or enumeration that its class declares.

Of the linter's rules these hold for panels over SQL, under its own names: template-datasource-rule,
template-on-time-change-reload-rule, template-uneditable-rule, panel-datasource-rule, panel-no-targets-rule,
panel-title-description-rule and panel-units-rule. Its other rules are about PromQL, LogQL, jobs and instances. The rest
is ours: names that are used once, variables that exist, links that lead somewhere, and unknown that stays unknown.
"""

from __future__ import annotations

import enum
import json
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import units

Dashboard = dict[str, Any]

UNITS: Final = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
CHARTS: Final = ("timeseries", "state-timeline")
TYPES: Final = {*CHARTS, "barchart", "stat", "table", "row"}
BUILT_IN: Final = {"__all", "__value", "__interval_ms", "__timeFilter", "__timeFrom", "__timeTo", "datasource"}
"""Variables and macros that Grafana or its PostgreSQL data source brings."""
LINKED: Final = {"desk_url", "dagster_url"}
TAG: Final = "liq_pipeline"


# -- Grafana's own schema --


def schema_findings(dashboard: Dashboard) -> Iterator[str]:
    """What Grafana's classes do not know, lose, or declare otherwise."""
    register_default_plugins()
    try:
        read = model.Dashboard.from_json(dashboard)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        yield f"cannot be read: {error}"
        return
    yield from _declared(read, "dashboard")
    yield from _lost(dashboard, json.loads(JSONEncoder().encode(read)), "dashboard")


def _lost(given: Any, back: Any, where: str) -> Iterator[str]:
    """What was given and did not come back as it was; defaults that came in addition are fine."""
    if isinstance(given, dict) and isinstance(back, dict):
        for key, value in given.items():
            if key not in back:
                yield f"{where}: {key} is not in the schema"
            else:
                yield from _lost(value, back[key], f"{where}.{key}")
    elif isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        for number, (one, other) in enumerate(zip(given, back, strict=True)):
            yield from _lost(one, other, f"{where}[{number}]")
    elif given != back:
        yield f"{where}: {given!r} is read as {back!r}"


def _declared(read: object, where: str) -> Iterator[str]:
    """Each attribute of one of the schema's objects against its declared type, and so on below."""
    for name, declared in typing.get_type_hints(type(read)).items():
        value = getattr(read, name)
        if not _is(value, declared):
            yield f"{where}.{name}: {value!r} is no {declared}"
        for number, below in enumerate(value if isinstance(value, list) else [value]):
            if type(below).__module__.startswith(model.__package__) and not isinstance(below, enum.Enum):
                yield from _declared(
                    below, f"{where}.{name}[{number}]" if isinstance(value, list) else f"{where}.{name}"
                )


def _is(value: object, declared: Any) -> bool:
    origin = typing.get_origin(declared)
    inside = typing.get_args(declared)
    if declared is Any or declared is object:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, each) for each in inside)
    if origin is list:
        return isinstance(value, list) and all(_is(each, inside[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(each, inside[1]) for each in value.values())
    if origin is typing.Literal:
        return value in inside
    if declared is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if declared is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(declared, type) and issubclass(declared, enum.Enum):
        return value in {member.value for member in declared}
    return isinstance(value, declared)


# -- the lint --


def lint(dashboard: Dashboard) -> Iterator[str]:
    """Findings, each led by the name of its rule."""
    yield from _dashboard_rules(dashboard)
    yield from _variable_rules(dashboard)
    yield from _link_rules(dashboard)
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            for rule, sentence in _panel_rules(panel):
                yield f"{rule}: {panel.get('title', panel['id'])!r} {sentence}"


def _dashboard_rules(dashboard: Dashboard) -> Iterator[str]:
    if dashboard.get("editable", True):
        yield "template-uneditable-rule: the file is the truth, so `editable` is false"
    if not re.fullmatch(r"liq-[a-z-]{3,36}", dashboard.get("uid", "")):
        yield "uid: links need one that stays, liq-<words>"
    if dashboard.get("timezone") != "utc":
        yield "timezone: everything is UTC"
    if TAG not in dashboard.get("tags", ()):
        yield f"tags: without {TAG} the other dashboards do not lead here"
    titles = [panel.get("title") for panel in dashboard["panels"] if panel["type"] != "row"]
    for title in sorted({title for title in titles if titles.count(title) > 1}):
        yield f"titles: two panels are called {title!r}"


def _variable_rules(dashboard: Dashboard) -> Iterator[str]:
    variables = dashboard["templating"]["list"]
    sources = [variable for variable in variables if variable["type"] == "datasource"]
    if [(variable["name"], variable["label"]) for variable in sources] != [("datasource", "Data Source")]:
        yield "template-datasource-rule: there is one variable `datasource`, labelled Data Source"
    for variable in variables:
        if variable["type"] == "query" and variable.get("refresh") != 2:
            yield f"template-on-time-change-reload-rule: {variable['name']} is read anew with the time (refresh 2)"
        if variable["type"] == "query" and variable["datasource"]["uid"] != "${datasource}":
            yield f"panel-datasource-rule: variable {variable['name']} reads from ${{datasource}}"
    names = {variable["name"] for variable in variables}
    asked = dashboard["panels"], dashboard["annotations"], dashboard["links"], variables
    used = set(re.findall(r"\$\{(\w+)", json.dumps(asked))) | set(re.findall(r"\$(__\w+)", json.dumps(asked)))
    for unknown in sorted(used - names - BUILT_IN):
        yield f"variables: ${unknown} is used and not there"
    for idle in sorted(names - used - LINKED):
        yield f"variables: {idle} is there and not used"
    for where in re.findall(r"\$\{(\w+)\}", json.dumps([panel.get("targets") for panel in dashboard["panels"]])):
        if where != "datasource":
            yield f"variables: ${{{where}}} goes into a query as a text that is quoted: ${{{where}:sqlstring}}"


def _link_rules(dashboard: Dashboard) -> Iterator[str]:
    links = dashboard.get("links", [])
    if not any(
        link["type"] == "dashboards" and TAG in link["tags"] and link["includeVars"] and link["keepTime"]
        for link in links
    ):
        yield "links: a dashboard leads to the others, with what is chosen and its time"
    for name in sorted(LINKED):
        if not any(link["url"].startswith(f"${{{name}:raw}}") for link in links):
            yield f"links: a dashboard leads to {name}"


def _panel_rules(panel: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(rule, what is wrong) of one panel that is no row."""
    if panel["type"] not in TYPES:
        yield "types", f"is a {panel['type']}: the rules know {', '.join(sorted(TYPES))}"
        return
    if not panel.get("title") or not panel.get("description"):
        yield "panel-title-description-rule", "has a title and a description"
    if not panel.get("targets"):
        yield "panel-no-targets-rule", "asks nothing"
    for asked in (panel, *panel.get("targets", ())):
        if asked.get("datasource", {}).get("uid") != "${datasource}":
            yield "panel-datasource-rule", "reads from ${datasource}"
    config = panel["fieldConfig"]
    properties = [each for override in config["overrides"] for each in override["properties"]]
    wanted = [config["defaults"].get("unit"), *(each["value"] for each in properties if each["id"] == "unit")]
    for unit in wanted:
        if unit not in UNITS:
            yield "panel-units-rule", f"has the unit {unit!r}, which Grafana does not have"
    if panel["type"] in ("barchart", "stat") and not config["defaults"].get("noValue"):
        yield "unknown", "says in words what it shows while nothing is known (noValue)"
    if panel["type"] == "timeseries":
        # true would draw a line over any hole; a number of ms joins only what lies closer.
        span = config["defaults"].get("custom", {}).get("spanNulls", False)
        if span is True or (span is not False and span > 900_000):
            yield "unknown", "leaves a hole where nothing is known: spanNulls is false, or at most 15 min"
        if any("coalesce" in target["rawSql"].lower().partition(" from ")[0] for target in panel["targets"]):
            yield "unknown", "draws no value in the place of NULL"
    for each in properties:
        for link in each["value"] if each["id"] == "links" else ():
            if not re.match(r"\$\{(desk|dagster)_url:raw\}/", link["url"]):
                yield "links", f"leads to {link['url']}"
    at = panel["gridPos"]
    if at["w"] < 4 or at["x"] + at["w"] > 24 or at["h"] < 3:
        yield "layout", "is too small to be read"
