"""The state of each source, for `liq status`, checks and people: the table `source_status`.

Belongs here: judging a source by how its feeds have gone, and writing the judgement. Does not: asking the source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.types.json import Jsonb

from liq_pipeline.sources.polling.state import WHOLE_SOURCE, FeedKey, FeedState

State = Literal["starting", "up", "degraded", "down", "off"]
MANY_FAILURES = 3
"""A feed that failed this often in a row is not having a bad moment."""


@dataclass(frozen=True)
class SourceStatus:
    """One row of source_status. budget: {scope: {used, capacity, window_seconds, ...}}."""

    source: str
    state: State
    reason: str | None = None
    last_success: datetime | None = None
    last_error: datetime | None = None
    last_error_text: str | None = None
    budget: dict[str, Any] = field(default_factory=dict)


def judge(source: str, feeds: dict[FeedKey, FeedState], not_listed: Iterable[str] = ()) -> SourceStatus:
    """down: it refuses us, or nothing of it answers. degraded: some feeds fail, or rows were left out."""
    own = {key: state for key, state in feeds.items() if key.source == source}
    whole = own.pop(FeedKey(source, WHOLE_SOURCE), None)
    successes = [state.last_success for state in own.values() if state.last_success is not None]
    last_success = max(successes, default=None)
    failing = {key: state for key, state in own.items() if state.failures}
    remarks = {key: state for key, state in own.items() if state.last_error and not state.failures}
    worst = max(failing.values(), key=lambda state: (state.last_attempt, state.failures), default=None)
    error = whole if whole is not None and whole.failures else worst
    state: State
    reason: str | None
    if whole is not None and whole.failures:
        state, reason = "down", f"{whole.last_error}; asked again at {whole.next_due:%Y-%m-%d %H:%M:%S} UTC"
    elif not own:
        state, reason = "starting", "not asked yet"
    elif worst is not None and len(failing) == len(own):
        state, reason = "down", f"nothing of it answers: {worst.last_error}"
    elif worst is not None:
        names = ", ".join(sorted({key.feed for key in failing}))
        state, reason = "degraded", f"{names}: {worst.last_error}"
    elif remarks:
        newest = max(remarks.values(), key=lambda remark: remark.last_attempt)
        state, reason = "degraded", newest.last_error
    else:
        state, reason = "up", None
    absent = sorted(not_listed)
    if absent:
        reason = "; ".join(part for part in (reason, f"does not list {', '.join(absent)}") if part)
    newest_error = error or max(remarks.values(), key=lambda remark: remark.last_attempt, default=None)
    return SourceStatus(
        source=source,
        state=state,
        reason=reason,
        last_success=last_success,
        last_error=None if newest_error is None else newest_error.last_attempt,
        last_error_text=None if newest_error is None else newest_error.last_error,
    )


def write(conn: psycopg.Connection[Any], rows: Iterable[SourceStatus]) -> None:
    """Insert or update, in the caller's transaction. A source without a new error keeps the memory of its last one."""
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO source_status
                (source, state, reason, last_success, last_error, last_error_text, budget, updated_at)
            VALUES (%s, %s, %s, %s, %s, %s, %s, clock_timestamp())
            ON CONFLICT (source) DO UPDATE SET
                state = excluded.state, reason = excluded.reason,
                last_success = coalesce(excluded.last_success, source_status.last_success),
                last_error = coalesce(excluded.last_error, source_status.last_error),
                last_error_text = coalesce(excluded.last_error_text, source_status.last_error_text),
                budget = excluded.budget, updated_at = excluded.updated_at
            """,
            [
                (
                    *(row.source, row.state, row.reason, row.last_success),
                    *(row.last_error, row.last_error_text, Jsonb(row.budget)),
                )
                for row in rows
            ],
        )
