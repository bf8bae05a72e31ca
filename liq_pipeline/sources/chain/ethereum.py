"""Stablecoin transfers on Ethereum: tokens, the Transfer event, and what a reader of the chain must offer.

Belongs here: what is true of the chain whoever serves it. Does not: a provider's endpoints (etherscan.py,
ethereum_rpc.py) or following the chain (flows.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol

from liq_pipeline.sources.live.values import ShapeError

CHAIN: Final = "ethereum"
TRANSFER_TOPIC: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""keccak256 of Transfer(address,address,uint256)."""

FUTURE_TOLERANCE: Final = timedelta(seconds=60)
"""Of every record: what lies further ahead of the clock is refused."""


@dataclass(frozen=True)
class Token:
    """An ERC-20 contract (lower case) and its decimals."""

    symbol: str
    contract: str
    decimals: int


TOKENS: Final = (
    Token("USDT", "0xdac17f958d2ee523a2206206994597c13d831ec7", 6),
    Token("USDC", "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", 6),
)
_TOKEN_OF = {token.contract: token for token in TOKENS}


@dataclass(frozen=True)
class Block:
    """A block by the hash it has now."""

    number: int
    hash: str
    time: datetime


@dataclass(frozen=True)
class Transfer:
    """One Transfer event; amount in whole tokens, exact."""

    token: str
    tx_hash: str
    log_index: int
    block_number: int
    from_address: str
    to_address: str
    amount: Decimal
    block_hash: str | None = None
    """None where the provider's log rows do not carry it."""


@dataclass(frozen=True)
class Chunk:
    """All transfers of some consecutive blocks, and those blocks that are needed to date and name them."""

    transfers: list[Transfer]
    blocks: dict[int, Block]
    received_at: datetime

    def __post_init__(self) -> None:
        """Raises ShapeError over a block of the future: it would date rows and heartbeats."""
        latest = max((block.time for block in self.blocks.values()), default=self.received_at)
        if latest > self.received_at + FUTURE_TOLERANCE:
            raise ShapeError(f"a block is dated {latest:%H:%M:%S}, ahead of this machine's clock: is that right?")


class ChainReader(Protocol):
    """A provider. All methods raise SourceError, or BudgetError where there is no budget in time."""

    name: str
    chunk_blocks: int
    """Blocks that one read() can fetch within a polling round."""

    def head(self) -> int:
        """The newest block's number."""
        ...

    def block(self, number: int) -> Block:
        """One block."""
        ...

    def read(self, tokens: Sequence[Token], first: int, last: int) -> Chunk:
        """The transfers of these tokens in first..last, complete; `blocks` covers every transfer and `last`."""
        ...


def hex_number(value: Any) -> int:
    """An integer from 0x-hex; providers write zero as "0x" too."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise ShapeError(f"{value!r} is not a hexadecimal number")
    return int(value, 16) if len(value) > 2 else 0


def decode_log(row: Any) -> Transfer | None:
    """A log row as eth_getLogs or Etherscan's getLogs give it; None for a log that was removed or is none of ours."""
    topics = row["topics"]
    token = _TOKEN_OF.get(str(row["address"]).lower())
    if row.get("removed") is True or token is None or len(topics) != 3 or topics[0].lower() != TRANSFER_TOPIC:
        return None
    block_hash = row.get("blockHash")
    return Transfer(
        token=token.symbol,
        tx_hash=row["transactionHash"].lower(),
        log_index=hex_number(row["logIndex"]),
        block_number=hex_number(row["blockNumber"]),
        from_address=_address(topics[1]),
        to_address=_address(topics[2]),
        amount=Decimal(hex_number(row["data"])).scaleb(-token.decimals),
        block_hash=block_hash.lower() if isinstance(block_hash, str) and len(block_hash) == 66 else None,
    )


def decode_block(row: Any) -> Block:
    """A block as eth_getBlockByNumber gives it."""
    if not isinstance(row, dict):
        raise ShapeError("there is no such block")
    moment = datetime.fromtimestamp(hex_number(row["timestamp"]), UTC)
    return Block(hex_number(row["number"]), str(row["hash"]).lower(), moment)


def _address(topic: Any) -> str:
    if not isinstance(topic, str) or len(topic) != 66:
        raise ShapeError(f"{topic!r} is not an address in a topic")
    return "0x" + topic[-40:].lower()
