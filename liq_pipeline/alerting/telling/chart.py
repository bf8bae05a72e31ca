"""A message's picture: price, open interest and liquidations of the last hours, to be read on a phone.

Belongs here: drawing. Does not: reading the series (alerting/last_hours.py), sending (alerting/sending/pictures.py).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from textwrap import wrap
from typing import Any, Final

INK: Final = "#1b2733"
AMBER: Final = "#c27a12"
RED: Final = "#b3201a"
GREEN: Final = "#2e7d4f"
VIOLET: Final = "#6a3fb5"
_TITLE_WIDTH: Final = 70
"""Characters that fit into a line of the title."""


@dataclass(frozen=True)
class LastHours:
    """What a picture shows of one symbol. Times are UTC; unknown is a missing point, never a zero.

    price: (time, USD). open_interest: (time, coins). liquidated: (time of the bar's start, USD of longs, of shorts), or
    None if no venue's feed was read. started_at: where the move began that the message is about.
    """

    symbol: str
    first: datetime
    last: datetime
    price: Sequence[tuple[datetime, float]]
    open_interest: Sequence[tuple[datetime, float]]
    liquidated: Sequence[tuple[datetime, float, float]] | None
    started_at: datetime | None = None
    mark: str = ""
    """`SIMULATED` or `RECORDED`: written across the picture of a world that is not the real one."""


def draw(shown: LastHours, title: str) -> bytes:
    """A PNG of about 900 by 700 pixels."""
    from matplotlib import dates
    from matplotlib.figure import Figure  # drawing is the only part of the program that needs it

    figure = Figure(figsize=(6.0, 4.7), dpi=150, layout="constrained")
    price, interest, forced = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1.7, 1.5]})
    figure.suptitle("\n".join(wrap(title, _TITLE_WIDTH)[:2]), fontsize=9, fontweight="bold", color=INK)
    _line(price, shown.price, INK, f"{shown.symbol}, USD")
    _line(interest, shown.open_interest, AMBER, "open interest,\ncoins")
    _forced(forced, shown)
    axes: Any = dates  # its constructors carry no types
    locator = axes.AutoDateLocator(tz=UTC, minticks=4, maxticks=8)
    forced.xaxis.set_major_locator(locator)
    forced.xaxis.set_major_formatter(axes.DateFormatter("%H:%M", tz=UTC))
    forced.set_xlim(shown.first, shown.last)
    forced.set_xlabel(f"UTC, up to {shown.last:%Y-%m-%d %H:%M}", fontsize=8)
    for part in (price, interest, forced):
        part.spines[["top", "right"]].set_visible(False)
        part.tick_params(labelsize=8)
        part.grid(axis="y", color="#e3e7eb", lw=0.6)
        part.set_axisbelow(True)
        if shown.started_at is not None:
            part.axvspan(max(shown.started_at, shown.first), shown.last, color=VIOLET, alpha=0.10, lw=0)
    if shown.mark:
        figure.text(
            0.55, 0.62, shown.mark, fontsize=34, color=RED, alpha=0.25, rotation=20, ha="center", fontweight="bold"
        )
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def _line(axes: Any, points: Sequence[tuple[datetime, float]], colour: str, label: str) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.set_ylabel(label, fontsize=8, color=colour)
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    if not points:
        _unknown(axes)
        return
    axes.plot([time for time, _ in points], [value for _, value in points], color=colour, lw=1.3)


def _forced(axes: Any, shown: LastHours) -> None:
    axes.set_ylabel("liquidated,\nM USD", fontsize=8, color=INK)
    if shown.liquidated is None:
        _unknown(axes)
        return
    bars = [(time, longs / 1e6, shorts / 1e6) for time, longs, shorts in shown.liquidated]
    if not bars:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", fontsize=9, color=INK)
        axes.set_yticks([])
        return
    times, width = [time for time, _, _ in bars], 4.6 / 1440
    longs, shorts = [one for _, one, _ in bars], [other for _, _, other in bars]
    axes.bar(times, longs, width=width, align="edge", color=RED, label="longs")
    axes.bar(times, shorts, width=width, align="edge", color=GREEN, bottom=longs, label="shorts")
    axes.legend(fontsize=7, frameon=False, loc="upper left", ncols=2, borderaxespad=0.1)


def _unknown(axes: Any) -> None:
    axes.text(0.5, 0.5, "unknown", transform=axes.transAxes, ha="center", va="center", fontsize=9, color=INK)
    axes.set_yticks([])


def _number(value: float, _position: int) -> str:
    if abs(value) >= 1e9:
        return f"{value / 1e9:,.2f} G"
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.2f} M"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 0.001 or value == 0:
        return f"{value:.4g}"
    return f"{value:.10f}".rstrip("0")
