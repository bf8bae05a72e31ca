"""Words for a cascade under way and for its end: what a person acts on at 3 am, in the first two lines.

Belongs here: sentences from a receipt. Does not: when they are said (alerting/deciding/), other rules (messages.py).

A message names what happened, the side, the price and how far it has run, and how much open interest went; then, in one
breath, what followed such alarms both ways. It is a risk alarm and no promise of direction, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import sqrt
from statistics import median
from typing import Any, Final

FIRST_RECORD: Final = 10
"""Fewer pages of one's own are no record."""
FEW: Final = 20
"""Below this many earlier alarms their number is told instead of shares."""
_SIDES: Final = {"long": "longs are being liquidated", "short": "shorts are being liquidated"}
_MOST_NAMED: Final = 8
NO_DIRECTION: Final = "A risk alarm, no promise of direction: the price may turn as far as it went."


def headline(receipt: Mapping[str, Any]) -> str:
    """`BTC 64,120 USD, -4.2 % in 35 min, open interest -3.8 %: longs are being liquidated`."""
    under_way = receipt.get("under_way") or {}
    price = _price(receipt)
    parts = [f"{receipt['subject']}{'' if price is None else f' {_usd_price(price)}'}"]
    excursion = under_way.get("excursion")
    if excursion is not None:
        parts.append(f"{_signed(excursion)} in {_minutes(under_way.get('started_at'), receipt['time'])}")
    change = under_way.get("open_interest_change")
    parts.append("open interest unknown" if change is None else f"open interest {_signed(change)}")
    return f"{', '.join(parts)}: {_SIDES.get(receipt.get('side') or '', 'both sides')}."


def short_move(receipts: Mapping[str, Mapping[str, Any]]) -> str:
    """`-4.2 % in 35 min` of the symbol that went furthest, for a title; empty where none is known."""
    receipt = _ranked(receipts)[0][1]
    under_way = receipt.get("under_way") or {}
    if under_way.get("excursion") is None:
        return ""
    return f"{_signed(under_way['excursion'])} in {_minutes(under_way.get('started_at'), receipt['time'])}"


def what_followed(facts: Mapping[str, Any] | None) -> list[str]:
    """What followed earlier alarms of this kind, both ways, beside ordinary times; nothing where it was never
    measured."""
    if not facts or not facts.get("n"):
        return []
    count = int(facts["n"])
    if count < FEW:
        return [f"Only {count} earlier alarms of this kind are judged: too few to say what follows."]
    return [
        f"After {count} earlier ones the next hour went {_plain(facts['further_median'])} further and"
        f" {_plain(facts['adverse_median'])} back at the median, 1 in 10 went {_plain(facts['further_p90'])} further;"
        f" at ordinary times {_plain(facts['random_further_median'])} ({facts['source']})."
    ]


def own_record(record: Mapping[str, Any] | None) -> list[str]:
    """What became of this installation's own pages, once it has ten: counts under twenty, shares with their interval
    from there on."""
    if not record or record["pages"] < FIRST_RECORD:
        return []
    pages, right = int(record["pages"]), int(record["right"])
    if pages < FEW:
        told = f"{right} were right, {pages - right} false"
    else:
        low, high = wilson(right, pages)
        told = f"{100 * right / pages:.0f} % were right ({100 * low:.0f} to {100 * high:.0f} %)"
    after = ""
    if record.get("further_median") is not None:
        after = (
            f"; the next hour went {_plain(record['further_median'])} further and"
            f" {_plain(record['adverse_median'])} back at the median"
        )
    return [f"Here so far: of {pages} pages of this rule {told}{after}."]


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z2 = 1.96**2
    share = hits / of
    centre = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = 1.96 * sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def why(receipt: Mapping[str, Any]) -> list[str]:
    """The numbers behind it, and what is missing."""
    under_way = receipt.get("under_way") or {}
    inputs = under_way.get("inputs") or {}
    lines = []
    threshold, excursion = under_way.get("threshold"), under_way.get("excursion")
    if threshold and excursion is not None:
        by = "model" if under_way.get("rule") == "model" else "plain rule"
        chance = under_way.get("probability")
        stated = "" if chance is None else f", {100 * chance:.0f} % that it is one"
        lines.append(
            f"Why ({by}): the price has run {abs(excursion) / threshold:.1f} of a cascade's threshold"
            f" ({_plain(threshold)}){stated}; {inputs.get('symbols_in_excursion', 0)} symbols of the group run with it."
        )
    forced = inputs.get("forced_usd_1h")
    if forced:
        told = ", ".join(f"{side}s {usd / 1e6:,.1f} M USD" for side, usd in sorted(forced.items()))
        lines.append(f"Forced orders of the last hour: {told}.")
    if inputs.get("missing"):
        lines.append(f"Missing: {', '.join(inputs['missing'])}.")
    return lines


def members(receipts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line per symbol, the furthest first."""
    ranked = _ranked(receipts)
    lines = [headline(receipt) for _, receipt in ranked[:_MOST_NAMED]]
    if len(ranked) > _MOST_NAMED:
        lines.append(f"and {len(ranked) - _MOST_NAMED} more symbols.")
    return lines


def _ranked(receipts: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The symbols, the one that went furthest first."""

    def furthest(item: tuple[str, Mapping[str, Any]]) -> float:
        return -abs(float((item[1].get("under_way") or {}).get("excursion") or 0.0))

    return sorted(receipts.items(), key=furthest)


def over(happened: Mapping[str, Any] | None, side: str | None, subject: str) -> list[str]:
    """What happened, once it is over."""
    if not happened:
        return [f"{subject}: price and open interest are calm again."]
    word = {"long": "fell", "short": "rose"}.get(side or "", "moved")
    depth, change = happened.get("depth"), happened.get("open_interest_change")
    went = "an unknown part" if depth is None else _plain(depth)
    flushed = "open interest unknown" if change is None else f"open interest {_signed(change)}"
    lines = [f"{subject} {word} {went} within {_span(happened['duration_minutes'])}, {flushed}; calm now."]
    lines += _liquidated(happened["liquidated_usd"])
    said = [_warning(warning) for warning in happened["warnings"]]
    told = happened.get("first_told_at")
    under_way = f"under way {'was told at ' + _clock(told) if told else 'was not told'}"
    lines.append(f"What we had said: {'; '.join([*said, under_way])}.")
    return lines


def _liquidated(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["Liquidations: none known."]
    lines = []
    for side in ("long", "short"):
        of = [row for row in rows if row["side"] == side]
        if of:
            venues = ", ".join(f"{row['venue']} {row['usd'] / 1e6:,.1f}" for row in of[:5])
            sampled = ", some venues show a part only" if any(row["is_sample"] for row in of) else ""
            total = sum(row["usd"] for row in of) / 1e6
            lines.append(f"Liquidated {side}s: {total:,.1f} M USD ({venues}{sampled}).")
    return lines


def _warning(warning: Mapping[str, Any]) -> str:
    word = "storm watch" if warning["rule"] == "early_warning" else warning["rule"].replace("_", " ")
    told = warning["first_told_at"]
    state = f"told {_clock(told)}" if told else f"recorded {_clock(warning['opened_at'])}, not sent"
    return f"{warning['severity']} {word} ({state})"


def _price(receipt: Mapping[str, Any]) -> float | None:
    venues = ((receipt.get("inputs") or {}).get("price") or {}).get("venues") or {}
    prices = [said["price_usd"] for said in venues.values() if said.get("price_usd") is not None]
    return median(prices) if prices else None


def _usd_price(price: float) -> str:
    digits = 0 if price >= 1000 else 2 if price >= 1 else 6
    return f"{price:,.{digits}f} USD"


def _minutes(started: Any, time: str) -> str:
    if started is None:
        return "an unknown time"
    return _span((datetime.fromisoformat(time) - _moment(started)).total_seconds() / 60.0)


def _span(minutes: float) -> str:
    if minutes < 1.5:
        return f"{max(minutes * 60, 1):.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes // 60:.0f} h {minutes % 60:.0f} min"


def _moment(value: Any) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _clock(value: Any) -> str:
    return f"{_moment(value):%H:%M} UTC"


def _signed(fraction: float) -> str:
    return f"{100 * fraction:+.1f} %"


def _plain(fraction: float) -> str:
    return f"{100 * abs(fraction):.1f} %"
