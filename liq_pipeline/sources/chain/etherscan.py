"""A chain through Etherscan V2: logs by token and block range, a thousand rows at a time.

Belongs here: Etherscan's endpoints, pages, error texts and limits. Does not: following the chain (following.py).

One key and one budget for all chains, told apart by `chainid`; the free plan serves only some of them, which each
chain's row says (domain/chains.py).

getLogs has the log index and lacks the block's hash; tokentx has the hash and lacks the log index: both are read, and
joined by block. Errors and empty lists both come as HTTP 200 with status "0"; `result` may be a text, a list or null.
The free plan returns at most 1,000 rows per call: pages go on from the last block seen (key-set paging), since
page x offset is limited and rows shift while blocks arrive. getLogs writes numbers in hex, tokentx in decimal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from liq_pipeline.domain.chains import Token
from liq_pipeline.settings import Settings
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
)
from liq_pipeline.sources.chain.reader import BudgetedReader
from liq_pipeline.sources.live.values import ShapeError

NAME: Final = "etherscan"
URL: Final = "https://api.etherscan.io"
PER_SECOND, PER_DAY = "etherscan_second", "etherscan_day"
COST = {PER_SECOND: 1, PER_DAY: 1}
PAGE_ROWS: Final = 1000
MOST_PAGES_OF_A_BLOCK: Final = 10
BAD_KEY_SECONDS: Final = 600.0
"""More than five wrong keys in 30 s block the address: a wrong key is asked about slowly."""


def limits_of(settings: Settings) -> tuple[Limit, ...]:
    """The user's plan: 3 a second and 100,000 a day without paying, over all keys of the account."""
    return (
        Limit(PER_SECOND, settings.sources.etherscan_calls_per_second, 1),
        Limit(PER_DAY, settings.sources.etherscan_calls_per_day, 86_400),
    )


def classify(_status: int, payload: Any) -> SourceError | None:
    """status "0": an empty list is a success, a text is an error whose meaning is in its words."""
    if not isinstance(payload, dict) or str(payload.get("status", "1")) != "0":
        return None
    message, result = str(payload.get("message", "")), payload.get("result")
    if message.startswith("No ") and message.endswith(" found"):
        return None
    text = str(result if isinstance(result, str) else message)[:200]
    lowered = text.lower()
    if "rate limit" in lowered or "calls per sec" in lowered:
        seconds = 3600.0 if "daily" in lowered else 2.0
        return ThrottledError(NAME, "asked too often", retry_after_seconds=seconds)
    if "free api" in lowered or "upgrade your api plan" in lowered or "not supported for this chain" in lowered:
        return RefusedError(NAME, "the key's plan does not serve this chain: a node or a paid plan does")
    if "api key" in lowered or "apikey" in lowered:
        return RefusedError(NAME, "the key is missing or wrong", retry_after_seconds=BAD_KEY_SECONDS)
    if "timeout" in lowered or "busy" in lowered:
        return TransientError(NAME, "the query timed out there")
    return RejectedError(NAME, text)


class EtherscanReader(BudgetedReader):
    """ChainReader over Etherscan. acquire: reserves a request's costs or raises BudgetError."""

    @property
    def chunk_blocks(self) -> int:
        """Of Ethereum 8: about 60 transfers of each token in a block, two pages per token, within what 3 calls a second
        allow in a round. Of others as many as last as long, up to what a node would be asked for."""
        return min(self.chain.blocks_of(8), self.chain.chunk_blocks)

    def head(self) -> int:
        """The newest block's number."""
        return self._decoded(lambda: hex_number(self._call("proxy", "eth_blockNumber")))

    def block(self, number: int) -> Block:
        """One block."""
        return self._decoded(
            lambda: decode_block(self._call("proxy", "eth_getBlockByNumber", tag=hex(number), boolean="false"))
        )

    def read(self, tokens: Sequence[Token], first: int, last: int) -> Chunk:
        """The transfers in first..last."""
        transfers: list[Transfer] = []
        blocks: dict[int, Block] = {}
        for token in tokens:
            transfers += self._decoded(lambda token=token: list(self._logs(token, first, last)))  # type: ignore[misc]
            if any(t.token == token.symbol and t.block_hash is None for t in transfers):
                blocks |= self._decoded(lambda token=token: self._hashes(token, first, last))  # type: ignore[misc]
        # A block that one index has and the other does not yet, and the last one, which dates the reading.
        for number in sorted({t.block_number for t in transfers} | {last}):
            if number not in blocks:
                blocks[number] = self.block(number)
        return self._decoded(lambda: Chunk(transfers, blocks, datetime.now(UTC)))

    def _logs(self, token: Token, first: int, last: int) -> Iterator[Transfer]:
        def page(start: int, number: int) -> Any:
            return self._call(
                "logs",
                "getLogs",
                address=token.contract,
                fromBlock=start,
                toBlock=last if number == 1 else start,
                topic0=TRANSFER_TOPIC,
                page=number,
                offset=PAGE_ROWS,
            )

        for row in _key_set_pages(page, first, last, lambda row: hex_number(row["blockNumber"]), _log_identity):
            transfer = decode_log(row, self.chain)
            if transfer is not None:
                yield transfer

    def _hashes(self, token: Token, first: int, last: int) -> dict[int, Block]:
        def page(start: int, number: int) -> Any:
            return self._call(
                "account",
                "tokentx",
                contractaddress=token.contract,
                startblock=start,
                endblock=last if number == 1 else start,
                page=number,
                offset=PAGE_ROWS,
                sort="asc",
            )

        found: dict[int, Block] = {}
        for row in _key_set_pages(page, first, last, lambda row: int(row["blockNumber"]), _transaction_identity):
            number = int(row["blockNumber"])
            moment = datetime.fromtimestamp(int(row["timeStamp"]), UTC)
            found[number] = Block(number, row["blockHash"].lower(), moment)
        return found

    def _call(self, module: str, action: str, **params: str | int) -> Any:
        self._acquire(COST)
        request = Request(
            "/v2/api", {"chainid": self.chain.chain_id, "module": module, "action": action, **params}, costs=COST
        )
        payload = self._http.ask(request, deadline=self._deadline, again=self._again).payload
        if not isinstance(payload, dict):
            raise ShapeError("an object was expected")
        return payload.get("result")


def _key_set_pages(
    page: Callable[[int, int], Any],
    first: int,
    end: int,
    block_of: Callable[[Any], int],
    identity: Callable[[Any], str],
) -> Iterator[Any]:
    """All rows of first..end in order: page(start block, page number), again from the last block of each full page.

    identity tells rows of that block apart from those already given; equal rows of one page are different rows, so
    each counts as often as it appears. A block that alone fills a page is read by page numbers.
    """
    start = first
    given: dict[str, int] = {}
    while True:
        rows = page(start, 1)
        if not isinstance(rows, list):
            raise ShapeError(f"a list was expected, not {type(rows).__name__}")
        yield from _new(rows, given, identity)
        if len(rows) < PAGE_ROWS:
            return
        last = block_of(rows[-1])
        if last == start:
            for number in range(2, MOST_PAGES_OF_A_BLOCK + 1):
                more = page(start, number)
                if not isinstance(more, list):
                    raise ShapeError(f"a list was expected, not {type(more).__name__}")
                yield from more
                if len(more) < PAGE_ROWS:
                    break
            else:
                raise ShapeError(f"block {start} has more rows than can be read")
            if last >= end:
                return
            start, given = last + 1, {}
            continue
        given = {}
        for row in rows:
            if block_of(row) == last:
                given[identity(row)] = given.get(identity(row), 0) + 1
        start = last


def _new(rows: list[Any], given: dict[str, int], identity: Callable[[Any], str]) -> Iterator[Any]:
    left = dict(given)
    for row in rows:
        name = identity(row)
        if left.get(name, 0):
            left[name] -= 1
        else:
            yield row


def _log_identity(row: Any) -> str:
    return f"{row['transactionHash']}-{row['logIndex']}"


def _transaction_identity(row: Any) -> str:
    return f"{row['hash']}-{row['from']}-{row['to']}-{row['value']}"
