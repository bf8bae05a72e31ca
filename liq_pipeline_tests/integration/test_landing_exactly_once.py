"""A property: whatever is delivered again, in whatever batches, each key lands once and the counts add up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing import write as landing_write
from liq_pipeline.store.landing.tables import FLOWS, TABLES, Row
from liq_pipeline.store.landing.write import Outcome, resolve
from liq_pipeline_tests.landing_support import BLOCK, OTHER_BLOCK, T0, price, stablecoin_flow

PRICES = TABLES[type(price())]


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(database_url) as conn:
        yield conn
        conn.rollback()


def a_price(event: int, version: int, is_archive: bool, offset: int) -> Row:
    record = price(
        event,
        price_usd=100.0 + version,
        **({"origin": "archive", "known_at": T0 + timedelta(seconds=event + 90)} if is_archive else {}),
    )
    return PRICES.build(record, "prices", 1, 0, offset)


def a_flow(event: int, version: int, is_mark: bool, offset: int) -> Row:
    record = stablecoin_flow(
        event,
        block_hash=(BLOCK, OTHER_BLOCK)[version % 2],
        is_canonical=not is_mark,
        received_at=T0 + timedelta(seconds=event + offset),
    )
    return FLOWS.build(record, "stablecoin_flows", 1, 0, offset)


Delivery = tuple[int, int, bool]
deliveries = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.booleans()), min_size=1, max_size=12),
    min_size=1,
    max_size=6,
)


def expected_rows(table: Any, batches: list[list[Row]]) -> tuple[dict[Row, Row], Outcome]:
    """The same, one delivery after the other, without a database."""
    rows: dict[Row, Row] = {}
    outcome = Outcome()
    for row in (row for batch in batches for row in batch):
        key = table.key_of(row)
        if key not in rows:
            rows[key] = row
            outcome.landed[row[table.partition]] += 1
            continue
        before = rows[key]
        rows[key], conflict = resolve(table, before, row)
        if conflict is not None and conflict.resolution != landing_write.CANONICAL_AGAIN:
            outcome.conflicts[row[table.partition]] += 1
        elif rows[key] is before:
            outcome.duplicates[row[table.partition]] += 1
        else:
            outcome.landed[row[table.partition]] += 1
    return rows, outcome


@pytest.mark.parametrize("copy_from", [1, 1000], ids=["by COPY", "as arrays"])
@pytest.mark.parametrize("build", [a_price, a_flow])
def test_any_sequence_of_batches_lands_each_key_once(
    conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, build: Any, copy_from: int
) -> None:
    monkeypatch.setattr(landing_write, "COPY_FROM_ROWS", copy_from)
    table = PRICES if build is a_price else FLOWS

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(deliveries)
    def check(plan: list[list[Delivery]]) -> None:
        offsets = iter(range(10_000))
        batches = [[build(*delivery, next(offsets)) for delivery in batch] for batch in plan]
        rows, expected = expected_rows(table, batches)
        total = Outcome()
        with conn.transaction(force_rollback=True):
            conn.execute("TRUNCATE row_conflicts")
            for number, batch in enumerate(batches):
                outcome = write(conn, table, batch, T0 + timedelta(seconds=number))
                total.landed.update(outcome.landed)
                total.duplicates.update(outcome.duplicates)
                total.conflicts.update(outcome.conflicts)
            assert stored(conn, table) == rows
            assert +total.landed == expected.landed
            assert +total.duplicates == expected.duplicates
            assert +total.conflicts == expected.conflicts
            (conflicts,) = conn.execute(
                "SELECT count(*) FROM row_conflicts WHERE resolution <> 'canonical_again'"
            ).fetchone() or (None,)
            assert conflicts == expected.conflicts.total()

            # Offsets were lost: everything is delivered again, and the tables do not change.
            again = Outcome()
            for number, batch in enumerate(batches):
                outcome = write(conn, table, batch, T0 + timedelta(days=1, seconds=number))
                again.conflicts.update(outcome.conflicts)
                if table is PRICES:
                    again.landed.update(outcome.landed)
            assert again.landed.total() == again.conflicts.total() == 0
            assert stored(conn, table) == rows

    check()


def test_a_batch_of_history_that_is_late_as_a_whole_is_counted_without_comparing_each_with_each(
    conn: psycopg.Connection[Any],
) -> None:
    """20,000 rows against 20,000 takes minutes, and ticks wait for landing: a healed hole once made them 40 s late."""
    batch = [a_price(number, 0, False, number) for number in range(20_000)]
    conn.execute("SET statement_timeout = '20s'")
    outcome = landing_write.write(
        conn, PRICES, batch, stamp=T0, identities={1: "cluster"},
        last_ticks={"real": batch[-2][PRICES.known_at], "recorded/x": T0 + timedelta(days=1)},
    )  # fmt: skip
    assert outcome.landed == {0: 20_000}
    assert outcome.late == {"real": 19_999}


def write(conn: psycopg.Connection[Any], table: Any, batch: list[Row], stamp: datetime) -> Outcome:
    return landing_write.write(conn, table, batch, stamp=stamp, identities={1: "cluster"}, last_ticks={})


def stored(conn: psycopg.Connection[Any], table: Any) -> dict[Row, Row]:
    columns = ", ".join(table.columns)
    rows = conn.execute(f"SELECT {columns} FROM {table.name}").fetchall()  # noqa: S608 - own names
    return {table.key_of(row): row for row in rows}
