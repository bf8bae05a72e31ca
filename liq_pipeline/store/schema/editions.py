"""TimescaleDB editions: what the schema gains where the extension is present.

Belongs here: finding the edition in force and making the time-series tables hypertables. Does not: tables (sql/).

`none`: plain PostgreSQL, plain tables. `apache`: hypertables. `timescale`: the community edition, which adds
continuous aggregates, compression and policies. The names and columns are the same in all three.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final, Literal

import psycopg
from psycopg import sql

log = logging.getLogger(__name__)

Edition = Literal["none", "apache", "timescale"]


@dataclass(frozen=True)
class Hypertable:
    """A time-series table, its time column, and how much time one chunk holds."""

    table: str
    time_column: str
    chunk_days: int


# A chunk should hold enough rows to be worth its planning cost and few enough that the indexes of the chunks being
# written stay in memory. At the live cadences (10 s, tens of series) the polled tables gain some 10^5 to 10^6 rows a
# day, so a week is a few hundred megabytes; the slower ones take a month. Backfills of years then make tens to
# hundreds of chunks, not thousands.
HYPERTABLES: Final = (
    Hypertable("prices", "event_time", 7),
    Hypertable("funding_rates", "event_time", 7),
    Hypertable("open_interest", "event_time", 7),
    Hypertable("long_short_ratio", "event_time", 30),
    Hypertable("liquidations", "event_time", 7),
    Hypertable("stablecoin_flows", "event_time", 7),
    Hypertable("heartbeats", "event_time", 30),
    Hypertable("feature_bars", "bar_end", 30),
    Hypertable("liquidation_risk", "time", 7),
    Hypertable("stablecoin_pressure", "time", 7),
    Hypertable("signals", "time", 7),
    Hypertable("liquidation_levels", "time", 7),
    Hypertable("ticks", "time", 30),
)

# Only the owner may drop chunks, and maintenance runs as the writer: this lets it drop old ones, and nothing else.
DROP_OLD_CHUNKS: Final = (
    """
CREATE OR REPLACE FUNCTION drop_old_chunks(hypertable regclass, before timestamptz) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT count(*) FROM drop_chunks(hypertable, older_than => before)
$$
""",
    "REVOKE EXECUTE ON FUNCTION drop_old_chunks(regclass, timestamptz) FROM PUBLIC",
)


def detect(conn: psycopg.Connection[Any]) -> Edition:
    """The edition in force in this database, as the server states it."""
    row = conn.execute("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
    if row is None or row[0] == 0:
        return "none"
    row = conn.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    # An extension that is created but not preloaded answers no setting: its tables would not work either.
    return "none" if row is None or row[0] is None else ("timescale" if row[0] == "timescale" else "apache")


def apply(conn: psycopg.Connection[Any]) -> list[str]:
    """Create the extension where it can be had and the hypertables where it is in force; return what was done.

    Idempotent. `conn` is in autocommit mode: each table is converted in a transaction of its own.
    """
    done = []
    if _create_extension(conn):
        done.append("extension timescaledb")
    if detect(conn) == "none":
        return done
    existing = {
        row[0]
        for row in conn.execute(
            "SELECT hypertable_name FROM timescaledb_information.hypertables WHERE hypertable_schema = current_schema()"
        )
    }
    for hypertable in HYPERTABLES:
        if hypertable.table not in existing:
            _create_hypertable(conn, hypertable)
            done.append(f"hypertable {hypertable.table}")
    for statement in DROP_OLD_CHUNKS:
        conn.execute(statement.encode())
    return done


def _create_extension(conn: psycopg.Connection[Any]) -> bool:
    """Whether the extension was created now. A server that has it but has not preloaded it is left as plain."""
    row = conn.execute(
        "SELECT installed_version IS NOT NULL FROM pg_available_extensions WHERE name = 'timescaledb'"
    ).fetchone()
    if row is None or row[0]:
        return False
    try:
        conn.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState) as error:
        log.warning("TimescaleDB is installed on the server but not used here: %s", str(error).splitlines()[0])
        return False
    return True


def _create_hypertable(conn: psycopg.Connection[Any], hypertable: Hypertable) -> None:
    log.info("making %s a hypertable of %d-day chunks", hypertable.table, hypertable.chunk_days)
    conn.execute(
        sql.SQL(
            "SELECT create_hypertable({table}, {column}, chunk_time_interval => make_interval(days => {days}),"
            " migrate_data => true, if_not_exists => true, create_default_indexes => false)"
        ).format(
            table=sql.Literal(hypertable.table),
            column=sql.Literal(hypertable.time_column),
            days=sql.Literal(hypertable.chunk_days),
        )
    )
