"""The simulated market has causes: leverage builds up, levels are crossed, forced orders move the price."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from liq_pipeline.evaluation.labels.version_1 import CascadeEvent, label_panel
from liq_pipeline.sources.simulated.market import LONG, SHORT, ForcedOrder, Market, Script
from liq_pipeline.sources.simulated.world import instruments
from liq_pipeline_tests.player_support import EPOCH, simulation

STEP = 300
START = int(EPOCH.timestamp())
SYMBOLS = ("BTC", "ETH")


@dataclass(frozen=True)
class Month:
    """30 days at 5 min: arrays (symbols, steps); liquidated is (sides, symbols, steps) in coins."""

    time: np.ndarray
    price: np.ndarray
    open_interest: np.ndarray
    crowding: np.ndarray
    liquidated: np.ndarray

    def events(self, hours: int = 4) -> list[CascadeEvent]:
        """Cascades by label version 1."""
        _, events = label_panel(self.time, SYMBOLS, self.price, self.open_interest, STEP)
        return events[hours]


def make_market(seed: int, scripts: tuple[Script, ...] = ()) -> Market:
    return Market(seed, instruments(simulation(symbols=SYMBOLS)), scripts)


@pytest.fixture(scope="module")
def month() -> Month:
    steps = 30 * 288
    market = make_market(103)
    time = START + STEP * np.arange(1, steps + 1)
    price, coins, crowding = (np.empty((len(SYMBOLS), steps)) for _ in range(3))
    liquidated = np.zeros((2, len(SYMBOLS), steps))
    for i, end in enumerate(time.tolist()):
        for order in market.step(end, STEP):
            liquidated[order.side, order.symbol_index, i] += order.quantity_base
        price[:, i], coins[:, i], crowding[:, i] = market.price_usd, market.open_interest_base, market.crowding
    return Month(time, price, coins, crowding, liquidated)


def test_the_two_coins_move_together_and_like_coins(month: Month) -> None:
    hourly = np.diff(np.log(month.price[:, ::12]), axis=1)
    assert np.corrcoef(hourly)[0, 1] > 0.6
    yearly = hourly.std(axis=1) * np.sqrt(24 * 365)
    assert (yearly > 0.3).all()
    assert (yearly < 1.6).all()


def test_real_cascades_happen_at_a_realistic_rate(month: Month) -> None:
    events = month.events()
    assert 3 <= len(events) <= 26  # two symbols, 30 days: about 0.8 to 1.7 a week and symbol over many seeds
    deep = [e for e in events if abs(e.price_move) >= 0.03 and e.open_interest_move <= -0.03]
    assert len(deep) >= 0.9 * len(events)
    assert any(e.price_move < 0 for e in events)


def test_forced_closes_concentrate_in_cascades_and_fall_on_the_losing_side(month: Month) -> None:
    inside = np.zeros(month.liquidated.shape[1:], dtype=bool)
    losing = winning = 0.0
    for event in month.events():
        symbol = SYMBOLS.index(event.symbol)
        start, peak, end = np.searchsorted(month.time, (event.start, event.peak, event.end))
        inside[symbol, start : end + 1] = True
        side = LONG if event.price_move < 0 else SHORT
        part = month.liquidated[:, symbol, start : peak + 1].sum(axis=1)
        losing, winning = losing + part[side], winning + part[1 - side]
    share_of_time = inside.mean()
    share_of_liquidations = month.liquidated.sum(axis=0)[inside].sum() / month.liquidated.sum()
    assert share_of_liquidations > 3 * share_of_time
    assert losing > 2 * winning


def test_the_crowd_leans_the_way_that_is_about_to_lose() -> None:
    """Over several months: before a cascade the leverage on the side that will be liquidated stands high."""
    ranks: list[float] = []
    for seed in (101, 104):
        market = make_market(seed)
        steps = 20 * 288
        price, coins, crowding = (np.empty((len(SYMBOLS), steps)) for _ in range(3))
        time = START + STEP * np.arange(1, steps + 1)
        for i, end in enumerate(time.tolist()):
            market.step(end, STEP)
            price[:, i], coins[:, i], crowding[:, i] = market.price_usd, market.open_interest_base, market.crowding
        for event in Month(time, price, coins, crowding, np.zeros((2, 2, steps))).events():
            leaning = -np.sign(event.price_move) * crowding[SYMBOLS.index(event.symbol)]
            ranks.append(float((leaning < leaning[np.searchsorted(time, event.start)]).mean()))
    assert len(ranks) >= 4
    assert np.mean(ranks) > 0.55


def test_every_coin_is_accounted_for() -> None:
    """Longs equal shorts, nothing is negative, and open interest falls by what was closed by force or by choice."""
    market = make_market(7)
    for end in range(START + STEP, START + STEP * 600, STEP):
        market.step(end, STEP)
        state = market.state
        sides = state.book.sum(axis=2) + state.free + state.queue
        np.testing.assert_allclose(sides[LONG], sides[SHORT], rtol=1e-9)
        assert (state.book >= 0).all()
        assert (state.free >= 0).all()
        assert (state.queue >= 0).all()


def test_a_forced_order_is_only_sent_when_the_price_has_crossed_its_level() -> None:
    market = make_market(11)
    for end in range(START + STEP, START + STEP * 300, STEP):
        market.step(end, STEP)
        state = market.state
        level = np.floor(state.log_price / 0.001).astype(int) - state.origin
        for i in range(len(SYMBOLS)):
            # Longs that are still open lie below the price; one slice of moves may not be searched yet.
            still_open = np.flatnonzero(state.book[LONG, i])
            assert still_open.max() <= level[i] + 16


def scripted_hour(hit_after_seconds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[ForcedOrder]]:
    """Price, open interest, crowding at 10 s from the start of a script to an hour after its shock; forced orders."""
    calm = START + 2 * 86_400
    market = make_market(5, (Script(build_from=calm, hit_at=calm + hit_after_seconds),))
    for end in range(START + STEP, calm + 1, STEP):
        market.step(end, STEP)
    price, coins, crowding, orders = [], [], [], []
    for end in range(calm + 10, calm + hit_after_seconds + 3600, 10):
        orders += market.step(end, 10)
        price.append(market.price_usd)
        coins.append(market.open_interest_base)
        crowding.append(market.crowding)
    return np.array(price), np.array(coins), np.array(crowding), orders


@pytest.mark.parametrize("seconds", [120, 1800])
def test_a_scripted_cascade_builds_up_breaks_and_leaves_less_open_interest(seconds: int) -> None:
    price, coins, crowding, orders = scripted_hour(seconds)
    hit = seconds // 10 - 1
    assert (crowding[hit - 1] > crowding[0] + 0.05).all()
    assert (coins[hit - 1] > 1.1 * coins[0]).all()
    for symbol in range(len(SYMBOLS)):
        before, after = slice(0, hit), slice(hit, None)
        assert price[after, symbol].min() / price[before, symbol][-1] - 1 < -0.03
        assert coins[after, symbol].min() / coins[before, symbol][-1] - 1 < -0.03
    after_hit = [order for order in orders if order.time >= START + 2 * 86_400 + seconds]
    longs = sum(o.quantity_base * o.price_usd for o in after_hit if o.side == LONG)
    shorts = sum(o.quantity_base * o.price_usd for o in after_hit if o.side == SHORT)
    assert longs > 10 * shorts
