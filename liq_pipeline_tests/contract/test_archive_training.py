"""Learning from a generated archive in true format: the same candidate whatever was killed and however many worked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest
from dagster import DagsterInstance, MultiPartitionKey, materialize

from bench import _archive as generated
from liq_pipeline.defs.heavy.archive_training import archive_features
from liq_pipeline.defs.resources import Services
from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.archive.features import as_known, features_are_kept, keep_features, known_panel
from liq_pipeline.evaluation.archive.market import LEADER_FEATURES, load_quarter
from liq_pipeline.evaluation.archive.months import facts_of, load_span
from liq_pipeline.evaluation.archive.plan import Plan, Quarter, months_between, training_folder
from liq_pipeline.evaluation.archive.run import Done, Manner, train
from liq_pipeline.evaluation.models.shadow import extend_shadows
from liq_pipeline.evaluation.panels.as_bars import bars_of
from liq_pipeline.evaluation.panels.panel import VALUE_COLUMNS, Panel
from liq_pipeline.pipeline import models
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.scoring.probability import FEATURES, MARKET_FEATURES, feature_arrays, load_model, shipped_model
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.archives import binance
from liq_pipeline_tests.scoring_support import START, Feed, make_world, write

SYMBOLS = ("BTC", "WIF")
FIRST, LAST = generated.start_of("2024-01-01"), generated.start_of("2024-04-20")
SWIFTLY = Manner(2, niceness=0, requests_per_second=1e6)
"""Nobody is to be spared here."""
PUBLISHED_FROM = generated.start_of("2023-12-21")

pytestmark = [pytest.mark.xdist_group("archive training"), pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("archive")
    for symbol in SYMBOLS:
        generated.publish(folder, symbol, PUBLISHED_FROM, (LAST - PUBLISHED_FROM).days)
    with generated.served(folder) as url:
        yield url


def settings_of(url: str) -> Settings:
    return Settings(sources=SourceSettings(urls={binance.NAME: url}))


def plan_in(folder: Path) -> Plan:
    return Plan(SYMBOLS, FIRST, LAST, folder)


@pytest.fixture(scope="module")
def trained(archive: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Done, list[str]]:
    plan, said = plan_in(training_folder(tmp_path_factory.mktemp("trained"))), list[str]()
    return plan, train(plan, settings_of(archive), shipped_model(), SWIFTLY, say=said.append), said


def test_a_candidate_comes_with_its_walk_forward_its_quarters_and_its_report(
    trained: tuple[Plan, Done, list[str]],
) -> None:
    _, done, said = trained
    model = load_model(done.candidate_file)
    assert model.model_id == done.model.model_id
    assert set(model.full[4].coefficients) == set(FEATURES)
    assert 0.5 < model.early_warning.rank < 1.0
    (quarter,) = done.report["quarters"]
    assert quarter["quarter"] == "2024-Q2"
    assert quarter["events"] > 0
    assert model.facts["walk_forward"]["4"]["rows"] == quarter["rows"]
    assert [line for line in said if line.startswith("8 of 8 months of coins")] or len(said) > 3
    assert any("of another time than the file's own" in problem for problem in done.problems)


def test_a_month_holds_what_was_true_and_a_partition_what_was_known(trained: tuple[Plan, Done, list[str]]) -> None:
    plan, _, _ = trained
    first = generated.start_of("2024-02-10")
    true = generated.market_of("BTC", PUBLISHED_FROM, (LAST - PUBLISHED_FROM).days)
    columns = load_span(plan, "BTC", first, generated.start_of("2024-02-12"), months_between)
    offset = (first - PUBLISHED_FROM).days * generated.PER_DAY
    known = np.isfinite(columns["price_usd"])
    assert known.mean() > 0.9
    expected = true["price"][offset : offset + known.size]
    np.testing.assert_allclose(columns["price_usd"][known], expected[known], rtol=1e-8)
    assert np.isfinite(columns["long_short_taker"]).mean() > 0.9
    panel = known_panel(plan, "BTC", Quarter(2024, 1))
    place = int(np.searchsorted(panel.time, first.timestamp()))
    both = np.isfinite(panel["price_usd"][0, place + 1 : place + 50]) & known[:49]
    np.testing.assert_array_equal(panel["price_usd"][0, place + 1 : place + 50][both], columns["price_usd"][:49][both])
    assert np.array_equal(
        as_known(np.array([1.0, np.nan, np.nan, np.nan, np.nan, 2.0]), 3),
        [np.nan, 1, 1, 1, np.nan, np.nan],
        equal_nan=True,
    )


def test_any_process_makes_the_same_bytes(trained: tuple[Plan, Done, list[str]], tmp_path: Path) -> None:
    plan, _, _ = trained
    again = plan_in(tmp_path)
    shutil.copytree(plan.folder / "months", tmp_path / "months")
    for symbol in SYMBOLS:
        assert not features_are_kept(again, symbol, Quarter(2024, 1))
        keep_features(again, symbol, Quarter(2024, 1))
        assert features_are_kept(again, symbol, Quarter(2024, 1))
        file = again.feature_file(symbol, Quarter(2024, 1))
        assert file.read_bytes() == plan.feature_file(symbol, Quarter(2024, 1)).read_bytes()


def test_the_second_pass_gives_the_market_s_terms_as_scoring_would_of_all_symbols_at_once(
    trained: tuple[Plan, Done, list[str]],
) -> None:
    plan, _, _ = trained
    quarter = Quarter(2024, 1)
    parts = [known_panel(plan, symbol, quarter) for symbol in SYMBOLS]
    values = {name: np.concatenate([part[name] for part in parts]) for name in VALUE_COLUMNS}
    together = feature_arrays(bars_of(Panel(SYMBOLS, parts[0].time, 300, values)))
    rows = load_quarter(plan, quarter)
    assert rows is not None
    at = np.searchsorted(parts[0].time, rows.time)
    for name in together:
        expected = together[name][:, at].astype(np.float32)
        both = rows.is_known & np.isfinite(parts[0]["price_usd"][0, at]) & np.isfinite(parts[1]["price_usd"][0, at])
        if name in (*MARKET_FEATURES, *LEADER_FEATURES):  # means of shares that were kept with 24 bits
            np.testing.assert_allclose(rows.columns[name][both], expected[both], rtol=2e-6, atol=1e-7, err_msg=name)
        else:
            assert np.array_equal(rows.columns[name][both], expected[both], equal_nan=True), name
    assert rows.events
    assert set(facts_of(plan.feature_file("BTC", quarter))["made_of"]) == {"features", "2023-12", "2024-01", "2024-02",
                                                                          "2024-03", "2024-04"}  # fmt: skip


def test_dagster_s_partition_is_the_same_file_and_finds_it_made(
    trained: tuple[Plan, Done, list[str]], archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process of a run steps behind the ticks for good; this one runs other tests after.
    monkeypatch.setattr("liq_pipeline.defs.heavy.archive_training.settle_into_process", lambda: None)
    plan, _, _ = trained
    home = plan.folder.parents[1]
    file = plan.feature_file("WIF", Quarter(2024, 1))
    before = file.read_bytes()
    file.unlink()
    settings = Settings(home=home, sources=SourceSettings(urls={binance.NAME: archive}))
    services = Services(settings, Endpoints("", ""))
    made = []
    with DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("archive_symbols", ["WIF"])
        for _ in range(2):
            result = materialize(
                [archive_features],
                partition_key=MultiPartitionKey({"symbol": "WIF", "quarter": "2024-01-01"}),
                resources={"services": services},
                instance=instance,
            )
            (event,) = result.asset_materializations_for_node("history__archive_features")
            made.append(event.metadata["was_made_before"].value)
    assert made == [False, True]
    assert file.read_bytes() == before


_PROGRAM = """
import sys
from pathlib import Path
from liq_pipeline.evaluation.archive.run import train
from liq_pipeline.scoring.probability import shipped_model
from liq_pipeline_tests.contract.test_archive_training import SWIFTLY, plan_in, settings_of

if __name__ == "__main__":
    train(plan_in(Path(sys.argv[1])), settings_of(sys.argv[2]), shipped_model(), SWIFTLY, say=print)
"""


def test_killed_at_any_moment_the_same_command_makes_the_same_candidate(
    trained: tuple[Plan, Done, list[str]], archive: str, tmp_path: Path
) -> None:
    plan, done, _ = trained
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    home = tmp_path / "home"
    # The months that the other training fetched, but for some: what is under test is going on, not fetching all again.
    shutil.copytree(plan.folder / "months", home / "months")
    for path in sorted((home / "months").rglob("*.parquet"))[:4]:
        path.unlink()
    command = [sys.executable, str(program), str(home), archive]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for kept in (7, 9, 10, 11, 13):
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as running:
            until = time.monotonic() + 300
            while len(list(home.rglob("*.parquet"))) < kept and running.poll() is None:
                assert time.monotonic() < until
                time.sleep(0.02)
            os.killpg(running.pid, signal.SIGKILL)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    (candidate,) = (home / "candidates").glob("*[0-9a-f].json")
    assert candidate.name == done.candidate_file.name
    assert candidate.read_bytes() == done.candidate_file.read_bytes()


def test_the_candidate_goes_through_shadow_promotion_and_back_like_any_other(
    trained: tuple[Plan, Done, list[str]], database_url: str
) -> None:
    _, done, _ = trained
    model = load_model(done.candidate_file)
    last = START + timedelta(days=8)
    with psycopg.connect(database_url, options="-c timezone=UTC") as conn:
        world = make_world(conn, "recorded/archive", cadence_seconds=300)
        write(conn, Feed(world.name, ("BTC", "WIF"), ("alpha", "beta"), START, last))
        models.register_shipped(conn)
        models.add_candidate(conn, model, "trained on archives of BTC, WIF")
        assert models.model_in_force(conn) == shipped_model(), "a candidate is silent"
        assert extend_shadows(conn, world, Settings(), last).models == 2
        told = conn.execute(
            "SELECT count(cascade_probability_4h) FROM shadow_probabilities WHERE model_id = %s", [model.model_id]
        ).fetchone()
        assert told is not None
        assert told[0] > 0
        assert models.promote(conn, model.model_id, "better here") == shipped_model().model_id
        assert models.model_in_force(conn) == model
        assert models.rollback(conn, "worse after all") == (model.model_id, shipped_model().model_id)
        assert models.model_in_force(conn) == shipped_model()


def test_too_little_to_learn_from_and_an_archive_that_is_down_are_sentences(
    archive: str, trained: tuple[Plan, Done, list[str]], tmp_path: Path
) -> None:
    plan, _, _ = trained
    short = Plan(("BTC",), generated.start_of("2024-02-01"), generated.start_of("2024-03-01"), plan.folder)
    with pytest.raises(LiqError, match="too few cascades to judge"):
        train(short, settings_of(archive), shipped_model(), SWIFTLY, say=lambda _text: None)
    with pytest.raises(LiqError, match="before its --to"):
        Plan(("BTC",), LAST, FIRST, tmp_path)
