"""Whether ticks keep their pace and processes their size while others misuse our Kafka, and while our own parts hang.

Belongs here: hurting a running installation for minutes. Does not: seconds of it with exact assertions
(liq_pipeline_tests/faults/test_bad_neighbours.py), kill -9 (kills.py).

Run: python -m bench neighbours [--minutes=10] [--symbols=20] [--gigabytes=1]. The whole program in simulated mode:

* quiet: the baseline of lateness and of each part's memory.
* transaction: a foreign producer leaves a transaction open on one partition for the minutes.
* bombs: a message that unpacks to so many gigabytes, in each codec on each topic; where a broker takes no packed
  message so large, half of it, and so on. All are packed before and sent one right after the other.
* stopped: SIGSTOP of each part; how long until it runs again.

A tick is late if its scores are committed later than one grid step after its time. Exit 1 if one is while others
misuse Kafka, if a part grows past 1.5 times its quiet size, or if nobody is told.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from multiprocessing import get_context

import psutil
import psycopg
from kafka import KafkaProducer
from kafka.net.compat import KafkaNetClient
from kafka.protocol.producer import ProduceRequest
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from bench._installation import Installation, installation, symbol_names, wait_until
from bench.ticks import quantile
from liq_pipeline.bus.topics import IN_TOPICS, wire_name
from liq_pipeline.runtime.processes import ProcessIdentity

STEP_SECONDS = 10.0
CODECS = {
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "snappy": DefaultRecordBatch.CODEC_SNAPPY,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}
MOST_PACKED_BYTES = 1_048_588
"""What a broker takes by default (message.max.bytes)."""
QUIET_TICKS = 18
WARM_SECONDS = 600.0
GROWTH = 1.5
TOLD_SECONDS = 120.0
RESTART_SECONDS = 300.0
SUPERVISED_APART = ("supervisor",)
"""Nobody watches the watchdog but the heartbeat outside (docs/operations.md)."""


class Sizes:
    """The largest memory of each part with its children, read every half second; forked pages count once (PSS)."""

    def __init__(self, made: Installation) -> None:
        self._made, self._most = made, dict[str, float]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def since_last(self) -> dict[str, float]:
        """part -> MB, of the time since this was asked last."""
        found, self._most = self._most, {}
        return found

    def close(self) -> None:
        """Stop reading."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.5):
            most = self._most
            for name, identity in self._made.parts().items():
                most[name] = max(most.get(name, 0.0), _megabytes(identity))


def _megabytes(identity: ProcessIdentity) -> float:
    total = 0
    try:
        process = psutil.Process(identity.pid)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass  # it has ended between being listed and being read
    return total / 1e6


def main(arguments: list[str]) -> None:
    """Measure and print; exit 1 if a bound is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench neighbours", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    options, _ = parser.parse_known_args(arguments)
    with installation("simulated", LIQ_SYMBOLS=",".join(symbol_names(options.symbols))) as made:
        wait_until(lambda: made.market_ticks() >= 6, WARM_SECONDS, "the first ticks", 1.0)
        sizes = Sizes(made)
        wait_until(lambda: made.market_ticks() >= 6 + 6, WARM_SECONDS, "ticks that are warm", 1.0)
        sizes.since_last()
        begin = _newest(made)
        wait_until(
            lambda: _newest(made) >= begin + timedelta(seconds=STEP_SECONDS * QUIET_TICKS), 900.0, "quiet ticks", 1.0
        )
        quiet = sizes.since_last()
        wrong = _tell(made, "quiet", begin, {}, quiet)
        wrong = 0  # late ticks of a quiet machine are the machine's

        begin = _newest(made)
        with _open_transaction(made):
            told = wait_until(
                lambda: _status_says(made, "can be read only up to offset"), TOLD_SECONDS, "word of it", 2.0
            )
            time.sleep(max(0.0, 60.0 * options.minutes - told))
        print(f"transaction: `liq status` named it after {told:.0f} s")
        time.sleep(15.0)
        wrong += _tell(made, f"transaction, {options.minutes:g} min", begin, quiet, sizes.since_last())

        batches = _bombs(int(options.gigabytes * 1e9))
        sizes.since_last()
        begin, before = _newest(made), _gaps(made) + _dead(made)
        sent = _send(made, batches)
        told = wait_until(lambda: _gaps(made) + _dead(made) >= before + sent, 300.0, "each bomb to be told", 1.0)
        print(f"bombs: the last told {told:.0f} s after it was sent")
        until = begin + timedelta(seconds=STEP_SECONDS * QUIET_TICKS)
        wait_until(lambda: _newest(made) >= until, 900.0, "the ticks after them", 1.0)
        if (twice := _gaps(made) + _dead(made) - before - sent) != 0:
            print(f"bombs: told {twice} times too often")
            wrong += 1
        wrong += _tell(made, "bombs", begin, quiet, sizes.since_last())

        begin = _newest(made)
        for name in sorted(made.parts()):
            if name not in SUPERVISED_APART:
                print(f"stopped: {name} runs again after {_stop(made, name):.0f} s", flush=True)
        time.sleep(30.0)
        _tell(made, "stopped parts", begin, {}, sizes.since_last())
        sizes.close()
    if wrong:
        raise SystemExit(1)


@contextmanager
def _open_transaction(made: Installation) -> Iterator[None]:
    """One message of it lies on a partition of prices."""
    # Past the broker's own limit of 15 min nobody can stay.
    producer = KafkaProducer(
        bootstrap_servers=f"127.0.0.1:{made.ports['kafka']}",
        transactional_id="neighbour",
        transaction_timeout_ms=900_000,
    )
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(wire_name("prices", ""), b"{}", partition=0).get(10)
    yield
    producer.abort_transaction()
    producer.close()


def _bombs(size: int) -> dict[str, bytes]:
    """codec -> a record batch of one message of so many zeros; where that is too large for a broker, half of it, ...

    Made before anything is measured, and in a process of its own, whose memory goes with it: on a real cluster packing
    a gigabyte costs somebody else's machine. Run beside the ticks, it took half of our cores, niced or not: the kernel
    shares them between sessions first.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
        made = {codec: elsewhere.submit(_packed, codec, size).result() for codec in CODECS}
    for codec, (unpacked, batch) in made.items():
        print(f"bombs: {codec}: {unpacked / 1e6:.0f} MB in {len(batch) / 1e3:.0f} kB", flush=True)
    return {codec: batch for codec, (_, batch) in made.items()}


def _packed(codec: str, size: int) -> tuple[int, bytes]:
    while True:
        builder = MemoryRecordsBuilder(magic=2, compression_type=CODECS[codec], batch_size=2**31 - 1)
        builder.append(timestamp=int(time.time() * 1000), key=None, value=bytes(size))
        builder.close()
        if len(batch := bytes(builder.buffer())) <= MOST_PACKED_BYTES:
            return size, batch
        size //= 2


def _send(made: Installation, batches: Mapping[str, bytes]) -> int:
    """Each batch to partition 0 of each topic, as it is: the library's producer packs only what it sends at once."""
    client = KafkaNetClient(bootstrap_servers=f"127.0.0.1:{made.ports['kafka']}")
    client._manager.bootstrap(timeout_ms=10_000)
    node = client.least_loaded_node()
    data, begun = ProduceRequest.TopicProduceData, time.monotonic()
    try:
        for batch in batches.values():
            for topic in IN_TOPICS:
                parts = [data.PartitionProduceData(index=0, records=batch)]
                request = ProduceRequest(
                    transactional_id=None, acks=-1, timeout_ms=60_000, max_version=9,
                    topic_data=[data(name=wire_name(topic, ""), partition_data=parts)],
                )  # fmt: skip
                answer = client.send_and_receive(node, request, timeout_ms=60_000)
                errors = [part.error_code for one in answer.responses for part in one.partition_responses]
                if errors != [0]:
                    raise SystemExit(f"Kafka did not take a batch for {topic}: error {errors}")
    finally:
        client.close()
    print(f"bombs: {len(batches) * len(IN_TOPICS)} taken by the broker in {time.monotonic() - begun:.1f} s", flush=True)
    return len(batches) * len(IN_TOPICS)


def _stop(made: Installation, name: str) -> float:
    """SIGSTOP a part; seconds until another process has its place and a tick was committed afterwards."""
    identity = made.parts()[name]
    begun = time.monotonic()
    os.kill(identity.pid, signal.SIGSTOP)
    wait_until(
        lambda: made.parts().get(name, identity).pid != identity.pid, RESTART_SECONDS, f"{name} to be restarted", 1.0
    )
    took = time.monotonic() - begun
    wait_until(lambda: _safe_newest(made) is not None, RESTART_SECONDS, "the database", 1.0)
    since = _newest(made)
    wait_until(lambda: (_safe_newest(made) or since) > since, RESTART_SECONDS, "a tick after it", 1.0)
    return took


def _newest(made: Installation) -> datetime:
    found: datetime = made.ask("SELECT max(time) FROM ticks WHERE stream = 'market'")[0][0]
    return found


def _safe_newest(made: Installation) -> datetime | None:
    try:
        return _newest(made)
    except psycopg.OperationalError:
        return None  # PostgreSQL itself may be what is stopped


def _gaps(made: Installation) -> int:
    return int(made.ask("SELECT count(*) FROM ingest_gaps")[0][0])


def _dead(made: Installation) -> int:
    return int(made.ask("SELECT count(*) FROM dead_letters")[0][0])


def _status_says(made: Installation, words: str) -> bool:
    done = made.run("status", "--json")
    return words in done.stdout + done.stderr


def _tell(made: Installation, name: str, since: datetime, quiet: dict[str, float], sizes: dict[str, float]) -> int:
    """Print one step; 1 if a tick came late or a part grew."""
    rows = made.ask(
        "SELECT time, extract(epoch FROM committed_at - time)::float FROM ticks WHERE stream = 'market' AND time > %s"
        " ORDER BY time",
        since,
    )
    seconds = [late for _, late in rows]
    points = round((rows[-1][0] - since).total_seconds() / STEP_SECONDS)
    late = sum(second > STEP_SECONDS for second in seconds)
    print(
        f"{name}: {len(rows)} of {points} points, committed p50 {quantile(seconds, 0.5):.2f} s, p95"
        f" {quantile(seconds, 0.95):.2f} s, longest {max(seconds):.2f} s after their time; {late} late"
    )
    grown = {part: size / quiet[part] for part, size in sizes.items() if part in quiet and size > GROWTH * quiet[part]}
    told = ", ".join(f"{part} {size:.0f}" for part, size in sorted(sizes.items()))
    print(f"  most memory, MB: {told}; past {GROWTH} x its quiet size: {grown or 'none'}", flush=True)
    return int(late > 0 or bool(grown) or len(rows) != points)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
