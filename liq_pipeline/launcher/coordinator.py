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
HEAVY_LANE = "heavy"
HISTORY_PREFIX = "history"
HISTORY_TAGS = {LANE_TAG: HEAVY_LANE, "dagster/max_runtime": str(7 * 86_400)}
"""A year takes minutes to hours: run monitoring's limit for a tick would end it."""


class LaneRunCoordinator(QueuedRunCoordinator):
    """Runs tagged `liq/lane: live` go straight to the launcher; runs of history queue for the heavy lane."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        run = context.dagster_run
        if _is_history(run) and LANE_TAG not in run.tags:
            # A backfill that a person starts in the asset graph has no job of ours that could carry the tags.
            self._instance.add_run_tags(run.run_id, HISTORY_TAGS)
        if run.tags.get(LANE_TAG) != LIVE_LANE or run.status != DagsterRunStatus.NOT_STARTED:
            return super().submit_run(context)
        self._instance.launch_run(run.run_id, context.workspace)
        started = self._instance.get_run_by_id(run.run_id)
        if started is None:
            raise RuntimeError(f"run {run.run_id} vanished from Dagster's storage while it was being started")
        return started


def _is_history(run: DagsterRun) -> bool:
    """Whether the run brings assets under history/ up to date and nothing else."""
    chosen = run.asset_selection
    return bool(chosen) and all(key.path[0] == HISTORY_PREFIX for key in chosen or ())
