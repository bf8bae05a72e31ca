"""The whole tick from Kafka: two ways of batching one recording give identical rows, and late rows are only counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.records import FundingRate, Heartbeat, Liquidation, LongShortRatio, OpenInterest, Price, Record
from liq_pipeline.pipeline.rescore import rescore
from liq_pipeline.pipeline.tick import TickContext, TickResult, run_tick
from liq_pipeline.settings import RiskSettings, Settings
from liq_pipeline.sources.playing.player import play
from liq_pipeline.sources.recorded.formats import open_recording
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.player_support import eventually, minutes, write_minute_lines
from liq_pipeline_tests.scoring_support import BUSINESS, START, Feed, business_hash, make_world, write

SHORT = RiskSettings(lookback_hours=48, min_lookback_hours=12)


def context(database_url: str, servers: str, prefix: str, now: datetime | None = None) -> TickContext:
    return TickContext(
        database_url=database_url,
        bootstrap_servers=servers,
        topic_prefix=prefix,
        settings=Settings(risk=SHORT),
        wall_now=lambda: now or datetime.now(UTC),
    )


def tick_to_the_end(run: TickContext, until: datetime) -> list[TickResult]:
    """Tick until the point at `until` is scored."""
    results = [run_tick(run)]
    deadline = datetime.now(UTC) + timedelta(seconds=120)
    while results[-1].last_time is None or results[-1].last_time < until:
        assert datetime.now(UTC) < deadline, f"not scored up to {until} in time"
        results.append(run_tick(run))
    return results


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """50 hours of two coins, a line a minute."""
    folder = tmp_path / "two-days"
    for symbol, price in (("BTC", 60_000.0), ("ETH", 3_000.0)):
        lines = minutes(50 * 60, price=price)
        for number, line in enumerate(lines):
            line["funding"] = 1e-5 + 1e-7 * (number * 7919 % 101)
            line["oi"] = 1000.0 + number * 104_729 % 997 / 10
            line["mark"] = price * (1 + number * 7907 % 503 / 1e5)
        write_minute_lines(folder, symbol, lines)
    return folder


def test_a_recording_scored_while_it_is_played_equals_one_scored_when_all_has_landed(
    recording: Path, new_database_url: Callable[[], str], kafka_server: str, topic_prefix: str
) -> None:
    played = open_recording(recording, 60).world
    assert played.last_time is not None
    end = played.last_time.replace(second=0, microsecond=0)
    while_playing, afterwards = new_database_url(), new_database_url()
    first = context(while_playing, kafka_server, topic_prefix)
    settings = Settings(
        database_url=while_playing,  # type: ignore[arg-type]
        kafka_bootstrap_servers=kafka_server,
        kafka_topic_prefix=topic_prefix,
    )
    player = threading.Thread(
        target=play,
        args=(settings,),
        kwargs={
            "mode": "recorded",
            "recording": recording,
            "speed": None,
            "once": True,
            "stop_event": threading.Event(),
        },
    )
    player.start()
    try:
        eventually(lambda: run_tick(first, land=False).world is not None, 60, "the player registers its world")
        several = tick_to_the_end(first, end)
    finally:
        player.join()
    with connect(afterwards) as conn:
        worlds.register(conn, played, activate=True)
    tick_to_the_end(context(afterwards, kafka_server, topic_prefix), end)
    one, other = business_hash(while_playing), business_hash(afterwards)
    assert one == other
    points = sum(result.points_scored for result in several)
    assert points == 50 * 60 - 1  # every minute after the first record's
    assert one["liquidation_risk"].endswith(f" {2 * points} rows")
    with connect(afterwards) as conn:
        known = conn.execute("SELECT count(*), min(time), max(coverage) FROM liquidation_risk WHERE score IS NOT NULL")
        count, since, coverage = known.fetchone() or (0, None, None)
    assert (count, coverage) == (2 * 120, 0.6)
    assert since == datetime(2026, 1, 3, tzinfo=UTC)


def live(time: datetime, price: float, *, received: datetime | None = None) -> list[Record]:
    """One round of a live venue."""
    common: dict[str, Any] = {
        "schema_version": 1, "event_time": time, "received_at": received or time, "origin": "live", "world": "real",
        "venue": "alpha", "symbol": "BTC",
    }  # fmt: skip
    return [
        Price(**common, price_usd=price),
        FundingRate(**common, kind="predicted", rate=1e-4, interval_hours=8),
        OpenInterest(**common, open_interest_base=price * 10),
        LongShortRatio(**common, kind="accounts", period_minutes=5, long_share=0.5, short_share=0.5, ratio=1.0),
        Liquidation(
            **common, event_id=str(time), liquidated_side="long", price_usd=price, quantity_base=1, notional_usd=price,
            is_sample=False, source_topic="test",
        ),
    ]  # fmt: skip


def send(producer: RecordProducer, records: list[Record]) -> None:
    for record in records:
        producer.send(record)
    time = records[0].event_time
    beat = Heartbeat(schema_version=1, event_time=time, received_at=time, origin="live", world="real", venue="alpha")
    producer.send_heartbeat("liquidations", beat)
    producer.flush()


def test_rows_that_land_after_their_point_was_scored_are_counted_and_change_no_score(
    database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    with connect(database_url) as conn:
        make_world(
            conn, "real", symbols=("BTC",), venues=("alpha",), first_time=None, cadence_seconds=10, step_seconds=10
        )
        write(conn, Feed("real", ("BTC",), ("alpha",), START - timedelta(hours=76), START, origin="archive"))
    start, ten = START + timedelta(minutes=1), timedelta(seconds=10)
    first = context(database_url, kafka_server, topic_prefix, now=start)
    second = context(database_url, kafka_server, topic_prefix, now=start + ten)
    tables = ["liquidation_risk", "signals"]
    with RecordProducer(kafka_server, topic_prefix) as producer:
        send(producer, live(start - timedelta(seconds=4), 100.0))
        before = run_tick(first)
        assert before.points_scored == 1
        assert before.landing.rows_landed == 5
        assert before.scores["BTC"] is not None
        scored = business_hash(database_url, tables=tables)
        # Received in time, delivered late: Kafka was away for a moment, say.
        send(producer, live(start - timedelta(seconds=1), 500.0))
        after = run_tick(second)
    assert (after.points_scored, after.late_rows) == (1, 5)
    assert business_hash(database_url, until=start, tables=tables) == scored
    assert after.scores["BTC"] != before.scores["BTC"]
    result = rescore(database_url, first.settings, start, start)
    assert (result.risks, result.changed) == (1, 0)
    with connect(database_url) as conn:
        late = conn.execute("SELECT time, late_rows FROM ticks WHERE stream = 'market' ORDER BY time").fetchall()
        columns = BUSINESS["liquidation_risk"].replace("revision, ", "")
        revisions = conn.execute(
            f"SELECT {columns} FROM liquidation_risk WHERE time = %s ORDER BY revision",  # type: ignore[arg-type] # noqa: S608
            [start],
        ).fetchall()
    assert late == [(start, 0), (start + ten, 5)]
    assert len(revisions) == 2
    assert revisions[0] == revisions[1]
