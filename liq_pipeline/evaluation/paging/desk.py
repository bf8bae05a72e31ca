"""Desk figures: pages as people would have had them, held against the cascades that happened.

Belongs here: running the alert machine over scores, judging its pages, the rank for a false-alarm budget. Does not: the
machine (alerting/deciding/machine.py), the rule that warns (scoring/early_warning.py), labels
(evaluation/labels/version_1.py), row-wise figures (evaluation/figures/metrics.py).

A page is what a person takes as one thing (alerting/deciding/machine.py): a symbol's alert, or a market group with its
symbols. It reaches people DELIVERY_SECONDS after its point. While it is open it claims: a cascade begins within the
horizon.
  * right: an onset of one of its symbols after it was told, at most the horizon after it was resolved;
  * late: no such onset, but when it was told one of its symbols was between an onset and that cascade's peak;
  * false: neither.
An event is paged if, 30 min before its onset, a page had been told and was open or resolved less than the horizon ago,
for its symbol (`by_symbol`) or for any (`by_market`: a desk that is told "market" looks at everything). A page that
stands for days would earn events by standing, so two more figures stand beside: `fresh`, counting only pages told
within the horizon before the onset, and what chance would earn: the same pages moved by whole days (`by_chance`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.alerting.deciding.machine import step
from liq_pipeline.alerting.deciding.policy import LEVEL_OF_NAME, WARNING, AlertPolicy, Rule
from liq_pipeline.alerting.deciding.state import Book
from liq_pipeline.domain.worlds import Manifest, World
from liq_pipeline.evaluation.figures.metrics import share_interval
from liq_pipeline.evaluation.labels.version_1 import CascadeEvent
from liq_pipeline.scoring.early_warning import WarningRule, is_past, market_mean, reference_days, warning_reference
from liq_pipeline.scoring.results import PointResult, SignalResult
from liq_pipeline.settings import Settings

Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

DELIVERY_SECONDS: Final = 60
"""From a point's time to a phone: the tick's lateness bound, the outbox and a channel, rounded up."""
LEAD_SECONDS: Final = 30 * 60
FALSE_PAGES_PER_WEEK: Final = 2.0
DESK_HORIZON_HOURS: Final = 4
WEEK_SECONDS: Final = 7 * 86_400
FEW_EVENTS: Final = 20
RANK_LADDER: Final = tuple(round(0.80 + 0.005 * step, 3) for step in range(40))
"""Ranks tried for a budget: from the highest fifth of a month's hours to the highest half per cent."""
CHANCE_SHIFTS: Final = 60
"""How many moves by whole days stand for chance."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page: when it was first told (seconds, delivery included) and since when it spoke for each symbol."""

    page_id: str
    told: int
    ended: int
    """When it was resolved (or the data ended)."""
    symbols: Mapping[str, int]
    level: int


def desk_policy(step_seconds: int, rule: Rule, symbols: tuple[str, ...], settings: Settings) -> AlertPolicy:
    """The installation's alert policy on the panel's grid, with one rule."""
    world = World(
        name="recorded/panel",
        kind="recorded",
        market_step_seconds=step_seconds,
        flows_step_seconds=step_seconds,
        manifest=Manifest(symbols=symbols, expected={}),
    )
    policy = AlertPolicy.build(settings, world)
    least = LEVEL_OF_NAME[settings.alert_min_severity] if rule == "severity" else WARNING
    # What it would page, whether or not the installation asks for it.
    chosen = tuple(replace(of, page_level=least) for of in policy.rules if of.rule == rule)
    return replace(policy, rules=chosen)


def market_warnings(time: Integers, score: Floats, rule: WarningRule) -> Floats:
    """1 where the rule warns of a symbol, 0 where not, NaN where its score is unknown; (symbols, times).

    The rule is the early warning's own (scoring/early_warning.py), so that any score can be held against it.
    """
    market = market_mean(score)
    threshold = rule.thresholds(time, warning_reference(time, market, reference_days(time)))
    return np.where(np.isfinite(score), is_past(market, threshold).astype(np.float64), np.nan)


def early_warning_pages(time: Integers, symbols: Sequence[str], warnings: Floats, policy: AlertPolicy) -> list[Page]:
    """Pages of the early-warning rule; warnings: market_warnings, or any 1, 0 and NaN (cannot be judged).

    The machine runs at every point where a symbol warns or an alert is open; all other points leave an empty book
    empty, so they are passed over, and so are points at which all that is open goes on to warn.
    """
    with np.errstate(invalid="ignore"):
        warns = warnings > 0.0
    known = np.isfinite(warnings)
    hot = np.flatnonzero(warns.any(axis=0))
    row = {symbol: index for index, symbol in enumerate(symbols)}
    readings = {symbol: {reading: _signal(symbol, reading) for reading in (True, False, None)} for symbol in symbols}
    book, pages = Book(), PagesHeard(policy)
    position, total = 0, time.size
    while position < total:
        if not book.open:
            following = np.searchsorted(hot, position)
            if following >= hot.size:
                break
            position = int(hot[following])
        at = datetime.fromtimestamp(int(time[position]), UTC)
        # A calm symbol without an open alert moves nothing, so it is left out.
        watched = {symbols[int(index)] for index in np.flatnonzero(warns[:, position])}
        watched |= {alert.subject for alert in book.open.values() if not alert.is_group}
        signals = {}
        for symbol in sorted(watched):
            at_symbol = (row[symbol], position)
            signals[symbol] = readings[symbol][bool(warns[at_symbol]) if known[at_symbol] else None]
        outcome = step(book, PointResult(at, {}, signals, None), policy, "evaluation")
        is_steady = bool(outcome.book.open) and not (outcome.changes or outcome.messages or outcome.book.cooling)
        book = outcome.book
        pages.hear(outcome.messages, int(time[position]))
        position += 1
        if is_steady and warns[[row[symbol] for symbol in watched], position - 1].all():
            while position < total and np.array_equal(warns[:, position], warns[:, position - 1]):
                position += 1
    return pages.found(int(time[-1]))


def _signal(symbol: str, warns: bool | None) -> SignalResult:
    """What the early-warning rule reads of a signal; the machine takes the time from the point."""
    start = datetime.fromtimestamp(0, UTC)
    return SignalResult(symbol, start, None, None, "UNKNOWN", "UNKNOWN", False, "", early_warning=warns)


class PagesHeard:
    """Messages gathered into pages."""

    def __init__(self, policy: AlertPolicy) -> None:
        self._policy = policy
        self._told: dict[str, int] = {}
        self._symbols: dict[str, dict[str, int]] = {}
        self._level: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def hear(self, messages: Iterable[Any], time: int) -> None:
        for message in messages:
            page = str(message.alert.page_id)
            if message.kind == "resolved":
                self._ended[page] = time + DELIVERY_SECONDS
            if message.kind in ("resolved", "eased", "reminder"):
                continue
            told = time + DELIVERY_SECONDS
            self._told.setdefault(page, told)
            self._level[page] = max(self._level.get(page, 0), message.alert.level)
            for member in message.members:
                self._symbols.setdefault(page, {}).setdefault(member.subject, told)

    def found(self, last: int) -> list[Page]:
        pages = [
            Page(p, told, max(self._ended.get(p, last), told), self._symbols.get(p, {}), self._level[p])
            for p, told in self._told.items()
        ]
        return sorted(pages, key=lambda page: (page.told, page.page_id))


def judge(page: Page, events: Sequence[CascadeEvent], horizon_hours: int = DESK_HORIZON_HOURS) -> str:
    """`right`, `late` or `false` (module docstring)."""
    late = False
    for event in events:
        since = page.symbols.get(event.symbol)
        if since is None:
            continue
        if since < event.onset <= page.ended + horizon_hours * 3600:
            return "right"
        late = late or event.onset <= since <= event.peak
    return "late" if late else "false"


def lead_seconds(event: CascadeEvent, pages: Sequence[Page], *, by_market: bool, fresh: bool = False) -> int | None:
    """From the earliest page that claims this event to its onset; None if no page claimed it before it began.

    fresh: only pages told within the horizon before the onset.
    """
    reach = event.horizon_hours * 3600
    leads = []
    for page in pages:
        since = page.told if by_market else page.symbols.get(event.symbol)
        if since is None or since >= event.onset:
            continue
        if (event.onset - since if fresh else event.onset - page.ended) <= reach:
            leads.append(event.onset - since)
    return max(leads, default=None)


def time_under_claim(pages: Sequence[Page], from_seconds: int, to_seconds: int) -> float:
    """Share of [from, to) in which some page claims a cascade that is at least 30 min away."""
    covered, reached = 0, from_seconds
    for page in sorted(pages, key=lambda page: page.told):
        first = max(page.told + LEAD_SECONDS, reached)
        last = min(page.ended + DESK_HORIZON_HOURS * 3600, to_seconds)
        if last > first:
            covered += last - first
            reached = last
    return covered / max(1, to_seconds - from_seconds)


def desk_figures(
    pages: Sequence[Page], events: Sequence[CascadeEvent], from_seconds: int, to_seconds: int
) -> dict[str, Any]:
    """Everything a desk asks of a rule over [from, to): pages by verdict, shares of events paged, leads."""
    inside = [page for page in pages if from_seconds <= page.told < to_seconds]
    happened = [event for event in events if from_seconds <= event.onset < to_seconds]
    verdicts = [judge(page, events) for page in inside]
    weeks = (to_seconds - from_seconds) / WEEK_SECONDS
    grades = {
        "all": happened,
        "major_or_systemic": [e for e in happened if e.is_major or e.is_systemic],
        "first_shock": [e for e in happened if e.is_first_shock],
    }
    leads = [lead_seconds(event, pages, by_market=True) or 0 for event in happened]
    right = verdicts.count("right")
    return {
        "weeks": weeks,
        "market_pages": len(inside),
        "right": right,
        "late": verdicts.count("late"),
        "false": verdicts.count("false"),
        "false_per_week": verdicts.count("false") / weeks,
        "precision": right / len(inside) if inside else None,
        "share_of_time_under_claim": time_under_claim(inside, from_seconds, to_seconds),
        "paged_30_min_before_onset": {
            name: {
                "events": len(chosen),
                "descriptive_only": len(chosen) < FEW_EVENTS,
                "by_market": _share(chosen, pages, by_market=True),
                "by_symbol": _share(chosen, pages, by_market=False),
                "by_market_fresh": _share(chosen, pages, by_market=True, fresh=True),
            }
            for name, chosen in grades.items()
        },
        "by_chance": _by_chance(inside, grades, from_seconds, to_seconds),
        "lead_minutes_over_all_events": {
            f"p{q}": float(np.percentile(leads, q)) / 60.0 if leads else None for q in (10, 25, 50, 75, 90)
        },
    }


def _share(
    events: Sequence[CascadeEvent], pages: Sequence[Page], *, by_market: bool, fresh: bool = False
) -> dict[str, float | None]:
    leads = [lead_seconds(event, pages, by_market=by_market, fresh=fresh) for event in events]
    hits = [lead is not None and lead >= LEAD_SECONDS for lead in leads]
    if not hits:
        return {"share": None, "low": None, "high": None}
    interval = share_interval(hits, [event.onset // 86_400 for event in events])
    return {"share": interval.value, "low": interval.low, "high": interval.high}


def _by_chance(
    pages: Sequence[Page], grades: Mapping[str, Sequence[CascadeEvent]], from_seconds: int, to_seconds: int
) -> dict[str, Any]:
    """What pages of the same number, lengths and hours of the day earn that know nothing.

    The pages are moved round the span by 1, 2, .. whole days (CHANCE_SHIFTS of them, evenly spread): means over the
    moves of false pages a week and of the shares paged, and the share of moves that page at least as many events.
    """
    days = (to_seconds - from_seconds) // 86_400
    moves = np.unique(np.linspace(1, days - 1, min(CHANCE_SHIFTS, max(days - 1, 0))).astype(np.int64))
    if not pages or not moves.size:
        return {}
    shares: dict[str, list[float]] = {name: [] for name in grades}
    false, span = [], int(days) * 86_400
    for move in moves.tolist():
        moved = [_moved(page, move * 86_400, from_seconds, span) for page in pages]
        false.append(sum(judge(page, grades["all"]) == "false" for page in moved))
        for name, chosen in grades.items():
            leads = [lead_seconds(event, moved, by_market=True) for event in chosen]
            shares[name].append(float(np.mean([x is not None and x >= LEAD_SECONDS for x in leads])) if leads else 0.0)
    real = {
        name: sum((lead_seconds(e, pages, by_market=True) or 0) >= LEAD_SECONDS for e in chosen) / max(len(chosen), 1)
        for name, chosen in grades.items()
    }
    weeks = (to_seconds - from_seconds) / WEEK_SECONDS
    return {
        "moves": int(moves.size),
        "false_per_week": float(np.mean(false)) / weeks,
        **{
            name: {
                "share": float(np.mean(shares[name])),
                "moves_at_least_as_good": float(np.mean(np.asarray(shares[name]) >= real[name] - 1e-12)),
            }
            for name in grades
        },
    }


def _moved(page: Page, seconds: int, start: int, span: int) -> Page:
    """The page that much later, coming round at the end of the span."""
    offset = start + (page.told - start + seconds) % span - page.told
    symbols = {symbol: since + offset for symbol, since in page.symbols.items()}
    return Page(page.page_id, page.told + offset, page.ended + offset, symbols, page.level)


def rank_for_budget(
    time: Integers,
    symbols: Sequence[str],
    score: Floats,
    events: Sequence[CascadeEvent],
    policy: AlertPolicy,
    budget: float = FALSE_PAGES_PER_WEEK,
    weeks: float | None = None,
) -> WarningRule:
    """The rule of the lowest rank (RANK_LADDER) from which on false market-level pages stay within the budget.

    Its threshold until a month is known is the same share of all the values given. Ranks are tried with sketched
    pages. NaN in both if no score is known.
    """
    known = market_mean(score)
    known = known[np.isfinite(known)]
    if known.size == 0:
        return WarningRule(float("nan"), float("nan"))
    weeks = (int(time[-1]) - int(time[0])) / WEEK_SECONDS if weeks is None else weeks
    chosen = None
    for rank in reversed(RANK_LADDER):
        rule = WarningRule(rank, float(np.quantile(known, rank)))
        pages = sketched_pages(time, symbols, market_warnings(time, score, rule), policy)
        if sum(judge(page, events) == "false" for page in pages) / weeks > budget:
            break
        chosen = rule
    return chosen or WarningRule(RANK_LADDER[-1], float(np.quantile(known, RANK_LADDER[-1])))


def sketched_pages(time: Integers, symbols: Sequence[str], warnings: Floats, policy: AlertPolicy) -> list[Page]:
    """Nearly the machine's pages, fast: alerts end after the hold and join a group; no cool-down, no easing."""
    hold = int(policy.rules[0].hold.total_seconds())
    window = int(policy.group_window.total_seconds())
    spans = []
    for index, symbol in enumerate(symbols):
        with np.errstate(invalid="ignore"):
            hot = time[warnings[index] > 0.0]
        if hot.size == 0:
            continue
        breaks = np.flatnonzero(np.diff(hot) > hold)
        firsts = hot[np.concatenate([[0], breaks + 1])]
        lasts = hot[np.concatenate([breaks, [hot.size - 1]])]
        spans += [(int(a), int(b) + hold, symbol) for a, b in zip(firsts, lasts, strict=True)]
    pages: list[Page] = []
    standing: list[int] = []
    for began, ended, symbol in sorted(spans):
        told = began + DELIVERY_SECONDS
        standing = [i for i in standing if pages[i].ended >= began]
        joined = [i for i in standing if len(pages[i].symbols) > 1 or told - pages[i].told <= window]
        if joined:
            page = pages[joined[-1]]
            pages[joined[-1]] = replace(page, ended=max(page.ended, ended), symbols={**page.symbols, symbol: told})
        else:
            pages.append(Page(f"{symbol}@{began}", told, ended, {symbol: told}, WARNING))
            standing.append(len(pages) - 1)
    return pages
