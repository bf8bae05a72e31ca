"""A simulated world is reproducible: the same seed and epoch bring the same bytes, wherever it was interrupted."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from liq_pipeline.bus.codec import decode, encode
from liq_pipeline.bus.topics import TOPIC_OF_RECORD
from liq_pipeline.domain.records import FundingRate, Liquidation, Record, StablecoinFlow
from liq_pipeline.domain.wallets import direction, shipped_labels
from liq_pipeline.sources.playing.playable import Step, known_time
from liq_pipeline.sources.simulated.source import SimulatedSource
from liq_pipeline_tests.player_support import EPOCH, simulation

SHORT_HISTORY_STEPS = 24 * 12


def first_steps(source: SimulatedSource, count: int, after: object = None) -> list[Step]:
    """The first steps of the market: those that bring something."""
    steps = (step for step in source.steps(after) if step.messages)  # type: ignore[arg-type]
    return list(itertools.islice(steps, count))


def digest(steps: Iterable[Step]) -> str:
    value = hashlib.sha256()
    for step in steps:
        value.update(repr((step.time, step.is_complete)).encode())
        for message in step.messages:
            value.update(encode(message[1]) if isinstance(message, tuple) else encode(message))
    return value.hexdigest()


@pytest.fixture(scope="module")
def played() -> list[Step]:
    """The whole short history and an hour and a half after it."""
    return first_steps(SimulatedSource(simulation()), SHORT_HISTORY_STEPS + 540)


def records_of(steps: Iterable[Step]) -> list[Record]:
    return [m for step in steps for m in step.messages if not isinstance(m, tuple)]


def test_the_history_is_complete_only_as_a_whole_and_ends_at_the_epoch(played: list[Step]) -> None:
    history = played[:SHORT_HISTORY_STEPS]
    assert [step.is_complete for step in history] == [False] * (SHORT_HISTORY_STEPS - 1) + [True]
    assert history[-1].time == EPOCH
    assert history[0].time == EPOCH - timedelta(hours=24) + timedelta(minutes=5)
    assert all(step.is_complete for step in played[SHORT_HISTORY_STEPS:])
    assert played[SHORT_HISTORY_STEPS].time == EPOCH + timedelta(seconds=10)


@pytest.mark.parametrize("after", [None, EPOCH, EPOCH + timedelta(seconds=10), EPOCH + timedelta(seconds=15)])
def test_every_point_of_both_grids_is_a_step(after: datetime | None) -> None:
    steps = itertools.dropwhile(lambda step: step.time <= EPOCH, SimulatedSource(simulation()).steps(after))
    came = [int((step.time - EPOCH).total_seconds()) for step in itertools.islice(steps, 14)]
    grids = sorted({*range(10, 200, 10), *range(15, 200, 15)})
    assert came == [second for second in grids if after is None or second > (after - EPOCH).total_seconds()][:14]


def test_messages_come_in_known_order_and_inside_their_step(played: list[Step]) -> None:
    end = played[0].time - timedelta(minutes=5)
    for step in played:
        known = [known_time(message) for message in step.messages]
        assert known == sorted(known)
        assert all(end < time <= step.time for time in known)
        end = step.time


def test_every_message_is_one_that_landing_accepts(played: list[Step]) -> None:
    for record in records_of(played):
        assert decode(TOPIC_OF_RECORD[type(record)], encode(record), [], None) == record


def test_no_two_messages_share_a_key(played: list[Step]) -> None:
    keys: Counter[tuple[object, ...]] = Counter()
    for record in records_of(played):
        parts = [getattr(record, name, None) for name in ("symbol", "kind", "event_id", "tx_hash", "log_index")]
        keys[(type(record).__name__, record.venue, record.event_time, *parts)] += 1
    assert keys.most_common(1)[0][1] == 1


def test_each_feed_speaks_at_its_pace_after_the_epoch(played: list[Step]) -> None:
    minute = played[SHORT_HISTORY_STEPS + 294 : SHORT_HISTORY_STEPS + 324]  # 49:10 to 54:00 past the hour's 5 min
    kinds = Counter(type(record).__name__ for record in records_of(minute))
    assert kinds["OpenInterest"] == 30 * 2 * 3  # 10 s, symbols, venues
    assert kinds["Price"] == 30 * 2 * 3 + 5 * 2  # and the average, each minute
    assert kinds["LongShortRatio"] == 2 * 2  # once in five minutes, two venues offer it
    predicted = [r for r in records_of(minute) if isinstance(r, FundingRate) and r.kind == "predicted"]
    assert len(predicted) == 5 * 2 * 3
    beats = Counter(
        (topic, beat.venue) for step in minute for topic, beat in (m for m in step.messages if isinstance(m, tuple))
    )
    assert beats == {
        ("liquidations", "sim_alpha"): 30,
        ("liquidations", "sim_beta"): 30,
        ("stablecoin_flows", "sim_chain"): 30,
    }


def test_the_manifest_promises_what_comes(played: list[Step]) -> None:
    manifest = SimulatedSource(simulation()).world.manifest
    came = {(TOPIC_OF_RECORD[type(record)], record.venue) for record in records_of(played) if record.event_time > EPOCH}
    came |= {(m[0], m[1].venue) for step in played for m in step.messages if isinstance(m, tuple)}
    promised = {(topic, venue) for topic, expected in manifest.expected.items() for venue in expected.venues}
    assert promised == came


def test_liquidation_feeds_differ_as_real_ones_do(played: list[Step]) -> None:
    liquidations = [record for record in records_of(played) if isinstance(record, Liquidation)]
    assert {record.venue for record in liquidations} == {"sim_alpha", "sim_beta"}
    assert all(record.is_sample == (record.venue == "sim_beta") for record in liquidations)
    throttled = Counter((r.symbol, r.event_time, r.liquidated_side) for r in liquidations if r.venue == "sim_beta")
    assert throttled.most_common(1)[0][1] == 1


def test_settled_funding_comes_at_each_venues_interval(played: list[Step]) -> None:
    settled = [
        r for r in records_of(played) if isinstance(r, FundingRate) and r.kind == "settled" and r.symbol == "BTC"
    ]
    per_venue = Counter(record.venue for record in settled)
    assert per_venue["sim_gamma"] == 25  # every hour
    assert per_venue["sim_alpha"] == per_venue["sim_beta"] == 3  # at 0, 8, 16 h


def test_transfers_are_directed_by_the_shipped_labels(played: list[Step]) -> None:
    entities = {label.address: label.entity for label in shipped_labels() if label.source == "simulation"}
    flows = [record for record in records_of(played) if isinstance(record, StablecoinFlow)]
    assert {"inflow", "outflow", "internal", "inter_exchange", "other"} <= {flow.direction for flow in flows}
    assert all(flow.direction == direction(flow.from_address, flow.to_address, entities) for flow in flows)
    assert {flow.token for flow in flows} == {"USDT", "USDC"}


def test_the_same_seed_and_epoch_bring_the_same_bytes(played: list[Step]) -> None:
    again = first_steps(SimulatedSource(simulation()), len(played))
    assert digest(again) == digest(played)


def test_another_seed_is_another_market(played: list[Step]) -> None:
    other = first_steps(SimulatedSource(simulation(seed="other")), 3)
    assert [m.price_usd for m in records_of(other[:1]) if hasattr(m, "volume_24h_usd")] != [
        m.price_usd for m in records_of(played[:1]) if hasattr(m, "volume_24h_usd")
    ]


def test_an_interrupted_world_goes_on_the_same_with_and_without_snapshots(played: list[Step], tmp_path: Path) -> None:
    whole = played[SHORT_HISTORY_STEPS + 460 :]
    after = played[SHORT_HISTORY_STEPS + 459].time
    without = first_steps(SimulatedSource(simulation()), len(whole), after)
    assert digest(without) == digest(whole)
    first_steps(SimulatedSource(simulation(), tmp_path), SHORT_HISTORY_STEPS + 470)  # leaves snapshots behind
    assert len(list(tmp_path.glob("*.npz"))) == 2  # at the epoch, 12:05, and at 13:00
    with_snapshots = first_steps(SimulatedSource(simulation(), tmp_path), len(whole), after)
    assert digest(with_snapshots) == digest(whole)


def test_a_broken_snapshot_costs_time_and_nothing_else(played: list[Step], tmp_path: Path) -> None:
    first_steps(SimulatedSource(simulation(), tmp_path), SHORT_HISTORY_STEPS + 470)
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:1000])
    whole = played[SHORT_HISTORY_STEPS + 400 : SHORT_HISTORY_STEPS + 420]
    after = played[SHORT_HISTORY_STEPS + 399].time
    assert digest(first_steps(SimulatedSource(simulation(), tmp_path), len(whole), after)) == digest(whole)


def test_snapshots_that_landing_has_passed_are_deleted_but_for_the_newest(tmp_path: Path) -> None:
    source = SimulatedSource(simulation(), tmp_path)
    first_steps(source, SHORT_HISTORY_STEPS + 720)  # 12:05 + 2 h
    assert len(list(tmp_path.glob("*.npz"))) == 3
    source.landed(EPOCH + timedelta(minutes=70))
    assert sorted(int(path.stem) for path in tmp_path.glob("*.npz")) == [
        int((EPOCH + timedelta(minutes=minutes)).timestamp()) for minutes in (55, 115)
    ]


def test_generation_is_announced_before_it_is_handed_out() -> None:
    announced = []
    source = SimulatedSource(simulation(), on_generate=announced.append)
    for step in itertools.islice(source.steps(EPOCH), 30):
        assert announced
        assert step.time <= announced[-1]
    assert len(announced) < 10


def test_the_numbers_of_a_world_do_not_change_by_accident(played: list[Step]) -> None:
    """Held by value: who changes the dynamics raises MODEL_VERSION, or running worlds would contradict themselves.

    Not to the last digit: another processor's exp() may differ in it.
    """
    prices = {}
    for record in records_of(played[SHORT_HISTORY_STEPS - 1 : SHORT_HISTORY_STEPS]):
        if TOPIC_OF_RECORD[type(record)] == "prices" and record.venue == "sim_alpha":
            prices[record.symbol] = record.price_usd  # type: ignore[attr-defined]
    assert prices == pytest.approx(PRICES_AT_THE_EPOCH, rel=1e-3)


PRICES_AT_THE_EPOCH = {"BTC": 67133.96, "ETH": 3185.643}
