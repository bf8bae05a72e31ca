"""The zygote: one process with one thread that has imported everything and forks a run worker per request.

Belongs here: forking, watching and ending workers. Does not: what is imported (preloading.py), what is known of a
worker (running.py), what one does (worker.py), or any connection: no engine, Kafka client, gRPC channel,
DagsterInstance or thread may exist in this process, because a fork would share or break it.
`python -m liq_pipeline.launcher.zygote --socket PATH` runs it until SIGTERM.

It replaces itself (exec: same pid, same listening socket, same children) when the project's source files change or
its memory grows, and a zygote started after a killed one adopts the workers that are still running: both find them
in the file `<socket>.runs.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil

from liq_pipeline.launcher import preloading, processes, protocol, running
from liq_pipeline.launcher.running import Worker
from liq_pipeline.runtime.processes import ProcessIdentity

DEFAULT_MODULE = "liq_pipeline.definitions"
CANCEL_GRACE_SECONDS = 1.0
"""From the interrupt to the kill. Request and report come on top, 2 s of them at a load of 20 on two cores, and 5 s is
what a person is promised; whoever is killed loses nothing that a transaction had not rolled back anyway."""
STOP_GRACE_SECONDS = 5.0
CLIENT_TIMEOUT_SECONDS = 2.0
POLL_SECONDS = 0.5
MEMORY_GROWTH_BYTES = 96 << 20
MEMORY_CHECK_SECONDS = 60.0


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
        self._runs_path = running.runs_path(socket_path)
        self._listener = listener
        self._restart = restart
        self._workers: dict[str, Worker] = {}
        self._reporters: set[int] = set()
        self._runs_ended = 0
        self._cpu_seconds = 0.0
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._sources = preloading.source_state(packages)
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
            for key, _ in self._selector.select(self._seconds_to_kill()):
                if key.fileobj is self._listener:
                    # Before the connection is accepted: it then waits in the backlog and the new image answers it.
                    if preloading.source_state(self._packages) != self._sources:
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
                process = known.process if known else running.process_of(question)
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
            process = running.process_of(question)
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
                    self._report(worker, running.describe_end(status))
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

    def _seconds_to_kill(self) -> float:
        """How long there is nothing to do of one's own accord."""
        due = [worker.kill_at for worker in self._workers.values() if worker.kill_at is not None]
        return max(0.0, min([POLL_SECONDS, *(at - time.monotonic() for at in due)]))

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.kill_at is not None and now >= worker.kill_at:
                processes.kill(worker.process)
                worker.kill_at = now + POLL_SECONDS  # once more, if it is not gone by then

    def _forget(self, worker: Worker) -> None:
        self._workers.pop(worker.run_id, None)
        self._save()

    # -- what outlives this image ------------------------------------------------------------------------------------

    def _save(self) -> None:
        running.save(self._runs_path, self._workers.values())

    def _adopt(self) -> None:
        try:
            found = running.load(self._runs_path)
        except ValueError:
            say(f"{self._runs_path} is damaged; run monitoring will find the runs it named")
            return
        for worker in found:
            if worker.cancelled:
                worker.kill_at = time.monotonic() + CANCEL_GRACE_SECONDS
            self._workers[worker.run_id] = worker
        if found:
            say(f"adopted {len(found)} running worker(s)")


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

    preloading.limit_threads()

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
        preloading.preload(arguments.module)
    except RuntimeError as error:
        say(str(error))
        return 2
    say(f"ready, {psutil.Process().memory_info().rss >> 20} MB, listening at {arguments.socket}")
    packages = ("liq_pipeline", arguments.module.partition(".")[0])
    Zygote(arguments.socket, listener, packages, restart).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
