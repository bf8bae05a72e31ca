"""A chain's stablecoin transfers out of recorded answers: the block ranges that were read, out of what was answered.

Belongs here: serving a reader of the chain from recorded answers, and what a re-org takes back. Does not: the format
(raw_log.py), or what answers mean (sources/chain/etherscan.py, sources/chain/ethereum_rpc.py).

A line of the kind `chunk` names the blocks that were read and follows the answers which that took. Refusals are not
recorded: a question without an answer was refused for its size, and the reader halves its range as it did then.
Entities are those of the shipped list; scores derive directions from the labels in force, as they always do.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from liq_pipeline.domain.records import Heartbeat, StablecoinFlow
from liq_pipeline.domain.wallets import SHIPPED_LIST_VERSION, shipped_labels
from liq_pipeline.settings import SourceSettings
from liq_pipeline.sources.access.http import Answer, HttpClient, Request, Reserve, SourceError
from liq_pipeline.sources.access.raw_log import RawLine
from liq_pipeline.sources.chain import ethereum_rpc
from liq_pipeline.sources.chain.ethereum import Chunk
from liq_pipeline.sources.chain.following import records_of
from liq_pipeline.sources.chain.wallet_lists import LabelList
from liq_pipeline.sources.live.values import UNREADABLE
from liq_pipeline.sources.playing.playable import Message
from liq_pipeline.sources.registry import all_flow_venues, flow_reader

FLOWS: Final = "stablecoin_flows"
CHAIN_SOURCES: Final = all_flow_venues()


class ChainPlayer:
    """One provider's recorded answers, range by range."""

    def __init__(self, source: str, world: str, minimum_amount: float) -> None:
        """minimum_amount: tokens from which a transfer between unlabelled wallets was kept."""
        self._world = world
        self._answers = _RecordedAnswers(source)
        self._reader = flow_reader(self._answers, lambda costs: None, None)
        self._labels = LabelList(SHIPPED_LIST_VERSION, shipped_labels(), self._reader.chain.name)
        self._knobs = SourceSettings(flow_minimum_amount=minimum_amount)
        self._hash_of: dict[int, str] = {}
        self._rows_of: dict[str, dict[tuple[str, int], StablecoinFlow]] = {}
        """Block hash -> its rows that stand."""
        self._told: datetime | None = None
        """Up to when the chain was said to have been read: after each range, where the live poll says it once."""

    def take(self, line: RawLine) -> tuple[list[Message], list[str]]:
        """(messages, problems) of one line; an answer says nothing before its range is complete."""
        if line.kind == "answer":
            self._answers.add(line)
            return [], []
        if line.kind != "chunk" or line.first_block is None or line.last_block is None:
            return [], []
        try:
            chunk = self._reader.read(self._reader.chain.tokens, line.first_block, line.last_block)
            for number in self._hash_of.keys() & set(range(line.first_block, line.last_block + 1)):
                if number not in chunk.blocks:
                    chunk.blocks[number] = self._reader.block(number)
        except (SourceError, *UNREADABLE) as error:
            return [], [f"blocks {line.first_block} to {line.last_block}: {type(error).__name__}: {error}"]
        finally:
            self._answers.clear()
        return self._messages(chunk, line.sent_at or line.received_at, line.last_block), []

    def _messages(self, chunk: Chunk, received_at: datetime, last: int) -> list[Message]:
        messages: list[Message] = []
        for block in chunk.blocks.values():
            before = self._hash_of.get(block.number)
            if before is not None and before != block.hash:
                gone = self._rows_of.pop(before, {}).values()
                messages += [msgspec.structs.replace(row, is_canonical=False, received_at=received_at) for row in gone]
            self._hash_of[block.number] = block.hash
        for record in records_of(chunk, self._labels, self._knobs, self._reader.name, self._reader.chain):
            rows = self._rows_of.setdefault(record.block_hash, {})
            identity = (record.tx_hash, record.log_index)
            if identity not in rows:  # blocks are read several times; only what is new is a message
                rows[identity] = msgspec.structs.replace(
                    record, origin="recorded", world=self._world, received_at=received_at
                )
                messages.append(rows[identity])
        until = chunk.blocks[last].time
        if self._told is not None and until <= self._told:
            return messages
        self._told = until
        beat = Heartbeat(
            schema_version=1,
            event_time=until,
            received_at=received_at,
            origin="recorded",
            world=self._world,
            venue=self._reader.name,
        )
        return [*messages, (FLOWS, beat)]


class _RecordedAnswers(HttpClient):
    """Answers a reader's questions from the recorded ones since the last complete range."""

    def __init__(self, source: str) -> None:
        super().__init__(source, "", request_seconds=1.0)
        self._answers: dict[bytes, Answer] = {}

    def add(self, line: RawLine) -> None:
        """Keep an answer; the newest to the same question counts."""
        body = bytes(line.payload)
        payload: Any = msgspec.json.decode(body)
        answer = Answer(payload, body, line.sent_at or line.received_at, line.received_at)
        self._answers[_identity(line.path, line.params, line.body)] = answer

    def clear(self) -> None:
        """Forget them: the range is complete."""
        self._answers.clear()

    def ask(
        self,
        request: Request,
        *,
        deadline: float | None = None,
        attempts: int = 2,
        again: Reserve | None = None,
    ) -> Answer:
        """The recorded answer; RangeTooLargeError where none is recorded."""
        answer = self._answers.get(_identity(request.path, dict(request.params), request.body))
        if answer is None:
            raise ethereum_rpc.RangeTooLargeError(self.source, "nothing was answered to this")
        return answer


def _identity(path: str, params: dict[str, Any], body: Any) -> bytes:
    return msgspec.json.encode([path, {name: str(value) for name, value in params.items()}, body], order="sorted")
