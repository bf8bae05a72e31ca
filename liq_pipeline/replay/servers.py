"""A database and a Kafka that live for one replay.

Belongs here: starting them on free ports in a temporary home, stopping them, removing everything. Does not: playing.

A replay shares nothing with the running installation, not even its servers: what it writes cannot be mistaken for the
market of now, what it costs cannot delay a tick, and nothing of it is left behind.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.runtime.kafka import EmbeddedKafka
from liq_pipeline.runtime.postgres import EmbeddedPostgres
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.settings import Settings
from liq_pipeline.store.migrations import migrate

TOPIC_PREFIX: Final = "replay."
# Nothing of a replay must survive a power cut, so its commits need not wait for the disk.
_RELAXED: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_KAFKA_MEMORY_MB: Final = 256


@dataclass(frozen=True)
class Servers:
    """Where the throw-away servers are; database_url holds a password and is not part of the repr."""

    database_url: str = field(repr=False)
    bootstrap_servers: str
    topic_prefix: str = TOPIC_PREFIX


@contextmanager
def throw_away(settings: Settings) -> Iterator[Servers]:
    """Empty servers with the whole schema and all topics, gone at the end. Raises LiqError if one does not start."""
    home = Path(tempfile.mkdtemp(prefix="liq-replay-"))
    home.chmod(0o711)  # PostgreSQL's own user passes through
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        postgres = EmbeddedPostgres(home, free_port(), settings.run_as, settings=_RELAXED)
        stack.callback(postgres.stop)
        postgres.start()
        kafka = EmbeddedKafka(home, free_port(taken=[postgres.port]), _KAFKA_MEMORY_MB)
        stack.callback(kafka.stop)
        kafka.start()
        url = postgres.ensure_database("liq")
        migrate(url)
        ensure_topics(kafka.bootstrap_servers, TOPIC_PREFIX)
        yield Servers(url, kafka.bootstrap_servers)
