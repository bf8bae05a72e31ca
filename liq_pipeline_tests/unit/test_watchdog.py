"""The watchdog: told once when ticks stop, once when they are back, through a real receiver, without any server."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from liq_pipeline.runtime.home import SUPERVISED_HOME, Home
from liq_pipeline.runtime.liveness import TICK, note_alive
from liq_pipeline.runtime.watchdog import Watchdog
from liq_pipeline.settings import Settings
from liq_pipeline_tests.alert_receiver import Receiver, receiver

TROUBLES = ["postgres does not run and is started again", "kafka has not answered for 130 s"]


@pytest.fixture
def channel() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home(tmp_path)
    made.prepare()
    monkeypatch.setenv(SUPERVISED_HOME, str(tmp_path))
    monkeypatch.setattr("liq_pipeline.runtime.watchdog._RETRY_SECONDS", (0.05,))
    return made


@pytest.fixture
def watch(home: Home, channel: Receiver, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watchdog]:
    monkeypatch.setenv("LIQ_ALERT_URLS", channel.url)
    monkeypatch.setenv("LIQ_HOME", str(home.path))

    def make(kind: str = "real", **more: Any) -> Watchdog:
        given = {"say": said.append, "troubles": lambda: TROUBLES, "blind_seconds": 0.2, "first_tick_seconds": 0.0}
        return Watchdog(home, Settings(), kind, **given | more)

    said: list[str] = []
    make.said = said  # type: ignore[attr-defined]
    return make


def look_until(watchdog: Watchdog, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        watchdog.look()
        time.sleep(0.02)


def tick(home: Home, age_seconds: float = 0) -> None:
    note_alive(TICK)
    moment = time.time() - age_seconds
    os.utime(home.alive_path(TICK), (moment, moment))


def test_blind_once_and_back_once(home: Home, channel: Receiver, watch: Callable[..., Watchdog]) -> None:
    tick(home, 30)
    watchdog = watch()
    watchdog.look()
    assert channel.messages == []
    look_until(watchdog, lambda: len(channel.messages) == 1)
    (blind,) = channel.messages
    assert blind["title"] == "liq_pipeline is BLIND"
    assert "No score for 0 s: the last was committed at" in blind["message"]
    assert "Postgres does not run and is started again." in blind["message"]
    assert "Kafka has not answered for 130 s." in blind["message"]
    for _ in range(20):
        watchdog.look()
        time.sleep(0.02)
    assert len(channel.messages) == 1
    tick(home)
    look_until(watchdog, lambda: len(channel.messages) == 2)
    assert channel.messages[1]["title"] == "liq_pipeline sees again"
    assert "Scores are back after 3" in channel.messages[1]["message"]
    assert not (home.path / "blind.json").exists()
    look_until(watchdog, lambda: len(channel.messages) == 3)
    assert channel.messages[2]["title"] == "liq_pipeline is BLIND", "a second blindness is told anew"


def test_while_ticks_come_nothing_is_said(home: Home, channel: Receiver, watch: Callable[..., Watchdog]) -> None:
    watchdog = watch()
    for number in range(20):
        tick(home, 100 - number)
        watchdog.look()
        time.sleep(0.02)
    assert channel.messages == []
    assert watch.said == []  # type: ignore[attr-defined]


def test_a_start_gets_its_time(home: Home, channel: Receiver, watch: Callable[..., Watchdog]) -> None:
    watchdog = watch(first_tick_seconds=60)
    time.sleep(0.3)
    watchdog.look()
    assert channel.messages == []


def test_a_supervisor_started_again_neither_repeats_nor_forgets(
    home: Home, channel: Receiver, watch: Callable[..., Watchdog]
) -> None:
    tick(home, 200)
    first = watch()
    look_until(first, lambda: len(channel.messages) == 1)
    first.look()
    again = watch()
    for _ in range(20):
        again.look()
        time.sleep(0.02)
    assert len(channel.messages) == 1
    tick(home)
    look_until(again, lambda: len(channel.messages) == 2)
    assert "Scores are back after 3 min" in channel.messages[1]["message"]


def test_a_channel_that_fails_is_tried_until_it_takes_it(
    home: Home, channel: Receiver, watch: Callable[..., Watchdog]
) -> None:
    channel.status = 500
    watchdog = watch()
    look_until(watchdog, lambda: len(channel.paths) >= 3)
    channel.status = 200
    look_until(watchdog, lambda: len(channel.messages) == 1)
    assert "s3cretT0ken" not in "".join(watch.said)  # type: ignore[attr-defined]


def test_a_wrong_address_is_tried_once(home: Home, channel: Receiver, watch: Callable[..., Watchdog]) -> None:
    channel.status = 401
    watchdog = watch()
    look_until(watchdog, lambda: len(channel.paths) >= 1)
    tried = len(channel.paths)
    for _ in range(20):
        watchdog.look()
        time.sleep(0.02)
    assert len(channel.paths) == tried


def test_a_disk_without_room_for_a_note_keeps_nobody_uninformed(
    home: Home, channel: Receiver, watch: Callable[..., Watchdog], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk stops PostgreSQL and so the ticks: the very moment that people must hear of."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("liq_pipeline.runtime.watchdog.write_json", full)
    watchdog = watch()
    look_until(watchdog, lambda: len(channel.messages) == 1)
    assert any("No space left" in sentence for sentence in watch.said)  # type: ignore[attr-defined]
    tick(home)
    look_until(watchdog, lambda: len(channel.messages) == 2)
    assert channel.messages[1]["title"] == "liq_pipeline sees again"


def test_what_a_supervisor_did_not_get_rid_of_is_sent_by_the_next(
    home: Home, channel: Receiver, watch: Callable[..., Watchdog]
) -> None:
    channel.status = 500
    look_until(watch(), lambda: len(channel.paths) >= 1)
    channel.status = 200
    again = watch()
    look_until(again, lambda: len(channel.messages) == 1)
    assert channel.messages[0]["title"] == "liq_pipeline is BLIND"
    tick(home)
    look_until(again, lambda: len(channel.messages) == 2)


def test_a_blindness_that_nobody_heard_of_has_no_end_to_tell(
    home: Home, channel: Receiver, watch: Callable[..., Watchdog]
) -> None:
    channel.status = 500
    look_until(watch(), lambda: len(channel.paths) >= 1)
    channel.status = 200
    again = watch(blind_seconds=60)
    tick(home)
    again.look()
    assert channel.messages == []
    assert not (home.path / "blind.json").exists()


@pytest.mark.parametrize("unreal", [False, True])
def test_a_simulated_world_goes_to_people_only_if_asked(
    home: Home, channel: Receiver, watch: Callable[..., Watchdog], monkeypatch: pytest.MonkeyPatch, unreal: bool
) -> None:
    monkeypatch.setenv("LIQ_ALERT_UNREAL", str(unreal).lower())
    watchdog = watch("simulated")
    look_until(watchdog, lambda: bool(watch.said))  # type: ignore[attr-defined]
    for _ in range(10):
        watchdog.look()
        time.sleep(0.02)
    assert [m["title"] for m in channel.messages] == (["[SIMULATED] liq_pipeline is BLIND"] if unreal else [])


def test_our_own_webhook_gets_a_record_with_an_idempotency_key(
    home: Home, channel: Receiver, watch: Callable[..., Watchdog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIQ_ALERT_URLS", f"liq+http://127.0.0.1:{channel.port}/hook?secret=k3y")
    look_until(watch(), lambda: len(channel.messages) == 1)
    (record,) = channel.messages
    assert (record["type"], record["rule"], record["kind"], record["severity"]) == (
        "watchdog",
        "blind",
        "opened",
        "CRITICAL",
    )
    noted = json.loads((home.path / "blind.json").read_text())
    assert record["id"] == f"{noted['id']}|opened"
