"""Binance's archive over a socket: every quirk of its files by value, and nothing that its checksum does not cover."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from liq_pipeline.domain.records import FundingRate, LongShortRatio, OpenInterest, Price
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.access.http import BadAnswerError, RejectedError, TransientError
from liq_pipeline.sources.archives import binance
from liq_pipeline.sources.archives.binance import FUNDING, METRICS, PRICES, BinanceArchive
from liq_pipeline.sources.archives.day import open_day
from liq_pipeline.sources.archives.files import WrongChecksumError
from liq_pipeline.sources.archives.pieces import Absent, Content, Piece
from liq_pipeline_tests.archive_support import (
    BAR,
    funding_lines,
    kline_lines,
    metrics_lines,
    price_at,
    publish,
    serve_market,
    served_archive,
    start_of,
)
from liq_pipeline_tests.live_support import Reply, VenueServer

DAY = date(2024, 6, 1)
START = start_of(DAY)
NOW = datetime(2024, 6, 20, tzinfo=UTC)
METRICS_PATH = METRICS.path("BTCUSDT", START)
MakeSettings = Callable[..., Settings]


@pytest.fixture
def both() -> Iterator[tuple[VenueServer, BinanceArchive]]:
    with served_archive() as served_and_read:
        yield served_and_read


@pytest.fixture
def server(both: tuple[VenueServer, BinanceArchive]) -> VenueServer:
    return both[0]


@pytest.fixture
def archive(both: tuple[VenueServer, BinanceArchive]) -> BinanceArchive:
    return both[1]


def piece_of(kind: binance.Kind, symbol: str = "BTC", first: datetime = START) -> Piece:
    days = 30 if kind.is_monthly else 1
    path = kind.path(f"{symbol}USDT", first)
    return Piece(binance.NAME, kind.name, symbol, first, first + timedelta(days=days), path)


def read(archive: BinanceArchive, kind: binance.Kind, symbol: str = "BTC", known: str | None = None) -> Content:
    content = archive.read(piece_of(kind, symbol), lambda _path: known, NOW)
    assert isinstance(content, Content)
    return content


def test_metrics_bring_open_interest_in_coins_and_usd_and_four_ratios(
    server: VenueServer, archive: BinanceArchive
) -> None:
    line = "2024-06-01 00:05:00,BTCUSDT,75000.5,5100034000.0,1.5,1.25,2.0,0.8"
    publish(server, METRICS_PATH, [",".join(binance.METRICS_COLUMNS), line])
    content = read(archive, METRICS)
    interest = next(record for record in content.records if isinstance(record, OpenInterest))
    assert (interest.open_interest_base, interest.open_interest_usd) == (75_000.5, 5_100_034_000.0)
    assert (interest.event_time, interest.known_at) == (START + BAR, START + 2 * BAR)
    assert (interest.venue, interest.origin, interest.symbol) == ("binance", "archive", "BTC")
    ratios = {record.kind: record for record in content.records if isinstance(record, LongShortRatio)}
    assert {kind: record.ratio for kind, record in ratios.items()} == {
        "accounts": 2.0,
        "top_accounts": 1.5,
        "top_positions": 1.25,
        "taker": 0.8,
    }
    assert ratios["accounts"].long_share == pytest.approx(2 / 3)
    assert (content.problems, content.doubled, content.unknown_cells) == ([], 0, 0)


def test_an_old_file_without_a_header_says_the_same(server: VenueServer, archive: BinanceArchive) -> None:
    publish(server, METRICS_PATH, metrics_lines("BTC", DAY))
    with_header = read(archive, METRICS).records
    publish(server, METRICS_PATH, metrics_lines("BTC", DAY, header=False))
    assert read(archive, METRICS).records == with_header
    assert len(with_header) == 288 * 5


def test_empty_and_zero_cells_are_unknown_not_zero(server: VenueServer, archive: BinanceArchive) -> None:
    lines = [
        "2024-06-01 00:00:00,BTCUSDT,0.00000000,0.00000000,,0,1.5,NaN",
        "2024-06-01 00:05:00,BTCUSDT,100.0,,,,,",
        "2024-06-01 00:10:00,BTCUSDT,,,,,,",
    ]
    publish(server, METRICS_PATH, lines)
    content = read(archive, METRICS)
    assert [type(record).__name__ for record in content.records] == ["LongShortRatio", "OpenInterest"]
    interest = content.records[1]
    assert isinstance(interest, OpenInterest)
    assert (interest.open_interest_base, interest.open_interest_usd) == (100.0, None)
    assert content.unknown_cells == 5 + 5 + 6
    assert content.problems == []


def test_doubled_rows_count_once_and_rows_that_disagree_both_go_on(
    server: VenueServer, archive: BinanceArchive
) -> None:
    """Landing decides between two versions, where the loser is kept for the record."""
    line = "2024-06-01 00:05:00,BTCUSDT,100.0,5000.0,,,,"
    publish(server, METRICS_PATH, [line, line, line.replace("100.0", "101.0")])
    content = read(archive, METRICS)
    assert [r.open_interest_base for r in content.records if isinstance(r, OpenInterest)] == [100.0, 101.0]
    assert content.doubled == 1


def test_a_row_of_another_symbol_or_of_nonsense_is_a_problem_and_costs_no_other_row(
    server: VenueServer, archive: BinanceArchive
) -> None:
    good = "2024-06-01 00:05:00,BTCUSDT,100.0,5000.0,,,,"
    publish(server, METRICS_PATH, [good.replace("BTC", "ETH"), "yesterday,BTCUSDT,1,2,3,4,5,6", good])
    content = read(archive, METRICS)
    assert len(content.records) == 1
    assert len(content.problems) == 2


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_candles_in_milliseconds_or_microseconds_are_prices_at_the_bars_end(
    server: VenueServer, archive: BinanceArchive, unit: str
) -> None:
    publish(server, PRICES.path("BTCUSDT", START), kline_lines("BTC", DAY, unit=unit, header=unit == "us"))
    prices = read(archive, PRICES).records
    assert len(prices) == 288
    first = prices[0]
    assert isinstance(first, Price)
    assert (first.event_time, first.price_usd) == (START + BAR, price_at("BTC", START + BAR))
    assert first.known_at == first.event_time + timedelta(seconds=5)
    assert all(b.event_time - a.event_time == BAR for a, b in pairwise(prices))


def test_without_mark_candles_the_days_trades_serve(server: VenueServer, archive: BinanceArchive) -> None:
    publish(server, PRICES.path("BTCUSDT", START, kind="klines"), kline_lines("BTC", DAY))
    content = read(archive, PRICES)
    assert len(content.records) == 288
    assert "/klines/" in content.path


def test_funding_has_the_interval_in_force_and_full_seconds(server: VenueServer, archive: BinanceArchive) -> None:
    lines = [*funding_lines(DAY, hours=8)[:4], f"{int((START + timedelta(hours=20)).timestamp() * 1000)},4,-0.00020000"]
    publish(server, FUNDING.path("BTCUSDT", START), lines)
    rates = [record for record in read(archive, FUNDING).records if isinstance(record, FundingRate)]
    assert [(rate.event_time - START, rate.interval_hours) for rate in rates] == [
        (timedelta(hours=hours), interval) for hours, interval in ((0, 8.0), (8, 8.0), (16, 8.0), (20, 4.0))
    ]
    assert (rates[-1].rate, rates[-1].rate_per_8h, rates[-1].kind) == (-0.0002, -0.0004, "settled")
    assert rates[-1].known_at == rates[-1].event_time + timedelta(minutes=1)


def test_an_interval_that_is_not_told_comes_from_the_settlements_around(
    server: VenueServer, archive: BinanceArchive
) -> None:
    stamps = [int((START + timedelta(hours=hours)).timestamp() * 1000) for hours in (0, 4, 8)]
    publish(server, FUNDING.path("BTCUSDT", START), [f"{stamp},0,0.0001" for stamp in stamps])
    content = read(archive, FUNDING)
    assert [record.interval_hours for record in content.records if isinstance(record, FundingRate)] == [4.0, 4.0]
    assert content.problems == ["BTCUSDT: the funding interval is not known yet"]  # the first has none before it


def test_a_coin_listed_by_the_thousand_is_counted_in_coins(server: VenueServer, archive: BinanceArchive) -> None:
    line = "2024-06-01 00:05:00,1000PEPEUSDT,5000.0,60000.0,,,,"
    publish(server, METRICS.path("1000PEPEUSDT", START), [line])
    publish(server, PRICES.path("1000PEPEUSDT", START), kline_lines("PEPE", DAY, scale=1000.0))
    (interest,) = read(archive, METRICS, "PEPE").records
    assert isinstance(interest, OpenInterest)
    assert (interest.open_interest_base, interest.open_interest_usd) == (5_000_000.0, 60_000.0)
    first = read(archive, PRICES, "PEPE").records[0]
    assert isinstance(first, Price)
    assert first.price_usd == pytest.approx(price_at("PEPE", START + BAR))
    asked = [request.path for request in server.asked]
    assert not any("/PEPEUSDT/" in path for path in asked[asked.index(METRICS.path("1000PEPEUSDT", START)) :])


def test_a_day_not_yet_published_is_not_yet_and_an_old_one_is_missing(archive: BinanceArchive) -> None:
    piece = piece_of(METRICS)
    never = lambda _path: None  # noqa: E731
    assert archive.read(piece, never, START + timedelta(days=2)) == Absent(is_expected=True)
    assert archive.read(piece, never, START + timedelta(days=9)) == Absent(is_expected=False)


def test_a_file_that_was_loaded_before_costs_one_small_request(server: VenueServer, archive: BinanceArchive) -> None:
    checksum = publish(server, METRICS_PATH, metrics_lines("BTC", DAY))
    server.asked.clear()
    assert archive.read(piece_of(METRICS), lambda _path: checksum, NOW) is None
    assert [asked.path for asked in server.asked] == [f"{METRICS_PATH}.CHECKSUM"]
    corrected = publish(server, METRICS_PATH, metrics_lines("BTC", DAY)[:-1])
    content = read(archive, METRICS, known=checksum)
    assert (content.checksum, len(content.records)) == (corrected, 287 * 5)


class TestRefusals:
    def test_a_wrong_checksum_is_refused_in_one_sentence(self, server: VenueServer, archive: BinanceArchive) -> None:
        publish(server, METRICS_PATH, metrics_lines("BTC", DAY), checksum="0" * 64)
        with pytest.raises(WrongChecksumError, match="does not match its checksum") as caught:
            read(archive, METRICS)
        assert "BTCUSDT-metrics-2024-06-01.zip" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_file_replaced_between_checksum_and_download_is_asked_for_again(
        self, server: VenueServer, archive: BinanceArchive
    ) -> None:
        publish(server, METRICS_PATH, metrics_lines("BTC", DAY))
        seen: list[str] = []

        def old_checksum_once(_source: str, path: str, _query: dict[str, str]) -> Reply | None:
            seen.append(path)
            return Reply(f"{'a' * 64}  x.zip".encode()) if len(seen) == 1 else None

        server.fault = old_checksum_once
        assert len(read(archive, METRICS).records) == 288 * 5
        assert len(seen) == 4

    def test_a_body_cut_short_or_a_busy_server_is_asked_again(
        self, server: VenueServer, archive: BinanceArchive
    ) -> None:
        publish(server, METRICS_PATH, metrics_lines("BTC", DAY))
        replies = [Reply(status=503), None, Reply(b"PK" * 400, cut_after=100), Reply(reset=True)]
        server.fault = lambda *_: replies.pop(0) if replies else None
        assert len(read(archive, METRICS).records) == 288 * 5

    def test_a_server_that_stays_down_is_said(self, server: VenueServer, archive: BinanceArchive) -> None:
        server.fault = lambda *_: Reply(status=500)
        with pytest.raises(TransientError, match="HTTP 500"):
            read(archive, METRICS)

    def test_what_is_no_zip_though_its_checksum_fits(self, server: VenueServer, archive: BinanceArchive) -> None:
        body = b"PK\x03\x04 not really"
        publish(server, METRICS_PATH, [], body=body, checksum=hashlib.sha256(body).hexdigest())
        with pytest.raises(BadAnswerError, match="cannot be unpacked"):
            read(archive, METRICS)

    def test_a_zip_that_unpacks_without_end_is_refused_at_a_bound_whatever_it_declares(
        self, server: VenueServer, archive: BinanceArchive
    ) -> None:
        honest = io.BytesIO()
        with zipfile.ZipFile(honest, "w", zipfile.ZIP_DEFLATED) as file, file.open("x.csv", "w") as member:
            for _ in range(5):
                member.write(b"0" * 2**24)
        size = (5 * 2**24).to_bytes(4, "little")
        assert honest.getvalue().count(size) == 2
        lying = honest.getvalue().replace(size, (100).to_bytes(4, "little"))
        for body in (honest.getvalue(), lying):
            publish(server, METRICS_PATH, [], body=body)
            with pytest.raises(BadAnswerError, match="unpack"):
                read(archive, METRICS)

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_zip_that_python_would_unpack_unbounded_is_not_opened(
        self, server: VenueServer, archive: BinanceArchive, method: int
    ) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as file:
            file.writestr("x.csv", "\n".join(metrics_lines("BTC", DAY)))
        publish(server, METRICS_PATH, [], body=buffer.getvalue())
        with pytest.raises(BadAnswerError, match="packed in an unusual way"):
            read(archive, METRICS)

    def test_a_field_longer_than_csv_reads_is_said_in_one_sentence(
        self, server: VenueServer, archive: BinanceArchive
    ) -> None:
        publish(server, METRICS_PATH, [f"2024-06-01 00:05:00,BTCUSDT,{'1' * 200_000},5000.0,,,,"])
        with pytest.raises(BadAnswerError, match="field larger than field limit"):
            read(archive, METRICS)

    def test_rows_of_another_day_are_not_taken_and_said(self, server: VenueServer, archive: BinanceArchive) -> None:
        """Another day's rows would stand in the way of what that day's own file says."""
        other = DAY + timedelta(days=3)
        publish(server, METRICS_PATH, [*metrics_lines("BTC", DAY), *metrics_lines("BTC", other, header=False)[:2]])
        content = read(archive, METRICS)
        assert {record.event_time.date() for record in content.records} == {DAY}
        assert content.problems == [
            "10 of 1450 values are of another time than the file's own 2024-06-01 (2024-06-04 00:00 to 2024-06-04 00:05"
            " UTC): they were not used"
        ]
        publish(server, PRICES.path("BTCUSDT", START), kline_lines("BTC", other))
        content = read(archive, PRICES)
        assert (content.records, len(content.problems)) == ([], 1)
        publish(server, FUNDING.path("BTCUSDT", START), funding_lines(date(2024, 8, 1)))
        content = read(archive, FUNDING)
        assert (content.records, len(content.problems)) == ([], 1)

    def test_the_last_moment_of_a_day_belongs_to_its_file(self, server: VenueServer, archive: BinanceArchive) -> None:
        """Candles close there, and metrics have been stamped 00:05 to 24:00."""
        publish(server, METRICS_PATH, [f"{START + timedelta(days=1):%Y-%m-%d %H:%M:%S},BTCUSDT,100.0,5000.0,,,,"])
        content = read(archive, METRICS)
        assert (len(content.records), content.problems) == (1, [])

    def test_a_page_instead_of_a_file(self, server: VenueServer, archive: BinanceArchive) -> None:
        publish(server, METRICS_PATH, [], body=b"<html>a portal</html>")
        with pytest.raises(BadAnswerError, match="HTML"):
            read(archive, METRICS)


class TestOneDayAsAWorld:
    LOOK_BACK = timedelta(days=2)

    def test_the_look_back_comes_first_and_the_day_in_grid_steps(
        self, server: VenueServer, settings: MakeSettings
    ) -> None:
        serve_market(server, ["BTC", "ETH"], DAY, DAY + timedelta(days=2))
        chosen = settings(sources=SourceSettings(urls=server.urls()))
        day = open_day(chosen, DAY + timedelta(days=2), ("BTC", "ETH"), look_back=self.LOOK_BACK, now=NOW)
        assert (day.symbols, day.missing, day.problems) == (("BTC", "ETH"), [], [])
        assert (day.world.first_time, day.world.last_time) == (START + 2 * timedelta(days=1), START + timedelta(days=3))
        known = [record.known for record in day.records()]
        assert known == sorted(known)
        assert len(known) == day.records_total
        assert {record.world for record in day.records()} == {day.world.name}
        assert {record.origin for record in day.records()} == {"recorded"}
        steps = list(day.steps(None))
        assert sum(len(step.messages) for step in steps) == day.records_total
        first_complete = next(number for number, step in enumerate(steps) if step.is_complete)
        assert steps[first_complete].time == day.world.first_time
        assert {step.time for step in steps[:first_complete]} == {day.world.first_time}
        assert len(steps) - first_complete - 1 == 24 * 60
        assert list(day.steps(day.world.first_time)) == steps[first_complete + 1 :]

    def test_the_same_day_again_needs_no_network(self, server: VenueServer, settings: MakeSettings) -> None:
        serve_market(server, ["BTC"], DAY, DAY)
        chosen = settings(sources=SourceSettings(urls=server.urls()))
        online = list(open_day(chosen, DAY, ("BTC",), look_back=timedelta(0), now=NOW).records())
        server.fault = lambda *_: Reply(reset=True)
        assert list(open_day(chosen, DAY, ("BTC",), look_back=timedelta(0), now=NOW).records()) == online

    def test_a_symbol_the_archive_has_not_is_named_and_the_others_are_played(
        self, server: VenueServer, settings: MakeSettings
    ) -> None:
        serve_market(server, ["BTC"], DAY, DAY)
        chosen = settings(sources=SourceSettings(urls=server.urls()))
        day = open_day(chosen, DAY, ("BTC", "NOSUCH"), look_back=timedelta(0), now=NOW)
        assert day.symbols == ("BTC",)
        assert any(sentence.startswith("NOSUCH: the archive has no metrics") for sentence in day.missing)
        with pytest.raises(RejectedError, match="there is nothing of NOSUCH on 2024-06-01"):
            open_day(chosen, DAY, ("NOSUCH",), look_back=timedelta(0), now=NOW)
