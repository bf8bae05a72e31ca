"""The market of the simulation: prices, leveraged positions, and the forced orders that turn a fall into a cascade.

Belongs here: the dynamics, as arrays over symbols, and nothing that knows of records, venues' feeds or files.
Does not: what the outside sees of it (feeds.py), token transfers (transfers.py), seeds and epochs (world.py).

How a cascade comes about here, and nowhere by decree: open positions lie on a grid of liquidation prices. When the
price crosses a level, the positions on it become forced orders; executing them moves the price against a depth that
thins out while volatility and stress are high; the moved price crosses further levels. Trends attract leverage on
one side, so crowded and calm markets hold more fuel near the price. What is closed by force leaves open interest.

Reproducible: the random numbers of a step depend on the seed and the step's end time only, the state on the steps
before it. Two runs over the same steps are equal bit for bit, wherever either was interrupted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MODEL_VERSION: Final = 1
"""Raised with every change that changes the numbers: a world made by another version cannot be continued."""

Array = npt.NDArray[np.float64]

LONG: Final = 0
SHORT: Final = 1
SIDES: Final = ("long", "short")

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
YEAR: Final = 365 * DAY
SUBSTEP_SECONDS: Final = 10
"""Forced orders execute in slices of this length, also inside a longer step."""

BIN_WIDTH: Final = 0.001
"""Width of one liquidation level in log price: 0.1 %, finer than the leverage of any crowd is known."""
BINS: Final = 1024
_MARGIN_BINS: Final = 300
"""The price is kept this far from the ends of the grid; positions further away than that count as unleveraged."""

MARKET_CORRELATION: Final = 0.85
"""Of hourly returns of large coins: BTC and ETH perpetuals have stood between 0.8 and 0.9 for years."""
TREND_LIFE: Final = 2 * DAY
TREND_STRENGTH: Final = 0.45
"""Standard deviation of the daily drift in units of daily volatility: trends exist, but noise rules a day."""
VOLATILITY_LIFE: Final = 10 * HOUR
VOLATILITY_SPREAD: Final = 0.25
SHOCKS_PER_DAY: Final = 0.55
"""Market-wide news that hits the price at once; most pass, some meet a crowded market."""
OWN_JUMPS_PER_DAY: Final = 0.25
MOMENTUM_LIFE: Final = 14 * HOUR
SENTIMENT_LIFE: Final = 14 * HOUR
TURNOVER_LIFE: Final = 22 * HOUR
"""Mean holding time of a position: volume runs at about one open interest per day."""
APPETITE_LIFE: Final = 30 * HOUR
REVERSION_LIFE: Final = 50 * 60.0
"""How fast the part of an impact that was pressure and not news comes back."""
STRESS_LIFE: Final = 25 * 60.0
DEPTH_SHARE: Final = 0.05
"""Calm market: selling this share of normal open interest moves the price by 1 %."""
EXECUTION_SHARE: Final = 0.0022
"""At most this share of open interest is closed by force in one slice: engines and books have a throughput."""
TRANSIENT_SHARE: Final = 0.6

BARGAIN_DISTANCE: Final = 0.012
"""A price pushed this far from its worth by forced orders alone brings as many new bids as there were."""
STRESS_THINNING: Final = 2.5
"""How much depth withdraws under stress; measured falls have left two thirds to a third of it."""
CONTAGION: Final = 0.3
"""Part of a forced move that other symbols follow, by the size of the market it happened in."""

_OFFSETS: Final = np.arange(4, 301)
"""Distances to liquidation in bins, from 0.4 % (100 x) to 30 % (3 x)."""


def _spread_of_distances(median: float, sigma: float) -> Array:
    weight = np.exp(-0.5 * (np.log(_OFFSETS * BIN_WIDTH / median) / sigma) ** 2) / _OFFSETS
    return np.asarray(weight / weight.sum(), dtype=np.float64)


_CAUTIOUS: Final = _spread_of_distances(0.20, 0.40)
_AGGRESSIVE: Final = _spread_of_distances(0.08, 0.45)
_RECKLESS: Final = _spread_of_distances(0.03, 0.35)
"""Only scripts place these: close enough that one push reaches them."""

SCRIPT_SHARE: Final = 0.22
"""Share of normal open interest that a script adds on the long side."""


def _within(values: Array, low: float, high: float) -> Array:
    return np.minimum(np.maximum(values, low), high)


@dataclass(frozen=True)
class Instrument:
    """One symbol at the start of its world. volatility: yearly standard deviation of log returns in calm times."""

    symbol: str
    price_usd: float
    open_interest_base: float
    volatility: float
    beta: float
    """Reaction to a market-wide shock."""
    supply_base: float


@dataclass(frozen=True)
class Script:
    """A demonstration: leverage piles up on the long side from `build_from` on and is hit at `hit_at` (unix s)."""

    build_from: int
    hit_at: int


@dataclass(frozen=True)
class ForcedOrder:
    """Forced closes of one symbol and side in one slice, over all venues. time: unix seconds at the slice's end."""

    time: int
    symbol_index: int
    side: int
    quantity_base: float
    price_usd: float


@dataclass
class MarketState:
    """Everything the next step depends on. Arrays are indexed by symbol unless said otherwise."""

    log_price: Array
    transient: Array
    """Part of log_price that is the echo of forced orders and decays."""
    log_volatility: Array
    trend: Array
    momentum: Array
    sentiment: Array
    """-1 (everybody short) to 1 (everybody long)."""
    stress: Array
    origin: npt.NDArray[np.int64]
    """Bin number of level 0, so that level of a price = floor(log price / width) - origin."""
    book: Array
    """(2, symbols, BINS): leveraged coins by side and liquidation level."""
    free: Array
    """(2, symbols): coins of positions too far from liquidation to matter."""
    nearest: npt.NDArray[np.int64]
    """(2, symbols): no long stands above, no short below this bin number (absolute): spares searching the book."""
    queue: Array
    """(2, symbols): coins already taken over by the liquidation engines and not yet executed."""
    shock_at: float
    """Unix seconds of the market-wide shock that is on its way; infinity: none."""
    shock_size: float
    shock_has_inflow: float
    """1.0 if holders bring stablecoins to exchanges before it."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state as named arrays, for a snapshot."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> MarketState:
        """The inverse of arrays()."""
        scalars = ("shock_at", "shock_size", "shock_has_inflow")
        values: dict[str, Any] = {k: (float(v) if k in scalars else np.array(v)) for k, v in arrays.items()}
        return cls(**values)


@dataclass
class Market:
    """The market of all symbols, advanced step by step."""

    seed: int
    instruments: tuple[Instrument, ...]
    scripts: tuple[Script, ...] = ()
    state: MarketState = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.instruments)
        self._volatility = np.array([i.volatility for i in self.instruments]) / np.sqrt(YEAR)  # per sqrt(second)
        self._beta = np.array([i.beta for i in self.instruments])
        self._normal_base = np.array([i.open_interest_base for i in self.instruments])
        prices = np.array([i.price_usd for i in self.instruments])
        self._weight = self._normal_base * prices / (self._normal_base * prices).sum()
        log_price = np.log(prices)
        zeros = np.zeros(count)
        self.state = MarketState(
            log_price=log_price,
            transient=zeros.copy(),
            log_volatility=zeros.copy(),
            trend=zeros.copy(),
            momentum=zeros.copy(),
            sentiment=zeros.copy(),
            stress=zeros.copy(),
            origin=np.floor(log_price / BIN_WIDTH).astype(np.int64) - BINS // 2,
            book=np.zeros((2, count, BINS)),
            free=np.tile(0.6 * self._normal_base, (2, 1)),
            nearest=np.tile(np.floor(log_price / BIN_WIDTH).astype(np.int64), (2, 1)),
            queue=np.zeros((2, count)),
            shock_at=float("inf"),
            shock_size=0.0,
            shock_has_inflow=0.0,
        )
        opening = 0.4 * self._normal_base
        everything, some = np.ones(count), np.full(count, 0.2)
        self._open(opening, (everything, everything), (some, some))

    # -- what the outside may ask ------------------------------------------------------------------------------

    @property
    def price_usd(self) -> Array:
        """Traded price per symbol."""
        return np.asarray(np.exp(self.state.log_price))

    @property
    def open_interest_base(self) -> Array:
        """Coins open per symbol (each coin once, not once per side)."""
        s = self.state
        return np.asarray((s.book.sum(axis=2) + s.free + s.queue)[LONG])

    @property
    def crowding(self) -> Array:
        """(leveraged longs - leveraged shorts) / open interest, -1 to 1."""
        s = self.state
        leveraged = s.book.sum(axis=2) + s.queue
        return np.asarray((leveraged[LONG] - leveraged[SHORT]) / (leveraged[LONG] + s.free[LONG]))

    def building(self, time: int) -> bool:
        """Whether a script is piling up leverage at `time`."""
        return any(script.build_from < time <= script.hit_at for script in self.scripts)

    def inflow_surge(self, time: int) -> bool:
        """Whether holders bring more stablecoins than usual to exchanges at `time`."""
        ahead = bool(self.state.shock_has_inflow) and self.state.shock_at < float("inf")
        return ahead or self.building(time) or bool((self.state.stress > 0.25).any())

    # -- one step ----------------------------------------------------------------------------------------------

    def step(self, end: int, seconds: int) -> list[ForcedOrder]:
        """Advance to `end` (unix seconds), `seconds` after the last step; return the forced orders on the way."""
        s = self.state
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[end, 0, 0, 0]))
        count = len(self.instruments)
        common = rng.standard_normal(3)
        own = rng.standard_normal((4, count))
        draw = rng.random(6)
        own_draw = rng.random(count)
        root = np.sqrt(seconds)
        mix = np.sqrt(1 - MARKET_CORRELATION**2)

        # Volatility, trend: mean-reverting in log, shared by all symbols for the larger part.
        spread = VOLATILITY_SPREAD * np.sqrt(2 / VOLATILITY_LIFE) * root
        s.log_volatility += -s.log_volatility * seconds / VOLATILITY_LIFE + spread * (0.8 * common[1] + 0.6 * own[1])
        s.log_volatility = np.minimum(np.maximum(s.log_volatility, -1.0), 2.2)
        volatility = self._volatility * np.exp(s.log_volatility)
        daily = self._volatility * np.sqrt(DAY)
        kick = TREND_STRENGTH * daily * np.sqrt(2 / TREND_LIFE) * root
        s.trend += -s.trend * seconds / TREND_LIFE + kick * (0.8 * common[2] + 0.6 * own[2])

        move = s.trend * seconds / DAY + volatility * root * (MARKET_CORRELATION * common[0] + mix * own[0])
        move += self._news(end, seconds, draw, own_draw, own[3])
        decay = s.transient * (1 - np.exp(-seconds / REVERSION_LIFE))
        s.transient -= decay
        before = s.log_price.copy()
        s.log_price += move - decay
        s.stress *= np.exp(-seconds / STRESS_LIFE)

        self._recentre()
        self._turn_over(end, seconds)
        orders = self._liquidate(end, seconds)

        # The crowd follows what the price did, forced part included, and loses heart in stress.
        s.momentum = s.momentum * np.exp(-seconds / MOMENTUM_LIFE) + (s.log_price - before)
        target = np.tanh(1.3 * s.momentum / daily)
        pull = np.minimum(seconds * (1 / SENTIMENT_LIFE + s.stress / HOUR), 0.5)
        s.sentiment += (target - s.sentiment) * pull + 0.45 * np.sqrt(seconds / DAY) * own[3]
        s.sentiment = np.minimum(np.maximum(s.sentiment, -1.0), 1.0)
        return orders

    def _news(self, end: int, seconds: int, draw: Array, own_draw: Array, own_size: Array) -> Array:
        """Jumps of this step: a market-wide shock that has come due, each symbol's own news, scripts."""
        s = self.state
        rate = SHOCKS_PER_DAY * (0.4 + 1.5 * float(np.abs(s.sentiment).mean()))
        jump = np.where(own_draw < OWN_JUMPS_PER_DAY * seconds / DAY, 0.008 * own_size, 0.0)
        if s.shock_at <= end:
            jump = jump + s.shock_size * self._beta
            s.shock_at, s.shock_has_inflow = float("inf"), 0.0
        elif s.shock_at == float("inf") and draw[0] < rate * seconds / DAY:
            # Decided ahead: those who know bring collateral, or coins to sell, to exchanges first.
            against_crowd = -1.0 if float(s.sentiment.mean()) >= 0 else 1.0
            s.shock_at = end + HOUR * (0.5 + 2.5 * float(draw[1]))
            size = 0.007 - 0.009 * float(np.log1p(-draw[2]))
            s.shock_size = min(size, 0.05) * (against_crowd if draw[3] < 0.8 else -against_crowd)
            s.shock_has_inflow = 1.0 if draw[4] < 0.6 else 0.0
        for script in self.scripts:
            if end - seconds < script.hit_at <= end:
                jump = jump - 0.018 * self._beta
                s.stress += 0.5
        return np.asarray(jump)

    def _turn_over(self, end: int, seconds: int) -> None:
        """Positions are closed at a constant rate and opened where the crowd wants to be."""
        s = self.state
        open_base = self.open_interest_base
        closed = 1 - np.exp(-seconds * (1 + 2 * s.stress) / TURNOVER_LIFE)
        s.book *= (1 - closed)[None, :, None]
        s.free *= (1 - closed)[None, :]
        calm = np.exp(-np.maximum(s.log_volatility, 0))
        appetite = np.log(self._normal_base) + 0.6 * np.abs(s.sentiment) * calm
        growth = (appetite - np.log(open_base)) * seconds / APPETITE_LIFE
        opened = open_base * np.maximum(closed + growth - closed * np.minimum(s.stress, 0.8), 0.0)
        lean, nerve = 0.6 * s.sentiment, 0.9 * s.sentiment * calm
        self._open(
            opened,
            (_within(0.3 + lean, 0.05, 0.9), _within(0.3 - lean, 0.05, 0.9)),
            (_within(0.05 + nerve, 0.02, 0.9), _within(0.05 - nerve, 0.02, 0.9)),
        )
        for script in self.scripts:
            if script.build_from < end <= script.hit_at:
                share = SCRIPT_SHARE * seconds / (script.hit_at - script.build_from)
                for i, base in enumerate(self._normal_base.tolist()):
                    self._place(LONG, i, share * base * _RECKLESS)
                s.free[SHORT] += share * self._normal_base

    def _open(self, coins: Array, leveraged: tuple[Array, Array], nerve: tuple[Array, Array]) -> None:
        """Open `coins` on both sides: the leveraged share onto levels, `nerve` of it with high leverage."""
        for side in (LONG, SHORT):
            amount = coins * leveraged[side]
            self.state.free[side] += coins - amount
            for i, each in enumerate(amount.tolist()):
                self._place(side, i, each * (_CAUTIOUS + nerve[side][i] * (_AGGRESSIVE - _CAUTIOUS)))

    def _place(self, side: int, i: int, coins: Array) -> None:
        """Lay coins onto the levels at _OFFSETS from the price of symbol i."""
        s = self.state
        here = math.floor(s.log_price[i] / BIN_WIDTH)
        level = here - int(s.origin[i])
        near, far = int(_OFFSETS[0]), int(_OFFSETS[-1])
        if side == LONG:
            s.book[LONG, i, level - far : level - near + 1] += coins[::-1]
            s.nearest[LONG, i] = max(s.nearest[LONG, i], here - near)
        else:
            s.book[SHORT, i, level + near : level + far + 1] += coins
            s.nearest[SHORT, i] = min(s.nearest[SHORT, i], here + near)

    def _recentre(self) -> None:
        """Keep the price near the middle of the grid; what falls off the far end counts as unleveraged."""
        s = self.state
        level = np.floor(s.log_price / BIN_WIDTH).astype(np.int64) - s.origin
        for i in np.flatnonzero((level < _MARGIN_BINS + 60) | (level > BINS - _MARGIN_BINS - 60)):
            shift = int(level[i]) - BINS // 2
            for side in (LONG, SHORT):
                row = s.book[side, i]
                kept = np.zeros(BINS)
                if shift > 0:
                    kept[: BINS - shift] = row[shift:]
                    lost = row[:shift].sum()
                else:
                    kept[-shift:] = row[: BINS + shift]
                    lost = row[BINS + shift :].sum()
                s.book[side, i] = kept
                s.free[side, i] += lost
            s.origin[i] += shift

    def _take_over(self) -> None:
        """Move the positions whose liquidation level the price has crossed into the queue."""
        s = self.state
        here = np.floor(s.log_price / BIN_WIDTH).astype(np.int64)
        for i in np.flatnonzero(here < s.nearest[LONG]).tolist():
            row, level = s.book[LONG, i], int(here[i] - s.origin[i])
            s.queue[LONG, i] += row[max(level + 1, 0) :].sum()
            row[max(level + 1, 0) :] = 0.0
        for i in np.flatnonzero(here > s.nearest[SHORT]).tolist():
            row, level = s.book[SHORT, i], int(here[i] - s.origin[i])
            s.queue[SHORT, i] += row[: max(level, 0)].sum()
            row[: max(level, 0)] = 0.0
        s.nearest[LONG] = np.minimum(s.nearest[LONG], here)
        s.nearest[SHORT] = np.maximum(s.nearest[SHORT], here)

    def _liquidate(self, end: int, seconds: int) -> list[ForcedOrder]:
        """Take over the positions whose level the price has crossed and execute them, slice by slice."""
        s = self.state
        orders: list[ForcedOrder] = []
        slices = max(seconds // SUBSTEP_SECONDS, 1)
        length = seconds / slices
        for number in range(slices):
            self._take_over()
            if not s.queue.any():
                break
            open_base = self.open_interest_base
            executed = np.minimum(s.queue, EXECUTION_SHARE * open_base * length / SUBSTEP_SECONDS)
            executed = np.where(s.queue < 2e-6 * open_base, s.queue, executed)
            s.queue -= executed
            for side in (LONG, SHORT):  # the other side of each forced close is somebody who takes his profit
                other = 1 - side
                rest = s.book[other].sum(axis=1) + s.free[other]
                keep = 1 - executed[side] / np.maximum(rest, 1e-12)
                s.book[other] *= keep[:, None]
                s.free[other] *= keep
            # Depth: thin while volatile and stressed, thicker again once the price is far from what it is worth.
            thin = np.exp(-0.75 * np.maximum(s.log_volatility, -0.4)) / (1 + STRESS_THINNING * s.stress)
            bargain = 1 + (s.transient / BARGAIN_DISTANCE) ** 2
            depth = DEPTH_SHARE * self._normal_base * thin * bargain
            price = np.exp(s.log_price)
            impact = _within(0.01 * (executed[SHORT] - executed[LONG]) / depth, -0.015, 0.015)
            weighted = self._weight * impact
            contagion = CONTAGION * self._beta * (weighted.sum() - weighted)
            s.log_price += impact + contagion
            s.transient += TRANSIENT_SHARE * impact
            share = executed.sum(axis=0) / open_base
            s.stress = np.minimum(s.stress + 9.0 * share, 2.0)
            s.log_volatility = np.minimum(s.log_volatility + 2.0 * share, 2.2)
            at = end - seconds + round((number + 1) * length)
            for side, i in zip(*np.nonzero(executed), strict=True):
                orders.append(ForcedOrder(at, int(i), int(side), float(executed[side, i]), float(price[i])))
        return orders
