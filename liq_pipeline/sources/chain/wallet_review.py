"""Lists of wallets held against each other, and addresses that behave like an exchange's but are in no list.

Belongs here: reading a list from a file, where two disagree, and proposals for people to look at. Does not: lists in
force (wallet_lists.py). Nothing here changes a list: a proposal is never used by itself.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import psycopg

from liq_pipeline.domain.chains import CHAINS, TRON
from liq_pipeline.domain.tron_address import is_tron_address
from liq_pipeline.domain.wallets import WalletLabel

LEAST_SENDERS: Final = 10
"""A sweep target gathers from many ..."""
MOST_OUT_SHARE: Final = 0.2
"""... and pays out rarely: at most this many transfers out for one in ..."""
LEAST_TO_ONE: Final = 0.95
"""... nearly all of it, by amount, to the wallets of one exchange."""
_CHAIN_OF: Final = {"bnb": "bsc", "avax": "avalanche", "matic": "polygon", "op": "optimism", "eth": "ethereum"}
_ENTITY_OF: Final = {"okex": "okx", "gate-io": "gate", "gate.io": "gate", "huobi": "htx", "crypto.com": "crypto_com"}


@dataclass(frozen=True)
class Finding:
    """What another list says of an address. kind: `agrees`, `differs`, `unknown` here, or `malformed`."""

    kind: Literal["agrees", "differs", "unknown", "malformed"]
    chain: str
    address: str
    ours: str | None
    theirs: str


def read_list(text: str) -> list[WalletLabel]:
    """Labels from another's CSV: chain, address, and entity or exchange. Chains that are not followed are left out.

    Names are brought into our form (okex is okx). Raises ValueError if a column is missing.
    """
    rows = csv.DictReader(text.splitlines())
    columns = {name.strip().lower() for name in rows.fieldnames or ()}
    if not {"chain", "address"} <= columns or not {"entity", "exchange"} & columns:
        raise ValueError("a list of wallets has the columns chain, address, and entity or exchange")
    labels = []
    for row in rows:
        fields = {str(name).strip().lower(): str(value or "").strip() for name, value in row.items()}
        chain = fields["chain"].lower()
        chain = _CHAIN_OF.get(chain, chain)
        if chain not in CHAINS:
            continue
        address = fields["address"] if chain == TRON.name else fields["address"].lower()
        entity = (fields.get("entity") or fields.get("exchange") or "").lower().removesuffix("-cex")
        entity = _ENTITY_OF.get(entity, entity).replace("-", "_").replace(".", "_")
        labels.append(WalletLabel(chain=chain, address=address, entity=entity, role="wallet", source="file"))
    return labels


def compare(ours: Iterable[WalletLabel], theirs: Iterable[WalletLabel]) -> list[Finding]:
    """What `theirs` says of each of its addresses, beside what we say."""
    known = {(label.chain, label.address): label.entity for label in ours}
    found = []
    for label in theirs:
        mine = known.get((label.chain, label.address))
        kind: Literal["agrees", "differs", "unknown", "malformed"]
        if not _is_address(label):
            kind = "malformed"
        elif mine is None:
            kind = "unknown"
        else:
            # tether_treasury and tether, binance_custody and binance: one owner, named more closely.
            kind = "agrees" if mine.split("_")[0] == label.entity.split("_")[0] else "differs"
        found.append(Finding(kind, label.chain, label.address, mine, label.entity))
    return found


def _is_address(label: WalletLabel) -> bool:
    if label.chain == TRON.name:
        return is_tron_address(label.address)
    digits = label.address.removeprefix("0x")
    return len(digits) == 40 and all(digit in "0123456789abcdef" for digit in digits)


@dataclass(frozen=True)
class Proposal:
    """An unlabelled address that gathers from many and pays one exchange. Amounts in dollars."""

    chain: str
    address: str
    entity: str
    senders: int
    transfers_in: int
    transfers_out: int
    in_usd: float
    out_usd: float
    share_to_entity: float


def sweep_like(
    conn: psycopg.Connection[Any], world: str, list_version: str, first: datetime, last: datetime
) -> list[Proposal]:
    """Addresses outside the list that behaved like a sweep target in (first, last], by the transfers that were kept.

    Transfers between unlabelled addresses are kept from LIQ_SOURCE_FLOW_MINIMUM_AMOUNT up: who looks for small deposits
    sets it to 0 for a day.
    """
    rows = conn.execute(
        """
        WITH moved AS (
            SELECT t.chain, t.from_address, t.to_address, t.amount, f.entity AS from_entity, g.entity AS to_entity
            FROM stablecoin_flows AS t
            LEFT JOIN wallet_labels AS f
                ON f.chain = t.chain AND f.address = t.from_address AND f.list_version = %(version)s
            LEFT JOIN wallet_labels AS g
                ON g.chain = t.chain AND g.address = t.to_address AND g.list_version = %(version)s
            WHERE t.world = %(world)s AND t.event_time > %(first)s AND t.event_time <= %(last)s AND t.is_canonical
              AND t.direction NOT IN ('mint', 'burn')
        ), gathered AS (
            SELECT chain, to_address AS address, count(*) AS transfers, count(DISTINCT from_address) AS senders,
                   sum(amount) AS amount
            FROM moved WHERE to_entity IS NULL AND from_entity IS NULL GROUP BY 1, 2
        ), paid AS (
            SELECT chain, from_address AS address, to_entity, count(*) AS transfers, sum(amount) AS amount
            FROM moved WHERE from_entity IS NULL GROUP BY 1, 2, 3
        ), totals AS (
            SELECT chain, address, sum(transfers) AS transfers, sum(amount) AS amount FROM paid GROUP BY 1, 2
        )
        SELECT g.chain, g.address, p.to_entity, g.senders, g.transfers, t.transfers::bigint, g.amount::float8,
               t.amount::float8, (p.amount / t.amount)::float8 AS share
        FROM gathered AS g JOIN totals AS t USING (chain, address) JOIN paid AS p USING (chain, address)
        WHERE p.to_entity IS NOT NULL AND g.senders >= %(senders)s AND t.amount > 0
          AND t.transfers <= %(out)s * g.transfers AND p.amount >= %(share)s * t.amount
        ORDER BY t.amount DESC, g.address
        """,
        {
            "world": world,
            "version": list_version,
            "first": first,
            "last": last,
            "senders": LEAST_SENDERS,
            "out": MOST_OUT_SHARE,
            "share": LEAST_TO_ONE,
        },
    ).fetchall()
    return [Proposal(*row) for row in rows]
