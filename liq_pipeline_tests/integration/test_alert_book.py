"""The alert book on a real PostgreSQL: the machine's state survives, and what was decided is queued once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row
from pydantic import SecretStr

from liq_pipeline.alerting.book import ack, advance, list_alerts, load, show_alert
from liq_pipeline.alerting.sending.outbox import enqueue_signals, prune_outbox
from liq_pipeline.alerting.telling.receipt import adds_up
from liq_pipeline.domain.worlds import World
from liq_pipeline.errors import LiqError
from liq_pipeline.scoring.results import PointResult
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.alert_support import START, VERSION, Reading, histories, play, point, policy, series, world

CHANNELS = Settings(alert_urls=(SecretStr("json://127.0.0.1:9/x"),))


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(database_url, application_name="test") as connection:
        yield connection


def rows(conn: psycopg.Connection[Any], query: str, *parameters: object) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, parameters).fetchall()


def queued(conn: psycopg.Connection[Any], topic: str) -> list[dict[str, Any]]:
    return rows(conn, "SELECT * FROM outbox WHERE topic = %s ORDER BY created_at", topic)


def test_an_alert_its_receipt_and_its_messages_are_written_together(conn: psycopg.Connection[Any]) -> None:
    done = advance(conn, world(), series("BTC", [60.0, 60.0]), CHANNELS, VERSION)
    assert ([c.kind for c in done.changes], [m.kind for m in done.messages]) == (["opened"], ["opened"])
    assert done.has_work
    assert done.held_messages == 0
    [alert] = rows(conn, "SELECT * FROM alerts")
    assert (alert["rule"], alert["subject"], alert["side"], alert["severity"], alert["state"]) == (
        "severity",
        "BTC",
        "long",
        "WARNING",
        "open",
    )
    assert alert["opened_at"] == START
    assert alert["judged_at"] == START + timedelta(minutes=1)
    assert adds_up(alert["receipt"])
    assert sum(c["points"] for c in alert["receipt"]["components"]) == pytest.approx(60.0)
    assert [(r["payload"]["type"], r["payload"]["kind"]) for r in queued(conn, "alerts")] == [
        ("change", "opened"),
        ("message", "opened"),
    ]
    [message] = queued(conn, "channels")
    assert message["state"] == "due"
    assert message["alert_id"] == alert["alert_id"]
    assert message["payload"]["title"].startswith("WARNING BTC")


def test_an_outbox_record_is_keyed_by_its_row(conn: psycopg.Connection[Any]) -> None:
    advance(conn, world(), series("BTC", [60.0]), CHANNELS, VERSION)
    for record in queued(conn, "alerts"):
        assert record["message_key"] == str(record["outbox_id"]) == record["payload"]["id"]


def test_nothing_changes_nothing_is_written(conn: psycopg.Connection[Any]) -> None:
    assert not advance(conn, world(), series("BTC", [0.0] * 5), CHANNELS, VERSION).has_work
    assert rows(conn, "SELECT 1 FROM alerts UNION ALL SELECT 1 FROM outbox") == []
    assert not advance(conn, world(), [], CHANNELS, VERSION).has_work


def test_a_rollback_leaves_neither_alert_nor_message(conn: psycopg.Connection[Any]) -> None:
    advance(conn, world(), series("BTC", [60.0]), CHANNELS, VERSION)
    conn.rollback()
    assert rows(conn, "SELECT 1 FROM alerts UNION ALL SELECT 1 FROM outbox") == []


def test_points_out_of_order_are_refused(conn: psycopg.Connection[Any]) -> None:
    points = series("BTC", [60.0, 60.0])
    with pytest.raises(ValueError, match="ascending"):
        advance(conn, world(), points[::-1], CHANNELS, VERSION)


def test_a_life_from_opening_to_end_has_every_change_with_its_receipt(conn: psycopg.Connection[Any]) -> None:
    risks = [60.0, 80.0] + [55.0] * 16 + [0.0] * 32
    advance(conn, world(), series("BTC", risks, pressure=-40.0), CHANNELS, VERSION)
    changes = rows(conn, "SELECT kind, severity_before, severity, receipt FROM alert_changes ORDER BY time")
    assert [(c["kind"], c["severity_before"], c["severity"]) for c in changes] == [
        ("opened", "NONE", "WARNING"),
        ("escalated", "WARNING", "CRITICAL"),
        ("eased", "CRITICAL", "WARNING"),
        ("resolved", "WARNING", "NONE"),
    ]
    assert [c["receipt"]["score"]["value"] for c in changes] == pytest.approx([60.0, 80.0, 55.0, 0.0])
    [alert] = rows(conn, "SELECT * FROM alerts")
    assert (alert["state"], alert["peak_severity"]) == ("resolved", "CRITICAL")
    assert alert["resolved_because"].startswith("calm for")
    # The receipt that stays with the alert is that of its highest rise.
    assert alert["receipt"]["score"]["value"] == pytest.approx(80.0)


def test_a_market_page_is_one_alert_over_its_symbols(conn: psycopg.Connection[Any]) -> None:
    advance(conn, world(), [point(0, {"BTC": 60.0, "ETH": 62.0, "SOL": 0.0})], CHANNELS, VERSION)
    group, btc, eth = rows(conn, "SELECT * FROM alerts ORDER BY (subject <> 'market'), subject")
    assert group["subject"] == "market"
    assert btc["group_id"] == eth["group_id"] == group["alert_id"]
    assert {group["page_id"], btc["page_id"], eth["page_id"]} == {group["alert_id"]}
    assert set(group["receipt"]["members"]) == {"BTC", "ETH"}
    assert len(queued(conn, "channels")) == 1
    assert [m["subject"] for m in show_alert(conn, str(group["alert_id"]))["members"]] == ["BTC", "ETH"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=histories(), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_the_book_read_back_is_the_machine_s_own(
    new_database: psycopg.Connection[Any], points: list[PointResult], cuts: list[int]
) -> None:
    """However the points are split over transactions and processes, the alerts and messages are the same."""
    where = World(
        name=f"simulated/{uuid.uuid4().hex}",
        kind="simulated",
        market_step_seconds=60,
        flows_step_seconds=60,
        manifest=world().manifest,
    )
    expected = play(points, policy(where))
    edges = [0, *sorted(c for c in cuts if c < len(points)), len(points)]
    changes, messages = [], []
    for start, end in pairwise(edges):
        done = advance(new_database, where, points[start:end], Settings(), VERSION)
        new_database.commit()
        changes += done.changes
        messages += done.messages
    assert changes == expected.changes
    assert messages == expected.messages
    read = load(new_database, where, policy(where), points[-1].time)
    new_database.commit()
    assert read.open == expected.book.open
    assert read.pending == expected.book.pending
    counted = rows(
        new_database,
        "SELECT count(*) FILTER (WHERE topic = 'channels') AS messages,"
        " count(*) FILTER (WHERE topic = 'alerts') AS records FROM outbox WHERE world = %s",
        where.name,
    )[0]
    assert counted == {"messages": len(messages), "records": len(messages) + len(changes)}


@pytest.fixture
def new_database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """One database for all examples of a property; each uses a world of its own."""
    with connect(database_url) as connection:
        yield connection


def test_two_replays_of_the_same_points_give_the_same_rows(new_database_url: Callable[[], str]) -> None:
    points = [point(i, {"BTC": 60.0 if i % 50 < 20 else 0.0, "ETH": None if i > 55 else 40.0}) for i in range(80)]
    business = (
        "SELECT alert_id, page_id, rule, subject, side, severity, state, opened_at, resolved_at, receipt FROM alerts"
        " ORDER BY alert_id"
    )
    outcomes = []
    for batch in (1, 60):
        with connect(new_database_url()) as connection:
            for start in range(0, len(points), batch):
                advance(connection, world("recorded/x"), points[start : start + batch], Settings(), VERSION)
            sent = "SELECT outbox_id, topic, message_key, payload, state FROM outbox ORDER BY outbox_id"
            outcomes.append((rows(connection, business), rows(connection, sent)))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0][0]) > 2


@pytest.mark.parametrize("name", ["simulated/7", "recorded/october"])
def test_messages_of_an_unreal_world_are_held_with_the_reason(conn: psycopg.Connection[Any], name: str) -> None:
    done = advance(conn, world(name), series("BTC", [60.0]), CHANNELS, VERSION)
    assert done.held_messages == 1
    [message] = queued(conn, "channels")
    assert message["state"] == "held"
    assert "LIQ_ALERT_UNREAL" in message["held_reason"]
    assert name in message["held_reason"]
    # The topic carries every world, marked.
    assert {(r["state"], r["payload"]["world"], r["payload"]["is_real"]) for r in queued(conn, "alerts")} == {
        ("due", name, False)
    }


def test_unreal_messages_are_due_where_the_installation_asks_for_them(conn: psycopg.Connection[Any]) -> None:
    asked = CHANNELS.model_copy(update={"alert_unreal": True})
    advance(conn, world("simulated/7"), series("BTC", [60.0]), asked, VERSION)
    assert [m["state"] for m in queued(conn, "channels")] == ["due"]
    assert queued(conn, "channels")[0]["payload"]["title"].startswith("[SIMULATED]")


def test_without_a_channel_the_message_is_held_and_says_why(conn: psycopg.Connection[Any]) -> None:
    advance(conn, world(), series("BTC", [60.0]), Settings(), VERSION)
    assert queued(conn, "channels")[0]["held_reason"] == "no channel is configured: LIQ_ALERT_URLS is empty"


def test_worlds_never_share_an_alert(conn: psycopg.Connection[Any]) -> None:
    advance(conn, world("simulated/1"), series("BTC", [60.0]), CHANNELS, VERSION)
    advance(conn, world("real"), series("BTC", [60.0]), CHANNELS, VERSION)
    assert len({r["alert_id"] for r in rows(conn, "SELECT alert_id FROM alerts WHERE state = 'open'")}) == 2
    advance(conn, world("real"), series("BTC", [0.0] * 17, start=1), CHANNELS, VERSION)
    left = rows(conn, "SELECT world FROM alerts WHERE state = 'open'")
    assert [r["world"] for r in left] == ["simulated/1"]


def test_all_symbols_silent_raise_the_blind_alert(conn: psycopg.Connection[Any]) -> None:
    advance(conn, world(), [point(i, {"BTC": None, "ETH": None}) for i in range(3)], CHANNELS, VERSION)
    [message] = queued(conn, "channels")
    assert message["payload"]["title"] == "CRITICAL monitor is blind: the whole monitor"
    assert {r["subject"] for r in rows(conn, "SELECT subject FROM alerts WHERE rule = 'blind'")} == {
        "monitor",
        "BTC",
        "ETH",
    }


def test_waiting_to_call_it_blind_survives_a_restart(conn: psycopg.Connection[Any]) -> None:
    for each in (point(i, {"BTC": None}) for i in range(3)):
        advance(conn, world(), [each], CHANNELS, VERSION)
        conn.commit()
    assert [m["payload"]["rule"] for m in queued(conn, "channels")] == ["blind"]


# -- reading and acknowledging --


def test_the_list_is_newest_first_and_open_unless_asked(conn: psycopg.Connection[Any]) -> None:
    points = [point(i, {"BTC": 60.0 if i == 0 else 0.0, "ETH": 60.0 if i >= 40 else 0.0}) for i in range(45)]
    advance(conn, world(), points, CHANNELS, VERSION)
    assert [r["subject"] for r in list_alerts(conn)] == ["ETH"]
    assert [r["subject"] for r in list_alerts(conn, include_resolved=True)] == ["ETH", "BTC"]
    assert len(list_alerts(conn, include_resolved=True, limit=1)) == 1
    assert list_alerts(conn, world="simulated/1") == []


def test_an_alert_is_shown_with_all_that_belongs_to_it(conn: psycopg.Connection[Any]) -> None:
    advance(conn, world(), series("BTC", [60.0, 60.0]), CHANNELS, VERSION)
    identity = str(list_alerts(conn)[0]["alert_id"])
    shown = show_alert(conn, identity[:8])
    assert str(shown["alert_id"]) == identity
    assert [c["kind"] for c in shown["changes"]] == ["opened"]
    assert [m["state"] for m in shown["messages"]] == ["due"]
    assert shown["deliveries"] == []


@pytest.mark.parametrize("text", ["", "abc", "not an id", "%", "000000", "______"])
def test_an_id_that_is_none_is_refused_in_one_sentence(conn: psycopg.Connection[Any], text: str) -> None:
    with pytest.raises(LiqError, match="liq alerts list"):
        show_alert(conn, text)


def test_acknowledging_a_page_covers_its_symbols_and_stops_reminders(conn: psycopg.Connection[Any]) -> None:
    reminding = CHANNELS.model_copy(update={"alert_reminder_minutes": 30.0})
    points = [point(i, {"BTC": 60.0, "ETH": 60.0}) for i in range(100)]
    advance(conn, world(), points[:40], reminding, VERSION)
    group = next(r for r in list_alerts(conn) if r["subject"] == "market")
    assert ack(conn, str(group["alert_id"]), "kim") == group["alert_id"]
    ack(conn, str(group["alert_id"]), "someone else")
    assert {r["acknowledged_by"] for r in list_alerts(conn)} == {"kim"}
    advance(conn, world(), points[40:], reminding, VERSION)
    assert [m["payload"]["kind"] for m in queued(conn, "channels")] == ["opened", "reminder"]


# -- signals and pruning --


def test_the_signals_of_a_point_are_one_row(conn: psycopg.Connection[Any]) -> None:
    points = [point(i, {f"C{n}": 10.0 for n in range(20)}) for i in range(60)]
    assert enqueue_signals(conn, world(), points, score_version=VERSION) == 60
    assert enqueue_signals(conn, world(), points, score_version=VERSION) == 0, "the same again is not queued twice"
    assert enqueue_signals(conn, world(), points[:1], score_version=VERSION, revision=1) == 1
    first = queued(conn, "signals")[0]
    signals = first["payload"]["signals"]
    assert len(signals) == len({s["id"] for s in signals}) == 20
    assert signals[0]["symbol"] == "C0"
    assert signals[0]["world"] == "real"
    assert signals[0]["risk"] == pytest.approx(10.0)
    assert signals[0]["cascade_probability_1h"] is None, "unknown is null, not zero"


def test_pruning_takes_what_is_delivered_or_held_and_old(conn: psycopg.Connection[Any]) -> None:
    advance(conn, world("simulated/1"), series("BTC", [60.0]), CHANNELS, VERSION)
    advance(conn, world(), series("BTC", [60.0]), CHANNELS, VERSION)
    conn.execute("UPDATE outbox SET state = 'done', done_at = clock_timestamp() WHERE topic = 'alerts'")
    now = datetime.now(UTC)
    assert prune_outbox(conn, now - timedelta(hours=1)) == 0
    assert prune_outbox(conn, now + timedelta(hours=1)) == 5
    assert [(r["topic"], r["state"], r["world"]) for r in rows(conn, "SELECT * FROM outbox")] == [
        ("channels", "due", "real")
    ]
    assert len(rows(conn, "SELECT 1 FROM alert_changes")) == 2, "what an alarm rests on is never pruned"


def test_a_receipt_with_numbers_that_are_none_is_written(conn: psycopg.Connection[Any]) -> None:
    at = point(0, {"BTC": Reading(60.0)})
    at.risks["BTC"].inputs["funding"]["odd"] = float("nan")
    advance(conn, world(), [at], CHANNELS, VERSION)
    assert rows(conn, "SELECT receipt FROM alerts")[0]["receipt"]["components"][0]["inputs"]["odd"] is None
