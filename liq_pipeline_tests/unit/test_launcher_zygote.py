"""The zygote's judgement, apart from forking: messages, ends in words, changed sources, growing memory."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.launcher import preloading, protocol, running, zygote

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), JSON))
def test_what_is_sent_is_what_is_read(message: dict[str, object]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(5)
        ours.sendall(protocol.encode(message))
        assert protocol.read_message(theirs) == message


@pytest.mark.parametrize("data", [b"", b"[1]\n", b"{broken\n", b'{"do": "ping"}'])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(5)
        with ours:
            ours.sendall(data)
        with pytest.raises(ValueError, match=r"message|JSON|Expecting"):
            protocol.read_message(theirs)


def test_a_message_has_a_largest_size() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(5)

        def send_too_much() -> None:
            with contextlib.suppress(BrokenPipeError):  # the reader goes as soon as it has seen enough
                ours.sendall(b"x" * (protocol.MAX_MESSAGE_BYTES + 65_537))

        sender = threading.Thread(target=send_too_much)
        sender.start()
        with pytest.raises(ValueError, match="more than"):
            protocol.read_message(theirs)
        theirs.close()
        sender.join(5)


def test_nobody_listening_means_nothing_was_started(tmp_path: Path) -> None:
    with pytest.raises(protocol.ZygoteUnreachableError, match="no zygote answers"):
        protocol.ask(str(tmp_path / "nobody.sock"), {"do": "ping"}, 1)


def test_ends_are_told_in_words() -> None:
    assert "signal 9 (SIGKILL, by hand or for want of memory)" in running.describe_end(9)
    assert "signal 11 (SIGSEGV)" in running.describe_end(11)
    assert "exit code 3" in running.describe_end(3 << 8)


def test_the_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "zygote.sock"
    with zygote.listen(path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_socket_left_behind_by_a_dead_zygote_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "zygote.sock"
    zygote.listen(path).close()
    assert path.exists()
    zygote.listen(path).close()


def test_a_place_where_no_socket_can_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot listen at"):
        zygote.listen(tmp_path / "missing" / "zygote.sock")


def test_only_the_projects_own_loaded_sources_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "watched_module.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("watched_module")
    before = preloading.source_state(("watched_module",))
    assert [Path(path).name for path in before] == ["watched_module.py"]
    (tmp_path / "watched_module.py").write_text("VALUE = 22\n")
    assert preloading.source_state(("watched_module",)) != before
    assert all("site-packages" not in path for path in preloading.source_state(("liq_pipeline",)))
    sys.modules.pop("watched_module")


class RestartedError(Exception):
    """The test's stand-in for exec."""


def test_a_zygote_that_has_grown_replaces_itself_and_writes_its_runs_down_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restart(_fd: int) -> NoReturn:
        raise RestartedError

    path = tmp_path / "zygote.sock"
    with zygote.listen(path) as listener:
        subject = zygote.Zygote(path, listener, ("liq_pipeline",), restart)
        subject.look_at_memory(now=1e9)
        monkeypatch.setattr(zygote, "MEMORY_GROWTH_BYTES", -(1 << 40))
        subject.look_at_memory(now=1e9 + 1)
        with pytest.raises(RestartedError):
            subject.look_at_memory(now=1e9 + zygote.MEMORY_CHECK_SECONDS + 1)
    assert json.loads(running.runs_path(path).read_text()) == []
    assert stat.S_IMODE(os.stat(running.runs_path(path)).st_mode) == 0o600
