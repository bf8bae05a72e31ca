"""What a source may do to us: each fault has its clear outcome, the other sources go on, and no wrong row is written.

Every fault is tried on every source at once but one, which must not notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.polling.round import poll_due
from liq_pipeline.sources.registry import SOURCES
from liq_pipeline_tests.live_support import Reply, VenueServer, land_everything, rows, venue_server

HEALTHY = "dydx"
FAULTY = sorted(name for name, source in SOURCES.items() if source.feeds and name != HEALTHY)
TOPICS = ("prices", "funding_rates", "open_interest", "long_short_ratio")
MakeSettings = Callable[..., Settings]


@pytest.fixture
def server() -> Iterator[VenueServer]:
    with venue_server(HEALTHY, *FAULTY) as running:
        yield running


class Bench:
    """An installation that has read every list of instruments; then faults begin."""

    def __init__(self, server: VenueServer, database_url: str, kafka: str, chosen: Settings, prefix: str) -> None:
        self.server, self.database_url, self.kafka, self.chosen, self.prefix = (
            server,
            database_url,
            kafka,
            chosen,
            prefix,
        )
        self.now = datetime.now(UTC)
        first = poll_due(database_url, kafka, chosen, self.now)
        assert first.failures == {}
        server.asked.clear()

    def poll(self, after_seconds: float = 0.0) -> Any:
        return poll_due(self.database_url, self.kafka, self.chosen, self.now + timedelta(seconds=after_seconds))

    def land(self) -> None:
        land_everything(self.database_url, self.kafka, self.prefix)
        assert rows(self.database_url, "SELECT reason FROM dead_letters") == []

    def venues(self) -> set[str]:
        """Which venues have any row."""
        query = " UNION ".join(f"SELECT venue FROM {topic}" for topic in TOPICS)  # noqa: S608
        return {row["venue"] for row in rows(self.database_url, query)}

    def row_count(self, venues: list[str]) -> int:
        """Rows of these venues over all polled tables."""
        query = " UNION ALL ".join(f"SELECT venue FROM {topic}" for topic in TOPICS)  # noqa: S608
        found = rows(self.database_url, f"SELECT count(*) AS n FROM ({query}) AS r WHERE venue = ANY(%s)", venues)  # noqa: S608
        return int(found[0]["n"])

    def states(self) -> dict[str, tuple[str, str]]:
        """{source: (state, reason and last error)}"""
        found = rows(self.database_url, "SELECT source, state, reason, last_error_text FROM source_status")
        return {row["source"]: (row["state"], f"{row['reason']} {row['last_error_text']}") for row in found}


@pytest.fixture
def bench(
    server: VenueServer, database_url: str, kafka_server: str, topic_prefix: str, settings: MakeSettings
) -> Bench:
    chosen = settings(
        mode="live",
        symbols=("BTC",),
        venues=(HEALTHY, *(source for source in FAULTY if source != "coingecko")),
        kafka_topic_prefix=topic_prefix,
        sources=SourceSettings(urls=server.urls(), request_seconds=1.5, round_seconds=8.0),
    )
    return Bench(server, database_url, kafka_server, chosen, topic_prefix)


HTML = b"<html><body>Just a moment...</body></html>"
FAULTS: dict[str, tuple[Reply, str]] = {
    "timeout": (Reply({}, delay_seconds=2.0), "no answer within"),
    "trickle": (Reply({"a": "b" * 200}, trickle_seconds=0.1), "took too long"),
    "reset": (Reply(reset=True), "the connection failed"),
    "truncated": (Reply({"result": "x" * 500}, cut_after=100), "the connection failed|cut short"),
    "html": (Reply(HTML), "HTML"),
    "not json": (Reply(b'{"code": "0", "data": [{"instId": "BTC-US'), "not JSON"),
    "500": (Reply(HTML, status=500), "HTTP 500"),
    "502": (Reply(b"", status=502), "HTTP 502"),
    "empty object": (Reply({}), "another form|no price for"),
    "null": (Reply(None), "another form|is null"),
}


def test_passing_faults_are_named_retried_and_nobody_elses_business(bench: Bench) -> None:
    """One installation goes through every fault, each followed by a recovery."""
    wrong: list[str] = []
    for number, (fault, (reply, words)) in enumerate(FAULTS.items()):
        known = bench.row_count(FAULTY)
        bench.server.fault = lambda source, _path, _query, reply=reply: None if source == HEALTHY else reply
        begun = time.monotonic()
        result = bench.poll(number * 2000)
        assert time.monotonic() - begun < 9.0, fault
        bench.land()
        assert bench.row_count(FAULTY) == known, f"{fault}: rows were written"
        assert bench.row_count([HEALTHY]) >= 3 * (number + 1), f"{fault}: the healthy source was disturbed"
        assert result.failures.keys() >= set(FAULTY) - {"coingecko"}, fault
        states = bench.states()
        assert states[HEALTHY][0] == "up", fault
        for source in FAULTY:
            state, text = states[source]
            if state not in ("degraded", "down") or not any(word in text for word in words.split("|")):
                wrong.append(f"{fault}, {source}: {state}, {text}")
        bench.server.fault = None
        assert bench.poll(number * 2000 + 1000).failures == {}, f"after {fault}"
        recovered = {source: state for source, (state, _) in bench.states().items() if source in FAULTY}
        assert recovered == dict.fromkeys(FAULTY, "up"), f"after {fault}"
        bench.land()
    assert wrong == []


def test_repeated_failures_are_asked_ever_less_often(bench: Bench) -> None:
    bench.server.fault = lambda source, path, _query: (
        Reply(b"", status=503) if source == "kraken_futures" and path.endswith("tickers") else None
    )
    bench.chosen = bench.chosen.model_copy(update={"venues": ("kraken_futures",)})
    asked_at = []
    for second in range(0, 160, 10):
        bench.server.asked.clear()
        bench.poll(second)
        if any(asked.path.endswith("tickers") for asked in bench.server.asked):
            asked_at.append(second)
    # Marks and open interest (10 s) after 10, 20, 40, 80 s; funding (60 s) after 30 and 60 s.
    assert asked_at == [0, 10, 30, 70, 90, 150]


def test_a_venue_in_trouble_is_asked_again_within_its_budget_only(bench: Bench) -> None:
    """A second attempt costs what the first one did: Bitget grants one ratio a second, Kraken many tickers."""
    ratios, tickers = "/api/v2/mix/market/account-long-short", "/derivatives/api/v3/tickers"
    bench.server.fault = lambda _source, path, _query: Reply(b"", status=503) if path in (ratios, tickers) else None
    result = bench.poll()
    assert {"bitget", "kraken_futures"} <= result.failures.keys()
    paths = [asked.path for asked in bench.server.asked]
    assert (paths.count(ratios), paths.count(tickers)) == (1, 2)


@pytest.mark.parametrize(("header", "rest"), [("120", 120), (None, 60)])
def test_asked_too_often_rests_as_long_as_told(header: str | None, rest: int, bench: Bench) -> None:
    headers = {} if header is None else {"Retry-After": header}
    bench.server.fault = lambda source, _path, _query: (
        None if source == HEALTHY else Reply({"msg": "slow down"}, status=429, headers=headers)
    )
    bench.poll()
    bench.server.fault = None
    bench.server.asked.clear()
    bench.poll(rest - 2)
    assert set(bench.server.counts()) <= {HEALTHY}
    budgets = rows(bench.database_url, "SELECT source, budget FROM source_status WHERE source = 'bybit'")
    assert budgets[0]["budget"]["bybit"]["blocked_reason"] == "HTTP 429: asked too often"
    bench.poll(rest + 2)
    assert set(bench.server.counts()) >= set(FAULTY) - {"coingecko"}


def test_a_refusal_puts_the_source_down_with_the_reason_and_a_slow_probe(bench: Bench) -> None:
    refusal = {source: (401, 403, 418, 451)[number % 4] for number, source in enumerate(FAULTY)}
    bench.server.fault = lambda source, _path, _query: (
        Reply(HTML, status=refusal[source]) if source in refusal else None
    )
    bench.poll()
    states = bench.states()
    assert {states[source][0] for source in FAULTY} == {"down"}
    assert all(f"HTTP {refusal[source]}" in states[source][1] for source in FAULTY)
    bench.server.asked.clear()
    bench.poll(590)
    assert set(bench.server.counts()) == {HEALTHY}
    bench.server.asked.clear()
    bench.poll(605)
    counts = bench.server.counts()
    assert [counts[source] for source in FAULTY] == [1] * len(FAULTY)  # one probe each, no burst
    bench.server.fault = None
    bench.poll(1300)
    bench.poll(1301)
    assert {bench.states()[source][0] for source in FAULTY} == {"up"}


def test_bybits_403_for_speed_is_a_pause_and_not_a_refusal(bench: Bench) -> None:
    bench.server.fault = lambda source, _path, _query: (
        Reply(b"access too frequent", status=403) if source == "bybit" else None
    )
    bench.poll()
    state, text = bench.states()["bybit"]
    assert state == "degraded"
    assert "too frequent" in text
    bench.server.fault = None
    bench.server.asked.clear()
    bench.poll(590)
    assert bench.server.counts()["bybit"] == 0
    bench.poll(610)
    assert bench.server.counts()["bybit"] > 0


def _change(value: Any, leaf: Callable[[str, Any], Any], key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _change(inner, leaf, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_change(inner, leaf, key) for inner in value]
    return leaf(key, value)


def _serve_changed(server: VenueServer, leaf: Callable[[str, Any], Any]) -> None:
    for source in FAULTY:
        server.routes[source] = {path: _change(frame, leaf) for path, frame in server.routes[source].items()}


NAMES = {"symbol", "instId", "contract", "name", "code", "retCode", "result", "ticker", "instrument_name", "tag", "msg"}


@pytest.mark.parametrize("bad", [None, "NaN", -1, 0], ids=str)
def test_numbers_that_cannot_be_never_become_rows(bad: Any, bench: Bench) -> None:
    """Every price, rate, interest and share of every venue is replaced; times stay as they are."""
    times = ("time", "ts", "Time", "timestamp", "Timestamp", "last_updated_at", "nextUpdate", "funding_next_apply")

    def leaf(key: str, value: Any) -> Any:
        is_number = isinstance(value, (int, float)) or (isinstance(value, str) and value[:1] in "-0123456789")
        kept = key in NAMES or key == "t" or key.endswith(times) or isinstance(value, bool) or not is_number
        return value if kept else bad

    _serve_changed(bench.server, leaf)
    bench.poll()
    bench.land()
    for topic in ("prices", "open_interest"):
        found = rows(bench.database_url, f"SELECT * FROM {topic} WHERE venue <> %s", HEALTHY)  # noqa: S608
        # An open interest of zero coins and zero dollars can be true.
        zeros = [r for r in found if r.get("open_interest_base") == 0 and r.get("open_interest_usd") in (0, None)]
        assert found == zeros, topic
    for row in rows(bench.database_url, "SELECT rate FROM funding_rates WHERE venue <> %s", HEALTHY):
        assert bad in (0, -1) and row["rate"] == 0  # noqa: PT018 - a rate of zero is a rate; -1 is none
    assert bench.states()[HEALTHY][0] == "up"


def test_unknown_fields_change_nothing(bench: Bench) -> None:
    def grow(value: Any) -> Any:
        if isinstance(value, dict):
            grown = {name: grow(inner) for name, inner in value.items()}
            keyed = any(isinstance(inner, dict) for inner in value.values())
            return grown if keyed else {**grown, "brandNew": {"nested": [1, None]}}
        return [grow(inner) for inner in value] if isinstance(value, list) else value

    for source in FAULTY:
        bench.server.routes[source] = {path: grow(frame) for path, frame in bench.server.routes[source].items()}
    result = bench.poll()
    assert result.failures == {}
    bench.land()
    assert bench.venues() == {HEALTHY, *FAULTY}


def test_a_venue_whose_clock_runs_ahead_writes_no_row_and_says_why(bench: Bench) -> None:
    ahead = (datetime.now(UTC) + timedelta(minutes=10)).timestamp()

    def leaf(key: str, value: Any) -> Any:
        try:
            is_ms, is_s = 1.7e12 < float(value) < 1.8e12, 1.7e9 < float(value) < 1.8e9
        except (TypeError, ValueError):
            is_iso = isinstance(value, str) and value.endswith("Z") and "T" in value
            return datetime.fromtimestamp(ahead, UTC).isoformat() if is_iso else value
        stamped = int(ahead * 1000) if is_ms else int(ahead) if is_s else value
        return str(stamped) if isinstance(value, str) and (is_ms or is_s) else stamped

    _serve_changed(bench.server, leaf)
    result = bench.poll()
    bench.land()
    stamping = {"binance", "bybit", "okx", "deribit", "bitget", "kraken_futures", "coingecko"}
    assert bench.venues() & stamping == set()
    for source in stamping:
        state, text = bench.states()[source]
        assert state == "degraded"
        assert "clock" in text, f"{source}: {text}"
    assert any("is this machine's clock right?" in problem for problem in result.problems)


def test_empty_lists_are_no_rows_and_no_failure(bench: Bench) -> None:
    empty: dict[str, Any] = {
        "bybit": {"retCode": 0, "result": {"list": []}, "time": 1717228800000},
        "okx": {"code": "0", "data": []},
        "bitget": {"code": "00000", "requestTime": 1717228800000, "data": []},
        "gate": [],
    }
    bench.server.fault = lambda source, _path, _query: Reply(empty[source]) if source in empty else None
    result = bench.poll()
    assert not set(empty) & set(result.failures)
    bench.land()
    assert not set(empty) & bench.venues()
