"""Re-scoring: the same bits when nothing changed, new revisions when something did, and nothing overwritten."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from liq_pipeline.errors import LiqError
from liq_pipeline.pipeline.rescore import RescoreResult, rescore, score_in_memory
from liq_pipeline.pipeline.tick import TickContext, run_tick
from liq_pipeline.scoring.probability import shipped_model
from liq_pipeline.settings import PressureSettings, RiskSettings, Settings
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.scoring_support import (
    START,
    Feed,
    make_world,
    set_clock,
    set_landed,
    write,
    write_flow,
    write_heartbeats,
)

SYMBOLS = ("BTC", "ETH")
VENUES = ("alpha", "beta")
MINUTE = timedelta(minutes=1)
SHORT = Settings(risk=RiskSettings(lookback_hours=72, min_lookback_hours=24))
HISTORY = timedelta(hours=72 + 26)
HALF_HOUR = START + 30 * MINUTE

RISK = (
    "symbol, time, score, score_high, side, funding_points, open_interest_points, long_short_points,"
    " liquidation_points, long_squeeze, short_squeeze, coverage, inputs"
)
SIGNAL = (
    "symbol, time, risk, pressure, severity, severity_possible, flow_side_known, note, baseline_volatility_percentile"
)
PRESSURE = "time, score, inflow_usd, outflow_usd, window_minutes, coverage, inputs"


def values(database_url: str, table: str, columns: str, revision: int) -> list[tuple[Any, ...]]:
    with connect(database_url) as conn:
        return conn.execute(
            f"SELECT {columns} FROM {table} WHERE revision = %s ORDER BY time, 1",  # type: ignore[arg-type] # noqa: S608
            [revision],
        ).fetchall()


def tick(database_url: str, settings: Settings = SHORT) -> None:
    context = TickContext(database_url=database_url, bootstrap_servers="", topic_prefix="", settings=settings)
    run_tick(context, land=False)


def again(database_url: str, settings: Settings = SHORT, **options: Any) -> RescoreResult:
    return rescore(database_url, settings, START, HALF_HOUR, **options)


@pytest.fixture
def scored(database_url: str) -> str:
    """Half an hour of a market, scored by three ticks between which rows landed."""
    with connect(database_url) as conn:
        world = make_world(conn, flow_venues=("chain",))
        history = Feed(world.name, SYMBOLS, VENUES, START - HISTORY, START)
        write(conn, history)
        flows = Feed(world.name, (), ("chain",), START - HISTORY, START)
        write_heartbeats(conn, flows, "stablecoin_flows")
        for number in range(90):
            direction = "inflow" if number % 3 else "outflow"
            write_flow(conn, world.name, START - number * 40 * MINUTE, f"{1000 + number}.5", direction, number=number)
    last = START
    for part, minutes in enumerate((11, 12, 30), start=1):
        upto = START + minutes * MINUTE
        with connect(database_url) as conn:
            live = Feed(world.name, SYMBOLS, VENUES, last, upto, MINUTE, offset=part)
            write(conn, live)
            write_heartbeats(conn, replace(live, venues=("chain",)), "stablecoin_flows")
            flow_time = upto - MINUTE / 2
            write_flow(conn, world.name, flow_time, "250000", "inflow", number=1000 + part, offset=part)
            set_landed(conn, part + 1)
            set_clock(conn, world, upto)
        tick(database_url)
        last = upto
    return database_url


def test_with_nothing_changed_the_new_revision_equals_the_first_bit_for_bit(scored: str) -> None:
    result = again(scored)
    assert (result.risks, result.pressures, result.changed) == (60, 30, 0)
    for table, columns in (("liquidation_risk", RISK), ("signals", SIGNAL), ("stablecoin_pressure", PRESSURE)):
        first = values(scored, table, columns, 0)
        assert len(first) in (30, 60)
        assert values(scored, table, columns, 1) == first


def test_rows_that_landed_later_are_beyond_the_cut_and_change_nothing(scored: str) -> None:
    """Known in time, landed too late: the first score did not have them, so its replay has not either."""
    with connect(scored) as conn:
        late = Feed("recorded/test", SYMBOLS, VENUES, START, HALF_HOUR, timedelta(seconds=30), offset=9, scale=5.0)
        write(conn, late)
        write_flow(conn, "recorded/test", START + MINUTE, "9000000", "inflow", number=5000, offset=9)
        set_landed(conn, 10)
    first = values(scored, "liquidation_risk", RISK, 0)
    assert again(scored).changed == 0
    assert values(scored, "liquidation_risk", RISK, 1) == first
    assert values(scored, "stablecoin_pressure", PRESSURE, 1) == values(scored, "stablecoin_pressure", PRESSURE, 0)


def test_archives_that_warmed_the_look_back_since_change_nothing(scored: str) -> None:
    first = values(scored, "liquidation_risk", RISK, 0)
    with connect(scored) as conn:
        conn.execute(
            "INSERT INTO feature_bars SELECT world, symbol, venue, bar_end, price_usd, 3 * open_interest_base,"
            " -funding_rate_per_8h, long_share, long_liquidated_cents, short_liquidated_cents, %s FROM feature_bars",
            [START + timedelta(hours=2)],
        )
        conn.execute(
            "INSERT INTO feature_references SELECT world, symbol, venue, feature, day, %s, observations, '{}'"
            " FROM feature_references",
            [START + timedelta(hours=2)],
        )
    again(scored)
    assert values(scored, "liquidation_risk", RISK, 1) == first


def test_other_settings_make_another_version_and_the_newest_revision_is_the_current_one(scored: str) -> None:
    first = values(scored, "signals", SIGNAL, 0)
    flipped = SHORT.model_copy(update={"pressure": PressureSettings(sign=-1)})
    result = again(scored, flipped)
    assert values(scored, "signals", SIGNAL, 0) == first
    with connect(scored) as conn:
        versions = conn.execute("SELECT DISTINCT score_version, revision FROM signals ORDER BY revision").fetchall()
        signs = conn.execute(
            "SELECT DISTINCT sign(old.score::numeric * new.score::numeric) FROM stablecoin_pressure old"
            " JOIN stablecoin_pressure_current new USING (time) WHERE old.revision = 0 AND old.score <> 0"
        ).fetchall()
    assert [revision for _, revision in versions] == [0, 1]
    assert versions[1][0] == result.score_version != versions[0][0]
    assert signs == [(-1,)]


def test_each_re_score_is_a_revision_of_its_own(scored: str) -> None:
    again(scored)
    again(scored)
    assert values(scored, "signals", SIGNAL, 2) == values(scored, "signals", SIGNAL, 0)


def test_one_symbol_alone_gets_the_same_scores_and_no_other_row(scored: str) -> None:
    result = again(scored, symbol="ETH")
    assert (result.risks, result.pressures) == (30, 0)
    first = [row for row in values(scored, "signals", SIGNAL, 0) if row[0] == "ETH"]
    assert values(scored, "signals", SIGNAL, 1) == first


def test_a_part_of_the_range_equals_that_part(scored: str) -> None:
    rescore(scored, SHORT, START + 5 * MINUTE, START + 8 * MINUTE)
    first = [row for row in values(scored, "signals", SIGNAL, 0) if 5 * MINUTE <= row[1] - START <= 8 * MINUTE]
    assert values(scored, "signals", SIGNAL, 1) == first


def test_alerts_and_the_outbox_are_left_alone(scored: str) -> None:
    def counts() -> tuple[Any, ...]:
        with connect(scored) as conn:
            row = conn.execute("SELECT (SELECT count(*) FROM alerts), (SELECT count(*) FROM outbox)").fetchone()
        assert row is not None
        return row

    before = counts()
    again(scored)
    assert counts() == before


class TestHistoryWithoutTicks:
    def backfilled(self, database_url: str) -> None:
        with connect(database_url) as conn:
            make_world(conn, "real", first_time=None, cadence_seconds=10.0, step_seconds=10)
            topics = ("prices", "funding_rates", "open_interest", "long_short_ratio")
            delay = timedelta(seconds=20)
            feed = Feed(
                "real", SYMBOLS, VENUES, START - HISTORY, HALF_HOUR, origin="archive", topics=topics, delay=delay
            )
            write(conn, feed)

    def test_archives_are_scored_on_the_score_step_grid(self, database_url: str) -> None:
        self.backfilled(database_url)
        result = again(database_url)
        assert (result.risks, result.pressures) == (62, 31)
        scores = values(database_url, "liquidation_risk", "symbol, time, score, coverage", 0)
        assert len(scores) == 62
        assert {coverage for *_, coverage in scores} == {0.8}
        assert all(score is not None for _, _, score, _ in scores)

    def test_however_history_is_cut_into_spans_and_batches_the_bits_are_the_same(
        self, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The bars of one span are taken over into the next; a year is cut into some forty."""
        self.backfilled(database_url)
        again(database_url)
        monkeypatch.setattr("liq_pipeline.pipeline.rescore.HISTORY_SPAN", 10 * MINUTE)
        monkeypatch.setattr("liq_pipeline.pipeline.rescore.HISTORY_POINTS", 4)
        monkeypatch.setattr("liq_pipeline.store.lookback.market_lookback.BUILD_CHUNK", 100)
        again(database_url)
        assert values(database_url, "liquidation_risk", RISK, 1) == values(database_url, "liquidation_risk", RISK, 0)
        assert values(database_url, "signals", SIGNAL, 1) == values(database_url, "signals", SIGNAL, 0)

    def test_a_venue_without_any_history_is_not_held_against_it(self, database_url: str) -> None:
        """Live it is expected and its silence lowers the coverage; of 2021 nothing of it exists."""
        self.backfilled(database_url)
        with connect(database_url) as conn:
            conn.execute("DELETE FROM prices WHERE venue = 'beta'")
            conn.execute("DELETE FROM open_interest WHERE venue = 'beta'")
        again(database_url)
        scores = values(database_url, "liquidation_risk", "symbol, time, coverage, inputs", 0)
        assert {coverage for _, _, coverage, _ in scores} == {0.8}
        assert {tuple(inputs["open_interest"]["venues"]) for *_, inputs in scores} == {("alpha",)}
        assert {tuple(sorted(inputs["funding"]["venues"])) for *_, inputs in scores} == {("alpha", "beta")}

    def test_an_archives_settled_rate_is_in_force_until_the_next_settlement(self, database_url: str) -> None:
        self.backfilled(database_url)
        with connect(database_url) as conn:
            conn.execute("UPDATE funding_rates SET kind = 'settled', interval_hours = 8")
            conn.execute("DELETE FROM funding_rates WHERE extract(hour FROM event_time) NOT IN (0, 8, 16)")
            conn.execute("DELETE FROM funding_rates WHERE extract(minute FROM event_time) <> 0")
        again(database_url)
        points = values(database_url, "liquidation_risk", "symbol, time, funding_points", 0)
        assert all(funding is not None for *_, funding in points)

    def test_it_keeps_no_bars_so_a_later_tick_finds_its_own_past(self, database_url: str) -> None:
        self.backfilled(database_url)
        again(database_url)
        with connect(database_url) as conn:
            assert conn.execute("SELECT count(*) FROM feature_bars").fetchone() == (0,)

    def test_what_was_known_later_is_not_used(self, database_url: str) -> None:
        self.backfilled(database_url)
        again(database_url)
        with connect(database_url) as conn:
            conn.execute("UPDATE prices SET price_usd = 1 WHERE known_at > %s", [HALF_HOUR - 10 * MINUTE])
            conn.execute(
                "UPDATE open_interest SET open_interest_base = 1 WHERE known_at > %s", [HALF_HOUR - 10 * MINUTE]
            )
        again(database_url)

        def until(revision: int, last: datetime) -> list[tuple[Any, ...]]:
            return [row for row in values(database_url, "liquidation_risk", RISK, revision) if row[1] <= last]

        assert until(0, HALF_HOUR - 10 * MINUTE) == until(1, HALF_HOUR - 10 * MINUTE)
        assert until(0, HALF_HOUR) != until(1, HALF_HOUR)


class TestRefusals:
    def test_a_range_without_data_says_so(self, scored: str) -> None:
        with pytest.raises(LiqError, match="nothing to score in recorded/test from 2027"):
            rescore(scored, SHORT, START.replace(year=2027), START.replace(year=2027, month=4))

    def test_a_symbol_the_world_has_not_is_named(self, scored: str) -> None:
        with pytest.raises(LiqError, match="recorded/test has no DOGE: it has BTC, ETH"):
            again(scored, symbol="DOGE")

    def test_a_range_that_ends_before_it_starts(self, scored: str) -> None:
        with pytest.raises(LiqError, match="lies before --from"):
            rescore(scored, SHORT, HALF_HOUR, START)

    def test_no_world(self, database_url: str) -> None:
        with pytest.raises(LiqError, match="no world is active"):
            again(database_url)


def test_the_early_warning_repeats_with_the_market_and_its_threshold(database_url: str) -> None:
    """It compares with 30 days that a tick looked up once a day and kept; other models look at the same bars."""
    settings = Settings()
    model = shipped_model()
    with connect(database_url) as conn:
        world = make_world(conn)
        write(conn, Feed(world.name, SYMBOLS, VENUES, START - timedelta(days=9), START))
        write(conn, Feed(world.name, SYMBOLS, VENUES, START, START + 3 * MINUTE, MINUTE))
        set_landed(conn, 1)
        set_clock(conn, world, START + 3 * MINUTE)
    context = TickContext(
        database_url=database_url,
        bootstrap_servers="",
        topic_prefix="",
        settings=settings,
        load_model=lambda conn: model,
    )
    told = run_tick(context, land=False).newest
    assert told is not None
    signal = told.signals["BTC"]
    assert signal.market_probability_4h is not None
    assert signal.market_threshold_4h not in (None, model.early_warning.threshold), "nine days are enough to compare"
    assert signal.early_warning == (signal.market_probability_4h > (signal.market_threshold_4h or 0.0))
    with connect(database_url) as conn:
        kept = conn.execute(
            "SELECT venue, observations FROM feature_references WHERE symbol = '*' AND feature LIKE 'market%'"
        ).fetchall()
        assert [venue for venue, _ in kept] == [model.model_id]
        for asked in (model, replace(model, model_id="another with the same coefficients")):
            again_told = list(score_in_memory(conn, world, settings, told.time, told.time, asked))[-1][-1]
            for symbol in SYMBOLS:
                assert replace(again_told.signals[symbol], model_id=None) == replace(
                    told.signals[symbol], model_id=None
                )
