"""What the zygote imports before it forks, so that no run has to.

Belongs here: the modules, the limits to threads, and whether their source has changed since. Does not: forking
(zygote.py).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys

from liq_pipeline.launcher import processes

# What a run would import after the fork: drivers, and what Dagster imports inside functions. Found by comparing
# sys.modules before and after a tick; one that is missing here costs time in each run, nothing else.
WARM_MODULES = (
    "dagster_postgres",
    "psycopg2.extras",
    "psycopg",
    "kafka",
    "numpy.ma",
    "encodings.idna",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "fsspec.implementations.local",
    "upath.implementations.local",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.instance.runs.run_domain",
    "dagster._core.secrets.env_file",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.system_config.composite_descent",
    "dagster._core.utility_ops",
    "dagster._core.workspace.autodiscovery",
    "dagster._utils.test.definitions",
    "liq_pipeline.launcher.run_launcher",
    "liq_pipeline.launcher.coordinator",
    "liq_pipeline.launcher.compute_logs",
    "liq_pipeline.launcher.storage",
)
THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def limit_threads() -> None:
    """One thread per numeric library; before the first of them is imported."""
    for name in THREAD_LIMITS:
        os.environ[name] = "1"


def preload(module_name: str) -> None:
    """Import all that runs need and build every job, so that children find it done; then insist on one thread."""
    import dagster

    for name in WARM_MODULES:
        importlib.import_module(name)
    importlib.import_module("liq_pipeline.launcher.worker")
    module = importlib.import_module(module_name)
    for value in list(vars(module).values()):
        if isinstance(value, dagster.Definitions):
            for job in value.get_repository_def().get_all_jobs():
                job.get_job_snapshot_id()
    threads = processes.thread_names()
    if len(threads) > 1:
        raise RuntimeError(
            f"importing {module_name} started threads ({', '.join(threads)}); a process with threads cannot be forked"
        )
    gc.collect()
    gc.freeze()


def source_state(packages: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """(modification time, size) of each loaded source file of these packages: a change means a fresh import."""
    state = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in packages:
            path = getattr(module, "__file__", None)
            if path:
                with contextlib.suppress(OSError):
                    stat = os.stat(path)
                    state[path] = (stat.st_mtime_ns, stat.st_size)
    return state
