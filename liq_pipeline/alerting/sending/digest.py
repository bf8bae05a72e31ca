"""INFO as a digest: what is of interest and no alarm comes together, once in a while.

Belongs here: which messages wait for it, until when, and its words. Does not: sending (delivery.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from liq_pipeline.alerting.deciding.policy import LEVEL_OF_NAME
from liq_pipeline.alerting.telling.messages import Text

MOST_LINES: Final = 30


def waits(payload: Mapping[str, Any], digest_minutes: float) -> bool:
    """Whether the message is for the digest: INFO now and before, of the real world, whose clock is the wall's."""
    level = max(LEVEL_OF_NAME.get(payload[name], 0) for name in ("severity", "severity_before"))
    is_info = level == LEVEL_OF_NAME["INFO"] and payload["rule"] != "blind"
    return digest_minutes > 0 and is_info and bool(payload["is_real"])


def digest(payloads: Sequence[Mapping[str, Any]], desk: str) -> Text:
    """One text of several messages, oldest first; of a single one its own words."""
    if len(payloads) == 1:
        only = payloads[0]
        return Text(only["title"], f"{only['body']}\nDesk: {desk}/alerts/{only['alert_id']}", only["notify_type"])
    ordered = sorted(payloads, key=lambda payload: str(payload["time"]))
    first, last = (datetime.fromisoformat(ordered[index]["time"]) for index in (0, -1))
    lines = [f"{datetime.fromisoformat(one['time']):%H:%M} {one['title']}" for one in ordered[:MOST_LINES]]
    if len(ordered) > MOST_LINES:
        lines.append(f"and {len(ordered) - MOST_LINES} more.")
    return Text(
        title=f"INFO digest: {len(ordered)} changes, {first:%H:%M} to {last:%H:%M} UTC",
        body="\n".join([*lines, "Of interest, no alarm.", "Not financial advice.", f"Desk: {desk}/alerts"]),
        notify_type="info",
    )
