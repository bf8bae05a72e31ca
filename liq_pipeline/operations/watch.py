"""`liq watch` and `liq status` for people: what the monitor thinks, symbol by symbol, and how its parts are.

Belongs here: turning a Status into tables. Does not: collecting it (status.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from liq_pipeline.operations import growth
from liq_pipeline.operations.status import Status

SEVERITY_STYLE = {
    "CRITICAL": "bold white on red",
    "WARNING": "bold black on yellow",
    "INFO": "cyan",
    "NONE": "green",
    "UNKNOWN": "bold magenta",
}
UNKNOWN = "?"
TABLE_HEAD_LINES: Final = 2
LEAST_ROWS: Final = 3
MOST_PROBLEMS: Final = 3
"""Findings that a screen of limited height shows; the rest is counted, and `liq status` names them."""


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
        return f"{UNKNOWN}..{number(row['score_high'])}" if row["score_high"] is not None else UNKNOWN
    if row["score_high"] is not None and row["score_high"] - row["risk"] >= 0.5:
        return f"{row['risk']:.0f}..{row['score_high']:.0f}"
    return f"{row['risk']:.0f}"


def _move(row: dict[str, Any]) -> str:
    """`DOWN -4.2 %`: a cascade under way takes the severity's place, in its width."""
    word = "DOWN" if row.get("under_way_side") == "long" else "UP"
    return f"{word} {row['excursion'] * 100:+.1f} %" if row.get("excursion") is not None else f"{word} now"


def _probability_cell(row: dict[str, Any]) -> str:
    return share(row["cascade_probability_4h"], 1)


def by_urgency(status: Status) -> list[str]:
    """The symbols, the most urgent first: a cascade under way, CRITICAL, what cannot be scored, then by risk."""
    rank = {"CRITICAL": 0, "UNKNOWN": 1, "WARNING": 2}

    def key(symbol: str) -> tuple[int, float, str]:
        row = status.symbols[symbol]
        if row.get("is_under_way"):
            return -1, -abs(row.get("excursion") or 0.0), symbol
        return rank.get(row["severity"], 3), -(row["risk"] if row["risk"] is not None else 0.0), symbol

    return sorted(status.symbols, key=key)


def symbols_table(status: Status, symbols: Sequence[str] | None = None) -> Table:
    """One row per symbol. symbols: which, in which order; None: all, the most urgent first."""
    # Fits a terminal of 80 columns: short heads, and the notes in lines of their own below.
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", style="bold", no_wrap=True)
    for heading in ("risk", "fund\n/30", "OI\n/30", "L/S\n/20", "liq\n/20", "flows", "P(4 h)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("at risk", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("known", justify="right", no_wrap=True)
    for symbol in by_urgency(status) if symbols is None else symbols:
        row = status.symbols[symbol]
        severity = row["severity"]
        text = Text(severity, style=SEVERITY_STYLE.get(severity, ""))
        if row.get("is_under_way"):
            text = Text(_move(row), style=SEVERITY_STYLE["CRITICAL"])
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
        )
    return table


def notes(status: Status, symbols: Sequence[str] | None = None) -> list[Text]:
    """What limits each score, and the base rates that probabilities are to be held against. symbols: of which."""
    rows = [(symbol, status.symbols[symbol]) for symbol in (by_urgency(status) if symbols is None else symbols)]
    lines = [Text(f"{symbol}: {row['note']}", style="dim") for symbol, row in rows if row["note"]]
    for symbol, row in rows:
        if row["severity_possible"] not in (row["severity"], "UNKNOWN"):
            lines.append(Text(f"{symbol}: possibly {row['severity_possible']}, if what is unknown is at its worst"))
    bases = {row["model_id"]: row["base_rate_4h"] for row in status.symbols.values() if row["base_rate_4h"] is not None}
    for model, base in bases.items():
        lines.append(Text(f"P(4 h): cascade within 4 hours by {model}; on average {base * 100:.1f} %", style="dim"))
    return lines


def budget_words(budget: dict[str, Any]) -> str:
    """What is used of each metered scope's window, such as `12 of 2160 in 60 s`, and what a stream's buffer holds."""
    words = [
        f"{scope['used']:.0f} of {scope['capacity']:.0f} in {age(scope['window_seconds'])}"
        for scope in budget.values()
        if isinstance(scope, dict) and scope.get("capacity")
    ]
    # The collector's rows hold its buffer beside the metered scopes, as plain numbers.
    if budget.get("buffered"):
        words.append(f"{budget['buffered']:,} of {budget['buffer']:,} events wait for Kafka")
    return ", ".join(words)


def _lag_words(lag: dict[str, int | None]) -> str:
    if all(behind is None for behind in lag.values()):  # of no topic too: nobody could be asked
        return "unknown"
    waiting = {topic: behind for topic, behind in lag.items() if behind != 0}
    words = ", ".join(f"{topic} {UNKNOWN if behind is None else behind}" for topic, behind in waiting.items())
    return f"messages: {words}" if waiting else "nothing"


def parts_table(status: Status) -> Table:
    """One row per server and source: where it is, how it is, what is used of its budget."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("part", no_wrap=True)
    table.add_column("state", overflow="fold")
    database, kafka = status.database, status.kafka
    if database.get("reachable"):
        room = growth.size_words(database["size_bytes"])
        edition = {"plain": "PostgreSQL", "none": "PostgreSQL"}.get(database["edition"], "TimescaleDB on PostgreSQL")
        table.add_row("database", f"{edition} {database['version']}, {room}")
    else:
        table.add_row("database", Text("away", style="bold red"))
    reachable = Text(kafka["bootstrap_servers"]) if kafka.get("reachable") else Text("away", style="bold red")
    table.add_row("kafka", reachable)
    table.add_row("not yet landed", _lag_words(status.lag))
    table.add_row("desk", status.desk.get("url") or UNKNOWN)
    table.add_row("dagster", status.dagster.get("url") or UNKNOWN)
    ticks = status.ticks
    if ticks.get("last") is not None:
        late = "" if ticks["late"] is None else f", {ticks['late']} late"
        table.add_row("ticks, last hour", f"{ticks['due']} due{late}, {ticks['missed']} missed")
    if status.storage:
        found = growth.Storage.from_dict(status.storage)
        for part in found.parts:
            name = {"postgres": "our tables", "dagster": "Dagster's events", "kafka": "Kafka's log"}[part.part]
            table.add_row(name, growth.words(part))
        table.add_row("disk", growth.room_words(found))
    if status.gaps_open:
        table.add_row("gaps", f"{status.gaps_open} open, see `liq gaps list`")
    if status.dead_letters.get("total"):
        table.add_row("dead letters", f"{status.dead_letters['total']}, see `liq dead-letters list`")
    for source in status.sources:
        state = Text(source["state"], style={"up": "green", "down": "bold red"}.get(source["state"], "yellow"))
        if source["reason"]:
            state.append(f": {source['reason']}", style="default")
        budget = budget_words(source["budget"])
        if budget:
            state.append(f"   {budget}", style="dim")
        table.add_row(source["name"], state)
    return table


def render(
    status: Status, now: datetime | None = None, *, height: int | None = None, width: int = 80, page: int = 0
) -> Group:
    """The whole screen. height: lines of the terminal, None for as many as it takes.

    Where the symbols do not fit, `page` (any number, it comes round) chooses which are shown; health and what is not
    shown always stand in view.
    """
    moment = now or datetime.now(UTC)
    head = _head(status, moment)
    health = _health(status, None if height is None else MOST_PROBLEMS)
    if height is None:
        body: list[Any] = [symbols_table(status), *notes(status)] if status.symbols else [_nothing_yet()]
        return Group(*head, *health, *body, _not_advice())
    used = sum(_lines(part, width) for part in head) + _panel_lines(health, width) + 1
    rows = max(height - used - TABLE_HEAD_LINES - 1, LEAST_ROWS)
    ordered = by_urgency(status)
    if not ordered:
        return Group(*head, *health, _nothing_yet(), _not_advice())
    pages = -(-len(ordered) // rows)
    at = page % pages * rows
    shown = ordered[at : at + rows]
    parts: list[Any] = [*head, *health, symbols_table(status, shown)]
    if pages > 1:
        words = (
            f"{at + 1} to {at + len(shown)} of {len(ordered)} symbols by urgency, {len(ordered) - len(shown)} not shown"
        )
        parts.append(Text(words, style="bold"))
    room = rows - len(shown) - (pages > 1)
    for note in notes(status, shown):
        lines = _lines(note, width)
        if lines > room:
            break
        parts.append(note)
        room -= lines
    return Group(*parts, _not_advice())


def _head(status: Status, moment: datetime) -> list[Text]:
    if status.world == "real":
        banner = Text("REAL MARKETS", style="bold green")
    elif status.world is None and status.database.get("reachable"):
        banner = Text("NO WORLD: the database names none that is active.", style="bold black on yellow")
    elif status.world is None:
        # A live installation looks the same from here: "not real" would be believed.
        words = "WORLD UNKNOWN: the database cannot be asked, so this may be a real market."
        banner = Text(words, style="bold black on yellow")
    else:
        banner = Text(f"NOT REAL: world {status.world}. Nothing here is a market.", style="bold black on yellow")
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
    return [banner, Text(line)]


def _health(status: Status, most: int | None) -> list[Panel]:
    """The panel of what is wrong, above the symbols; most: how many findings a small screen has room for."""
    if not status.problems:
        return []
    shown = status.problems if most is None else status.problems[:most]
    lines = [*shown]
    if len(shown) < len(status.problems):
        lines.append(f"... and {len(status.problems) - len(shown)} more: `liq status`")
    return [Panel("\n".join(lines), title=f"health: {status.health}", border_style="red", expand=False)]


def _lines(text: Text, width: int) -> int:
    return max(1, -(-len(text.plain) // width))


def _panel_lines(panels: Sequence[Panel], width: int) -> int:
    inner = width - 4
    return sum(
        2 + sum(max(1, -(-len(line) // inner)) for line in str(panel.renderable).split("\n")) for panel in panels
    )


def _nothing_yet() -> Text:
    return Text("No scores yet.", style="dim")


def _not_advice() -> Text:
    return Text("Not financial advice.", style="dim")
