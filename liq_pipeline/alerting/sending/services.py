"""A message as each service wants it: Telegram's HTML, Discord's markdown; and who takes pictures.

Belongs here: escaping and emphasis. Does not: what is said (telling/), sending (channels.py).

What comes from outside (a symbol, a venue's name, a reason) must reach a person as it is written: an unescaped `<`
makes Telegram refuse the whole message, and `*** SIMULATED ***` would turn into italics on Discord. Slack and mail are
served by Apprise, which escapes for them.
"""

from __future__ import annotations

import html
import re
from typing import Any, Final

from liq_pipeline.alerting.telling.messages import Text

_MARKDOWN: Final = re.compile(r"([\\*_~`|>#\[\]])")
_ADDRESS: Final = re.compile(r"(https?://\S+)")
_TAKES_PICTURES: Final = frozenset({"tgram", "discord"})


def as_wanted(scheme: str, text: Text) -> tuple[str, str, str]:
    """(title, body, Apprise's format of the body) for a service, by its address' scheme."""
    if scheme == "tgram":
        return "", f"<b>{html.escape(text.title, quote=False)}</b><br/>{_lines(text.body)}", "html"
    if scheme == "discord":
        # Sent as text: Discord reads its own markdown in it, whatever it is called.
        return "", f"**{_plain(text.title)}**\n{_plain(text.body)}", "text"
    return text.title, text.body, "text"


def takes_pictures(scheme: str, plugin: Any) -> bool:
    """Whether a picture after the message reaches a person there. Slack takes one from a bot, not by webhook; programs
    (json://, xml://) would take it for another message."""
    if scheme == "slack":
        return str(getattr(plugin, "mode", "")) == "bot"
    return scheme in _TAKES_PICTURES


def _lines(body: str) -> str:
    return "<br/>".join(html.escape(line, quote=False) for line in body.splitlines())


def _plain(text: str) -> str:
    """Discord's markdown switched off, addresses left whole."""
    parts = _ADDRESS.split(text)
    return "".join(part if index % 2 else _MARKDOWN.sub(r"\\\1", part) for index, part in enumerate(parts))
