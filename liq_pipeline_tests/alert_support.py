"""Scored points made by hand, for the tests of alerts.

Belongs here: building PointResults, worlds and scenarios. Does not: assertions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from liq_pipeline.alerting.deciding.machine import step
from liq_pipeline.alerting.deciding.policy import AlertPolicy
from liq_pipeline.alerting.deciding.state import Book, Change, Message
from liq_pipeline.domain.worlds import Expectation, Manifest, World
from liq_pipeline.scoring.results import PointResult, PressureResult, RiskResult, Side, SignalResult, UnderWay
from liq_pipeline.scoring.severity import FLOW_SIDE_BLIND, severity_of
from liq_pipeline.settings import Settings, SeveritySettings

START = datetime(2025, 10, 10, 12, 0, tzinfo=UTC)
TOPICS = ("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations", "stablecoin_flows")
VERSION = "v1"
SEVERITY = SeveritySettings()


def world(name: str = "real", step_seconds: int = 60, symbols: tuple[str, ...] = ("BTC", "ETH", "SOL")) -> World:
    """A world in which every type is expected from one venue."""
    expected = {topic: Expectation(venues=("binance",), cadence_seconds=10.0) for topic in TOPICS}
    kind: Any = name.partition("/")[0]
    return World(
        name=name,
        kind=kind,
        market_step_seconds=step_seconds,
        flows_step_seconds=step_seconds,
        manifest=Manifest(symbols=symbols, expected=expected),
    )


@dataclass(frozen=True)
class Reading:
    """What one symbol shows: risk is spread over the components in the order of their budgets. None = UNKNOWN.

    silent: components whose points are unknown; their part of the risk is missing from the score.
    """

    risk: float | None = 0.0
    side: Side = "long"
    other_side: float = 0.0
    early_warning: bool | None = False
    silent: tuple[str, ...] = ()
    parts: Mapping[str, float] | None = None
    funding_share: float = 1.0
    under_way: UnderWay | None = None


BUDGETS = {"funding": 30.0, "open_interest": 30.0, "long_short": 20.0, "liquidation": 20.0}


def running(side: Side = "long", *, is_open: bool | None = True, is_calm: bool | None = False, **more: Any) -> UnderWay:
    """A cascade as a signal holds it, 35 min old."""
    given: dict[str, Any] = {
        "probability": 0.62,
        "rule": "model",
        "started_at": START - timedelta(minutes=35),
        "excursion": -0.042 if side == "long" else 0.042,
        "threshold": 0.03,
        "open_interest_change": -0.038,
        "inputs": {"missing": ["liquidations"], "symbols_in_excursion": 3},
    }
    return UnderWay(side=side, is_open=is_open, is_calm=is_calm, **(given | more))


CALM = running(is_open=False, is_calm=True)
UNSETTLED = running(is_open=False, is_calm=False)
UNSEEN = running(is_open=None, is_calm=None)


def spread(risk: float) -> dict[str, float]:
    """Points of each component that add up to `risk`."""
    return {name: risk * budget / 100.0 for name, budget in BUDGETS.items()}


def point(
    minutes: float, readings: Mapping[str, Reading | float | None], pressure: float | None = -10.0
) -> PointResult:
    """The point `minutes` after START. A bare number is a risk with the long side at risk; None is UNKNOWN."""
    severity = SEVERITY
    time = START + timedelta(minutes=minutes)
    risks, signals = {}, {}
    for symbol, given in readings.items():
        reading = given if isinstance(given, Reading) else Reading(risk=given)
        known = reading.parts or ({} if reading.risk is None else spread(reading.risk))
        points = {name: None if name in reading.silent else known.get(name) for name in BUDGETS}
        total = None if reading.risk is None else sum(value for value in points.values() if value is not None)
        missing = sum(BUDGETS[name] for name, value in points.items() if value is None)
        side: Side | None = None if total is None else reading.side
        other = reading.other_side
        risks[symbol] = RiskResult(
            symbol=symbol,
            time=time,
            score=total,
            score_high=None if total is None else min(100.0, total + missing),
            side=side,
            funding_points=points["funding"],
            open_interest_points=points["open_interest"],
            long_short_points=points["long_short"],
            liquidation_points=points["liquidation"],
            long_squeeze=total if side == "long" else other,
            short_squeeze=total if side == "short" else other,
            coverage=0.0 if total is None else 1.0 - missing / 100.0,
            inputs={
                "funding": {
                    "share": reading.funding_share,
                    "venues": {"binance": {"state": "counted", "funding": 0.0004, "age_seconds": 12.0}},
                },
                "lean": 0.25,
                "price": {"venues": {"binance": {"price_usd": 64_120.0, "age_seconds": 3.0}}},
            },
        )
        signals[symbol] = SignalResult(
            symbol=symbol,
            time=time,
            risk=total,
            pressure=pressure,
            severity=severity_of(total, pressure, severity),
            severity_possible=severity_of(risks[symbol].score_high, pressure, severity),
            flow_side_known=pressure is not None,
            note="" if pressure is not None else FLOW_SIDE_BLIND,
            cascade_probability_4h=None if reading.early_warning is None else 0.02 + 0.3 * reading.early_warning,
            early_warning=reading.early_warning,
            model_id="model-a",
            under_way=reading.under_way,
        )
    flows = None
    if pressure is not None:
        flows = PressureResult(
            time=time, score=pressure, inflow_usd=2.5e6, outflow_usd=1.0e6, window_minutes=60, coverage=1.0
        )
    return PointResult(time=time, risks=risks, signals=signals, pressure=flows)


@dataclass
class Played:
    """What a sequence of points led to."""

    book: Book
    books: list[Book]
    changes: list[Change]
    messages: list[Message]

    def told(self) -> list[tuple[float, str, str, str]]:
        """(minutes after START, kind, subject, level) of every message."""
        names = ("NONE", "INFO", "WARNING", "CRITICAL")
        return [
            ((m.time - START).total_seconds() / 60, m.kind, m.alert.subject, names[m.alert.level])
            for m in self.messages
        ]


def play(points: Iterable[PointResult], policy: AlertPolicy, book: Book | None = None) -> Played:
    """Run the machine over the points."""
    state = Book() if book is None else book
    played = Played(state, [], [], [])
    for each in points:
        outcome = step(state, each, policy, VERSION)
        state = outcome.book
        played.books.append(state)
        played.changes += outcome.changes
        played.messages += outcome.messages
    played.book = state
    return played


def policy(of: World | None = None, **settings: Any) -> AlertPolicy:
    """The policy of settings given by name, in a world of one-minute points."""
    return AlertPolicy.build(Settings(**settings), of or world())


def series(
    symbol: str, risks: Iterable[float | Reading | None], pressure: float | None = -10.0, start: float = 0.0
) -> list[PointResult]:
    """One-minute points of one symbol."""
    return [point(start + i, {symbol: risk}, pressure) for i, risk in enumerate(risks)]


READINGS = st.one_of(
    st.none(),
    st.builds(
        Reading,
        risk=st.sampled_from([0.0, 24.0, 26.0, 33.0, 44.0, 47.0, 52.0, 64.0, 68.0, 75.0, 95.0]),
        side=st.sampled_from(["long", "short"]),
        other_side=st.sampled_from([0.0, 20.0]),
        early_warning=st.sampled_from([True, False, None]),
        silent=st.sampled_from([(), ("liquidation",), ("open_interest",)]),
    ),
)
SYMBOLS = ("ADA", "BTC", "ETH")


@st.composite
def histories(draw: st.DrawFn) -> list[PointResult]:
    """Points at rising times with gaps, three symbols, stretches of equal readings so that holds can pass."""
    points, minutes = [], 0.0
    for _ in range(draw(st.integers(1, 12))):
        readings = {symbol: draw(READINGS) for symbol in SYMBOLS}
        pressure = draw(st.sampled_from([None, -40.0, -31.0, -10.0, 3.0, 20.0]))
        for _ in range(draw(st.sampled_from([1, 2, 3, 17]))):
            points.append(point(minutes, readings, pressure))
            minutes += draw(st.sampled_from([1.0, 1.0, 1.0, 30.0]))
    return points
