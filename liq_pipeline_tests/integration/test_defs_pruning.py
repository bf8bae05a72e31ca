"""Dagster's bookkeeping has an end: what is pruned, and what must stay."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from dagster import AssetCheckKey, AssetKey, DagsterInstance, DagsterRunStatus
from sqlalchemy.engine import make_url

from liq_pipeline.defs.resources import Services
from liq_pipeline.defs.upkeep import counting
from liq_pipeline.defs.upkeep.maintenance import live_maintenance
from liq_pipeline.defs.upkeep.pruning import prune_runs
from liq_pipeline.launcher.coordinator import LANE_TAG, LIVE_LANE
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.settings import Settings
from liq_pipeline.store import dagster_runs
from liq_pipeline.store.connection import connect
from liq_pipeline.store.schema import roles
from liq_pipeline_tests.landing_support import select
from liq_pipeline_tests.launcher_jobs import defs
from liq_pipeline_tests.launcher_support import JOBS_MODULE, REPOSITORY, Stack

LIVE = {LANE_TAG: LIVE_LANE}


@pytest.fixture(scope="module")
def stack(postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    name = f"dagster_{uuid.uuid4().hex[:12]}"
    stack = Stack(tmp_path_factory.mktemp("dagster"), postgres_server.ensure_database(name), JOBS_MODULE, REPOSITORY)
    yield stack
    stack.close()
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def instance(stack: Stack) -> DagsterInstance:
    stack.instance.wipe()
    return stack.instance


def run_of(instance: DagsterInstance, job: str, tags: dict[str, str]) -> str:
    result = (
        defs.get_repository_def().get_job(job).execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    )
    return result.run_id


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=5)


def long_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=1)


def test_old_live_runs_go_with_their_events_checks_and_output(instance: DagsterInstance, stack: Stack) -> None:
    gone = run_of(instance, "quick", LIVE)
    assert list((stack.home / "compute_logs").rglob(f"*{gone}*"))
    pruned = prune_runs(instance, live_before=soon(), others_before=long_ago())
    assert pruned.runs == 1
    assert pruned.events >= 20
    assert instance.get_run_by_id(gone) is None
    assert list(instance.all_logs(gone)) == []
    key = AssetCheckKey(AssetKey("second"), "second_is_sound")
    assert instance.event_log_storage.get_asset_check_execution_history(key, limit=10) == []
    assert not list((stack.home / "compute_logs").rglob(f"*{gone}*"))


def test_what_failed_and_what_is_not_live_stays_longer(instance: DagsterInstance) -> None:
    failed = run_of(instance, "failing", LIVE)
    other = run_of(instance, "quick", {})
    assert prune_runs(instance, live_before=soon(), others_before=long_ago()).runs == 0
    assert instance.get_run_by_id(failed) is not None
    assert instance.get_run_by_id(other) is not None
    assert prune_runs(instance, live_before=soon(), others_before=soon()).runs == 2


def test_young_runs_and_runs_at_work_stay(instance: DagsterInstance, stack: Stack) -> None:
    young = run_of(instance, "quick", LIVE)
    assert prune_runs(instance, live_before=long_ago(), others_before=long_ago()).runs == 0
    assert instance.get_run_by_id(young) is not None
    job = defs.get_repository_def().get_job("patient")
    at_work = instance.create_run_for_job(job, status=DagsterRunStatus.STARTED, tags=LIVE).run_id
    prune_runs(instance, live_before=soon(), others_before=soon())
    assert instance.get_run_by_id(at_work) is not None


def test_an_asset_keeps_its_newest_state_when_its_runs_are_pruned(instance: DagsterInstance) -> None:
    run_of(instance, "quick", LIVE)
    prune_runs(instance, live_before=soon(), others_before=soon())
    (record,) = instance.get_asset_records([AssetKey("second")])
    assert record.asset_entry.last_materialization is not None


def test_folders_outside_the_runs_own_are_left_alone(instance: DagsterInstance, stack: Stack, tmp_path: Path) -> None:
    run_of(instance, "quick", LIVE)
    other = stack.home / "compute_logs" / "kept"
    other.mkdir(parents=True, exist_ok=True)
    prune_runs(instance, live_before=soon(), others_before=soon())
    assert other.is_dir()


def test_runs_are_counted_by_hour_and_end_and_failures_tell_why(instance: DagsterInstance) -> None:
    now = datetime.now(UTC)
    for job in ("quick", "quick", "failing"):
        run_of(instance, job, LIVE)
    counted = {(count.job, count.status): count.runs for count in counting.run_counts(instance, soon())}
    assert counted == {("quick", "SUCCESS"): 2, ("failing", "FAILURE"): 1}
    hours = {count.hour for count in counting.run_counts(instance, soon())}
    assert hours <= {moment.replace(minute=0, second=0, microsecond=0) for moment in (now, datetime.now(UTC))}
    (failure,) = counting.failures(instance, soon())
    assert (failure.job, failure.sentence) == ("failing", "ValueError: the part that fails says why")
    assert now - timedelta(seconds=1) <= failure.failed_at <= datetime.now(UTC) + timedelta(seconds=1)
    assert counting.run_counts(instance, now + timedelta(days=1)) == []
    assert counting.failures(instance, now + timedelta(days=1)) == []


def test_a_count_does_not_shrink_when_its_runs_are_pruned(instance: DagsterInstance, database_url: str) -> None:
    run_of(instance, "quick", LIVE)
    run_of(instance, "failing", LIVE)
    with connect(database_url) as conn:
        for prune in (True, False):
            counts, failed = counting.run_counts(instance, soon()), counting.failures(instance, soon())
            dagster_runs.keep(conn, counts, failed, datetime.now(UTC))
            if prune:
                prune_runs(instance, live_before=soon(), others_before=long_ago())
                run_of(instance, "quick", LIVE)
        conn.commit()
    kept = "SELECT job, status, sum(runs)::int FROM dagster_run_counts GROUP BY 1, 2 ORDER BY 1"
    assert select(database_url, kept) == [("failing", "FAILURE", 1), ("quick", "SUCCESS", 1)]
    assert select(database_url, "SELECT job FROM dagster_failures") == [("failing",)]


def test_the_maintenance_job_rolls_up_prunes_and_measures(
    instance: DagsterInstance, database_url: str, kafka_server: str, settings: Callable[..., Settings]
) -> None:
    """As the writer: maintenance needs no more than that."""
    run_of(instance, "failing", LIVE)
    with connect(database_url) as conn:
        roles.create(conn, writer_password="w")
        conn.execute(
            "INSERT INTO outbox (outbox_id, world, topic, message_key, payload, state, due_at, done_at)"
            " VALUES (gen_random_uuid(), 'real', 'signals', 'k', '{}', 'done', now(), now() - interval '2 days')"
        )
    url = make_url(database_url).set(username=roles.WRITER, password="w").render_as_string(hide_password=False)
    services = Services(settings(), Endpoints(database_url=url, kafka_bootstrap_servers=kafka_server))
    try:
        assert live_maintenance.execute_in_process(instance=instance, resources={"services": services}).success
        sampled = dict(select(database_url, "SELECT part, size_bytes FROM storage_samples"))
        assert sampled.keys() == {"postgres", "kafka", "dagster"}
        assert sampled["dagster"] > 0 < sampled["postgres"]
        assert select(database_url, "SELECT count(*) FROM outbox") == [(0,)]
        assert select(database_url, "SELECT count(*) > 5 FROM rollup_progress") == [(True,)]
        assert select(database_url, "SELECT job, runs FROM dagster_run_counts") == [("failing", 1)]
    finally:
        with connect(database_url) as conn:
            conn.execute(f"DROP OWNED BY {roles.WRITER}")
            conn.execute(f"DROP ROLE {roles.WRITER}")
