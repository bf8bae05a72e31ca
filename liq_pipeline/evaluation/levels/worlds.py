"""Simulated worlds for judging the liquidation map: what their venues publish, and where the positions truly lie.

Belongs here: playing a world without a store. Does not: the map (scoring/levels/), figures (truth.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from liq_pipeline.domain.records import FundingRate, Liquidation, LongShortRatio, OpenInterest
from liq_pipeline.scoring.bars import UNKNOWN_CENTS, BarArrays, Floats, Integers, empty_bars
from liq_pipeline.scoring.levels.method import BIN_WIDTH, BINS
from liq_pipeline.sources.simulated.feeds import LIQUIDATION_VENUES, VENUES, Feeds
from liq_pipeline.sources.simulated.market import BIN_WIDTH as LEVEL_WIDTH
from liq_pipeline.sources.simulated.market import BINS as LEVELS
from liq_pipeline.sources.simulated.market import LONG, MODEL_VERSION, Market
from liq_pipeline.sources.simulated.source import WARM_UP_SECONDS
from liq_pipeline.sources.simulated.world import HISTORY_STEP_SECONDS, Simulation, instruments

EPOCH: Final = datetime(2026, 3, 2, tzinfo=UTC)
SYMBOLS: Final = ("BTC", "ETH")
TRUTH_EVERY: Final = 72
"""Bars between two looks at the true positions: six hours."""


COMPLETE_VENUE: Final = "sim_alpha"
"""The one that shows every forced order; sim_beta shows samples, sim_gamma none."""


@dataclass(frozen=True)
class JudgedWorld:
    """One world. truth_at: (looks,) bar indices. truth_usd: (looks, 2, symbols, BINS), the true notional by distance in
    the map's bins around the true price; truth_coins: (looks, symbols) of all positions."""

    seed: str
    bars: BarArrays
    truth_at: Integers
    truth_usd: Floats
    truth_coins: Floats


def play(seed: str, days: int) -> JudgedWorld:
    """`days` days in steps of 5 min."""
    simulation = Simulation(
        seed=seed,
        epoch=EPOCH,
        symbols=SYMBOLS,
        model_version=MODEL_VERSION,
        history_hours=24 * days,
        generated_to=EPOCH,
    )
    market = Market(simulation.seed_number, instruments(simulation))
    feeds = Feeds(simulation.seed_number, simulation.name, market)
    step, count = HISTORY_STEP_SECONDS, 24 * days * 3600 // HISTORY_STEP_SECONDS
    first = int(simulation.first_time.timestamp())
    bars = empty_bars(SYMBOLS, tuple(venue.name for venue in VENUES), first + step, step, count)
    speaks = [venue in LIQUIDATION_VENUES for venue in VENUES]
    for cents in (bars.long_liquidated_cents, bars.short_liquidated_cents):
        cents[:, speaks] = 0
    looks: list[tuple[int, Floats, Floats]] = []
    for end in range(first - WARM_UP_SECONDS + step, first + count * step + 1, step):
        records = feeds.step(end, step, market.step(end, step))
        at = (end - first) // step - 1
        if at < 0:
            continue
        for record in records:
            if isinstance(record, OpenInterest):
                series = SYMBOLS.index(record.symbol), bars.venues.index(record.venue), at
                bars.price_usd[series] = record.mark_price_usd
                bars.open_interest_base[series] = record.open_interest_base
            elif isinstance(record, FundingRate) and record.kind == "predicted":
                series = SYMBOLS.index(record.symbol), bars.venues.index(record.venue), at
                bars.funding_rate_per_8h[series] = record.rate * 8.0 / record.interval_hours
            elif isinstance(record, LongShortRatio):
                bars.long_share[SYMBOLS.index(record.symbol), bars.venues.index(record.venue), at] = record.long_share
            elif isinstance(record, Liquidation):
                series = SYMBOLS.index(record.symbol), bars.venues.index(record.venue), at
                cents = getattr(bars, f"{record.liquidated_side}_liquidated_cents")
                cents[series] = max(int(cents[series]), 0) + round(100 * (record.notional_usd or 0.0))
        if at % TRUTH_EVERY == TRUTH_EVERY - 1:
            looks.append((at, true_map(market), market.open_interest_base))
    return JudgedWorld(
        seed,
        bars,
        np.array([at for at, _, _ in looks], dtype=np.int64),
        np.stack([usd for _, usd, _ in looks]),
        np.stack([coins for _, _, coins in looks]),
    )


def true_map(market: Market) -> Floats:
    """(2, symbols, BINS): USD that would truly be closed by force in each of the map's bins."""
    state = market.state
    usd = np.zeros((2, len(market.instruments), BINS))
    for i, price in enumerate(market.price_usd.tolist()):
        # A long goes when the price falls below its level's cell, a short when it rises above: the cell's middle.
        level = np.exp((state.origin[i] + np.arange(LEVELS) + 0.5) * LEVEL_WIDTH)
        for side in range(2):
            away = (price - level if side == LONG else level - price) / price
            place = np.floor(away / BIN_WIDTH).astype(np.int64)
            inside = (place >= 0) & (place < BINS)
            np.add.at(usd[side, i], place[inside], (state.book[side, i] * level)[inside])
    return usd


def unknown_forced_orders(bars: BarArrays) -> BarArrays:
    """The same bars as a market sees them whose venues show no forced orders."""
    nothing = np.full(bars.long_liquidated_cents.shape, UNKNOWN_CENTS, dtype=np.int64)
    return BarArrays(
        bars.symbols,
        bars.venues,
        bars.start_seconds,
        bars.step_seconds,
        bars.price_usd,
        bars.open_interest_base,
        bars.funding_rate_per_8h,
        bars.long_share,
        nothing,
        nothing.copy(),
    )
