"""The page of a replay: one HTML file that a risk desk reads from top to bottom, nothing loaded from anywhere.

Belongs here: words and tables. Does not: gathering (story.py), pictures (charts.py).
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from liq_pipeline.evaluation.labels.version_1 import CascadeEvent
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.paging.outcomes import Outcome
from liq_pipeline.evaluation.report.html_page import STYLE
from liq_pipeline.replay.charts import MARKS, symbol_picture
from liq_pipeline.replay.story import Said, Story, SymbolSeries, Told
from liq_pipeline.settings import Settings

_STYLE: Final = (
    STYLE
    + """
body{max-width:1180px}.banner{background:#b3201a;color:#fff;padding:.6rem 1rem;border-radius:6px;font-weight:600}
pre{white-space:pre-wrap;background:#f3f5f7;padding:.6rem;border-radius:6px;font-size:.85em;max-height:26rem;overflow:auto}
td{vertical-align:top}.log td,.log th{text-align:left}.tag{color:#fff;border-radius:4px;padding:0 .4rem;font-size:.85em}
summary{cursor:pointer}.side{display:grid;grid-template-columns:1fr 1fr;gap:1rem}.nowrap{white-space:nowrap}
@media(max-width:640px){.side{grid-template-columns:1fr}pre{font-size:.78em;max-height:none}.log td{white-space:normal}
.log td:first-child,.log th:first-child{position:static;min-width:0}}
"""
)
_VERDICTS: Final = {
    "right": "right: a cascade began",
    "late": "late: told while one was running",
    "false": "false: no cascade followed",
    "open": "open: the time that it claims is not over in this data",
}


def write_page(story: Story, settings: Settings, path: Path) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(story, settings), encoding="utf-8")


def render(story: Story, settings: Settings) -> str:
    """The page as text."""
    day = f"{story.first:%Y-%m-%d %H:%M} to {story.last:%Y-%m-%d %H:%M} UTC"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>What would it have said? {_text(day)}</title><style>{_STYLE}</style></head><body>",
        "<h1>What would it have said?</h1>",
        f"<p>{_text(day)}, {_text(', '.join(story.symbols))}; world <b>{_text(story.world.name)}</b>,"
        f" {_how(story)}.</p>",
        _banner(story),
        _said_of_it(story),
        _cards(story),
        "<h2>What happened</h2>",
        _events(story),
        "<h2>What people would have been told</h2>",
        _messages(story.told),
        *(_comparison(story, story.what_if) if story.what_if else ()),
        "<h2>Hour by hour</h2>",
        *(_symbol(story, symbol, settings) for symbol in story.symbols),
        f"<p class='note'>Scores {_text(story.told.score_version)}, model {_text(story.model.model_id)}, label version"
        f" 1. Made at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Not financial advice.</p></body></html>",
    ]
    return "\n".join(parts)


def _how(story: Story) -> str:
    if story.is_stored:
        return "scored again from the rows in the store, in memory: nothing was written, nothing was sent to anybody"
    return (
        "played through the same landing, scoring and alerting as live data in a throw-away world; nothing was sent to"
        " anybody"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _banner(story: Story) -> str:
    if story.world.kind == "simulated":
        return (
            "<p class='banner'>SIMULATED: this market was made up by the simulator. It proves nothing about alarms.</p>"
        )
    trained = _trained_on_it(story)
    return f"<p class='banner'>{_text(trained)}</p>" if trained else ""


def _trained_on_it(story: Story) -> str:
    """One sentence if the model had seen this day in training."""
    try:
        first = datetime.fromisoformat(str(story.model.facts["trained_from"]))
        last = datetime.fromisoformat(str(story.model.facts["trained_to"]))
    except (KeyError, ValueError):
        return ""
    if story.first > last or story.last < first:
        return ""
    return (
        f"In sample: {story.model.model_id} was trained on {first:%Y-%m-%d} to {last:%Y-%m-%d}, this day among it. Its"
        " probabilities here are kinder than they would have been; the risk score learns nothing and is not affected."
    )


def _said_of_it(story: Story) -> str:
    notes = [*story.said_of_it]
    shares: dict[str, list[str]] = {}
    for symbol in story.symbols:
        series = story.told.series[symbol]
        for note, count in list(series.notes.items())[:4]:
            shares.setdefault(note, []).append(f"{symbol} {count / max(series.time.size, 1):.0%}")
    notes += [f"{note} (share of the points: {', '.join(of)})" for note, of in shares.items()]
    return (
        "<div class='limits'><b>Read with this in mind</b><ul>"
        + "".join(f"<li>{_text(note)}</li>" for note in notes)
        + "</ul></div>"
    )


def _cards(story: Story) -> str:
    first, last = story.first.timestamp(), story.last.timestamp()
    inside = (story.panel.time >= first) & (story.panel.time <= last)
    cards = []
    for symbol in story.symbols[:3]:
        price = story.panel["price_usd"][story.panel.symbols.index(symbol), inside]
        price = price[np.isfinite(price)]
        if price.size:
            fall = float((price / np.maximum.accumulate(price) - 1.0).min())
            cards.append((f"{fall:+.1%}", f"{symbol}: deepest fall from a high within the stretch"))
    in_time = [e for e in story.events[4] if e.onset <= last]
    told = [m for m in story.told.messages if m.rule != "blind" and m.kind != "resolved"]
    cards.append(
        (str(len(in_time)), f"{'cascade' if len(in_time) == 1 else 'cascades'} within 4 h began (label version 1)")
    )
    cards.append((str(story.told.pages), f"{'page' if story.told.pages == 1 else 'pages'} to people"))
    if told and in_time:
        onset = min(e.onset for e in in_time)
        lead = (onset - told[0].time.timestamp()) / 60.0
        cards.append((f"{lead:+.0f} min", "first page before (+) or after (-) the first onset"))
    lowest = min((float(np.nanmin(s.values["coverage"])) for s in story.told.series.values() if s.time.size), default=0)
    cards.append((f"{lowest:.0%}", "lowest coverage"))
    return (
        "<div class='cards'>"
        + "".join(f"<div class='card'><b>{_text(value)}</b>{_text(name)}</div>" for value, name in cards)
        + "</div>"
    )


def _events(story: Story) -> str:
    rows = []
    for hours, events in story.events.items():
        for e in events:
            if e.symbol not in story.symbols or e.onset > story.last.timestamp() + 86_400:
                continue
            grade = ", ".join(
                word
                for word, holds in (
                    ("major", e.is_major),
                    ("systemic", e.is_systemic),
                    ("first shock", e.is_first_shock),
                )
                if holds
            )
            rows.append(
                (
                    e.symbol,
                    f"{hours} h",
                    _clock(e.onset),
                    _clock(e.peak),
                    f"{e.price_move:+.1%}",
                    f"{e.open_interest_move:+.1%}",
                    grade or "-",
                    _told_before(story.told.messages, e.symbol, e.onset),
                    _told_while(story, e) if hours == desk.DESK_HORIZON_HOURS else "",
                )
            )
    if not rows:
        return "<p>No cascade by label version 1 in this stretch or the day after it.</p>"
    head = (
        *("symbol", "horizon", "onset", "peak", "price", "open interest", "grade"),
        *("told in the 4 h before", "told while it ran (4 h)"),
    )
    return _table(head, rows)


def _told_while(story: Story, event: CascadeEvent) -> str:
    """The first message that named the symbol as under way while its cascade ran, and how much of the move was left."""
    for message in sorted(story.told.messages, key=lambda m: m.time):
        at = message.time.timestamp()
        if message.rule == "under_way" and message.kind != "resolved" and event.symbol in message.symbols:
            if not event.start <= at <= event.peak:
                continue
            price = story.panel["price_usd"][story.panel.symbols.index(event.symbol)]
            start, row = (int(np.searchsorted(story.panel.time, t, side="right")) - 1 for t in (event.start, at))
            left = 1.0 - abs(price[row] / price[start] - 1.0) / abs(event.price_move)
            delay = (at - event.onset) / 60.0
            when = f"{delay:.0f} min after onset" if delay >= 0 else f"{-delay:.0f} min before onset"
            return f"{message.time:%H:%M}, {when}, {left:.0%} of the move left"
    return "nothing" if story.first.timestamp() <= event.onset <= story.last.timestamp() else "not scored"


def _told_before(messages: Sequence[Said], symbol: str, onset: int) -> str:
    """The newest message that spoke of the symbol in the 4 h before the onset."""
    before = [
        m
        for m in messages
        if m.rule not in ("blind", "under_way")
        and m.kind != "resolved"
        and (symbol in m.symbols)
        and 0 < onset - m.time.timestamp() <= 4 * 3600
    ]
    if not before:
        return "nothing"
    return (
        f"{before[0].severity} {before[0].rule.replace('_', ' ')}, {(onset - before[0].time.timestamp()) / 60:.0f} min"
    )


def _messages(told: Told) -> str:
    if not told.messages:
        return "<p>Nothing: no alert reached the level that is sent.</p>"
    rows = []
    for message in told.messages:
        colour = MARKS.get(message.severity, "#1b2733")
        receipt = json.dumps(message.receipt, indent=1, default=str)
        rows.append(
            f"<tr><td class='nowrap'>{message.time:%m-%d %H:%M}</td>"
            f"<td><span class='tag' style='background:{colour}'>{_text(message.severity)}</span></td>"
            f"<td><details><summary>{_text(message.title)}</summary><pre>{_text(message.body)}</pre>"
            f"<details><summary>receipt</summary><pre>{_text(receipt)}</pre></details></details></td>"
            f"<td>{_outcome(message.outcome)}</td></tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in ("time (UTC)", "level", "message", "what happened"))
    return (
        f"<div class=wide><table class='log'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _outcome(outcome: Outcome | None) -> str:
    if outcome is None:
        return "-"
    if outcome.alert.rule == "under_way":
        return _text(_under_way_outcome(outcome))
    words = _VERDICTS[outcome.verdict]
    if outcome.lead_minutes is not None and outcome.event is not None:
        words += f" {outcome.lead_minutes:.0f} min later ({outcome.event.symbol} {outcome.event.price_move:+.1%})"
    if outcome.largest_move is not None:
        words += f"; largest move {outcome.largest_move:+.1%}"
    return _text(words)


def _under_way_outcome(outcome: Outcome) -> str:
    """What became of a page that said a cascade is running, both ways."""
    if outcome.verdict == "right" and outcome.delay_minutes is not None and outcome.event is not None:
        delay = outcome.delay_minutes
        when = f"{delay:.0f} min after" if delay >= 0 else f"{-delay:.0f} min before"
        words = f"right: told {when} the onset ({outcome.event.symbol} {outcome.event.price_move:+.1%})"
    else:
        words = {"false": "false: no cascade ran", "open": _VERDICTS["open"]}.get(outcome.verdict, outcome.verdict)
    if outcome.further_move_1h is not None and outcome.adverse_move_1h is not None:
        words += f"; within 1 h {outcome.further_move_1h:.1%} further, {outcome.adverse_move_1h:.1%} back"
    return words


def _symbol(story: Story, symbol: str, settings: Settings) -> str:
    if not story.told.series[symbol].time.size:
        return f"<h3>{_text(symbol)}</h3><p>No point of it was scored.</p>"
    picture = symbol_picture(story, story.told, symbol, settings.severity)
    if story.what_if is None:
        return f"<h3>{_text(symbol)}</h3>{picture}"
    other = symbol_picture(story, story.what_if, symbol, settings.severity, story.told.series[symbol])
    changed = ", ".join(f"{name}={value}" for name, value in story.what_if.settings_changed.items())
    return (
        f"<h3>{_text(symbol)}</h3><div class='side'><div><b>as it was</b>{picture}</div>"
        f"<div><b>with {_text(changed)}</b>{other}</div></div>"
    )


def _comparison(story: Story, other: Told) -> Iterable[str]:
    changed = ", ".join(f"{name}={value}" for name, value in other.settings_changed.items())
    yield f"<h2>And with {_text(changed)}?</h2>"
    yield (
        "<p>The same stored rows scored again under those settings, in memory; nothing was overwritten."
        f" Scores {_text(story.told.score_version)} against {_text(other.score_version)}.</p>"
    )
    yield comparison_table(story.told, other, story.symbols)
    yield "<h3>Messages under those settings</h3>"
    yield _messages(other)


def comparison_table(base: Told, other: Told, symbols: Sequence[str]) -> str:
    """Both readings side by side."""
    rows = []
    for name, mine, theirs in compared(base, other, symbols):
        rows.append((name, mine, theirs))
    return _table(("", "as it was", "under those settings"), rows)


def compared(base: Told, other: Told, symbols: Sequence[str]) -> list[tuple[str, str, str]]:
    """(what, as it was, under the other settings) for people."""
    rows: list[tuple[str, str, str]] = [
        ("pages to people", str(base.pages), str(other.pages)),
        ("messages", str(len(base.messages)), str(len(other.messages))),
    ]
    for symbol in symbols:
        mine, theirs = base.series[symbol], other.series[symbol]
        for label, name in (("highest risk", "score"), ("mean risk", "score"), ("mean coverage", "coverage")):
            of = np.nanmax if label.startswith("highest") else np.nanmean
            rows.append((f"{symbol} {label}", _figure(mine.values[name], of), _figure(theirs.values[name], of)))
        levels = ("INFO", "WARNING", "CRITICAL", "UNKNOWN")
        rows += [(f"{symbol} time at {level}", _share(mine, level), _share(theirs, level)) for level in levels]
    return rows


def _share(series: SymbolSeries, level: str) -> str:
    return f"{sum(s == level for s in series.severity) / max(len(series.severity), 1):.1%}"


def _figure(values: Any, of: Any) -> str:
    return f"{of(values):.2f}" if np.isfinite(values).any() else "unknown"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<div class=wide><table><thead><tr>{''.join(f'<th>{_text(h)}</th>' for h in head)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _clock(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%m-%d %H:%M}"
