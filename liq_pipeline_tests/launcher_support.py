"""A zygote and a Dagster instance for tests: the project's own dagster.yaml on the shared PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import yaml
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.instance.ref import InstanceRef

from liq_pipeline.launcher import protocol
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres

REPOSITORY = Path(__file__).resolve().parents[1]
JOBS_MODULE = "liq_pipeline_tests.launcher_jobs"


def wait_for(what: str, condition: Callable[[], Any], timeout_seconds: float) -> Any:
    """The condition's first true value; an AssertionError that says what did not come true."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {what}"
        time.sleep(0.02)


class Stack:
    """DAGSTER_HOME, storage and a zygote; what a supervisor would keep running."""

    def __init__(self, home: Path, dagster_url: str, module: str, module_folder: Path) -> None:
        self.home = home
        self.module = module
        self.socket = home / "zygote.sock"
        self.log = home / "zygote.log"
        self.environment = {
            **os.environ,
            "DAGSTER_HOME": str(home),
            "LIQ_DAGSTER_PG_URL": dagster_url.replace("postgresql://", "postgresql+psycopg2://"),
            "LIQ_ZYGOTE_SOCKET": str(self.socket),
            "PYTHONPATH": f"{module_folder}{os.pathsep}{REPOSITORY}",
        }
        configuration = yaml.safe_load((REPOSITORY / "dagster_home" / "dagster.yaml").read_text())
        configuration["run_launcher"]["config"]["module"] = module
        (home / "dagster.yaml").write_text(yaml.safe_dump(configuration))
        self._repository = ReconstructableRepository(ModuleCodePointer(module, "defs", str(module_folder)))
        with self.variables():
            self.instance = DagsterInstance.from_ref(InstanceRef.from_dir(str(home)))
            # Dagster builds these when they are first used, and reads the variables only then.
            assert self.instance.run_launcher
            assert self.instance.run_coordinator
            assert self.instance.compute_log_manager
        self.zygote: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def variables(self) -> Iterator[None]:
        """The environment that dagster.yaml refers to."""
        names = ("DAGSTER_HOME", "LIQ_DAGSTER_PG_URL", "LIQ_ZYGOTE_SOCKET")
        before = {name: os.environ.get(name) for name in names}
        os.environ.update({name: self.environment[name] for name in names})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def start_zygote(self) -> int:
        """Start one and wait until it answers; its pid."""
        command = [sys.executable, "-m", "liq_pipeline.launcher.zygote"]
        command += ["--socket", str(self.socket), "--module", self.module]
        with self.log.open("ab") as log:
            self.zygote = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        return int(self.wait_for_zygote()["pid"])

    def wait_for_zygote(self) -> dict[str, Any]:
        def answer() -> dict[str, Any] | None:
            assert self.zygote is not None
            assert self.zygote.poll() is None, f"the zygote ended: {self.log.read_text()[-2000:]}"
            with contextlib.suppress(protocol.ZygoteUnreachableError, protocol.ZygoteFailedError):
                return self.ask({"do": "ping"})
            return None

        found: dict[str, Any] = wait_for("the zygote answers", answer, 30)
        return found

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        return protocol.ask(str(self.socket), question, 20)

    def kill_zygote(self) -> None:
        assert self.zygote is not None
        self.zygote.kill()
        self.zygote.wait()

    def close(self) -> None:
        if self.zygote is not None and self.zygote.poll() is None:
            self.zygote.terminate()
            self.zygote.wait(20)
        self.instance.dispose()

    # -- runs -------------------------------------------------------------------------------------------------------

    def reconstructable(self, job_name: str) -> ReconstructableJob:
        return self._repository.get_reconstructable_job(job_name)

    def create_run(self, job_name: str, **tags: str) -> str:
        job = self.reconstructable(job_name)
        run = self.instance.create_run_for_job(job.get_definition(), job_code_origin=job.get_python_origin(), tags=tags)
        return run.run_id

    def launch(self, job_name: str) -> str:
        """Create and launch, as the coordinator does for a live run."""
        run_id = self.create_run(job_name)
        self.instance.launch_run(run_id, workspace=None)  # type: ignore[arg-type]
        return run_id

    def run(self, run_id: str) -> DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def status(self, run_id: str) -> DagsterRunStatus:
        return self.run(run_id).status

    def wait_status(self, run_id: str, status: DagsterRunStatus, timeout_seconds: float) -> None:
        wait_for(
            f"run {run_id} is {status.value} ({self.log.read_text()[-1500:]})",
            lambda: self.status(run_id) == status,
            timeout_seconds,
        )

    def wait_step(self, run_id: str) -> None:
        """Wait until the run is inside its step."""
        wait_for(
            "the step has started",
            lambda: self.instance.all_logs(run_id, of_type=DagsterEventType.STEP_START),
            20,
        )

    def messages(self, run_id: str) -> list[str]:
        return [entry.message for entry in self.instance.all_logs(run_id)]


@contextlib.contextmanager
def running_stack(
    server: EmbeddedPostgres, home: Path, module: str = JOBS_MODULE, module_folder: Path = REPOSITORY
) -> Iterator[Stack]:
    """A stack with a zygote on a database of its own."""
    name = f"dagster_{uuid.uuid4().hex[:12]}"
    stack = Stack(home, server.ensure_database(name), module, module_folder)
    try:
        stack.start_zygote()
        yield stack
    finally:
        stack.close()
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
