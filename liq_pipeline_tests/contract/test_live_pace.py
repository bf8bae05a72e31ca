"""Fifty symbols at every venue: every budget holds, and rounds keep to their bound though answers are slow.

bench/pace.py measures the same on a quiet machine; here the count of requests is exact and the time has room.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.polling.round import poll_due
from liq_pipeline_tests.live_support import rows
from liq_pipeline_tests.pace_support import COINS, POLLED, SlowVenues

DELAY_SECONDS = 0.3


def test_fifty_symbols_stay_within_every_budget_and_every_round_within_its_bound(
    database_url: str, kafka_server: str, topic_prefix: str, settings: Callable[..., Settings]
) -> None:
    with SlowVenues(DELAY_SECONDS) as venues:
        chosen = settings(
            mode="live",
            symbols=COINS,
            venues=POLLED,
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(urls=venues.urls()),
        )
        now = datetime.now(UTC)
        spent: Counter[str] = Counter()
        records: Counter[str] = Counter()
        seconds = []
        for round_number in range(7):  # one minute, a round every ten seconds
            begun = time.monotonic()
            result = poll_due(database_url, kafka_server, chosen, now + timedelta(seconds=10 * round_number))
            seconds.append(time.monotonic() - begun)
            assert result.failures.keys() <= {"coingecko"}, result.failures
            assert result.problems == []
            spent += venues.counts()
            records += Counter(result.records)
        budgets = rows(database_url, "SELECT source, budget FROM source_status")
    for row in budgets:
        for scope, budget in row["budget"].items():
            assert budget["used"] <= budget["capacity"], scope
    # One request each, whatever the number of coins, beside their coins' own endpoints.
    assert spent["hyperliquid"] < 7 * 2 + 60
    assert spent["binance"] <= 900 + 1800
    assert spent["bybit"] <= 60 / 5 * 200
    assert spent["gate"] <= 60 / 10 * 150
    assert spent["dydx"] <= 7 * 75
    assert spent["deribit"] <= 70 * 10
    # Every coin's open interest at the venue with one request per coin was read in the rounds after the first two.
    state = rows(
        database_url,
        "SELECT count(*) AS n FROM poll_state WHERE source = 'binance' AND feed = 'open_interest' AND failures = 0",
    )
    assert state == [{"n": 50}]
    # Five rounds of marks and open interest of nine venues at least; the first round reads the lists.
    assert records["prices"] >= 5 * 50 * 8
    # The bound is 3 s; the machine may be busy with other tests.
    assert sorted(seconds)[len(seconds) // 2] < 4.0
