"""What the player sends is what lands: exactly, at any speed, in one go or in several."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from liq_pipeline.bus.topics import IN_TOPICS, PARTITIONS
from liq_pipeline.settings import Settings
from liq_pipeline.sources.playing.playable import Step
from liq_pipeline.sources.playing.player import Player, PlayResult, play
from liq_pipeline.sources.recorded.formats import open_recording
from liq_pipeline.sources.recorded.native import RecordingWriter
from liq_pipeline.sources.recorded.recording import Selection
from liq_pipeline.sources.simulated.source import SimulatedSource
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.player_support import (
    counts,
    eventually,
    fingerprint,
    land_all,
    landing,
    minutes,
    simulation,
    troubles,
    watermark_rows,
    write_minute_lines,
)

SettingsMaker = Callable[..., Settings]


@pytest.fixture
def player_settings(
    settings: SettingsMaker, database_url: str, kafka_server: str, topic_prefix: str
) -> Callable[..., Settings]:
    def make(**values: object) -> Settings:
        addresses = {
            "database_url": database_url,
            "kafka_bootstrap_servers": kafka_server,
            "kafka_topic_prefix": topic_prefix,
        }
        return settings(**{**addresses, **values})

    return make


def play_recording(settings: Settings, folder: Path, speed: float | None = None) -> PlayResult:
    return play(settings, mode="recorded", recording=folder, speed=speed, once=True, stop_event=threading.Event())


def test_every_record_of_the_ten_recorded_days_lands_once(
    player_settings: SettingsMaker, shared_data: Path, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    folder = shared_data / "recording-hyperliquid-1m"
    with landing(database_url, kafka_server, topic_prefix):
        result = play_recording(player_settings(), folder)
    land_all(database_url, kafka_server, topic_prefix)
    rows = counts(database_url, result.world)
    assert result.messages == 85_656
    assert (rows["prices"], rows["funding_rates"], rows["open_interest"]) == (28_552, 28_552, 28_552)
    assert sum(rows.values()) == 85_656
    assert troubles(database_url) == (0, 0)
    with connect(database_url) as connection:
        world = worlds.active(connection)
        assert world is not None
        assert worlds.clock(connection, world, datetime.now(UTC)) == world.last_time == result.played_to


def test_a_recording_ends_with_its_last_record_in_every_partition(
    player_settings: SettingsMaker, tmp_path: Path, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    write_minute_lines(tmp_path / "day", "BTC", minutes(90))
    result = play_recording(player_settings(), tmp_path / "day")
    land_all(database_url, kafka_server, topic_prefix)
    assert result.finished
    last = datetime(2026, 1, 1, 1, 29, 2, tzinfo=UTC)
    assert watermark_rows(database_url, result.world) == [last] * (len(IN_TOPICS) * PARTITIONS)


def test_two_speeds_bring_the_same_rows(
    player_settings: SettingsMaker,
    new_database_url: Callable[[], str],
    tmp_path: Path,
    kafka_server: str,
    topic_prefix: str,
) -> None:
    write_minute_lines(tmp_path / "day", "BTC", minutes(120))
    prints = []
    for speed in (None, 2400.0):
        url = new_database_url()
        result = play_recording(player_settings(database_url=url), tmp_path / "day", speed)
        land_all(url, kafka_server, topic_prefix)
        prints.append(fingerprint(url, result.world))
    assert prints[0] == prints[1]


def test_playing_again_what_has_landed_sends_nothing(
    player_settings: SettingsMaker, tmp_path: Path, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    write_minute_lines(tmp_path / "day", "BTC", minutes(30))
    play_recording(player_settings(), tmp_path / "day")
    land_all(database_url, kafka_server, topic_prefix)
    again = play_recording(player_settings(), tmp_path / "day")
    assert (again.messages, again.finished) == (0, True)


def test_the_player_goes_on_where_landing_stands_and_not_where_it_last_sent(
    player_settings: SettingsMaker, tmp_path: Path, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    write_minute_lines(tmp_path / "day", "BTC", minutes(60))
    first = play_recording(player_settings(), tmp_path / "day")  # sent, and nothing of it landed
    again = play_recording(player_settings(), tmp_path / "day")
    assert first.messages == again.messages == 180
    land_all(database_url, kafka_server, topic_prefix)
    assert sum(counts(database_url, first.world).values()) == 180
    assert troubles(database_url) == (0, 0)


def test_at_most_so_much_is_sent_beyond_what_has_landed(
    kafka_server: str, topic_prefix: str, tmp_path: Path, database_url: str
) -> None:
    write_minute_lines(tmp_path / "day", "BTC", minutes(24 * 60 * 8))
    recording = open_recording(tmp_path / "day", 60)
    landed: list[datetime | None] = [None]
    stop = threading.Event()
    player = Player(
        recording,
        servers=kafka_server,
        topic_prefix=topic_prefix,
        landed_to=lambda: landed[0],
        speed=None,
        stop_event=stop,
        max_ahead=12_000,
    )
    results: list[PlayResult] = []
    thread = threading.Thread(target=lambda: results.append(player.run(None)))
    thread.start()
    # Two batches of 10,000 fit before the bound of 12,000 is seen to be passed; then it waits.
    eventually(lambda: player.sent >= 20_000, 60, "two batches sent")
    assert not threading.Event().wait(1.5)
    assert player.sent < 22_000
    landed[0] = recording.world.last_time
    thread.join(60)
    assert results[0].finished
    assert results[0].messages == 3 * 24 * 60 * 8


def test_a_simulated_world_brings_all_six_kinds_and_lives_on_with_the_clock(
    player_settings: SettingsMaker, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    began = datetime.now(UTC)
    settings = player_settings(symbols=("BTC",), simulation_seed="seven")
    result = play(settings, mode="simulated", once=True, stop_event=threading.Event())
    assert result.world == "simulated/seven"
    assert result.played_to is not None
    assert began - timedelta(seconds=10) <= result.played_to <= datetime.now(UTC)
    with connect(database_url) as connection:
        active = worlds.active(connection)
    assert active is not None
    assert active.name == "simulated/seven"
    land_all(database_url, kafka_server, topic_prefix)
    rows = counts(database_url, result.world)
    assert min(rows.values()) > 1000
    assert troubles(database_url) == (0, 0)
    with psycopg.connect(database_url) as connection:
        span = connection.execute("SELECT min(event_time), max(event_time) FROM open_interest").fetchone()
    assert span is not None
    assert span[1] - span[0] > timedelta(days=29, hours=23)
    # A second start goes on in the same world.
    again = play(settings, mode="simulated", once=True, stop_event=threading.Event())
    assert again.world == result.world
    assert again.played_to is None or again.played_to >= result.played_to


def test_what_the_simulator_writes_as_a_recording_plays_back_the_same(
    player_settings: SettingsMaker, tmp_path: Path, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    source = SimulatedSource(simulation(symbols=("BTC",)))
    sent = 0
    with RecordingWriter(tmp_path / "made", source.world) as writer:
        for step in _some_steps(source, 400):
            for message in step.messages:
                writer.write(message)
                sent += 1
    result = play_recording(player_settings(), tmp_path / "made")
    land_all(database_url, kafka_server, topic_prefix)
    assert result.world == "recorded/made"
    assert result.messages == sent == sum(counts(database_url, result.world).values())
    assert troubles(database_url) == (0, 0)


def test_a_selection_is_a_world_of_its_own(
    player_settings: SettingsMaker, tmp_path: Path, database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    write_minute_lines(tmp_path / "day", "BTC", minutes(60))
    write_minute_lines(tmp_path / "day", "ETH", minutes(60, price=10.0))
    selection = Selection(symbols=("ETH",), start=datetime(2026, 1, 1, 0, 30, tzinfo=UTC))
    result = play(
        player_settings(),
        mode="recorded",
        recording=tmp_path / "day",
        speed=None,
        once=True,
        stop_event=threading.Event(),
        selection=selection,
    )
    land_all(database_url, kafka_server, topic_prefix)
    assert result.world == "recorded/day.ETH.20260101T0030-"
    assert counts(database_url, result.world)["prices"] == 30


def _some_steps(source: SimulatedSource, count: int) -> list[Step]:
    steps = []
    for step in source.steps(None):
        steps.append(step)
        if len(steps) == count:
            break
    return steps
