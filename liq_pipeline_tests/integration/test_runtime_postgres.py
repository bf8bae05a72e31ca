"""The embedded PostgreSQL: real, ours alone, and back after whatever happens to it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.processes import ProcessIdentity, free_port, wait_until_gone
from liq_pipeline.runtime.servers.dagster_home import ensure_storage
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres, find_binaries
from liq_pipeline.runtime.servers.users import SYSTEM_USER, account_to_run_as

HASTY = {"fsync": "off"}

pytestmark = pytest.mark.xdist_group("own-postgres")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")


@pytest.fixture(scope="module")
def prepared(server_home: Path) -> EmbeddedPostgres:
    """A stopped server whose folder the tests copy: making a data directory is their slowest part."""
    home = server_home / "prepared"
    home.mkdir(mode=0o711)
    # These tests kill processes, not machines: waiting for the disk would only make them slow.
    made = EmbeddedPostgres(home, free_port(), settings=HASTY)
    made.start()
    made.stop()
    return made


@pytest.fixture
def server(new_home: Path, prepared: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """A server of the test's own, started."""
    subprocess.run(["cp", "-a", str(prepared.directory), str(new_home)], check=True)
    made = EmbeddedPostgres(new_home, free_port(), settings=HASTY)
    made.start()
    yield made
    made.stop()


def pid_of(server: EmbeddedPostgres) -> int:
    identity = server.identity
    assert identity is not None
    return identity.pid


def test_it_answers_by_url_and_keeps_what_was_committed_over_a_restart(server: EmbeddedPostgres) -> None:
    url = server.ensure_database("liq")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (x integer)")
        connection.execute("INSERT INTO kept VALUES (1)")
    server.stop()
    assert not server.is_running
    server.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]


def test_starting_twice_and_stopping_twice_change_nothing(server: EmbeddedPostgres) -> None:
    pid = pid_of(server)
    server.start()
    assert pid_of(server) == pid
    server.stop()
    server.stop()
    assert not server.is_running


def test_a_wrong_password_is_rejected(server: EmbeddedPostgres) -> None:
    right = server.url("postgres")
    password = right.split(":")[2].split("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(right.replace(password, "wrong"))
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(right.replace(f":{password}@", "@"))


def test_the_password_is_in_a_file_of_its_owner_and_nowhere_else(server: EmbeddedPostgres) -> None:
    assert stat.S_IMODE(server.password_path.stat().st_mode) == 0o600
    password = server.password_path.read_text().strip()
    process = psutil.Process(pid_of(server))
    assert password not in " ".join(process.cmdline())
    assert password not in server.log_path.read_text()
    assert sorted(path.name for path in server.directory.iterdir() if path.name.startswith("password")) == ["password"]


def test_it_listens_on_loopback_only_and_has_no_socket_file(server: EmbeddedPostgres) -> None:
    listening = {
        connection.laddr
        for connection in psutil.Process(pid_of(server)).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", server.port)}
    with psycopg.connect(server.url("postgres")) as connection:
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)


def test_its_settings_are_those_of_a_small_machine_that_loses_nothing(new_home: Path) -> None:
    expected = {
        "timezone": "UTC",
        "jit": "off",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "password_encryption": "scram-sha-256",
    }
    server = EmbeddedPostgres(new_home, free_port())
    server.start()
    with psycopg.connect(server.url("postgres")) as connection:
        rows = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE lower(name) = ANY(%s)", (list(expected),)
        ).fetchall()
    server.stop()
    assert {name.lower(): setting for name, setting in rows} == expected


def test_after_kill_9_it_recovers_what_was_committed(server: EmbeddedPostgres) -> None:
    url = server.ensure_database("liq")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (x integer)")
        connection.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
    busy = psycopg.connect(url)
    busy.execute("INSERT INTO kept VALUES (-1)")
    killed = server.identity
    assert killed is not None
    os.kill(killed.pid, signal.SIGKILL)
    assert wait_until_gone([killed], 5) == []
    server.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*), min(x) FROM kept").fetchone() == (1000, 1)
    busy.close()


def test_a_server_left_behind_by_a_killed_owner_is_stopped_and_replaced(server: EmbeddedPostgres) -> None:
    orphan = server.identity
    assert orphan is not None
    successor = EmbeddedPostgres(server.directory.parent, free_port())
    successor.start()
    assert wait_until_gone([orphan], 5) == []
    with psycopg.connect(successor.url("postgres")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    successor.stop()


def test_a_taken_port_is_one_clear_sentence_and_leaves_nothing_running(new_home: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = int(listener.getsockname()[1])
        server = EmbeddedPostgres(new_home, port)
        with pytest.raises(LiqError, match=rf"PostgreSQL did not start on port {port}"):
            server.start()
    assert not server.is_running


def test_a_half_made_data_directory_is_made_anew(new_home: Path) -> None:
    server = EmbeddedPostgres(new_home, free_port(), settings=HASTY)
    (server.directory / "data.new").mkdir(parents=True)
    (server.directory / "data.new" / "PG_VERSION").write_text("18\n")
    server.start()
    assert server.ensure_database("liq").endswith("/liq")
    server.stop()


def test_data_of_another_major_version_is_refused_untouched(server: EmbeddedPostgres) -> None:
    server.stop()
    version = server.data / "PG_VERSION"
    was = version.read_text()
    version.write_text("11\n")
    with pytest.raises(LiqError, match="made by PostgreSQL 11"):
        server.start()
    version.write_text(was)
    server.start()
    assert server.is_running


def test_dagster_gets_a_database_of_its_own_as_psycopg2_takes_it(server: EmbeddedPostgres) -> None:
    url = ensure_storage(server.ensure_database("liq"), "dagster")
    assert url.startswith("postgresql+psycopg2://liq:")
    assert urlsplit(url).path == "/dagster"
    assert ensure_storage(server.url("liq"), "dagster") == url
    with psycopg.connect(url.replace("+psycopg2", "")) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("dagster",)


def test_dagster_gets_a_schema_where_the_role_may_not_create_databases(server: EmbeddedPostgres) -> None:
    owner = server.ensure_database("liq")
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("CREATE ROLE small LOGIN PASSWORD 'p%40:/ss' NOCREATEDB")
        connection.execute("GRANT CREATE ON DATABASE liq TO small")
    url = ensure_storage(f"postgresql://small:p%2540%3A%2Fss@127.0.0.1:{server.port}/liq", "dagster")
    with psycopg.connect(url.replace("+psycopg2", "")) as connection:
        assert connection.execute("SELECT current_user, current_schema()").fetchone() == ("small", "dagster")


@needs_root
def test_as_root_the_server_runs_as_a_user_of_its_own(server: EmbeddedPostgres) -> None:
    assert psutil.Process(pid_of(server)).username() == SYSTEM_USER
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    assert pwd.getpwuid(server.data.stat().st_uid).pw_name == SYSTEM_USER


@needs_root
def test_as_root_the_named_user_is_taken(new_home: Path) -> None:
    server = EmbeddedPostgres(new_home, free_port(), settings=HASTY, run_as="nobody")
    server.start()
    assert psutil.Process(pid_of(server)).username() == "nobody"
    server.stop()


@needs_root
@pytest.mark.parametrize("name", ["root", "no-such-user"])
def test_an_unusable_user_is_one_clear_sentence(name: str) -> None:
    with pytest.raises(LiqError, match="LIQ_RUN_AS"):
        account_to_run_as(name)


@needs_root
def test_binaries_that_only_root_may_read_are_copied_under_the_home(new_home: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    binaries = find_binaries()
    package = binaries.parents[1]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.is_dir():
            shutil.copytree(folder, private / folder.name, ignore=shutil.ignore_patterns("include", "pginstall"))
    private.chmod(0o700)
    server = EmbeddedPostgres(
        new_home, free_port(), binaries=private / binaries.relative_to(package.parent), settings=HASTY
    )
    server.start()
    running = Path(psutil.Process(pid_of(server)).exe())
    server.stop()
    assert running.is_relative_to(server.directory / "programs")


@needs_root
def test_a_home_that_the_server_s_user_cannot_reach_is_one_clear_sentence(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(LiqError, match="choose a LIQ_HOME"):
        EmbeddedPostgres(closed / "home", free_port()).start()


@needs_root
def test_an_ordinary_user_runs_it_as_itself(new_home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(new_home, nobody.pw_uid, nobody.pw_gid)
    port = free_port()
    code = (
        "from pathlib import Path; from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres; import psutil; "
        f"s = EmbeddedPostgres(Path({str(new_home)!r}), {port}); s.start(); "
        "print(psutil.Process(s.identity.pid).username()); print(s.ensure_database('liq')[:17]); s.stop()"
    )
    done = None
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run(
                [python, "-c", code],
                user=nobody.pw_uid,
                group=nobody.pw_gid,
                extra_groups=[],
                cwd=new_home,
                env={"PATH": os.environ["PATH"], "HOME": str(new_home), "PYTHONPATH": os.pathsep.join(sys.path)},
                capture_output=True,
                text=True,
                check=False,
            )
        except (PermissionError, FileNotFoundError):
            continue
        break
    if done is None or "No module named" in done.stderr:
        pytest.skip("no Python here that an ordinary user can run has this program's libraries")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["nobody", "postgresql://liq:"]


def test_a_process_identity_is_gone_with_its_process(server: EmbeddedPostgres) -> None:
    identity = server.identity
    assert identity is not None
    server.stop()
    assert ProcessIdentity.of(identity.pid) is None or not identity.is_alive
