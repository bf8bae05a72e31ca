"""Growth per day and days until the disk is full: from sizes that were measured, never guessed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from pydantic import ValidationError

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.bus.size import log_bytes
from liq_pipeline.operations import growth
from liq_pipeline.operations.doctor import _growth
from liq_pipeline.operations.status import Status
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline.store.schema import sizes
from liq_pipeline_tests.landing_support import price, select

NOW = datetime(2026, 6, 10, 12, tzinfo=UTC)
MIB = 1024**2
DAY = timedelta(days=1)


class Usage(NamedTuple):
    free: int


@pytest.fixture
def embedded(settings: Callable[..., Settings]) -> Settings:
    """Settings of a home that holds its servers' data."""
    made = settings()
    (made.home / "postgres" / "data").mkdir(parents=True)
    (made.home / "kafka").mkdir()
    return made


def keep(url: str, part: sizes.Part, *samples: tuple[datetime, int]) -> None:
    with connect(url) as conn:
        for at, size in samples:
            sizes.keep(conn, {part: size}, at)


def test_a_day_keeps_its_newest_size(database_url: str) -> None:
    keep(database_url, "kafka", (NOW, 5), (NOW + timedelta(hours=1), 7), (NOW + DAY, 9))
    assert select(database_url, "SELECT day, size_bytes FROM storage_samples ORDER BY day") == [
        (NOW.date(), 7),
        ((NOW + DAY).date(), 9),
    ]


def test_growth_is_told_after_a_day_and_over_thirty_at_most(database_url: str) -> None:
    keep(database_url, "postgres", (NOW - 200 * DAY, 1), (NOW - 20 * DAY, 100 * MIB), (NOW, 500 * MIB))
    keep(database_url, "kafka", (NOW - timedelta(hours=13), 10 * MIB), (NOW, 20 * MIB))
    with connect(database_url) as conn:
        kafka, postgres = sizes.growth(conn, NOW)
    assert kafka.bytes_per_day is None
    assert (postgres.size_bytes, postgres.bytes_per_day) == (500 * MIB, 20 * MIB)
    assert postgres.since == NOW - 20 * DAY
    assert growth.words(postgres) == "500 MiB, +20 MiB a day since 2026-05-21"
    assert growth.words(kafka) == "20 MiB; growth is told after a day"


def test_days_until_the_disk_is_full_add_the_parts_that_grow_on_it(
    database_url: str, embedded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=3000 * MIB))
    keep(database_url, "postgres", (NOW - 10 * DAY, 0), (NOW, 1000 * MIB))
    keep(database_url, "dagster", (NOW - 10 * DAY, 0), (NOW, 2000 * MIB))
    keep(database_url, "kafka", (NOW - 10 * DAY, 900 * MIB), (NOW, 100 * MIB))
    with connect(database_url) as conn:
        found = growth.storage(conn, embedded, NOW)
    assert found.days_until_full == pytest.approx(10), "what shrinks does not lend its room for ever"
    assert found.problems() == ["At the growth of the last days the disk is full in 10 days."]
    assert growth.room_words(found) == "2.9 GiB free, full in 10 days"
    assert growth.Storage.from_dict(found.as_dict()) == found
    status = dataclasses.asdict(Status(storage=found.as_dict()))
    assert {"parts", "disk_free_bytes", "days_until_full"} == status["storage"].keys()


def test_little_room_is_a_problem_before_any_growth_is_known(
    database_url: str, embedded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=200 * MIB))
    with connect(database_url) as conn:
        found = growth.storage(conn, embedded, NOW)
    assert found.days_until_full is None
    assert found.problems() == ["The disk has only 200 MiB left: landing stops when it is full."]


def test_a_part_whose_growth_is_not_known_yet_forbids_a_forecast(database_url: str, embedded: Settings) -> None:
    keep(database_url, "postgres", (NOW - 10 * DAY, 0), (NOW, 1000 * MIB))
    keep(database_url, "kafka", (NOW, 100 * MIB))
    with connect(database_url) as conn:
        assert growth.storage(conn, embedded, NOW).days_until_full is None


def test_the_disks_of_one_s_own_servers_are_not_guessed(database_url: str, settings: Callable[..., Settings]) -> None:
    keep(database_url, "postgres", (NOW - 10 * DAY, 0), (NOW, 1000 * MIB))
    with connect(database_url) as conn:
        found = growth.storage(conn, settings(), NOW)
    assert (found.disk_free_bytes, found.days_until_full, found.problems()) == (None, None, [])
    assert "cannot be seen" in growth.room_words(found)


def test_doctor_says_what_retention_takes_away(settings: Callable[..., Settings]) -> None:
    [kept] = _growth(settings(), {})
    assert kept.detail == "raw data, scores, signals and alerts are kept for ever"
    [dropped] = _growth(settings(retention_days=60), {})
    assert "can no longer be replayed" in dropped.detail
    with pytest.raises(ValidationError, match="35"):
        settings(retention_days=7)


def test_kafka_and_the_database_tell_their_size(database_url: str, kafka_server: str, topic_prefix: str) -> None:
    before = log_bytes(kafka_server)
    with RecordProducer(kafka_server, topic_prefix) as producer:
        for second in range(500):
            producer.send(price(second))
        producer.flush()
    assert log_bytes(kafka_server) > before
    with connect(database_url) as conn:
        assert sizes.measure_own(conn) > 5 * MIB
