"""Starts the parts, starts again what dies, stops them in order.

Belongs here: policies over services (order, restarts, what is said). Does not: which parts there are (parts.py), or
what `liq up` prints and decides (up.py).
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.liveness import is_not_stopped
from liq_pipeline.runtime.logs import rotate
from liq_pipeline.runtime.processes import ProcessIdentity, end, last_lines
from liq_pipeline.runtime.service import Service, describe_exit

POLL_SECONDS: Final = 0.25
ROTATE_SECONDS: Final = 30.0
STAMP_SECONDS: Final = 5.0
LEAST_ROOM_BYTES: Final = 64 * 1024 * 1024
"""With less on the home's disk, parts that cannot start are held up by it and by nothing of their own."""
PROBE_EVERY_SECONDS: Final = 5.0
HANG_SECONDS: Final = 60.0
"""A part that answers nothing for this long hangs. Ten times what a loaded machine of two cores was seen to need."""
HANG_STOP_SECONDS: Final = 5.0
"""How long a part that hangs is asked to end before it is killed: it has had its time."""

# Stop order, lowest first.
PLAYER_RANK: Final = 10
SENSORS_RANK: Final = 20
RUNS_RANK: Final = 30
LANDING_RANK: Final = 40
DAGSTER_RANK: Final = 50
KAFKA_RANK: Final = 60
POSTGRES_RANK: Final = 70


@dataclass(frozen=True)
class RestartPolicy:
    """At most `limit` restarts within `window_seconds`, the pause doubling from first_pause to longest_pause; after
    that one try every `patience_seconds`: an always-on monitor never gives up for good, but says so once."""

    limit: int = 5
    window_seconds: float = 600
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 30
    patience_seconds: float = 300

    def pause_seconds(self, recent_deaths: int) -> float:
        """How long to wait before the restart that follows the recent_deaths-th death (1, 2, ...) in the window."""
        if recent_deaths > self.limit:
            return self.patience_seconds
        return float(min(self.longest_pause_seconds, self.first_pause_seconds * 2 ** (recent_deaths - 1)))


@dataclass
class Part:
    """One supervised service.

    rank: stop order, lowest first; parts of one rank stop together. finishes: exit code 0 is its proper end
    (a player at the end of its recording), not a death.
    """

    name: str
    service: Service
    rank: int
    finishes: bool = False
    policy: RestartPolicy = RestartPolicy()
    stop_seconds: float = 15
    probe: Callable[[], bool] | None = None
    """Whether it moves (liveness.py); None: being alive is enough."""
    hang_seconds: float = HANG_SECONDS
    """It is stopped and started again when it has not moved for this long."""
    silent_since: float | None = None
    """time.time() of the first probe without an answer since the last with one."""
    finished: threading.Event = field(default_factory=threading.Event)
    deaths: deque[float] = field(default_factory=deque)
    restarts: int = 0
    is_hopeless: bool = False
    """It died more often than its policy allows; it is still tried now and then."""
    was_hanging: bool = False
    """We have ended it ourselves: its exit tells nothing."""


class Supervisor:
    """Parts of one home. say: called with one sentence, from any thread."""

    def __init__(self, home: Home, say: Callable[[str], None]) -> None:
        self._home = home
        self._say = say
        self._parts: dict[str, Part] = {}
        self._watchers: dict[str, threading.Thread] = {}
        self._starts: dict[str, Future[None]] = {}
        self._noting = threading.Lock()
        self._is_note_due = False
        self._stopping = threading.Event()
        self._rotator: threading.Thread | None = None
        self._stamper: threading.Thread | None = None

    @property
    def parts(self) -> list[Part]:
        return list(self._parts.values())

    @property
    def is_stopping(self) -> bool:
        """Whether stop() was called."""
        return self._stopping.is_set()

    def part(self, name: str) -> Part:
        return self._parts[name]

    def start(self, parts: Iterable[Part]) -> None:
        """Start the parts together, wait until all are up, then watch them. Does nothing once stop() was called.

        LiqError of the first that does not come up (the others are left as they are: call stop()).
        """
        new = list(parts)
        if self._stopping.is_set():
            return
        for part in new:
            self._parts[part.name] = part
        if self._stamper is None:
            self._home.stamp()
            self._stamper = threading.Thread(target=self._stamp, name="stamp", daemon=True)
            self._stamper.start()
        pool = ThreadPoolExecutor(max_workers=max(1, len(new)), thread_name_prefix="start")
        starts = {part.name: pool.submit(self._start_one, part) for part in new}
        self._starts.update(starts)
        pool.shutdown(wait=False)
        for future in as_completed(starts.values()):
            future.result()
        if self._rotator is None:
            self._rotator = threading.Thread(target=self._rotate_logs, name="rotate", daemon=True)
            self._rotator.start()

    def _start_one(self, part: Part) -> None:
        if self._stopping.is_set():
            return
        part.service.start()
        self._note()
        if self._stopping.is_set():
            part.service.stop(part.stop_seconds)
            return
        watcher = threading.Thread(target=self._watch, args=(part,), name=f"watch-{part.name}", daemon=True)
        self._watchers[part.name] = watcher
        watcher.start()

    def stop(self) -> None:
        """Stop everything, rank by rank, and end whatever the parts have left behind. Harmless to repeat."""
        self._stopping.set()
        for rank in sorted({part.rank for part in self._parts.values()}):
            together = [part for part in self._parts.values() if part.rank == rank]
            with ThreadPoolExecutor(max_workers=len(together)) as pool:
                list(pool.map(self._stop_one, together))
            if rank == RUNS_RANK:
                self._end_strays(10)
        self._end_strays(5)
        for watcher in self._watchers.values():
            watcher.join(timeout=10)
        if self._stamper is not None:
            self._stamper.join(timeout=10)
            self._home.stamp_path.unlink(missing_ok=True)
        self._note()

    def _stop_one(self, part: Part) -> None:
        # Another thread may be in the middle of its first start, or of a restart: stop whatever that one starts until
        # it has seen that all is stopping.
        while True:
            start, watcher = self._starts.get(part.name), self._watchers.get(part.name)
            is_settled = (start is None or start.done()) and (watcher is None or not watcher.is_alive())
            part.service.stop(part.stop_seconds)
            if is_settled:
                return
            time.sleep(0.1)

    def _end_strays(self, wait_seconds: float) -> None:
        """Run workers and other descendants that left their parents' sessions."""
        known = [part.service.identity for part in self._parts.values()]
        _end_together(self._home.strays(known=[item.pid for item in known if item]), wait_seconds)

    # -- watching ----------------------------------------------------------------------------------------------

    def troubles(self) -> list[str]:
        """What is wrong with the parts right now, one sentence each."""
        found = []
        for part in self.parts:
            if part.finished.is_set():
                continue
            if not part.service.is_running:
                found.append(f"{part.name} does not run and is started again")
            elif part.silent_since is not None:
                found.append(f"{part.name} has not answered for {time.time() - part.silent_since:.0f} s")
            elif part.deaths and time.monotonic() - part.deaths[-1] < part.policy.window_seconds:
                found.append(f"{part.name} was started again {time.monotonic() - part.deaths[-1]:.0f} s ago")
        return found

    def _watch(self, part: Part) -> None:
        probe_at = time.monotonic() + PROBE_EVERY_SECONDS
        while not self._stopping.wait(POLL_SECONDS):
            if part.service.is_running:
                if time.monotonic() >= probe_at:
                    self._look_whether_it_moves(part)
                    probe_at = time.monotonic() + PROBE_EVERY_SECONDS
                continue
            part.silent_since = None
            code = part.service.exit_code
            if part.finishes and code == 0:
                part.finished.set()
                self._note()
                return
            if not self._revive(part, code):
                return

    def _look_whether_it_moves(self, part: Part) -> None:
        """Stop a part that has not moved for too long; the watch then starts it again like one that died."""
        try:
            moves = is_not_stopped(part.service.identity) and (part.probe is None or part.probe())
        except Exception as error:  # a question that stumbles says nothing of the part, and must not end the watch
            self._say(f"{part.name} could not be asked whether it moves: {type(error).__name__}: {error}")
            return
        if moves:
            part.silent_since = None
            return
        now = time.time()
        part.silent_since = now if part.silent_since is None else part.silent_since
        if now - part.silent_since < part.hang_seconds or self._stopping.is_set():
            return
        self._say(f"{part.name} has not answered for {now - part.silent_since:.0f} s: it hangs, and is ended")
        part.silent_since, part.was_hanging = None, True
        try:
            part.service.stop(HANG_STOP_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            # A process that waits for a dead disk does not even hear SIGKILL: asked again after the next bound.
            self._say(f"{part.name} cannot be ended: {error}")

    def _revive(self, part: Part, code: int | None) -> bool:
        """Start a dead part again after its pause; False once everything is stopping."""
        while not self._stopping.is_set():
            now = time.monotonic()
            part.deaths.append(now)
            while part.deaths and now - part.deaths[0] > part.policy.window_seconds:
                part.deaths.popleft()
            pause = part.policy.pause_seconds(len(part.deaths))
            if self._is_disk_full():
                # Six failed starts take a broker 16 s, and room made after 20 s was then used after five minutes.
                pause = min(pause, part.policy.longest_pause_seconds)
            self._say_death(part, code, pause)
            if self._stopping.wait(pause):
                return False
            try:
                part.service.start()
            # A full disk refuses the very files that a start writes: that must not end the watch.
            except (LiqError, OSError) as error:
                self._say(str(error) if isinstance(error, LiqError) else f"{part.name} cannot be started: {error}")
                code = part.service.exit_code
                continue
            part.restarts += 1
            self._note()
            return True
        return False

    def _is_disk_full(self) -> bool:
        try:
            return shutil.disk_usage(self._home.path).free < LEAST_ROOM_BYTES
        except OSError:
            return False  # the disk itself is away: unknown

    def _say_death(self, part: Part, code: int | None, pause: float) -> None:
        ended = "was ended" if part.was_hanging else f"ended {describe_exit(code)}"
        part.was_hanging = False
        if pause <= part.policy.longest_pause_seconds:
            part.is_hopeless = False
            self._say(f"{part.name} {ended}; it is started again in {pause:g} s")
        elif not part.is_hopeless:
            part.is_hopeless = True
            self._say(
                f"{part.name} keeps dying ({len(part.deaths)} times within "
                f"{part.policy.window_seconds / 60:g} minutes, last {describe_exit(code)}: "
                f"{last_lines(part.service.log_path, 1)}), so it is only tried every "
                f"{part.policy.patience_seconds / 60:g} minutes from now on: see {part.service.log_path}"
            )

    def _stamp(self) -> None:
        """Say every few seconds that dead parts would be started again: ticks look at it and tell the outside."""
        while not self._stopping.wait(STAMP_SECONDS):
            idle = [name for name, watcher in self._watchers.items() if not watcher.is_alive()]
            with suppress(OSError):  # a full disk; said by whatever fails for it
                if all(self._parts[name].finished.is_set() for name in idle):
                    self._home.stamp()
            if self._is_note_due:
                self._note()

    def _note(self) -> None:
        """Write down which processes are ours. On a full disk later: it must not end the thread that watches a part."""
        with self._noting:
            running = {part.name: part.service.identity for part in self._parts.values()}
            try:
                self._home.note_processes({name: item for name, item in running.items() if item is not None})
            except OSError as error:
                if not self._is_note_due:
                    self._say(f"which processes run cannot be written down, and is tried again: {error}")
                self._is_note_due = True
            else:
                self._is_note_due = False

    def _rotate_logs(self) -> None:
        while not self._stopping.wait(ROTATE_SECONDS):
            for part in self.parts:
                with suppress(OSError):  # tried again in ROTATE_SECONDS
                    rotate(part.service.log_path)


def stop_orphans(home: Home, say: Callable[[str], None]) -> int:
    """End what a killed `liq up` of this home left running, in stop order; how many processes that was.

    Found by pid and start time in processes.json, and by the home's mark in their environment.
    """
    noted = home.noted_processes()
    strays = home.strays(known=[identity.pid for identity in noted.values()])
    if not noted and not strays:
        return 0
    say(
        f"an earlier `liq up` on this home was killed; stopping the {len(noted) + len(strays)} processes it left behind"
    )
    servers = ("kafka", "postgres")
    _end_together([*strays, *(item for name, item in noted.items() if name not in servers)], 10)
    for name in servers:
        if name in noted:
            first = signal.SIGINT if name == "postgres" else signal.SIGTERM
            end(noted[name], wait_seconds=30, first=first)
    return len(noted) + len(strays)


def _end_together(identities: list[ProcessIdentity], wait_seconds: float) -> None:
    if not identities:
        return
    with ThreadPoolExecutor(max_workers=len(identities)) as pool:
        list(pool.map(lambda item: end(item, wait_seconds=wait_seconds), identities))
