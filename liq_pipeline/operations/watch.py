"""`liq watch`: a live terminal table of what the monitor thinks, symbol by symbol.

Belongs here: turning a Status into a table. Does not: collecting it (status.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from liq_pipeline.operations.status import Status

SEVERITY_STYLE = {
    "CRITICAL": "bold white on red",
    "WARNING": "bold black on yellow",
    "INFO": "cyan",
    "NONE": "green",
    "UNKNOWN": "bold magenta",
}
UNKNOWN = "?"


def number(value: float | None, digits: int = 0) -> str:
    """A number, or `?` when it is unknown: never a zero that was not measured."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def share(value: float | None, digits: int = 0) -> str:
    """A share as a percentage, or `?`."""
    return UNKNOWN if value is None else f"{value * 100:.{digits}f} %"


def age(seconds: float) -> str:
    """A duration a person reads at a glance."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} d"


def _risk_cell(row: dict[str, Any]) -> str:
    if row["risk"] is None:
        return f"{UNKNOWN} (up to {number(row['score_high'])})" if row["score_high"] is not None else UNKNOWN
    if row["score_high"] is not None and row["score_high"] - row["risk"] >= 0.5:
        return f"{row['risk']:.0f} .. {row['score_high']:.0f}"
    return f"{row['risk']:.0f}"


def _probability_cell(row: dict[str, Any]) -> str:
    value = row["cascade_probability_4h"]
    if value is None:
        return UNKNOWN
    base = row["base_rate_4h"]
    return f"{value * 100:.1f} %" + (f" (base {base * 100:.1f} %)" if base is not None else "")


def symbols_table(status: Status) -> Table:
    """One row per symbol."""
    table = Table(expand=True, pad_edge=False, header_style="bold")
    table.add_column("symbol", style="bold")
    for heading in (
        "risk",
        "funding /30",
        "OI /30",
        "long-short /20",
        "liquidations /20",
        "pressure",
        "P(cascade 4 h)",
    ):
        table.add_column(heading, justify="right")
    table.add_column("at risk")
    table.add_column("severity")
    table.add_column("coverage", justify="right")
    table.add_column("note", overflow="fold")
    for symbol, row in status.symbols.items():
        severity = row["severity"]
        possible = row["severity_possible"]
        text = Text(severity, style=SEVERITY_STYLE.get(severity, ""))
        if possible not in (severity, "UNKNOWN"):
            text.append(f" (possibly {possible})", style="dim")
        table.add_row(
            symbol,
            _risk_cell(row),
            number(row["funding_points"], 1),
            number(row["open_interest_points"], 1),
            number(row["long_short_points"], 1),
            number(row["liquidation_points"], 1),
            number(row["pressure"]) if row["flow_side_known"] else "blind",
            _probability_cell(row),
            {"long": "longs", "short": "shorts"}.get(row["side"] or "", UNKNOWN),
            text,
            share(row["coverage"]),
            row["note"] or "",
        )
    return table


def render(status: Status, now: datetime | None = None) -> Group:
    """The whole screen."""
    moment = now or datetime.now(UTC)
    parts: list[Any] = []
    world = status.world or "no world"
    if world == "real":
        parts.append(Text("REAL MARKETS", style="bold green"))
    else:
        parts.append(Text(f"NOT REAL: world {world}. Nothing here is a market.", style="bold black on yellow"))
    last = status.ticks.get("last")
    clock = status.world_clock
    line = f"mode {status.mode or UNKNOWN}   health {status.health}"
    if last is not None:
        line += f"   newest score {last:%Y-%m-%d %H:%M:%S} UTC"
        if clock is not None:
            line += f", {age(max((clock - last).total_seconds(), 0))} behind this world's clock"
        if status.ticks.get("last_committed_at") is not None:
            line += f", written {age(max((moment - status.ticks['last_committed_at']).total_seconds(), 0))} ago"
    line += f"   open alerts {status.alerts.get('open', UNKNOWN)}"
    parts.append(Text(line))
    parts.append(symbols_table(status) if status.symbols else Text("No scores yet.", style="dim"))
    if status.problems:
        parts.append(Panel("\n".join(status.problems), title=f"health: {status.health}", border_style="red"))
    parts.append(Text("Not financial advice.", style="dim"))
    return Group(*parts)
