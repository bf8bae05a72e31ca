"""What a second delivery of one key does to the first."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from liq_pipeline.domain.records import Record
from liq_pipeline.store.landing.tables import FLOWS, IS_CANONICAL, ORPHANED_KNOWN_AT, TABLES, Row
from liq_pipeline.store.landing.write import resolve
from liq_pipeline_tests.landing_support import SAMPLES, T0, price, stablecoin_flow


def row(record: Record, *, offset: int = 0, partition: int = 0, cluster: int = 1) -> Row:
    return TABLES[type(record)].build(record, "topic", cluster, partition, offset)


PRICES = TABLES[type(price())]


def archive(seconds: float, **changes: object) -> Row:
    offset = changes.pop("offset", 0)
    known = T0 + timedelta(seconds=seconds + 90)
    return row(price(seconds, origin="archive", known_at=known, **changes), offset=int(str(offset)))


def test_every_row_has_a_value_for_every_column() -> None:
    for sample in SAMPLES.values():
        table = TABLES[type(sample())]
        assert len(row(sample())) == len(table.columns)
        values = table.as_dict(row(sample(), offset=9, partition=2, cluster=3))
        assert (values["kafka_cluster"], values["kafka_partition"], values["kafka_offset"]) == (3, 2, 9)
        assert values["event_time"] == T0


def test_the_same_substance_again_is_a_duplicate_whatever_its_provenance() -> None:
    first = row(price())
    again = row(price(received_at=T0 + timedelta(seconds=30)), offset=5)
    assert resolve(PRICES, first, again) == (first, None)


def test_another_live_version_leaves_the_first_in_force() -> None:
    first, other = row(price()), row(price(price_usd=90_001.0), offset=5)
    state, conflict = resolve(PRICES, first, other)
    assert state is first
    assert conflict is not None
    assert (conflict.kept, conflict.other, conflict.resolution) == (first, other, "first_kept")


def test_an_archive_correction_replaces_what_the_archive_had_said() -> None:
    first, correction = archive(0), archive(0, price_usd=90_001.0, offset=5)
    state, conflict = resolve(PRICES, first, correction)
    assert state is correction
    assert conflict is not None
    assert (conflict.kept, conflict.other, conflict.resolution) == (correction, first, "archive_replaced")


def test_an_archive_leaves_what_was_seen_live_in_force() -> None:
    """Whoever sent it: the backfill leaves such rows out, but any program may write to the topics."""
    seen, told = row(price()), archive(0, price_usd=90_001.0, offset=5)
    state, conflict = resolve(PRICES, seen, told)
    assert state is seen
    assert conflict is not None
    assert (conflict.kept, conflict.other, conflict.resolution) == (seen, told, "first_kept")


def test_an_old_correction_read_again_does_not_undo_a_newer_one() -> None:
    old, new = archive(0, price_usd=90_001.0, offset=5), archive(0, price_usd=90_002.0, offset=8)
    assert resolve(PRICES, new, old) == (new, None)


def test_a_missing_number_is_another_version_than_a_number() -> None:
    _, conflict = resolve(PRICES, row(price()), row(price(market_cap_usd=None), offset=1))
    assert conflict is not None


def test_two_fetchers_of_one_transfer_agree() -> None:
    first = row(stablecoin_flow())
    again = row(stablecoin_flow(venue="ethereum_rpc", label_version="labels-2", direction="other", to_entity=None))
    assert resolve(FLOWS, first, again) == (first, None)


def test_a_reorg_mark_orphans_the_transfer_from_the_time_it_was_known() -> None:
    first = row(stablecoin_flow())
    mark = row(stablecoin_flow(is_canonical=False, received_at=T0 + timedelta(minutes=2)))
    state, conflict = resolve(FLOWS, first, mark)
    assert conflict is None
    assert state[IS_CANONICAL] is False
    assert state[ORPHANED_KNOWN_AT] == T0 + timedelta(minutes=2)
    assert state[FLOWS.known_at] == first[FLOWS.known_at]
    assert resolve(FLOWS, state, mark) == (state, None)


def test_the_first_delivery_read_again_does_not_lift_the_mark() -> None:
    marked, _ = resolve(
        FLOWS, row(stablecoin_flow()), row(stablecoin_flow(is_canonical=False, received_at=T0 + timedelta(minutes=2)))
    )
    assert resolve(FLOWS, marked, row(stablecoin_flow())) == (marked, None)


def test_a_transfer_seen_as_canonical_after_the_mark_counts_again_and_the_mark_is_kept_on_record() -> None:
    marked, _ = resolve(
        FLOWS, row(stablecoin_flow()), row(stablecoin_flow(is_canonical=False, received_at=T0 + timedelta(minutes=2)))
    )
    back = row(stablecoin_flow(received_at=T0 + timedelta(minutes=3)))
    state, conflict = resolve(FLOWS, marked, back)
    assert state[IS_CANONICAL] is True
    assert state[ORPHANED_KNOWN_AT] is None
    assert conflict is not None
    assert (conflict.other, conflict.resolution) == (marked, "canonical_again")


def test_an_amount_that_changed_is_a_conflict() -> None:
    state, conflict = resolve(FLOWS, row(stablecoin_flow()), row(stablecoin_flow(amount=Decimal(7)), offset=5))
    assert conflict is not None
    assert conflict.resolution == "first_kept"
    assert state[IS_CANONICAL] is True
