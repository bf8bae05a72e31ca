"""Stablecoin transfers, followed on a crafted chain through both providers: complete, netted, and right after a re-org.

The chain is served as Etherscan V2 (pages of 1,000 rows, hex and decimal forms, no hash in the logs) and as a JSON-RPC
node (which refuses ranges that bring too many rows). Amounts are in whole tokens; the sums were added up by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import SecretStr

from liq_pipeline.domain.records import StablecoinFlow
from liq_pipeline.domain.wallets import SHIPPED_LIST_VERSION, WalletLabel
from liq_pipeline.pipeline.backfill import BackfillResult, backfill
from liq_pipeline.pipeline.rescore import rescore
from liq_pipeline.pipeline.tick import TickContext, run_tick
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.archives.catalogue import open_source
from liq_pipeline.sources.chain import wallet_lists
from liq_pipeline.sources.chain.ethereum import TOKENS
from liq_pipeline.sources.polling.round import poll_due
from liq_pipeline.sources.recorded.formats import open_recording
from liq_pipeline.sources.registry import real_world
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.chain_support import START, FakeChain
from liq_pipeline_tests.live_support import Reply, VenueServer, land_everything, rows, venue_server, wait_until

MakeSettings = Callable[..., Settings]
USDT, USDC = TOKENS
ZERO = "0x" + "0" * 40
BINANCE_HOT = "0x28c6c06298d514db089934071355e5743bf21d60"
BINANCE_COLD = "0xbe0eb53f46cd790cd13851d5eff43d12404d33e8"
BINANCE_PEG_CUSTODY = "0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503"
KRAKEN = "0x2910543af39aba0cd09dbb2d50200b3e800a63d2"
USERS_DEPOSIT_ADDRESS = "0x" + "33" * 20
USER, OTHER = "0x" + "11" * 20, "0x" + "22" * 20
HOUR = timedelta(hours=1)


@dataclass
class Follower:
    """An installation that follows the chain through one provider."""

    chain: FakeChain
    server: VenueServer
    settings: Settings
    database_url: str
    kafka: str
    prefix: str
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    is_real_time: bool = False
    """Polls at the wall's own time, due or not; else each a minute after the one before."""

    def poll(self) -> Any:
        if self.is_real_time:
            self.now = datetime.now(UTC)
            with connect(self.database_url) as conn:
                conn.execute("UPDATE poll_state SET next_due = %s", [self.now])
        else:
            self.now += timedelta(seconds=61)  # every poll reads the whole depth again
        result = poll_due(self.database_url, self.kafka, self.settings, self.now)
        land_everything(self.database_url, self.kafka, self.prefix)
        return result

    def follow_to_head(self) -> None:
        for _ in range(20):
            result = self.poll()
            assert self.settings_source not in result.failures
            read = rows(self.database_url, "SELECT max(block_number) AS n FROM chain_blocks WHERE is_canonical")
            if read[0]["n"] == self.chain.head:
                return
        raise AssertionError("the head was not reached in 20 rounds")

    @property
    def settings_source(self) -> str:
        return "etherscan" if self.settings.etherscan_api_key else "ethereum_rpc"

    def flows(self) -> list[dict[str, Any]]:
        return rows(self.database_url, "SELECT * FROM stablecoin_flows ORDER BY block_number, log_index, is_canonical")

    def net_inflow(self) -> Decimal:
        """Dollars into exchanges less dollars out, of what is on the chain."""
        signs = {"inflow": 1, "outflow": -1}
        return sum(
            (row["amount"] * signs.get(row["direction"], 0) for row in self.flows() if row["is_canonical"]), Decimal(0)
        )


@pytest.fixture(params=["etherscan", "ethereum_rpc"])
def follower(
    request: pytest.FixtureRequest, database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> Iterator[Follower]:
    chain = FakeChain()
    with venue_server("dydx") as server:

        def answer(source: str, _path: str, query: dict[str, str]) -> Reply | None:
            if source == "etherscan":
                assert query["apikey"] == "key"
                return Reply(chain.etherscan(query))
            return Reply(chain.rpc(json.loads(query["body"]))) if source == "node" else None

        server.fault = answer
        keys: dict[str, Any] = (
            {"ETHERSCAN_API_KEY": SecretStr("key")}
            if request.param == "etherscan"
            else {"ethereum_rpc_url": SecretStr(server.url("node"))}
        )
        chosen = settings(
            mode="live",
            symbols=("BTC",),
            venues=("dydx",),
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(
                urls=server.urls() | {"etherscan": server.url("etherscan"), "coingecko": server.url("nobody")},
                etherscan_calls_per_second=1000,
                flow_minimum_amount=100_000,
                flow_lookback_blocks=20,
            ),
            **keys,
        )
        yield Follower(chain, server, chosen, database_url, kafka_server, topic_prefix)


def test_a_crafted_day_nets_to_the_cent(follower: Follower) -> None:
    chain = follower.chain
    chain.add((USDT, USER, BINANCE_HOT, "1000000.25"), (USDC, USER, KRAKEN, "250000.50"))  # deposits
    chain.add((USDT, BINANCE_HOT, USER, "300000.10"))  # a withdrawal
    chain.add((USDT, BINANCE_HOT, BINANCE_COLD, "50000000"), (USDC, BINANCE_HOT, KRAKEN, "700000"))  # own, and between
    chain.add((USDT, ZERO, USER, "1000000000"), (USDC, USER, ZERO, "5"))  # mint; burn, kept however small
    chain.add((USDT, USER, BINANCE_PEG_CUSTODY, "9000000"), (USDT, BINANCE_PEG_CUSTODY, OTHER, "8000000"))  # peg
    chain.add((USDT, USER, OTHER, "99999.99"), (USDT, USER, OTHER, "100000"))  # strangers: from the threshold up
    chain.add((USDT, USER, BINANCE_HOT, "0.01"), (USDT, USER, BINANCE_HOT, "0.01"))  # twins in one transaction
    chain.add()
    follower.follow_to_head()
    found = follower.flows()
    assert [row["direction"] for row in found] == [
        *("inflow", "inflow", "outflow", "internal", "inter_exchange", "mint", "burn"),
        *("internal", "internal", "other", "inflow", "inflow"),
    ]
    # 1,000,000.25 + 250,000.50 - 300,000.10 + 0.01 + 0.01
    assert follower.net_inflow() == Decimal("950000.67")
    first = found[0]
    assert (first["token"], first["amount"], first["log_index"]) == ("USDT", Decimal("1000000.25"), 0)
    assert (first["from_entity"], first["to_entity"]) == (None, "binance")
    assert (first["event_time"], first["block_hash"]) == (START, chain.blocks[1000].hash)
    assert {row["label_version"] for row in found} == {SHIPPED_LIST_VERSION}
    beat = rows(follower.database_url, "SELECT venue, max(event_time) AS until FROM heartbeats GROUP BY venue")
    assert beat == [{"venue": follower.settings_source, "until": START + timedelta(seconds=12 * 7)}]
    # Reading the newest blocks again and again changes nothing.
    follower.poll()
    assert len(follower.flows()) == len(found)
    assert rows(follower.database_url, "SELECT * FROM row_conflicts") == []


def test_a_reorg_takes_back_what_it_took_off_the_chain(follower: Follower) -> None:
    chain = follower.chain
    chain.add((USDT, USER, BINANCE_HOT, "1000000"))
    replaced = chain.add((USDT, USER, BINANCE_HOT, "2000000"), (USDT, KRAKEN, USER, "500000"))
    follower.follow_to_head()
    assert follower.net_inflow() == Decimal(2_500_000)
    # Another block wins: the deposit is gone, the withdrawal is in it, under another hash.
    chain.add((USDT, KRAKEN, USER, "500000"), number=replaced, salt="winner")
    chain.add()
    follower.follow_to_head()
    follower.poll()
    assert follower.net_inflow() == Decimal(500_000)
    taken_back = [row for row in follower.flows() if not row["is_canonical"]]
    assert sorted(row["amount"] for row in taken_back) == [Decimal(500_000), Decimal(2_000_000)]
    assert all(row["orphaned_known_at"] is not None for row in taken_back)


def test_thousands_of_transfers_in_few_blocks_come_through_whole(follower: Follower) -> None:
    follower.chain.most_rows = 1500
    small = [(USDT, USER, BINANCE_HOT, f"{number}.01") for number in range(1, 701)]
    for _ in range(3):
        follower.chain.add(*small)
    follower.chain.add(*[(USDT, USER, KRAKEN, "1") for _ in range(1200)])  # one block alone fills a page
    follower.follow_to_head()  # and is the last one of its range
    follower.chain.add()
    follower.follow_to_head()
    count = rows(
        follower.database_url, "SELECT count(*) AS n, count(DISTINCT (tx_hash, log_index)) AS d FROM stablecoin_flows"
    )
    assert count == [{"n": 3300, "d": 3300}]


def test_a_recorded_chain_plays_back_as_the_same_transfers(follower: Follower, tmp_path: Path) -> None:
    """`liq up --record DIR`, with pages and refused ranges, a re-org, and blocks that were read again and again."""
    sources = follower.settings.sources.model_copy(update={"record_dir": tmp_path})
    follower.settings = follower.settings.model_copy(update={"sources": sources})
    chain = follower.chain
    chain.most_rows = 1500
    for _ in range(3):
        chain.add(*[(USDT, USER, BINANCE_HOT, f"{number}.01") for number in range(1, 701)])
    replaced = chain.add((USDT, USER, KRAKEN, "2000000"), (USDC, KRAKEN, USER, "500000"))
    chain.add((USDT, USER, OTHER, "99999.99"), (USDC, ZERO, USER, "7"))
    follower.follow_to_head()
    chain.add((USDC, KRAKEN, USER, "500000"), number=replaced, salt="winner")
    chain.add()
    follower.follow_to_head()

    played = open_recording(tmp_path, 10)
    assert played.world.manifest.expected["stablecoin_flows"].venues == (follower.settings_source,)
    messages = [message for step in played.steps(None) for message in step.messages]
    again = {
        (flow.tx_hash, flow.log_index, flow.block_hash): flow for flow in messages if isinstance(flow, StablecoinFlow)
    }
    stored = {(row["tx_hash"], row["log_index"], row["block_hash"]): row for row in follower.flows()}
    assert again.keys() == stored.keys()
    assert len(stored) == 3 * 700 + 4
    for key, flow in again.items():
        for name in ("event_time", "token", "amount", "block_number", "from_entity", "to_entity", "direction"):
            assert getattr(flow, name) == stored[key][name]
        assert flow.is_canonical is stored[key]["is_canonical"]
        assert (flow.world, flow.origin) == (played.world.name, "recorded")
    assert sum(not flow.is_canonical for flow in again.values()) == 2
    beats = {message[1].event_time for message in messages if isinstance(message, tuple)}
    # The live poll tells once how far it read, the player after each range.
    told = {row["event_time"] for row in rows(follower.database_url, "SELECT DISTINCT event_time FROM heartbeats")}
    assert told <= beats
    assert max(told) == max(beats)


def test_an_outage_leaves_no_block_out(follower: Follower) -> None:
    follower.chain.add((USDT, USER, BINANCE_HOT, "1"))
    follower.follow_to_head()
    follower.chain.most_calls = 12
    for number in range(40):
        follower.chain.add((USDC, USER, BINANCE_HOT, str(number + 1)))
    follower.follow_to_head()
    assert follower.net_inflow() == Decimal(1 + 820)


def test_a_later_label_list_changes_no_row_of_the_past(follower: Follower) -> None:
    follower.chain.add((USDT, USER, OTHER, "200000"))
    follower.follow_to_head()
    with connect(follower.database_url) as conn:
        label = WalletLabel(
            chain="ethereum", address=OTHER, entity="bybit", role="hot", source="bybit-proof-of-reserves"
        )
        version = wallet_lists.refresh(conn, [label], follower.now + timedelta(seconds=1))
        assert version is not None
        assert wallet_lists.refresh(conn, [label], follower.now + timedelta(days=1)) is None
    follower.chain.add((USDT, USER, OTHER, "300000"))
    follower.follow_to_head()
    assert [(row["direction"], row["label_version"], row["amount"]) for row in follower.flows()] == [
        ("other", SHIPPED_LIST_VERSION, Decimal(200_000)),
        ("inflow", version, Decimal(300_000)),
    ]


def test_a_crafted_day_reaches_the_scores_to_the_cent(follower: Follower) -> None:
    """Chain, Kafka, landing, score: an hour's user flow by hand, a re-org, and a label list that comes later."""
    chain = follower.chain
    begun = datetime.now(UTC)
    follower.is_real_time = True

    def block(minutes_ago: float, *transfers: tuple[Any, str, str, str], **how: Any) -> int:
        return chain.add(*transfers, time=begun - timedelta(minutes=minutes_ago), **how)

    def scored_now() -> dict[str, Any]:
        """Read a new, empty head block and score the flows point after it."""
        chain.add(time=datetime.now(UTC))
        follower.follow_to_head()
        with connect(follower.database_url) as conn:
            # A point each second: each step below is scored before the next one is known.
            worlds.register(conn, replace(real_world(follower.settings), flows_step_seconds=1), activate=True)
        next_point = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        wait_until(lambda: datetime.now(UTC) >= next_point, 2, "the clock stands")
        context = TickContext(
            database_url=follower.database_url,
            bootstrap_servers=follower.kafka,
            topic_prefix=follower.prefix,
            settings=follower.settings,
        )
        run_tick(context, land=False)
        newest = "SELECT * FROM stablecoin_pressure WHERE revision = 0 ORDER BY time DESC LIMIT 1"
        return rows(follower.database_url, newest)[0]

    block(90, (USDT, USER, BINANCE_HOT, "5000000"))  # before the window of 60 minutes
    block(50, (USDT, USER, BINANCE_HOT, "1000000.25"), (USDC, USER, KRAKEN, "250000.50"))  # deposits
    block(45, (USDT, USERS_DEPOSIT_ADDRESS, BINANCE_HOT, "80000.10"))  # a sweep is how a deposit is seen
    block(40, (USDT, BINANCE_HOT, BINANCE_COLD, "50000000"), (USDC, BINANCE_HOT, KRAKEN, "700000"))
    block(35, (USDT, ZERO, USER, "1000000000"), (USDT, ZERO, BINANCE_HOT, "40000000"), (USDC, USER, ZERO, "5"))
    block(30, (USDT, USER, BINANCE_PEG_CUSTODY, "9000000"), (USDT, BINANCE_PEG_CUSTODY, OTHER, "8000000"))
    block(25, (USDT, BINANCE_HOT, USER, "300000.10"), (USDC, KRAKEN, OTHER, "0.33"))  # withdrawals
    block(20, (USDT, USER, BINANCE_HOT, "0.01"), (USDT, USER, BINANCE_HOT, "0.01"))  # twins in one transaction
    block(18, *[(USDT, USER, BINANCE_HOT, "0.004") for _ in range(5)])  # 2 cents, not 5 x nothing
    block(15, *[(USDT, USER, KRAKEN, "1.07") for _ in range(1200)])  # one block fills more than a page
    replaced = block(10, (USDT, USER, BINANCE_HOT, "2000000"), (USDT, KRAKEN, USER, "500000.05"))
    before = scored_now()
    # 1,000,000.25 + 250,000.50 + 80,000.10 + 0.02 + 0.02 + 1,284.00 + 2,000,000; 300,000.10 + 0.33 + 500,000.05
    assert (before["inflow_usd"], before["outflow_usd"]) == (3_331_284.89, 800_000.48)
    assert before["coverage"] == 1.0

    block(10, (USDT, KRAKEN, USER, "500000.05"), number=replaced, salt="winner")  # the deposit is off the chain
    after = scored_now()
    assert after["time"] > before["time"]
    assert (after["inflow_usd"], after["outflow_usd"]) == (1_331_284.89, 800_000.48)

    with connect(follower.database_url) as conn:
        label = WalletLabel(chain="ethereum", address=OTHER, entity="bybit", role="hot", source="proof-of-reserves")
        assert wallet_lists.refresh(conn, [label], datetime.now(UTC)) is not None
    again = rescore(follower.database_url, follower.settings, before["time"], after["time"])
    assert again.pressures >= 2
    revised = rows(
        follower.database_url,
        "SELECT inflow_usd, outflow_usd FROM stablecoin_pressure WHERE revision = 1 AND time = ANY(%s) ORDER BY time",
        [before["time"], after["time"]],
    )
    first = [{name: score[name] for name in ("inflow_usd", "outflow_usd")} for score in (before, after)]
    assert revised == first  # the list came later
    with_list = scored_now()
    # Kraken's 0.33 went to another exchange, as it turns out.
    assert (with_list["inflow_usd"], with_list["outflow_usd"]) == (1_331_284.89, 800_000.15)


def test_the_exchanges_own_files_become_a_new_list(database_url: str, settings: MakeSettings) -> None:
    now = datetime(2026, 5, 20, tzinfo=UTC)
    csv_file = f"Coin,Height,Amount,Address\nUSDT,1,5,{OTHER};0xbroken\n".encode()
    published = {"data": [{"network": "ETH", "address": BINANCE_PEG_CUSTODY}, {"network": "ETH", "address": USER}]}
    with venue_server() as server:
        server.routes["bybit_por"] = {"/common-static/por/bybit_por_202604.csv": Reply(csv_file)}
        server.routes["binance_por"] = {"/bapi/apex/v1/public/apex/market/por/address": published}
        chosen = settings(sources=SourceSettings(urls=server.urls()))
        version = wallet_lists.refresh_from_exchanges(chosen, database_url, now)
        assert version is not None
        assert version.startswith("por-2026-05-20-")
        # Nothing new the day after; an exchange that answers with a page for people keeps its labels.
        assert wallet_lists.refresh_from_exchanges(chosen, database_url, now + timedelta(days=1)) is None
        server.routes["bybit_por"] = {"/common-static/por/bybit_por_202604.csv": Reply(b"<html>")}
        assert wallet_lists.refresh_from_exchanges(chosen, database_url, now + timedelta(days=2)) is None
    with connect(database_url) as conn:
        entities = wallet_lists.in_force(conn, now + timedelta(days=3)).entities_at(now)
        before = wallet_lists.in_force(conn, now - timedelta(days=1)).entities_at(now)
    assert (entities[OTHER], entities[USER]) == ("bybit", "binance")
    assert entities[BINANCE_PEG_CUSTODY] == "binance_custody"  # its owner counts it; it is still nobody's deposit
    assert OTHER not in before


def test_past_hours_are_loaded_by_block_range_once_and_say_how_far_they_were_read(follower: Follower) -> None:
    """A chain of 08:00 to 10:20; the hour from 08:20 is asked for, the two whole hours around it are loaded."""
    for number in range(700):
        transfers = [(USDT, USER, BINANCE_HOT, "1500000")] if number % 100 == 7 else []
        follower.chain.add(*transfers)

    def load() -> BackfillResult:
        with open_source(follower.settings_source, follower.settings, follower.database_url, ()) as source:
            return backfill(
                follower.database_url, follower.kafka, follower.settings, source, ("BTC",),
                START + timedelta(minutes=20), START + timedelta(minutes=80), wall_now=lambda: START + 9 * HOUR,
            )  # fmt: skip

    result = load()
    assert (result.pieces, result.loaded, result.is_clean) == (2, 2, True)
    flows = follower.flows()
    assert [flow["block_number"] for flow in flows] == [1007, 1107, 1207, 1307, 1407, 1507]
    assert {(flow["origin"], flow["direction"]) for flow in flows} == {("archive", "inflow")}
    assert {flow["known_at"] - flow["event_time"] for flow in flows} == {timedelta(seconds=20)}
    read = rows(follower.database_url, "SELECT min(event_time), max(event_time) FROM heartbeats")[0]
    assert read["max"] == START + timedelta(hours=2) - timedelta(seconds=12)
    again = load()
    assert (again.unchanged, again.rows_sent) == (2, 0)
    assert len(follower.flows()) == 6
