"""The queries of the dashboards and alert rules, as Grafana's PostgreSQL data source would send them.

Belongs here: finding them and expanding Grafana's macros; the tests use it too. Does not: running them, or judging the
dashboards (liq_pipeline_tests/grafana_support.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

GRAFANA = Path(__file__).resolve().parents[1] / "grafana"
DEFAULT_POINTS = 1000
"""Points that a panel asks for unless it says otherwise: about its width in pixels."""


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Query:
    """One query: where it stands, its text with macros, how many points its panel shows, and what the panel fixes."""

    where: str
    text: str
    points: int = DEFAULT_POINTS
    least_interval: int = 1
    """seconds: the panel's own `interval`, below which $__interval never goes"""
    fixed_span: timedelta | None = None
    """the panel's own `timeFrom`: its range whatever was chosen"""

    @property
    def depends_on_range(self) -> bool:
        """Whether the chosen time range changes what it reads."""
        return self.fixed_span is None and ("$__timeFilter" in self.text or "$__timeFrom" in self.text)


def dashboards(name: str = "*") -> list[dict[str, Any]]:
    """The provisioned dashboards, or the one of that name."""
    return [json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob(f"{name}.json"))]


def alert_rules() -> Iterator[tuple[str, str]]:
    """(title, query) of the provisioned alert rules."""
    for path in sorted((GRAFANA / "provisioning" / "alerting").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield rule["title"], rule["data"][0]["model"]["rawSql"]


def queries(dashboard_name: str = "*") -> Iterator[Query]:
    """Everything that Grafana sends: panels, variables and annotations of the dashboards, and all alert rules."""
    for dashboard in dashboards(dashboard_name):
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield Query(
                    panel["title"],
                    target["rawSql"],
                    panel.get("maxDataPoints", DEFAULT_POINTS),
                    seconds(panel.get("interval", "1s")),
                    timedelta(seconds=seconds(panel["timeFrom"])) if "timeFrom" in panel else None,
                )
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield Query(f"variable {variable['name']}", variable["query"])
        for annotation in dashboard["annotations"]["list"]:
            yield Query(f"annotation {annotation['name']}", annotation["target"]["rawSql"])
    for title, text in alert_rules():
        yield Query(f"alert rule {title}", text)


def seconds(interval: str) -> int:
    """Of an interval as panels name it: 30s, 1m, 24h."""
    return int(interval[:-1]) * _UNITS[interval[-1]]


# Grafana rounds (range / points) to one of these; the list is its documented behaviour, in seconds.
_INTERVALS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


def interval_seconds(first: datetime, last: datetime, points: int, least: int = 1) -> int:
    """The $__interval of a panel with so many points over [first, last], never under the panel's `least` seconds."""
    exact = (last - first).total_seconds() / points
    return max(least, min(_INTERVALS, key=lambda each: abs(each - exact)))


def expand(text: str, values: Mapping[str, str], first: datetime, last: datetime, interval: int) -> str:
    """The query with macros and variables replaced. values: variable -> SQL literals, such as `'BTC','ETH'`."""
    span = f"BETWEEN '{first.isoformat()}' AND '{last.isoformat()}'"
    text = text.replace("$__interval_ms", str(interval * 1000))
    text = re.sub(r"\$__timeFilter\(([^()]+)\)", rf"\1 {span}", text)
    text = text.replace("$__timeFrom()", f"'{first.isoformat()}'").replace("$__timeTo()", f"'{last.isoformat()}'")
    for name, value in values.items():
        text = text.replace(f"${{{name}:sqlstring}}", value)
    return text
