"""How fast landing is: Kafka to committed rows, beside what it is made of and beside the obvious way to do it.

Belongs here: measuring. Does not: anything that the product needs.

One run, one machine, broker and database beside it, each with the settings that `liq up` gives them (fsync on). The
records are one third each of prices, open interest and funding rates, for 40 symbols on 5 venues. The figures of one
table come from rounds that take turns, and are medians: what else the machine does meanwhile hits all of them.

* landing: Lander.land_to_end, from a cold consumer to the last commit.
* row by row: the obvious processor: poll, decode, insert, store the offset, commit, one message at a time.
* consume and decode: the same poll and decode, no database.
* COPY and upsert: the same decoded rows from memory into the same tables, batches as landing makes them.
* raw COPY: the same rows by COPY into a table without keys.

Then `liq land` itself: a steady load with the delay from Kafka's acknowledgement to the commit that holds the row, one
to three processes that land one partition each, and its memory over a backlog.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
from kafka import KafkaProducer
from psycopg import sql

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.codec import decode, encode
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.bus.reader import TopicReader
from liq_pipeline.bus.topics import key_of, wire_name
from liq_pipeline.domain.records import FundingRate, OpenInterest, Price, Record
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing.lander import MAX_RECORDS, Lander
from liq_pipeline.store.landing.tables import TABLES, LandingTable, Row
from liq_pipeline.store.schema.migrations import migrate

PREFIX = "bench."
MEASURED = {"track_commit_timestamp": "on"}
"""The one setting that differs from `liq up`: when a row was committed is what the sustained run measures."""
SYMBOLS = [f"COIN{number}" for number in range(40)]
VENUES = ["binance", "bybit", "okx", "hyperliquid", "bitget"]


def records(number: int, start: datetime) -> Iterator[Record]:
    """`number` records as live collectors would send them."""
    series = [(symbol, venue) for symbol in SYMBOLS for venue in VENUES]
    for index in range(number):
        turn, place = divmod(index, 3 * len(series))
        kind, at = divmod(place, len(series))
        symbol, venue = series[at]
        time_ = start + timedelta(seconds=turn * 10)
        common: dict[str, Any] = {
            "schema_version": 1,
            "event_time": time_,
            "received_at": time_ + timedelta(milliseconds=137),
            "origin": "live",
            "world": "real",
            "venue": venue,
            "symbol": symbol,
        }
        value = 100.0 + at + turn / 1000
        if kind == 0:
            yield Price(**common, price_usd=value, volume_24h_usd=value * 1e6)
        elif kind == 1:
            yield OpenInterest(**common, open_interest_base=value * 10, open_interest_usd=value * value * 10)
        else:
            yield FundingRate(**common, kind="predicted", rate=1e-4, interval_hours=8.0, mark_price_usd=value)


@contextmanager
def servers() -> Iterator[tuple[EmbeddedPostgres, str]]:
    """A PostgreSQL and a Kafka of our own, as `liq up` would start them."""
    with tempfile.TemporaryDirectory(prefix="liq-bench-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        postgres, kafka = EmbeddedPostgres(home, free_port(), settings=MEASURED), EmbeddedKafka(home, free_port())
        try:
            postgres.start()
            kafka.start()
            yield postgres, kafka.bootstrap_servers
        finally:
            kafka.stop()
            postgres.stop()


def timed(work: Callable[[], int]) -> float:
    """Records per second."""
    started = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - started)


def publish(bootstrap_servers: str, prefix: str, number: int) -> None:
    """Make the topics and fill them."""
    ensure_topics(bootstrap_servers, prefix)
    with RecordProducer(bootstrap_servers, prefix) as producer:
        for record in records(number, datetime.now(UTC) - timedelta(days=2)):
            producer.send(record)


def read_all(bootstrap_servers: str, prefix: str, number: int) -> Iterator[tuple[LandingTable, Row]]:
    """Poll and decode everything, as landing does, without a database."""
    with TopicReader(bootstrap_servers, prefix) as reader:
        reader.seek(dict.fromkeys(reader.partitions, 0))
        seen = 0
        while seen < number:
            for (topic, partition), messages in reader.poll(MAX_RECORDS, 5.0).items():
                seen += len(messages)
                appended = datetime.now(UTC)
                for message in messages:
                    record = decode(topic, message.value, message.headers, appended)
                    table = TABLES[type(record)]  # type: ignore[index]
                    yield table, table.build(record, topic, 1, partition, message.offset)


def land(database_url: str, bootstrap_servers: str, prefix: str) -> int:
    with Lander(database_url, bootstrap_servers, prefix) as lander:
        result = lander.land_to_end(600)
    if not result.reached_end or result.rows_landed != result.read:
        raise RuntimeError(f"landing did not land everything: {result}")
    return result.read


def land_row_by_row(database_url: str, bootstrap_servers: str, prefix: str, number: int) -> int:
    """One message, one transaction: insert, offset, commit."""
    statements = {
        table: _insert(table, sql.SQL("VALUES ({})").format(sql.SQL(", ").join([sql.SQL("%s")] * len(table.columns))))
        for table in TABLES.values()
    }
    with connect(database_url) as conn:
        conn.execute(
            "CREATE TABLE simple_offsets (topic text, kafka_partition int, next_offset bigint,"
            " PRIMARY KEY (topic, kafka_partition))"
        )
        conn.commit()
        done = 0
        for table, row in read_all(bootstrap_servers, prefix, number):
            conn.execute(statements[table], row)
            conn.execute(
                "INSERT INTO simple_offsets VALUES (%s, %s, %s) ON CONFLICT (topic, kafka_partition)"
                " DO UPDATE SET next_offset = excluded.next_offset",
                [table.name, row[table.partition], row[table.offset] + 1],
            )
            conn.commit()
            done += 1
            if done == number:
                break
    return done


def copy_and_upsert(database_url: str, rows: dict[LandingTable, list[Row]]) -> int:
    """COPY into a temporary table, insert on conflict, commit; as much at a time as landing takes."""
    with connect(database_url) as conn:
        for table in rows:
            conn.execute(
                sql.SQL("CREATE TEMP TABLE {} AS SELECT {} FROM {} WITH NO DATA").format(
                    sql.Identifier(f"memory_{table.name}"), _columns(table), sql.Identifier(table.name)
                )
            )
        conn.commit()
        share = MAX_RECORDS // len(rows)
        longest = max(map(len, rows.values()))
        for start in range(0, longest, share):
            for table, everything in rows.items():
                staging = sql.Identifier(f"memory_{table.name}")
                conn.execute(sql.SQL("TRUNCATE {}").format(staging))
                _copy(conn, staging, table, everything[start : start + share])
                conn.execute(_insert(table, sql.SQL("SELECT {} FROM {}").format(_columns(table), staging)))
            conn.commit()
    return sum(map(len, rows.values()))


def raw_copy(database_url: str, rows: dict[LandingTable, list[Row]]) -> int:
    """COPY into tables without keys."""
    with connect(database_url) as conn:
        for table, everything in rows.items():
            name = sql.Identifier(f"raw_{table.name}")
            conn.execute(
                sql.SQL("CREATE TABLE {} AS SELECT {} FROM {} WITH NO DATA").format(
                    name, _columns(table), sql.Identifier(table.name)
                )
            )
            _copy(conn, name, table, everything)
    return sum(map(len, rows.values()))


def _columns(table: LandingTable) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, table.columns))


def _insert(table: LandingTable, source: sql.Composable) -> sql.Composed:
    return sql.SQL("INSERT INTO {} ({}) {} ON CONFLICT DO NOTHING").format(
        sql.Identifier(table.name), _columns(table), source
    )


def _copy(conn: psycopg.Connection[Any], name: sql.Identifier, table: LandingTable, rows: list[Row]) -> None:
    with conn.cursor() as cursor, cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(name)) as copy:
        copy.set_types(list(table.columns.values()))
        for row in rows:
            copy.write_row(row)


@contextmanager
def liq_land(home: Path, database_url: str, kafka: str, prefix: str, *options: str) -> Iterator[psutil.Process]:
    """The command, in a process of its own, stopped at the end as Ctrl-C would."""
    environment = {
        **os.environ,
        "LIQ_HOME": str(home),
        "LIQ_DATABASE_URL": database_url,
        "LIQ_KAFKA_BOOTSTRAP_SERVERS": kafka,
        "LIQ_KAFKA_TOPIC_PREFIX": prefix,
    }
    process = subprocess.Popen([sys.executable, "-m", "liq_pipeline.cli", "land", *options], env=environment)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def landed_in(database_url: str, seconds: float, number: int) -> None:
    """Wait until so many messages are landed."""
    deadline = time.monotonic() + seconds
    with connect(database_url) as conn:
        conn.autocommit = True
        while True:
            ((landed,),) = conn.execute("SELECT coalesce(sum(landed_total), 0) FROM consumer_offsets").fetchall()
            if landed >= number:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{landed} of {number} records were landed after {seconds:g} s")
            time.sleep(0.1)


Acknowledged = dict[tuple[int, int], float]
"""(partition, offset) -> when the producer was told, in seconds since 1970."""


def send_at_rate(bootstrap_servers: str, prefix: str, rate: int, seconds: int, told: Any) -> None:
    """Send prices at a steady rate and report when each was acknowledged."""
    acknowledged: Acknowledged = {}
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True, linger_ms=5)

    def note(metadata: Any) -> None:
        acknowledged[(metadata.partition, metadata.offset)] = time.time()

    topic = wire_name("prices", prefix)
    start = time.perf_counter()
    for index in range(rate * seconds):
        while time.perf_counter() < start + index / rate:
            time.sleep(0.001)
        now = datetime.now(UTC)
        record = Price(
            schema_version=1,
            event_time=now,
            received_at=now,
            origin="live",
            world="real",
            venue=VENUES[index % 5],
            symbol=f"{SYMBOLS[index % 40]}X{index % 97}",
            price_usd=100.0 + index,
        )
        producer.send(topic, value=encode(record), key=key_of(record)).add_callback(note)
    producer.flush()
    producer.close()
    told.send(acknowledged)


def sustained(home: Path, database_url: str, kafka: str, prefix: str, rate: int, seconds: int) -> list[float]:
    """Seconds from acknowledgement to commit, for every record, at `rate` records per second through `liq land`."""
    ensure_topics(kafka, prefix)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    load = context.Process(target=send_at_rate, args=(kafka, prefix, rate, seconds, sender), daemon=True)
    with liq_land(home, database_url, kafka, prefix):
        with connect(database_url) as conn:
            conn.autocommit = True
            while not conn.execute("SELECT 1 FROM consumer_offsets").fetchall():  # until it stands at its post
                time.sleep(0.1)
        load.start()
        acknowledged: Acknowledged = receiver.recv()
        load.join()
        landed_in(database_url, 60, rate * seconds)
    with connect(database_url) as conn:
        rows = conn.execute(
            "SELECT kafka_partition, kafka_offset, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8"
            " FROM prices"
        ).fetchall()
    if len(rows) != rate * seconds or {(p, o) for p, o, _ in rows} != acknowledged.keys():
        raise RuntimeError(f"{len(acknowledged)} records were acknowledged and {len(rows)} landed")
    return [committed - acknowledged[partition, offset] for partition, offset, committed in rows]


def with_workers(home: Path, database_url: str, kafka: str, prefix: str, workers: int) -> float:
    """Records per second of so many `liq land`, each with one partition of every topic, from their start to the end.

    They start together: a lock holds them until the last has opened its connections.
    """
    with TopicReader(kafka, prefix, partitions=range(workers)) as reader:
        number = sum(bounds.end for bounds in reader.bounds().values())
    with connect(database_url) as conn, connect(database_url) as gate, ExitStack() as opened:
        conn.autocommit = True
        gate.execute("LOCK TABLE consumer_offsets IN ACCESS EXCLUSIVE MODE")
        for share in range(workers):
            opened.enter_context(liq_land(home, database_url, kafka, prefix, "--partitions", str(share)))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while conn.execute(waiting).fetchall()[0][0] < workers:
            time.sleep(0.05)
        started = time.time()
        gate.commit()
        landed_in(database_url, 300, number)
        last = max(
            conn.execute(
                f"SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin)))::float8 FROM {table}"  # noqa: S608
            ).fetchall()[0][0]
            for table in ("prices", "open_interest", "funding_rates")
        )
    return float(number / (last - started))


def memory_over_backlog(home: Path, database_url: str, kafka: str, prefix: str, number: int) -> tuple[float, float]:
    """Largest resident memory of `liq land` in MB while it lands what waits for it, and what it had at its start."""
    with liq_land(home, database_url, kafka, prefix) as process, connect(database_url) as conn:
        conn.autocommit = True
        first, largest = 0.0, 0.0
        while True:
            ((landed,),) = conn.execute("SELECT coalesce(sum(landed_total), 0) FROM consumer_offsets").fetchall()
            resident = process.memory_info().rss / 1e6
            first = first or (resident if landed else 0.0)
            largest = max(largest, resident)
            if landed >= number:
                return largest, first
            time.sleep(0.05)


class Bench:
    """The parts of the benchmark, over one pair of servers."""

    def __init__(self, options: argparse.Namespace, home: Path, postgres: EmbeddedPostgres, kafka: str) -> None:
        self._options = options
        self._home = home
        self._postgres = postgres
        self._kafka = kafka

    def _database(self, name: str) -> str:
        url: str = self._postgres.ensure_database(name)
        migrate(url)
        return url

    def throughput(self) -> None:
        """The first table."""
        number, rounds = self._options.records, self._options.rounds
        memory: dict[LandingTable, list[Row]] = {}
        figures: dict[str, list[float]] = {}

        def decode_all() -> int:
            memory.clear()
            for table, row in read_all(self._kafka, PREFIX, number):
                memory.setdefault(table, []).append(row)
            return number

        for turn in range(rounds):

            def measure(name: str, work: Callable[[str], int], turn: int = turn) -> None:
                url = self._database(f"{name.partition(' ')[0].lower()}_{turn}")
                figures.setdefault(name, []).append(timed(lambda: work(url)))

            measure("consume and decode only", lambda _: decode_all())
            measure("landing", lambda url: land(url, self._kafka, PREFIX))
            measure("COPY and upsert from memory", lambda url: copy_and_upsert(url, memory))
            measure("raw COPY", lambda url: raw_copy(url, memory))
            measure(
                "row by row", lambda url: land_row_by_row(url, self._kafka, PREFIX, self._options.row_by_row_records)
            )
        print(f"\nKafka to committed rows, records per second: medians of {rounds} rounds")
        landing = figures["landing"]
        for name, found in figures.items():
            ratio = statistics.median(mine / other for mine, other in zip(landing, found, strict=True))
            print(f"  {name:<28} {statistics.median(found):>10,.0f}   landing is {ratio:>6.2f} x", flush=True)

    def sustained(self) -> None:
        """The delay under a steady load."""
        rate, seconds = self._options.rate, self._options.seconds
        delays = sustained(self._home, self._database("sustained"), self._kafka, "sustained.", rate, seconds)
        p50, p95, p99 = (statistics.quantiles(delays, n=100)[place - 1] for place in (50, 95, 99))
        print(f"\nliq land at {rate:,} records/s for {seconds} s: from acknowledgement to commit")
        print(f"  p50 {p50:.3f} s   p95 {p95:.3f} s   p99 {p99:.3f} s   largest {max(delays):.3f} s", flush=True)

    def workers(self) -> None:
        """One to three partitions and workers."""
        print("\none partition of every topic for each liq land, records per second")
        for workers in (1, 2, 3):
            rate = with_workers(self._home, self._database(f"workers_{workers}"), self._kafka, PREFIX, workers)
            print(f"  {workers}: {rate:>10,.0f}", flush=True)

    def memory(self) -> None:
        """Memory over a backlog."""
        number = self._options.records
        largest, first = memory_over_backlog(self._home, self._database("backlog"), self._kafka, PREFIX, number)
        print(f"\nmemory of liq land over a backlog of {number:,} records")
        print(f"  {first:,.0f} MB after the first batch, {largest:,.0f} MB at most", flush=True)


PARTS = ("throughput", "sustained", "workers", "memory")


def main(arguments: list[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="bench landing", description=__doc__)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row-by-row-records", type=int, default=3_000)
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of: %(default)s")
    options, _ = parser.parse_known_args(arguments)
    parts = options.parts.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"--parts must be some of {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="liq-bench-") as folder, servers() as (postgres, kafka):
        if set(parts) - {"sustained"}:
            print(f"publishing {options.records:,} records ...", flush=True)
            publish(kafka, PREFIX, options.records)
        bench = Bench(options, Path(folder), postgres, kafka)
        for part in parts:
            getattr(bench, part)()
