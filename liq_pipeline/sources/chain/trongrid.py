"""Tron through TronGrid: the events of a token's contract by time, two hundred at a time, confirmed ones only.

Belongs here: TronGrid's endpoints, pages, error forms and limits. Does not: following the chain (following.py), or
Tron's JSON-RPC (ethereum_rpc.py), which TronGrid offers under /jsonrpc too and any node of one's own.

Only confirmed blocks are given: about a minute old, and never taken back, so each is read once. Events lack the block's
hash, which a block's header has; a header also has the hash of the block before it. A failed transaction has no events.
A page goes on by `fingerprint`, all other parameters staying the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from liq_pipeline.domain.chains import TRON, TRONGRID, Token
from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import RefusedError, Request, SourceError, ThrottledError
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.chain.ethereum import Block, Chunk, Transfer, ranked, whole_tokens
from liq_pipeline.sources.chain.reader import BudgetedReader
from liq_pipeline.sources.live.values import ShapeError

NAME: Final = TRONGRID
URL: Final = "https://api.trongrid.io"
KEY_HEADER: Final = "TRON-PRO-API-KEY"
PER_SECOND, PER_DAY = "trongrid_second", "trongrid_day"
COST = {PER_SECOND: 1, PER_DAY: 1}
PAGE_ROWS: Final = 200
MOST_PAGES: Final = 200
"""Of one question: 40,000 events of a few blocks are no market but a fault."""
SUSPENDED_SECONDS: Final = 30.0
"""How long TronGrid does not serve who asked too often."""
DELAY_SECONDS: Final = 90.0
"""How old the newest confirmed block may be on a good day: 19 of 27 producers build upon it, then it is indexed."""


def limits_of(settings: Settings) -> tuple[Limit, ...]:
    """With a key 15 a second and 100,000 a day on the free plan. Without one it is shared and meagre."""
    if settings.trongrid_api_key is None:
        return Limit(PER_SECOND, 3, 1), Limit(PER_DAY, 20_000, 86_400)
    knobs = settings.sources
    return Limit(PER_SECOND, knobs.trongrid_calls_per_second, 1), Limit(PER_DAY, knobs.trongrid_calls_per_day, 86_400)


def classify(_status: int, payload: Any) -> SourceError | None:
    """{"success": false, "error": text} of the index, {"Error": text} of the node behind it."""
    if not isinstance(payload, dict):
        return None
    text = payload.get("error") or payload.get("Error")
    if not isinstance(text, str):
        return None
    lowered = text.lower()
    if "frequency limit" in lowered or "suspended" in lowered or "rate limit" in lowered:
        return ThrottledError(NAME, "asked too often", retry_after_seconds=SUSPENDED_SECONDS)
    if "apikey" in lowered.replace(" ", "") or "unauthorized" in lowered:
        return RefusedError(NAME, "TRONGRID_API_KEY is not accepted")
    return None


class TronGridReader(BudgetedReader):
    """ChainReader over TronGrid. acquire: reserves a request's costs or raises BudgetError."""

    # 1,500 transfers on a busy day: eight pages of each poll's budget.
    chunk_blocks = 5
    is_final = True

    def head(self) -> int:
        """The newest block whose events are complete: the one before that of the newest confirmed event."""
        return self._decoded(self._indexed_up_to)

    def block(self, number: int) -> Block:
        """One block."""
        return self._decoded(lambda: self._header(number)[0])

    def read(self, tokens: Sequence[Token], first: int, last: int) -> Chunk:
        """The transfers in first..last."""
        newest, before = self._decoded(lambda: self._header(last))
        oldest = newest if first == last else self.block(first)
        blocks = {last: newest, first: oldest}
        hashes = {last: newest.hash, last - 1: before, first: oldest.hash}
        times: dict[int, datetime] = {}
        found: list[Transfer] = []
        for token in tokens:
            found += self._decoded(lambda token=token: self._transfers(token, oldest, newest, times))  # type: ignore[misc]
        for number in sorted(times.keys() - blocks.keys(), reverse=True):
            if number not in hashes:
                # Two hashes in one answer: that of the next block names this one too.
                after, hashes[number] = self._decoded(lambda number=number: self._header(number + 1))  # type: ignore[misc]
                hashes[number + 1] = after.hash
            blocks[number] = Block(number, hashes[number], times[number])
        return self._decoded(lambda: Chunk(ranked(found), blocks, datetime.now(UTC)))

    def _indexed_up_to(self) -> int:
        params: dict[str, str | int] = {
            "event_name": "Transfer",
            "only_confirmed": "true",
            "order_by": "block_timestamp,desc",
            "limit": 1,
        }
        rows, _ = self._page(TRON.tokens[0], params)
        if not rows:
            raise ShapeError("there is no transfer at all")
        return int(rows[0]["block_number"]) - 1

    def _transfers(self, token: Token, first: Block, last: Block, times: dict[int, datetime]) -> list[Transfer]:
        """A token's transfers in the blocks from first to last; times: by block, added to."""
        found: dict[tuple[str, int], Transfer] = {}
        for row in self._rows(token, first, last):
            number = int(row["block_number"])
            if row.get("_unconfirmed") is True or not first.number <= number <= last.number:
                continue
            times[number] = datetime.fromtimestamp(int(row["block_timestamp"]) / 1000, UTC)
            values = row["result"]
            sender, receiver, raw = (
                values[by_place] if by_place in values else values[by_name]
                for by_place, by_name in (("0", "from"), ("1", "to"), ("2", "value"))
            )
            transfer = Transfer(
                token=token.symbol,
                tx_hash="0x" + row["transaction_id"].lower().removeprefix("0x"),
                log_index=int(row["event_index"]),
                block_number=number,
                from_address=_address(sender),
                to_address=_address(receiver),
                amount=whole_tokens(int(raw), token),
            )
            found[transfer.tx_hash, transfer.log_index] = transfer
        return list(found.values())

    def _rows(self, token: Token, first: Block, last: Block) -> Iterator[Any]:
        params: dict[str, str | int] = {
            "event_name": "Transfer",
            "only_confirmed": "true",
            "order_by": "block_timestamp,asc",
            # A millisecond more at both ends, whether they count or not: rows are told apart by their block.
            "min_block_timestamp": round(first.time.timestamp() * 1000) - 1,
            "max_block_timestamp": round(last.time.timestamp() * 1000) + 1,
            "limit": PAGE_ROWS,
        }
        for _ in range(MOST_PAGES):
            rows, fingerprint = self._page(token, params)
            yield from rows
            if fingerprint is None:
                return
            params["fingerprint"] = fingerprint
        raise ShapeError(f"more than {MOST_PAGES * PAGE_ROWS} events between blocks {first.number} and {last.number}")

    def _page(self, token: Token, params: dict[str, str | int]) -> tuple[list[Any], str | None]:
        payload = self._ask(Request(f"/v1/contracts/{token.contract}/events", dict(params), costs=COST))
        rows = payload["data"]
        if payload.get("success") is not True or not isinstance(rows, list):
            raise ShapeError("a list of events was expected")
        fingerprint = (payload.get("meta") or {}).get("fingerprint")
        return rows, fingerprint if isinstance(fingerprint, str) and rows else None

    def _header(self, number: int) -> tuple[Block, str]:
        """A block and the hash of the one before it."""
        body = {"id_or_num": str(number), "detail": False}
        payload = self._ask(Request("/wallet/getblock", body=body, costs=COST))
        raw = payload["block_header"]["raw_data"]
        if int(raw.get("number", 0)) != number:
            raise ShapeError(f"block {number} was asked for, not {raw.get('number')}")
        moment = datetime.fromtimestamp(int(raw["timestamp"]) / 1000, UTC)
        return Block(number, _hash(payload["blockID"]), moment), _hash(raw["parentHash"])

    def _ask(self, request: Request) -> Any:
        self._acquire(COST)
        payload = self._http.ask(request, deadline=self._deadline, again=self._again).payload
        if not isinstance(payload, dict):
            raise ShapeError("an object was expected")
        return payload


def _hash(value: str) -> str:
    if len(value) != 64:
        raise ShapeError(f"{value!r} is no block's hash")
    return "0x" + value.lower()


def _address(value: str) -> str:
    """0x and 20 bytes; TronGrid writes them so, and in older answers with Tron's 41."""
    digits = value.lower().removeprefix("0x")
    if len(digits) == 42 and digits.startswith("41"):
        digits = digits[2:]
    if len(digits) != 40:
        raise ShapeError(f"{value!r} is no address")
    return "0x" + digits
