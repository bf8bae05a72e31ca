"""A backup taken under load and its way back: rows and offsets equal, nothing lost or doubled; what is not whole is
refused in one sentence before anything is written."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from liq_pipeline.backup import manifest
from liq_pipeline.backup.make import back_up
from liq_pipeline.backup.restore import restore
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.runtime.files import write_json
from liq_pipeline.runtime.home import Home
from liq_pipeline.runtime.processes import ProcessIdentity
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.landing_support import count, price, select

ROWS_AND_OFFSETS = (
    "SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM prices AS t",
    "SELECT consumer, cluster_id, topic, kafka_partition, topic_id, next_offset FROM consumer_offsets"
    " ORDER BY 1, 2, 3, 4",
    "SELECT topic, count(*) FROM dead_letters GROUP BY 1 ORDER BY 1",
)


def quiet(_: object) -> None:
    """Nobody listens."""


class Load:
    """Prices sent one after the other, and a landing worker beside them, until it is left."""

    def __init__(self, database_url: str, servers: str, prefix: str) -> None:
        self.acknowledged = 0
        self._stop = threading.Event()
        self._producer = RecordProducer(servers, prefix)
        self._lander = Lander(database_url, servers, prefix)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._land)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        self._producer.close()
        self._lander.close()

    def _send(self) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            self._producer.send(price(number))
            if number % 100 == 99:
                self._producer.flush()
                self.acknowledged = number + 1

    def _land(self) -> None:
        self._lander.run(self._stop)

    def wait_for(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while self.acknowledged < number:
            assert time.monotonic() < deadline, f"only {self.acknowledged} of {number} messages were acknowledged"
            self._stop.wait(0.01)


@pytest.fixture
def to_empty(empty_database_url: str, new_home: Path) -> Settings:
    """Settings of a restore into an empty database of one's own."""
    return Settings(home=new_home / "new", database_url=SecretStr(empty_database_url))


def test_tables_and_offsets_come_back_and_landing_goes_on_where_it_stood(
    database_url: str,
    kafka_server: str,
    topic_prefix: str,
    settings: Callable[..., Settings],
    to_empty: Settings,
    empty_database_url: str,
    tmp_path: Path,
) -> None:
    given = settings(kafka_topic_prefix=topic_prefix)
    with Load(database_url, kafka_server, topic_prefix) as load:
        load.wait_for(2_000)
        before = load.acknowledged
        made = back_up(given, Endpoints(database_url, kafka_server), tmp_path / "copy", say=quiet, show=quiet)
        after = load.acknowledged
        load.wait_for(after + 2_000)
    assert after > before, "nothing was sent while the backup was taken: this tested no load"
    assert made.everything_landed
    assert made.rows["prices"] >= before, "what Kafka had acknowledged when it began belongs to the backup"
    assert sum(offset.next_offset for offset in made.offsets if offset.topic == "prices") >= made.rows["prices"]

    restore(to_empty, tmp_path / "copy", say=quiet, show=quiet)
    assert count(empty_database_url, "prices") == made.rows["prices"]
    kept = [tuple(row) for row in select(database_url, "SELECT md5(t::text) FROM prices AS t")]
    back = [tuple(row) for row in select(empty_database_url, "SELECT md5(t::text) FROM prices AS t")]
    assert set(back) <= set(kept), "a row came back that was never there"
    assert len(set(back)) == len(back) == made.rows["prices"]

    # The Kafka is the same: landing goes on at the offsets of the backup, and ends with every message once.
    with Lander(empty_database_url, kafka_server, topic_prefix) as lander:
        result = lander.land_to_end(60)
    assert (result.gaps, result.duplicates, result.conflicts) == (0, 0, 0)
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        lander.land_to_end(60)
    for query in ROWS_AND_OFFSETS[1:]:
        assert select(empty_database_url, query) == select(database_url, query)
    columns = "symbol, venue, event_time, price_usd, kafka_partition, kafka_offset"
    same = f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM (SELECT {columns} FROM prices) AS t"  # noqa: S608
    assert select(empty_database_url, same) == select(database_url, same)
    assert count(empty_database_url, "prices") == load.acknowledged or count(empty_database_url, "prices") == count(
        database_url, "prices"
    )
    assert migrate(empty_database_url) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one backup of this module is kept; made by `copy_of_it`."""
    return tmp_path_factory.mktemp("whole") / "copy"


@pytest.fixture
def copy_of_it(whole: Path, database_url: str, kafka_server: str, topic_prefix: str, tmp_path: Path) -> Path:
    """A backup of 500 rows that the test may hurt."""
    if not whole.exists():
        with RecordProducer(kafka_server, topic_prefix) as producer:
            for number in range(500):
                producer.send(price(number))
        given = Settings(home=tmp_path / "source", kafka_topic_prefix=topic_prefix)
        given.home.mkdir()
        (given.home / "installation.json").write_text('{"ever_live": true}')
        (given.home / "postgres" / "roles").mkdir(parents=True)
        (given.home / "postgres" / "roles" / "liq_writer").write_text("a-password\n")
        back_up(given, Endpoints(database_url, kafka_server), whole, say=quiet, show=quiet)
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("hurt", "words"),
    [
        (lambda copy: (copy / "manifest.json").unlink(), "was cut short, it has no manifest.json"),
        (lambda copy: shorten(copy / "manifest.json"), "manifest.json was altered or damaged"),
        (lambda copy: flip(copy / "manifest.json"), "manifest.json was altered or damaged"),
        (lambda copy: shorten(copy / "database.dump"), "was cut short: database.dump has"),
        (lambda copy: flip(copy / "database.dump"), "database.dump was altered or damaged"),
        (lambda copy: (copy / "database.dump").unlink(), "is not whole: database.dump is missing"),
        (lambda copy: (copy / "home" / "more.json").write_text("{}"), "home/more.json does not belong to it"),
        (lambda copy: flip(copy / "home" / "installation.json"), "installation.json was altered or damaged"),
        (shutil.rmtree, "there is no folder"),
    ],
)
def test_a_backup_that_is_cut_short_or_altered_is_refused_in_one_sentence(
    hurt: Callable[[Path], object], words: str, copy_of_it: Path, to_empty: Settings, empty_database_url: str
) -> None:
    hurt(copy_of_it)
    with pytest.raises(LiqError) as refused:
        restore(to_empty, copy_of_it, say=quiet, show=quiet)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not to_empty.home.exists(), "a refusal writes nothing"
    assert select(empty_database_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_an_edited_manifest_is_refused_even_if_it_reads_well(copy_of_it: Path, to_empty: Settings) -> None:
    path = copy_of_it / "manifest.json"
    path.write_text(path.read_text().replace('"prices":500', '"prices":499'))
    with pytest.raises(LiqError, match="its checksum does not fit"):
        restore(to_empty, copy_of_it, say=quiet, show=quiet)


def test_files_and_folder_are_their_owners_alone(copy_of_it: Path, whole: Path) -> None:
    for path in whole.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(whole.stat().st_mode) == 0o700
    made = manifest.read(copy_of_it)
    assert set(made.files) == {
        *("database.dump", "home/installation.json", "home/postgres/roles/liq_writer", "home/settings.env")
    }


def altered(copy: Path, **values: object) -> None:
    """Write the manifest anew with other values and a checksum that fits."""
    made = manifest.read(copy)
    (copy / "manifest.json").unlink()
    manifest.write(copy, msgspec.structs.replace(made, **values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"format": 2}, "has format 2 and this version reads format 1"),
        ({"migrations": (manifest.Migration(9999, "9999_later.sql", "0"),)}, "schema file 9999_later.sql"),
        ({"server": manifest.Server(990001, "none", None)}, "comes from PostgreSQL 99 and this server is PostgreSQL"),
        (
            {"server": manifest.Server(180004, "apache", "2.19.3")},
            "holds TimescaleDB 2.19.3 and this database has none",
        ),
        ({"rows": {"prices": 499}}, "restored table prices has 500 rows in place of 499"),
    ],
)
def test_what_cannot_be_restored_is_refused(
    values: dict[str, object], words: str, copy_of_it: Path, to_empty: Settings
) -> None:
    altered(copy_of_it, **values)
    with pytest.raises(LiqError, match=words):
        restore(to_empty, copy_of_it, say=quiet, show=quiet)


def test_the_embedded_server_has_no_timescaledb(copy_of_it: Path, new_home: Path) -> None:
    altered(copy_of_it, server=manifest.Server(180004, "apache", "2.19.3"))
    with pytest.raises(LiqError, match="which the embedded PostgreSQL does not have"):
        restore(Settings(home=new_home), copy_of_it, say=quiet, show=quiet)
    assert not (new_home / "postgres").exists()
    assert not Home(new_home).unfinished_path.exists()


def test_only_an_empty_place_is_restored_into(
    copy_of_it: Path, to_empty: Settings, database_url: str, new_home: Path
) -> None:
    used = to_empty.model_copy(update={"database_url": SecretStr(database_url)})
    with pytest.raises(LiqError, match=r"is not empty .* an empty database only"):
        restore(used, copy_of_it, say=quiet, show=quiet)
    (new_home / "installation.json").write_text("{}")
    with pytest.raises(LiqError, match=r"is not empty \(installation\.json is there\)"):
        restore(Settings(home=new_home), copy_of_it, say=quiet, show=quiet)
    (new_home / "installation.json").unlink()
    (new_home / "kafka").mkdir()
    (new_home / "kafka" / "cluster_id").write_text("another\n")
    with pytest.raises(LiqError, match="holds a Kafka that is not the backup's"):
        restore(Settings(home=new_home), copy_of_it, say=quiet, show=quiet)
    identity = ProcessIdentity.of(os.getpid())
    assert identity is not None
    write_json(new_home / "holder.json", {"pid": identity.pid, "started_at": identity.started_at})
    with pytest.raises(LiqError, match="`liq up` is running on"):
        restore(Settings(home=new_home), copy_of_it, say=quiet, show=quiet)


def test_an_embedded_home_comes_back_with_its_passwords_and_choices(copy_of_it: Path, new_home: Path) -> None:
    (new_home / "kafka").mkdir()  # the one that the offsets belong to may stay
    cluster_id = manifest.read(copy_of_it).kafka_cluster_id
    assert cluster_id
    (new_home / "kafka" / "cluster_id").write_text(cluster_id + "\n")
    restore(Settings(home=new_home), copy_of_it, say=quiet, show=quiet)
    assert json.loads((new_home / "installation.json").read_text()) == {"ever_live": True}
    assert (new_home / "postgres" / "roles" / "liq_writer").read_text() == "a-password\n"
    assert stat.S_IMODE((new_home / "settings.env").stat().st_mode) == 0o600
    assert not Home(new_home).unfinished_path.exists()


def test_a_backup_that_is_killed_leaves_nothing_that_looks_whole(
    database_url: str, kafka_server: str, topic_prefix: str, new_home: Path, tmp_path: Path, to_empty: Settings
) -> None:
    """Killed while pg_dump waits for a lock on a table: long after its file was begun."""
    environment = os.environ | {
        "LIQ_HOME": str(new_home),
        "LIQ_DATABASE_URL": database_url,
        "LIQ_KAFKA_BOOTSTRAP_SERVERS": kafka_server,
        "LIQ_KAFKA_TOPIC_PREFIX": topic_prefix,
    }
    with connect(database_url) as holder:
        holder.execute("LOCK TABLE evaluation_metrics IN ACCESS EXCLUSIVE MODE")
        process = subprocess.Popen(
            [sys.executable, "-m", "liq_pipeline.cli", "backup", str(tmp_path / "copy")],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while not select(database_url, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                assert time.monotonic() < deadline, "the backup never came to the locked table"
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        holder.rollback()
    with pytest.raises(LiqError, match="was cut short, it has no manifest"):
        restore(to_empty, tmp_path / "copy", say=quiet, show=quiet)


def test_a_backup_that_fails_leaves_nothing_and_says_why(
    empty_database_url: str, kafka_server: str, topic_prefix: str, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    given = settings(kafka_topic_prefix=topic_prefix)
    with connect(empty_database_url) as conn:
        conn.execute("CREATE TABLE schema_migrations (number int, name text, checksum text)")
    said: list[str] = []
    with pytest.raises(LiqError, match="holds no schema of liq_pipeline"):
        back_up(given, Endpoints(empty_database_url, kafka_server), tmp_path / "copy", say=said.append, show=quiet)
    assert list((tmp_path / "copy").iterdir()) == []
    (tmp_path / "copy" / "mine").write_text("x")
    with pytest.raises(LiqError, match="is not empty"):
        back_up(given, Endpoints(empty_database_url, kafka_server), tmp_path / "copy", say=quiet, show=quiet)
    assert (tmp_path / "copy" / "mine").exists()


def test_a_kafka_that_is_away_is_said_and_the_rest_is_kept(
    database_url: str, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    said: list[str] = []
    made = back_up(settings(), Endpoints(database_url, "127.0.0.1:9"), tmp_path / "copy", say=said.append, show=quiet)
    assert not made.everything_landed
    assert any("what Kafka holds and has not landed is not in the backup" in sentence for sentence in said)


def test_a_home_that_a_killed_restore_left_is_refused_by_liq_up(new_home: Path) -> None:
    Home(new_home).unfinished_path.write_text("x")
    done = subprocess.run(
        [sys.executable, "-m", "liq_pipeline.cli", "up", "--mode", "simulated"],
        env=os.environ | {"LIQ_HOME": str(new_home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "was cut short and what is there is not whole" in done.stderr


def test_timescaledb_s_rules_are_followed(
    timescale_url: str, kafka_server: str, topic_prefix: str, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """Into a new database of the same server, by a superuser: hypertables, chunks and rows are back, all of it belongs
    to the database's owner, and the server is no longer restoring."""
    migrate(timescale_url)
    given = settings(kafka_topic_prefix=topic_prefix)
    with RecordProducer(kafka_server, topic_prefix) as producer:
        for number in range(300):
            producer.send(price(number * 86_400))
    made = back_up(given, Endpoints(timescale_url, kafka_server), tmp_path / "copy", say=quiet, show=quiet)
    assert made.server.edition == "apache"
    name = "restored_" + psycopg.conninfo.conninfo_to_dict(timescale_url)["dbname"][-8:]
    target_url = timescale_url.rpartition("/")[0] + f"/{name}"
    owner, database = sql.Identifier("box_owner"), sql.Identifier(name)
    with psycopg.connect(timescale_url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {}").format(owner))
        conn.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, owner))
    try:
        restore(
            Settings(home=given.home / "new", database_url=SecretStr(target_url)),
            tmp_path / "copy",
            say=quiet,
            show=quiet,
        )
        assert migrate(target_url) == []
        chunks = "SELECT hypertable_name, count(*) FROM timescaledb_information.chunks GROUP BY 1 ORDER BY 1"
        assert select(target_url, chunks) == select(timescale_url, chunks) != []
        for query in ROWS_AND_OFFSETS:
            assert select(target_url, query) == select(timescale_url, query)
        assert select(target_url, "SHOW timescaledb.restoring") == [("off",)]
        owners = (
            "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace"
            " WHERE relkind = 'r' AND (nspname = 'public' OR relname LIKE '\\_hyper%')"
        )
        assert select(target_url, owners) == [("box_owner",)]
        with RecordProducer(kafka_server, topic_prefix) as producer:
            producer.send(price(-100 * 86_400))
        with Lander(target_url, kafka_server, topic_prefix) as lander:
            assert sum(lander.land_to_end(30).landed.values()) == 1
        ((after,),) = select(target_url, "SELECT count(*) FROM timescaledb_information.chunks")
        ((before,),) = select(timescale_url, "SELECT count(*) FROM timescaledb_information.chunks")
        assert after == before + 1, "a new time makes a chunk, as in any hypertable"
    finally:
        with psycopg.connect(timescale_url, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database))
            conn.execute(sql.SQL("DROP ROLE {}").format(owner))
