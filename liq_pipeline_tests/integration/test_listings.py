"""A coin that a venue does not list is not missing there: coverage, receipt and re-score know what was listed when."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from liq_pipeline.alerting.deciding.levels import read_blind
from liq_pipeline.alerting.deciding.policy import INFO, AlertPolicy
from liq_pipeline.operations.audits import audit
from liq_pipeline.pipeline.rescore import rescore
from liq_pipeline.pipeline.tick import TickContext, TickResult, run_tick
from liq_pipeline.scoring.results import RiskResult, SignalResult
from liq_pipeline.settings import RiskSettings, Settings
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline.store.inputs import listings
from liq_pipeline_tests.scoring_support import START, Feed, make_world, set_clock, write

VENUES = tuple(f"v{number}" for number in range(1, 10))
LISTING = ("v1", "v2")
SETTINGS = Settings(risk=RiskSettings(lookback_hours=48, min_lookback_hours=24))
HISTORY = timedelta(hours=48 + 26)
MINUTE = timedelta(minutes=1)
COMPONENTS = ("funding", "open_interest", "long_short", "liquidation")


def tick(database_url: str, now: datetime | None = None) -> TickResult:
    context = TickContext(
        database_url=database_url,
        bootstrap_servers="",
        topic_prefix="",
        settings=SETTINGS,
        wall_now=lambda: now or START,
    )
    return run_tick(context, land=False)


def write_market(conn: psycopg.Connection[Any], world: str, origin: str, *, last: datetime) -> None:
    """BTC at all nine venues, TINY at two; liquidations' heartbeats of all, for no venue's feed is of one coin."""
    for symbols, venues in ((("BTC",), VENUES), (("TINY",), LISTING)):
        past = Feed(world, symbols, venues, START - HISTORY, START, origin=origin)
        write(conn, past)
        write(conn, Feed(world, symbols, venues, START, last, timedelta(seconds=10), origin=origin))


def risks(database_url: str, revision: int = 0) -> list[tuple[Any, ...]]:
    with connect(database_url) as conn:
        return conn.execute(
            "SELECT time, symbol, score, score_high, coverage, inputs FROM liquidation_risk WHERE revision = %s"
            " ORDER BY time, symbol",
            [revision],
        ).fetchall()


@pytest.fixture
def live(database_url: str) -> str:
    """The real world at nine venues, seven of which said three minutes ago that they do not list TINY."""
    with connect(database_url) as conn:
        make_world(
            conn, "real", symbols=("BTC", "TINY"), venues=VENUES, first_time=None, cadence_seconds=10, step_seconds=10
        )
        write_market(conn, "real", "live", last=START + 10 * MINUTE)
        for venue in VENUES:
            listings.note(conn, venue, {"BTC": True, "TINY": venue in LISTING}, START - 3 * MINUTE)
    return database_url


def test_a_coin_listed_at_two_of_nine_venues_is_fully_covered_by_these_two(live: str) -> None:
    assert tick(live).coverage == {"BTC": 1.0, "TINY": 1.0}
    (_, _, score, score_high, _, inputs) = risks(live)[-1]
    assert score == score_high
    for component in COMPONENTS:
        assert set(inputs[component]["venues"]) == set(LISTING)
        assert inputs[component]["share"] == 1.0
    assert inputs["not_listed"] == [venue for venue in VENUES if venue not in LISTING]
    assert "not_listed" not in risks(live)[0][-1]  # BTC


def test_one_of_the_two_falling_silent_halves_the_coverage(live: str) -> None:
    with connect(live) as conn:
        for table in ("funding_rates", "open_interest"):
            conn.execute(f"DELETE FROM {table} WHERE symbol = 'TINY' AND venue = 'v2' AND event_time > %s",  # type: ignore[arg-type] # noqa: S608
                         [START - timedelta(hours=1)])  # fmt: skip
    assert tick(live, START).coverage["TINY"] == pytest.approx(0.7)


def test_a_rescore_finds_what_was_expected_then(live: str) -> None:
    """v2 delists the coin after it was scored; v3 lists it. Neither changes the past, both count a minute later."""
    tick(live)
    with connect(live) as conn:
        listings.note(conn, "v2", {"TINY": False}, START + MINUTE)
        listings.note(conn, "v3", {"TINY": True}, START + 2 * MINUTE)
    tick(live, START + 4 * MINUTE)
    rescore(live, SETTINGS, START, START + 4 * MINUTE)
    assert risks(live, revision=1) == risks(live, revision=0)
    tiny = {time: inputs["funding"]["venues"] for time, symbol, *_, inputs in risks(live) if symbol == "TINY"}
    assert set(tiny[START + 2 * MINUTE - timedelta(seconds=10)]) == {"v1", "v2"}
    assert set(tiny[START + 2 * MINUTE]) == {"v1"}
    assert {venue: said["state"] for venue, said in tiny[START + 3 * MINUTE].items()} == {
        "v1": "counted",
        "v3": "silent",
    }


def test_before_its_list_was_read_a_venue_is_expected(database_url: str) -> None:
    with connect(database_url) as conn:
        make_world(conn, "real", symbols=("TINY",), venues=VENUES, first_time=None, cadence_seconds=10, step_seconds=10)
        write_market(conn, "real", "live", last=START)
    assert tick(database_url).coverage["TINY"] == pytest.approx(0.8 * 2 / 9 + 0.2)


def test_history_without_ticks_takes_the_first_answer_for_what_lies_before_it(live: str) -> None:
    """Archives reach back to when nobody had read a list: the coin was no more listed there than it is now."""
    with connect(live) as conn:
        for table in ("prices", "funding_rates", "open_interest", "long_short_ratio"):
            conn.execute(f"UPDATE {table} SET origin = 'archive'")  # type: ignore[arg-type] # noqa: S608
    rescore(live, SETTINGS, START - timedelta(hours=2), START - timedelta(hours=1))
    assert {coverage for _, symbol, *_, coverage, _ in risks(live) if symbol == "TINY"} == {
        0.8,
        1.0,
    }  # 0.8 between two heartbeats


def test_a_recording_says_in_its_manifest_who_does_not_list_a_coin(database_url: str) -> None:
    with connect(database_url) as conn:
        world = make_world(conn, symbols=("BTC", "TINY"), venues=VENUES, cadence_seconds=10, step_seconds=10)
        absent = {venue: ("TINY",) for venue in VENUES if venue not in LISTING}
        manifest = type(world.manifest)(
            symbols=world.manifest.symbols, expected=world.manifest.expected, not_listed=absent
        )
        world = type(world)(**{name: getattr(world, name) for name in world.__struct_fields__} | {"manifest": manifest})
        worlds.register(conn, world, activate=True)
        assert worlds.get(conn, world.name) == world
        write_market(conn, world.name, "recorded", last=START + MINUTE)
        set_clock(conn, world, START + MINUTE)
    assert tick(database_url).coverage == {"BTC": 1.0, "TINY": 1.0}


def test_a_coin_that_nobody_lists_is_unknown_and_says_why(live: str) -> None:
    with connect(live) as conn:
        for venue in LISTING:
            listings.note(conn, venue, {"TINY": False}, START - 2 * MINUTE)
    assert tick(live).coverage["TINY"] == 0.0
    with connect(live) as conn:
        (note, severity) = conn.execute("SELECT note, severity FROM signals WHERE symbol = 'TINY'").fetchall()[0]
    assert "no venue lists TINY" in note
    assert severity == "UNKNOWN"


def test_a_component_that_no_venue_offers_for_the_coin_is_no_blindness(live: str) -> None:
    """Only funding and open interest, both complete: the coin sees all there is to see, and no alert opens."""
    tick(live)
    with connect(live) as conn:
        world = worlds.active(conn)
    assert world is not None
    policy = AlertPolicy.build(SETTINGS, world)
    offered: dict[str, Any] = {"venues": {"v1": {"state": "counted"}}, "share": 1.0}
    inputs = {"funding": offered, "open_interest": offered, "long_short": {"venues": {}}, "liquidation": {"venues": {}}}
    risk = RiskResult("TINY", START, 10.0, 50.0, "long", 5.0, 5.0, None, None, 10.0, 5.0, 0.6, inputs)
    signal = SignalResult("TINY", START, 10.0, 0.0, "NONE", "NONE", True, "")
    assert read_blind(risk, signal, policy).level == 0
    inputs["long_short"] = {"venues": {"v1": {"state": "silent"}}, "share": 0.0}
    assert read_blind(risk, signal, policy).level == INFO


def test_a_venue_that_lists_none_of_our_coins_is_not_called_silent(live: str) -> None:
    with connect(live) as conn:
        listings.note(conn, "v9", {"BTC": False, "TINY": False}, START - 2 * MINUTE)
        conn.execute("DELETE FROM prices WHERE venue = 'v9'")
        (finding,) = [
            finding
            for finding in audit(conn, SETTINGS, START)
            if (finding.subject, finding.audit) == ("prices", "venues_speak")
        ]
    assert (finding.passed, finding.sentence) == (True, "All 8 expected venues speak.")
