"""What is due, and what each venue lists: the tables `poll_state` and `venue_instruments`.

Belongs here: reading and writing that state. Does not: asking anyone (ask.py).
Polls run in short-lived processes, so nothing about them may live in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.store.inputs import listings

WHOLE_SOURCE = "*"
"""The feed name of the row that stands for a source as a whole."""
INSTRUMENTS = "instruments"
"""The feed name of a source's list of instruments."""


@dataclass(frozen=True)
class FeedKey:
    """One row of poll_state."""

    source: str
    feed: str
    symbol: str = ""


@dataclass(frozen=True)
class FeedState:
    """When a feed is due again and how it has gone."""

    next_due: datetime
    last_attempt: datetime
    last_success: datetime | None = None
    failures: int = 0
    last_error: str | None = None


@dataclass(frozen=True)
class Listing:
    """The instruments of one venue that are wanted here, and the wanted symbols that it does not list."""

    instruments: tuple[Instrument, ...] = ()
    not_listed: frozenset[str] = frozenset()

    def knows(self, symbols: Iterable[str]) -> bool:
        """Whether the venue has been asked about all these symbols."""
        return set(symbols) <= {instrument.symbol for instrument in self.instruments} | self.not_listed


def load_feeds(conn: psycopg.Connection[Any]) -> dict[FeedKey, FeedState]:
    """All rows."""
    rows = conn.execute(
        "SELECT source, feed, symbol, next_due, last_attempt, last_success, failures, last_error FROM poll_state"
    )
    return {FeedKey(*row[:3]): FeedState(*row[3:]) for row in rows}


def save_feeds(conn: psycopg.Connection[Any], changed: dict[FeedKey, FeedState]) -> None:
    """Insert or replace, in the caller's transaction."""
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO poll_state
                (source, feed, symbol, next_due, last_attempt, last_success, failures, last_error)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (source, feed, symbol) DO UPDATE SET
                next_due = excluded.next_due, last_attempt = excluded.last_attempt,
                last_success = excluded.last_success, failures = excluded.failures, last_error = excluded.last_error
            """,
            [
                (
                    *(key.source, key.feed, key.symbol),
                    *(state.next_due, state.last_attempt, state.last_success, state.failures, state.last_error),
                )
                for key, state in changed.items()
            ],
        )


def load_listings(conn: psycopg.Connection[Any], symbols: Sequence[str]) -> dict[str, Listing]:
    """By venue, for the symbols wanted."""
    rows = conn.execute(
        """
        SELECT venue, symbol, native_symbol, coins_per_unit, units_per_contract, funding_interval_hours
        FROM venue_instruments WHERE symbol = ANY(%s) ORDER BY venue, symbol
        """,
        [list(symbols)],
    ).fetchall()
    listed: dict[str, list[Instrument]] = {}
    absent: dict[str, set[str]] = {}
    for venue, symbol, native, coins, units, hours in rows:
        if native is None:
            absent.setdefault(venue, set()).add(symbol)
        else:
            listed.setdefault(venue, []).append(Instrument(symbol, native, coins, units, hours))
    return {
        venue: Listing(tuple(listed.get(venue, ())), frozenset(absent.get(venue, ()))) for venue in {*listed, *absent}
    }


def save_listing(
    conn: psycopg.Connection[Any], venue: str, found: Sequence[Instrument], symbols: Iterable[str], now: datetime
) -> list[str]:
    """Write what the venue lists of `symbols`. Returns those it does not list and had not been known to lack."""
    by_symbol = {instrument.symbol: instrument for instrument in found}
    known = conn.execute("SELECT symbol, native_symbol FROM venue_instruments WHERE venue = %s", [venue])
    before: dict[str, str | None] = dict(known.fetchall())
    rows: list[tuple[Any, ...]] = []
    news: list[str] = []
    for symbol in sorted(symbols):
        instrument = by_symbol.get(symbol)
        if instrument is None:
            if symbol not in before or before[symbol] is not None:
                news.append(symbol)
            rows.append((venue, symbol, None, None, None, None, now))
        else:
            rows.append(
                (
                    *(venue, symbol, instrument.native, instrument.coins_per_unit),
                    *(instrument.units_per_contract, instrument.funding_interval_hours, now),
                )
            )
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO venue_instruments
                (venue, symbol, native_symbol, coins_per_unit, units_per_contract, funding_interval_hours, updated_at)
            VALUES (%s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (venue, symbol) DO UPDATE SET
                native_symbol = excluded.native_symbol, coins_per_unit = excluded.coins_per_unit,
                units_per_contract = excluded.units_per_contract,
                funding_interval_hours = excluded.funding_interval_hours, updated_at = excluded.updated_at
            """,
            rows,
        )
    listings.note(conn, venue, {symbol: symbol in by_symbol for symbol in sorted(set(symbols))}, now)
    return news
