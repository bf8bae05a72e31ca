"""The guard before Dagster's webserver, on a real socket: other sites are refused, what the UI asks for passes."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from liq_pipeline.runtime.servers.guarded_webserver import MOST_BODY_BYTES, Guard

QUERY = "{ version }"
MUTATION = 'mutation { stopSensor(id: "x") { __typename } }'


async def _seen(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse({"method": request.method, "body": body.decode(), "query": request.query_params.get("query")})


async def _echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    inner = Starlette(
        routes=[
            Route("/graphql", _seen, methods=["GET", "POST"]),
            Route("/report_asset_materialization/x", _seen, methods=["POST"]),
            Route("/", _seen),
            WebSocketRoute("/graphql", _echo),
        ]
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        running = uvicorn.Server(uvicorn.Config(Guard(inner, ("desk.example",)), log_level="critical"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not running.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield f"127.0.0.1:{port}"
        running.should_exit = True
        thread.join(20)


def ask(server: str, method: str = "POST", path: str = "/graphql", **given: Any) -> requests.Response:
    return requests.request(method, f"http://{server}{path}", timeout=10, **given)


def test_a_query_passes_by_get_and_by_post_word_for_word(server: str) -> None:
    assert ask(server, "GET", params={"query": QUERY}).json()["query"] == QUERY
    sent = json.dumps({"query": QUERY, "variables": {"a": "\u00e4" * 1000}})
    got = ask(server, data=sent, headers={"Content-Type": "application/json"})
    assert got.json()["body"] == sent


@pytest.mark.parametrize(
    "document",
    [
        MUTATION,
        "# query\n" + MUTATION,
        "query A { version } mutation B { stopSensor(id: 1) { __typename } }",
        "fragment F on X { y } mutation { z }",
        "subscription { events }",
        "\ufeff  \n,,,mutation{a}",
    ],
)
def test_no_get_runs_anything_but_queries_however_it_is_written(server: str, document: str) -> None:
    assert ask(server, "GET", params={"query": document}).status_code == 405


def test_every_one_of_several_query_parameters_is_looked_at(server: str) -> None:
    assert ask(server, "GET", params=[("query", QUERY), ("query", MUTATION)]).status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/graphql", "/report_asset_materialization/x"])
def test_a_change_from_another_site_is_refused(server: str, headers: dict[str, str], path: str) -> None:
    assert ask(server, path=path, json={"query": MUTATION}, headers=headers).status_code == 403


def test_a_change_from_our_own_page_or_from_no_browser_passes(server: str) -> None:
    assert ask(server, json={"query": MUTATION}, headers={"Origin": f"http://{server}"}).status_code == 200
    assert ask(server, json={"query": MUTATION}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert ask(server, json={"query": MUTATION}).status_code == 200


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""]
)
def test_what_a_form_can_send_is_never_taken(server: str, kind: str) -> None:
    answer = ask(server, data=json.dumps({"query": MUTATION}), headers={"Content-Type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:3000", "[::2]", ""])
def test_an_unknown_host_name_is_refused_for_everything(server: str, host: str) -> None:
    for method in ("GET", "POST"):
        assert ask(server, method, "/", headers={"Host": host}).status_code in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:3000", "[::1]:3000", "desk.example", "DESK.example:80"])
def test_known_host_names_are_answered(server: str, host: str) -> None:
    assert ask(server, "GET", "/", headers={"Host": host}).status_code == 200


def test_a_body_without_end_is_cut_off(server: str) -> None:
    answer = ask(server, data=b"x" * (MOST_BODY_BYTES + 1), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_websocket_of_our_own_page_works_and_of_another_does_not(server: str) -> None:
    with connect(f"ws://{server}/graphql", origin=f"http://{server}") as own:  # type: ignore[arg-type]
        own.send("hello")
        assert own.recv(timeout=10) == "hello"
    with pytest.raises(InvalidStatus), connect(f"ws://{server}/graphql", origin="http://evil.example"):  # type: ignore[arg-type]
        pass
