"""`liq watch` on a small screen: health stays in view, the most urgent come first, what is not shown is counted."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from rich.console import Console

from liq_pipeline.operations.status import Status
from liq_pipeline.operations.watch import by_urgency, render

NOW = datetime(2026, 2, 5, 12, tzinfo=UTC)


def _row(risk: float | None, severity: str = "NONE") -> dict[str, object]:
    return {
        "risk": risk,
        "score_high": 90.0 if risk is None else risk + 10,
        "funding_points": 10.0,
        "open_interest_points": None,
        "long_short_points": 3.0,
        "liquidation_points": 0.0,
        "pressure": None,
        "flow_side_known": False,
        "cascade_probability_4h": 0.02,
        "side": "long",
        "severity": severity,
        "severity_possible": severity,
        "coverage": 0.7,
        "note": "flow side blind",
        "model_id": "m",
        "base_rate_4h": 0.01,
    }


def _status(symbols: int) -> Status:
    status = Status(
        world="simulated/7", mode="simulated", ticks={"last": NOW, "last_committed_at": NOW}, world_clock=NOW
    )
    status.symbols = {f"C{i:02d}": _row(float(i)) for i in range(symbols)}
    return status


def _screen(status: Status, page: int = 0, height: int = 23) -> list[str]:
    console = Console(width=80, height=24, force_terminal=False)
    with console.capture() as capture:
        console.print(render(status, NOW, height=height, width=80, page=page))
    return capture.get().rstrip("\n").split("\n")


def _rows(lines: list[str]) -> list[str]:
    """The table's own lines: a note begins with the symbol and a colon."""
    return [line for line in lines if line.startswith("C") and ":" not in line.split()[0]]


@pytest.mark.parametrize("problems", [0, 1, 12])
@pytest.mark.parametrize("symbols", [1, 2, 17, 18, 50])
def test_the_screen_fits_and_keeps_health_in_view(symbols: int, problems: int) -> None:
    status = _status(symbols)
    for i in range(problems):
        status.problem(f"Part {i} does not answer.")
    lines = _screen(status)
    assert len(lines) <= 23
    assert any(f"health {status.health}" in line for line in lines[:3])
    assert any("Not financial advice" in line for line in lines)
    assert any("Part 0 does not answer" in line for line in lines) == (problems > 0)
    assert any("and 9 more" in line for line in lines) == (problems == 12)


def test_fifty_symbols_come_in_pages_the_riskiest_first_and_none_is_left_out() -> None:
    status = _status(50)
    first = _screen(status)
    rows = _rows(first)
    assert rows[0].startswith("C49")
    counted = next(line for line in first if "not shown" in line)
    assert f"1 to {len(rows)} of 50 symbols by urgency, {50 - len(rows)} not shown" in counted
    seen: set[str] = set()
    for page in range(8):
        seen |= {line.split()[0] for line in _rows(_screen(status, page))}
    assert len(seen) == 50


def test_what_cannot_be_scored_stands_above_what_is_calm() -> None:
    status = _status(3)
    status.symbols["BLIND"] = _row(None, "UNKNOWN")
    status.symbols["FIRE"] = _row(80.0, "CRITICAL")
    assert by_urgency(status) == ["FIRE", "BLIND", "C02", "C01", "C00"]


def test_two_symbols_need_no_pages_and_keep_their_notes() -> None:
    lines = _screen(_status(2))
    assert not any("not shown" in line for line in lines)
    assert any("flow side blind" in line for line in lines)


def test_a_cascade_under_way_stands_first_with_its_move_in_the_severity_s_place() -> None:
    status = _status(3)
    status.symbols["FIRE"] = _row(80.0, "CRITICAL")
    status.symbols["RUNS"] = _row(20.0) | {"is_under_way": True, "under_way_side": "long", "excursion": -0.042}
    assert by_urgency(status)[:2] == ["RUNS", "FIRE"]
    line = next(line for line in _screen(status) if line.startswith("RUNS "))
    assert "DOWN -4.2 %" in line


def test_an_unknown_world_is_not_called_unreal() -> None:
    away = Status(mode="live", database={"reachable": False})
    assert _screen(away)[0] == "WORLD UNKNOWN: the database cannot be asked, so this may be a real market."
    empty = Status(database={"reachable": True})
    assert _screen(empty)[0] == "NO WORLD: the database names none that is active."
    assert _screen(_status(1))[0] == "NOT REAL: world simulated/7. Nothing here is a market."
