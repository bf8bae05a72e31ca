"""Our own webhook: one JSON object per message, signed, for programs.

Belongs here: the request and what its answer means. Does not: when it is sent, or tried again (delivery.py).

    liq+https://host/path?secret=KEY     (liq+http for this machine's own addresses only)

The body is the message's record (docs/alerts.md) with its receipt. `X-Liq-Signature` is `sha256=` and the HMAC-SHA256
of `timestamp.body` under the key, `X-Liq-Timestamp` the seconds since 1970 at sending, `Idempotency-Key` the message's
id: the same message sent again has the same. Redirects are not followed: they would carry the message to a stranger.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import requests
from pydantic import SecretStr

from liq_pipeline.alerting.sending.answers import REFUSED, retry_after
from liq_pipeline.errors import LiqError

SCHEMES: Final = {"liq+https": "https", "liq+http": "http"}


@dataclass(frozen=True, slots=True)
class Answer:
    """error: None when it was taken. retry_after_seconds: what the other side asks for. is_final: never to be
    retried."""

    error: str | None
    retry_after_seconds: float | None = None
    is_final: bool = False


def is_webhook(url: SecretStr) -> bool:
    """Whether the address is of this kind."""
    return url.get_secret_value().partition("://")[0].lower() in SCHEMES


def target(url: SecretStr) -> tuple[str, bytes]:
    """(address to post to, key). Raises LiqError with one sentence, without the address, if it cannot be used."""
    parts = urlsplit(url.get_secret_value())
    scheme = SCHEMES[parts.scheme.lower()]
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    secret = next((value for name, value in pairs if name == "secret"), "")
    if not parts.hostname or not secret:
        raise LiqError("a liq+https:// channel needs a host and ?secret=KEY")
    if scheme == "http" and not _is_here(parts.hostname):
        raise LiqError("a liq+http:// channel may name this machine only: use liq+https:// for another")
    rest = urlencode([(name, value) for name, value in pairs if name != "secret"])
    return urlunsplit((scheme, parts.netloc, parts.path or "/", rest, "")), secret.encode()


def post(url: SecretStr, payload: Mapping[str, Any], timeout_seconds: float) -> Answer:
    """One attempt; nothing is raised."""
    try:
        address, key = target(url)
    except LiqError as error:
        return Answer(str(error), is_final=True)
    body = msgspec.json.encode(payload)
    stamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": str(payload["id"]),
        "X-Liq-Timestamp": stamp,
        "X-Liq-Signature": signature(key, stamp, body),
    }
    try:
        answer = requests.post(address, data=body, headers=headers, timeout=timeout_seconds, allow_redirects=False)
    except requests.Timeout:
        return Answer(f"no answer within {timeout_seconds:g} s")
    except requests.RequestException as error:
        # Its text holds the whole address.
        return Answer(f"cannot be reached ({type(error).__name__})")
    with answer:
        if answer.status_code < 300:
            return Answer(None)
        if answer.is_redirect or answer.status_code < 400:
            return Answer(f"HTTP {answer.status_code}: a redirect, which is not followed", is_final=True)
        wait = retry_after(answer.headers, None)
        return Answer(f"HTTP {answer.status_code}", wait, is_final=answer.status_code in REFUSED)


def signature(key: bytes, timestamp: str, body: bytes) -> str:
    """What a receiver computes to know that a message is ours and untouched."""
    return "sha256=" + hmac.new(key, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
