"""Which simulated world a home plays: the same after a short pause, a new one, said why, in every other case."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from liq_pipeline.domain.records import World as WorldName
from liq_pipeline.errors import LiqError
from liq_pipeline.sources.simulated.world import (
    FILE_NAME,
    LONGEST_PAUSE,
    Simulation,
    choose,
    describe,
    instruments,
    load,
    save,
)

NOW = datetime(2026, 11, 22, 12, 7, 33, tzinfo=UTC)
BOTH = ("BTC", "ETH")


def pick(
    stored: Simulation | None = None,
    *,
    seed: str | None = None,
    symbols: tuple[str, ...] = BOTH,
    now: datetime = NOW,
    landed_to: datetime | None = None,
    taken: tuple[str, ...] = (),
    cascade_in_seconds: int | None = None,
) -> tuple[Simulation, str]:
    return choose(
        stored,
        seed=seed,
        symbols=symbols,
        now=now,
        landed_to=lambda name: landed_to,
        is_taken=lambda name: name in taken,
        cascade_in_seconds=cascade_in_seconds,
    )


def test_a_first_world_is_named_after_its_day_and_begins_on_the_five_minute_grid() -> None:
    made, reason = pick()
    assert made.name == "simulated/20261122"
    assert made.epoch == datetime(2026, 11, 22, 12, 5, tzinfo=UTC)
    assert "simulated nothing before" in reason


def test_a_given_seed_names_the_world() -> None:
    made, _ = pick(seed="demo 1")
    assert made.name == "simulated/demo-1"
    msgspec.convert(made.name, WorldName)


def test_equal_seeds_are_equal_markets_and_others_are_not() -> None:
    assert pick(seed="a")[0].seed_number == pick(seed="a")[0].seed_number != pick(seed="b")[0].seed_number


def test_a_world_goes_on_after_a_short_pause() -> None:
    made, _ = pick()
    again, reason = pick(made, now=NOW + LONGEST_PAUSE, landed_to=NOW + timedelta(hours=1))
    assert again == made
    assert "going on" in reason


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"now": NOW + timedelta(hours=25)}, "paused for more than 24 h"),
        ({"now": NOW + timedelta(days=9), "landed_to": NOW + timedelta(days=7)}, "paused for more than 24 h"),
        ({"symbols": ("BTC",)}, "has the symbols BTC,ETH"),
        ({"seed": "other"}, "LIQ_SIMULATION_SEED asks for other"),
    ],
)
def test_what_cannot_go_on_becomes_a_new_world_and_says_why(change: dict[str, object], why: str) -> None:
    made, _ = pick()
    after, reason = pick(made, taken=(made.name,), **change)  # type: ignore[arg-type]
    assert after.name != made.name
    assert reason.startswith(f"a new world, {after.name}: ")
    assert why in reason


def test_a_world_of_another_model_cannot_go_on() -> None:
    made, _ = pick()
    older = msgspec.structs.replace(made, model_version=0)
    after, reason = pick(older, taken=(made.name,))
    assert after.seed == "20261122.2"
    assert "model version 0" in reason


def test_a_name_in_the_database_is_never_used_again() -> None:
    """Rows of another epoch under the same name would contradict the new ones."""
    made, _ = pick(seed="x", taken=("simulated/x", "simulated/x.2"))
    assert made.seed == "x.3"
    again, _ = pick(made, seed="x")
    assert again == made


def test_a_cascade_is_scripted_once_per_world() -> None:
    made, _ = pick(cascade_in_seconds=185)
    start = int(NOW.timestamp()) // 10 * 10
    assert [(s.build_from, s.hit_at) for s in made.scripts] == [(start, start + 180)]
    again, _ = pick(made, now=NOW + timedelta(minutes=30), cascade_in_seconds=185)
    assert again.scripts == made.scripts


def test_a_script_in_a_running_world_begins_where_nothing_has_been_sent_yet() -> None:
    made, _ = pick()
    ahead = msgspec.structs.replace(made, generated_to=NOW + timedelta(minutes=2))
    scripted, _ = pick(ahead, cascade_in_seconds=60)
    assert scripted.scripts[0].build_from >= int(ahead.generated_to.timestamp()) - 10


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    made, _ = pick(cascade_in_seconds=600)
    assert load(tmp_path) is None
    save(tmp_path, made)
    assert load(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_an_unreadable_memory_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("{")
    with pytest.raises(LiqError, match="delete it to start a new simulated world"):
        load(tmp_path)


def test_any_symbol_can_be_simulated() -> None:
    made, _ = pick(symbols=("BTC", "PEPE", "1INCH"))
    sizes: Callable[[str], float] = lambda symbol: next(  # noqa: E731
        i.price_usd * i.open_interest_base for i in instruments(made) if i.symbol == symbol
    )
    assert all(1e7 < sizes(symbol) < 1e11 for symbol in made.symbols)
    assert instruments(made) == instruments(made)


def test_the_manifest_states_every_kind_of_record() -> None:
    manifest = describe(pick()[0]).manifest
    assert set(manifest.expected) == {
        "prices",
        "funding_rates",
        "open_interest",
        "long_short_ratio",
        "liquidations",
        "stablecoin_flows",
    }
    assert manifest.expected["prices"].cadence_of("sim_average") == 60
    assert manifest.expected["prices"].cadence_of("sim_alpha") == 10
    assert "not real" in manifest.description


@pytest.mark.parametrize(("symbols", "days"), [(1, 30), (2, 30), (5, 30), (6, 27), (20, 8), (200, 4)])
def test_many_symbols_start_with_a_shorter_history(symbols: int, days: int) -> None:
    made, _ = pick(symbols=tuple(f"COIN{number}" for number in range(symbols)))
    assert made.epoch - made.first_time == timedelta(days=days)
