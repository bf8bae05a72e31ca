"""Stored history as something that can be judged: bars of every venue, and one panel for the labels.

Belongs here: reading bars and flows of a world over any span. Does not: figures (evaluation/report/run.py), the queries
behind them (store/), writing results (evaluation/report/figure_rows.py).

Scores stand on the bars of all venues, as in the live tick. Labels and baselines stand on one series per symbol, that
of its most complete venue: a mean or a sum over venues would jump when a venue falls silent, and a jump of open
interest is half of a cascade.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from liq_pipeline.domain.chains import chain_of
from liq_pipeline.domain.worlds import World
from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.bars import (
    CENTS_FIELDS,
    LEVEL_FIELDS,
    MICROSECONDS,
    STEP_SECONDS,
    UNKNOWN_CENTS,
    BarArrays,
    Booleans,
    Floats,
    Integers,
    empty_bars,
)
from liq_pipeline.scoring.risk import venue_mean
from liq_pipeline.settings import Settings
from liq_pipeline.store.inputs.as_known import build_bars, flow_sources_fresh, flow_totals
from liq_pipeline.store.inputs.expected_sources import Scope, history_scope
from liq_pipeline.store.lookback import market_lookback
from liq_pipeline.store.lookback.market_lookback import seconds_of

Connection = psycopg.Connection[Any]

DAY_SECONDS: Final = 86_400
FOREVER_SECONDS: Final = 2**33
"""A moment after every `built_at_time`: the newest version of each kept bar."""


@dataclass(frozen=True)
class History:
    """One world over a span. bars: (symbols, venues, bars) as known at each bar's end; panel: on the same grid.

    expected: topic -> (venues,) whether that venue is expected to bring it.
    """

    world: World
    panel: Panel
    bars: BarArrays
    expected: dict[str, Booleans]


def stored_history(
    conn: Connection, world: World, settings: Settings, first: datetime | None = None, last: datetime | None = None
) -> History:
    """Everything known of a world in (first, last]; None: as far as its prices reach.

    Bars that ticks have kept are taken as they are; days without any are built from the raw rows. Raises LiqError if
    nothing is stored there.
    """
    scope = history_scope(conn, world, settings.risk)
    span = _span(conn, scope, first, last)
    if span is None:
        raise LiqError(f"no price of {world.name} is stored in that time: nothing can be judged (see `liq backfill`)")
    start, end = span
    bars = _bars(conn, scope, start, end)
    inflow = _net_inflow(conn, scope, bars.end_seconds)
    return History(world, panel_of(bars, inflow, world.name), bars, scope.expected)


def panel_of(bars: BarArrays, net_inflow_usd: Floats, source: str = "") -> Panel:
    """One series per symbol out of the bars of several venues. net_inflow_usd: (bars,), NaN = unknown."""
    symbols = len(bars.symbols)
    levels = {name: np.full((symbols, bars.count), np.nan) for name in ("price_usd", "open_interest_base")}
    chosen = []
    for s, symbol in enumerate(bars.symbols):
        interest_of = _most_known(bars.open_interest_base[s])
        price_of = interest_of
        if np.isfinite(bars.price_usd[s, interest_of]).sum() < 0.9 * np.isfinite(bars.price_usd[s]).sum(axis=-1).max():
            price_of = _most_known(bars.price_usd[s])
        levels["price_usd"][s] = bars.price_usd[s, price_of]
        levels["open_interest_base"][s] = bars.open_interest_base[s, interest_of]
        price_venue, interest_venue = bars.venues[price_of], bars.venues[interest_of]
        chosen.append(f"{symbol} {price_venue}" + ("" if price_of == interest_of else f" and {interest_venue}"))
    share = venue_mean(bars.long_share)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = share / (1.0 - share)
    columns = {
        **levels,
        "open_interest_usd": levels["price_usd"] * levels["open_interest_base"],
        "funding_rate_per_8h": venue_mean(bars.funding_rate_per_8h),
        "long_short_ratio": np.where(np.isfinite(ratio), ratio, np.nan),
        "long_liquidations_usd": _usd(bars.long_liquidated_cents),
        "short_liquidations_usd": _usd(bars.short_liquidated_cents),
        "stablecoin_net_inflow_usd": np.tile(net_inflow_usd, (symbols, 1)),
    }
    note = f"labels and volatility stand on one venue per symbol, the most complete one: {', '.join(chosen)}"
    data_hash = _hash(bars, net_inflow_usd, source)
    return Panel(bars.symbols, bars.end_seconds, bars.step_seconds, columns, (note,), data_hash)


def without_venue(history: History, venue: str) -> History:
    """The same history had that venue been silent; its series for the labels stay."""
    place = history.bars.venues.index(venue)
    arrays: dict[str, Any] = {}
    for name in LEVEL_FIELDS + CENTS_FIELDS:
        values = getattr(history.bars, name).copy()
        values[:, place] = np.nan if name in LEVEL_FIELDS else UNKNOWN_CENTS
        arrays[name] = values
    return replace(history, bars=replace(history.bars, **arrays))


def from_row(history: History, first: int) -> History:
    """The history that begins with bar `first`: what an installation of that moment would have."""
    bars, panel = history.bars, history.panel
    cut = {name: getattr(bars, name)[..., first:] for name in LEVEL_FIELDS + CENTS_FIELDS}
    columns = {name: values[:, first:] for name, values in panel.columns.items()}
    return replace(
        history,
        bars=replace(bars, start_seconds=bars.start_seconds + first * bars.step_seconds, **cut),
        panel=replace(panel, time=panel.time[first:], columns=columns),
    )


def _span(conn: Connection, scope: Scope, first: datetime | None, last: datetime | None) -> tuple[int, int] | None:
    """The first and the last bar's end in which a price may be known."""
    row = conn.execute(
        "SELECT min(event_time), max(event_time) FROM prices WHERE world = %(world)s AND symbol = ANY(%(symbols)s)"
        " AND (%(first)s::timestamptz IS NULL OR event_time > %(first)s)"
        " AND (%(last)s::timestamptz IS NULL OR event_time <= %(last)s)",
        {"world": scope.world, "symbols": list(scope.symbols), "first": first, "last": last},
    ).fetchone()
    if row is None or row[0] is None:
        return None
    start = -(-seconds_of(row[0]) // STEP_SECONDS) * STEP_SECONDS
    end = seconds_of(row[1]) // STEP_SECONDS * STEP_SECONDS
    # Two bars at least: a panel with one row has no step.
    return start, max(end, start + STEP_SECONDS)


def _bars(conn: Connection, scope: Scope, start: int, end: int) -> BarArrays:
    count = (end - start) // STEP_SECONDS + 1
    bars = empty_bars(scope.symbols, scope.venues, start, STEP_SECONDS, count)
    rows = DAY_SECONDS // STEP_SECONDS
    chunk = 7 * rows
    for first in range(0, count, chunk):
        stop = min(first + chunk, count)
        kept = market_lookback.market_bars(
            conn, scope, start + first * STEP_SECONDS, start + (stop - 1) * STEP_SECONDS, FOREVER_SECONDS
        )
        for name in LEVEL_FIELDS + CENTS_FIELDS:
            getattr(bars, name)[..., first:stop] = getattr(kept, name)
    for first in range(0, count, rows):
        stop = min(first + rows, count)
        # A day on which some symbol has no kept price at all is history that no tick has looked back on.
        known_prices = np.isfinite(bars.price_usd[..., first:stop]).sum(axis=(1, 2))
        if (known_prices > 0).all():
            continue
        raw = build_bars(conn, scope, start + first * STEP_SECONDS, stop - first)
        for name in LEVEL_FIELDS + CENTS_FIELDS:
            mine, built = getattr(bars, name)[..., first:stop], getattr(raw, name)
            unknown = np.isnan(mine) if name in LEVEL_FIELDS else mine == UNKNOWN_CENTS
            mine[unknown] = built[unknown]
    return bars


def _net_inflow(conn: Connection, scope: Scope, ends_seconds: Integers) -> Floats:
    """Users' stablecoins onto exchanges minus off them, per bar, USD; NaN where no source had been read that far."""
    net = np.full(ends_seconds.size, np.nan)
    if not scope.flow_venues:
        return net
    for first in range(0, ends_seconds.size, 31 * DAY_SECONDS // STEP_SECONDS):
        part = slice(first, first + 31 * DAY_SECONDS // STEP_SECONDS)
        times_us = ends_seconds[part] * MICROSECONDS
        fresh, _ = flow_sources_fresh(conn, scope, times_us, grace_us=STEP_SECONDS * MICROSECONDS, origins="all")
        sums = flow_totals(conn, scope, times_us, STEP_SECONDS // 60, origins="all")
        found = np.zeros(times_us.size, dtype=np.int64)
        for chain in scope.flow_chains:
            is_read = fresh[np.array([chain_of(venue) == chain for venue in scope.flow_venues])].any(axis=0)
            found += np.where(is_read, sums.cents("inflow", chain) - sums.cents("outflow", chain), 0)
        net[part] = np.where(fresh.any(axis=0), found / 100.0, np.nan)
    return net


def _most_known(series: Floats) -> int:
    """The venue with the most known bars; of equals the first by name. series: (venues, bars)."""
    return int(np.isfinite(series).sum(axis=-1).argmax())


def _usd(cents: NDArray[np.int64]) -> Floats:
    """Over the venues that tell, USD; NaN where none does."""
    known = cents != UNKNOWN_CENTS
    return np.where(known.any(axis=1), np.where(known, cents, 0).sum(axis=1) / 100.0, np.nan)


def _hash(bars: BarArrays, net_inflow_usd: Floats, source: str) -> str:
    digest = hashlib.sha256(f"{source} {bars.symbols} {bars.venues} {bars.start_seconds} {bars.step_seconds}".encode())
    for field in fields(bars):
        if field.name in LEVEL_FIELDS + CENTS_FIELDS:
            digest.update(np.ascontiguousarray(getattr(bars, field.name)).tobytes())
    digest.update(np.ascontiguousarray(net_inflow_usd).tobytes())
    return digest.hexdigest()
