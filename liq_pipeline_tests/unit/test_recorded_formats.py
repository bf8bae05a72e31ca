"""Recordings: each format becomes the records it holds, with the times it allows, and nothing is dropped in silence."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.domain.records import FundingRate, OpenInterest, Price, Record
from liq_pipeline.sources.playing.playable import Playable, known_time
from liq_pipeline.sources.recorded import lines as recorded_lines
from liq_pipeline.sources.recorded.formats import open_recording
from liq_pipeline.sources.recorded.native import RecordingWriter
from liq_pipeline.sources.recorded.recording import Recording, RecordingError, Selection, next_grid_point
from liq_pipeline.sources.simulated.source import SimulatedSource
from liq_pipeline_tests.player_support import minutes, simulation, write_minute_lines

START = datetime(2026, 1, 1, tzinfo=UTC)
PANEL_COLUMNS = [
    "ts_utc",
    "binance_open",
    "binance_high",
    "binance_low",
    "binance_close",
    "binance_volume_base",
    "okx_open",
    "okx_high",
    "okx_low",
    "okx_close",
    "okx_volume",
    "oi_hyperliquid_usd",
    "funding_binance",
    "funding_bybit",
    "funding_hyperliquid",
    "funding_kraken",
]


def records(playable: Playable, after: datetime | None = None) -> list[Record]:
    return [m for step in playable.steps(after) for m in step.messages if not isinstance(m, tuple)]


def write_panel(folder: Path, symbol: str, hours: int, **cells: dict[int, str]) -> None:
    """A panel: open 100 + hour, close 101 + hour, open interest 10,000 USD; cells overrides column -> {row: text}."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{symbol}.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, PANEL_COLUMNS, restval="")
        rows.writeheader()
        for hour in range(hours):
            row = {
                "ts_utc": (START + timedelta(hours=hour)).isoformat(sep=" "),
                "binance_open": 100 + hour,
                "binance_close": 101 + hour,
                "okx_close": 101.5 + hour,
                "oi_hyperliquid_usd": 10_000,
                "funding_hyperliquid": 1.25e-5,
            }
            if (START + timedelta(hours=hour)).hour % 8 == 0:
                row["funding_binance"] = 1e-4
            row.update({column: texts[hour] for column, texts in cells.items() if hour in texts})
            rows.writerow(row)


# -- minute lines ----------------------------------------------------------------------------------------------


def test_a_minute_line_is_a_price_a_predicted_hourly_rate_and_open_interest(tmp_path: Path) -> None:
    write_minute_lines(tmp_path, "BTC", [{"ts": 1_781_222_429_546, "funding": -7e-6, "oi": 3.5, "mark": 60_000.0}])
    price, funding, interest = records(open_recording(tmp_path, 60))
    time = datetime(2026, 6, 12, 0, 0, 29, 546_000, tzinfo=UTC)
    for record in (price, funding, interest):
        assert record.event_time == record.received_at == record.known == time
        assert (record.origin, record.venue, record.event_time_source) == ("recorded", "hyperliquid", "local")
    assert isinstance(price, Price)
    assert price.price_usd == 60_000
    assert isinstance(funding, FundingRate)
    assert (funding.kind, funding.rate, funding.interval_hours) == ("predicted", -7e-6, 1.0)
    assert funding.rate_per_8h == pytest.approx(-5.6e-5)
    assert isinstance(interest, OpenInterest)
    assert (interest.open_interest_base, interest.open_interest_usd) == (3.5, 210_000)


def test_a_minute_recording_is_expected_once_a_minute(tmp_path: Path) -> None:
    write_minute_lines(tmp_path / "my days", "BTC", minutes(5))
    write_minute_lines(tmp_path / "my days", "ETH", minutes(5))
    world = open_recording(tmp_path / "my days", 30).world
    assert world.name == "recorded/my-days"
    assert (world.market_step_seconds, world.flows_step_seconds) == (30, 30)
    assert world.manifest.symbols == ("BTC", "ETH")
    assert {t: (e.venues, e.cadence_seconds) for t, e in world.manifest.expected.items()} == dict.fromkeys(
        ("prices", "funding_rates", "open_interest"), (("hyperliquid",), 60.0)
    )


def test_broken_repeated_and_disordered_lines_are_counted_and_said(tmp_path: Path) -> None:
    lines = minutes(6)
    lines[3], lines[4] = lines[4], lines[3]
    lines.append(lines[-1])
    path = write_minute_lines(tmp_path, "BTC", lines)
    with gzip.open(path, "at") as file:
        file.write('{"ts": 17812224\n')
        file.write(json.dumps({"ts": lines[-1]["ts"] + 60_000, "funding": 0, "oi": 1, "mark": -5}) + "\n")
    recording = open_recording(tmp_path, 60)
    found = recording.findings  # type: ignore[attr-defined]
    assert (found.lines, found.records, found.repeated, found.disordered) == (9, 21, 3, 1)
    assert [text.split(":")[1] for text in found.unreadable] == ["8", "9"]
    assert "2 lines unreadable" in recording.world.manifest.description
    assert len(records(recording)) == 21


def test_a_recorder_that_was_killed_leaves_a_readable_beginning(tmp_path: Path) -> None:
    path = write_minute_lines(tmp_path, "BTC", minutes(2000))
    path.write_bytes(path.read_bytes()[:-2000])
    recording = open_recording(tmp_path, 60)
    assert 0 < len(records(recording)) < 6000
    assert "unreadable" in recording.world.manifest.description


# -- hourly panel ----------------------------------------------------------------------------------------------


def test_a_candle_is_true_and_known_when_its_hour_is_over(tmp_path: Path) -> None:
    write_panel(tmp_path, "BTC", 1)
    prices = {r.venue: r for r in records(open_recording(tmp_path, 60)) if isinstance(r, Price)}
    assert {venue: price.price_usd for venue, price in prices.items()} == {"binance": 101, "okx": 101.5}
    assert all(p.event_time == p.known == START + timedelta(hours=1) for p in prices.values())


def test_panel_open_interest_is_known_late_and_in_coins_by_the_price_of_its_own_time(tmp_path: Path) -> None:
    write_panel(tmp_path, "BTC", 1)
    (interest,) = [r for r in records(open_recording(tmp_path, 60)) if isinstance(r, OpenInterest)]
    assert (interest.event_time, interest.known) == (START, START + timedelta(hours=1))
    assert (interest.venue, interest.open_interest_usd, interest.open_interest_base) == ("hyperliquid", 10_000, 100)


def test_panel_funding_is_settled_per_the_venues_own_interval(tmp_path: Path) -> None:
    write_panel(tmp_path, "BTC", 10)
    rates = [r for r in records(open_recording(tmp_path, 60)) if isinstance(r, FundingRate)]
    binance = [r for r in rates if r.venue == "binance"]
    assert [r.event_time.hour for r in binance] == [0, 8]
    assert all(r.known == r.event_time and r.kind == "settled" and r.rate_per_8h == r.rate for r in binance)
    assert sum(r.venue == "hyperliquid" for r in rates) == 10
    assert all(r.rate_per_8h == pytest.approx(1e-4) for r in rates if r.venue == "hyperliquid")
    cadence = open_recording(tmp_path, 60).world.manifest.expected["funding_rates"].cadence_of
    assert (cadence("binance"), cadence("bybit"), cadence("kraken")) == (28_800, 28_800, 3600)


def test_an_empty_cell_is_unknown_and_a_bad_one_is_said(tmp_path: Path) -> None:
    write_panel(tmp_path, "BTC", 4, oi_hyperliquid_usd={1: "", 2: "-3"})
    recording = open_recording(tmp_path, 60)
    interest = [r.event_time.hour for r in records(recording) if isinstance(r, OpenInterest)]
    assert interest == [0, 3]
    assert "1 lines unreadable (first: BTC.csv:4" in recording.world.manifest.description


def test_the_real_panel_reads_whole(shared_data: Path) -> None:
    recording = open_recording(shared_data / "panel-1h", 60)
    found = records(recording)
    assert len(found) == 101_148
    assert recording.world.manifest.symbols == ("BTC", "ETH", "SOL")
    assert recording.findings.sentence == "19272 lines, 101148 records"  # type: ignore[attr-defined]


def test_the_real_minute_recording_reads_whole_and_its_clock_fault_is_said(shared_data: Path) -> None:
    recording = open_recording(shared_data / "recording-hyperliquid-1m", 60)
    found = recording.findings  # type: ignore[attr-defined]
    # One line per symbol on 2026-06-12 carries a time 18 minutes ahead of its neighbours.
    assert (found.lines, found.records, found.repeated, found.disordered) == (28_552, 85_656, 0, 2)
    assert found.unreadable == []


# -- records of our own ----------------------------------------------------------------------------------------


def test_what_is_written_is_what_is_read_but_for_world_and_origin(tmp_path: Path) -> None:
    source = SimulatedSource(simulation(symbols=("BTC",)))
    messages = [m for step in itertools.islice(source.steps(None), 40) for m in step.messages]
    with RecordingWriter(tmp_path / "r", source.world) as writer:
        for message in messages:
            writer.write(message)
    recording = open_recording(tmp_path / "r", 60)
    assert recording.world.manifest.expected == source.world.manifest.expected
    back = [m for step in recording.steps(None) for m in step.messages]
    assert len(back) == len(messages)
    for ours, theirs in zip(messages, back, strict=True):
        assert isinstance(ours, tuple) == isinstance(theirs, tuple)
        first = ours[1] if isinstance(ours, tuple) else ours
        second = theirs[1] if isinstance(theirs, tuple) else theirs
        assert second == msgspec.structs.replace(first, world="recorded/r", origin="recorded")


def test_a_writer_refuses_disorder_and_a_used_folder(tmp_path: Path) -> None:
    source = SimulatedSource(simulation(symbols=("BTC",)))
    first, second = itertools.islice(source.steps(None), 2)
    writer = RecordingWriter(tmp_path / "r", source.world)
    writer.write(second.messages[-1])
    with pytest.raises(ValueError, match="comes after"):
        writer.write(first.messages[0])
    writer.close()
    with pytest.raises(RecordingError, match="not empty"):
        RecordingWriter(tmp_path / "r", source.world)


def test_a_later_format_version_is_refused(tmp_path: Path) -> None:
    source = SimulatedSource(simulation(symbols=("BTC",)))
    with RecordingWriter(tmp_path / "r", source.world) as writer:
        for message in next(iter(source.steps(None))).messages:
            writer.write(message)
    manifest = tmp_path / "r" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(RecordingError, match="format version 2"):
        open_recording(tmp_path / "r", 60)


# -- any recording ---------------------------------------------------------------------------------------------


def test_a_folder_without_a_recording_is_refused_with_the_formats_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(RecordingError, match=r"no recording in a known format.*hourly panel"):
        open_recording(tmp_path, 60)
    with pytest.raises(RecordingError, match="not a folder"):
        open_recording(tmp_path / "nowhere", 60)


def test_steps_end_on_the_grid_also_where_nothing_happened_and_last_at_the_last_record(tmp_path: Path) -> None:
    lines = minutes(10)
    del lines[3:7]
    write_minute_lines(tmp_path, "BTC", lines)
    steps = list(open_recording(tmp_path, 60).steps(None))
    assert [step.time for step in steps[:-1]] == [START + timedelta(minutes=i) for i in range(1, 10)]
    assert steps[-1].time == START + timedelta(minutes=9, seconds=2)
    assert [len(step.messages) for step in steps] == [3, 3, 3, 0, 0, 0, 0, 3, 3, 3]
    assert all(known_time(m) <= step.time for step in steps for m in step.messages)


@given(cut=st.integers(0, 100))
def test_going_on_after_any_moment_repeats_nothing_and_leaves_nothing_out(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("recording")
    write_minute_lines(folder, "BTC", minutes(100))
    recording = open_recording(folder, 60)
    steps = list(recording.steps(None))
    after = steps[cut - 1].time if cut else None
    assert list(recording.steps(after)) == steps[cut:]


def test_a_selection_keeps_symbols_and_known_times(tmp_path: Path) -> None:
    write_minute_lines(tmp_path / "d", "BTC", minutes(10))
    write_minute_lines(tmp_path / "d", "ETH", minutes(10))
    part = Selection(symbols=("ETH",), start=START + timedelta(minutes=3), end=START + timedelta(minutes=5))
    recording = open_recording(tmp_path / "d", 60, part)
    found = records(recording)
    assert {r.symbol for r in found} == {"ETH"}  # type: ignore[attr-defined]
    assert {r.known.minute for r in found} == {3, 4}
    assert recording.world.name == "recorded/d.ETH.20260101T0003-20260101T0005"
    with pytest.raises(RecordingError, match="no line of the wanted"):
        open_recording(tmp_path / "d", 60, Selection(symbols=("SOL",)))


@given(st.integers(0, 10**9), st.sampled_from([1, 10, 60, 300, 3600]))
def test_the_next_grid_point_is_the_first_at_or_after(milliseconds: int, step: int) -> None:
    time = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    point = next_grid_point(time, step)
    assert time <= point < time + timedelta(seconds=step)
    assert point.timestamp() % step == 0


# -- files that lie about their size -----------------------------------------------------------------------------


def test_a_line_without_end_or_a_broken_member_ends_the_file_in_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = b'{"ts": 1781222429546}\n'
    endless, broken = tmp_path / "endless.gz", tmp_path / "broken.gz"
    endless.write_bytes(gzip.compress(good + b" " * 5_000_000))
    packed = bytearray(gzip.compress(good) + gzip.compress(bytes(range(256)) * 400))
    packed[-60:-20] = b"\xff" * 40
    broken.write_bytes(packed)
    monkeypatch.setattr(recorded_lines, "LONGEST_LINE_BYTES", 1_000_000)
    for path, reason in ((endless, "a line of more than"), (broken, "after line")):
        read: list[bytes] = []
        with pytest.raises(recorded_lines.DamagedFileError, match=reason):
            read.extend(raw for _, raw in recorded_lines.numbered_lines(path))
        assert read[:1] == [good] or path == broken


def test_a_native_recording_cut_short_is_said_not_thrown(tmp_path: Path) -> None:
    source = SimulatedSource(simulation(symbols=("BTC",)))
    with RecordingWriter(tmp_path / "r", source.world) as writer:
        for message in next(iter(source.steps(None))).messages:
            writer.write(message)
    (file,) = (tmp_path / "r").glob("records-*.jsonl.gz")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(RecordingError, match=r"records-00000.jsonl.gz cannot be read after line"):
        list(open_recording(tmp_path / "r", 60).steps(None))


def test_a_panel_cell_longer_than_csv_reads_is_a_finding(tmp_path: Path) -> None:
    write_panel(tmp_path, "BTC", 3, binance_close={1: "1" * 200_000})
    recording = open_recording(tmp_path, 60)
    assert isinstance(recording, Recording)
    assert [finding for finding in recording.findings.unreadable if "field larger than field limit" in finding]
