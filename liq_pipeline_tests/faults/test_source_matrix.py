"""Every source x every fault: what each question to the outside makes of each way to be answered wrongly.

The rows come from the registry: every list, feed, event list and history of every venue, every call of the chain's
readers, every proof-of-reserves file. A source that is added is covered by being added; one without frames fails here.
How a whole installation lives through the faults (states, back-off, other sources) is told in test_live_faults.py,
streams in test_collect_faults.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from liq_pipeline.domain.chains import CHAINS, Chain, chain_of
from liq_pipeline.domain.records import Record
from liq_pipeline.domain.tron_address import base58_of
from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access.http import (
    BadAnswerError,
    HttpClient,
    RefusedError,
    Request,
    SourceError,
    ThrottledError,
    TransientError,
)
from liq_pipeline.sources.chain import ethereum_rpc, etherscan, trongrid, wallet_lists
from liq_pipeline.sources.chain.ethereum import Chunk
from liq_pipeline.sources.live.base import Parse, Reading, Source
from liq_pipeline.sources.live.instruments import Instrument, choose
from liq_pipeline.sources.live.values import UNREADABLE
from liq_pipeline_tests.chain_support import START, FakeChain
from liq_pipeline_tests.contract.test_live_history import ROUTES as FRAMES_OF_THE_PAST
from liq_pipeline_tests.live_support import FRAMES, Reply, VenueServer, venue_server

BLOCK = 1000
"""The first of two blocks of the crafted chain that are read."""
SLOW = 0.4
"""What a request has where the fault is to be slow, in seconds."""
PATIENT = 10.0
FLOWS = {
    name: trongrid if name == trongrid.NAME else etherscan if name.startswith(etherscan.NAME) else ethereum_rpc
    for name in registry.all_flow_venues()
}
"""Every venue of flows on every chain that can be followed."""
FILES = {file.source: file for file in wallet_lists.published_files(datetime(2026, 5, 20, tzinfo=UTC))}
SOURCES = (*registry.SOURCES, *FLOWS, *FILES)
HTML = b"<html><body>Just a moment...</body></html>"
LATER = {"Retry-After": "120"}

FAULTS: dict[str, tuple[Reply, type[SourceError]]] = {
    "timeout": (Reply({}, delay_seconds=2 * SLOW), TransientError),
    "trickle": (Reply({"a": "b" * 200}, trickle_seconds=SLOW / 4), TransientError),
    "reset": (Reply(reset=True), TransientError),
    "truncated": (Reply({"result": "x" * 500}, cut_after=100), TransientError),
    "HTML": (Reply(HTML), BadAnswerError),
    "500": (Reply(HTML, status=500), TransientError),
    "502 without a body": (Reply(b"", status=502), TransientError),
    "503": (Reply({"msg": "busy"}, status=503, headers=LATER), TransientError),
    "429": (Reply(HTML, status=429), ThrottledError),
    "429 with Retry-After": (Reply(HTML, status=429, headers=LATER), ThrottledError),
    "401": (Reply(HTML, status=401), RefusedError),
    "403": (Reply(HTML, status=403), RefusedError),
    "418": (Reply(HTML, status=418), RefusedError),
    "451": (Reply(HTML, status=451), RefusedError),
}
"""Each is known before anything is parsed: the same outcome whatever the question."""
EMPTY: dict[str, Any] = {
    "null": None,
    "an empty object": {},
    "an empty list": [],
    "a text": "maintenance",
    "null inside": {
        "data": None,
        "result": None,
        "code": "0",
        "retCode": 0,
        "historicalFunding": None,
        "markets": None,
    },
    "half of an answer": b'{"code": "0", "data": [{"instId": "BTC-US',
}
"""Decoded and worthless: no record, whether the parser says so or finds nothing."""


@dataclass(frozen=True)
class Question:
    """One thing that is asked of a source. ask: (base URL, seconds of patience) -> what was made of the answer."""

    source: str
    name: str
    ask: Callable[[str, float], Sequence[Any]]
    is_framed: bool = True
    """Whether the frames, or the crafted chain, hold an answer to it."""


def http_of(name: str, url: str, seconds: float = PATIENT) -> HttpClient:
    classify = registry.SOURCES[name].classify if name in registry.SOURCES else None
    if name in FLOWS:
        classify = FLOWS[name].classify
    return HttpClient(name, url, request_seconds=seconds, classify=classify)


def asked(
    name: str,
    request: Request,
    read: Callable[[Any, datetime, datetime], Sequence[Any]],
    url: str,
    seconds: float,
) -> Sequence[Any]:
    http = http_of(name, url, seconds)
    try:
        answer = http.ask(request, attempts=1)
        return read(answer.payload, answer.sent_at, answer.received_at)
    finally:
        http.close()


def venue_questions(source: Source, instruments: Sequence[Instrument]) -> Iterator[Question]:
    now = datetime.now(UTC)
    assert instruments or source.instruments is None, f"the frames of {source.name} list no BTC"

    def parsed(parse: Parse, instrument: Instrument | None) -> Callable[[Any, datetime, datetime], Sequence[Any]]:
        def read(payload: Any, sent_at: datetime, received_at: datetime) -> Sequence[Any]:
            known = {one.native: one for one in instruments}
            reading = Reading(source.name, sent_at, received_at, known, instrument)
            parse(payload, reading)
            return reading.records

        return read

    for number, request in enumerate(source.instruments.requests if source.instruments else ()):
        lists = source.instruments
        assert lists is not None
        if len(lists.requests) == 1:
            yield Question(
                source.name,
                f"list of instruments {number}",
                lambda url, seconds, request=request, lists=lists: asked(  # type: ignore[misc]
                    source.name, request, lambda payload, _sent, _got: list(lists.parse([payload])), url, seconds
                ),
            )
    for feed in (*source.feeds, *source.event_feeds):
        group = instruments[:1] if feed.per_symbol else instruments
        request, read = feed.request(group, now), parsed(feed.parse, group[0] if feed.per_symbol else None)
        yield Question(
            source.name,
            feed.name,
            lambda url, seconds, request=request, read=read: asked(source.name, request, read, url, seconds),  # type: ignore[misc]
        )
    for history in source.histories:
        request = history.request(instruments[0], now - timedelta(hours=2), now)
        read = parsed(history.parse, instruments[0])
        yield Question(
            source.name,
            f"history of {history.name}",
            lambda url, seconds, request=request, read=read: asked(source.name, request, read, url, seconds),  # type: ignore[misc]
        )


def chain_questions(name: str) -> Iterator[Question]:
    def with_reader(work: Callable[[Any], Any]) -> Callable[[str, float], Sequence[Any]]:
        def ask(url: str, seconds: float) -> Sequence[Any]:
            http = http_of(name, url, seconds)
            try:
                return [work(registry.flow_reader(http, lambda _costs: None, None))]
            finally:
                http.close()

        return ask

    yield Question(name, "head", with_reader(lambda reader: reader.head()))
    yield Question(name, "block", with_reader(lambda reader: reader.block(BLOCK)))
    yield Question(name, "transfers", with_reader(lambda reader: reader.read(reader.chain.tokens, BLOCK, BLOCK + 1)))


def file_questions(name: str) -> Iterator[Question]:
    file = FILES[name]
    yield Question(
        name,
        "proof of reserves",
        lambda url, seconds: asked(
            name, file.request, lambda payload, _sent, _got: file.read(payload)[0], url, seconds
        ),
        is_framed=False,
    )


def instruments_of(server: VenueServer, source: Source) -> Sequence[Instrument]:
    if source.instruments is None:
        return ()
    http = http_of(source.name, server.url(source.name))
    try:
        payloads = [http.ask(request).payload for request in source.instruments.requests]
        return choose(source.instruments.parse(payloads), ("BTC",))
    finally:
        http.close()


@pytest.fixture(scope="module")
def server() -> Iterator[VenueServer]:
    with venue_server(*registry.SOURCES) as running:
        for name, routes in FRAMES_OF_THE_PAST.items():
            running.routes[name] |= routes
        yield running


def crafted_chain(of: Chain) -> FakeChain:
    chain = FakeChain(of)
    user, exchange = "0x" + "11" * 20, "0x28c6c06298d514db089934071355e5743bf21d60"
    if of.is_tron:
        user, exchange = base58_of(user), base58_of(exchange)
    for number in range(BLOCK - 1000 + 2):
        chain.add(
            *[(token, user, exchange, "250000.5") for token in of.tokens], time=START + number * timedelta(hours=1)
        )
    return chain


CRAFTED = {name: crafted_chain(chain) for name, chain in CHAINS.items()}


def as_framed(server: VenueServer, source: str, path: str, query: dict[str, str]) -> Reply:
    """What is answered when all is well."""
    body = query.get("body")
    if source in FLOWS:
        chain = CRAFTED[chain_of(source)]
        if FLOWS[source] is trongrid:
            return Reply(chain.trongrid(path, query))
        if FLOWS[source] is etherscan:
            return Reply(chain.etherscan(query))
        return Reply(chain.rpc(json.loads(body or "null")))
    decoded = json.loads(body) if body is not None else None
    kind = decoded.get("type", decoded.get("method")) if isinstance(decoded, dict) else None
    return server.answer(source, path, query, kind)


@pytest.fixture(params=SOURCES)
def questions(request: pytest.FixtureRequest, server: VenueServer) -> list[Question]:
    server.fault = lambda source, path, query: as_framed(server, source, path, query)
    name: str = request.param
    if name in FLOWS:
        return list(chain_questions(name))
    if name in FILES:
        return list(file_questions(name))
    source = registry.SOURCES[name]
    if source.instruments is None:  # CoinGecko finds its coins by name
        return list(venue_questions(source, [Instrument("BTC", "bitcoin", 1.0)]))
    return list(venue_questions(source, instruments_of(server, source)))


def outcome(question: Question, url: str, seconds: float = PATIENT) -> SourceError | Sequence[Any] | None:
    """The error that a source's caller sees, or the records; None where the answer is told to be unreadable."""
    try:
        return question.ask(url, seconds)
    except SourceError as error:
        return error
    except UNREADABLE:
        return None


def test_each_question_has_an_answer_when_all_is_well(server: VenueServer, questions: list[Question]) -> None:
    """Else the rest of this file would prove nothing."""
    assert questions
    for question in questions:
        if question.is_framed:
            found = outcome(question, server.url(question.source))
            assert isinstance(found, Sequence) and found, f"{question.source} {question.name}: {found}"  # noqa: PT018


def test_each_fault_has_its_outcome_and_writes_nothing(server: VenueServer, questions: list[Question]) -> None:
    wrong: list[str] = []
    for fault, (reply, expected) in FAULTS.items():
        server.fault = lambda _source, _path, _query, reply=reply: reply  # type: ignore[misc]
        seconds = SLOW if fault in ("timeout", "trickle") else PATIENT
        with ThreadPoolExecutor(max_workers=len(questions)) as executor:
            found = list(executor.map(lambda q, seconds=seconds: outcome(q, server.url(q.source), seconds), questions))
        for question, what in zip(questions, found, strict=True):
            is_right = isinstance(what, expected)
            if fault == "429 with Retry-After" and isinstance(what, SourceError):
                is_right = is_right and what.retry_after_seconds == 120.0
            if not is_right:
                wrong.append(f"{question.source} {question.name}, {fault}: {type(what).__name__} {what}")
    assert wrong == []


def test_empty_answers_are_no_records(server: VenueServer, questions: list[Question]) -> None:
    wrong: list[str] = []
    for name, body in EMPTY.items():
        server.fault = lambda _source, _path, _query, body=body: Reply(body)  # type: ignore[misc]
        for question in questions:
            what = outcome(question, server.url(question.source))
            is_nothing = what is None or isinstance(what, SourceError) or len(what) == 0
            if not is_nothing:
                wrong.append(f"{question.source} {question.name}, {name}: {what}")
    assert wrong == []


def test_unknown_fields_change_no_record(server: VenueServer, questions: list[Question]) -> None:
    plain = {q.name: outcome(q, server.url(q.source)) for q in questions if q.is_framed}
    assert [name for name, found in plain.items() if not isinstance(found, Sequence)] == []

    def grow(value: Any) -> Any:
        if isinstance(value, dict):
            grown = {name: grow(inner) for name, inner in value.items()}
            # An object whose values are objects is a table by name: a new entry would be a new coin.
            is_table = any(isinstance(inner, dict) for inner in value.values())
            return grown if is_table else {**grown, "brandNew": {"nested": [1, None]}}
        return [grow(inner) for inner in value] if isinstance(value, list) else value

    def grown(source: str, path: str, query: dict[str, str]) -> Reply:
        return Reply(grow(as_framed(server, source, path, query).body))

    server.fault = grown
    for question in questions:
        if question.is_framed:
            again = outcome(question, server.url(question.source))
            before = plain[question.name]
            assert isinstance(again, Sequence)
            assert isinstance(before, Sequence)
            assert [_figures(record) for record in again] == [_figures(record) for record in before], question.name


def _figures(record: Any) -> Any:
    """Without the times of this very request."""
    if isinstance(record, Chunk):
        return record.transfers, record.blocks
    if not isinstance(record, msgspec.Struct):
        return record
    return {
        name: getattr(record, name)
        for name in record.__struct_fields__
        if name != "received_at" and not (name in ("event_time", "known_at") and record.event_time_source == "local")
    }


def test_a_clock_that_runs_ahead_writes_no_record_of_the_future(server: VenueServer, questions: list[Question]) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=10)

    def shift(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shift(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [shift(inner) for inner in value]
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, str) and value.endswith("Z") and "T" in value:
            return ahead.isoformat().replace("+00:00", "Z")
        if isinstance(value, str) and value.startswith("0x"):
            return hex(int(ahead.timestamp())) if len(value) == 10 and 1.6e9 < int(value, 16) < 2e9 else value
        try:
            number = float(value)
        except (TypeError, ValueError):
            return value
        moved = ahead.timestamp() * 1000 if 1.6e12 < number < 2e12 else ahead.timestamp() if 1.6e9 < number < 2e9 else 0
        return value if not moved else str(int(moved)) if isinstance(value, str) else int(moved)

    def skewed(source: str, path: str, query: dict[str, str]) -> Reply:
        return Reply(shift(as_framed(server, source, path, query).body))

    server.fault = skewed
    limit = datetime.now(UTC) + timedelta(seconds=60)
    for question in questions:
        if not question.is_framed:
            continue
        what = outcome(question, server.url(question.source))
        records = what if isinstance(what, Sequence) else []
        assert [r for r in records if isinstance(r, Record) and r.event_time > limit] == [], question.name
        if question.name == "transfers":  # blocks of the future date rows: none of them is taken
            assert isinstance(what, BadAnswerError)
            assert "clock" in what.reason


def test_every_source_has_frames() -> None:
    assert {name for name in registry.SOURCES if not (FRAMES / f"{name}.json").exists()} == set()


def test_the_chain_is_read_by_one_of_these(settings: Callable[..., Settings]) -> None:
    """Every venue of flows that settings can choose is in the matrix."""
    assert registry.flow_source(settings(ETHERSCAN_API_KEY="key")) in FLOWS
    assert registry.flow_source(settings(ethereum_rpc_url="http://127.0.0.1:1")) in FLOWS
    every = settings(ETHERSCAN_API_KEY="key", flow_chains=tuple(name for name in CHAINS))
    assert {*registry.flow_sources(every)} <= FLOWS.keys()
    assert registry.flow_sources(settings()) == ()
