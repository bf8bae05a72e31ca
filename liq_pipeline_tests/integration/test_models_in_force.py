"""Which probability model speaks: the shipped one from the first tick on, until a champion takes its place."""

from __future__ import annotations

import json

import psycopg

from liq_pipeline.pipeline.models import model_in_force
from liq_pipeline.scoring.early_warning import WarningRule
from liq_pipeline.scoring.probability import shipped_model


def test_the_shipped_model_speaks_first_and_stands_in_the_table(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert model_in_force(connection) == shipped_model()
        assert model_in_force(connection) == shipped_model(), "asking twice registers it once"
        rows = connection.execute("SELECT model_id, state, facts #>> '{base_rate,4}' FROM models").fetchall()
    ((model_id, state, base_rate),) = rows
    assert model_id == shipped_model().model_id
    assert state == "shipped"
    assert 0 < float(base_rate) < 0.2


def test_a_champion_takes_its_place_and_candidates_stay_silent(database_url: str) -> None:
    shipped = shipped_model().as_json()
    rule = WarningRule(0.9, 0.5).as_json()
    with psycopg.connect(database_url) as connection:
        for name, state in (("better-1", "champion"), ("newer-2", "candidate"), ("older-0", "retired")):
            connection.execute(
                "INSERT INTO models (model_id, state, parameters, facts, promoted_at) VALUES (%s, %s, %s, '{}', now())",
                (name, state, json.dumps({**shipped, "model_id": name, "early_warning": rule})),
            )
        chosen = model_in_force(connection)
    assert chosen.model_id == "better-1"
    assert chosen.early_warning == WarningRule(0.9, 0.5)
    assert chosen.full == shipped_model().full
