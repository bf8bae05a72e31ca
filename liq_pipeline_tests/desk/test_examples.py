"""Every example of docs/api.md is run, as far as its program can be had here: a copied line must work."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from liq_pipeline.cli import app
from liq_pipeline_tests.desk.support import RunningDesk

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
BASE = "http://127.0.0.1:8000"
BLOCKS = re.findall(r"^## (.+?)$|```(\w+)\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)


def block(heading: str, kind: str) -> str:
    """The first block of a kind below a heading."""
    under = ""
    for title, language, text in BLOCKS:
        under = title or under
        if under.startswith(heading) and language == kind:
            return str(text)
    raise AssertionError(f"docs/api.md has no {kind} below {heading}")


CURLS = [line.strip() for line in PAGE.splitlines() if line.startswith("    curl ")]


@pytest.mark.parametrize("line", CURLS)
def test_curl(shared_desk: RunningDesk, line: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    line = line.replace(BASE, shared_desk.url)
    words = [*shlex.split(line), "--noproxy", "*", "--max-time", "2" if "/stream" in line else "20"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if "/stream" in line:
        assert "event: signals" in done.stdout
    elif "acknowledgement" in line:
        assert json.loads(done.stdout)["error"]["code"] == "bad_parameter", "ID stands for an id"
    else:
        assert json.loads(done.stdout)["world"] == "simulated/desk"


def run_python(text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "no_proxy": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python(shared_desk: RunningDesk) -> None:
    told = run_python(block("Python", "python").replace(BASE, shared_desk.url))
    assert "not the real market: simulated/desk" in told
    assert re.search(r"^BTC \w+ (\d+|unknown) ", told, re.MULTILINE)


def test_model_context_protocol(shared_desk: RunningDesk) -> None:
    told = run_python(block("For language models", "python").replace(BASE, shared_desk.url))
    assert told.startswith("NOT REAL")
    assert re.search(r"^BTC [A-Z]+ ", told, re.MULTILINE)
    servers = json.loads(block("For language models", "json"))["mcpServers"]
    command: Any = typer.main.get_command(app)
    assert servers["liq"]["args"][0] in command.commands
    assert servers["liq-desk"]["url"] == f"{BASE}/mcp"


class _Clock:
    """What the strategy's `datetime` is, at a moment of the world that is shown."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self, zone: Any) -> datetime:
        return self._now

    @staticmethod
    def fromisoformat(text: str) -> datetime:
        return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("change", "may"),
    [
        ({}, True),
        ({"is_real": False}, False),
        ({"age": 61}, False),
        ({"severity": "CRITICAL"}, False),
        ({"severity": "UNKNOWN"}, False),
        ({"under_way": {"is_open": True, "side": "long"}}, False),
        ({"under_way": {"is_open": None}}, False),
        ({"under_way": None}, False),
    ],
)
def test_freqtrade_refuses_entries_unless_it_knows_better(
    shared_desk: RunningDesk, change: dict[str, Any], may: bool
) -> None:
    answer = shared_desk.get("/api/v1/symbols/BTC")
    answer["is_real"] = change.get("is_real", True)
    row = answer["data"]
    row |= {"severity": "INFO", "under_way": {"is_open": False}} | {
        name: value for name, value in change.items() if name in row
    }
    space: dict[str, Any] = {}
    exec(block("freqtrade", "python"), space)  # noqa: S102 - our own page
    now = datetime.fromisoformat(row["time"]).timestamp() + change.get("age", 5)
    space["datetime"] = _Clock(datetime.fromtimestamp(now, UTC))

    class Answer:
        def __enter__(self) -> Any:
            return SimpleNamespace(read=lambda *_: json.dumps(answer).encode())

        def __exit__(self, *_: Any) -> None: ...

    space["urllib"] = SimpleNamespace(request=SimpleNamespace(urlopen=lambda url, timeout: Answer()))
    strategy = space["NoEntriesWhileUnderWay"]()
    assert strategy.confirm_trade_entry("BTC/USDT:USDT", "limit", 1.0) is may


def test_freqtrade_against_the_desk_itself_and_without_one(shared_desk: RunningDesk) -> None:
    space: dict[str, Any] = {}
    exec(block("freqtrade", "python"), space)  # noqa: S102 - our own page
    strategy = space["NoEntriesWhileUnderWay"]()
    strategy.desk_url = shared_desk.url
    assert strategy.may_enter("BTC") is False, "the world is not real"
    strategy.only_real, strategy.oldest_seconds = False, 1e12
    row = shared_desk.get("/api/v1/symbols/BTC")["data"]
    expected = row["severity"] not in ("CRITICAL", "UNKNOWN") and (row["under_way"] or {}).get("is_open") is False
    assert strategy.may_enter("BTC") is expected
    assert strategy.may_enter("NOPE") is False
    strategy.desk_url = "http://127.0.0.1:1"
    assert strategy.may_enter("BTC") is False


def test_grafana_asks_for_fields_that_are_answered(shared_desk: RunningDesk) -> None:
    query = json.loads(block("Grafana", "json"))
    url = query["url"].replace(BASE, "")
    names = {one["key"] for one in query["url_options"]["params"]}
    assert names == {"from", "to"}
    rows = shared_desk.get(f"{url}?from=2026-03-02T00:00:00.000Z&to=2026-03-02T06:00:00.000Z")[query["root_selector"]]
    assert len(rows) > 100
    for column in query["columns"]:
        assert column["selector"] in rows[0]


def test_there_are_examples() -> None:
    assert len(CURLS) >= 5
