"""TimescaleDB's policies are watched: what the server's own views say of jobs is judged, and told by doctor and audit.

The Apache edition makes no policies, so rows of its job catalogue stand in for them here, read through the real views;
on a community server (LIQ_TEST_TIMESCALE_URL) the policies are our own.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from liq_pipeline.operations import audits, doctor
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline.store.schema import policies
from liq_pipeline.store.schema.migrations import migrate

HOUR = timedelta(hours=1)


def job(conn: psycopg.Connection[Any], number: int, name: str, every: timedelta = HOUR) -> None:
    """A policy over prices that the server's own scheduler leaves alone: its first turn is a year away."""
    conn.execute(
        "INSERT INTO _timescaledb_config.bgw_job (id, application_name, schedule_interval, max_runtime, max_retries,"
        " retry_period, proc_schema, proc_name, owner, scheduled, fixed_schedule, initial_start, hypertable_id)"
        " SELECT %s, 'test', %s, '0', -1, '1 hour', '_timescaledb_functions', %s, current_user::regrole, true, true,"
        " now() + interval '1 year', id FROM _timescaledb_catalog.hypertable WHERE table_name = 'prices'",
        [number, every, name],
    )


def ran(conn: psycopg.Connection[Any], number: int, last_success: datetime | None, failures: int = 0) -> None:
    """What the server notes after a job's turns; None: it never succeeded."""
    conn.execute(
        "INSERT INTO _timescaledb_internal.bgw_job_stat (job_id, last_start, last_finish, next_start,"
        " last_successful_finish, last_run_success, total_runs, total_duration, total_duration_failures,"
        " total_successes, total_failures, total_crashes, consecutive_failures, consecutive_crashes, flags)"
        " VALUES (%(n)s, now(), now(), now() + interval '1 year', coalesce(%(s)s, timestamptz '-infinity'), %(f)s = 0,"
        " %(f)s + 1, '1 s', '0 s', 1, %(f)s, 0, %(f)s, 0, 0)",
        {"n": number, "s": last_success, "f": failures},
    )


def up_since(conn: psycopg.Connection[Any]) -> datetime:
    row = conn.execute(
        "SELECT greatest(pg_postmaster_start_time(), (SELECT max(applied_at) FROM schema_migrations))"
    ).fetchone()
    assert row is not None
    since: datetime = row[0]
    return since


def test_without_policies_there_is_nothing_to_say(database_url: str, empty_database_url: str) -> None:
    for url in (database_url, empty_database_url):
        with connect(url) as conn:
            found = policies.verdict(conn, datetime.now(UTC) + timedelta(days=30))
        assert (found.policies, found.overdue) == (0, ())
        assert found.sentence() == "No policy of TimescaleDB works on this database."


def test_timescaledb_s_own_jobs_are_not_ours(timescale_url: str) -> None:
    """In the Apache edition one of them always fails."""
    migrate(timescale_url)
    with connect(timescale_url) as conn:
        own = conn.execute("SELECT count(*) FROM timescaledb_information.jobs").fetchone()
        assert own is not None
        assert own[0] > 0
        assert policies.verdict(conn, datetime.now(UTC) + timedelta(days=30)).policies == 0


def test_policies_that_have_not_succeeded_are_named(timescale_url: str) -> None:
    migrate(timescale_url)
    with connect(timescale_url) as conn:
        since = up_since(conn)
        now = since + timedelta(days=2)
        job(conn, 1001, "policy_compression", 12 * HOUR)
        ran(conn, 1001, now - 30 * HOUR)
        assert policies.verdict(conn, now).sentence() == "All 1 policies of TimescaleDB have succeeded in their time."
        job(conn, 1002, "policy_refresh_continuous_aggregate")
        ran(conn, 1002, now - 5 * HOUR, failures=7)
        job(conn, 1003, "policy_retention")
        found = policies.verdict(conn, now)
        assert (found.policies, [policy.what for policy in found.overdue]) == (
            3, ["refresh continuous aggregate", "retention"],
        )  # fmt: skip
        last = (now - 5 * HOUR).astimezone(UTC)
        assert found.sentence() == (
            "2 of 3 policies of TimescaleDB have not succeeded in their time: refresh continuous aggregate of prices"
            f" (last {last:%Y-%m-%d %H:%M}, 7 of 8 runs failed); retention of prices (never)."
        )


@pytest.mark.parametrize(
    ("after", "overdue"),
    [(timedelta(minutes=110), False), (timedelta(minutes=130), True)],
    ids=["young", "up for long"],
)
def test_a_server_that_has_just_started_is_given_time(timescale_url: str, after: timedelta, overdue: bool) -> None:
    migrate(timescale_url)
    with connect(timescale_url) as conn:
        job(conn, 1001, "policy_compression")
        job(conn, 1002, "policy_retention")
        ran(conn, 1002, None)
        since = up_since(conn)
        assert [bool(policies.verdict(conn, since + after).overdue), len(policies.policies(conn))] == [overdue, 2]


def test_time_in_which_the_server_was_down_does_not_count(timescale_url: str) -> None:
    migrate(timescale_url)
    with connect(timescale_url) as conn:
        job(conn, 1001, "policy_compression")
        ran(conn, 1001, up_since(conn) - timedelta(days=9))
        assert not policies.verdict(conn, up_since(conn) + 3 * HOUR).overdue
        assert policies.verdict(conn, up_since(conn) + 5 * HOUR).overdue


def test_any_role_may_ask(timescale_url: str) -> None:
    migrate(timescale_url)
    role = f"liq_asks_{uuid.uuid4().hex[:8]}"
    with connect(timescale_url) as conn:
        job(conn, 1001, "policy_compression")
        conn.execute(f"CREATE ROLE {role}")
        conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        conn.execute(f"SET LOCAL ROLE {role}")
        assert policies.verdict(conn, datetime.now(UTC)).policies == 1
        conn.rollback()


def test_doctor_and_audit_say_it(timescale_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(timescale_url)
    monkeypatch.setattr(policies, "FIRST_TURN", timedelta(0))
    endpoints = Endpoints(database_url=timescale_url, kafka_bootstrap_servers="127.0.0.1:1")
    with connect(timescale_url) as conn:
        job(conn, 1001, "policy_compression")
        conn.commit()
        [audit] = [f for f in audits.audit(conn, Settings(), datetime.now(UTC)) if f.audit == "policies_succeed"]
        assert (audit.subject, audit.passed, audit.facts) == ("database", False, {"policies": 1, "overdue": 1})
        assert "compression of prices (never)" in audit.sentence
        [found] = [f for f in doctor._database(endpoints) if f.check == "policies"]
        assert (found.grade, found.detail) == ("warn", audit.sentence)
        assert "docs/storage.md" in found.mend
        ran(conn, 1001, datetime.now(UTC))
        conn.commit()
        [found] = [f for f in doctor._database(endpoints) if f.check == "policies"]
        assert (found.grade, found.mend) == ("ok", "")


def test_on_a_community_server_our_own_policies_are_found(community_url: str) -> None:
    migrate(community_url)
    with connect(community_url) as conn:
        found = policies.policies(conn)
        assert {policy.what for policy in found} == {"refresh continuous aggregate", "compression", "retention"}
        assert {"prices", "prices_1h", "ticks_1m"} <= {policy.relation for policy in found}
        assert not policies.verdict(conn, datetime.now(UTC)).overdue, "they were made a moment ago"
