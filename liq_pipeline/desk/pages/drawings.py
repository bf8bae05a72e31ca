"""Small pictures as SVG, made on the server: they need no script and no inline style.

Belongs here: shapes from numbers. Does not: what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup, escape

from liq_pipeline.desk.pages.words import COMPONENTS
from liq_pipeline.desk.read.levels import LevelMap

HEAT_REACH: Final = 0.06
"""The heat reaches so far beyond the prices of its span."""
HEAT_ROWS: Final = 44
HEAT_SHADES: Final = 8


def spark(values: Sequence[float | None], label: str, *, width: int = 96, height: int = 24) -> Markup:
    """A line of 0..100 values; where one is unknown the line is broken."""
    if not any(value is not None for value in values):
        return Markup('<span class="unknown">unknown</span>')
    step = width / max(len(values) - 1, 1)
    parts: list[str] = []
    pen_down = False
    for place, value in enumerate(values):
        if value is None:
            pen_down = False
            continue
        y = 1 + (height - 2) * (1 - min(max(value, 0.0), 100.0) / 100)
        parts.append(f"{'L' if pen_down else 'M'}{place * step:.1f} {y:.1f}")
        if not pen_down and (place + 1 >= len(values) or values[place + 1] is None):
            parts.append("h.6")  # a lone point is seen as well
        pen_down = True
    thresholds = "".join(
        f'<path class="grid" d="M0 {1 + (height - 2) * (1 - level / 100):.1f}H{width}"/>' for level in (50, 70)
    )
    return Markup(
        '<svg class="spark" role="img" aria-label="{}" width="{w}" height="{h}" viewBox="0 0 {w} {h}">'
        '{}<path d="{}"/></svg>'
    ).format(label, Markup(thresholds), "".join(parts), w=width, h=height)  # noqa: S704 - numbers and own words


def meter(value: float | None, high: float | None, level: str, *, width: int = 120, height: int = 8) -> Markup:
    """Risk on a scale of 100 with the range up to what is possible, and ticks at the thresholds."""
    known = 0.0 if value is None else min(max(value, 0.0), 100.0)
    possible = known if high is None else min(max(high, known), 100.0)
    scale = width / 100
    return Markup(
        '<svg class="meter {}" aria-hidden="true" width="{w}" height="{h}" viewBox="0 0 {w} {h}">'
        '<rect class="track" width="{w}" height="{h}" rx="2"/>'
        '<rect class="possible" x="{x}" width="{pw}" height="{h}"/>'
        '<rect class="known" width="{kw}" height="{h}" rx="2"/>'
        '<path class="tick" d="M{t1} 0V{h}M{t2} 0V{h}M{t3} 0V{h}"/></svg>'
    ).format(
        level,
        w=width,
        h=height,
        x=f"{known * scale:.1f}",
        pw=f"{(possible - known) * scale:.1f}",
        kw=f"{known * scale:.1f}",
        t1=f"{30 * scale:.1f}",
        t2=f"{50 * scale:.1f}",
        t3=f"{70 * scale:.1f}",
    )


def bar(value: float | None, budget: float, *, width: int = 88, height: int = 6) -> Markup:
    """Points of a component against its budget; hatched where they are unknown."""
    if value is None:
        return Markup(
            '<svg class="bar none" aria-hidden="true" width="{w}" height="{h}" viewBox="0 0 {w} {h}">'
            '<rect class="track" width="{w}" height="{h}" rx="2"/></svg>'
        ).format(w=width, h=height)
    share = min(max(value / budget, 0.0), 1.0) * width
    return Markup(
        '<svg class="bar" aria-hidden="true" width="{w}" height="{h}" viewBox="0 0 {w} {h}">'
        '<rect class="track" width="{w}" height="{h}" rx="2"/>'
        '<rect class="known" width="{s}" height="{h}" rx="2"/></svg>'
    ).format(w=width, h=height, s=f"{share:.1f}")


def heat(maps: Sequence[LevelMap], *, width: int = 640, height: int = 220) -> Markup:
    """The liquidation map over time: a column a map, a row a price, darker where more would be closed by force."""
    known = [one for one in maps if one.reference_usd is not None and one.long_notional_usd and one.short_notional_usd]
    if not known:
        return Markup('<span class="unknown">unknown</span>')
    low = min((one.reference_usd or 0.0) for one in known) * (1 - HEAT_REACH)
    high = max((one.reference_usd or 0.0) for one in known) * (1 + HEAT_REACH)
    first, last = known[0].time.timestamp(), known[-1].time.timestamp()
    columns = max(len(known), 1)
    wide, tall = width / columns, height / HEAT_ROWS
    cells: list[tuple[int, int, str, float]] = []
    for place, one in enumerate(known):
        sums: dict[tuple[int, str], float] = {}
        for side, sign, notional in (
            ("long", -1.0, one.long_notional_usd or []),
            ("short", 1.0, one.short_notional_usd or []),
        ):
            for k, usd in enumerate(notional):
                price = (one.reference_usd or 0.0) * (1 + sign * (k + 0.5) * one.bin_width)
                row = int((high - price) / (high - low) * HEAT_ROWS)
                if 0 <= row < HEAT_ROWS:
                    sums[row, side] = sums.get((row, side), 0.0) + usd
        cells += [(place, row, side, usd) for (row, side), usd in sums.items()]
    largest = max((usd for *_, usd in cells), default=0.0)
    # One path per side and shade: a rectangle each would be as long as the rest of the page.
    paths: dict[tuple[str, int], list[str]] = {}
    for place, row, side, usd in cells:
        shade = round(HEAT_SHADES * (usd / largest) ** 0.5) if largest > 0 else 0
        if shade:
            paths.setdefault((side, shade), []).append(
                f"M{place * wide:.1f} {row * tall:.1f}h{wide:.1f}v{tall:.1f}h-{wide:.1f}z"
            )
    shapes = [
        f'<path class="heat-{side}" fill-opacity="{0.8 * shade / HEAT_SHADES:.2f}" d="{"".join(parts)}"/>'
        for (side, shade), parts in sorted(paths.items())
    ]
    line = "L".join(
        f"{(place + 0.5) * wide:.1f} {(high - (one.reference_usd or 0.0)) / (high - low) * height:.1f}"
        for place, one in enumerate(known)
    )
    shapes.append(f'<path class="price" d="M{line}"/>')
    hours = (last - first) / 3600
    label = f"Estimated liquidation levels over {hours:.0f} h, from {low:,.6g} to {high:,.6g} USD"
    return Markup(
        '<svg class="heat" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>'
    ).format(
        label,
        width,
        height,
        Markup("".join(shapes)),  # noqa: S704 - numbers and own words
    )


def waterfall(components: Sequence[Mapping[str, Any]], score: float | None, high: float | None) -> Markup:
    """How the points of the components add up to the score, and what is possible beyond it."""
    width, row, left, right = 640, 30, 130, 86
    scale = (width - left - right) / 100
    lines: list[str] = []
    total, y = 0.0, 24

    def text(x: float, at: float, words: str, kind: str, anchor: str = "start") -> str:
        return f'<text class="{kind}" x="{x:.1f}" y="{at:.1f}" text-anchor="{anchor}">{escape(words)}</text>'

    def rect(kind: str, start: float, length: float) -> str:
        return (
            f'<rect class="{kind}" x="{left + start * scale:.1f}" y="{y - 11}" width="{max(length * scale, 1):.1f}"'
            ' height="16" rx="2"/>'
        )

    bottom = 24 + row * (len(components) + 2)
    for level in (0, 30, 50, 70, 100):
        x = left + level * scale
        lines.append(f'<path class="grid" d="M{x:.1f} 8V{bottom - 24}"/>')
        lines.append(text(x, bottom - 8, str(level), "axis", "middle"))
    for component in components:
        name = COMPONENTS.get(component["name"], (component["name"], 0))[0]
        points, budget = component["points"], component["budget"]
        lines.append(text(0, y + 2, name, "name"))
        if points is None:
            lines.append(rect("possible", total, 0.4))
            lines.append(text(width, y + 2, f"unknown of {budget:.0f}", "value unknown", "end"))
        else:
            lines.append(rect("known", total, points))
            total += points
            lines.append(f'<path class="join" d="M{left + total * scale:.1f} {y - 11}v{row + 16}"/>')
            lines.append(text(width, y + 2, f"{points:.1f} of {budget:.0f}", "value", "end"))
        y += row
    lines.append(text(0, y + 2, "Score", "name total"))
    if score is None:
        lines.append(text(width, y + 2, "unknown", "value unknown", "end"))
    else:
        lines.append(rect("total", 0, score))
        if high is not None and high > score:
            lines.append(rect("possible", score, high - score))
        words = f"{score:.1f}" if high is None or high - score < 0.05 else f"{score:.1f}\u2026{high:.1f}"
        lines.append(text(width, y + 2, words, "value total", "end"))
    return Markup(
        '<svg class="waterfall" role="img" aria-label="How the points add up to the score; the table below says the'
        ' same" viewBox="0 0 {} {}">{}</svg>'
    ).format(width, bottom, Markup("".join(lines)))  # noqa: S704 - every word in it is escaped above
