"""The same numbers for language models, asked by the protocol's own client: over stdin and stdout, and over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from liq_pipeline.desk.mcp.about import MOST_BYTES
from liq_pipeline.desk.mcp.tools import TOOLS
from liq_pipeline_tests.desk.support import LAST, WORLD, RunningDesk, desk
from liq_pipeline_tests.desk.test_stream import writing

TOKEN = "a token of sixteen or more"
FRAME = {
    "world",
    "mode",
    "is_real",
    "as_of",
    "age_seconds",
    "data_age_seconds",
    "warnings",
    "coverage",
    "provenance",
    "data",
    "left_out",
}
ARGUMENTS = {"history": {"symbol": "BTC"}, "levels": {"symbol": "BTC"}}


def talk(server: Any, what: Callable[[Client], Awaitable[Any]], mode: str = "auto") -> Any:
    """What the client says and hears, from connecting to leaving."""

    async def run() -> Any:
        async with Client(server, mode=mode, read_timeout_seconds=30) as client:
            return await what(client)

    return asyncio.run(run())


def over_http(url: str, **headers: str) -> Any:
    """A transport that no proxy of the environment comes between."""
    http = httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False)
    return streamable_http_client(f"{url}/mcp", http_client=http)


def over_stdio(running: RunningDesk) -> StdioServerParameters:
    """`liq mcp` as a client starts it."""
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "liq_pipeline.cli", "mcp"],
        env=running.environment,
        cwd=running.home,
    )


@pytest.fixture(params=["http", "http, handshake", "stdio"])
def reached(request: Any, shared_desk: RunningDesk) -> Callable[[Callable[[Client], Awaitable[Any]]], Any]:
    """The same server by each of its ways."""

    def reach(what: Callable[[Client], Awaitable[Any]]) -> Any:
        if request.param == "stdio":
            return talk(over_stdio(shared_desk), what)
        return talk(over_http(shared_desk.url), what, "legacy" if "handshake" in request.param else "auto")

    return reach


async def told(client: Client, name: str, **arguments: Any) -> Any:
    """A tool's structured answer, which its text repeats."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content  # type: ignore[union-attr]
    return result.structured_content


async def refusal(client: Client, name: str, **arguments: Any) -> str:
    """The one sentence of a tool that cannot answer."""
    result = await client.call_tool(name, arguments)
    assert result.is_error
    assert result.structured_content is None
    sentence: str = result.content[0].text  # type: ignore[union-attr]
    assert sentence.endswith(".")
    return sentence


def test_every_way_leads_to_the_same_tools_which_only_read(reached: Any) -> None:
    async def look(client: Client) -> Any:
        return (await client.list_tools()).tools, client.instructions

    listed, instructions = reached(look)
    assert [tool.name for tool in listed] == [tool.name for tool in TOOLS]
    for tool in listed:
        assert tool.annotations.read_only_hint is True
        assert tool.annotations.destructive_hint is False
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema["type"] == "object"
        assert set(tool.output_schema["properties"]) >= FRAME
    assert "null is unknown, never zero" in instructions


def test_every_answer_says_which_world_how_old_how_complete_and_from_where(reached: Any) -> None:
    async def ask(client: Client) -> Any:
        return {tool.name: await told(client, tool.name, **ARGUMENTS.get(tool.name, {})) for tool in TOOLS}

    answers = reached(ask)
    for name, answer in answers.items():
        assert set(answer) == FRAME, name
        assert (answer["world"], answer["is_real"], answer["mode"]) == (WORLD, False, "simulated")
        assert answer["warnings"][0].startswith("NOT REAL")
        assert answer["as_of"] == f"{LAST:%Y-%m-%dT%H:%M:%SZ}"
        assert answer["age_seconds"] >= 0
        assert answer["data_age_seconds"]["price"] is not None
        assert 0 < answer["coverage"]["lowest"] <= answer["coverage"]["highest"] <= 1
        where = answer["provenance"]
        assert re.fullmatch(r"liq_pipeline \d+\.\d+\.\d+", where["program"])
        assert where["score_version"]
        assert where["venues"]
        assert where["tables"]
        assert len(json.dumps(answer)) < MOST_BYTES


def test_the_numbers_are_those_of_the_api(reached: Any, shared_desk: RunningDesk) -> None:
    alert = shared_desk.get("/api/v1/alerts?limit=1")["data"][0]

    async def ask(client: Client) -> Any:
        return (
            await told(client, "risk_now"),
            await told(client, "risk_now", symbol="btc"),
            await told(client, "why_alert", alert_id=alert["alert_id"]),
            await told(client, "history", symbol="BTC", what="prices", step="5m", limit=20),
            await told(client, "list_alerts", limit=3),
            await told(client, "levels", symbol="BTC"),
        )

    every, one, why, prices, book, levels = reached(ask)
    newest = shared_desk.get("/api/v1/symbols/BTC/levels?limit=1")["data"]
    assert levels["data"] == {"symbol": "BTC", "map": newest[0] if newest else None}
    told_by_api = {row["symbol"]: row for row in shared_desk.get("/api/v1/symbols")["data"]}
    assert {row["symbol"]: row for row in every["data"]["symbols"]} == told_by_api
    assert one["data"]["symbols"] == [told_by_api["BTC"]]
    assert one["data"]["inputs"] == shared_desk.get("/api/v1/symbols/BTC/scores?limit=1")["data"][0]["inputs"]
    detail = shared_desk.get(f"/api/v1/alerts/{alert['alert_id']}")["data"]
    assert why["data"]["alert"] == detail["alert"] == alert
    assert why["data"]["receipt"] == detail["receipt"]
    assert why["data"]["receipt"]
    stored = shared_desk.get("/api/v1/symbols/BTC/prices?step=5m")["data"]
    assert prices["data"]["buckets"] == stored[-20:]
    assert prices["left_out"] == len(stored) - 20 > 0
    assert book["data"] == shared_desk.get("/api/v1/alerts?limit=3")["data"]


def test_what_cannot_be_answered_is_one_sentence(reached: Any) -> None:
    async def ask(client: Client) -> Any:
        return [
            await refusal(client, "risk_now", symbol="NOPE"),
            await refusal(client, "risk_now", symbol="'; DROP TABLE alerts; --"),
            await refusal(client, "risk_now", symbol="<script>alert(1)</script>"),
            await refusal(client, "risk_now", world="real"),
            await refusal(client, "risk_now", limit=26),
            await refusal(client, "risk_now", limit=True),
            await refusal(client, "risk_now", symbols="BTC"),
            await refusal(client, "history"),
            await refusal(client, "history", symbol="BTC", what="everything"),
            await refusal(client, "history", symbol="BTC", **{"from": "2020-01-01", "to": "2026-01-01"}),
            await refusal(client, "why_alert", alert_id="00000000-0000-0000-0000-000000000000"),
            await refusal(client, "why_alert", symbol="nothing of that name"),
            await refusal(client, "acknowledge", alert_id="x"),
        ]

    for sentence in reached(ask):
        assert "DROP" not in sentence
        assert "<script" not in sentence
        assert len(sentence) < 300


def test_the_newest_alert_is_explained_where_none_is_named(reached: Any, shared_desk: RunningDesk) -> None:
    still_open = shared_desk.get("/api/v1/alerts?state=open&limit=1")["data"]
    newest = still_open or shared_desk.get("/api/v1/alerts?limit=1")["data"]

    async def ask(client: Client) -> Any:
        return await told(client, "why_alert")

    answer = reached(ask)
    assert answer["data"]["alert"]["alert_id"] == newest[0]["alert_id"]
    assert len(answer["data"]["changes"]) <= 20


def test_a_world_that_is_old_or_unknown_says_so_in_words(own_url: str, tmp_path: Path) -> None:
    with writing(own_url) as conn:
        conn.execute("UPDATE worlds SET is_active = false")
        conn.execute(
            "INSERT INTO worlds (world, kind, is_active, market_step_seconds, flows_step_seconds, manifest)"
            " VALUES ('real', 'real', true, 10, 15, '{\"symbols\": [\"BTC\"], \"expected\": {}}')"
        )
        conn.execute("INSERT INTO source_status (source, state, reason) VALUES ('somewhere', 'down', 'a test')")
    with desk(own_url, tmp_path) as running:

        async def ask(client: Client) -> Any:
            return await told(client, "risk_now"), await told(client, "risk_now", world=WORLD)

        now, before = talk(over_http(running.url), ask)
    assert now["is_real"] is True
    assert now["as_of"] is None
    assert now["coverage"]["lowest"] is None
    assert now["data"]["symbols"] == []
    assert "Nothing has been scored yet: the installation is still warming up." in now["warnings"]
    assert now["provenance"]["sources_not_up"] == [{"source": "somewhere", "state": "down", "reason": "a test"}]
    assert "Down now: somewhere." in now["warnings"]
    assert before["provenance"]["sources_not_up"] == []
    assert before["warnings"][0].startswith("NOT REAL")
    assert any("not the one that runs now" in sentence for sentence in before["warnings"])


@pytest.fixture
def guarded(filled_url: str, tmp_path: Path) -> Iterator[RunningDesk]:
    with desk(filled_url, tmp_path, LIQ_WEB_TOKEN=TOKEN) as running:
        yield running


CALL = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "risk_now", "arguments": {}}}
).encode()
JSON = {"Content_Type": "application/json", "Accept": "application/json, text/event-stream"}


def test_the_door_is_that_of_the_api(guarded: RunningDesk, shared_desk: RunningDesk) -> None:
    assert guarded.ask("/mcp", method="POST", data=CALL, **JSON).status == 401
    assert (
        guarded.ask("/mcp", method="POST", data=CALL, Authorization="Bearer another token, not it", **JSON).status
        == 401
    )

    async def ask(client: Client) -> Any:
        return await told(client, "risk_now")

    assert talk(over_http(guarded.url, Authorization=f"Bearer {TOKEN}"), ask)["world"] == WORLD
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whatever the client makes of a 401
        talk(over_http(guarded.url), ask)

    assert shared_desk.ask("/mcp", method="POST", data=CALL, **JSON).status == 200
    other_site = shared_desk.ask("/mcp", method="POST", data=CALL, Origin="http://evil.example", **JSON)
    assert (other_site.status, other_site.json()["error"]["code"]) == (403, "other_site")
    assert shared_desk.ask("/mcp", method="POST", data=CALL, Host="evil.example", **JSON).status == 421
    as_form = shared_desk.ask("/mcp", method="POST", data=CALL, Content_Type="text/plain")
    assert as_form.status == 403
    assert shared_desk.ask("/mcp").status == 405
    assert shared_desk.ask("/mcp", method="DELETE", **JSON).status == 405
    garbage = shared_desk.ask("/mcp", method="POST", data=b"{" * 1000, **JSON)
    assert 400 <= garbage.status < 500
    large = shared_desk.ask("/mcp", method="POST", data=b" " * 20_000 + CALL, **JSON)
    assert (large.status, large.json()["error"]["code"]) == (413, "too_large")


def test_bodies_that_do_not_end_hold_nobody_up(shared_desk: RunningDesk) -> None:
    """A body without a declared length is bounded as well, and one that never comes keeps no turn."""
    head = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    waiting = []
    for _ in range(30):
        one = socket.create_connection(("127.0.0.1", shared_desk.port))
        one.sendall(head + b"Content-Length: 100\r\n\r\n{")
        waiting.append(one)
    endless = socket.create_connection(("127.0.0.1", shared_desk.port), timeout=10)
    endless.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
    endless.sendall((b"1000\r\n" + b" " * 0x1000 + b"\r\n") * 8)
    assert b" 413 " in endless.recv(4096).partition(b"\r\n")[0]

    async def ask(client: Client) -> Any:
        return await told(client, "risk_now")

    assert talk(over_http(shared_desk.url), ask)["world"] == WORLD
    waiting[0].settimeout(20)
    assert b" 408 " in waiting[0].recv(4096).partition(b"\r\n")[0]
    for one in (*waiting, endless):
        one.close()


def test_many_ask_at_once_and_nothing_is_written(shared_desk: RunningDesk) -> None:
    def rows() -> Any:
        with psycopg.connect(shared_desk.database_url) as conn:
            return conn.execute("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables").fetchone()

    before = rows()

    async def ask(client: Client) -> Any:
        calls = [told(client, tool.name, **ARGUMENTS.get(tool.name, {})) for tool in TOOLS for _ in range(6)]
        return await asyncio.gather(*calls)

    answers = talk(over_http(shared_desk.url), ask)
    assert len(answers) == 6 * len(TOOLS)
    assert rows() == before
