"""Addresses that are proposed to people: those that gather from many and pay one exchange, and no others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from liq_pipeline.domain.tron_address import base58_of
from liq_pipeline.domain.wallets import SHIPPED_LIST_VERSION, shipped_labels
from liq_pipeline.domain.worlds import Manifest, World
from liq_pipeline.sources.chain import wallet_lists
from liq_pipeline.sources.chain.wallet_review import sweep_like
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
OKX, HTX = (
    next(label.address for label in shipped_labels() if (label.chain, label.entity) == ("tron", entity))
    for entity in ("okx", "htx")
)


def person(number: int) -> str:
    return base58_of(f"{number:040x}")


def move(conn: psycopg.Connection[Any], number: int, sender: str, receiver: str, amount: float) -> None:
    conn.execute(
        """
        INSERT INTO stablecoin_flows (world, chain, token, tx_hash, log_index, block_hash, event_time, block_number,
            is_canonical, from_address, to_address, amount, direction, label_version, venue, origin, event_time_source,
            received_at, known_at, kafka_cluster, kafka_partition, kafka_offset)
        VALUES ('real', 'tron', 'USDT', %(hash)s, 0, %(hash)s, %(at)s, 1, true, %(from)s, %(to)s, %(amount)s, 'other',
                'v', 'tron_rpc', 'live', 'venue', %(at)s, %(at)s, 1, 0, %(number)s)
        """,
        {"hash": f"{number:064x}", "at": NOW - timedelta(minutes=number), "from": sender, "to": receiver,
         "amount": amount, "number": number},
    )  # fmt: skip


def test_only_what_gathers_from_many_and_pays_one_exchange_is_proposed(database_url: str) -> None:
    gatherer, shop, two_faced, user = (person(number) for number in (1001, 1002, 1003, 1004))
    with connect(database_url) as conn:
        wallet_lists.ensure_shipped(conn, NOW - timedelta(days=30))
        number = 0
        for sender in range(15):
            for receiver in (gatherer, shop, two_faced):
                number += 1
                move(conn, number, person(sender + 1), receiver, 500)
        payments = [
            (gatherer, OKX, 7400), (gatherer, person(5), 50),  # 99 % to one exchange
            (shop, OKX, 3000), (shop, person(7), 4400),  # a business like any other
            (two_faced, OKX, 3700), (two_faced, HTX, 3700),
            (user, OKX, 7000),  # a depositor: nobody pays him
            (OKX, person(9), 9000),
        ]  # fmt: skip
        for sender, receiver, amount in payments:
            number += 1
            move(conn, number, sender, receiver, amount)
        found = sweep_like(conn, "real", SHIPPED_LIST_VERSION, NOW - timedelta(hours=24), NOW)
        assert [(one.chain, one.address, one.entity) for one in found] == [("tron", gatherer, "okx")]
        assert (found[0].senders, found[0].transfers_in, found[0].transfers_out) == (15, 15, 2)
        assert (found[0].in_usd, found[0].out_usd) == (7500.0, 7450.0)
        # Looking changes no list.
        assert wallet_lists.version_in_force(conn, NOW) == SHIPPED_LIST_VERSION
        assert sweep_like(conn, "real", SHIPPED_LIST_VERSION, NOW - timedelta(minutes=5), NOW) == []


def test_the_commands_name_who_disagrees_and_whom_to_look_at(
    database_url: str, kafka_server: str, tmp_path: Path
) -> None:
    def liq_wallets(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "liq_pipeline.cli", "wallets", *arguments],
            env={
                "PATH": os.environ["PATH"],
                "LIQ_HOME": str(tmp_path),
                "LIQ_DATABASE_URL": database_url,
                "LIQ_KAFKA_BOOTSTRAP_SERVERS": kafka_server,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    other = tmp_path / "other.csv"
    other.write_text(f"exchange,chain,address\nokex,tron,{OKX}\nkraken,tron,{HTX}\nkraken,tron,{person(77)}\n")
    done = liq_wallets("check", str(other), "--json")
    assert done.returncode == 1, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["kind"], one["ours"], one["theirs"]) for one in found] == [
        ("agrees", "okx", "okx"),
        ("differs", "htx", "kraken"),
        ("unknown", None, "kraken"),
    ]
    told = liq_wallets("check", str(other)).stdout
    assert f"1 agree with {SHIPPED_LIST_VERSION}, 1 differ, 1 are not in it, 0 are malformed" in " ".join(told.split())
    other.write_text("a,b\n1,2\n")
    broken = liq_wallets("check", str(other))
    assert broken.returncode == 2
    assert "the columns chain, address" in " ".join(broken.stderr.split())
    with connect(database_url) as conn:
        world = Manifest(symbols=("BTC",), expected={})
        worlds.register(
            conn,
            World(name="real", kind="real", market_step_seconds=10, flows_step_seconds=15, manifest=world),
            activate=True,
        )
    assert "No address behaved like a sweep target" in liq_wallets("review").stdout
