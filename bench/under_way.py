"""How soon a cascade is told on 10 s ticks, in the simulator: the only market here whose every ten seconds are known.

Run: python -m bench under_way [--days=90] [--symbols=10]. The rule in force reads each 10 s tick from 5-min bars and
what is known at the tick, as the live tick does; the labels are those of version 1 on the 5-min closes of the market
itself. The same market again with its largest venue silent; silent liquidations change nothing, which is checked.
Baseline: the plain rule on the same ticks.

A made-up market says how fast the machine is, and nothing about real cascades.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from liq_pipeline.evaluation.labels.version_1 import CascadeEvent, label_panel
from liq_pipeline.evaluation.paging.under_way import UnderWayPage, pages_of, under_way_figures
from liq_pipeline.scoring.bars import (
    CENTS_FIELDS,
    LEVEL_FIELDS,
    UNKNOWN_CENTS,
    Floats,
    Integers,
    NowArrays,
    Points,
    empty_bars,
)
from liq_pipeline.scoring.under_way.decide import decide_on
from liq_pipeline.scoring.under_way.excursions import LOOKBACK_HOURS, Excursions, excursions
from liq_pipeline.scoring.under_way.rules import UnderWayModel, shipped_under_way_model
from liq_pipeline.sources.simulated.feeds import VENUES
from liq_pipeline.sources.simulated.market import MODEL_VERSION, SIDES
from liq_pipeline.sources.simulated.source import WARM_UP_SECONDS, Engine
from liq_pipeline.sources.simulated.world import Simulation

EPOCH = datetime(2026, 3, 2, tzinfo=UTC)
TICK, BAR, DAY = 10, 300, 86_400
HOLD_SECONDS = 900
SYMBOLS = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK", "DOT", "LTC")
NAMES = tuple(venue.name for venue in VENUES)
SILENT = NAMES[0]
SHARES = np.array([venue.share for venue in VENUES])
VENUE_NOISE = 2e-5
"""Venues' marks differ by so much, as those of the simulator do; their shares of the open interest stand still here."""
QUIET_RUN = 0.35
"""While nobody has run so many thresholds no rule can hold: such minutes are read once, the others tick by tick."""
PER_MINUTE = 60 // TICK


class Tape:
    """Ten seconds after ten seconds of a simulated market, a day at a time."""

    def __init__(self, symbols: tuple[str, ...], days: int) -> None:
        self.symbols, self.days = symbols, days
        self.first = int((EPOCH - timedelta(days=days)).timestamp())
        simulation = Simulation(
            seed="under way", epoch=EPOCH, symbols=symbols, model_version=MODEL_VERSION, history_hours=24 * days,
            generated_to=EPOCH,
        )  # fmt: skip
        self._engine = Engine(simulation)
        for end in range(self.first - WARM_UP_SECONDS + BAR, self.first + 1, BAR):
            self._engine.step(end, BAR)

    def day(self, number: int) -> tuple[dict[str, Floats], dict[str, Floats], dict[str, Integers]]:
        """({price, open interest} of (symbols, venues, ticks), the market's own of (symbols, ticks), cents by side)."""
        ticks = DAY // TICK
        shape = (len(self.symbols), len(NAMES), ticks)
        seen = {"price_usd": np.full(shape, np.nan), "open_interest_base": np.full(shape, np.nan)}
        true = {name: np.empty(shape[::2]) for name in seen}
        cents = {side: np.zeros(shape, dtype=np.int64) for side in SIDES}
        market, start = self._engine.market, self.first + number * DAY
        for tick in range(ticks):
            for order in market.step(start + (tick + 1) * TICK, TICK):
                cents[SIDES[order.side]][order.symbol_index, 0, tick] += round(
                    order.quantity_base * order.price_usd * 100
                )
            true["price_usd"][:, tick] = market.price_usd
            true["open_interest_base"][:, tick] = market.open_interest_base
        noise = np.random.default_rng([self.first, number]).standard_normal(shape)
        seen["price_usd"] = true["price_usd"][:, np.newaxis] * (1 + VENUE_NOISE * noise)
        seen["open_interest_base"] = true["open_interest_base"][:, np.newaxis] * SHARES[np.newaxis, :, np.newaxis]
        return seen, true, cents


class View:
    """One way of seeing the tape: all of it, or without a venue."""

    def __init__(self, tape: Tape, silent: str | None = None) -> None:
        self.silent = silent
        self._bars = empty_bars(tape.symbols, NAMES, tape.first + BAR, BAR, tape.days * DAY // BAR)

    def day(
        self, number: int, seen: dict[str, Floats], cents: dict[str, Integers], *, has_liquidations: bool = True
    ) -> tuple[Integers, Excursions]:
        """(ticks of a day, what each of them shows): one a minute while it is quiet, else all."""
        bars_a_day, per_bar = DAY // BAR, BAR // TICK
        first = number * bars_a_day
        now: dict[str, Any] = dict(seen)
        if self.silent is not None:
            now = {name: values.copy() for name, values in seen.items()}
            for values in now.values():
                values[:, NAMES.index(self.silent)] = np.nan
        for name, values in now.items():
            getattr(self._bars, name)[..., first : first + bars_a_day] = values[..., per_bar - 1 :: per_bar]
        hour = {
            side: _last_hour(values) if has_liquidations else np.full(values.shape, UNKNOWN_CENTS)
            for side, values in cents.items()
        }
        now |= {f"{side}_liquidated_cents_1h": values for side, values in hour.items()}
        minutes = np.arange(PER_MINUTE - 1, DAY // TICK, PER_MINUTE, dtype=np.int64)
        coarse = self._at(number, minutes, now)
        moving = np.max([np.nan_to_num(side.run).max(axis=0) for side in coarse.sides.values()], axis=0) > QUIET_RUN
        moving[1:] |= moving[:-1].copy()
        moving[:-1] |= moving[1:].copy()
        every = minutes[:, np.newaxis] + np.arange(1 - PER_MINUTE, 1)
        chosen = np.sort(np.concatenate([minutes[~moving], every[moving].ravel()]))
        return chosen, self._at(number, chosen, now)

    def _at(self, number: int, ticks: Integers, now: dict[str, Any]) -> Excursions:
        stop = (number + 1) * DAY // BAR
        times = self._bars.start_seconds - BAR + number * DAY + TICK * (ticks + 1)
        unknown = np.full((*now["price_usd"].shape[:2], ticks.size), np.nan)
        current = NowArrays(
            **{name: values[..., ticks] for name, values in now.items()},
            funding_rate_per_8h=unknown,
            long_share=unknown,
        )
        reached = replace(
            self._bars, **{name: getattr(self._bars, name)[..., :stop] for name in (*LEVEL_FIELDS, *CENTS_FIELDS)}
        )
        return excursions(reached, Points(times, self._bars.index_at(times), current))


class Said:
    """What a rule said of every tick."""

    def __init__(self, tape: Tape, view: View, model: UnderWayModel | None) -> None:
        self.view, self.model = view, model
        shape = (len(tape.symbols), tape.days * DAY // TICK)
        self._open, self._calm = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        self._direction = np.zeros(shape, dtype=np.int8)

    def take(self, number: int, ticks: Integers, found: Excursions) -> None:
        """A day of its view. What was read once a minute stands for that minute."""
        decided = decide_on(found, self.model)
        day = np.arange(DAY // TICK)
        place = np.searchsorted(ticks, day)
        here = slice(number * DAY // TICK, (number + 1) * DAY // TICK)
        self._open[:, here] = decided.is_open[:, place]
        self._calm[:, here] = decided.is_calm[:, place]
        self._direction[:, here] = decided.direction[:, place]

    def pages(self, time_grid: Integers, symbols: Sequence[str]) -> list[UnderWayPage]:
        """The machine's alerts."""
        n = time_grid.size
        return pages_of(
            time_grid,
            symbols,
            self._open[:, :n],
            self._direction[:, :n].astype(np.int64),
            self._calm[:, :n],
            HOLD_SECONDS,
        )


def _last_hour(cents: Integers) -> Integers:
    """Sums of the hour up to each tick, within the day."""
    running = np.cumsum(cents, axis=-1)
    rows = 3600 // TICK
    before = np.zeros_like(running)
    before[..., rows:] = running[..., :-rows]
    return running - before


def main(arguments: list[str]) -> None:
    """Print the figures of every reading."""
    parser = argparse.ArgumentParser(prog="bench under_way")
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--symbols", type=int, default=10)
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    tape = Tape(SYMBOLS[: options.symbols], options.days)
    model = shipped_under_way_model()
    whole, without = View(tape), View(tape, SILENT)
    said = {
        "model, liquidations heard or silent": Said(tape, whole, model),
        f"model, {SILENT} silent": Said(tape, without, model),
        "plain rule": Said(tape, whole, None),
    }
    grid = tape.first + TICK * np.arange(1, options.days * DAY // TICK + 1, dtype=np.int64)
    price = np.empty((options.symbols, grid.size))
    interest = np.empty((options.symbols, grid.size // (BAR // TICK)))
    bars = BAR // TICK
    for number in range(options.days):
        seen, true, cents = tape.day(number)
        ticks, closes = (number + 1) * DAY // TICK, (number + 1) * DAY // BAR
        price[:, ticks - DAY // TICK : ticks] = true["price_usd"]
        interest[:, closes - DAY // BAR : closes] = true["open_interest_base"][:, bars - 1 :: bars]
        found = {view: view.day(number, seen, cents) for view in (whole, without)}
        if number % 10 == 0:
            _same(found[whole][1], whole.day(number, seen, cents, has_liquidations=False)[1])
        for one in said.values():
            one.take(number, *found[one.view])
        if number % 15 == 14 or number + 1 == options.days:
            print(f"{number + 1} days, after {time.perf_counter() - began:.0f} s:", flush=True)
            _, events = label_panel(
                grid[bars - 1 : ticks : bars],
                tape.symbols,
                price[:, bars - 1 : ticks : bars],
                interest[:, :closes],
                BAR,
            )
            _print(said, events[4], grid[:ticks], tape.symbols, price[:, :ticks])


def _same(one: Excursions, other: Excursions) -> None:
    """The rule reads prices and open interest: without liquidations it must say the same, which is looked at."""
    for direction, side in one.sides.items():
        if not np.array_equal(side.cascade, other.sides[direction].cascade, equal_nan=True):
            raise SystemExit("silent liquidations change what the rule reads")


def _print(
    said: dict[str, Said], events: Sequence[CascadeEvent], grid: Integers, symbols: Sequence[str], price: Floats
) -> None:
    first, last = int(grid[0]) + LOOKBACK_HOURS * 3600, int(grid[-1])
    happened = [event for event in events if first <= event.onset <= last]
    severe = [event for event in happened if event.is_major or event.is_systemic]
    print(
        f"{len(happened)} cascades within 4 h, {len(severe)} major or systemic; {len(symbols)} symbols every {TICK} s"
    )
    for name, one in said.items():
        pages = one.pages(grid, symbols)
        figures = under_way_figures(pages, happened, grid, symbols, price, first, last)
        delays = sorted(delay for event in severe if (delay := _delay_seconds(event, pages)) is not None)
        print(f"{name}:")
        print(f"  told by own symbol and side {_share(figures, 'own')}, by market {_share(figures, 'market')}")
        if delays:
            p50, p95 = (delays[min(int(len(delays) * q), len(delays) - 1)] for q in (0.5, 0.95))
            print(f"  from the onset to the page, major or systemic: p50 {p50} s, p95 {p95} s ({len(delays)} told)")
        left = figures["move_left"]["over_detected"]["p50"]
        print(f"  move left at the page, median {'unknown' if left is None else f'{100 * left:.0f} %'}")
        print(f"  false market pages a week {figures['false_per_week']:.2f} of {figures['market_pages']} in all")


def _delay_seconds(event: CascadeEvent, pages: Sequence[UnderWayPage]) -> int | None:
    """From the label's onset to the first page of its symbol and side; negative: before it; None: not told."""
    for page in pages:
        mine = page.symbol == event.symbol and page.direction == event.direction
        if mine and event.start <= page.opened <= event.peak:
            return page.opened - event.onset
    return None


def _share(figures: dict[str, Any], by: str) -> str:
    share = figures["detected"]["major_or_systemic"][by]["share"]
    return "of none" if share is None else f"{100 * share:.0f} %"
