"""The list of sources: one line per venue, and what follows from it for one installation.

Belongs here: which sources exist, which are in force, how to reach them, and what the real world may expect of them.
Does not: what a venue offers (live/) or polling it (sources/polling/round.py).
"""

from __future__ import annotations

from collections.abc import Callable

from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.domain.worlds import (
    FLOWS_STEP_SECONDS,
    MARKET_STEP_SECONDS,
    REAL,
    Expectation,
    Manifest,
    World,
)
from liq_pipeline.errors import LiqError
from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import HttpClient, OnAnswer
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.chain import ethereum_rpc, etherscan
from liq_pipeline.sources.chain.ethereum import ChainReader
from liq_pipeline.sources.live import (
    binance,
    bitget,
    bybit,
    coingecko,
    deribit,
    dydx,
    gate,
    htx,
    hyperliquid,
    kraken_futures,
    okx,
)
from liq_pipeline.sources.live.base import Cadence, Source

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        coingecko.SOURCE,
        binance.SOURCE,
        bybit.SOURCE,
        okx.SOURCE,
        gate.SOURCE,
        hyperliquid.SOURCE,
        dydx.SOURCE,
        deribit.SOURCE,
        bitget.SOURCE,
        kraken_futures.SOURCE,
        htx.SOURCE,
    )
}
VENUES = tuple(name for name, source in SOURCES.items() if source.offers)
"""What LIQ_VENUES may name: everything that scoring may expect data from."""


def sources_in_force(settings: Settings) -> list[Source]:
    """The venues of LIQ_VENUES (all, if it is empty) and the sources that are no venue. Raises LiqError on a typo."""
    unknown = sorted(set(settings.venues) - set(VENUES))
    if unknown:
        raise LiqError(f"LIQ_VENUES names {', '.join(unknown)}, which is none of {', '.join(VENUES)}")
    wanted = set(settings.venues or VENUES)
    return [source for name, source in SOURCES.items() if name in wanted or name not in VENUES]


def cadence_seconds(cadence: Cadence, settings: Settings) -> float:
    """How often a feed of that kind is asked."""
    if cadence == "coingecko":
        return coingecko.cadence_seconds(settings)
    knobs = settings.sources
    return {
        "market": knobs.market_seconds,
        "funding": knobs.funding_seconds,
        "long_short": knobs.long_short_seconds,
        "settled": knobs.settled_seconds,
        "instruments": knobs.instruments_seconds,
    }[cadence]


def rest_url(source: Source, settings: Settings) -> str:
    """LIQ_<SOURCE>_URL, or the host of the user's plan, or the source's own."""
    planned = source.credentials(settings)[0] if source.credentials else None
    return settings.sources.urls.get(source.name) or planned or source.rest_url


def ws_url(source: Source, settings: Settings) -> str | None:
    """LIQ_<SOURCE>_WS_URL or the source's own; None if it has no websocket."""
    return settings.sources.urls.get(f"{source.name}_ws") or source.ws_url


def client(source: Source, settings: Settings, *, on_answer: OnAnswer | None = None) -> HttpClient:
    """The HTTP client of a source, with the user's key if there is one."""
    return HttpClient(
        source.name,
        rest_url(source, settings),
        request_seconds=settings.sources.request_seconds,
        secret_params=source.credentials(settings)[1] if source.credentials else None,
        classify=source.classify,
        on_answer=on_answer,
        connections=settings.sources.requests_at_once_per_source,
    )


def flow_source(settings: Settings) -> str | None:
    """Where stablecoin transfers come from: the user's node, else Etherscan with the user's key, else nowhere."""
    if settings.ethereum_rpc_url is not None:
        return "ethereum_rpc"
    if settings.etherscan_api_key is not None:
        return "etherscan"
    return None


def flow_limits(settings: Settings) -> dict[str, Limit]:
    """The budgets of the source of transfers, by scope."""
    limits = etherscan.limits_of(settings) if flow_source(settings) == "etherscan" else (ethereum_rpc.REQUESTS,)
    return {limit.scope: limit for limit in limits}


def flow_client(settings: Settings, *, on_answer: OnAnswer | None = None) -> HttpClient:
    """The HTTP client of the source of transfers, with the user's key or node. Raises LiqError if there is none."""
    name = flow_source(settings)
    knobs = settings.sources
    if name == "ethereum_rpc" and settings.ethereum_rpc_url is not None:
        return HttpClient(
            name,
            settings.ethereum_rpc_url.get_secret_value(),
            request_seconds=knobs.request_seconds,
            classify=ethereum_rpc.classify,
            on_answer=on_answer,
        )
    if name == "etherscan" and settings.etherscan_api_key is not None:
        return HttpClient(
            name,
            knobs.urls.get(name) or etherscan.URL,
            request_seconds=knobs.request_seconds,
            secret_params={"apikey": settings.etherscan_api_key.get_secret_value()},
            classify=etherscan.classify,
            on_answer=on_answer,
        )
    raise LiqError("stablecoin flows need ETHERSCAN_API_KEY or LIQ_ETHEREUM_RPC_URL")


def flow_reader(http: HttpClient, acquire: Callable[[dict[str, int]], None], deadline: float | None) -> ChainReader:
    """The reader that fits the client's source."""
    reader = ethereum_rpc.RpcReader if http.source == ethereum_rpc.NAME else etherscan.EtherscanReader
    return reader(http, acquire, deadline)


def real_world(settings: Settings) -> World:
    """The real world as this installation can see it: what each record type is expected from, and how often."""
    cadence = {
        "prices": settings.sources.market_seconds,
        "open_interest": settings.sources.market_seconds,
        "funding_rates": settings.sources.funding_seconds,
        "long_short_ratio": settings.sources.long_short_seconds,
        # The collector's heartbeats and REST lists.
        "liquidations": settings.sources.market_seconds,
        "stablecoin_flows": settings.sources.flows_seconds,
    }
    expected: dict[str, Expectation] = {}
    for topic in IN_TOPICS:
        venues = tuple(source.name for source in sources_in_force(settings) if topic in source.offers)
        if topic == "stablecoin_flows":
            flows = flow_source(settings)
            venues = () if flows is None else (flows,)
        if venues:
            expected[topic] = Expectation(venues=venues, cadence_seconds=cadence[topic])
    return World(
        name=REAL,
        kind="real",
        market_step_seconds=MARKET_STEP_SECONDS,
        flows_step_seconds=FLOWS_STEP_SECONDS,
        manifest=Manifest(symbols=settings.symbols, expected=expected, description="live venues"),
    )
