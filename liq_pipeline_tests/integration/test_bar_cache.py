"""The file of the last tick's look-back: whatever became of it or the database, a tick reads what the tables say."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from liq_pipeline.domain.worlds import World
from liq_pipeline.pipeline.models import model_in_force
from liq_pipeline.pipeline.tick import TickContext, run_tick
from liq_pipeline.scoring.bars import BarArrays, empty_bars
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline.store.inputs.expected_sources import Scope, scope_of
from liq_pipeline.store.lookback.bar_cache import BarCache, Window
from liq_pipeline.store.lookback.market_lookback import market_bars
from liq_pipeline_tests.scoring_support import START, Feed, business_hash, make_world, set_clock, write

STEP = 300
BARS, WHOLE = 40, 10
T0 = int(START.timestamp())
SYMBOLS, VENUES = ("BTC", "ETH"), ("alpha", "beta")
SCORES = ["liquidation_risk", "signals"]


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, options="-c timezone=UTC") as opened:
        yield opened


def scope(conn: psycopg.Connection[Any], name: str = "recorded/cache", **more: Any) -> Scope:
    world: World = make_world(conn, name, symbols=SYMBOLS, venues=VENUES, **more)
    return scope_of(world, Settings().risk)


def build(conn: psycopg.Connection[Any], of: Scope, bar_end: int, built_at: int, luck: random.Random) -> None:
    """One bar of every series, some of its cells unknown."""
    for symbol in of.symbols:
        for venue in of.venues:
            cells = [None if luck.random() < 0.3 else luck.uniform(1, 9) for _ in range(4)]
            cents = [None if luck.random() < 0.3 else luck.randrange(9) for _ in range(2)]
            conn.execute(
                "INSERT INTO feature_bars (world, symbol, venue, bar_end, price_usd, open_interest_base,"
                " funding_rate_per_8h, long_share, long_liquidated_cents, short_liquidated_cents, built_at_time)"
                " VALUES (%s, %s, %s, to_timestamp(%s), %s, %s, %s, %s, %s, %s, to_timestamp(%s))"
                " ON CONFLICT DO NOTHING",
                [of.world, symbol, venue, bar_end, *cells, *cents, built_at],
            )


def tick(conn: psycopg.Connection[Any], of: Scope, time: int) -> None:
    conn.execute(
        "INSERT INTO ticks (world, stream, time, cut, started_at, rows_landed)"
        " VALUES (%s, 'market', to_timestamp(%s), '{}', clock_timestamp(), 0)",
        [of.world, time],
    )
    conn.commit()


def window_at(time: int) -> Window:
    last = time // STEP * STEP
    first = last - (BARS - 1) * STEP
    return Window(first, last, first + (BARS - WHOLE) * STEP, time)


def told(conn: psycopg.Connection[Any], of: Scope, window: Window) -> BarArrays:
    return market_bars(conn, of, window.first, window.last, window.built_by, all_from_seconds=window.whole_from)


def assert_same(found: BarArrays, expected: BarArrays) -> None:
    for field in fields(BarArrays):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(one, np.ndarray):
            assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), field.name
        else:
            assert one == other, field.name


@pytest.mark.parametrize("seed", range(6))
def test_a_tick_reads_what_the_tables_say_whatever_came_before(
    conn: psycopg.Connection[Any], tmp_path: Path, seed: int
) -> None:
    """Ticks in turn, with bars that archives build anew, ticks that roll back, files that are lost or damaged."""
    luck = random.Random(seed)
    of, now = scope(conn), T0
    for number in range(BARS + 5):
        build(conn, of, T0 - number * STEP, T0, luck)
    cache = BarCache(tmp_path)
    believed = shown = 0
    for _ in range(60):
        before, now = now, now + luck.choice([10, 10, 10, 60, 300, 310, 3000])
        for end in range(before // STEP * STEP + STEP, now + 1, STEP):
            build(conn, of, end, luck.choice([end, end, end, luck.randrange(end, now + 1), now]), luck)
        if luck.random() < 0.2:  # an archive has told more of the past
            build(conn, of, now // STEP * STEP - luck.randrange(1, BARS + 3) * STEP, now, luck)
        window = window_at(now)
        if luck.random() < 0.3:
            cache = BarCache(tmp_path)
        found = cache.read(conn, of, window)
        assert_same(found, told(conn, of, window))
        if luck.random() < 0.15:
            conn.rollback()
            now = before
            continue
        tick(conn, of, now)
        cache.keep(conn)
        conn.commit()
        files = list(tmp_path.glob("bars-*"))
        believed += bool(files)
        shown += levels_are_those_of_the_tables(conn, of, cache, now // STEP * STEP - luck.randrange(3) * STEP)
        if files and luck.random() < 0.1:
            raw = bytearray(files[0].read_bytes())
            kind = luck.randrange(4)
            if kind == 0:
                files[0].unlink()
            elif kind == 1:
                raw[luck.randrange(len(raw))] ^= 1 << luck.randrange(8)
                files[0].write_bytes(raw)
            elif kind == 2:
                files[0].write_bytes(raw[: luck.randrange(len(raw))])
            else:
                files[0].write_bytes(b"")
    assert believed > 30
    assert shown > 2


def levels_are_those_of_the_tables(conn: psycopg.Connection[Any], of: Scope, cache: BarCache, at: int) -> bool:
    """What a map of that time is drawn from; whether the file could tell."""
    first = at - (BARS - 10) * STEP
    bars = empty_bars(of.symbols, of.venues, first, STEP, BARS - 9)
    if not cache.fill_levels(conn, of, bars, at):
        return False
    expected = market_bars(conn, of, first, at, at)
    assert np.array_equal(bars.price_usd, expected.price_usd, equal_nan=True)
    assert np.array_equal(bars.open_interest_base, expected.open_interest_base, equal_nan=True)
    return True


def test_what_was_read_of_a_tick_that_was_not_committed_is_not_believed(
    conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """Its bars were rolled back; another tick builds them anew, of what has landed by then."""
    luck, of = random.Random(1), scope(conn)
    build(conn, of, T0, T0, luck)
    conn.commit()
    cache = BarCache(tmp_path)
    build(conn, of, T0 + STEP, T0 + STEP, luck)
    cache.read(conn, of, window_at(T0 + STEP))
    conn.rollback()
    cache.keep(conn)
    assert list(tmp_path.iterdir()) == []
    build(conn, of, T0 + STEP, T0 + STEP, luck)
    assert_same(cache.read(conn, of, window_at(T0 + STEP)), told(conn, of, window_at(T0 + STEP)))


def test_a_database_that_went_back_in_time_is_read_whole(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    """A restored copy lacks the tick, or has another one of that time; a new database too."""
    luck, of = random.Random(2), scope(conn)
    cache = BarCache(tmp_path)
    build(conn, of, T0, T0, luck)
    cache.read(conn, of, window_at(T0))
    tick(conn, of, T0)
    cache.keep(conn)
    for again in (False, True):
        conn.execute("DELETE FROM ticks")
        conn.execute("UPDATE feature_bars SET price_usd = price_usd + 1")
        if again:
            tick(conn, of, T0)
        assert_same(cache.read(conn, of, window_at(T0 + 10)), told(conn, of, window_at(T0 + 10)))


def test_no_bit_of_the_file_s_own_description_is_believed_when_damaged(
    conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """A tick that stumbled over its file would do so for ever; bars in the wrong place would be worse."""
    luck, of = random.Random(6), scope(conn)
    cache = BarCache(tmp_path)
    for number in range(BARS + 2):
        build(conn, of, T0 - number * STEP, T0, luck)
    cache.read(conn, of, window_at(T0))
    tick(conn, of, T0)
    cache.keep(conn)
    [file] = tmp_path.iterdir()
    raw, expected = file.read_bytes(), told(conn, of, window_at(T0 + 10))
    conn.execute("UPDATE feature_bars SET price_usd = price_usd + 1")  # what is read from the tables now differs
    assert_same(cache.read(conn, of, window_at(T0 + 10)), expected)
    from_tables = told(conn, of, window_at(T0 + 10))
    for place in range(500):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << luck.randrange(8)
        file.write_bytes(damaged)
        assert_same(cache.read(conn, of, window_at(T0 + 10)), from_tables)


def test_what_a_killed_tick_left_half_written_is_written_over(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    of, cache = scope(conn), BarCache(tmp_path)
    build(conn, of, T0, T0, random.Random(7))
    cache.read(conn, of, window_at(T0))
    tick(conn, of, T0)
    cache.keep(conn)
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    file.rename(tmp_path / f".{file.name}")
    cache.read(conn, of, window_at(T0))
    cache.keep(conn)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.read_bytes() == whole
    assert file.stat().st_mode & 0o777 == 0o600


def test_another_scope_and_a_window_that_begins_earlier_are_read_whole(
    conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    luck, of = random.Random(3), scope(conn)
    cache = BarCache(tmp_path)
    for number in range(BARS + 20):
        build(conn, of, T0 - number * STEP, T0, luck)
    cache.read(conn, of, window_at(T0))
    tick(conn, of, T0)
    cache.keep(conn)
    other = scope_of(make_world(conn, of.world, symbols=("ETH", "BTC"), venues=VENUES), Settings().risk)
    assert_same(cache.read(conn, other, window_at(T0 + 10)), told(conn, other, window_at(T0 + 10)))
    usual = window_at(T0 + 10)
    for window in (
        Window(usual.first - 5 * STEP, usual.last, usual.whole_from, usual.built_by),
        Window(usual.first, usual.last, usual.whole_from - 3 * STEP, usual.built_by),
        Window(usual.first, usual.last - STEP, usual.whole_from, usual.built_by),
    ):
        assert_same(cache.read(conn, of, window), told(conn, of, window))


def test_a_folder_that_cannot_be_written_costs_speed_only(
    conn: psycopg.Connection[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of = scope(conn)
    (tmp_path / "taken").write_text("")
    cache = BarCache(tmp_path / "taken" / "cache")
    build(conn, of, T0, T0, random.Random(4))
    assert_same(cache.read(conn, of, window_at(T0)), told(conn, of, window_at(T0)))
    tick(conn, of, T0)
    cache.keep(conn)
    assert "could not be kept" in caplog.text


def test_the_files_of_worlds_long_past_go(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    for number in range(7):
        of = scope(conn, f"recorded/{number}")
        cache = BarCache(tmp_path)
        build(conn, of, T0, T0, random.Random(5))
        cache.read(conn, of, window_at(T0))
        tick(conn, of, T0)
        cache.keep(conn)
    assert len(list(tmp_path.iterdir())) == 4


def test_the_scores_of_an_hour_s_ticks_are_those_of_ticks_that_read_everything(
    new_database_url: Callable[[], str], tmp_path: Path
) -> None:
    hashes = []
    for folder in (None, tmp_path):
        url = new_database_url()
        with connect(url) as conn:
            world = make_world(conn, "recorded/hour", first_time=START, step_seconds=60)
            history = START - timedelta(days=4)
            write(conn, Feed(world.name, SYMBOLS, VENUES, history, START + timedelta(hours=1)))
        for minutes in range(3, 61, 3):
            with connect(url) as conn:
                set_clock(conn, world, START + timedelta(minutes=minutes))
            context = TickContext(
                database_url=url, bootstrap_servers="127.0.0.1:1", topic_prefix="", settings=Settings(),
                wall_now=lambda: datetime(2026, 3, 3, tzinfo=UTC),
                load_model=model_in_force,
                bar_cache=None if folder is None else BarCache(folder),
            )  # fmt: skip
            assert run_tick(context, land=False).points_scored > 0
        hashes.append(business_hash(url, tables=SCORES))
    assert hashes[0] == hashes[1]
    assert len(list(tmp_path.glob("bars-*"))) == 1
