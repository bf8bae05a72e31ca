"""Warm and stock side by side: lanes, the queue, and the code server as the fallback when there is no zygote."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import pytest
from dagster import AssetKey, DagsterRunStatus
from dagster._core.launcher.base import WorkerStatus
from dagster._core.remote_origin import RemoteJobOrigin
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._grpc.client import DagsterGrpcClient

from liq_pipeline.launcher.coordinator import HEAVY_LANE, LANE_TAG, LIVE_LANE, LaneRunCoordinator
from liq_pipeline.launcher.run_launcher import WORKER_TAG
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline_tests.launcher_support import JOBS_MODULE, Stack, running_stack, wait_for

LOCATION = "jobs"


class Deployment:
    """A stack with a code server and the workspace that a daemon or webserver has of it."""

    def __init__(self, stack: Stack, workspace: WorkspaceProcessContext) -> None:
        self.stack = stack
        self.workspace = workspace

    def submit(self, job_name: str, *, assets: Iterable[AssetKey] | None = None, **tags: str) -> str:
        """What the sensor daemon and the UI do. assets: the run is of these, as a backfill from the asset graph is."""
        context = self.workspace.create_request_context()
        (repository,) = context.get_code_location(LOCATION).get_repositories().values()
        job = repository.get_full_job(job_name)
        origin: RemoteJobOrigin = job.get_remote_origin()
        recon = self.stack.reconstructable(job_name)
        run = self.stack.instance.create_run_for_job(
            recon.get_definition(),
            tags=tags,
            remote_job_origin=origin,
            job_code_origin=job.get_python_origin(),
            asset_selection=None if assets is None else frozenset(assets),
        )
        with self.stack.variables():
            self.stack.instance.submit_run(run.run_id, context)
        return run.run_id


@pytest.fixture(scope="module")
def deployment(postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with ExitStack() as exits:
        stack = exits.enter_context(running_stack(postgres_server, tmp_path_factory.mktemp("dagster")))
        port = free_port()
        command = [sys.executable, "-m", "dagster", "api", "grpc", "-m", JOBS_MODULE, "-h", "localhost"]
        server = subprocess.Popen(
            [*command, "-p", str(port), "--location-name", LOCATION],
            env=stack.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        exits.callback(lambda: (os.killpg(server.pid, signal.SIGKILL), server.wait()))

        def answers() -> bool:
            assert server.poll() is None
            try:
                return bool(DagsterGrpcClient(port=port, host="localhost").ping("hello"))
            except Exception:
                return False

        wait_for("the code server answers", answers, 60)
        target = GrpcServerTarget(host="localhost", port=port, socket=None, location_name=LOCATION)
        workspace = exits.enter_context(WorkspaceProcessContext(stack.instance, target))
        yield Deployment(stack, workspace)


@pytest.fixture(autouse=True)
def zygote_is_up(deployment: Deployment) -> None:
    stack = deployment.stack
    if stack.zygote is None or stack.zygote.poll() is not None:
        stack.start_zygote()


def test_a_live_run_starts_at_once_and_warm(deployment: Deployment) -> None:
    stack = deployment.stack
    assert isinstance(stack.instance.run_coordinator, LaneRunCoordinator)
    run_id = deployment.submit("quick", **{LANE_TAG: LIVE_LANE})
    stack.wait_status(run_id, DagsterRunStatus.SUCCESS, 20)
    assert WORKER_TAG in stack.run(run_id).tags
    assert GRPC_INFO_TAG not in stack.run(run_id).tags


def test_any_other_run_waits_in_the_queue_and_starts_warm(deployment: Deployment) -> None:
    stack = deployment.stack
    run_id = deployment.submit("quick")
    assert stack.status(run_id) == DagsterRunStatus.QUEUED
    with QueuedRunCoordinatorDaemon(interval_seconds=1) as daemon:
        for error in daemon.run_iteration(deployment.workspace):
            assert error is None
    stack.wait_status(run_id, DagsterRunStatus.SUCCESS, 20)
    assert WORKER_TAG in stack.run(run_id).tags


def test_runs_of_history_alone_take_the_heavy_lane_and_may_last_long(deployment: Deployment) -> None:
    history, live = AssetKey(["history", "hours"]), AssetKey("first")
    lone = deployment.stack.run(deployment.submit("past", assets=[history]))
    mixed = deployment.stack.run(deployment.submit("past", assets=[history, live]))
    assert lone.tags[LANE_TAG] == HEAVY_LANE
    assert int(lone.tags["dagster/max_runtime"]) > 86_400
    assert LANE_TAG not in mixed.tags
    for run in (lone, mixed):
        assert deployment.stack.instance.run_coordinator.cancel_run(run.run_id)


def test_heavy_runs_go_one_after_the_other_and_live_ones_pass_them(deployment: Deployment) -> None:
    stack = deployment.stack
    first = deployment.submit("patient", **{LANE_TAG: "heavy"})
    second = deployment.submit("patient", **{LANE_TAG: "heavy"})
    with QueuedRunCoordinatorDaemon(interval_seconds=1) as daemon:
        for _ in range(2):
            list(daemon.run_iteration(deployment.workspace))
        stack.wait_step(first)
        assert stack.status(second) == DagsterRunStatus.QUEUED
        live = deployment.submit("quick", **{LANE_TAG: LIVE_LANE})
        stack.wait_status(live, DagsterRunStatus.SUCCESS, 20)
        assert stack.status(second) == DagsterRunStatus.QUEUED
    for run_id in (second, first):
        assert stack.instance.run_coordinator.cancel_run(run_id)
        stack.wait_status(run_id, DagsterRunStatus.CANCELED, 5)


def test_without_a_zygote_a_run_starts_the_slow_way_and_says_so(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    stack = deployment.stack
    stack.kill_zygote()
    with caplog.at_level(logging.INFO):
        run_id = deployment.submit("quick", **{LANE_TAG: LIVE_LANE})
    assert GRPC_INFO_TAG in stack.run(run_id).tags
    assert any("Starting this run the slow way" in message for message in stack.messages(run_id))
    stack.wait_status(run_id, DagsterRunStatus.SUCCESS, 60)


def test_a_run_that_started_the_slow_way_is_watched_and_cancelled_all_the_same(deployment: Deployment) -> None:
    stack = deployment.stack
    stack.kill_zygote()
    run_id = deployment.submit("patient", **{LANE_TAG: LIVE_LANE})
    wait_for("the step has started", lambda: "STEP_START" in str(stack.instance.all_logs(run_id)), 60)
    launcher = stack.instance.run_launcher
    assert launcher.check_run_worker_health(stack.run(run_id)).status == WorkerStatus.RUNNING
    assert launcher.terminate(run_id)
    stack.wait_status(run_id, DagsterRunStatus.CANCELED, 30)
