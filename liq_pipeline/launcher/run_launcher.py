"""The run launcher that dagster.yaml names: asks the zygote for a worker, or the code server if there is no zygote.

Belongs here: Dagster's RunLauncher interface. Does not: forking (zygote.py) or queueing (coordinator.py).
It runs inside the daemon and the webserver, which have many threads; it only ever sends messages.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any, Self

from dagster import DagsterInstance, Field, StringSource
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value, serialize_value
from dagster._serdes.config_class import ConfigurableClassData

from liq_pipeline.launcher import processes, protocol
from liq_pipeline.runtime.processes import ProcessIdentity

WORKER_TAG = ".dagster/liq_worker"
"""{"pid", "start_time", "host"} of the run's process; Dagster's UI hides tags that begin so, as it does its own."""

ANSWER_SECONDS = 6.0
"""A zygote answers within milliseconds; after starting afresh it imports for 3 to 4 s first."""
EXPIRY_MARGIN_SECONDS = 1.0
DIRECT_GRACE_SECONDS = 2.0
STATEMENT_TIMEOUT_MS = 60_000
DAEMON_CONNECTIONS = 8
"""At most, beside the one that is kept, per store; the daemon has about as many threads."""


class WarmRunLauncher(DefaultRunLauncher):
    """Starts runs of one code module in warm processes; all else, and all when the zygote is away, the stock way."""

    def __init__(self, socket_path: str, module: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._socket_path = socket_path
        self._module = module
        super().__init__(inst_data=inst_data)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {
            "socket_path": Field(StringSource, description="The zygote's Unix socket."),
            "module": Field(
                StringSource,
                is_required=False,
                default_value="liq_pipeline.definitions",
                description="The module that the zygote has imported; runs of other modules go the stock way.",
            ),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(socket_path=config_value["socket_path"], module=config_value["module"], inst_data=inst_data)

    def register_instance(self, instance: DagsterInstance) -> None:
        """Let the daemon keep its connections to Dagster's storage.

        A daemon opens one per query by default. A live run is some 20 events before its process starts, each with a
        connection, a password exchange and a commit of its own: that alone took longer than the run.
        """
        super().register_instance(instance)
        if not instance.is_ephemeral:
            instance.optimize_for_webserver(STATEMENT_TIMEOUT_MS, pool_recycle=3600, max_overflow=DAEMON_CONNECTIONS)

    # -- starting ---------------------------------------------------------------------------------------------------

    def launch_run(self, context: LaunchRunContext) -> None:
        run = context.dagster_run
        if not self._is_ours(run):
            super().launch_run(context)
            return
        expires_at = time.time() + ANSWER_SECONDS - EXPIRY_MARGIN_SECONDS
        question = {
            "do": "launch",
            "run_id": run.run_id,
            "instance_ref": self._serialized_ref(),
            "expires_at": expires_at,
        }
        try:
            answer = protocol.ask(self._socket_path, question, ANSWER_SECONDS)
        except (protocol.ZygoteUnreachableError, protocol.ZygoteFailedError) as error:
            self._instance.report_engine_event(
                f"Starting this run the slow way, in a cold process: {error}", run, cls=self.__class__
            )
            super().launch_run(context)
            return
        self._instance.add_run_tags(
            run.run_id,
            {
                WORKER_TAG: json.dumps(
                    {
                        "pid": answer["pid"],
                        "start_time": answer["start_time"],
                        "host": socket.gethostname(),
                    }
                )
            },
        )
        self._run_ids.add(run.run_id)

    def is_warm(self) -> bool:
        """Whether the zygote answers now."""
        try:
            protocol.ask(self._socket_path, {"do": "ping"}, EXPIRY_MARGIN_SECONDS)
        except (protocol.ZygoteUnreachableError, protocol.ZygoteFailedError):
            return False
        return True

    def _is_ours(self, run: DagsterRun) -> bool:
        origin = run.job_code_origin
        if origin is None:
            return False
        return getattr(origin.repository_origin.code_pointer, "module", None) == self._module

    def _serialized_ref(self) -> str:
        return serialize_value(self._instance.get_ref())

    # -- ending -----------------------------------------------------------------------------------------------------

    def terminate(self, run_id: str) -> bool:
        if not self.has_instance:
            return False
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if GRPC_INFO_TAG in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        process = process_in_tags(run)
        question = {
            "do": "terminate",
            "run_id": run_id,
            "instance_ref": self._serialized_ref(),
            "pid": process.pid if process else None,
            "start_time": process.started_at if process else None,
        }
        try:
            was_alive = bool(protocol.ask(self._socket_path, question, ANSWER_SECONDS)["was_alive"])
        except (protocol.ZygoteUnreachableError, protocol.ZygoteFailedError) as error:
            if process is None or not is_here(run):
                self._instance.report_engine_event(
                    f"The run could not be ended: {error}, and its tags name no process on this host.",
                    run,
                    EngineEventData(),
                    cls=self.__class__,
                )
                return False
            was_alive = processes.end(process, DIRECT_GRACE_SECONDS)
        if not was_alive or (process is not None and not process.is_alive):
            self._settle(run_id)
        return was_alive

    def _settle(self, run_id: str) -> None:
        """Nobody is left who could say that the run has ended."""
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceled(run, "The run's process is gone.")

    # -- health -----------------------------------------------------------------------------------------------------

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        if GRPC_INFO_TAG in run.tags:
            return self._health_in_code_server(run)
        process = process_in_tags(run)
        question = {
            "do": "health",
            "run_id": run.run_id,
            "pid": process.pid if process else None,
            "start_time": process.started_at if process else None,
        }
        try:
            alive = bool(protocol.ask(self._socket_path, question, ANSWER_SECONDS)["alive"])
        except (protocol.ZygoteUnreachableError, protocol.ZygoteFailedError) as error:
            if process is None or not is_here(run):
                # Failing a run that may well be working would start a second one: its time limit decides instead.
                return CheckRunHealthResult(WorkerStatus.RUNNING, f"not known: {error}")
            alive = process.is_alive
        if alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The run's process is gone.")

    def _health_in_code_server(self, run: DagsterRun) -> CheckRunHealthResult:
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            answer = deserialize_value(
                client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=5),
                CanCancelExecutionResult,
            )
        except Exception as error:
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"not known: {error}")
        if answer.can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The code server no longer has the run's process.")

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        process = process_in_tags(run)
        if process is None:
            return None
        return f"The run's process was pid {process.pid} on {worker_in_tags(run).get('host')}."


def worker_in_tags(run: DagsterRun) -> dict[str, Any]:
    """What the run's tag says about its worker; empty if there is none."""
    found = json.loads(run.tags.get(WORKER_TAG, "{}"))
    return found if isinstance(found, dict) else {}


def process_in_tags(run: DagsterRun) -> ProcessIdentity | None:
    """The worker that the run's tag names."""
    worker = worker_in_tags(run)
    if not worker:
        return None
    return ProcessIdentity(int(worker["pid"]), float(worker["start_time"]))


def is_here(run: DagsterRun) -> bool:
    """Whether the worker ran on this host, so that its pid means something here."""
    return worker_in_tags(run).get("host") == socket.gethostname()
