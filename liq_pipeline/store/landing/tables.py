"""How each topic's record becomes a row.

Belongs here: columns, keys, and which columns make up a record's substance. Does not: SQL execution, Kafka.

A row is a tuple in the order key, substance, extra, provenance, so that its parts are slices.
* key: the natural key of CONTRACTS.md.
* substance: what two deliveries of one key must agree on. Another value is another version: a conflict.
* extra: kept as first seen, no reason for a conflict. For a flow that is who fetched it and what the labels of that
  day said about it: two fetchers report one transfer, and scoring derives directions anew.
* provenance: where it came from and when it was known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from liq_pipeline.domain.records import (
    FundingRate,
    Heartbeat,
    Liquidation,
    LongShortRatio,
    OpenInterest,
    Price,
    Record,
    StablecoinFlow,
)

Row = tuple[Any, ...]
Builder = Callable[[Any, str, int, int, int], Row]

_TEXT, _FLOAT, _TIME, _INT2, _INT4, _INT8, _BOOL = "text", "float8", "timestamptz", "int2", "int4", "int8", "bool"

PROVENANCE: Final = {
    "origin": _TEXT,
    "received_at": _TIME,
    "known_at": _TIME,
    "kafka_cluster": _INT2,
    "kafka_partition": _INT2,
    "kafka_offset": _INT8,
}


@dataclass(frozen=True, eq=False)
class LandingTable:
    """One table that landing fills. key, substance, extra: column -> PostgreSQL type, in row order."""

    name: str
    key: dict[str, str]
    substance: dict[str, str]
    extra: dict[str, str]
    build: Builder
    """(record, topic, kafka_cluster, kafka_partition, kafka_offset) -> row"""

    columns: dict[str, str] = field(init=False)
    key_length: int = field(init=False)
    substance_end: int = field(init=False)
    origin: int = field(init=False)
    known_at: int = field(init=False)
    event_time: int = field(init=False)
    cluster: int = field(init=False)
    partition: int = field(init=False)
    offset: int = field(init=False)
    """Indexes into a row."""

    def __post_init__(self) -> None:
        columns = {**self.key, **self.substance, **self.extra, **PROVENANCE}
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "key_length", len(self.key))
        object.__setattr__(self, "substance_end", len(self.key) + len(self.substance))
        for attribute, column in (
            ("origin", "origin"),
            ("known_at", "known_at"),
            ("event_time", "event_time"),
            ("cluster", "kafka_cluster"),
            ("partition", "kafka_partition"),
            ("offset", "kafka_offset"),
        ):
            object.__setattr__(self, attribute, list(columns).index(column))

    def key_of(self, row: Row) -> Row:
        """The natural key."""
        return row[: self.key_length]

    def substance_of(self, row: Row) -> Row:
        """What two deliveries must agree on."""
        return row[self.key_length : self.substance_end]

    def as_dict(self, row: Row) -> dict[str, Any]:
        """column -> value."""
        return dict(zip(self.columns, row, strict=True))


def _price(r: Price, topic: str, cluster: int, partition: int, offset: int) -> Row:
    return (
        r.world, r.symbol, r.venue, r.event_time,
        r.price_usd, r.volume_24h_usd, r.market_cap_usd,
        r.event_time_source,
        r.origin, r.received_at, r.known, cluster, partition, offset,
    )  # fmt: skip


def _funding_rate(r: FundingRate, topic: str, cluster: int, partition: int, offset: int) -> Row:
    return (
        r.world, r.symbol, r.venue, r.kind, r.event_time,
        r.rate, r.interval_hours, r.rate_per_8h, r.next_funding_time, r.mark_price_usd,
        r.event_time_source,
        r.origin, r.received_at, r.known, cluster, partition, offset,
    )  # fmt: skip


def _open_interest(r: OpenInterest, topic: str, cluster: int, partition: int, offset: int) -> Row:
    return (
        r.world, r.symbol, r.venue, r.event_time,
        r.open_interest_base, r.open_interest_usd,
        r.event_time_source,
        r.origin, r.received_at, r.known, cluster, partition, offset,
    )  # fmt: skip


def _long_short_ratio(r: LongShortRatio, topic: str, cluster: int, partition: int, offset: int) -> Row:
    return (
        r.world, r.symbol, r.venue, r.kind, r.period_minutes, r.event_time,
        r.long_share, r.short_share, r.ratio,
        r.event_time_source,
        r.origin, r.received_at, r.known, cluster, partition, offset,
    )  # fmt: skip


def _liquidation(r: Liquidation, topic: str, cluster: int, partition: int, offset: int) -> Row:
    return (
        r.world, r.symbol, r.venue, r.event_time, r.event_id,
        r.liquidated_side, r.price_usd, r.quantity_base, r.notional_usd, r.is_sample,
        r.source_topic, r.event_time_source,
        r.origin, r.received_at, r.known, cluster, partition, offset,
    )  # fmt: skip


def _stablecoin_flow(r: StablecoinFlow, topic: str, cluster: int, partition: int, offset: int) -> Row:
    known = r.known
    return (
        r.world, r.chain, r.tx_hash, r.log_index, r.block_hash, r.event_time,
        r.token, r.block_number, r.from_address, r.to_address, r.amount,
        r.is_canonical, None if r.is_canonical else known,
        r.from_entity, r.to_entity, r.direction, r.label_version, r.venue, r.event_time_source,
        r.origin, r.received_at, known, cluster, partition, offset,
    )  # fmt: skip


def _heartbeat(r: Heartbeat, topic: str, cluster: int, partition: int, offset: int) -> Row:
    return (r.world, topic, r.venue, r.event_time, r.origin, r.received_at, r.known, cluster, partition, offset)


_SERIES: Final = {"world": _TEXT, "symbol": _TEXT, "venue": _TEXT}

TABLES: Final[dict[type[Record], LandingTable]] = {
    Price: LandingTable(
        name="prices",
        key={**_SERIES, "event_time": _TIME},
        substance={"price_usd": _FLOAT, "volume_24h_usd": _FLOAT, "market_cap_usd": _FLOAT},
        extra={"event_time_source": _TEXT},
        build=_price,
    ),
    FundingRate: LandingTable(
        name="funding_rates",
        key={**_SERIES, "kind": _TEXT, "event_time": _TIME},
        substance={
            "rate": _FLOAT,
            "interval_hours": _FLOAT,
            "rate_per_8h": _FLOAT,
            "next_funding_time": _TIME,
            "mark_price_usd": _FLOAT,
        },
        extra={"event_time_source": _TEXT},
        build=_funding_rate,
    ),
    OpenInterest: LandingTable(
        name="open_interest",
        key={**_SERIES, "event_time": _TIME},
        substance={"open_interest_base": _FLOAT, "open_interest_usd": _FLOAT},
        extra={"event_time_source": _TEXT},
        build=_open_interest,
    ),
    LongShortRatio: LandingTable(
        name="long_short_ratio",
        key={**_SERIES, "kind": _TEXT, "period_minutes": _INT4, "event_time": _TIME},
        substance={"long_share": _FLOAT, "short_share": _FLOAT, "ratio": _FLOAT},
        extra={"event_time_source": _TEXT},
        build=_long_short_ratio,
    ),
    Liquidation: LandingTable(
        name="liquidations",
        key={**_SERIES, "event_time": _TIME, "event_id": _TEXT},
        substance={
            "liquidated_side": _TEXT,
            "price_usd": _FLOAT,
            "quantity_base": _FLOAT,
            "notional_usd": _FLOAT,
            "is_sample": _BOOL,
        },
        extra={"source_topic": _TEXT, "event_time_source": _TEXT},
        build=_liquidation,
    ),
    StablecoinFlow: LandingTable(
        name="stablecoin_flows",
        key={
            "world": _TEXT,
            "chain": _TEXT,
            "tx_hash": _TEXT,
            "log_index": _INT4,
            "block_hash": _TEXT,
            "event_time": _TIME,
        },
        substance={
            "token": _TEXT,
            "block_number": _INT8,
            "from_address": _TEXT,
            "to_address": _TEXT,
            "amount": "numeric",
        },
        extra={
            "is_canonical": _BOOL,
            "orphaned_known_at": _TIME,
            "from_entity": _TEXT,
            "to_entity": _TEXT,
            "direction": _TEXT,
            "label_version": _TEXT,
            "venue": _TEXT,
            "event_time_source": _TEXT,
        },
        build=_stablecoin_flow,
    ),
    Heartbeat: LandingTable(
        name="heartbeats",
        key={"world": _TEXT, "topic": _TEXT, "venue": _TEXT, "event_time": _TIME},
        substance={},
        extra={},
        build=_heartbeat,
    ),
}

FLOWS: Final = TABLES[StablecoinFlow]
IS_CANONICAL: Final = list(FLOWS.columns).index("is_canonical")
ORPHANED_KNOWN_AT: Final = list(FLOWS.columns).index("orphaned_known_at")


def with_canonicity(row: Row, *, orphaned_known_at: datetime | None) -> Row:
    """The flow row with its re-org mark set (a time) or taken away (None)."""
    changed = list(row)
    changed[IS_CANONICAL] = orphaned_known_at is None
    changed[ORPHANED_KNOWN_AT] = orphaned_known_at
    return tuple(changed)
