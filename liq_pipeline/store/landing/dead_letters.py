"""Messages that did not fit: kept with their bytes, listed, and sent again once the reason is gone.

Belongs here: the table `dead_letters`. Does not: deciding what is dead (bus/codec.py, lander.py).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg.rows import class_row

from liq_pipeline.bus.producer import RecordProducer

Connection = psycopg.Connection[Any]

REASON_LENGTH = 2000
KEPT_BYTES = 64 * 1024
"""Of a value, a key and all headers, each. Whatever is larger could not land if it were sent again: the start of it is
kept for whoever looks, and the rest stays in Kafka for its retention."""


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message as it lay in Kafka, and why it could not land. headers: [[name, base64 of the value or null], ...]."""

    cluster_id: str
    topic: str
    kafka_partition: int
    kafka_offset: int
    appended_at: datetime | None
    key_bytes: bytes | None
    value_bytes: bytes | None
    headers: list[list[str | None]]
    reason_code: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class StoredDeadLetter(DeadLetter):
    """A dead letter as stored."""

    dead_at: datetime
    resubmitted_at: datetime | None

    @property
    def place(self) -> str:
        """topic[partition]@offset, as people write it."""
        return f"{self.topic}[{self.kafka_partition}]@{self.kafka_offset}"


def pack_headers(headers: Iterable[tuple[str, bytes | None]]) -> list[list[str | None]]:
    """Headers as JSON can hold them, without loss."""
    return [[name, None if value is None else base64.b64encode(value).decode()] for name, value in headers]


def unpack_headers(headers: Iterable[Sequence[str | None]]) -> list[tuple[str, bytes]]:
    """The headers as they were; a null value comes back empty, which is all the client can send."""
    return [(str(name), base64.b64decode(value or "")) for name, value in headers]


def insert(conn: Connection, letters: Sequence[DeadLetter]) -> int:
    """Write them in the caller's transaction; return how many are new (a delivery read again is there already)."""
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO dead_letters (cluster_id, topic, kafka_partition, kafka_offset, appended_at, key_bytes,
                                      value_bytes, headers, is_cut, reason_code, reason)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
            """,
            [_row(letter) for letter in letters],
        )
        return max(cursor.rowcount, 0)


def _row(letter: DeadLetter) -> list[Any]:
    key, value = (None if part is None else part[:KEPT_BYTES] for part in (letter.key_bytes, letter.value_bytes))
    # text and jsonb hold everything but NUL: a header's name or a reason that quotes one loses that.
    headers = msgspec.json.encode(letter.headers).decode().replace("\\u0000", "\\ufffd")
    are_headers_kept = len(headers) <= KEPT_BYTES
    return [
        letter.cluster_id,
        letter.topic,
        letter.kafka_partition,
        letter.kafka_offset,
        letter.appended_at,
        key,
        value,
        headers if are_headers_kept else "[]",
        (key, value) != (letter.key_bytes, letter.value_bytes) or not are_headers_kept,
        letter.reason_code,
        letter.reason.replace("\x00", "\ufffd")[:REASON_LENGTH],
    ]


def list_letters(
    conn: Connection,
    *,
    topic: str | None = None,
    reason_code: str | None = None,
    resubmitted: bool | None = False,
    limit: int = 100,
) -> list[StoredDeadLetter]:
    """Dead letters, newest first. resubmitted: False those still dead, True those sent again, None both."""
    with conn.cursor(row_factory=class_row(StoredDeadLetter)) as cursor:
        return cursor.execute(
            """
            SELECT cluster_id, topic, kafka_partition, kafka_offset, appended_at, key_bytes, value_bytes, headers,
                   reason_code, reason, dead_at, resubmitted_at
            FROM dead_letters
            WHERE (%(topic)s::text IS NULL OR topic = %(topic)s)
              AND (%(reason_code)s::text IS NULL OR reason_code = %(reason_code)s)
              AND (%(resubmitted)s::boolean IS NULL OR (resubmitted_at IS NOT NULL) = %(resubmitted)s)
            ORDER BY dead_at DESC, topic, kafka_partition, kafka_offset DESC
            LIMIT %(limit)s
            """,
            {"topic": topic, "reason_code": reason_code, "resubmitted": resubmitted, "limit": limit},
        ).fetchall()


def counts(conn: Connection) -> dict[tuple[str, str], int]:
    """(topic, reason_code) -> letters still dead."""
    rows = conn.execute(
        "SELECT topic, reason_code, count(*) FROM dead_letters WHERE resubmitted_at IS NULL GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return {(topic, code): number for topic, code, number in rows}


def resubmit(
    conn: Connection,
    producer: RecordProducer,
    *,
    topic: str | None = None,
    reason_code: str | None = None,
    limit: int = 1000,
) -> int:
    """Send the bytes of dead letters to their topics again, oldest first; commit and return how many.

    They are marked only after Kafka acknowledged all of them: a crash in between sends some a second time, which
    lands as duplicates, and never loses one. Rows that another resubmission holds are left to it. A message without
    a value, or of which only the start was kept, can never land: it is not sent.
    """
    rows = conn.execute(
        """
        SELECT cluster_id, topic, kafka_partition, kafka_offset, key_bytes, value_bytes, headers
        FROM dead_letters
        WHERE resubmitted_at IS NULL AND value_bytes IS NOT NULL AND NOT is_cut
          AND (%(topic)s::text IS NULL OR topic = %(topic)s)
          AND (%(reason_code)s::text IS NULL OR reason_code = %(reason_code)s)
        ORDER BY dead_at, topic, kafka_partition, kafka_offset
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
        """,
        {"topic": topic, "reason_code": reason_code, "limit": limit},
    ).fetchall()
    for _, name, _, _, key, value, headers in rows:
        producer.send_bytes(name, value, key=key, headers=unpack_headers(headers))
    producer.flush()
    with conn.cursor() as cursor:
        cursor.executemany(
            "UPDATE dead_letters SET resubmitted_at = clock_timestamp()"
            " WHERE cluster_id = %s AND topic = %s AND kafka_partition = %s AND kafka_offset = %s",
            [row[:4] for row in rows],
        )
    conn.commit()
    return len(rows)
