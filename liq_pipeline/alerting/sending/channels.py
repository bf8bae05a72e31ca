"""One message through channels, by Apprise.

Belongs here: sending, what a channel is called, and keeping its secrets out of every text. Does not: which message goes
where and when (delivery.py).

A channel's URL holds secrets (bot tokens, webhook keys). It never leaves this module: rows and reports name a channel
by its scheme and a hash, and errors are scrubbed of every part of the URL.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from liq_pipeline.alerting.sending.options import read_options
from liq_pipeline.alerting.sending.outside import kept_logs, run_all
from liq_pipeline.alerting.sending.webhook import is_webhook, post, target
from liq_pipeline.alerting.telling.messages import Text
from liq_pipeline.errors import LiqError

_SHORTEST_SECRET: Final = 4
_LONGEST_ERROR: Final = 300
_PATIENCE: Final = 3.0
"""A channel may take this many times the timeout in all: connecting, reading, and Apprise's own second try."""


@dataclass(frozen=True, slots=True)
class ChannelResult:
    """What became of one attempt. error is None when it was sent."""

    channel: str
    ok: bool
    error: str | None
    retry_after_seconds: float | None = None
    """How long the service asks to be left alone."""
    is_final: bool = False
    """Trying again would be answered the same: a wrong token, an address that is none."""


def channel_name(url: SecretStr) -> str:
    """Scheme and hash, for example tgram-1f2e3d4c."""
    secret = url.get_secret_value()
    scheme = re.match(r"[a-z0-9+.-]{1,20}(?=://)", secret.lower())
    return f"{scheme.group() if scheme else 'unknown'}-{hashlib.sha256(secret.encode()).hexdigest()[:8]}"


def is_address(url: SecretStr) -> bool:
    """Whether a channel can be made of it: its own options, and what Apprise or the webhook wants. Nothing is sent."""
    import apprise

    try:
        plain = read_options(url).url
        if is_webhook(plain):
            target(plain)
            return True
    except LiqError:
        return False
    with kept_logs():
        return apprise.Apprise.instantiate(plain.get_secret_value(), suppress_exceptions=True) is not None


def send_all(
    urls: Sequence[SecretStr], text: Text, timeout_seconds: float, payload: Mapping[str, Any] | None = None
) -> list[ChannelResult]:
    """One attempt on each channel, all at once; nothing is raised for one that fails.

    payload: the record that a webhook of our own gets. timeout_seconds bounds connecting and each read; a channel that
    holds the line for three times as long has failed.
    """
    seconds = _PATIENCE * timeout_seconds
    results = run_all([partial(_send, url, text, timeout_seconds, payload) for url in urls], seconds)
    return [
        result or ChannelResult(channel_name(url), ok=False, error=f"no answer within {seconds:g} s")
        for url, result in zip(urls, results, strict=True)
    ]


def _send(address: SecretStr, text: Text, timeout_seconds: float, payload: Mapping[str, Any] | None) -> ChannelResult:
    import apprise  # its hundred plugins take a while to load: only where something is sent

    name = channel_name(address)
    try:
        url = read_options(address).url
    except LiqError as error:
        return ChannelResult(name, ok=False, error=str(error), is_final=True)
    if is_webhook(url):
        whole = payload or {"id": name, "type": "test", "title": text.title, "body": text.body}
        with kept_logs():
            answer = post(url, whole, timeout_seconds)
        return ChannelResult(name, answer.error is None, answer.error, answer.retry_after_seconds, answer.is_final)
    # Apprise answers with a bare false; the reason is in what it logs.
    with kept_logs() as said:
        try:
            plugin = apprise.Apprise.instantiate(url.get_secret_value(), suppress_exceptions=True)
            if plugin is None:
                reason = "LIQ_ALERT_URLS holds something that is no Apprise URL"
                return ChannelResult(name, ok=False, error=reason, is_final=True)
            plugin.socket_connect_timeout = timeout_seconds
            plugin.socket_read_timeout = timeout_seconds
            if "overflow" not in parse_qs(urlsplit(url.get_secret_value()).query):
                # Apprise's own default sends a text as long as it is, and a service then refuses it whole: Discord
                # takes 2,000 characters, and a blind monitor of eight symbols has more to say.
                plugin.overflow_mode = apprise.OverflowMode.SPLIT
            is_sent = plugin.notify(
                title=text.title, body=text.body, notify_type=text.notify_type, body_format=apprise.NotifyFormat.TEXT
            )
        except Exception as error:  # a plugin's fault is that channel's failure, never the delivery's
            return ChannelResult(name, ok=False, error=_scrub(f"{type(error).__name__}: {error}", url))
    if is_sent:
        return ChannelResult(name, ok=True, error=None)
    reason = _scrub("; ".join(said) or "the service refused the message", url)
    return ChannelResult(name, ok=False, error=reason, is_final=_is_refused(reason))


def _is_refused(reason: str) -> bool:
    """Whether the service turned us away for good, by the status that Apprise writes into its log."""
    found = re.search(r"error=(\d{3})", reason)
    return found is not None and int(found.group(1)) in (401, 403, 404)


def _scrub(text: str, url: SecretStr) -> str:
    """The text without any part of the URL behind its scheme."""
    secret = url.get_secret_value().partition("://")[2]
    parts = {part for raw in (secret, unquote(secret)) for part in re.split(r"[/:@?&=,;#]", raw)}
    for part in sorted({secret, *parts}, key=len, reverse=True):
        if len(part) >= _SHORTEST_SECRET:
            text = text.replace(part, "***")
    return text[:_LONGEST_ERROR]
