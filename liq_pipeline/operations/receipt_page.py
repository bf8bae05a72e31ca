"""`liq alerts show`: an alert and its receipt as a person reads them, in lines of plain text.

Belongs here: words and layout for a terminal of 80 columns. Does not: reading the alert (alerting/book.py), the stored
object (alerting/telling/receipt.py), messages to people (alerting/telling/messages.py). What is missing in a receipt
that an older version stored is left out, never guessed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

WIDTH: Final = 80
UNKNOWN: Final = "unknown"
WORDS: Final = {
    "funding": "funding",
    "open_interest": "open interest",
    "long_short": "long/short",
    "liquidation": "liquidations",
}
RULES: Final = {
    "severity": "severity (risk and pressure are past its thresholds)",
    "early_warning": "early warning (a storm watch: hours ahead, for the whole market)",
    "under_way": "under way (a cascade has begun)",
    "blind": "blind (the monitor cannot see)",
}
STATES: Final = {
    "silent": "silent: its share of the budget is unknown",
    "warming": "too little history yet",
    "no look-back": "a hole in its last hours",
}


def receipt_lines(alert: Mapping[str, Any]) -> list[str]:
    """The page of what `show_alert` returns: what, why, what is missing, what ends it, what became of it."""
    return [line for part in _parts(alert) for line in _wrapped(part)]


def _wrapped(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent + "  ", break_long_words=False, break_on_hyphens=False)


def _parts(alert: Mapping[str, Any]) -> Iterator[str]:
    receipt: Mapping[str, Any] = alert.get("receipt") or {}
    side = {"long": "longs at risk", "short": "shorts at risk"}.get(alert.get("side") or "", "no side named")
    if alert["world"] != "real":
        yield f"*** NOT REAL: world {alert['world']} ***"
    yield f"{alert['severity']} {alert['subject']}: {side}"
    yield f"Rule       {RULES.get(alert['rule'], alert['rule'])}"
    yield f"State      {_state(alert)}"
    if alert.get("peak_severity") not in (None, alert["severity"]):
        yield f"Highest    {alert['peak_severity']}"
    told = alert.get("told_at")
    yield f"Told       {'nobody: below the page level, held, or muted' if told is None else f'last at {_time(told)}'}"
    if alert.get("acknowledged_at"):
        yield f"Seen       {_time(alert['acknowledged_at'])} by {alert.get('acknowledged_by') or UNKNOWN}"
    yield ""
    members = receipt.get("members")
    if members:
        for symbol, member in members.items():
            yield f"--- {symbol} " + "-" * (WIDTH - 5 - len(symbol))
            yield from _symbol(member)
    else:
        yield from _symbol(receipt)
    yield from _ending(alert, receipt)
    yield from _history(alert)
    yield ""
    yield f"The whole object: liq alerts show {alert['alert_id']} --json"
    yield "Not financial advice."


def _state(alert: Mapping[str, Any]) -> str:
    since = _time(alert["opened_at"])
    if alert["state"] == "open":
        return f"open since {since}"
    because = f" ({alert['resolved_because']})" if alert.get("resolved_because") else ""
    return f"ended {_time(alert.get('resolved_at'))}, opened {since}{because}"


def _symbol(receipt: Mapping[str, Any]) -> Iterator[str]:
    """Why, for one symbol: the rule's own number first, then the score taken apart."""
    yield from _under_way(receipt.get("under_way"))
    if receipt.get("rule") == "early_warning" or receipt.get("probability"):
        yield from _probability(receipt.get("probability"))
    score = receipt.get("score")
    if score:
        value, high = score.get("value"), score.get("high")
        range_ = "" if high is None or value == high else f", possible up to {_number(high)}"
        yield f"Risk       {_number(value)} of 100{range_}; known {_percent(score.get('coverage'))}"
    for component in receipt.get("components") or []:
        yield from _component(component)
    check = receipt.get("sum_check") or {}
    if check.get("adds_up") is False:
        yield "           The points do not add up to the score: report this."
    yield from _pressure(receipt.get("pressure"))
    yield from _fuel(receipt.get("liquidation_fuel"))
    data = receipt.get("data") or {}
    if data.get("oldest_age_seconds") is not None:
        yield f"Data       up to {_time(data.get('cut_time'))}, oldest input {data['oldest_age_seconds']:.0f} s"
    if receipt.get("note"):
        yield f"Missing    {receipt['note']}"
    possible = receipt.get("severity_possible")
    if possible not in (None, "UNKNOWN", receipt.get("severity")):
        yield f"At worst   {possible}, if what is unknown is at its worst"
    yield ""


def _under_way(under_way: Mapping[str, Any] | None) -> Iterator[str]:
    if not under_way:
        return
    yield (
        f"Move       {_percent(under_way.get('excursion'), 1, signed=True)} since {_time(under_way.get('started_at'))};"
        f" a cascade's threshold is {_percent(under_way.get('threshold'), 1)}"
    )
    yield f"Interest   open interest {_percent(under_way.get('open_interest_change'), 1, signed=True)} since then"
    if under_way.get("probability") is not None:
        chance, rule = _percent(under_way["probability"]), under_way.get("rule")
        yield f"Chance     {chance} that this becomes a cascade ({rule} rule)"
    missing = (under_way.get("inputs") or {}).get("missing") or []
    if missing:
        yield f"Missing    {', '.join(map(str, missing))}"


def _probability(probability: Mapping[str, Any] | None) -> Iterator[str]:
    if not probability:
        yield f"Chance     of a cascade: {UNKNOWN}"
        return
    yield (
        f"Chance     of a cascade within 4 h: {_percent(probability.get('cascade_4h'), 1)}"
        f" (model {probability.get('model_id')})"
    )
    if probability.get("market_4h") is not None:
        yield (
            f"Market     {_percent(probability['market_4h'], 2)} on average; early warnings begin above"
            f" {_percent(probability.get('market_threshold_4h'), 2)}"
        )


def _component(component: Mapping[str, Any]) -> Iterator[str]:
    name = WORDS.get(component["name"], component["name"])
    yield f"  {name:<14} {_number(component['points'], 1):>7} of {component['budget']:.0f}"
    venues = (component.get("inputs") or {}).get("venues") or {}
    for venue, said in venues.items():
        state = said.get("state")
        if state in STATES:
            yield f"    {venue:<14} {STATES[state]}"
            continue
        points = max((said[key] for key in ("long_points", "short_points") if said.get(key) is not None), default=None)
        values = ", ".join(
            f"{key.replace('_', ' ')} {value:g}"
            for key, value in said.items()
            if isinstance(value, int | float) and key not in ("age_seconds", "long_points", "short_points")
        )
        yield f"    {venue:<14} {_number(points, 1):>7}  {_age(said.get('age_seconds'))} old  {values}"


def _pressure(pressure: Mapping[str, Any] | None) -> Iterator[str]:
    if not pressure:
        return
    if not pressure.get("is_known"):
        yield f"Flows      {pressure.get('note') or UNKNOWN}"
        return
    yield (
        f"Flows      pressure {pressure['score']:+.0f}: {_usd(pressure.get('inflow_usd'))} in,"
        f" {_usd(pressure.get('outflow_usd'))} out in {pressure.get('window_minutes')} min"
    )
    chains = (pressure.get("inputs") or {}).get("chains") or {}
    for name, said in chains.items() if len(chains) > 1 else ():
        told = said["state"]
        if said.get("inflow_usd") is not None:
            told += f": {_usd(said['inflow_usd'])} in, {_usd(said['outflow_usd'])} out"
        yield f"    {name:<10} {said['share']:>4.0%} of what is expected  {told}"
    low, high = pressure.get("score_low"), pressure.get("score_high")
    if low is not None and high is not None and low != high:
        yield f"    with what is not known: {low:+.0f} to {high:+.0f}"


def _fuel(fuel: Mapping[str, Any] | None) -> Iterator[str]:
    """The liquidation map then; receipts of before the map, and points without one, have none."""
    if not fuel:
        return
    yield (
        f"Fuel       estimated (no rule reads it): longs {_usd(fuel.get('long_within_3_usd'))} within 3 % below, shorts"
        f" {_usd(fuel.get('short_within_3_usd'))} within 3 % above; map of {_time(fuel.get('time'))}"
    )


def _ending(alert: Mapping[str, Any], receipt: Mapping[str, Any]) -> Iterator[str]:
    """What would end it, from the thresholds that were in force."""
    thresholds = receipt.get("thresholds") or {}
    if alert["state"] != "open" or not thresholds:
        return
    hold = thresholds.get("hold_seconds") or 0
    minutes = f"{hold / 60:.0f} min without a break"
    if alert["rule"] == "severity":
        keeping = thresholds.get("kept_until_under") or {}
        level = alert["severity"].lower()
        limit = keeping.get(f"{level}_risk")
        pressure = keeping.get(f"{level}_pressure")
        also = "" if pressure is None else f", or the pressure at {pressure:+.0f} or more,"
        yield f"Ends when  the risk stays at {_number(limit)} or under{also} for {minutes}"
    elif alert["rule"] == "early_warning":
        yield f"Ends when  the market's probability stays under its threshold for {minutes}"
    elif alert["rule"] == "under_way":
        yield f"Ends when  the price is calm and open interest has stopped falling for {minutes}"
    else:
        yield f"Ends when  the monitor sees again for {minutes}"


def _history(alert: Mapping[str, Any]) -> Iterator[str]:
    if alert.get("members"):
        yield "Speaks for " + ", ".join(
            f"{member['subject']} ({member['severity']}, {member['state']})" for member in alert["members"]
        )
    changes = alert.get("changes") or []
    if changes:
        yield ""
        yield "What became of it"
        for change in changes:
            yield f"  {_time(change['time'])}  {change['kind']}: {change['severity']}. {change['reason']}"
    deliveries = alert.get("deliveries") or []
    if deliveries:
        yield ""
        yield "Who was told"
        for attempt in deliveries:
            outcome = "sent" if attempt["ok"] else f"failed: {attempt['error']}"
            yield f"  {_time(attempt['attempted_at'])}  {attempt['channel']}, attempt {attempt['attempt']}: {outcome}"
    held = [message for message in alert.get("messages") or [] if message["state"] in ("held", "failed")]
    for message in held:
        yield f"  {message['state']}: {message.get('held_reason') or 'every attempt failed'} ({message['title']})"


def _time(value: Any) -> str:
    if value is None:
        return UNKNOWN
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _number(value: Any, digits: int = 1) -> str:
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def _percent(value: Any, digits: int = 0, *, signed: bool = False) -> str:
    if value is None:
        return UNKNOWN
    return f"{100 * value:+.{digits}f} %" if signed else f"{100 * value:.{digits}f} %"


def _usd(value: Any) -> str:
    return UNKNOWN if value is None else f"{value / 1e6:,.1f} M USD"


def _age(seconds: Any) -> str:
    return UNKNOWN if seconds is None else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
