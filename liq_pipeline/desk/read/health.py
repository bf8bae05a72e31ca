"""How the system is: what `liq status` says, for pages and programs.

Belongs here: handing on operations/status.py, and the lag that the health page of the same home measures. Does not:
judging; there is one judgement of health, and it is not here.
"""

from __future__ import annotations

import re
import urllib.request
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.desk.read.database import Connection, fetch
from liq_pipeline.desk.read.units import Open, Seconds
from liq_pipeline.operations.status import read_store
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.settings import Settings

_LAG: Final = re.compile(r'^liq_lag_messages\{topic="([a-z_]+)"\} (\S+)$', re.MULTILINE)


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`liq status` without the symbols. lag: messages in Kafka that have not landed; null is unknown."""

    health: Literal["healthy", "degraded", "down"]
    problems: list[str]
    database: Open
    sources: list[Open]
    lag: dict[str, int | None]
    ticks: Open
    alerts: Open
    dead_letters: Open
    gaps_open: int | None
    storage: Open
    looked_at: datetime
    """wall clock"""


class GapRow(msgspec.Struct, frozen=True, kw_only=True):
    """A hole in the data."""

    source: str
    symbol: str | None
    from_time: datetime | None
    to_time: datetime | None
    cause: str
    is_permanent: bool
    healed_at: datetime | None


class DataAge(msgspec.Struct, frozen=True, kw_only=True):
    """How old a venue's newest values of a symbol are; null: none."""

    symbol: str
    venue: str
    price_age_seconds: Seconds | None
    funding_age_seconds: Seconds | None
    open_interest_age_seconds: Seconds | None


def health(settings: Settings, endpoints: Endpoints, lag_url: str | None) -> Health:
    """One look. endpoints: whose database_url is the reader's."""
    now = datetime.now(UTC)
    status = read_store(settings, endpoints, now)
    known: dict[str, Any] = asdict(status)
    return Health(
        lag=_lag(lag_url),
        looked_at=now,
        **{name: known[name] for name in Health.__struct_fields__ if name not in ("lag", "looked_at")},
    )


def _lag(url: str | None) -> dict[str, int | None]:
    """What the health page of this installation measured at Kafka: asked here, a second client would have to."""
    unknown: dict[str, int | None] = dict.fromkeys(IN_TOPICS)
    if url is None:
        return unknown
    try:
        # Its own proxy settings must not come between this machine and itself.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=2.0) as answer:
            text = answer.read(1_000_000).decode()
    except OSError:
        return unknown
    return unknown | {topic: int(float(value)) for topic, value in _LAG.findall(text)}


def gaps(conn: Connection, world: str, limit: int) -> list[GapRow]:
    """Holes, the open ones first, then the newest."""
    return fetch(
        conn,
        GapRow,
        """
        SELECT source, symbol, from_time, to_time, cause, is_permanent, healed_at FROM ingest_gaps
        WHERE world = %(world)s ORDER BY (healed_at IS NULL AND NOT is_permanent) DESC, found_at DESC LIMIT %(limit)s
        """,
        {"world": world, "limit": limit},
    )


def ages(conn: Connection, world: str, now: datetime, *, symbol: str | None = None) -> list[DataAge]:
    """How old the newest value of each symbol (or one), venue and type is at `now`, the world's clock."""

    def newest(table: str, more: str = "") -> str:
        return (
            f"SELECT event_time FROM {table} WHERE world = %(world)s AND symbol = s.symbol AND venue = v.venue {more}"  # noqa: S608
            " ORDER BY event_time DESC LIMIT 1"
        )

    price, interest = newest("prices"), newest("open_interest")
    funding = newest("funding_rates", "AND kind = 'predicted'")
    return fetch(
        conn,
        DataAge,
        f"""
        SELECT s.symbol, v.venue, extract(epoch FROM %(now)s - ({price}))::float AS price_age_seconds,
               extract(epoch FROM %(now)s - ({funding}))::float AS funding_age_seconds,
               extract(epoch FROM %(now)s - ({interest}))::float AS open_interest_age_seconds
        FROM worlds w CROSS JOIN LATERAL jsonb_array_elements_text(w.manifest -> 'symbols') AS s (symbol)
        CROSS JOIN LATERAL (SELECT DISTINCT jsonb_array_elements_text(e.value -> 'venues') AS venue
                            FROM jsonb_each(w.manifest -> 'expected') e) v
        WHERE w.world = %(world)s AND (%(symbol)s::text IS NULL OR s.symbol = %(symbol)s) ORDER BY 1, 2 LIMIT 1000
        """,  # noqa: S608 - own constants
        {"world": world, "now": now, "symbol": symbol},
    )
