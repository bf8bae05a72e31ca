"""/metrics and /healthz say what `liq status` says, over a real socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import requests

from liq_pipeline.errors import LiqError
from liq_pipeline.operations.metrics import make_server
from liq_pipeline.operations.status import Status


@contextmanager
def served(status: Status | Callable[[], Status]) -> Iterator[str]:
    server = make_server(0, status if callable(status) else lambda: status)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def example() -> Status:
    return Status(
        world="real",
        ticks={"last_committed_at": datetime.now(UTC) - timedelta(seconds=7), "due": 360, "late": 2, "missed": 0},
        lag={"prices": 3, "liquidations": None},
        symbols={"BTC": {"risk": 41.5, "pressure": None, "coverage": 0.6}},
        sources=[{"name": "binance", "state": "down", "reason": "451"}],
        alerts={"open": 1, "outbox": {"due": 4}},
        dead_letters={"total": 9, "last_hour": 0},
        supervisor_silence_seconds=1.5,
    )


def test_gauges_carry_the_values_and_unknown_is_absent() -> None:
    with served(example()) as url:
        text = requests.get(f"{url}/metrics", timeout=5).text
    assert 'liq_risk{symbol="BTC",world="real"} 41.5' in text
    assert 'liq_lag_messages{topic="prices"} 3.0' in text
    assert 'liq_source_state{source="binance",state="down"} 1.0' in text
    assert 'liq_source_state{source="binance",state="up"} 0.0' in text
    assert 'liq_outbox_messages{state="due"} 4.0' in text
    assert 'liq_outbox_messages{state="failed"} 0.0' in text, "a known zero is told"
    assert "liq_dead_letters 9.0" in text
    assert "liq_supervisor_silence_seconds 1.5" in text
    assert 'liq_ticks_missed{world="real"} 0.0' in text
    assert 'liq_ticks_late{world="real"} 2.0' in text
    assert "liq_pressure{" not in text, "an unknown pressure must not read as zero"
    assert 'topic="liquidations"' not in text, "an unknown lag must not read as zero"


def test_what_could_not_be_asked_is_absent_and_never_zero() -> None:
    nothing = Status()
    nothing.problem("The database cannot be used: it is away", down=True)
    with served(nothing) as url:
        lines = [line for line in requests.get(f"{url}/metrics", timeout=5).text.splitlines() if line[0] != "#"]
    assert lines == ["liq_health 2.0"]


def test_health_follows_the_status() -> None:
    status = example()
    with served(status) as url:
        assert requests.get(f"{url}/healthz", timeout=5).status_code == 200
    status.problem("the monitor is blind", down=True)
    with served(status) as url:
        answer = requests.get(f"{url}/healthz", timeout=5)
    assert answer.status_code == 503
    assert answer.json() == {"health": "down", "problems": ["the monitor is blind"]}


def test_the_page_answers_a_head_and_a_query_and_says_when_it_cannot_look() -> None:
    with served(example()) as url:
        head = requests.head(f"{url}/healthz", timeout=5)
        assert (head.status_code, head.content) == (200, b"")
        assert requests.get(f"{url}/metrics/?now=1", timeout=5).ok

    def fail() -> Status:
        raise RuntimeError("out of memory")

    with served(fail) as url:
        answer = requests.get(f"{url}/healthz", timeout=5)
        assert requests.get(f"{url}/metrics", timeout=5).status_code == 503
    assert answer.status_code == 503
    assert answer.json()["problems"] == ["The status cannot be collected: RuntimeError: out of memory"]


def test_a_taken_port_is_one_sentence() -> None:
    with served(example()) as url, pytest.raises(LiqError, match="choose another LIQ_METRICS_PORT"):
        make_server(int(url.rpartition(":")[2]), Status)


def test_nothing_else_is_served() -> None:
    with served(example()) as url:
        assert requests.get(f"{url}/anything", timeout=5).status_code == 404
