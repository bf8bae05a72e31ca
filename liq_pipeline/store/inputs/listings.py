"""Which venue lists which coin, and since when: the table `venue_listings`.

Belongs here: writing a change, asking what holds. Does not: how venues name coins (sources/polling/state.py), or what
follows for a score (store/inputs/expected_coins.py).

Rows are only added, and they count from a minute ahead: whoever reads them for a time T, the tick then or a re-score
years later, finds the same rows. Before a venue's list was read, the venue is expected to list a coin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg

AHEAD: Final = timedelta(seconds=60)
"""Longer than any transaction that writes here: the row is there before the first tick that it counts for."""


def note(conn: psycopg.Connection[Any], venue: str, is_listed: Mapping[str, bool], now: datetime) -> None:
    """Write what has changed, in the caller's transaction. is_listed: symbol -> whether the venue lists it."""
    conn.execute(
        """
        INSERT INTO venue_listings (venue, symbol, valid_from, is_listed)
        SELECT %(venue)s, symbol, %(valid_from)s, is_listed
        FROM unnest(%(symbols)s::text[], %(listed)s::boolean[]) AS seen(symbol, is_listed)
        WHERE is_listed <> coalesce(
            (SELECT known.is_listed FROM venue_listings AS known
             WHERE known.venue = %(venue)s AND known.symbol = seen.symbol ORDER BY valid_from DESC LIMIT 1), true)
        ON CONFLICT DO NOTHING
        """,
        {
            "venue": venue,
            "valid_from": now + AHEAD,
            "symbols": list(is_listed),
            "listed": list(is_listed.values()),
        },
    )


def venues_without(conn: psycopg.Connection[Any], symbols: Sequence[str], at: datetime) -> set[str]:
    """The venues that list none of the symbols: nothing at all is expected of them."""
    rows = conn.execute(
        """
        SELECT venue FROM (
            SELECT DISTINCT ON (venue, symbol) venue, symbol, is_listed FROM venue_listings
            WHERE symbol = ANY(%(symbols)s) AND valid_from <= %(at)s ORDER BY venue, symbol, valid_from DESC
        ) AS newest
        WHERE NOT is_listed GROUP BY venue HAVING count(*) = %(count)s
        """,
        {"symbols": list(symbols), "at": at, "count": len(set(symbols))},
    ).fetchall()
    return {venue for (venue,) in rows}
