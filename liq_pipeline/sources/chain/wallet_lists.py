"""Label lists in the database: the shipped one, and newer ones from the exchanges' own proof-of-reserves files.

Belongs here: which list came into force when, and reading the published files. Does not: what a label means
(domain/wallets.py) or scoring under a list (scoring, store/inputs/as_known.py).

A list is never changed: a refresh writes a whole new list with its own version and the time it became known here, so a
past score keeps the labels known then.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from liq_pipeline.domain.chains import CHAINS
from liq_pipeline.domain.tron_address import is_tron_address
from liq_pipeline.domain.wallets import (
    CUSTODY_SUFFIX,
    SHIPPED_LIST_VERSION,
    TREASURY_SUFFIX,
    WalletLabel,
    shipped_labels,
)
from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import HttpClient, Request, SourceError
from liq_pipeline.sources.chain.ethereum import CHAIN, node_form
from liq_pipeline.sources.live.values import UNREADABLE
from liq_pipeline.store.connection import connect

log = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 86_400.0
PUBLISHED_SECONDS: Final = 30.0

TRON_LETTERS: Final = 34
_ADDRESS = re.compile(r"^0x[0-9a-f]{40}$")
_CHAIN_NAMES = {
    "ethereum": ("ETH", "ETHEREUM", "ERC20", "ETH (ERC20)"),
    "tron": ("TRX", "TRON", "TRC20", "TRX (TRC20)"),
    "bsc": ("BSC", "BNB", "BEP20", "BNB SMART CHAIN", "BSC (BEP20)"),
    "arbitrum": ("ARB", "ARBITRUM", "ARBI", "ARBITRUM ONE"),
    "base": ("BASE",),
    "polygon": ("MATIC", "POLYGON", "POL"),
    "avalanche": ("AVAX", "AVAXC", "AVAX-C", "CAVAX", "AVALANCHE", "AVALANCHE C-CHAIN"),
    "optimism": ("OP", "OPTIMISM", "OPT", "OP MAINNET"),
}
_CHAIN_OF_NAME = {name: chain for chain, names in _CHAIN_NAMES.items() for name in names}
"""What exchanges call the chains in their files."""


class LabelList:
    """One list: entity per address of a chain, at a time."""

    def __init__(self, version: str, labels: Iterable[WalletLabel], chain: str = CHAIN) -> None:
        self.version = version
        self._labels: dict[str, WalletLabel] = {label.address: label for label in labels if label.chain == chain}
        self._node_form = {address: node_form(CHAINS[chain], address) for address in self._labels}
        self._dated = [label for label in self._labels.values() if label.valid_from or label.valid_to]
        self._of_nodes: dict[tuple[bool, ...], dict[str, str]] = {}

    def __len__(self) -> int:
        return len(self._labels)

    def entities_at(self, moment: datetime) -> Mapping[str, str]:
        """{address: entity} of the labels that hold at that time."""
        return {address: label.entity for address, label in self._labels.items() if label.holds_at(moment)}

    def entities_of_nodes(self, moment: datetime) -> Mapping[str, str]:
        """The same by addresses as nodes write them. Built once for all times at which the same labels hold."""
        holding = tuple(label.holds_at(moment) for label in self._dated)
        if holding not in self._of_nodes:
            at = self.entities_at(moment)
            self._of_nodes[holding] = {self._node_form[address]: entity for address, entity in at.items()}
        return self._of_nodes[holding]


def ensure_shipped(conn: psycopg.Connection[Any], now: datetime) -> None:
    """Bring the shipped list into the tables, once per version, in the caller's transaction."""
    save(conn, SHIPPED_LIST_VERSION, shipped_labels(), now)


def save(conn: psycopg.Connection[Any], version: str, labels: Iterable[WalletLabel], known_at: datetime) -> bool:
    """Write a list as known from known_at on. False if that version is there already: a list is never changed."""
    row = conn.execute(
        "INSERT INTO wallet_label_lists (list_version, known_at) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING 1",
        [version, known_at],
    ).fetchone()
    if row is None:
        return False
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO wallet_labels (chain, address, list_version, entity, role, source, valid_from, valid_to)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [
                (
                    *(label.chain, label.address, version, label.entity, label.role, label.source),
                    *(label.valid_from, label.valid_to),
                )
                for label in labels
            ],
        )
    return True


def in_force(conn: psycopg.Connection[Any], moment: datetime, chain: str = CHAIN) -> LabelList:
    """A chain's part of the newest list known at that time; of the shipped one before any was written."""
    version = version_in_force(conn, moment)
    if version is None:
        return LabelList(SHIPPED_LIST_VERSION, shipped_labels(), chain)
    return LabelList(version, load(conn, version), chain)


def version_in_force(conn: psycopg.Connection[Any], moment: datetime) -> str | None:
    """Of the newest list known at that time; None before any was written."""
    row = conn.execute(
        """
        SELECT list_version FROM wallet_label_lists WHERE known_at <= %s
        ORDER BY known_at DESC, list_version DESC LIMIT 1
        """,
        [moment],
    ).fetchone()
    return None if row is None else str(row[0])


def load(conn: psycopg.Connection[Any], version: str) -> list[WalletLabel]:
    """All labels of a list."""
    rows = conn.execute(
        "SELECT chain, address, entity, role, source, valid_from, valid_to FROM wallet_labels WHERE list_version = %s",
        [version],
    ).fetchall()
    return [
        WalletLabel(
            chain=chain,
            address=address,
            entity=entity,
            role=role,
            source=source,
            valid_from=valid_from,
            valid_to=valid_to,
        )
        for chain, address, entity, role, source, valid_from, valid_to in rows
    ]


def refresh(conn: psycopg.Connection[Any], published: Iterable[WalletLabel], now: datetime) -> str | None:
    """A new list: the one in force with what exchanges have published, the exchange's own word winning.

    A custody address stays one, though its owner counts it as a reserve. Returns the new version, or None if the
    published addresses change nothing.
    """
    # A moment earlier: of two lists known at one instant none would be the newer.
    ensure_shipped(conn, now - timedelta(microseconds=1))
    version = version_in_force(conn, now)
    current = {(label.chain, label.address): label for label in (load(conn, version) if version else ())}
    merged = dict(current)
    for label in published:
        known = current.get((label.chain, label.address))
        if known is None or (
            known.entity != label.entity and not known.entity.endswith((CUSTODY_SUFFIX, TREASURY_SUFFIX))
        ):
            merged[(label.chain, label.address)] = label
    if merged == current:
        return None
    content = "\n".join(f"{chain},{address},{label.entity}" for (chain, address), label in sorted(merged.items()))
    version = f"por-{now:%Y-%m-%d}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    return version if save(conn, version, merged.values(), now) else None


def refresh_from_exchanges(settings: Settings, database_url: str, now: datetime) -> str | None:
    """Ask the exchanges for their proof-of-reserves files and write a new list if they name something new.

    Returns the new list's version, or None. An exchange that does not answer keeps the labels it has; one that
    publishes malformed addresses is told in the log. LIQ_BINANCE_POR_URL and LIQ_BYBIT_POR_URL replace the addresses.
    """
    published: list[WalletLabel] = []
    for file in published_files(now):
        url = settings.sources.urls.get(file.source) or file.url
        http = HttpClient(file.source, url, request_seconds=PUBLISHED_SECONDS)
        try:
            labels, malformed = file.read(http.ask(file.request).payload)
        except (SourceError, *UNREADABLE) as error:
            log.warning("%s cannot be read, its labels stay as they are: %s", file.source, error)
            continue
        finally:
            http.close()
        if malformed:
            log.warning("%s: %d malformed addresses, such as %r", file.source, len(malformed), malformed[0])
        published += labels
    if not published:
        return None
    with connect(database_url, application_name="liq labels") as conn:
        version = refresh(conn, published, now)
    if version is not None:
        log.info("a new list of labelled wallets is in force: %s", version)
    return version


def keep_fresh(settings: Settings, database_url: str, stop: threading.Event) -> None:
    """Refresh once a day until `stop` is set."""
    while not stop.is_set():
        try:
            refresh_from_exchanges(settings, database_url, datetime.now(UTC))
        except psycopg.Error as error:
            log.warning("the label list cannot be written now: %s", " ".join(str(error).split()))
        stop.wait(REFRESH_SECONDS)


@dataclass(frozen=True)
class PublishedFile:
    """A file in which an exchange names its own wallets. read: (labels, malformed addresses) of the decoded answer."""

    source: str
    url: str
    request: Request
    read: Callable[[Any], tuple[list[WalletLabel], list[str]]]


def published_files(now: datetime) -> tuple[PublishedFile, ...]:
    """The files to ask for at that time."""
    # Bybit's file is of a month and appears in the course of the next one.
    month = now.replace(day=1) - timedelta(days=1)
    return (
        PublishedFile(
            "binance_por",
            "https://www.binance.com",
            Request("/bapi/apex/v1/public/apex/market/por/address"),
            binance_labels,
        ),
        PublishedFile(
            "bybit_por",
            "https://api2.bybit.com",
            Request(f"/common-static/por/bybit_por_{month:%Y%m}.csv", is_text=True),
            bybit_labels,
        ),
    )


def bybit_labels(text: str) -> tuple[list[WalletLabel], list[str]]:
    """Addresses of Bybit's monthly proof-of-reserves CSV (Coin, Height, Amount, Address, in some months Chain).

    Where no chain stands beside it, 0x... is taken as Ethereum's and T... as Tron's. Returns (labels, malformed
    addresses): the published files have contained broken hexadecimal.
    """
    labels: dict[tuple[str, str], WalletLabel] = {}
    malformed: list[str] = []
    for row in csv.DictReader(text.splitlines()):
        fields = {str(name).strip().lower(): str(value or "").strip() for name, value in row.items()}
        named = fields.get("chain") or fields.get("network") or ""
        for part in re.split(r"[\s;,]+", fields.get("address", "")):
            _collect(part, named, "bybit", labels, malformed)
    return list(labels.values()), malformed


def binance_labels(payload: Any) -> tuple[list[WalletLabel], list[str]]:
    """Addresses of Binance's proof-of-reserves answer: any object that names a network and an address."""
    labels: dict[tuple[str, str], WalletLabel] = {}
    malformed: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, list):
            for inner in value:
                walk(inner)
        elif isinstance(value, dict):
            network = str(value.get("network") or value.get("chain") or "")
            address = value.get("address")
            if isinstance(address, str) and network:
                _collect(address, network, "binance", labels, malformed)
            for inner in value.values():
                walk(inner)

    walk(payload)
    return list(labels.values()), malformed


def _collect(
    part: str, network: str, entity: str, labels: dict[tuple[str, str], WalletLabel], malformed: list[str]
) -> None:
    """A label of an address on a chain that is followed; an address in another form than its chain's is malformed."""
    text = part.strip()
    if network:
        chain = _CHAIN_OF_NAME.get(network.strip().upper())
    else:
        chain = "ethereum" if text.lower().startswith("0x") else "tron" if is_tron_address(text) else None
    if chain is None or not text or (chain == "tron" and not (len(text) == TRON_LETTERS and text[0] == "T")):
        return  # another chain's address
    address = text if chain == "tron" else text.lower()
    if not (is_tron_address(address) if chain == "tron" else _ADDRESS.match(address)):
        malformed.append(part)
        return
    labels[chain, address] = WalletLabel(
        chain=chain, address=address, entity=entity, role="wallet", source=f"{entity}-proof-of-reserves"
    )
