"""What `liq up --record DIR` wrote, played by `liq up --mode recorded`: are the tables the same, row by row?

Belongs here: the two runs of the whole program, and comparing their tables. Does not: the format (raw_log.py, tests).

Local servers are the outside world: every venue answers by its frames (liq_pipeline_tests/frames), with times that go
with the clock and figures that move with it; the websockets push a liquidation of each stream every half second; a
JSON-RPC node has a new block every three seconds, and a re-org in the middle. The baseline is the live run: each row
that it read must come back with the same values and times, and no other.

    python -m bench recording --seconds=90
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from websockets.exceptions import ConnectionClosed

from bench._installation import Installation
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.sources.registry import SOURCES
from liq_pipeline_tests.chain_support import FakeChain
from liq_pipeline_tests.live_support import StreamServer, frames_of, venue_server
from liq_pipeline_tests.moving_support import GREETINGS, MovingVenues

PUSH_SECONDS: Final = 0.5
BLOCK_SECONDS: Final = 3.0
TABLES: Final = ("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations", "stablecoin_flows")
NOT_COMPARED: Final = frozenset({"world", "origin", "landed_at", "kafka_cluster", "kafka_partition", "kafka_offset"})
"""What differs by nature: the world, where a row lay in Kafka and when it landed."""


@contextmanager
def outside_world(stop: threading.Event) -> Iterator[dict[str, str]]:
    """Everything that a live installation asks; the LIQ_ variables that lead there."""
    chain = FakeChain()
    with ExitStack() as stack:
        server = stack.enter_context(venue_server(*SOURCES))
        venues = MovingVenues(server, chain)
        for _ in range(25):
            venues.mine()
        variables = {f"LIQ_{name.upper()}_URL": url for name, url in server.urls().items()}
        variables |= {f"LIQ_{name.upper()}_POR_URL": server.url("nobody") for name in ("binance", "bybit")}
        streams: dict[str, tuple[StreamServer, list[Any]]] = {}
        for name, greetings in GREETINGS.items():
            frames = frames_of(name)["stream"]
            streams[name] = StreamServer(frames[:greetings]), frames[greetings:]
            stack.callback(streams[name][0].close)
            variables[f"LIQ_{name.upper()}_WS_URL"] = streams[name][0].url

        def push() -> None:
            while not stop.wait(PUSH_SECONDS):
                for stream, frames in streams.values():
                    for frame in frames:
                        with suppress(ConnectionClosed):  # the collector has left
                            stream.send(venues.moved(frame))

        def mine() -> None:
            blocks = 0
            while not stop.wait(BLOCK_SECONDS):
                blocks += 1
                venues.mine(replaced=blocks % 10 == 0)

        for work in (push, mine):
            threading.Thread(target=work, daemon=True).start()
        yield variables | {
            "LIQ_SYMBOLS": "BTC,PEPE",
            "LIQ_ETHEREUM_RPC_URL": server.url("node"),
            "LIQ_SOURCE_FLOW_LOOKBACK_BLOCKS": "20",
        }
        stop.set()


def main(arguments: list[str]) -> None:
    """Record, play, compare and print; exit 1 if any row differs."""
    parser = argparse.ArgumentParser(prog="python -m bench recording", description=__doc__)
    parser.add_argument("--seconds", type=float, default=90.0)
    options, _ = parser.parse_known_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="liq-recording-"))
    folder.chmod(0o711)
    recording = folder / "a-day"
    stop = threading.Event()
    try:
        with outside_world(stop) as variables:
            made = Installation(folder, "live", variables, ["--record", recording])
            try:
                made.start()
                print(f"recording for {options.seconds:g} s ...", flush=True)
                time.sleep(options.seconds)
            finally:
                made.stop()
        size = sum(path.stat().st_size for path in recording.iterdir())
        print(
            f"recorded: {size / 1e6:.2f} MB in {len(list(recording.glob('raw-*.gz')))} files; playing ...", flush=True
        )
        begun = time.monotonic()
        done = made.run("up", "--mode", "recorded", "--recording", recording, "--speed", "max", "--once")
        print(f"played in {time.monotonic() - begun:.0f} s, exit code {done.returncode}")
        if done.returncode:
            sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
        postgres = EmbeddedPostgres(made.home.path, made.ports["postgres"])
        postgres.start()
        try:
            with psycopg.connect(postgres.url("liq")) as conn:
                holds = compare(conn, print)
        finally:
            postgres.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not holds:
        sys.exit(1)


def compare(conn: psycopg.Connection[Any], say: Callable[[str], None]) -> bool:
    """One line a table; whether both worlds hold the same rows."""
    world = conn.execute("SELECT world FROM worlds WHERE kind = 'recorded'").fetchone()
    if world is None:
        say("there is no recorded world")
        return False
    holds = True
    for reason, count in conn.execute("SELECT reason, count(*) FROM dead_letters GROUP BY reason").fetchall():
        say(f"dead letters: {count} {reason}")
        holds = False
    say(f"{'table':18} {'live':>7} {'played':>7} {'only live':>10} {'only played':>12}")
    for table in TABLES:
        columns = _columns(conn, table)
        live, played, lost, more = _differences(conn, table, columns, world[0])
        say(f"{table:18} {live:7} {played:7} {len(lost):10} {len(more):12}")
        for what, rows in (("only live", lost), ("only played", more)):
            if rows:
                say(f"  {what}: {dict(Counter(row[columns.index('venue')] for row in rows))}, the first and the last:")
            for row in (rows[0], rows[-1]) if rows else ():
                say(f"    {dict(zip(columns, map(str, row), strict=True))}")
        holds = holds and live > 0 and not lost and not more
    return holds


def _columns(conn: psycopg.Connection[Any], table: str) -> list[str]:
    rows = conn.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s"
        " ORDER BY ordinal_position",
        [table],
    ).fetchall()
    return [name for (name,) in rows if name not in NOT_COMPARED]


def _differences(
    conn: psycopg.Connection[Any], table: str, columns: Sequence[str], world: str
) -> tuple[int, int, list[Any], list[Any]]:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    live = sql.SQL("SELECT {} FROM {} WHERE world = 'real' AND origin = 'live'").format(names, sql.Identifier(table))
    # What the venue's history had brought before a live poll did stands as archive: the poll's row was the second.
    key = sql.SQL("venue, event_time, {}").format(sql.Identifier("symbol" if "symbol" in columns else "tx_hash"))
    played = sql.SQL(
        "SELECT {} FROM {table} WHERE world = {} AND ({key}) NOT IN"
        " (SELECT {key} FROM {table} WHERE world = 'real' AND origin = 'archive')"
    ).format(names, sql.Literal(world), table=sql.Identifier(table), key=key)

    def rows_of(query: sql.Composable) -> list[Any]:
        return conn.execute(query).fetchall()

    lost = rows_of(sql.SQL("({} EXCEPT ALL {}) ORDER BY 1, 2").format(live, played))
    more = rows_of(sql.SQL("({} EXCEPT ALL {}) ORDER BY 1, 2").format(played, live))
    return len(rows_of(live)), len(rows_of(played)), lost, more
