"""What each answer says of itself before it says anything: which world, how old, how complete, from where.

Belongs here: the frame of every answer, and the bound of its size. Does not: what is asked (tools.py).

Who reads it may see nothing else, and quotes a number alone: so the frame repeats what a page shows on top.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from liq_pipeline.desk.read import health
from liq_pipeline.desk.read.database import Connection, fetch
from liq_pipeline.desk.read.market import Signal
from liq_pipeline.desk.read.scope import Mode, Scope
from liq_pipeline.desk.read.units import Seconds, Share, Time

MOST_BYTES: Final = 64_000
"""Of an answer as JSON: more would crowd out what its reader was told before."""
MOST_NAMED: Final = 20
"""Names in a list of the frame."""
OLD_AFTER: Final = timedelta(seconds=60)
"""A newest point that is older than this many seconds, or than three of the world's steps, is called old."""
LAST_CALL: Final = "A measurement with known errors, not financial advice; how_good tells the errors."

T = TypeVar("T")


class SourceState(msgspec.Struct, frozen=True, kw_only=True):
    """A source that is not up now."""

    source: str
    state: Literal["starting", "degraded", "down", "off"]
    reason: str | None


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where the answer is from: enough to find the same rows again."""

    program: str
    tables: list[str]
    """the tables or views that were read"""
    score_version: str | None
    """hash of code version, settings and model behind the newest scores"""
    model_ids: list[str]
    """the probability models in the answer's scope"""
    venues: list[str]
    """those that are expected to bring prices"""
    sources_not_up: list[SourceState]
    """what they bring is missing or old"""


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much of what the scores need was there at the newest point. 1: everything, fresh, from every venue."""

    lowest: Share | None
    """over the symbols that the answer is about; null: nothing is scored yet"""
    highest: Share | None
    unknown_symbols: list[str]
    """their risk is unknown, which is not low; at most 20 are named"""
    flow_side_known: bool | None
    """whether stablecoin flows are seen; null: nothing is scored yet"""


class Told(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Every answer. Units stand in the names of fields; null is unknown, never zero; times are UTC."""

    world: str
    """real, simulated/<seed> or recorded/<name>"""
    mode: Mode
    is_real: bool
    """false: invented or played; nothing in it says anything about the market of now"""
    as_of: Time | None
    """the newest scored point, by the world's clock; null: none yet"""
    age_seconds: Seconds | None
    """how old that point is, by the world's clock"""
    data_age_seconds: dict[str, Seconds | None]
    """how old the newest value of each kind is, of the symbol asked about or of all symbols; null: there is none"""
    warnings: list[str]
    """sentences to be repeated to whoever is told any of this"""
    coverage: Coverage
    provenance: Provenance
    data: T
    left_out: int
    """rows that were left out to keep the answer short"""


@cache
def program() -> str:
    """Name and version of this program."""
    return f"liq_pipeline {version('liq_pipeline')}"


def tell(
    conn: Connection,
    of: Scope,
    data: Any,
    *,
    signals: list[Signal],
    symbol: str | None,
    tables: tuple[str, ...],
    left_out: int = 0,
) -> Told[Any]:
    """The data in their frame. signals: the newest ones of the world; symbol: the only one it is about, if it is."""
    about = [one for one in signals if symbol is None or one.symbol == symbol]
    now = of.clock or datetime.now(UTC)
    age = None if of.as_of is None else max(0.0, (now - of.as_of).total_seconds())
    sources = _not_up(conn) if of.is_active and of.is_real else []  # elsewhere a player stands in their place
    version_of_scores = conn.execute(
        "SELECT score_version FROM signals WHERE world = %s ORDER BY time DESC LIMIT 1", [of.world]
    ).fetchone()
    shares = [one.coverage for one in about]
    return Told(
        world=of.world,
        mode=of.mode,
        is_real=of.is_real,
        as_of=of.as_of,
        age_seconds=age,
        data_age_seconds=_ages(conn, of, symbol, now),
        warnings=_warnings(of, about, age, sources),
        coverage=Coverage(
            lowest=min(shares, default=None),
            highest=max(shares, default=None),
            unknown_symbols=[one.symbol for one in about if one.risk is None][:MOST_NAMED],
            flow_side_known=all(one.flow_side_known for one in about) if about else None,
        ),
        provenance=Provenance(
            program=program(),
            tables=list(tables),
            score_version=version_of_scores[0] if version_of_scores else None,
            model_ids=sorted({one.model_id for one in about if one.model_id is not None}),
            venues=of.venues,
            sources_not_up=sources[:MOST_NAMED],
        ),
        data=data,
        left_out=left_out,
    )


def _not_up(conn: Connection) -> list[SourceState]:
    return fetch(
        conn,
        SourceState,
        "SELECT source, state, reason FROM source_status WHERE state <> 'up' ORDER BY source LIMIT 100",
        {},
    )


def _ages(conn: Connection, of: Scope, symbol: str | None, now: datetime) -> dict[str, float | None]:
    """kind -> age of its newest value over all venues."""
    rows = health.ages(conn, of.world, now, symbol=symbol)
    found: dict[str, float | None] = {}
    for kind in ("price", "funding", "open_interest"):
        told = [age for row in rows if (age := getattr(row, f"{kind}_age_seconds")) is not None]
        found[kind] = min(told, default=None)
    return found


def _warnings(of: Scope, about: list[Signal], age: float | None, sources: list[SourceState]) -> list[str]:
    found = []
    if not of.is_real:
        what = "an invented market" if of.kind == "simulated" else "a recording that is played"
        found.append(f"NOT REAL: this is {what} ({of.world}); it says nothing about the market of now.")
    if not of.is_active:
        found.append("This world is not the one that runs now: everything in it is history.")
    elif age is None:
        found.append("Nothing has been scored yet: the installation is still warming up.")
    elif age > max(OLD_AFTER.total_seconds(), 3 * of.step_seconds):
        found.append(f"OLD: the newest point is {age:.0f} s old; do not take it for now.")
    unknown = [one.symbol for one in about if one.risk is None]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        found.append(f"Risk is unknown, not low, for {', '.join(unknown[:5])}{more}.")
    if about and not all(one.flow_side_known for one in about):
        found.append("The flow side is blind: stablecoin flows are not seen, severities stand on risk alone.")
    down = [one.source for one in sources if one.state == "down"]
    if down:
        found.append(f"Down now: {', '.join(down[:8])}.")
    found.append(LAST_CALL)
    return found
