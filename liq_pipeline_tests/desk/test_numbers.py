"""Every number of the desk is the database's and `liq status`'s for the same point; unknown is a word."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from liq_pipeline.desk.pages import words
from liq_pipeline.operations.status import read_store
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline_tests.desk.support import LAST, SETTINGS, SYMBOLS, WORLD, RunningDesk, desk


def rows(url: str, query: str, *parameters: Any) -> list[dict[str, Any]]:
    with psycopg.connect(url, options="-c timezone=UTC", row_factory=dict_row) as conn:  # type: ignore[arg-type]
        return conn.execute(query, parameters).fetchall()  # type: ignore[arg-type, return-value]


def text_of(page: bytes) -> str:
    return " ".join(html.unescape(re.sub(rb"<[^>]+>", b" ", page).decode()).split())


def test_the_api_tells_what_liq_status_tells(shared_desk: RunningDesk) -> None:
    endpoints = Endpoints(database_url=shared_desk.database_url, kafka_bootstrap_servers="127.0.0.1:1")
    status = read_store(SETTINGS, endpoints, datetime.now(UTC))
    answer = shared_desk.get("/api/v1/symbols")
    assert (answer["world"], answer["mode"], answer["is_real"]) == (status.world, "simulated", False)
    told = {row["symbol"]: row for row in answer["data"]}
    assert set(told) == set(status.symbols) == set(SYMBOLS)
    for symbol, expected in status.symbols.items():
        shared = set(told[symbol]) & set(expected) - {"time"}
        assert {"risk", "score_high", "severity", "coverage", "pressure", "cascade_probability_4h"} <= shared
        assert {name: told[symbol][name] for name in shared} == {name: expected[name] for name in shared}
        assert datetime.fromisoformat(told[symbol]["time"]) == expected["time"] == LAST


def test_prices_are_the_medians_of_the_venues_newest(shared_desk: RunningDesk) -> None:
    for row in shared_desk.get("/api/v1/symbols")["data"]:
        [expected] = rows(
            shared_desk.database_url,
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY price_usd) AS price, count(*) AS venues FROM ("
            " SELECT DISTINCT ON (venue) price_usd FROM prices WHERE world = %s AND symbol = %s AND event_time <= %s"
            " AND event_time > %s::timestamptz - interval '15 min' ORDER BY venue, event_time DESC) AS newest",
            WORLD,
            row["symbol"],
            LAST,
            LAST,
        )
        assert (row["price_usd"], row["price_venues"]) == (expected["price"], expected["venues"])


def test_the_market_page_shows_the_same_numbers(shared_desk: RunningDesk) -> None:
    page = text_of(shared_desk.ask("/").body)
    for row in shared_desk.get("/api/v1/symbols")["data"]:
        shown = " ".join(str(text) for text in (words.price(row["price_usd"]), words.change(row["price_change_24h"])))
        assert " ".join(shown.split()) in page
        for points in ("funding_points", "open_interest_points", "long_short_points", "liquidation_points"):
            assert " ".join(str(words.number(row[points], 1)).split()) in page


def test_charts_are_the_roll_ups(shared_desk: RunningDesk) -> None:
    told = shared_desk.get("/api/v1/symbols/BTC/risk?step=5m")["data"]
    expected = rows(
        shared_desk.database_url,
        "SELECT bucket, score_max, coverage_min FROM liquidation_risk_5m WHERE world = %s AND symbol = 'BTC'"
        " ORDER BY bucket",
        WORLD,
    )
    assert [(datetime.fromisoformat(one["time"]), one["risk_max"], one["coverage_min"]) for one in told] == [
        (one["bucket"], one["score_max"], one["coverage_min"]) for one in expected
    ]
    closed = shared_desk.get("/api/v1/symbols/BTC/liquidations?step=5m")["data"]
    [total] = rows(
        shared_desk.database_url,
        "SELECT sum(notional_usd) FILTER (WHERE liquidated_side = 'long') AS long FROM liquidations_5m"
        " WHERE world = %s AND symbol = 'BTC' AND bucket BETWEEN %s::timestamptz - interval '1 day' AND %s",
        WORLD,
        LAST,
        LAST,
    )
    assert sum(one["long_usd"] for one in closed) == pytest.approx(total["long"])
    assert total["long"] > 1e6, "the day has a cascade"


def test_a_receipt_is_the_stored_one(shared_desk: RunningDesk) -> None:
    [alert] = rows(shared_desk.database_url, "SELECT alert_id, receipt FROM alerts WHERE rule = 'severity' LIMIT 1")
    told = shared_desk.get(f"/api/v1/alerts/{alert['alert_id']}")["data"]
    assert told["receipt"] == alert["receipt"]
    page = text_of(shared_desk.ask(f"/alerts/{alert['alert_id']}").body)
    for component in alert["receipt"].get("components") or []:
        if component["points"] is not None:
            assert f"{component['points']:.1f} of {component['budget']:.0f}" in page


@pytest.mark.parametrize("path", ["/", "/symbols/BTC", "/flows", "/alerts", "/quality", "/health", "/api", "/nothing"])
def test_a_simulated_world_is_red_on_every_page(shared_desk: RunningDesk, path: str) -> None:
    page = shared_desk.ask(path).body.decode()
    assert '<div class="world unreal"' in page
    assert "SIMULATED MARKET: NOT REAL" in page
    assert WORLD in page
    assert "<title>[SIMULATED]" in page


def test_unknown_is_a_word_and_null_never_zero(own_url: str, tmp_path: Any) -> None:
    with psycopg.connect(own_url) as conn:
        conn.execute(
            "UPDATE liquidation_risk SET funding_points = NULL, score = NULL, side = NULL WHERE symbol = 'ETH'"
        )
        conn.execute(
            "UPDATE signals SET risk = NULL, severity = 'UNKNOWN', pressure = NULL, flow_side_known = false,"
            " cascade_probability_4h = NULL, under_way = NULL WHERE symbol = 'ETH'"
        )
    with desk(own_url, tmp_path) as running:
        [row] = [one for one in running.get("/api/v1/symbols")["data"] if one["symbol"] == "ETH"]
        for name in ("risk", "funding_points", "side", "pressure", "cascade_probability_4h"):
            assert row[name] is None
        page = running.ask("/symbols/ETH").body.decode()
        assert page.count('<span class="unknown">unknown</span>') >= 5
        market = running.ask("/").body.decode()
        assert '<span class="state unknown">Unknown</span>' in market


def test_before_the_first_score_the_page_says_what_it_waits_for(database_url: str, tmp_path: Any) -> None:
    with desk(database_url, tmp_path) as running:
        assert "Nothing has been scored yet" in running.ask("/").body.decode()
        refused = running.ask("/api/v1/symbols")
        assert (refused.status, refused.json()["error"]["code"]) == (404, "no_world")
        assert running.get("/api/v1/health")["data"]["health"] == "down"
