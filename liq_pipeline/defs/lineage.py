"""The parts of the graph that others fill: sources, Kafka topics, people's channels, the dashboard.

Belongs here: external assets and their dependencies. Does not: anything that Dagster runs.
"""

from __future__ import annotations

from typing import Final

from dagster import AssetKey, AssetSpec

from liq_pipeline.bus.topics import EVENT_TOPICS, IN_TOPICS, PARTITIONS, RETENTION_DAYS
from liq_pipeline.defs import keys

_MARKET: Final = ("prices", "funding_rates", "open_interest", "long_short_ratio")

_SOURCES: Final[dict[str, tuple[str, set[str], tuple[str, ...]]]] = {
    # name: (what it is, kinds, topics it feeds)
    "exchange_rest": (
        "Public REST interfaces of derivatives venues, polled by `live_ingest`: prices, funding, open interest and "
        "account ratios.",
        {"api"},
        _MARKET,
    ),
    "exchange_streams": (
        "Public websockets of derivatives venues, read by `liq collect`: forced orders as they happen, with a "
        "heartbeat so that silence is told from calm.",
        {"websocket"},
        ("liquidations",),
    ),
    "coingecko": ("Market-average prices, volume and capitalisation.", {"api"}, ("prices",)),
    "stablecoin_transfers": (
        "Transfers of dollar stablecoins to and from wallets of exchanges, on each chain that is followed: from a "
        "node, Etherscan or TronGrid.",
        {"api", "ethereum"},
        ("stablecoin_flows",),
    ),
    "public_archives": (
        "Files that exchanges publish of past days, and the history that venues serve: loaded by `history/` assets or "
        "`liq backfill`.",
        {"file", "api"},
        _MARKET,
    ),
    "recording": (
        "Files with days as they were, played with watermarks at any speed (recorded worlds).",
        {"file"},
        IN_TOPICS,
    ),
    "simulation": (
        "A seeded market in which leverage builds up and forced orders move the price (simulated worlds).",
        {"python"},
        IN_TOPICS,
    ),
}

_TOPIC_TEXT: Final[dict[str, str]] = {
    "prices": "Mark and average prices in USD.",
    "funding_rates": "Funding rates as fractions per stated interval, predicted and settled.",
    "open_interest": "Open interest in coins and, where known, in USD.",
    "long_short_ratio": "Shares of long and short accounts, positions or takers.",
    "liquidations": "Forced closes by the side of the position that was closed.",
    "stablecoin_flows": "Stablecoin transfers with exact amounts and re-org marks.",
    "signals": "Every signal as it was decided; at least once, message key = row id.",
    "alerts": "Every change of an alert; at least once, message key = row id.",
}


def source_specs() -> list[AssetSpec]:
    """Where data comes from. Which of them speak depends on the mode (LIQ_MODE) and the keys that are set."""
    return [
        AssetSpec(
            AssetKey(["sources", name]),
            description=text,
            group_name=keys.SOURCES,
            kinds=kinds,
            owners=[keys.OWNER],
        )
        for name, (text, kinds, _) in _SOURCES.items()
    ]


def topic_specs() -> list[AssetSpec]:
    """The six topics that bring observations and the two that carry results away."""
    specs = []
    for name, key in keys.TOPIC.items():
        if name in IN_TOPICS:
            deps = [AssetKey(["sources", source]) for source, (_, _, fed) in _SOURCES.items() if name in fed]
        else:
            deps = [keys.LIVE_SIGNALS if name == "signals" else keys.LIVE_ALERTS]
        metadata = {"partitions": PARTITIONS, "retention_days": RETENTION_DAYS}
        specs.append(
            AssetSpec(
                key,
                deps=deps,
                description=_TOPIC_TEXT[name]
                + (" An event feed: heartbeats say how far it was read." if name in EVENT_TOPICS else ""),
                group_name=keys.TOPICS if name in IN_TOPICS else keys.OUTSIDE,
                kinds={"kafka"},
                owners=[keys.OWNER],
                metadata=metadata,
            )
        )
    return specs


def outside_specs() -> list[AssetSpec]:
    """Where results end: people and pictures."""
    return [
        AssetSpec(
            keys.CHANNELS,
            deps=[keys.LIVE_ALERTS],
            description="Telegram, Discord, Slack, mail, webhooks: the channels of LIQ_ALERT_URLS, served from the "
            "outbox by `alert_delivery`.",
            group_name=keys.OUTSIDE,
            kinds={"notification"},
            owners=[keys.OWNER],
        ),
        AssetSpec(
            keys.DASHBOARD,
            deps=[
                keys.LIQUIDATION_RISK,
                keys.STABLECOIN_PRESSURE,
                keys.LIVE_SIGNALS,
                keys.LIVE_ALERTS,
            ],
            description="The Grafana dashboard: risk, points, pressure, severity, coverage and alerts, read from the "
            "tables.",
            group_name=keys.OUTSIDE,
            kinds={"grafana", "dashboard"},
            owners=[keys.OWNER],
        ),
    ]
