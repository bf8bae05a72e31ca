"""What a home keeps, who may hold it, and which addresses others find in it."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime import processes
from liq_pipeline.runtime.endpoints import Endpoints, publish, resolve, withdraw
from liq_pipeline.runtime.files import read_json, write_atomically, write_json
from liq_pipeline.runtime.home import SUPERVISED_HOME, Home
from liq_pipeline.runtime.processes import ProcessIdentity, end, free_port
from liq_pipeline.settings import Settings

SERVERS = Endpoints(
    database_url="postgresql://liq:secret@127.0.0.1:5555/liq",
    kafka_bootstrap_servers="127.0.0.1:6666",
    dagster_url="http://127.0.0.1:7777",
    mode="simulated",
    mode_reason="nobody answers",
    world="simulated/1",
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


@pytest.fixture
def held(home: Home) -> Iterator[Home]:
    home.acquire()
    yield home
    home.release()


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


# -- ports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel_s_range", "end"), [("20000\t60999", 20_000), ("1024\t65535", 65_536)])
def test_a_free_port_is_none_that_an_outgoing_connection_may_sit_on_while_its_server_is_down(
    kernel_s_range: str, end: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the kernel leaves any: on some machines its range is all there is."""
    (tmp_path / "range").write_text(f"{kernel_s_range}\n")
    monkeypatch.setattr(processes, "_EPHEMERAL_RANGE", tmp_path / "range")
    assert all(15_000 <= free_port() < end for _ in range(50))


def test_the_default_port_is_taken_when_it_is_free(home: Home) -> None:
    port = free_port()
    assert home.choose_ports({"kafka": port}) == {"kafka": port}


def test_another_port_is_found_when_the_default_is_taken(home: Home, busy_port: int) -> None:
    chosen = home.choose_ports({"kafka": busy_port})["kafka"]
    assert chosen != busy_port


def test_a_found_port_is_kept_by_the_next_start(home: Home, busy_port: int) -> None:
    first = home.choose_ports({"kafka": busy_port, "postgres": free_port()})
    assert Home(home.path).choose_ports({"kafka": free_port(), "postgres": free_port()}) == first
    wanted = free_port(taken=first.values())
    assert home.choose_ports({"kafka": wanted}, asked={"kafka"}) == {"kafka": wanted}, "what a person sets comes first"


def test_a_remembered_port_that_is_taken_now_is_replaced(home: Home) -> None:
    first = home.choose_ports({"kafka": free_port()})["kafka"]
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", first))
        listener.listen()
        second = home.choose_ports({"kafka": first})["kafka"]
    assert second != first
    assert home.remembered()["ports"]["kafka"] == second


def test_two_services_never_get_the_same_port(home: Home) -> None:
    port = free_port()
    chosen = home.choose_ports({"dagster": port, "kafka": port, "postgres": port})
    assert len(set(chosen.values())) == 3


# -- memory --------------------------------------------------------------------------------------------------------


def test_what_is_remembered_later_does_not_wipe_out_the_rest(home: Home) -> None:
    home.remember(first_live_at="2026-01-01")
    home.remember(auto_mode="live")
    assert Home(home.path).remembered() == {"first_live_at": "2026-01-01", "auto_mode": "live"}


def test_a_home_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LiqError, match="LIQ_HOME"):
        Home(tmp_path / "file" / "home").prepare()


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})

    def fail(*_arguments: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_json(path, {"new": 2})
    assert read_json(path) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_written_files_are_their_owner_s_alone(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "secret")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null"])
def test_a_damaged_file_reads_as_absent(tmp_path: Path, content: str) -> None:
    (tmp_path / "a").write_text(content)
    assert read_json(tmp_path / "a") is None


# -- who holds it --------------------------------------------------------------------------------------------------


def test_a_home_is_held_by_one_and_the_refusal_names_the_holder(held: Home) -> None:
    with pytest.raises(LiqError, match=rf"already running on .* \(pid {os.getpid()}\)"):
        Home(held.path).acquire()


def test_a_released_home_can_be_held_again(home: Home) -> None:
    home.acquire()
    home.release()
    other = Home(home.path)
    other.acquire()
    assert other.holder() is not None
    other.release()
    assert other.holder() is None


def test_a_home_whose_holder_was_killed_can_be_held(home: Home) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path; from liq_pipeline.runtime.home import Home; "
        f"Home(Path({str(home.path)!r})).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", code], check=False)
    assert died.returncode == -9
    assert home.holder() is None
    home.acquire()
    holder = home.holder()
    assert holder is not None
    assert holder.pid == os.getpid()
    home.release()


# -- processes -----------------------------------------------------------------------------------------------------


# Heard as by default, whatever an earlier test left this process to pass on.
SLEEPS = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_DFL); "
    "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM}); print('up', flush=True); time.sleep(600)"
)


@pytest.fixture
def sleeper(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the home's mark, in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPS],
        env={**os.environ, SUPERVISED_HOME: str(home.path)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_noted_processes_are_those_still_alive_under_the_same_start_time(
    home: Home, sleeper: subprocess.Popen[bytes]
) -> None:
    alive = ProcessIdentity.of(sleeper.pid)
    assert alive is not None
    namesake = ProcessIdentity(sleeper.pid, alive.started_at - 3600)
    gone = ProcessIdentity(2**22 - 1, 1.0)
    home.note_processes({"alive": alive, "namesake": namesake, "gone": gone})
    assert home.noted_processes() == {"alive": alive}


def test_a_process_with_the_home_s_mark_is_found_although_nobody_noted_it(
    home: Home, sleeper: subprocess.Popen[bytes]
) -> None:
    assert [stray.pid for stray in home.strays()] == [sleeper.pid]
    assert home.strays(known=[sleeper.pid]) == []
    assert Home(home.path / "other").strays() == []


def test_ending_a_process_ends_it(sleeper: subprocess.Popen[bytes]) -> None:
    identity = ProcessIdentity.of(sleeper.pid)
    assert identity is not None
    assert end(identity, wait_seconds=30)
    assert not identity.is_alive


def test_a_namesake_with_another_start_time_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    alive = ProcessIdentity.of(sleeper.pid)
    assert alive is not None
    assert end(ProcessIdentity(sleeper.pid, alive.started_at - 3600), wait_seconds=1)
    assert alive.is_alive


def test_a_process_that_ignores_the_request_is_killed_with_its_children(home: Home) -> None:
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        "print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert parent.stdout is not None
    child_identity = ProcessIdentity.of(int(parent.stdout.readline()))
    identity = ProcessIdentity.of(parent.pid)
    assert identity is not None
    assert child_identity is not None
    assert not end(identity, wait_seconds=0.5)
    assert not child_identity.is_alive
    assert parent.wait(5) == -9


# -- addresses in force --------------------------------------------------------------------------------------------


def test_another_shell_finds_what_liq_up_wrote(held: Home) -> None:
    publish(held, SERVERS)
    assert resolve(Settings(home=held.path)) == SERVERS


def test_the_file_with_the_addresses_is_its_owner_s_alone(held: Home) -> None:
    publish(held, SERVERS)
    assert stat.S_IMODE(held.runtime_path.stat().st_mode) == 0o600


def test_settings_win_over_what_liq_up_wrote(held: Home) -> None:
    publish(held, SERVERS)
    found = resolve(Settings(home=held.path, database_url=SecretStr("postgresql://mine/db")))
    assert found.database_url == "postgresql://mine/db"
    assert found.kafka_bootstrap_servers == SERVERS.kafka_bootstrap_servers


def test_own_servers_need_no_liq_up(home: Home) -> None:
    found = resolve(
        Settings(home=home.path, database_url=SecretStr("postgresql://mine/db"), kafka_bootstrap_servers="k:1")
    )
    assert (found.database_url, found.kafka_bootstrap_servers, found.mode) == ("postgresql://mine/db", "k:1", None)


def test_nothing_running_is_one_clear_sentence(home: Home) -> None:
    with pytest.raises(LiqError, match="start `liq up`"):
        resolve(Settings(home=home.path))


def test_addresses_left_by_a_killed_liq_up_are_not_believed(home: Home) -> None:
    publish(home, SERVERS)
    write_json(home.path / "holder.json", {"pid": os.getpid(), "started_at": 1.0})
    with pytest.raises(LiqError, match="nothing is running"):
        resolve(Settings(home=home.path))


def test_withdrawn_addresses_are_gone(held: Home) -> None:
    publish(held, SERVERS)
    withdraw(held)
    withdraw(held)
    assert not held.runtime_path.exists()


def test_the_password_is_in_no_repr(held: Home) -> None:
    assert "secret" not in repr(SERVERS)
    publish(held, SERVERS)
    assert "secret" in json.loads(held.runtime_path.read_text())["database_url"]
