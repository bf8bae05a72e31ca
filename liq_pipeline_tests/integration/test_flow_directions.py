"""What a transfer is: the same in Python, where rows are made, and in SQL, where they are summed."""

from __future__ import annotations

from itertools import product

from psycopg import sql

from liq_pipeline.domain.chains import ZERO_ADDRESSES
from liq_pipeline.domain.wallets import direction
from liq_pipeline.store.connection import connect
from liq_pipeline.store.inputs.as_known import DIRECTION

ENTITIES = (
    None,
    "binance",
    "okx",
    "binance_custody",
    "tether_treasury",
    "circle_treasury",
    "custody",
    "a_treasury_fund",
)


def test_sql_and_python_agree_on_every_pair(database_url: str) -> None:
    query = sql.SQL(
        "SELECT {} FROM (SELECT %s::text AS from_address, %s::text AS to_address) AS t,"
        " (SELECT %s::text AS entity) AS f, (SELECT %s::text AS entity) AS g"
    ).format(DIRECTION)
    seen = set()
    with connect(database_url) as conn:
        for ends in product(("A", *ZERO_ADDRESSES), ("B", *ZERO_ADDRESSES)):
            for sender, receiver in product(ENTITIES, ENTITIES):
                entities = {end: of for end, of in zip(ends, (sender, receiver), strict=True) if of is not None}
                row = conn.execute(query, [*ends, entities.get(ends[0]), entities.get(ends[1])]).fetchone()
                expected = direction(*ends, entities)
                assert row == (expected,), (ends, sender, receiver)
                seen.add(expected)
    assert seen == {"inflow", "outflow", "internal", "inter_exchange", "mint", "burn", "other"}
