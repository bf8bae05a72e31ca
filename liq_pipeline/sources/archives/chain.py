"""Stablecoin transfers of the past, by block range, an hour of blocks at a time.

Belongs here: finding the blocks of an hour and reading them. Does not: the providers (sources/chain/), following the
head of the chain (sources/chain/following.py).

Old blocks are final: nothing is read twice. Directions are those of the labels in force now, as first seen; scoring
derives them from the labels known at its own time.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from liq_pipeline.domain.records import Heartbeat, Record
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access.http import TransientError
from liq_pipeline.sources.access.limits import Budgets
from liq_pipeline.sources.archives.pieces import Absent, Content, Known, Piece
from liq_pipeline.sources.chain import wallet_lists
from liq_pipeline.sources.chain.ethereum import Block, ChainReader
from liq_pipeline.sources.chain.following import records_of
from liq_pipeline.sources.chain.trongrid import DELAY_SECONDS
from liq_pipeline.store.connection import connect

SERIES: Final = "transfers"
TOPIC: Final = "stablecoin_flows"
DELAY: Final = timedelta(seconds=20)
"""A live poll comes every 15 s and a provider shows a block some seconds after its time."""
CONFIRMED: Final = timedelta(minutes=15)
"""Past re-orgs: what is younger is the live poll's."""
ADMIT_SECONDS: Final = 3600.0
ATTEMPTS: Final = 5
_HOUR: Final = timedelta(hours=1)


class ChainHistory:
    """A chain's transfers through the user's node or key. Its pieces belong to the chain's name in place of a coin:
    transfers belong to all coins."""

    concurrency = 1

    def __init__(self, settings: Settings, database_url: str, venue: str | None = None) -> None:
        """venue: of flows; None: the first in force. Raises LiqError if neither a node nor a key is set."""
        self._http = registry.flow_client(settings, venue)
        self.name = self._http.source
        self._settings = settings
        share = settings.sources.history_budget_share
        self._budgets = Budgets(database_url, registry.flow_limits(settings, self.name), share=share)

        def acquire(costs: dict[str, int]) -> None:
            self._budgets.acquire(costs, timeout_seconds=ADMIT_SECONDS)

        self._reader: ChainReader = registry.flow_reader(self._http, acquire, None)
        self._chain = self._reader.chain
        with connect(database_url, application_name="liq backfill labels") as conn:
            self._labels = wallet_lists.in_force(conn, datetime.now(UTC), self._chain.name)
        self._delay = timedelta(seconds=DELAY_SECONDS) if self._reader.is_final else DELAY
        self._lock = threading.Lock()
        self._anchors: dict[int, Block] = {}

    def close(self) -> None:
        """Close the connections."""
        self._budgets.close()
        self._http.close()

    def pieces(self, symbols: Sequence[str], start: datetime, end: datetime) -> Iterator[Piece]:
        """Whole hours, whatever the symbols."""
        hour = start.replace(minute=0, second=0, microsecond=0)
        while hour < end:
            path = f"/{self._chain.name}/transfers/{hour:%Y-%m-%dT%HZ}"
            yield Piece(self.name, SERIES, self._chain.name.upper(), hour, hour + _HOUR, path)
            hour += _HOUR

    def read(self, piece: Piece, known: Known, now: datetime) -> Content | Absent | None:
        """The transfers of the hour's blocks. Raises SourceError, BudgetError."""
        if known(piece.path) is not None:
            return None
        if now - CONFIRMED < piece.last:
            return Absent(is_expected=True)
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=1, max=60),
            reraise=True,
        )
        return retrying(self._read, piece, now)

    def _read(self, piece: Piece, now: datetime) -> Content:
        with self._lock:
            first, last = self._first_block_from(piece.first), self._first_block_from(piece.last) - 1
            records: list[Record] = []
            heartbeats: list[tuple[str, Heartbeat]] = []
            for start in range(first, last + 1, self._reader.chunk_blocks):
                chunk = self._reader.read(self._chain.tokens, start, min(start + self._reader.chunk_blocks - 1, last))
                records += [
                    msgspec.structs.replace(record, origin="archive", known_at=record.event_time + self._delay)
                    for record in records_of(chunk, self._labels, self._settings.sources, self.name, self._chain)
                ]
                heartbeats += [
                    (TOPIC, _heartbeat(self.name, block, chunk.received_at, self._delay))
                    for block in sorted(chunk.blocks.values(), key=lambda block: block.number)
                ]
        digest = hashlib.sha256(msgspec.json.encode([[record, None] for record in records])).hexdigest()
        return Content(piece.path, digest, now, records, heartbeats)

    def _first_block_from(self, moment: datetime) -> int:
        """The first block at or after a time, by interpolation between blocks whose times are known."""
        seconds = int(moment.timestamp())
        if not self._anchors:
            self._anchor(self._reader.head())
        low = max((n for n, block in self._anchors.items() if block.time < moment), default=None)
        high = min((n for n, block in self._anchors.items() if block.time >= moment), default=None)
        while low is None or high is None or high - low > 1:
            if low is None or high is None:
                # Walk out from the nearest end until the time lies between two blocks.
                near = self._anchors[high if low is None else low]  # type: ignore[index]
                away = (seconds - int(near.time.timestamp())) / self._chain.block_seconds
                guess = max(0, near.number + round(away) + (-16 if low is None else 16))
            else:
                before, after = (self._anchors[n].time.timestamp() for n in (low, high))
                share = (seconds - before) / (after - before)
                guess = min(max(low + round(share * (high - low)), low + 1), high - 1)
            block = self._anchor(guess)
            if block.time < moment:
                low = guess if low is None else max(low, guess)
            else:
                high = guess if high is None else min(high, guess)
            if low is None and guess == 0:
                return 0
        return high

    def _anchor(self, number: int) -> Block:
        if number not in self._anchors:
            self._anchors[number] = self._reader.block(number)
        return self._anchors[number]


def _heartbeat(venue: str, block: Block, received_at: datetime, delay: timedelta) -> Heartbeat:
    return Heartbeat(
        schema_version=1,
        event_time=block.time,
        received_at=received_at,
        known_at=block.time + delay,
        origin="archive",
        world=REAL,
        venue=venue,
    )
