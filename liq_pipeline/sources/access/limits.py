"""Request budgets: limits as data, one limiter per metered scope, shared by every process.

Belongs here: what a limit is, the arithmetic of a rolling window, and its state in the table `request_budgets`.
Does not: the limits themselves (each venue's module declares its own) or sending requests (http.py).

Polls run in short-lived Dagster runs, streams and history in the collector, backfills in a shell: a limiter in memory
would let each of them spend the whole budget. The state is a database row per scope, because all of them already
need the database and it works across hosts; its row lock makes concurrent reservations take turns. A reservation
that dies unused errs on the safe side.

Venues count a rolling window, and a token bucket can overrun one after idling (a full bucket plus the refill). So
what was spent is kept per slice of the window, and a reservation looks at every slice that could still touch it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from liq_pipeline.errors import LiqError
from liq_pipeline.store.connection import connect

SLICES = 20
"""Slices per window: reservations are at most 1/20 of a window more cautious than the venue."""


class BudgetError(LiqError):
    """A request does not fit the budget of its scope within the time given."""


@dataclass(frozen=True)
class Limit:
    """At most `capacity` (requests or weight, whatever the venue counts) within any `window_seconds`.

    capacity is what we allow ourselves, at or below what the venue grants.
    """

    scope: str
    capacity: int
    window_seconds: float


@dataclass(frozen=True)
class Block:
    """A scope that must not be used before `until`, because the venue said so."""

    until: datetime
    reason: str


Spent = dict[int, int]
"""slice number (time // slice length) -> cost"""


def slice_number(limit: Limit, now: datetime) -> int:
    """The slice of the window that `now` lies in."""
    return int(now.timestamp() * SLICES // limit.window_seconds)


def within_window(limit: Limit, spent: Spent, now: datetime) -> Spent:
    """What may still count against a rolling window that ends at `now`."""
    current = slice_number(limit, now)
    return {number: cost for number, cost in spent.items() if number >= current - SLICES}


def take(limit: Limit, spent: Spent, cost: int, now: datetime, share: float = 1.0) -> Spent | None:
    """The state after spending `cost`, or None if it does not fit; `share` of the capacity is open to the caller.

    A share of one request a second is none at all: such a caller gets the window that nobody else has used.
    """
    recent = within_window(limit, spent, now)
    if sum(recent.values()) + cost > max(limit.capacity * share, min(cost, limit.capacity)):
        return None
    current = slice_number(limit, now)
    recent[current] = recent.get(current, 0) + cost
    return recent


def reserve(
    conn: psycopg.Connection[Any],
    limits: Mapping[str, Limit],
    wanted: Sequence[Mapping[str, int]],
    now: datetime,
    *,
    share: float = 1.0,
) -> list[bool]:
    """Reserve each request's costs ({scope: cost}) in the order given, in the caller's transaction.

    A request is granted only if all its scopes have room and none is blocked. Locks are taken in the order of the
    scopes' names, so two callers cannot wait for each other.
    """
    scopes = sorted({scope for costs in wanted for scope in costs})
    if not scopes:
        return [True] * len(wanted)
    unknown = [scope for scope in scopes if scope not in limits]
    if unknown:
        raise BudgetError(f"no limit is declared for {', '.join(unknown)}: add it to the venue's module")
    conn.execute("INSERT INTO request_budgets (scope) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", [scopes])
    rows = conn.execute(
        "SELECT scope, spent, blocked_until FROM request_budgets WHERE scope = ANY(%s) ORDER BY scope FOR UPDATE",
        [scopes],
    ).fetchall()
    spent = {scope: {int(number): int(cost) for number, cost in state.items()} for scope, state, _ in rows}
    blocked = {scope for scope, _, until in rows if until is not None and until > now}
    granted: list[bool] = []
    for costs in wanted:
        after: dict[str, Spent] = {}
        for scope, cost in costs.items():
            state = None if scope in blocked else take(limits[scope], spent[scope], cost, now, share)
            if state is None:
                break
            after[scope] = state
        fits = len(after) == len(costs)
        if fits:
            spent.update(after)
        granted.append(fits)
    with conn.cursor() as cursor:
        cursor.executemany(
            "UPDATE request_budgets SET spent = %s, updated_at = clock_timestamp() WHERE scope = %s",
            [
                (Jsonb({str(n): c for n, c in within_window(limits[scope], state, now).items()}), scope)
                for scope, state in spent.items()
            ],
        )
    return granted


def block(conn: psycopg.Connection[Any], scope: str, blocked: Block) -> None:
    """Let nobody use the scope before `blocked.until`; an earlier, longer block stays."""
    conn.execute(
        """
        INSERT INTO request_budgets (scope, blocked_until, blocked_reason) VALUES (%(scope)s, %(until)s, %(reason)s)
        ON CONFLICT (scope) DO UPDATE SET
            blocked_until = excluded.blocked_until, blocked_reason = excluded.blocked_reason,
            updated_at = clock_timestamp()
        WHERE request_budgets.blocked_until IS NULL OR request_budgets.blocked_until < excluded.blocked_until
        """,
        {"scope": scope, "until": blocked.until, "reason": blocked.reason},
    )


def usage(conn: psycopg.Connection[Any], limits: Mapping[str, Limit], now: datetime) -> dict[str, dict[str, Any]]:
    """What `liq status` shows: {scope: {used, capacity, window_seconds[, blocked_until, blocked_reason]}}."""
    rows = conn.execute(
        "SELECT scope, spent, blocked_until, blocked_reason FROM request_budgets WHERE scope = ANY(%s)", [list(limits)]
    ).fetchall()
    state = {scope: (spent, until, reason) for scope, spent, until, reason in rows}
    shown: dict[str, dict[str, Any]] = {}
    for scope, limit in limits.items():
        spent, until, reason = state.get(scope, ({}, None, None))
        recent = within_window(limit, {int(number): int(cost) for number, cost in spent.items()}, now)
        shown[scope] = {
            "used": sum(recent.values()),
            "capacity": limit.capacity,
            "window_seconds": limit.window_seconds,
        }
        if until is not None and until > now:
            shown[scope] |= {"blocked_until": until.isoformat(), "blocked_reason": reason}
    return shown


class Budgets:
    """The blocking form for workers that ask one thing after the other: waits for its turn. Threads may share it."""

    def __init__(self, database_url: str, limits: Mapping[str, Limit], *, share: float = 1.0) -> None:
        self._database_url = database_url
        self._limits = limits
        self._share = share
        self._conn: psycopg.Connection[Any] | None = None
        self._lock = threading.Lock()

    def acquire(self, costs: Mapping[str, int], *, timeout_seconds: float) -> None:
        """Return once the costs are reserved. Raises BudgetError if that takes longer than timeout_seconds."""
        deadline = time.monotonic() + timeout_seconds
        for scope, cost in costs.items():
            if cost > self._limits[scope].capacity:
                raise BudgetError(f"a request that costs {cost} can never fit the budget of {scope}")
        while True:
            with self._lock, self._transaction() as conn:
                granted = reserve(conn, self._limits, [costs], datetime.now(UTC), share=self._share)[0]
            if granted:
                return
            wait = min(self._limits[scope].window_seconds for scope in costs) / SLICES
            wait = min(max(wait, 0.05), 5.0)
            if time.monotonic() + wait > deadline:
                raise BudgetError(f"the budget of {', '.join(costs)} has no room within {timeout_seconds:.1f} s")
            time.sleep(wait)

    def again(self, costs: Mapping[str, int]) -> bool:
        """Reserve the costs of another attempt if there is room right now."""
        try:
            self.acquire(costs, timeout_seconds=0.0)
        except (BudgetError, psycopg.Error):
            return False
        return True

    def block(self, scopes: Sequence[str], seconds: float, reason: str) -> None:
        """Let nobody use the scopes for that long."""
        until = Block(datetime.now(UTC) + timedelta(seconds=seconds), reason)
        with self._lock, self._transaction() as conn:
            for scope in sorted(scopes):
                block(conn, scope, until)

    def close(self) -> None:
        """Close the connection that was kept for the next reservation."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        if self._conn is None or self._conn.closed:
            self._conn = connect(self._database_url, application_name="liq budgets")
        try:
            with self._conn.transaction():
                yield self._conn
        except psycopg.Error:
            self.close()
            raise
