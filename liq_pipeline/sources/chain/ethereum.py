"""Stablecoin transfers on a chain that speaks Ethereum's tongue: the Transfer event, and what a reader must offer.

Belongs here: what is true of such a chain whoever serves it. Does not: which chains and tokens there are
(domain/chains.py), a provider's endpoints (ethereum_rpc.py, etherscan.py, trongrid.py), or following (following.py).

Addresses are as nodes write them, 0x and 20 bytes, on Tron too; following.py turns those that are kept into the form
that people know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any, Final, Protocol

from liq_pipeline.domain.chains import ETHEREUM, Chain, Token
from liq_pipeline.domain.tron_address import hex_of
from liq_pipeline.sources.live.values import ShapeError

CHAIN: Final = ETHEREUM.name
TOKENS: Final = ETHEREUM.tokens
TRANSFER_TOPIC: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""keccak256 of Transfer(address,address,uint256)."""

FUTURE_TOLERANCE: Final = timedelta(seconds=60)
"""Of every record: what lies further ahead of the clock is refused."""
_MILLISECONDS_FROM: Final = 100_000_000_000
_EXACT: Final = Context(prec=80)
"""2^256 has 78 digits: at the usual 28 a large sum with 18 decimals would be rounded."""


@dataclass(frozen=True)
class Block:
    """A block by the hash it has now."""

    number: int
    hash: str
    time: datetime


@dataclass(frozen=True, slots=True)
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
    block_time: datetime | None = None
    """Likewise."""


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
    """A provider of one chain. All methods raise SourceError, or BudgetError where there is no budget in time."""

    name: str
    """The venue of flows."""
    chain: Chain
    is_final: bool
    """Whether it gives only blocks that no re-org can take back: they are read once."""

    @property
    def chunk_blocks(self) -> int:
        """Blocks that one read() can fetch within a polling round."""
        ...

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


def node_form(chain: Chain, address: str) -> str:
    """An address as nodes write it: 0x and 20 bytes, lower case."""
    return hex_of(address) if chain.is_tron else address.lower()


@lru_cache(maxsize=64)
def contracts_of(chain: Chain) -> Mapping[str, Token]:
    """The chain's tokens by their contracts, as nodes write them."""
    return {node_form(chain, token.contract): token for token in chain.tokens}


def whole_tokens(raw: int, token: Token) -> Decimal:
    """An amount in the token's smallest unit as whole tokens, exact."""
    return Decimal(raw).scaleb(-token.decimals, _EXACT)


def decode_log(row: Any, chain: Chain = ETHEREUM) -> Transfer | None:
    """A log row as eth_getLogs or Etherscan's getLogs give it; None for a log that was removed or is none of ours."""
    topics = row["topics"]
    token = contracts_of(chain).get(str(row["address"]).lower())
    if row.get("removed") is True or token is None or len(topics) != 3 or topics[0].lower() != TRANSFER_TOPIC:
        return None
    block_hash, stamp = row.get("blockHash"), row.get("blockTimestamp")
    return Transfer(
        token=token.symbol,
        tx_hash=row["transactionHash"].lower(),
        log_index=hex_number(row["logIndex"]),
        block_number=hex_number(row["blockNumber"]),
        from_address=_address(topics[1]),
        to_address=_address(topics[2]),
        amount=whole_tokens(hex_number(row["data"]), token),
        block_hash=block_hash.lower() if isinstance(block_hash, str) and len(block_hash) == 66 else None,
        block_time=None if stamp is None else _moment(hex_number(stamp)),
    )


def ranked(transfers: Sequence[Transfer]) -> list[Transfer]:
    """The same with log_index counted among the followed transfers of their transaction, from 0.

    For Tron: its nodes number logs within the block, TronGrid within the transaction. This rank is the same for both,
    so that whoever changes from one to the other counts nothing twice.
    """
    seen: dict[str, int] = {}
    found = []
    for transfer in sorted(transfers, key=lambda transfer: (transfer.block_number, transfer.log_index)):
        rank = seen.get(transfer.tx_hash, 0)
        seen[transfer.tx_hash] = rank + 1
        found.append(replace(transfer, log_index=rank))
    return found


def decode_block(row: Any) -> Block:
    """A block as eth_getBlockByNumber gives it."""
    if not isinstance(row, dict):
        raise ShapeError("there is no such block")
    return Block(hex_number(row["number"]), str(row["hash"]).lower(), _moment(hex_number(row["timestamp"])))


def _moment(stamp: int) -> datetime:
    """Seconds since 1970; older nodes of Tron write milliseconds."""
    return datetime.fromtimestamp(stamp / 1000 if stamp > _MILLISECONDS_FROM else stamp, UTC)


def _address(topic: Any) -> str:
    if not isinstance(topic, str) or len(topic) != 66:
        raise ShapeError(f"{topic!r} is not an address in a topic")
    return "0x" + topic[-40:].lower()
