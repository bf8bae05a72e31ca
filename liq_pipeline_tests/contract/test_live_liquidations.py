"""Every venue's liquidations, streamed and listed, through the collector and Kafka into the table, by value.

`liquidated_side` is the side of the POSITION: Binance and OKX in net mode name the order's side, Bybit and Gate the
position's, OKX in long/short mode and HTX both.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from liq_pipeline.collector.collect import Collector
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.live import binance, bitget, bybit, deribit, dydx, gate, htx, kraken_futures, okx
from liq_pipeline.sources.live.base import Reading
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline_tests.live_support import (
    StreamServer,
    VenueServer,
    frames_of,
    land_everything,
    rows,
    venue_server,
    wait_until,
)

NOON = datetime(2024, 6, 1, 8, 0, 11, tzinfo=UTC)
NOWHERE = "ws://127.0.0.1:9"
MakeSettings = Callable[..., Settings]

# (symbol, seconds after NOON, side, USD per coin, coins, is_sample)
EXPECTED: dict[str, list[tuple[str, float, str, float, float, bool]]] = {
    # z = 2 coins were filled at the average ap; l is only the last fill. A SELL order closes a long.
    "binance": [("BTC", 0.257, "long", 67_600.0, 2.0, True), ("PEPE", 1.257, "short", 0.000014, 1e8, True)],
    # Buy is the liquidated position: a long. Two equal events of one push are two events.
    "bybit": [
        ("BTC", 0.301, "long", 67_000.0, 0.25, False),
        ("BTC", 0.301, "long", 67_000.0, 0.25, False),
        ("PEPE", 0.4, "short", 0.000015, 1e6, False),
    ],
    # 412 contracts are 4.12 BTC. Both details of the message count; the REST list repeats the first: one row.
    "okx": [("BTC", 0.0, "long", 67_310.1, 4.12, True), ("BTC", 0.5, "short", 68_310.0, 1.0, True)],
    # 600 of the position's 1,000 contracts were closed; contracts of 0.0001 BTC
    # Streamed, two equal orders of one push and then one whose time is in seconds; a sell order closes a long
    "gate": [
        ("BTC", 0.0, "long", 67_100.0, 0.06, False),
        ("BTC", 1.0, "short", 68_400.0, 0.05, False),
        ("BTC", 2.601, "long", 66_900.0, 0.01245, False),
        ("BTC", 2.601, "long", 66_900.0, 0.01245, False),
        ("BTC", 2.902, "short", 68_500.0, 0.001, False),
    ],
    # Trades with a flag: T the taker, M the maker, MT both; inverse amounts are USD, linear ones coins. The first one
    # sold, so a long was closed; in the second a long (the taker's) and a short (the maker's); the maker of the
    # third sold to a buyer. A trade without the flag is no liquidation.
    "deribit": [
        ("BTC", 0.301, "long", 68_000.0, 0.5, False),
        ("BTC", 0.401, "short", 68_000.0, 0.1, False),
        ("BTC", 0.401, "long", 68_000.0, 0.1, False),
        ("SOL", 0.501, "long", 160.0, 25.0, False),
    ],
    # `type` and `side` are the taker's; the snapshot holds what came before the subscription; a termination is none
    "kraken_futures": [("BTC", -0.5, "long", 67_990.0, 0.25, False), ("BTC", 0.0, "short", 68_400.5, 1.5, False)],
    # `side` is the position's, "buy" a long; two equal rows are two events
    "bitget": [
        ("BTC", 0.1, "long", 67_000.0, 0.5, False),
        ("BTC", 0.1, "long", 67_000.0, 0.5, False),
        ("BTC", 1.1, "short", 68_400.0, 1.25, False),
        # Streamed: of each side the largest of a second
        ("BTC", 2.5, "long", 66_900.0, 2.5, True),
        ("BTC", 2.9, "short", 68_500.0, 0.75, True),
    ],
    # `type` and `side` are the taker's; a deleveraging is no order in the market, and the others are just trades
    # List and stream tell the first two under the same ids: one row each.
    "dydx": [
        ("BTC", 0.301, "long", 67_000.0, 0.5, False),
        ("BTC", 1.1, "short", 68_400.5, 0.25, False),
        ("BTC", 2.601, "long", 66_900.0, 0.75, False),
    ],
    # 2 and 1,000 contracts of 0.001 BTC; `amount` says 2 and 1. Streamed: a sell order closes a long
    "htx": [
        ("BTC", 0.165, "short", 68_500.0, 0.002, False),
        ("BTC", 1.165, "long", 67_000.0, 1.0, False),
        ("BTC", 2.601, "long", 66_900.0, 0.5, False),
        ("BTC", 2.901, "short", 68_500.0, 0.02, False),
    ],
}
GREETINGS = {
    "binance": 1, "bybit": 1, "okx": 2, "deribit": 2, "kraken_futures": 2, "gate": 1, "bitget": 1, "htx": 1, "dydx": 1
}  # fmt: skip
PACKED = {"htx": gzip.compress}


@contextmanager
def collector_of(
    source: str,
    rest: VenueServer,
    database_url: str,
    kafka: str,
    prefix: str,
    settings: MakeSettings,
    stream: StreamServer | None = None,
) -> Iterator[Collector]:
    urls = rest.urls() | {f"{name}_ws": NOWHERE for name in GREETINGS}
    if stream is not None:
        urls[f"{source}_ws"] = stream.url
    chosen = settings(
        mode="live",
        symbols=("BTC", "PEPE", "SOL"),
        venues=(source,),
        kafka_topic_prefix=prefix,
        sources=SourceSettings(urls=urls, market_seconds=0.5),
    )
    collector = Collector(chosen, database_url, kafka, first_backoff_seconds=0.1)
    collector.start()
    try:
        yield collector
    finally:
        collector.stop()


@pytest.mark.parametrize("source", sorted(EXPECTED))
def test_liquidations_become_rows_with_the_right_side_and_size(
    source: str, database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> None:
    messages = frames_of(source).get("stream", [])
    with ExitStack() as stack:
        rest = stack.enter_context(venue_server(source))
        stream = None
        if messages:
            stream = StreamServer(messages[: GREETINGS[source]], pack=PACKED.get(source))
            stack.callback(stream.close)
        collector = stack.enter_context(
            collector_of(source, rest, database_url, kafka_server, topic_prefix, settings, stream)
        )
        if stream is not None:
            stream.wait_for_subscriber()
            for message in messages[GREETINGS[source] :]:
                stream.send(message)
        wait_until(lambda: collector.sender.sent >= len(EXPECTED[source]), 20, "not all events were sent")
        # A second reading of the list, or a repeated push, brings nothing new.
        duplicates = collector.buffer.duplicates
        if stream is not None:
            stream.send(messages[-1])
        wait_until(lambda: collector.buffer.duplicates > duplicates, 10, "nothing was repeated")
        wait_until(lambda: collector.coverages[source].read_until is not None, 10, "the feed was never proved")
    land_everything(database_url, kafka_server, topic_prefix)
    found = rows(database_url, "SELECT * FROM liquidations ORDER BY event_time, event_id")
    assert len(found) == len(EXPECTED[source])
    for row, (symbol, seconds, side, price, coins, sample) in zip(found, EXPECTED[source], strict=True):
        assert (row["venue"], row["symbol"], row["liquidated_side"]) == (source, symbol, side)
        assert row["event_time"] == NOON + timedelta(seconds=seconds)
        assert row["price_usd"] == pytest.approx(price, rel=1e-12)
        assert row["quantity_base"] == pytest.approx(coins, rel=1e-12)
        assert row["notional_usd"] == pytest.approx(price * coins, rel=1e-12)
        assert (row["is_sample"], row["world"], row["origin"]) == (sample, "real", "live")
    beats = rows(database_url, "SELECT venue, max(event_time) AS until FROM heartbeats GROUP BY venue")
    assert [beat["venue"] for beat in beats] == [source]
    assert datetime.now(UTC) - beats[0]["until"] < timedelta(minutes=1)
    assert rows(database_url, "SELECT * FROM row_conflicts") == []


def reading(venue: str, *instruments: Instrument) -> Reading:
    now = datetime.now(UTC)
    return Reading(venue, sent_at=now, received_at=now, instruments={i.native: i for i in instruments})


def test_the_recorded_binance_frame(shared_data: Path) -> None:
    frame = shared_data / "fixtures/nautilus/binance/futures/market_data_json/liquidation_stream.json"
    found = reading("binance", Instrument("BTC", "BTCUSDT"))
    binance.parse_stream(msgspec.json.decode(frame.read_bytes()), found)
    (event,) = found.records
    assert event.liquidated_side == "long"  # type: ignore[attr-defined]
    assert event.notional_usd == pytest.approx(0.014 * 9910.12345678)  # type: ignore[attr-defined]
    assert event.event_time == datetime(2019, 9, 9, 7, 34, 20, 893000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("parse", "venue", "message", "instrument"),
    [
        (binance.parse_stream, "binance", frames_of("binance")["stream"][1], Instrument("BTC", "BTCUSDT")),
        (bybit.parse_stream, "bybit", frames_of("bybit")["stream"][1], Instrument("BTC", "BTCUSDT")),
        (okx.parse_stream, "okx", frames_of("okx")["stream"][2], Instrument("BTC", "BTC-USDT-SWAP", 1, 0.01)),
        (
            gate.SOURCE.event_feeds[0].parse,
            "gate",
            frames_of("gate")["routes"]["/api/v4/futures/usdt/liq_orders"],
            Instrument("BTC", "BTC_USDT", 1, 0.0001),
        ),
        (deribit.parse_stream, "deribit", frames_of("deribit")["stream"][2], Instrument("BTC", "BTC-PERPETUAL")),
        (
            bitget.SOURCE.event_feeds[0].parse,
            "bitget",
            frames_of("bitget")["routes"]["/api/v3/market/liquidations"],
            Instrument("BTC", "BTCUSDT"),
        ),
        (
            kraken_futures.parse_stream,
            "kraken_futures",
            frames_of("kraken_futures")["stream"][4],
            Instrument("BTC", "PF_XBTUSD"),
        ),
        (
            dydx.SOURCE.event_feeds[0].parse,
            "dydx",
            frames_of("dydx")["routes"]["/v4/trades/perpetualMarket/BTC-USD"],
            Instrument("BTC", "BTC-USD"),
        ),
        (
            htx.SOURCE.event_feeds[0].parse,
            "htx",
            frames_of("htx")["routes"]["/v5/market/liquidation_orders"],
            Instrument("BTC", "BTC-USDT", 1, 0.001),
        ),
        (bitget.parse_stream, "bitget", frames_of("bitget")["stream"][1], Instrument("BTC", "BTCUSDT")),
        (dydx.parse_stream, "dydx", frames_of("dydx")["stream"][1], Instrument("BTC", "BTC-USD")),
        (htx.parse_stream, "htx", frames_of("htx")["stream"][1], Instrument("BTC", "BTC-USDT", 1, 0.001)),
        (gate.parse_stream, "gate", frames_of("gate")["stream"][1], Instrument("BTC", "BTC_USDT", 1, 0.0001)),
    ],
    ids=[
        "binance",
        "bybit",
        "okx",
        "gate",
        "deribit",
        "bitget",
        "kraken_futures",
        "dydx",
        "htx",
        "bitget-streamed",
        "dydx-streamed",
        "htx-streamed",
        "gate-streamed",
    ],
)
def test_a_side_nobody_documented_is_a_problem_and_no_row(
    parse: Any, venue: str, message: Any, instrument: Instrument
) -> None:
    text = msgspec.json.encode(message).decode()
    for known in ('"SELL"', '"BUY"', '"Buy"', '"sell"', '"buy"', '"long"', '"short"'):
        text = text.replace(known, '"sideways"')
    # Gate tells the side by the sign of `size`, which cannot be undocumented: a missing one takes its place.
    text = text.replace('"size":', '"sighs":')
    found = reading(venue, instrument)
    found.instrument = instrument
    parse(msgspec.json.decode(text), found)
    assert found.problems
    assert found.records == []


def test_htx_sizes_that_contradict_their_turnover_are_a_problem_and_no_row() -> None:
    """A venue that changed the size of its contracts would be wrong by a power of ten in every sum."""
    found = reading("htx", Instrument("BTC", "BTC-USDT", 1, 0.01))
    htx.SOURCE.event_feeds[0].parse(frames_of("htx")["routes"]["/v5/market/liquidation_orders"], found)
    assert found.records == []
    assert len(found.problems) == 2
    assert "are no turnover of 137" in found.problems[0]


def test_a_full_page_of_dydx_trades_says_how_far_back_it_reaches() -> None:
    """Trades crowd liquidations out of the list: what lies before its oldest row has not been read."""
    now = datetime.now(UTC)
    trade = {"id": "a", "side": "SELL", "size": "1", "price": "68000", "type": "LIMIT", "createdAtHeight": "1"}
    trades = [
        trade | {"createdAt": (now - timedelta(seconds=second)).isoformat()} for second in range(dydx.TRADES_AT_ONCE)
    ]
    for page, reach in ((trades, now - timedelta(seconds=dydx.TRADES_AT_ONCE - 1)), (trades[1:], None)):
        found = reading("dydx", Instrument("BTC", "BTC-USD"))
        found.instrument = Instrument("BTC", "BTC-USD")
        dydx.SOURCE.event_feeds[0].parse({"trades": page}, found)
        assert (found.records, found.problems, found.reaches_back_to) == ([], [], reach)
