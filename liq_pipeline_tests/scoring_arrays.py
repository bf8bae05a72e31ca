"""Random and hand-made bars for unit tests of scoring; nothing of it needs a server."""

from __future__ import annotations

import numpy as np

from liq_pipeline.scoring import features
from liq_pipeline.scoring.bars import (
    CENTS_FIELDS,
    LEVEL_FIELDS,
    UNKNOWN_CENTS,
    BarArrays,
    Booleans,
    Integers,
    Points,
    empty_bars,
    points_on_bars,
)
from liq_pipeline.scoring.references import DAY_SECONDS, QUANTILES, Reference, References, build_references
from liq_pipeline.scoring.risk import RiskArrays, risk_arrays

TOPICS = ("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations")


def random_bars(
    seed: int,
    *,
    days: int,
    symbols: int = 2,
    venues: int = 2,
    step_seconds: int = 3600,
    unknown_share: float = 0.03,
    first_day: int = 20_000,
) -> BarArrays:
    """A market that wanders, with holes; it begins with the first bar of a UTC day."""
    random = np.random.default_rng(seed)
    count = days * DAY_SECONDS // step_seconds
    bars = empty_bars(
        tuple(f"S{i}" for i in range(symbols)),
        tuple(f"v{i}" for i in range(venues)),
        first_day * DAY_SECONDS + step_seconds,
        step_seconds,
        count,
    )
    shape = bars.price_usd.shape
    bars.price_usd[...] = 100 * np.exp(np.cumsum(random.normal(0, 0.01, shape), axis=-1))
    bars.open_interest_base[...] = 1000 * np.exp(np.cumsum(random.normal(0, 0.01, shape), axis=-1))
    bars.funding_rate_per_8h[...] = random.normal(0, 1e-4, shape)
    bars.long_share[...] = random.uniform(0.3, 0.7, shape)
    for name in CENTS_FIELDS:
        sums = np.rint(random.pareto(0.7, shape) * 1000).astype(np.int64)
        getattr(bars, name)[...] = np.where(random.random(shape) < 0.5, 0, np.minimum(sums, 10**14))
    for name in LEVEL_FIELDS:
        getattr(bars, name)[random.random(shape) < unknown_share] = np.nan
    silent = random.random(shape) < unknown_share
    for name in CENTS_FIELDS:
        getattr(bars, name)[silent] = UNKNOWN_CENTS
    return bars


def everyone_expected(bars: BarArrays) -> dict[str, Booleans]:
    """Every venue is expected to bring everything."""
    return {topic: np.ones(len(bars.venues), dtype=bool) for topic in TOPICS}


def score_bars(
    bars: BarArrays,
    index: Integers | None = None,
    *,
    min_lookback_hours: int = 72,
    min_coverage: float = 0.5,
    expected: dict[str, Booleans] | None = None,
    without: frozenset[str] = frozenset(),
) -> RiskArrays:
    """Score a panel from its bars alone, as an evaluation does."""
    points = points_on_bars(bars, index)
    references = build_references(
        bars,
        features.on_bars(bars),
        np.unique(points.time_seconds // DAY_SECONDS),
        lookback_hours=720,
        min_lookback_hours=min_lookback_hours,
    )
    chosen = everyone_expected(bars) if expected is None else expected
    return risk_arrays(bars, points, references, chosen, min_coverage, without)


def uniform_references(bars: BarArrays, points: Points, ranges: dict[str, tuple[float, float]]) -> References:
    """References whose order statistics rise evenly over a range per feature; (0, 1) where none is given."""
    days = np.unique(points.time_seconds // DAY_SECONDS)
    shape = (len(bars.symbols), len(bars.venues), days.size)
    built = {}
    for name in features.FEATURES:
        low, high = ranges.get(name, (0.0, 1.0))
        quantiles = np.broadcast_to(np.linspace(low, high, QUANTILES), (*shape, QUANTILES))
        built[name] = Reference(quantiles, np.full(shape, 10_000))
    return References(days, built, 1)
