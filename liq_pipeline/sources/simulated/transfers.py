"""Stablecoin transfers beside the simulated market: users and exchanges moving USDT and USDC on Ethereum.

Belongs here: who sends how much to whom, in which block. Does not: the market that makes them nervous (market.py).

Blocks come every 12 s; a transfer is known at the first 10 s step at or after its block. Before and in stress, money
is brought to exchanges: as fresh collateral and as what sold coins were paid with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import numpy as np

from liq_pipeline.domain.records import Heartbeat, StablecoinFlow
from liq_pipeline.domain.wallets import ZERO_ADDRESS, direction, shipped_labels
from liq_pipeline.domain.worlds import FLOWS_STEP_SECONDS, Expectation
from liq_pipeline.sources.simulated.market import DAY, Market

FETCHER: Final = "sim_chain"
CHAIN: Final = "ethereum"
LABEL_VERSION: Final = "simulation-1"
"""Of the directions in the records. Not the shipped list's version, which changes while a world goes on."""
BLOCK_SECONDS: Final = 12
_FIRST_SLOT_TIME: Final = 1_606_824_023 % BLOCK_SECONDS
_KNOWN_GRID_SECONDS: Final = 10
TRANSFERS_PER_SECOND: Final = 3 / 300
"""Transfers of note, around exchanges; dust and on-chain trading are left out."""
SURGE_FACTOR: Final = 2.5
_BIAS_LIFE: Final = 0.5 * DAY
_USERS: Final = 4000
_TOKENS: Final = ("USDT", "USDC")
_KINDS: Final = ("inflow", "outflow", "internal", "inter_exchange", "mint", "burn", "other")
_WEIGHTS: Final = np.array([0.30, 0.30, 0.12, 0.08, 0.01, 0.01, 0.18])
_TOKEN_SHARE: Final = 0.62
"""Of USDT among the transfers."""
_MEDIAN_USD: Final = 300_000.0
_SPREAD: Final = 1.3
_BULK_FACTOR: Final = 40.0
"""Issuers mint and burn in bulk."""
_LARGEST_USD: Final = 4e8


def expectations() -> dict[str, Expectation]:
    """Who reads the chain and how often, for the world's manifest."""
    return {"stablecoin_flows": Expectation(venues=(FETCHER,), cadence_seconds=FLOWS_STEP_SECONDS)}


@dataclass
class TransferState:
    """What goes on from step to step. bias: -1..1, whether users are rather leaving (positive) or bringing money."""

    bias: float = 0.0

    def arrays(self) -> dict[str, Any]:
        """The state as named arrays, for a snapshot."""
        return {"bias": np.asarray(self.bias)}


class Transfers:
    """The token transfers of one world, step by step."""

    def __init__(self, seed: int, world: str, market: Market) -> None:
        self._seed, self._world, self._market = seed, world, market
        labels = [label for label in shipped_labels() if label.source == "simulation" and label.chain == CHAIN]
        self._entities = {label.address: label.entity for label in labels}
        exchanges = sorted(set(self._entities.values()))
        self._wallets = [
            sorted(a for a, entity in self._entities.items() if entity == exchange) for exchange in exchanges
        ]
        self._users = ["0x" + self._hash(f"user {number}")[:40] for number in range(_USERS)]
        self.state = TransferState()

    def step(self, end: int, seconds: int) -> list[StablecoinFlow]:
        """The transfers that became known in the step that ended at `end` (unix seconds)."""
        rng = np.random.Generator(np.random.Philox(key=self._seed, counter=[end, 2, 0, 0]))
        state = self.state
        state.bias += -state.bias * seconds / _BIAS_LIFE
        state.bias += 0.35 * math.sqrt(2 * seconds / _BIAS_LIFE) * float(rng.standard_normal())
        surge = self._market.inflow_surge(end)
        blocks = list(_blocks(end - seconds, end))
        rate = TRANSFERS_PER_SECOND * BLOCK_SECONDS * (SURGE_FACTOR if surge else 1.0)
        counts = rng.poisson(rate, size=len(blocks))
        total = int(counts.sum())
        if not total:
            return []
        weights = _WEIGHTS.copy()
        lean = math.tanh(state.bias) * 0.5 - (0.8 if surge else 0.0)
        weights[0] *= 1 - lean
        weights[1] *= max(1 + lean, 0.1)
        kinds = np.searchsorted(np.cumsum(weights / weights.sum())[:-1], rng.random(total), side="right").tolist()
        usd = (_MEDIAN_USD * np.exp(_SPREAD * rng.standard_normal(total))).tolist()
        whole = rng.integers(0, 1 << 30, size=(total, 4)).tolist()
        tokens = np.where(rng.random(total) < _TOKEN_SHARE, *_TOKENS).tolist()
        flows: list[StablecoinFlow] = []
        for (slot, known), count in zip(blocks, counts.tolist(), strict=True):
            for index in range(count):
                number = len(flows)
                kind = _KINDS[kinds[number]]
                factor = _BULK_FACTOR if kind in ("mint", "burn") else 2.0 if surge and kind == "inflow" else 1.0
                amount = Decimal(f"{min(usd[number] * factor, _LARGEST_USD):.6f}")
                sender, receiver = self._ends(kind, *whole[number])
                flows.append(self._transfer(slot, known, index, str(tokens[number]), amount, sender, receiver))
        return flows

    def heartbeats(self, end: int) -> list[tuple[str, Heartbeat]]:
        """The statement that the chain was read up to `end`."""
        return [("stablecoin_flows", Heartbeat(**self._common(end, end), venue=FETCHER))]

    def _common(self, event: int, known: int) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "event_time": datetime.fromtimestamp(event, UTC),
            "received_at": datetime.fromtimestamp(known, UTC),
            "origin": "simulated",
            "world": self._world,
        }

    def _ends(self, kind: str, first: int, second: int, third: int, fourth: int) -> tuple[str, str]:
        """Sender and receiver of a transfer of this kind, chosen by four random numbers."""
        exchange = first % len(self._wallets)
        wallets = self._wallets[exchange]
        here = wallets[third % len(wallets)]
        match kind:
            case "inflow":
                return self._user(second), here
            case "outflow":
                return here, self._user(second)
            case "internal":
                return here, wallets[(third + 1) % len(wallets)]
            case "inter_exchange":
                others = self._wallets[(exchange + 1 + second % (len(self._wallets) - 1)) % len(self._wallets)]
                return here, others[fourth % len(others)]
            case "mint":
                return ZERO_ADDRESS, here
            case "burn":
                return here, ZERO_ADDRESS
            case _:
                return self._user(second), self._user(second + 1 + third % (_USERS - 1))

    def _transfer(
        self, slot: int, known: int, index: int, token: str, amount: Decimal, sender: str, receiver: str
    ) -> StablecoinFlow:
        return StablecoinFlow(
            **self._common(slot, known),
            venue=FETCHER,
            chain=CHAIN,
            token=token,
            tx_hash="0x" + self._hash(f"transfer {slot} {index}"),
            log_index=index,
            block_number=slot // BLOCK_SECONDS,
            block_hash="0x" + self._hash(f"block {slot}"),
            from_address=sender,
            to_address=receiver,
            amount=amount,
            from_entity=self._entities.get(sender),
            to_entity=self._entities.get(receiver),
            direction=direction(sender, receiver, self._entities),
            label_version=LABEL_VERSION,
        )

    def _user(self, number: int) -> str:
        return self._users[number % _USERS]

    def _hash(self, what: str) -> str:
        return hashlib.sha256(f"{self._world} {what}".encode()).hexdigest()


def _blocks(after: int, end: int) -> Iterator[tuple[int, int]]:
    """(block time, time it is known) of the blocks that became known in (after, end], unix seconds."""
    slot = after - _KNOWN_GRID_SECONDS + 1
    slot += (_FIRST_SLOT_TIME - slot) % BLOCK_SECONDS
    while slot <= end:
        known = -(-slot // _KNOWN_GRID_SECONDS) * _KNOWN_GRID_SECONDS
        if after < known <= end:
            yield slot, known
        slot += BLOCK_SECONDS
