"""The player under faults: killed at any moment, told to stop, left without Kafka. Nothing lost, doubled or changed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.domain.records import FundingRate, OpenInterest, Price, Record
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.sources.playing.player import Player, PlayResult
from liq_pipeline.sources.recorded.formats import open_recording
from liq_pipeline.sources.simulated import world as simulated_world
from liq_pipeline.sources.simulated.market import MODEL_VERSION
from liq_pipeline.sources.simulated.source import SimulatedSource
from liq_pipeline.sources.simulated.world import Simulation
from liq_pipeline_tests.player_support import (
    counts,
    eventually,
    land_all,
    landing,
    minutes,
    troubles,
    watermark_rows,
    write_minute_lines,
)

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_player(
    new_home: Path, database_url: str, kafka_server: str, topic_prefix: str, tmp_path: Path
) -> Iterator[Start]:
    """A maker of player processes, as `liq up` starts them; what is left at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LIQ_")},
        "LIQ_HOME": str(new_home),
        "LIQ_DATABASE_URL": database_url,
        "LIQ_KAFKA_BOOTSTRAP_SERVERS": kafka_server,
        "LIQ_KAFKA_TOPIC_PREFIX": topic_prefix,
        "LIQ_SYMBOLS": "BTC",
    }

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "player.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "liq_pipeline.cli", "play", *arguments], env=environment, stdout=log, stderr=log
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def landed_to(database_url: str, world: str) -> datetime | None:
    rows = watermark_rows(database_url, world)
    return min(rows) if len(rows) == 18 else None


def business(records: list[Record]) -> dict[str, set[tuple[Any, ...]]]:
    """What the tables must hold of these records."""
    return {
        "prices": {(r.event_time, r.price_usd) for r in records if isinstance(r, Price)},
        "funding_rates": {(r.event_time, r.rate) for r in records if isinstance(r, FundingRate)},
        "open_interest": {(r.event_time, r.open_interest_base) for r in records if isinstance(r, OpenInterest)},
    }


def rows(database_url: str, world: str) -> dict[str, set[tuple[Any, ...]]]:
    """The same from the tables; a set hides no doubling, since the key is in it."""
    columns = {"prices": "price_usd", "funding_rates": "rate", "open_interest": "open_interest_base"}
    with psycopg.connect(database_url) as connection:
        connection.execute("SET timezone = 'UTC'")
        return {
            table: set(
                connection.execute(f"SELECT event_time, {column} FROM {table} WHERE world = %s", [world]).fetchall()  # noqa: S608
            )
            for table, column in columns.items()
        }


def test_killed_twice_during_a_recording_the_rows_are_those_of_the_recording(
    start_player: Start, database_url: str, kafka_server: str, topic_prefix: str, tmp_path: Path
) -> None:
    folder = tmp_path / "days"
    write_minute_lines(folder, "BTC", minutes(4 * 1440))
    recording = open_recording(folder, 60)
    world, first = recording.world.name, datetime(2026, 1, 1, tzinfo=UTC)
    play = ("--mode", "recorded", "--recording", str(folder), "--speed", "60000", "--once")
    with landing(database_url, kafka_server, topic_prefix):
        for day in (1, 2):
            process = start_player(*play)
            reached = first + timedelta(days=day)
            eventually(lambda at=reached: (landed_to(database_url, world) or first) > at, 120, f"day {day} landed")
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert (landed_to(database_url, world) or first) < first + timedelta(days=4)
        assert start_player(*play).wait(120) == 0
    land_all(database_url, kafka_server, topic_prefix)
    sent = [m for step in recording.steps(None) for m in step.messages if not isinstance(m, tuple)]
    assert rows(database_url, world) == business(sent)
    assert troubles(database_url) == (0, 0)
    assert landed_to(database_url, world) == recording.world.last_time


def test_killed_in_a_simulated_world_it_goes_on_in_the_same_one(
    start_player: Start, new_home: Path, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    """At full speed the simulation runs far ahead of the clock on the wall; each start goes on from what has landed."""
    now = datetime.now(UTC)
    epoch = now - timedelta(seconds=now.timestamp() % 300, hours=2)
    made = Simulation(
        seed="kill",
        epoch=epoch,
        symbols=("BTC",),
        model_version=MODEL_VERSION,
        history_hours=2,
        generated_to=epoch,
    )
    simulated_world.save(new_home, made)
    with landing(database_url, kafka_server, topic_prefix):
        for hours in (1, 4):
            process = start_player("--mode", "simulated", "--speed", "7200")
            reached = epoch + timedelta(hours=hours)
            eventually(lambda at=reached: (landed_to(database_url, made.name) or epoch) > at, 120, f"{hours} h landed")
            process.send_signal(signal.SIGKILL)
            process.wait()
    land_all(database_url, kafka_server, topic_prefix)
    end = landed_to(database_url, made.name)
    assert end is not None
    expected = itertools.takewhile(lambda step: step.time <= end, SimulatedSource(made).steps(None))
    messages = [message for step in expected for message in step.messages]
    beats = sum(isinstance(message, tuple) for message in messages)
    found = counts(database_url, made.name)
    # Beyond the last landed watermark there may be records of a batch whose watermark was never sent.
    with psycopg.connect(database_url) as connection:
        beyond = sum(
            connection.execute(f"SELECT count(*) FROM {table} WHERE known_at > %s", [end]).fetchone()[0]  # type: ignore[index] # noqa: S608
            for table in found
        )
    assert sum(found.values()) - beyond == len(messages)
    assert found["heartbeats"] >= beats > 0
    assert troubles(database_url) == (0, 0)


def test_told_to_stop_it_ends_cleanly_and_says_nothing_is_finished(
    start_player: Start, database_url: str, tmp_path: Path
) -> None:
    write_minute_lines(tmp_path / "day", "BTC", minutes(600))
    process = start_player("--mode", "recorded", "--recording", str(tmp_path / "day"), "--speed", "1")
    eventually(lambda: _is_active(database_url, "recorded/day"), 60, "the world is registered")
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == 0


def test_kafka_may_be_away_for_a_while_and_nothing_is_skipped(
    new_home: Path, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_minute_lines(tmp_path / "day", "BTC", minutes(3000))
    recording = open_recording(tmp_path / "day", 60)
    broker = EmbeddedKafka(new_home, free_port(), memory_mb=256)
    broker.start()
    try:
        ensure_topics(broker.bootstrap_servers, "")
        player = Player(
            recording,
            servers=broker.bootstrap_servers,
            topic_prefix="",
            landed_to=lambda: None,
            speed=30_000.0,  # 3,000 minutes in 6 s
            stop_event=threading.Event(),
            delivery_seconds=6.0,
        )
        results: list[PlayResult] = []
        thread = threading.Thread(target=lambda: results.append(player.run(None)))
        thread.start()
        eventually(lambda: player.sent > 1000, 60, "some of it sent")
        broker.stop()
        eventually(lambda: "Kafka is not available" in caplog.text, 120, "the player noticed and said so")
        broker.start()
        thread.join(120)
        assert results
        assert results[0].finished
        assert results[0].messages == 9000
        land_all(database_url, broker.bootstrap_servers, "")
    finally:
        broker.stop()
    sent = [m for step in recording.steps(None) for m in step.messages if not isinstance(m, tuple)]
    assert rows(database_url, recording.world.name) == business(sent)
    assert troubles(database_url) == (0, 0)


def _is_active(database_url: str, world: str) -> bool:
    with psycopg.connect(database_url) as connection:
        return connection.execute("SELECT 1 FROM worlds WHERE world = %s AND is_active", [world]).fetchone() is not None
