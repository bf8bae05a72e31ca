"""Features and labels of one symbol and quarter, from its months: a stream of one partition at a time.

Belongs here: what was known when, on the sampling grid. Does not: features themselves (scoring/probability.py),
labels (labels/), the terms that need other symbols (market.py): their columns hold the symbol's own share until then.

A metric or a candle that was true at t is known at the next grid point, a settled rate from then until shortly after
the next is due: the archive's delays, as in `liq evaluate --published`.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from liq_pipeline.evaluation.archive.months import STEP_SECONDS, facts_of, load_span, write_parquet
from liq_pipeline.evaluation.archive.plan import LOOK_AHEAD, LOOK_BACK, Plan, Quarter, months_between
from liq_pipeline.evaluation.labels.version_1 import label_panel
from liq_pipeline.evaluation.models.training import SAMPLE_SECONDS, near_cascades
from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.evaluation.panels.panel import VALUE_COLUMNS, Panel
from liq_pipeline.scoring.model import HORIZON_HOURS
from liq_pipeline.scoring.probability import FEATURES, feature_arrays

LEVEL_ROWS: Final = 3
"""A price or open interest counts for 15 min."""
FUNDING_ROWS: Final = 9 * 3600 // STEP_SECONDS

Floats = NDArray[np.float64]


def months_of(quarter: Quarter) -> list[datetime]:
    """The months that a partition reads."""
    return list(months_between(quarter.start - LOOK_BACK, quarter.end + LOOK_AHEAD))


def features_are_kept(plan: Plan, symbol: str, quarter: Quarter) -> bool:
    """Whether the partition's file is there and was made of the months as they are now."""
    path = plan.feature_file(symbol, quarter)
    return path.is_file() and facts_of(path).get("made_of") == _made_of(plan, symbol, quarter)


def keep_features(plan: Plan, symbol: str, quarter: Quarter) -> dict[str, Any]:
    """Compute and write one partition. Returns its facts."""
    panel = known_panel(plan, symbol, quarter)
    labels, events = label_panel(
        panel.time, panel.symbols, panel["price_usd"], panel["open_interest_base"], panel.step_seconds
    )
    found = feature_arrays(bars_of(panel))
    begin, end = int(quarter.start.timestamp()), int(quarter.end.timestamp())
    inside = (panel.time >= begin) & (panel.time < end) & (panel.time % SAMPLE_SECONDS == 0)
    inside &= np.isfinite(panel["price_usd"][0])
    columns = np.flatnonzero(inside)
    content: dict[str, NDArray[Any]] = {"time": panel.time[columns]}
    for hours in HORIZON_HOURS:
        content[f"label_{hours}"] = labels[hours][0, columns]
        content[f"near_{hours}"] = near_cascades(panel, columns, hours)[0]
    # Half the bytes; a fit does not see the difference, and inference never reads these files.
    content |= {name: values[0, columns].astype(np.float32) for name, values in found.items()}
    happened = [asdict(event) for event in events[4] if begin <= event.onset < end]
    facts = {
        "symbol": symbol,
        "quarter": quarter.name,
        "rows": int(columns.size),
        "events": happened,
        "made_of": _made_of(plan, symbol, quarter),
    }
    write_parquet(plan.feature_file(symbol, quarter), content, facts)
    return facts


def known_panel(plan: Plan, symbol: str, quarter: Quarter) -> Panel:
    """What was known of the symbol at each grid point of the quarter, with look-back and look-ahead."""
    first, last = quarter.start - LOOK_BACK, quarter.end + LOOK_AHEAD
    columns = load_span(plan, symbol, first, last, months_between)
    values = {name: np.full((1, columns["price_usd"].size), np.nan) for name in VALUE_COLUMNS}
    for name, source, rows in (
        ("price_usd", "price_usd", LEVEL_ROWS),
        ("open_interest_base", "open_interest_base", LEVEL_ROWS),
        ("long_short_ratio", "long_short_accounts", LEVEL_ROWS),
        ("funding_rate_per_8h", "funding_rate_per_8h", FUNDING_ROWS),
    ):
        values[name][0] = as_known(columns[source], rows)
    values["open_interest_usd"] = values["open_interest_base"] * values["price_usd"]
    time = int(first.timestamp()) + np.arange(columns["price_usd"].size, dtype=np.int64) * STEP_SECONDS
    return Panel((symbol,), time, STEP_SECONDS, values)


def as_known(values: Floats, rows: int) -> Floats:
    """The newest value that was true 1 to `rows` grid points ago; NaN where there is none."""
    place = np.arange(values.size)
    newest = np.maximum.accumulate(np.where(np.isfinite(values), place, -1))
    known = np.full(values.size, np.nan)
    before = newest[:-1]
    usable = (before >= 0) & (place[1:] - before <= rows)
    known[1:][usable] = values[before[usable]]
    return known


def _made_of(plan: Plan, symbol: str, quarter: Quarter) -> dict[str, Any]:
    """The checksum of each month's content: another content, or another set of features, makes the partition due."""
    made: dict[str, Any] = {"features": list(FEATURES)}
    for month in months_of(quarter):
        path = plan.month_file(symbol, month)
        made[f"{month:%Y-%m}"] = facts_of(path).get("content") if path.is_file() else None
    return made
