"""The dashboard: every query runs on the real schema, as a role that can only read, and shows what is there."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row
from pydantic import SecretStr

from bench._grafana import GRAFANA, alert_rules, expand, queries
from liq_pipeline.alerting.book import advance
from liq_pipeline.alerting.sending.delivery import deliver_due
from liq_pipeline.settings import Settings
from liq_pipeline.store import scores, worlds
from liq_pipeline.store.connection import connect
from liq_pipeline.store.rollups import upkeep
from liq_pipeline_tests.alert_support import START, VERSION, Reading, point, world

DASHBOARD = json.loads((GRAFANA / "dashboards" / "liquidation_risk.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
END = START + timedelta(minutes=9)
QUERIES = [(query.where, query.text) for query in queries("liquidation_risk")]


@pytest.fixture(scope="module")
def filled(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    """A database with rows in every table that the dashboard reads, opened as a role that can only read."""
    from liq_pipeline_tests.conftest import _create_database, _drop_database

    server = request.getfixturevalue("postgres_server")
    name = _create_database(server, request.getfixturevalue("_template_database"))
    url = server.url(name)
    with connect(url) as conn:
        _fill(conn)
    deliver_due(url, _channels())
    with connect(url) as conn:
        conn.execute("DROP ROLE IF EXISTS liq_grafana_test")
        conn.execute("CREATE ROLE liq_grafana_test")
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO liq_grafana_test")
        conn.commit()
        conn.execute("SET ROLE liq_grafana_test")
        conn.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        conn.commit()
        yield conn
        conn.rollback()
        conn.execute("RESET ROLE")
        conn.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
        conn.commit()
        conn.execute("DROP OWNED BY liq_grafana_test")
        conn.execute("DROP ROLE liq_grafana_test")
    _drop_database(server, name)


def _channels() -> Settings:
    return Settings(alert_urls=(SecretStr("json://127.0.0.1:1/x"),), alert_unreal=True, alert_timeout_seconds=0.5)


def _fill(conn: psycopg.Connection[Any]) -> None:
    other, active = world("real", symbols=("BTC", "ETH")), world("simulated/7", symbols=("BTC", "ETH"))
    worlds.register(conn, active, activate=True)
    worlds.register(conn, other, activate=False)
    points = [
        point(i, {"BTC": 60.0 if i < 5 else Reading(40.0, silent=("liquidation",)), "ETH": None if i > 6 else 80.0})
        for i in range(10)
    ]
    scores.write_risks_and_signals(conn, active.name, points, VERSION)
    scores.write_pressures(conn, active.name, [p.pressure for p in points if p.pressure is not None], VERSION)
    for stream in ("market", "flows"):
        times = [p.time for p in points if stream == "flows" or p.time != points[4].time]
        scores.write_ticks(
            conn, active.name, stream, times, {}, started_at=START, rows_landed=7, late_rows=1, dagster_run_id=None
        )
    advance(conn, active, points, _channels(), VERSION)
    # Rows of the outbox and of deliveries carry the wall clock; here they belong to the shown hour.
    conn.execute("UPDATE outbox SET created_at = %s", [START])
    provenance = "'simulated', 'venue', %(t)s, %(t)s, 1, 0, 1"
    columns = "origin, event_time_source, received_at, known_at, kafka_cluster, kafka_partition, kafka_offset"
    at = {"w": active.name, "t": END}
    for table, names, values in (
        ("prices", "price_usd", "60000"),
        ("funding_rates", "kind, rate, interval_hours, rate_per_8h", "'predicted', 0.0001, 8, 0.0001"),
        ("open_interest", "open_interest_base", "1000"),
    ):
        conn.execute(
            f"INSERT INTO {table} (world, symbol, venue, event_time, {names}, {columns})"  # noqa: S608 - test data
            f" VALUES (%(w)s, 'BTC', 'binance', %(t)s, {values}, {provenance})",
            at,
        )
    conn.execute(
        "INSERT INTO heartbeats (world, topic, venue, event_time, origin, received_at, known_at, kafka_cluster,"
        " kafka_partition, kafka_offset) VALUES (%(w)s, 'liquidations', 'binance', %(t)s, 'simulated', %(t)s, %(t)s,"
        " 1, 0, 1)",
        at,
    )
    conn.execute("INSERT INTO watermarks VALUES (%(w)s, 'prices', 0, %(t)s)", at)
    conn.execute("INSERT INTO consumer_offsets VALUES ('landing', 'c', 'prices', 0, 5, 5)")
    conn.execute(
        "INSERT INTO dead_letters (cluster_id, topic, kafka_partition, kafka_offset, reason_code, reason, dead_at)"
        " VALUES ('c', 'prices', 0, 3, 'not_json', 'no JSON', %(t)s)",
        at,
    )
    conn.execute(
        "INSERT INTO ingest_gaps (world, source, symbol, from_time, to_time, cause, found_at)"
        " VALUES (%(w)s, 'binance', 'BTC', %(t)s, %(t)s, 'reconnect', %(t)s)",
        at,
    )
    conn.execute("INSERT INTO source_status (source, state) VALUES ('binance', 'up'), ('okx', 'down')")
    conn.execute("INSERT INTO storage_samples VALUES ('postgres', %(t)s, %(t)s, 1000000)", at)
    conn.execute(
        "INSERT INTO evaluation_runs VALUES (gen_random_uuid(), %(w)s, 1, %(t)s, %(t)s, 'c', 'd', NULL, '{}', %(t)s)",
        at,
    )
    conn.execute(
        "INSERT INTO evaluation_metrics SELECT evaluation_id, 'score', 4, 'roc_auc', 0.7, 0.6, 0.8 FROM evaluation_runs"
    )
    conn.commit()
    upkeep.refresh(conn)


def run(
    conn: psycopg.Connection[Any], query: str, of_world: str = "simulated/7", *, interval: int = 60
) -> list[dict[str, Any]]:
    values = {"world": f"'{of_world}'", "symbol": "'BTC','ETH'", "one": "'BTC'"}
    # A bucket is shown where it begins: an hour's begins before the first point.
    text = expand(query, values, START - timedelta(hours=1), END, interval)
    assert "$" not in text, f"a variable or macro that Grafana's data source does not have: {text}"
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(text.encode()).fetchall()


def panel_rows(conn: psycopg.Connection[Any], title: str, of_world: str = "simulated/7") -> list[dict[str, Any]]:
    [query] = [sql for where, sql in QUERIES if where == title]
    return run(conn, query, of_world)


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_every_query_runs_and_shows_the_rows_there_are(filled: psycopg.Connection[Any], where: str, query: str) -> None:
    if where == "Delivery attempts":
        # Attempts carry the wall clock.
        query = query.replace("$__timeFilter(d.attempted_at)", "true")
    for interval in (10, 60, 300, 3600) if "$__interval_ms" in query else (60,):
        rows = run(filled, query, interval=interval)
        assert rows, f"{where} shows nothing at {interval} s"
        assert any(value is not None for value in rows[0].values())


def test_every_line_has_its_time_under_the_name_that_grafana_looks_for(filled: psycopg.Connection[Any]) -> None:
    lines = [t for panel in PANELS if panel["type"] in ("timeseries", "state-timeline") for t in panel["targets"]]
    assert len(lines) >= 9
    for target in lines:
        assert target["format"] == "time_series"
        assert isinstance(run(filled, target["rawSql"])[0]["time"], datetime)


def test_what_is_shown_does_not_depend_on_how_closely_one_looks(filled: psycopg.Connection[Any]) -> None:
    """The highest risk and the missed ticks of the ten minutes, from rows, from minutes and from hours."""
    [risk] = [text for where, text in QUERIES if where == "Liquidation risk by symbol"]
    [ticks] = [text for where, text in QUERIES if where == "Ticks"]
    for interval in (10, 60, 300, 3600):
        shown = run(filled, risk, interval=interval)
        assert max(row["risk"] for row in shown if row["metric"] == "ETH" and row["risk"] is not None) == 80.0
        assert {row["stream"]: row["missed"] for row in run(filled, ticks, interval=interval)} == {
            "market": 1,
            "flows": 0,
        }


def test_alert_rules_give_one_number_and_name_what_to_do() -> None:
    groups = yaml.safe_load((GRAFANA / "provisioning/alerting/blindness.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["uid"] for rule in rules}) == len(rules) >= 4
    for rule in rules:
        assert "liq " in rule["annotations"]["summary"]
        assert rule["noDataState"] == rule["execErrState"] == "Alerting", "no answer is blindness, not calm"
        assert rule["data"][0]["datasourceUid"] == "liq"
        assert rule["data"][1]["model"]["expression"] == "A"


def test_alert_rules_see_silence_and_unknown(filled: psycopg.Connection[Any]) -> None:
    found = {title: run(filled, text) for title, text in alert_rules()}
    assert all(len(rows) == len(rows[0]) == 1 for rows in found.values())
    values = {title: next(iter(rows[0].values())) for title, rows in found.items()}
    assert values["No tick"] is not None
    assert values["Too little is known"] == 1, "ETH is unknown at the newest point"
    assert values["A source is down"] == 1


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_every_query_runs_in_a_world_without_rows(filled: psycopg.Connection[Any], where: str, query: str) -> None:
    run(filled, query, "recorded/empty")


def test_the_banner_is_loud_unless_the_world_is_real(filled: psycopg.Connection[Any]) -> None:
    assert panel_rows(filled, "World")[0]["world"] == "SIMULATED - NOT THE REAL MARKET (simulated/7)"
    assert panel_rows(filled, "World", "real")[0]["world"] == "REAL MARKET"
    [banner] = [panel for panel in PANELS if panel["title"] == "World"]
    colors = {
        mapping["options"]["pattern"]: mapping["options"]["result"]["color"]
        for mapping in banner["fieldConfig"]["defaults"]["mappings"]
    }
    for text, color in (("REAL MARKET", "green"), ("SIMULATED - NOT THE REAL MARKET (simulated/7)", "dark-red")):
        assert [c for pattern, c in colors.items() if re.search(pattern, text)] == [color]


def test_the_world_shown_first_is_the_active_one(filled: psycopg.Connection[Any]) -> None:
    assert panel_rows(filled, "variable world")[0]["world"] == "simulated/7"


def test_unknown_is_a_hole_and_never_zero(filled: psycopg.Connection[Any]) -> None:
    eth = [r["risk"] for r in panel_rows(filled, "Liquidation risk by symbol") if r["metric"] == "ETH"]
    assert eth[:7] == pytest.approx([80.0] * 7)
    assert eth[7:] == [None, None, None]
    severities = [r["severity"] for r in panel_rows(filled, "Severity by symbol") if r["metric"] == "ETH"]
    assert severities[7:] == [-1, -1, -1]
    silent = [r["liquidations (20)"] for r in panel_rows(filled, "Points: ${one}")]
    assert silent[:5] == pytest.approx([12.0] * 5)
    assert silent[5:] == [None] * 5
    band = panel_rows(filled, "Score and what it could be: ${one}")
    assert band[5]["possible"] == pytest.approx(band[5]["score"] + 20)


def test_ticks_that_were_missed_are_counted(filled: psycopg.Connection[Any]) -> None:
    market = {row["stream"]: row for row in panel_rows(filled, "Ticks")}
    assert (market["market"]["missed"], market["flows"]["missed"]) == (1, 0)
    assert market["market"]["late"] is None, "late is a word of the real world's clock"


def test_data_age_is_measured_on_the_world_s_own_clock(filled: psycopg.Connection[Any]) -> None:
    ages = {row["symbol"]: row for row in panel_rows(filled, "Data age")}
    assert ages["BTC"]["price (s)"] == 0
    assert ages["ETH"]["price (s)"] is None


def test_an_alert_names_its_world_and_what_people_know(filled: psycopg.Connection[Any]) -> None:
    rows = panel_rows(filled, "Alerts")
    assert {row["world"] for row in rows} == {"simulated/7"}
    assert {"severity", "market"} <= {row["rule"] for row in rows} | {row["subject"] for row in rows}
    assert panel_rows(filled, "Messages to people")[0]["title"].startswith("[SIMULATED]")


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    every = DASHBOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    for one, other in itertools.combinations([panel["gridPos"] for panel in every], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y
        assert one["x"] + one["w"] <= 24


def test_the_issue_s_panels_are_all_there_and_described() -> None:
    titles = " ".join(panel["title"] for panel in PANELS).lower()
    for word in ("risk", "points", "pressure", "severity", "coverage", "alerts", "data age", "ticks", "dead letters"):
        assert word in titles
    assert all(panel["description"] for panel in PANELS)


def test_everything_reads_from_the_provisioned_data_source() -> None:
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/timescaledb.yaml").read_text())["datasources"]
    used = set(re.findall(r'"uid": "([^"]+)"', json.dumps(DASHBOARD["panels"])))
    assert used == {source["uid"]}
    kinds = set(re.findall(r'"type": "(grafana-[^"]+)"', json.dumps(DASHBOARD)))
    assert kinds == {source["type"]}
    assert source["secureJsonData"]["password"].startswith("${GRAFANA_DATABASE_")
