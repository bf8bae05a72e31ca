"""The warm launcher keeps Dagster's contract: runs, events, logs, cancelling and health as with the stock one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from dagster import AssetKey, DagsterEventType, DagsterRunStatus
from dagster._core.launcher.base import WorkerStatus
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.dagster_run import RunsFilter

from liq_pipeline.defs.live.handover import STARTED_BY_TAG
from liq_pipeline.launcher import protocol
from liq_pipeline.launcher.run_launcher import WarmRunLauncher, worker_in_tags
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline_tests.launcher_support import Stack, running_stack, wait_for


@pytest.fixture(scope="module")
def stack(postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(postgres_server, tmp_path_factory.mktemp("dagster")) as running:
        yield running


def test_the_configured_launcher_is_the_warm_one(stack: Stack) -> None:
    assert isinstance(stack.instance.run_launcher, WarmRunLauncher)


def test_a_run_succeeds_with_the_usual_events(stack: Stack) -> None:
    run_id = stack.launch("quick")
    stack.wait_status(run_id, DagsterRunStatus.SUCCESS, 20)

    kinds = [e.dagster_event.event_type for e in stack.instance.all_logs(run_id) if e.dagster_event]
    for expected in (
        DagsterEventType.RUN_STARTING,
        DagsterEventType.RUN_START,
        DagsterEventType.STEP_START,
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_CHECK_EVALUATION,
        DagsterEventType.STEP_SUCCESS,
        DagsterEventType.RUN_SUCCESS,
    ):
        assert expected in kinds
    pid = worker_in_tags(stack.run(run_id))["pid"]
    assert any(f"Started warm process for run (pid: {pid})" in message for message in stack.messages(run_id))


def test_each_run_has_a_process_and_a_session_of_its_own(stack: Stack) -> None:
    run_id = stack.launch("quick")
    stack.wait_status(run_id, DagsterRunStatus.SUCCESS, 20)
    event = stack.instance.get_latest_materialization_event(AssetKey("first"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    zygote = stack.ask({"do": "ping"})["pid"]
    worker = worker_in_tags(stack.run(run_id))
    assert metadata["pid"].value == worker["pid"]
    assert metadata["session"].value == metadata["pid"].value
    assert metadata["parent"].value == zygote
    assert metadata["pid"].value != zygote
    assert worker["start_time"] == pytest.approx(time.time(), abs=60)
    assert worker["host"]


def test_what_a_step_prints_can_be_read_in_the_ui(stack: Stack) -> None:
    run_id = stack.launch("quick")
    stack.wait_status(run_id, DagsterRunStatus.SUCCESS, 20)
    manager = stack.instance.compute_log_manager
    texts = {}
    for entry in stack.instance.all_logs(run_id, of_type=DagsterEventType.LOGS_CAPTURED):
        assert entry.dagster_event is not None
        key = entry.dagster_event.logs_captured_data.file_key
        for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR):
            data, _ = manager.get_log_data_for_type([run_id, "compute_logs", key], kind, 0, None)  # type: ignore[attr-defined]
            texts[kind] = texts.get(kind, b"") + (data or b"")
    assert b"a word on stdout" in texts[ComputeIOType.STDOUT]
    assert b"a word on stderr" in texts[ComputeIOType.STDERR]


def test_a_run_can_start_another_at_once(stack: Stack) -> None:
    first = stack.launch("handing_on")
    stack.wait_status(first, DagsterRunStatus.SUCCESS, 20)
    second = wait_for(
        "the other run is there", lambda: stack.instance.get_run_ids(RunsFilter(tags={STARTED_BY_TAG: first})), 10
    )[0]
    stack.wait_status(second, DagsterRunStatus.SUCCESS, 20)
    assert stack.run(second).job_name == "quick"


def test_a_failing_step_fails_the_run_with_its_reason(stack: Stack) -> None:
    run_id = stack.launch("failing")
    stack.wait_status(run_id, DagsterRunStatus.FAILURE, 20)
    failures = stack.instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE)
    assert failures[0].dagster_event is not None
    error = failures[0].dagster_event.step_failure_data.error
    assert error is not None
    assert error.cause is not None
    assert "the part that fails says why" in error.cause.message


def test_cancelling_ends_the_run_within_five_seconds(stack: Stack) -> None:
    run_id = stack.launch("patient")
    stack.wait_step(run_id)
    started = time.monotonic()
    assert stack.instance.run_launcher.terminate(run_id)
    stack.wait_status(run_id, DagsterRunStatus.CANCELED, 5)
    assert time.monotonic() - started < 5


def test_cancelling_a_finished_run_says_there_was_nothing_to_end(stack: Stack) -> None:
    run_id = stack.launch("quick")
    stack.wait_status(run_id, DagsterRunStatus.SUCCESS, 20)
    assert not stack.instance.run_launcher.terminate(run_id)
    assert stack.status(run_id) == DagsterRunStatus.SUCCESS


def test_health_is_that_of_the_process(stack: Stack) -> None:
    run_id = stack.launch("patient")
    stack.wait_step(run_id)
    launcher = stack.instance.run_launcher
    assert launcher.supports_check_run_worker_health
    assert launcher.check_run_worker_health(stack.run(run_id)).status == WorkerStatus.RUNNING
    launcher.terminate(run_id)
    stack.wait_status(run_id, DagsterRunStatus.CANCELED, 5)
    wait_for("the worker is gone", lambda: run_id not in stack.ask({"do": "ping"})["runs"], 5)
    assert launcher.check_run_worker_health(stack.run(run_id)).status == WorkerStatus.NOT_FOUND


def test_a_run_asked_for_twice_is_started_once(stack: Stack) -> None:
    run_id = stack.launch("patient")
    pid = int(worker_in_tags(stack.run(run_id))["pid"])
    again = stack.ask({"do": "launch", "run_id": run_id, "instance_ref": "", "expires_at": time.time() + 5})
    assert again["pid"] == pid
    stack.wait_step(run_id)
    stack.instance.run_launcher.terminate(run_id)
    stack.wait_status(run_id, DagsterRunStatus.CANCELED, 5)


def test_a_request_that_was_given_up_starts_nothing(stack: Stack) -> None:
    with pytest.raises(protocol.ZygoteFailedError, match="too late"):
        stack.ask({"do": "launch", "run_id": "late", "instance_ref": "", "expires_at": time.time() - 1})
    assert "late" not in stack.ask({"do": "ping"})["runs"]


@pytest.mark.parametrize("question", [{"do": "sing"}, {}, {"do": "launch"}])
def test_a_request_that_makes_no_sense_is_answered_so(stack: Stack, question: dict[str, str]) -> None:
    with pytest.raises(protocol.ZygoteFailedError):
        stack.ask(question)
    assert stack.ask({"do": "ping"})["pid"]


def test_the_zygote_has_one_thread_and_its_socket_one_reader(stack: Stack) -> None:
    assert stack.ask({"do": "ping"})["threads"] == 1
    assert stat.S_IMODE(os.stat(stack.socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(stack.socket.with_name("zygote.sock.runs.json")).st_mode) == 0o600


def test_runs_leave_nothing_behind_in_the_zygote(stack: Stack) -> None:
    """The short version: a soak of an hour (bench soak) holds it to some 500 runs."""
    assert stack.zygote is not None
    zygote = psutil.Process(stack.zygote.pid)

    def run_some(count: int) -> tuple[int, int]:
        runs = [stack.launch("quick") for _ in range(count)]
        for run_id in runs:
            stack.wait_status(run_id, DagsterRunStatus.SUCCESS, 60)
        wait_for("all workers are reaped", lambda: stack.ask({"do": "ping"})["runs"] == [], 10)
        return zygote.memory_info().rss, zygote.num_fds()

    settled, open_files = run_some(4)
    after, open_files_after = run_some(16)
    assert after - settled < 2 << 20
    assert open_files_after < open_files + 4, "one more per run would be sixteen"
    wait_for("no zombie is left", lambda: zygote.children() == [], 10)


def test_a_second_zygote_on_the_same_socket_is_refused(stack: Stack, tmp_path: Path) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "liq_pipeline.launcher.zygote", "--socket", str(stack.socket)],
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 2
    assert "already serves" in second.stderr
    assert stack.ask({"do": "ping"})["pid"]
