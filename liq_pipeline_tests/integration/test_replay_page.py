"""`liq replay` and `liq what-if`: a stretch played through the real path tells what a live installation would have."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest

from liq_pipeline.errors import LiqError
from liq_pipeline.pipeline.models import model_in_force
from liq_pipeline.replay import servers
from liq_pipeline.replay.page import compared, render
from liq_pipeline.replay.play import play_through
from liq_pipeline.replay.servers import Servers
from liq_pipeline.replay.stored_what_if import stored_what_if
from liq_pipeline.replay.story import SERIES, Story, as_stored, what_happened
from liq_pipeline.replay.what_if import changed_settings, parse_changes
from liq_pipeline.replay.window import Window, of_archive, of_recording
from liq_pipeline.runtime.processes import ProcessIdentity, wait_until_gone
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.archives import binance
from liq_pipeline_tests.archive_support import serve_market
from liq_pipeline_tests.live_support import venue_server
from liq_pipeline_tests.player_support import write_minute_lines

DAY = datetime(2026, 1, 3, tzinfo=UTC)
WARM = {"LIQ_RISK_MIN_LOOKBACK_HOURS": "1", "LIQ_RISK_MIN_COVERAGE": "0.2", "LIQ_RISK_FRESHNESS_FACTOR": "6"}
MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five days of two coins, a line every 5 min; on the fourth the price falls by 9 % and open interest by a third."""
    folder = tmp_path_factory.mktemp("recordings") / "fall"
    first = DAY - timedelta(days=3)
    for phase, symbol in enumerate(("BTC", "ETH")):
        for day in range(5):
            lines = []
            for index in range(day * 288, (day + 1) * 288):
                fallen = min(max((index - 3 * 288 - 144) / 6, 0.0), 1.0)
                wave = math.sin(index / 17 + phase)
                lines.append(
                    {
                        "ts": round((first + timedelta(minutes=5 * index)).timestamp() * 1000) + 700,
                        "funding": 1e-5 * (1 + 2 * wave + index / 288),
                        "oi": (30_000 + 4 * index) * (1 - 0.33 * fallen),
                        "mark": round(60_000 * (1 + 0.004 * wave - 0.09 * fallen), 1),
                        "oracle": 60_000.0,
                    }
                )
            write_minute_lines(folder, symbol, lines, f"{first + timedelta(days=day):%Y%m%d}")
    return folder


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WARM.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def played(
    recording: Path, environment: None, database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> tuple[Window, Settings, str]:
    """The wildest day of the recording in a throw-away database, scored every 5 min."""
    chosen = settings(score_step=300, symbols=("BTC", "ETH"))
    window = of_recording(recording, chosen)
    play_through(window, Servers(database_url, kafka_server, topic_prefix), chosen)
    return window, chosen, database_url


def story_of(window: Window, settings: Settings, database_url: str) -> Story:
    with psycopg.connect(database_url, options="-c timezone=UTC") as connection:
        panel, events = what_happened(connection, window.world, settings, window.first, window.last)
        told = as_stored(connection, window.world, panel, events, window.first, window.last, ("BTC", "ETH"))
        model = model_in_force(connection)
    return Story(window.world, window.first, window.last, panel, events, told, model, window.said_of_it, ("BTC", "ETH"))


def test_the_wildest_day_is_played_scored_and_told_with_what_followed(played: tuple[Window, Settings, str]) -> None:
    window, chosen, url = played
    assert window.first == DAY
    assert window.last == DAY + timedelta(days=1)
    assert any("moved most" in text for text in window.said_of_it)
    story = story_of(window, chosen, url)
    for series in story.told.series.values():
        assert series.time[0] == DAY.timestamp() + 300
        assert series.time[-1] == window.last.timestamp()
        assert np.isfinite(series.values["score"]).mean() > 0.9
    fall = [e for e in story.events[4] if e.symbol == "BTC"]
    assert fall
    assert DAY + timedelta(hours=12) <= datetime.fromtimestamp(fall[0].onset, UTC) <= DAY + timedelta(hours=13)
    assert story.panel.time[-1] > window.last.timestamp(), "what happened next was landed after the last score"
    page = render(story, chosen)
    for words in ("What would it have said?", "What happened", "Hour by hour", "data:image/svg+xml;base64,"):
        assert words in page
    assert "http://" not in page
    for message in story.told.messages:
        assert message.receipt
        assert message.title in page.replace("&#x27;", "'")


def test_nothing_after_the_stretch_was_known_to_a_score(played: tuple[Window, Settings, str]) -> None:
    """The same points from a database that holds the aftermath, too: bit-equal."""
    window, chosen, url = played
    story = stored_what_if(url, chosen, DAY + timedelta(minutes=5), window.last, {"LIQ_SEVERITY_INFO_RISK": "30"})
    stored = story_of(window, chosen, url)
    for symbol in ("BTC", "ETH"):
        for name in SERIES:
            for again in (story.told, story.what_if):
                assert again is not None
                np.testing.assert_array_equal(
                    again.series[symbol].values[name], stored.told.series[symbol].values[name], err_msg=name
                )
    assert [(m.time, m.title, m.body) for m in story.told.messages] == [
        (m.time, m.title, m.body) for m in stored.told.messages
    ]
    assert [m.outcome and m.outcome.verdict for m in story.told.messages] == [
        m.outcome and m.outcome.verdict for m in stored.told.messages
    ]


def test_other_thresholds_and_another_look_back_change_what_is_told_and_nothing_that_is_stored(
    played: tuple[Window, Settings, str], tmp_path: Path
) -> None:
    window, chosen, url = played

    def rows() -> list[tuple[int, ...]]:
        with psycopg.connect(url) as connection:
            tables = ("liquidation_risk", "signals", "alerts", "outbox", "feature_bars", "feature_references", "models")
            return [connection.execute(f"SELECT count(*) FROM {t}").fetchone() or () for t in tables]  # noqa: S608

    before = rows()
    page = tmp_path / "page.html"
    changes = {"LIQ_SEVERITY_WARNING_RISK": "5", "LIQ_SEVERITY_INFO_RISK": "4", "LIQ_RISK_LOOKBACK_HOURS": "24"}
    story = stored_what_if(url, chosen, DAY, window.last, changes, symbol="BTC", out=page)
    assert story.what_if is not None
    assert len(story.what_if.messages) > len(story.told.messages)
    assert story.what_if.score_version != story.told.score_version
    scores = [t.series["BTC"].values["score"] for t in (story.told, story.what_if)]
    assert not np.array_equal(scores[0], scores[1], equal_nan=True), "another look-back ranks otherwise"
    assert ("messages", str(len(story.told.messages)), str(len(story.what_if.messages))) in compared(
        story.told, story.what_if, ("BTC",)
    )
    assert "LIQ_SEVERITY_WARNING_RISK=5" in page.read_text()
    assert rows() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("LIQ_RISK_MIN_COVERAGE=2", "LIQ_RISK_MIN_COVERAGE cannot be '2'"),
        ("LIQ_HOME=/tmp", "LIQ_HOME cannot be changed here"),
        ("LIQ_RISK_NONSENSE=1", "LIQ_RISK_NONSENSE cannot be changed here"),
        ("nothing", "NAME=VALUE"),
    ],
)
def test_a_wrong_change_is_one_sentence(change: str, words: str) -> None:
    with pytest.raises(LiqError, match=words):
        changed_settings(Settings(), parse_changes([change]))


def test_a_day_comes_from_the_archive_with_its_look_back_and_the_day_after(settings: MakeSettings) -> None:
    day = date(2024, 6, 1)
    with venue_server() as server:
        server.serve(binance.NAME, {})
        serve_market(server, ("BTC",), day - timedelta(days=33), day + timedelta(days=1))
        chosen = settings(sources=SourceSettings(urls={binance.NAME: server.url(binance.NAME)}), symbols=("BTC",))
        window = of_archive(day, ("BTC",), chosen)
    assert window.first == datetime(2024, 6, 1, tzinfo=UTC)
    assert window.last == datetime(2024, 6, 2, tzinfo=UTC)
    times = [m.known for m in window.messages if not isinstance(m, tuple)]
    assert times[0] <= window.first - timedelta(days=31)
    assert times[-1] > window.last
    assert any("the day after it" in text for text in window.said_of_it)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("replay", "2025-13-45"), "such as 2025-10-10"),
        (("replay", "2025-10-10"), "liq replay simulated"),
        (("replay", "/nowhere/at/all"), "or the folder of a recording"),
        (("what-if", "--from", "2025-10-10", "--to", "2025-10-11"), "--set NAME=VALUE"),
    ],
)
def test_what_cannot_be_played_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "liq_pipeline.cli", *arguments],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "LIQ_HOME": str(tmp_path), "LIQ_BINANCE_URL": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.html"))


def test_the_servers_of_a_killed_replay_die_with_it_and_the_next_one_takes_its_folder_away(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, running = new_home / "liq-replay-killed", new_home / "liq-replay-running"
    replaying = subprocess.Popen(
        [
            sys.executable, "-c",
            "import os, sys, time; from pathlib import Path; from liq_pipeline.replay import servers;"
            "home = Path(sys.argv[1]); home.mkdir(); servers.own(home);"
            "server = servers.EmbeddedPostgres(home, servers.free_port(), dies_with_us=True); server.start();"
            "print(server.identity.pid, server.identity.started_at, flush=True); time.sleep(600)",
            str(home),
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert replaying.stdout is not None
    pid, started_at = replaying.stdout.readline().split()
    replaying.kill()
    replaying.communicate()
    assert wait_until_gone([ProcessIdentity(int(pid), float(started_at))], 30) == []

    running.mkdir()
    servers.own(running)  # by this process, which lives
    monkeypatch.setattr(tempfile, "tempdir", str(new_home))
    assert servers.remove_left_behind() == [home]
    assert [folder.name for folder in new_home.iterdir()] == [running.name]
