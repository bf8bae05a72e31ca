"""Messages as Telegram, Discord, Slack and mail get them, pictures too: real rows, local servers that speak each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apprise.plugins.discord import NotifyDiscord
from apprise.plugins.slack import NotifySlack
from apprise.plugins.telegram import NotifyTelegram
from pydantic import SecretStr

from liq_pipeline.alerting.book import advance
from liq_pipeline.alerting.sending.channels import channel_name, send_all
from liq_pipeline.alerting.sending.delivery import deliver_due
from liq_pipeline.alerting.telling.messages import Text
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.alert_receiver import receiver
from liq_pipeline_tests.alert_support import CALM, START, VERSION, Reading, point, running, series, world
from liq_pipeline_tests.service_support import PNG, Mailbox, Services, TelegramText, mailbox, services

TOKEN = "AAs3cretB0tT0kenbbccddeeffgghhiijjkk"
WEBHOOK = "JHMHIs3cretHook7bk2ZwO5U711o3dV"
HOOK = "TIs3cretSlackXOrIdev"
PASSWORD = "p4ssW0rdOfMail"
SYMBOLS = ("BTC", "ETH", "SOL", "XRP")
TELEGRAM = f"tgram://123456789:{TOKEN}/12345/"
DISCORD = f"discord://4174216298/{WEBHOOK}"
SLACK = f"slack://T1JJ3T3L2/A1BRTD4JD/{HOOK}abcd/#alarms"
ODD = Text(
    "WARNING <b>BTC & *ETH*",
    'x < y & "z" > w, under_way `code` [a](b)\n*** SIMULATED ***\nDesk: http://h/a_b_c',
    "warning",
)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    with services() as running_services:
        monkeypatch.setattr(NotifyTelegram, "notify_url", f"{running_services.url}/bot")
        monkeypatch.setattr(NotifyDiscord, "notify_url", f"{running_services.url}/discord")
        monkeypatch.setattr(NotifySlack, "webhook_url", f"{running_services.url}/slack")
        yield running_services


@pytest.fixture
def mail() -> Iterator[Mailbox]:
    with mailbox() as box:
        yield box


def settings_of(*urls: str, **more: Any) -> Settings:
    return Settings(
        alert_urls=tuple(SecretStr(url) for url in urls), alert_timeout_seconds=3.0, alert_policy=("under_way",), **more
    )


def mail_url(box: Mailbox) -> str:
    return f"mailto://watch:{PASSWORD}@127.0.0.1:{box.port}?from=liq@example.org&to=me@example.org&mode=insecure"


def begin(database_url: str, settings: Settings, *symbols: str, over: bool = False, name: str = "real") -> None:
    """A cascade of these symbols in the outbox, and its six hours in the tables; `over`: and its end."""
    states = [running(), *([CALM] * 16 if over else [])]
    points = [point(i, {symbol: Reading(0.0, under_way=state) for symbol in symbols}) for i, state in enumerate(states)]
    with connect(database_url) as conn:
        for symbol in symbols:
            _hours(conn, name, symbol)
        advance(conn, world(name), points, settings, VERSION)
        conn.execute("UPDATE outbox SET state = 'done' WHERE topic <> 'channels'")


def _hours(conn: Any, name: str, symbol: str) -> None:
    """Six hours of two venues that fall 4 % within the last 35 min."""
    prices, interest, forced = [], [], []
    for minute in range(-360, 1):
        at = START + timedelta(minutes=minute)
        fall = max(0.0, 35 + minute) / 35
        for venue, share in (("binance", 1.0), ("okx", 0.6)):
            price = 66_900.0 * (1 - 0.042 * fall) * (1 + 0.001 * (minute % 7))
            prices.append((name, symbol, venue, at, price, at, at))
            interest.append((name, symbol, venue, at, 80_000.0 * share * (1 - 0.038 * fall), at, at))
            if fall > 0.1 and minute % 3 == 0:
                side, usd = "long" if minute % 9 else "short", 400_000.0 * fall * share
                forced.append((name, venue, symbol, f"{venue}{minute}", side, usd / 65_000.0, usd, at, at, at))
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO prices (world, symbol, venue, event_time, price_usd, received_at, known_at, origin,
                event_time_source, kafka_cluster, kafka_partition, kafka_offset)
            VALUES (%s, %s, %s, %s, %s, %s, %s, 'live', 'venue', 0, 0, 0)
            """,
            prices,
        )
        cursor.executemany(
            """
            INSERT INTO open_interest (world, symbol, venue, event_time, open_interest_base, received_at, known_at,
                origin, event_time_source, kafka_cluster, kafka_partition, kafka_offset)
            VALUES (%s, %s, %s, %s, %s, %s, %s, 'live', 'venue', 0, 0, 0)
            """,
            interest,
        )
        cursor.executemany(
            """
            INSERT INTO liquidations (world, venue, symbol, event_id, liquidated_side, price_usd, quantity_base,
                notional_usd, event_time, received_at, known_at, is_sample, source_topic, origin, event_time_source,
                kafka_cluster, kafka_partition, kafka_offset)
            VALUES (%s, %s, %s, %s, %s, 65000, %s, %s, %s, %s, %s, false, 'x', 'live', 'venue', 0, 0, 0)
            """,
            forced,
        )


def attempts(database_url: str) -> list[tuple[Any, ...]]:
    with connect(database_url) as conn:
        return conn.execute(
            "SELECT channel, attempt, ok, is_final, withheld FROM alert_deliveries ORDER BY attempt, channel"
        ).fetchall()


def test_telegram_gets_html_that_it_can_read_and_says_what_we_say(served: Services) -> None:
    [result] = send_all([SecretStr(TELEGRAM)], ODD, 3.0)
    assert result.ok
    [(_, request)] = served.requests
    assert (request["parse_mode"], request["chat_id"]) == ("HTML", 12345)
    assert TelegramText(request["text"]).shown.replace("\r\n", "\n") == f"{ODD.title}\n{ODD.body}"
    assert request["text"].startswith("<b>")


def test_discord_shows_no_markup_that_we_did_not_mean(served: Services) -> None:
    [result] = send_all([SecretStr(DISCORD)], ODD, 3.0)
    assert result.ok
    [(_, text)] = served.texts
    title, *body = text.split("\n")
    assert title.startswith("**")
    assert title.endswith("**")
    # What a person sees: backslashes before punctuation are not shown.
    seen = re.sub(r"\\([\W_])", r"\1", "\n".join([title[2:-2], *body]))
    assert seen == f"{ODD.title}\n{ODD.body}"
    unmeant = re.findall(r"(?<!\\)[*_~`|]", "\n".join(body[:-1]))
    assert unmeant == []
    assert body[-1].endswith("http://h/a_b_c")


def test_slack_takes_angle_brackets_as_text(served: Services) -> None:
    [result] = send_all([SecretStr(SLACK)], ODD, 3.0)
    assert result.ok
    [(_, text)] = served.texts
    assert "WARNING &lt;b&gt;BTC &amp; *ETH*" in text
    assert "x &lt; y &amp;" in text


def test_each_channel_gets_the_words_and_those_that_show_it_the_picture(
    database_url: str, served: Services, mail: Mailbox
) -> None:
    settings = settings_of(TELEGRAM, DISCORD, SLACK, mail_url(mail))
    begin(database_url, settings, "BTC")
    report = deliver_due(database_url, settings)
    assert (report.errors, report.sent, report.pictures) == ([], 1, 1)
    assert sorted(service for service, _ in served.texts) == ["discord", "slack", "telegram"]
    assert sorted(service for service, _ in served.pictures) == ["discord", "telegram"]
    assert all("-4.2 % in 35 min" in text for _, text in served.texts)
    [received] = mail.mails
    assert str(received["Subject"]).startswith("WARNING UNDER WAY BTC")
    [attachment] = list(received.iter_attachments())
    picture = attachment.get_payload(decode=True)
    assert isinstance(picture, bytes)
    assert picture.startswith(PNG)
    assert [ok for _, _, ok, _, _ in attempts(database_url)] == [True] * 4


def test_a_market_shows_one_picture_and_the_end_another(database_url: str, served: Services) -> None:
    settings = settings_of(TELEGRAM)
    begin(database_url, settings, "BTC", "ETH", over=True)
    report = deliver_due(database_url, settings)
    assert (report.errors, report.sent, report.pictures) == ([], 2, 2)
    assert len(served.pictures) == 2
    opening, ending = (text for _, text in served.texts)
    assert "UNDER WAY market (BTC, ETH)" in opening
    assert "OVER market" in ending


def test_a_picture_that_is_refused_costs_nobody_the_words(database_url: str, served: Services) -> None:
    served.fail_pictures = 500
    settings = settings_of(DISCORD)
    begin(database_url, settings, "BTC")
    report = deliver_due(database_url, settings)
    assert (report.sent, report.retried, len(served.texts), served.pictures) == (1, 0, 1, [])
    assert len(report.errors) == 1
    assert "the picture" in report.errors[0]
    assert deliver_due(database_url, settings, datetime.now(UTC) + timedelta(hours=1)).sent == 0


@pytest.mark.parametrize(
    ("url", "headers", "body"),
    [
        (TELEGRAM, {}, {"ok": False, "error_code": 429, "description": "Too Many Requests: retry after 77",
                        "parameters": {"retry_after": 77}}),
        (DISCORD, {}, {"message": "You are being rate limited.", "retry_after": 77.0, "global": False}),
        (SLACK, {"Retry-After": "77"}, b"rate_limited"),
    ],
    ids=["telegram", "discord", "slack"],
)  # fmt: skip
def test_too_many_requests_waits_as_long_as_each_asks(
    database_url: str, served: Services, url: str, headers: dict[str, str], body: Any
) -> None:
    served.fail = 429, headers, body
    settings = settings_of(url)
    begin(database_url, settings, "BTC")
    now = datetime.now(UTC)
    assert deliver_due(database_url, settings, now + timedelta(seconds=1)).retried == 1
    served.fail = None
    assert deliver_due(database_url, settings, now + timedelta(seconds=77)).sent == 0
    assert deliver_due(database_url, settings, now + timedelta(seconds=79)).sent == 1
    assert len(served.texts) == 1


@pytest.mark.parametrize("url", [TELEGRAM, DISCORD, SLACK], ids=["telegram", "discord", "slack"])
def test_a_fault_of_theirs_is_tried_again_and_a_wrong_token_told_once(
    database_url: str, served: Services, url: str
) -> None:
    settings = settings_of(url)
    begin(database_url, settings, "BTC")
    served.fail = 503, {}, {}
    assert deliver_due(database_url, settings).retried == 1
    served.fail = 401, {}, {"ok": False, "error_code": 401, "description": "Unauthorized"}
    report = deliver_due(database_url, settings, datetime.now(UTC) + timedelta(minutes=1))
    assert (report.failed, report.retried) == (1, 0)
    served.fail = None
    assert deliver_due(database_url, settings, datetime.now(UTC) + timedelta(days=1)).sent == 0
    assert [(attempt, ok, final) for _, attempt, ok, final, _ in attempts(database_url)] == [
        (1, False, False),
        (2, False, True),
    ]


def test_no_secret_of_theirs_shows_anywhere(
    database_url: str,
    served: Services,
    mail: Mailbox,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    settings = settings_of(TELEGRAM, DISCORD, SLACK, mail_url(mail))
    begin(database_url, settings, "BTC")
    with caplog.at_level("DEBUG"):
        served.fail = 400, {}, {"description": f"chat not found for {TOKEN}"}
        reports = [deliver_due(database_url, settings)]
        served.fail, served.fail_pictures = None, 500
        begin(database_url, settings, "SOL")
        reports.append(deliver_due(database_url, settings, datetime.now(UTC) + timedelta(hours=1)))
    with connect(database_url) as conn:
        stored = conn.execute("SELECT channel, error FROM alert_deliveries").fetchall()
    assert any(report.errors for report in reports)
    captured = capfd.readouterr()
    for text in (str(reports), str(stored), captured.out, captured.err, caplog.text):
        for secret in (TOKEN, WEBHOOK, HOOK, PASSWORD):
            assert secret not in text


def decide(database_url: str, settings: Settings, *states: dict[str, float]) -> None:
    """One point a minute; every symbol that is not named is calm."""
    of = world(symbols=SYMBOLS)
    with connect(database_url) as conn:
        for number, state in enumerate(states):
            risks = {symbol: state.get(symbol, 0.0) for symbol in SYMBOLS}
            advance(conn, of, [point(number, risks, -40.0)], settings, VERSION)
        conn.execute("UPDATE outbox SET state = 'done' WHERE topic <> 'channels'")


def test_past_the_ceiling_messages_are_kept_back_and_told_as_a_number_and_escalations_pass(database_url: str) -> None:
    with receiver() as hook:
        settings = Settings(alert_urls=(SecretStr(hook.url),), alert_hourly_ceiling=2, alert_group_minutes=0.01)
        states = [dict.fromkeys(SYMBOLS[:count], 60.0) for count in (1, 2, 3, 4)]
        decide(database_url, settings, *states, {**states[-1], "BTC": 80.0})
        deliver_due(database_url, settings, datetime.now(UTC) + timedelta(seconds=1))
        assert [message["title"].split(":")[0] for message in hook.messages] == [
            "WARNING BTC",
            "WARNING ETH",
            "UP to CRITICAL BTC",
        ]
        withheld = [reason for *_, reason in attempts(database_url) if reason]
        assert withheld == ["ceiling: it had 2 messages within an hour (LIQ_ALERT_HOURLY_CEILING)"] * 2
        assert hook.messages[-1]["message"].startswith("2 earlier messages were kept back, too many in one hour")


def test_info_comes_together_at_the_full_hour_and_warnings_at_once(database_url: str) -> None:
    with receiver() as hook:
        settings = Settings(alert_urls=(SecretStr(hook.url),), alert_min_severity="INFO", alert_group_minutes=0.01)
        info = {"BTC": 40.0}
        decide(database_url, settings, info, {**info, "ETH": 40.0}, {**info, "ETH": 40.0, "SOL": 60.0})
        with connect(database_url) as conn:
            [[due]] = conn.execute(
                "SELECT DISTINCT due_at FROM outbox WHERE state = 'due' AND due_at > clock_timestamp()"
            ).fetchall()
        assert (due.minute, due.second) == (0, 0)
        assert deliver_due(database_url, settings, datetime.now(UTC) + timedelta(seconds=1)).sent == 1
        assert [message["title"].split(":")[0] for message in hook.messages] == ["WARNING SOL"]
        deliver_due(database_url, settings, due)
        [_, together] = hook.messages
        assert together["title"].startswith("INFO digest: 2 changes")
        assert "INFO BTC" in together["message"]
        assert "INFO ETH" in together["message"]
        assert deliver_due(database_url, settings, due + timedelta(hours=2)).sent == 0
        assert len(hook.messages) == 2
        assert {channel for channel, *_ in attempts(database_url)} == {channel_name(settings.alert_urls[0])}


def test_a_single_info_keeps_its_own_words(database_url: str) -> None:
    with receiver() as hook:
        settings = Settings(alert_urls=(SecretStr(hook.url),), alert_min_severity="INFO")
        with connect(database_url) as conn:
            advance(conn, world(), series("BTC", [40.0]), settings, VERSION)
            conn.execute("UPDATE outbox SET state = 'done' WHERE topic <> 'channels'")
        deliver_due(database_url, settings, datetime.now(UTC) + timedelta(hours=2))
        assert hook.messages[0]["title"].startswith("INFO BTC")
