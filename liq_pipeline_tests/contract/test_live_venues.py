"""Every venue, every record type it offers: a frame over a real socket, through source, Kafka and landing, by value.

The frames (frames/<source>.json) follow the vendors' documentation; the numbers expected here were worked out by hand
from each venue's units. docs/sources.md shows the same table.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.polling.round import poll_due
from liq_pipeline_tests.live_support import land_everything, rows, venue_server

EIGHT = datetime(2024, 6, 1, 8, tzinfo=UTC)
FIVE_MINUTES_BEFORE = EIGHT - timedelta(minutes=5)
MakeSettings = Callable[..., Settings]


def ms(milliseconds: int) -> datetime:
    """That many milliseconds after eight o'clock."""
    return EIGHT + timedelta(milliseconds=milliseconds)


LOCAL = None
"""The venue gives no time: event_time is when the request was sent, and says so."""

# (symbol, USD per coin, time)
PRICES: dict[str, list[tuple[str, float, datetime | None]]] = {
    "binance": [("BTC", 68000.10, ms(123)), ("PEPE", 0.000014, ms(123))],
    "bybit": [("BTC", 68000.0, ms(500)), ("PEPE", 0.000014, ms(500))],
    "okx": [("BTC", 68000.0, ms(200)), ("PEPE", 0.000014, ms(200))],
    "gate": [("BTC", 68000.0, LOCAL), ("PEPE", 0.000014, LOCAL)],
    "hyperliquid": [("BTC", 68000.0, LOCAL), ("PEPE", 0.000014, LOCAL)],
    "dydx": [("BTC", 68000.0, LOCAL)],
    "deribit": [("BTC", 68000.0, ms(600)), ("SOL", 160.0, ms(600))],
    "bitget": [("BTC", 68000.0, ms(700)), ("PEPE", 0.000014, ms(700))],
    "kraken_futures": [("BTC", 68000.0, ms(524))],
    "coingecko": [("BTC", 68005.37, ms(-10_000)), ("PEPE", 0.0000140123, ms(-10_000))],
}

# (symbol, coins, USD, time)
OPEN_INTEREST: dict[str, list[tuple[str, float, float, datetime | None]]] = {
    # 5e9 units of 1000 PEPE; USD = coins x mark of the same round, since the venue gives none
    "binance": [("BTC", 80_000, 80_000 * 68000.10, ms(1000)), ("PEPE", 5e12, 7e7, ms(1000))],
    "bybit": [("BTC", 50_000, 3.4e9, ms(500)), ("PEPE", 3e12, 4.2e7, ms(500))],
    # 2,800,000 contracts would be a hundred times too much: oiCcy is the figure in coins
    "okx": [("BTC", 28_000, 1.904e9, ms(300)), ("PEPE", 1e12, 1.4e7, ms(300))],
    # 70,000,000 contracts of 0.0001 BTC; 50,000 contracts of 10,000,000 PEPE
    "gate": [("BTC", 7_000, 4.76e8, LOCAL), ("PEPE", 5e11, 7e6, LOCAL)],
    "hyperliquid": [("BTC", 30_000, 2.04e9, LOCAL), ("PEPE", 5e9, 70_000, LOCAL)],
    "dydx": [("BTC", 500.5, 500.5 * 68000, LOCAL)],
    # 680 million USD of inverse contracts; 50,000 SOL of linear ones
    "deribit": [("BTC", 10_000, 6.8e8, ms(600)), ("SOL", 50_000, 8e6, ms(600))],
    "bitget": [("BTC", 40_000, 2.72e9, ms(700)), ("PEPE", 1e9, 14_000, ms(700))],
    "kraken_futures": [("BTC", 2000.5, 2000.5 * 68000, ms(524))],
}

# (symbol, rate per interval, hours, rate per 8 h)
PREDICTED: dict[str, list[tuple[str, float, float, float]]] = {
    "binance": [("BTC", 0.0001, 8, 0.0001), ("PEPE", -0.0002, 4, -0.0004)],
    "bybit": [("BTC", 0.0001, 8, 0.0001), ("PEPE", -0.0002, 4, -0.0004)],
    "okx": [("BTC", 0.0001, 8, 0.0001), ("PEPE", -0.0002, 4, -0.0004)],
    "gate": [("BTC", 0.0001, 8, 0.0001), ("PEPE", -0.0002, 4, -0.0004)],
    "hyperliquid": [("BTC", 0.0000125, 1, 0.0001), ("PEPE", -0.00002, 1, -0.00016)],
    "dydx": [("BTC", 0.0000125, 1, 0.0001)],
    "deribit": [("BTC", 0.0001, 8, 0.0001), ("SOL", 0.0, 8, 0.0)],
    "bitget": [("BTC", 0.0001, 8, 0.0001), ("PEPE", -0.0002, 4, -0.0004)],
    # 0.85 USD per BTC and hour at an index of 68,000
    "kraken_futures": [("BTC", 0.0000125, 1, 0.0001)],
}

# BTC only: (time, rate, hours)
SETTLED: dict[str, list[tuple[datetime, float, float]]] = {
    # fundingTime carries milliseconds of jitter; the gap between the rows is the interval that was in force
    "binance": [(EIGHT - timedelta(hours=8), 0.0001, 8), (EIGHT - timedelta(hours=4), 0.00012, 4)],
    "bybit": [(EIGHT - timedelta(hours=8), 0.00015, 8), (EIGHT, 0.0001, 8)],
    "okx": [(EIGHT - timedelta(hours=8), 0.00012, 8), (EIGHT, 0.0001, 8)],
    "gate": [(EIGHT - timedelta(hours=8), 0.00012, 8), (EIGHT, 0.0001, 8)],
    "hyperliquid": [(ms(-3_600_000 + 31), 0.0000125, 1), (ms(28), 0.000013, 1)],
    "dydx": [(ms(-3_600_000 + 301), 0.0000125, 1), (ms(412), 0.000013, 1)],
    "deribit": [(EIGHT, 0.0000125, 1)],
    "bitget": [(EIGHT - timedelta(hours=8), 0.00012, 8), (EIGHT, 0.0001, 8)],
    "kraken_futures": [(EIGHT, 0.0000125, 1)],
}

# BTC only: {kind: (long share, ratio)}; Binance and Bitget send a ratio that contradicts their own shares
LONG_SHORT: dict[str, dict[str, tuple[float, float]]] = {
    "binance": {
        "accounts": (0.6, 1.5),
        "top_accounts": (0.5, 1.0),
        "top_positions": (0.75, 3.0),
        "taker": (1 / 3, 0.5),
    },
    "bybit": {"accounts": (0.6, 1.5)},
    "okx": {"accounts": (0.6, 1.5), "top_accounts": (0.5, 1.0), "top_positions": (0.75, 3.0)},
    "gate": {"accounts": (0.6, 1.5), "top_accounts": (0.5, 1.0), "top_positions": (0.75, 3.0), "taker": (1 / 3, 0.5)},
    "bitget": {"accounts": (0.6, 1.5)},
}
LONG_SHORT_TIME = dict.fromkeys(LONG_SHORT, FIVE_MINUTES_BEFORE) | {
    # Gate's newest row is of the five minutes under way: only the one before counts.
    "gate": EIGHT - timedelta(minutes=10)
}

SOURCES = sorted(set(PRICES) | set(OPEN_INTEREST))


@pytest.mark.parametrize("source", SOURCES)
def test_frames_become_rows_with_the_right_units(
    source: str, database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    with venue_server(source) as server:
        started = datetime.now(UTC)
        chosen = settings(
            mode="live",
            symbols=("BTC", "PEPE", "SOL"),
            venues=(source,) if source != "coingecko" else ("dydx",),
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(
                urls={"dydx": server.url("nobody"), "coingecko": server.url("nobody")} | server.urls()
            ),
        )
        first = poll_due(database_url, kafka_server, chosen, started)
        second = poll_due(database_url, kafka_server, chosen, started)
    assert source not in first.failures
    assert source not in second.failures
    assert [problem for problem in second.problems if problem.startswith(source)] == []
    land_everything(database_url, kafka_server, topic_prefix)
    assert rows(database_url, "SELECT reason FROM dead_letters") == []

    def check_time(row: dict[str, Any], expected: datetime | None) -> None:
        if expected is LOCAL:
            assert row["event_time_source"] == "local"
            assert started <= row["event_time"] <= row["received_at"]
        else:
            assert (row["event_time"], row["event_time_source"]) == (expected, "venue")

    found = rows(database_url, "SELECT * FROM prices WHERE venue = %s ORDER BY symbol", source)
    assert [row["symbol"] for row in found] == [symbol for symbol, _, _ in PRICES[source]]
    for row, (_, usd, moment) in zip(found, PRICES[source], strict=True):
        assert row["price_usd"] == pytest.approx(usd, rel=1e-12)
        assert (row["world"], row["origin"]) == ("real", "live")
        check_time(row, moment)

    found = rows(database_url, "SELECT * FROM open_interest WHERE venue = %s ORDER BY symbol", source)
    assert [row["symbol"] for row in found] == [symbol for symbol, *_ in OPEN_INTEREST.get(source, [])]
    for row, (_, coins, usd, moment) in zip(found, OPEN_INTEREST.get(source, []), strict=True):
        assert row["open_interest_base"] == pytest.approx(coins, rel=1e-12)
        assert row["open_interest_usd"] == pytest.approx(usd, rel=1e-9)
        check_time(row, moment)

    found = rows(
        database_url, "SELECT * FROM funding_rates WHERE venue = %s AND kind = 'predicted' ORDER BY symbol", source
    )
    assert [row["symbol"] for row in found] == [symbol for symbol, *_ in PREDICTED.get(source, [])]
    for row, (_, rate, hours, per_8h) in zip(found, PREDICTED.get(source, []), strict=True):
        assert row["rate"] == pytest.approx(rate, rel=1e-12)
        assert row["interval_hours"] == hours
        assert row["rate_per_8h"] == pytest.approx(per_8h, rel=1e-12)

    found = rows(
        database_url,
        "SELECT * FROM funding_rates WHERE venue = %s AND kind = 'settled' AND symbol = 'BTC' ORDER BY event_time",
        source,
    )
    assert [(row["event_time"], row["rate"], row["interval_hours"]) for row in found] == SETTLED.get(source, [])

    found = rows(database_url, "SELECT * FROM long_short_ratio WHERE venue = %s AND symbol = 'BTC'", source)
    assert {row["kind"] for row in found} == set(LONG_SHORT.get(source, {}))
    for row in found:
        long_share, ratio = LONG_SHORT[source][row["kind"]]
        assert row["long_share"] == pytest.approx(long_share)
        assert row["short_share"] == pytest.approx(1 - long_share)
        assert row["ratio"] == pytest.approx(ratio)
        assert (row["event_time"], row["period_minutes"]) == (LONG_SHORT_TIME[source], 5)


def test_a_coin_that_a_venue_does_not_list_is_said_once(
    database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    with venue_server("dydx") as server:
        chosen = settings(
            mode="live",
            symbols=("BTC", "PEPE"),
            venues=("dydx",),
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(urls={"coingecko": server.url("nobody")} | server.urls()),
        )
        now = datetime.now(UTC)
        rounds = [poll_due(database_url, kafka_server, chosen, now + timedelta(hours=2 * n)) for n in range(3)]
    assert [result.not_listed.get("dydx") for result in rounds] == [["PEPE"], None, None]
    status = rows(database_url, "SELECT state, reason FROM source_status WHERE source = 'dydx'")
    assert status == [{"state": "up", "reason": "does not list PEPE"}]
