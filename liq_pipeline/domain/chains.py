"""The chains whose stablecoins are followed: one row each, and what follows from a row.

Belongs here: chain ids, token contracts with their decimals, block times, depths, what a burn address and dust are, and
which chain a venue of flows reads. Does not: asking a node (sources/chain/), whose wallet is whose (wallets.py).

A chain more is a row more, if it speaks Ethereum's JSON-RPC. Solana does not, and is left out.
Sources: contracts of USDC by Circle (developers.circle.com, USDC contract addresses), of USDT by Tether (tether.to,
supported protocols); on chains without an issue of their own the bridged token that exchanges take, which the row says.
Etherscan's free plan by docs.etherscan.io/supported-chains, read 2026-11.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from liq_pipeline.domain.tron_address import TRON_ZERO_ADDRESS

ZERO_ADDRESS: Final = "0x" + "0" * 40
ZERO_ADDRESSES: Final = (ZERO_ADDRESS, TRON_ZERO_ADDRESS)
"""From or to one of them a transfer mints or burns. No chain's address has the form of the other's."""
ETHEREUM_BLOCK_SECONDS: Final = 12.0


@dataclass(frozen=True)
class Token:
    """A token's contract and its decimals. The contract is lower-case hexadecimal; on Tron it is base58."""

    symbol: str
    contract: str
    decimals: int


@dataclass(frozen=True)
class Chain:
    """What is true of a chain whoever serves it."""

    name: str
    """In rows, settings (LIQ_<NAME>_RPC_URL) and venues."""
    chain_id: int
    block_seconds: float
    tokens: tuple[Token, ...]
    reread_blocks: int
    """The newest blocks that are read again once a minute: past re-orgs, and past what an index brings late."""
    chunk_blocks: int
    """Blocks in one question to a node: some thousand transfers on an ordinary day."""
    dust_amount: Decimal
    """A transfer of less is bait where transfers cost cents (address poisoning), and is not kept. Zero-value ones never
    are."""
    etherscan: Literal["free", "paid", "none"] = "none"
    """Whether Etherscan V2 serves it, and to whom."""
    note: str = ""

    @property
    def is_tron(self) -> bool:
        """Whether addresses are base58 and TronGrid serves it."""
        return self.name == TRON.name

    @property
    def zero_address(self) -> str:
        """Where tokens come from and go to, in the chain's own form."""
        return TRON_ZERO_ADDRESS if self.is_tron else ZERO_ADDRESS

    def blocks_of(self, ethereum_blocks: int) -> int:
        """As many blocks as pass while Ethereum makes that many."""
        return max(1, math.ceil(ethereum_blocks * ETHEREUM_BLOCK_SECONDS / self.block_seconds))


NO_DUST: Final = Decimal(0)
A_DOLLAR: Final = Decimal(1)

ETHEREUM: Final = Chain(
    name="ethereum",
    chain_id=1,
    block_seconds=ETHEREUM_BLOCK_SECONDS,
    tokens=(
        Token("USDT", "0xdac17f958d2ee523a2206206994597c13d831ec7", 6),
        Token("USDC", "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", 6),
    ),
    reread_blocks=20,
    chunk_blocks=50,
    dust_amount=NO_DUST,
    etherscan="free",
)
TRON: Final = Chain(
    name="tron",
    chain_id=728126428,
    block_seconds=3.0,
    tokens=(
        Token("USDT", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", 6),
        Token("USDC", "TEkxiTehnzSmSe2XqrBj4w32RUN966rdz8", 6),
    ),
    # A block is solid once 19 of 27 producers have built upon it: about a minute.
    reread_blocks=25,
    chunk_blocks=20,
    dust_amount=A_DOLLAR,
    note="Circle ended USDC on Tron in 2024: what is left trickles",
)
BSC: Final = Chain(
    name="bsc",
    chain_id=56,
    block_seconds=0.45,
    tokens=(
        Token("USDT", "0x55d398326f99059ff775485246999027b3197955", 18),
        Token("USDC", "0x8ac76a51cc950d9822d68b83fe1ad97b32cd580d", 18),
    ),
    reread_blocks=60,
    chunk_blocks=50,
    dust_amount=A_DOLLAR,
    etherscan="paid",
    note="Binance-Peg tokens: 18 decimals, minted against coins in custody on Ethereum",
)
ARBITRUM: Final = Chain(
    name="arbitrum",
    chain_id=42161,
    block_seconds=0.25,
    tokens=(
        Token("USDT", "0xfd086bc7cd5c481dcc9c85ebe478a1c0b69fcbb9", 6),
        Token("USDC", "0xaf88d065e77c8cc2239327c5edb3a432268e5831", 6),
    ),
    reread_blocks=240,
    chunk_blocks=400,
    dust_amount=A_DOLLAR,
    etherscan="free",
)
BASE: Final = Chain(
    name="base",
    chain_id=8453,
    block_seconds=2.0,
    tokens=(
        Token("USDC", "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913", 6),
        Token("USDT", "0xfde4c96c8593536e31f229ea8f37b2ada2699bb2", 6),
    ),
    reread_blocks=60,
    chunk_blocks=60,
    dust_amount=A_DOLLAR,
    etherscan="paid",
    note="USDT is bridged",
)
POLYGON: Final = Chain(
    name="polygon",
    chain_id=137,
    block_seconds=2.0,
    tokens=(
        Token("USDT", "0xc2132d05d31c914a87c6611c10748aeb04b58e8f", 6),
        Token("USDC", "0x3c499c542cef5e3811e1192ce70d8cc03d5c3359", 6),
        Token("USDC.E", "0x2791bca1f2de4661ed88a30c99a7a9449aa84174", 6),
    ),
    reread_blocks=128,
    chunk_blocks=60,
    dust_amount=A_DOLLAR,
    etherscan="free",
    note="USDC.E is USDC bridged before Circle issued it there; re-orgs of a hundred blocks have happened",
)
AVALANCHE: Final = Chain(
    name="avalanche",
    chain_id=43114,
    block_seconds=1.5,
    tokens=(
        Token("USDT", "0x9702230a8ea53601f5cd2dc00fdbc13d4df4a8c7", 6),
        Token("USDC", "0xb97ef9ef8734c71904d8002f8b6bc66dd9c48a6e", 6),
    ),
    reread_blocks=40,
    chunk_blocks=100,
    dust_amount=A_DOLLAR,
    etherscan="paid",
)
OPTIMISM: Final = Chain(
    name="optimism",
    chain_id=10,
    block_seconds=2.0,
    tokens=(
        Token("USDT", "0x94b008aa00579c1307b0ef2c499ad98a8ce58e58", 6),
        Token("USDC", "0x0b2c639c533813f4aa9d7837caf62653d097ff85", 6),
    ),
    reread_blocks=60,
    chunk_blocks=100,
    dust_amount=A_DOLLAR,
    etherscan="paid",
    note="USDT is bridged",
)
CHAINS: Final = {chain.name: chain for chain in (ETHEREUM, TRON, BSC, ARBITRUM, BASE, POLYGON, AVALANCHE, OPTIMISM)}

ETHERSCAN: Final = "etherscan"
TRONGRID: Final = "trongrid"
_NODE: Final = "_rpc"


def node_venue(chain: Chain) -> str:
    """The venue of flows that a node of the chain is."""
    return chain.name + _NODE


def etherscan_venue(chain: Chain) -> str:
    """The venue of flows that Etherscan is for the chain; for Ethereum its plain name."""
    return ETHERSCAN if chain is ETHEREUM else f"{ETHERSCAN}_{chain.name}"


def chain_of(venue: str) -> str:
    """The chain that a venue of flows reads. Ethereum where the name tells of none: it was the only one once, and a
    played or simulated world's venues bear names of their own."""
    if venue == TRONGRID:
        return TRON.name
    name = venue.removesuffix(_NODE).removeprefix(f"{ETHERSCAN}_")
    return name if name in CHAINS else ETHEREUM.name
