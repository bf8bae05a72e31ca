"""Records to land, and what the tables say about them. Used by the tests of bus and landing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from kafka import KafkaProducer

from liq_pipeline.bus.topics import wire_name
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
from liq_pipeline.store.connection import connect

T0 = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
HASH = "0x" + "ab" * 32
BLOCK = "0x" + "cd" * 32
OTHER_BLOCK = "0x" + "ce" * 32


def _common(seconds: float, venue: str, changes: dict[str, Any]) -> dict[str, Any]:
    time = T0 + timedelta(seconds=seconds)
    return {
        "schema_version": 1,
        "event_time": time,
        "received_at": time + timedelta(milliseconds=250),
        "origin": "live",
        "world": "real",
        "venue": venue,
        **changes,
    }


def price(seconds: float = 0, **changes: Any) -> Price:
    values = {"symbol": "BTC", "price_usd": 90_000.5, "volume_24h_usd": 1.5e10, "market_cap_usd": 1.8e12}
    return Price(**_common(seconds, "coingecko", {**values, **changes}))


def funding_rate(seconds: float = 0, **changes: Any) -> FundingRate:
    values = {
        "symbol": "BTC",
        "kind": "predicted",
        "rate": 0.0001,
        "interval_hours": 4.0,
        "next_funding_time": T0 + timedelta(hours=4),
        "mark_price_usd": 90_001.0,
    }
    return FundingRate(**_common(seconds, "bybit", {**values, **changes}))


def open_interest(seconds: float = 0, **changes: Any) -> OpenInterest:
    values = {"symbol": "ETH", "open_interest_base": 1000.0, "open_interest_usd": 3_000_000.0, "mark_price_usd": 3000.0}
    return OpenInterest(**_common(seconds, "okx", {**values, **changes}))


def long_short_ratio(seconds: float = 0, **changes: Any) -> LongShortRatio:
    values = {
        "symbol": "SOL",
        "kind": "accounts",
        "period_minutes": 5,
        "long_share": 0.6,
        "short_share": 0.4,
        "ratio": 1.5,
    }
    return LongShortRatio(**_common(seconds, "binance", {**values, **changes}))


def liquidation(seconds: float = 0, **changes: Any) -> Liquidation:
    values = {
        "symbol": "BTC",
        "event_id": f"liq-{seconds:g}",
        "liquidated_side": "long",
        "price_usd": 89_000.0,
        "quantity_base": 2.0,
        "notional_usd": 178_000.0,
        "is_sample": True,
        "source_topic": "forceOrder",
    }
    return Liquidation(**_common(seconds, "binance", {**values, **changes}))


def stablecoin_flow(seconds: float = 0, **changes: Any) -> StablecoinFlow:
    values = {
        "chain": "ethereum",
        "token": "USDT",
        "tx_hash": HASH,
        "log_index": int(seconds),
        "block_number": 21_000_000,
        "block_hash": BLOCK,
        "from_address": "0x" + "11" * 20,
        "to_address": "0x" + "22" * 20,
        "amount": Decimal("1234567.000001"),
        "from_entity": None,
        "to_entity": "binance",
        "direction": "inflow",
        "label_version": "labels-1",
    }
    return StablecoinFlow(**_common(seconds, "etherscan", {**values, **changes}))


def heartbeat(seconds: float = 0, **changes: Any) -> Heartbeat:
    return Heartbeat(**_common(seconds, "binance", changes))


SAMPLES: dict[str, Callable[..., Record]] = {
    "prices": price,
    "funding_rates": funding_rate,
    "open_interest": open_interest,
    "long_short_ratio": long_short_ratio,
    "liquidations": liquidation,
    "stablecoin_flows": stablecoin_flow,
}


def raw(record: Record, **changes: Any) -> bytes:
    """The record's JSON with some fields set to any value, or taken out (None)."""
    fields = msgspec.json.decode(msgspec.json.encode(record))
    fields.update(changes)
    return msgspec.json.encode(
        {name: value for name, value in fields.items() if name not in changes or value is not None}
    )


class RawProducer:
    """Any other program that writes to our topics: sends whatever bytes it likes."""

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        self._prefix = prefix
        self._producer = KafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", linger_ms=5)

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = b"BTC",
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
    ) -> Any:
        return self._producer.send(
            wire_name(topic, self._prefix), value=value, key=key, headers=headers or [], partition=partition
        )

    def __enter__(self) -> RawProducer:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.flush(30)
        self._producer.close()


def select(database_url: str, statement: str, arguments: Any = None) -> list[tuple[Any, ...]]:
    """Rows of a query."""
    with connect(database_url, application_name="test") as conn:
        return conn.execute(statement, arguments).fetchall()  # type: ignore[call-overload]


def count(database_url: str, table: str) -> int:
    """Number of rows of a table."""
    return int(select(database_url, f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - names are the tests' own
