"""The picture to a message: drawn once, sent to the channels that took the words and take pictures.

Belongs here: which message has a picture, and one attempt at each channel. Does not: drawing
(alerting/telling/chart.py), words.

The words go first and alone: a picture that cannot be drawn or is refused costs nobody the message. So it is tried once
and not again, and what went wrong is in the report. A mail takes it with the words, since two mails are one too many.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from pydantic import SecretStr

from liq_pipeline.alerting.last_hours import last_hours
from liq_pipeline.alerting.sending.channels import ChannelResult, channel_name, send_picture, takes_picture_after
from liq_pipeline.alerting.sending.outside import run_all
from liq_pipeline.alerting.telling.chart import draw
from liq_pipeline.store.connection import connect

SHOWN_KINDS: Final = frozenset({"opened", "spread", "escalated", "resolved"})
"""Not for those that joined or eased: a phone that gets a picture a minute is put away."""
_PATIENCE_SECONDS: Final = 20.0


class Picture:
    """A message's picture, drawn when it is first asked for. Threads may share it."""

    def __init__(self, database_url: str, payload: Mapping[str, Any]) -> None:
        self._database_url, self._payload = database_url, payload
        self._lock = threading.Lock()
        self._is_drawn = False
        self._png: bytes | None = None
        self.error: str | None = None

    @property
    def file(self) -> str:
        """What it is called."""
        return f"{self._payload['chart']['symbol']}.png"

    @property
    def title(self) -> str:
        """Of the message."""
        return str(self._payload["title"])

    def png(self) -> bytes | None:
        """None if it cannot be drawn; `error` then says why."""
        with self._lock:
            if not self._is_drawn:
                self._is_drawn = True
                try:
                    self._png = self._drawn()
                except Exception as error:  # a fault in drawing is the picture's, never the delivery's
                    self.error = f"the picture cannot be drawn ({type(error).__name__}: {error})"
            return self._png

    def _drawn(self) -> bytes:
        payload, chart = self._payload, self._payload["chart"]
        started = chart.get("started_at")
        with connect(self._database_url, application_name="liq picture") as conn:
            shown = last_hours(
                conn,
                payload["world"],
                chart["symbol"],
                datetime.fromisoformat(payload["time"]),
                started_at=None if started is None else datetime.fromisoformat(started),
                mark="" if payload["is_real"] else payload["world"].split("/")[0].upper(),
            )
        return draw(shown, self.title)


def has_picture(payload: Mapping[str, Any]) -> bool:
    """Whether the message is about a move of a price that can be shown."""
    return bool(payload.get("chart")) and payload["kind"] in SHOWN_KINDS


def send_after(picture: Picture, urls: Sequence[SecretStr], timeout_seconds: float) -> list[str]:
    """One attempt at each of the channels that show a picture below the words; what went wrong, a sentence each."""
    shown = [url for url in urls if takes_picture_after(url)]
    png = picture.png() if shown else None
    if png is None:
        return [] if picture.error is None else [picture.error]
    calls = [partial(send_picture, url, png, picture.file, timeout_seconds) for url in shown]
    late = f"the picture was not taken within {_PATIENCE_SECONDS:g} s"
    results = [
        result or ChannelResult(channel_name(url), ok=False, error=late)
        for url, result in zip(shown, run_all(calls, _PATIENCE_SECONDS), strict=True)
    ]
    return [f"{result.channel}: the picture: {result.error}" for result in results if not result.ok]
