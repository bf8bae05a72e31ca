"""The liquidation map in the store: drawn from what was known, the same live and in a batch, read at any past time."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner

from liq_pipeline.alerting.book import advance
from liq_pipeline.cli import app
from liq_pipeline.desk.api.asking import read_all
from liq_pipeline.desk.api.endpoints import ENDPOINTS, answer
from liq_pipeline.desk.pages import drawings, views
from liq_pipeline.desk.read import levels as read
from liq_pipeline.desk.read.scope import scope
from liq_pipeline.domain.worlds import World
from liq_pipeline.pipeline.levels import draw_due_maps, due_times
from liq_pipeline.scoring.levels.method import method_of
from liq_pipeline.settings import Settings
from liq_pipeline.store import levels
from liq_pipeline.store.inputs.expected_sources import scope_of
from liq_pipeline.store.lookback.bar_cache import BarCache, Window
from liq_pipeline.store.lookback.market_lookback import ensure_market_lookback, market_bars
from liq_pipeline_tests.alert_support import START as ALERTS_START
from liq_pipeline_tests.alert_support import point
from liq_pipeline_tests.scoring_support import START, Feed, make_world, write

DAYS = 4
LAST = START + timedelta(days=DAYS)
HOUR = timedelta(hours=1)


@pytest.fixture
def connection(database_url: str) -> Any:
    with psycopg.connect(database_url, options="-c timezone=UTC") as opened:
        yield opened


def grid(first: Any, last: Any) -> Any:
    return np.arange(int(first.timestamp()), int(last.timestamp()) + 1, 300, dtype=np.int64)


def market(connection: Any, name: str = "recorded/levels", *, scale: float = 1.0, activate: bool = True) -> World:
    """Four days of two symbols at two venues, of which bars are kept as ticks of the last hour would have."""
    world = make_world(connection, name, cadence_seconds=300, activate=activate)
    write(connection, Feed(name, ("BTC", "ETH"), ("alpha", "beta"), START, LAST, scale=scale))
    ensure_market_lookback(connection, scope_of(world, Settings().risk), grid(LAST, LAST), None, Settings().risk)
    return world


def an_hour_more(connection: Any, world: World) -> None:
    write(connection, Feed(world.name, ("BTC", "ETH"), ("alpha", "beta"), LAST, LAST + HOUR))
    times = grid(LAST + timedelta(minutes=5), LAST + HOUR)
    scope = scope_of(world, Settings().risk)
    ensure_market_lookback(connection, scope, times, int(LAST.timestamp()), Settings().risk)


def stored(connection: Any) -> list[levels.StoredMap]:
    return [
        one
        for symbol in ("BTC", "ETH")
        for one in levels.maps_between(connection, "recorded/levels", symbol, START, LAST + 2 * HOUR)
    ]


def test_maps_are_drawn_once_each_and_the_same_at_once_and_later(connection: Any) -> None:
    world = market(connection)
    first = draw_due_maps(connection, world, Settings())
    assert (first.times, first.rows) == (1, 2), "history that landed before the first tick was known to nobody then"
    an_hour_more(connection, world)
    assert draw_due_maps(connection, world, Settings()).rows == 2 * 12
    assert draw_due_maps(connection, world, Settings()).rows == 0
    live = stored(connection)
    assert len(live) == 2 * 13
    assert all(one.long_notional_usd is not None and sum(one.long_notional_usd) > 0 for one in live)
    # An archive fills a bar of the past, another world holds the same symbols: no earlier map may change for that.
    connection.execute(
        "INSERT INTO feature_bars (world, symbol, venue, bar_end, price_usd, open_interest_base, built_at_time)"
        " SELECT world, symbol, venue, bar_end, price_usd * 2, open_interest_base * 2, %s FROM feature_bars"
        " WHERE bar_end = %s",
        [LAST + 2 * HOUR, LAST - HOUR],
    )
    market(connection, "recorded/another", scale=3.0, activate=False)
    connection.execute("DELETE FROM liquidation_levels WHERE time > %s", [LAST])
    assert draw_due_maps(connection, world, Settings()).rows == 2 * 12
    assert stored(connection) == live


def test_the_window_holds_what_the_kept_bars_hold(connection: Any) -> None:
    """Also where an archive has added versions in which unknown cells became known."""
    world = market(connection)
    connection.execute("UPDATE feature_bars SET price_usd = NULL WHERE bar_end = %s AND symbol = 'ETH'", [LAST - HOUR])
    connection.execute(
        "INSERT INTO feature_bars (world, symbol, venue, bar_end, price_usd, open_interest_base, built_at_time)"
        " SELECT world, symbol, venue, bar_end, 77, open_interest_base, %s FROM feature_bars"
        " WHERE bar_end = %s AND symbol = 'ETH'",
        [LAST + HOUR, LAST - HOUR],
    )
    scope, method = scope_of(world, Settings().risk), method_of(world.name)
    for time in (LAST, LAST + HOUR):
        seconds = int(time.timestamp())
        window = levels.window_bars(connection, scope, method, seconds)
        kept = market_bars(connection, scope, window.start_seconds, seconds, seconds)
        assert np.array_equal(window.price_usd, kept.price_usd, equal_nan=True)
        assert np.array_equal(window.open_interest_base, kept.open_interest_base, equal_nan=True)
        for name in ("long_liquidated_cents", "short_liquidated_cents"):
            assert np.array_equal(np.maximum(getattr(window, name), 0), np.maximum(getattr(kept, name), 0))
            assert (getattr(window, name) > 0).any()
    assert (window.price_usd == 77).sum() == 2


def test_a_map_from_the_last_tick_s_look_back_is_the_one_from_the_tables(connection: Any, tmp_path: Path) -> None:
    world = market(connection)
    scope, seconds = scope_of(world, Settings().risk), int(LAST.timestamp())
    connection.execute(
        "INSERT INTO ticks (world, stream, time, cut, started_at, rows_landed)"
        " VALUES (%s, 'market', %s, '{}', now(), 0)",
        [world.name, LAST],
    )
    cache = BarCache(tmp_path)
    cache.read(connection, scope, Window(seconds - 168 * 3600, seconds, seconds - 36 * 3600, seconds))
    cache.keep(connection)
    method = method_of(world.name)
    with_it = levels.window_bars(connection, scope, method, seconds, cache)
    without = levels.window_bars(connection, scope, method, seconds)
    for name in ("price_usd", "open_interest_base", "long_liquidated_cents", "short_liquidated_cents"):
        one, other = getattr(with_it, name), getattr(without, name)
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    assert (with_it.long_liquidated_cents > 0).any()
    connection.execute("DELETE FROM feature_bars")  # it is the file that was read
    assert np.isfinite(levels.window_bars(connection, scope, method, seconds, cache).price_usd).any()


def test_what_is_unknown_is_said_and_stored_as_unknown(connection: Any) -> None:
    world = make_world(connection, "recorded/levels", venues=("alpha", "beta", "gamma"), cadence_seconds=300)
    write(connection, Feed(world.name, ("BTC", "ETH"), ("alpha", "beta"), START, LAST - 6 * HOUR))
    write(connection, Feed(world.name, ("BTC",), ("alpha",), LAST - 6 * HOUR, LAST))
    scope = scope_of(world, Settings().risk)
    ensure_market_lookback(connection, scope, grid(LAST, LAST), None, Settings().risk)
    draw_due_maps(connection, world, Settings())
    btc = levels.map_at_time(connection, world.name, "BTC")
    eth = levels.map_at_time(connection, world.name, "ETH")
    assert btc is not None
    assert (btc.venues, btc.silent_venues, btc.unheard_venues) == (["alpha"], ["beta"], ["gamma"])
    assert btc.long_within_3_usd is not None
    assert btc.coverage < 0.75
    assert btc.high_factor is None, "nobody knows how much gamma holds"
    assert eth is not None
    assert eth.reference_usd is None
    assert eth.long_notional_usd is None
    assert eth.short_within_5_usd is None
    assert eth.silent_venues == ["alpha", "beta"]


def test_a_past_map_is_found_and_old_ones_are_thinned_out_to_hours(connection: Any) -> None:
    world = market(connection)
    draw_due_maps(connection, world, Settings())
    an_hour_more(connection, world)
    draw_due_maps(connection, world, Settings())
    past = levels.map_at_time(connection, world.name, "BTC", LAST + timedelta(minutes=17))
    assert past is not None
    assert past.time == LAST + timedelta(minutes=15)
    assert levels.map_at_time(connection, world.name, "BTC", START) is None
    few = levels.maps_between(connection, world.name, "BTC", START, LAST + HOUR, most=4)
    assert 2 <= len(few) <= 4
    assert few[-1].time == LAST + HOUR, "the newest is among them"
    assert levels.thin_out(connection, LAST + HOUR + levels.FINE_FOR - timedelta(seconds=1)) == 2 * 11
    assert [one.time for one in stored(connection) if one.symbol == "BTC"] == [LAST, LAST + HOUR]
    assert levels.thin_out(connection, LAST + HOUR + timedelta(days=40), retention_days=40) == 2
    assert [one.time for one in stored(connection) if one.symbol == "BTC"] == [LAST + HOUR]


def test_the_desk_reads_and_draws_it(connection: Any) -> None:
    world = market(connection)
    draw_due_maps(connection, world, Settings())
    an_hour_more(connection, world)
    draw_due_maps(connection, world, Settings())
    newest = read.maps(connection, world.name, "BTC", START, LAST + HOUR, 2)
    assert [one.time for one in newest] == [LAST + HOUR, LAST + HOUR - timedelta(minutes=5)]
    kept = levels.map_at_time(connection, world.name, "BTC")
    assert kept is not None
    for name in read.LevelMap.__struct_fields__:
        told, wanted = getattr(newest[0], name), getattr(kept, name)
        if name.endswith("notional_usd"):  # four bytes each: seven digits
            assert told == pytest.approx(wanted, rel=1e-6), name
        else:
            assert told == wanted, name
    few = read.spread(connection, world.name, "BTC", LAST, LAST + HOUR, 5)
    assert [one.time for one in few] == [LAST + timedelta(minutes=15 * k) for k in range(5)]
    picture = str(drawings.heat(few))
    assert picture.count('class="heat-long"') + picture.count('class="heat-short"') <= 2 * drawings.HEAT_SHADES
    assert 'class="price" d="M' in picture
    assert "unknown" in str(drawings.heat([]))


def test_the_api_and_the_symbol_s_page_hold_the_map(connection: Any) -> None:
    world = market(connection)
    draw_due_maps(connection, world, Settings())
    (endpoint,) = [one for one in ENDPOINTS if one.name == "levels"]
    path, span = {"symbol": "btc"}, [("to", LAST.isoformat())]
    told = answer(endpoint, connection, read_all(endpoint.parameters, path, span))
    assert [one.time for one in told.data] == [LAST]
    of = scope(connection)
    shown = views.symbol_page(connection, msgspec.structs.replace(of, as_of=LAST), {}, "BTC")
    page = views.environment().get_template("symbol.html")
    text = page.render(**shown, scope=of, dagster_url=None, path="/symbols/BTC", asset=defaultdict(str))
    assert text.count('<svg class="heat"') == 1
    assert "Liquidation map, estimated" in text
    assert "longs within 1, 3, 5 % below" in text


def test_a_moment_is_shown_with_the_map_that_was_known_then(connection: Any) -> None:
    """The same whenever it is asked: a map counts from two minutes after its time, and for a quarter of an hour."""
    world = market(connection)
    draw_due_maps(connection, world, Settings())
    an_hour_more(connection, world)
    draw_due_maps(connection, world, Settings())

    def known(at: datetime, symbol: str = "BTC") -> dict[str, Any] | None:
        return levels.fuel_known_at(connection, world.name, [symbol, "ETH"], at)[symbol]

    assert known(LAST + timedelta(seconds=119)) is None, "drawn by then, but hardly at once"
    first, later = known(LAST + timedelta(minutes=2)), known(LAST + timedelta(minutes=8))
    assert first is not None
    assert later is not None
    assert (first["time"], later["time"]) == (
        LAST.isoformat(),
        (LAST + timedelta(minutes=5)).isoformat(),
    )
    row = levels.map_at_time(connection, world.name, "BTC", LAST + timedelta(minutes=6))
    assert row is not None
    assert later == {
        name: row.time.isoformat() if name == "time" else getattr(row, name) for name in levels.COLUMNS if name in later
    }
    assert later["long_within_3_usd"] > 0
    assert known(LAST + HOUR + timedelta(minutes=14)) is not None
    assert known(LAST + HOUR + timedelta(minutes=15)) is None, "an old map does not speak for the moment"
    assert known(LAST + HOUR, symbol="PEPE") is None


def test_a_receipt_holds_the_map_of_its_moment(connection: Any) -> None:
    world = market(connection)
    draw_due_maps(connection, world, Settings())
    at = LAST + timedelta(minutes=3)
    since = (at - ALERTS_START).total_seconds() / 60
    advance(connection, world, [point(since + number, {"BTC": 95.0}) for number in (-0.5, 0.0)], Settings(), "v")
    rows = connection.execute("SELECT receipt -> 'liquidation_fuel' FROM alerts WHERE subject = 'BTC'").fetchall()
    assert rows == [(levels.fuel_known_at(connection, world.name, ["BTC"], at)["BTC"],)]
    assert rows[0][0]["long_within_3_usd"] > 0


def test_nothing_is_due_before_there_are_bars(connection: Any) -> None:
    world = make_world(connection, "recorded/levels")
    assert due_times(connection, world, method_of(world.name).version) == []
    assert draw_due_maps(connection, world, Settings()).newest is None


def test_the_command_shows_a_map(
    connection: Any,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    settings: Callable[..., Settings],
    new_home: Path,
) -> None:
    monkeypatch.setenv("LIQ_HOME", str(new_home))
    monkeypatch.setenv("LIQ_DATABASE_URL", database_url)
    monkeypatch.setenv("LIQ_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    runner = CliRunner()
    world = market(connection)
    connection.commit()
    nothing = runner.invoke(app, ["levels", "BTC"])
    assert nothing.exit_code == 1
    assert "No map has been drawn yet" in nothing.output
    draw_due_maps(connection, world, Settings())
    connection.commit()
    table = runner.invoke(app, ["levels", "btc"])
    assert table.exit_code == 0, table.output
    assert "an ESTIMATE" in table.output
    assert "longs below: " in table.output
    lines = runner.invoke(app, ["levels", "--json"]).output.splitlines()
    assert [json.loads(line)["symbol"] for line in lines] == ["BTC", "ETH"]
    assert set(json.loads(lines[0])) == {field.name for field in dataclasses.fields(levels.StoredMap)}
    refused = runner.invoke(app, ["levels", "PEPE"])
    assert refused.exit_code != 0
