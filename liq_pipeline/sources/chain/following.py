"""Following stablecoin transfers along the chain: every block once, late rows found, re-orgs marked.

Belongs here: where reading goes on, what is kept, and what a re-org takes back. Does not: a provider's endpoints
(etherscan.py, ethereum_rpc.py, trongrid.py), labels as such (wallet_lists.py), or when to poll
(sources/polling/round.py).

Each poll reads from a few blocks before the last one read up to the newest, in chunks, until the time runs out; once a
minute it then goes back as many blocks as the chain's row says (Ethereum: LIQ_SOURCE_FLOW_REREAD_BLOCKS). Blocks are
read again because an index fills late and because a re-org replaces blocks: a block number whose hash has changed
orphans the old hash. Rows of an orphaned block are sent again as not canonical; they are looked for in the table for an
hour after, since they may still have been on their way through Kafka when the re-org was seen. A provider that gives
final blocks only is read once.
What was read is remembered only after Kafka has acknowledged it: a poll that dies reads the same blocks again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import psycopg

from liq_pipeline.domain.chains import ETHEREUM, ZERO_ADDRESS, Chain
from liq_pipeline.domain.records import Heartbeat, StablecoinFlow
from liq_pipeline.domain.tron_address import base58_of
from liq_pipeline.domain.wallets import direction
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.settings import SourceSettings
from liq_pipeline.sources.access.http import SourceError, TransientError
from liq_pipeline.sources.access.limits import BudgetError
from liq_pipeline.sources.chain.ethereum import Block, ChainReader, Chunk, Transfer
from liq_pipeline.sources.chain.wallet_lists import LabelList

OnChunk = Callable[[str, int, int, datetime], None]
"""Called with (source, first block, last block, when they were complete) for every range that was read."""

QUICK_REREAD_BLOCKS: Final = 3
FULL_REREAD_SECONDS: Final = 60.0
REMEMBERED_BLOCKS: Final = 2_000
"""At least twice what is read again of any chain."""
ORPHAN_WATCH: Final = timedelta(hours=1)


@dataclass
class FlowReading:
    """What a poll found. orphaned: hashes that are no longer on the chain, and when that was seen. heartbeat: the
    newest block read."""

    records: list[StablecoinFlow] = field(default_factory=list)
    blocks: dict[str, Block] = field(default_factory=dict)
    """By hash: read now, to be remembered."""
    orphaned: dict[str, datetime] = field(default_factory=dict)
    heartbeat: Heartbeat | None = None
    head: int | None = None
    read_to: int | None = None
    read_at: datetime | None = None
    chain: str = ETHEREUM.name

    @property
    def is_behind(self) -> bool:
        """Whether blocks are left that could have been read."""
        return self.head is not None and (self.read_to is None or self.read_to < self.head)


def read_flows(
    reader: ChainReader,
    conn: psycopg.Connection[Any],
    labels: LabelList,
    knobs: SourceSettings,
    now: datetime,
    deadline: float,
    *,
    failures: int = 0,
    on_chunk: OnChunk | None = None,
) -> FlowReading:
    """Read what is new of the reader's chain, then what is to be read again.

    deadline: time.monotonic() after which no chunk is begun.
    failures: how often in a row nothing could be read; each halves the chunk, since one may be too much for a round.
    Raises SourceError or BudgetError only if nothing at all could be read.
    """
    chain = reader.chain
    reading = FlowReading(read_at=now, chain=chain.name)
    head = reader.head()
    reading.head = head
    known = _known_blocks(conn, chain)
    newest = max(known, default=None)
    size = max(1, reader.chunk_blocks >> failures)
    again = 0 if reader.is_final else reread_blocks(chain, knobs)
    if newest is None:
        spans = [(max(0, head - chain.blocks_of(knobs.flow_lookback_blocks)), head)]
    else:
        # A head below what was read is a re-org (or a lagging node): the blocks around it are read again.
        first = max(0, min(newest, head) + 1 - min(QUICK_REREAD_BLOCKS, again))
        spans = [(first, head)]
        if again and _full_reread_due(conn, chain, now):
            spans.append((max(0, newest + 1 - again), first - 1))
    for number, (first, end) in enumerate(spans):
        for start in range(first, end + 1, size):
            if time.monotonic() > deadline:
                break
            last = min(start + size - 1, end)
            try:
                chunk = reader.read(chain.tokens, start, last)
                # A block that had transfers and has none now may have been replaced by an empty one.
                for gone in [n for n in known if start <= n <= last and n not in chunk.blocks]:
                    chunk.blocks[gone] = reader.block(gone)
                _take(reading, chunk, known, labels, knobs, reader)
                if on_chunk is not None:
                    on_chunk(reader.name, start, last, chunk.received_at)
            except (SourceError, BudgetError):
                if reading.read_to is None:
                    raise
                break  # what was read is good; the rest is read by the next poll
            if number == 0:
                reading.read_to = last
                reading.heartbeat = _heartbeat(reader.name, chunk.blocks[last], chunk.received_at)
        if reading.is_behind:
            break
    if reader.is_final and newest is not None and head <= newest:
        # Nothing new is final: all that can be known is known, and says so again.
        reading.read_to = head
    reading.records += _taken_back(conn, chain, reading.orphaned, reader.name, now)
    return reading


def reread_blocks(chain: Chain, knobs: SourceSettings) -> int:
    """How many of the chain's newest blocks are read again once a minute."""
    return knobs.flow_reread_blocks if chain is ETHEREUM else chain.reread_blocks


def remember(conn: psycopg.Connection[Any], reading: FlowReading) -> None:
    """Store what was read, in the caller's transaction, once Kafka has acknowledged the records."""
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO chain_blocks (chain, block_number, block_hash, block_time, read_at) VALUES (%s, %s, %s, %s, %s)
            ON CONFLICT (chain, block_hash) DO UPDATE SET
                is_canonical = true, orphaned_at = NULL, read_at = excluded.read_at
            """,
            [
                (reading.chain, block.number, block.hash, block.time, reading.read_at)
                for block in reading.blocks.values()
            ],
        )
    conn.execute(
        "UPDATE chain_blocks SET is_canonical = false, orphaned_at = %s WHERE chain = %s AND block_hash = ANY(%s)",
        [reading.read_at, reading.chain, list(reading.orphaned)],
    )
    if reading.read_to is not None:
        conn.execute(
            "DELETE FROM chain_blocks WHERE chain = %s AND block_number < %s",
            [reading.chain, reading.read_to - REMEMBERED_BLOCKS],
        )


def _known_blocks(conn: psycopg.Connection[Any], chain: Chain) -> dict[int, str]:
    """{number: hash} of the canonical blocks remembered."""
    query = "SELECT block_number, block_hash FROM chain_blocks WHERE chain = %s AND is_canonical"
    return dict(conn.execute(query, [chain.name]).fetchall())


def _full_reread_due(conn: psycopg.Connection[Any], chain: Chain, now: datetime) -> bool:
    """Once a minute the whole depth is read again; in between only the newest few blocks."""
    query = "SELECT max(read_at) FROM chain_blocks WHERE chain = %s AND is_canonical"
    row = conn.execute(query, [chain.name]).fetchone()
    if row is None or row[0] is None:
        return True
    last: datetime = row[0]
    return now.timestamp() // FULL_REREAD_SECONDS != last.timestamp() // FULL_REREAD_SECONDS


def _take(
    reading: FlowReading,
    chunk: Chunk,
    known: Mapping[int, str],
    labels: LabelList,
    knobs: SourceSettings,
    reader: ChainReader,
) -> None:
    for transfer in chunk.transfers:
        if transfer.block_hash not in (None, chunk.blocks[transfer.block_number].hash):
            raise TransientError(reader.name, "the chain was re-organised while it was read")
    blocks = {block.hash: block for block in chunk.blocks.values()}
    for block in blocks.values():
        before = known.get(block.number)
        if before is not None and before != block.hash and before not in reading.orphaned:
            reading.orphaned[before] = chunk.received_at
    reading.blocks |= blocks
    reading.records += records_of(chunk, labels, knobs, reader.name, reader.chain)


def records_of(
    chunk: Chunk, labels: LabelList, knobs: SourceSettings, venue: str, chain: Chain = ETHEREUM
) -> list[StablecoinFlow]:
    """The transfers of a chunk that are kept: those of labelled wallets, mints and burns, and large ones.

    Never those of nothing, and where a transfer costs cents none of dust: they are bait, sent so that a wallet's
    history shows an address that looks like one it knows. No user's money moves in them.
    """
    records: list[StablecoinFlow] = []
    threshold = Decimal(str(knobs.flow_minimum_amount))
    entities_of = {block.number: labels.entities_of_nodes(block.time) for block in chunk.blocks.values()}
    for transfer in chunk.transfers:
        if not transfer.amount:
            continue
        sender, receiver = transfer.from_address, transfer.to_address
        if ZERO_ADDRESS not in (sender, receiver):
            if transfer.amount < chain.dust_amount:
                continue
            entities = entities_of[transfer.block_number]
            if transfer.amount < threshold and sender not in entities and receiver not in entities:
                continue
        records.append(_record(transfer, chunk, entities_of[transfer.block_number], labels.version, venue, chain))
    return records


def _record(
    transfer: Transfer,
    chunk: Chunk,
    entities: Mapping[str, str],
    label_version: str,
    venue: str,
    chain: Chain,
) -> StablecoinFlow:
    block = chunk.blocks[transfer.block_number]
    sender, receiver = transfer.from_address, transfer.to_address
    return StablecoinFlow(
        schema_version=1,
        event_time=block.time,
        received_at=chunk.received_at,
        origin="live",
        world=REAL,
        venue=venue,
        chain=chain.name,
        token=transfer.token,
        tx_hash=transfer.tx_hash,
        log_index=transfer.log_index,
        block_number=transfer.block_number,
        block_hash=transfer.block_hash or block.hash,
        from_address=base58_of(sender) if chain.is_tron else sender,
        to_address=base58_of(receiver) if chain.is_tron else receiver,
        amount=transfer.amount,
        from_entity=entities.get(sender),
        to_entity=entities.get(receiver),
        direction=direction(sender, receiver, entities),
        label_version=label_version,
    )


def _heartbeat(venue: str, block: Block, received_at: datetime) -> Heartbeat:
    return Heartbeat(
        schema_version=1, event_time=block.time, received_at=received_at, origin="live", world=REAL, venue=venue
    )


def _taken_back(
    conn: psycopg.Connection[Any], chain: Chain, orphaned: Mapping[str, datetime], venue: str, now: datetime
) -> list[StablecoinFlow]:
    """Rows of blocks that are no longer on the chain, as not canonical; also of re-orgs seen within the last hour."""
    recent = conn.execute(
        "SELECT block_hash FROM chain_blocks WHERE chain = %s AND NOT is_canonical AND orphaned_at > %s",
        [chain.name, now - ORPHAN_WATCH],
    ).fetchall()
    hashes = [*orphaned, *(row[0] for row in recent)]
    if not hashes:
        return []
    rows = conn.execute(
        """
        SELECT event_time, token, tx_hash, log_index, block_number, block_hash, from_address, to_address, amount,
               from_entity, to_entity, direction, label_version
        FROM stablecoin_flows
        WHERE world = %(world)s AND chain = %(chain)s AND block_hash = ANY(%(hashes)s) AND is_canonical
          AND event_time >= (
              SELECT min(block_time) FROM chain_blocks WHERE chain = %(chain)s AND block_hash = ANY(%(hashes)s)
          )
        """,
        {"world": REAL, "chain": chain.name, "hashes": hashes},
    ).fetchall()
    return [
        StablecoinFlow(
            schema_version=1,
            event_time=event_time,
            received_at=orphaned.get(block_hash, now),
            origin="live",
            world=REAL,
            venue=venue,
            chain=chain.name,
            token=token,
            tx_hash=tx_hash,
            log_index=log_index,
            block_number=block_number,
            block_hash=block_hash,
            is_canonical=False,
            from_address=from_address,
            to_address=to_address,
            amount=amount,
            from_entity=from_entity,
            to_entity=to_entity,
            direction=kind,
            label_version=label_version,
        )
        for (
            event_time,
            token,
            tx_hash,
            log_index,
            block_number,
            block_hash,
            from_address,
            to_address,
            amount,
            from_entity,
            to_entity,
            kind,
            label_version,
        ) in rows
    ]
