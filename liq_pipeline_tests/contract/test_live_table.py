"""The table of docs/sources.md is the registry's, and every cell of it has a test by value or a stated reason."""

from __future__ import annotations

import re

import pytest

from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.sources.live.base import Feed, Source
from liq_pipeline.sources.registry import SOURCES
from liq_pipeline_tests.conftest import REPOSITORY
from liq_pipeline_tests.contract import test_live_history as history
from liq_pipeline_tests.contract import test_live_liquidations as liquidations
from liq_pipeline_tests.contract import test_live_venues as venues

PAGE = (REPOSITORY / "docs" / "sources.md").read_text()
EMPTY = "\u2013"
COLUMNS = (
    "prices",
    "predicted funding",
    "settled funding",
    "open interest",
    "long/short",
    "liquidations",
    "history by REST",
)


def _table(heading: str) -> list[list[str]]:
    """The rows under a heading, without the header."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


OFFERED = {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in _table("What each offers")}
LEFT_OUT = {(source, column) for row in _table("What is left out, and why") for source in row[0].split(", ")
            for column in row[1].split(", ")}  # fmt: skip


def _feeds(source: Source, topic: str) -> list[Feed]:
    return [feed for feed in (*source.feeds, *source.event_feeds) if topic in feed.topics]


def offered(source: Source) -> dict[str, bool]:
    """What the source's module declares, by column."""
    funding = {feed.name for feed in _feeds(source, "funding_rates")}
    return {
        "prices": bool(_feeds(source, "prices")),
        "predicted funding": bool(funding - {"settled_funding"}),
        "settled funding": "settled_funding" in funding,
        "open interest": bool(_feeds(source, "open_interest")),
        "long/short": bool(_feeds(source, "long_short_ratio")),
        "liquidations": bool(_feeds(source, "liquidations")) or source.stream is not None,
        "history by REST": bool(source.histories),
    }


TESTED = {
    "prices": set(venues.PRICES),
    "predicted funding": set(venues.PREDICTED),
    "settled funding": set(venues.SETTLED),
    "open interest": set(venues.OPEN_INTEREST),
    "long/short": set(venues.LONG_SHORT),
    "liquidations": set(liquidations.EXPECTED),
    "history by REST": set(history.EXPECTED),
}
"""Column -> sources whose values a test asserts after source, Kafka and landing."""


def test_the_page_names_every_source_and_no_other() -> None:
    assert set(OFFERED) == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_a_sources_row_says_what_its_module_declares(name: str) -> None:
    assert {column: cell != EMPTY for column, cell in OFFERED[name].items()} == offered(SOURCES[name])


@pytest.mark.parametrize("name", SOURCES)
def test_every_cell_has_values_that_a_test_asserts(name: str) -> None:
    untested = [
        column for column, is_there in offered(SOURCES[name]).items() if is_there and name not in TESTED[column]
    ]
    assert untested == []


@pytest.mark.parametrize("name", SOURCES)
def test_every_empty_cell_has_its_reason(name: str) -> None:
    empty = {(name, column) for column, cell in OFFERED[name].items() if cell == EMPTY}
    assert empty == {(source, column) for source, column in LEFT_OUT if source == name}


@pytest.mark.parametrize("name", SOURCES)
def test_what_scoring_may_expect_is_what_the_feeds_bring(name: str) -> None:
    source = SOURCES[name]
    streamed = {"liquidations"} if source.stream is not None else set()
    brought = streamed | {topic for feed in (*source.feeds, *source.event_feeds) for topic in feed.topics}
    assert set(source.offers) <= set(IN_TOPICS)
    # CoinGecko brings prices too slowly to be expected at the venues' cadence.
    assert set(source.offers) == (brought if name != "coingecko" else set())


@pytest.mark.parametrize("name", venues.LONG_SHORT)
def test_every_kind_of_ratio_is_tested(name: str) -> None:
    assert len(venues.LONG_SHORT[name]) >= len(_feeds(SOURCES[name], "long_short_ratio"))


@pytest.mark.parametrize("name", history.EXPECTED)
def test_every_series_of_the_past_is_tested(name: str) -> None:
    assert set(history.EXPECTED[name]) == {series.name for series in SOURCES[name].histories}
