"""Asking a source over HTTP: bounded, and with one clear outcome for everything that can go wrong.

Belongs here: sending one request, the time it may take, and which kind of failure an answer is.
Does not: what the answer means (live/), budgets (limits.py), or when to ask again (sources/polling/round.py).

Kinds of failure:
* RefusedError: the source will not serve us (401, 403, 418, 451). Asking again soon is useless or makes it worse; the
  source is DOWN with the reason, and one slow probe looks whether that has changed.
* RejectedError: this request is wrong for good (another 4xx); UnknownSymbol is the usual case. The source is fine.
* TransientError: 408, 425, 429, 5xx, timeouts, resets, truncated bodies, HTML where JSON was due. Asked again with
  backoff, and not before Retry-After.

Messages name the source and never the URL: keys travel in queries and in the paths of RPC nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter

from liq_pipeline.errors import LiqError

REFUSED_STATUS = frozenset({401, 403, 418, 451})
TRANSIENT_STATUS = frozenset({408, 425, 429})
MAX_BODY_BYTES = 64 * 1024 * 1024
USER_AGENT = "liq_pipeline (liquidation cascade monitor)"
LONGEST_RETRY_AFTER_SECONDS = 3600.0
_CHUNK_BYTES = 1 << 16


class SourceError(LiqError):
    """A source did not give what was asked; the subclass says what that means for the next request."""

    def __init__(self, source: str, reason: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{source}: {reason}", exit_code=1)
        self.source = source
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class RefusedError(SourceError):
    """The source refuses us: DOWN until a slow probe is answered."""


class RejectedError(SourceError):
    """The source refuses this one request, and will do so again."""


class UnknownSymbolError(RejectedError):
    """The source does not list this symbol."""


class TransientError(SourceError):
    """Likely to pass: asked again with backoff."""


class NoTimeLeftError(TransientError):
    """The caller's deadline came before the source had a full request's time: this says nothing about the source."""


class ThrottledError(TransientError):
    """We asked too often; the scopes of the request rest until retry_after_seconds have passed."""


class BadAnswerError(TransientError):
    """An answer came, but not in the form the source promises: truncated, HTML, other fields."""


@dataclass(frozen=True)
class Request:
    """One request, without host and secrets. costs: {scope of limits.py: cost}."""

    path: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    body: Any = None
    """A JSON body (object, or list for a JSON-RPC batch) makes it a POST."""
    costs: Mapping[str, int] = field(default_factory=dict)
    is_text: bool = False
    """The answer is a text such as CSV: its payload is a str. HTML still means that something else answered."""
    is_binary: bool = False
    """The answer is a file such as a zip: its payload is None and `body` holds it. HTML means the same as above."""


@dataclass(frozen=True)
class Answer:
    """A decoded JSON answer with the times it was asked for and received (UTC)."""

    payload: Any
    body: bytes
    sent_at: datetime
    received_at: datetime


Classify = Callable[[int, Any], SourceError | None]
"""(HTTP status, decoded body, or its text if it is no JSON) -> what the source's own error body means; None: judge by
the status."""

Reserve = Callable[[Mapping[str, int]], bool]
"""Takes costs ({scope: cost}) from their budgets; False if they have no room."""

OnAnswer = Callable[[str, Request, Answer], None]
"""Called with (source, request, answer) for every answer that decoded: where recordings are made."""


class HttpClient:
    """One source's HTTP side: base URL, secrets, and the source's own error forms. Threads may share it."""

    def __init__(
        self,
        source: str,
        base_url: str,
        *,
        request_seconds: float,
        headers: Mapping[str, str] | None = None,
        secret_params: Mapping[str, str] | None = None,
        classify: Classify | None = None,
        on_answer: OnAnswer | None = None,
        connections: int = 12,
    ) -> None:
        """request_seconds bounds one request from sending to the last byte; secret_params join every query."""
        self.source = source
        self._base_url = base_url.rstrip("/")
        self._request_seconds = request_seconds
        self._secret_params = dict(secret_params or {})
        self._classify = classify
        self._on_answer = on_answer
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json", **(headers or {})})
        # Retries are decided here, by kind of failure: the adapter must not add its own.
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections, max_retries=0)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def ask(
        self,
        request: Request,
        *,
        deadline: float | None = None,
        attempts: int = 2,
        again: Reserve | None = None,
    ) -> Answer:
        """Send and decode. deadline: time.monotonic() by which an answer is of use; attempts at passing failures.

        The caller has reserved the first attempt's costs; `again` reserves those of each further one, which is not
        made where that fails: a venue in trouble would else be asked for twice of what it grants. A second attempt is
        made only while at least half of a request's time is left, so that it can succeed. Raises a SourceError.
        """
        while True:
            attempts -= 1
            try:
                return self._ask_once(request, deadline)
            except (ThrottledError, NoTimeLeftError):
                raise
            except TransientError:
                left = None if deadline is None else deadline - time.monotonic()
                if attempts <= 0 or (left is not None and left < self._request_seconds / 2):
                    raise
                if request.costs and (again is None or not again(request.costs)):
                    raise

    def _ask_once(self, request: Request, deadline: float | None) -> Answer:
        seconds = self._request_seconds
        if deadline is not None:
            seconds = min(seconds, deadline - time.monotonic())
            if seconds <= 0:
                raise NoTimeLeftError(self.source, "no time was left to ask")
        until = time.monotonic() + seconds
        sent_at = datetime.now(UTC)
        try:
            response = self._session.request(
                "GET" if request.body is None else "POST",
                self._base_url + request.path,
                params={**request.params, **self._secret_params},
                json=request.body,
                timeout=seconds,
                stream=True,
                allow_redirects=False,
            )
            with response:
                body = self._read(response, until, seconds)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            kind = TransientError if seconds >= self._request_seconds else NoTimeLeftError
            raise kind(self.source, f"no answer within {seconds:.1f} s") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise TransientError(self.source, f"the connection failed ({_name_of(error)})") from None
        received_at = datetime.now(UTC)
        payload = self._judge(request, response, body)
        answer = Answer(payload=payload, body=body, sent_at=sent_at, received_at=received_at)
        if self._on_answer is not None:
            self._on_answer(self.source, request, answer)
        return answer

    def _read(self, response: requests.Response, until: float, seconds: float) -> bytes:
        """The body, read piece by piece: the socket timeout alone would let a trickling server hold us for ever."""
        parts: list[bytes] = []
        size = 0
        while True:
            part = response.raw.read1(_CHUNK_BYTES, decode_content=True)
            if not part:
                if response.raw.length_remaining:
                    raise TransientError(self.source, "the answer was cut short")
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise BadAnswerError(self.source, f"the answer is larger than {MAX_BODY_BYTES // 2**20} MB")
            if time.monotonic() > until:
                kind = TransientError if seconds >= self._request_seconds else NoTimeLeftError
                raise kind(self.source, f"the answer took too long to arrive: more than {seconds:.1f} s")

    def _judge(self, request: Request, response: requests.Response, body: bytes) -> Any:
        status = response.status_code
        payload: Any = None
        undecodable: str | None = None
        try:
            if request.is_binary and status < 300:
                undecodable = "HTML" if body.lstrip()[:1] == b"<" else None
            else:
                payload = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            payload = body.decode(errors="replace") if request.is_text else body[:1000].decode(errors="replace")
            if payload.lstrip().startswith("<"):
                undecodable = "HTML"
            elif not request.is_text:
                undecodable = "not JSON, or cut short"
        retry_after = retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
        if self._classify is not None:
            error = self._classify(status, payload)
            if error is not None:
                if error.retry_after_seconds is None:
                    error.retry_after_seconds = retry_after
                raise error
        if status in REFUSED_STATUS:
            raise RefusedError(self.source, f"HTTP {status}{_meaning(status)}", retry_after_seconds=retry_after)
        if status == 429:
            raise ThrottledError(self.source, "HTTP 429: asked too often", retry_after_seconds=retry_after)
        if status in TRANSIENT_STATUS or status >= 500:
            raise TransientError(self.source, f"HTTP {status}", retry_after_seconds=retry_after)
        if status >= 400:
            raise RejectedError(self.source, f"HTTP {status} for {request.path}")
        if status >= 300:
            raise RejectedError(self.source, f"HTTP {status}: the source has moved; set LIQ_{self.source.upper()}_URL")
        if undecodable is not None:
            raise BadAnswerError(self.source, f"the answer is {undecodable}")
        return payload


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Seconds in a Retry-After header (a number or an HTTP date), at most an hour; None if absent or unreadable."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - now).total_seconds()
        except (TypeError, ValueError):
            return None
    if seconds != seconds:  # "nan" is a number to float()
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _meaning(status: int) -> str:
    return {
        401: ": the key is missing or wrong",
        403: ": access is forbidden from here",
        418: ": this address is banned for a while",
        451: ": the source does not serve this place",
    }.get(status, "")


def _name_of(error: BaseException) -> str:
    """The innermost cause's name: it says reset, refused or unresolved, and never a URL."""
    names = [type(error).__name__]
    cause: BaseException | None = error
    while cause is not None:
        names.append(type(cause).__name__)
        reason = getattr(cause, "reason", None)
        nested = next((arg for arg in getattr(cause, "args", ()) if isinstance(arg, BaseException)), None)
        cause = reason if isinstance(reason, BaseException) else nested or cause.__cause__
    return "the name of its host cannot be resolved" if names[-1] == "gaierror" else names[-1]
