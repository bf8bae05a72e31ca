"""The alert machine: what opens, rises, falls, ends, and what people are told of it."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liq_pipeline.alerting.deciding.policy import CRITICAL, WARNING, AlertPolicy
from liq_pipeline.alerting.deciding.state import alert_id
from liq_pipeline.scoring.results import PointResult
from liq_pipeline_tests.alert_support import START, VERSION, Reading, histories, play, point, policy, series, world

ONLY_SEVERITY = {"alert_policy": "severity"}


def calm(minutes: int) -> list[float]:
    return [0.0] * minutes


# -- one symbol --


def test_a_warning_opens_once_and_is_told_once_while_it_lasts() -> None:
    played = play(series("BTC", [60.0] * 30), policy())
    assert played.told() == [(0, "opened", "BTC", "WARNING")]
    assert [c.kind for c in played.changes] == ["opened"]


def test_info_is_recorded_and_not_told() -> None:
    played = play(series("BTC", [40.0, 40.0]), policy())
    assert [(c.kind, c.level_after) for c in played.changes] == [("opened", 1)]
    assert played.messages == []


def test_info_is_told_where_the_installation_asks_for_it() -> None:
    assert play(series("BTC", [40.0]), policy(alert_min_severity="INFO")).told() == [(0, "opened", "BTC", "INFO")]


def test_a_rise_is_told_at_once() -> None:
    played = play(series("BTC", [60.0, 60.0, 80.0], pressure=-40.0), policy())
    assert played.told() == [(0, "opened", "BTC", "WARNING"), (2, "escalated", "BTC", "CRITICAL")]


def test_a_level_is_left_only_after_the_hold_under_its_margin() -> None:
    # 50 is the threshold and 45 what must be passed downwards: 46 never eases, however long it lasts.
    assert play(series("BTC", [60.0] + [46.0] * 120), policy()).book.open["severity", "BTC"].level == WARNING
    played = play(series("BTC", [60.0] + [44.0] * 16), policy())
    assert played.told() == [(0, "opened", "BTC", "WARNING"), (16, "eased", "BTC", "INFO")]


def test_one_point_above_the_margin_starts_the_hold_anew() -> None:
    played = play(series("BTC", [60.0] + [10.0] * 14 + [47.0] + [10.0] * 15), policy())
    assert played.told() == [(0, "opened", "BTC", "WARNING")]
    assert play(series("BTC", [60.0] + [10.0] * 14 + [47.0] + [10.0] * 16), policy()).told()[1][:2] == (31, "resolved")


def test_easing_goes_to_the_highest_level_seen_during_the_hold() -> None:
    played = play(series("BTC", [80.0] + [55.0] * 2 + [0.0] * 14, pressure=-40.0), policy())
    assert played.told()[1] == (16, "eased", "BTC", "WARNING")


def test_the_end_is_told_once() -> None:
    played = play(series("BTC", [60.0, *calm(60)]), policy())
    assert played.told() == [(0, "opened", "BTC", "WARNING"), (16, "resolved", "BTC", "WARNING")]
    assert played.book.open == {}


def test_a_page_that_eased_out_of_what_is_sent_has_exactly_one_closing_message() -> None:
    played = play(series("BTC", [60.0] + [40.0] * 20 + calm(60)), policy())
    assert [kind for _, kind, _, _ in played.told()] == ["opened", "eased"]
    assert [c.kind for c in played.changes] == ["opened", "eased", "resolved"]


def test_a_rise_of_the_pressure_past_its_threshold_needs_the_margin_and_the_hold_too() -> None:
    points = [point(0, {"BTC": 60.0}, pressure=-10.0)]
    assert play(points + [point(1 + i, {"BTC": 60.0}, 4.0) for i in range(60)], policy()).told() == [
        (0, "opened", "BTC", "WARNING")
    ]
    eased = play(points + [point(1 + i, {"BTC": 60.0}, 6.0) for i in range(60)], policy())
    assert eased.told()[1] == (16, "eased", "BTC", "INFO")


# -- unknown is not calm --


def test_unknown_points_neither_calm_nor_end_an_alert() -> None:
    played = play(series("BTC", [60.0] + [None] * 200), policy())
    assert played.book.open["severity", "BTC"].level == WARNING
    assert [m.kind for m in played.messages if m.alert.rule == "severity"] == ["opened"]


def test_a_component_that_falls_silent_takes_no_alert_down_with_it() -> None:
    parts = {"funding": 20.0, "open_interest": 30.0, "long_short": 5.0, "liquidation": 0.0}
    loud, silent = Reading(55.0, parts=parts), Reading(25.0, parts=parts, silent=("open_interest",))
    played = play(series("BTC", [loud] + [silent] * 120), policy(**ONLY_SEVERITY))
    assert played.book.open["severity", "BTC"].level == WARNING
    really_lower = Reading(25.0, parts={**parts, "open_interest": 0.0})
    assert play(series("BTC", [loud] + [really_lower] * 120), policy(**ONLY_SEVERITY)).book.open == {}


def test_one_venue_of_a_component_falling_silent_takes_no_alert_down_with_it() -> None:
    parts = {"funding": 28.0, "open_interest": 20.0, "long_short": 5.0, "liquidation": 0.0}
    both, one = Reading(53.0, parts=parts), Reading(41.0, parts={**parts, "funding": 16.0}, funding_share=0.5)
    rules = policy(**ONLY_SEVERITY)
    assert play(series("BTC", [both] + [one] * 120), rules).book.open["severity", "BTC"].level == WARNING
    # Where the venue was silent from the start, the same fall is a fall.
    first = Reading(53.0, parts=parts, funding_share=0.5)
    assert play(series("BTC", [first] + [one] * 120), rules).book.open["severity", "BTC"].level < WARNING


def test_a_flow_side_that_falls_silent_takes_no_alert_down_with_it() -> None:
    points = [point(0, {"BTC": 80.0}, -40.0)] + [point(1 + i, {"BTC": 80.0}, None) for i in range(60)]
    assert play(points, policy()).book.open["severity", "BTC"].level == CRITICAL


def test_a_hole_in_the_points_is_no_proof_of_calm() -> None:
    points = [point(0, {"BTC": 60.0}), point(1, {"BTC": 0.0}), point(60, {"BTC": 0.0})]
    assert play(points, policy()).told() == [(0, "opened", "BTC", "WARNING")]
    after = [point(60 + i, {"BTC": 0.0}) for i in range(1, 16)]
    assert play(points + after, policy()).told()[1] == (75, "resolved", "BTC", "WARNING")


def test_calm_is_found_on_a_grid_slower_than_the_hold() -> None:
    hourly = policy(world(step_seconds=3600))
    assert play([point(60 * i, {"BTC": 60.0 if i == 0 else 0.0}) for i in range(4)], hourly).told()[1] == (
        120,
        "resolved",
        "BTC",
        "WARNING",
    )


# -- cool-down --


def test_the_same_again_within_the_cool_down_waits_for_its_end() -> None:
    back = series("BTC", [60.0] + calm(16) + [60.0] * 60)
    assert play(back, policy()).told() == [
        (0, "opened", "BTC", "WARNING"),
        (16, "resolved", "BTC", "WARNING"),
        (46, "opened", "BTC", "WARNING"),
    ]


def test_what_went_away_within_the_cool_down_is_recorded_and_never_told() -> None:
    played = play(series("BTC", [60.0, *calm(16), 60.0, *calm(60)]), policy())
    assert [kind for _, kind, _, _ in played.told()] == ["opened", "resolved"]
    assert [c.kind for c in played.changes] == ["opened", "resolved", "opened", "resolved"]


def test_a_higher_level_breaks_the_cool_down() -> None:
    points = series("BTC", [60.0, *calm(16)], pressure=-40.0) + series("BTC", [80.0], pressure=-40.0, start=17)
    assert play(points, policy()).told()[2] == (17, "opened", "BTC", "CRITICAL")


def test_a_rise_during_the_cool_down_is_told() -> None:
    first = series("BTC", [80.0, *calm(40)], pressure=-40.0)
    again = series("BTC", [60.0, 60.0, 80.0], pressure=-40.0, start=41)
    told = play(first + again, policy(alert_cooldown_minutes=600)).told()
    assert told[-1] == (43, "opened", "BTC", "CRITICAL")


# -- sides --


def test_another_side_taking_over_is_a_new_alert_told_at_once() -> None:
    points = series("BTC", [Reading(60.0, "long"), Reading(60.0, "short", other_side=10.0)])
    played = play(points, policy())
    assert [(m.kind, m.alert.side) for m in played.messages] == [("opened", "long"), ("opened", "short")]
    assert [(c.kind, c.alert.side) for c in played.changes] == [
        ("opened", "long"),
        ("resolved", "long"),
        ("opened", "short"),
    ]


def test_two_sides_close_together_do_not_flap() -> None:
    readings = [Reading(60.0, "long", other_side=59.0), Reading(60.0, "short", other_side=59.0)] * 30
    assert len(play(series("BTC", readings), policy()).messages) == 1


def test_the_other_side_rising_above_the_level_is_told_at_once() -> None:
    points = series("BTC", [Reading(60.0, "long"), Reading(80.0, "short", other_side=60.0)], pressure=-40.0)
    assert play(points, policy()).told() == [(0, "opened", "BTC", "WARNING"), (1, "opened", "BTC", "CRITICAL")]


# -- market grouping --


def test_symbols_that_open_together_are_one_page() -> None:
    played = play([point(0, {"BTC": 60.0, "ETH": 60.0, "SOL": 0.0})], policy())
    assert played.told() == [(0, "opened", "market", "WARNING")]
    assert [a.subject for a in played.messages[0].members] == ["BTC", "ETH"]
    assert len({m.alert.page_id for m in played.messages}) == 1


def test_a_second_symbol_within_the_window_makes_the_page_a_market_page() -> None:
    points = [point(i, {"BTC": 60.0, "ETH": 60.0 if i >= 5 else 0.0}) for i in range(10)]
    played = play(points, policy())
    assert played.told() == [(0, "opened", "BTC", "WARNING"), (5, "spread", "market", "WARNING")]
    assert played.messages[1].news == ("ETH",)
    assert len({m.alert.page_id for m in played.messages}) == 1


def test_a_second_symbol_after_the_window_is_a_page_of_its_own() -> None:
    points = [point(i, {"BTC": 60.0, "ETH": 60.0 if i >= 20 else 0.0}) for i in range(30)]
    played = play(points, policy())
    assert played.told() == [(0, "opened", "BTC", "WARNING"), (20, "opened", "ETH", "WARNING")]
    assert len({m.alert.page_id for m in played.messages}) == 2


def test_symbols_that_join_a_market_page_are_told_together_once_a_window() -> None:
    starts = {"BTC": 0, "ETH": 0, "SOL": 3, "XRP": 8, "ADA": 9}
    points = [point(i, {s: 60.0 if i >= at else 0.0 for s, at in starts.items()}) for i in range(40)]
    played = play(points, policy())
    assert played.told() == [(0, "opened", "market", "WARNING"), (15, "joined", "market", "WARNING")]
    assert played.messages[1].news == ("ADA", "SOL", "XRP")


def test_a_symbol_that_leaves_a_market_page_and_comes_back_soon_is_no_news() -> None:
    points = [point(i, {"BTC": 60.0, "ETH": 60.0 if i < 5 or i > 30 else 40.0}) for i in range(60)]
    played = play(points, policy())
    assert played.told() == [(0, "opened", "market", "WARNING")]
    assert [(c.kind, c.alert.subject) for c in played.changes][-2:] == [("eased", "ETH"), ("escalated", "ETH")]
    assert played.book.open["severity", "ETH"].group_id == played.book.open["severity", "market"].alert_id


def test_a_symbol_that_rises_inside_a_market_page_is_told_at_once() -> None:
    points = [point(0, {"BTC": 60.0, "ETH": 60.0}, -40.0), point(1, {"BTC": 80.0, "ETH": 60.0}, -40.0)]
    points.append(point(2, {"BTC": 80.0, "ETH": 80.0}, -40.0))
    assert [t[1:] for t in play(points, policy()).told()] == [
        ("opened", "market", "WARNING"),
        ("escalated", "market", "CRITICAL"),
        ("escalated", "market", "CRITICAL"),
    ]


def test_a_market_page_ends_with_its_last_symbol() -> None:
    points = [point(i, {"BTC": 60.0 if i < 5 else 0.0, "ETH": 60.0 if i < 20 else 0.0}) for i in range(60)]
    assert play(points, policy()).told() == [(0, "opened", "market", "WARNING"), (35, "resolved", "market", "WARNING")]


def test_symbols_at_info_do_not_make_a_market_page() -> None:
    played = play([point(0, {"BTC": 40.0, "ETH": 40.0, "SOL": 60.0})], policy())
    assert played.told() == [(0, "opened", "SOL", "WARNING")]


def test_a_page_that_rises_again_long_after_it_eased_is_a_new_page() -> None:
    risks = [60.0] + [40.0] * 100 + [60.0]
    played = play(series("BTC", risks), policy())
    assert [kind for _, kind, _, _ in played.told()] == ["opened", "eased", "escalated"]
    first, _, again = (m.alert for m in played.messages)
    assert first.alert_id == again.alert_id
    assert first.page_id != again.page_id


# -- early warning and policy --


def test_the_early_warning_is_a_rule_of_its_own() -> None:
    played = play(series("BTC", [Reading(60.0, early_warning=True)]), policy(alert_policy="both"))
    assert sorted(rule for rule, _ in played.book.open) == ["early_warning", "severity"]


def test_rules_that_open_together_are_one_message_that_names_each() -> None:
    points = series("BTC", [Reading(60.0, early_warning=True)])
    [message] = play(points, policy(alert_policy="severity,early_warning")).messages
    assert message.alert.rule == "severity"
    assert [other.alert.rule for other in message.together] == ["early_warning"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("severity", ["severity"]),
        ("early_warning", ["early_warning"]),
        ("probability", ["early_warning"]),
        ("under_way", []),
        ("severity,under_way", ["severity"]),
    ],
)
def test_the_policy_selects_what_is_sent_and_everything_is_recorded(asked: str, told: list[str]) -> None:
    played = play(series("BTC", [Reading(60.0, early_warning=True)]), policy(alert_policy=asked))
    assert [m.alert.rule for m in played.messages] == told
    assert sorted(rule for rule, _ in played.book.open) == ["early_warning", "severity"]


def test_the_end_of_what_people_know_is_told_although_its_rule_is_not_asked_for_any_more() -> None:
    before = play(series("BTC", [60.0]), policy())
    calm = series("BTC", [0.0] * 30, start=1)
    after = play(calm, policy(alert_policy="under_way"), before.book)
    assert [kind for _, kind, _, _ in after.told()][-1] == "resolved"
    assert not after.book.open


def test_an_early_warning_without_a_probability_stays_as_it_is() -> None:
    readings = [Reading(0.0, early_warning=True)] + [Reading(0.0, early_warning=None)] * 200
    assert play(series("BTC", readings), policy()).book.open["early_warning", "BTC"].level == WARNING


def test_a_symbol_that_is_no_longer_watched_ends() -> None:
    before = play([point(0, {"BTC": 60.0, "ETH": 0.0})], policy())
    after = play([point(1, {"ETH": 0.0})], policy(), before.book)
    assert after.told() == [(1, "resolved", "BTC", "WARNING")]


# -- blindness --


def test_a_monitor_that_sees_nothing_says_so_after_three_points() -> None:
    points = [point(i, {"BTC": None, "ETH": None}) for i in range(10)]
    played = play(points, policy())
    assert played.told() == [(2, "opened", "monitor", "CRITICAL")]
    assert played.messages[0].alert.rule == "blind"


def test_blindness_needs_its_seconds_on_a_fast_grid() -> None:
    points = [point(i / 6, {"BTC": None}) for i in range(12)]
    assert play(points, policy(world(step_seconds=10))).told() == [(1, "opened", "monitor", "CRITICAL")]


def test_one_known_point_restarts_the_wait() -> None:
    risks: list[float | None] = [None, None, 0.0, None, None, 0.0]
    assert play(series("BTC", risks), policy()).messages == []


def test_one_blind_symbol_is_a_warning_about_that_symbol() -> None:
    points = [point(i, {"BTC": None, "ETH": 0.0}) for i in range(4)]
    assert play(points, policy()).told() == [(2, "opened", "BTC", "WARNING")]


def test_a_monitor_that_goes_blind_symbol_by_symbol_ends_up_critical() -> None:
    points = [point(i, {"BTC": None, "ETH": None if i >= 60 else 0.0}) for i in range(70)]
    assert play(points, policy()).told() == [(2, "opened", "BTC", "WARNING"), (62, "spread", "monitor", "CRITICAL")]


def test_a_missing_source_is_recorded_as_degraded_and_not_told() -> None:
    reading = Reading(10.0, silent=("liquidation",))
    played = play(series("BTC", [reading] * 5), policy())
    assert [(c.kind, c.alert.rule, c.level_after) for c in played.changes] == [("opened", "blind", 1)]
    assert played.messages == []


def test_sight_regained_is_told_after_it_lasted() -> None:
    points = [point(i, {"BTC": None if i < 5 else 0.0}) for i in range(20)]
    assert play(points, policy()).told() == [
        (2, "opened", "monitor", "CRITICAL"),
        (10, "resolved", "monitor", "CRITICAL"),
    ]


def test_blindness_is_told_whatever_the_least_severity_is() -> None:
    points = [point(i, {"BTC": None}) for i in range(4)]
    assert play(points, policy(alert_min_severity="CRITICAL")).told() == [(2, "opened", "monitor", "CRITICAL")]


def test_blindness_that_comes_back_is_told_again_without_a_cool_down() -> None:
    points = [point(i, {"BTC": None if i < 5 or i >= 11 else 0.0}) for i in range(20)]
    assert [kind for _, kind, _, _ in play(points, policy()).told()] == ["opened", "resolved", "opened"]


# -- reminders and ids --


def test_reminders_are_off_unless_asked_for() -> None:
    points = series("BTC", [60.0] * 100)
    assert len(play(points, policy()).messages) == 1
    asked = play(points, policy(alert_reminder_minutes=30)).told()
    assert [(at, kind) for at, kind, _, _ in asked] == [
        (0, "opened"),
        (30, "reminder"),
        (60, "reminder"),
        (90, "reminder"),
    ]


def test_an_id_is_made_of_world_rule_subject_side_time_and_score_version() -> None:
    opened = play(series("BTC", [60.0]), policy()).changes[0].alert
    assert opened.alert_id == alert_id("real", "severity", "BTC", "long", START, VERSION)
    assert isinstance(opened.alert_id, uuid.UUID)
    others = {
        alert_id("recorded/a", "severity", "BTC", "long", START, VERSION),
        alert_id("real", "early_warning", "BTC", "long", START, VERSION),
        alert_id("real", "severity", "market", "long", START, VERSION),
        alert_id("real", "severity", "BTC", "short", START, VERSION),
        alert_id("real", "severity", "BTC", "long", START + timedelta(seconds=10), VERSION),
        alert_id("real", "severity", "BTC", "long", START, "v2"),
    }
    assert len(others | {opened.alert_id}) == 7


# -- properties --

POLICIES = st.sampled_from(
    [
        policy(),
        policy(alert_min_severity="INFO"),
        policy(alert_hold_minutes=0, alert_cooldown_minutes=0),
        policy(alert_policy="severity", alert_group_minutes=1),
    ]
)


@settings(max_examples=60, deadline=None)
@given(points=histories(), of=POLICIES)
def test_what_always_holds(points: list[PointResult], of: AlertPolicy) -> None:
    played = play(points, of)
    page_level = {rule.rule: rule.page_level for rule in of.rules}
    for book in played.books:
        # Never two open alerts of one rule and subject, and every one stands under its own key.
        assert all(alert.key == key for key, alert in book.open.items())
        for alert in book.open.values():
            assert 1 <= alert.level <= alert.peak_level <= CRITICAL
            # Who is spoken for by a group is spoken for by an open one.
            if alert.group_id is not None:
                assert alert.group_id in {a.alert_id for a in book.open.values() if a.is_group}

    changed_at = {(c.time, c.alert.rule) for c in played.changes}
    speakers = [(m.time, m.alert.rule, m.alert.subject) for m in played.messages]
    assert len(speakers) == len(set(speakers)), "one message per speaker and point"
    for message in played.messages:
        # No message without a change of that rule, except what was held back on purpose.
        held_back = message.kind == "joined" or "cool-down is over" in message.reason
        assert held_back or (message.time, message.alert.rule) in changed_at

    # Every escalation that reaches the page level is told at its very point, by the symbol or by its group.
    for change in played.changes:
        if (
            change.kind == "escalated"
            and change.level_after >= page_level[change.alert.rule]
            and not change.alert.is_group
        ):
            spoken = [
                m
                for m in played.messages
                if m.time == change.time
                and m.alert.rule == change.alert.rule
                and (change.alert.subject == m.alert.subject or change.alert.subject in {a.subject for a in m.members})
            ]
            joined_quietly = change.level_before < page_level[change.alert.rule]
            assert spoken or joined_quietly

    # The same points give the same alerts, and a book that was left and taken up again goes on as if never left.
    again = play(points, of)
    assert (again.changes, again.messages, again.book) == (played.changes, played.messages, played.book)
    half = play(points[: len(points) // 2], of)
    rest = play(points[len(points) // 2 :], of, half.book)
    assert half.messages + rest.messages == played.messages
    assert rest.book == played.book if points[len(points) // 2 :] else True


@settings(max_examples=60, deadline=None)
@given(points=histories())
def test_people_always_know_the_highest_level_that_is_open(points: list[PointResult]) -> None:
    """No CRITICAL stands untold, and nothing at the page level stays untold past cool-down and window."""
    of = policy()
    played = play(points, of)
    for at, book in zip(points, played.books, strict=True):
        for alert in book.open.values():
            if alert.is_group or alert.level < WARNING:
                continue
            group = next((a for a in book.open.values() if a.alert_id == alert.group_id), None)
            known = max(alert.told_level or 0, (group.told_level or 0) if group else 0)
            if alert.level == CRITICAL:
                assert known == CRITICAL
            elif alert.raised_at is not None and at.time - alert.raised_at > timedelta(minutes=31):
                assert known >= alert.level
