"""Which address belongs to which exchange, and what a transfer between two addresses therefore is.

Belongs here: the shipped label list and the direction of a transfer under a list. Does not: tables of labels and which
list is in force when (store/), or reading the chain (sources/).

The shipped list is selected from brianleect/etherscan-labels (October 2023, MIT, see labels/NOTICE), plus single
addresses that at least two public lists agree on (docs/wallets.md), plus the made-up wallets of the simulated venues:
one list serves every world, since no real transfer can touch an invented address.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import Final, Literal

import msgspec

from liq_pipeline.domain.chains import ZERO_ADDRESS as ZERO_ADDRESS
from liq_pipeline.domain.chains import ZERO_ADDRESSES

Direction = Literal["inflow", "outflow", "internal", "inter_exchange", "mint", "burn", "other"]

CUSTODY_SUFFIX: Final = "_custody"
"""An entity of this kind holds tokens that stand behind others (pegged tokens on another chain): no user's deposit."""
TREASURY_SUFFIX: Final = "_treasury"
"""An entity of this kind is an issuer: what leaves it comes into circulation (mint), what returns is taken out (burn).
Tether issues to itself first, without a transfer from the zero address."""
SHIPPED_LIST_VERSION: Final = "shipped-2026-11.2"
"""Changes with every change of the shipped file: a score names the list it rests on."""


class WalletLabel(msgspec.Struct, frozen=True, kw_only=True):
    """An address (lower case; on Tron base58) and the exchange it belongs to.

    role: hot, cold, deposit, custody, treasury; wallet: not known.
    The label holds for transfers in [valid_from, valid_to); None is open.
    """

    chain: str
    address: str
    entity: str
    role: str
    source: str
    valid_from: datetime | None = None
    valid_to: datetime | None = None

    def holds_at(self, moment: datetime) -> bool:
        """Whether the label was true at that time."""
        after = self.valid_from is None or self.valid_from <= moment
        return after and (self.valid_to is None or moment < self.valid_to)


@lru_cache(maxsize=1)
def shipped_labels() -> tuple[WalletLabel, ...]:
    """The list that comes with the program, version SHIPPED_LIST_VERSION."""
    file = resources.files("liq_pipeline.domain") / "labels" / "wallet_labels.csv"
    return parse_labels(file.read_text(encoding="utf-8"))


def parse_labels(text: str) -> tuple[WalletLabel, ...]:
    """Labels from CSV: chain,address,entity,role,source[,valid_from,valid_to]. Raises ValueError naming the line."""
    labels = []
    for number, row in enumerate(csv.DictReader(text.splitlines()), start=2):
        filled = {name: value for name, value in row.items() if value}
        try:
            labels.append(msgspec.convert(filled, WalletLabel))
        except msgspec.ValidationError as error:
            raise ValueError(f"line {number} of the label list: {error}") from error
    return tuple(labels)


def direction(from_address: str, to_address: str, entities: Mapping[str, str]) -> Direction:
    """What a transfer is, given the exchange of each labelled address of its chain (lower-case addresses)."""
    return direction_between(
        entities.get(from_address),
        entities.get(to_address),
        is_mint=from_address in ZERO_ADDRESSES,
        is_burn=to_address in ZERO_ADDRESSES,
    )


def direction_between(sender: str | None, receiver: str | None, *, is_mint: bool, is_burn: bool) -> Direction:
    """The same, given which exchange (None: not known to be one) stands at each end.

    is_mint, is_burn: from or to the zero address; that decides, whoever stands at the other end.
    """
    if is_mint:
        return "mint"
    if is_burn:
        return "burn"
    issues, redeems = (entity is not None and entity.endswith(TREASURY_SUFFIX) for entity in (sender, receiver))
    if issues or redeems:
        return "internal" if issues and redeems else "mint" if issues else "burn"
    if any(entity is not None and entity.endswith(CUSTODY_SUFFIX) for entity in (sender, receiver)):
        return "internal"
    if sender is None and receiver is None:
        return "other"
    if sender is None:
        return "inflow"
    if receiver is None:
        return "outflow"
    return "internal" if sender == receiver else "inter_exchange"
