"""The outside heartbeat: a service that expects a ping notices a dead machine, which cannot report itself.

Belongs here: one ping, healthchecks style. Does not: when to ping (the tick does, after its commit).
"""

from __future__ import annotations

from functools import partial
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from liq_pipeline.alerting.sending.outside import kept_logs, run_all
from liq_pipeline.settings import Settings

TIMEOUT_SECONDS: Final = 2.0


def ping(settings: Settings, ok: bool) -> bool | None:
    """GET LIQ_HEARTBEAT_URL, or its /fail when not ok. Never raises, takes at most 2 s.

    Returns None without a URL, else whether the service took it.
    """
    if settings.heartbeat_url is None:
        return None
    url = _url(settings.heartbeat_url.get_secret_value(), ok)
    return bool(run_all([partial(_get, url)], TIMEOUT_SECONDS)[0])


def _url(base: str, ok: bool) -> str:
    if ok:
        return base
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/fail"))


def _get(url: str) -> bool:
    import requests

    try:
        with kept_logs(), requests.get(url, timeout=TIMEOUT_SECONDS, stream=True) as answer:
            return answer.ok
    except requests.RequestException:
        # The heartbeat watches us from outside: its absence is the message. The tick goes on.
        return False
