"""The evaluation of stored history: figures, cascades and what followed each alert as rows, however often it runs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from dagster import materialize
from pydantic import SecretStr

from liq_pipeline.defs.heavy.evaluation import alarm_quality, candidate, shadow
from liq_pipeline.defs.resources import Services
from liq_pipeline.domain.worlds import World
from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.panels.panel import load_panel
from liq_pipeline.evaluation.panels.published import published_panel
from liq_pipeline.evaluation.panels.simulated import simulated_panel
from liq_pipeline.evaluation.panels.stored import stored_history
from liq_pipeline.evaluation.report.nightly import Stored, evaluate_store
from liq_pipeline.evaluation.report.run import evaluate
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.archives import binance
from liq_pipeline_tests.archive_support import price_at, serve_market
from liq_pipeline_tests.history_support import made_panel, store_panel
from liq_pipeline_tests.live_support import venue_server

START = datetime(2026, 4, 1, tzinfo=UTC)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, options="-c timezone=UTC") as opened:
        yield opened


def add_alert(
    conn: psycopg.Connection[Any], world: World, symbol: str, opened: datetime, ended: datetime | None
) -> str:
    """An alert as the book keeps it, told when it opened."""
    identity = uuid.uuid4()
    conn.execute(
        """
        INSERT INTO alerts (alert_id, page_id, world, rule, subject, side, severity, peak_severity, state, opened_at,
            judged_at, last_seen_at, changed_at, told_severity, told_at, resolved_at, score_version, receipt)
        VALUES (%(id)s, %(id)s, %(world)s, 'severity', %(symbol)s, 'long', 'WARNING', 'WARNING', %(state)s, %(opened)s,
            %(opened)s, %(opened)s, %(opened)s, 'WARNING', %(opened)s, %(ended)s, 'v', '{}')
        """,
        {"id": identity, "world": world.name, "symbol": symbol, "opened": opened, "ended": ended,
         "state": "open" if ended is None else "resolved"},
    )  # fmt: skip
    return str(identity)


def market(connection: psycopg.Connection[Any], venues: tuple[str, ...] = ("alpha", "beta")) -> World:
    """Two coins of the made market over 70 days, each on two venues."""
    whole = made_panel(days=70)
    panel = replace(whole, symbols=("BTC", "ETH"), columns={name: values[:2] for name, values in whole.columns.items()})
    return store_panel(connection, panel, "recorded/stored", venues=venues)


def test_figures_cascades_and_outcomes_are_rows_and_a_second_run_adds_none(
    connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    world = market(connection)
    first = evaluate_store(connection, world, Settings())
    symbol, onset = connection.execute(
        "SELECT symbol, onset_at FROM cascade_events WHERE horizon_hours = 4 ORDER BY onset_at LIMIT 1"
    ).fetchone() or ("", START)
    right = add_alert(connection, world, symbol, onset - timedelta(hours=1), onset + timedelta(hours=1))
    quiet = quiet_time(connection, symbol)
    false = add_alert(connection, world, symbol, quiet, quiet + timedelta(minutes=30))
    end = stored_history(connection, world, Settings()).panel.time[-1]
    still = add_alert(connection, world, symbol, datetime.fromtimestamp(int(end) - 600, UTC), None)

    def counted() -> list[Any]:
        tables = ("evaluation_runs", "evaluation_metrics", "cascade_events", "alert_outcomes")
        return [connection.execute(f"SELECT count(*) FROM {t}").fetchone() for t in tables]  # noqa: S608

    stored: Stored = evaluate_store(connection, world, Settings(), out=tmp_path)
    assert stored.evaluation_id == first.evaluation_id, "the same data under the same configuration is the same run"
    before = counted()
    assert evaluate_store(connection, world, Settings()).evaluation_id == stored.evaluation_id
    assert counted() == before

    verdicts = dict(connection.execute("SELECT alert_id::text, outcome FROM alert_outcomes").fetchall())
    assert verdicts == {right: "right", false: "false", still: "open"}
    lead = connection.execute("SELECT lead_minutes, largest_move FROM alert_outcomes WHERE alert_id = %s", [right])
    minutes, move = lead.fetchone() or (None, None)
    assert minutes == pytest.approx(59.0)
    assert abs(move) > 0.01
    metric = connection.execute(
        "SELECT value, value_low, value_high FROM evaluation_metrics WHERE subject = 'realised_volatility_4h'"
        " AND horizon_hours = 4 AND metric = 'roc_auc_within_interval'"
    ).fetchone()
    assert metric is not None
    assert 0 <= metric[1] <= metric[0] <= metric[2] <= 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["world"] == world.name
    assert report["desk"]["as_sent_severity"]["market_pages"] == 3
    by_venue = report["ablations"]["one_venue_out"]
    assert set(by_venue) == {"all", "without alpha", "without beta"}
    assert by_venue["without alpha"]["liquidation_risk"]["rows"] <= by_venue["all"]["liquidation_risk"]["rows"]
    assert "As sent" in (tmp_path / "report.html").read_text() or "as sent" in (tmp_path / "report.html").read_text()


def quiet_time(connection: psycopg.Connection[Any], symbol: str) -> datetime:
    """A moment with no cascade of the symbol two days before and after."""
    rows = connection.execute(
        "SELECT onset_at FROM cascade_events WHERE symbol = %s AND horizon_hours = 4 ORDER BY 1", [symbol]
    ).fetchall()
    times = [row[0] for row in rows]
    for before, after in pairwise(times):
        if after - before > timedelta(days=2):
            return before + (after - before) / 2
    raise AssertionError("the made market has no quiet stretch")


def test_the_span_asked_for_is_judged_with_look_back_before_it(connection: psycopg.Connection[Any]) -> None:
    world = market(connection, venues=("alpha",))
    first, last = START + timedelta(days=50), START + timedelta(days=60)
    report = evaluate_store(connection, world, Settings(), first, last).report
    assert report["panel"]["from"] == first.isoformat()
    assert datetime.fromisoformat(report["panel"]["to"]) < last
    assert report["scores"]["liquidation_risk"]["4h"]["rows"] > 0.9 * 2 * 288 * 9, "the look-back warms its beginning"
    outside = connection.execute("SELECT count(*) FROM cascade_events WHERE starts_at < %s", [first]).fetchone()
    assert outside == (0,)
    with pytest.raises(LiqError, match="nothing can be judged"):
        evaluate_store(connection, world, Settings(), START - timedelta(days=900), START - timedelta(days=800))


def test_the_nightly_assets_run_on_a_real_store_and_on_an_empty_one(
    connection: psycopg.Connection[Any], database_url: str, settings: Callable[..., Settings]
) -> None:
    services = Services(
        settings(database_url=SecretStr(database_url)), Endpoints(database_url, kafka_bootstrap_servers="127.0.0.1:1")
    )
    empty = materialize([alarm_quality, shadow, candidate], resources={"services": services})
    assert empty.success
    market(connection, venues=("alpha",))
    connection.commit()
    done = materialize([alarm_quality], resources={"services": services})
    assert done.success
    (event,) = done.asset_materializations_for_node(alarm_quality.node_def.name)
    assert event.metadata["events"].value == connection.execute("SELECT count(*) FROM cascade_events").fetchone()[0]  # type: ignore[index]
    assert connection.execute("SELECT count(*) FROM evaluation_runs").fetchone() == (1,)


def test_the_published_panel_is_what_the_archive_had_published_by_then(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    first = date(2024, 6, 1)
    with venue_server() as server:
        server.serve(binance.NAME, {})
        serve_market(server, ("BTC", "ETH"), first - timedelta(days=1), first + timedelta(days=2))
        chosen = settings(sources=SourceSettings(urls={binance.NAME: server.url(binance.NAME)}))
        start = datetime(2024, 6, 1, tzinfo=UTC)
        panel = published_panel(chosen, start, start + timedelta(days=2), tmp_path)
        again = published_panel(chosen, start, start + timedelta(days=2))
    assert again.data_hash == panel.data_hash
    assert panel.symbols == ("BTC", "ETH")
    assert panel.step_seconds == 300
    assert panel.time.size == 2 * 288
    for name in ("price_usd", "open_interest_base", "funding_rate_per_8h", "long_short_ratio"):
        assert np.isfinite(panel[name]).mean() > 0.95, name
    noon = datetime(2024, 6, 1, 12, tzinfo=UTC)
    price = panel["price_usd"][0, int(np.flatnonzero(panel.time == int(noon.timestamp()))[0])]
    nearby = [price_at("BTC", noon - timedelta(minutes=minutes)) for minutes in (0, 5, 10)]
    assert min(nearby) * 0.995 <= price <= max(nearby) * 1.005
    read = load_panel(tmp_path / "panel.parquet")
    np.testing.assert_allclose(read["open_interest_base"], panel["open_interest_base"])
    report = evaluate(read, settings=Settings())
    assert report["scores"]["realised_volatility_4h"]["4h"]["rows"] > 0


def test_the_simulator_has_a_flow_side_and_both_signs_are_reported() -> None:
    panel = simulated_panel(10, Settings())
    assert any("SIMULATED" in note for note in panel.notes)
    for name in ("price_usd", "open_interest_base", "funding_rate_per_8h", "long_short_ratio", "long_liquidations_usd"):
        assert np.isfinite(panel[name]).mean() > 0.9, name
    assert (panel["stablecoin_net_inflow_usd"] != 0).any()
    report = evaluate(panel, settings=Settings())
    assert {"gate_off_flow_side_blind", "sign_as_stated", "sign_reversed"} <= set(report["severities"])
    assert {"as stated", "sign flipped", "gate off"} <= set(report["ablations"]["pressure_gate"])
