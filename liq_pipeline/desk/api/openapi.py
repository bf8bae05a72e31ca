"""The description of the API (OpenAPI 3.1), made from the table of endpoints and the structs they answer with.

Belongs here: the document. Does not: the page around it (pages/). A snapshot test holds it: what it says is a promise.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from liq_pipeline.desk.api.answering import Answer, ErrorAnswer
from liq_pipeline.desk.api.asking import Parameter
from liq_pipeline.desk.api.endpoints import ENDPOINTS, Endpoint
from liq_pipeline.desk.read.health import Health

VERSION: Final = "1"
_TYPES: Final[dict[str, dict[str, Any]]] = {
    "text": {"type": "string", "maxLength": 100},
    "time": {"type": "string", "format": "date-time"},
    "cursor": {"type": "string"},
    "uuid": {"type": "string", "format": "uuid"},
}
_ERROR: Final = {
    "description": "What is wrong, in one form",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}},
}


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """Who has seen an alert."""

    by: str


def document() -> dict[str, Any]:
    """The whole description."""
    shapes = [endpoint.answers for endpoint in ENDPOINTS]
    wrapped = [Answer[shape] for shape in (*shapes, Health)]  # type: ignore[valid-type]
    schemas, components = msgspec.json.schema_components(
        [*wrapped, ErrorAnswer, Acknowledgement], ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {}
    for endpoint, schema in zip(ENDPOINTS, schemas, strict=False):
        paths[endpoint.url] = {"get": _operation(endpoint, schema)}
    paths["/api/v1/health"] = {
        "get": {
            "operationId": "health",
            "tags": ["health"],
            "summary": "What `liq status` says: health, problems, sources, ticks, lag, disk",
            "responses": _responses(schemas[len(ENDPOINTS)]),
        }
    }
    paths["/api/v1/alerts/{alert_id}/acknowledgement"] = {
        "post": {
            "operationId": "acknowledge",
            "tags": ["alerts"],
            "summary": "Mark an alert, and those it speaks for, as seen; the first to see it stays named",
            "parameters": [_parameter(Parameter("alert_id", "the alert's id", "uuid", "path"))],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Acknowledgement"}}},
            },
            "responses": {"200": {"description": "The alert as it is now"}, "default": _ERROR},
        }
    }
    paths["/api/v1/stream"] = {
        "get": {
            "operationId": "stream",
            "tags": ["stream"],
            "summary": "Server-sent events: hello, signals, alert, under_way, world; goes on after Last-Event-ID",
            "parameters": [
                {
                    "name": "Last-Event-ID",
                    "in": "header",
                    "required": False,
                    "description": "the id of the last event that was seen; no alert change after it is left out",
                    "schema": {"type": "string"},
                }
            ],
            "responses": {
                "200": {"description": "Events without end", "content": {"text/event-stream": {}}},
                "default": _ERROR,
            },
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "liq_pipeline",
            "version": VERSION,
            "description": (
                "Early warning of crypto liquidation cascades. Units stand in the names; null is unknown, never zero;"
                " times are UTC. Every answer names its world: is_real false is no market. Not financial advice."
            ),
            "license": {"name": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(endpoint: Endpoint, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": endpoint.name,
        "tags": [endpoint.group],
        "summary": endpoint.summary,
        "parameters": [_parameter(parameter) for parameter in endpoint.parameters],
        "responses": _responses(schema),
    }


def _responses(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "200": {"description": "The answer", "content": {"application/json": {"schema": schema}}},
        "304": {"description": "Nothing new since the answer of that ETag"},
        "default": _ERROR,
    }


def schema_of(parameter: Parameter) -> dict[str, Any]:
    """JSON Schema of one parameter's values."""
    schema: dict[str, Any]
    if parameter.kind == "integer":
        schema = {"type": "integer", "minimum": parameter.bounds[0], "maximum": parameter.bounds[1]}
    elif parameter.kind == "choice":
        schema = {"type": "string", "enum": list(parameter.choices)}
    else:
        schema = dict(_TYPES[parameter.kind])
    if parameter.default is not None:
        schema["default"] = parameter.default
    return schema


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.means,
        "schema": schema_of(parameter),
    }
