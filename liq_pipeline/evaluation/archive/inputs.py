"""Inputs on trial: groups of features that no model has yet, per symbol and quarter, from what was known then.

Belongs here: the groups, their features and units. Does not: whether they are worth anything (ablation.py), files and
quirks (sources/archives/), the inputs of the models there are (scoring/probability.py).

The rule of features.py holds: what was true at t is known at the next grid point, and counts for 15 min. A cascade may
go either way, and the regression adds: so beside a side there is, where it makes sense, how far from the middle of it.

accounts, top_traders: the log of long over short, and how far it stands from its own week's mean, in that week's
deviations, with a side and without. taker: the log of bought over sold, mean of 1 h (with and without a side) and 24 h.
premium: mean of 1 h, in thousandths of the index, and its distance from the week's mean as above. depth: the log of the
thinner side of the book within 1 % over its own week's mean, and (bid - ask) / (bid + ask) with a side and without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.archive.features import LEVEL_ROWS, as_known, months_of
from liq_pipeline.evaluation.archive.months import STEP_SECONDS, facts_of, load_columns, write_parquet
from liq_pipeline.evaluation.archive.plan import LOOK_BACK, Plan, Quarter
from liq_pipeline.evaluation.models.training import SAMPLE_SECONDS
from liq_pipeline.scoring.probability import HALF_KNOWN, WEEK_HOURS
from liq_pipeline.scoring.windows import rolling_mean
from liq_pipeline.sources.archives.samples import DEPTH, PREMIUM, SampleKind

HOUR_ROWS: Final = 3600 // STEP_SECONDS
WEEK_ROWS: Final = WEEK_HOURS * HOUR_ROWS
DEVIATION_FLOOR: Final = 0.01
"""Under a week's deviation: a ratio that stood still is not far away after one step."""
PREMIUM_FLOOR: Final = 0.02
"""The same in thousandths of the index: 0.2 basis points."""
LARGEST_LOG: Final = 10.0
"""Logs are held to it: e^10 is no ratio, and the sums of windows are of fixed point."""
DEPTH_UNIT_USD: Final = 1e6
OFF_THE_PRICE: Final = 0.1
"""A book whose own price is further (log) from the price is not the book of that time."""

Floats = NDArray[np.float64]
Columns = Mapping[str, Floats]


@dataclass(frozen=True)
class Group:
    """Features that are tried together. reads: columns of the months; samples: the series that it needs besides."""

    name: str
    features: tuple[str, ...]
    reads: tuple[str, ...]
    compute: Callable[[Columns], tuple[Floats, ...]]
    samples: SampleKind | None = None


def _log(values: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    return np.where(np.isfinite(logs), np.clip(logs, -LARGEST_LOG, LARGEST_LOG), np.nan)


def _from_week(values: Floats, floor: float) -> Floats:
    """How far from the mean of the week that ends here, in the week's deviations."""
    mean = rolling_mean(values, WEEK_ROWS, HALF_KNOWN)
    square = rolling_mean(values * values, WEEK_ROWS, HALF_KNOWN)
    return np.asarray((values - mean) / (np.sqrt(np.maximum(square - mean * mean, 0.0)) + floor), dtype=np.float64)


def _ratio(values: Floats) -> tuple[Floats, ...]:
    level = _log(values)
    away = _from_week(level, DEVIATION_FLOOR)
    return level, away, np.abs(away)


def _accounts(known: Columns) -> tuple[Floats, ...]:
    return _ratio(known["long_short_accounts"])


def _top_traders(known: Columns) -> tuple[Floats, ...]:
    return (*_ratio(known["long_short_top_accounts"]), *_ratio(known["long_short_top_positions"]))


def _taker(known: Columns) -> tuple[Floats, ...]:
    flow = _log(known["long_short_taker"])
    hour = rolling_mean(flow, HOUR_ROWS, HALF_KNOWN)
    return hour, np.abs(hour), rolling_mean(flow, 24 * HOUR_ROWS, HALF_KNOWN)


def _premium(known: Columns) -> tuple[Floats, ...]:
    hour = rolling_mean(1000.0 * known["premium_index"], HOUR_ROWS, HALF_KNOWN)
    away = _from_week(hour, PREMIUM_FLOOR)
    return hour, away, np.abs(away)


def _depth(known: Columns) -> tuple[Floats, ...]:
    with np.errstate(invalid="ignore"):
        is_near = np.abs(_log(known["book_price_usd"] / known["price_usd"])) <= OFF_THE_PRICE
    bid, ask = (np.where(is_near, known[f"{side}_depth_usd"], np.nan) for side in ("bid", "ask"))
    thinner = _log(np.minimum(bid, ask) / DEPTH_UNIT_USD)
    tilt = (bid - ask) / (bid + ask)
    return thinner - rolling_mean(thinner, WEEK_ROWS, HALF_KNOWN), tilt, np.abs(tilt)


def _names(*stems: str) -> tuple[str, ...]:
    return tuple(name for stem in stems for name in (stem, f"{stem}_from_week", f"{stem}_away_from_week"))


GROUPS: Final = {
    group.name: group
    for group in (
        Group("accounts", _names("accounts_log_ratio"), ("long_short_accounts",), _accounts),
        Group(
            "top_traders",
            _names("top_accounts_log_ratio", "top_positions_log_ratio"),
            ("long_short_top_accounts", "long_short_top_positions"),
            _top_traders,
        ),
        Group("taker", ("taker_flow_1h", "taker_flow_1h_either_way", "taker_flow_24h"), ("long_short_taker",), _taker),
        Group("premium", _names("premium_1h"), (), _premium, PREMIUM),
        Group("depth", ("depth_from_week", "depth_tilt", "depth_tilt_either_way"), ("price_usd",), _depth, DEPTH),
    )
}
ALL: Final = "all"


def groups_named(text: str) -> tuple[Group, ...]:
    """The groups of a comma list, in the order that they are listed here; raises LiqError on any other name."""
    asked = {name.strip().lower() for name in text.split(",") if name.strip()}
    unknown = asked - {ALL, *GROUPS}
    if unknown or not asked:
        raise LiqError(f"no inputs are named {', '.join(sorted(unknown)) or 'nothing'}: {', '.join(GROUPS)}, or {ALL}")
    return tuple(group for group in GROUPS.values() if ALL in asked or group.name in asked)


def inputs_are_kept(plan: Plan, group: Group, symbol: str, quarter: Quarter) -> bool:
    """Whether the partition's file is there and was made of the months as they are now."""
    path = plan.input_file(group.name, symbol, quarter)
    return path.is_file() and facts_of(path).get("made_of") == _made_of(plan, group, symbol, quarter)


def keep_inputs(plan: Plan, group: Group, symbol: str, quarter: Quarter) -> dict[str, Any]:
    """Compute and write one partition: every point of the sampling grid. Returns its facts."""
    first, last = quarter.start - LOOK_BACK, quarter.end
    found: dict[str, Floats] = {}
    for paths, names in _sources(plan, group, symbol, months_of(quarter)):
        found |= load_columns(paths, names, first, last)
    known = {name: as_known(values, LEVEL_ROWS) for name, values in found.items()}
    size = next(iter(known.values())).size
    time = int(first.timestamp()) + np.arange(size, dtype=np.int64) * STEP_SECONDS
    chosen = np.flatnonzero(
        (time >= quarter.start.timestamp()) & (time < quarter.end.timestamp()) & (time % SAMPLE_SECONDS == 0)
    )
    content: dict[str, NDArray[Any]] = {"time": time[chosen]}
    for name, values in zip(group.features, group.compute(known), strict=True):
        content[name] = values[chosen].astype(np.float32)
    facts = {
        "symbol": symbol,
        "quarter": quarter.name,
        "group": group.name,
        "known": int(np.isfinite(np.stack([content[name] for name in group.features])).all(axis=0).sum()),
        "made_of": _made_of(plan, group, symbol, quarter),
    }
    write_parquet(plan.input_file(group.name, symbol, quarter), content, facts)
    return facts


def _sources(
    plan: Plan, group: Group, symbol: str, months: Sequence[datetime]
) -> list[tuple[list[Any], Sequence[str]]]:
    sources: list[tuple[list[Any], Sequence[str]]] = []
    if group.reads:
        sources.append(([plan.month_file(symbol, month) for month in months], group.reads))
    if group.samples is not None:
        series = group.samples.name
        sources.append(([plan.sample_file(series, symbol, month) for month in months], group.samples.names))
    return sources


def _made_of(plan: Plan, group: Group, symbol: str, quarter: Quarter) -> dict[str, Any]:
    made: dict[str, Any] = {"features": list(group.features)}
    for paths, names in _sources(plan, group, symbol, months_of(quarter)):
        made[", ".join(names)] = {
            path.stem: facts_of(path).get("content") if path.is_file() else None for path in paths
        }
    return made
