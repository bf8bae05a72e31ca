"""How fast landing is: Kafka to committed rows, beside what it is made of and beside the obvious way to do it.

Belongs here: measuring. Does not: anything that the product needs.

One run, one machine, broker and database beside it, each with the settings that `liq up` gives them (fsync on). The
records are one third each of prices, open interest and funding rates, for 40 symbols on 5 venues.

* landing: Lander.land_to_end, from a cold consumer to the last commit.
* row by row: the obvious processor: poll, decode, insert, store the offset, commit, one message at a time.
* consume and decode: the same poll and decode, no database.
* COPY and upsert: the same decoded rows from memory into the same tables, batches as landing makes them.
* raw COPY: the same rows by COPY into a table without keys.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.codec import decode
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.bus.reader import TopicReader
from liq_pipeline.domain.records import FundingRate, OpenInterest, Price, Record
from liq_pipeline.runtime.kafka import EmbeddedKafka
from liq_pipeline.runtime.postgres import EmbeddedPostgres
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing import MAX_RECORDS, Lander
from liq_pipeline.store.landing_tables import TABLES, LandingTable, Row
from liq_pipeline.store.migrations import migrate

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
                for message in messages:
                    appended = datetime.fromtimestamp(message.timestamp / 1000, UTC)
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


# -- sustained load and workers ------------------------------------------------------------------------------------


def sustained(database_url: str, bootstrap_servers: str, prefix: str, rate: int, seconds: int) -> list[float]:
    """Seconds from sending a record to the commit of its row, for every record, at `rate` records per second."""
    ensure_topics(bootstrap_servers, prefix)
    stop = threading.Event()
    process = multiprocessing.get_context("spawn").Process(
        target=_send_at_rate, args=(bootstrap_servers, prefix, rate, seconds), daemon=True
    )
    delays: list[float] = []
    with Lander(database_url, bootstrap_servers, prefix) as lander:
        lander.land_batch()
        worker = threading.Thread(target=lander.run, args=(stop,))
        worker.start()
        process.start()
        process.join()
        time.sleep(2)
        stop.set()
        worker.join()
    with connect(database_url) as conn:
        # received_at is stamped by the sender right before it sends: later than no acknowledgement.
        delays = [
            row[0] for row in conn.execute("SELECT extract(epoch FROM landed_at - received_at)::float8 FROM prices")
        ]
    if len(delays) != rate * seconds:
        raise RuntimeError(f"{rate * seconds} records were sent and {len(delays)} landed")
    return delays


def _send_at_rate(bootstrap_servers: str, prefix: str, rate: int, seconds: int) -> None:
    with RecordProducer(bootstrap_servers, prefix) as producer:
        start = time.perf_counter()
        for index in range(rate * seconds):
            due = start + index / rate
            while time.perf_counter() < due:
                time.sleep(0.001)
            now = datetime.now(UTC)
            producer.send(
                Price(
                    schema_version=1,
                    event_time=now,
                    received_at=now,
                    origin="live",
                    world="real",
                    venue=VENUES[index % 5],
                    symbol=f"{SYMBOLS[index % 40]}X{index % 97}",
                    price_usd=100.0 + index,
                )
            )


def _land_partitions(database_url: str, bootstrap_servers: str, prefix: str, partitions: list[int]) -> None:
    with Lander(database_url, bootstrap_servers, prefix, partitions=partitions) as lander:
        lander.land_to_end(600)


def with_workers(database_url: str, bootstrap_servers: str, prefix: str, workers: int) -> int:
    """Land everything with several processes that split the partitions."""
    shares = [[number for number in range(3) if number % workers == worker] for worker in range(workers)]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_land_partitions, args=(database_url, bootstrap_servers, prefix, share))
        for share in shares
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    with connect(database_url) as conn:
        ((landed,),) = conn.execute("SELECT sum(landed_total)::bigint FROM consumer_offsets").fetchall()
    if not isinstance(landed, int):
        raise TypeError("nothing was landed")
    return landed


def main(arguments: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench landing", description=__doc__)
    parser.add_argument("--records", type=int, default=150_000)
    parser.add_argument("--row-by-row-records", type=int, default=5_000)
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--short", action="store_true", help="the first table only")
    options = parser.parse_args(arguments)
    number: int = options.records
    with servers() as (postgres, kafka):

        def database(name: str) -> str:
            url: str = postgres.ensure_database(name)
            migrate(url)
            return url

        print(f"publishing {number:,} records ...", flush=True)
        publish(kafka, PREFIX, number)
        memory: dict[LandingTable, list[Row]] = {}

        def decode_all() -> int:
            for table, row in read_all(kafka, PREFIX, number):
                memory.setdefault(table, []).append(row)
            return number

        decoding = timed(decode_all)
        landing = timed(lambda: land(database("landing"), kafka, PREFIX))
        upserting = timed(lambda: copy_and_upsert(database("memory"), memory))
        copying = timed(lambda: raw_copy(database("raw"), memory))
        one_by_one = timed(lambda: land_row_by_row(database("rows"), kafka, PREFIX, options.row_by_row_records))
        print("\nKafka to committed rows, records per second")
        for name, figure in (
            ("landing", landing),
            ("row by row", one_by_one),
            ("consume and decode only", decoding),
            ("COPY and upsert from memory", upserting),
            ("raw COPY", copying),
        ):
            print(f"  {name:<28} {figure:>10,.0f}   landing is {landing / figure:>6.2f} x")
        if options.short:
            return
        delays = sustained(database("sustained"), kafka, "sustained.", options.rate, options.seconds)
        p50, p95, p99 = (statistics.quantiles(delays, n=100)[place - 1] for place in (50, 95, 99))
        print(f"\nat {options.rate:,} records/s for {options.seconds} s: from sending to commit")
        print(f"  p50 {p50:.3f} s   p95 {p95:.3f} s   p99 {p99:.3f} s   largest {max(delays):.3f} s")
        print("\nworkers that split the three partitions, records per second (with their start-up)")
        for workers in (1, 2, 3):
            url = database(f"workers_{workers}")
            print(f"  {workers}: {timed(partial(with_workers, url, kafka, PREFIX, workers)):>10,.0f}", flush=True)
