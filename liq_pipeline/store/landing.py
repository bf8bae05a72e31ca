"""Landing: from Kafka to the tables, each message exactly once.

Belongs here: the order of a batch's steps, its one transaction, retries, and the isolation of poison messages.
Does not: how a row is written (landing_write.py), where landing stands (landing_offsets.py), decoding (bus/codec.py).

One batch is one transaction, in this order:
1. read messages from Kafka and decode them; what cannot be believed becomes a dead letter;
2. lock the offset rows of the partitions read, which makes writers take turns, and compare: what another worker has
   landed meanwhile is dropped from the batch, and if landing was set back the batch is given up;
3. COPY, insert on conflict, conflicts; dead letters; watermarks; heartbeats;
4. store the next offsets and the counters; commit.
Kafka is told nothing: the database is the truth. A process that dies anywhere leaves the whole batch or nothing, and
natural keys make even a lost offset row cost time, not correctness.

A failure of the server or the connection is tried again a few times with a fresh connection and then raised, with
nothing lost. Only an error that the server blames on the data (a value out of range, a violated constraint) makes the
batch be cut in halves until the poison messages stand alone; those become dead letters and the rest lands.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import psycopg

from liq_pipeline.bus.codec import DecodeError, decode
from liq_pipeline.bus.reader import (
    REQUEST_TIMEOUT_SECONDS,
    OffsetsGoneError,
    Partition,
    TopicReader,
    UnreadableError,
)
from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.domain.records import Watermark
from liq_pipeline.errors import LiqError
from liq_pipeline.store import dead_letters, landing_offsets, landing_write
from liq_pipeline.store.connection import connect
from liq_pipeline.store.dead_letters import DeadLetter, pack_headers
from liq_pipeline.store.landing_offsets import Standing
from liq_pipeline.store.landing_tables import TABLES, LandingTable, Row

log = logging.getLogger(__name__)

MAX_RECORDS: Final = 10_000
"""Messages per transaction: large enough that the commit's cost vanishes, small enough to finish within a second."""

BACKOFF_SECONDS: Final = (0.1, 0.5, 2.0)
"""Between attempts: a deadlock is gone at once, a restarted PostgreSQL answers within seconds."""

_POLL_SECONDS: Final = 0.2

Connection = psycopg.Connection[Any]
T = TypeVar("T")


class LandingError(LiqError):
    """Landing cannot go on; nothing is lost, and one sentence says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class LandResult:
    """What landing did. All counts are of messages; read = landed + duplicates + conflicts + dead + control."""

    read: int = 0
    landed: dict[str, int] = field(default_factory=dict)
    """By topic: observation rows that are new, corrected or marked orphaned."""
    duplicates: int = 0
    conflicts: int = 0
    dead: int = 0
    heartbeats: int = 0
    watermarks: int = 0
    late: dict[str, int] = field(default_factory=dict)
    """By world: landed rows that had been known before the world's last committed market tick."""
    gaps: int = 0
    notices: tuple[str, ...] = ()
    batches: int = 0
    reached_end: bool = False
    """land_to_end: everything that was in Kafka when it started has been dealt with."""
    duration_seconds: float = 0.0

    @property
    def rows_landed(self) -> int:
        """Observation rows over all topics."""
        return sum(self.landed.values())

    def __add__(self, other: LandResult) -> LandResult:
        return LandResult(
            read=self.read + other.read,
            landed=dict(Counter(self.landed) + Counter(other.landed)),
            duplicates=self.duplicates + other.duplicates,
            conflicts=self.conflicts + other.conflicts,
            dead=self.dead + other.dead,
            heartbeats=self.heartbeats + other.heartbeats,
            watermarks=self.watermarks + other.watermarks,
            late=dict(Counter(self.late) + Counter(other.late)),
            gaps=self.gaps + other.gaps,
            notices=self.notices + other.notices,
            batches=self.batches + other.batches,
            reached_end=self.reached_end or other.reached_end,
            duration_seconds=self.duration_seconds + other.duration_seconds,
        )


@dataclass
class _Batch:
    """Decoded messages of one poll and the span of offsets they cover."""

    messages: dict[Partition, list[Any]]
    """kafka-python ConsumerRecords, in offset order"""
    starts: dict[Partition, int]
    """The position each partition was read from; the next offset that its first message follows."""
    ends: dict[Partition, int] = field(default_factory=dict)
    rows: dict[tuple[LandingTable, str], list[Row]] = field(default_factory=dict)
    """(table, topic) -> rows in order of delivery"""
    watermarks: dict[tuple[str, str, int], datetime] = field(default_factory=dict)
    """(world, topic, partition) -> the greatest"""
    watermark_count: int = 0
    dead: list[tuple[Any, str, str, str]] = field(default_factory=list)
    """(message, topic, reason_code, reason)"""

    @property
    def read(self) -> int:
        return sum(map(len, self.messages.values()))


@dataclass
class _Tally:
    """Counts of one transaction."""

    landed: Counter[Partition] = field(default_factory=Counter)
    duplicates: Counter[Partition] = field(default_factory=Counter)
    conflicts: Counter[Partition] = field(default_factory=Counter)
    dead: Counter[Partition] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    """Landed observations by topic."""
    heartbeats: int = 0
    late: Counter[str] = field(default_factory=Counter)
    letters: list[DeadLetter] = field(default_factory=list)

    def add(self, table: LandingTable, topic: str, outcome: landing_write.Outcome) -> None:
        """Take over what became of some rows of one topic."""
        for counter, counts in (
            (self.landed, outcome.landed),
            (self.duplicates, outcome.duplicates),
            (self.conflicts, outcome.conflicts),
        ):
            for number, count in counts.items():
                counter[Partition(topic, number)] += count
        if table.name == topic:
            self.rows[topic] += outcome.landed.total()
        else:
            self.heartbeats += outcome.landed.total()
        self.late.update(outcome.late)


class _MovedError(Exception):
    """The stored offsets are not where this lander left them: look again where landing stands."""


class Lander:
    """Lands the in-topics of one Kafka cluster into one database. One thread at a time; use as a context manager.

    consumer: the name under which offsets are kept. partitions: the partition numbers of every topic that this worker
    lands; all by default. Several workers may share the partitions or split them.
    """

    def __init__(
        self,
        database_url: str,
        bootstrap_servers: str,
        topic_prefix: str = "",
        consumer: str = "landing",
        *,
        topics: Iterable[str] = IN_TOPICS,
        partitions: Iterable[int] | None = None,
        max_records: int = MAX_RECORDS,
        connect_timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> None:
        self._database_url = database_url
        self._bootstrap_servers = bootstrap_servers
        self._topic_prefix = topic_prefix
        self._consumer = consumer
        self._topics = tuple(topics)
        self._partitions = None if partitions is None else tuple(partitions)
        self._max_records = max_records
        self._connect_timeout_seconds = connect_timeout_seconds
        self._conn: Connection | None = None
        self._reader: TopicReader | None = None
        self._standing: Standing | None = None
        self._positions: dict[Partition, int] = {}
        self._last_stamp: datetime | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect from both servers; a batch under way is left to Kafka."""
        self._drop_reader()
        self._drop_connection()

    def land_batch(self, wait_seconds: float = _POLL_SECONDS) -> LandResult:
        """Land at most max_records messages in one transaction; wait up to wait_seconds for the first.

        Raises LandingError or ReadError; nothing is lost then, and the next call starts where landing stands.
        """
        started = time.monotonic()
        result = self._ready()
        try:
            batch = self._read(wait_seconds)
            if batch is not None:
                result += self._land(batch)
        except UnreadableError as error:
            result += self._skip_unreadable(error)
        except (_MovedError, OffsetsGoneError):
            self._standing = None
        except BaseException:
            self._drop_reader()
            raise
        return _timed(result, started)

    def land_to_end(self, deadline_seconds: float) -> LandResult:
        """Land everything that is in Kafka now, in as many transactions as it takes.

        Stops at the deadline with reached_end false; what was landed by then is committed. Raises like land_batch().
        """
        started = time.monotonic()
        result = self._ready()
        ends = {partition: bounds.end for partition, bounds in self._open_reader.bounds().items()}

        def is_done() -> bool:
            return self._has_reached(ends) or time.monotonic() - started >= deadline_seconds

        result += self._drain(is_done)
        return _timed(result, started, reached_end=self._has_reached(ends))

    def run(self, stop: threading.Event, report: Callable[[LandResult], None] | None = None) -> None:
        """Land until `stop` is set: the resident worker of `liq land`. report is called after every batch.

        Raises like land_batch().
        """
        self._drain(stop.is_set, report)

    # -- reading -------------------------------------------------------------------------------------------------

    def _ready(self) -> LandResult:
        """Open what is closed and find out where landing stands; say what was found."""
        if self._standing is not None and self._reader is not None:
            return LandResult()
        if self._reader is None:
            self._reader = TopicReader(
                self._bootstrap_servers,
                self._topic_prefix,
                topics=self._topics,
                partitions=self._partitions,
                client_id=f"liq-{self._consumer}",
                timeout_seconds=self._connect_timeout_seconds,
            )
        reader = self._reader
        bounds = reader.bounds()

        def look() -> Standing:
            conn = self._connection()
            with conn.transaction():
                return landing_offsets.synchronise(conn, self._consumer, reader.cluster_id, reader.topic_ids, bounds)

        standing = self._attempt(look)
        for notice in standing.notices:
            log.log(logging.WARNING if standing.gaps else logging.INFO, "%s", notice)
        reader.seek(standing.next_offsets)
        self._positions = dict(standing.next_offsets)
        self._standing = standing
        return LandResult(gaps=standing.gaps, notices=standing.notices)

    def _read(self, wait_seconds: float) -> _Batch | None:
        """Poll and decode the next batch; None if nothing came."""
        messages = self._open_reader.poll(self._max_records, wait_seconds)
        if not messages:
            return None
        starts = {partition: self._positions[partition] for partition in messages}
        batch = self._decode(messages, starts)
        self._positions.update(batch.ends)
        return batch

    def _decode(self, messages: dict[Partition, list[Any]], starts: dict[Partition, int]) -> _Batch:
        standing = self._known_standing
        batch = _Batch(messages=messages, starts=starts)
        rows = batch.rows
        for partition, records in messages.items():
            topic, number = partition
            cluster = standing.cluster_no_of_topic[topic]
            batch.ends[partition] = records[-1].offset + 1
            for record in records:
                try:
                    message = decode(topic, record.value, record.headers, _appended_at(record))
                except DecodeError as error:
                    batch.dead.append((record, topic, error.code, str(error)))
                    continue
                if isinstance(message, Watermark):
                    place = (message.world, topic, number)
                    greatest = batch.watermarks.get(place)
                    if greatest is None or message.watermark > greatest:
                        batch.watermarks[place] = message.watermark
                    batch.watermark_count += 1
                    continue
                table = TABLES[type(message)]
                row = table.build(message, topic, cluster, number, record.offset)
                rows.setdefault((table, topic), []).append(row)
        return batch

    def _has_reached(self, ends: dict[Partition, int]) -> bool:
        """Whether every partition was read to this end. Kafka's own markers at a log's end bring no message."""
        behind = [partition for partition, end in ends.items() if self._positions.get(partition, 0) < end]
        if not behind or self._standing is None:
            return not behind
        return all(self._open_reader.position(partition) >= ends[partition] for partition in behind)

    @property
    def _open_reader(self) -> TopicReader:
        if self._reader is None:
            raise RuntimeError("_ready() opens the reader first")
        return self._reader

    @property
    def _known_standing(self) -> Standing:
        if self._standing is None:
            raise RuntimeError("_ready() finds out where landing stands first")
        return self._standing

    # -- writing -------------------------------------------------------------------------------------------------

    def _drain(self, is_done: Callable[[], bool], report: Callable[[LandResult], None] | None = None) -> LandResult:
        """Land batch after batch; while the database works on one, the next is read and decoded."""
        total = LandResult()

        def note(result: LandResult) -> None:
            nonlocal total
            total += result
            if report is not None and (result.read or result.notices):
                report(result)

        pending: Future[LandResult] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="landing") as writer:
            while True:
                try:
                    note(self._ready())
                    done = is_done()
                    batch = None if done else self._read(_POLL_SECONDS if pending is None else 0.0)
                    if pending is not None:
                        written, pending = pending, None
                        note(written.result())
                    if batch is not None:
                        pending = writer.submit(self._land, batch)
                    elif done:
                        return total
                except UnreadableError as error:
                    if pending is not None:
                        wait([pending])
                    note(self._skip_unreadable(error))
                except (_MovedError, OffsetsGoneError):
                    if pending is not None:
                        wait([pending])
                    self._standing = None
                except BaseException:
                    if pending is not None:
                        wait([pending])
                    self._drop_reader()
                    raise

    def _land(self, batch: _Batch) -> LandResult:
        """Write a batch, again if the server failed. Raises LandingError, _MovedError."""
        return self._attempt(lambda: self._write(batch))

    def _write(self, batch: _Batch) -> LandResult:
        standing = self._known_standing
        conn = self._connection()
        with conn.transaction():
            stored = landing_offsets.lock(conn, self._consumer, standing.identity_of_topic, batch.starts)
            batch = self._without_landed(batch, stored)
            if not batch.messages:
                return LandResult()
            tally = _Tally()
            for record, topic, code, reason in batch.dead:
                self._bury(tally, record, topic, code, reason)
            self._write_rows(conn, batch, tally)
            dead_letters.insert(conn, tally.letters)
            _write_watermarks(conn, batch.watermarks)
            landing_offsets.advance(
                conn,
                self._consumer,
                standing.identity_of_topic,
                batch.ends,
                landed=tally.landed,
                duplicates=tally.duplicates,
                conflicts=tally.conflicts,
                dead=tally.dead,
            )
        return LandResult(
            read=batch.read,
            landed=dict(tally.rows),
            duplicates=tally.duplicates.total(),
            conflicts=tally.conflicts.total(),
            dead=tally.dead.total(),
            heartbeats=tally.heartbeats,
            watermarks=batch.watermark_count,
            late=dict(tally.late),
            batches=1,
        )

    def _without_landed(self, batch: _Batch, stored: dict[Partition, int]) -> _Batch:
        """The batch without what another worker has landed. Raises _MovedError if landing was set back meanwhile."""
        if any(partition not in stored or stored[partition] < start for partition, start in batch.starts.items()):
            raise _MovedError
        if stored == batch.starts:
            return batch
        left: dict[Partition, list[Any]] = {}
        for partition, records in batch.messages.items():
            rest = [record for record in records if record.offset >= stored[partition]]
            if rest:
                left[partition] = rest
        return self._decode(left, {partition: stored[partition] for partition in left})

    def _write_rows(self, conn: Connection, batch: _Batch, tally: _Tally) -> None:
        """Write all rows, cutting in halves whatever the server refuses until single messages stand alone."""
        stamp = _database_clock(conn)
        last_ticks = _last_ticks(conn, {row[0] for rows in batch.rows.values() for row in rows})
        identities = self._known_standing.identities
        for (table, topic), everything in batch.rows.items():
            parts = [everything]
            while parts:
                part = parts.pop(0)
                # Each write has a stamp of its own: that is how it knows its own rows.
                stamp += timedelta(microseconds=1)
                try:
                    with conn.transaction():
                        outcome = landing_write.write(
                            conn, table, part, stamp=stamp, identities=identities, last_ticks=last_ticks
                        )
                except (psycopg.DataError, psycopg.IntegrityError) as error:
                    if len(part) == 1:
                        self._bury_row(batch, table, topic, part[0], error, tally)
                    else:
                        # In front, the earlier half first: the order of delivery decides conflicts.
                        middle = len(part) // 2
                        parts[:0] = [part[:middle], part[middle:]]
                    continue
                tally.add(table, topic, outcome)

    def _bury_row(
        self, batch: _Batch, table: LandingTable, topic: str, row: Row, error: psycopg.Error, tally: _Tally
    ) -> None:
        number, offset = row[table.partition], row[table.offset]
        record = next(r for r in batch.messages[Partition(topic, number)] if r.offset == offset)
        said = error.diag.message_primary or _first_line(error)
        self._bury(tally, record, topic, "refused_by_database", f"{error.sqlstate or 'client'}: {said}")

    def _bury(self, tally: _Tally, record: Any, topic: str, code: str, reason: str) -> None:
        tally.dead[Partition(topic, record.partition)] += 1
        tally.letters.append(
            DeadLetter(
                cluster_id=self._known_standing.identity_of_topic[topic],
                topic=topic,
                kafka_partition=record.partition,
                kafka_offset=record.offset,
                appended_at=_appended_at(record),
                key_bytes=record.key,
                value_bytes=record.value,
                headers=pack_headers(record.headers),
                reason_code=code,
                reason=reason,
            )
        )

    def _skip_unreadable(self, error: UnreadableError) -> LandResult:
        """Go past what the client cannot take apart; that is said and recorded as a gap."""
        standing = self._known_standing
        found = self._open_reader.unreadable(self._positions)

        def skip() -> list[str]:
            conn = self._connection()
            with conn.transaction():
                said = (
                    landing_offsets.skip(
                        conn, self._consumer, standing.identity_of_topic[broken.partition.topic], broken
                    )
                    for broken in found
                )
                return [cause for cause in said if cause is not None]

        causes = self._attempt(skip)
        if not found:
            log.warning("landing: Kafka could not be read once (%s); reading again", error)
        for cause in causes:
            log.warning("%s", cause)
        self._standing = None
        return LandResult(gaps=len(causes), notices=tuple(causes))

    # -- connections and retries ---------------------------------------------------------------------------------

    def _connection(self) -> Connection:
        if self._conn is None or self._conn.closed:
            self._conn = connect(self._database_url, application_name=f"liq {self._consumer}")
        return self._conn

    def _attempt(self, work: Callable[[], T]) -> T:
        """Do it, again with a fresh connection while the server is at fault. Raises LandingError."""
        attempt = 0
        while True:
            try:
                return work()
            except (psycopg.OperationalError, psycopg.InternalError) as error:
                self._drop_connection()
                if attempt == len(BACKOFF_SECONDS):
                    raise LandingError(_explain(error)) from error
                log.warning("landing: %s; trying again", _first_line(error))
                time.sleep(BACKOFF_SECONDS[attempt])
                attempt += 1
            except psycopg.Error as error:
                self._drop_connection()
                raise LandingError(
                    f"the database does not have the schema or the rights that landing needs ({_first_line(error)}): "
                    "run liq migrate"
                ) from error

    def _drop_connection(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _drop_reader(self) -> None:
        self._standing = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _appended_at(record: Any) -> datetime | None:
    """The broker's time of a ConsumerRecord; brokers give milliseconds since 1970, -1 for none."""
    return None if record.timestamp < 0 else datetime.fromtimestamp(record.timestamp / 1000, UTC)


def _database_clock(conn: Connection) -> datetime:
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    if row is None:
        raise RuntimeError("SELECT gave no row")
    now: datetime = row[0]
    return now


def _last_ticks(conn: Connection, worlds: set[str]) -> dict[str, datetime]:
    """World -> time of its last committed market tick, where there is one."""
    rows = conn.execute(
        "SELECT w.world, (SELECT max(time) FROM ticks AS t WHERE t.world = w.world AND t.stream = 'market')"
        " FROM unnest(%s::text[]) AS w (world)",
        [sorted(worlds)],
    )
    return {world: time for world, time in rows if time is not None}


def _write_watermarks(conn: Connection, watermarks: dict[tuple[str, str, int], datetime]) -> None:
    """A watermark never goes back: an old one that is read again says nothing new."""
    if not watermarks:
        return
    worlds, topics, partitions = zip(*watermarks, strict=True)
    conn.execute(
        """
        INSERT INTO watermarks AS w (world, topic, kafka_partition, watermark)
        SELECT * FROM unnest(%s::text[], %s::text[], %s::smallint[], %s::timestamptz[]) AS n (a, b, c, d)
        ORDER BY a, b, c
        ON CONFLICT (world, topic, kafka_partition)
        DO UPDATE SET watermark = greatest(w.watermark, excluded.watermark)
        """,
        [list(worlds), list(topics), list(partitions), list(watermarks.values())],
    )


def _first_line(error: psycopg.Error) -> str:
    return str(error).partition("\n")[0]


def _explain(error: psycopg.Error) -> str:
    if isinstance(error, psycopg.errors.DiskFull):
        return (
            "PostgreSQL's disk is full: landing stands still, nothing is lost while Kafka keeps its log; make room and "
            "it goes on by itself"
        )
    return f"PostgreSQL failed {len(BACKOFF_SECONDS) + 1} times in a row, nothing is lost: {_first_line(error)}"


def _timed(result: LandResult, started: float, *, reached_end: bool = False) -> LandResult:
    return replace(result, duration_seconds=time.monotonic() - started, reached_end=reached_end)
