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

from liq_pipeline.alerting.sending import ceiling
from liq_pipeline.alerting.sending.channels import ChannelResult, channel_name, send_all
from liq_pipeline.alerting.sending.digest import digest, waits
from liq_pipeline.alerting.sending.options import read_options
from liq_pipeline.alerting.sending.outbox import held_reason
from liq_pipeline.alerting.sending.pictures import Picture, has_picture, send_after
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
    pictures: int = 0
    """Messages whose picture was tried."""


@dataclass(slots=True)
class _Delivery:
    """What one call of deliver_due works with. after: pictures that follow once all words are out, and where to."""

    conn: psycopg.Connection[Any]
    database_url: str
    settings: Settings
    now: datetime
    report: DeliveryReport
    after: list[tuple[Picture, list[SecretStr]]] = field(default_factory=list)


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
        delivery = _Delivery(conn, database_url, settings, moment, report)
        for _ in range(limit):
            if time.monotonic() > deadline or not _deliver_message(delivery):
                break
        _publish(conn, settings, moment, limit, deadline, kafka_timeout_seconds, report)
        row = conn.execute("SELECT count(*) FROM outbox WHERE state = 'due' AND due_at <= %s", [moment]).fetchone()
        report.still_due = 0 if row is None else row[0]
        conn.rollback()
        for picture, urls in delivery.after:
            if time.monotonic() > deadline:
                break
            report.pictures += 1
            report.errors += send_after(picture, urls, settings.alert_timeout_seconds)
    return report


def send_test(settings: Settings) -> list[ChannelResult]:
    """Send a test message through every configured channel, once. An empty list if there is none."""
    return send_all(settings.alert_urls, render_test(), settings.alert_timeout_seconds)


def _deliver_message(delivery: _Delivery) -> bool:
    """Send the oldest due message to the channels that have not had it. False if there is none.

    What was never tried goes first: a retry to a channel that hangs must not stand before a new alert. One for the
    digest takes along all that wait with it.
    """
    settings, now, report = delivery.settings, delivery.now, delivery.report
    with delivery.conn.transaction(), delivery.conn.cursor(row_factory=dict_row) as cursor:
        rows = _next(cursor, now, settings)
        if not rows:
            return False
        payload = rows[0]["payload"]
        # Asked again here: the settings may have changed since the message was queued.
        reason = held_reason(rows[0]["world"], payload["is_real"], settings)
        if reason is not None:
            cursor.execute(
                "UPDATE outbox SET state = 'held', held_reason = %s WHERE outbox_id = ANY(%s)",
                [reason, [row["outbox_id"] for row in rows]],
            )
            report.held += len(rows)
            return True
        missing = _missing_channels(cursor, rows[0]["outbox_id"], settings.alert_urls)
        wanted, withheld = _wanted(cursor, missing, payload, settings, now)
        is_digest = len(rows) > 1 or waits(payload, settings.alert_digest_minutes)
        text = (
            digest([row["payload"] for row in rows], _desk(settings))
            if is_digest
            else _text(payload, now - rows[0]["created_at"], settings)
        )
        picture = Picture(delivery.database_url, payload) if has_picture(payload) and not is_digest else None
        notes = {name: ceiling.note(count) for name, count in ceiling.kept_back(cursor).items()} if wanted else {}
        results = send_all(
            wanted, text, settings.alert_timeout_seconds, _whole(cursor, payload), notes=notes, picture=picture
        )
        for row in rows:
            _record(cursor, row, results, withheld, settings, now, report)
        took = [url for url, result in zip(wanted, results, strict=True) if result.ok]
        if picture is not None and took:
            delivery.after.append((picture, took))
    return True


def _next(cursor: psycopg.Cursor[dict[str, Any]], now: datetime, settings: Settings) -> list[dict[str, Any]]:
    """The row to send next, locked; with it, where it is for the digest, the others of its world that are due and have
    been tried as often."""
    columns = "outbox_id, world, alert_id, payload, attempts, created_at"
    cursor.execute(
        f"""
        SELECT {columns} FROM outbox
        WHERE state = 'due' AND topic = 'channels' AND due_at <= %s
        ORDER BY attempts > 0, due_at, created_at LIMIT 1 FOR UPDATE SKIP LOCKED
        """,  # noqa: S608 - own text
        [now],
    )
    row = cursor.fetchone()
    if row is None or not waits(row["payload"], settings.alert_digest_minutes):
        return [] if row is None else [row]
    cursor.execute(
        f"""
        SELECT {columns} FROM outbox
        WHERE state = 'due' AND topic = 'channels' AND due_at <= %s AND world = %s AND attempts = %s
          AND outbox_id <> %s
        ORDER BY due_at, created_at FOR UPDATE SKIP LOCKED
        """,  # noqa: S608 - own text
        [now, row["world"], row["attempts"], row["outbox_id"]],
    )
    return [row, *(other for other in cursor if waits(other["payload"], settings.alert_digest_minutes))]


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
    cursor: psycopg.Cursor[dict[str, Any]],
    urls: Sequence[SecretStr],
    payload: dict[str, Any],
    settings: Settings,
    now: datetime,
) -> tuple[list[SecretStr], dict[str, str]]:
    """(channels that get the message now, channel -> why its own options or the ceiling withhold it)."""
    wanted, withheld = [], {}
    passes, most = ceiling.always_passes(payload), settings.alert_hourly_ceiling
    had = {} if passes else ceiling.sent_within_the_hour(cursor, now)
    for url in urls:
        name = channel_name(url)
        try:
            reason = read_options(url).withheld(payload, now)
        except LiqError:
            reason = None  # said when it is sent
        if reason is None and had.get(name, 0) >= most:
            reason = f"{ceiling.REASON}: it had {had[name]} messages within an hour (LIQ_ALERT_HOURLY_CEILING)"
        if reason is None:
            wanted.append(url)
        else:
            withheld[name] = reason
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
    return Text(title, f"{body}\nDesk: {_desk(settings)}/alerts/{payload['alert_id']}", payload["notify_type"])


def _desk(settings: Settings) -> str:
    return (settings.alert_link_url or f"http://127.0.0.1:{settings.web_port}").rstrip("/")


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
