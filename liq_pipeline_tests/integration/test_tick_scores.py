"""The tick on a real database: what it writes, what silence does; neither batching nor a crash changes a row."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest

from liq_pipeline.pipeline import tick
from liq_pipeline.pipeline.tick import TickContext, TickResult, run_tick
from liq_pipeline.scoring import features
from liq_pipeline.scoring.bars import points_on_bars
from liq_pipeline.scoring.references import build_references
from liq_pipeline.scoring.risk import risk_arrays
from liq_pipeline.settings import PressureSettings, RiskSettings, Settings, SeveritySettings
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline.store.inputs.as_known import build_bars
from liq_pipeline.store.inputs.expected_sources import scope_of
from liq_pipeline_tests.player_support import eventually
from liq_pipeline_tests.scoring_support import (
    FIVE_MINUTES,
    MARKET_TOPICS,
    NO_ROWS,
    START,
    Feed,
    business_hash,
    make_world,
    set_clock,
    write,
    write_flow,
    write_heartbeats,
)

SYMBOLS = ("BTC", "ETH")
VENUES = ("alpha", "beta")
MINUTE = timedelta(minutes=1)
# Four days of history instead of thirty keep a test within seconds; what is tested does not depend on the length.
SHORT = Settings(risk=RiskSettings(lookback_hours=96, min_lookback_hours=24))
HISTORY = timedelta(hours=96 + 26)


def score(database_url: str, *, settings: Settings = SHORT, now: datetime | None = None) -> TickResult:
    """One tick over what has landed."""
    context = TickContext(
        database_url=database_url,
        bootstrap_servers="",
        topic_prefix="",
        settings=settings,
        dagster_run_id="run-1",
        wall_now=lambda: now or datetime.now(UTC),
    )
    return run_tick(context, land=False)


def fill(
    conn: psycopg.Connection[Any],
    world: str = "recorded/test",
    *,
    hours: float = 1.0,
    until: dict[tuple[str, str], timedelta] | None = None,
    flow_venue: str | None = "chain",
) -> None:
    """History in 5-min steps up to START, then every minute. until: (venue, topic) -> when it falls silent."""
    end = START + timedelta(hours=hours)
    for venue in VENUES:
        for topic in MARKET_TOPICS:
            feed = Feed(world, SYMBOLS, (venue,), START - HISTORY, START, topics=(topic,))
            write(conn, feed)
            stop = START + (until or {}).get((venue, topic), timedelta(hours=hours))
            write(conn, replace(feed, first=START, last=min(stop, end), step=MINUTE))
    if flow_venue is not None:
        history = Feed(world, (), (flow_venue,), START - HISTORY, START)
        write_heartbeats(conn, history, "stablecoin_flows")
        write_heartbeats(conn, replace(history, first=START, last=end, step=MINUTE), "stablecoin_flows")
        hour = START - timedelta(hours=95)
        number = 0
        while hour < end:
            for direction, amount in (("inflow", 1000 + 37 * number % 991), ("outflow", 1000 + 53 * number % 997)):
                write_flow(conn, world, hour + MINUTE * (number % 50), f"{amount}.25", direction, number=number)
                number += 1
            hour += timedelta(minutes=30)


def rows(database_url: str, query: str) -> list[tuple[Any, ...]]:
    with connect(database_url) as conn:
        return conn.execute(query).fetchall()  # type: ignore[arg-type]


@pytest.fixture
def market(database_url: str) -> str:
    """One hour of a healthy market after its history, and a clock at its end."""
    with connect(database_url) as conn:
        world = make_world(conn, flow_venues=("chain",))
        fill(conn)
        set_clock(conn, world, START + timedelta(hours=1))
    return database_url


class TestOneHour:
    def test_every_minute_of_every_symbol_gets_a_score_and_a_signal(self, market: str) -> None:
        result = score(market)
        assert (result.points_due, result.points_scored, result.flow_points_scored) == (60, 60, 60)
        assert (result.points_left, result.points_missed, result.skipped) == (0, 0, None)
        assert (result.first_time, result.last_time) == (START + MINUTE, START + timedelta(hours=1))
        assert result.lag_seconds == 0
        assert result.coverage == {"BTC": 1.0, "ETH": 1.0}
        assert rows(market, "SELECT count(*), count(score) FROM liquidation_risk") == [(120, 120)]
        assert rows(market, "SELECT count(*), count(risk), count(pressure) FROM signals") == [(120, 120, 120)]
        assert rows(market, "SELECT stream, count(*) FROM ticks GROUP BY 1 ORDER BY 1") == [
            ("flows", 60),
            ("market", 60),
        ]

    def test_the_points_add_up_to_the_score_and_the_inputs_say_where_each_came_from(self, market: str) -> None:
        score(market)
        for row in rows(
            market,
            "SELECT score, score_high, side, funding_points + open_interest_points + long_short_points"
            " + liquidation_points, long_squeeze, short_squeeze, inputs FROM liquidation_risk",
        ):
            total, high, side, points, long, short, inputs = row
            assert total == pytest.approx(points, abs=1e-9)
            assert total == max(long, short) == high
            assert side == ("long" if long >= short else "short")
            for component in ("funding", "open_interest", "long_short", "liquidation"):
                assert set(inputs[component]["venues"]) == set(VENUES)
                assert all(v["state"] == "counted" for v in inputs[component]["venues"].values())
        assert len({row[0] for row in rows(market, "SELECT score FROM liquidation_risk")}) > 50

    def test_a_second_tick_finds_nothing_due_and_changes_nothing(self, market: str) -> None:
        score(market)
        before = business_hash(market)
        again = score(market)
        assert (again.points_scored, again.skipped) == (0, "no grid point is due")
        assert business_hash(market) == before

    def test_the_pressure_of_an_hour_is_its_net_user_flow_to_the_cent(self, market: str) -> None:
        score(market)
        time, inflow, outflow, value, scale = rows(
            market,
            "SELECT time, inflow_usd, outflow_usd, score, (inputs ->> 'scale_usd')::float8"
            " FROM stablecoin_pressure ORDER BY time DESC LIMIT 1",
        )[0]
        expected = {"inflow": Decimal(0), "outflow": Decimal(0)}
        for event_time, direction, amount in rows(market, "SELECT event_time, direction, amount FROM stablecoin_flows"):
            if time - timedelta(hours=1) < event_time <= time:
                expected[direction] += amount
        assert (inflow, outflow) == (float(expected["inflow"]), float(expected["outflow"]))
        assert inflow > 0
        assert value == pytest.approx(max(-100.0, min(100.0, 100 * (outflow - inflow) / scale)))

    def test_every_signal_is_queued_for_kafka_in_the_same_transaction(self, market: str) -> None:
        result = score(market)
        assert rows(market, "SELECT count(*) FROM outbox WHERE topic = 'signals'") == [(60,)]
        assert result.outbox_due >= 60

    def test_a_signal_names_its_severity_by_risk_and_pressure(self, market: str) -> None:
        score(market, settings=SHORT.model_copy(update={"pressure": PressureSettings(scale_usd=1e-2)}))
        seen = rows(market, "SELECT risk, pressure, severity FROM signals")
        assert {pressure for _, pressure, _ in seen} >= {-100.0, 100.0}
        for risk, pressure, severity in seen:
            expected = "INFO" if risk > 30 else "NONE"
            if risk > 50 and pressure < 0:
                expected = "WARNING"
            if risk > 70 and pressure < -30:
                expected = "CRITICAL"
            assert severity == expected


class TestBatching:
    def test_one_tick_or_many_write_identical_rows(self, new_database_url: Callable[[], str]) -> None:
        """Two speeds of one recording: the clock of one jumps to the end, that of the other creeps."""
        hashes = []
        for steps in ([150], [1, 2, 30, 31, 90, 91, 150]):
            database_url = new_database_url()
            with connect(database_url) as conn:
                world = make_world(conn, flow_venues=("chain",))
                fill(conn, hours=3)
            for minutes in steps:
                with connect(database_url) as conn:
                    set_clock(conn, world, START + minutes * MINUTE)
                assert score(database_url).points_left == 0
            hashes.append(business_hash(database_url))
        assert hashes[0] == hashes[1]
        assert hashes[0]["liquidation_risk"].endswith(" 300 rows")

    def test_a_tick_without_time_leaves_the_rest_to_the_next(self, database_url: str) -> None:
        with connect(database_url) as conn:
            world = make_world(conn)
            fill(conn, hours=3, flow_venue=None)
            set_clock(conn, world, START + timedelta(hours=3))
        context = TickContext(database_url=database_url, bootstrap_servers="", topic_prefix="", settings=SHORT)
        first = run_tick(context, land=False, time_limit_seconds=0)
        assert (first.points_due, first.points_scored, first.points_left) == (180, 60, 120)
        assert score(database_url).points_scored == 120


class TestCrash:
    @pytest.mark.parametrize(
        "table",
        [
            "flow_bars",
            "stablecoin_pressure",
            "feature_bars",
            "feature_references",
            "liquidation_risk",
            "signals",
            "ticks",
        ],
    )
    def test_whatever_fails_the_next_tick_repeats_it_cleanly(
        self, new_database_url: Callable[[], str], undisturbed: dict[str, str], table: str
    ) -> None:
        database_url = new_database_url()
        prepare(database_url)
        with connect(database_url) as conn:
            conn.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'the disk is on fire'; END $$"
            )
            conn.execute(f"CREATE TRIGGER refuse BEFORE INSERT ON {table} EXECUTE FUNCTION refuse()")  # type: ignore[arg-type]
        with pytest.raises(psycopg.errors.RaiseException, match="on fire"):
            score(database_url)
        assert set(business_hash(database_url).values()) == {NO_ROWS}
        with connect(database_url) as conn:
            conn.execute("DROP FUNCTION refuse CASCADE")
        score(database_url)
        assert business_hash(database_url) == undisturbed

    @pytest.fixture
    def undisturbed(self, new_database_url: Callable[[], str]) -> dict[str, str]:
        database_url = new_database_url()
        prepare(database_url)
        score(database_url)
        return business_hash(database_url)


def test_somebody_who_acknowledges_an_alert_meanwhile_makes_the_tick_decide_again(market: str) -> None:
    settings = SHORT.model_copy(update={"severity": SeveritySettings().model_copy(update={"info_risk": -1})})
    with connect(market) as conn:
        set_clock(conn, worlds.active(conn), START + 30 * MINUTE)  # type: ignore[arg-type]
    score(market, settings=settings)
    with connect(market) as conn:
        set_clock(conn, worlds.active(conn), START + 40 * MINUTE)  # type: ignore[arg-type]
    with connect(market) as person, ThreadPoolExecutor(1) as threads:
        updated = person.execute("UPDATE alerts SET acknowledged_at = now(), acknowledged_by = 'me'")
        assert updated.rowcount > 0
        running = threads.submit(score, market, settings=settings)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'liq tick' AND wait_event_type = 'Lock'"
        )
        eventually(lambda: rows(market, waiting) == [(1,)], 60, "the tick waits for the alert's row")
        person.commit()
        assert running.result().points_scored == 10
    assert rows(market, "SELECT count(*) FROM ticks WHERE stream = 'market'") == [(40,)]
    assert rows(market, "SELECT count(*) FROM liquidation_risk") == [(80,)]
    assert rows(market, "SELECT DISTINCT acknowledged_by FROM alerts") == [("me",)]


def prepare(database_url: str) -> None:
    with connect(database_url) as conn:
        world = make_world(conn, flow_venues=("chain",))
        fill(conn, hours=0.2)
        set_clock(conn, world, START + 12 * MINUTE)


class TestSilence:
    def test_a_silent_venue_lowers_coverage_raises_the_upper_end_and_is_named(
        self, new_database_url: Callable[[], str]
    ) -> None:
        newest = (
            "SELECT r.symbol, r.coverage, r.score_high, r.score, s.note FROM liquidation_risk r"
            " JOIN signals s USING (world, symbol, time) ORDER BY r.time DESC, 1 LIMIT 2"
        )
        found = []
        for until in ({}, {("beta", topic): timedelta(minutes=30) for topic in MARKET_TOPICS}):
            database_url = new_database_url()
            with connect(database_url) as conn:
                world = make_world(conn, flow_venues=("chain",))
                fill(conn, until=until)
                set_clock(conn, world, START + timedelta(hours=1))
            score(database_url)
            found.append(rows(database_url, newest))
        for healthy, half in zip(*found, strict=True):
            assert (healthy[1], half[1]) == (1.0, 0.5)
            assert half[2] > healthy[2]
            assert half[2] >= half[3]
            assert healthy[4] == ""
            for word in ("funding", "open interest", "long/short", "liquidations"):
                assert f"{word}: beta silent" in half[4]

    def test_when_all_are_silent_the_severity_is_unknown(self, database_url: str) -> None:
        with connect(database_url) as conn:
            world = make_world(conn, flow_venues=("chain",))
            silent = timedelta(minutes=10)
            fill(conn, until={(venue, topic): silent for venue in VENUES for topic in MARKET_TOPICS})
            set_clock(conn, world, START + timedelta(hours=1))
        result = score(database_url)
        assert result.scores == {"BTC": None, "ETH": None}
        newest = rows(
            database_url,
            "SELECT r.score, r.score_high, r.coverage, r.side, r.funding_points, s.severity, s.severity_possible,"
            " s.note FROM liquidation_risk r JOIN signals s USING (world, symbol, time) ORDER BY r.time DESC LIMIT 1",
        )[0]
        assert newest[:7] == (None, 100.0, 0.0, None, None, "UNKNOWN", "INFO")
        assert newest[7].startswith("coverage 0.00 is below 0.5: UNKNOWN")

    def test_without_flows_the_risk_decides_and_the_signal_says_that_the_flow_side_is_blind(
        self, database_url: str
    ) -> None:
        with connect(database_url) as conn:
            world = make_world(conn)
            fill(conn, flow_venue=None)
            set_clock(conn, world, START + timedelta(hours=1))
        score(database_url)
        assert rows(database_url, "SELECT DISTINCT pressure, flow_side_known, note FROM signals") == [
            (None, False, "flow side blind (no source of flows in this world)")
        ]
        assert rows(database_url, "SELECT count(*), count(score), max(coverage) FROM stablecoin_pressure") == [
            (60, 0, 0)
        ]

    def test_a_quiet_hour_of_a_living_feed_is_no_points_and_a_silent_feed_unknown(self, market: str) -> None:
        with connect(market) as conn:
            conn.execute("DELETE FROM liquidations WHERE event_time > %s", [START - timedelta(hours=2)])
            conn.execute(
                "DELETE FROM heartbeats WHERE topic = 'liquidations' AND event_time > %s", [START + 30 * MINUTE]
            )
        score(market)
        points = dict(rows(market, "SELECT time, liquidation_points FROM liquidation_risk WHERE symbol = 'BTC'"))
        assert points[START + 30 * MINUTE] == 0.0
        assert points[START + 33 * MINUTE] == 0.0  # three cadences of 60 s
        assert points[START + 34 * MINUTE] is None


class TestWarming:
    def test_a_young_world_says_how_far_it_is(self, database_url: str) -> None:
        with connect(database_url) as conn:
            world = make_world(conn)
            first = START - timedelta(hours=36)
            write(conn, Feed(world.name, SYMBOLS, VENUES, first, START + 10 * MINUTE, step=FIVE_MINUTES))
            set_clock(conn, world, START + 10 * MINUTE)
        score(database_url, settings=Settings(risk=RiskSettings(lookback_hours=96, min_lookback_hours=72)))
        note, severity = rows(database_url, "SELECT note, severity FROM signals ORDER BY time DESC LIMIT 1")[0]
        assert severity == "UNKNOWN"
        assert "funding warming: 1 of 3 days" in note
        assert "long/short warming: 1 of 3 days" in note

    def test_archives_that_arrive_later_warm_the_look_back_without_touching_a_score(self, database_url: str) -> None:
        now = START + 10 * MINUTE
        with connect(database_url) as conn:
            world = make_world(conn, "real", first_time=None, cadence_seconds=10.0, step_seconds=10)
            live = Feed("real", SYMBOLS, VENUES, now - 30 * MINUTE, now + 10 * MINUTE, timedelta(seconds=10))
            write(conn, replace(live, origin="live"))
        assert world.is_real
        cold = score(database_url, now=now)
        assert cold.points_scored == 1
        assert cold.scores == {"BTC": None, "ETH": None}
        before = business_hash(database_url, tables=["liquidation_risk", "signals"])
        with connect(database_url) as conn:
            archive = Feed(
                "real", SYMBOLS, VENUES, START - HISTORY, now - 30 * MINUTE, delay=timedelta(seconds=20),
                origin="archive", topics=("prices", "funding_rates", "open_interest", "long_short_ratio"),
            )  # fmt: skip
            write(conn, archive)
        warm = score(database_url, now=now + FIVE_MINUTES)
        assert warm.points_scored == 30
        assert warm.bars_built > 1000
        assert all(value is not None for value in warm.scores.values())
        assert business_hash(database_url, until=now, tables=["liquidation_risk", "signals"]) == before

    def test_archives_of_years_ago_cost_a_tick_no_bar(self, database_url: str) -> None:
        """A backfill of a year lands for hours beside the ticks; only what lies in the look-back is theirs."""
        now = START + 10 * MINUTE
        with connect(database_url) as conn:
            make_world(conn, "real", first_time=None, cadence_seconds=10.0, step_seconds=10)
            live = Feed("real", SYMBOLS, VENUES, now - 30 * MINUTE, now + 10 * MINUTE, timedelta(seconds=10))
            write(conn, replace(live, origin="live"))
        score(database_url, now=now)
        with connect(database_url) as conn:
            old = Feed(
                "real", SYMBOLS, VENUES, START - timedelta(days=400), START - timedelta(days=398),
                delay=timedelta(seconds=20), origin="archive",
            )  # fmt: skip
            write(conn, old)
        assert score(database_url, now=now + FIVE_MINUTES).bars_built == len(SYMBOLS) * len(VENUES)


def test_the_ticks_of_a_day_equal_one_pass_over_the_panel_bit_for_bit(database_url: str) -> None:
    """The live path (rows, kept bars, 60 points at a time) and the evaluation's (arrays) are one and the same score."""
    end = START + timedelta(hours=30)
    with connect(database_url) as conn:
        world = make_world(conn, cadence_seconds=300, step_seconds=300)
        write(conn, Feed(world.name, SYMBOLS, VENUES, START - HISTORY, end))
        set_clock(conn, world, end)
    assert score(database_url).points_left == 0
    stored = rows(
        database_url,
        "SELECT long_squeeze, short_squeeze, score, score_high, coverage FROM liquidation_risk ORDER BY symbol, time",
    )
    with connect(database_url) as conn:
        first = int((START - HISTORY).timestamp()) + 300
        bars = build_bars(conn, scope_of(world, SHORT.risk), first, (int(end.timestamp()) - first) // 300 + 1)
    index = np.arange(bars.count - len(stored) // 2, bars.count)
    points = points_on_bars(bars, index)
    days = np.unique(points.time_seconds // 86_400)
    references = build_references(bars, features.on_bars(bars), days, lookback_hours=96, min_lookback_hours=24)
    arrays = risk_arrays(bars, points, references, scope_of(world, SHORT.risk).expected, 0.5)
    columns = (arrays.long_squeeze, arrays.short_squeeze, arrays.score, arrays.score_high, arrays.coverage)
    assert len(stored) == 2 * 360
    assert np.isfinite(arrays.score).all()
    assert [tuple(row) for row in np.stack([c.ravel() for c in columns], axis=1).tolist()] == stored


class TestWorlds:
    def test_a_world_never_sees_anothers_rows(self, new_database_url: Callable[[], str]) -> None:
        """The same market alone, and beside a second one under the same symbols and venues."""
        hashes = []
        for is_crowded in (False, True):
            database_url = new_database_url()
            with connect(database_url) as conn:
                world = make_world(conn, flow_venues=("chain",))
                fill(conn, hours=0.5)
                if is_crowded:
                    other = make_world(conn, "recorded/other", flow_venues=("chain",), activate=False)
                    shift = timedelta(seconds=17)
                    history = Feed(other.name, SYMBOLS, VENUES, START - HISTORY + shift, START + shift, scale=3.0)
                    write(conn, history)
                    write(conn, replace(history, first=START + shift, last=START + 30 * MINUTE, step=MINUTE))
                    write_flow(conn, other.name, START + MINUTE, "99999999", "inflow", number=7)
                set_clock(conn, world, START + 30 * MINUTE)
            score(database_url)
            hashes.append(business_hash(database_url))
        assert hashes[0] == hashes[1]

    def test_what_becomes_known_after_a_time_changes_nothing_up_to_it(
        self, new_database_url: Callable[[], str]
    ) -> None:
        hashes = []
        for has_more in (False, True):
            database_url = new_database_url()
            with connect(database_url) as conn:
                world = make_world(conn, flow_venues=("chain",))
                fill(conn, hours=0.5)
                if has_more:
                    late = Feed(world.name, SYMBOLS, VENUES, START, START + 25 * MINUTE, timedelta(seconds=50))
                    write(conn, replace(late, delay=30 * MINUTE, scale=9.0))
                    known = START + 31 * MINUTE
                    write_flow(conn, world.name, START + MINUTE, "5e8", "inflow", number=7777, known_at=known)
                set_clock(conn, world, START + 30 * MINUTE)
            score(database_url)
            hashes.append(business_hash(database_url))
        assert hashes[0] == hashes[1]

    def test_in_the_real_world_current_values_are_live(self, database_url: str) -> None:
        now = START + 10 * MINUTE
        with connect(database_url) as conn:
            make_world(conn, "real", first_time=None, cadence_seconds=10.0, step_seconds=10)
            write(conn, Feed("real", SYMBOLS, VENUES, START - HISTORY, now, origin="archive"))
        assert score(database_url, now=now).coverage == {"BTC": 0.0, "ETH": 0.0}


class TestFlows:
    def test_directions_follow_the_labels_in_force_and_a_later_list_changes_no_past_score(
        self, database_url: str
    ) -> None:
        exchange, other = "0x" + "e" * 40, "0x" + "d" * 40
        with connect(database_url) as conn:
            world = make_world(conn, flow_venues=("chain",))
            fill(conn, hours=0.5)
            conn.execute("DELETE FROM stablecoin_flows WHERE event_time > %s", [START - timedelta(hours=2)])
            # First seen as nobody's: only the lists know the exchange.
            write_flow(conn, world.name, START + MINUTE, "1000.10", "other", sender=other, receiver=exchange, number=1)
            for version, known_at in (("one", START + 5 * MINUTE), ("two", START + 20 * MINUTE)):
                conn.execute("INSERT INTO wallet_label_lists VALUES (%s, %s)", [version, known_at])
            label = "INSERT INTO wallet_labels VALUES ('ethereum', %s, %s, %s, 'hot', 'test', NULL, NULL)"
            conn.execute(label, [exchange, "one", "binance"])
            conn.execute(label, [exchange, "two", "binance"])
            conn.execute(label, [other, "two", "binance"])
            set_clock(conn, world, START + 30 * MINUTE)
        score(database_url)
        inflow = dict(rows(database_url, "SELECT time, inflow_usd FROM stablecoin_pressure"))
        assert inflow[START + 4 * MINUTE] == 0.0  # no list yet: as first seen
        assert inflow[START + 5 * MINUTE] == 1000.10
        assert inflow[START + 19 * MINUTE] == 1000.10
        assert inflow[START + 20 * MINUTE] == 0.0  # both ends are one exchange now

    def test_a_transfer_of_an_orphaned_block_counts_until_the_re_org_was_known(self, database_url: str) -> None:
        with connect(database_url) as conn:
            world = make_world(conn, flow_venues=("chain",))
            fill(conn, hours=0.3)
            conn.execute("DELETE FROM stablecoin_flows WHERE event_time > %s", [START - timedelta(hours=2)])
            gone = START + 10 * MINUTE
            write_flow(conn, world.name, START + MINUTE, "500", "inflow", number=1, orphaned_known_at=gone)
            set_clock(conn, world, START + 15 * MINUTE)
        score(database_url)
        inflow = dict(rows(database_url, "SELECT time, inflow_usd FROM stablecoin_pressure"))
        assert (inflow[gone - MINUTE], inflow[gone]) == (500.0, 0.0)


class TestDuePoints:
    def test_a_recording_is_scored_from_its_first_grid_point_to_its_last(self, database_url: str) -> None:
        with connect(database_url) as conn:
            first, last = START + timedelta(seconds=29), START + timedelta(seconds=301)
            world = make_world(conn, first_time=first, last_time=last)
            set_clock(conn, world, START + timedelta(days=1))
        assert score(database_url).points_scored == 5
        assert rows(database_url, "SELECT min(time), max(time) FROM ticks WHERE stream = 'market'") == [
            (START + MINUTE, START + 5 * MINUTE)
        ]

    def test_a_point_is_not_due_before_every_partition_has_reached_it(self, database_url: str) -> None:
        with connect(database_url) as conn:
            world = make_world(conn)
            set_clock(conn, world, START + 3 * MINUTE)
            conn.execute(
                "UPDATE watermarks SET watermark = %s WHERE topic = 'prices' AND kafka_partition = 1", [START + MINUTE]
            )
        assert score(database_url).points_scored == 1
        with connect(database_url) as conn:
            conn.execute("DELETE FROM watermarks WHERE topic = 'liquidations' AND kafka_partition = 2")
        assert score(database_url).skipped == "recorded/test has no clock yet"

    def test_the_real_world_starts_now_and_catches_up_one_hour_at_most(self, database_url: str) -> None:
        with connect(database_url) as conn:
            make_world(conn, "real", first_time=None, step_seconds=10)
        assert score(database_url, now=START + timedelta(seconds=7)).points_scored == 1
        after = score(database_url, now=START + timedelta(hours=1, seconds=57))
        # 00:00:00 was scored; 00:00:10 to 00:00:50 are more than an hour old and stay missed.
        assert (after.points_missed, after.points_scored + after.points_left) == (5, 360)
        times = rows(database_url, "SELECT DISTINCT time FROM ticks ORDER BY time")
        assert [times[0][0], times[1][0]] == [START, START + timedelta(minutes=1)]

    def test_late_is_more_than_five_seconds_after_its_time(self, database_url: str) -> None:
        with connect(database_url) as conn:
            make_world(conn, "real", first_time=None, step_seconds=10)
        assert score(database_url, now=START + timedelta(seconds=5)).points_late == 0
        assert score(database_url, now=START + timedelta(seconds=24)).points_late == 1

    def test_two_ticks_of_one_world_never_run_at_once(self, market: str) -> None:
        with connect(market) as conn:
            assert tick._lock(conn, "recorded/test")
            assert score(market).skipped == "another tick of recorded/test is running"
        assert score(market).points_scored == 60

    def test_without_a_world_there_is_nothing_to_do(self, database_url: str) -> None:
        assert score(database_url).skipped == "no world is active"
