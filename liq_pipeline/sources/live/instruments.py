"""A coin's perpetual at a venue: its names and how its units and contracts become coins.

Belongs here: instruments, the names of coins, choosing among what a venue lists. Does not: reading a venue's list (one
module each).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from liq_pipeline.sources.live.values import ShapeError


@dataclass(frozen=True)
class Instrument:
    """A coin's perpetual at one venue.

    coins_per_unit: 1000 where the venue quotes 1000PEPE. units_per_contract: for venues that count contracts.
    funding_interval_hours: None where the venue gives it with the rate, or where it is not known yet.
    """

    symbol: str
    native: str
    coins_per_unit: float = 1.0
    units_per_contract: float = 1.0
    funding_interval_hours: float | None = None

    @property
    def coins_per_contract(self) -> float:
        """Coins in one contract."""
        return self.coins_per_unit * self.units_per_contract


# 1000PEPE, 10000SATS, 1000000MOG, 1MBABYDOGE; SHIB1000. A digit after the multiplier would be a name of its own.
_PREFIX = re.compile(r"^(1000000|100000|10000|1000|1M)(?=[A-Z])(.+)$")
_SUFFIX = re.compile(r"^([A-Z]+)(1000000|100000|10000|1000)$")
_ALIASES = {"XBT": "BTC", "XDG": "DOGE"}


def coin_of(base: str) -> tuple[str, float]:
    """(symbol, coins per unit) of a venue's base asset: 1000PEPE -> (PEPE, 1000), XBT -> (BTC, 1)."""
    name = base.upper()
    name = _ALIASES.get(name, name)
    if match := _PREFIX.match(name):
        return match[2], 1e6 if match[1] == "1M" else float(match[1])
    if match := _SUFFIX.match(name):
        return match[1], float(match[2])
    return name, 1.0


def choose(found: Iterable[Instrument], symbols: Iterable[str]) -> list[Instrument]:
    """The wanted symbols' instruments; where a venue lists a coin twice, the one with the plainest unit.

    Raises ShapeError if the venue's list is empty: that is a fault. Taken as a fact, nothing would be expected of the
    venue any more, and its silence would be full coverage.
    """
    wanted = set(symbols)
    best: dict[str, Instrument] = {}
    is_empty = True
    for instrument in found:
        is_empty = False
        if instrument.symbol in wanted:
            known = best.get(instrument.symbol)
            if known is None or instrument.coins_per_unit < known.coins_per_unit:
                best[instrument.symbol] = instrument
    if is_empty:
        raise ShapeError("it names no perpetual at all")
    return list(best.values())
