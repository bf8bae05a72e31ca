"""Writing what was scored: liquidation_risk, stablecoin_pressure, signals, ticks; and reading where scoring stands.

Belongs here: the SQL of these four tables. Does not: scores (scoring/), alerts (alerting/), the order of a tick
(pipeline/tick.py). Rows are only ever inserted: another score of the same point is another revision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, LiteralString

import msgspec
import psycopg
from psycopg import sql

from liq_pipeline.scoring.results import PointResult, PressureResult, RiskResult
from liq_pipeline.store.inputs.as_known import Cut

Stream = Literal["market", "flows"]
Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Tick:
    """One committed grid point."""

    time: datetime
    cut: Cut


def read_cut(conn: Connection, consumer: str) -> Cut:
    """The next offset of every log that landing knows, as of the caller's snapshot."""
    cut: dict[str, dict[str, dict[str, int]]] = {}
    rows = conn.execute(
        "SELECT cluster_id, topic, kafka_partition, next_offset FROM consumer_offsets"
        " WHERE consumer = %s ORDER BY 1, 2, 3",
        [consumer],
    )
    for cluster_id, topic, partition, next_offset in rows:
        cut.setdefault(cluster_id, {}).setdefault(topic, {})[str(partition)] = next_offset
    return cut


def last_tick(conn: Connection, world: str, stream: Stream) -> datetime | None:
    """The newest committed grid point of a stream."""
    row = conn.execute("SELECT max(time) FROM ticks WHERE world = %s AND stream = %s", [world, stream]).fetchone()
    newest: datetime | None = row[0] if row else None
    return newest


def write_ticks(
    conn: Connection,
    world: str,
    stream: Stream,
    times: Sequence[datetime],
    cut: Cut,
    *,
    started_at: datetime,
    rows_landed: int,
    late_rows: int,
    dagster_run_id: str | None,
) -> None:
    """One row per point. rows_landed and late_rows stand with the newest point; they belong to the run."""
    encoded = msgspec.json.encode(cut).decode()
    with (
        conn.cursor() as cursor,
        cursor.copy(
            "COPY ticks (world, stream, time, cut, started_at, rows_landed, late_rows, dagster_run_id) FROM STDIN"
        ) as copy,
    ):
        for time in times:
            is_newest = time == times[-1]
            copy.write_row(
                (world, stream, time, encoded, started_at, rows_landed if is_newest else 0,
                 late_rows if is_newest else 0, dagster_run_id)
            )  # fmt: skip


def ticks_between(conn: Connection, world: str, stream: Stream, first: datetime, last: datetime) -> list[Tick]:
    """The committed points in [first, last], oldest first, with their cuts."""
    rows = conn.execute(
        "SELECT time, cut FROM ticks WHERE world = %s AND stream = %s AND time BETWEEN %s AND %s ORDER BY time",
        [world, stream, first, last],
    ).fetchall()
    return [Tick(time, cut) for time, cut in rows]


def write_risks_and_signals(
    conn: Connection,
    world: str,
    points: Sequence[PointResult],
    score_version: str,
    revisions: Mapping[tuple[str, datetime], int] | None = None,
) -> int:
    """Insert liquidation_risk and signals rows; how many symbols x points. revisions: absent = the first score, 0."""
    of = revisions or {}
    with conn.cursor() as cursor:
        with cursor.copy(
            "COPY liquidation_risk (world, symbol, time, score_version, revision, score, score_high, side,"
            " funding_points, open_interest_points, long_short_points, liquidation_points, long_squeeze, short_squeeze,"
            " coverage, inputs) FROM STDIN"
        ) as copy:
            for point in points:
                for r in point.risks.values():
                    copy.write_row(
                        (world, r.symbol, r.time, score_version, of.get((r.symbol, r.time), 0), r.score, r.score_high,
                         r.side, r.funding_points, r.open_interest_points, r.long_short_points, r.liquidation_points,
                         r.long_squeeze, r.short_squeeze, r.coverage, _json(r.inputs))
                    )  # fmt: skip
        with cursor.copy(
            "COPY signals (world, symbol, time, score_version, revision, risk, pressure, severity, severity_possible,"
            " flow_side_known, note, cascade_probability_1h, cascade_probability_4h, cascade_probability_24h, model_id,"
            " baseline_volatility_percentile, under_way_probability, under_way) FROM STDIN"
        ) as copy:
            for point in points:
                for s in point.signals.values():
                    copy.write_row(
                        (world, s.symbol, s.time, score_version, of.get((s.symbol, s.time), 0), s.risk, s.pressure,
                         s.severity, s.severity_possible, s.flow_side_known, s.note, s.cascade_probability_1h,
                         s.cascade_probability_4h, s.cascade_probability_24h, s.model_id,
                         s.baseline_volatility_percentile,
                         None if s.under_way is None else s.under_way.probability,
                         None if s.under_way is None else msgspec.json.encode(s.under_way).decode())
                    )  # fmt: skip
    return sum(len(point.risks) for point in points)


def write_pressures(
    conn: Connection,
    world: str,
    pressures: Sequence[PressureResult],
    score_version: str,
    revisions: Mapping[datetime, int] | None = None,
) -> int:
    """Insert stablecoin_pressure rows; how many."""
    of = revisions or {}
    with (
        conn.cursor() as cursor,
        cursor.copy(
            "COPY stablecoin_pressure (world, time, score_version, revision, score, inflow_usd, outflow_usd,"
            " window_minutes, coverage, inputs, score_low, score_high) FROM STDIN"
        ) as copy,
    ):
        for p in pressures:
            copy.write_row(
                (world, p.time, score_version, of.get(p.time, 0), p.score, p.inflow_usd, p.outflow_usd,
                 p.window_minutes, p.coverage, _json(p.inputs), p.score_low, p.score_high)
            )  # fmt: skip
    return len(pressures)


def pressures_between(conn: Connection, world: str, after: datetime, until: datetime) -> list[PressureResult]:
    """The first scores of the pressure in (after, until], oldest first: what a live signal saw."""
    rows = conn.execute(
        """
        SELECT DISTINCT ON (time) time, score, inflow_usd, outflow_usd, window_minutes, coverage, inputs, score_low,
               score_high
        FROM stablecoin_pressure
        WHERE world = %s AND time > %s AND time <= %s
        ORDER BY time, revision, created_at
        """,
        [world, after, until],
    ).fetchall()
    return [PressureResult(*row) for row in rows]


def next_risk_revisions(
    conn: Connection, world: str, first: datetime, last: datetime
) -> dict[tuple[str, datetime], int]:
    """(symbol, time) -> the revision after the newest of any score version, for the points that have one."""
    rows = conn.execute(
        "SELECT symbol, time, max(revision) + 1 FROM signals WHERE world = %s AND time BETWEEN %s AND %s GROUP BY 1, 2",
        [world, first, last],
    ).fetchall()
    return {(symbol, time): revision for symbol, time, revision in rows}


def next_pressure_revisions(conn: Connection, world: str, first: datetime, last: datetime) -> dict[datetime, int]:
    """time -> the revision after the newest of any score version, for the points that have one."""
    rows = conn.execute(
        "SELECT time, max(revision) + 1 FROM stablecoin_pressure"
        " WHERE world = %s AND time BETWEEN %s AND %s GROUP BY 1",
        [world, first, last],
    ).fetchall()
    return dict(rows)


def newest_scores(
    conn: Connection, world: str, first: datetime, last: datetime
) -> dict[tuple[str, datetime], float | None]:
    """(symbol, time) -> the risk score in force."""
    rows = conn.execute(
        "SELECT symbol, time, score FROM liquidation_risk_current WHERE world = %s AND time BETWEEN %s AND %s",
        [world, first, last],
    ).fetchall()
    return {(symbol, time): score for symbol, time, score in rows}


_FIGURES: Final[LiteralString] = (
    "score, score_high, side, funding_points, open_interest_points, long_short_points, liquidation_points,"
    " long_squeeze, short_squeeze, coverage"
)


def figures_of(risk: RiskResult) -> tuple[Any, ...]:
    """What two scores of one point must agree in to be the same: all but their inputs."""
    return (
        risk.score, risk.score_high, risk.side, risk.funding_points, risk.open_interest_points, risk.long_short_points,
        risk.liquidation_points, risk.long_squeeze, risk.short_squeeze, risk.coverage,
    )  # fmt: skip


def newest_risks(
    conn: Connection, world: str, first: datetime, last: datetime
) -> dict[tuple[str, datetime], tuple[Any, ...]]:
    """(symbol, time) -> the figures in force, in the order of figures_of()."""
    query = sql.SQL(
        "SELECT symbol, time, {} FROM liquidation_risk_current WHERE world = %s AND time BETWEEN %s AND %s"
    ).format(sql.SQL(_FIGURES))
    rows = conn.execute(query, [world, first, last]).fetchall()
    return {(symbol, time): tuple(figures) for symbol, time, *figures in rows}


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
