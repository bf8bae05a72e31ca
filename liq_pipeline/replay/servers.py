"""A database and a Kafka that live for one replay.

Belongs here: starting them on free ports in a temporary home, stopping them, removing everything. Does not: playing.

A replay shares nothing with the running installation, not even its servers: what it writes cannot be mistaken for the
market of now, what it costs cannot delay a tick, and nothing of it is left behind: the servers die with the replay,
even if that is killed, and what a killed one has left on the disk is taken away by the next.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.runtime.files import read_json, write_json
from liq_pipeline.runtime.processes import ProcessIdentity, free_port
from liq_pipeline.runtime.servers.kafka import EmbeddedKafka
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline.settings import Settings
from liq_pipeline.store.schema.migrations import migrate

TOPIC_PREFIX: Final = "replay."
# Nothing of a replay must survive a power cut, so its commits need not wait for the disk.
_RELAXED: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_KAFKA_MEMORY_MB: Final = 256
_FOLDERS: Final = "liq-replay-"
_OWNER: Final = "owner.json"
_UNOWNED_SECONDS: Final = 3600.0
"""A folder without an owner may be one that is being made; after so long it is not."""


@dataclass(frozen=True)
class Servers:
    """Where the throw-away servers are; database_url holds a password and is not part of the repr."""

    database_url: str = field(repr=False)
    bootstrap_servers: str
    topic_prefix: str = TOPIC_PREFIX


@contextmanager
def throw_away(settings: Settings) -> Iterator[Servers]:
    """Empty servers with the whole schema and all topics, gone at the end. Raises LiqError if one does not start."""
    remove_left_behind()
    home = Path(tempfile.mkdtemp(prefix=_FOLDERS))
    home.chmod(0o711)  # PostgreSQL's own user passes through
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        own(home)
        postgres = EmbeddedPostgres(home, free_port(), settings.run_as, settings=_RELAXED, dies_with_us=True)
        stack.callback(postgres.stop)
        postgres.start()
        kafka = EmbeddedKafka(home, free_port(taken=[postgres.port]), _KAFKA_MEMORY_MB, dies_with_us=True)
        stack.callback(kafka.stop)
        kafka.start()
        url = postgres.ensure_database("liq")
        migrate(url)
        ensure_topics(kafka.bootstrap_servers, TOPIC_PREFIX)
        yield Servers(url, kafka.bootstrap_servers)


def own(home: Path) -> None:
    """Write down whose folder this is: ours, as long as this process lives."""
    us = ProcessIdentity.of(os.getpid())
    assert us is not None  # noqa: S101 - we are running
    write_json(home / _OWNER, vars(us))


def remove_left_behind() -> list[Path]:
    """Stop the servers and remove the folders of replays that were killed; which folders that were."""
    gone = []
    for home in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*"):
        try:
            about = home.stat()
        except FileNotFoundError:  # its own replay was faster
            continue
        if about.st_uid != os.getuid():
            continue
        owner = read_json(home / _OWNER)
        if owner is None:
            if time.time() - about.st_mtime < _UNOWNED_SECONDS:
                continue
        elif ProcessIdentity(int(owner["pid"]), float(owner["started_at"])).is_alive:
            continue
        EmbeddedPostgres(home, 0).stop_orphan()
        EmbeddedKafka(home, 0).stop_orphan()
        shutil.rmtree(home, ignore_errors=True)
        gone.append(home)
    return gone
