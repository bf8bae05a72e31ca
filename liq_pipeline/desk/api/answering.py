"""How an answer is put: the envelope with world and time, JSON, ETag, gzip, and the one form of errors.

Belongs here: bytes and headers. Does not: what is answered (endpoints.py).
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from liq_pipeline.desk.api.asking import AskError
from liq_pipeline.desk.read.database import TooLongError, UnavailableError
from liq_pipeline.desk.read.scope import Mode, NoWorldError, Scope
from liq_pipeline.desk.read.units import Time
from liq_pipeline.errors import LiqError

JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"
_SMALL: Final = 860
"""Bytes below which gzip gains nothing."""

_LARGE: Final = 16_384
"""Bytes from which on the time that more packing takes is worth more than what it saves."""

T = TypeVar("T")


class Answer(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What every answer holds besides its data: which world it speaks of, and up to when."""

    world: str
    mode: Mode
    is_real: bool
    """false: invented or played; nothing in it says anything about the market of now"""
    as_of: Time | None
    """the newest scored point; null: none yet"""
    data: T
    next_cursor: str | None = None
    """give it as `cursor` for the next page; null: this was the last"""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a question, or why it cannot be answered now."""

    status: int
    code: str
    """one word for programs"""
    message: str
    """one sentence for people"""


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The form of every answer that is none."""

    error: Problem


@dataclass(frozen=True)
class Body:
    """Bytes that are ready to be sent, in both encodings, with their tag."""

    plain: bytes
    packed: bytes | None
    etag: str
    content_type: str
    status: int = 200

    @classmethod
    def of(cls, plain: bytes, content_type: str, status: int = 200, *, level: int | None = None) -> Body:
        """Pack and tag. level: of gzip; by the size otherwise."""
        level = level or (1 if len(plain) > _LARGE else 6)
        packed = gzip.compress(plain, level, mtime=0) if len(plain) > _SMALL else None
        digest = hashlib.blake2b(plain, digest_size=12).hexdigest()
        return cls(plain, packed, f'W/"{digest}"', content_type, status)

    @property
    def size(self) -> int:
        """Bytes it takes in memory."""
        return len(self.plain) + len(self.packed or b"")


def envelope(of: Scope, data: Any, next_cursor: str | None = None) -> Answer[Any]:
    """The data with its world and time."""
    return Answer(world=of.world, mode=of.mode, is_real=of.is_real, as_of=of.as_of, data=data, next_cursor=next_cursor)


def json_body(value: Any) -> Body:
    """Any struct as JSON: times in RFC 3339, ids and decimals as texts."""
    return Body.of(msgspec.json.encode(value, enc_hook=str), JSON)


def send(request: Request, body: Body, cache: str = "no-cache") -> Response:
    """The response: 304 where the caller has it, gzip where the caller can."""
    headers = {"ETag": body.etag, "Cache-Control": cache, "Vary": "Accept-Encoding", "Content-Type": body.content_type}
    if body.status == 200 and _has(request.headers.get("if-none-match", ""), body.etag):
        del headers["Content-Type"]
        return Response(status_code=304, headers=headers)
    if body.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(body.packed, body.status, {**headers, "Content-Encoding": "gzip"})
    return Response(body.plain, body.status, headers)


def problem(error: Exception) -> Problem:
    """What the caller is told of an error; nothing that the program did not word itself."""
    if isinstance(error, AskError):
        return Problem(status=error.status, code=error.code, message=_sentence(error))
    if isinstance(error, NoWorldError):
        return Problem(status=404, code="no_world", message=_sentence(error))
    if isinstance(error, TooLongError):
        return Problem(status=503, code="too_long", message=_sentence(error))
    if isinstance(error, UnavailableError):
        return Problem(status=503, code="unavailable", message=_sentence(error))
    if isinstance(error, LiqError):
        return Problem(status=503, code="unavailable", message=_sentence(error))
    return Problem(status=500, code="fault", message="This is a fault of the program; its log says more.")


def send_problem(found: Problem) -> Response:
    """An error in the one form of errors."""
    headers = {"Cache-Control": "no-store"}
    if found.status in (429, 503):
        headers["Retry-After"] = "2"
    return Response(msgspec.json.encode(ErrorAnswer(error=found)), found.status, headers, JSON)


def _has(asked: str, etag: str) -> bool:
    return asked.strip() == "*" or etag.removeprefix("W/") in asked


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
