"""Stablecoin flows on chains other than Ethereum, by every kind of provider: crafted days, added up by hand.

Each chain is served over real sockets, its transfers go through Kafka and landing into the pressure. What must not
count is in every day: mints and burns, moves within and between exchanges, zero-value and dust bait, fees, a block that
a re-org took back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import SecretStr

from liq_pipeline.domain.chains import BSC, CHAINS, ETHEREUM, POLYGON, TRON, Chain, chain_of
from liq_pipeline.domain.records import StablecoinFlow
from liq_pipeline.domain.wallets import WalletLabel, shipped_labels
from liq_pipeline.pipeline.rescore import rescore
from liq_pipeline.pipeline.tick import TickContext, run_tick
from liq_pipeline.settings import RiskSettings, Settings, SourceSettings
from liq_pipeline.sources.archives.catalogue import open_source
from liq_pipeline.sources.chain import wallet_lists
from liq_pipeline.sources.polling.round import poll_due
from liq_pipeline.sources.recorded.formats import open_recording
from liq_pipeline.sources.registry import flow_sources, real_world
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.chain_support import FakeChain
from liq_pipeline_tests.live_support import Reply, VenueServer, land_everything, rows, venue_server, wait_until

MakeSettings = Callable[..., Settings]
DAY = datetime.now(UTC).date()


@dataclass(frozen=True)
class Wallets:
    """Who moves money on a chain: two wallets of one exchange, one of another, and people."""

    hot: str
    cold: str
    other_exchange: str
    user: str
    deposit: str
    stranger: str
    fee_taker: str


def wallets_of(chain: Chain) -> Wallets:
    by_entity: dict[str, list[str]] = {}
    for label in shipped_labels():
        if label.chain == chain.name and label.role in ("hot", "wallet", "cold") and label.source != "simulation":
            by_entity.setdefault(label.entity, []).append(label.address)
    one, other = [addresses for addresses in by_entity.values() if len(addresses) >= 2][:2]
    people = (
        ("TPYwAC9Y4uUcT2QH3WPPjqxzJSJWymMoMS", "TU7TrZe1T73WB5s8W2A5iFgj8VTirc7Bdj",
         "TQ3uqdVxUjktvi7n5mTHHdbkTeZv3e4V8G", "TKGRE6oiU3rEzasue4MsB6sCXXSTx9BAe3")
        if chain.is_tron
        else tuple("0x" + digit * 40 for digit in "1234")
    )  # fmt: skip
    return Wallets(one[0], one[1], other[0], *people)


@dataclass
class Installation:
    """One that follows chains, each served by a crafted one."""

    served: dict[str, FakeChain]
    """By venue of flows."""
    server: VenueServer
    settings: Settings
    database_url: str
    kafka: str
    prefix: str

    def poll(self) -> Any:
        now = datetime.now(UTC)
        with connect(self.database_url) as conn:
            conn.execute("UPDATE poll_state SET next_due = %s", [now])
        result = poll_due(self.database_url, self.kafka, self.settings, now)
        land_everything(self.database_url, self.kafka, self.prefix)
        return result

    def read_to_head(self, *venues: str) -> None:
        """Each of the venues (default: all) up to its newest block that can be read."""
        for _ in range(20):
            result = self.poll()
            assert not set(venues or self.served) & result.failures.keys()
            newest = {
                row["chain"]: row["n"]
                for row in rows(
                    self.database_url,
                    "SELECT chain, max(block_number) AS n FROM chain_blocks WHERE is_canonical GROUP BY chain",
                )
            }
            if all(newest.get(chain_of(v)) == self.readable(v) for v in venues or self.served):
                return
        raise AssertionError(f"the heads were not reached in 20 rounds: {newest}")

    def readable(self, venue: str) -> int:
        chain = self.served[venue]
        return chain.head - chain.unconfirmed - 1 if venue == "trongrid" else chain.head

    def flows(self) -> list[dict[str, Any]]:
        return rows(
            self.database_url, "SELECT * FROM stablecoin_flows ORDER BY chain, block_number, tx_hash, log_index"
        )

    def score(self, *, ahead_seconds: float = 0.0) -> dict[str, Any]:
        """The pressure at the next second, or a while ahead of the clock."""
        with connect(self.database_url) as conn:
            worlds.register(conn, replace(real_world(self.settings), flows_step_seconds=1), activate=True)
        point = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        wait_until(lambda: datetime.now(UTC) >= point, 2, "the clock stands")
        context = TickContext(
            database_url=self.database_url,
            bootstrap_servers=self.kafka,
            topic_prefix=self.prefix,
            settings=self.settings,
            wall_now=lambda: datetime.now(UTC) + timedelta(seconds=ahead_seconds),
        )
        run_tick(context, land=False)
        return self.newest()

    def newest(self) -> dict[str, Any]:
        query = "SELECT * FROM stablecoin_pressure WHERE revision = 0 ORDER BY time DESC LIMIT 1"
        return rows(self.database_url, query)[0]

    def warm(self, scales_usd: Mapping[str, float]) -> None:
        """A look-back for each chain whose scale is that."""
        with connect(self.database_url) as conn:
            for chain, scale in scales_usd.items():
                conn.execute(
                    "INSERT INTO feature_references (world, symbol, venue, feature, day, built_at_time, observations,"
                    " quantiles) SELECT 'real', '*', %s, 'stablecoin_net_flow_cents', day, 'epoch', 100000,"
                    " array_fill(%s::float8, ARRAY[257]) FROM unnest(%s::date[]) AS day",
                    [chain, scale * 100.0, [DAY, DAY + timedelta(days=1)]],
                )


Install = Callable[..., Installation]


@pytest.fixture
def install(
    database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> Iterator[Callable[..., Installation]]:
    with venue_server("dydx") as server:
        served: dict[str, FakeChain] = {}

        def answer(source: str, path: str, query: dict[str, str]) -> Reply | None:
            if source == "etherscan":
                return Reply(next(
                    chain.etherscan(query)
                    for venue, chain in served.items()
                    if venue.startswith("etherscan") and chain.chain.chain_id == int(query["chainid"])
                ))  # fmt: skip
            if source not in served:
                return None
            if source == "trongrid":
                return Reply(served[source].trongrid(path, query))
            return Reply(served[source].rpc(json.loads(query["body"])))

        server.fault = answer

        def make(*venues: str, **more: Any) -> Installation:
            for venue in venues:
                served.setdefault(venue, FakeChain(CHAINS[chain_of(venue)]))
            keys: dict[str, Any] = {
                f"{venue}_url": SecretStr(server.url(venue)) for venue in venues if venue.endswith("_rpc")
            }
            keys["TRONGRID_API_KEY"] = SecretStr("key")
            if any(venue.startswith("etherscan") for venue in venues):
                keys["ETHERSCAN_API_KEY"] = SecretStr("key")
            chosen = settings(
                mode="live",
                symbols=("BTC",),
                venues=("dydx",),
                kafka_topic_prefix=topic_prefix,
                flow_chains=tuple(chain_of(venue) for venue in venues),
                sources=SourceSettings(
                    urls=server.urls()
                    | {name: server.url(name) for name in ("etherscan", "trongrid")}
                    | {"coingecko": server.url("nobody")},
                    etherscan_calls_per_second=1000,
                    trongrid_calls_per_second=1000,
                    flow_lookback_blocks=5 * 60,
                    round_seconds=20,
                    request_seconds=10,
                ),
                # A slow machine is no silent chain.
                risk=RiskSettings(freshness_factor=20),
                **keys,
                **more,
            )
            assert flow_sources(chosen) == tuple(sorted(venues, key=lambda v: list(CHAINS).index(chain_of(v))))
            here = {venue: served[venue] for venue in venues}
            return Installation(here, server, chosen, database_url, kafka_server, topic_prefix)

        yield make


def craft(chain: FakeChain, begun: datetime) -> tuple[int, datetime]:
    """A day's last hour and a half; returns the block that a re-org may replace, and its time.

    In the hour: in 1,000,000.25 + 250,000.50 + 80,000.10 (a sweep) + 2,000,000; out 300,000.10 + 500,000.05.
    """
    usdt, usdc = chain.chain.tokens[:2]
    w = wallets_of(chain.chain)
    zero = chain.chain.zero_address

    def block(minutes_ago: float, *transfers: tuple[Any, str, str, str]) -> int:
        return chain.add(*transfers, time=begun - timedelta(minutes=minutes_ago))

    block(80, (usdt, w.user, w.hot, "5000000"))  # before the window of 60 minutes
    block(50, (usdt, w.user, w.hot, "1000000.25"), (usdc, w.user, w.other_exchange, "250000.50"))  # deposits
    block(45, (usdt, w.deposit, w.hot, "80000.10"), (usdt, w.user, w.fee_taker, "1.5"))  # a sweep; a fee beside it
    block(40, (usdt, w.hot, w.cold, "50000000"), (usdc, w.hot, w.other_exchange, "700000"))  # own, and between
    block(35, (usdt, zero, w.user, "1000000000"), (usdt, zero, w.hot, "40000000"))  # mints
    block(34, (usdc, w.user, zero, "5"), (usdt, w.stranger, w.user, "250000"))  # a burn, kept however small; strangers
    block(30, (usdt, w.user, w.stranger, "99999.99"))  # strangers below the threshold: not kept
    block(25, (usdt, w.hot, w.user, "300000.10"))  # a withdrawal
    block(20, *[(usdt, w.hot, w.stranger, "0") for _ in range(6)])  # poisoning: nothing, out of an exchange's wallet
    block(19, *[(usdt, w.stranger, w.hot, "0.009") for _ in range(6)])  # and dust
    block(18, *[(usdt, w.stranger, w.hot, "0") for _ in range(450)])  # more than two pages of it
    at = begun - timedelta(minutes=10)
    return chain.add((usdt, w.user, w.hot, "2000000"), (usdt, w.other_exchange, w.user, "500000.05"), time=at), at


def close_day(chain: FakeChain) -> None:
    """Two new blocks with something small in them: on TronGrid the newest with an event tells how far it has read."""
    w = wallets_of(chain.chain)
    for _ in range(2 + chain.unconfirmed):
        chain.add((chain.chain.tokens[0], w.user, w.stranger, "2"), time=datetime.now(UTC))


@pytest.mark.parametrize("venue", ["tron_rpc", "trongrid", "bsc_rpc", "etherscan_polygon"])
def test_a_crafted_day_on_each_chain_reaches_the_pressure_to_the_cent(install: Install, venue: str) -> None:
    here = install(venue)
    chain = here.served[venue]
    begun = datetime.now(UTC)
    replaced, at = craft(chain, begun)
    close_day(chain)
    here.read_to_head()
    before = here.score()
    assert (before["inflow_usd"], before["outflow_usd"]) == (3_330_000.85, 800_000.15)
    assert before["coverage"] == 1.0
    told = before["inputs"]["chains"][chain.chain.name]
    usdt, usdc = (token.symbol for token in chain.chain.tokens[:2])
    assert told["net_outflow_usd"] == -2_530_000.70
    assert told["tokens"] == {
        usdt: {"inflow_usd": 3_080_000.35, "outflow_usd": 800_000.15, "minted_usd": 1_040_000_000.0},
        usdc: {"inflow_usd": 250_000.50, "burned_usd": 5.0},
    }
    kept = here.flows()
    assert {row["chain"] for row in kept} == {chain.chain.name}
    # 18 decimals or 6, the sum is whole dollars and cents; no bait and no small change of strangers is kept.
    expected = ["inflow", "inflow", "inflow", "inflow", "inflow", "outflow", "outflow", "mint", "mint", "burn",
                "internal", "inter_exchange", "other"]  # fmt: skip
    assert sorted(row["direction"] for row in kept) == sorted(expected)
    w = wallets_of(chain.chain)
    assert all(row["from_address"] in (*vars(w).values(), chain.chain.zero_address) for row in kept)
    supply = rows(here.database_url, "SELECT chain, token, sum(minted) AS m, sum(burned) AS b FROM stablecoin_supply_1h"
                  " GROUP BY 1, 2 ORDER BY 2")  # fmt: skip
    assert [(row["token"], row["m"], row["b"]) for row in supply] == [
        (usdc, Decimal(0), Decimal(5)),
        (usdt, Decimal(1_040_000_000), Decimal(0)),
    ]

    if venue != "trongrid":  # confirmed blocks are never taken back
        usdt_token = chain.chain.tokens[0]
        chain.add((usdt_token, w.other_exchange, w.user, "500000.05"), number=replaced, salt="winner", time=at)
        close_day(chain)
        with connect(here.database_url) as conn:  # a minute has passed: the whole depth is due again
            conn.execute("UPDATE chain_blocks SET read_at = read_at - interval '1 minute'")
        here.read_to_head()
        after = here.score()
        assert (after["inflow_usd"], after["outflow_usd"]) == (1_330_000.85, 800_000.15)

    # A later list changes no score of before.
    with connect(here.database_url) as conn:
        label = WalletLabel(chain=chain.chain.name, address=w.user, entity="upbit", role="hot", source="public-lists")
        assert wallet_lists.refresh(conn, [label], datetime.now(UTC)) is not None
    assert rescore(here.database_url, here.settings, before["time"], before["time"]).pressures == 1
    again = rows(
        here.database_url, "SELECT * FROM stablecoin_pressure WHERE revision = 1 AND time = %s", before["time"]
    )[0]
    for name in ("score", "inflow_usd", "outflow_usd", "coverage", "inputs"):
        assert again[name] == before[name]


def test_a_change_from_a_node_to_trongrid_counts_nothing_twice(install: Install) -> None:
    """A node numbers logs within the block, TronGrid within the transaction."""
    by_node = install("tron_rpc")
    chain = by_node.served["tron_rpc"]
    craft(chain, datetime.now(UTC))
    close_day(chain)
    by_node.read_to_head()
    stored = by_node.flows()
    by_grid = install("trongrid")
    by_grid.served["trongrid"].blocks = chain.blocks
    with connect(by_grid.database_url) as conn:
        conn.execute("DELETE FROM chain_blocks")  # the look-back is read once more
    by_grid.read_to_head()
    again = by_grid.flows()
    assert [(row["tx_hash"], row["log_index"], row["block_hash"]) for row in again] == [
        (row["tx_hash"], row["log_index"], row["block_hash"]) for row in stored
    ]
    assert rows(by_grid.database_url, "SELECT * FROM row_conflicts") == []


def test_trongrid_gives_confirmed_blocks_only_and_each_once(install: Install) -> None:
    here = install("trongrid")
    chain = here.served["trongrid"]
    chain.unconfirmed = 19
    craft(chain, datetime.now(UTC))
    close_day(chain)
    here.read_to_head()
    newest = rows(here.database_url, "SELECT max(block_number) AS n FROM chain_blocks")[0]["n"]
    assert newest == chain.head - 20
    pages = len(chain.calls)
    here.poll()
    # Nothing new is final: one question for the head, and no block is read again.
    assert len(chain.calls) == pages + 1


def test_several_chains_make_one_pressure_and_a_silent_one_moves_it_nowhere(install: Install) -> None:
    here = install("ethereum_rpc", "tron_rpc", "bsc_rpc")
    begun = datetime.now(UTC)
    for venue, amounts in (
        ("ethereum_rpc", ("600000", "100000")),
        ("tron_rpc", ("100000", "900000.50")),
        ("bsc_rpc", ("0", "200000.25")),
    ):
        chain = here.served[venue]
        w, usdt = wallets_of(chain.chain), chain.chain.tokens[0]
        chain.add(time=begun - timedelta(minutes=70))
        chain.add(
            (usdt, w.user, w.hot, amounts[0]), (usdt, w.hot, w.user, amounts[1]), time=begun - timedelta(minutes=5)
        )
        behind = timedelta(seconds=200 if venue == "tron_rpc" else 0)
        chain.add((usdt, w.user, w.stranger, "2"), time=begun - behind)
    here.read_to_head()
    here.warm({"ethereum": 1_000_000, "tron": 2_000_000, "bsc": 1_000_000})
    # -500,000 + 800,000.50 + 200,000.25 over a scale of 4,000,000
    full = here.score()
    assert full["score"] == pytest.approx(100 * 500_000.75 / 4_000_000)
    assert (full["score_low"], full["score_high"], full["coverage"]) == (full["score"], full["score"], 1.0)
    shares = {name: chain["share"] for name, chain in full["inputs"]["chains"].items()}
    assert shares == {"ethereum": 0.25, "tron": 0.5, "bsc": 0.25}
    # Two minutes later nothing has been heard of Tron for longer than is fresh.
    part = here.score(ahead_seconds=120)
    assert part["score"] == pytest.approx(100 * -299_999.75 / 2_000_000)  # of those that are known, on their scale
    assert part["coverage"] == pytest.approx(0.5)
    assert part["score_low"] == pytest.approx(100 * (-299_999.75 - 2_000_000) / 4_000_000)
    assert part["score_high"] == pytest.approx(100 * (-299_999.75 + 2_000_000) / 4_000_000)
    assert part["inputs"]["chains"]["tron"] == {"state": "silent", "share": 0.5, "scale_usd": 2_000_000.0}
    assert part["inputs"]["note"] == "flows of tron silent"


def test_a_chain_that_is_added_later_changes_no_score_of_before(install: Install) -> None:
    here = install("ethereum_rpc")
    begun = datetime.now(UTC)
    chain = here.served["ethereum_rpc"]
    w, usdt = wallets_of(ETHEREUM), ETHEREUM.tokens[0]
    chain.add((usdt, w.user, w.hot, "600000"), time=begun - timedelta(minutes=5))
    chain.add(time=begun)
    here.read_to_head()
    here.warm({"ethereum": 1_000_000})
    before = here.score()
    assert (before["score"], before["coverage"]) == (-60.0, 1.0)

    both = install("ethereum_rpc", "tron_rpc")
    tron = both.served["tron_rpc"]
    tw, tron_usdt = wallets_of(TRON), TRON.tokens[0]
    tron.add(time=begun - timedelta(minutes=70))
    tron.add((tron_usdt, tw.user, tw.hot, "900000"), time=begun - timedelta(minutes=5))  # within the scored hour too
    tron.add(time=datetime.now(UTC))
    chain.add(time=datetime.now(UTC))
    both.read_to_head()
    spans = rows(both.database_url, "SELECT venue, from_time, to_time FROM flow_venues")
    assert [(row["venue"], row["to_time"]) for row in spans] == [("tron_rpc", None)]
    assert spans[0]["from_time"] > begun
    assert rescore(both.database_url, both.settings, before["time"], before["time"]).pressures == 1
    again = rows(
        both.database_url, "SELECT * FROM stablecoin_pressure WHERE revision = 1 AND time = %s", before["time"]
    )[0]
    for name in ("score", "score_low", "score_high", "inflow_usd", "outflow_usd", "coverage", "inputs"):
        assert again[name] == before[name]

    # From then on it is expected, and warms before it counts.
    with connect(both.database_url) as conn:
        conn.execute("UPDATE flow_venues SET from_time = now()")
    later = both.score()
    assert later["inputs"]["chains"]["tron"]["state"] == "warming"
    assert (later["score"], later["coverage"], later["inflow_usd"]) == (-60.0, 1.0, 1_500_000.0)
    assert later["score_low"] < -60.0 < later["score_high"]
    assert "flows of tron warming: 0 of 3 days" in later["inputs"]["note"]


@pytest.mark.parametrize("venue", ["tron_rpc", "trongrid", "etherscan_polygon", "bsc_rpc"])
def test_past_hours_of_a_chain_are_loaded_by_block_range(install: Install, venue: str) -> None:
    here = install(venue)
    chain = here.served[venue]
    hour = datetime(2026, 3, 1, 8, tzinfo=UTC)
    w, usdt = wallets_of(chain.chain), chain.chain.tokens[0]
    for minute in range(-3, 70):
        chain.add((usdt, w.user, w.hot, "1000.25"), time=hour + timedelta(minutes=minute))
    for _ in range(3):
        chain.add((usdt, w.user, w.stranger, "3"), time=datetime.now(UTC))
    with open_source(venue, here.settings, here.database_url) as source:
        pieces = list(source.pieces(("BTC",), hour, hour + timedelta(minutes=30)))
        assert len(pieces) == 1
        content = source.read(pieces[0], lambda _path: None, hour + timedelta(hours=9))
    records = list(content.records)  # type: ignore[union-attr]
    assert len(records) == 60
    assert {(record.chain, record.direction, str(record.amount.normalize())) for record in records} == {
        (chain.chain.name, "inflow", "1000.25")
    }


@pytest.mark.parametrize("venue", ["tron_rpc", "trongrid", "etherscan_polygon"])
def test_a_recorded_chain_plays_back_as_the_same_transfers(install: Install, tmp_path: Path, venue: str) -> None:
    here = install(venue)
    sources = here.settings.sources.model_copy(update={"record_dir": tmp_path})
    here.settings = here.settings.model_copy(update={"sources": sources})
    craft(here.served[venue], datetime.now(UTC))
    close_day(here.served[venue])
    here.read_to_head()
    played = open_recording(tmp_path, 10)
    assert played.world.manifest.expected["stablecoin_flows"].venues == (venue,)
    messages = [message for step in played.steps(None) for message in step.messages]
    names = ("chain", "tx_hash", "log_index", "block_hash", "from_address", "to_address", "amount", "direction")
    again = {tuple(getattr(flow, name) for name in names) for flow in messages if isinstance(flow, StablecoinFlow)}
    assert again == {tuple(row[name] for name in names) for row in here.flows()}


def test_every_chain_of_the_table_can_be_chosen() -> None:
    assert {BSC.tokens[0].decimals, POLYGON.tokens[0].decimals} == {18, 6}
    for chain in CHAINS.values():
        assert chain.reread_blocks >= 1
        assert {token.symbol for token in chain.tokens} >= {"USDT", "USDC"}
