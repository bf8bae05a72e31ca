"""Days of the simulator as a panel: the only market here that has long/short ratios, liquidations and flows at once.

Belongs here: turning its messages into rows. Does not: simulating (sources/simulated). Nothing goes through a store:
the path from Kafka to scores is tested elsewhere, and weeks of it would take hours.

It serves to see the parts at work that no public history holds, above all the pressure gate; figures from it are never
figures about alarm quality.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from liq_pipeline.domain.records import (
    FundingRate,
    Liquidation,
    LongShortRatio,
    OpenInterest,
    Price,
    StablecoinFlow,
)
from liq_pipeline.evaluation.panels.panel import VALUE_COLUMNS, Panel
from liq_pipeline.scoring.pressure import INFLOW, OUTFLOW, user_flow
from liq_pipeline.settings import Settings
from liq_pipeline.sources.simulated.market import MODEL_VERSION
from liq_pipeline.sources.simulated.source import WARM_UP_SECONDS, Engine
from liq_pipeline.sources.simulated.world import HISTORY_STEP_SECONDS, Simulation

EPOCH: Final = datetime(2026, 3, 2, tzinfo=UTC)
_MARKET: Final = (Price, OpenInterest, FundingRate, LongShortRatio, Liquidation)
VENUE: Final = "sim_alpha"
"""The simulated venue that publishes everything; liquidations of the others repeat or sample the same orders."""


def simulated_panel(days: int, settings: Settings, seed: str = "evaluation") -> Panel:
    """`days` days of 5-min rows of the settings' symbols, the same for the same seed."""
    simulation = Simulation(
        seed=seed,
        epoch=EPOCH,
        symbols=settings.symbols,
        model_version=MODEL_VERSION,
        history_hours=24 * days,
        generated_to=EPOCH,
    )
    engine = Engine(simulation)
    first = int((EPOCH - timedelta(days=days)).timestamp())
    step = HISTORY_STEP_SECONDS
    count = days * 86_400 // step
    columns = {name: np.full((len(settings.symbols), count), np.nan) for name in VALUE_COLUMNS}
    columns["long_liquidations_usd"][:] = columns["short_liquidations_usd"][:] = 0.0
    columns["stablecoin_net_inflow_usd"][:] = 0.0
    place = {symbol: index for index, symbol in enumerate(settings.symbols)}
    for end in range(first - WARM_UP_SECONDS + step, first + count * step + 1, step):
        messages = engine.step(end, step)
        at = (end - first) // step - 1
        if at < 0:
            continue
        for message in messages:
            if isinstance(message, tuple):
                continue
            if isinstance(message, StablecoinFlow):
                sign = user_flow(message.direction)
                amount = float(message.amount)
                columns["stablecoin_net_inflow_usd"][:, at] += (
                    amount if sign == INFLOW else -amount if sign == OUTFLOW else 0.0
                )
            elif message.venue == VENUE and isinstance(message, _MARKET):
                _put(columns, place[message.symbol], at, message)
    # Funding and ratios are published more rarely than rows come: the last one stands.
    for name in ("funding_rate_per_8h", "long_short_ratio"):
        for row in columns[name]:
            known = np.where(np.isfinite(row), np.arange(count), -1)
            last = np.maximum.accumulate(known)
            row[:] = np.where(last >= 0, row[np.maximum(last, 0)], np.nan)
    time = first + step * np.arange(1, count + 1, dtype=np.int64)
    note = f"SIMULATED: {days} days of simulated/{seed}, a made-up market"
    return Panel(settings.symbols, time, step, columns, (note,), f"simulated/{seed}/{MODEL_VERSION}/{days}")


def _put(
    columns: dict[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]], row: int, at: int, message: object
) -> None:
    if isinstance(message, Price):
        columns["price_usd"][row, at] = message.price_usd
    elif isinstance(message, OpenInterest) and message.open_interest_base is not None:
        columns["open_interest_base"][row, at] = message.open_interest_base
        columns["open_interest_usd"][row, at] = message.open_interest_base * columns["price_usd"][row, at]
    elif isinstance(message, FundingRate):
        columns["funding_rate_per_8h"][row, at] = message.rate * 8.0 / message.interval_hours
    elif isinstance(message, LongShortRatio) and message.kind == "accounts":
        columns["long_short_ratio"][row, at] = message.long_share / message.short_share
    elif isinstance(message, Liquidation):
        columns[f"{message.liquidated_side}_liquidations_usd"][row, at] += message.price_usd * message.quantity_base
