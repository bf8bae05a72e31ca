"""The list of sources: one line per venue, and what follows from it for one installation.

Belongs here: which sources exist, which are in force, how to reach them, and what the real world may expect of them.
Does not: what a venue offers (live/) or polling it (sources/polling/round.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.domain.chains import (
    CHAINS,
    ETHEREUM,
    ETHERSCAN,
    TRON,
    TRONGRID,
    Chain,
    chain_of,
    etherscan_venue,
    node_venue,
)
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
from liq_pipeline.sources.chain import ethereum_rpc, etherscan, trongrid
from liq_pipeline.sources.chain.ethereum import ChainReader
from liq_pipeline.sources.chain.ethereum_rpc import RpcReader
from liq_pipeline.sources.chain.etherscan import EtherscanReader
from liq_pipeline.sources.chain.trongrid import TronGridReader
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


def flow_sources(settings: Settings) -> tuple[str, ...]:
    """Where stablecoin transfers come from: a venue for each chain that is followed (settings.flow_chains). Raises
    LiqError if LIQ_FLOW_CHAINS names a chain that nothing serves here."""
    found = []
    for chain in CHAINS.values():
        if settings.flow_chains and chain.name not in settings.flow_chains:
            continue
        venue = _venue_of(chain, settings, is_named=bool(settings.flow_chains))
        if venue is not None:
            found.append(venue)
        elif settings.flow_chains:
            ways = f"LIQ_{node_venue(chain).upper()}_URL"
            if chain.etherscan != "none":
                ways += f" or ETHERSCAN_API_KEY{' (of a paid plan)' if chain.etherscan == 'paid' else ''}"
            raise LiqError(f"LIQ_FLOW_CHAINS names {chain.name}, and nothing serves it: set {ways}")
    return tuple(found)


def _venue_of(chain: Chain, settings: Settings, *, is_named: bool) -> str | None:
    """A chain's node, else Etherscan with the user's key, else, on Tron, TronGrid; is_named: in LIQ_FLOW_CHAINS."""
    if settings.rpc_url_of(chain.name) is not None:
        return node_venue(chain)
    is_plain = chain is ETHEREUM  # the chain that an Etherscan key alone has always meant
    if chain.etherscan != "none" and settings.etherscan_api_key is not None and (is_named or is_plain):
        return etherscan_venue(chain)
    if chain is TRON and (is_named or settings.trongrid_api_key is not None):
        return TRONGRID
    return None


def flow_source(settings: Settings) -> str | None:
    """The first of them, Ethereum's if it is followed; None if no chain is."""
    return next(iter(flow_sources(settings)), None)


def flow_limits(settings: Settings, venue: str | None = None) -> dict[str, Limit]:
    """The budgets of a source of transfers, by scope. Etherscan's are one for all chains."""
    name = venue or flow_source(settings) or ""
    if name == TRONGRID:
        limits = trongrid.limits_of(settings)
    elif name.startswith(ETHERSCAN):
        limits = etherscan.limits_of(settings)
    else:
        limits = (ethereum_rpc.limit_of(CHAINS[chain_of(name)]),)
    return {limit.scope: limit for limit in limits}


def flow_client(settings: Settings, venue: str | None = None, *, on_answer: OnAnswer | None = None) -> HttpClient:
    """The HTTP client of a source of transfers (None: the first), with the user's key or node. Raises LiqError if there
    is none."""
    name = venue or flow_source(settings)
    knobs = settings.sources
    url = None if name is None else settings.rpc_url_of(chain_of(name))
    if name is not None and name == node_venue(CHAINS[chain_of(name)]) and url is not None:
        return HttpClient(
            name,
            url.get_secret_value(),
            request_seconds=knobs.request_seconds,
            classify=partial(ethereum_rpc.classify, name=name),
            on_answer=on_answer,
        )
    if name is not None and name.startswith(ETHERSCAN) and settings.etherscan_api_key is not None:
        return HttpClient(
            name,
            knobs.urls.get(ETHERSCAN) or etherscan.URL,
            request_seconds=knobs.request_seconds,
            secret_params={"apikey": settings.etherscan_api_key.get_secret_value()},
            classify=etherscan.classify,
            on_answer=on_answer,
        )
    if name == TRONGRID:
        key = settings.trongrid_api_key
        return HttpClient(
            name,
            knobs.urls.get(name) or trongrid.URL,
            request_seconds=knobs.request_seconds,
            headers={} if key is None else {trongrid.KEY_HEADER: key.get_secret_value()},
            classify=trongrid.classify,
            on_answer=on_answer,
        )
    raise LiqError("stablecoin flows need ETHERSCAN_API_KEY, TRONGRID_API_KEY or a chain's node (LIQ_<CHAIN>_RPC_URL)")


def flow_reader(http: HttpClient, acquire: Callable[[dict[str, int]], None], deadline: float | None) -> ChainReader:
    """The reader that fits the client's source and its chain."""
    chain = CHAINS[chain_of(http.source)]
    reader: type[RpcReader | EtherscanReader | TronGridReader] = TronGridReader
    if http.source != TRONGRID:
        reader = EtherscanReader if http.source.startswith(ETHERSCAN) else RpcReader
    return reader(http, acquire, deadline, chain)


def all_flow_venues() -> tuple[str, ...]:
    """Every venue of flows there can be, the usual ones first."""
    nodes = [node_venue(chain) for chain in CHAINS.values()]
    explorer = [etherscan_venue(chain) for chain in CHAINS.values() if chain.etherscan != "none"]
    return (*explorer[:1], *nodes[:1], TRONGRID, *nodes[1:], *explorer[1:])


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
        slower: dict[str, float] = {}
        if topic == "stablecoin_flows":
            venues = flow_sources(settings)
            if TRONGRID in venues:
                # What is read is that much older than the chain's head, and fresh all the same.
                late = trongrid.DELAY_SECONDS / settings.risk.freshness_factor
                slower[TRONGRID] = settings.sources.flows_seconds + late
        if venues:
            expected[topic] = Expectation(venues=venues, cadence_seconds=cadence[topic], venue_cadence_seconds=slower)
    return World(
        name=REAL,
        kind="real",
        market_step_seconds=MARKET_STEP_SECONDS,
        flows_step_seconds=FLOWS_STEP_SECONDS,
        manifest=Manifest(symbols=settings.symbols, expected=expected, description="live venues"),
    )
