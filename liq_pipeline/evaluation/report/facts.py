"""What a report stands on: the panel, its events, the model, hashes, and what could not be measured.

Belongs here: facts about inputs. Does not: figures about scores.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.labels.version_1 import CascadeEvent
from liq_pipeline.evaluation.models.training import EMBARGO_SECONDS
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.panels.panel import Panel
from liq_pipeline.scoring.probability import FEATURES, CascadeModel
from liq_pipeline.settings import Settings

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


def panel_facts(data: Panel, span: Booleans, events: Mapping[int, list[CascadeEvent]]) -> dict[str, Any]:
    first, last = int(data.time[span][0]), int(data.time[span][-1])
    inside = {hours: [e for e in found if first <= e.onset <= last] for hours, found in events.items()}
    return {
        "symbols": list(data.symbols),
        "step_seconds": data.step_seconds,
        "from": datetime.fromtimestamp(first, UTC).isoformat(),
        "to": datetime.fromtimestamp(last, UTC).isoformat(),
        "weeks": (last - first) / desk.WEEK_SECONDS,
        "rows": int((np.isfinite(data["price_usd"]) & span).sum()),
        "known_share": {name: float(np.isfinite(values[:, span]).mean()) for name, values in data.columns.items()},
        "notes": list(data.notes),
        "events": {
            f"{hours}h": {
                "all": len(found),
                "major": sum(e.is_major for e in found),
                "systemic": sum(e.is_systemic for e in found),
                "first_shock": sum(e.is_first_shock for e in found),
                "market_episodes": market_episodes(found),
                "by_symbol": {s: sum(e.symbol == s for e in found) for s in data.symbols},
                "descriptive_only": len(found) < desk.FEW_EVENTS,
            }
            for hours, found in inside.items()
        },
    }


def market_episodes(events: list[CascadeEvent]) -> int:
    """Events whose spans (first positive row to peak) overlap or touch within an hour are one episode of the market."""
    reached, episodes = -(10**12), 0
    for event in sorted(events, key=lambda e: e.start):
        if event.start > reached + 3600:
            episodes += 1
        reached = max(reached, event.peak, event.end)
    return episodes


def model_facts(model: CascadeModel, data: Panel, span: Booleans) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "early_warning": model.early_warning.as_json(),
        "features": list(FEATURES),
        "facts": dict(model.facts),
        "share_of_rows_in_training_window": float(in_training(model, data.time)[span].mean()),
    }


def in_training(model: CascadeModel, time: Integers) -> Booleans:
    """Which times lie in the model's training window, embargo included."""
    try:
        first = datetime.fromisoformat(model.facts["trained_from"]).timestamp()
        last = datetime.fromisoformat(model.facts["trained_to"]).timestamp()
    except (KeyError, ValueError):
        return np.zeros(time.size, dtype=bool)
    return (time >= first) & (time <= last + EMBARGO_SECONDS)


def drift(model: CascadeModel, found: Mapping[str, Any], span: Booleans) -> dict[str, Any]:
    """Share of the judged rows on which each input of the model lies outside what it was trained on."""
    outside = model.outside_training(found)
    shares = {name: float(values[:, span].mean()) for name, values in outside.items()}
    anything = np.logical_or.reduce(list(outside.values()))
    return {"any_input": float(anything[:, span].mean()), **dict(sorted(shares.items(), key=lambda item: -item[1]))}


def limits_of(data: Panel, model: CascadeModel, trained: Booleans) -> list[str]:
    limits = []
    if trained.any():
        limits.append(
            f"{trained.mean():.0%} of the times lie in the training window of {model.model_id} (embargo included): its"
            " figures there are in sample; read the walk-forward figures, and outside_training if present"
        )
    names = {
        "funding_rate_per_8h": "funding",
        "long_short_ratio": "long/short ratio",
        "long_liquidations_usd": "liquidations",
        "stablecoin_net_inflow_usd": "stablecoin flows",
    }
    limits += [
        f"the panel has no {word}: what stands on it is unknown here and not measured"
        for column, word in names.items()
        if not data.has(column)
    ]
    return limits


def config_hash(settings: Settings, model: CascadeModel) -> str:
    parts = {
        "risk": settings.risk.model_dump(mode="json"),
        "pressure": settings.pressure.model_dump(mode="json"),
        "severity": settings.severity.model_dump(mode="json"),
        "alerts": {
            name: value for name, value in settings.model_dump(mode="json").items() if name.endswith("_minutes")
        },
        "model": model.as_json(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def without_nan(value: Any) -> Any:
    """JSON has no NaN: a figure that could not be had is null. Floats keep six significant digits."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.6g}") if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
