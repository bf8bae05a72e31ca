"""Landing: from Kafka to the tables, each message exactly once.

Belongs here: reading batch after batch, connections, retries. Does not: what a batch's transaction does
(transaction.py), where landing stands (offsets.py), decoding (batch.py, bus/codec.py).

One batch is one transaction. Kafka is told nothing: the database is the truth. A process that dies anywhere leaves
the whole batch or nothing, and natural keys make even a lost offset row cost time, not correctness.

A failure of the server or the connection is tried again a few times with a fresh connection and then raised, with
nothing lost; the resident worker says it once and waits until the server is back.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import psycopg

from liq_pipeline.bus.reader import (
    REQUEST_TIMEOUT_SECONDS,
    KafkaAwayError,
    OffsetsGoneError,
    Partition,
    ReadError,
    TopicReader,
    UnreadableError,
)
from liq_pipeline.bus.topics import IN_TOPICS
from liq_pipeline.errors import LiqError
from liq_pipeline.store.connection import LIVE_LOCK_SECONDS, connect
from liq_pipeline.store.landing import held
from liq_pipeline.store.landing import offsets as landing_offsets
from liq_pipeline.store.landing.batch import Batch, LandResult, decode_batch
from liq_pipeline.store.landing.offsets import Standing
from liq_pipeline.store.landing.transaction import MovedError, write_batch

__all__ = ["MAX_RECORDS", "DatabaseAwayError", "LandResult", "Lander", "LandingError"]

log = logging.getLogger(__name__)

MAX_RECORDS: Final = 10_000
"""Messages per transaction: large enough that the commit's cost vanishes, small enough to finish within a second."""

BACKOFF_SECONDS: Final = (0.1, 0.5, 2.0)
"""Between attempts: a deadlock is gone at once, a restarted PostgreSQL answers within seconds."""

IDENTITY_SECONDS: Final = 5.0
"""How often a running lander asks whether these are still the logs that it began with. A fetch names topics, not
their ids: a Kafka that was wiped and filled past the old offset answers as if nothing had happened."""

_POLL_SECONDS: Final = 0.2
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 15.0

_HANDOVER_SECONDS: Final = 0.0002
"""How long the thread that decodes may keep the interpreter from the one that feeds the database, which needs it for
microseconds after each answer. With Python's own 5 ms the database idled: 49,000 instead of 65,000 records/s."""

_COLLECT_EVERY: Final = 100_000
"""Objects between two passes of the garbage collector while landing: a batch is 30,000 of them, none in a cycle, and
with Python's own 700 looking for cycles among them was a quarter of what decoding costs."""

Connection = psycopg.Connection[Any]
T = TypeVar("T")


class LandingError(LiqError):
    """Landing cannot go on; nothing is lost, and one sentence says why and what to do."""


class DatabaseAwayError(LandingError):
    """PostgreSQL does not work now, or has no room; waiting may mend it."""


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
        self._identity_checked_at = 0.0
        self._held_noted_at = 0.0

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
                result += self._land(batch, self._known_standing)
        except UnreadableError as error:
            result += self._skip_unreadable(error)
        except (MovedError, OffsetsGoneError):
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
        ends = self._open_reader.ends()
        result += self._note_held(ends)

        def is_done() -> bool:
            return self._has_reached(ends) or time.monotonic() - started >= deadline_seconds

        result += self._drain(is_done)
        return _timed(result, started, reached_end=self._has_reached(ends))

    def run(self, stop: threading.Event, report: Callable[[LandResult], None] | None = None) -> None:
        """Land until `stop` is set: the resident worker of `liq land`. report is called after every batch.

        A server that is away, or has no room, is waited for: that is said once, and again when landing goes on.
        Raises LandingError or ReadError for what waiting does not mend: no schema, no rights, no topic.
        """
        has_begun = False
        said: str | None = None
        pause = _FIRST_PAUSE_SECONDS

        def note(result: LandResult) -> None:
            nonlocal has_begun, said, pause
            has_begun = True
            if said is not None and result.read:
                log.warning("landing goes on")
                said, pause = None, _FIRST_PAUSE_SECONDS
            if report is not None:
                report(result)

        while not stop.is_set():
            try:
                self._drain(stop.is_set, note)
            except (DatabaseAwayError, ReadError) as error:
                # A topic that is missing at first is a wrong prefix; one that vanished later is being made anew.
                if not has_begun and not isinstance(error, DatabaseAwayError | KafkaAwayError):
                    raise
                if str(error) != said:
                    said = str(error)
                    log.error("%s", said)  # noqa: TRY400 - one sentence, no traceback: nothing is wrong with this program
                stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    # -- reading -------------------------------------------------------------------------------------------------

    def _ready(self) -> LandResult:
        """Open what is closed and find out where landing stands; say what was found. No batch may be under way."""
        return self._look() if self._must_look() else LandResult()

    def _must_look(self) -> bool:
        """Whether it is unknown where landing stands; now and then Kafka is asked whether it is what it was."""
        if self._reader is not None and time.monotonic() - self._identity_checked_at > IDENTITY_SECONDS:
            self._identity_checked_at = time.monotonic()
            if not self._reader.is_unchanged():
                log.warning("landing: Kafka at %s is not what it was; looking again", self._bootstrap_servers)
                self._drop_reader()
        return self._standing is None or self._reader is None

    def _look(self) -> LandResult:
        if self._reader is None:
            self._identity_checked_at = time.monotonic()
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

    def _note_held(self, ends: dict[Partition, int]) -> LandResult:
        """Keep in the database which partitions somebody's open transaction holds. No batch may be under way."""
        reader, standing = self._open_reader, self._known_standing
        self._held_noted_at = time.monotonic()
        found = reader.held(ends)

        def write() -> list[str]:
            conn = self._connection()
            with conn.transaction():
                return held.note(conn, self._consumer, standing.identity_of_topic, ends, found, reader.holder)

        notices = self._attempt(write)
        for notice in notices:
            log.warning("landing: %s", notice)
        return LandResult(notices=tuple(notices))

    def _read(self, wait_seconds: float) -> Batch | None:
        """Poll and decode the next batch; None if nothing came."""
        messages = self._open_reader.poll(self._max_records, wait_seconds)
        holes = self._open_reader.passed_over()
        if not messages and not holes:
            return None
        starts = {partition: self._positions[partition] for partition in (*messages, *(h.partition for h in holes))}
        batch = decode_batch(messages, starts, self._known_standing.cluster_no_of_topic, holes)
        self._positions.update(batch.ends)
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

        def settle() -> None:
            """Wait for the batch under way; what it did counts even if reading has failed meanwhile."""
            nonlocal pending
            if pending is not None:
                written, pending = pending, None
                note(written.result())

        with _landing_pace(), ThreadPoolExecutor(1, thread_name_prefix="landing") as writer:
            while True:
                try:
                    if self._must_look():
                        # Looking writes too, and the connection holds one transaction: the batch under way ends first.
                        settle()
                        note(self._look())
                    if time.monotonic() - self._held_noted_at > IDENTITY_SECONDS:
                        settle()
                        note(self._note_held(self._open_reader.ends()))
                    done = is_done()
                    try:
                        batch = None if done else self._read(_POLL_SECONDS if pending is None else 0.0)
                    except UnreadableError as error:
                        settle()
                        note(self._skip_unreadable(error))
                        continue
                    except OffsetsGoneError:
                        settle()
                        self._standing = None
                        continue
                    settle()
                    if batch is not None:
                        pending = writer.submit(self._land, batch, self._known_standing)
                    elif done:
                        return total
                except MovedError:
                    self._standing = None
                except BaseException:
                    if pending is not None:
                        wait([pending])
                    self._drop_reader()
                    raise

    def _land(self, batch: Batch, standing: Standing) -> LandResult:
        """Write a batch read from that standing, again if the server failed. Raises LandingError, MovedError."""
        result = self._attempt(lambda: write_batch(self._connection(), self._consumer, standing, batch))
        for notice in result.notices:
            log.warning("%s", notice)
        return result

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
            self._conn = connect(
                self._database_url, application_name=f"liq {self._consumer}", lock_seconds=LIVE_LOCK_SECONDS
            )
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
                    raise DatabaseAwayError(_explain(error)) from error
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


@contextmanager
def _landing_pace() -> Iterator[None]:
    """The interpreter's own intervals as landing needs them, and as they were afterwards."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(min(interval, _HANDOVER_SECONDS))
    gc.set_threshold(max(thresholds[0], _COLLECT_EVERY), *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


def _first_line(error: psycopg.Error) -> str:
    return str(error).partition("\n")[0]


def _explain(error: psycopg.Error) -> str:
    if isinstance(error, psycopg.errors.DiskFull):
        return (
            "PostgreSQL's disk is full: landing stands still, nothing is lost while Kafka keeps its log; make room and "
            "it goes on by itself"
        )
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return (
            f"another session has held a lock on a table for {LIVE_LOCK_SECONDS:.0f} s and more: landing stands still, "
            "nothing is lost; pg_locks and pg_stat_activity tell whose it is"
        )
    return f"PostgreSQL failed {len(BACKOFF_SECONDS) + 1} times in a row, nothing is lost: {_first_line(error)}"


def _timed(result: LandResult, started: float, *, reached_end: bool = False) -> LandResult:
    return replace(result, duration_seconds=time.monotonic() - started, reached_end=reached_end)
