"""The addresses in force: from the settings, else from what the running `liq up` wrote into its home.

Belongs here: runtime.json and reading it. Does not: connections.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.files import read_json, write_json
from liq_pipeline.runtime.home import Home
from liq_pipeline.settings import Settings

EffectiveMode = Literal["live", "simulated", "recorded"]


@dataclass(frozen=True)
class Endpoints:
    """Where everything is. The database's URLs hold passwords: they are not part of the repr, and never logged.

    database_url: the pipeline's own, which may write rows.
    """

    database_url: str = field(repr=False)
    kafka_bootstrap_servers: str
    database_owner_url: str | None = field(default=None, repr=False)
    """Who may change the schema; None: whoever database_url names."""
    database_reader_url: str | None = field(default=None, repr=False)
    """Who may only read, for `liq sql`; None: whoever database_url names, in read-only transactions."""
    desk_url: str | None = None
    dagster_url: str | None = None
    dagster_storage_url: str | None = field(default=None, repr=False)
    """Where Dagster keeps its runs and events, for its own tools (`liq env`)."""
    code_server_port: int | None = None
    mode: str | None = None
    """live, simulated or recorded; None if this process cannot know (own servers, nothing started by `liq up`)."""
    mode_reason: str | None = None
    world: str | None = None


def publish(home: Home, endpoints: Endpoints) -> None:
    """Write runtime.json (readable by its owner only), in one step."""
    write_json(home.runtime_path, asdict(endpoints))


def withdraw(home: Home) -> None:
    """Nothing runs any more."""
    home.runtime_path.unlink(missing_ok=True)


def resolve(settings: Settings) -> Endpoints:
    """The addresses in force; settings win over what `liq up` wrote.

    LiqError if the database's or Kafka's address is neither set nor written by a `liq up` that is still running.
    """
    home = Home(settings.home)
    written = read_json(home.runtime_path) if home.holder() is not None else None
    values = {name: (written or {}).get(name) for name in Endpoints.__dataclass_fields__}
    if settings.database_url is not None:
        own = (settings.database_url, settings.database_owner_url, settings.database_reader_url)
        for name, url in zip(("database_url", "database_owner_url", "database_reader_url"), own, strict=True):
            # Children of `liq up` are given the writer's URL alone: who owns is none of their business.
            values[name] = None if url is None else url.get_secret_value()
    if settings.kafka_bootstrap_servers is not None:
        values["kafka_bootstrap_servers"] = settings.kafka_bootstrap_servers
    if values["mode"] is None and settings.mode != "auto":
        values.update(mode=settings.mode, mode_reason="LIQ_MODE says so")
    if values["database_url"] is None or values["kafka_bootstrap_servers"] is None:
        missing = "LIQ_DATABASE_URL" if values["database_url"] is None else "LIQ_KAFKA_BOOTSTRAP_SERVERS"
        raise LiqError(
            f"nothing is running on {home.path} and {missing} is not set: start `liq up` (or `make run`) first, or set "
            "LIQ_HOME to the folder where it runs"
        )
    return Endpoints(**values)  # type: ignore[arg-type]
