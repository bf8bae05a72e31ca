"""What Dagster's users type first, in a checkout with nothing running and no variable set."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from liq_pipeline.runtime.processes import free_port
from liq_pipeline_tests.conftest import REPOSITORY

pytestmark = pytest.mark.xdist_group("dagster-tools")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a clone holds, as far as Dagster's tools look at it."""
    folder = tmp_path_factory.mktemp("fresh") / "liq_pipeline"
    folder.mkdir()
    for name in ("liq_pipeline", "sql", "dagster_home"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "workspace.yaml"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture
def environment(checkout: Path, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIQ_", "DAGSTER_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    # No home of this machine: one that runs for real would be found by LIQ_HOME's default.
    return {**kept, "PATH": path, "PYTHONPATH": str(checkout), "HOME": str(tmp_path), "LIQ_HOME": str(tmp_path / "no")}


def _run(checkout: Path, environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_dagster_definitions_validate_succeeds(checkout: Path, environment: dict[str, str]) -> None:
    done = _run(checkout, environment, "dagster", "definitions", "validate")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_dg_check_defs_succeeds(checkout: Path, environment: dict[str, str]) -> None:
    done = _run(checkout, environment, "dg", "check", "defs")
    assert done.returncode == 0, done.stderr + done.stdout


def test_dg_list_defs_lists_the_assets(checkout: Path, environment: dict[str, str]) -> None:
    done = _run(checkout, {**environment, "COLUMNS": "200"}, "dg", "list", "defs")
    assert done.returncode == 0, done.stderr + done.stdout
    for name in ("live/liquidation_risk", "live_tick", "tick_when_due"):
        assert name in done.stdout, done.stdout


def test_dagster_dev_without_an_installation_says_what_to_do(checkout: Path, environment: dict[str, str]) -> None:
    with subprocess.Popen(
        ["dagster", "dev", "-p", str(free_port())],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        said: list[str] = []
        try:
            for line in process.stdout:
                said.append(line)
                if "make run" in line:
                    break
        finally:
            _end(process)
    assert "This shows the definitions only, nothing can run" in said[-1], "".join(said)
    assert "liq env" in said[-1]


def _end(process: subprocess.Popen[str]) -> None:
    """Dagster's own program, told to end while it still starts, once went on for as long as anyone waited."""
    process.terminate()
    try:
        process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)


def test_liq_env_without_an_installation_is_one_sentence(checkout: Path, environment: dict[str, str]) -> None:
    done = _run(checkout, environment, sys.executable, "-m", "liq_pipeline.cli", "env")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "start `liq up`" in done.stderr
    assert "Traceback" not in done.stderr
