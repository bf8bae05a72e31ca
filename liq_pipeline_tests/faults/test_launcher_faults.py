"""What the warm launcher does when its parts die: nothing hangs for ever and the truth is told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from dagster import DagsterRunStatus
from dagster._core.launcher.base import WorkerStatus

from liq_pipeline.launcher import protocol
from liq_pipeline.launcher.run_launcher import worker_in_tags
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline_tests.launcher_support import REPOSITORY, Stack, running_stack, wait_for


@pytest.fixture(scope="module")
def stack(postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(postgres_server, tmp_path_factory.mktemp("dagster")) as running:
        yield running


@pytest.fixture(autouse=True)
def zygote_is_up(stack: Stack) -> None:
    if stack.zygote is None or stack.zygote.poll() is not None:
        stack.start_zygote()


def worker_pid(stack: Stack, run_id: str) -> int:
    return int(worker_in_tags(stack.run(run_id))["pid"])


def test_a_killed_worker_fails_its_run_at_once_and_says_how_it_ended(stack: Stack) -> None:
    run_id = stack.launch("patient")
    stack.wait_step(run_id)
    os.kill(worker_pid(stack, run_id), signal.SIGKILL)
    stack.wait_status(run_id, DagsterRunStatus.FAILURE, 5)
    assert any("was ended by signal 9 (SIGKILL" in message for message in stack.messages(run_id))


def test_a_worker_that_leaves_without_a_word_fails_its_run(stack: Stack) -> None:
    run_id = stack.launch("leaving")
    stack.wait_status(run_id, DagsterRunStatus.FAILURE, 10)
    assert any("ended with exit code 7 before the run was finished" in m for m in stack.messages(run_id))


def test_a_worker_that_hears_no_interrupt_is_cancelled_within_five_seconds_all_the_same(stack: Stack) -> None:
    run_id = stack.launch("deaf")
    stack.wait_step(run_id)
    started = time.monotonic()
    assert stack.instance.run_launcher.terminate(run_id)
    stack.wait_status(run_id, DagsterRunStatus.CANCELED, 5)
    assert time.monotonic() - started < 5


def test_a_hanging_run_does_not_hold_up_the_next(stack: Stack) -> None:
    hanging = stack.launch("deaf")
    stack.wait_step(hanging)
    other = stack.launch("quick")
    stack.wait_status(other, DagsterRunStatus.SUCCESS, 15)
    assert stack.status(hanging) == DagsterRunStatus.STARTED
    os.kill(worker_pid(stack, hanging), signal.SIGKILL)
    stack.wait_status(hanging, DagsterRunStatus.FAILURE, 5)


def test_a_run_outlives_its_zygote_and_the_next_zygote_can_end_it(stack: Stack) -> None:
    run_id = stack.launch("patient")
    stack.wait_step(run_id)
    stack.kill_zygote()
    assert psutil.pid_exists(worker_pid(stack, run_id))
    stack.start_zygote()
    assert run_id in stack.ask({"do": "ping"})["runs"]
    launcher = stack.instance.run_launcher
    assert launcher.check_run_worker_health(stack.run(run_id)).status == WorkerStatus.RUNNING
    assert launcher.terminate(run_id)
    stack.wait_status(run_id, DagsterRunStatus.CANCELED, 5)


def test_a_worker_that_dies_while_no_zygote_watches_is_reported_by_the_next(stack: Stack) -> None:
    run_id = stack.launch("patient")
    stack.wait_step(run_id)
    stack.kill_zygote()
    os.kill(worker_pid(stack, run_id), signal.SIGKILL)
    stack.start_zygote()
    stack.wait_status(run_id, DagsterRunStatus.FAILURE, 10)


def test_without_a_zygote_health_and_cancelling_go_by_the_process_in_the_tags(stack: Stack) -> None:
    run_id = stack.launch("patient")
    stack.wait_step(run_id)
    stack.kill_zygote()
    launcher = stack.instance.run_launcher
    assert launcher.check_run_worker_health(stack.run(run_id)).status == WorkerStatus.RUNNING
    assert launcher.terminate(run_id)
    stack.wait_status(run_id, DagsterRunStatus.CANCELED, 5)
    assert launcher.check_run_worker_health(stack.run(run_id)).status == WorkerStatus.NOT_FOUND


def test_a_zygote_that_hangs_does_not_start_a_run_that_was_given_up(stack: Stack) -> None:
    assert stack.zygote is not None
    run_id = stack.create_run("quick")
    os.kill(stack.zygote.pid, signal.SIGSTOP)
    try:
        with pytest.raises(protocol.ZygoteFailedError):
            protocol.ask(
                str(stack.socket),
                {"do": "launch", "run_id": run_id, "instance_ref": "", "expires_at": time.time() + 0.2},
                0.5,
            )
    finally:
        os.kill(stack.zygote.pid, signal.SIGCONT)
    assert stack.ask({"do": "ping"})["runs"] == []
    assert stack.status(run_id) == DagsterRunStatus.NOT_STARTED


def test_changed_code_is_picked_up_without_losing_the_socket_or_a_run(
    postgres_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    module = tmp_path / "changing_jobs.py"
    text = (REPOSITORY / "liq_pipeline_tests" / "launcher_jobs.py").read_text()
    module.write_text(text)
    with running_stack(postgres_server, tmp_path, "changing_jobs", tmp_path) as stack:
        pid = stack.ask({"do": "ping"})["pid"]
        patient = stack.launch("patient")
        stack.wait_step(patient)
        module.write_text(text.replace("the part that fails says why", "the new code says why"))

        # Any request makes it look; a busy machine may import for longer than a launcher waits.
        stack.wait_for_zygote()
        failing = stack.launch("failing")
        stack.wait_status(failing, DagsterRunStatus.FAILURE, 20)
        assert "the new code says why" in str(stack.instance.all_logs(failing))
        assert stack.ask({"do": "ping"})["pid"] == pid
        assert "starting afresh" in stack.log.read_text()

        assert stack.status(patient) == DagsterRunStatus.STARTED
        os.kill(worker_pid(stack, patient), signal.SIGKILL)
        stack.wait_status(patient, DagsterRunStatus.FAILURE, 5)
        assert any("signal 9" in message for message in stack.messages(patient))


def test_stopping_the_zygote_ends_its_runs_and_leaves_nothing_behind(
    postgres_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with running_stack(postgres_server, tmp_path) as stack:
        patient, deaf = stack.launch("patient"), stack.launch("deaf")
        for run_id in (patient, deaf):
            stack.wait_step(run_id)
        pids = [worker_pid(stack, run_id) for run_id in (patient, deaf)]
        assert stack.zygote is not None
        stack.zygote.send_signal(signal.SIGTERM)
        assert stack.zygote.wait(15) == 0
        for run_id in (patient, deaf):
            assert stack.run(run_id).is_finished
        for pid in pids:
            assert not psutil.pid_exists(pid)
        assert not stack.socket.exists()


def test_a_run_that_was_deleted_while_it_ran_troubles_nobody(stack: Stack) -> None:
    run_id = stack.launch("patient")
    stack.wait_step(run_id)
    pid = worker_pid(stack, run_id)
    stack.instance.delete_run(run_id)
    os.kill(pid, signal.SIGKILL)
    wait_for("the zygote noticed", lambda: run_id not in stack.ask({"do": "ping"})["runs"], 5)
    again = stack.launch("quick")
    stack.wait_status(again, DagsterRunStatus.SUCCESS, 15)
