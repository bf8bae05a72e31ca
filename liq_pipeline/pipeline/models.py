"""The probability models in the database: which one is in force, and how one takes the place of another.

Belongs here: the tables models and model_changes. Does not: what a model computes (scoring/probability.py), how one is
trained (evaluation/models/retrain.py), or whether a candidate is good enough (evaluation/models/promotion_gate.py).

The tick reads the model in force in its own snapshot: a promotion counts from the next tick on, and every signal names
the model that spoke. `shipped` stays in the table for ever; it speaks whenever there is no champion.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from liq_pipeline.errors import LiqError
from liq_pipeline.scoring.probability import CascadeModel, shipped_model

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class StoredModel:
    """One row of `models`. is_in_force: this is the one that speaks now."""

    model_id: str
    state: str
    is_in_force: bool
    trained_from: datetime | None
    trained_to: datetime | None
    created_at: datetime
    promoted_at: datetime | None
    facts: dict[str, Any]
    shadow_days: float
    """How much time its shadow covers."""
    shadow_alarms: int
    """Pages that it would have sent."""


def register_shipped(conn: Connection) -> None:
    """Put the shipped model's row into the table, in the caller's transaction; does nothing where it stands already."""
    _insert(conn, shipped_model(), "shipped")


def model_in_force(conn: Connection) -> CascadeModel:
    """The champion if there is one, else the shipped model (registered on the way)."""
    row = conn.execute(
        "SELECT parameters FROM models WHERE state = 'champion' ORDER BY promoted_at DESC NULLS LAST LIMIT 1"
    ).fetchone()
    if row is not None:
        return CascadeModel.from_json(row[0])
    register_shipped(conn)
    return shipped_model()


def candidates(conn: Connection) -> list[CascadeModel]:
    """The models in shadow, oldest first."""
    rows = conn.execute("SELECT parameters FROM models WHERE state = 'candidate' ORDER BY created_at, model_id")
    return [CascadeModel.from_json(row[0]) for row in rows]


def add_candidate(conn: Connection, model: CascadeModel, because: str) -> None:
    """Store a retrained model in shadow, in the caller's transaction. Raises LiqError if its id is taken."""
    if not _insert(conn, model, "candidate"):
        raise LiqError(f"there is a model {model.model_id} already: a retrained model needs an id of its own")
    _note(conn, model.model_id, "trained", None, because)


def list_models(conn: Connection) -> list[StoredModel]:
    """Every model, the one in force first, then the newest first."""
    in_force = model_in_force(conn).model_id
    rows = conn.execute(
        """
        SELECT model_id, state, trained_from, trained_to, created_at, promoted_at, facts,
               coalesce((SELECT extract(epoch FROM max(bar_end) - min(bar_end))::float8 / 86400
                         FROM shadow_probabilities AS p WHERE p.model_id = m.model_id), 0),
               (SELECT count(*) FROM shadow_alarms AS a WHERE a.model_id = m.model_id)
        FROM models AS m
        ORDER BY model_id = %s DESC, created_at DESC, model_id
        """,
        [in_force],
    ).fetchall()
    return [StoredModel(row[0], row[1], row[0] == in_force, *row[2:]) for row in rows]


def promote(conn: Connection, model_id: str, because: str) -> str:
    """Make a candidate (or a retired model) the champion, in the caller's transaction; the id of the one it replaces.

    Raises LiqError if there is no such model, or it speaks already.
    """
    conn.execute("SELECT pg_advisory_xact_lock(hashtext('liq_pipeline models'))")
    before = model_in_force(conn).model_id
    row = conn.execute("SELECT state FROM models WHERE model_id = %s", [model_id]).fetchone()
    if row is None:
        raise LiqError(f"there is no model {model_id}: `liq model list` shows those there are")
    if model_id == before:
        raise LiqError(f"{model_id} is in force already")
    _retire_champion(conn)
    if row[0] != "shipped":
        conn.execute(
            "UPDATE models SET state = 'champion', promoted_at = clock_timestamp() WHERE model_id = %s", [model_id]
        )
    _note(conn, model_id, "promoted", before, because)
    return before


def rollback(conn: Connection, because: str) -> tuple[str, str]:
    """Take the newest promotion back: (taken back, speaks again), in the caller's transaction.

    Called again it goes one promotion further back, down to the shipped model. Raises LiqError if none is left.
    """
    conn.execute("SELECT pg_advisory_xact_lock(hashtext('liq_pipeline models'))")
    standing = _promotions(conn)
    if not standing:
        raise LiqError("no promotion is left to take back: the shipped model speaks")
    taken_back = standing.pop()
    before = standing[-1] if standing else shipped_model().model_id
    _retire_champion(conn)
    conn.execute("UPDATE models SET state = 'champion' WHERE model_id = %s AND state <> 'shipped'", [before])
    _note(conn, taken_back, "rolled back", before, because)
    return taken_back, model_in_force(conn).model_id


def _promotions(conn: Connection) -> list[str]:
    """The promotions that were not taken back, oldest first."""
    standing: list[str] = []
    for model_id, action in conn.execute(
        "SELECT model_id, action FROM model_changes WHERE action <> 'trained' ORDER BY change_id"
    ):
        if action == "promoted":
            standing.append(model_id)
        elif standing:
            standing.pop()
    return standing


def _insert(conn: Connection, model: CascadeModel, state: str) -> bool:
    done = conn.execute(
        """
        INSERT INTO models (model_id, state, trained_from, trained_to, parameters, facts)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (model_id) DO NOTHING
        """,
        (
            model.model_id,
            state,
            model.facts.get("trained_from"),
            model.facts.get("trained_to"),
            json.dumps(model.as_json()),
            json.dumps(dict(model.facts)),
        ),
    )
    return done.rowcount == 1


def _retire_champion(conn: Connection) -> None:
    conn.execute("UPDATE models SET state = 'retired' WHERE state = 'champion'")


def _note(conn: Connection, model_id: str, action: str, replaced: str | None, because: str) -> None:
    conn.execute(
        "INSERT INTO model_changes (model_id, action, replaced_model_id, because) VALUES (%s, %s, %s, %s)",
        [model_id, action, replaced, because],
    )
