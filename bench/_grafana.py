"""The queries of the dashboards and alert rules, as Grafana's PostgreSQL data source would send them.

Belongs here: finding them and expanding Grafana's macros; the tests use it too. Does not: running them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

GRAFANA = Path(__file__).resolve().parents[1] / "grafana"
DEFAULT_POINTS = 1000
"""Points that a panel asks for unless it says otherwise: about its width in pixels."""


@dataclass(frozen=True)
class Query:
    """One query: where it stands, its text with macros, and how many points its panel shows."""

    where: str
    text: str
    points: int = DEFAULT_POINTS

    @property
    def depends_on_range(self) -> bool:
        """Whether the chosen time range changes what it reads."""
        return "$__timeFilter" in self.text


def dashboards(name: str = "*") -> list[dict[str, object]]:
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
        for panel in dashboard["panels"]:  # type: ignore[attr-defined]
            for target in panel.get("targets", ()):
                yield Query(panel["title"], target["rawSql"], panel.get("maxDataPoints", DEFAULT_POINTS))
        for variable in dashboard["templating"]["list"]:  # type: ignore[index]
            yield Query(f"variable {variable['name']}", variable["query"])
        for annotation in dashboard["annotations"]["list"]:  # type: ignore[index]
            yield Query(f"annotation {annotation['name']}", annotation["target"]["rawSql"])
    for title, text in alert_rules():
        yield Query(f"alert rule {title}", text)


# Grafana rounds (range / points) to one of these; the list is its documented behaviour, in seconds.
_INTERVALS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


def interval_seconds(first: datetime, last: datetime, points: int) -> int:
    """The $__interval of a panel with so many points over [first, last]."""
    exact = (last - first).total_seconds() / points
    return min(_INTERVALS, key=lambda seconds: abs(seconds - exact))


def expand(text: str, values: Mapping[str, str], first: datetime, last: datetime, interval: int) -> str:
    """The query with macros and variables replaced. values: variable -> SQL literals, such as `'BTC','ETH'`."""
    span = f"BETWEEN '{first.isoformat()}' AND '{last.isoformat()}'"
    text = text.replace("$__interval_ms", str(interval * 1000))
    text = re.sub(r"\$__timeFilter\(([^()]+)\)", rf"\1 {span}", text)
    for name, value in values.items():
        text = text.replace(f"${{{name}:sqlstring}}", value)
    return text
