"""What a service answered, for libraries that say no more than yes or no.

Belongs here: hearing the HTTP answers of one thread, and the wait that a service asks for in them. Does not: sending.

Apprise returns a bare false: a 429 with its Retry-After looks like a wrong token. Its plugins go through `requests`,
whose one method through which every request passes is listened to here; what it does stays as it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import requests

REFUSED: Final = frozenset({400, 401, 403, 404, 405, 410, 422})
"""Asking again with the same words and the same key would be answered the same."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer. retry_after_seconds: what the other side asks for."""

    status: int
    retry_after_seconds: float | None


@contextmanager
def heard_answers() -> Iterator[list[Heard]]:
    """The answers that this thread gets meanwhile, in order."""
    _listen()
    heard: list[Heard] = []
    _thread.heard = heard
    try:
        yield heard
    finally:
        _thread.heard = None


def retry_after(headers: Mapping[str, str], body: Any) -> float | None:
    """In seconds: the header, in seconds or as a date; else Telegram's and Discord's own field."""
    given = _seconds(headers.get("Retry-After"))
    if given is not None or not isinstance(body, dict):
        return given
    parameters = body.get("parameters")
    for place in (parameters if isinstance(parameters, dict) else {}, body):
        value = place.get("retry_after")
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return float(value)
    return None


def _seconds(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


_thread: Final = threading.local()
_once: Final = threading.Lock()


def _listen() -> None:
    """Put the listener in place, once."""
    with _once:
        plain = requests.Session.send
        if getattr(plain, "is_heard", False):
            return

        def send(self: requests.Session, *arguments: Any, **named: Any) -> requests.Response:
            answer = plain(self, *arguments, **named)
            heard: list[Heard] | None = getattr(_thread, "heard", None)
            if heard is not None:
                heard.append(Heard(answer.status_code, retry_after(answer.headers, _json(answer))))
            return answer

        send.is_heard = True  # type: ignore[attr-defined]
        requests.Session.send = send  # type: ignore[method-assign]


def _json(answer: requests.Response) -> Any:
    if answer.status_code != 429:
        return None
    try:
        return answer.json()
    except ValueError:
        return None
