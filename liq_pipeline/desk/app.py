"""The desk as one ASGI application: pages, API, event stream and files behind one door.

Belongs here: routes, and what becomes of an error. Does not: any of those parts, or starting a server (serve.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from liq_pipeline.desk.api import acknowledge, answering, asking, endpoints, openapi
from liq_pipeline.desk.api.answering import HTML, Body, problem, send, send_problem
from liq_pipeline.desk.api.memory import Memory
from liq_pipeline.desk.doors import COOKIE, Doors
from liq_pipeline.desk.mcp import ways
from liq_pipeline.desk.pages import views
from liq_pipeline.desk.read import health
from liq_pipeline.desk.read.database import Connection, Reader
from liq_pipeline.desk.read.scope import Scope
from liq_pipeline.desk.stream import wire
from liq_pipeline.desk.stream.hub import Hub
from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.endpoints import Endpoints, resolve
from liq_pipeline.settings import Settings

_log = logging.getLogger(__name__)
FOREVER: Final = "public, max-age=31536000, immutable"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
Handler = Callable[[Request], Awaitable[Response]]
View = Callable[..., dict[str, Any]]


class Desk:
    """Everything the routes share. make() gives the application."""

    def __init__(self, settings: Settings, found: Endpoints, *, lag_url: str | None = None) -> None:
        reader_url = found.database_reader_url or found.database_url
        self._settings = settings
        self._writer_url = found.database_url
        self._status_endpoints = replace(found, database_url=reader_url)
        self._lag_url = lag_url
        self._found = found
        self.reader = Reader(reader_url)
        self.memory = Memory(self.reader.threads)
        self.hub = Hub(self.reader, self.memory.forget)
        self._files = dict(_static_files())
        self._mcp = ways.OverHttp(self.reader)
        self._templates = views.environment()
        self._templates.globals["asset"] = {name: url for name, (url, _) in self._files.items()}
        self._by_url = dict(self._files.values())

    def make(self, *, names: tuple[str, ...] = ()) -> Doors:
        """The application behind its door. names: further host names it answers to."""
        routes = [
            *[Route(one.url, self._guarded(self._answer(one))) for one in endpoints.ENDPOINTS],
            Route("/api/v1/health", self._guarded(self._health)),
            Route("/api/v1/stream", self._guarded(self._stream)),
            Route("/api/v1/openapi.json", self._guarded(self._openapi)),
            Route("/api/v1/alerts/{alert_id}/acknowledgement", self._guarded(self._acknowledge), methods=["POST"]),
            Route(ways.PATH, self._mcp, methods=["POST"]),
            Route("/healthz", self._alive),
            Route("/static/{tag}/{name}", self._static),
            Route("/login", self._guarded(self._login, html=True), methods=["GET", "POST"]),
            Route("/", self._page("market.html", views.market_page)),
            Route("/symbols/{symbol}", self._page("symbol.html", views.symbol_page, symbol=str.upper)),
            Route("/flows", self._page("flows.html", views.flows_page)),
            Route("/alerts", self._page("alerts.html", views.alerts_page)),
            Route("/alerts/{alert_id}", self._page("alert.html", views.alert_page, alert_id=_uuid)),
            Route("/alerts/{alert_id}/acknowledge", self._guarded(self._acknowledge_form, html=True), methods=["POST"]),
            Route("/quality", self._page("quality.html", views.quality_page)),
            Route("/health", self._page("health.html", views.health_page, with_health=True)),
            Route("/api", self._page("api.html", views.api_page)),
        ]
        app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={404: self._not_found, 405: self._not_found},
        )
        token = self._settings.web_token
        return Doors(
            app,
            names=(self._settings.web_host, *self._settings.web_names, *names),
            token=None if token is None else token.get_secret_value(),
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.reader.start()
        self.hub.begin()
        yield
        await self._mcp.stop()
        await self.hub.end()
        await asyncio.to_thread(self.reader.stop)

    # -- errors ------------------------------------------------------------------------------------------------

    def _guarded(self, handler: Handler, *, html: bool = False) -> Handler:
        """The handler, its errors in the one form of errors; what nobody foresaw in the log."""

        async def guarded(request: Request) -> Response:
            try:
                return await handler(request)
            except Exception as error:
                found = problem(error)
                if not isinstance(error, LiqError):
                    _log.exception("a request failed: %s %s", request.method, request.url.path)
                if html:
                    return self._error_page(found)
                return send_problem(found)

        return guarded

    def _error_page(self, found: answering.Problem) -> Response:
        text = self._templates.get_template("error.html").render(
            **self._common(self.hub.scope), problem=found, title="", path=""
        )
        return Response(text, found.status, {"Cache-Control": "no-store"}, HTML)

    async def _not_found(self, request: Request, error: Exception) -> Response:
        return self._nothing(request, getattr(error, "status_code", 404))

    def _nothing(self, request: Request, status: int) -> Response:
        found = answering.Problem(
            status=status,
            code="not_found" if status == 404 else "bad_method",
            message="There is nothing at this address." if status == 404 else "This address is not asked in that way.",
        )
        if request.url.path.startswith(("/api/", ways.PATH)):
            return send_problem(found)
        return self._error_page(found)

    # -- API ---------------------------------------------------------------------------------------------------

    def _answer(self, endpoint: endpoints.Endpoint) -> Handler:
        async def handler(request: Request) -> Response:
            query = parse_qsl(request.url.query, keep_blank_values=True, max_num_fields=20)
            asked = asking.read_all(endpoint.parameters, request.path_params, query)

            def make() -> Body:
                return answering.json_body(self.reader.run(_read, endpoint, asked))

            key = f"{request.url.path}?{sorted(query)}"
            return send(request, await self.memory.get(key, make))

        return handler

    async def _health(self, request: Request) -> Response:
        def make() -> Body:
            of = self.reader.run(views.scope_or_none)
            looked = self._look()
            if of is None:
                return answering.json_body(
                    {"world": None, "mode": None, "is_real": None, "as_of": None, "data": looked}
                )
            return answering.json_body(answering.envelope(of, looked))

        return send(request, await self.memory.get("health", make))

    def _look(self) -> health.Health:
        return health.health(self._settings, self._status_endpoints, self._lag_url)

    async def _openapi(self, request: Request) -> Response:
        def make() -> Body:
            return Body.of(msgspec.json.format(msgspec.json.encode(openapi.document())), answering.JSON)

        return send(request, await self.memory.get("openapi", make, 3600))

    async def _stream(self, request: Request) -> Response:
        listener = self.hub.listen()
        if listener is None:
            raise asking.AskError(503, "too_many", "too many listen already: try again later")
        last = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            wire.events(self.hub, self.reader, listener, last), headers=headers, media_type="text/event-stream"
        )

    async def _acknowledge(self, request: Request) -> Response:
        try:
            given = msgspec.json.decode(await request.body(), type=openapi.Acknowledgement)
        except msgspec.DecodeError as error:
            raise asking.AskError(400, "bad_body", 'the body must be JSON such as {"by": "Ada"}') from error
        alert_id = asking.ALERT.read(request.path_params["alert_id"])
        await self._mark(alert_id, given.by)
        endpoint = next(one for one in endpoints.ENDPOINTS if one.name == "alert")
        asked = asking.Asked({"alert_id": alert_id})
        body = await asyncio.get_running_loop().run_in_executor(
            self.reader.threads, lambda: answering.json_body(self.reader.run(_read, endpoint, asked))
        )
        return send(request, body, "no-store")

    async def _mark(self, alert_id: uuid.UUID, by: str) -> None:
        name = acknowledge.name_of(by)
        work = partial(acknowledge.acknowledge, self._writer_url, alert_id, name)
        await asyncio.get_running_loop().run_in_executor(self.reader.threads, work)
        self.memory.forget()

    # -- pages -------------------------------------------------------------------------------------------------

    def _page(
        self, template: str, view: View, *, with_health: bool = False, **converters: Callable[[str], Any]
    ) -> Handler:
        async def handler(request: Request) -> Response:
            query = dict(parse_qsl(request.url.query, max_num_fields=20))
            given = {name: convert(request.path_params[name]) for name, convert in converters.items()}

            def make() -> Body:
                looked = {"looked": self._look()} if with_health else {}

                def read(conn: Connection) -> tuple[Scope | None, dict[str, Any]]:
                    of = views.scope_or_none(conn)
                    return of, view(conn, of, query, **given, **looked)

                of, context = self.reader.run(read)
                text = self._templates.get_template(template).render(
                    **self._common(of), **context, path=request.url.path
                )
                return Body.of(text.encode(), HTML)

            key = f"page {request.url.path}?{sorted(query.items())}"
            return send(request, await self.memory.get(key, make))

        return self._guarded(handler, html=True)

    def _common(self, of: Scope | None) -> dict[str, Any]:
        return {"scope": of, "dagster_url": self._dagster_url}

    @property
    def _dagster_url(self) -> str | None:
        """`liq up` starts the desk before Dagster, and writes down later where that is."""
        if self._found.dagster_url is None:
            try:
                self._found = resolve(self._settings)
            except LiqError:
                return None
        return self._found.dagster_url

    async def _acknowledge_form(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode("utf-8", "replace"), max_num_fields=5))
        alert_id = asking.ALERT.read(request.path_params["alert_id"])
        await self._mark(alert_id, form.get("by", ""))
        return RedirectResponse(f"/alerts/{alert_id}?acknowledged=1", 303)

    async def _login(self, request: Request) -> Response:
        token = self._settings.web_token
        if token is None:
            return RedirectResponse("/", 303)
        if request.method == "POST":
            form = dict(parse_qsl((await request.body()).decode("utf-8", "replace"), max_num_fields=5))
            given = form.get("token", "")
            if hmac.compare_digest(given.encode(), token.get_secret_value().encode()):
                response = RedirectResponse("/", 303)
                response.set_cookie(COOKIE, given, httponly=True, samesite="strict", max_age=30 * 86_400)
                return response
            raise asking.AskError(403, "wrong_token", "that is not the token")
        text = self._templates.get_template("login.html").render(
            title="Token", path="/login", scope=None, dagster_url=None
        )
        return Response(text, 200, {"Cache-Control": "no-store"}, HTML)

    # -- files -------------------------------------------------------------------------------------------------

    async def _static(self, request: Request) -> Response:
        body = self._by_url.get(request.url.path)
        if body is None:
            return self._nothing(request, 404)
        return send(request, body, FOREVER)

    async def _alive(self, request: Request) -> Response:
        return Response("ok\n", media_type="text/plain", headers={"Cache-Control": "no-store"})


def _read(conn: Connection, endpoint: endpoints.Endpoint, asked: asking.Asked) -> Any:
    return endpoints.answer(endpoint, conn, asked)


def _uuid(text: str) -> uuid.UUID:
    found: uuid.UUID = asking.ALERT.read(text)
    return found


def _static_files() -> Any:
    """(name, (url, body)) of every file: the url holds a hash, so that a browser keeps it for ever."""
    for file in sorted(resources.files("liq_pipeline.desk").joinpath("static").iterdir(), key=lambda one: one.name):
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            content = file.read_bytes()
            tag = hashlib.blake2b(content, digest_size=6).hexdigest()
            yield file.name, (f"/static/{tag}/{file.name}", Body.of(content, _TYPES[suffix], level=9))
