"""A report's figures as rows, for Grafana and for later comparison.

Belongs here: what of a report becomes which row. Does not: figures (run.py), verdicts on alerts
(evaluation/paging/outcomes.py).

The same data under the same configuration is the same run: judged again, its rows are brought up to date.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from liq_pipeline.evaluation.labels.version_1 import LABEL_VERSION, CascadeEvent

Connection = psycopg.Connection[Any]

_NAMESPACE: Final = uuid.UUID("b0b3f2b1-3c0c-5f55-9d0f-0a4ce1a3b7d1")
MetricRow = tuple[str, int, str, float, float | None, float | None]
_NUMBERS: Final = (int, float)


def store_report(conn: Connection, world: str, report: Mapping[str, Any]) -> uuid.UUID:
    """Write a report and its figures, in the caller's transaction; the run's id."""
    model = report["model"]["model_id"]
    span = report["panel"]["from"], report["panel"]["to"]
    identity = uuid.uuid5(_NAMESPACE, "|".join([world, *span, report["config_hash"], report["data_hash"], str(model)]))
    conn.execute(
        """
        INSERT INTO evaluation_runs (evaluation_id, world, label_version, from_time, to_time, config_hash, data_hash,
                                     model_id, report)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (evaluation_id) DO UPDATE SET report = excluded.report, created_at = clock_timestamp()
        """,
        [identity, world, LABEL_VERSION, *span, report["config_hash"], report["data_hash"], model, json.dumps(report)],
    )
    conn.execute("DELETE FROM evaluation_metrics WHERE evaluation_id = %s", [identity])
    with (
        conn.cursor() as cursor,
        cursor.copy(
            "COPY evaluation_metrics (evaluation_id, subject, horizon_hours, metric, value, value_low, value_high)"
            " FROM STDIN"
        ) as copy,
    ):
        for row in metric_rows(report):
            copy.write_row((identity, *row))
    return identity


def metric_rows(report: Mapping[str, Any]) -> Iterator[MetricRow]:
    """(subject, horizon hours, metric, value, low, high) of every single number about a score, a rule or a severity."""
    for name, by_horizon in report["scores"].items():
        for horizon, figures in by_horizon.items():
            for number in _numbers(figures):
                yield name, int(horizon.removesuffix("h")), *number
    hours = int(report["desk"]["horizon_hours"])
    for rule, figures in report["desk"].items():
        if isinstance(figures, Mapping) and rule != "at_the_budget_in_hindsight":
            for number in _numbers(figures):
                yield f"rule: {rule}", hours, *number
    for variant, levels in report["severities"].items():
        if isinstance(levels, Mapping):
            for level, figures in levels.items():
                for number in _numbers(figures):
                    yield f"severity: {level} ({variant})", hours, *number


def _numbers(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float, float | None, float | None]]:
    """Every number of a part of a report; an object with value (or share), low and high is one with its interval."""
    for name, value in figures.items():
        metric = f"{prefix}{name}"
        if isinstance(value, Mapping):
            middle = value.get("value", value.get("share"))
            if "low" in value:
                if middle is not None:
                    yield metric, float(middle), value["low"], value["high"]
            else:
                yield from _numbers(value, f"{metric}: ")
        elif isinstance(value, _NUMBERS) and not isinstance(value, bool):
            yield metric, float(value), None, None


def store_events(
    conn: Connection, world: str, events: Mapping[int, Sequence[CascadeEvent]], first: int, last: int
) -> int:
    """Bring cascade_events of [first, last] (seconds, by first positive row) up to date; how many there are.

    An event that was still running when it was stored has grown since; one that corrected data no longer show goes.
    """
    rows = [
        (
            uuid.uuid5(_NAMESPACE, f"{world}|{e.symbol}|{LABEL_VERSION}|{hours}|{e.start}"),
            world, e.symbol, LABEL_VERSION, hours, _time(e.start), _time(e.onset), _time(e.peak), _time(e.end),
            "up" if e.direction > 0 else "down", e.price_move, e.open_interest_move,
            e.is_major, e.is_systemic, e.is_first_shock,
        )
        for hours, found in events.items()
        for e in found
        if first <= e.start <= last
    ]  # fmt: skip
    conn.execute(
        "DELETE FROM cascade_events WHERE world = %s AND label_version = %s AND starts_at BETWEEN %s AND %s"
        " AND event_id <> ALL(%s)",
        [world, LABEL_VERSION, _time(first), _time(last), [row[0] for row in rows]],
    )
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO cascade_events (event_id, world, symbol, label_version, horizon_hours, starts_at, onset_at,
                peak_at, ends_at, direction, price_move, open_interest_move, is_major, is_systemic, is_first_shock)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (event_id) DO UPDATE SET onset_at = excluded.onset_at, peak_at = excluded.peak_at,
                ends_at = excluded.ends_at, direction = excluded.direction, price_move = excluded.price_move,
                open_interest_move = excluded.open_interest_move, is_major = excluded.is_major,
                is_systemic = excluded.is_systemic, is_first_shock = excluded.is_first_shock
            """,
            rows,
        )
    return len(rows)


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
