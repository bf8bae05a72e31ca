"""Healing: find the holes, load what venues still serve, and score again what the holes had touched.

Belongs here: the order of a healing and what becomes of each gap. Does not: finding holes
(store/completeness/gap_search.py), the ledger (store/completeness/gaps.py), pages of history
(sources/history/pages.py), formulas, when it runs (defs/heavy/healing.py).

Each step stands in the tables when it is done, so a healing that dies anywhere is taken up by the next one:
1. search the series since the last search; what is missing becomes an open gap, with its cause;
2. ask each source for the rows inside its open gaps, send them to Kafka as archive records and land them;
3. look again: a gap whose rows are in the table is healed; what the venue does not serve is permanent, with the reason;
   what could not be asked stays open;
4. the scores in and after a healed gap get a new revision (pipeline/rescore_holes.py).
Only the real world has venues to ask.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

import psycopg

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.records import Record
from liq_pipeline.domain.worlds import World
from liq_pipeline.pipeline.rescore_holes import Rescored, Span, rescore_holes
from liq_pipeline.pipeline.tick import LANDING_CONSUMER
from liq_pipeline.scoring.model import ProbabilityModel
from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access.http import SourceError
from liq_pipeline.sources.access.limits import BudgetError
from liq_pipeline.sources.history.pages import HistoryReader, Publisher, floor_to_step
from liq_pipeline.sources.live.base import History, Source
from liq_pipeline.store import worlds
from liq_pipeline.store.completeness import gaps
from liq_pipeline.store.completeness.gap_search import Hole, Series, earliest_late_row, find_holes
from liq_pipeline.store.completeness.gaps import Gap, StoredGap
from liq_pipeline.store.connection import connect
from liq_pipeline.store.inputs.expected_sources import scope_of
from liq_pipeline.store.landing.lander import Lander

log = logging.getLogger(__name__)

FIRST_LOOK_BACK: Final = timedelta(days=2)
"""How far back the very first search goes; every later one goes on where the last ended."""
SETTLING: Final = timedelta(minutes=1)
"""The newest rows may still be on their way through Kafka: the search ends so long before now."""
LAND_SECONDS: Final = 120.0
SERIES_TOPICS: Final = ("prices", "funding_rates", "open_interest", "long_short_ratio")
KINDS: Final[dict[str, tuple[str | None, ...]]] = {
    "funding_rates": ("predicted", "settled"),
    "long_short_ratio": ("accounts", "top_accounts", "top_positions", "taker"),
}

STOPPED: Final = "this system was not running"
SILENT: Final = "no value came from the venue"
NOT_SERVED: Final = "the venue serves no history of this"
NOTHING_THERE: Final = "the venue's history has nothing there"
NOT_LISTED: Final = "the venue does not list this coin any more"
NOT_IN_FORCE: Final = "the venue is not among LIQ_VENUES any more"
PAST_LIQUIDATIONS: Final = "no venue serves past liquidations beyond what its list showed when it was read"
LOG_IS_GONE: Final = (
    "Kafka does not hold these messages any more, or they cannot be read; what venues still serve of that time is "
    "healed series by series"
)


@dataclass
class HealResult:
    """What a healing did. failures: {source: reason}, whose gaps stay open; rescored: None if no score was touched."""

    found: int = 0
    records: dict[str, int] = field(default_factory=dict)
    """{"venue history": rows sent to Kafka}"""
    healed: int = 0
    permanent: int = 0
    left_open: int = 0
    rescored: Rescored | None = None
    failures: dict[str, str] = field(default_factory=dict)
    skipped: str | None = None

    def __str__(self) -> str:
        if self.skipped:
            return f"Nothing was healed: {self.skipped}."
        told = f"{self.found} new holes; {self.healed} healed, {self.permanent} cannot be, {self.left_open} stay open"
        return f"{told}; {self.rescored}" if self.rescored else told


def search(settings: Settings, conn: psycopg.Connection[Any], now: datetime) -> int:
    """Write the holes that ended since the last search into the ledger; how many are new. Commits."""
    world = worlds.active(conn)
    if world is None or not world.is_real:
        return 0
    until = now - SETTLING
    since = gaps.checked_until(conn, world.name) or until - FIRST_LOOK_BACK
    found: list[Hole] = []
    for topic, series in groupby(_expected_series(settings, world), key=lambda one: one.topic):
        late = earliest_late_row(conn, world.name, topic, since, since - SETTLING)
        begin = since if late is None else late - timedelta(microseconds=1)
        found += find_holes(conn, world.name, list(series), world.manifest.symbols, begin, until)
    new = gaps.record_new(conn, [_gap_of(hole, world.name, _cause(conn, world.name, hole)) for hole in found])
    gaps.set_checked_until(conn, world.name, until)
    conn.commit()
    return new


def is_due(settings: Settings, conn: psycopg.Connection[Any], now: datetime) -> bool:
    """Search, and tell whether a healing would have anything to do. Commits."""
    search(settings, conn, now)
    world = worlds.active(conn)
    if world is None or not world.is_real:
        return False
    return bool(gaps.unhealed(conn, world.name) or gaps.healed_but_not_rescored(conn, world.name))


def heal(
    settings: Settings,
    database_url: str,
    bootstrap_servers: str,
    now: datetime | None = None,
    *,
    load_model: Callable[[psycopg.Connection[Any]], ProbabilityModel | None] = lambda conn: None,
) -> HealResult:
    """One healing of the real world. Raises LandingError, PublishError or psycopg.Error; what is done stays done.

    Two healings never run at once: the second returns with `skipped`. A source's failure leaves its gaps open.
    """
    moment = datetime.now(UTC) if now is None else now
    result = HealResult()
    with connect(database_url, application_name="liq heal") as conn:
        world = worlds.active(conn)
        if world is None or not world.is_real:
            result.skipped = "only the real world has venues that can be asked again"
            return result
        held = conn.execute("SELECT pg_try_advisory_lock(hashtext('liq_pipeline heal'))").fetchone()
        conn.commit()
        if not (held and held[0]):
            result.skipped = "another healing is at work"
            return result
        result.found = search(settings, conn, moment)
        unhealed = gaps.unhealed(conn, world.name)
        result.permanent += _close_what_nobody_serves(conn, unhealed)
        open_gaps = [gap for gap in gaps.unhealed(conn, world.name) if gap.topic in SERIES_TOPICS]
        conn.commit()
        asked = _load(settings, database_url, bootstrap_servers, open_gaps, moment, result)
        if result.records:
            servers, prefix = bootstrap_servers, settings.kafka_topic_prefix
            with Lander(database_url, servers, prefix, consumer=LANDING_CONSUMER) as lander:
                has_landed = lander.land_to_end(LAND_SECONDS).reached_end
            if not has_landed:
                # What was asked for is on its way: judged now, the venues would seem to have had nothing.
                result.left_open = len(open_gaps)
                result.failures["landing"] = (
                    f"Kafka holds more than landed within {LAND_SECONDS:g} s: the next healing looks at the holes again"
                )
                open_gaps = []
        for gap in open_gaps:
            _settle(conn, settings, world, gap, asked.get(gap.gap_id), moment, result)
            conn.commit()
        healed = gaps.healed_but_not_rescored(conn, world.name)
        conn.commit()
        if healed:
            spans = [Span(gap.symbol, *_times(gap)) for gap in healed]
            result.rescored = rescore_holes(database_url, settings, world, spans, moment, load_model=load_model)
            gaps.mark_rescored(conn, [gap.gap_id for gap in healed])
            conn.commit()
    return result


@dataclass(frozen=True)
class _Asked:
    """What became of one gap's question. reason: why nothing was asked; failed: the source did not answer."""

    history: History | None = None
    reason: str | None = None
    failed: bool = False


def _load(
    settings: Settings,
    database_url: str,
    bootstrap_servers: str,
    open_gaps: Sequence[StoredGap],
    now: datetime,
    result: HealResult,
) -> dict[int, _Asked]:
    """Send what the sources still serve of the gaps to Kafka, all sources at once; what became of each gap."""
    in_force = {source.name: source for source in registry.sources_in_force(settings)}
    by_source: dict[str, list[StoredGap]] = {}
    asked: dict[int, _Asked] = {}
    for gap in open_gaps:
        if gap.venue in in_force:
            by_source.setdefault(gap.venue, []).append(gap)
        else:
            asked[gap.gap_id] = _Asked(reason=NOT_IN_FORCE)
    if not by_source:
        return asked
    prefix = settings.kafka_topic_prefix
    with (
        RecordProducer(bootstrap_servers, prefix, client_id="liq-heal") as producer,
        ThreadPoolExecutor(max_workers=len(by_source), thread_name_prefix="heal") as executor,
    ):
        publisher = Publisher(producer)

        def of_source(name: str) -> dict[int, _Asked]:
            return _load_source(in_force[name], settings, database_url, publisher, by_source[name], now, result)

        for answers in executor.map(of_source, by_source):
            asked |= answers
    return asked


def _load_source(
    source: Source,
    settings: Settings,
    database_url: str,
    publisher: Publisher,
    open_gaps: Sequence[StoredGap],
    now: datetime,
    result: HealResult,
) -> dict[int, _Asked]:
    asked: dict[int, _Asked] = {}
    served: dict[tuple[str, str], list[StoredGap]] = {}
    histories = {history.name: history for history in source.histories}
    for gap in open_gaps:
        history = next((h for h in source.histories if h.serves(gap.topic or "", gap.kind)), None)
        if history is None:
            asked[gap.gap_id] = _Asked(reason=NOT_SERVED)
        else:
            served.setdefault((history.name, gap.symbol or ""), []).append(gap)
    if not served:
        return asked
    reader = HistoryReader(source, settings, database_url)
    try:
        instruments = {instrument.symbol: instrument for instrument in reader.instruments()}
        for (name, symbol), of_series in served.items():
            history = histories[name]
            if symbol not in instruments:
                asked |= {gap.gap_id: _Asked(reason=NOT_LISTED) for gap in of_series}
                continue
            spans = [_times(gap) for gap in of_series]

            def is_wanted(start: datetime, end: datetime, spans: Sequence[tuple[datetime, datetime]] = spans) -> bool:
                return any(first < end and start < last for first, last in spans)

            def take(
                records: list[Record],
                name: str = name,
                spans: Sequence[tuple[datetime, datetime]] = spans,
            ) -> None:
                kept = [r for r in records if any(first < r.event_time < last for first, last in spans)]
                if kept:
                    publisher.publish(kept)
                    key = f"{source.name} {name}"
                    result.records[key] = result.records.get(key, 0) + len(kept)

            # One row with a stamp of years ago makes a hole of years: what the venue does not serve is not asked for.
            first = max(floor_to_step(min(start for start, _ in spans), history.step), _served_from(history, now))
            last = floor_to_step(max(end for _, end in spans), history.step) + history.step
            reader.pages(history, instruments[symbol], first, last, is_wanted, take)
            asked |= {gap.gap_id: _Asked(history=history) for gap in of_series}
    except (SourceError, BudgetError) as error:
        result.failures[source.name] = str(error)
        log.warning("holes of %s stay open and are tried again: %s", source.name, error)
    finally:
        reader.close()
    left = {gap.gap_id: _Asked(failed=True) for gap in open_gaps}
    return left | asked


def _settle(
    conn: psycopg.Connection[Any],
    settings: Settings,
    world: World,
    gap: StoredGap,
    asked: _Asked | None,
    now: datetime,
    result: HealResult,
) -> None:
    """Healed as far as its rows are in the table, permanent where nothing more can come, open otherwise."""
    start, end = _times(gap)
    series = _series_of(settings, world, gap.venue or "", gap.topic or "", gap.kind)
    left = find_holes(conn, world.name, [series], [gap.symbol or ""], start, end)
    missing = [(max(hole.from_time, start), min(hole.to_time, end)) for hole in left]
    if asked is not None and asked.history is not None:
        missing = _cut_at(_served_from(asked.history, now), missing)
    parts = _parts(start, end, missing)
    for number, (first, last, is_missing) in enumerate(parts):
        number_of_gap = gap.gap_id
        if number == 0:
            if len(parts) > 1:
                gaps.narrow(conn, gap.gap_id, first, last)
        else:
            part = gaps.series_gap(
                world.name, gap.venue or "", gap.topic or "", gap.symbol, first, last, gap.cause, kind=gap.kind
            )
            number_of_gap = gaps.record(conn, part)
        if not is_missing:
            gaps.mark_healed(conn, number_of_gap)
            result.healed += 1
        elif (reason := None if asked is None else _why_never(asked, end, start, now, last)) is not None:
            gaps.mark_permanent(conn, number_of_gap, reason)
            result.permanent += 1
        else:
            result.left_open += 1


def _served_from(history: History, now: datetime) -> datetime:
    """The first row that the venue still serves of it; nothing before is asked for."""
    return floor_to_step(now - history.reaches_back, history.step) + history.step


def _cut_at(moment: datetime, missing: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """The same stretches, the one that the moment lies in as two: of its halves there is a different thing to say."""
    cut = []
    for first, last in missing:
        cut += [(first, moment), (moment, last)] if first < moment < last else [(first, last)]
    return cut


def _why_never(asked: _Asked, end: datetime, start: datetime, now: datetime, missing_to: datetime) -> str | None:
    """Why what is still missing of the gap, up to missing_to, will never come; None: it may."""
    if asked.failed:
        return None
    if asked.history is None:
        return asked.reason
    history = asked.history
    if now < end + history.declared_delay + 2 * history.step:
        return None  # the venue may not have published it yet
    if end - start < history.step:
        return f"shorter than the {history.step.total_seconds() / 60:g} min between two values of the venue's history"
    if missing_to <= _served_from(history, now):
        return f"older than the {history.reaches_back.days} days that the venue serves"
    return NOTHING_THERE


def _close_what_nobody_serves(conn: psycopg.Connection[Any], unhealed: Sequence[StoredGap]) -> int:
    closed = 0
    for gap in unhealed:
        if gap.source.startswith("kafka:"):
            reason = LOG_IS_GONE
        elif gap.topic == "liquidations":
            reason = PAST_LIQUIDATIONS
        else:
            continue
        gaps.mark_permanent(conn, gap.gap_id, reason)
        closed += 1
    return closed


def _expected_series(settings: Settings, world: World) -> list[Series]:
    return [
        _series_of(settings, world, venue, topic, kind)
        for topic in SERIES_TOPICS
        if topic in world.manifest.expected
        for venue in world.manifest.expected[topic].venues
        for kind in KINDS.get(topic, (None,))
    ]


def _series_of(settings: Settings, world: World, venue: str, topic: str, kind: str | None) -> Series:
    scope = scope_of(world, settings.risk)
    fresh = timedelta(microseconds=scope.max_age_us.get(topic, {}).get(venue, 0))
    source = registry.SOURCES.get(venue)
    history = next((h for h in source.histories if h.serves(topic, kind)), None) if source is not None else None
    # A step and a half: venues stamp their history to the step, give or take.
    step = timedelta(0) if history is None else history.step * 1.5
    return Series(venue, topic, kind, live_limit=fresh, archive_limit=step)


def _gap_of(hole: Hole, world: str, cause: str) -> Gap:
    series = hole.series
    return gaps.series_gap(
        world, series.venue, series.topic, hole.symbol, hole.from_time, hole.to_time, cause, kind=series.kind
    )


def _cause(conn: psycopg.Connection[Any], world: str, hole: Hole) -> str:
    # A tick that was started inside the hole: the system ran. Points inside it may have been scored afterwards.
    ran = conn.execute(
        "SELECT FROM ticks WHERE world = %(world)s AND stream = 'market' AND time > %(first)s AND time <= %(last)s"
        " AND started_at > %(first)s AND started_at < %(last)s LIMIT 1",
        {"world": world, "first": hole.from_time, "last": hole.to_time},
    ).fetchone()
    return STOPPED if ran is None else SILENT


def _times(gap: StoredGap) -> tuple[datetime, datetime]:
    if gap.from_time is None or gap.to_time is None:
        raise ValueError(f"gap {gap.gap_id} of {gap.source} has no span in time")
    return gap.from_time, gap.to_time


def _parts(
    start: datetime, end: datetime, missing: Sequence[tuple[datetime, datetime]]
) -> list[tuple[datetime, datetime, bool]]:
    """start..end cut at the edges of what is missing: (from, to, whether it is missing), in order."""
    parts: list[tuple[datetime, datetime, bool]] = []
    at = start
    for first, last in missing:
        if at < first:
            parts.append((at, first, False))
        parts.append((first, last, True))
        at = last
    if at < end or not parts:
        parts.append((at, end, False))
    return parts
