"""Numbers as people read them: units, ages, and `unknown` as a word.

Belongs here: filters of the templates. Does not: markup of pages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from markupsafe import Markup

from liq_pipeline.desk.read.market import SymbolNow

UNKNOWN: Final = Markup('<span class="unknown">unknown</span>')
COMPONENTS: Final = {
    "funding": ("Funding", 30),
    "open_interest": ("Open interest", 30),
    "long_short": ("Long/short", 20),
    "liquidation": ("Liquidations", 20),
}
RULES: Final = {
    "severity": "Severity",
    "early_warning": "Storm watch",
    "under_way": "Under way",
    "blind": "Blind",
}
RULE_WORDS: Final = {
    "severity": "risk and pressure are past its thresholds",
    "early_warning": "hours ahead, for the whole market; pages no better than chance on unseen data",
    "under_way": "a cascade has begun",
    "blind": "the monitor cannot see",
}
Text = str | Markup


def is_unknown(value: Any) -> bool:
    """None, or no number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: float | None, digits: int = 0) -> Text:
    """A plain number with thin groups."""
    return UNKNOWN if is_unknown(value) else f"{value:,.{digits}f}".replace("-", "\u2212")


def signed(value: float | None, digits: int = 0) -> Text:
    """A number that always shows its sign."""
    if is_unknown(value):
        return UNKNOWN
    return f"{value:+,.{digits}f}".replace("-", "\u2212")


def percent(value: float | None, digits: int = 0) -> Text:
    """A fraction as per cent."""
    return UNKNOWN if value is None or is_unknown(value) else f"{number(value * 100, digits)}\u202f%"


def change(value: float | None, digits: int = 1) -> Text:
    """A fraction as per cent with its sign."""
    return UNKNOWN if value is None or is_unknown(value) else f"{signed(value * 100, digits)}\u202f%"


def usd(value: float | None) -> Text:
    """US dollars in a form that can be compared at a glance."""
    if value is None or is_unknown(value):
        return UNKNOWN
    size = abs(value)
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{number(value / limit, 2 if size / limit < 100 else 0)}\u202f{unit}"
    return number(value)


def price(value: float | None) -> Text:
    """A price with as many digits as its size deserves."""
    if value is None or is_unknown(value):
        return UNKNOWN
    size = abs(value)
    digits = 0 if size >= 10_000 else 2 if size >= 10 else 4 if size >= 0.1 else 6
    return number(value, digits)


def rate(value: float | None) -> Text:
    """A funding rate per 8 h."""
    return UNKNOWN if value is None or is_unknown(value) else f"{signed(value * 100, 4)}\u202f%"


def age(seconds: float | None) -> Text:
    """A duration."""
    if seconds is None or is_unknown(seconds):
        return UNKNOWN
    if seconds < 0:
        seconds = 0.0
    if seconds < 120:
        return f"{seconds:.0f}\u202fs"
    if seconds < 7200:
        return f"{seconds / 60:.0f}\u202fmin"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f}\u202fh"
    return f"{seconds / 86_400:.1f}\u202fd"


def size(value: float | None) -> Text:
    """Bytes."""
    if value is None or is_unknown(value):
        return UNKNOWN
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= limit:
            return f"{value / limit:.1f}\u202f{unit}"
    return f"{value:.0f}\u202fB"


def _moment(value: datetime | str | None) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    return value


def time(value: datetime | str | None) -> Text:
    """A point in time, to the second, as an element that scripts and readers understand."""
    moment = _moment(value)
    if moment is None:
        return UNKNOWN
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat().replace("+00:00", "Z"), f"{moment:%Y-%m-%d %H:%M:%S}"
    )


def clock(value: datetime | str | None) -> Text:
    """The same without the date, where the date is plain."""
    moment = _moment(value)
    if moment is None:
        return UNKNOWN
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat().replace("+00:00", "Z"), f"{moment:%H:%M:%S}"
    )


def day(value: datetime | str | None) -> Text:
    """Day and minute."""
    moment = _moment(value)
    if moment is None:
        return UNKNOWN
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat().replace("+00:00", "Z"), f"{moment:%m-%d %H:%M}"
    )


def longs(side: str | None) -> Text:
    """Whose positions are at risk."""
    return {"long": "longs", "short": "shorts"}.get(side or "", UNKNOWN)


def at_risk(row: SymbolNow) -> Text:
    """Whose positions are at risk now: where every point is known and none is given, neither side's, which is known."""
    return "neither side" if row.side is None and row.risk is not None else longs(row.side)


def rule(name: str) -> str:
    """A rule's name for people."""
    return RULES.get(name, name.replace("_", " ").capitalize())


def span(begin: datetime | None, end: datetime | None) -> Text:
    """How long something lasted."""
    return UNKNOWN if begin is None or end is None else age((end - begin).total_seconds())


def plain(name: str) -> str:
    """A key as words."""
    return name.replace("_", " ")


def state_of(row: Any, storm: bool) -> tuple[str, str]:
    """(class, word) of what is most urgent about a symbol."""
    under_way: Mapping[str, Any] | None = row.under_way
    if under_way is not None and under_way.get("is_open") is True:
        return "underway", "Under way"
    if row.severity == "CRITICAL":
        return "critical", "Critical"
    if row.severity == "UNKNOWN":
        return "unknown", "Unknown"
    if row.severity == "WARNING":
        return "warning", "Warning"
    if storm:
        return "storm", "Storm watch"
    return ("info", "Info") if row.severity == "INFO" else ("calm", "Calm")


URGENCY: Final = ("underway", "critical", "unknown", "warning", "storm", "info", "calm")


def seconds_between(newer: datetime | None, older: datetime | None) -> float | None:
    """How much older, in seconds."""
    return None if newer is None or older is None else (newer - older) / timedelta(seconds=1)


def safe_json(text: str) -> Markup:
    """JSON inside a script element: nothing in it can end the element."""
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704


def now() -> datetime:
    """Wall clock."""
    return datetime.now(UTC)


FILTERS: Final = {
    one.__name__: one
    for one in (
        *(number, signed, percent, change, usd, price, rate, age, size),
        *(time, clock, day, longs, at_risk, rule, plain, safe_json),
    )
}
