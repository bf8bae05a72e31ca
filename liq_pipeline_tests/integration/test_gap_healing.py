"""Healing, end to end: live records, a hole of two hours, what the venue still serves, and new revisions of the scores.

Records go through a real broker into a real database, ticks score them, and a local server is the venues' history.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.defs.heavy.healing import gap_healing
from liq_pipeline.defs.resources import Services
from liq_pipeline.domain.records import FundingRate, Heartbeat, LongShortRatio, OpenInterest, Price, Record
from liq_pipeline.pipeline import healing
from liq_pipeline.pipeline.healing import HealResult, heal
from liq_pipeline.pipeline.rescore_holes import SCORED_AS_HISTORY
from liq_pipeline.pipeline.tick import TickContext, run_tick
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.settings import RiskSettings, Settings, SourceSettings
from liq_pipeline.sources.history.catchup import catch_up
from liq_pipeline.sources.registry import real_world
from liq_pipeline.store import worlds
from liq_pipeline.store.completeness import gaps
from liq_pipeline.store.connection import connect
from liq_pipeline_tests import past_support as market
from liq_pipeline_tests.live_support import land_everything, rows, venue_server
from liq_pipeline_tests.past_support import HistoryServer, expected_rows

MakeSettings = Callable[..., Settings]
MINUTE = timedelta(minutes=1)
START = datetime(2024, 6, 3, 9, 0, tzinfo=UTC)
"""The first live row."""
DOWN = START + 20 * MINUTE
BACK = DOWN + timedelta(hours=2)
END = BACK + 20 * MINUTE
NOW = END + 15 * MINUTE
"""When the healing runs: the venues have published everything."""
VENUES = ("binance", "bybit")
SERVED = ("prices", "open_interest", "long_short_ratio")


@dataclass
class Installation:
    """A live installation whose polls are played: what it would have read goes into Kafka with the times of then."""

    database_url: str
    kafka: str
    settings: Settings
    venues: HistoryServer

    def start(self) -> None:
        with connect(self.database_url) as conn:
            worlds.register(conn, real_world(self.settings), activate=True)
        # Two days of past, so that percentiles stand when the first live row comes.
        done = catch_up(self.settings, self.database_url, self.kafka, START, look_back=timedelta(hours=52))
        assert done.failures == {}
        self.land()

    def live(self, first: datetime, last: datetime, *, without: tuple[str, ...] = ()) -> None:
        """Every 10 s in (first, last], from every venue but those; then the ticks of that time."""
        records: list[Record] = []
        moment = first + timedelta(seconds=10)
        while moment <= last:
            for venue in VENUES:
                if venue not in without:
                    records += polled(venue, moment)
            moment += timedelta(seconds=10)
        self.send(records)
        self.tick(last)

    def send(self, records: list[Record]) -> None:
        with RecordProducer(self.kafka, self.settings.kafka_topic_prefix) as producer:
            for record in records:
                if isinstance(record, Heartbeat):
                    producer.send_heartbeat("liquidations", record)
                else:
                    producer.send(record)
            producer.flush(timeout_seconds=30)
        self.land()

    def land(self) -> None:
        land_everything(self.database_url, self.kafka, self.settings.kafka_topic_prefix)

    def tick(self, wall_now: datetime) -> None:
        context = TickContext(
            database_url=self.database_url,
            bootstrap_servers=self.kafka,
            topic_prefix=self.settings.kafka_topic_prefix,
            settings=self.settings,
            wall_now=lambda: wall_now,
        )
        run_tick(context, land=False)

    def heal(self, now: datetime = NOW) -> HealResult:
        return heal(self.settings, self.database_url, self.kafka, now)

    def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        return rows(self.database_url, query, *parameters)

    def liq_gaps(self, home: Path, *arguments: str) -> list[dict[str, Any]]:
        """The lines of a `liq gaps` command."""
        done = subprocess.run(
            [sys.executable, "-m", "liq_pipeline.cli", "gaps", *arguments],
            env={
                "PATH": os.environ["PATH"],
                "LIQ_HOME": str(home),
                "LIQ_DATABASE_URL": self.database_url,
                "LIQ_KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def scores(self, revision: int) -> list[dict[str, Any]]:
        return self.rows(
            "SELECT * FROM liquidation_risk WHERE revision = %s AND time > %s ORDER BY time", revision, START
        )

    def ledger(self) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM ingest_gaps WHERE from_time >= %s ORDER BY source, kind, from_time", START)


def polled(venue: str, moment: datetime) -> list[Record]:
    """What a poll at the moment brings: ratios every five minutes, the newest settled rate every ten."""
    second = moment.timestamp()
    common: dict[str, Any] = {
        "schema_version": 1,
        "event_time": moment,
        "received_at": moment,
        "origin": "live",
        "world": "real",
        "venue": venue,
    }
    coins, price = market.interest(venue, second), market.price(venue, second)
    found: list[Record] = [
        Price(**common, symbol="BTC", price_usd=price),
        OpenInterest(**common, symbol="BTC", open_interest_base=coins, open_interest_usd=coins * price),
        Heartbeat(**common),
    ]
    if second % 60 == 0:
        rate = market.settled(venue, second)
        found.append(FundingRate(**common, symbol="BTC", kind="predicted", rate=rate, interval_hours=8.0))
    if second % 600 == 0:
        settlement = moment.replace(hour=moment.hour // 8 * 8, minute=0)
        rate = market.settled(venue, settlement.timestamp())
        of_then = {**common, "event_time": settlement}
        found.append(FundingRate(**of_then, symbol="BTC", kind="settled", rate=rate, interval_hours=8.0))
    if second % 300 == 0:
        share = market.long_share(venue, second)
        shares = {"long_share": share, "short_share": 1 - share, "ratio": share / (1 - share)}
        found.append(LongShortRatio(**common, symbol="BTC", kind="accounts", period_minutes=5, **shares))
    return found


@pytest.fixture
def installation(
    database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> Iterator[Installation]:
    with venue_server(*VENUES) as server:
        chosen = settings(
            mode="live",
            symbols=("BTC",),
            venues=VENUES,
            kafka_topic_prefix=topic_prefix,
            risk=RiskSettings(lookback_hours=24, min_lookback_hours=6),
            sources=SourceSettings(urls=server.urls() | {"coingecko": server.url("nobody")}, request_seconds=5),
        )
        yield Installation(database_url, kafka_server, chosen, HistoryServer(server, NOW))


@pytest.fixture
def interrupted(installation: Installation) -> Installation:
    """Live, two hours of nothing, live again. The tick that comes back scores the last hour of it, blind."""
    installation.start()
    installation.live(START, DOWN)
    installation.live(BACK, END)
    return installation


def test_two_hours_are_healed_and_scored_again(interrupted: Installation) -> None:
    first = interrupted.scores(0)
    blind = [score for score in first if BACK - 30 * MINUTE < score["time"] <= BACK]
    assert len(blind) == 180
    assert {(score["coverage"], score["score"]) for score in blind} == {(0.0, None)}
    signals = interrupted.rows("SELECT * FROM signals ORDER BY time, revision")

    result = interrupted.heal()

    assert result.failures == {}
    ledger = {(row["source"], row["kind"]): row for row in interrupted.ledger()}
    for venue in VENUES:
        for topic in SERVED:
            gap = ledger[f"{venue} {topic}", "accounts" if topic == "long_short_ratio" else None]
            assert (gap["cause"], gap["is_permanent"]) == (healing.STOPPED, False)
            assert gap["healed_at"] is not None
            assert gap["rescored_at"] is not None
            assert (gap["from_time"] - DOWN, gap["to_time"] - BACK) <= (timedelta(0), 5 * MINUTE)
        predicted = ledger[f"{venue} funding_rates", "predicted"]
        assert (predicted["permanent_reason"], predicted["healed_at"]) == (healing.NOT_SERVED, None)
    assert len(ledger) == 8
    # The series of an uninterrupted run, by value.
    for venue in VENUES:
        found = interrupted.rows(
            "SELECT event_time, open_interest_base FROM open_interest"
            " WHERE venue = %s AND event_time > %s AND event_time < %s ORDER BY 1",
            venue,
            DOWN,
            BACK,
        )
        expected = list(expected_rows(venue, "open_interest", DOWN, BACK - timedelta(seconds=1)))
        assert [(row["event_time"], row["open_interest_base"]) for row in found] == expected

    # Every old row stands as it was; the blind points have a second revision that sees.
    scored = {score["time"] for score in first}
    assert [score for score in interrupted.scores(0) if score["time"] in scored] == first
    kept = interrupted.rows("SELECT * FROM signals WHERE revision = 0 AND time = ANY(%s) ORDER BY time", [
        signal["time"] for signal in signals
    ])  # fmt: skip
    assert kept == signals
    current = interrupted.rows("SELECT * FROM liquidation_risk_current WHERE time > %s AND time <= %s", DOWN, BACK)
    seeing = [score for score in current if score["time"] > DOWN + 10 * MINUTE]
    assert {score["time"] for score in blind} <= {score["time"] for score in seeing}
    # All but the liquidations, whose past nobody serves.
    assert {round(score["coverage"], 6) for score in seeing} == {0.8}
    assert all(score["score"] is not None for score in seeing)
    assert {score["inputs"]["scored_as"] for score in seeing} == {SCORED_AS_HISTORY}
    assert {score["revision"] for score in seeing if score["time"] > END - timedelta(hours=1)} == {1}
    # Minutes that no tick scored have a first score now.
    unticked = [score for score in current if score["revision"] == 0]
    assert [score["time"].second for score in unticked] == [0] * len(unticked)
    assert len(unticked) == 79
    signal = interrupted.rows("SELECT risk FROM signals_current WHERE time = %s", blind[-1]["time"])
    assert signal[0]["risk"] == next(s["score"] for s in seeing if s["time"] == blind[-1]["time"])


def test_a_second_healing_finds_and_writes_nothing(interrupted: Installation) -> None:
    interrupted.heal()
    before = interrupted.rows("SELECT count(*) AS n, max(revision) AS r FROM liquidation_risk")
    result = interrupted.heal(NOW + 10 * MINUTE)
    assert (result.found, result.records, result.healed, result.permanent) == (0, {}, 0, 0)
    assert result.rescored is None
    assert interrupted.rows("SELECT count(*) AS n, max(revision) AS r FROM liquidation_risk") == before


def test_a_score_inside_the_hole_uses_nothing_that_was_known_later(interrupted: Installation) -> None:
    interrupted.heal()
    inside = BACK - 30 * MINUTE
    scored = interrupted.rows("SELECT * FROM liquidation_risk_current WHERE time = %s", inside)[0]
    ages = scored["inputs"]
    # Open interest of 10:45 is known at 10:50: the newest one that a score at 10:50 may use.
    known = interrupted.rows("SELECT max(event_time) AS t FROM open_interest WHERE known_at <= %s", inside)[0]["t"]
    assert inside - known == 5 * MINUTE
    told = [value for value in _find(ages, "age_seconds") if value is not None]
    assert min(told) >= 5  # the candle's close, five seconds after it


def _find(value: Any, name: str) -> list[Any]:
    if isinstance(value, dict):
        return [v for k, v in value.items() if k == name] + [x for v in value.values() for x in _find(v, name)]
    return [x for v in value for x in _find(v, name)] if isinstance(value, list) else []


def test_a_source_that_does_not_answer_keeps_its_gaps_open_and_others_heal(interrupted: Installation) -> None:
    interrupted.venues.away = {"bybit"}
    first = interrupted.heal()
    assert list(first.failures) == ["bybit"]
    states = {row["source"]: (row["healed_at"] is not None, row["is_permanent"]) for row in interrupted.ledger()}
    assert states["binance open_interest"] == (True, False)
    assert states["bybit open_interest"] == (False, False)
    interrupted.venues.away = set()
    second = interrupted.heal(NOW + 10 * MINUTE)
    assert (second.failures, second.found, second.left_open) == ({}, 0, 0)
    healed = [row for row in interrupted.ledger() if row["venue"] == "bybit" and row["healed_at"] is not None]
    assert [row["source"] for row in healed] == [f"bybit {topic}" for topic in sorted(SERVED)]
    assert second.rescored is not None
    assert second.rescored.written > 0  # one venue more is fresh
    with connect(interrupted.database_url) as conn:
        assert gaps.unhealed(conn) == []


def test_what_the_venue_serves_only_in_part_is_healed_in_part(interrupted: Installation) -> None:
    lost = (DOWN + 30 * MINUTE, DOWN + 60 * MINUTE)
    interrupted.venues.holes = {("bybit", "open_interest"): [lost]}
    interrupted.heal()
    parts = [row for row in interrupted.ledger() if row["source"] == "bybit open_interest"]
    assert [(row["from_time"], row["to_time"], row["permanent_reason"]) for row in parts] == [
        (DOWN, lost[0], None),
        (*lost, healing.NOTHING_THERE),
        (lost[1], BACK + timedelta(seconds=10), None),
    ]
    assert [row["healed_at"] is not None for row in parts] == [True, False, True]


def test_what_is_not_published_or_has_not_landed_yet_stays_open(
    interrupted: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted.venues.holes = {("bybit", "open_interest"): [(BACK - 10 * MINUTE, BACK)]}
    early = interrupted.heal(BACK + 5 * MINUTE)
    assert early.left_open > 0
    interrupted.venues.holes = {}
    with monkeypatch.context() as patched:
        patched.setattr(healing, "LAND_SECONDS", 0.0)  # a backlog: what the venues served waits in Kafka behind it
        waiting = interrupted.heal(NOW)
    assert waiting.records != {}
    assert waiting.failures.keys() == {"landing"}
    assert waiting.permanent == 0
    late = interrupted.heal(NOW)
    assert late.left_open == 0
    assert {row["permanent_reason"] for row in interrupted.ledger() if row["healed_at"] is None} == {healing.NOT_SERVED}


def test_a_venue_that_was_silent_while_others_spoke(installation: Installation) -> None:
    installation.start()
    installation.live(START, DOWN)
    silent_until = DOWN + 40 * MINUTE
    installation.live(DOWN, silent_until, without=("bybit",))
    installation.live(silent_until, silent_until + 20 * MINUTE)
    before = installation.rows("SELECT coverage FROM liquidation_risk WHERE time = %s", DOWN + 30 * MINUTE)
    installation.heal(silent_until + timedelta(hours=1))
    assert {row["cause"] for row in installation.ledger()} == {healing.SILENT}
    assert {row["venue"] for row in installation.ledger()} == {"bybit"}
    after = installation.rows("SELECT coverage FROM liquidation_risk_current WHERE time = %s", DOWN + 30 * MINUTE)
    # Liquidations are warming: what is known is half of the other three, then all of them.
    assert before[0]["coverage"] == pytest.approx(0.4)
    assert after[0]["coverage"] == pytest.approx(0.8)


def test_of_a_hole_of_years_only_what_the_venue_serves_is_asked_for(installation: Installation) -> None:
    """One row with a stamp of years ago, or a machine that was off for as long: not 235 pages, but those of 30 days."""
    with connect(installation.database_url) as conn:
        worlds.register(conn, real_world(installation.settings), activate=True)
    for moment in (START - timedelta(days=400), START):
        installation.send([one for one in polled("bybit", moment) if isinstance(one, LongShortRatio)])
    installation.venues.asked.clear()
    installation.heal(NOW)
    reach, page = timedelta(days=30), timedelta(minutes=5 * 490)
    asked = installation.venues.asked.count(("bybit", "/v5/market/account-ratio"))
    assert 0 < asked <= reach / page + 1
    stored = installation.rows("SELECT min(event_time) FROM long_short_ratio WHERE origin = 'archive'")[0]["min"]
    assert NOW - reach <= stored <= NOW - reach + 2 * timedelta(minutes=5)
    # What was never asked for is not said to be missing at the venue.
    old = installation.rows("SELECT * FROM ingest_gaps WHERE kind = 'accounts' AND is_permanent ORDER BY to_time")[-1]
    assert old["to_time"] <= NOW - reach + 2 * timedelta(minutes=5)
    assert old["permanent_reason"] == "older than the 30 days that the venue serves"


def test_a_hole_in_kafkas_own_log_is_closed_as_gone_with_its_reason(installation: Installation) -> None:
    installation.start()
    with connect(installation.database_url) as conn:
        number = gaps.record(
            conn, gaps.Gap(world="real", source="kafka:prices[0]", cause="the log lost its tail", from_offset=3)
        )
    result = installation.heal()
    assert result.permanent >= 1
    row = installation.rows("SELECT * FROM ingest_gaps WHERE gap_id = %s", number)[0]
    assert (row["is_permanent"], row["healed_at"], row["permanent_reason"]) == (True, None, healing.LOG_IS_GONE)


def test_a_healing_that_dies_before_the_scores_is_finished_by_the_next(
    interrupted: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(healing, "rescore_holes", _dies)
        with pytest.raises(SystemExit):
            interrupted.heal()
    assert interrupted.rows("SELECT max(revision) AS r FROM liquidation_risk")[0]["r"] == 0
    result = interrupted.heal(NOW + MINUTE)
    assert result.records == {}
    assert result.rescored is not None
    assert interrupted.rows("SELECT max(revision) AS r FROM liquidation_risk")[0]["r"] == 1


def _dies(*_: Any, **__: Any) -> None:
    raise SystemExit(9)


class OfThen(datetime):
    """The clock of the healing: today the venues' history of 2024 is out of reach, and nobody would be asked."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return NOW.astimezone(tz)


def test_dagsters_job_and_the_commands_say_what_was_done(
    interrupted: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing, "datetime", OfThen)
    with connect(interrupted.database_url) as conn:
        assert healing.is_due(interrupted.settings, conn, NOW)
    assert {gap["state"] for gap in interrupted.liq_gaps(tmp_path, "list", "--json")} == {"open"}
    endpoints = Endpoints(interrupted.database_url, interrupted.kafka, mode="live")
    done = gap_healing.execute_in_process(resources={"services": Services(interrupted.settings, endpoints)})
    assert done.success
    with connect(interrupted.database_url) as conn:
        assert not healing.is_due(interrupted.settings, conn, datetime.now(UTC))
    assert interrupted.liq_gaps(tmp_path, "list", "--json") == []
    listed = interrupted.liq_gaps(tmp_path, "list", "--all", "--json")
    assert {gap["state"] for gap in listed} == {"healed", "permanent"}
    assert {gap["permanent_reason"] for gap in listed if gap["state"] == "permanent"} >= {healing.NOT_SERVED}


def test_a_played_world_has_no_venue_to_ask(database_url: str, kafka_server: str, settings: MakeSettings) -> None:
    assert "only the real world" in str(heal(settings(), database_url, kafka_server, NOW))
