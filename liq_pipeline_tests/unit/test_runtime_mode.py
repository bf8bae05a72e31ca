"""Which mode is in force, why, and what a home keeps of that choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.mode import decide_mode
from liq_pipeline.settings import Settings


@dataclass
class Found:
    prices_ok: list[str] = field(default_factory=list)
    derivatives_ok: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


EVERYTHING = Found(prices_ok=["coingecko", "okx"], derivatives_ok=["okx"])
NOTHING = Found(failures={"coingecko": "no route to host", "okx": "refused (451)", "gate": "timed out"})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def probing(found: Found) -> Callable[[Settings], Found]:
    return lambda _settings: found


def refuse_to_probe(_settings: Settings) -> Found:
    raise AssertionError("the sources were asked although the answer does not count")


def test_auto_is_live_when_a_price_and_a_derivatives_source_answer(home: Home) -> None:
    mode, reason = decide_mode(Settings(mode="auto"), home, probing(EVERYTHING))
    assert mode == "live"
    assert "coingecko" in reason
    assert "okx" in reason


@pytest.mark.parametrize(
    "found",
    [NOTHING, Found(prices_ok=["coingecko"]), Found(derivatives_ok=["okx"])],
    ids=["nothing answers", "prices only", "derivatives only"],
)
def test_auto_is_simulated_when_either_half_is_missing(home: Home, found: Found) -> None:
    mode, reason = decide_mode(Settings(mode="auto"), home, probing(found))
    assert mode == "simulated"
    assert "no live data" in reason


def test_the_reason_names_the_missing_half_and_why(home: Home) -> None:
    _, reason = decide_mode(Settings(mode="auto"), home, probing(NOTHING))
    assert "no price and no derivatives source" in reason
    assert "no route to host" in reason
    assert "1 more" in reason


def test_a_home_that_was_ever_live_starts_live_and_blind_never_simulated(home: Home) -> None:
    decide_mode(Settings(mode="auto"), home, probing(EVERYTHING))
    mode, reason = decide_mode(Settings(mode="auto"), Home(home.path), probing(NOTHING))
    assert mode == "live"
    assert "BLIND" in reason


def test_live_by_request_also_makes_a_home_live_for_ever(home: Home) -> None:
    decide_mode(Settings(mode="live"), home, refuse_to_probe)
    decide_mode(Settings(mode="simulated"), home, refuse_to_probe)
    mode, _ = decide_mode(Settings(mode="auto"), home, probing(NOTHING))
    assert mode == "live"


def test_a_simulated_choice_is_kept_without_asking_again(home: Home) -> None:
    decide_mode(Settings(mode="auto"), home, probing(NOTHING))
    mode, reason = decide_mode(Settings(mode="auto"), Home(home.path), refuse_to_probe)
    assert mode == "simulated"
    assert "LIQ_MODE=live" in reason


def test_a_simulated_home_asked_to_be_live_once_is_live_from_then_on(home: Home) -> None:
    decide_mode(Settings(mode="auto"), home, probing(NOTHING))
    decide_mode(Settings(mode="live"), home, refuse_to_probe)
    mode, _ = decide_mode(Settings(mode="auto"), home, probing(NOTHING))
    assert mode == "live"


@pytest.mark.parametrize("asked", ["live", "simulated", "recorded"])
def test_what_is_asked_for_is_done_without_asking_the_sources(home: Home, asked: str) -> None:
    mode, reason = decide_mode(Settings(mode=asked), home, refuse_to_probe)  # type: ignore[arg-type]
    assert mode == asked
    assert "asked for" in reason
