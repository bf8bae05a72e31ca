"""What the simulated venues publish about the simulated market, as records.

Belongs here: venues, their shares, funding intervals, gaps in what they offer, and the account statistics.
Does not: the market itself (market.py), token transfers (transfers.py).

The venues differ as real ones do: `sim_alpha` and `sim_beta` settle funding every 8 h, `sim_gamma` every hour;
`sim_beta` throttles its liquidations (one per symbol and 10 s, marked as a sample); `sim_gamma` publishes neither
liquidations nor account ratios; `sim_average` is a price average over all of them, as CoinGecko is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from liq_pipeline.domain.records import (
    FundingRate,
    Heartbeat,
    Liquidation,
    LongShortRatio,
    OpenInterest,
    Price,
    Record,
)
from liq_pipeline.domain.worlds import Expectation
from liq_pipeline.sources.simulated.market import DAY, HOUR, SIDES, Array, ForcedOrder, Market

PRICE_SECONDS: Final = 10
FUNDING_SECONDS: Final = 60
RATIO_SECONDS: Final = 300
AVERAGE_SECONDS: Final = 60
"""In steps longer than this, in the history, once an hour: nothing looks back on it."""
AVERAGE_VENUE: Final = "sim_average"

_SHARE_LIFE: Final = 3 * DAY
_INTEREST_PER_8H: Final = 1e-4
"""The part of funding that is not premium: 0.01 % per 8 h at every large venue."""
_PREMIUM_CLAMP: Final = 5e-4
_RATE_LIMIT_PER_8H: Final = 3e-3
_PREMIUM_OF_CROWDING: Final = 2.2e-3
"""Premium per unit of one-sided leverage: at 0.5 it stands 0.11 % over the index, near the extremes seen for BTC."""
_PREMIUM_NOISE: Final = 1.5e-4
_SMALLEST_ORDER_USD: Final = 50.0
_TYPICAL_ORDER_USD: Final = 150_000.0


@dataclass(frozen=True)
class SimulatedVenue:
    """One derivatives venue. share: of all open interest, on average."""

    name: str
    share: float
    funding_interval_hours: int
    has_liquidations: bool
    has_ratio: bool
    is_sample: bool = False


VENUES: Final = (
    SimulatedVenue("sim_alpha", 0.45, 8, has_liquidations=True, has_ratio=True),
    SimulatedVenue("sim_beta", 0.33, 8, has_liquidations=True, has_ratio=True, is_sample=True),
    SimulatedVenue("sim_gamma", 0.22, 1, has_liquidations=False, has_ratio=False),
)
_NAMES: Final = tuple(v.name for v in VENUES)
_INTERVALS: Final = np.array([float(v.funding_interval_hours) for v in VENUES])
LIQUIDATION_VENUES: Final = tuple(v for v in VENUES if v.has_liquidations)
RATIO_VENUES: Final = tuple(v for v in VENUES if v.has_ratio)


def expectations() -> dict[str, Expectation]:
    """Who speaks about what and how often, for the world's manifest."""
    return {
        "prices": Expectation(
            venues=(*_NAMES, AVERAGE_VENUE),
            cadence_seconds=PRICE_SECONDS,
            venue_cadence_seconds={AVERAGE_VENUE: AVERAGE_SECONDS},
        ),
        "funding_rates": Expectation(venues=_NAMES, cadence_seconds=FUNDING_SECONDS),
        "open_interest": Expectation(venues=_NAMES, cadence_seconds=PRICE_SECONDS),
        "long_short_ratio": Expectation(venues=tuple(v.name for v in RATIO_VENUES), cadence_seconds=RATIO_SECONDS),
        "liquidations": Expectation(venues=tuple(v.name for v in LIQUIDATION_VENUES), cadence_seconds=PRICE_SECONDS),
    }


@dataclass
class FeedState:
    """What the venues carry from one step to the next; arrays are (symbols, venues)."""

    tilt: Array
    """Log deviation of each venue's share of open interest from its average."""
    premium: Array
    """Premium over the index, averaged over the venue's funding interval: fraction."""
    mood: Array
    """Slow noise of the account ratios, in logits."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state as named arrays, for a snapshot."""
        return dict(vars(self))


class Feeds:
    """Turns the state of a market into the records of one step."""

    def __init__(self, seed: int, world: str, market: Market) -> None:
        shape = (len(market.instruments), len(VENUES))
        self._seed, self._world, self._market = seed, world, market
        self._symbols = tuple(i.symbol for i in market.instruments)
        self._supply = [i.supply_base for i in market.instruments]
        self.state = FeedState(tilt=np.zeros(shape), premium=np.full(shape, _INTEREST_PER_8H), mood=np.zeros(shape))

    def step(self, end: int, seconds: int, orders: Iterable[ForcedOrder]) -> list[Record]:
        """The records of the step that ended at `end` (unix seconds), after the market has been advanced to it."""
        market, state = self._market, self.state
        rng = np.random.Generator(np.random.Philox(key=self._seed, counter=[end, 1, 0, 0]))
        noise = rng.standard_normal((4, *state.tilt.shape))
        state.tilt += -state.tilt * seconds / _SHARE_LIFE + 0.12 * np.sqrt(2 * seconds / _SHARE_LIFE) * noise[0]
        state.mood += -state.mood * seconds / DAY + 0.12 * np.sqrt(2 * seconds / DAY) * noise[1]
        premium = _PREMIUM_OF_CROWDING * market.crowding[:, None] + _PREMIUM_NOISE * noise[2]
        life = np.minimum(_INTERVALS, 4.0) * HOUR / (8.0 if market.building(end) else 1.0)
        state.premium += (premium - state.premium) * (1 - np.exp(-seconds / life))

        time = datetime.fromtimestamp(end, UTC)
        price = market.price_usd
        marks = price[:, None] * (1 + 2e-5 * noise[3])
        share = np.array([v.share for v in VENUES]) * np.exp(state.tilt)
        share /= share.sum(axis=1, keepdims=True)
        records: list[Record] = list(self._liquidations(orders, rng, share))
        records += self._prices_and_open_interest(time, marks, share * market.open_interest_base[:, None])
        if end % FUNDING_SECONDS == 0:
            records += self._funding(end, time, marks)
        if end % AVERAGE_SECONDS == 0 and (seconds <= AVERAGE_SECONDS or end % 3600 == 0):
            records += self._averages(time, price)
        if end % RATIO_SECONDS == 0:
            records += self._ratios(time)
        return records

    def heartbeats(self, end: int) -> list[tuple[str, Heartbeat]]:
        """The statements that the liquidation feeds were read up to `end`."""
        time = datetime.fromtimestamp(end, UTC)
        return [("liquidations", Heartbeat(**self._common(time), venue=venue.name)) for venue in LIQUIDATION_VENUES]

    def _common(self, time: datetime) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "event_time": time,
            "received_at": time,
            "origin": "simulated",
            "world": self._world,
        }

    def _prices_and_open_interest(self, time: datetime, marks: Array, open_base: Array) -> list[Record]:
        common = self._common(time)
        records: list[Record] = []
        for symbol, row_marks, row_open in zip(self._symbols, marks.tolist(), open_base.tolist(), strict=True):
            for venue, mark, coins in zip(_NAMES, row_marks, row_open, strict=True):
                price_usd, base = _digits(mark), _digits(coins)
                records.append(Price(**common, venue=venue, symbol=symbol, price_usd=price_usd))
                records.append(
                    OpenInterest(
                        **common,
                        venue=venue,
                        symbol=symbol,
                        open_interest_base=base,
                        open_interest_usd=round(base * price_usd, 2),
                        mark_price_usd=price_usd,
                    )
                )
        return records

    def _averages(self, time: datetime, price: Array) -> list[Record]:
        common = self._common(time)
        turnover = self._market.open_interest_base * price * (2.5 + 6.0 * self._market.state.stress)
        return [
            Price(
                **common,
                venue=AVERAGE_VENUE,
                symbol=symbol,
                price_usd=_digits(value),
                volume_24h_usd=round(volume, 2),
                market_cap_usd=round(value * supply, 2),
            )
            for symbol, value, volume, supply in zip(
                self._symbols, price.tolist(), turnover.tolist(), self._supply, strict=True
            )
        ]

    def _funding(self, end: int, time: datetime, marks: Array) -> list[Record]:
        premium = self.state.premium
        per_8h = premium + np.minimum(np.maximum(_INTEREST_PER_8H - premium, -_PREMIUM_CLAMP), _PREMIUM_CLAMP)
        rates = np.minimum(np.maximum(per_8h, -_RATE_LIMIT_PER_8H), _RATE_LIMIT_PER_8H) * _INTERVALS / 8.0
        common = self._common(time)
        records: list[Record] = []
        for symbol, row, row_marks in zip(self._symbols, rates.tolist(), marks.tolist(), strict=True):
            for venue, value, mark in zip(VENUES, row, row_marks, strict=True):
                interval = venue.funding_interval_hours * 3600
                values = {
                    "venue": venue.name,
                    "symbol": symbol,
                    "rate": round(value, 9),
                    "interval_hours": float(venue.funding_interval_hours),
                    "mark_price_usd": _digits(mark),
                }
                following = datetime.fromtimestamp(end - end % interval + interval, UTC)
                records.append(FundingRate(**common, **values, kind="predicted", next_funding_time=following))
                if end % interval == 0:
                    records.append(FundingRate(**common, **values, kind="settled"))
        return records

    def _ratios(self, time: datetime) -> list[Record]:
        # Accounts lean long even when money does not: small holders outnumber the large shorts.
        lean = 0.35 + 1.5 * self._market.crowding[:, None] + self.state.mood
        shares = 1 / (1 + np.exp(-lean))
        common = self._common(time)
        records: list[Record] = []
        for symbol, row in zip(self._symbols, shares.tolist(), strict=True):
            for venue, value in zip(VENUES, row, strict=True):
                if venue.has_ratio:
                    long_share = round(value, 4)
                    short_share = round(1 - long_share, 4)
                    records.append(
                        LongShortRatio(
                            **common,
                            venue=venue.name,
                            symbol=symbol,
                            kind="accounts",
                            period_minutes=RATIO_SECONDS // 60,
                            long_share=long_share,
                            short_share=short_share,
                            ratio=round(long_share / short_share, 6),
                        )
                    )
        return records

    def _liquidations(
        self, orders: Iterable[ForcedOrder], rng: np.random.Generator, share: Array
    ) -> Iterable[Liquidation]:
        """Split what was closed by force over the venues and into orders of the sizes that venues report."""
        for order in orders:
            total_usd = order.quantity_base * order.price_usd
            symbol = self._symbols[order.symbol_index]
            common = self._common(datetime.fromtimestamp(order.time, UTC))
            if total_usd < _TYPICAL_ORDER_USD:  # one small position at one venue
                parts = [0.0] * len(VENUES)
                parts[int(rng.choice(len(VENUES), p=share[order.symbol_index]))] = 1.0
            else:
                parts = share[order.symbol_index].tolist()
            for venue, part in zip(VENUES, parts, strict=True):
                if not venue.has_liquidations or part * total_usd < _SMALLEST_ORDER_USD:
                    continue
                count = 1 + int(rng.poisson(min(part * total_usd / _TYPICAL_ORDER_USD, 12.0)))
                sizes = rng.standard_exponential(count)
                pieces = (sizes * (part * order.quantity_base / sizes.sum())).tolist()
                if venue.is_sample:
                    pieces = [max(pieces)]
                for number, quantity in enumerate(pieces):
                    price_usd, base = (
                        _digits(order.price_usd * (1 + 4e-4 * float(rng.standard_normal()))),
                        _digits(quantity),
                    )
                    if base * price_usd < 1.0:
                        continue
                    yield Liquidation(
                        **common,
                        venue=venue.name,
                        symbol=symbol,
                        event_id=f"{symbol}-{order.time}-{SIDES[order.side]}-{number}",
                        liquidated_side=SIDES[order.side],
                        price_usd=price_usd,
                        quantity_base=base,
                        notional_usd=round(base * price_usd, 2),
                        is_sample=venue.is_sample,
                        source_topic="simulated",
                    )


def _digits(value: float) -> float:
    """Seven significant digits: what a venue would print, and short on the wire."""
    return float(f"{value:.7g}")
