"""Which sources of history there are, by name, and opening one.

Belongs here: the list. Does not: any source.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from liq_pipeline.domain.chains import CHAINS, TRONGRID, chain_of, node_venue
from liq_pipeline.errors import LiqError
from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access.limits import Budgets
from liq_pipeline.sources.archives import binance
from liq_pipeline.sources.archives.chain import ChainHistory
from liq_pipeline.sources.archives.files import ArchiveFiles
from liq_pipeline.sources.archives.pieces import HistorySource
from liq_pipeline.sources.archives.venue import VenueHistory

CHAIN_SOURCES = registry.all_flow_venues()
ADMIT_SECONDS = 600.0


def names() -> tuple[str, ...]:
    """What `liq backfill --source` may name."""
    return (binance.NAME, *(name for name, source in registry.SOURCES.items() if source.histories), *CHAIN_SOURCES)


@contextmanager
def open_source(
    name: str, settings: Settings, database_url: str, symbols: Sequence[str] = ()
) -> Iterator[HistorySource]:
    """The source of that name, ready to read these coins (none: LIQ_SYMBOLS).

    Raises LiqError if there is no such source or its key is missing.
    """
    if name == binance.NAME:
        budgets, lock = Budgets(database_url, {binance.REQUESTS.scope: binance.REQUESTS}), threading.Lock()

        def acquire() -> None:
            with lock:
                budgets.acquire({binance.REQUESTS.scope: 1}, timeout_seconds=ADMIT_SECONDS)

        files = ArchiveFiles(name, settings.sources.urls.get(name) or binance.URL, acquire=acquire)
        try:
            yield binance.BinanceArchive(files)
        finally:
            files.close()
            budgets.close()
        return
    if name in CHAIN_SOURCES:
        if name not in registry.flow_sources(settings):
            chain_name = chain_of(name)
            node = node_venue(CHAINS[chain_name])
            key = "TRONGRID_API_KEY" if name == TRONGRID else "ETHERSCAN_API_KEY"
            named = "" if name == "etherscan" else f", {chain_name} in LIQ_FLOW_CHAINS"
            needed = f"LIQ_{node.upper()}_URL" if name == node else f"{key}{named} (and no node)"
            raise LiqError(f"{name} needs {needed} to be set")
        chain = ChainHistory(settings, database_url, name)
        try:
            yield chain
        finally:
            chain.close()
        return
    source = registry.SOURCES.get(name)
    if source is None or not source.histories:
        raise LiqError(f"there is no history from {name!r}; there is from {', '.join(names())}")
    venue = VenueHistory(source, symbols or settings.symbols, settings, database_url)
    try:
        yield venue
    finally:
        venue.close()
