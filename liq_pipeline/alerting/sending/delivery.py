"""Sending what the outbox holds: to Kafka and to people, at least once, with bounded attempts.

Belongs here: taking due rows, sending them, recording the outcome. Does not: what is said
(alerting/telling/messages.py), how one channel is reached (channels.py), when deliveries run (Dagster's sensor, and
right after the tick's commit).

A row is locked while it is sent and marked in the same transaction, so several deliveries never send it at once. A
process that dies between sending and committing sends again: twice is better than never. A channel that took a message
is not sent it again because another channel failed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import psycopg
from kafka.errors import MessageSizeTooLargeError
from psycopg.rows import dict_row
from pydantic import SecretStr

from liq_pipeline.alerting.sending.channels import ChannelResult, channel_name, send_all
from liq_pipeline.alerting.sending.options import read_options
from liq_pipeline.alerting.sending.outbox import held_reason
from liq_pipeline.alerting.telling.messages import Text, render_test
from liq_pipeline.bus.producer import PublishError, RecordProducer
from liq_pipeline.errors import LiqError
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect

FIRST_RETRY_SECONDS: Final = 15.0
LONGEST_RETRY_SECONDS: Final = 900.0
LONGEST_WAIT_SECONDS: Final = 3600.0
"""A service may ask for a longer wait than our own steps; past an hour a warning is of no use."""
LATE_AFTER: Final = timedelta(minutes=2)
"""A message that waited longer than this for its channel is marked as late."""


@dataclass(slots=True)
class DeliveryReport:
    """What one delivery did. errors: one sentence each, without secrets."""

    published_rows: int = 0
    published_messages: int = 0
    sent: int = 0
    retried: int = 0
    failed: int = 0
    held: int = 0
    still_due: int = 0
    errors: list[str] = field(default_factory=list)


def retry_delay(attempt: int) -> timedelta:
    """The wait after the given attempt (1, 2, ...): 15 s, doubled each time, at most 15 min."""
    return timedelta(seconds=min(FIRST_RETRY_SECONDS * 2 ** (attempt - 1), LONGEST_RETRY_SECONDS))


def deliver_due(
    database_url: str,
    settings: Settings,
    now: datetime | None = None,
    *,
    limit: int = 500,
    budget_seconds: float = 30.0,
    kafka_timeout_seconds: float = 10.0,
) -> DeliveryReport:
    """Send what is due at `now` (default: the wall clock): first to people, then to Kafka.

    limit: rows per Kafka batch and messages to people per call. No new row is begun past budget_seconds.
    kafka_timeout_seconds bounds the wait for the broker. Raises psycopg.Error if the database fails; a channel or a
    broker that fails is in the report, and its rows stay due.
    """
    moment = now or datetime.now(UTC)
    report = DeliveryReport()
    deadline = time.monotonic() + budget_seconds
    with connect(database_url, application_name="liq delivery") as conn:
        for _ in range(limit):
            if time.monotonic() > deadline or not _deliver_message(conn, settings, moment, report):
                break
        _publish(conn, settings, moment, limit, deadline, kafka_timeout_seconds, report)
        row = conn.execute("SELECT count(*) FROM outbox WHERE state = 'due' AND due_at <= %s", [moment]).fetchone()
        report.still_due = 0 if row is None else row[0]
    return report


def send_test(settings: Settings) -> list[ChannelResult]:
    """Send a test message through every configured channel, once. An empty list if there is none."""
    return send_all(settings.alert_urls, render_test(), settings.alert_timeout_seconds)


def _deliver_message(conn: psycopg.Connection[Any], settings: Settings, now: datetime, report: DeliveryReport) -> bool:
    """Send the oldest due message to the channels that have not had it. False if there is none.

    What was never tried goes first: a retry to a channel that hangs must not stand before a new alert.
    """
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            SELECT outbox_id, world, alert_id, payload, attempts, created_at FROM outbox
            WHERE state = 'due' AND topic = 'channels' AND due_at <= %s
            ORDER BY attempts > 0, due_at, created_at LIMIT 1 FOR UPDATE SKIP LOCKED
            """,
            [now],
        )
        row = cursor.fetchone()
        if row is None:
            return False
        # Asked again here: the settings may have changed since the message was queued.
        reason = held_reason(row["world"], row["payload"]["is_real"], settings)
        if reason is not None:
            cursor.execute(
                "UPDATE outbox SET state = 'held', held_reason = %s WHERE outbox_id = %s", [reason, row["outbox_id"]]
            )
            report.held += 1
            return True
        missing = _missing_channels(cursor, row["outbox_id"], settings.alert_urls)
        wanted, withheld = _wanted(missing, row["payload"], now)
        text = _text(row["payload"], now - row["created_at"], settings)
        results = send_all(wanted, text, settings.alert_timeout_seconds, _whole(cursor, row["payload"]))
        _record(cursor, row, results, withheld, settings, now, report)
    return True


def _missing_channels(
    cursor: psycopg.Cursor[dict[str, Any]], outbox_id: Any, urls: Sequence[SecretStr]
) -> list[SecretStr]:
    # One that refused for good is told once, and what its options withheld is settled.
    cursor.execute(
        """
        SELECT DISTINCT channel FROM alert_deliveries
        WHERE outbox_id = %s AND (ok OR is_final OR withheld IS NOT NULL)
        """,
        [outbox_id],
    )
    had = {row["channel"] for row in cursor}
    return [url for url in urls if channel_name(url) not in had]


def _wanted(
    urls: Sequence[SecretStr], payload: dict[str, Any], now: datetime
) -> tuple[list[SecretStr], dict[str, str]]:
    """(channels that want the message now, channel -> why its own options withhold it)."""
    wanted, withheld = [], {}
    for url in urls:
        try:
            reason = read_options(url).withheld(payload, now)
        except LiqError:
            reason = None  # said when it is sent
        if reason is None:
            wanted.append(url)
        else:
            withheld[channel_name(url)] = reason
    return wanted, withheld


def _whole(cursor: psycopg.Cursor[dict[str, Any]], payload: dict[str, Any]) -> dict[str, Any]:
    """The message with its receipt, which stands in the row for Kafka, as long as that is kept."""
    cursor.execute(
        "SELECT payload -> 'receipt' AS receipt FROM outbox WHERE topic = 'alerts' AND message_key = %s",
        [payload["id"]],
    )
    found = cursor.fetchone()
    return payload | {"receipt": None if found is None else found["receipt"]}


def _text(payload: dict[str, Any], waited: timedelta, settings: Settings) -> Text:
    """The message as it is sent. One that had to wait says so first: what it tells may be over by now."""
    title, body = payload["title"], payload["body"]
    if waited > LATE_AFTER:
        minutes = f"{waited.total_seconds() / 60:.0f} min"
        title = f"[{minutes} LATE] {title}"
        body = f"*** This message waited {minutes} for the channel; see below when it was true. ***\n{body}"
    desk = (settings.alert_link_url or f"http://127.0.0.1:{settings.web_port}").rstrip("/")
    return Text(title, f"{body}\nDesk: {desk}/alerts/{payload['alert_id']}", payload["notify_type"])


def _record(
    cursor: psycopg.Cursor[dict[str, Any]],
    row: dict[str, Any],
    results: list[ChannelResult],
    withheld: dict[str, str],
    settings: Settings,
    now: datetime,
    report: DeliveryReport,
) -> None:
    attempt = row["attempts"] + 1
    attempts: list[tuple[Any, ...]] = [
        (r.channel, attempt, r.ok, r.error, r.is_final and not r.ok, None) for r in results
    ]
    attempts += [(channel, attempt, False, None, False, reason) for channel, reason in withheld.items()]
    cursor.executemany(
        """
        INSERT INTO alert_deliveries (outbox_id, alert_id, channel, attempt, ok, error, is_final, withheld)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        """,
        [(row["outbox_id"], row["alert_id"], *each) for each in attempts],
    )
    failures = [result for result in results if not result.ok]
    again = [result for result in failures if not result.is_final]
    report.errors += [f"{result.channel}: {result.error}" for result in failures]
    if not failures:
        state, due_at = "done", now
        report.sent += bool(results)
    elif not again or attempt >= settings.alert_max_attempts:
        state, due_at = "failed", now
        report.failed += 1
    else:
        asked = max((result.retry_after_seconds or 0.0 for result in again), default=0.0)
        state, due_at = "due", now + max(retry_delay(attempt), timedelta(seconds=min(asked, LONGEST_WAIT_SECONDS)))
        report.retried += 1
    cursor.execute(
        """
        UPDATE outbox SET state = %(state)s, attempts = %(attempt)s, due_at = %(due_at)s,
            done_at = CASE WHEN %(state)s = 'done' THEN clock_timestamp() END
        WHERE outbox_id = %(id)s
        """,
        {"state": state, "attempt": attempt, "due_at": due_at, "id": row["outbox_id"]},
    )


def _publish(
    conn: psycopg.Connection[Any],
    settings: Settings,
    now: datetime,
    limit: int,
    deadline: float,
    timeout_seconds: float,
    report: DeliveryReport,
) -> None:
    """Publish due rows of the out-topics, batch by batch: one flush and one update each.

    A broker that does not answer leaves the rows due, without counting attempts: they are wanted whenever it is back.
    """
    row = conn.execute(
        "SELECT 1 FROM outbox WHERE state = 'due' AND topic <> 'channels' AND due_at <= %s LIMIT 1", [now]
    ).fetchone()
    conn.rollback()
    if row is None:
        return
    if settings.kafka_bootstrap_servers is None:
        report.errors.append("signals and alerts are not published: LIQ_KAFKA_BOOTSTRAP_SERVERS is not set")
        return
    try:
        with RecordProducer(
            settings.kafka_bootstrap_servers,
            settings.kafka_topic_prefix,
            client_id="liq-outbox",
            delivery_timeout_seconds=timeout_seconds,
        ) as producer:
            while time.monotonic() < deadline and _publish_batch(conn, producer, now, limit, timeout_seconds, report):
                pass
    except PublishError as error:
        report.errors.append(str(error))


def _publish_batch(
    conn: psycopg.Connection[Any],
    producer: RecordProducer,
    now: datetime,
    limit: int,
    timeout_seconds: float,
    report: DeliveryReport,
) -> bool:
    """One batch; False when nothing was left to take. Raises PublishError, and then nothing is marked."""
    done: list[Any] = []
    too_large: list[tuple[str, Any]] = []
    messages = 0
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            SELECT outbox_id, topic, message_key, payload FROM outbox
            WHERE state = 'due' AND topic <> 'channels' AND due_at <= %s
            ORDER BY due_at, created_at LIMIT %s FOR UPDATE SKIP LOCKED
            """,
            [now, limit],
        )
        rows = cursor.fetchall()
        for row in rows:
            try:
                for key, value in _kafka_messages(row):
                    producer.send_bytes(row["topic"], value, key=key)
                    messages += 1
            except PublishError as error:
                if not isinstance(error.__cause__, MessageSizeTooLargeError):
                    raise
                too_large.append((str(error), row["outbox_id"]))
            else:
                done.append(row["outbox_id"])
        producer.flush(timeout_seconds)
        cursor.execute(
            "UPDATE outbox SET state = 'done', attempts = attempts + 1, done_at = clock_timestamp()"
            " WHERE outbox_id = ANY(%s)",
            [done],
        )
        cursor.executemany(
            "UPDATE outbox SET state = 'failed', attempts = attempts + 1, held_reason = %s WHERE outbox_id = %s",
            too_large,
        )
    report.published_rows += len(done)
    report.published_messages += messages
    report.failed += len(too_large)
    report.errors += [reason for reason, _ in too_large]
    return len(rows) == limit


def _kafka_messages(row: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """(key, value) of each Kafka message of a row: one per signal of a point, or the row itself."""
    if row["topic"] == "signals":
        return [(signal["id"].encode(), msgspec.json.encode(signal)) for signal in row["payload"]["signals"]]
    return [(row["message_key"].encode(), msgspec.json.encode(row["payload"]))]
