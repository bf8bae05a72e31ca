"""Dagster's runs as the dashboards show them: how many, by job and end, and why some failed.

Belongs here: dagster_run_counts and dagster_failures. Does not: asking Dagster (defs/upkeep/counting.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg


@dataclass(frozen=True)
class RunCount:
    """How many runs of one job, made in one hour (UTC), ended in one way (Dagster's word)."""

    hour: datetime
    job: str
    status: str
    runs: int


@dataclass(frozen=True)
class Failure:
    """A run that failed, when it ended, and the first failure that it told."""

    run_id: str
    job: str
    failed_at: datetime
    sentence: str


def keep(conn: psycopg.Connection[Any], counts: Iterable[RunCount], failures: Iterable[Failure], now: datetime) -> None:
    """Note them. A count only grows: runs that were deleted since the last look stay counted. No commit."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO dagster_run_counts AS c (hour, job, status, runs, counted_at) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (hour, job, status) DO UPDATE SET runs = greatest(c.runs, excluded.runs),"
            " counted_at = excluded.counted_at",
            [(count.hour, count.job, count.status, count.runs, now) for count in counts],
        )
        cursor.executemany(
            "INSERT INTO dagster_failures (run_id, job, failed_at, sentence) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (run_id) DO NOTHING",
            [(failure.run_id, failure.job, failure.failed_at, failure.sentence) for failure in failures],
        )
