"""Who may come in, and how long one may stay in the doorway.

Belongs here: names, origin, token, headers of every answer, and patience with half-open connections. Does not: routes.

A browser must not be a way in: only known Host names are answered (a page elsewhere that rebinds its name to this
machine has another), a write must come from a page of ours (Sec-Fetch-Site or Origin) or carry the token, and no answer
may be framed, scripted or read by another site.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from liq_pipeline.desk.api.answering import Problem, send_problem
from liq_pipeline.desk.api.asking import LONGEST_QUERY
from liq_pipeline.errors import LiqError
from liq_pipeline.settings import Settings, is_loopback

COOKIE: Final = "liq_token"
PATIENCE_SECONDS: Final = 10.0
"""For a whole request head; then the connection is closed."""
MOST_BODY_BYTES: Final = 16_384
PUBLIC: Final = frozenset({"/healthz"})
"""Answered without a token: says only that the process lives."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with it a browser hides from us that a form is our own (Origin: null).
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), camera=(), microphone=()",
}
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def require_token_off_loopback(settings: Settings, host: str) -> None:
    """LiqError if the desk would listen to others without asking who they are."""
    if not is_loopback(host) and settings.web_token is None:
        raise LiqError(
            f"the desk would listen on {host}, where others reach it: set LIQ_WEB_TOKEN (`openssl rand -hex 16`), or"
            " leave LIQ_WEB_HOST at 127.0.0.1"
        )


class Doors:
    """The ASGI wrapper around everything. names: host names it answers to; token: what a caller must show, or None."""

    def __init__(self, app: ASGIApp, *, names: Iterable[str], token: str | None) -> None:
        self._app = app
        self._names = _LOOPBACK | {name.lower() for name in names if name not in ("0.0.0.0", "::", "")}  # noqa: S104
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            response = send_problem(refusal)
            if refusal.status == 401:
                response.headers["WWW-Authenticate"] = 'Bearer realm="liq"'
            await response(scope, receive, with_headers)
            return
        await self._app(scope, _bounded(receive), with_headers)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        if _name_of(headers.get("host", "")) not in self._names:
            return Problem(
                status=421,
                code="unknown_host",
                message="This server is not known by that name; LIQ_WEB_NAMES adds one.",
            )
        if len(scope.get("query_string", b"")) > LONGEST_QUERY or len(scope.get("raw_path") or b"") > LONGEST_QUERY:
            return Problem(status=414, code="too_long", message=f"An address has at most {LONGEST_QUERY} characters.")
        shown = self._shown(headers)
        if self._token is not None and scope["path"] not in PUBLIC and not shown:
            return (
                Problem(
                    status=401,
                    code="no_token",
                    message="Show the token: `Authorization: Bearer ...`, or open /login in a browser.",
                )
                if scope["path"] != "/login"
                else None
            )
        if scope["method"] not in _SAFE:
            if int(headers.get("content-length") or 0) > MOST_BODY_BYTES:
                return Problem(status=413, code="too_large", message=f"A body has at most {MOST_BODY_BYTES} bytes.")
            by_header = self._token is not None and _bearer(headers) is not None and shown
            if not by_header and not self._is_ours(headers):
                return Problem(
                    status=403, code="other_site", message="A change must be asked for by a page of this desk."
                )
        return None

    def _shown(self, headers: Headers) -> bool:
        if self._token is None:
            return True
        given = _bearer(headers) or _cookie(headers)
        return given is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def _is_ours(self, headers: Headers) -> bool:
        """Whether a browser says that a page of ours asks, or no browser asks and loopback is all there is."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if origin is not None:
            return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        if site is not None:
            return site in ("same-origin", "none")
        # Not a browser: a program on this machine (without a token), or one that has shown the token.
        return headers.get("content-type", "").startswith("application/json")


def _bounded(receive: Receive) -> Receive:
    """The same, but a body ends after MOST_BODY_BYTES: Content-Length is a claim, and a chunked body makes none."""
    taken = 0

    async def once() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] != "http.request":
            return message
        taken += len(message.get("body", b""))
        if taken > MOST_BODY_BYTES:
            return {"type": "http.request", "body": b"", "more_body": False}
        return message

    return once


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _bearer(headers: Headers) -> str | None:
    kind, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" and value.strip() else None


def _cookie(headers: Headers) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose request head does not come: it would hold its socket for ever."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on while a head is incomplete; not while one is answered."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._patience is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._patience = self.loop.call_later(PATIENCE_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
