"""The names of everything in the asset graph, in layers, and who owns it.

Belongs here: keys, groups, owners, tags that several modules use. Does not: dependencies or code.
`live/` is what the ticks keep up to date; history has keys of its own, because a partition is not a tick.
"""

from __future__ import annotations

from typing import Final

from dagster import AssetKey

from liq_pipeline.bus.topics import IN_TOPICS, OUT_TOPICS

OWNER: Final = "team:market-risk"

SOURCES: Final = "sources"
TOPICS: Final = "topics"
TABLES: Final = "tables"
FEATURES: Final = "features"
SCORES: Final = "scores"
SIGNALS: Final = "signals"
AUDIT: Final = "audit"
OUTSIDE: Final = "outside"
HISTORY: Final = "history"
EVALUATION: Final = "evaluation"
"""Groups, in the order in which data passes them."""

TOPIC: Final = {name: AssetKey(["topics", name]) for name in (*IN_TOPICS, *OUT_TOPICS)}
TABLE: Final = {name: AssetKey(["live", name]) for name in IN_TOPICS}

FEATURE_BARS: Final = AssetKey(["live", "feature_bars"])
LIQUIDATION_RISK: Final = AssetKey(["live", "liquidation_risk"])
LIQUIDATION_LEVELS: Final = AssetKey(["live", "liquidation_levels"])
STABLECOIN_PRESSURE: Final = AssetKey(["live", "stablecoin_pressure"])
LIVE_SIGNALS: Final = AssetKey(["live", "signals"])
LIVE_ALERTS: Final = AssetKey(["live", "alerts"])

PUBLIC_ARCHIVES: Final = AssetKey(["sources", "public_archives"])
HISTORY_OBSERVATIONS: Final = AssetKey(["history", "observations"])
HISTORY_SIGNALS: Final = AssetKey(["history", "signals"])
STORED_DATA: Final = AssetKey(["audit", "stored_data"])
ALARM_QUALITY: Final = AssetKey(["evaluation", "alarm_quality"])
SHADOW: Final = AssetKey(["evaluation", "shadow"])
CANDIDATE: Final = AssetKey(["evaluation", "candidate"])

CHANNELS: Final = AssetKey(["outside", "alert_channels"])
DASHBOARD: Final = AssetKey(["outside", "grafana_cascade_monitor"])

STREAM_TAG: Final = "liq/stream"
MAX_RUNTIME_TAG: Final = "dagster/max_runtime"
