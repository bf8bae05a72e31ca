"""The supervisor: starts together, starts again what dies, stops in order, leaves nothing behind.

Its parts here are small real programs; the servers and `liq up` as a whole have tests of their own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.home import SUPERVISED_HOME, Home, supervisor_moves
from liq_pipeline.runtime.logs import rotate
from liq_pipeline.runtime.processes import ProcessIdentity, wait_until_gone
from liq_pipeline.runtime.service import Program, describe_exit
from liq_pipeline.runtime.supervisor import Part, RestartPolicy, Supervisor, stop_orphans
from liq_pipeline.runtime.up import _Run
from liq_pipeline.settings import Settings

SLEEPS = "import time; print('ready', flush=True); time.sleep(600)"
QUICK = RestartPolicy(limit=2, window_seconds=60, first_pause_seconds=0.01, patience_seconds=60)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.prepare()
    return made


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(home: Home, said: list[str]) -> Iterator[Supervisor]:
    made = Supervisor(home, said.append)
    yield made
    made.stop()


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def program(home: Home, name: str, code: str) -> Program:
    log = home.logs / f"{name}.log"
    return Program(
        name,
        [sys.executable, "-c", code],
        {**os.environ, SUPERVISED_HOME: str(home.path)},
        log,
        directory=home.path,
        ready=lambda: log.exists() and "ready" in log.read_text(),
    )


def part(
    home: Home, name: str, code: str = SLEEPS, *, rank: int = 1, policy: RestartPolicy = QUICK, finishes: bool = False
) -> Part:
    return Part(name, program(home, name, code), rank=rank, policy=policy, finishes=finishes, stop_seconds=5)


def pid_of(item: Part) -> int:
    identity = item.service.identity
    assert identity is not None
    return identity.pid


def test_parts_run_in_sessions_of_their_own_so_that_ctrl_c_reaches_only_the_supervisor(
    home: Home, supervisor: Supervisor
) -> None:
    first, second = part(home, "first"), part(home, "second")
    supervisor.start([first, second])
    assert {os.getsid(pid_of(first)), os.getsid(pid_of(second))} == {pid_of(first), pid_of(second)}


def test_everything_that_runs_is_noted_for_the_next_start(home: Home, supervisor: Supervisor) -> None:
    one = part(home, "one")
    supervisor.start([one])
    assert home.noted_processes() == {"one": one.service.identity}
    supervisor.stop()
    assert home.noted_processes() == {}


def test_what_dies_is_started_again_and_said(home: Home, supervisor: Supervisor, said: list[str]) -> None:
    one = part(home, "one")
    supervisor.start([one])
    killed = pid_of(one)
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: one.restarts == 1)
    assert pid_of(one) != killed
    assert said == ["one ended by SIGKILL; it is started again in 0.01 s"]
    assert eventually(lambda: home.noted_processes() == {"one": one.service.identity})


def test_it_shows_that_it_moves_until_it_stands_still_or_stops(
    home: Home, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liq_pipeline.runtime.supervisor.STAMP_SECONDS", 0.05)
    monkeypatch.setenv(SUPERVISED_HOME, str(home.path))
    assert home.supervisor_silence_seconds() is None
    assert supervisor_moves(), "under no supervisor nobody is missed"
    supervisor.start([Part("a", program(home, "a", SLEEPS), rank=1)])
    first = home.stamp_path.stat().st_mtime_ns
    assert eventually(lambda: home.stamp_path.stat().st_mtime_ns > first)

    # A part that nobody would start again is the same as no supervisor.
    silent = threading.Thread(target=lambda: None)
    silent.start()
    silent.join()
    supervisor._watchers["a"] = silent
    long_ago = time.time() - 60
    assert eventually(lambda: stands_still_since(home, long_ago))
    assert not supervisor_moves()

    supervisor.stop()
    assert home.supervisor_silence_seconds() is None


def stands_still_since(home: Home, moment: float) -> bool:
    """Set the stamp back and see whether it stays there for a few steps."""
    os.utime(home.stamp_path, (moment, moment))
    time.sleep(0.3)
    return home.stamp_path.stat().st_mtime == moment


def test_what_keeps_dying_is_said_once_and_then_only_tried_now_and_then(
    home: Home, supervisor: Supervisor, said: list[str]
) -> None:
    dying = part(home, "dying", "print('ready: I have no reason to live', flush=True); raise SystemExit(3)")
    supervisor.start([dying])
    assert eventually(lambda: dying.is_hopeless)
    assert dying.restarts == QUICK.limit
    assert [sentence for sentence in said if "keeps dying" in sentence] == [said[-1]]
    assert "exit code 3" in said[-1]
    assert "no reason to live" in said[-1]
    assert str(dying.service.log_path) in said[-1]


def test_a_player_that_ends_well_has_finished_and_is_not_started_again(
    home: Home, supervisor: Supervisor, said: list[str]
) -> None:
    player = part(home, "player", "print('ready', flush=True)", finishes=True)
    supervisor.start([player])
    assert player.finished.wait(20)
    assert player.restarts == 0
    assert said == []


def test_a_player_that_fails_is_started_again(home: Home, supervisor: Supervisor) -> None:
    player = part(home, "player", "print('ready', flush=True); raise SystemExit(1)", finishes=True)
    supervisor.start([player])
    assert eventually(lambda: player.restarts >= 1)
    assert not player.finished.is_set()


def test_a_part_that_does_not_come_up_is_one_clear_sentence(home: Home, supervisor: Supervisor) -> None:
    broken = part(home, "broken", "import sys; sys.exit('the disk is on fire')")
    with pytest.raises(LiqError, match="broken ended at its start with exit code 1: the disk is on fire"):
        supervisor.start([broken])


def test_a_part_that_never_answers_is_given_up_and_stopped(home: Home) -> None:
    silent = program(home, "silent", "import time; time.sleep(600)")
    with pytest.raises(LiqError, match="did not answer within 1 s"):
        silent.start(timeout_seconds=1)
    assert not silent.is_running


def test_the_stop_goes_by_rank(home: Home, supervisor: Supervisor) -> None:
    order = home.path / "order"
    code = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        f"    open({str(order)!r}, 'a').write('NAME ')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    ranks = {"server": 70, "player": 10, "daemon": 20}
    supervisor.start([part(home, name, code.replace("NAME", name), rank=rank) for name, rank in ranks.items()])
    supervisor.stop()
    assert order.read_text().split() == ["player", "daemon", "server"]


def test_nothing_is_left_behind_not_even_descendants_that_left_their_session(
    home: Home, supervisor: Supervisor
) -> None:
    code = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {SLEEPS!r}], start_new_session=True); "
        f"subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]); "
        "print('ready', flush=True); time.sleep(600)"
    )
    supervisor.start([part(home, "parent", code)])
    assert eventually(lambda: len(home.strays()) == 3)
    strays = home.strays()
    supervisor.stop()
    assert wait_until_gone(strays, 5) == []


def test_a_part_that_ignores_the_request_to_stop_is_killed(home: Home, said: list[str]) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS
    stubborn = part(home, "stubborn", code)
    stubborn.stop_seconds = 0.3
    supervisor = Supervisor(home, said.append)
    supervisor.start([stubborn])
    supervisor.stop()
    assert stubborn.service.exit_code == -signal.SIGKILL


def test_nothing_is_started_once_the_stop_has_begun(home: Home, supervisor: Supervisor) -> None:
    supervisor.stop()
    late = part(home, "late")
    supervisor.start([late])
    assert late.service.identity is None


def test_a_death_during_the_stop_starts_nothing_again(home: Home, supervisor: Supervisor) -> None:
    patient = RestartPolicy(first_pause_seconds=30)
    one = part(home, "one", policy=patient)
    supervisor.start([one])
    os.kill(pid_of(one), signal.SIGKILL)
    assert eventually(lambda: bool(one.deaths))
    supervisor.stop()
    assert not one.service.is_running
    assert one.restarts == 0


# -- after a kill -9 of the supervisor -----------------------------------------------------------------------------


def test_orphans_are_found_by_their_notes_and_by_their_mark_and_stopped(home: Home, said: list[str]) -> None:
    noted, unnoted = program(home, "noted", SLEEPS), program(home, "unnoted", SLEEPS)
    noted.start()
    unnoted.start()
    identities = [item for item in (noted.identity, unnoted.identity) if item is not None]
    home.note_processes({"noted": identities[0]})
    assert stop_orphans(home, said.append) == 2
    assert wait_until_gone(identities, 5) == []
    assert "2 processes" in said[0]
    for left in (noted, unnoted):
        left.stop()


def test_without_orphans_nothing_is_said(home: Home, said: list[str]) -> None:
    home.note_processes({"gone": ProcessIdentity(2**22 - 1, 1.0)})
    assert stop_orphans(home, said.append) == 0
    assert said == []


# -- pauses, words and logs ----------------------------------------------------------------------------------------


def test_pauses_double_up_to_a_bound_and_become_patience_past_the_limit() -> None:
    policy = RestartPolicy(limit=5, first_pause_seconds=1, longest_pause_seconds=6, patience_seconds=300)
    assert [policy.pause_seconds(deaths) for deaths in range(1, 8)] == [1, 2, 4, 6, 6, 300, 300]


@pytest.mark.parametrize(
    ("code", "words"), [(2, "with exit code 2"), (-9, "by SIGKILL"), (-15, "by SIGTERM"), (-250, "by signal 250")]
)
def test_an_exit_is_told_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


def test_a_large_log_is_moved_aside_and_its_writer_goes_on_in_the_emptied_file(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("ab", buffering=0) as writer:
        for round_number in range(5):
            writer.write(f"{round_number}".encode() * 100)
            assert rotate(path, largest_bytes=50, kept=3)
        writer.write(b"end")
    assert path.read_bytes() == b"end"
    assert [path.with_name(f"a.log.{n}").read_text()[0] for n in (1, 2, 3)] == ["4", "3", "2"]
    assert not path.with_name("a.log.4").exists()


def test_a_small_or_absent_log_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("x")
    assert not rotate(tmp_path / "a.log")
    assert not rotate(tmp_path / "b.log")


# -- what hangs -----------------------------------------------------------------------------------------------------


def test_a_disk_that_takes_no_file_ends_no_watch_and_is_made_up_for(
    home: Home, supervisor: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that was killed while the disk was full was started again and never watched after that."""
    monkeypatch.setattr("liq_pipeline.runtime.supervisor.STAMP_SECONDS", 0.05)
    one = part(home, "one", policy=RestartPolicy(limit=9, window_seconds=60, first_pause_seconds=0.01))
    supervisor.start([one])
    notes = home.path / "processes.json"
    notes.unlink()
    notes.mkdir()
    for restarts in (1, 2):
        os.kill(pid_of(one), signal.SIGKILL)
        assert eventually(lambda expected=restarts: one.restarts == expected)
    assert len([text for text in said if "cannot be written down" in text]) == 1
    notes.rmdir()
    assert eventually(lambda: home.noted_processes() == {"one": one.service.identity})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that never takes anything")
def test_a_terminal_that_takes_no_more_ends_nobody_who_says_something(home: Home) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closed below, where that may fail
    try:
        console = Console(file=full)
        with pytest.raises(OSError, match="No space left"):
            console.print("as rich has it")
        _Run(Settings(home=home.path), home, console, threading.Event())._say("one ended by SIGKILL")
    finally:
        with suppress(OSError):  # closing fails as writing does
            full.close()


def test_on_a_full_disk_what_cannot_start_is_not_put_off_for_long(
    home: Home, supervisor: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liq_pipeline.runtime.supervisor.LEAST_ROOM_BYTES", 2**62)
    policy = RestartPolicy(
        limit=2, window_seconds=60, first_pause_seconds=0.01, longest_pause_seconds=0.05, patience_seconds=60
    )
    one = part(home, "one", "import sys; print('ready', flush=True); sys.exit(3)", policy=policy)
    supervisor.start([one])
    assert eventually(lambda: one.restarts > policy.limit + 2)
    assert not [text for text in said if "keeps dying" in text]


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("POLL_SECONDS", 0.02), ("PROBE_EVERY_SECONDS", 0.05), ("HANG_STOP_SECONDS", 0.2)):
        monkeypatch.setattr(f"liq_pipeline.runtime.supervisor.{name}", seconds)


def test_what_does_not_move_for_its_bound_is_ended_started_again_and_said(
    home: Home, supervisor: Supervisor, said: list[str], quick_probes: None
) -> None:
    moves = threading.Event()
    moves.set()
    one = part(home, "one")
    one.probe, one.hang_seconds = moves.is_set, 0.5
    supervisor.start([one])
    hung = pid_of(one)
    assert not eventually(lambda: one.restarts > 0, seconds=1)
    moves.clear()
    assert eventually(lambda: one.silent_since is not None)
    assert "one has not answered for 0 s" in supervisor.troubles()
    assert eventually(lambda: one.restarts == 1)
    moves.set()
    assert pid_of(one) != hung
    assert said[0].startswith("one has not answered for ")
    assert "it hangs, and is ended" in said[0]
    assert said[1].startswith("one was ended; it is started again")
    assert eventually(lambda: one.silent_since is None)
    assert supervisor.troubles()[0].startswith("one was started again")


def test_a_short_silence_is_no_hang(home: Home, supervisor: Supervisor, said: list[str], quick_probes: None) -> None:
    moves = threading.Event()
    one = part(home, "one")
    one.probe, one.hang_seconds = moves.is_set, 30
    supervisor.start([one])
    assert eventually(lambda: one.silent_since is not None)
    moves.set()
    assert eventually(lambda: one.silent_since is None)
    assert (one.restarts, said, supervisor.troubles()) == (0, [], [])


@pytest.mark.skipif(sys.platform != "linux", reason="the state of a stopped process is read as Linux tells it")
def test_a_part_that_the_kernel_has_stopped_is_started_again_without_any_probe(
    home: Home, supervisor: Supervisor, said: list[str], quick_probes: None
) -> None:
    one = part(home, "one")
    one.hang_seconds = 0.3
    supervisor.start([one])
    stopped = pid_of(one)
    os.kill(stopped, signal.SIGSTOP)
    assert eventually(lambda: one.restarts == 1)
    assert pid_of(one) != stopped
    assert said[1].startswith("one was ended")


def test_a_question_that_stumbles_and_a_part_that_cannot_be_ended_do_not_end_the_watch(
    home: Home, supervisor: Supervisor, said: list[str], quick_probes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has to start it again when it dies after all."""
    answers: list[BaseException | bool] = [ValueError("odd"), False, False]
    one = part(home, "one")

    def probe() -> bool:
        found = answers.pop(0) if answers else True
        if isinstance(found, BaseException):
            raise found
        return found

    def in_vain(timeout_seconds: float = 15) -> None:
        raise subprocess.TimeoutExpired("one", timeout_seconds)

    one.probe, one.hang_seconds = probe, 0.0
    stop = one.service.stop
    monkeypatch.setattr(one.service, "stop", in_vain)
    supervisor.start([one])
    assert eventually(lambda: any("cannot be ended" in sentence for sentence in said))
    monkeypatch.setattr(one.service, "stop", stop)
    assert "one could not be asked whether it moves: ValueError: odd" in said
    os.kill(pid_of(one), signal.SIGKILL)
    assert eventually(lambda: one.restarts == 1)
