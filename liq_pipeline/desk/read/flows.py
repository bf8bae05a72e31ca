"""Stablecoins to and from exchanges: sums by exchange, chain and token, the largest transfers, the pressure, supply.

Belongs here: canonical transfers of a window. Does not: scoring them; directions are those seen first.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from liq_pipeline.desk.read.database import Connection, fetch
from liq_pipeline.desk.read.units import MOST_BUCKETS, STEP_SECONDS, Open, Pressure, Share, Step, Time, Usd


class FlowSum(msgspec.Struct, frozen=True, kw_only=True):
    """What moved into and out of one exchange in one token on one chain. Positive net: more went in."""

    exchange: str
    chain: str
    token: str
    inflow_usd: Usd
    outflow_usd: Usd
    net_inflow_usd: Usd
    transfers: int


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer; the amount in whole tokens, exact, as a text."""

    time: Time
    chain: str
    token: str
    amount: str
    direction: str
    from_entity: str | None
    to_entity: str | None
    tx_hash: str


class PressureBucket(msgspec.Struct, frozen=True, kw_only=True):
    """Pressure in one bucket, averaged; null where it was unknown."""

    time: Time
    pressure_avg: Pressure | None
    coverage_min: Share | None


class ChainShare(msgspec.Struct, frozen=True, kw_only=True):
    """One chain's part of a pressure. state: counted, silent, or warming (read, its look-back still short)."""

    chain: str
    state: str
    share: Share
    """Of all that is expected, by the chains' scales."""
    scale_usd: Usd | None = None
    inflow_usd: Usd | None = None
    outflow_usd: Usd | None = None
    net_outflow_usd: Usd | None = None
    tokens: Open = {}
    """Token: what of inflow_usd, outflow_usd, minted_usd and burned_usd moved."""


class PressureNow(msgspec.Struct, frozen=True, kw_only=True):
    """The newest pressure, the sums it stands on, and what it might be if silent chains were known."""

    time: Time
    score: Pressure | None
    score_low: Pressure | None
    score_high: Pressure | None
    inflow_usd: Usd | None
    outflow_usd: Usd | None
    window_minutes: int
    coverage: Share
    chains: list[ChainShare]


class SupplyBucket(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that came into circulation and went out of it in an hour; no user's flow."""

    time: Time
    chain: str
    token: str
    minted_usd: Usd
    burned_usd: Usd


def sums(conn: Connection, world: str, first: datetime, last: datetime) -> list[FlowSum]:
    """By exchange, chain and token in (first, last], the largest movement first; at most 200."""
    return fetch(
        conn,
        FlowSum,
        """
        SELECT exchange, chain, token, inflow_usd, outflow_usd, inflow_usd - outflow_usd AS net_inflow_usd, transfers
        FROM (
            SELECT coalesce(CASE direction WHEN 'inflow' THEN to_entity ELSE from_entity END, 'unknown') AS exchange,
                   chain, token, coalesce(sum(amount) FILTER (WHERE direction = 'inflow'), 0)::float AS inflow_usd,
                   coalesce(sum(amount) FILTER (WHERE direction = 'outflow'), 0)::float AS outflow_usd,
                   count(*)::int AS transfers
            FROM stablecoin_flows
            WHERE world = %(world)s AND event_time > %(first)s AND event_time <= %(last)s AND is_canonical
              AND direction IN ('inflow', 'outflow')
            GROUP BY 1, 2, 3) AS f
        ORDER BY inflow_usd + outflow_usd DESC, exchange LIMIT 200
        """,
        {"world": world, "first": first, "last": last},
    )


def largest(conn: Connection, world: str, first: datetime, last: datetime, limit: int) -> list[Transfer]:
    """The largest transfers in (first, last] that touch an exchange, a mint or a burn."""
    return fetch(
        conn,
        Transfer,
        """
        SELECT event_time AS time, chain, token, amount::text AS amount, direction, from_entity, to_entity, tx_hash
        FROM stablecoin_flows
        WHERE world = %(world)s AND event_time > %(first)s AND event_time <= %(last)s AND is_canonical
          AND direction <> 'other'
        ORDER BY stablecoin_flows.amount DESC, event_time DESC LIMIT %(limit)s
        """,
        {"world": world, "first": first, "last": last, "limit": limit},
    )


def pressure(conn: Connection, world: str, first: datetime, last: datetime, step: Step) -> list[PressureBucket]:
    """Pressure in [first, last] from the roll-ups."""
    start = max(first, last - timedelta(seconds=STEP_SECONDS[step] * MOST_BUCKETS))
    return fetch(
        conn,
        PressureBucket,
        f"SELECT bucket AS time, score_avg AS pressure_avg, coverage_min FROM stablecoin_pressure_{step}"  # noqa: S608
        " WHERE world = %(world)s AND bucket BETWEEN %(first)s AND %(last)s ORDER BY bucket",
        {"world": world, "first": start, "last": last},
    )


def pressure_now(conn: Connection, world: str) -> PressureNow | None:
    """The newest pressure, known or not, chain by chain; None before the first."""
    found = fetch(
        conn,
        _StoredPressure,
        "SELECT time, score, score_low, score_high, inflow_usd, outflow_usd, window_minutes, coverage,"
        " coalesce(inputs->'chains', '{}'::jsonb) AS chains FROM stablecoin_pressure_current"
        " WHERE world = %(world)s AND time = (SELECT max(time) FROM stablecoin_pressure WHERE world = %(world)s)",
        {"world": world},
    )
    if not found:
        return None
    stored = msgspec.structs.asdict(found[0])
    parts = [msgspec.convert({"chain": name, **said}, ChainShare) for name, said in stored.pop("chains").items()]
    return PressureNow(**stored, chains=sorted(parts, key=lambda part: (-part.share, part.chain)))


class _StoredPressure(msgspec.Struct, frozen=True, kw_only=True):
    time: Time
    score: Pressure | None
    score_low: Pressure | None
    score_high: Pressure | None
    inflow_usd: Usd | None
    outflow_usd: Usd | None
    window_minutes: int
    coverage: Share
    chains: Open


def supply(conn: Connection, world: str, first: datetime, last: datetime) -> list[SupplyBucket]:
    """Mints and burns by chain, token and hour, of the hours that begin in [first, last]."""
    return fetch(
        conn,
        SupplyBucket,
        "SELECT bucket AS time, chain, token, minted::float AS minted_usd, burned::float AS burned_usd"
        " FROM stablecoin_supply_1h WHERE world = %(world)s AND bucket BETWEEN %(first)s AND %(last)s"
        " ORDER BY bucket, chain, token LIMIT 5000",
        {"world": world, "first": first, "last": last},
    )
