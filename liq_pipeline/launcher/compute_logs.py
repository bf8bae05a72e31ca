"""Compute logs without helper processes: a step's stdout and stderr go straight into the files that the UI reads.

Belongs here: capturing. Does not: reading, which stays Dagster's own. The stock manager starts two processes per
stream and step to copy the output to the console as well; on a tick every few seconds that is most of its CPU time.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import Field, StringSource
from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._serdes import ConfigurableClassData
from dagster._utils import ensure_file, touch_file


class DirectComputeLogManager(LocalComputeLogManager):
    """LocalComputeLogManager's files, written directly; a step that printed nothing leaves no file."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"home": Field(StringSource, description="DAGSTER_HOME; the files lie in its compute_logs folder.")}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DirectComputeLogManager:
        return cls(base_dir=str(Path(config_value["home"]) / "compute_logs"), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        paths = [
            Path(self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind]))
            for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR)
        ]
        for path in paths:
            ensure_file(str(path))
        with redirect_to_file(sys.stdout, str(paths[0])), redirect_to_file(sys.stderr, str(paths[1])):
            yield CapturedLogContext(log_key)
        if all(path.stat().st_size == 0 for path in paths):
            for path in paths:
                path.unlink(missing_ok=True)
            _remove_if_empty(paths[0].parent)
        else:
            touch_file(self.complete_artifact_path(log_key))  # type: ignore[no-untyped-call]


def _remove_if_empty(folder: Path) -> None:
    # <run>/compute_logs/<file>: both levels are the run's own, and hold nothing when nothing was printed.
    for path in (folder, folder.parent):
        try:
            path.rmdir()
        except OSError:
            return
