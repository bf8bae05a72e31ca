"""Local servers that speak Telegram, Discord, Slack and SMTP, as far as a message with a picture needs it.

Belongs here: receiving, parsing what each would parse, and failing as each fails. Does not: assertions.
"""

from __future__ import annotations

import email
import email.policy
import json
import re
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler
from typing import Any

from liq_pipeline_tests.alert_receiver import serving

PNG = b"\x89PNG\r\n\x1a\n"
TELEGRAM_TAGS = frozenset({"b", "strong", "i", "em", "u", "s", "code", "pre", "a", "blockquote", "tg-spoiler"})


@dataclass
class Services:
    """What arrived at the HTTP services, and how the next requests are answered.

    texts: (service, text as it was sent). pictures: (service, bytes). fail: status and headers, body; None: well.
    """

    port: int = 0
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    fail: tuple[int, Mapping[str, str], Any] | None = None
    fail_pictures: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def services() -> Iterator[Services]:
    """A running server on a free port: /bot<token>/..., /discord/..., /slack/... and /api/... of Slack's bots."""
    state = Services()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            service = self.path.split("/")[1]
            service = "telegram" if service.startswith("bot") else service
            is_upload = "multipart" in (self.headers.get("Content-Type") or "")
            fields = _parts(self.headers.get("Content-Type") or "", body)
            state.requests.append((self.path, fields))
            status, headers, answer = state.fail or (200, {}, _well(service))
            if is_upload and state.fail_pictures is not None:
                status, headers, answer = state.fail_pictures, {}, {}
            if status < 400:
                state.pictures += [(service, value) for value in fields.values() if _is_png(value)]
                text = _text(service, fields)
                if text:
                    state.texts.append((service, text))
            sent = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with serving(Handler) as state.port:
        yield state


def _well(service: str) -> Any:
    return b"ok" if service == "slack" else {"ok": True, "result": {"message_id": 1}}


def _is_png(value: object) -> bool:
    return isinstance(value, bytes) and value.startswith(PNG)


def _text(service: str, fields: Mapping[str, Any]) -> str:
    if service == "telegram":
        return str(fields.get("text") or fields.get("caption") or "")
    if service == "discord":
        return str(fields.get("content") or "")
    return "\n".join(f"{one['title']}\n{one['text']}" for one in fields.get("attachments", []))


def _parts(kind: str, body: bytes) -> dict[str, Any]:
    """The fields of a JSON or multipart request."""
    if "multipart" not in kind:
        loaded: dict[str, Any] = json.loads(body or b"{}")
        return loaded
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body, policy=email.policy.HTTP)
    found: dict[str, Any] = {}
    for part in message.iter_parts() if isinstance(message, EmailMessage) else ():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        raw = content if isinstance(content, bytes) else b""
        found[str(name)] = raw if _is_png(raw) else raw.decode(errors="replace")
    return found


@dataclass
class Mailbox:
    """The mails that arrived."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """A running SMTP server that takes everything."""
    state = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            for raw in self.rfile:
                verb = raw.strip().upper()
                if verb.startswith(b"EHLO"):
                    self.wfile.write(b"250-here\r\n250 AUTH PLAIN\r\n")
                    continue
                if verb.startswith(b"AUTH"):
                    self.wfile.write(b"235 in\r\n")
                    continue
                if verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines = []
                    for line in self.rfile:
                        if line.rstrip(b"\r\n") == b".":
                            break
                        lines.append(line[1:] if line.startswith(b"..") else line)
                    mail = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                    if isinstance(mail, EmailMessage):
                        state.mails.append(mail)
                elif verb == b"QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                self.wfile.write(b"250 ok\r\n")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class TelegramText(HTMLParser):
    """Reads a text as Telegram does: its own tags only, each closed, `<`, `>` and `&` escaped. `shown` is what a person
    sees; ValueError is Telegram's refusal ("can't parse entities")."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.shown, self._open = "", list[str]()
        for stray in re.findall(r"&(?!lt;|gt;|amp;|quot;|#\d+;)", text):
            raise ValueError(f"an unescaped {stray}")
        self.feed(text)
        self.close()
        if self._open:
            raise ValueError(f"{self._open} is never closed")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TELEGRAM_TAGS:
            raise ValueError(f"unsupported tag {tag}")
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            raise ValueError(f"unexpected end of {tag}")

    def handle_data(self, data: str) -> None:
        self.shown += data
