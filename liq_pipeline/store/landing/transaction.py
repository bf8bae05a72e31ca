"""The one transaction of a batch: rows, dead letters, conflicts, watermarks and the next offsets, all or nothing.

Belongs here: the order of the steps, what another worker has landed meanwhile, and the isolation of poison messages.
Does not: retries and connections (lander.py), how a row is written (write.py), Kafka.

In this order:
1. lock the offset rows of the partitions read, which makes writers take turns, and compare: what another worker has
   landed meanwhile is dropped from the batch, and if landing was set back the batch is given up;
2. COPY, insert on conflict, conflicts; dead letters; watermarks; heartbeats;
3. store the next offsets and the counters; commit.

Only an error that the server blames on the data (a value out of range, a violated constraint) makes the rows be cut in
halves until the poison messages stand alone; those become dead letters and the rest lands.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg

from liq_pipeline.bus.reader import Partition
from liq_pipeline.store.landing import dead_letters
from liq_pipeline.store.landing import offsets as landing_offsets
from liq_pipeline.store.landing import write as landing_write
from liq_pipeline.store.landing.batch import Batch, LandResult, Messages, appended_at, decode_batch
from liq_pipeline.store.landing.dead_letters import DeadLetter, pack_headers
from liq_pipeline.store.landing.offsets import Standing
from liq_pipeline.store.landing.tables import LandingTable, Row

Connection = psycopg.Connection[Any]


class MovedError(Exception):
    """The stored offsets are not where this lander left them: look again where landing stands."""


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


def write_batch(conn: Connection, consumer: str, standing: Standing, batch: Batch) -> LandResult:
    """Write a batch in a transaction of its own and say what became of it.

    Raises MovedError if landing was set back, psycopg.Error if the server fails; nothing is written then.
    """
    with conn.transaction():
        stored = landing_offsets.lock(conn, consumer, standing.identity_of_topic, batch.starts)
        batch = _without_landed(batch, stored, standing)
        if not batch.ends:
            return LandResult()
        causes = [landing_offsets.record_hole(conn, hole) for hole in batch.holes]
        tally = _Tally()
        for record, topic, code, reason in batch.dead:
            _bury(standing, tally, record, topic, code, reason)
        _write_rows(conn, standing, batch, tally)
        dead_letters.insert(conn, tally.letters)
        _write_watermarks(conn, batch.watermarks)
        landing_offsets.advance(
            conn,
            consumer,
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
        gaps=len(causes),
        notices=tuple(causes),
        batches=1,
    )


def _without_landed(batch: Batch, stored: dict[Partition, int], standing: Standing) -> Batch:
    """The batch without what another worker has landed. Raises MovedError if landing was set back meanwhile."""
    if any(partition not in stored or stored[partition] < start for partition, start in batch.starts.items()):
        raise MovedError
    if stored == batch.starts:
        return batch
    left: Messages = {}
    for partition, records in batch.messages.items():
        rest = [record for record in records if record.offset >= stored[partition]]
        if rest:
            left[partition] = rest
    holes = [hole for hole in batch.holes if hole.to_offset > stored[hole.partition]]
    places = (*left, *(hole.partition for hole in holes))
    starts = {partition: stored[partition] for partition in places}
    return decode_batch(left, starts, standing.cluster_no_of_topic, holes)


def _write_rows(conn: Connection, standing: Standing, batch: Batch, tally: _Tally) -> None:
    """Write all rows, cutting in halves whatever the server refuses until single messages stand alone."""
    stamp = _database_clock(conn)
    last_ticks = _last_ticks(conn, {row[0] for rows in batch.rows.values() for row in rows})
    identities = standing.identities
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
                    _bury_row(standing, batch, table, topic, part[0], error, tally)
                else:
                    # In front, the earlier half first: the order of delivery decides conflicts.
                    middle = len(part) // 2
                    parts[:0] = [part[:middle], part[middle:]]
                continue
            tally.add(table, topic, outcome)


def _bury_row(
    standing: Standing, batch: Batch, table: LandingTable, topic: str, row: Row, error: psycopg.Error, tally: _Tally
) -> None:
    number, offset = row[table.partition], row[table.offset]
    record = next(r for r in batch.messages[Partition(topic, number)] if r.offset == offset)
    said = error.diag.message_primary or str(error).partition("\n")[0]
    _bury(standing, tally, record, topic, "refused_by_database", f"{error.sqlstate or 'client'}: {said}")


def _bury(standing: Standing, tally: _Tally, record: Any, topic: str, code: str, reason: str) -> None:
    tally.dead[Partition(topic, record.partition)] += 1
    tally.letters.append(
        DeadLetter(
            cluster_id=standing.identity_of_topic[topic],
            topic=topic,
            kafka_partition=record.partition,
            kafka_offset=record.offset,
            appended_at=appended_at(record),
            key_bytes=record.key,
            value_bytes=record.value,
            headers=pack_headers(record.headers),
            reason_code=code,
            reason=reason,
        )
    )


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
