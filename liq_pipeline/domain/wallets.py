"""Which address belongs to which exchange, and what a transfer between two addresses therefore is.

Belongs here: the shipped label list and the direction of a transfer under a list. Does not: tables of labels and which
list is in force when (store/), or reading the chain (sources/).

The shipped list is selected from brianleect/etherscan-labels (October 2023, MIT, see labels/NOTICE), plus the made-up
wallets of the simulated venues: one list serves every world, since no real transfer can touch an invented address.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Final, Literal

import msgspec

Direction = Literal["inflow", "outflow", "internal", "inter_exchange", "mint", "burn", "other"]

ZERO_ADDRESS: Final = "0x" + "0" * 40
SHIPPED_LIST_VERSION: Final = "etherscan-labels-2023-10.1"
"""Changes with every change of the shipped file: a score names the list it rests on."""


class WalletLabel(msgspec.Struct, frozen=True, kw_only=True):
    """An address (lower case) and the exchange it belongs to. role: hot, cold, deposit, or wallet where unknown."""

    chain: str
    address: str
    entity: str
    role: str
    source: str


@lru_cache(maxsize=1)
def shipped_labels() -> tuple[WalletLabel, ...]:
    """The list that comes with the program, version SHIPPED_LIST_VERSION."""
    file = resources.files("liq_pipeline.domain") / "labels" / "wallet_labels.csv"
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return tuple(WalletLabel(**row) for row in rows)


def direction(from_address: str, to_address: str, entities: Mapping[str, str]) -> Direction:
    """What a transfer is, given the exchange of each labelled address of its chain (lower-case addresses)."""
    return direction_between(
        entities.get(from_address),
        entities.get(to_address),
        is_mint=from_address == ZERO_ADDRESS,
        is_burn=to_address == ZERO_ADDRESS,
    )


def direction_between(sender: str | None, receiver: str | None, *, is_mint: bool, is_burn: bool) -> Direction:
    """The same, given which exchange (None: not known to be one) stands at each end.

    is_mint, is_burn: from or to the zero address; that decides, whoever stands at the other end.
    """
    if is_mint:
        return "mint"
    if is_burn:
        return "burn"
    if sender is None and receiver is None:
        return "other"
    if sender is None:
        return "inflow"
    if receiver is None:
        return "outflow"
    return "internal" if sender == receiver else "inter_exchange"
