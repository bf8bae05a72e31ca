"""What `liq status` tells a person about servers and sources, in words and not in data structures."""

from __future__ import annotations

import pytest
from rich.console import Console

from liq_pipeline.operations.status import Status
from liq_pipeline.operations.watch import parts_table


def _printed(status: Status) -> str:
    console = Console(width=110)
    with console.capture() as capture:
        console.print(parts_table(status))
    return capture.get()


def _status() -> Status:
    return Status(
        kafka={"bootstrap_servers": "127.0.0.1:9092", "reachable": True},
        dagster={"url": "http://127.0.0.1:3000"},
        database={"reachable": True, "edition": "apache", "version": "17.5", "size_bytes": 3 << 30},
        lag={"prices": 0, "open_interest": 12, "liquidations": None},
        ticks={"last": "2026-06-12", "due": 360, "late": 2, "missed": 1},
        sources=[
            {
                "name": "binance",
                "state": "down",
                "reason": "HTTP 451 refuses this place",
                "budget": {"binance/ip": {"used": 12, "capacity": 2160, "window_seconds": 60}},
            },
            # As the collector writes them (collector/sender.py).
            {"name": "okx_liquidations", "state": "up", "reason": None, "budget": {"buffer": 200_000, "buffered": 0}},
            {
                "name": "htx_liquidations",
                "state": "up",
                "reason": None,
                "budget": {
                    "htx": {"used": 10, "capacity": 50, "window_seconds": 10},
                    "buffer": 200_000,
                    "buffered": 1_234,
                },
            },
        ],
        dead_letters={"total": 7},
        gaps_open=2,
    )


def test_every_part_is_one_plain_line() -> None:
    text = _printed(_status())

    assert "TimescaleDB on PostgreSQL 17.5, 3.0 GiB" in text
    assert "messages: open_interest 12, liquidations ?" in text
    assert "360 due, 2 late, 1 missed" in text
    assert "down: HTTP 451 refuses this place" in text
    assert "12 of 2160 in 60 s" in text
    assert "10 of 50 in 10 s, 1,234 of 200,000 events wait for Kafka" in text
    assert "7, see `liq dead-letters list`" in text
    assert "2 open, see `liq gaps list`" in text
    assert "{" not in text


def test_a_server_that_is_away_is_said_to_be_away() -> None:
    status = _status()
    status.database = {"reachable": False, "edition": None}
    status.kafka = {"bootstrap_servers": "127.0.0.1:9092", "reachable": False}

    assert _printed(status).count("away") == 2


@pytest.mark.parametrize(
    ("lag", "words"),
    [
        ({}, "unknown"),
        ({"prices": None, "liquidations": None}, "unknown"),
        ({"prices": 0, "liquidations": None}, "messages: liquidations ?"),
        ({"prices": 0, "liquidations": 0}, "nothing"),
    ],
)
def test_what_has_not_landed_is_nothing_only_where_it_was_measured(lag: dict[str, int | None], words: str) -> None:
    status = _status()
    status.lag = lag
    row = next(line for line in _printed(status).splitlines() if line.startswith("not yet landed"))
    assert row.removeprefix("not yet landed").strip() == words
