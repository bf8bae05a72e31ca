"""The outbox: what is to be sent, written in the transaction that decided it.

Belongs here: writing, counting and pruning outbox rows. Does not: sending them (delivery.py), or deciding
(alerting/deciding/machine.py).

Ids are made from what a row says, so the same decision written twice is one row. Signals of one point share one row:
they are published as one Kafka message each, but 60 points of 20 symbols are 60 rows to write, lock and mark instead of
1,200.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from liq_pipeline.alerting.sending.digest import waits
from liq_pipeline.domain.worlds import World
from liq_pipeline.scoring.results import PointResult, SignalResult
from liq_pipeline.settings import Settings

SCHEMA_VERSION: Final = 1
_NAMESPACE: Final = uuid.UUID("8f2cd3f9-4c0b-5b0e-8f39-6f2d7a9d3c55")


def row_id(*parts: object) -> uuid.UUID:
    """The id of what the parts say."""
    return uuid.uuid5(_NAMESPACE, "|".join(str(part) for part in parts))


def to_jsonb(value: Any) -> Jsonb:
    """A jsonb parameter. NaN becomes null: in a row as on the wire, unknown has no number."""
    return Jsonb(value, dumps=_dumps)


def enqueue_signals(
    conn: psycopg.Connection[Any],
    world: World,
    points: Iterable[PointResult],
    *,
    score_version: str,
    revision: int = 0,
) -> int:
    """Queue every signal of the points for the topic `signals`, in the caller's transaction. Returns the rows added."""
    rows = []
    for point in points:
        signals = [_signal(signal, world, score_version, revision) for _, signal in sorted(point.signals.items())]
        if signals:
            identity = row_id("signals", world.name, point.time.isoformat(), score_version, revision)
            rows.append((identity, world.name, "signals", str(identity), to_jsonb({"signals": signals}), None))
    return _insert(conn, rows)


def enqueue_alert(conn: psycopg.Connection[Any], world: World, record: dict[str, Any], alert_id: uuid.UUID) -> int:
    """Queue one record for the topic `alerts`. The record's `id` is its row and its message key."""
    identity = uuid.UUID(record["id"])
    return _insert(conn, [(identity, world.name, "alerts", record["id"], to_jsonb(record), alert_id)])


def enqueue_message(
    conn: psycopg.Connection[Any], world: World, message: dict[str, Any], alert_id: uuid.UUID, settings: Settings
) -> int:
    """Queue one message for people, or write it down as held with the reason. `id` as for enqueue_alert."""
    reason = held_reason(world.name, world.is_real, settings)
    identity = row_id("channels", message["id"])
    # The receipt stands in alert_changes and in the topic; people get its essence in the body.
    payload = {name: value for name, value in message.items() if name != "receipt"}
    row = (identity, world.name, "channels", message["id"], to_jsonb(payload), alert_id)
    minutes = settings.alert_digest_minutes
    return _insert(conn, [row], held=reason, digest_minutes=minutes if waits(message, minutes) else None)


def held_reason(world: str, is_real: bool, settings: Settings) -> str | None:
    """Why a message to people is not sent, or None if it is."""
    if not is_real and not settings.alert_unreal:
        return f"world {world} is not real and LIQ_ALERT_UNREAL is not true"
    if not settings.alert_urls:
        return "no channel is configured: LIQ_ALERT_URLS is empty"
    return None


def prune_outbox(conn: psycopg.Connection[Any], older_than: datetime) -> int:
    """Delete rows delivered before `older_than`, and those held since before it. Returns how many.

    What is due or failed stays, and so does every delivery attempt (alert_deliveries).
    """
    deleted = conn.execute(
        "DELETE FROM outbox WHERE (state = 'done' AND done_at < %(t)s) OR (state = 'held' AND created_at < %(t)s)",
        {"t": older_than},
    )
    return deleted.rowcount


def _signal(signal: SignalResult, world: World, score_version: str, revision: int) -> dict[str, Any]:
    identity = row_id("signal", world.name, signal.symbol, signal.time.isoformat(), score_version, revision)
    return {
        "schema_version": SCHEMA_VERSION,
        "id": str(identity),
        "world": world.name,
        "score_version": score_version,
        "revision": revision,
        **{name: getattr(signal, name) for name in SignalResult.__slots__},
    }


def _insert(
    conn: psycopg.Connection[Any],
    rows: list[tuple[Any, ...]],
    held: str | None = None,
    digest_minutes: float | None = None,
) -> int:
    """digest_minutes: due with the next digest, at a multiple of so many minutes; None: due now."""
    if not rows:
        return 0
    state = "due" if held is None else "held"
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO outbox (outbox_id, world, topic, message_key, payload, alert_id, state, held_reason, due_at)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, coalesce(
                date_bin(%s * interval '1 minute', clock_timestamp(), 'epoch') + %s * interval '1 minute',
                clock_timestamp()))
            ON CONFLICT (outbox_id) DO NOTHING
            """,
            [(*row, state, held, digest_minutes, digest_minutes) for row in rows],
        )
        return cursor.rowcount


def _dumps(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    """numpy's scalars, which inputs may hold."""
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    return item()
