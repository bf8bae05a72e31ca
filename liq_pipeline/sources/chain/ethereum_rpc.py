"""A chain through any node that speaks Ethereum's JSON-RPC: eth_getLogs with ranges that adapt to what it allows.

Tron's nodes speak it too (java-tron, `node.jsonrpc`): addresses without Tron's 41 before them, at most 5,000 blocks in
a range, and the log index within the block.

Belongs here: the JSON-RPC calls and their errors. Does not: following the chain (following.py).

Nodes limit eth_getLogs by blocks or by rows, each with its own words and codes; whatever the reason, a range that is
refused is halved until it passes, and one block that is refused is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from liq_pipeline.domain.chains import Chain, Token, node_venue
from liq_pipeline.sources.access.http import (
    RefusedError,
    RejectedError,
    Request,
    SourceError,
    ThrottledError,
    TransientError,
)
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.chain.ethereum import (
    TRANSFER_TOPIC,
    Block,
    Chunk,
    Transfer,
    decode_block,
    decode_log,
    hex_number,
    node_form,
    ranked,
)
from liq_pipeline.sources.chain.reader import BudgetedReader
from liq_pipeline.sources.live.values import ShapeError

NAME: Final = "ethereum_rpc"
REQUESTS = Limit("ethereum_rpc", 40, 2)
BLOCKS_PER_BATCH: Final = 50


def limit_of(chain: Chain) -> Limit:
    """The user's own node or plan, one for each chain: a modest pace that free plans grant."""
    return replace(REQUESTS, scope=node_venue(chain))


_RANGE_WORDS = ("range", "more than", "too many", "limit exceeded", "too large", "response size")


class RangeTooLargeError(RejectedError):
    """The node does not give so many blocks or rows at once."""


def classify(status: int, payload: Any, name: str = NAME) -> SourceError | None:
    """{"error": {"code", "message"}}; the message is not shown, for some nodes quote the key in it. name: the venue."""
    error = payload.get("error") if isinstance(payload, dict) else None
    if not isinstance(error, dict):
        return None
    code, message = error.get("code"), str(error.get("message", "")).lower()
    if status == 429 or "rate limit" in message or "too many requests" in message or "capacity" in message:
        return ThrottledError(name, "asked too often", retry_after_seconds=None if status == 429 else 5.0)
    if "unauthorized" in message or "api key" in message or "must be authenticated" in message:
        return RefusedError(name, f"the node does not accept the key in LIQ_{name.upper()}_URL")
    if code == -32005 or any(word in message for word in _RANGE_WORDS):
        return RangeTooLargeError(name, "the range is too large")
    if code in (-32000, -32603) or status >= 500:
        return TransientError(name, f"code {code}")
    return RejectedError(name, f"code {code}")


class RpcReader(BudgetedReader):
    """ChainReader over a JSON-RPC node. acquire: reserves a request's costs or raises BudgetError."""

    @property
    def chunk_blocks(self) -> int:
        """As the chain's table says."""
        return self.chain.chunk_blocks

    @property
    def _cost(self) -> dict[str, int]:
        return {limit_of(self.chain).scope: 1}

    def head(self) -> int:
        """The newest block's number."""
        return self._decoded(lambda: hex_number(self._call("eth_blockNumber", [])))

    def block(self, number: int) -> Block:
        """One block."""
        return self._decoded(lambda: self._one_block(number))

    def _one_block(self, number: int) -> Block:
        return decode_block(self._call("eth_getBlockByNumber", [hex(number), False]))

    def read(self, tokens: Sequence[Token], first: int, last: int) -> Chunk:
        """The transfers in first..last."""
        transfers = self._decoded(lambda: self._transfers(tokens, first, last))
        # Nodes of late tell a block's time with each log, which saves asking for nearly every block.
        blocks: dict[int, Block] = {}
        for transfer in transfers:
            if transfer.block_hash is not None and transfer.block_time is not None:
                blocks.setdefault(
                    transfer.block_number, Block(transfer.block_number, transfer.block_hash, transfer.block_time)
                )
        numbers = sorted(({transfer.block_number for transfer in transfers} | {last}) - blocks.keys())
        for start in range(0, len(numbers), BLOCKS_PER_BATCH):
            batch = numbers[start : start + BLOCKS_PER_BATCH]
            blocks |= self._decoded(lambda batch=batch: self._blocks(batch))  # type: ignore[misc]
        return self._decoded(lambda: Chunk(transfers, blocks, datetime.now(UTC)))

    def _transfers(self, tokens: Sequence[Token], first: int, last: int) -> list[Transfer]:
        query = {
            "address": [node_form(self.chain, token.contract) for token in tokens],
            "topics": [TRANSFER_TOPIC],
            "fromBlock": hex(first),
            "toBlock": hex(last),
        }
        try:
            rows = self._call("eth_getLogs", [query])
        except RangeTooLargeError:
            if first == last:
                raise
            middle = (first + last) // 2
            return self._transfers(tokens, first, middle) + self._transfers(tokens, middle + 1, last)
        if not isinstance(rows, list):
            raise ShapeError("a list of logs was expected")
        found = [transfer for row in rows if (transfer := decode_log(row, self.chain)) is not None]
        return ranked(found) if self.chain.is_tron else found

    def _blocks(self, numbers: Sequence[int]) -> dict[int, Block]:
        calls = [
            {"jsonrpc": "2.0", "id": number, "method": "eth_getBlockByNumber", "params": [hex(number), False]}
            for number in numbers
        ]
        self._acquire(self._cost)
        request = Request("", body=calls, costs=self._cost)
        try:
            answers = self._http.ask(request, deadline=self._deadline, again=self._again).payload
            if not isinstance(answers, list):
                raise ShapeError("a list of answers was expected")
            for answer in answers:
                error = classify(200, answer)
                if error is not None:
                    raise error
        except RejectedError:
            # Nodes limit batches as well, some to a few calls, some to none, and say so alone or in a list of one.
            if len(numbers) == 1:
                return {numbers[0]: self._one_block(numbers[0])}
            middle = len(numbers) // 2
            return self._blocks(numbers[:middle]) | self._blocks(numbers[middle:])
        blocks = [decode_block(answer["result"]) for answer in answers]
        found = {block.number: block for block in blocks}
        if set(found) != set(numbers):
            raise ShapeError("blocks are missing from the answer")
        return found

    def _call(self, method: str, params: list[Any]) -> Any:
        self._acquire(self._cost)
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        payload = self._http.ask(
            Request("", body=body, costs=self._cost), deadline=self._deadline, again=self._again
        ).payload
        return payload["result"]
