"""The dashboards: every query runs on the real schema, as a role that can only read, and shows what is there.

Those of alarm quality have an evaluation to run first: test_grafana_alarm_quality.py.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest
import yaml

from bench._grafana import GRAFANA, Query, alert_rules, dashboards, queries
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.grafana_support import ACTIVE, as_reader, fill, run

NAMES = ("liquidation_risk", "market", "stablecoin_flows", "under_way", "pipeline_health")
ALL = {path.stem for path in (GRAFANA / "dashboards").glob("*.json")}
BY_DASHBOARD = {name: list(queries(name)) for name in NAMES}
DASHBOARD = json.loads((GRAFANA / "dashboards" / "liquidation_risk.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EVERY = {
    **{f"{name}: {q.where}": q for name in NAMES for q in BY_DASHBOARD[name] if not q.where.startswith("alert rule")},
    **{q.where: q for q in BY_DASHBOARD["market"] if q.where.startswith("alert rule")},
}
BY_WALL_CLOCK = {"Delivery attempts": "$__timeFilter(d.attempted_at)"}
"""What carries the time of the test and not of the filled hour."""


@pytest.fixture(scope="module")
def filled(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    """A database with rows in every table that the dashboards read, opened as a role that can only read."""
    from liq_pipeline_tests.conftest import _create_database, _drop_database

    server = request.getfixturevalue("postgres_server")
    name = _create_database(server, request.getfixturevalue("_template_database"))
    url = server.url(name)
    fill(url)
    with as_reader(url) as conn:
        yield conn
    _drop_database(server, name)


def panel_rows(
    conn: psycopg.Connection[Any],
    title: str,
    of_world: str = ACTIVE,
    *,
    on: str = "liquidation_risk",
    interval: int = 60,
) -> list[dict[str, Any]]:
    [query] = [each for each in BY_DASHBOARD[on] if each.where == title]
    return run(conn, query, of_world, interval=interval)


def rows_of(conn: psycopg.Connection[Any], query: Query, interval: int) -> list[dict[str, Any]]:
    if query.where in BY_WALL_CLOCK:
        query = Query(query.where, query.text.replace(BY_WALL_CLOCK[query.where], "true"))
    return run(conn, query, interval=interval)


def test_every_dashboard_is_asked() -> None:
    assert ALL - set(NAMES) == {"alarm_quality"}
    assert len(EVERY) > 100


@pytest.mark.parametrize("query", EVERY.values(), ids=EVERY)
def test_every_query_runs_and_shows_the_rows_there_are(filled: psycopg.Connection[Any], query: Query) -> None:
    for interval in (10, 60, 300, 3600) if "$__interval_ms" in query.text else (60,):
        rows = rows_of(filled, query, interval)
        assert rows, f"{query.where} shows nothing at {interval} s"
        assert any(value is not None for value in rows[0].values())


@pytest.mark.parametrize("edition", ["timescale_url", "community_url"])
def test_every_query_runs_on_timescaledb(edition: str, request: pytest.FixtureRequest) -> None:
    """The same names mean the same where the tables are hypertables and the views continuous aggregates."""
    url = request.getfixturevalue(edition)
    migrate(url)
    fill(url)
    with as_reader(url) as conn:
        empty = [name for name, query in EVERY.items() if not rows_of(conn, query, 60)]
    assert empty == []


def test_a_panel_that_names_a_missing_column_fails(filled: psycopg.Connection[Any]) -> None:
    """One column of each panel's query is misspelt in turn, and the database says so."""
    for column, title, on in (
        ("price_usd", "Price by venue: ${one}", "market"),
        ("inflow", "In and out", "stablecoin_flows"),
        ("reach", "Reach by symbol", "under_way"),
        ("last_error_text", "Sources", "pipeline_health"),
    ):
        [query] = [each for each in BY_DASHBOARD[on] if each.where == title]
        broken = query.text.replace(column, f"{column}s_of_nowhere")
        assert broken != query.text
        with pytest.raises((psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction)):
            run(filled, broken)
        filled.rollback()


def test_what_a_panel_treats_in_its_own_way_is_in_its_answer(filled: psycopg.Connection[Any]) -> None:
    """A unit or a colour for a column that the query does not give would never be seen to be missing."""
    looked_at = 0
    for name in NAMES:
        for panel in dashboards(name)[0]["panels"]:
            for override in panel.get("fieldConfig", {}).get("overrides", ()):
                [query] = [q for q in BY_DASHBOARD[name] if q.where == panel["title"]]
                rows = rows_of(filled, query, 60)
                shown = set(rows[0]) | {row["metric"] for row in rows if "metric" in row}
                matcher = override["matcher"]
                if matcher["id"] == "byName":
                    found = matcher["options"] in shown
                else:
                    found = any(re.search(matcher["options"].strip("/"), column) for column in shown)
                conditional = matcher["options"] in ("for ever", "open", "healed")  # whichever holes there are
                assert found or conditional, (name, panel["title"], matcher["options"], shown)
                looked_at += 1
    assert looked_at > 50


def test_every_line_has_its_time_under_the_name_that_grafana_looks_for(filled: psycopg.Connection[Any]) -> None:
    every = [panel for name in NAMES for panel in dashboards(name)[0]["panels"]]
    drawn = [panel for panel in every if panel["type"] in ("timeseries", "state-timeline")]
    assert len(drawn) >= 34
    for panel in drawn:
        [target] = panel["targets"]
        assert target["format"] == "time_series"
        rows = run(filled, target["rawSql"])
        assert isinstance(rows[0]["time"], datetime)
        assert [row["time"] for row in rows] == sorted(row["time"] for row in rows), panel["title"]
        for row in rows:
            assert all(isinstance(v, (int, float, str, datetime)) or v is None for v in row.values()), panel["title"]


def test_what_is_shown_does_not_depend_on_how_closely_one_looks(filled: psycopg.Connection[Any]) -> None:
    """The highest risk and the missed ticks of the ten minutes, from rows, from minutes and from hours."""
    for interval in (10, 60, 300, 3600):
        shown = panel_rows(filled, "Liquidation risk by symbol", interval=interval)
        assert max(row["risk"] for row in shown if row["metric"] == "ETH" and row["risk"] is not None) == 80.0
        ticks = panel_rows(filled, "Ticks", interval=interval)
        assert {row["stream"]: row["missed"] for row in ticks} == {
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


@pytest.mark.parametrize("query", EVERY.values(), ids=EVERY)
def test_every_query_runs_in_a_world_without_rows(filled: psycopg.Connection[Any], query: Query) -> None:
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


def test_the_liquidation_map_is_drawn_from_below_to_above_and_unknown_stays_unknown(
    filled: psycopg.Connection[Any],
) -> None:
    now = panel_rows(filled, "Liquidation map now, by distance: ${one}", on="under_way")
    assert [row["distance"].replace(" ", "") for row in (now[0], now[-1])] == ["-4.75%", "-0.25%"]
    assert [(row["longs"], row["shorts"]) for row in now] == [(2e6, None)] * 10
    within = panel_rows(filled, "Liquidation fuel within 3 %: ${one}", on="under_way")
    assert [(row["longs"], row["shorts"]) for row in within] == [(12e6, 24e6), (12e6, None)]


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


@pytest.mark.parametrize("name", sorted(ALL))
def test_panels_have_ids_of_their_own_and_do_not_overlap(name: str) -> None:
    every = dashboards(name)[0]["panels"]
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


@pytest.mark.parametrize("name", sorted(ALL))
def test_everything_reads_from_the_provisioned_data_source(name: str) -> None:
    """By way of the variable `datasource`, which starts with it."""
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/timescaledb.yaml").read_text())["datasources"]
    dashboard = dashboards(name)[0]
    used = set(re.findall(r'"uid": "([^"]+)"', json.dumps([dashboard["panels"], dashboard["annotations"]])))
    assert used == {"${datasource}"}
    [variable] = [v for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
    assert (variable["query"], variable["current"]["value"]) == (source["type"], source["uid"])
    kinds = set(re.findall(r'"type": "(grafana-[^"]+)"', json.dumps(dashboard)))
    assert kinds == {source["type"]}
    assert source["secureJsonData"]["password"].startswith("${GRAFANA_DATABASE_")


def test_the_market_s_figures_are_those_of_the_rows(filled: psycopg.Connection[Any]) -> None:
    [price] = panel_rows(filled, "Price: ${one}", on="market")
    assert price == {"price": 60_030.0, "in 24 h": pytest.approx(60_030 / 58_000 - 1)}
    [interest] = panel_rows(filled, "Open interest in coins: ${one}", on="market")
    assert interest == {"coins": 1500.0, "in 24 h": pytest.approx(1000 / 800 - 1), "venues": 2}, "bybit told none then"
    basis = {row["metric"]: row["basis"] for row in panel_rows(filled, "Basis by venue: ${one}", on="market")}
    assert basis == {"binance": 0.0, "bybit": pytest.approx(0.001)}
    sides = panel_rows(filled, "Liquidations by side: ${one}", on="market")
    assert {row["metric"]: row["usd"] for row in sides} == {"long": 120_000.0, "short": 6_000.0}
    feeds = {
        row["venue"]: row
        for row in panel_rows(filled, "Liquidations and their feeds by venue: ${one}", on="market", interval=3600)
    }
    assert (feeds["binance"]["longs"], feeds["binance"]["lower bound"], feeds["binance"]["heard"]) == (120_000, True, 0)
    assert set(feeds["bybit"].values()) == {"bybit", None}, "a venue that was never heard had no zero liquidations"


def test_a_venue_that_is_silent_has_no_part_in_what_is_known_now(filled: psycopg.Connection[Any]) -> None:
    """In a world in which nothing was told within 15 min, price, funding and open interest are unknown."""
    for title in ("Price: ${one}", "Open interest in coins: ${one}", "Predicted funding per 8 h: ${one}"):
        [query] = [each for each in BY_DASHBOARD["market"] if each.where == title]
        later = query.text.replace("THEN now() ELSE (", "THEN now() ELSE interval '16 minutes' + (")
        assert later != query.text
        [row] = run(filled, later)
        assert {value for name, value in row.items() if name != "venues"} == {None}, title


@pytest.mark.parametrize("interval", [10, 60, 300, 3600])
def test_flows_are_summed_once_whatever_the_interval(filled: psycopg.Connection[Any], interval: int) -> None:
    """Canonical transfers between users and exchanges; those between exchanges stand apart."""

    def shown(title: str) -> list[dict[str, Any]]:
        [query] = [each for each in BY_DASHBOARD["stablecoin_flows"] if each.where == title]
        return run(filled, query.text, interval=interval)

    assert shown("In, out, net") == [{"in": 1000.5, "out": 250.25, "net in": 750.25}]
    bars = shown("In and out")
    assert [sum(row[name] for row in bars) for name in ("in", "out", "net in")] == [1000.5, -250.25, 750.25]
    by_exchange = {(row["exchange"], row["token"]): row for row in shown("By exchange, token and chain")}
    binance, kraken = by_exchange["binance", "USDT"], by_exchange["kraken", "USDT"]
    assert (binance["in"], binance["out"], binance["to exchanges"], binance["transfers"]) == (900.5, 250.25, 40.0, 3)
    assert (kraken["in"], kraken["from exchanges"]) == (0.0, 40.0)
    assert by_exchange["kraken", "USDC"]["in"] == 100.0
    for what in ("exchange", "token", "chain"):
        assert sum(row["net in"] for row in shown(f"Net in by {what}")) == 750.25


def test_the_largest_transfers_are_canonical_and_in_order(filled: psycopg.Connection[Any]) -> None:
    amounts = [row["amount"] for row in panel_rows(filled, "Largest transfers", on="stablecoin_flows")]
    assert amounts == [1_000_000.0, 400_000.0, 900.5, 250.25, 100.0, 40.0]


def test_no_move_and_unknown_are_told_apart(filled: psycopg.Connection[Any]) -> None:
    title = "Moves in progress at the newest point"
    now = {row["symbol"]: row for row in panel_rows(filled, title, on="under_way")}
    assert (now["BTC"]["state"], now["BTC"]["reach"], now["BTC"]["missing"]) == ("under way", 1.5, '["liquidations"]')
    assert (now["ETH"]["state"], now["ETH"]["reach"], now["ETH"]["moved"]) == ("unknown", None, None)
    assert panel_rows(filled, "Under way now", on="under_way") == [{"under way": 1, "unknown": 1}]
    for interval in (10, 60):
        reach = panel_rows(filled, "Reach by symbol", on="under_way", interval=interval)
        assert [row["reach"] for row in reach if row["metric"] == "BTC"] == [0.0] * 5 + [1.5] * 5
        assert {row["reach"] for row in reach if row["metric"] == "ETH"} == {None}
        states = panel_rows(filled, "Under way by symbol", on="under_way", interval=interval)
        assert [row["state"] for row in states if row["metric"] == "BTC"] == [0] * 5 + [1] * 5
    hours = panel_rows(filled, "Reach by symbol", on="under_way", interval=3600)
    assert {row["metric"]: row["reach"] for row in hours} == {"BTC": 1.5, "ETH": None}


def test_the_pipeline_s_troubles_are_named(filled: psycopg.Connection[Any]) -> None:
    def shown(title: str) -> list[dict[str, Any]]:
        return panel_rows(filled, title, on="pipeline_health")

    assert shown("Sources by state") == [{"up": 1, "degraded": 0, "down": 1}]
    assert [(row["source"], row["budget"]) for row in shown("Sources")] == [("okx", None), ("binance", 0.5)]
    assert [(row["budget"], row["because"]) for row in shown("Request budgets")] == [("binance:weight", "HTTP 418")]
    assert [(row["feed"], row["failures"]) for row in shown("Feeds that fail or are overdue")] == [("prices", 3)]
    [waits] = shown("What waits")
    assert (waits["dead letters"], waits["holes"]) == (1, 1)
    assert {row["metric"] for row in shown("Holes found")} == {"open", "healed"}
    [job] = shown("Runs by job")
    assert (job["succeeded"], job["failed"], job["share failed"]) == (350, 7, pytest.approx(7 / 357))
    assert [row["why"] for row in shown("Failed runs")] == ["The tick stopped."]
    growth = {row["part"]: row["a day"] for row in shown("Growth")}
    assert growth == {"kafka": 10.0, "postgres": None}, "one sample tells no growth"
    lags = {row["topic"]: row["longest"] for row in shown("Lag of the last 15 minutes by topic")}
    assert {"prices", "stablecoin_flows"} <= set(lags)
