"""Says that the monitor is blind when nothing else can: without database, Kafka or Dagster.

Belongs here: noticing that ticks have stopped, and the two messages about it. Does not: starting parts again
(supervisor.py), or blindness that a tick itself sees (alerting/deciding/), which needs ticks.

A tick that scores touches a stamp in the home. When none has for BLIND_SECONDS, people are told through the alert
channels, once, with what the supervisor knows; and once more when ticks are back. What was told stands in blind.json,
so that a supervisor that is itself started again neither repeats the one message nor forgets the other; what it could
not get rid of before its end is sent by the next one. A disk without room for that file keeps nobody uninformed.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from pydantic import SecretStr

from liq_pipeline.alerting.sending.channels import ChannelResult, channel_name, send_all
from liq_pipeline.alerting.telling.messages import Text
from liq_pipeline.runtime.files import read_json, write_json
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.liveness import TICK
from liq_pipeline.settings import Settings

BLIND_SECONDS: Final = 120.0
"""Twelve points of the live grid: no restart of a part takes as long, and a person can still act."""
FIRST_TICK_SECONDS: Final = 60.0
"""What a start may take beyond that before its first tick."""
LOOK_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = (5.0, 15.0, 60.0, 300.0)


@dataclass
class _Message:
    """A message on its way. left: channels that have not taken it."""

    text: Text
    payload: dict[str, Any]
    left: list[SecretStr]
    attempt: int = 0
    due_at: float = 0.0


class Watchdog:
    """One home's. start(), then stop(). say: one sentence for whoever looks at the terminal, from any thread."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        world_kind: str,
        *,
        say: Callable[[str], None],
        troubles: Callable[[], Sequence[str]],
        send: Callable[..., list[ChannelResult]] = send_all,
        blind_seconds: float = BLIND_SECONDS,
        first_tick_seconds: float = FIRST_TICK_SECONDS,
    ) -> None:
        """world_kind: real or simulated. troubles: what the supervisor knows to be wrong, in sentences."""
        self._home, self._settings, self._kind = home, settings, world_kind
        self._say, self._troubles, self._send = say, troubles, send
        self._blind_seconds, self._first_tick_seconds = blind_seconds, first_tick_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._stamp = self._newest_tick()
        self._moved_at = time.monotonic() + first_tick_seconds
        self._messages: list[_Message] = []
        noted: dict[str, Any] | None = read_json(home.path / "blind.json")
        self._told_of = noted if noted is not None and noted["is_told"] else None
        self._unsent = noted if noted is not None and not noted["is_told"] else None
        """What an earlier supervisor wanted to tell and did not get rid of."""

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Cease, without a message: whoever stops `liq up` knows."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2 * self._settings.alert_timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception as error:  # the last who can speak must not fall silent over a full disk
                self._say(f"the watchdog stumbled: {type(error).__name__}: {error}")

    def look(self) -> None:
        """Whether ticks have stopped or come back, and what is to be said about it."""
        stamp, now = self._newest_tick(), time.monotonic()
        if stamp != self._stamp:
            self._stamp, self._moved_at = stamp, now
            if self._told_of is not None:
                self._tell_back(self._told_of)
            elif self._unsent is not None:
                self._unsent = None
                self._forget()
        elif self._told_of is None and now - self._moved_at > self._blind_seconds:
            self._tell_blind()
        self._send_due(now)

    def _newest_tick(self) -> float | None:
        try:
            return self._home.alive_path(TICK).stat().st_mtime
        except FileNotFoundError:
            return None

    # -- what is said -----------------------------------------------------------------------------------------------

    def _tell_blind(self) -> None:
        since = None if self._stamp is None else datetime.fromtimestamp(self._stamp, UTC)
        told = self._unsent or {
            "id": f"watchdog|{socket.gethostname()}|{datetime.now(UTC).isoformat()}",
            "since": None if since is None else since.isoformat(),
            "told_at": datetime.now(UTC).isoformat(),
            "is_told": False,
        }
        self._told_of, self._unsent = told, None
        seconds = f"{self._blind_seconds:.0f} s" if self._blind_seconds < 100 else f"{self._blind_seconds / 60:.0f} min"
        last = "nothing has been scored yet" if since is None else f"the last was committed at {_clock(since)} UTC"
        lines = [f"No score for {seconds}: {last}."]
        lines += ["Until this ends no other alert can come: treat the market as unwatched."]
        lines += [f"{trouble[0].upper()}{trouble[1:]}." for trouble in [*self._troubles(), *self._stopped_sensors()]]
        lines += [
            "What hangs or dies is started again by itself, and you are told when scores are back.",
            f"Seen by the supervisor on {socket.gethostname()}; `liq status` and {self._home.logs} say more.",
        ]
        self._say(f"the monitor is BLIND: {lines[0]}")
        self._queue("opened", Text("liq_pipeline is BLIND", "\n".join(lines), "failure"), told)
        self._note(told)

    def _tell_back(self, told: dict[str, Any]) -> None:
        since = told["since"] or told["told_at"]
        lasted = datetime.now(UTC) - datetime.fromisoformat(since)
        lines = [
            f"Scores are back after {_minutes(lasted)} (none since {_clock(datetime.fromisoformat(since))} UTC).",
            "What happened in between lands and, up to an hour back, is scored late; "
            "`liq gaps list` tells what is missing.",
        ]
        self._say(f"the monitor sees again: {lines[0]}")
        self._forget()
        self._told_of = None
        self._messages.clear()  # of a blindness that is over only its end matters
        self._queue("resolved", Text("liq_pipeline sees again", "\n".join(lines), "success"), told)

    def _note(self, told: dict[str, Any]) -> None:
        try:
            write_json(self._home.path / "blind.json", told)
        except OSError as error:  # a full disk is a reason to be blind: the message goes out all the same
            self._say(f"what was told cannot be noted in {self._home.path}: {error}")

    def _forget(self) -> None:
        (self._home.path / "blind.json").unlink(missing_ok=True)

    def _queue(self, kind: str, text: Text, told: dict[str, Any]) -> None:
        if self._kind != "real" and not self._settings.alert_unreal:
            told["is_told"] = True  # by the terminal, which is all that such a world may reach
            return
        if self._kind != "real":
            text = Text(f"[{self._kind.upper()}] {text.title}", text.body, text.notify_type)
        payload = {
            "schema_version": 1,
            "id": f"{told['id']}|{kind}",
            "type": "watchdog",
            "rule": "blind",
            "kind": kind,
            "severity": "CRITICAL" if kind == "opened" else "NONE",
            "time": datetime.now(UTC).isoformat(),
            "is_real": self._kind == "real",
            "title": text.title,
            "body": text.body,
        }
        self._messages.append(_Message(text, payload, list(self._settings.alert_urls)))

    def _send_due(self, now: float) -> None:
        for message in list(self._messages):
            if not message.left:
                self._messages.remove(message)
                if self._told_of is not None and message.payload["kind"] == "opened":
                    self._told_of["is_told"] = True
                    self._note(self._told_of)
            elif now >= message.due_at:
                self._try(message)

    def _try(self, message: _Message) -> None:
        results = self._send(message.left, message.text, self._settings.alert_timeout_seconds, message.payload)
        refused = {result.channel for result in results if not result.ok and not result.is_final}
        for result in results:
            if not result.ok:
                self._say(f"{result.channel} did not take the watchdog's message: {result.error}")
        message.left = [url for url in message.left if channel_name(url) in refused]
        wait = _RETRY_SECONDS[min(message.attempt, len(_RETRY_SECONDS) - 1)]
        message.attempt += 1
        message.due_at = time.monotonic() + wait

    def _stopped_sensors(self) -> list[str]:
        """Sensors that somebody stopped in Dagster, if its database answers: then nothing is broken."""
        storage = self._storage_url()
        if storage is None:
            return []
        try:
            with psycopg.connect(storage, connect_timeout=2, autocommit=True) as connection:
                connection.execute("SET statement_timeout = 2000")
                rows = connection.execute(
                    "SELECT instigator_body::jsonb #>> '{origin,job_name}', update_timestamp FROM instigators"
                    " WHERE status = 'STOPPED' AND instigator_type = 'SENSOR'"
                ).fetchall()
        except psycopg.Error:
            return []
        return [
            f"somebody stopped {name} in Dagster at {_clock(at)} UTC: start it there under Automation"
            for name, at in rows
            if name is not None
        ]

    def _storage_url(self) -> str | None:
        noted = read_json(self._home.runtime_path) or {}
        url = noted.get("dagster_storage_url")
        return None if url is None else str(url).replace("postgresql+psycopg2://", "postgresql://", 1)


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _minutes(lasted: timedelta) -> str:
    minutes = lasted.total_seconds() / 60
    return f"{minutes:.0f} min" if minutes >= 2 else f"{lasted.total_seconds():.0f} s"
