"""Candidates in shadow: what they would have said beside the model in force, and the pages they would have sent.

Belongs here: computing and storing both, on the 5-min bars. Does not: judging them (promotion_gate.py), promoting one
(pipeline/models.py).

The tick knows nothing of it: a shadow costs no tick a millisecond, and nothing here can reach a channel, since no row
of an alert or the outbox is written. Bars hold what was known at their end, so the shadow of a past hour is what a
tick at that moment would have said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg

from liq_pipeline.domain.worlds import World
from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.paging import desk
from liq_pipeline.evaluation.panels.stored import stored_history
from liq_pipeline.pipeline import models
from liq_pipeline.scoring.early_warning import REFERENCE_HOURS
from liq_pipeline.scoring.model import HORIZON_HOURS, Probabilities
from liq_pipeline.scoring.probability import LOOKBACK_HOURS, CascadeModel, feature_arrays
from liq_pipeline.settings import Settings

Connection = psycopg.Connection[Any]

LONGEST_CATCH_UP: Final = timedelta(days=35)
"""How far back a shadow is filled at once; a candidate's own training days are never in it."""


@dataclass(frozen=True)
class ShadowResult:
    """Rows added, of how many models; alarms: model id -> pages since its shadow began."""

    rows: int
    models: int
    alarms: dict[str, int]


def extend_shadows(conn: Connection, world: World, settings: Settings, now: datetime) -> ShadowResult:
    """Bring every candidate's shadow, and that of the model in force, up to `now`; does nothing without candidates.

    In the caller's transaction; called again it adds nothing twice.
    """
    waiting = models.candidates(conn)
    if not waiting:
        return ShadowResult(0, 0, {})
    in_force = models.model_in_force(conn)
    newest = dict(
        conn.execute(
            "SELECT model_id, max(bar_end) FROM shadow_probabilities WHERE world = %s GROUP BY 1", [world.name]
        ).fetchall()
    )
    begins = {model.model_id: _after_training(model) for model in waiting}
    first_of_all = min(begins.values())
    begins[in_force.model_id] = first_of_all
    oldest = now - LONGEST_CATCH_UP
    since = {m: max(newest.get(m) or begins[m], begins[m], oldest) for m in begins}
    start = min(since.values())
    try:
        history = stored_history(
            conn, world, settings, start - timedelta(hours=LOOKBACK_HOURS + REFERENCE_HOURS + 1), now
        )
    except LiqError:
        return ShadowResult(0, len(begins), {})
    found = feature_arrays(history.bars)
    ends = history.bars.end_seconds
    rows = 0
    for model in (*waiting, in_force):
        fresh = np.flatnonzero(ends > since[model.model_id].timestamp())
        if fresh.size:
            said = model.from_features(found, ends)
            rows += _write(conn, world.name, model.model_id, history.bars.symbols, ends, fresh, said)
    alarms = {model.model_id: _alarms(conn, world, model, settings) for model in waiting}
    return ShadowResult(rows, len(begins), alarms)


def _after_training(model: CascadeModel) -> datetime:
    """From here on the model has seen nothing."""
    trained_to = model.facts.get("trained_to")
    return datetime.fromtimestamp(0, UTC) if trained_to is None else datetime.fromisoformat(str(trained_to))


def _write(
    conn: Connection, world: str, model_id: str, symbols: tuple[str, ...], ends: Any, fresh: Any, said: Probabilities
) -> int:
    known = np.isfinite(said.by_hours[4][:, fresh])
    with conn.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE IF NOT EXISTS shadow_new (LIKE shadow_probabilities) ON COMMIT DELETE ROWS")
        cursor.execute("TRUNCATE shadow_new")
        with cursor.copy(
            "COPY shadow_new (world, symbol, bar_end, model_id, cascade_probability_1h, cascade_probability_4h,"
            " cascade_probability_24h, is_past_threshold) FROM STDIN"
        ) as copy:
            for s, position in zip(*np.nonzero(known), strict=True):
                place = fresh[position]
                values = [said.by_hours[hours][s, place] for hours in HORIZON_HOURS]
                time = datetime.fromtimestamp(int(ends[place]), UTC)
                copy.write_row(
                    (world, symbols[s], time, model_id, *(None if np.isnan(v) else float(v) for v in values),
                     bool(said.early_warning[s, place]))
                )  # fmt: skip
        cursor.execute("INSERT INTO shadow_probabilities SELECT * FROM shadow_new ON CONFLICT DO NOTHING")
        return cursor.rowcount


def _alarms(conn: Connection, world: World, model: CascadeModel, settings: Settings) -> int:
    """Run the alert machine over the model's whole shadow and store the pages; how many there are."""
    times, symbols, probability = shadow_arrays(conn, world.name, model.model_id)
    if not times.size:
        return 0
    warnings = desk.market_warnings(times, probability, model.early_warning)
    policy = desk.desk_policy(300, "early_warning", symbols, settings)
    pages = desk.early_warning_pages(times, symbols, warnings, policy)
    conn.execute("DELETE FROM shadow_alarms WHERE world = %s AND model_id = %s", [world.name, model.model_id])
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO shadow_alarms (world, model_id, told_at, ended_at, symbols) VALUES (%s, %s, %s, %s, %s)",
            [
                (world.name, model.model_id, datetime.fromtimestamp(page.told, UTC),
                 datetime.fromtimestamp(page.ended, UTC), sorted(page.symbols))
                for page in pages
            ],
        )  # fmt: skip
    return len(pages)


def shadow_arrays(conn: Connection, world: str, model_id: str, hours: int = 4) -> tuple[Any, tuple[str, ...], Any]:
    """A model's shadow on a regular 5-min grid: times (seconds), symbols, probabilities (symbols, times)."""
    column = f"cascade_probability_{hours}h"
    rows = conn.execute(
        f"SELECT symbol, extract(epoch FROM bar_end)::bigint, {column} FROM shadow_probabilities"  # noqa: S608
        f" WHERE world = %s AND model_id = %s AND {column} IS NOT NULL",
        [world, model_id],
    ).fetchall()
    if not rows:
        return np.empty(0, dtype=np.int64), (), np.empty((0, 0))
    symbols = tuple(sorted({row[0] for row in rows}))
    first, last = min(row[1] for row in rows), max(row[1] for row in rows)
    times = np.arange(first, last + 1, 300, dtype=np.int64)
    probability = np.full((len(symbols), times.size), np.nan)
    place = {symbol: index for index, symbol in enumerate(symbols)}
    for symbol, second, value in rows:
        probability[place[symbol], (second - first) // 300] = value
    return times, symbols, probability
