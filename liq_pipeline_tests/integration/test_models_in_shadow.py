"""Candidates in shadow: trained on stored history, logged and not sent, promoted by hand or by the gate, taken back."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest

from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.models.promotion_gate import compare
from liq_pipeline.evaluation.models.retrain import TooLittleHistoryError, retrain
from liq_pipeline.evaluation.models.shadow import extend_shadows
from liq_pipeline.evaluation.panels.stored import stored_history
from liq_pipeline.pipeline import models
from liq_pipeline.scoring.early_warning import WarningRule
from liq_pipeline.scoring.probability import CascadeModel, shipped_model
from liq_pipeline.settings import Settings
from liq_pipeline_tests.history_support import made_panel, store_panel
from liq_pipeline_tests.scoring_support import START, Feed, make_world, write


@pytest.fixture
def connection(database_url: str) -> Any:
    with psycopg.connect(database_url, options="-c timezone=UTC") as opened:
        yield opened


def named(model_id: str, rank: float = 0.99, trained_to: datetime = START) -> CascadeModel:
    """The shipped coefficients under another name."""
    facts = {"trained_from": (trained_to - timedelta(days=200)).isoformat(), "trained_to": trained_to.isoformat()}
    return replace(
        shipped_model(), model_id=model_id, early_warning=WarningRule(rank, 0.9 if rank else 0.0), facts=facts
    )


def states(connection: psycopg.Connection[Any]) -> dict[str, str]:
    return dict(connection.execute("SELECT model_id, state FROM models").fetchall())


def test_a_candidate_is_silent_until_it_is_promoted_and_can_be_taken_back(connection: Any) -> None:
    shipped = shipped_model().model_id
    models.register_shipped(connection)
    for name in ("a", "b"):
        models.add_candidate(connection, named(name), "a test")
    assert models.model_in_force(connection).model_id == shipped
    assert models.promote(connection, "a", "better") == shipped
    assert models.promote(connection, "b", "better still") == "a"
    assert states(connection) == {shipped: "shipped", "a": "retired", "b": "champion"}
    assert models.rollback(connection, "worse") == ("b", "a")
    assert models.model_in_force(connection).model_id == "a"
    assert models.rollback(connection, "worse too") == ("a", shipped)
    assert models.model_in_force(connection) == shipped_model()
    with pytest.raises(LiqError, match="no promotion is left"):
        models.rollback(connection, "once more")
    trail = connection.execute("SELECT action, model_id, because FROM model_changes ORDER BY change_id").fetchall()
    assert trail[2:] == [
        ("promoted", "a", "better"),
        ("promoted", "b", "better still"),
        ("rolled back", "b", "worse"),
        ("rolled back", "a", "worse too"),
    ]


def test_the_shipped_model_can_be_promoted_back_and_a_wrong_name_is_refused(connection: Any) -> None:
    models.add_candidate(connection, named("a"), "a test")
    models.promote(connection, "a", "better")
    assert models.promote(connection, shipped_model().model_id, "safer") == "a"
    assert models.model_in_force(connection) == shipped_model()
    assert models.rollback(connection, "not safer") == (shipped_model().model_id, "a")
    with pytest.raises(LiqError, match="no model nonsense"):
        models.promote(connection, "nonsense", "?")
    with pytest.raises(LiqError, match="in force already"):
        models.promote(connection, "a", "again")
    with pytest.raises(LiqError, match="a model a already"):
        models.add_candidate(connection, named("a"), "the same name")


def test_a_shadow_is_filled_from_the_bars_beside_the_model_in_force_and_sends_nothing(connection: Any) -> None:
    world = make_world(connection, "recorded/shadow", cadence_seconds=300)
    last = START + timedelta(days=12)
    write(connection, Feed(world.name, ("BTC", "ETH"), ("alpha", "beta"), START, last))
    models.register_shipped(connection)
    assert extend_shadows(connection, world, Settings(), last).rows == 0, "no candidate, no shadow"
    low = named("eager", rank=0.0, trained_to=START + timedelta(days=8))
    models.add_candidate(connection, low, "a test")
    first = extend_shadows(connection, world, Settings(), last - timedelta(hours=1))
    assert first.alarms["eager"] > 0
    assert first.models == 2
    rest = extend_shadows(connection, world, Settings(), last)
    again = extend_shadows(connection, world, Settings(), last)
    assert rest.rows == 2 * 2 * 12, "an hour of two symbols and two models"
    assert again.rows == 0
    told = connection.execute(
        "SELECT model_id, min(bar_end), max(bar_end), count(*) FROM shadow_probabilities GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [row[0] for row in told] == ["eager", shipped_model().model_id]
    assert told[0][1:] == told[1][1:], "the same rows, or nothing could be compared"
    assert told[0][1] > START + timedelta(days=8), "its shadow begins where its training ended"
    same = connection.execute(
        "SELECT count(*) FROM shadow_probabilities a JOIN shadow_probabilities b USING (world, symbol, bar_end)"
        " WHERE a.model_id = 'eager' AND b.model_id <> 'eager'"
        " AND a.cascade_probability_4h = b.cascade_probability_4h"
    ).fetchone()
    assert same is not None
    assert same[0] == told[0][3]
    past = connection.execute("SELECT model_id FROM shadow_probabilities WHERE is_past_threshold GROUP BY 1").fetchall()
    assert ("eager",) in past
    for table in ("alerts", "outbox", "signals"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table  # noqa: S608
    (listed,) = [m for m in models.list_models(connection) if m.model_id == "eager"]
    assert listed.state == "candidate"
    assert not listed.is_in_force
    assert listed.shadow_alarms == rest.alarms["eager"]
    assert 3.9 < listed.shadow_days < 4.1


def test_too_little_history_is_no_model(connection: Any) -> None:
    world = make_world(connection, "recorded/short", cadence_seconds=300)
    write(connection, Feed(world.name, ("BTC",), ("alpha",), START, START + timedelta(days=3)))
    history = stored_history(connection, world, Settings())
    with pytest.raises(TooLittleHistoryError, match=r"3 days with 0 cascades.*120 days and 40 cascades"):
        retrain(history, Settings(), shipped_model())


def made_shadow(weeks: float, skill: float) -> dict[str, Any]:
    """Truth with runs of positives, a candidate that sees them, and a champion that sees `1 - skill` of it."""
    rng = np.random.default_rng(3)
    rows = int(weeks * 7 * 288)
    times = 1_775_001_600 + 300 * np.arange(rows, dtype=np.int64)
    truth = np.zeros((3, rows), dtype=bool)
    for start in rng.integers(0, rows - 48, int(rows / 400)):
        truth[rng.random(3) < 0.7, start : start + 48] = True
    blind = rng.normal(0, 1, truth.shape)
    good = 1 / (1 + np.exp(-(2.5 * truth - 2.5 + 0.5 * blind)))
    poor = 1 / (1 + np.exp(-(2.5 * (1 - skill) * truth - 2.5 + 0.5 * blind)))
    return {
        "times": times,
        "usable": np.ones_like(truth),
        "is_positive": truth,
        "mine": good,
        "theirs": poor,
        "events": int((np.diff(truth.astype(int), axis=1) == 1).sum()),
    }


def test_the_gate_opens_for_a_better_candidate_only() -> None:
    better = compare("new", "old", **made_shadow(6, skill=0.8))
    assert better.passes, better.because
    assert better.brier_gain is not None
    assert better.ranking_gain is not None
    assert better.brier_gain.low > 0
    assert better.ranking_gain.low > 0
    equal = compare("new", "old", **made_shadow(6, skill=0.0))
    assert not equal.passes
    assert "not surely better" in equal.because
    given = made_shadow(6, skill=0.8)
    worse = compare("new", "old", **{**given, "mine": given["theirs"], "theirs": given["mine"]})
    assert not worse.passes


@pytest.mark.parametrize(("weeks", "events"), [(3.5, 100), (6.0, 19)])
def test_the_gate_waits_for_enough_weeks_and_cascades(weeks: float, events: int) -> None:
    verdict = compare("new", "old", **{**made_shadow(weeks, skill=0.8), "events": events})
    assert not verdict.passes
    assert "4 weeks and 20 are needed" in verdict.because


def test_a_model_retrained_on_stored_history_states_its_walk_forward(connection: Any) -> None:
    """Four months of a market with cascades, through the tables, into a candidate."""
    whole = made_panel(days=125)
    panel = replace(
        whole, symbols=("BTC", "ETH", "SOL"), columns={name: values[:3] for name, values in whole.columns.items()}
    )
    world = store_panel(connection, panel, "recorded/learn")
    history = stored_history(connection, world, Settings())
    assert np.isfinite(history.panel["price_usd"]).mean() > 0.9
    model = retrain(history, Settings(), shipped_model())
    models.add_candidate(connection, model, "a test")
    assert model.model_id.startswith("retrained-")
    assert model.facts["walk_forward"]["4"]["roc_auc_within"] > 0.5
    assert 0 < model.early_warning.threshold < 1
    assert 0.5 < model.early_warning.rank < 1
    assert model.facts["world"] == world.name
    assert models.candidates(connection)[0] == CascadeModel.from_json(model.as_json())


def test_the_commands_list_promote_and_roll_back(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from liq_pipeline.cli import app

    monkeypatch.setenv("LIQ_DATABASE_URL", database_url)
    monkeypatch.setenv("LIQ_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with psycopg.connect(database_url) as opened:
        models.add_candidate(opened, named("newer"), "a test")
        make_world(opened, "recorded/gate")
    runner = CliRunner()

    def said(*arguments: str) -> str:
        done = runner.invoke(app, ["model", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    listed = [json.loads(line) for line in said("list", "--json").replace("} {", "}\n{").splitlines()]
    assert [(m["model_id"], m["is_in_force"]) for m in listed] == [(shipped_model().model_id, True), ("newer", False)]
    assert "candidate" in said("list")
    refused = runner.invoke(app, ["model", "gate", "newer"])
    assert refused.exit_code == 1, "it has shown nothing yet"
    assert "no shadow" in refused.output
    assert f"in the place of {shipped_model().model_id}" in said("promote", "newer", "--because", "a test")
    with psycopg.connect(database_url) as opened:
        assert models.model_in_force(opened).model_id == "newer"
    assert "speaks again" in said("rollback")
    with pytest.raises(LiqError, match="no promotion is left"):
        runner.invoke(app, ["model", "rollback"], catch_exceptions=False)
    with pytest.raises(LiqError, match="no world real"):
        runner.invoke(app, ["model", "train"], catch_exceptions=False)
