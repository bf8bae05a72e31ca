"""What a forked process does: execute one run, or report that a run's process died.

Belongs here: the life of a child between fork and os._exit. Does not: forking (zygote.py).
Everything with a connection, a thread or a lock is opened here, after the fork, and nothing is shared with siblings.
"""

from __future__ import annotations

import os
import sys
import time
from typing import NoReturn

from dagster import DagsterInstance
from dagster._core.events import EngineEventData, JobFailureData, RunFailureReason
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.dagster_run import DagsterRunStatus
from dagster._grpc.impl import core_execute_run
from dagster._serdes import deserialize_value
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts

REPORT_ATTEMPTS = 5
STATEMENT_TIMEOUT_MS = 30_000


def open_instance(serialized_ref: str) -> DagsterInstance:
    """Dagster's instance with one kept connection per storage in place of one connection per query."""
    instance = DagsterInstance.from_ref(deserialize_value(serialized_ref, InstanceRef))
    instance.optimize_for_webserver(statement_timeout=STATEMENT_TIMEOUT_MS, pool_recycle=3600, max_overflow=2)
    return instance


def execute_run(run_id: str, serialized_ref: str) -> None:
    """Execute the run as Dagster's own run worker does. Its failures are events of the run, not exceptions here.

    Raises RuntimeError if the run could not be begun or is not finished in Dagster's storage afterwards (storage went
    away meanwhile): the exit code then tells the zygote to report the run's end.
    """
    with capture_interrupts(), open_instance(serialized_ref) as instance:
        run = instance.get_run_by_id(run_id)
        if run is None:
            raise RuntimeError(f"run {run_id} is not in Dagster's storage")
        if run.job_code_origin is None:
            raise RuntimeError(f"run {run_id} does not say where its job's code is")
        pid = os.getpid()
        instance.report_engine_event(
            f"Started warm process for run (pid: {pid}).", run, EngineEventData.in_process(pid)
        )
        try:
            for _ in core_execute_run(recon_job_from_origin(run.job_code_origin), run, instance, inject_env_vars=False):
                pass
        except BaseException as error:  # core_execute_run wrote it to the event log
            sys.stderr.write(f"run {run_id} ended by {type(error).__name__}: {error}\n")
        after = instance.get_run_by_id(run_id)
        if after is not None and not after.is_finished:
            raise RuntimeError(f"run {run_id} was left in state {after.status.value}")


def report_end(run_id: str, serialized_ref: str, what_happened: str, *, was_cancelled: bool) -> None:
    """Mark a run whose process is gone as failed, or as canceled if that was asked for; leave a finished run alone.

    Storage may be the very thing that is down: tries for a few seconds, after which run monitoring finds the run.
    """
    for attempt in range(1, REPORT_ATTEMPTS + 1):
        try:
            with open_instance(serialized_ref) as instance:
                run = instance.get_run_by_id(run_id)
                if run is None or run.is_finished:
                    return
                if was_cancelled or run.status == DagsterRunStatus.CANCELING:
                    instance.report_run_canceled(run, what_happened)
                else:
                    instance.report_run_failed(
                        run,
                        what_happened,
                        JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION),
                    )
                return
        except Exception as error:
            sys.stderr.write(f"could not report the end of run {run_id} (attempt {attempt}): {error}\n")
            time.sleep(1.0)


def leave(code: int) -> NoReturn:
    """End a forked process: flush, then go without running the parent's exit handlers."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
