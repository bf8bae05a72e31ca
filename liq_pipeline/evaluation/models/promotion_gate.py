"""The written gate: what a candidate must have shown in shadow before it may take the champion's place by itself.

Belongs here: the conditions and their figures. Does not: filling shadows (shadow.py), promoting (pipeline/models.py).

All of it on the same rows, after the end of the candidate's training, at 4 h (docs/models.md):
1. at least MIN_WEEKS of shadow of both models;
2. at least MIN_EVENTS cascades in them;
3. a better Brier score: the mean of the difference of squared errors, whole days resampled, with its 90 % interval
   above zero;
4. a better ranking: the gain of within-symbol PR-AUC over the base rate, with its 90 % interval above zero.
A symbol without cascades in the shadow has no ranking and does not count in 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg

from liq_pipeline.domain.worlds import World
from liq_pipeline.evaluation.figures import metrics as m
from liq_pipeline.evaluation.labels.version_1 import POSITIVE, UNKNOWN, label_panel
from liq_pipeline.evaluation.models.shadow import shadow_arrays
from liq_pipeline.evaluation.panels.stored import stored_history
from liq_pipeline.settings import Settings

Connection = psycopg.Connection[Any]

MIN_WEEKS: Final = 4.0
MIN_EVENTS: Final = 20
HORIZON_HOURS: Final = 4


@dataclass(frozen=True)
class Verdict:
    """passes: every condition holds. gains are those of the candidate over the model in force."""

    model_id: str
    compared_with: str
    weeks: float
    events: int
    brier_gain: m.Interval | None
    ranking_gain: m.Interval | None
    passes: bool
    because: str


def judge_candidate(conn: Connection, world: World, settings: Settings, model_id: str, in_force: str) -> Verdict:
    """Hold a candidate against the model in force on the rows that both have spoken on."""
    times, symbols, mine = shadow_arrays(conn, world.name, model_id, HORIZON_HOURS)
    other_times, other_symbols, theirs = shadow_arrays(conn, world.name, in_force, HORIZON_HOURS)
    if not times.size or not other_times.size:
        return Verdict(model_id, in_force, 0.0, 0, None, None, False, "it has no shadow beside the model in force yet")
    theirs = _on_grid(times, symbols, other_times, other_symbols, theirs)
    first = datetime.fromtimestamp(int(times[0]), UTC) - timedelta(hours=26)
    # The labels look ahead: what follows the last bar of the shadow belongs to them.
    last = datetime.fromtimestamp(int(times[-1]), UTC) + timedelta(hours=HORIZON_HOURS + 1)
    panel = stored_history(conn, world, settings, first, last).panel
    labels, events = label_panel(
        panel.time, panel.symbols, panel["price_usd"], panel["open_interest_base"], panel.step_seconds
    )
    target = _on_grid(times, symbols, panel.time, panel.symbols, labels[HORIZON_HOURS].astype(np.float64))
    usable = np.isfinite(mine) & np.isfinite(theirs) & np.isfinite(target) & (target != UNKNOWN)
    happened = [e for e in events[HORIZON_HOURS] if times[0] <= e.onset <= times[-1] and e.symbol in symbols]
    return compare(model_id, in_force, times, usable, target == POSITIVE, mine, theirs, len(happened))


def compare(
    model_id: str,
    in_force: str,
    times: Any,
    usable: Any,
    is_positive: Any,
    mine: Any,
    theirs: Any,
    events: int,
) -> Verdict:
    """The gate itself. All arrays are (symbols, times) on a regular grid of `times` (seconds)."""
    columns = np.flatnonzero(usable.any(axis=0))
    weeks = float(times[columns[-1]] - times[columns[0]]) / (7 * 86_400) if columns.size else 0.0
    if weeks < MIN_WEEKS or events < MIN_EVENTS:
        because = f"{weeks:.1f} weeks with {events} cascades in shadow; {MIN_WEEKS:g} weeks and {MIN_EVENTS} are needed"
        return Verdict(model_id, in_force, weeks, events, None, None, False, because)
    day = times // 86_400 - int(times[0]) // 86_400
    days = int(day[-1]) + 1
    draws = m.day_draws(days)
    column = np.nonzero(usable)[1]
    truth = is_positive[usable].astype(np.float64)
    better = (theirs[usable] - truth) ** 2 - (mine[usable] - truth) ** 2
    brier = _mean_by_day(better, day[column], days, draws)
    hourly = usable & (times % 3600 == 0)
    at_symbol, at_column = np.nonzero(hourly)
    blocks = [
        m.day_blocks(at_symbol, is_positive[hourly], score[hourly], day[at_column], days) for score in (mine, theirs)
    ]
    ranking = m.bootstrap(blocks[0], blocks[1], m.DayBlocks.precision_lift, draws)
    failed = []
    if not brier.low > 0:
        failed.append("its Brier score is not surely better")
    if not ranking.low > 0:
        failed.append("its ranking is not surely better")
    because = " and ".join(failed) or f"better in Brier score and ranking over {weeks:.1f} weeks"
    return Verdict(model_id, in_force, weeks, events, brier, ranking, not failed, because)


def _mean_by_day(values: Any, day: Any, days: int, draws: Any) -> m.Interval:
    """Mean of row values with its interval, whole days resampled."""
    total, count = np.bincount(day, weights=values, minlength=days), np.bincount(day, minlength=days)
    means = (draws @ total) / np.maximum(draws @ count, 1)
    low, high = np.percentile(means[1:], m.INTERVAL)
    return m.Interval(float(means[0]), float(low), float(high))


def _on_grid(times: Any, symbols: tuple[str, ...], from_times: Any, from_symbols: tuple[str, ...], values: Any) -> Any:
    """Values (from_symbols, from_times) put onto (symbols, times); NaN where there is none."""
    result = np.full((len(symbols), times.size), np.nan)
    place = np.searchsorted(from_times, times)
    there = place < from_times.size
    there[there] = from_times[place[there]] == times[there]
    for s, symbol in enumerate(symbols):
        if symbol in from_symbols:
            result[s, there] = values[from_symbols.index(symbol)][place[there]]
    return result
