"""No more than so many messages an hour through one channel, escalations apart.

Belongs here: counting what a channel had, what the ceiling keeps back, and saying so with the next message. Does not: a
channel's own wishes (options.py), sending (channels.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg

WINDOW: Final = timedelta(hours=1)
REASON: Final = "ceiling"
"""How the reason in alert_deliveries.withheld begins."""


def always_passes(payload: Mapping[str, Any]) -> bool:
    """Escalations, whatever is CRITICAL, and a monitor that cannot see."""
    return bool(payload["kind"] == "escalated" or payload["severity"] == "CRITICAL" or payload["rule"] == "blind")


def sent_within_the_hour(cursor: psycopg.Cursor[dict[str, Any]], now: datetime) -> dict[str, int]:
    """Messages that each channel took; those of one digest count once."""
    cursor.execute(
        """
        SELECT channel, count(DISTINCT attempted_at) AS n FROM alert_deliveries
        WHERE ok AND attempted_at > %s AND attempted_at <= %s GROUP BY channel
        """,
        [now - WINDOW, now],
    )
    return {row["channel"]: row["n"] for row in cursor}


def kept_back(cursor: psycopg.Cursor[dict[str, Any]]) -> dict[str, int]:
    """How many messages the ceiling has kept from each channel since the last one that it took."""
    cursor.execute(
        """
        SELECT d.channel, count(DISTINCT d.outbox_id) AS n FROM alert_deliveries AS d
        WHERE d.withheld LIKE %s AND d.attempted_at > coalesce(
            (SELECT max(o.attempted_at) FROM alert_deliveries AS o WHERE o.channel = d.channel AND o.ok), '-infinity')
        GROUP BY d.channel
        """,
        [f"{REASON}%"],
    )
    return {row["channel"]: row["n"] for row in cursor}


def note(count: int) -> str:
    """What the channel is told with its next message."""
    noun = "message was" if count == 1 else "messages were"
    return f"{count} earlier {noun} kept back, too many in one hour: liq alerts list --all."
