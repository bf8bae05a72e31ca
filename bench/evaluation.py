"""How long a year of evaluation takes, and how fast scoring runs beside a row-at-a-time Python loop.

Run: python -m bench evaluation [--symbols 20] [--days 365]. The market is made here: waves of volatility, jumps in
which open interest falls. Baselines: a plain Python loop over the same features of one symbol.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.evaluation.panels.panel import VALUE_COLUMNS, Panel
from liq_pipeline.evaluation.report.run import evaluate
from liq_pipeline.scoring.bars import points_on_bars
from liq_pipeline.scoring.probability import shipped_model
from liq_pipeline.settings import Settings

STEP_SECONDS = 300
START = 1_735_689_600  # 2025-01-01
LOOP_ROWS = 3_000
NAMES = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK", "DOT", "LTC")


def made_market(symbols: int, days: int, seed: int = 5) -> Panel:
    """Prices with waves of volatility and market-wide jumps; open interest and funding that follow them."""
    rng = np.random.default_rng(seed)
    names = tuple([*NAMES, *(f"C{i:02d}" for i in range(symbols))][:symbols])
    rows = days * 86_400 // STEP_SECONDS
    wave = np.exp(0.35 * np.cumsum(rng.normal(0, 0.03, rows)) / np.sqrt(1 + np.arange(rows) / 3000))
    common = rng.standard_t(4, rows)
    own = rng.standard_t(4, (symbols, rows))
    returns = 0.0011 * np.clip(wave, 0.3, 4) * (0.6 * common + 0.6 * own)
    turns = rng.normal(0, 0.002, (symbols, rows))
    for begin in rng.integers(2000, rows - 100, days // 3):
        length, size = int(rng.integers(3, 40)), rng.choice([-1, 1]) * rng.uniform(0.02, 0.10)
        hit = rng.random(symbols) < 0.5
        returns[hit, begin : begin + length] += size / length
        turns[hit, begin : begin + length] -= rng.uniform(0.02, 0.12) / length
    price = 100 * np.exp(np.cumsum(returns, axis=1) - 0.0001 * np.cumsum(returns, axis=1) ** 3)
    interest = 1e6 * np.exp(0.3 * np.tanh(np.cumsum(turns, axis=1)))
    columns = {name: np.full(price.shape, np.nan) for name in VALUE_COLUMNS}
    columns["price_usd"], columns["open_interest_base"] = price, interest
    columns["open_interest_usd"] = price * interest
    columns["funding_rate_per_8h"] = np.clip(1e-4 + 1e-4 * rng.normal(size=price.shape), -1e-3, 1e-3)
    time_grid = START + STEP_SECONDS * np.arange(rows, dtype=np.int64)
    return Panel(tuple(sorted(names)), time_grid, STEP_SECONDS, columns, (), "made")


def loop_seconds_per_row(price: list[float], interest: list[float]) -> float:
    """Volatilities, drawdown and build-ups of the model, one row at a time over lists, as a newcomer writes them."""
    began = time.perf_counter()
    week, day, hours4 = 2016, 288, 48
    done = 0
    for t in range(week + 1, min(len(price), week + 1 + LOOP_ROWS)):
        for width in (hours4, day, week):
            math.sqrt(sum(math.log(price[i] / price[i - 1]) ** 2 for i in range(t - width + 1, t + 1)) / width)
        for width in (hours4, week):
            math.sqrt(sum(math.log(interest[i] / interest[i - 1]) ** 2 for i in range(t - width + 1, t + 1)) / width)
        max(price[t - week + 1 : t + 1])
        min(interest[t - day + 1 : t + 1])
        min(interest[t - week + 1 : t + 1])
        done += 1
        if time.perf_counter() - began > 10:
            break
    return (time.perf_counter() - began) / done


def main(arguments: list[str]) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--days", type=int, default=365)
    given = parser.parse_args(arguments)
    panel = made_market(given.symbols, given.days)
    bars = bars_of(panel)
    points = points_on_bars(bars)
    began = time.perf_counter()
    shipped_model().predict(bars, points)
    rate = panel.rows / (time.perf_counter() - began)
    price, interest = panel["price_usd"][0, :20_000].tolist(), panel["open_interest_base"][0, :20_000].tolist()
    per_row = loop_seconds_per_row(price, interest)
    print(
        f"probability: {rate:,.0f} rows/s on one core;"
        f" row-at-a-time loop {1 / per_row:,.0f} rows/s: {rate * per_row:,.0f} x"
    )
    report = evaluate(panel, settings=Settings())
    events = report["panel"]["events"]["4h"]["all"]
    print(f"evaluation of {panel.rows:,} rows ({given.symbols} symbols, {events} events): {report['seconds']} s")
