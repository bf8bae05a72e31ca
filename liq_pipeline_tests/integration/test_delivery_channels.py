"""Delivery to people: real rows, a real local receiver, and everything that can fail on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from pydantic import SecretStr

from liq_pipeline.alerting.book import advance, show_alert
from liq_pipeline.alerting.sending.channels import channel_name, send_all
from liq_pipeline.alerting.sending.delivery import deliver_due, retry_delay, send_test
from liq_pipeline.alerting.telling.messages import Text
from liq_pipeline.domain.worlds import World
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.alert_receiver import Receiver, receiver
from liq_pipeline_tests.alert_support import VERSION, Reading, point, series, world

SECRET = "s3cretT0ken"


def channels(*receivers: Receiver | str, **values: Any) -> Settings:
    urls = tuple(SecretStr(each if isinstance(each, str) else each.url) for each in receivers)
    return Settings(alert_urls=urls, alert_timeout_seconds=0.5, **values)


def queue(database_url: str, settings: Settings, of: World | None = None) -> None:
    """One WARNING for BTC in the outbox; its Kafka rows are taken as published."""
    with connect(database_url) as connection:
        advance(connection, of or world(), series("BTC", [60.0]), settings, VERSION)
        connection.execute("UPDATE outbox SET state = 'done' WHERE topic <> 'channels'")


def outbox(database_url: str) -> dict[str, Any]:
    with connect(database_url) as connection, connection.cursor(row_factory=dict_row) as cursor:
        [row] = cursor.execute("SELECT * FROM outbox WHERE topic = 'channels'").fetchall()
        return row


def attempts(database_url: str) -> list[tuple[str, int, bool]]:
    with connect(database_url) as connection:
        return connection.execute(
            "SELECT channel, attempt, ok FROM alert_deliveries ORDER BY attempt, channel"
        ).fetchall()


def later(**delta: float) -> datetime:
    return datetime.now(UTC) + timedelta(**delta)


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def broken() -> Iterator[Receiver]:
    with receiver(status=500) as running:
        yield running


def test_a_message_arrives_once_and_explains_every_point(database_url: str, hook: Receiver) -> None:
    settings = channels(hook)
    queue(database_url, settings)
    report = deliver_due(database_url, settings)
    assert (report.sent, report.failed, report.errors, report.still_due) == (1, 0, [], 0)
    [message] = hook.messages
    assert message["title"] == "WARNING BTC: longs at risk, risk 60 of 100"
    assert message["type"] == "warning"
    for words in ("funding 18.0/30", "open interest 18.0/30", "long/short ratio 12.0/20", "liquidations 12.0/20"):
        assert words in message["message"]
    assert "Desk: http://127.0.0.1:8000/alerts/" in message["message"]
    assert deliver_due(database_url, settings).sent == 0
    assert len(hook.messages) == 1
    assert outbox(database_url)["state"] == "done"
    assert attempts(database_url) == [(channel_name(settings.alert_urls[0]), 1, True)]


def test_a_simulated_message_goes_nowhere_unless_asked(database_url: str, hook: Receiver) -> None:
    settings = channels(hook)
    queue(database_url, settings, world("simulated/7"))
    assert deliver_due(database_url, settings).sent == 0
    assert hook.messages == []
    assert outbox(database_url)["state"] == "held"


def test_a_simulated_message_that_was_asked_for_is_marked_and_explained(database_url: str, hook: Receiver) -> None:
    settings = channels(hook, alert_unreal=True)
    queue(database_url, settings, world("simulated/7"))
    assert deliver_due(database_url, settings).sent == 1
    [message] = hook.messages
    assert message["title"].startswith("[SIMULATED] WARNING BTC")
    assert message["message"].startswith("*** SIMULATED: ")
    with connect(database_url) as connection:
        identity = connection.execute("SELECT alert_id FROM alerts").fetchone()
        assert identity is not None
        shown = show_alert(connection, str(identity[0]))
    assert sum(c["points"] for c in shown["receipt"]["components"]) == pytest.approx(shown["receipt"]["score"]["value"])
    assert [d["ok"] for d in shown["deliveries"]] == [True]


def test_a_message_queued_while_it_was_allowed_is_held_when_it_no_longer_is(database_url: str, hook: Receiver) -> None:
    queue(database_url, channels(hook, alert_unreal=True), world("simulated/7"))
    report = deliver_due(database_url, channels(hook))
    assert (report.sent, report.held) == (0, 1)
    assert hook.messages == []
    assert "LIQ_ALERT_UNREAL" in outbox(database_url)["held_reason"]


def test_a_failing_channel_is_tried_again_later_and_later(database_url: str, broken: Receiver) -> None:
    settings = channels(broken, alert_max_attempts=3)
    queue(database_url, settings)
    now = later(seconds=1)
    assert deliver_due(database_url, settings, now).retried == 1
    assert outbox(database_url)["due_at"] == now + timedelta(seconds=15)
    assert deliver_due(database_url, settings, now + timedelta(seconds=14)).retried == 0
    second = now + timedelta(seconds=15)
    assert deliver_due(database_url, settings, second).retried == 1
    assert outbox(database_url)["due_at"] == second + timedelta(seconds=30)
    broken.status = 200
    assert deliver_due(database_url, settings, second + timedelta(seconds=30)).sent == 1
    assert [(attempt, ok) for _, attempt, ok in attempts(database_url)] == [(1, False), (2, False), (3, True)]
    assert len(broken.messages) == 1


def test_attempts_are_bounded_and_the_failure_stays_visible(database_url: str, broken: Receiver) -> None:
    settings = channels(broken, alert_max_attempts=2)
    queue(database_url, settings)
    assert deliver_due(database_url, settings, later(minutes=1)).retried == 1
    report = deliver_due(database_url, settings, later(minutes=10))
    assert report.failed == 1
    assert outbox(database_url)["state"] == "failed"
    assert deliver_due(database_url, settings, later(days=1)).failed == 0
    assert len(broken.paths) == 2


def test_waits_double_up_to_a_quarter_of_an_hour() -> None:
    assert [retry_delay(n).total_seconds() for n in range(1, 10)] == [15, 30, 60, 120, 240, 480, 900, 900, 900]


def test_a_channel_that_took_it_is_spared_when_another_fails(
    database_url: str, hook: Receiver, broken: Receiver
) -> None:
    settings = channels(hook, broken)
    queue(database_url, settings)
    assert deliver_due(database_url, settings).retried == 1
    broken.status = 200
    assert deliver_due(database_url, settings, later(minutes=1)).sent == 1
    assert len(hook.messages) == len(broken.messages) == 1
    names = [channel_name(url) for url in settings.alert_urls]
    assert sorted(attempts(database_url)) == sorted([(names[0], 1, True), (names[1], 1, False), (names[1], 2, True)])


def test_a_channel_that_does_not_answer_does_not_hold_the_others_up(
    database_url: str, hook: Receiver, broken: Receiver
) -> None:
    broken.stall_seconds = 30.0
    settings = channels(hook, broken)
    queue(database_url, settings)
    started = datetime.now(UTC)
    assert deliver_due(database_url, settings).retried == 1
    assert datetime.now(UTC) - started < timedelta(seconds=5)
    assert len(hook.messages) == 1


def test_what_waited_for_its_channel_says_so_and_stands_behind_what_is_new(database_url: str, broken: Receiver) -> None:
    settings = channels(broken)
    queue(database_url, settings)
    assert deliver_due(database_url, settings).retried == 1
    with connect(database_url) as connection:
        advance(connection, world(), [point(1, {"BTC": 80.0}, -40.0)], settings, VERSION)
        connection.execute("UPDATE outbox SET state = 'done' WHERE topic <> 'channels'")
    broken.status = 200
    assert deliver_due(database_url, settings, later(minutes=3)).sent == 2
    assert [m["title"].split(":")[0] for m in broken.messages] == [
        "[3 min LATE] UP to CRITICAL BTC",
        "[3 min LATE] WARNING BTC",
    ]
    assert all(m["message"].startswith("*** This message waited 3 min") for m in broken.messages)


@pytest.mark.parametrize(
    "url",
    [
        f"json://127.0.0.1:1/hook/{SECRET}",
        f"nosuchservice://{SECRET}@host/path",
        f"just words {SECRET}",
        f"json://user:{SECRET}@127.0.0.1:1/",
        f"tgram://123456789:{SECRET}/",
    ],
)
def test_no_secret_of_a_channel_shows_anywhere(
    database_url: str, url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = channels(url)
    queue(database_url, settings)
    with caplog.at_level("DEBUG"):
        report = deliver_due(database_url, settings)
        tested = send_test(settings)
    assert [result.ok for result in tested] == [False]
    with connect(database_url) as connection:
        stored = connection.execute("SELECT channel, error FROM alert_deliveries").fetchall()
        queued = connection.execute("SELECT payload::text, held_reason FROM outbox").fetchall()
    assert len(stored) == 1
    assert stored[0][1]
    captured = capfd.readouterr()
    for text in (str(report), str(tested), str(stored), str(queued), captured.out, captured.err, caplog.text):
        assert SECRET not in text


def test_messages_arrive_in_the_order_in_which_they_were_decided(database_url: str, hook: Receiver) -> None:
    settings = channels(hook)
    points = [point(0, {"BTC": 60.0}, -40.0), point(1, {"BTC": 80.0}, -40.0), point(2, {"BTC": 80.0}, -40.0)]
    points += [point(3 + i, {"BTC": Reading(0.0)}, -40.0) for i in range(17)]
    with connect(database_url) as connection:
        advance(connection, world(), points, settings, VERSION)
        connection.execute("UPDATE outbox SET state = 'done' WHERE topic <> 'channels'")
    assert deliver_due(database_url, settings).sent == 3
    assert [m["title"].split()[0] for m in hook.messages] == ["WARNING", "UP", "RESOLVED"]


def test_a_blind_monitor_reaches_the_person(database_url: str, hook: Receiver) -> None:
    settings = channels(hook)
    with connect(database_url) as connection:
        advance(connection, world(), [point(i, {"BTC": None, "ETH": None}) for i in range(3)], settings, VERSION)
        connection.execute("UPDATE outbox SET state = 'done' WHERE topic <> 'channels'")
    assert deliver_due(database_url, settings).sent == 1
    assert hook.messages[0]["title"] == "CRITICAL monitor is blind: the whole monitor"


def test_two_deliveries_at_once_send_a_message_once(database_url: str, hook: Receiver) -> None:
    settings = channels(hook)
    queue(database_url, settings)
    with connect(database_url) as other:
        # Another delivery has the row in its hands.
        other.execute("SELECT 1 FROM outbox WHERE topic = 'channels' FOR UPDATE")
        assert deliver_due(database_url, settings).sent == 0
        other.rollback()
    assert deliver_due(database_url, settings).sent == 1
    assert len(hook.messages) == 1


def test_a_process_killed_between_sending_and_committing_sends_again(database_url: str, hook: Receiver) -> None:
    settings = channels(hook)
    queue(database_url, settings)
    dies = textwrap.dedent(
        """
        import os, signal, sys
        from liq_pipeline.alerting.sending import delivery
        from liq_pipeline.settings import Settings

        real = delivery.send_all

        def send_and_die(*arguments, **named):
            real(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        delivery.send_all = send_and_die
        delivery.deliver_due(sys.argv[1], Settings())
        """
    )
    environment = {**os.environ, "LIQ_ALERT_URLS": hook.url}
    killed = subprocess.run([sys.executable, "-c", dies, database_url], env=environment, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(hook.messages) == 1
    assert outbox(database_url)["state"] == "due"
    wait_until_unlocked(database_url)
    assert deliver_due(database_url, settings).sent == 1
    assert len(hook.messages) == 2


def wait_until_unlocked(database_url: str) -> None:
    """Until the server has noticed that the killed process is gone and freed its row."""
    with connect(database_url) as connection:
        connection.execute("SET lock_timeout = '20s'")
        connection.execute("SELECT 1 FROM outbox WHERE topic = 'channels' FOR UPDATE")


def test_a_database_that_is_away_raises_and_sends_nothing(hook: Receiver) -> None:
    with pytest.raises(psycopg.OperationalError):
        deliver_due("postgresql://nobody:x@127.0.0.1:1/none", channels(hook))
    assert hook.messages == []


def test_a_text_longer_than_a_service_takes_goes_in_parts_unless_its_address_says_otherwise(hook: Receiver) -> None:
    """Mattermost takes 4,000 characters and can be run anywhere: what holds for it holds for Discord's 2,000."""
    text = Text("CRITICAL", "\n".join(f"line {number:04d} of a long message" for number in range(400)), "failure")
    address = f"mmost://127.0.0.1:{hook.port}/3ccdd113474722377935511fc85d3dd4"
    [result] = send_all([SecretStr(address)], text, 2.0)
    assert result.ok
    assert len(hook.messages) > 1
    assert all(len(message["text"]) <= 4_000 for message in hook.messages)
    arrived = "".join(message["text"] for message in hook.messages)
    assert [number for number in range(400) if f"line {number:04d}" not in arrived] == []
    hook.messages.clear()
    [result] = send_all([SecretStr(f"{address}?overflow=truncate")], text, 2.0)
    assert (result.ok, len(hook.messages)) == (True, 1)


def test_the_test_message_goes_through_every_channel(hook: Receiver, broken: Receiver) -> None:
    good, bad = send_test(channels(hook, broken))
    assert (good.ok, good.error) == (True, None)
    assert not bad.ok
    assert bad.error
    assert hook.messages[0]["title"].startswith("[TEST]")
    assert send_test(Settings()) == []
