"""The run coordinator that dagster.yaml names: live runs start at once, everything else waits in the queue.

Belongs here: which lane a run takes. Does not: limits (dagster.yaml) or how a run is started (run_launcher.py).
The queue costs a live tick up to a polling interval, and a backfill of thousands of runs needs it: so both lanes.
"""

from __future__ import annotations

from dagster._core.run_coordinator.base import SubmitRunContext
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._core.storage.dagster_run import DagsterRun, DagsterRunStatus

LANE_TAG = "liq/lane"
LIVE_LANE = "live"


class LaneRunCoordinator(QueuedRunCoordinator):
    """Runs tagged `liq/lane: live` go straight to the launcher; their sensors keep one of each in flight."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        run = context.dagster_run
        if run.tags.get(LANE_TAG) != LIVE_LANE or run.status != DagsterRunStatus.NOT_STARTED:
            return super().submit_run(context)
        self._instance.launch_run(run.run_id, context.workspace)
        started = self._instance.get_run_by_id(run.run_id)
        if started is None:
            raise RuntimeError(f"run {run.run_id} vanished from Dagster's storage while it was being started")
        return started
