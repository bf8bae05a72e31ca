"""Reading a source's list of instruments outside a polling round.

Belongs here: fetching and keeping the list for whoever finds none. Does not: what the list means (live/).
"""

from __future__ import annotations

from datetime import UTC, datetime

from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import BadAnswerError, HttpClient
from liq_pipeline.sources.access.limits import Budgets
from liq_pipeline.sources.live.base import Source
from liq_pipeline.sources.live.instruments import Instrument, choose
from liq_pipeline.sources.live.values import UNREADABLE
from liq_pipeline.sources.polling import state as polling_state
from liq_pipeline.store.connection import connect


def instruments_of(
    source: Source, http: HttpClient, budgets: Budgets, database_url: str, settings: Settings
) -> tuple[Instrument, ...]:
    """The wanted instruments: from the table, or asked for and written there. Raises SourceError, BudgetError."""
    with connect(database_url, application_name="liq listing") as conn:
        listing = polling_state.load_listings(conn, settings.symbols).get(source.name)
    if listing is not None and listing.knows(settings.symbols):
        return listing.instruments
    try:
        found = choose(_fetch(source, http, budgets), settings.symbols)
    except UNREADABLE as error:
        raise BadAnswerError(source.name, f"its list of instruments cannot be read ({error})") from error
    with connect(database_url, application_name="liq listing") as conn:
        polling_state.save_listing(conn, source.name, found, settings.symbols, datetime.now(UTC))
    return tuple(found)


def _fetch(source: Source, http: HttpClient, budgets: Budgets) -> list[Instrument]:
    lists = source.instruments
    if lists is None:
        return []
    payloads = []
    for first in lists.requests:
        request = first
        while request is not None:
            budgets.acquire(request.costs, timeout_seconds=30)
            payloads.append(http.ask(request, again=budgets.again).payload)
            page = lists.next_page(request, payloads[-1]) if lists.next_page else None
            if page is None:
                break
            request = page
    return list(lists.parse(payloads))
