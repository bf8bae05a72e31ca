"""What people read: a title for a phone's lock screen and a body that explains itself at one glance.

Belongs here: words. Does not: when they are said (alerting/deciding/machine.py), the facts (receipt.py), sending
(alerting/sending/delivery.py).

A message of a world that is not the real one says so first, in the title and in the body.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from liq_pipeline.alerting.deciding.policy import LEVEL_NAMES
from liq_pipeline.alerting.deciding.state import Alert, Message
from liq_pipeline.alerting.telling import under_way as words
from liq_pipeline.domain.worlds import World

NotifyType = Literal["info", "success", "warning", "failure"]

_COMPONENT_WORDS: Final = {
    "funding": "funding",
    "open_interest": "open interest",
    "long_short": "long/short ratio",
    "liquidation": "liquidations",
}
_SIDE_WORDS: Final = {"long": "longs at risk", "short": "shorts at risk", None: "both sides"}
_NOTIFY_OF_LEVEL: Final[dict[int, NotifyType]] = {0: "info", 1: "info", 2: "warning", 3: "failure"}
_MOST_MEMBERS: Final = 8
"""More symbols than this are counted, not listed: a message is read on a phone."""


@dataclass(frozen=True, slots=True)
class Text:
    """A rendered message."""

    title: str
    body: str
    notify_type: NotifyType


def render(message: Message, receipt: dict[str, Any], world: World) -> Text:
    """The text of a message, from its alert's receipt at that point."""
    lines = [*_world_lines(world), *_lines_of_rule(message, receipt)]
    lines += [f"At the same moment: {_rule_level(other)}. Because: {other.reason}." for other in message.together]
    lines += _closing_lines(message, receipt)
    is_over = message.kind == "resolved"
    return Text(
        title=_title(message, receipt, world),
        body="\n".join(lines),
        notify_type="success" if is_over else _NOTIFY_OF_LEVEL[message.alert.level],
    )


def _lines_of_rule(message: Message, receipt: dict[str, Any]) -> list[str]:
    """What the rule has to say; a cascade under way begins with what happened, every other one with its level."""
    if message.alert.rule == "under_way":
        return _under_way_lines(message, receipt)
    if message.alert.rule == "blind":
        return [_headline(message), *_blind_lines(message, receipt)]
    if message.alert.rule == "early_warning":
        return [_headline(message), *_storm_lines(receipt)]
    if "members" in receipt:
        return [_headline(message), *_member_lines(receipt["members"], message)]
    return [_headline(message), *_why_lines(receipt)]


def _under_way_lines(message: Message, receipt: dict[str, Any]) -> list[str]:
    """What happened and what followed such alarms first; then the rule and its reasons."""
    alert = message.alert
    if message.kind == "resolved":
        happened = receipt.get("what_happened")
        if alert.is_group:
            lines = [line for symbol, of in (happened or {}).items() for line in words.over(of, of["side"], symbol)[:1]]
            lines = lines or ["Price and open interest are calm again."]
        else:
            lines = words.over(happened, alert.side, alert.subject)
        return [*lines, _headline(message)]
    of: dict[str, dict[str, Any]] = receipt.get("members", {alert.subject: receipt})
    moves = words.members(of)
    lines = [*moves[:1], *words.what_followed(_facts(of)), *words.own_record(receipt.get("own_record")), *moves[1:]]
    if "members" not in receipt:
        lines += words.why(receipt)
    return [*lines, words.NO_DIRECTION, _headline(message)]


def _facts(receipts: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    return next((r["what_followed"] for r in receipts.values() if r.get("what_followed")), None)


def _storm_lines(receipt: dict[str, Any]) -> list[str]:
    """A storm watch speaks of probabilities, never of risks: its rule reads nothing else."""
    members = receipt.get("members") or {receipt["subject"]: receipt}
    known = {s: r["probability"] for s, r in members.items() if r.get("probability")}
    if not known:
        return ["The market's probability is unknown now."]
    first = next(iter(known.values()))
    lines = []
    market, limit = first.get("market_4h"), first.get("market_threshold_4h")
    if market is not None and limit is not None:
        lines.append(
            f"Storm watch: a cascade within 4 h has {100 * market:.2f} % on average over the symbols; it stands above"
            f" {100 * limit:.2f} %, the highest of the last 30 days."
        )
    ranked = sorted(known.items(), key=lambda item: -item[1]["cascade_4h"])
    lines.append("Highest: " + ", ".join(f"{s} {100 * p['cascade_4h']:.1f} %" for s, p in ranked[:3]) + ".")
    lines.append("On data it had never seen this rule warned no better than chance: a reason to look, no more.")
    return lines


def _rule_level(message: Message) -> str:
    words_of = {"early_warning": "storm watch", "under_way": "under way"}
    side = "" if message.alert.side is None else f", {_SIDE_WORDS[message.alert.side]}"
    return f"{LEVEL_NAMES[message.alert.level]} {words_of.get(message.alert.rule, message.alert.rule)}{side}"


def chart_of(alert: Alert, receipt: dict[str, Any]) -> dict[str, Any] | None:
    """Which symbol's last hours show what the message is about, and since when it moves; None: no price shows it.

    Of a group it is the symbol that went furthest, or the one with the highest risk.
    """
    if alert.rule not in ("under_way", "severity"):
        return None
    happened = receipt.get("what_happened") or {}
    if not alert.is_group:
        began = happened.get("started_at") or (receipt.get("under_way") or {}).get("started_at")
        return {"symbol": alert.subject, "started_at": began}
    members: dict[str, dict[str, Any]] = receipt.get("members") or happened
    if not members:
        return None

    def weight(item: tuple[str, dict[str, Any]]) -> float:
        of = item[1]
        moved = (of.get("under_way") or {}).get("excursion") or of.get("depth")
        return abs(moved) if moved else ((of.get("score") or {}).get("value") or 0.0) / 1000.0

    symbol, of = max(sorted(members.items()), key=weight)
    return {"symbol": symbol, "started_at": of.get("started_at") or (of.get("under_way") or {}).get("started_at")}


def render_test() -> Text:
    """The message of `liq alerts test`."""
    return Text(
        title="[TEST] liq_pipeline: this channel works",
        body="TEST MESSAGE, nothing happened.\nAlerts will arrive here like this.\nNot financial advice.",
        notify_type="info",
    )


def _world_mark(world: World) -> str:
    return "" if world.is_real else f"[{world.kind.upper()}] "


def _world_lines(world: World) -> list[str]:
    if world.is_real:
        return []
    what = "a simulation" if world.kind == "simulated" else "a recording being played"
    return [f"*** {world.kind.upper()}: this is {what} ({world.name}), not the market of now. ***"]


def _subject_words(message: Message) -> str:
    alert = message.alert
    if not alert.is_group:
        return alert.subject
    return "the whole monitor" if alert.subject == "monitor" and alert.level == 3 else f"{len(message.members)} symbols"


def _title(message: Message, receipt: dict[str, Any], world: World) -> str:
    alert = message.alert
    level = LEVEL_NAMES[alert.level]
    mark = _world_mark(world)
    if alert.rule == "blind":
        what = _subject_words(message)
        if message.kind == "resolved":
            return f"{mark}RESOLVED monitor sees {'' if alert.is_group else f'{alert.subject} '}again"
        return f"{mark}{level} monitor is blind: {what}"
    names = _named(message)
    if message.kind == "resolved":
        if alert.rule == "under_way":
            return f"{mark}OVER {names}: the cascade has ended"
        return f"{mark}RESOLVED {_rule_words(alert.rule)}{names}"
    if alert.rule == "under_way":
        move = words.short_move(receipt.get("members") or {alert.subject: receipt})
        again = "STILL " if message.kind == "reminder" else ""
        return f"{mark}{again}{level} UNDER WAY {names}: {_SIDE_WORDS[alert.side]}{f', {move}' if move else ''}"
    verb = {"eased": "EASED to ", "reminder": "STILL ", "escalated": "UP to "}.get(message.kind, "")
    score = receipt.get("score") or {}
    number = "" if score.get("value") is None else f", risk {score['value']:.0f} of 100"
    if alert.rule == "early_warning":
        return f"{mark}{verb}{level} storm watch {names}{_with(message)}"
    return f"{mark}{verb}{level} {_rule_words(alert.rule)}{names}: {_SIDE_WORDS[alert.side]}{number}{_with(message)}"


def _rule_words(rule: str) -> str:
    return "storm watch " if rule == "early_warning" else ""


def _with(message: Message) -> str:
    """The other rules that open in the same breath."""
    if not message.together:
        return ""
    return f", with {', '.join(_rule_level(other) for other in message.together)}"


def _named(message: Message) -> str:
    if not message.alert.is_group:
        return message.alert.subject
    names = [a.subject for a in message.members]
    if not names:
        return "market"
    shown = ", ".join(names[:_MOST_MEMBERS])
    return f"market ({shown}{f' and {len(names) - _MOST_MEMBERS} more' if len(names) > _MOST_MEMBERS else ''})"


def _headline(message: Message) -> str:
    alert = message.alert
    level, told = LEVEL_NAMES[alert.level], LEVEL_NAMES[message.told_before]
    move = {
        "opened": f"{level}",
        "spread": f"{level}, now several symbols (news: {', '.join(message.news)})",
        "joined": f"{level}, more symbols (news: {', '.join(message.news)})",
        "escalated": f"{level}, up from {told}" if alert.level > message.told_before else f"{level}, higher",
        "eased": f"{level}, down from {told}",
        "resolved": f"resolved, was {told}",
        "reminder": f"{level}, still open",
    }[message.kind]
    return f"{move}. Rule: {alert.rule}. Because: {message.reason}."


def _why_lines(receipt: dict[str, Any]) -> list[str]:
    score = receipt["score"]
    if score is None or score["value"] is None:
        return ["Risk is UNKNOWN now."]
    lines = [
        f"Risk {score['value']:.1f} of 100, possible up to {score['high']:.1f} "
        f"(coverage {100 * score['coverage']:.0f} %), {_SIDE_WORDS[score['side']]}."
    ]
    known = [c for c in receipt["components"] if c["is_known"]]
    unknown = [c for c in receipt["components"] if not c["is_known"]]
    known.sort(key=lambda c: (-c["points"], c["name"]))
    why = [f"{_COMPONENT_WORDS[c['name']]} {c['points']:.1f}/{c['budget']:.0f}" for c in known]
    why += [f"{_COMPONENT_WORDS[c['name']]} unknown/{c['budget']:.0f}" for c in unknown]
    lines.append(f"Why: {', '.join(why)}.")
    if receipt["sum_check"]["adds_up"] is False:
        lines.append("WARNING: the points do not add up to the score; do not trust this number.")
    lines.append(_flow_line(receipt["pressure"]))
    probability = receipt["probability"]
    if probability is not None:
        lines.append(f"Cascade within 4 h: {100 * probability['cascade_4h']:.1f} % (model {probability['model_id']}).")
        market, limit = probability.get("market_4h"), probability.get("market_threshold_4h")
        if market is not None and limit is not None:
            lines.append(
                f"Market within 4 h: {100 * market:.2f} % on average; early warnings begin above {100 * limit:.2f} %."
            )
    possible = receipt["severity_possible"]
    if possible not in (None, receipt["severity"]) and receipt["data"]["coverage"] < 1:
        lines.append(f"If the silent sources stood at their worst: {possible}.")
    if receipt["note"]:
        lines.append(f"Note: {receipt['note']}.")
    return lines


def _flow_line(pressure: dict[str, Any]) -> str:
    if not pressure["is_known"]:
        return f"Flow side: unknown ({pressure['note']}); the risk conditions alone decide."
    return (
        f"Flow side: pressure {pressure['score']:+.0f} (inflow {_usd(pressure['inflow_usd'])}, "
        f"outflow {_usd(pressure['outflow_usd'])} in {pressure['window_minutes']} min)."
    )


def _usd(value: float | None) -> str:
    return "unknown" if value is None else f"{value / 1e6:,.1f} M USD"


def _member_lines(members: dict[str, dict[str, Any]], message: Message) -> list[str]:
    def order(item: tuple[str, dict[str, Any]]) -> tuple[float, str]:
        score = (item[1]["score"] or {}).get("value")
        return (-score if score is not None else 1.0, item[0])

    lines = []
    ranked = sorted(members.items(), key=order)
    for symbol, receipt in ranked[:_MOST_MEMBERS]:
        score = receipt["score"]
        if score is None or score["value"] is None:
            lines.append(f"{symbol}: {receipt['severity']}, risk UNKNOWN now.")
            continue
        top = max(
            (c for c in receipt["components"] if c["is_known"]),
            key=lambda c: float(c["points"] / c["budget"]),
            default=None,
        )
        most = (
            ""
            if top is None
            else f", most from {_COMPONENT_WORDS[top['name']]} {top['points']:.1f}/{top['budget']:.0f}"
        )
        lines.append(
            f"{symbol}: {receipt['severity']}, risk {score['value']:.1f} (up to {score['high']:.1f}, coverage "
            f"{100 * score['coverage']:.0f} %), {_SIDE_WORDS[score['side']]}{most}."
        )
    if len(ranked) > _MOST_MEMBERS:
        lines.append(f"and {len(ranked) - _MOST_MEMBERS} more symbols.")
    if not ranked:
        return ["No symbol is left at this level."]
    return [*lines, _flow_line(ranked[0][1]["pressure"])]


def _blind_lines(message: Message, receipt: dict[str, Any]) -> list[str]:
    if message.kind == "resolved":
        return ["Scores are known again."]
    members: dict[str, dict[str, Any]] = receipt.get("members") or {receipt["subject"]: receipt}
    if message.alert.level == 3:
        lines = ["No symbol has a score: no risk alert can come until this ends."]
    else:
        lines = [f"No risk alert can come for {', '.join(members)} until this ends."]
    for symbol, member in list(members.items())[:_MOST_MEMBERS]:
        silent = [_COMPONENT_WORDS[c["name"]] for c in member["components"] if not c["is_known"]]
        coverage = 100 * (member["data"]["coverage"] or 0.0)
        unknown = f", unknown: {', '.join(silent)}" if silent else ""
        note = f" ({member['note']})" if member["note"] else ""
        lines.append(f"{symbol}: coverage {coverage:.0f} %{unknown}{note}.")
    lines.append("Look at `liq status` for the sources' states.")
    return lines


def _closing_lines(message: Message, receipt: dict[str, Any]) -> list[str]:
    alert = message.alert
    data = f"Data up to {_clock(message.time)} UTC"
    age = (receipt.get("data") or {}).get("oldest_age_seconds")
    if age is not None:
        data += f", oldest input {age:.0f} s"
    lines = [f"{data}. Open since {_clock(alert.opened_at)} UTC."]
    if message.kind == "resolved":
        quiet = receipt["thresholds"]["cooldown_seconds"] / 60
        if quiet:
            lines.append(f"The same again within {quiet:g} min is recorded, and told after that if it still holds.")
    else:
        lines.append(f"Seen it? liq alerts ack {alert.alert_id}")
    lines.append(f"Receipt: liq alerts show {alert.alert_id}")
    lines.append("Not financial advice.")
    return lines


def _clock(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"
