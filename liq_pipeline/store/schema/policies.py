"""Whether TimescaleDB's policies do their work: refreshes, compression and retention that the server runs by itself.

Belongs here: reading timescaledb_information.jobs and job_stats, and judging them. Does not: making policies
(community.py), or whom the verdict is told (operations/doctor.py, operations/audits.py).

A policy that fails does no harm at once: roll-ups grow old and the disk fills. It happened: TimescaleDB 2.19.3 on
PostgreSQL 15.20 fails in its own book-keeping ("cannot drop portal"), while every query goes on as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg.rows import class_row

FIRST_OF_OURS: Final = 1000
"""Jobs below are TimescaleDB's own; in the Apache edition one of them always fails."""
PATIENCE: Final = timedelta(hours=1)
MISSED_TURNS: Final = 3
FIRST_TURN: Final = timedelta(hours=2)
"""Every policy runs once soon after it is made, or after the server has started."""
NAMED: Final = 3
"""Policies that a sentence names; of the others it tells how many."""


@dataclass(frozen=True)
class Policy:
    """One scheduled job: what it does to which table or view, how often, and how it went."""

    what: str
    """its procedure, in words: refresh continuous aggregate, compression, retention"""
    relation: str
    every: timedelta
    last_success: datetime | None
    last_status: str | None
    """Success or Failed, as the server says it; None: it never ran"""
    runs: int
    failures: int
    last_error: str | None


@dataclass(frozen=True)
class Verdict:
    """How many policies there are, and those that have not succeeded when they should have."""

    policies: int
    overdue: tuple[Policy, ...]

    def sentence(self) -> str:
        """For a person: what is wrong, and with which."""
        if not self.policies:
            return "No policy of TimescaleDB works on this database."
        if not self.overdue:
            return f"All {self.policies} policies of TimescaleDB have succeeded in their time."
        named = "; ".join(_words(policy) for policy in self.overdue[:NAMED])
        more = len(self.overdue) - NAMED
        return (
            f"{len(self.overdue)} of {self.policies} policies of TimescaleDB have not succeeded in their time: {named}"
            f"{f', and {more} more' if more > 0 else ''}."
        )


def verdict(conn: psycopg.Connection[Any], now: datetime) -> Verdict:
    """The policies of this database, judged at `now` (the wall clock). Nothing where there are none."""
    there = conn.execute("SELECT to_regclass('timescaledb_information.job_stats') IS NOT NULL").fetchone()
    found = policies(conn) if there is not None and there[0] else []
    if not found:
        return Verdict(0, ())
    row = conn.execute(
        "SELECT greatest(pg_postmaster_start_time(), (SELECT max(applied_at) FROM schema_migrations))"
    ).fetchone()
    since: datetime = now if row is None else row[0]
    return Verdict(len(found), tuple(policy for policy in found if _is_overdue(policy, now, since)))


def policies(conn: psycopg.Connection[Any]) -> list[Policy]:
    """Every scheduled policy that is not TimescaleDB's own. Needs the extension; any role may read it."""
    with conn.cursor(row_factory=class_row(Policy)) as cursor:
        # -infinity, the server's word for never, has no place in a datetime. Errors are shown to the job's owner only.
        return cursor.execute(
            """
            SELECT replace(regexp_replace(j.proc_name, '^policy_', ''), '_', ' ') AS what,
                   coalesce(c.view_name, j.hypertable_name, '')::text AS relation,
                   j.schedule_interval AS every, nullif(s.last_successful_finish, '-infinity') AS last_success,
                   s.last_run_status AS last_status, coalesce(s.total_runs, 0) AS runs,
                   coalesce(s.total_failures, 0) AS failures,
                   (SELECT e.err_message FROM timescaledb_information.job_errors AS e WHERE e.job_id = j.job_id
                    ORDER BY e.finish_time DESC LIMIT 1) AS last_error
            FROM timescaledb_information.jobs AS j
            LEFT JOIN timescaledb_information.job_stats AS s ON s.job_id = j.job_id
            LEFT JOIN timescaledb_information.continuous_aggregates AS c
                   ON c.materialization_hypertable_schema = j.hypertable_schema
                  AND c.materialization_hypertable_name = j.hypertable_name
            WHERE j.job_id >= %s AND j.scheduled ORDER BY 2, 1
            """,
            [FIRST_OF_OURS],
        ).fetchall()


def _is_overdue(policy: Policy, now: datetime, since: datetime) -> bool:
    """since: from when on they could have run, the start of the server or the newest migration."""
    if policy.last_success is None:
        return now - since > FIRST_TURN
    waited = now - max(policy.last_success, since)
    return waited > MISSED_TURNS * policy.every + PATIENCE


def _words(policy: Policy) -> str:
    when = "never" if policy.last_success is None else f"last {policy.last_success.astimezone(UTC):%Y-%m-%d %H:%M}"
    told = f", {policy.failures} of {policy.runs} runs failed" if policy.failures else ""
    why = f": {' '.join(policy.last_error.split())}" if policy.last_error else ""
    return f"{policy.what} of {policy.relation or 'no table'} ({when}{told}{why})"
