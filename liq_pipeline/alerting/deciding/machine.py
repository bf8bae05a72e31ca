"""The alert machine: open alerts and one scored point in, changes and messages out. Pure: no I/O, no clock.

Belongs here: opening, escalation, easing, resolution, hysteresis, cool-down, market grouping, what people are told.
Does not: the types (state.py), what a rule reads (levels.py), receipts and texts (alerting/telling/receipt.py,
alerting/telling/messages.py), or rows (alerting/book.py).

One step works on one point in three stages:

1. **Symbols.** Each rule reads each symbol. A higher level is taken at once (blindness: after a while). A level is left
   only after the reading stayed under it, margin included, for the rule's hold; then straight to the highest level
   seen meanwhile. A reading that cannot be judged changes nothing: unknown is not calm.
2. **Groups.** When a second symbol reaches the page level within the group window, a group alert (`market`, `monitor`)
   opens and speaks for all of them until none is left; further symbols join it.
3. **Telling.** Openings, escalations, easings and resolutions at the page level become messages, at most one per
   speaker and point. Nothing is said while nothing changes, except reminders, if asked for.

A *page* is what a person takes as one thing: a symbol's alert, or a group with all its symbols; it spans every message
from the first to the last. Figures about pages count distinct page_ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace as dataclass_replace

from msgspec.structs import replace

from liq_pipeline.alerting.deciding.levels import (
    Held,
    Reading,
    component_shares,
    read_blind,
    read_early_warning,
    read_severity,
    read_under_way,
)
from liq_pipeline.alerting.deciding.policy import CRITICAL, NEVER, WARNING, AlertPolicy, Rule, RulePolicy
from liq_pipeline.alerting.deciding.state import (
    Alert,
    Book,
    Change,
    ChangeKind,
    Cooling,
    Message,
    MessageKind,
    Step,
    alert_id,
)
from liq_pipeline.scoring.results import PointResult, Side


def step(book: Book, point: PointResult, policy: AlertPolicy, score_version: str) -> Step:
    """Advance the book by one point. Points must come in ascending time; `book` is left as it is."""
    work = _Work(book, point, policy, score_version)
    for rule in policy.rules:
        work.run(rule)
    return work.finish()


def in_one_breath(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages of a point, those of several rules that open for one subject as one: one moment, one message.

    The most urgent speaks (a cascade under way, then the higher level, then the order of the rules) and names the
    others.
    """
    first: dict[str, list[Message]] = {}
    for message in messages:
        if message.kind in ("opened", "spread") and message.alert.rule != "blind":
            first.setdefault(message.alert.subject, []).append(message)
    leading: dict[str, Message] = {}
    told_with: set[int] = set()
    for subject, of in first.items():
        ranked = sorted(of, key=lambda m: (m.alert.rule != "under_way", -m.alert.level))
        leading[subject] = dataclass_replace(ranked[0], together=tuple(ranked[1:]))
        told_with.update(id(m) for m in ranked[1:])
    found = []
    for message in messages:
        if id(message) in told_with:
            continue
        leader = leading.get(message.alert.subject)
        is_leader = (
            leader is not None and leader.alert.alert_id == message.alert.alert_id and leader.kind == message.kind
        )
        found.append(leader if is_leader and leader is not None else message)
    return tuple(found)


class _Work:
    """One step under way."""

    def __init__(self, book: Book, point: PointResult, policy: AlertPolicy, score_version: str) -> None:
        self.point = point
        self.now = point.time
        self.policy = policy
        self.score_version = score_version
        self.open = dict(book.open)
        self.pending = dict(book.pending)
        self.cooling = {key: entry for key, entry in book.cooling.items() if self.now < entry.until}
        self.changes: list[Change] = []
        self.messages: list[Message] = []
        self.symbols = sorted(point.signals)

    def finish(self) -> Step:
        return Step(Book(self.open, self.pending, self.cooling), tuple(self.changes), in_one_breath(self.messages))

    def run(self, rule: RulePolicy) -> None:
        first_change = len(self.changes)
        before = {alert.subject: alert for alert in self._alerts_of(rule)}
        for alert in self._symbol_alerts(rule):
            if alert.subject not in self.point.signals:
                self._resolve(rule, alert, f"{alert.subject} is no longer watched")
        for symbol in self.symbols:
            self._symbol(rule, symbol)
        for key in [k for k in self.pending if k[0] == rule.rule and k[1] not in self.point.signals]:
            del self.pending[key]
        self._group(rule)
        self._tell(rule, before, {c.alert.subject: c for c in self.changes[first_change:]})

    # -- stage 1: symbols --

    def _symbol(self, rule: RulePolicy, symbol: str) -> None:
        alert = self.open.get((rule.rule, symbol))
        reading = self._read(rule.rule, symbol, alert)
        level = self._sustained(rule, symbol, reading)
        if alert is None:
            if level:
                self._open(rule, symbol, level, reading.side, "the condition holds")
            return
        if level and reading.side_changed:
            self._resolve(rule, alert, "the other side is at risk now")
            # People were told of one side: a cool-down of the other must not keep the turn from them.
            self.cooling.pop((rule.rule, symbol, reading.side), None)
            self._open(rule, symbol, level, reading.side, f"the side changed, it was {alert.side}")
            return
        if reading.level is None or reading.kept is None or level is None:
            return
        self._judge(rule, alert, level, max(reading.kept, reading.level))

    def _read(self, rule: Rule, symbol: str, alert: Alert | None) -> Reading:
        risk, signal = self.point.risks.get(symbol), self.point.signals[symbol]
        if rule == "severity":
            held = None if alert is None else Held(alert.level, alert.side, alert.component_shares)
            return read_severity(risk, signal, held, self.policy)
        if rule == "under_way":
            held = None if alert is None else Held(alert.level, alert.side, alert.component_shares)
            return read_under_way(signal.under_way, held)
        if rule == "early_warning":
            return read_early_warning(risk, signal)
        return read_blind(risk, signal, self.policy)

    def _sustained(self, rule: RulePolicy, symbol: str, reading: Reading) -> int | None:
        """The highest level that has held for as long as the rule asks."""
        if reading.level is None or not rule.raise_after:
            return reading.level
        taken = 0
        for level in range(1, CRITICAL + 1):
            key = (rule.rule, symbol, level)
            if reading.level < level:
                self.pending.pop(key, None)
            elif self.now - self.pending.setdefault(key, self.now) >= rule.raise_after:
                taken = level
        return taken

    def _open(self, rule: RulePolicy, symbol: str, level: int, side: Side | None, reason: str) -> None:
        identity = alert_id(self.policy.world, rule.rule, symbol, side, self.now, self.score_version)
        alert = Alert(
            alert_id=identity,
            page_id=identity,
            rule=rule.rule,
            subject=symbol,
            side=side,
            level=level,
            peak_level=level,
            opened_at=self.now,
            judged_at=self.now,
            last_seen_at=self.now,
            changed_at=self.now,
            score_version=self.score_version,
            component_shares=component_shares(self.point.risks.get(symbol)),
            raised_at=self.now if level >= rule.page_level else None,
        )
        self.open[alert.key] = alert
        self._note("opened", alert, 0, level, reason)

    def _judge(self, rule: RulePolicy, alert: Alert, level: int, kept: int) -> None:
        """Move an open alert by a reading that could be judged."""
        had_gap = self.now - alert.judged_at > self.policy.longest_gap
        alert = replace(alert, judged_at=self.now)
        if level > alert.level:
            before = alert.level
            alert = self._at_level(rule, alert, level)
            alert = replace(
                alert, last_seen_at=self.now, component_shares=component_shares(self.point.risks.get(alert.subject))
            )
            self.open[alert.key] = alert
            self._note("escalated", alert, before, level, "the condition rose")
            return
        if level >= alert.level:
            shares = component_shares(self.point.risks.get(alert.subject))
            self.open[alert.key] = replace(
                alert, calm_since=None, calm_level=0, last_seen_at=self.now, component_shares=shares
            )
            return
        if kept >= alert.level:
            self.open[alert.key] = replace(alert, calm_since=None, calm_level=0)
            return
        if alert.calm_since is None or had_gap:
            calm_since, calm_level = self.now, kept
        else:
            calm_since, calm_level = alert.calm_since, max(alert.calm_level, kept)
        alert = replace(alert, calm_since=calm_since, calm_level=calm_level)
        self.open[alert.key] = alert
        if self.now - calm_since < rule.hold:
            return
        minutes = rule.hold.total_seconds() / 60
        if calm_level == 0:
            self._resolve(rule, alert, f"calm for {minutes:g} min")
            return
        before = alert.level
        alert = self._at_level(rule, alert, calm_level)
        self.open[alert.key] = alert
        self._note("eased", alert, before, alert.level, f"under its level for {minutes:g} min")

    def _at_level(self, rule: RulePolicy, alert: Alert, level: int) -> Alert:
        """The alert at another level. One that rises to the page level again after a cool-down is a new page."""
        page_id, raised_at = alert.page_id, alert.raised_at
        if level < rule.page_level:
            raised_at = None
        elif raised_at is None:
            raised_at = self.now
            if alert.told_at is None or self.now - alert.changed_at > rule.cooldown:
                page_id = alert_id(
                    self.policy.world, alert.rule, alert.subject, alert.side, self.now, self.score_version
                )
        return replace(
            alert,
            page_id=page_id,
            level=level,
            peak_level=max(level, alert.peak_level),
            changed_at=self.now,
            raised_at=raised_at,
            calm_since=None,
            calm_level=0,
        )

    def _resolve(self, rule: RulePolicy, alert: Alert, reason: str) -> None:
        del self.open[alert.key]
        if alert.told_at is not None and rule.cooldown and not alert.is_group:
            until = self.now + rule.cooldown
            self.cooling[(alert.rule, alert.subject, alert.side)] = Cooling(until, alert.peak_level)
        self._note("resolved", replace(alert, changed_at=self.now), alert.level, 0, reason)

    def _note(self, kind: ChangeKind, alert: Alert, before: int, after: int, reason: str) -> None:
        self.changes.append(Change(kind, self.now, alert, before, after, reason))

    # -- stage 2: groups --

    def _group(self, rule: RulePolicy) -> None:
        for alert in self._symbol_alerts(rule):
            if alert.group_id is not None and alert.level < rule.page_level:
                # It left the page; when it rises again it is news again.
                self.open[alert.key] = replace(alert, group_id=None, told_level=None)
        group = self.open.get((rule.rule, rule.group_subject))
        if group is None:
            self._form_group(rule)
            return
        for alert in self._symbol_alerts(rule):
            if alert.group_id is None and self._is_news(rule, alert):
                # A symbol that left this page a short while ago and comes back to it is no news.
                is_back = alert.page_id == group.page_id and alert.level < CRITICAL
                told_level = alert.level if is_back else alert.told_level
                self.open[alert.key] = replace(
                    alert, group_id=group.alert_id, page_id=group.page_id, told_level=told_level
                )
        self._level_group(rule, group)

    def _form_group(self, rule: RulePolicy) -> None:
        """Open a group alert if this point makes a page of several symbols."""
        worthy = [a for a in self._symbol_alerts(rule) if a.level >= rule.page_level]
        news = [a for a in worthy if self._is_news(rule, a)]
        if not news:
            return
        if rule.rule == "blind" and self._all_blind(worthy):
            members = worthy
        else:
            members = [a for a in worthy if a in news or (a.told_level is not None and self._is_recent(a))]
            if len(members) < 2:
                return
        sides = {a.side for a in members}
        side = sides.pop() if len(sides) == 1 else None
        identity = alert_id(self.policy.world, rule.rule, rule.group_subject, side, self.now, self.score_version)
        told = sorted((a.told_at, a.subject, a.page_id) for a in members if a not in news and a.told_at is not None)
        page_id = told[0][2] if told else identity
        level = self._group_level(rule, members)
        group = Alert(
            alert_id=identity,
            page_id=page_id,
            rule=rule.rule,
            subject=rule.group_subject,
            side=side,
            level=level,
            peak_level=level,
            opened_at=self.now,
            judged_at=self.now,
            last_seen_at=self.now,
            changed_at=self.now,
            score_version=self.score_version,
            raised_at=self.now,
            is_group=True,
        )
        for alert in members:
            self.open[alert.key] = replace(
                alert, group_id=identity, page_id=page_id if alert in news else alert.page_id
            )
        self.open[group.key] = group
        self._note("opened", group, 0, level, f"{len(members)} symbols: {', '.join(a.subject for a in members)}")

    def _level_group(self, rule: RulePolicy, group: Alert) -> None:
        """Bring the group's level to that of its members, or end it with the last of them."""
        members = self._members(rule, group)
        group = replace(group, judged_at=self.now)
        level = self._group_level(rule, members)
        if not members:
            self._resolve(rule, group, "no symbol is left at the page level")
            return
        before = group.level
        group = replace(group, last_seen_at=max(a.last_seen_at for a in members))
        if level != before:
            group = self._at_level(rule, group, level)
        self.open[group.key] = group
        if level != before:
            kind: ChangeKind = "escalated" if level > before else "eased"
            self._note(kind, group, before, level, "the highest of its symbols")

    def _group_level(self, rule: RulePolicy, members: Iterable[Alert]) -> int:
        members = list(members)
        if rule.rule == "blind" and self._all_blind(members):
            return CRITICAL
        return max((a.level for a in members), default=0)

    def _all_blind(self, alerts: list[Alert]) -> bool:
        return bool(self.symbols) and {a.subject for a in alerts if a.level >= WARNING} >= set(self.symbols)

    # -- stage 3: telling --

    def _tell(self, rule: RulePolicy, before: dict[str, Alert], changes: dict[str, Change]) -> None:
        group = self.open.get((rule.rule, rule.group_subject))
        for alert in self._symbol_alerts(rule):
            if alert.group_id is None:
                self._tell_symbol(rule, alert, changes.get(alert.subject))
        if group is not None:
            self._tell_group(rule, group, before, changes)
        for subject, change in sorted(changes.items()):
            # A side that gave way to the other is not in here: the other's opening is its subject's newest change.
            ended = before.get(subject)
            if change.kind != "resolved" or ended is None or ended.group_id is not None:
                continue
            knew = ended.told_level is not None and (ended.told_level >= rule.page_level or rule.page_level == NEVER)
            if knew:
                self._say(rule, "resolved", ended, (), change.reason)

    def _tell_symbol(self, rule: RulePolicy, alert: Alert, change: Change | None) -> None:
        if self._is_news(rule, alert):
            reason = "the cool-down is over and the condition still holds" if change is None else change.reason
            self._say(rule, "opened" if alert.told_level is None else "escalated", alert, (alert,), reason)
        elif alert.told_level is None:
            return
        elif alert.level > alert.told_level and alert.level >= rule.page_level:
            self._say(rule, "escalated", alert, (alert,), "the condition rose")
        elif alert.level < alert.told_level:
            self._say(rule, "eased", alert, (alert,), "the condition fell" if change is None else change.reason)
        elif self._is_reminder_due(rule, alert):
            self._say(rule, "reminder", alert, (alert,), "still open and not acknowledged")

    def _tell_group(self, rule: RulePolicy, group: Alert, before: dict[str, Alert], changes: dict[str, Change]) -> None:
        members = self._members(rule, group)
        news = [a.subject for a in members if self._is_news(rule, a)]
        if group.told_level is None or group.told_at is None:
            kind: MessageKind = "opened" if len(news) == len(members) else "spread"
            self._say(rule, kind, group, members, f"{len(members)} symbols within the group window")
            return
        risen = [
            a.subject
            for a in members
            if (change := changes.get(a.subject)) is not None
            and change.kind == "escalated"
            and change.level_before >= rule.page_level
        ]
        turned = [
            a.subject
            for a in members
            if a.subject in before
            and before[a.subject].group_id == group.alert_id
            and before[a.subject].alert_id != a.alert_id
        ]
        if turned:
            self._say(rule, "escalated", group, members, f"the side changed for {', '.join(turned)}")
        elif risen or group.level > group.told_level:
            self._say(rule, "escalated", group, members, f"{', '.join(risen or news)} rose")
        elif news and self.now - group.told_at >= self.policy.group_window:
            self._say(rule, "joined", group, members, f"{', '.join(news)} joined")
        elif group.level < group.told_level:
            self._say(rule, "eased", group, members, "the highest of its symbols fell")
        elif self._is_reminder_due(rule, group):
            self._say(rule, "reminder", group, members, "still open and not acknowledged")

    def _say(self, rule: RulePolicy, kind: MessageKind, alert: Alert, members: Iterable[Alert], reason: str) -> None:
        """Record a message, and that its members were told of."""
        members = tuple(members)
        news = tuple(a.subject for a in members if self._is_news(rule, a))
        told = tuple(self._told(a) for a in members)
        for member in told:
            self.open[member.key] = member
        before = alert.told_level or 0
        if kind != "resolved":
            alert = self._told(alert)
            self.open[alert.key] = alert
        self.messages.append(Message(kind, self.now, alert, before, told, news, reason))

    def _told(self, alert: Alert) -> Alert:
        """The alert as people know it now; when they first heard of it stays."""
        return replace(alert, told_level=alert.level, told_at=self.now, first_told_at=alert.first_told_at or self.now)

    # -- small questions --

    def _alerts_of(self, rule: RulePolicy) -> list[Alert]:
        return sorted((a for a in self.open.values() if a.rule == rule.rule), key=lambda a: a.subject)

    def _symbol_alerts(self, rule: RulePolicy) -> list[Alert]:
        return [a for a in self._alerts_of(rule) if not a.is_group]

    def _members(self, rule: RulePolicy, group: Alert) -> list[Alert]:
        return [a for a in self._symbol_alerts(rule) if a.group_id == group.alert_id]

    def _is_news(self, rule: RulePolicy, alert: Alert) -> bool:
        """Whether it stands at the page level, people do not know, and no cool-down keeps it quiet."""
        is_untold = alert.told_level is None or alert.told_level < rule.page_level
        return alert.level >= rule.page_level and is_untold and not self._is_muted(alert)

    def _is_recent(self, alert: Alert) -> bool:
        """Whether it reached the page level within the group window."""
        return alert.raised_at is not None and self.now - alert.raised_at <= self.policy.group_window

    def _is_muted(self, alert: Alert) -> bool:
        """Whether the cool-down of its last page keeps it quiet. A CRITICAL, a level above that page's, and whatever
        rises while it is open are never kept."""
        entry = self.cooling.get((alert.rule, alert.subject, alert.side))
        return (
            entry is not None
            and alert.told_at is None
            and alert.changed_at == alert.opened_at
            and alert.level <= entry.peak_level
            and alert.level < CRITICAL
        )

    def _is_reminder_due(self, rule: RulePolicy, alert: Alert) -> bool:
        return (
            self.policy.reminder is not None
            and alert.level >= rule.page_level
            and not alert.is_acknowledged
            and alert.told_at is not None
            and self.now - alert.told_at >= self.policy.reminder
        )
