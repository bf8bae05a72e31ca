"""Variables that look like ours and are none: without this a typo in a name changes nothing and says nothing.

Belongs here: finding them and what was probably meant, and addresses that are none. Does not: other values
(settings.py refuses what cannot be used).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

from liq_pipeline.alerting.sending.channels import channel_name, is_address
from liq_pipeline.settings import Settings, variables

_OURS = frozenset({"LIQ_SUPERVISED_HOME", "LIQ_DAGSTER_PG_URL", "LIQ_ZYGOTE_SOCKET", "LIQ_SHARED_DATA"})
"""What the supervisor, the containers and the benches set for the program's own parts."""
_KEYS = ("COINGECKO_", "ETHERSCAN_", "TRONGRID_")


def misspelt(names: Iterable[str] | None = None) -> list[str]:
    """One sentence for each variable (default: of the environment) that starts like a setting and is none."""
    known = {*variables(), *_base_urls()}
    found = []
    for name in sorted(os.environ if names is None else names):
        is_ours = name in known or name in _OURS or name.startswith("LIQ_TEST_")
        if is_ours or not name.startswith(("LIQ_", *_KEYS)):
            continue
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
        hint = f"did you mean {near[0]}?" if near else "docs/settings.md lists them all."
        found.append(f"{name} is not a setting and changes nothing: {hint}")
    return found


def unusable_channels(settings: Settings) -> list[str]:
    """One sentence for each address of LIQ_ALERT_URLS that can never work; it is not shown, since it holds tokens."""
    return [
        f"{channel_name(url)} of LIQ_ALERT_URLS is no address that a channel can be made of, or its liq_ options cannot"
        " be read: nothing will ever arrive there."
        for url in settings.alert_urls
        if not is_address(url)
    ]


def _base_urls() -> set[str]:
    """LIQ_<SOURCE>_URL and LIQ_<SOURCE>_WS_URL of every source there is."""
    from liq_pipeline.sources.archives.binance import NAME as BINANCE_ARCHIVE
    from liq_pipeline.sources.registry import SOURCES

    streamed = {f"{name}_ws" for name, source in SOURCES.items() if source.ws_url}
    others = {"etherscan", "trongrid", BINANCE_ARCHIVE, "binance_por", "bybit_por"}
    return {f"LIQ_{name.upper()}_URL" for name in {*SOURCES, *streamed, *others}}
