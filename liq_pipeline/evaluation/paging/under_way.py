"""Under-way figures: pages that say a cascade has begun, held against the cascades that happened (CONTRACTS.md).

Belongs here: pages of the rule on a grid, their verdicts, what followed them. Does not: the rule (scoring/under_way/),
the alert machine itself (alerting/deciding/; a test holds the pages here equal to its), early warnings (desk.py).

A page opens per symbol and side. A *market page* is all openings of which none lies more than 30 min after the one
before. *Move left* is hindsight over events and no promise of direction: what the price did after each page, both ways,
stands beside it with the same at other times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.figures.metrics import share_interval
from liq_pipeline.evaluation.labels.version_1 import CascadeEvent
from liq_pipeline.scoring.under_way.excursions import DIRECTIONS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

WEEK_SECONDS: Final = 7 * 86_400
MARKET_SECONDS: Final = 30 * 60
HORIZONS_HOURS: Final = (1, 4)
QUANTILES: Final = (10, 50, 90)
ORDINARY_TIMES: Final = 500
"""Ordinary times per symbol that pages are compared with, evenly spread over the span."""


@dataclass(frozen=True, slots=True)
class UnderWayPage:
    """One alert of a symbol. opened, ended: seconds since 1970 UTC; direction: -1 the price falls, +1 it rises."""

    symbol: str
    opened: int
    ended: int
    direction: int


def pages_of(
    time: Integers,
    symbols: Sequence[str],
    is_open: Booleans,
    direction: Integers,
    is_calm: Booleans,
    hold_seconds: int,
) -> list[UnderWayPage]:
    """The machine's alerts of the rule on a grid; arrays are (symbols, times).

    An alert opens with the rule, ends after `hold_seconds` of calm without a break, and gives way to the other side.
    """
    pages = []
    for s, symbol in enumerate(symbols):
        hot = np.flatnonzero(is_open[s])
        row, size = 0, time.size
        while True:
            place = int(np.searchsorted(hot, row))
            if place >= hot.size:
                break
            row = int(hot[place])
            opened, side, calm_since = row, int(direction[s, row]), -1
            ended = size - 1
            row += 1
            while row < size:
                if is_open[s, row]:
                    calm_since = -1
                    if direction[s, row] != side:
                        ended = row  # the other side's alert opens here
                        break
                elif is_calm[s, row]:
                    calm_since = row if calm_since < 0 else calm_since
                    if time[row] - time[calm_since] >= hold_seconds:
                        ended = row
                        row += 1
                        break
                else:
                    calm_since = -1
                row += 1
            pages.append(UnderWayPage(symbol, int(time[opened]), int(time[ended]), side))
            if row >= size:
                break
    return sorted(pages, key=lambda page: (page.opened, page.symbol))


def market_pages(pages: Sequence[UnderWayPage]) -> list[list[UnderWayPage]]:
    """Pages that a desk takes as one."""
    groups: list[list[UnderWayPage]] = []
    for page in sorted(pages, key=lambda page: page.opened):
        if groups and page.opened - groups[-1][-1].opened <= MARKET_SECONDS:
            groups[-1].append(page)
        else:
            groups.append([page])
    return groups


def is_right(page: UnderWayPage, events: Sequence[CascadeEvent]) -> bool:
    """Whether its symbol had a cascade from 30 min before the event's start to 30 min after its peak."""
    return any(
        event.symbol == page.symbol and event.start - MARKET_SECONDS <= page.opened <= event.peak + MARKET_SECONDS
        for event in events
    )


def false_market_pages(pages: Sequence[UnderWayPage], events: Sequence[CascadeEvent]) -> int:
    """Market pages none of whose symbols had an event."""
    return sum(not any(is_right(page, events) for page in group) for group in market_pages(pages))


def under_way_figures(
    pages: Sequence[UnderWayPage],
    events: Sequence[CascadeEvent],
    time: Integers,
    symbols: Sequence[str],
    price: Floats,
    from_seconds: int,
    to_seconds: int,
) -> dict[str, Any]:
    """The figures of one rule. Pages and onsets in [from, to] count; price: (symbols, times) on the regular grid."""
    inside = [page for page in pages if from_seconds <= page.opened <= to_seconds]
    happened = [event for event in events if from_seconds <= event.onset <= to_seconds]
    grades = {
        "all": happened,
        "major_or_systemic": [e for e in happened if e.is_major or e.is_systemic],
        "first_shock": [e for e in happened if e.is_first_shock],
    }
    place = {symbol: s for s, symbol in enumerate(symbols)}
    groups = market_pages(inside)
    false = false_market_pages(inside, happened)
    weeks = max((to_seconds - from_seconds) / WEEK_SECONDS, 1e-9)
    found = [_first_page(event, inside) for event in happened]
    left = [
        None if page is None else _move_left(event, page, time, price[place[event.symbol]])
        for event, page in zip(happened, found, strict=True)
    ]
    delays = [
        None if page is None else (page.opened - event.onset) / 60.0
        for event, page in zip(happened, found, strict=True)
    ]
    return {
        "events": {name: len(chosen) for name, chosen in grades.items()},
        "pages": len(inside),
        "market_pages": len(groups),
        "false": false,
        "false_per_week": false / weeks,
        "weeks": weeks,
        "precision": None if not groups else 1.0 - false / len(groups),
        "detected": {
            name: {
                "own": _detected(chosen, inside, by_market=False),
                "market": _detected(chosen, inside, by_market=True),
            }
            for name, chosen in grades.items()
        },
        "delay_minutes": {
            "over_detected": _quantiles([d for d in delays if d is not None]),
            # A miss is never told: it counts as the longest delay there is.
            "over_all": _quantiles([np.inf if d is None else d for d in delays]),
        },
        "move_left": {
            "over_detected": _quantiles([x for x in left if x is not None]),
            "over_all": _quantiles([0.0 if x is None else x for x in left]),
        },
        **_what_followed(inside, time, place, price),
    }


def _first_page(event: CascadeEvent, pages: Sequence[UnderWayPage]) -> UnderWayPage | None:
    """The first page of the event's own symbol and side that opened in [start, peak]."""
    for page in pages:
        if (
            page.symbol == event.symbol
            and page.direction == event.direction
            and event.start <= page.opened <= event.peak
        ):
            return page
    return None


def _detected(events: Sequence[CascadeEvent], pages: Sequence[UnderWayPage], *, by_market: bool) -> dict[str, Any]:
    """Share of events with a page in [start, peak]: of the own symbol and side, or of any symbol."""
    hits = [
        any(event.start <= page.opened <= event.peak for page in pages)
        if by_market
        else _first_page(event, pages) is not None
        for event in events
    ]
    if not hits:
        return {"share": None, "low": None, "high": None}
    interval = share_interval(hits, [event.onset // 86_400 for event in events])
    return {"share": interval.value, "low": interval.low, "high": interval.high}


def _move_left(event: CascadeEvent, page: UnderWayPage, time: Integers, price: Floats) -> float:
    """1 - |price at the page / price at the start - 1| / depth."""
    start, at = (int(np.searchsorted(time, moment)) for moment in (event.start, page.opened))
    return float(1.0 - abs(price[at] / price[start] - 1.0) / abs(event.price_move))


def _what_followed(
    pages: Sequence[UnderWayPage], time: Integers, place: Mapping[str, int], price: Floats
) -> dict[str, Any]:
    """How far the price went in the page's direction and against it, and its mean signed return, beside ordinary
    times."""
    step = int(time[1] - time[0]) if time.size > 1 else 1
    figures: dict[str, Any] = {"further_move": {}, "adverse_move": {}, "mean_return": {}}
    ordinary = np.unique(np.linspace(0, time.size - 1, min(ORDINARY_TIMES, time.size)).astype(np.int64))
    for hours in HORIZONS_HOURS:
        rows = hours * 3600 // step
        after_pages = [
            after_page(price[place[page.symbol]], int(np.searchsorted(time, page.opened)), rows, page.direction)
            for page in pages
        ]
        after_any = [
            after_page(price[place[symbol]], int(row), rows, direction)
            for symbol in sorted({page.symbol for page in pages})
            for row in ordinary
            for direction in DIRECTIONS
        ]
        for name, column in (("further_move", 0), ("adverse_move", 1)):
            figures[name][f"{hours}h"] = _quantiles([x[column] for x in after_pages if x is not None]) | {
                "at_random_times": _quantiles([x[column] for x in after_any if x is not None])
            }
        returns = [x[2] for x in after_pages if x is not None]
        usual = [x[2] for x in after_any if x is not None]
        figures["mean_return"][f"{hours}h"] = {
            "value": float(np.mean(returns)) if returns else None,
            "at_random_times": float(np.mean(usual)) if usual else None,
        }
    return figures


def after_page(price: Floats, row: int, rows: int, direction: int) -> tuple[float, float, float] | None:
    """(furthest in the direction, furthest against it, signed return) within `rows`; None where it is not all known."""
    ahead = price[row + 1 : row + 1 + rows]
    if ahead.size < rows or rows == 0 or not np.isfinite(price[row]) or not np.isfinite(ahead[-1]):
        return None
    moves = direction * (ahead / price[row] - 1.0)
    return max(float(np.nanmax(moves)), 0.0), max(float(np.nanmax(-moves)), 0.0), float(moves[-1])


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {f"p{q}": None for q in QUANTILES}
    # "lower": a quantile that falls between a delay and a miss is the delay, never a number between it and infinity.
    found = np.percentile(np.asarray(values), QUANTILES, method="lower")
    return {f"p{q}": float(x) if np.isfinite(x) else None for q, x in zip(QUANTILES, found, strict=True)}
