"""Events: a point reaches everybody within a second of its commit, and no alert is lost, whatever dies."""

from __future__ import annotations

import json
import queue
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.desk.stream.changes import EventId
from liq_pipeline_tests.desk.support import LAST, WORLD, RunningDesk, desk

FIRST, FAR = datetime(1970, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001 - hypothesis adds the zone
INSTANTS = st.datetimes(FIRST, FAR, timezones=st.just(UTC))


@given(INSTANTS, INSTANTS)
def test_an_id_says_exactly_how_far_a_listener_is(point: datetime, change: datetime) -> None:
    assert EventId.parse(str(EventId(point, change))) == EventId(point, change)


@given(st.text(max_size=60))
def test_what_is_no_id_is_none(text: str) -> None:
    parsed = EventId.parse(text)
    assert parsed is None or str(parsed) == "-".join(str(int(part)) for part in text.split("-"))


class Stream:
    """One listener; events arrive in a queue with the time they came."""

    def __init__(self, url: str, last: str | None = None) -> None:
        headers = {"Last-Event-ID": last} if last else {}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(f"{url}/api/v1/stream", headers=headers)  # noqa: S310 - our own server
        self._answer = opener.open(request, timeout=30)
        self.events: queue.Queue[tuple[str, str, Any, float]] = queue.Queue()
        self.last_id = last
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def is_open(self) -> bool:
        """Whether the desk still holds the connection."""
        return self._thread.is_alive()

    def _read(self) -> None:
        name, identity = "", ""
        try:
            for line in self._answer:
                text = line.decode().rstrip("\n")
                if text.startswith("event: "):
                    name = text[7:]
                elif text.startswith("id: "):
                    identity = text[4:]
                elif text.startswith("data: "):
                    self.last_id = identity
                    self.events.put((name, identity, json.loads(text[6:]), time.monotonic()))
        except (OSError, ValueError):
            return

    def wait_for(self, wanted: Callable[[str, Any], bool], seconds: float = 10.0) -> tuple[str, Any, float]:
        deadline = time.monotonic() + seconds
        while True:
            name, identity, data, at = self.events.get(timeout=max(deadline - time.monotonic(), 0.001))
            if wanted(name, data):
                return identity, data, at


@contextmanager
def writing(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url) as conn:
        yield conn


def commit_point(url: str, minutes: int) -> datetime:
    """The newest point again, some minutes later: a tick as far as a reader can see."""
    at = LAST + timedelta(minutes=minutes)
    with writing(url) as conn:
        for table in ("signals", "liquidation_risk"):
            columns = [
                row[0]
                for row in conn.execute(
                    "SELECT column_name FROM information_schema.columns WHERE table_name = %s", [table]
                )
                if row[0] not in ("time", "created_at")
            ]
            names = ", ".join(columns)
            conn.execute(
                f"INSERT INTO {table} (time, {names}) SELECT %s, {names} FROM {table} WHERE world = %s AND time = %s",  # type: ignore[arg-type] # noqa: S608
                [at, WORLD, LAST],
            )
        conn.execute(
            "INSERT INTO ticks (world, stream, time, cut, started_at, rows_landed) VALUES (%s, 'market', %s, '{}',"
            " now(), 0)",
            [WORLD, at],
        )
    return at


def open_alert(conn: psycopg.Connection[Any], subject: str) -> str:
    """An alert that opens now, by the world's clock."""
    identity = str(uuid.uuid4())
    conn.execute(
        "INSERT INTO alerts (alert_id, page_id, world, rule, subject, side, severity, peak_severity, state, opened_at,"
        " judged_at, last_seen_at, changed_at, score_version, receipt)"
        " VALUES (%(id)s, %(id)s, %(world)s, 'severity', %(subject)s, 'long', 'WARNING', 'WARNING', 'open', %(at)s,"
        " %(at)s, %(at)s, %(at)s, 'v', '{}')",
        {"id": identity, "world": WORLD, "subject": subject, "at": LAST},
    )
    conn.execute(
        "INSERT INTO alert_changes (alert_id, time, kind, severity, severity_before, reason, receipt)"
        " VALUES (%s, %s, 'opened', 'WARNING', 'NONE', 'a test', '{}')",
        [identity, LAST],
    )
    return identity


@pytest.fixture
def own_desk(own_url: str, tmp_path: Path) -> Iterator[RunningDesk]:
    with desk(own_url, tmp_path) as made:
        yield made


def about(alert_id: str) -> Callable[[str, Any], bool]:
    return lambda name, data: name == "alert" and data["alert_id"] == alert_id


def test_a_new_point_reaches_many_listeners_within_a_second_of_its_commit(own_desk: RunningDesk) -> None:
    streams = [Stream(own_desk.url) for _ in range(40)]
    for stream in streams:
        stream.wait_for(lambda name, data: name == "signals")
    at = commit_point(own_desk.database_url, 1)
    committed = time.monotonic()
    is_it = lambda name, data: name == "signals" and datetime.fromisoformat(data["as_of"]) == at  # noqa: E731
    latest = max(stream.wait_for(is_it)[2] for stream in streams)
    assert latest - committed < 1.0


def test_no_alert_is_lost_over_a_kill_and_whoever_was_away_gets_each(own_desk: RunningDesk) -> None:
    with writing(own_desk.database_url) as conn:
        first = open_alert(conn, "SEEN")
    stream = Stream(own_desk.url)
    with writing(own_desk.database_url) as conn:
        seen = open_alert(conn, "WHILE")
    stream.wait_for(about(seen))
    last = stream.last_id
    assert last is not None
    own_desk.kill()
    with writing(own_desk.database_url) as conn:
        missed = [open_alert(conn, f"AWAY{number}") for number in range(5)]
    own_desk.start()
    again = Stream(own_desk.url, last)
    got = []
    while len(got) < len(missed):
        _, data, _ = again.wait_for(lambda name, data: name == "alert" and data["alert_id"] in missed)
        got.append(data["alert_id"])
    assert got == missed
    assert first not in got


class Faithful:
    """A listener as a browser is one: it comes back by itself, with the last id that it was given."""

    def __init__(self, url: str) -> None:
        self.got: set[str] = set()
        self.comebacks = 0
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        last: str | None = None
        while not self._over.is_set():
            try:
                stream = Stream(self._url, last)
            except OSError:
                self._over.wait(0.05)
                continue
            self.comebacks += 1
            while not self._over.is_set() and (stream.is_open() or not stream.events.empty()):
                try:
                    name, _, data, _ = stream.events.get(timeout=0.2)
                except queue.Empty:
                    continue
                if name == "alert":
                    self.got.add(data["alert_id"])
            last = stream.last_id

    def leave(self) -> None:
        self._over.set()
        self._thread.join(10)


def test_twenty_listeners_over_three_kills_miss_none_of_the_alerts_that_open_meanwhile(own_desk: RunningDesk) -> None:
    listeners = [Faithful(own_desk.url) for _ in range(20)]
    opened: list[str] = []
    over = threading.Event()

    def open_one_after_another() -> None:
        while not over.is_set():
            with writing(own_desk.database_url) as conn:
                opened.append(open_alert(conn, f"N{len(opened)}"))
            over.wait(0.02)

    def wait_until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, [len(one.got) for one in listeners]
            over.wait(0.05)

    wait_until(lambda: all(one.comebacks for one in listeners))
    writer = threading.Thread(target=open_one_after_another)
    writer.start()
    try:
        for kill in range(1, 4):
            known = len(opened)
            wait_until(lambda known=known: all(len(one.got) > known for one in listeners))  # type: ignore[misc]
            own_desk.kill()
            own_desk.start()
            wait_until(lambda kill=kill: all(one.comebacks > kill for one in listeners))  # type: ignore[misc]
    finally:
        over.set()
        writer.join()
    over.clear()
    wait_until(lambda: all(one.got >= set(opened) for one in listeners))
    assert len(opened) > 30
    for one in listeners:
        one.leave()


def test_an_alert_that_becomes_visible_after_a_younger_one_is_told_as_well(own_desk: RunningDesk) -> None:
    """Rows are stamped when they are written and seen when they are committed."""
    stream = Stream(own_desk.url)
    slow = psycopg.connect(own_desk.database_url)
    older = open_alert(slow, "OLDER")
    with writing(own_desk.database_url) as conn:
        younger = open_alert(conn, "YOUNGER")
    stream.wait_for(about(younger))
    slow.commit()
    slow.close()
    stream.wait_for(about(older))


def test_the_database_may_leave_and_come_back(own_desk: RunningDesk, postgres_server: Any) -> None:
    stream = Stream(own_desk.url)
    stream.wait_for(lambda name, data: name == "signals")
    name = psycopg.conninfo.conninfo_to_dict(own_desk.database_url)["dbname"]
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as conn:
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    with writing(own_desk.database_url) as conn:
        alert = open_alert(conn, "BACK")
    stream.wait_for(about(alert), 20)
    assert own_desk.ask("/").status == 200


def test_another_world_is_announced(own_desk: RunningDesk) -> None:
    stream = Stream(own_desk.url)
    stream.wait_for(lambda name, data: name == "signals")
    with writing(own_desk.database_url) as conn:
        conn.execute("UPDATE worlds SET is_active = false")
        conn.execute(
            "INSERT INTO worlds (world, kind, is_active, market_step_seconds, flows_step_seconds, manifest)"
            " VALUES ('real', 'real', true, 10, 15, '{\"symbols\": [\"BTC\"], \"expected\": {}}')"
        )
    _, data, _ = stream.wait_for(lambda name, data: name == "world" and data["world"] == "real")
    assert data["is_real"] is True
    page = own_desk.ask("/").body.decode()
    assert "NOT REAL" not in page
    assert "LIVE" in page
