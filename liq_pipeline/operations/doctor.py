"""`liq doctor`: looks over the set-up and says how to mend each finding.

Belongs here: checks that a person would make by hand. Does not: the running system's health (status.py).
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil
import psycopg
import requests

from liq_pipeline.domain.chains import CHAINS, ETHEREUM, ETHERSCAN, chain_of
from liq_pipeline.errors import LiqError
from liq_pipeline.operations import growth
from liq_pipeline.operations.misspelt import misspelt, unusable_channels
from liq_pipeline.operations.status import collect_status
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.runtime.processes import port_is_free
from liq_pipeline.runtime.servers.java import find_java
from liq_pipeline.settings import Settings
from liq_pipeline.sources.registry import flow_sources
from liq_pipeline.store.connection import connect
from liq_pipeline.store.schema import policies

Grade = Literal["ok", "warn", "fail"]
MEMORY_NEEDED_BYTES = 3 * 1024**3
DISK_NEEDED_BYTES = 5 * 1024**3
DISK_DAYS_WANTED = 30
MIN_SERVER_VERSION = 150_000
"""PostgreSQL 15: the schema needs nothing newer (EMBEDDED: measured on 15, 16, 17, 18)."""


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, how it stands, and what to do about it if anything."""

    check: str
    grade: Grade
    detail: str
    mend: str = ""


def examine(settings: Settings, endpoints: Endpoints | None, reason_not_running: str = "") -> Iterator[Finding]:
    """All checks, cheap ones first. `endpoints` is None when nothing runs."""
    yield _python()
    yield from _machine(settings)
    for sentence in misspelt():
        yield Finding("setting", "warn", sentence, "Correct the name, or unset it.")
    yield from _keys(settings)
    yield from _channels(settings)
    if endpoints is None:
        yield Finding("running", "warn", reason_not_running or "nothing is running", "Start it with `make run`.")
        yield from _ports(settings)
        yield from _java(settings)
        yield from _sources(settings)
        return
    yield Finding("running", "ok", f"mode {endpoints.mode}: {endpoints.mode_reason}")
    yield from _database(endpoints)
    yield from _dagster(endpoints)
    status = collect_status(settings, endpoints)
    yield from _growth(settings, status.storage)
    if status.problems:
        for sentence in status.problems:
            yield Finding("health", "fail" if sentence in status.blinding else "warn", sentence, _mend_for(sentence))
    else:
        yield Finding("health", "ok", "healthy")
    yield from _sources(settings)


def _python() -> Finding:
    return Finding("python", "ok", f"Python {platform.python_version()} on {platform.platform(terse=True)}")


def _machine(settings: Settings) -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    grade: Grade = "ok" if memory.total >= MEMORY_NEEDED_BYTES else "warn"
    yield Finding(
        "memory",
        grade,
        f"{memory.available / 1024**3:.1f} of {memory.total / 1024**3:.1f} GiB free",
        "" if grade == "ok" else "Lower LIQ_KAFKA_MEMORY_MB and watch fewer symbols, or use a larger machine.",
    )
    home = settings.home
    existing = next(path for path in (home, *home.parents) if path.exists())
    usage = shutil.disk_usage(existing)
    enough: Grade = "ok" if usage.free >= DISK_NEEDED_BYTES else "warn"
    yield Finding(
        "disk",
        enough,
        f"{usage.free / 1024**3:.1f} GiB free under {home}",
        "" if enough == "ok" else "Free some room, or point LIQ_HOME at a larger disk.",
    )


def _growth(settings: Settings, storage: dict[str, Any]) -> Iterator[Finding]:
    """Growth per day as the maintenance job measured it, how long the disk lasts, and what retention takes away."""
    if storage:
        found = growth.Storage.from_dict(storage)
        for part in found.parts:
            yield Finding(f"size of {part.part}", "ok", growth.words(part))
        days = found.days_until_full
        short = days is not None and days < DISK_DAYS_WANTED
        yield Finding(
            "room",
            "warn" if short else "ok",
            growth.room_words(found),
            "Set LIQ_RETENTION_DAYS, or point LIQ_HOME at a larger disk." if short else "",
        )
    yield Finding("retention", "ok", growth.retention_words(settings.retention_days))


def _keys(settings: Settings) -> Iterator[Finding]:
    if settings.coingecko_api_key is None:
        yield Finding(
            "coingecko key",
            "ok",
            "none: prices come at the shared keyless rate",
            "Set COINGECKO_API_KEY for more calls.",
        )
    else:
        yield Finding("coingecko key", "ok", "set")
    try:
        venues = flow_sources(settings)
    except LiqError as error:
        yield Finding("flow source", "fail", str(error), "Set what it names, or leave the chain out.")
        return
    if not venues:
        yield Finding(
            "flow source",
            "warn",
            "no Etherscan key, no TronGrid key and no chain's node: the flow side will be blind",
            "Set ETHERSCAN_API_KEY and TRONGRID_API_KEY (both free), or LIQ_ETHEREUM_RPC_URL and LIQ_TRON_RPC_URL.",
        )
        return
    yield Finding("flow source", "ok", ", ".join(f"{chain_of(venue)} by {venue}" for venue in venues))
    paid = [venue for venue in venues if venue.startswith(ETHERSCAN) and CHAINS[chain_of(venue)].etherscan == "paid"]
    if paid:
        yield Finding(
            "flow plan",
            "warn",
            f"Etherscan's free plan does not serve {', '.join(chain_of(venue) for venue in paid)}",
            "Ignore this if your plan is a paid one; else set LIQ_<CHAIN>_RPC_URL.",
        )
    if {chain_of(venue) for venue in venues} == {ETHEREUM.name}:
        yield Finding(
            "flow chains",
            "ok",
            "Ethereum alone: half or more of the exchanges' USDT moves on Tron",
            "Set TRONGRID_API_KEY (free) or LIQ_TRON_RPC_URL.",
        )


def _channels(settings: Settings) -> Iterator[Finding]:
    if not settings.alert_urls:
        yield Finding(
            "alert channels",
            "warn",
            "none in this environment: alerts stand in the database and on Kafka only",
            "Set LIQ_ALERT_URLS (Apprise URLs), then try `liq alerts test`.",
        )
    else:
        unusable = unusable_channels(settings)
        for sentence in unusable:
            hint = "Correct it; each service's form stands in Apprise's own documentation."
            yield Finding("alert channels", "fail", sentence, hint)
        if not unusable:
            yield Finding(
                "alert channels", "ok", f"{len(settings.alert_urls)} set; `liq alerts test` sends one through each"
            )
    heartbeat = "" if settings.heartbeat_url is None else settings.heartbeat_url.get_secret_value()
    if heartbeat and not (heartbeat.startswith(("http://", "https://")) and urlsplit(heartbeat).hostname):
        yield Finding(
            "outside heartbeat",
            "fail",
            "LIQ_HEARTBEAT_URL is not a web address, so nothing is pinged",
            "Give it the ping address of the service, https://...",
        )
    elif settings.heartbeat_url is None:
        yield Finding(
            "outside heartbeat",
            "warn",
            "none in this environment: nobody outside notices if this machine dies",
            "Set LIQ_HEARTBEAT_URL to a healthchecks-style address.",
        )
    else:
        yield Finding("outside heartbeat", "ok", "set")


def _ports(settings: Settings) -> Iterator[Finding]:
    """The ports that the next start wants; one that is taken is no fault, but it is good to know."""
    wanted = {
        "LIQ_DAGSTER_PORT": settings.dagster_port,
        "LIQ_METRICS_PORT": settings.metrics_port,
        "LIQ_WEB_PORT": settings.web_port,
        "LIQ_CODE_SERVER_PORT": settings.code_server_port,
    }
    if settings.database_url is None:
        wanted["LIQ_POSTGRES_PORT"] = settings.postgres_port
    if settings.kafka_bootstrap_servers is None:
        wanted["LIQ_KAFKA_PORT"] = settings.kafka_port
    taken = [f"{port} ({name})" for name, port in wanted.items() if not port_is_free(port)]
    if taken:
        hint = "The next start takes free ones and prints them; the variables choose others."
        yield Finding("ports", "warn", f"another program listens on {', '.join(taken)}", hint)
    else:
        yield Finding("ports", "ok", f"{', '.join(str(port) for port in wanted.values())} are free")


def _java(settings: Settings) -> Iterator[Finding]:
    if settings.kafka_bootstrap_servers is not None:
        return
    try:
        find_java()
    except LiqError as error:
        yield Finding("java", "fail", str(error), "Install it, or name a running broker.")
    else:
        yield Finding("java", "ok", "there is one for the embedded Kafka")


def _dagster(endpoints: Endpoints) -> Iterator[Finding]:
    if endpoints.dagster_url is None:
        return
    try:
        with requests.Session() as session:
            session.trust_env = False  # a proxy must not come between this machine and itself
            session.get(f"{endpoints.dagster_url}/server_info", timeout=5).raise_for_status()
    except requests.RequestException:
        detail = f"its web server does not answer at {endpoints.dagster_url}"
        yield Finding("dagster", "fail", detail, "Look at logs/webserver.log in the home, or restart with `make run`.")
    else:
        yield Finding("dagster", "ok", endpoints.dagster_url)


def _database(endpoints: Endpoints) -> Iterator[Finding]:
    try:
        with connect(endpoints.database_url, application_name="liq doctor") as connection:
            version = connection.info.server_version
            kept = policies.verdict(connection, datetime.now(UTC))
    except psycopg.Error as error:
        yield Finding(
            "database",
            "fail",
            " ".join(str(error).split()),
            "Check LIQ_DATABASE_URL, or restart with `make run`.",
        )
        return
    if version < MIN_SERVER_VERSION:
        yield Finding("database", "fail", f"PostgreSQL {version // 10_000}", "Use PostgreSQL 15 or newer.")
    else:
        yield Finding("database", "ok", f"PostgreSQL {version // 10_000}.{version % 10_000}")
    if kept.policies:
        yield Finding(
            "policies",
            "warn" if kept.overdue else "ok",
            kept.sentence(),
            "Look into the server's log. If every job fails there, TimescaleDB and PostgreSQL are no pair that works: "
            "docs/storage.md names one."
            if kept.overdue
            else "",
        )


def _sources(settings: Settings) -> Iterator[Finding]:
    from liq_pipeline.sources.access.probe import probe_sources

    result = probe_sources(settings)
    for name in (*result.prices_ok, *result.derivatives_ok):
        yield Finding(f"source {name}", "ok", "answers")
    for name, reason in sorted(result.failures.items()):
        yield Finding(
            f"source {name}",
            "warn",
            reason,
            "Check the network; if the venue refuses this place, leave it out of LIQ_VENUES.",
        )


def _mend_for(sentence: str) -> str:
    """The next step for a health finding, by the part it speaks of."""
    hints = {
        "dead_letters": 'Look at them with `liq sql "SELECT reason_code, reason FROM dead_letters"`.',
        "No symbol has": "See which sources are down in `liq status`; a fresh installation needs its look-back first.",
        "No tick": "Open the Dagster address of `liq status` and look at the newest run of the tick.",
        "no topic": "Run `liq topics`.",
        "Source": "The reason is the venue's own; see docs/sources.md.",
        "No venue lists": "Take it out of LIQ_SYMBOLS, or name the coin itself: PEPE for 1000PEPE, BTC for XBT.",
        "cannot be scored": "Wait for the look-back to fill, or see which venues are silent in `liq status`.",
        "could not be delivered": "Check LIQ_ALERT_URLS with `liq alerts test`.",
        "Kafka": "Check LIQ_KAFKA_BOOTSTRAP_SERVERS, or restart with `make run`.",
        "The disk": "Free some room, set LIQ_RETENTION_DAYS, or point LIQ_HOME at a larger disk.",
        "the disk is full": "Set LIQ_RETENTION_DAYS, or point LIQ_HOME at a larger disk.",
        "world": "Start it with `make run`.",
    }
    return next((hint for words, hint in hints.items() if words in sentence), "See `liq status`.")
