"""A crafted chain, served as Etherscan V2, as a JSON-RPC node and, if it is Tron, as TronGrid.

Belongs here: what the tests of the flows and the bench of recordings share. Does not: assertions about what is read.
Etherscan's pages have 1,000 rows at most, hexadecimal logs without the block's hash and decimal transfers with it; the
node refuses ranges that bring too many rows; TronGrid gives confirmed events by time, 200 at a time.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from liq_pipeline.domain.chains import ETHEREUM, Chain
from liq_pipeline.sources.chain.ethereum import TRANSFER_TOPIC, node_form

START = datetime(2024, 6, 1, 8, tzinfo=UTC)


@dataclass
class FakeBlock:
    number: int
    salt: str
    at: int | None = None
    transfers: list[dict[str, Any]] = field(default_factory=list)
    seconds: int = 12

    @property
    def hash(self) -> str:
        return "0x" + hashlib.sha256(f"{self.number}{self.salt}".encode()).hexdigest()

    @property
    def time(self) -> int:
        return int(START.timestamp()) + self.seconds * (self.number - 1000) if self.at is None else self.at


class FakeChain:
    """Blocks from 1000 on, and the two ways to ask for them."""

    def __init__(self, chain: Chain = ETHEREUM) -> None:
        self.chain = chain
        self.unconfirmed = 0
        """How many of the newest blocks TronGrid does not give yet."""
        self.blocks: dict[int, FakeBlock] = {}
        self.most_rows = 10_000
        self.most_calls = 1_000
        """Of a batch; a node refuses a larger one whole."""
        self.calls: list[str] = []

    def add(
        self,
        *transfers: tuple[Any, str, str, str],
        salt: str = "",
        number: int | None = None,
        time: datetime | None = None,
    ) -> int:
        """A block with these (token, from, to, amount); returns its number. number: replaces that block."""
        at = 1000 + len(self.blocks) if number is None else number
        at_time = None if time is None else int(time.timestamp())
        block = FakeBlock(at, salt, at_time, seconds=max(1, round(self.chain.block_seconds)))
        for index, (token, sender, receiver, amount) in enumerate(transfers):
            tx = "0x" + hashlib.sha256(f"{at}{salt}{index // 2}".encode()).hexdigest()  # two transfers a transaction
            raw = int(Decimal(amount) * 10**token.decimals)
            block.transfers.append(
                {
                    "token": token,
                    "tx": tx,
                    "index": index,
                    "from": node_form(self.chain, sender),
                    "to": node_form(self.chain, receiver),
                    "raw": raw,
                }
            )
        self.blocks[at] = block
        return at

    @property
    def head(self) -> int:
        return max(self.blocks)

    def _between(self, contracts: set[str], first: int, last: int) -> list[tuple[FakeBlock, dict[str, Any]]]:
        return [
            (block, transfer)
            for number, block in sorted(self.blocks.items())
            if first <= number <= last
            for transfer in block.transfers
            if node_form(self.chain, transfer["token"].contract) in contracts
        ]

    def _log(self, block: FakeBlock, transfer: dict[str, Any]) -> dict[str, Any]:
        return {
            "address": node_form(self.chain, transfer["token"].contract),
            "topics": [TRANSFER_TOPIC, _topic(transfer["from"]), _topic(transfer["to"])],
            "data": "0x" + f"{transfer['raw']:064x}",
            "blockNumber": hex(block.number),
            "timeStamp": hex(block.time),
            "logIndex": hex(transfer["index"]) if transfer["index"] else "0x",
            "transactionHash": transfer["tx"],
        }

    def _header(self, number: int) -> dict[str, str] | None:
        block = self._block(number)
        return block and {"number": hex(number), "hash": block.hash, "timestamp": hex(block.time)}

    def _block(self, number: int) -> FakeBlock | None:
        before = FakeBlock(number, "", seconds=max(1, round(self.chain.block_seconds)))
        return self.blocks.get(number) or (before if number < 1000 else None)

    def trongrid(self, path: str, query: dict[str, str]) -> Any:
        self.calls.append(path)
        solid = self.head - self.unconfirmed
        if path == "/wallet/getblock":
            number = int(json.loads(query["body"])["id_or_num"])
            block, before = self._block(number), self._block(number - 1)
            if block is None or before is None:
                return {}
            raw = {"number": number, "timestamp": block.time * 1000, "parentHash": before.hash[2:]}
            return {"blockID": block.hash[2:], "block_header": {"raw_data": raw}}
        contract = path.split("/")[3]
        assert query["only_confirmed"] == "true"
        assert int(query["limit"]) <= 200
        low, high = (
            int(query.get(f"{end}_block_timestamp", default)) for end, default in (("min", 0), ("max", 1 << 62))
        )
        found = [
            _event(block, transfer)
            for block, transfer in self._between({node_form(self.chain, contract)}, 0, solid)
            if low <= block.time * 1000 <= high
        ]
        if query["order_by"] == "block_timestamp,desc":
            found.reverse()
        start, size = int(query.get("fingerprint", "0")), int(query["limit"])
        meta = {"fingerprint": str(start + size)} if len(found) > start + size else {}
        return {"data": found[start : start + size], "success": True, "meta": meta}

    def etherscan(self, query: dict[str, str]) -> Any:
        self.calls.append(query["action"])
        if query["action"] == "eth_blockNumber":
            return {"jsonrpc": "2.0", "id": 1, "result": hex(self.head)}
        if query["action"] == "eth_getBlockByNumber":
            return {"jsonrpc": "2.0", "id": 1, "result": self._header(int(query["tag"], 16))}
        logs = query["action"] == "getLogs"
        contract = query["address" if logs else "contractaddress"]
        first = int(query["fromBlock" if logs else "startblock"])
        last = int(query["toBlock" if logs else "endblock"])
        page, size = int(query["page"]), int(query["offset"])
        assert first <= last, "the provider refuses a range that ends before it begins"
        assert size <= 1000
        found = self._between({contract}, first, last)[(page - 1) * size : page * size]
        if not found:
            return {"status": "0", "message": "No records found" if logs else "No transactions found", "result": []}
        result = [self._log(*pair) if logs else _tokentx(*pair) for pair in found]
        return {"status": "1", "message": "OK", "result": result}

    def rpc(self, body: Any) -> Any:
        if isinstance(body, list) and len(body) > self.most_calls:
            return [{"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "batch too large"}}]
        if isinstance(body, list):
            return [{"jsonrpc": "2.0", "id": call["id"], "result": self._header(call["id"])} for call in body]
        self.calls.append(body["method"])
        if body["method"] == "eth_blockNumber":
            return {"jsonrpc": "2.0", "id": 1, "result": hex(self.head)}
        if body["method"] == "eth_getBlockByNumber":
            return {"jsonrpc": "2.0", "id": 1, "result": self._header(int(body["params"][0], 16))}
        query = body["params"][0]
        found = self._between(set(query["address"]), int(query["fromBlock"], 16), int(query["toBlock"], 16))
        if len(found) > self.most_rows:
            return {
                "jsonrpc": "2.0",
                "id": 1,
                "error": {"code": -32005, "message": "query returned more than N results"},
            }
        return {
            "jsonrpc": "2.0",
            "id": 1,
            "result": [self._log(*pair) | {"blockHash": pair[0].hash, "removed": False} for pair in found],
        }


def _event(block: FakeBlock, transfer: dict[str, Any]) -> dict[str, Any]:
    """As TronGrid gives it: the index counts within the transaction (two transfers each)."""
    values = {"from": transfer["from"], "to": transfer["to"], "value": str(transfer["raw"])}
    return {
        "block_number": block.number,
        "block_timestamp": block.time * 1000,
        "contract_address": transfer["token"].contract,
        "event_index": transfer["index"] % 2,
        "event_name": "Transfer",
        "result": {**{str(place): value for place, value in enumerate(values.values())}, **values},
        "transaction_id": transfer["tx"][2:],
    }


def _topic(address: str) -> str:
    return "0x" + "0" * 24 + address[2:]


def _tokentx(block: FakeBlock, transfer: dict[str, Any]) -> dict[str, str]:
    return {
        "blockNumber": str(block.number),
        "timeStamp": str(block.time),
        "hash": transfer["tx"],
        "blockHash": block.hash,
        "from": transfer["from"],
        "to": transfer["to"],
        "contractAddress": transfer["token"].contract,
        "value": str(transfer["raw"]),
        "tokenDecimal": "6",
    }
