"""Starting one run from inside another, at once.

Belongs here: that. Does not: deciding when. Sensors look every 5 s at best; an alert should not wait for that.
"""

from __future__ import annotations

from typing import Final

from dagster import AssetExecutionContext, OpExecutionContext
from dagster._core.origin import JobPythonOrigin

from liq_pipeline.launcher.run_launcher import WarmRunLauncher

STARTED_BY_TAG: Final = "liq/started_by_run"


def start_run(context: AssetExecutionContext | OpExecutionContext, job_name: str) -> str | None:
    """Start a run of another job of this code location; its id, or None where only a sensor can start it.

    Only the warm launcher can start a run without a workspace, which a run does not have.
    """
    instance, parent = context.instance, context.run
    launcher = instance.run_launcher
    if not isinstance(launcher, WarmRunLauncher) or not launcher.is_warm() or parent.job_code_origin is None:
        return None
    remote = parent.remote_job_origin
    run = instance.create_run_for_job(
        context.repository_def.get_job(job_name),
        job_code_origin=JobPythonOrigin(job_name, parent.job_code_origin.repository_origin),
        remote_job_origin=None if remote is None else remote.repository_origin.get_job_origin(job_name),
        tags={STARTED_BY_TAG: parent.run_id},
    )
    instance.launch_run(run.run_id, workspace=None)  # type: ignore[arg-type]
    return str(run.run_id)
