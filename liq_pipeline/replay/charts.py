"""One picture per symbol: price, risk by component, coverage and probability over the stretch.

Belongs here: drawing. Does not: figures, words (page.py).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from liq_pipeline.replay.story import COMPONENTS, Said, Story, SymbolSeries, Told
from liq_pipeline.settings import SeveritySettings

COLOURS: Final = {"funding": "#2f6db5", "open_interest": "#e0952c", "long_short": "#6aa56f", "liquidation": "#b8433d"}
WORDS: Final = {
    "funding": "funding",
    "open_interest": "open interest",
    "long_short": "long/short",
    "liquidation": "liquidations",
}
MARKS: Final = {"INFO": "#7d8a96", "WARNING": "#d98a00", "CRITICAL": "#b3201a", "NONE": "#3d8a4b"}
INK: Final = "#1b2733"
PALE: Final = "#9aa5b1"
LOOK_AROUND_SECONDS: Final = 6 * 3600
"""The price is drawn this far before and behind the scored stretch."""


def symbol_picture(
    story: Story, told: Told, symbol: str, severity: SeveritySettings, alone: SymbolSeries | None = None
) -> str:
    """An inline SVG. alone: the series of the other reading, drawn thin for comparison."""
    from matplotlib import dates
    from matplotlib.figure import Figure  # drawing is the only part of the program that needs it

    series = told.series[symbol]
    figure = Figure(figsize=(11.5, 7.6), layout="constrained")
    price, risk, coverage, probability = figure.subplots(
        4, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 0.7, 2]}
    )
    _price(price, story, told, symbol)
    times = _times(series.time)
    _risk(risk, series, times, severity, alone)
    _coverage(coverage, series, times)
    _probability(probability, story, series, times, alone)
    first, last = story.first.timestamp() - LOOK_AROUND_SECONDS, story.last.timestamp() + LOOK_AROUND_SECONDS
    probability.set_xlim(_time(first), _time(min(last, float(story.panel.time[-1]))))
    ticks: Any = dates  # its constructors carry no types
    locator = ticks.AutoDateLocator(tz=UTC)
    probability.xaxis.set_major_locator(locator)
    probability.xaxis.set_major_formatter(ticks.ConciseDateFormatter(locator, tz=UTC))
    for axes in (price, risk, coverage, probability):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        for edge in (story.first, story.last):
            axes.axvline(edge, color=PALE, lw=0.8, ls=":")
        for event in story.events[4]:
            if event.symbol == symbol:
                axes.axvspan(_time(event.onset), _time(event.peak), color="#b3201a", alpha=0.10, lw=0)
        for began, ended in under_way_spans(told.messages, symbol, story.last):
            axes.axvspan(began, ended, ymin=0.0, ymax=0.04, color="#6a3fb5", alpha=0.85, lw=0)
    probability.set_xlabel(
        "UTC; dotted: the scored stretch; red: a cascade (4 h), onset to peak; violet: under way, from told to over",
        fontsize=8,
    )
    return _svg(figure)


def under_way_spans(messages: Sequence[Said], symbol: str, last: datetime) -> list[tuple[datetime, datetime]]:
    """From the message that first named the symbol as under way to the one that said it is over (or the end)."""
    spans = []
    began: dict[str, datetime] = {}
    for message in sorted((m for m in messages if m.rule == "under_way"), key=lambda m: m.time):
        identity = str(message.receipt.get("alert_id"))
        if message.kind == "resolved":
            if identity in began:
                spans.append((began.pop(identity), message.time))
        elif symbol in message.symbols:
            began.setdefault(identity, message.time)
    return [*spans, *((since, last) for since in began.values())]


def _price(axes: Any, story: Story, told: Told, symbol: str) -> None:
    panel = story.panel
    around = (panel.time >= story.first.timestamp() - LOOK_AROUND_SECONDS) & (
        panel.time <= story.last.timestamp() + LOOK_AROUND_SECONDS
    )
    values = panel["price_usd"][panel.symbols.index(symbol), around]
    axes.plot(_times(panel.time[around]), values, color=INK, lw=1.1)
    interest = panel["open_interest_base"][panel.symbols.index(symbol), around]
    if np.isfinite(interest).any():
        other = axes.twinx()
        other.plot(_times(panel.time[around]), interest, color="#e0952c", lw=0.9, alpha=0.8)
        other.set_ylabel("open interest, coins", fontsize=8, color="#b87514")
        other.tick_params(labelsize=7)
        other.spines[["top"]].set_visible(False)
    axes.set_ylabel(f"{symbol}, USD", fontsize=9)
    for message in _of(told.messages, symbol):
        at = np.searchsorted(panel.time[around], message.time.timestamp())
        if at >= values.size or message.kind == "resolved":
            continue
        axes.axvline(message.time, color=MARKS.get(message.severity, INK), lw=1.2)
        axes.plot(
            [message.time], [values[at]], "v", ms=8, color=MARKS.get(message.severity, INK), mec="white", zorder=5
        )


def _risk(axes: Any, series: SymbolSeries, times: Any, severity: SeveritySettings, other: SymbolSeries | None) -> None:
    parts = [np.nan_to_num(series.values[f"{name}_points"]) for name in COMPONENTS]
    known = np.isfinite(series.values["score"])
    if series.time.size:
        axes.stackplot(
            times,
            [np.where(known, part, np.nan) for part in parts],
            colors=[COLOURS[name] for name in COMPONENTS],
            labels=[WORDS[name] for name in COMPONENTS],
            alpha=0.75,
            lw=0,
        )
        axes.plot(times, series.values["score_high"], color=INK, lw=0.7, ls="--", label="possible up to")
    if other is not None:
        axes.plot(_times(other.time), other.values["score"], color=INK, lw=1.0, label="under the settings in force")
    for level in (severity.info_risk, severity.warning_risk, severity.critical_risk):
        axes.axhline(level, color=PALE, lw=0.7)
    axes.set_ylim(0, 100)
    axes.set_ylabel("risk, 0 to 100", fontsize=9)
    axes.legend(fontsize=7, ncols=3, loc="upper left", frameon=False)


def _coverage(axes: Any, series: SymbolSeries, times: Any) -> None:
    axes.fill_between(times, 0, series.values["coverage"], color="#6b7f92", alpha=0.6, lw=0, step="post")
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1], ["0", "1"])
    axes.set_ylabel("coverage", fontsize=8)


def _probability(axes: Any, story: Story, series: SymbolSeries, times: Any, other: SymbolSeries | None) -> None:
    for hours, colour in ((1, "#6aa56f"), (4, "#1f5fa8"), (24, "#8d6bb0")):
        values = 100.0 * series.values[f"probability_{hours}h"]
        if np.isfinite(values).any():
            axes.plot(times, values, color=colour, lw=1.2 if hours == 4 else 0.8, label=f"within {hours} h")
    if other is not None:
        axes.plot(_times(other.time), 100.0 * other.values["probability_4h"], color=INK, lw=0.8, ls="--")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("cascade, %", fontsize=9)
    axes.legend(fontsize=7, ncols=4, loc="upper left", frameon=False)


def _of(messages: Sequence[Said], symbol: str) -> list[Said]:
    return [message for message in messages if symbol in message.symbols and message.rule != "blind"]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)


def _times(seconds: Any) -> list[datetime]:
    return [_time(second) for second in seconds]


def _svg(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return f"<img alt='' src='data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"
