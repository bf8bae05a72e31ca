"""Inputs on trial: what is worth a release is told from noise by the written rule, and nothing else changes by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import _archive as generated
from liq_pipeline.commands.model import train as train_command
from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.archive import ablation
from liq_pipeline.evaluation.archive.ablation import judged, rows_with, try_inputs
from liq_pipeline.evaluation.archive.inputs import GROUPS, groups_named, inputs_are_kept, keep_inputs
from liq_pipeline.evaluation.archive.market import load_quarter
from liq_pipeline.evaluation.archive.months import COLUMNS, facts_of, first_facts, write_month, write_parquet
from liq_pipeline.evaluation.archive.plan import LOOK_BACK, Plan, Quarter, next_month
from liq_pipeline.evaluation.archive.run import Done, Manner, train
from liq_pipeline.evaluation.archive.samples import keep_samples, samples_are_kept
from liq_pipeline.scoring.probability import FEATURES, shipped_model
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.access.http import BadAnswerError
from liq_pipeline.sources.archives import binance
from liq_pipeline.sources.archives.binance import BinanceArchive
from liq_pipeline.sources.archives.files import ArchiveFiles
from liq_pipeline.sources.archives.pieces import Absent, Piece
from liq_pipeline.sources.archives.samples import DEPTH, PREMIUM, SampleKind, Samples, read_samples
from liq_pipeline_tests.archive_support import publish, served_archive
from liq_pipeline_tests.live_support import VenueServer

START = datetime(2024, 6, 1, tzinfo=UTC)
NOW = datetime(2024, 7, 20, tzinfo=UTC)
SWIFTLY = Manner(1, niceness=0, requests_per_second=1e6)

pytestmark = pytest.mark.timeout(300)


# -- files in their true format --------------------------------------------------------------------------------------


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


def piece_of(kind: SampleKind, symbol: str = "BTC") -> Piece:
    return next(iter(kind.pieces(symbol, START, START + timedelta(days=1))))


def read(archive: BinanceArchive, kind: SampleKind, symbol: str = "BTC") -> Samples:
    samples = read_samples(archive, piece_of(kind, symbol), NOW)
    assert isinstance(samples, Samples)
    return samples


def test_a_premium_is_the_close_at_the_end_of_its_bar_and_zero_is_one(
    server: VenueServer, archive: BinanceArchive
) -> None:
    opened = int(START.timestamp())

    def line(number: int, close: str) -> str:
        stamp = (opened + 300 * number) * 1000
        return f"{stamp},0.1,0.1,0.1,{close},0,{stamp + 299_999},0,60,0,0,0"

    rows = [line(0, "0.00021000"), line(1, "0.00000000"), line(1, "0.00000000"), line(2, ""), line(3, "-0.00030000")]
    rows += [line(4, "12"), line(5, "much"), line(900, "0.0001")]
    for header in ([",".join(binance.KLINE_COLUMNS)], []):
        publish(server, PREMIUM.path("BTCUSDT", START), [*header, *rows])
        samples = read(archive, PREMIUM)
        assert samples.time == [START + timedelta(minutes=5 * number) for number in (1, 2, 4)]
        assert samples.values == [(0.00021,), (0.0,), (-0.0003,)]
        assert (samples.doubled, samples.unknown_cells) == (1, 1)
        assert [text.split(" ")[0] for text in samples.problems] == ["2", "1"]
        assert "12" in samples.problems[0]
        assert "of another time" in samples.problems[1]


@pytest.mark.parametrize("one", ["1", "1.00"])
def test_a_book_is_both_sides_within_one_percent_and_its_own_price(
    server: VenueServer, archive: BinanceArchive, one: str
) -> None:
    def book(moment: str, bid: str, ask: str) -> list[str]:
        inner = [f"{moment},-0.20,1,10", f"{moment},0.20,1,10"] if one == "1.00" else []
        return [f"{moment},-5,99,990", f"{moment},-{one},{bid}", *inner, f"{moment},{one},{ask}", f"{moment},5,99,990"]

    lines = [",".join(DEPTH.columns)]
    lines += book("2024-06-01 00:00:08", "100,995", "100,1005")
    lines += book("2024-06-01 00:00:08", "100,995", "100,1005")
    lines += book("2024-06-01 00:00:38", "0.0,0.0", "100,1005")
    lines += book("2024-06-01 00:01:08", "many,995", "100,1005")
    lines += ["2024-06-01 00:01:38,-1", "yesterday,1,1,1"]
    lines += book(
        "2024-06-01 00:02:08",
        "50,497",
        "",
    )[:2]
    lines += book("2024-06-03 00:00:08", "100,995", "100,1005")
    publish(server, DEPTH.path("BTCUSDT", START), lines)
    samples = read(archive, DEPTH)
    assert samples.time == [START + timedelta(seconds=8)]
    assert samples.values == [(995.0, 1005.0, 10.0)]
    assert samples.doubled == 2
    assert samples.unknown_cells == 2 + 2
    assert [text.split(" ")[0] for text in samples.problems] == ["3", "1"]


def test_a_coin_by_the_thousand_is_counted_in_coins_and_what_is_no_such_file_is_said(
    server: VenueServer, archive: BinanceArchive
) -> None:
    header = ",".join(DEPTH.columns)
    rows = ["2024-06-01 00:00:08,-1,100,995", "2024-06-01 00:00:08,1,100,1005"]
    publish(server, DEPTH.path("1000PEPEUSDT", START), [header, *rows])
    assert read(archive, DEPTH, "PEPE").values == [(995.0, 1005.0, 0.01)]
    assert read_samples(archive, piece_of(DEPTH), NOW) == Absent(is_expected=False)
    publish(server, DEPTH.path("BTCUSDT", START), ["timestamp,percentage,depth", *rows])
    with pytest.raises(BadAnswerError, match="lacks notional"):
        read(archive, DEPTH)
    publish(server, DEPTH.path("BTCUSDT", START), [header, "2024-06-01 00:00:08,-1,100," + "9" * 200_000])
    with pytest.raises(BadAnswerError, match="cannot be read"):
        read(archive, DEPTH)
    assert not list(DEPTH.pieces("BTC", START - timedelta(days=900), START - timedelta(days=880)))


def test_a_month_keeps_medians_on_the_grid_and_says_what_was_missing(tmp_path: Path) -> None:
    days, first = 30, generated.start_of("2024-06-01")
    price = generated.market_of("BTC", first, days)["price"]
    generated.publish_samples(tmp_path / "archive", "BTC", first, price[: 3 * generated.PER_DAY + 1], [PREMIUM, DEPTH])
    plan = Plan(("BTC",), first, first + timedelta(days=days), tmp_path / "home")
    with generated.served(tmp_path / "archive") as url:
        files = ArchiveFiles(binance.NAME, url)
        for kind in (PREMIUM, DEPTH):
            facts = keep_samples(BinanceArchive(files), plan, kind, "BTC", first, NOW)
            assert facts["files"] + facts["absent"] == days
            assert facts["files"] in (2, 3)
            assert samples_are_kept(plan, kind, "BTC", first)
            before = plan.sample_file(kind.name, "BTC", first).read_bytes()
            keep_samples(BinanceArchive(files), plan, kind, "BTC", first, NOW)
            assert plan.sample_file(kind.name, "BTC", first).read_bytes() == before
        young = keep_samples(BinanceArchive(files), plan, PREMIUM, "BTC", first, first + timedelta(days=2))
        files.close()
    assert not young["is_final"]
    import pyarrow.parquet as pq

    table = pq.read_table(plan.sample_file(DEPTH.name, "BTC", first))
    book = table.column("book_price_usd").to_numpy()
    assert book.size == days * generated.PER_DAY + 1
    known = np.isfinite(book)
    assert known[: 3 * generated.PER_DAY].mean() > 0.6
    assert not known[3 * generated.PER_DAY + 1 :].any()
    ratio = book[known] / price[known.nonzero()[0]]
    assert np.median(np.abs(np.log(ratio))) < 0.01
    bid = table.column("bid_depth_usd").to_numpy()[known]
    assert abs(np.log(np.median(bid) / 2e6)) < 0.1


# -- inputs ----------------------------------------------------------------------------------------------------------


def write_months(plan: Plan, symbol: str, columns: dict[str, NDArray[np.float64]], first: datetime) -> None:
    """The months as `keep_month` would have left them, from columns that begin at `first`, a month's first instant."""
    month, place = first, 0
    while place < next(iter(columns.values())).size - 1:
        size = int((next_month(month) - month).total_seconds()) // generated.STEP + 1
        own = {name: np.full(size, np.nan) for name in COLUMNS}
        for name, values in columns.items():
            part = values[place : place + size]
            own[name][: part.size] = part
        write_month(plan.month_file(symbol, month), month, own, first_facts(symbol, month, datetime.now(UTC)))
        month, place = next_month(month), place + size - 1


def test_inputs_are_what_was_known_one_grid_point_later_and_a_book_of_another_price_is_none(tmp_path: Path) -> None:
    first, quarter = datetime(2024, 3, 1, tzinfo=UTC), Quarter(2024, 2)
    plan = Plan(("BTC",), quarter.start, quarter.start + timedelta(days=20), tmp_path)
    size = 61 * generated.PER_DAY + 1
    at = np.arange(size)
    price = 100.0 + 0.001 * at
    months = {
        "price_usd": price,
        "long_short_accounts": np.exp(0.1 * np.sin(at / 50.0)),
        "long_short_taker": np.full(size, 2.0),
    }
    write_months(plan, "BTC", months, first)
    book = price.copy()
    book[40 * generated.PER_DAY : 41 * generated.PER_DAY] *= 0.8
    sides = {"bid_depth_usd": np.full(size, 2e6), "ask_depth_usd": np.full(size, 6e6), "book_price_usd": book}
    facts = first_facts("BTC", first, NOW)
    write_month(plan.sample_file(DEPTH.name, "BTC", first), first, sides, facts)
    import pyarrow.parquet as pq

    for name in ("accounts", "taker", "depth", "premium"):
        assert not inputs_are_kept(plan, GROUPS[name], "BTC", quarter)
        keep_inputs(plan, GROUPS[name], "BTC", quarter)
        assert inputs_are_kept(plan, GROUPS[name], "BTC", quarter)
    table = pq.read_table(plan.input_file("accounts", "BTC", quarter))
    time = table.column("time").to_numpy()
    place = (time - int(first.timestamp())) // generated.STEP
    inside = place < size
    level = table.column("accounts_log_ratio").to_numpy()[inside]
    np.testing.assert_allclose(level, np.log(months["long_short_accounts"][place[inside] - 1]), atol=1e-6)
    assert np.nanmax(np.abs(table.column("accounts_log_ratio_from_week").to_numpy()[inside])) < 3.0
    taker = pq.read_table(plan.input_file("taker", "BTC", quarter))
    np.testing.assert_allclose(taker.column("taker_flow_24h").to_numpy()[inside], np.log(2.0), rtol=1e-6)
    depth = pq.read_table(plan.input_file("depth", "BTC", quarter))
    tilt = depth.column("depth_tilt").to_numpy()
    wrong = (place > 40 * generated.PER_DAY + 3) & (place <= 41 * generated.PER_DAY)
    assert np.isnan(tilt[wrong]).all()
    np.testing.assert_allclose(tilt[inside & ~wrong & (place > 41 * generated.PER_DAY + 3)], -0.5, rtol=1e-6)
    assert facts_of(plan.input_file("premium", "BTC", quarter))["known"] == 0
    # Another content makes the partition due.
    months["long_short_accounts"][-100] = 3.0
    write_months(plan, "BTC", months, first)
    assert not inputs_are_kept(plan, GROUPS["accounts"], "BTC", quarter)
    assert inputs_are_kept(plan, GROUPS["premium"], "BTC", quarter)


def test_groups_are_named_or_refused_in_a_sentence() -> None:
    assert [group.name for group in groups_named("depth, Accounts")] == ["accounts", "depth"]
    assert groups_named("all") == tuple(GROUPS.values())
    for text in ("tarot", "accounts,tarot", " , "):
        with pytest.raises(LiqError, match="accounts, top_traders, taker, premium, depth, or all"):
            groups_named(text)
    with pytest.raises(LiqError, match="needs --archive"):
        train_command(try_inputs="all")
    names = [name for group in GROUPS.values() for name in group.features]
    assert len(set(names)) == len(names)
    assert not set(names) & set(FEATURES)


# -- the verdict -----------------------------------------------------------------------------------------------------


def write_quarters(plan: Plan, strength: dict[str, float], known: dict[str, float]) -> None:
    """Partitions of features that hold a weak signal, and of groups: how much each says, which share of it is known."""
    random = np.random.default_rng(5)
    for quarter in plan.quarters:
        time = np.arange(int(quarter.start.timestamp()), int(quarter.end.timestamp()), 900)
        for symbol in plan.symbols:
            hidden = {
                name: np.repeat(random.standard_normal(time.size // 16 + 1), 16)[: time.size] for name in strength
            }
            base = random.standard_normal(time.size)
            odds = -4.5 + 0.5 * base + sum(strength[name] * hidden[name] for name in strength)
            label = (random.random(time.size) < 1.0 / (1.0 + np.exp(-odds))).astype(np.int8)
            content: dict[str, NDArray[Any]] = {"time": time}
            for hours in (1, 4, 24):
                content |= {f"label_{hours}": label, f"near_{hours}": label > 0}
            for name in FEATURES:
                own = base if name == "excursion_4h" else random.standard_normal(time.size)
                content |= {part: own.astype(np.float32) for part in (
                    [f"{name}@{h}" for h in (1, 4, 24)] if name.endswith("over_threshold") else [name])}  # fmt: skip
            write_parquet(plan.feature_file(symbol, quarter), content, {"events": []})
            for name, group in ((name, GROUPS[name]) for name in strength):
                unknown = random.random(time.size) >= known[name]
                columns = {
                    feature: np.where(
                        unknown, np.nan, hidden[name] if place == 0 else random.standard_normal(time.size)
                    )
                    for place, feature in enumerate(group.features)
                }
                write_parquet(
                    plan.input_file(name, symbol, quarter),
                    {"time": time, **{n: values.astype(np.float32) for n, values in columns.items()}}, {},
                )  # fmt: skip


def test_a_planted_signal_is_worth_a_release_noise_is_not_and_what_is_unknown_is_not_judged(tmp_path: Path) -> None:
    plan = Plan(("BTC", "WIF"), datetime(2023, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC), tmp_path)
    write_quarters(
        plan,
        {"taker": 0.7, "accounts": 0.0, "premium": 0.7},
        {"taker": 0.6, "accounts": 1.0, "premium": 0.0},
    )
    said: list[str] = []
    told = try_inputs(plan, groups_named("accounts,taker,premium"), said.append)
    assert told["worth_a_release"] == ["taker"]
    assert told["settings_tried"] == 3
    assert [told["groups"][name]["is_worth_a_release"] for name in ("accounts", "taker", "premium")] == [
        False,
        True,
        None,
    ]
    assert said[1].startswith("taker: worth a release: ROC-AUC within symbols 0.")
    assert said[2].startswith("premium: not judged: 0 quarters")
    taker, accounts = told["groups"]["taker"], told["groups"]["accounts"]
    assert taker["quarters_judged"] == len(taker["quarters"]) == 3
    # With and without stand on the same rows, and these are the rows where the group is known.
    for one in [*taker["quarters"], taker["together"], accounts["together"]]:
        assert one["with"]["rows"] == one["without"]["rows"]
        assert one["with"]["positive_rows"] == one["without"]["positive_rows"]
    assert taker["together"]["with"]["rows"] == pytest.approx(0.6 * accounts["together"]["with"]["rows"], rel=0.02)
    quarter = plan.quarters[1]
    rows, whole = rows_with(plan, GROUPS["taker"], quarter), load_quarter(plan, quarter)
    assert rows is not None
    assert whole is not None
    assert np.array_equal(rows.is_known, whole.is_known & np.isfinite(rows.columns["taker_flow_1h"]))
    assert rows_with(plan, GROUPS["premium"], quarter) is None
    assert try_inputs(plan, groups_named("accounts,taker,premium")) == told
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize(
    ("roc", "brier", "gained", "expected"),
    [
        (0.010, 0.001, [True, True, False], True),
        (0.010, 0.001, [True, False, False], False),
        (0.010, 0.001, [True, None, True], True),
        (0.010, 0.001, [True, None], None),
        (0.010, -0.001, [True, True], False),
        (0.001, 0.001, [True, True, True], False),
    ],
)
def test_the_rule_is_the_written_one(
    roc: float, brier: float, gained: list[bool | None], expected: bool | None
) -> None:
    without = {"roc_auc_within": 0.7, "pr_auc_over_base_rate_within": 5.0, "brier_skill": 0.01}
    after = {"roc_auc_within": 0.7 + roc, "pr_auc_over_base_rate_within": 5.1, "brier_skill": 0.01 + brier}
    is_worth, verdict = judged({"without": without, "with": after}, gained)
    assert is_worth is expected
    assert verdict.startswith({True: "worth a release", False: "not worth it", None: "not judged"}[expected])
    assert f"{ablation.LEAST_GAIN:g}" in ablation.RULE


# -- the way through all of it ---------------------------------------------------------------------------------------

SYMBOL = "BTC"
FIRST, LAST = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 4, 16, tzinfo=UTC)
MONTHS_FROM = datetime(2023, 12, 1, tzinfo=UTC)
DAYS = (LAST - MONTHS_FROM).days
TRIAL = "depth,taker"


@dataclass
class Served:
    """An archive on loopback that remembers what it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    found = Served("")

    class Listening(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:
            found.asked.append(self.path)

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that was killed in the middle of a request is what is under test."""

    server = Quiet(("127.0.0.1", 0), partial(Listening, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def archive_of_samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Depth alone: the months of the rest are written, as if they had been fetched."""
    folder = tmp_path_factory.mktemp("archive")
    price = generated.market_of(SYMBOL, MONTHS_FROM, DAYS)["price"]
    generated.publish_samples(folder, SYMBOL, MONTHS_FROM, price, [DEPTH], depth_seconds=300)
    with served(folder) as found:
        yield found


def plan_in(folder: Path) -> Plan:
    return Plan((SYMBOL,), FIRST, LAST, folder)


def settings_of(url: str) -> Settings:
    return Settings(sources=SourceSettings(urls={binance.NAME: url}))


def with_months(folder: Path) -> Plan:
    plan = plan_in(folder)
    market = generated.market_of(SYMBOL, MONTHS_FROM, DAYS)
    months = {
        "price_usd": market["price"],
        "open_interest_base": market["interest"],
        "long_short_accounts": market["ratio"],
        "long_short_taker": 1.0 / market["ratio"],
    }
    write_months(plan, SYMBOL, months, MONTHS_FROM)
    assert FIRST - LOOK_BACK >= MONTHS_FROM
    return plan


def bytes_below(folder: Path, *rooms: str) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for room in rooms for path in sorted((folder / room).rglob("*.*")) if path.is_file()
    }  # fmt: skip


_PROGRAM = """
import sys
from pathlib import Path
from liq_pipeline.evaluation.archive.inputs import groups_named
from liq_pipeline.evaluation.archive.run import train
from liq_pipeline.scoring.probability import shipped_model
from liq_pipeline_tests.contract.test_archive_inputs import SWIFTLY, TRIAL, plan_in, settings_of

if __name__ == "__main__":
    train(plan_in(Path(sys.argv[1])), settings_of(sys.argv[2]), shipped_model(), SWIFTLY, print, groups_named(TRIAL))
"""


def test_the_candidate_and_the_kept_files_are_the_same_and_nothing_is_fetched_unasked(
    archive_of_samples: Served, tmp_path: Path
) -> None:
    plan = with_months(tmp_path / "home")
    settings = settings_of(archive_of_samples.url)

    def once(trial: str = "") -> Done:
        groups = groups_named(trial) if trial else ()
        return train(plan, settings, shipped_model(), SWIFTLY, lambda _text: None, groups)

    plain = once()
    assert archive_of_samples.asked == []
    assert "inputs" not in plain.report
    assert sorted(path.name for path in plan.folder.iterdir()) == ["candidates", "features", "months"]
    before = bytes_below(plan.folder, "months", "features")
    candidate = plain.candidate_file.read_bytes()

    # Killed on the way, the same command goes on.
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    command = [sys.executable, str(program), str(plan.folder), archive_of_samples.url]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as running:
        until = time.monotonic() + 120
        while len(list((plan.folder / "samples").rglob("*.parquet"))) < 2 and running.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
    kept = set(bytes_below(plan.folder, "samples"))
    assert 2 <= len([name for name in kept if not name.rpartition("/")[2].startswith(".")]) < len(plan.months)
    archive_of_samples.asked.clear()
    tried = once(TRIAL)
    for name in (name for name in kept if name.endswith(".parquet")):  # what was kept is not asked for again
        _, series, _, month = name.removesuffix(".parquet").split("/")
        assert not [path for path in archive_of_samples.asked if f"/{series}/" in path and f"-{month}-" in path], name
    assert tried.candidate_file == plain.candidate_file
    assert tried.candidate_file.read_bytes() == candidate
    assert bytes_below(plan.folder, "months", "features") == before
    assert {name: value for name, value in tried.report.items() if name != "inputs"} == plain.report
    assert set(tried.report["inputs"]["groups"]) == {"taker", "depth"}
    assert tried.report["inputs"]["groups"]["depth"]["rows_fitted"] > 1000
    assert any("bookDepth" in problem and "of another time" in problem for problem in tried.problems)
    assert any("bookDepth" in problem and "cannot be read" in problem for problem in tried.problems)

    # Everything is kept by now, and another process makes the same bytes of it.
    made = bytes_below(plan.folder, "inputs")
    assert all(samples_are_kept(plan, DEPTH, SYMBOL, month) for month in plan.months)
    assert all(inputs_are_kept(plan, GROUPS[name], SYMBOL, q) for name in TRIAL.split(",") for q in plan.quarters)
    fresh = plan_in(tmp_path / "fresh")
    (tmp_path / "fresh").mkdir()
    for room in ("months", "samples"):
        (tmp_path / "fresh" / room).symlink_to(plan.folder / room)
    for name in TRIAL.split(","):
        for quarter in plan.quarters:
            keep_inputs(fresh, GROUPS[name], SYMBOL, quarter)
    assert bytes_below(fresh.folder, "inputs") == made
