"""Backfills from a local archive through real Kafka into the tables: by value, once, resumable, corrections noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.records import FundingRate
from liq_pipeline.errors import LiqError
from liq_pipeline.pipeline.backfill import BackfillResult, Progress, backfill
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.archives import binance
from liq_pipeline.sources.archives.binance import FUNDING, METRICS, PRICES
from liq_pipeline.sources.archives.catalogue import open_source
from liq_pipeline_tests.archive_support import (
    kline_lines,
    metrics_lines,
    open_interest_at,
    price_at,
    publish,
    serve_market,
    start_of,
    withdraw,
)
from liq_pipeline_tests.live_support import Reply, VenueServer, land_everything, rows, venue_server, wait_until

DAY = date(2024, 6, 1)
START = start_of(DAY)
ONE_DAY = timedelta(days=1)
NOW = datetime(2024, 6, 20, tzinfo=UTC)
PER_DAY = 288 * (1 + 4 + 1)
"""Open interest, four ratios, a price."""
FUNDING_ROWS = 90
TABLES = ("prices", "open_interest", "long_short_ratio", "funding_rates")


class Bench:
    """A database, a Kafka prefix and an archive of three days of BTC and ETH."""

    def __init__(self, database_url: str, kafka: str, prefix: str, settings: Settings, server: VenueServer) -> None:
        self.database_url, self.kafka, self.prefix = database_url, kafka, prefix
        self.settings, self.server = settings, server

    def run(self, days: int = 1, symbols: tuple[str, ...] = ("BTC",), first: int = 0, **options: Any) -> BackfillResult:
        with open_source(options.pop("source", binance.NAME), self.settings, self.database_url, symbols) as source:
            return backfill(
                self.database_url, self.kafka, self.settings, source, symbols,
                START + first * ONE_DAY, START + (first + days) * ONE_DAY, wall_now=lambda: NOW, **options,
            )  # fmt: skip

    def counts(self) -> dict[str, int]:
        with psycopg.connect(self.database_url) as conn:
            return {
                table: conn.execute(f"SELECT count(*) FROM {table} WHERE world = 'real'").fetchone()[0]  # type: ignore[index] # noqa: S608
                for table in TABLES
            }

    def downloads(self) -> list[str]:
        return [asked.path for asked in self.server.asked if asked.path.endswith(".zip")]


@pytest.fixture
def bench(
    database_url: str, kafka_server: str, topic_prefix: str, settings: Callable[..., Settings]
) -> Iterator[Bench]:
    with venue_server("binance") as server:
        server.serve(binance.NAME, {})
        serve_market(server, ["BTC", "ETH"], DAY, DAY + 2 * ONE_DAY)
        chosen = settings(
            symbols=("BTC", "ETH"),
            kafka_topic_prefix=topic_prefix,
            sources=SourceSettings(urls=server.urls(), request_seconds=5),
        )
        yield Bench(database_url, kafka_server, topic_prefix, chosen, server)


def test_a_day_lands_by_value(bench: Bench) -> None:
    result = bench.run()
    assert (result.pieces, result.loaded, result.problems, result.is_clean) == (3, 3, [], True)
    assert (result.rows, result.rows_sent) == (PER_DAY + FUNDING_ROWS, PER_DAY + FUNDING_ROWS)
    assert bench.counts() == {"prices": 288, "open_interest": 288, "long_short_ratio": 1152, "funding_rates": 90}
    noon = START + timedelta(hours=12)
    (found,) = rows(
        bench.database_url,
        "SELECT o.*, p.price_usd FROM open_interest o JOIN prices p USING (world, symbol, venue, event_time)"
        " WHERE event_time = %s",
        noon,
    )
    assert (found["origin"], found["venue"], found["symbol"]) == ("archive", "binance", "BTC")
    assert found["open_interest_base"] == open_interest_at("BTC", noon)
    assert found["price_usd"] == price_at("BTC", noon)
    assert found["known_at"] == noon + timedelta(minutes=5)
    (ledger,) = rows(bench.database_url, "SELECT * FROM archive_files WHERE series = 'metrics'")
    assert (ledger["path"], ledger["symbol"]) == (METRICS.path("BTCUSDT", START), "BTC")
    assert (ledger["rows"], ledger["rows_sent"]) == (288 * 5, 288 * 5)
    assert ledger["fetched_at"] <= ledger["landed_at"]


def test_the_same_again_downloads_nothing_and_a_longer_range_only_the_rest(bench: Bench) -> None:
    bench.run()
    bench.server.asked.clear()
    again = bench.run()
    assert (again.loaded, again.unchanged, again.rows_sent) == (0, 3, 0)
    assert bench.downloads() == []
    longer = bench.run(days=2)
    assert (longer.loaded, longer.unchanged) == (2, 3)
    assert longer.rows_sent == PER_DAY
    assert rows(bench.database_url, "SELECT * FROM row_conflicts") == []


def test_the_order_in_which_ranges_are_loaded_changes_nothing(
    bench: Bench, new_database_url: Callable[[], str]
) -> None:
    """A later day first, then the earlier one, then all of it: the same rows as in one go."""
    select = "SELECT symbol, event_time, known_at, open_interest_base FROM open_interest ORDER BY 1, 2"
    bench.run(first=2)
    bench.run(first=0, days=2)
    bench.run(days=3)
    whole = Bench(new_database_url(), bench.kafka, bench.prefix, bench.settings, bench.server)
    whole.run(days=3)
    assert rows(bench.database_url, select) == rows(whole.database_url, select)
    assert len(rows(whole.database_url, select)) == 3 * 288


def test_a_corrected_file_replaces_its_rows_and_the_old_values_are_kept_for_the_record(bench: Bench) -> None:
    bench.run()
    path = METRICS.path("BTCUSDT", START)
    lines = metrics_lines("BTC", DAY)
    stamp, native, _, usd, *ratios = lines[13].split(",")
    lines[13] = ",".join((stamp, native, "77000.0", usd, *ratios))
    publish(bench.server, path, lines)
    result = bench.run()
    assert (result.loaded, result.corrected, result.unchanged, result.rows_sent) == (1, 1, 2, 1)
    moment = datetime.fromisoformat(stamp).replace(tzinfo=UTC)
    (row,) = rows(bench.database_url, "SELECT * FROM open_interest WHERE event_time = %s", moment)
    assert row["open_interest_base"] == 77_000.0
    (conflict,) = rows(bench.database_url, "SELECT * FROM row_conflicts")
    assert (conflict["resolution"], conflict["table_name"]) == ("archive_replaced", "open_interest")
    assert conflict["other"]["open_interest_base"] == open_interest_at("BTC", moment)
    versions = rows(bench.database_url, "SELECT * FROM archive_files WHERE path = %s ORDER BY landed_at", path)
    assert [version["rows_sent"] for version in versions] == [288 * 5, 1]
    bench.server.asked.clear()
    assert bench.run().unchanged == 3


def test_what_was_seen_live_stays_and_a_disagreement_is_counted(bench: Bench) -> None:
    """Scores and alerts stand on the live row; an archive that says otherwise does not rewrite them."""
    moment = START + timedelta(hours=8)
    common: dict[str, Any] = {
        "schema_version": 1, "event_time": moment, "received_at": moment + timedelta(seconds=3), "origin": "live",
        "world": "real", "venue": "binance", "symbol": "BTC",
    }  # fmt: skip
    with RecordProducer(bench.kafka, bench.prefix) as producer:
        producer.send(FundingRate(**common, kind="settled", rate=0.0009, interval_hours=8, mark_price_usd=60_000.0))
        producer.flush()
    land_everything(bench.database_url, bench.kafka, bench.prefix)
    result = bench.run()
    assert (result.rows_stored_before, result.rows_differing) == (1, 1)
    (row,) = rows(bench.database_url, "SELECT * FROM funding_rates WHERE event_time = %s", moment)
    assert (row["origin"], row["rate"], row["mark_price_usd"]) == ("live", 0.0009, 60_000.0)
    assert rows(bench.database_url, "SELECT * FROM row_conflicts") == []


def test_a_wrong_checksum_lands_nothing_of_that_file_and_all_of_the_others(bench: Bench) -> None:
    publish(bench.server, METRICS.path("BTCUSDT", START), metrics_lines("BTC", DAY), checksum="ab" * 32)
    result = bench.run()
    assert not result.is_clean
    (sentence,) = result.problems
    assert "BTCUSDT-metrics-2024-06-01.zip does not match its checksum" in sentence
    assert bench.counts() == {"prices": 288, "open_interest": 0, "long_short_ratio": 0, "funding_rates": 90}
    assert rows(bench.database_url, "SELECT * FROM archive_files WHERE series = 'metrics'") == []
    publish(bench.server, METRICS.path("BTCUSDT", START), metrics_lines("BTC", DAY))
    assert bench.run().is_clean
    assert bench.counts()["open_interest"] == 288


def test_a_missing_symbol_is_named_and_costs_the_others_nothing(bench: Bench) -> None:
    result = bench.run(symbols=("NOSUCH", "BTC"))
    assert (result.empty_symbols, result.is_clean) == (("NOSUCH",), False)
    assert bench.counts()["open_interest"] == 288
    assert rows(bench.database_url, "SELECT * FROM ingest_gaps") == []


def test_a_day_the_archive_has_lost_is_a_gap_said_once(bench: Bench) -> None:
    withdraw(bench.server, METRICS.path("BTCUSDT", START + ONE_DAY))
    assert bench.run(days=3).absent == 1
    bench.run(days=3)
    (gap,) = rows(bench.database_url, "SELECT * FROM ingest_gaps")
    assert (gap["source"], gap["symbol"], gap["is_permanent"]) == ("binance_archive metrics", "BTC", True)
    assert (gap["from_time"], gap["to_time"]) == (START + ONE_DAY, START + 2 * ONE_DAY)


def test_days_not_published_yet_are_no_problem(bench: Bench) -> None:
    with open_source(binance.NAME, bench.settings, bench.database_url, ("BTC",)) as source:
        result = backfill(
            bench.database_url, bench.kafka, bench.settings, source, ("BTC",), START + 2 * ONE_DAY,
            START + 4 * ONE_DAY, wall_now=lambda: START + 4 * ONE_DAY,
        )  # fmt: skip
    assert (result.loaded, result.not_yet, result.is_clean) == (3, 2, True)


def test_a_source_that_goes_away_stops_it_and_the_same_call_goes_on(bench: Bench) -> None:
    limit = METRICS.path("BTCUSDT", START + 2 * ONE_DAY)
    bench.server.fault = lambda _s, path, _q: Reply(status=451) if path.startswith(limit) else None
    with pytest.raises(LiqError, match="451"):
        bench.run(days=3)
    bench.server.fault = None
    assert bench.counts()["open_interest"] == 2 * 288  # what had been read before is there
    bench.server.asked.clear()
    assert bench.run(days=3).is_clean
    assert len(bench.downloads()) == 2
    assert bench.counts() == {"prices": 864, "open_interest": 864, "long_short_ratio": 3456, "funding_rates": 90}


def test_killed_anywhere_it_goes_on_and_no_row_comes_twice(bench: Bench, tmp_path: Path) -> None:
    """kill -9 while it runs as a command, several times, each time a little later; then to the end."""
    environment = {
        **os.environ,
        "LIQ_HOME": str(tmp_path),
        "LIQ_DATABASE_URL": bench.database_url,
        "LIQ_KAFKA_BOOTSTRAP_SERVERS": bench.kafka,
        "LIQ_KAFKA_TOPIC_PREFIX": bench.prefix,
        "LIQ_BINANCE_ARCHIVE_URL": bench.server.url(binance.NAME),
    }
    command = [
        sys.executable, "-m", "liq_pipeline.cli", "backfill", "--source", binance.NAME, "--symbol", "BTC", "--symbol",
        "ETH", "--from", START.isoformat(), "--to", (START + 3 * ONE_DAY).isoformat(),
    ]  # fmt: skip
    for downloads in (3, 7):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: len(bench.downloads()) >= downloads, 60, "nothing was downloaded")  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    assert bench.counts() == {"prices": 1728, "open_interest": 1728, "long_short_ratio": 6912, "funding_rates": 180}
    assert rows(bench.database_url, "SELECT * FROM row_conflicts") == []
    assert len(rows(bench.database_url, "SELECT * FROM archive_files")) == 14
    bench.server.asked.clear()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "0 pieces loaded, 14 were loaded before, of 14" in again.stdout
    assert bench.downloads() == []


def test_told_to_stop_it_ends_with_what_it_has(bench: Bench) -> None:
    stop = threading.Event()

    def after_three(progress: Progress) -> None:
        if progress.done == 3:
            stop.set()

    result = bench.run(days=3, stop=stop, progress=after_three)
    assert result.was_stopped
    assert len(rows(bench.database_url, "SELECT * FROM archive_files")) == 3
    assert bench.run(days=3).unchanged == 3


class TestCommand:
    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "liq_pipeline.cli", "backfill", *arguments],
            env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def test_a_source_nobody_knows_is_one_sentence(self, database_url: str) -> None:
        done = self.run(
            "--source", "mtgox", "--from", "2024-06-01", "--to", "2024-06-02",
            LIQ_DATABASE_URL=database_url, LIQ_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
        )  # fmt: skip
        assert done.returncode == 2
        assert "there is no history from 'mtgox'; there is from binance_archive, " in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_wrong_range_is_one_sentence(self, bench: Bench) -> None:
        done = self.run(
            "--source", binance.NAME, "--from", "2024-06-02", "--to", "2024-06-01",
            LIQ_DATABASE_URL=bench.database_url, LIQ_KAFKA_BOOTSTRAP_SERVERS=bench.kafka,
        )  # fmt: skip
        assert done.returncode == 2
        assert "does not lie after --from" in done.stderr


STEP_MS = 300_000


def test_a_venues_rest_history_lands_in_pages_that_are_loaded_once(bench: Bench) -> None:
    def answer(source: str, path: str, query: dict[str, str]) -> Reply | None:
        if source != "binance" or "startTime" not in query:
            return None
        first, last = int(query["startTime"]), int(query["endTime"])
        if path == "/futures/data/openInterestHist":
            return Reply(
                [
                    {"sumOpenInterest": "5.0", "sumOpenInterestValue": "300000", "timestamp": t}
                    for t in range(-(-first // STEP_MS) * STEP_MS, last + 1, STEP_MS)
                ]
            )
        return Reply([])

    bench.server.fault = answer
    result = bench.run(source="binance")
    assert result.problems == []
    found = rows(bench.database_url, "SELECT min(event_time), max(event_time), count(*) FROM open_interest")[0]
    # Whole pages of 490 steps: the range is widened to them.
    assert found["min"] <= START
    assert found["max"] >= START + ONE_DAY
    assert found["count"] % 490 in (0, 1)
    bench.server.asked.clear()
    again = bench.run(source="binance")
    assert again.rows_sent == 0
    assert not any("openInterestHist" in asked.path for asked in bench.server.asked)


def test_coingeckos_ranges_bring_prices_with_volume_and_capitalisation(bench: Bench) -> None:
    stamp = int((START + timedelta(hours=3)).timestamp() * 1000) + 417  # on no grid, as it serves them

    def answer(source: str, path: str, query: dict[str, str]) -> Reply | None:
        if source != "coingecko" or not path.endswith("/bitcoin/market_chart/range"):
            return None
        inside = int(query["from"]) <= stamp / 1000 < int(query["to"])
        values = {"prices": 61_000.5, "market_caps": 0.0, "total_volumes": 2.5e10}
        return Reply({name: [[stamp, value]] if inside else [] for name, value in values.items()})

    bench.server.serve("coingecko")
    bench.settings.sources.urls["coingecko"] = bench.server.url("coingecko")
    bench.server.fault = answer
    assert bench.run(source="coingecko").problems == []
    (row,) = rows(bench.database_url, "SELECT * FROM prices")
    assert (row["venue"], row["price_usd"], row["volume_24h_usd"]) == ("coingecko", 61_000.5, 2.5e10)
    assert row["market_cap_usd"] is None  # 0 is its word for unknown
    assert row["known_at"] - row["event_time"] == timedelta(minutes=30)


def test_rows_a_venue_gave_before_are_not_replaced_by_the_archives_rounding(bench: Bench) -> None:
    bench.server.fault = lambda source, path, query: (
        Reply([{"longAccount": "0.6", "shortAccount": "0.4", "timestamp": int(START.timestamp() * 1000)}])
        if source == "binance" and path.endswith("globalLongShortAccountRatio")
        else Reply([])
        if source == "binance" and "startTime" in query
        else None
    )
    bench.run(source="binance")
    assert bench.run().rows_stored_before == 1
    (row,) = rows(
        bench.database_url, "SELECT * FROM long_short_ratio WHERE kind = 'accounts' AND event_time = %s", START
    )
    assert row["long_share"] == 0.6
    assert rows(bench.database_url, "SELECT * FROM row_conflicts") == []


def test_microsecond_candles_and_funding_land_like_the_others(bench: Bench) -> None:
    publish(bench.server, PRICES.path("BTCUSDT", START), kline_lines("BTC", DAY, unit="us"))
    publish(bench.server, FUNDING.path("BTCUSDT", START), [f"{int(START.timestamp() * 1e6)},4,0.0001"])
    bench.run()
    (rate,) = rows(bench.database_url, "SELECT * FROM funding_rates")
    assert (rate["event_time"], rate["interval_hours"], rate["rate_per_8h"]) == (START, 4.0, 0.0002)
    assert bench.counts()["prices"] == 288
