"""The topics: names, keys, partitions, retention, and which record each carries.

Belongs here: facts about topics. Does not: connections.
Besides its records an in-topic carries two control messages, told apart by the Kafka header `record_type`
(`watermark`, `heartbeat`; no header means the topic's own record), so any client in any language can produce both.
"""

from __future__ import annotations

from typing import Final

from liq_pipeline.domain.records import (
    FundingRate,
    Liquidation,
    LongShortRatio,
    OpenInterest,
    Price,
    Record,
    StablecoinFlow,
)

PARTITIONS: Final = 3
RETENTION_DAYS: Final = 7
RECORD_TYPE_HEADER: Final = "record_type"

RECORD_OF_TOPIC: Final[dict[str, type[Record]]] = {
    "prices": Price,
    "funding_rates": FundingRate,
    "open_interest": OpenInterest,
    "long_short_ratio": LongShortRatio,
    "liquidations": Liquidation,
    "stablecoin_flows": StablecoinFlow,
}
TOPIC_OF_RECORD: Final[dict[type[Record], str]] = {record: topic for topic, record in RECORD_OF_TOPIC.items()}
IN_TOPICS: Final = tuple(RECORD_OF_TOPIC)
OUT_TOPICS: Final = ("signals", "alerts")
EVENT_TOPICS: Final = ("liquidations", "stablecoin_flows")
"""Feeds of events: silence is only known to be calm with a heartbeat."""


def key_of(record: Record) -> bytes:
    """The Kafka key: the symbol, or chain and token for flows, so that one series stays in one partition, in order."""
    if isinstance(record, StablecoinFlow):
        return f"{record.chain}:{record.token}".encode()
    return str(record.symbol).encode()  # type: ignore[attr-defined]


def wire_name(topic: str, prefix: str = "") -> str:
    """The name on the Kafka cluster: the contract's name behind the installation's LIQ_KAFKA_TOPIC_PREFIX."""
    return f"{prefix}{topic}"
