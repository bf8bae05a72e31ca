"""What the early warning compares with: the market's probability of the 30 days before each UTC day, per model.

Belongs here: when it is built, where it is kept (feature_references, symbol `*`, the model as venue) and which version
a score may see. Does not: the rule (scoring/early_warning.py), the bars it is built from (market_lookback.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg

from liq_pipeline.scoring.bars import Integers
from liq_pipeline.scoring.early_warning import (
    MARKET_PROBABILITY,
    REFERENCE_HOURS,
    WarningReference,
    reference_days,
)
from liq_pipeline.scoring.model import ProbabilityModel
from liq_pipeline.scoring.references import DAY_SECONDS, QUANTILES
from liq_pipeline.store.inputs.expected_sources import Scope
from liq_pipeline.store.lookback.market_lookback import (
    ALL,
    EPOCH_DAY,
    copy_references,
    date_of,
    first_at_or_after,
    market_bars,
    reference_row,
    reference_rows,
)

Connection = psycopg.Connection[Any]


def keep_warning_reference(
    conn: Connection, scope: Scope, model: ProbabilityModel, times_seconds: Integers, *, again: bool
) -> int:
    """Build and keep what the model's early warning compares with on the days of `times_seconds`, where it lacks.

    again: also where it is there, because bars have changed. How many were kept.
    """
    days = reference_days(times_seconds)
    kept = set() if again else {int(d) for d in warning_references_kept(conn, scope, model.model_id, days)}
    missing = np.array([day for day in days if int(day) not in kept], dtype=np.int64)
    if not missing.size:
        return 0
    reference = warning_reference_of(conn, scope, model, missing, int(times_seconds[-1]))
    rows = [
        reference_row(
            scope.world,
            ALL,
            model.model_id,
            MARKET_PROBABILITY,
            int(day),
            first_at_or_after(times_seconds, int(day) * DAY_SECONDS),
            int(reference.observations[place]),
            reference.quantiles[place],
        )
        for place, day in enumerate(missing)
    ]
    copy_references(conn, rows)
    return len(rows)


def warning_reference_of(
    conn: Connection, scope: Scope, model: ProbabilityModel, days: Integers, built_by_seconds: int
) -> WarningReference:
    """What the model's early warning compares with on these days (ascending), from the kept bars."""
    first = int(days[0]) * DAY_SECONDS - (REFERENCE_HOURS + model.lookback_hours) * 3600
    last = int(days[-1]) * DAY_SECONDS
    # As in a tick: that far back a model reads price and open interest.
    bars = market_bars(conn, scope, first, last, built_by_seconds, all_from_seconds=last)
    return model.warning_reference(bars, days)


def warning_references_kept(conn: Connection, scope: Scope, model_id: str, days: Integers) -> Integers:
    """Those of the days whose reference of this model is kept."""
    dates = [date_of(int(day)) for day in days]
    rows = conn.execute(
        "SELECT DISTINCT day FROM feature_references WHERE world = %s AND symbol = %s AND venue = %s AND feature = %s"
        " AND day = ANY(%s)",
        [scope.world, ALL, model_id, MARKET_PROBABILITY, dates],
    )
    return np.array(sorted((day - EPOCH_DAY).days for (day,) in rows), dtype=np.int64)


def warning_reference(
    conn: Connection, scope: Scope, model: ProbabilityModel, days: Integers, built_by_seconds: int
) -> WarningReference:
    """The kept reference of the model's early warning, as a score at `built_by_seconds` may see it.

    A model that no tick has asked on those days (another than the one in force) has its reference from the kept bars.
    """
    quantiles = np.full((days.size, QUANTILES), np.nan)
    observations = np.zeros(days.size, dtype=np.int64)
    position = {int(day): place for place, day in enumerate(days)}
    seen = set()
    for _, venue, feature, day, count, values in reference_rows(conn, scope.world, [ALL], days, built_by_seconds):
        if venue != model.model_id or feature != MARKET_PROBABILITY:
            continue
        place = position[(day - EPOCH_DAY).days]
        seen.add(place)
        observations[place] = count
        if values.size:
            quantiles[place] = values
    if len(seen) < days.size:
        return warning_reference_of(conn, scope, model, days, built_by_seconds)
    return WarningReference(days, quantiles, observations)
