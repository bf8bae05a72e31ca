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
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from liq_pipeline.alerting.sending.answers import REFUSED, Heard, heard_answers
from liq_pipeline.alerting.sending.options import read_options
from liq_pipeline.alerting.sending.outside import kept_logs, run_all
from liq_pipeline.alerting.sending.services import as_wanted, takes_pictures
from liq_pipeline.alerting.sending.webhook import is_webhook, post, target
from liq_pipeline.alerting.telling.messages import Text
from liq_pipeline.errors import LiqError

_SHORTEST_SECRET: Final = 4
_LONGEST_ERROR: Final = 300
_MAIL: Final = frozenset({"mailto", "mailtos"})
_PATIENCE: Final = 3.0
"""A channel may take this many times the timeout in all: connecting, reading, and Apprise's own second try."""


class HasPicture(Protocol):
    """What a mail is given beside its words (pictures.py)."""

    @property
    def file(self) -> str:
        """Its name."""

    def png(self) -> bytes | None:
        """None if it cannot be drawn."""


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
    urls: Sequence[SecretStr],
    text: Text,
    timeout_seconds: float,
    payload: Mapping[str, Any] | None = None,
    notes: Mapping[str, str] | None = None,
    picture: HasPicture | None = None,
) -> list[ChannelResult]:
    """One attempt on each channel, all at once; nothing is raised for one that fails.

    payload: the record that a webhook of our own gets. notes: a line that one channel alone is told, by its name.
    picture: for a mail, which takes it with the words.
    timeout_seconds bounds connecting and each read; a channel that holds the line for three times as long has failed.
    """
    for url in urls:
        is_address(url)  # loading Apprise and a plugin takes a second or two, which are not the channel's
    results: dict[str, ChannelResult] = {}
    mails = [url for url in urls if picture is not None and _scheme(url) in _MAIL]
    # Nobody else waits for a drawing, and the time it takes is not the mail's.
    for wanted in ([url for url in urls if url not in mails], mails):
        png = picture.png() if picture is not None and wanted is mails and mails else None
        attached = None if png is None or picture is None else (png, picture.file)
        calls = []
        for url in wanted:
            note = (notes or {}).get(channel_name(url))
            told = text if note is None else replace(text, body=f"{note}\n{text.body}")
            calls.append(partial(_send, url, told, timeout_seconds, payload, attached))
        seconds = _PATIENCE * timeout_seconds
        for url, result in zip(wanted, run_all(calls, seconds), strict=True):
            late = ChannelResult(channel_name(url), ok=False, error=f"no answer within {seconds:g} s")
            results[channel_name(url)] = result or late
    return [results[channel_name(url)] for url in urls]


def _send(
    address: SecretStr,
    text: Text,
    timeout_seconds: float,
    payload: Mapping[str, Any] | None,
    attached: tuple[bytes, str] | None,
) -> ChannelResult:
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
    title, body, wanted = as_wanted(_scheme(url), text)
    given: dict[str, Any] = {"title": title, "body": body, "body_format": wanted}
    if attached is not None:
        given["attach"] = _attachment(*attached)
    return _notify(name, url, timeout_seconds, notify_type=text.notify_type, **given)


def takes_picture_after(address: SecretStr) -> bool:
    """Whether a picture sent there after the words stands below them. A mail has it already."""
    import apprise

    try:
        url = read_options(address).url
    except LiqError:
        return False
    if is_webhook(url) or _scheme(url) in _MAIL:
        return False
    with kept_logs():
        plugin = apprise.Apprise.instantiate(url.get_secret_value(), suppress_exceptions=True)
    return plugin is not None and takes_pictures(_scheme(url), plugin)


def send_picture(address: SecretStr, png: bytes, file: str, timeout_seconds: float) -> ChannelResult:
    """One attempt to send a picture, after the words."""
    url = read_options(address).url
    return _notify(channel_name(address), url, timeout_seconds, body="", attach=_attachment(png, file))


def _attachment(png: bytes, file: str) -> Any:
    import apprise
    from apprise.attachment.memory import AttachMemory

    memory: Any = AttachMemory  # it carries no types
    return apprise.AppriseAttachment(memory(content=png, name=file, mimetype="image/png"))


def _notify(name: str, url: SecretStr, timeout_seconds: float, **given: Any) -> ChannelResult:
    """One call of Apprise, which answers with a bare false: the reason is in what it logs and in what it was told."""
    import apprise

    with kept_logs() as said, heard_answers() as heard:
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
            is_sent = plugin.notify(**given)
        except Exception as error:  # a plugin's fault is that channel's failure, never the delivery's
            return ChannelResult(name, ok=False, error=_scrub(f"{type(error).__name__}: {error}", url))
    if is_sent:
        return ChannelResult(name, ok=True, error=None)
    return _failure(name, _scrub("; ".join(said) or "the service refused the message", url), heard)


def _failure(name: str, reason: str, heard: Sequence[Heard]) -> ChannelResult:
    """What the last answers say: whether we were turned away for good, and how long to leave the service alone."""
    statuses = {answer.status for answer in heard if answer.status >= 400}
    waits = [answer.retry_after_seconds for answer in heard if answer.retry_after_seconds is not None]
    is_final = bool(statuses) and statuses <= REFUSED
    return ChannelResult(name, ok=False, error=reason, retry_after_seconds=max(waits, default=None), is_final=is_final)


def _scheme(url: SecretStr) -> str:
    return url.get_secret_value().partition("://")[0].lower()


def _scrub(text: str, url: SecretStr) -> str:
    """The text without any part of the URL behind its scheme."""
    secret = url.get_secret_value().partition("://")[2]
    parts = {part for raw in (secret, unquote(secret)) for part in re.split(r"[/:@?&=,;#]", raw)}
    for part in sorted({secret, *parts}, key=len, reverse=True):
        if len(part) >= _SHORTEST_SECRET:
            text = text.replace(part, "***")
    return text[:_LONGEST_ERROR]
