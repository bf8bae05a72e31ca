"""Which simulated market a home plays: its seed, its symbols, its first moment, its scripts.

Belongs here: choosing, describing and remembering that (simulation.json in the home). Does not: what happens in it.

A world is named after its seed. It starts with a history that ends at its epoch (30 days, or less with many symbols),
and then lives on with the clock on the wall. After a short pause it goes on where it was, and the pause is simulated
quickly; after a long one a new world is made, since nobody looked at the old one and its gap would have to be made up.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from liq_pipeline.domain.worlds import FLOWS_STEP_SECONDS, MARKET_STEP_SECONDS, Manifest, World
from liq_pipeline.errors import LiqError
from liq_pipeline.sources.simulated import feeds, transfers
from liq_pipeline.sources.simulated.market import MODEL_VERSION, Instrument, Script

HISTORY_HOURS: Final = 720
"""What percentiles look back on at most."""
LEAST_HISTORY_HOURS: Final = 96
"""Three days before the last midnight, which every component needs (min_lookback_hours), whatever the hour is: with
300 symbols a week would be 7.5 million records, and nothing was scored for more than five minutes."""
HISTORY_RECORDS: Final = 600_000
"""About so many records come before the epoch at most. Nothing is scored until they have landed: the 30 days of 20
symbols are 2 million, 60 to 90 CPU-s of sending alone, and a busy machine showed its first score after six minutes."""
RECORDS_PER_SYMBOL_AND_HOUR: Final = 150
HISTORY_STEP_SECONDS: Final = 300
STEP_SECONDS: Final = MARKET_STEP_SECONDS
LONGEST_PAUSE: Final = timedelta(hours=24)
FILE_NAME: Final = "simulation.json"

# Orders of magnitude of real perpetuals, so that a table of the simulation looks like one of the market.
_KNOWN: Final = {
    "BTC": Instrument("BTC", 64_000.0, 82_000.0, 0.42, 1.0, 2.0e7),
    "ETH": Instrument("ETH", 3_000.0, 1_100_000.0, 0.54, 1.25, 1.2e8),
    "SOL": Instrument("SOL", 150.0, 12_000_000.0, 0.72, 1.5, 5.4e8),
    "XRP": Instrument("XRP", 2.2, 450_000_000.0, 0.70, 1.3, 6.0e10),
    "DOGE": Instrument("DOGE", 0.2, 3_000_000_000.0, 0.80, 1.5, 1.5e11),
    "HYPE": Instrument("HYPE", 35.0, 30_000_000.0, 0.85, 1.5, 3.3e8),
}


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """What a home remembers of its simulated world. Times are UTC."""

    seed: str
    epoch: datetime
    symbols: tuple[str, ...]
    model_version: int
    scripts: tuple[Script, ...] = ()
    history_hours: int = HISTORY_HOURS
    """Length of the 5-min history before the epoch: what percentiles look back on."""
    generated_to: datetime
    """No step after this has been handed out yet: from here on the future may still be scripted."""

    @property
    def name(self) -> str:
        """The world's name."""
        return f"simulated/{self.seed}"

    @property
    def first_time(self) -> datetime:
        """Where the history begins."""
        return self.epoch - timedelta(hours=self.history_hours)

    @property
    def seed_number(self) -> int:
        """The seed of the random numbers: 128 bits of the seed's hash, so that any text is a seed."""
        return int.from_bytes(hashlib.sha256(self.seed.encode()).digest()[:16])


def describe(simulation: Simulation) -> World:
    """The world with its manifest."""
    return World(
        name=simulation.name,
        kind="simulated",
        market_step_seconds=MARKET_STEP_SECONDS,
        flows_step_seconds=FLOWS_STEP_SECONDS,
        manifest=Manifest(
            symbols=simulation.symbols,
            expected={**feeds.expectations(), **transfers.expectations()},
            description=f"A simulated market, not real, since {simulation.epoch:%Y-%m-%d %H:%M} UTC.",
        ),
        first_time=simulation.first_time,
    )


def instruments(simulation: Simulation) -> tuple[Instrument, ...]:
    """The symbols' instruments; of a symbol without known magnitudes they are drawn from its name."""
    return tuple(_KNOWN.get(symbol) or _invented(symbol) for symbol in simulation.symbols)


def hours_of_history(symbols: int) -> int:
    """How long the history of a new world is: whole days, fewer the more symbols there are."""
    affordable = HISTORY_RECORDS // (RECORDS_PER_SYMBOL_AND_HOUR * max(symbols, 1))
    return max(LEAST_HISTORY_HOURS, min(HISTORY_HOURS, affordable // 24 * 24))


def load(home: Path) -> Simulation | None:
    """What the home remembers, None before the first simulation. Raises LiqError if the file cannot be read."""
    path = home / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Simulation)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise LiqError(f"{path} cannot be read ({error}); delete it to start a new simulated world.") from error


def save(home: Path, simulation: Simulation) -> None:
    """Write it so that a reader or a crash sees the old or the new file, never half of one."""
    home.mkdir(parents=True, exist_ok=True)
    temporary = home / f".{FILE_NAME}.{os.getpid()}"
    with temporary.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(simulation)))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(home / FILE_NAME)


def choose(
    stored: Simulation | None,
    *,
    seed: str | None,
    symbols: tuple[str, ...],
    now: datetime,
    landed_to: Callable[[str], datetime | None],
    is_taken: Callable[[str], bool],
    cascade_in_seconds: int | None = None,
) -> tuple[Simulation, str]:
    """The world to play at `now`, and one sentence on why.

    seed: the user's, if he gave one. landed_to: how far a world of that name is in the database (None: nothing).
    is_taken: whether the database knows a world of that name. cascade_in_seconds: script a cascade this far ahead,
    once per world.
    """
    refusal = None if stored is None else _reason_against(stored, seed, symbols, now, landed_to(stored.name))
    if stored is not None and refusal is None:
        if cascade_in_seconds is not None and not stored.scripts:
            start = max(now, stored.generated_to)
            stored = msgspec.structs.replace(stored, scripts=(_script(start, cascade_in_seconds),))
        return stored, f"going on with {stored.name}, which began at {stored.epoch:%Y-%m-%d %H:%M} UTC"
    wanted = _tidy(seed) if seed else f"{now:%Y%m%d}"
    name, number = wanted, 1
    while is_taken(f"simulated/{name}"):
        number += 1
        name = f"{wanted}.{number}"
    epoch = now.astimezone(UTC) - timedelta(seconds=now.timestamp() % HISTORY_STEP_SECONDS)
    made = Simulation(
        seed=name,
        epoch=epoch,
        symbols=symbols,
        model_version=MODEL_VERSION,
        scripts=() if cascade_in_seconds is None else (_script(now, cascade_in_seconds),),
        history_hours=hours_of_history(len(symbols)),
        generated_to=epoch,
    )
    return made, f"a new world, {made.name}: " + (refusal or "this home has simulated nothing before")


def _reason_against(
    stored: Simulation, seed: str | None, symbols: tuple[str, ...], now: datetime, landed_to: datetime | None
) -> str | None:
    """Why the stored world cannot go on, None if it can."""
    if stored.symbols != symbols:
        return f"{stored.name} has the symbols {','.join(stored.symbols)}, not {','.join(symbols)}"
    if stored.model_version != MODEL_VERSION:
        return f"{stored.name} was made by model version {stored.model_version}, this is {MODEL_VERSION}"
    if seed and not re.fullmatch(re.escape(_tidy(seed)) + r"(\.\d+)?", stored.seed):
        return f"LIQ_SIMULATION_SEED asks for {seed}, this home has played {stored.seed}"
    if now - (landed_to or stored.epoch) > LONGEST_PAUSE:
        return f"{stored.name} has been paused for more than {LONGEST_PAUSE // timedelta(hours=1)} h"
    return None


def _script(now: datetime, seconds: int) -> Script:
    start = int(now.timestamp()) // STEP_SECONDS * STEP_SECONDS
    return Script(build_from=start, hit_at=start + max(seconds // STEP_SECONDS, 1) * STEP_SECONDS)


def _tidy(seed: str) -> str:
    """The seed as a part of a world's name."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", seed)[:60]


def _invented(symbol: str) -> Instrument:
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(symbol.encode()).digest()[:8]))
    price = float(f"{10 ** rng.uniform(-1, 2):.3g}")
    return Instrument(
        symbol=symbol,
        price_usd=price,
        open_interest_base=float(f"{10 ** rng.uniform(7.5, 8.7) / price:.3g}"),
        volatility=float(round(rng.uniform(0.7, 1.0), 2)),
        beta=float(round(rng.uniform(1.2, 1.7), 2)),
        supply_base=float(f"{10 ** rng.uniform(8.5, 10) / price:.3g}"),
    )
