"""Dagster's webserver behind a guard: no other site may run it, by whatever name or method.

Belongs here: the guard, and starting the webserver with it (`python -m liq_pipeline.runtime.servers.guarded_webserver`,
with dagster-webserver's own options). Does not: any page or query of Dagster's.

As it comes, Dagster's webserver runs GraphQL mutations for anybody's page: by a plain GET too, for any Host header and
any Origin. A picture tag on a web page that is open on the machine could stop the tick sensor and so blind the monitor.
So:
  * only known Host names are answered (a page that rebinds its own name to this machine has another);
  * no GET runs a mutation; what an operation is, graphql-core says, not a search for words;
  * whatever changes something must be JSON and come from a page of this very address, or from no browser at all;
  * websockets are held to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
MOST_BODY_BYTES: Final = 4 * 1024 * 1024
"""A launch with a large run config is some hundred kilobytes."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_GRAPHQL: Final = "/graphql"


class Guard:
    """The ASGI wrapper. names: host names that it answers to, beside this machine's own."""

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = LOOPBACK | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            if not self._is_known(scope) or not _is_ours(Headers(scope=scope)):
                await send({"type": "websocket.close", "code": 1008})
                return
        elif scope["type"] == "http":
            if not self._is_known(scope):
                await _refuse(
                    scope, receive, send, 421, "this server is not known by that name (LIQ_WEB_NAMES adds one)"
                )
                return
            if scope["method"] not in _SAFE:
                await self._change(scope, receive, send)
                return
            if scope["path"].rstrip("/").endswith(_GRAPHQL) and not _only_reads(_asked_by_get(scope)):
                await _refuse(scope, receive, send, 405, "a GET runs no mutation: ask by POST")
                return
        await self._app(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        return _name_of(Headers(scope=scope).get("host", "")) in self._names

    async def _change(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request that may change something: read whole, looked at, and handed on as it was."""
        headers = Headers(scope=scope)
        if not _is_ours(headers):
            await _refuse(scope, receive, send, 403, "a change must be asked for by a page of this server")
            return
        if not headers.get("content-type", "").lower().startswith("application/json"):
            # What a form or a beacon of another site can send without asking first is never JSON.
            await _refuse(scope, receive, send, 415, "JSON is wanted (Content-Type: application/json)")
            return
        body = await _read(receive)
        if body is None:
            await _refuse(scope, receive, send, 413, f"a body has at most {MOST_BODY_BYTES} bytes")
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)


def _is_ours(headers: Headers) -> bool:
    """Whether a page of this very address asks, or no browser does."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    return site in (None, "same-origin", "none")


def _asked_by_get(scope: Scope) -> Iterator[str]:
    yield from parse_qs(scope.get("query_string", b"").decode("latin-1")).get("query", [])


def _only_reads(documents: Iterable[str]) -> bool:
    """Whether every operation in the documents is a query. What cannot be parsed runs nothing: Dagster says so."""
    from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse

    for document in documents:
        try:
            parsed = parse(document)
        except GraphQLError:
            continue
        for definition in parsed.definitions:
            if isinstance(definition, OperationDefinitionNode) and definition.operation != OperationType.QUERY:
                return False
    return True


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None where it is too long."""
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > MOST_BODY_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, reason: str) -> None:
    await JSONResponse({"error": reason}, status_code=status)(scope, receive, send)


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def main() -> None:
    """dagster-webserver's own command line, its application behind the guard."""
    from dagster_webserver import cli

    from liq_pipeline.settings import get_settings

    names = get_settings().web_names
    build = cli.create_app_from_workspace_process_context  # type: ignore[attr-defined]

    def guarded(*arguments: Any, **options: Any) -> Any:
        return Guard(build(*arguments, **options), names)

    # The one seam there is: the command line builds its application by this name, then gives it to uvicorn.
    cli.create_app_from_workspace_process_context = guarded  # type: ignore[attr-defined]
    cli.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
