"""The run launcher of a Kubernetes installation: live runs warm, in the pod that the daemon shares with the zygote;
heavy runs as Kubernetes jobs of their own, on whatever machine has room.

Belongs here: which of the two a run goes to. Does not: how either works (run_launcher.py; the package dagster_k8s), or
lanes and limits (coordinator.py, dagster.yaml). The chart under deploy/ names this class; `liq up` never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from dagster import Field, StringSource
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext
from dagster._core.storage.dagster_run import DagsterRun
from dagster._serdes.config_class import ConfigurableClassData
from dagster_k8s.launcher import K8sRunLauncher

from liq_pipeline.launcher.coordinator import HEAVY_LANE, LANE_TAG
from liq_pipeline.launcher.run_launcher import WarmRunLauncher


class LaneRunLauncher(WarmRunLauncher):
    """Runs tagged `liq/lane: heavy` become Kubernetes jobs, all others start as WarmRunLauncher starts them.

    kubernetes: the configuration of dagster_k8s.K8sRunLauncher. The cluster is first asked for anything when a heavy
    run starts: a process that only reads runs needs no access to it.
    """

    def __init__(
        self,
        socket_path: str,
        module: str,
        kubernetes: Mapping[str, Any],
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        self._kubernetes = dict(kubernetes)
        super().__init__(socket_path=socket_path, module=module, inst_data=inst_data)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {
            **super().config_type(),
            "socket_path": Field(StringSource, description="The zygote's Unix socket."),
            "kubernetes": Field(K8sRunLauncher.config_type(), description="As for dagster_k8s.K8sRunLauncher."),  # type: ignore[no-untyped-call]
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    @cached_property
    def _heavy(self) -> K8sRunLauncher:
        launcher = K8sRunLauncher(**self._kubernetes)
        launcher.register_instance(self._instance)
        return launcher

    def launch_run(self, context: LaunchRunContext) -> None:
        if _is_heavy(context.dagster_run):
            self._heavy.launch_run(context)
        else:
            super().launch_run(context)

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is not None and _is_heavy(run):
            return bool(self._heavy.terminate(run_id))  # type: ignore[no-untyped-call]
        return super().terminate(run_id)

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        if _is_heavy(run):
            health: CheckRunHealthResult = self._heavy.check_run_worker_health(run)
            return health
        return super().check_run_worker_health(run)

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        if _is_heavy(run):
            return self._heavy.get_run_worker_debug_info(run, include_container_logs)
        return super().get_run_worker_debug_info(run, include_container_logs)


def _is_heavy(run: DagsterRun) -> bool:
    return run.tags.get(LANE_TAG) == HEAVY_LANE
