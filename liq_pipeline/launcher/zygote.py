"""The zygote: one process with one thread that has imported everything and forks a run worker per request.

Belongs here: importing, forking, watching and ending workers. Does not: what a worker does (worker.py), or any
connection: no engine, Kafka client, gRPC channel, DagsterInstance or thread may exist in this process, because a fork
would share or break it. `python -m liq_pipeline.launcher.zygote --socket PATH` runs it until SIGTERM.

It replaces itself (exec: same pid, same listening socket, same children) when the project's source files change or
its memory grows, and a zygote started after a killed one adopts the workers that are still running: both find them
in the file `<socket>.runs.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil

from liq_pipeline.launcher import processes, protocol
from liq_pipeline.runtime.processes import ProcessIdentity

DEFAULT_MODULE = "liq_pipeline.definitions"
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
CANCEL_GRACE_SECONDS = 2.0
"""From the interrupt to the kill; with the report of the end it stays under 5 s (3 s gave 5.0 at a load of 20)."""
STOP_GRACE_SECONDS = 5.0
CLIENT_TIMEOUT_SECONDS = 2.0
POLL_SECONDS = 0.5
MEMORY_GROWTH_BYTES = 96 << 20
MEMORY_CHECK_SECONDS = 60.0


@dataclass(slots=True)
class Worker:
    """A run's process. A worker of an earlier zygote is not our child: its exit code is unknown."""

    run_id: str
    process: ProcessIdentity
    instance_ref: str
    is_child: bool
    cancelled: bool = False
    kill_at: float | None = None


class Zygote:
    """The loop: answer requests, notice ended workers, end those that were cancelled."""

    def __init__(
        self,
        socket_path: Path,
        listener: socket.socket,
        packages: tuple[str, ...],
        restart: Callable[[int], NoReturn],
    ) -> None:
        """packages: those whose source files are watched. restart: replaces this process, given the listener's fd."""
        self._socket_path = socket_path
        self._runs_path = runs_path(socket_path)
        self._listener = listener
        self._restart = restart
        self._workers: dict[str, Worker] = {}
        self._reporters: set[int] = set()
        self._runs_ended = 0
        self._cpu_seconds = 0.0
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._sources = source_state(packages)
        self._packages = packages
        self._rss_at_start = psutil.Process().memory_info().rss
        self._memory_due = time.monotonic() + MEMORY_CHECK_SECONDS

    # -- life -------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run until SIGTERM or SIGINT; then end all workers and return."""
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._adopt()
        while not self._stopping:
            for key, _ in self._selector.select(POLL_SECONDS):
                if key.fileobj is self._listener:
                    # Before the connection is accepted: it then waits in the backlog and the new image answers it.
                    if source_state(self._packages) != self._sources:
                        self._recycle("the project's source files changed")
                    self._answer_one()
                else:
                    self._drain_wakeups()
            self._reap()
            self._kill_overdue()
            self.look_at_memory(time.monotonic())
        self._end_all()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass

    def _recycle(self, reason: str) -> NoReturn:
        say(f"starting afresh: {reason}")
        self._save()
        # A stop that arrives while the new image imports must wait until it can end the workers.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        self._restart(self._listener.fileno())

    def look_at_memory(self, now: float) -> None:
        """Start afresh if this process has grown; asks the system once a minute. now: monotonic seconds."""
        if now < self._memory_due:
            return
        self._memory_due = now + MEMORY_CHECK_SECONDS
        grown = psutil.Process().memory_info().rss - self._rss_at_start
        if grown > MEMORY_GROWTH_BYTES:
            self._recycle(f"memory grew by {grown >> 20} MB")

    def _end_all(self) -> None:
        self._selector.close()
        self._listener.close()
        for worker in self._workers.values():
            processes.interrupt(worker.process)
        deadline = time.monotonic() + STOP_GRACE_SECONDS
        while self._workers and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.02)
        for worker in self._workers.values():
            processes.kill(worker.process)
        deadline = time.monotonic() + STOP_GRACE_SECONDS
        while (self._workers or self._reporters) and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.02)
        for path in (self._socket_path, self._runs_path):
            path.unlink(missing_ok=True)

    # -- requests ---------------------------------------------------------------------------------------------------

    def _answer_one(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(CLIENT_TIMEOUT_SECONDS)
            try:
                answer = self._answer(protocol.read_message(connection), connection)
            except (OSError, ValueError, KeyError) as error:
                answer = {"error": f"request not understood: {type(error).__name__}: {error}"}
            with contextlib.suppress(OSError):
                connection.sendall(protocol.encode(answer))

    def _answer(self, question: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
        match question["do"]:
            case "launch":
                # Whoever asked has gone another way by then: starting the run now would start it twice.
                if time.time() > float(question["expires_at"]):
                    return {"error": "the request came too late"}
                worker = self._launch(str(question["run_id"]), str(question["instance_ref"]), connection)
                return {"pid": worker.process.pid, "start_time": worker.process.started_at}
            case "terminate":
                return {"was_alive": self._terminate(question)}
            case "health":
                known = self._workers.get(str(question["run_id"]))
                process = known.process if known else process_of(question)
                return {"alive": process is not None and process.is_alive}
            case "ping":
                return {
                    "pid": os.getpid(),
                    "runs": sorted(self._workers),
                    "rss_bytes": psutil.Process().memory_info().rss,
                    "threads": psutil.Process().num_threads(),
                    "runs_ended": self._runs_ended,
                    "cpu_seconds_of_runs_ended": round(self._cpu_seconds, 3),
                }
            case other:
                return {"error": f"a zygote does not know how to {other!r}"}

    def _launch(self, run_id: str, instance_ref: str, connection: socket.socket) -> Worker:
        running = self._workers.get(run_id)
        if running:
            return running

        def work() -> None:
            connection.close()
            from liq_pipeline.launcher.worker import execute_run

            execute_run(run_id, instance_ref)

        pid = self._fork(work)
        # Not ProcessIdentity.of: a worker that ended at once is a zombie until it is reaped, and still ours to report.
        process = ProcessIdentity(pid, psutil.Process(pid).create_time())
        worker = Worker(run_id, process, instance_ref, is_child=True)
        self._workers[run_id] = worker
        self._save()
        return worker

    def _terminate(self, question: dict[str, Any]) -> bool:
        run_id = str(question["run_id"])
        worker = self._workers.get(run_id)
        if worker is None:
            process = process_of(question)
            if process is None or not process.is_alive:
                return False
            worker = Worker(run_id, process, str(question["instance_ref"]), is_child=False)
            self._workers[run_id] = worker
            self._save()
        if not processes.interrupt(worker.process):
            return False
        worker.cancelled = True
        if worker.kill_at is None:
            worker.kill_at = time.monotonic() + CANCEL_GRACE_SECONDS
        return True

    # -- children ---------------------------------------------------------------------------------------------------

    def _fork(self, work: Callable[[], None]) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._selector.close()
            self._listener.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            work()
            code = 0
        except BaseException:  # a forked process must never return into the zygote's loop
            traceback.print_exc()
        finally:
            from liq_pipeline.launcher.worker import leave

            leave(code)

    def _reap(self) -> None:
        ended: dict[int, int] = {}
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended[pid] = status
            if pid not in self._reporters:
                self._runs_ended += 1
                self._cpu_seconds += usage.ru_utime + usage.ru_stime
        self._reporters.difference_update(ended)
        for worker in list(self._workers.values()):
            if worker.process.pid in ended:
                status = ended[worker.process.pid]
                if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
                    self._forget(worker)
                else:
                    self._report(worker, describe_end(status))
            elif not worker.is_child and not worker.process.is_alive:
                self._report(worker, "ended while no zygote was watching")

    def _report(self, worker: Worker, how: str) -> None:
        """Tell Dagster in a process of its own: this one may not hold a connection."""
        self._forget(worker)
        message = f"The run's process (pid {worker.process.pid}) {how}."
        if worker.cancelled:
            message = f"Cancelled: the run's process (pid {worker.process.pid}) {how}."

        def work() -> None:
            from liq_pipeline.launcher.worker import report_end

            report_end(worker.run_id, worker.instance_ref, message, was_cancelled=worker.cancelled)

        self._reporters.add(self._fork(work))

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.kill_at is not None and now >= worker.kill_at:
                processes.kill(worker.process)

    def _forget(self, worker: Worker) -> None:
        self._workers.pop(worker.run_id, None)
        self._save()

    # -- what outlives this image ------------------------------------------------------------------------------------

    def _save(self) -> None:
        rows = [
            {
                "run_id": w.run_id,
                "pid": w.process.pid,
                "start_time": w.process.started_at,
                "instance_ref": w.instance_ref,
                "cancelled": w.cancelled,
            }
            for w in self._workers.values()
        ]
        write_private(self._runs_path, json.dumps(rows))

    def _adopt(self) -> None:
        try:
            rows = json.loads(self._runs_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:
            say(f"{self._runs_path} is damaged; run monitoring will find the runs it named")
            return
        own_children = {child.pid for child in psutil.Process().children()}
        for row in rows:
            process = ProcessIdentity(int(row["pid"]), float(row["start_time"]))
            worker = Worker(row["run_id"], process, row["instance_ref"], is_child=process.pid in own_children)
            worker.cancelled = bool(row["cancelled"])
            if worker.cancelled:
                worker.kill_at = time.monotonic() + CANCEL_GRACE_SECONDS
            self._workers[worker.run_id] = worker
        if self._workers:
            say(f"adopted {len(self._workers)} running worker(s)")


def process_of(question: dict[str, Any]) -> ProcessIdentity | None:
    """The process named by a request, if it names one."""
    if question.get("pid") is None or question.get("start_time") is None:
        return None
    return ProcessIdentity(int(question["pid"]), float(question["start_time"]))


def describe_end(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        hint = ", by hand or for want of memory" if number == signal.SIGKILL else ""
        return f"was ended by signal {number} ({name}{hint})"
    return (
        f"ended with exit code {os.WEXITSTATUS(status)} before the run was finished; its output is in the zygote's log"
    )


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


def runs_path(socket_path: Path) -> Path:
    """Where the running workers are written down."""
    return socket_path.with_name(socket_path.name + ".runs.json")


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner only."""
    fresh = path.with_name(path.name + ".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def listen(socket_path: Path) -> socket.socket:
    """Bind the socket with mode 0600; RuntimeError if another zygote answers there."""
    try:
        other = protocol.ask(str(socket_path), {"do": "ping"}, CLIENT_TIMEOUT_SECONDS)
        raise RuntimeError(f"a zygote (pid {other['pid']}) already serves {socket_path}")
    except protocol.ZygoteUnreachableError:
        socket_path.unlink(missing_ok=True)
    except protocol.ZygoteFailedError as error:
        raise RuntimeError(f"something that is no zygote serves {socket_path}: {error}") from error
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(socket_path))
    except OSError as error:
        raise RuntimeError(f"the zygote cannot listen at {socket_path}: {error}") from error
    finally:
        os.umask(mask)
    listener.listen(64)
    return listener


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


def say(text: str) -> None:
    """One line in the log."""
    sys.stderr.write(f"zygote {os.getpid()}: {text}\n")
    sys.stderr.flush()


def main() -> int:
    """Run a zygote, or ping one."""
    parser = argparse.ArgumentParser(description="Forks warm run workers for the Dagster run launcher.")
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("--module", default=DEFAULT_MODULE, help="the module with the Dagster definitions")
    parser.add_argument("--ping", action="store_true", help="ask the zygote at the socket how it is, and exit")
    parser.add_argument("--listen-fd", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ping:
        try:
            print(json.dumps(protocol.ask(str(arguments.socket), {"do": "ping"}, CLIENT_TIMEOUT_SECONDS)))
        except (protocol.ZygoteUnreachableError, protocol.ZygoteFailedError) as error:
            sys.stderr.write(f"{error}\n")
            return 2
        return 0

    for name in THREAD_LIMITS:
        os.environ[name] = "1"

    def restart(fd: int) -> NoReturn:
        os.set_inheritable(fd, True)
        command = [sys.executable, "-m", "liq_pipeline.launcher.zygote", "--socket", str(arguments.socket)]
        command += ["--module", arguments.module, "--listen-fd", str(fd)]
        sys.stderr.flush()
        os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted

    try:
        # Before the slow imports: launchers that come early wait in the backlog and are not sent away.
        if arguments.listen_fd is None:
            listener = listen(arguments.socket)
        else:
            listener = socket.socket(fileno=arguments.listen_fd)
        listener.set_inheritable(False)
        preload(arguments.module)
    except RuntimeError as error:
        say(str(error))
        return 2
    say(f"ready, {psutil.Process().memory_info().rss >> 20} MB, listening at {arguments.socket}")
    packages = ("liq_pipeline", arguments.module.partition(".")[0])
    Zygote(arguments.socket, listener, packages, restart).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
