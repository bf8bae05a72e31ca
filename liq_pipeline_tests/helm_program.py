"""The `helm` that the chart's tests run: the one on the PATH, else built once from its Go module into the cache.

Belongs here: having the program. Does not: tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from filelock import FileLock

from liq_pipeline.runtime.servers.kafka_jars import cache_directory

MODULE: Final = "helm.sh/helm/v3/cmd/helm@v3.22.0"
BUILD_SECONDS: Final = 900


class HelmUnavailableError(Exception):
    """One sentence says why helm cannot be had."""


def helm_program() -> Path:
    """Where helm is. Raises HelmUnavailableError."""
    found = shutil.which("helm")
    if found is not None:
        return Path(found)
    folder = cache_directory() / "go" / MODULE.rpartition("@")[2]
    program = folder / "helm"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if program.exists():
            return program
        go = shutil.which("go")
        if go is None:
            raise HelmUnavailableError("there is neither helm nor go on the PATH: install one of them")
        try:
            done = subprocess.run(
                [go, "install", MODULE],
                env={**os.environ, "GOBIN": str(folder), "GOFLAGS": "-p=2"},
                capture_output=True, text=True, check=False, timeout=BUILD_SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise HelmUnavailableError(f"helm could not be built within {BUILD_SECONDS} s") from None
        if done.returncode != 0:
            raise HelmUnavailableError(f"helm could not be built: {done.stderr.strip().splitlines()[-1:]}")
    return program
