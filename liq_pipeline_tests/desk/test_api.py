"""The API's promises: one envelope, one form of errors, pages that join, tags that spare, a description that holds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from liq_pipeline.desk.api.endpoints import ENDPOINTS
from liq_pipeline.desk.api.openapi import document
from liq_pipeline_tests.desk.support import RunningDesk

SNAPSHOT = Path(__file__).with_name("openapi.json")


def filled_in(desk: RunningDesk, path: str) -> str:
    alert = desk.get("/api/v1/alerts?limit=1")["data"][0]["alert_id"]
    return path.replace("{symbol}", "BTC").replace("{alert_id}", alert)


def test_the_description_is_the_promise_that_was_made(shared_desk: RunningDesk) -> None:
    assert document() == json.loads(SNAPSHOT.read_text()), (
        "the API's description changed: if that is meant, write it with `python -m liq_pipeline_tests.desk.snapshot`"
    )
    assert shared_desk.get("/api/v1/openapi.json") == json.loads(SNAPSHOT.read_text())


@pytest.mark.parametrize(
    "endpoint", [one for one in ENDPOINTS if "evaluation_id" not in one.path], ids=lambda e: e.name
)
def test_every_address_answers_with_its_world_and_only_described_fields(
    shared_desk: RunningDesk, endpoint: Any
) -> None:
    answer = shared_desk.get(filled_in(shared_desk, endpoint.url))
    assert set(answer) == {"world", "mode", "is_real", "as_of", "data", "next_cursor"}
    assert (answer["world"], answer["is_real"]) == ("simulated/desk", False)
    described = document()
    schema = described["paths"][endpoint.url]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    _conforms(answer, schema, described, endpoint.name)


def _conforms(value: Any, schema: dict[str, Any], described: dict[str, Any], where: str) -> None:
    """Required fields are there, no field is there that is not described; deep enough for our own shapes."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        _conforms(value, described["components"]["schemas"][name], described, name)
    elif "anyOf" in schema:
        if value is not None:
            _conforms(value, next(one for one in schema["anyOf"] if one.get("type") != "null"), described, where)
    elif schema.get("type") == "array":
        assert isinstance(value, list), where
        for one in value[:20]:
            _conforms(one, schema["items"], described, where)
    elif "properties" in schema:
        assert set(value) <= set(schema["properties"]), where
        assert set(schema["required"]) <= set(value), where
        for name, inner in schema["properties"].items():
            if name in value:
                _conforms(value[name], inner, described, f"{where}.{name}")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/symbols/NOPE", 404, "unknown_symbol"),
        ("/api/v1/symbols/%27%3BDROP%20TABLE%20alerts--/prices", 404, "unknown_symbol"),
        ("/api/v1/symbols/%3Cscript%3E/risk", 404, "unknown_symbol"),
        ("/api/v1/symbols?world=%27%20OR%201%3D1--", 404, "no_world"),
        ("/api/v1/symbols?wrold=real", 400, "unknown_parameter"),
        ("/api/v1/alerts?limit=0", 400, "bad_parameter"),
        ("/api/v1/alerts?limit=501", 400, "bad_parameter"),
        ("/api/v1/alerts?limit=5&limit=6", 400, "bad_parameter"),
        ("/api/v1/alerts?cursor=zzz", 400, "bad_cursor"),
        ("/api/v1/alerts?cursor=WyJ4Il0", 400, "bad_cursor"),
        ("/api/v1/alerts/not-an-id", 400, "bad_parameter"),
        ("/api/v1/alerts/00000000-0000-0000-0000-000000000000", 404, "unknown_alert"),
        ("/api/v1/symbols/BTC/prices?from=yesterday", 400, "bad_parameter"),
        ("/api/v1/symbols/BTC/prices?from=2026-03-02&to=2026-03-01", 400, "bad_parameter"),
        ("/api/v1/symbols/BTC/prices?step=1m&from=2026-01-01&to=2026-03-01", 400, "bad_parameter"),
        ("/api/v1/flows?from=2026-01-01&to=2026-03-01", 400, "bad_parameter"),
        ("/api/v1/nothing", 404, "not_found"),
        ("/api/v1/../../etc/passwd", 404, "not_found"),
    ],
)
def test_what_cannot_be_answered_says_so_in_one_form(
    shared_desk: RunningDesk, path: str, status: int, code: str
) -> None:
    reply = shared_desk.ask(path)
    assert (reply.status, reply.json()["error"]["code"], reply.json()["error"]["status"]) == (status, code, status)
    assert reply.json()["error"]["message"].endswith(".")
    assert b"DROP" not in reply.body
    assert b"<script" not in reply.body


@pytest.mark.parametrize(
    "path", ["/api/v1/alerts?limit=2", "/api/v1/symbols/BTC/signals?limit=50", "/api/v1/symbols/ETH/scores?limit=70"]
)
def test_pages_join_without_a_gap_or_a_repetition(shared_desk: RunningDesk, path: str) -> None:
    whole = shared_desk.get(f"{path.partition('?')[0]}?limit=200")["data"]
    joined, cursor = [], ""
    while cursor is not None:
        page = shared_desk.get(f"{path}{cursor and f'&cursor={cursor}'}")
        joined += page["data"]
        cursor = page["next_cursor"]
        if len(joined) >= len(whole):
            break
    assert len(whole) > 3
    assert joined[: len(whole)] == whole


def test_who_has_it_gets_304_and_who_can_gets_gzip(shared_desk: RunningDesk) -> None:
    first = shared_desk.ask("/api/v1/symbols/BTC/risk")
    again = shared_desk.ask("/api/v1/symbols/BTC/risk", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    packed = shared_desk.ask("/api/v1/symbols/BTC/risk", Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == first.body
    assert len(packed.body) < len(first.body) / 3


def test_a_symbol_s_case_does_not_matter_and_another_world_is_told_apart(shared_desk: RunningDesk) -> None:
    assert shared_desk.get("/api/v1/symbols/btc") == shared_desk.get("/api/v1/symbols/BTC")
    assert shared_desk.get("/api/v1/symbols?world=simulated/desk") == shared_desk.get("/api/v1/symbols")
    assert shared_desk.ask("/api/v1/symbols?world=real").status == 404
