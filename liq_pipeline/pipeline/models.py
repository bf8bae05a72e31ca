"""The probability models in the database: which one is in force, and the shipped one put beside the others.

Belongs here: the `models` table. Does not: what a model computes (scoring/probability.py), or how one is trained.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg

from liq_pipeline.scoring.probability import CascadeModel, shipped_model


def register_shipped(conn: psycopg.Connection[Any]) -> None:
    """Put the shipped model's row into the table, in the caller's transaction; does nothing where it stands already."""
    model = shipped_model()
    conn.execute(
        """
        INSERT INTO models (model_id, state, trained_from, trained_to, parameters, facts)
        VALUES (%s, 'shipped', %s, %s, %s, %s)
        ON CONFLICT (model_id) DO NOTHING
        """,
        (
            model.model_id,
            model.facts.get("trained_from"),
            model.facts.get("trained_to"),
            json.dumps(model.as_json()),
            json.dumps(dict(model.facts)),
        ),
    )


def model_in_force(conn: psycopg.Connection[Any]) -> CascadeModel:
    """The champion if there is one, else the shipped model (registered on the way)."""
    row = conn.execute(
        "SELECT parameters FROM models WHERE state = 'champion' ORDER BY promoted_at DESC NULLS LAST LIMIT 1"
    ).fetchone()
    if row is not None:
        return CascadeModel.from_json(row[0])
    register_shipped(conn)
    return shipped_model()
