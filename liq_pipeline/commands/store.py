"""Commands about the store and the topics: schema, topics, queries, re-scoring.

Belongs here: arguments and printing. Does not: the work.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.table import Table

from liq_pipeline.commands.shared import JsonOption, SymbolOption, endpoints_in_force, instant, out, settings_in_force
from liq_pipeline.errors import LiqError

MOST_ROWS = 1000
"""Of a table for people. Measuring the columns of 100,000 rows took minutes and half a gigabyte."""


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 while the schema is not up to date.")
    ] = False,
) -> None:
    """Bring the schema up to date, and Dagster's where its database is named; does nothing when it is."""
    from liq_pipeline.runtime.servers.dagster_storage import VARIABLE, ensure_tables
    from liq_pipeline.store.connection import connect
    from liq_pipeline.store.schema import migrations
    from liq_pipeline.store.schema.migrations import migrate as run_migrations

    endpoints = endpoints_in_force(settings_in_force())
    if check:
        with connect(endpoints.database_url, application_name="liq migrate --check") as conn:
            missing = migrations.pending(conn)
        out.print("\n".join(f"not applied yet: {name}" for name in missing) or "The schema is up to date.")
        raise typer.Exit(1 if missing else 0)
    applied = run_migrations(endpoints.database_owner_url or endpoints.database_url)
    out.print("\n".join(f"applied {name}" for name in applied) if applied else "The schema is up to date.")
    dagster_url = os.environ.get(VARIABLE)
    if dagster_url and ensure_tables(dagster_url):
        out.print("made Dagster's tables")


def roles() -> None:
    """Give your own database a writer and a reader, with new passwords; needs a role that may create roles, once."""
    from liq_pipeline.runtime.servers.database_roles import make_for_own_database

    settings = settings_in_force()
    if settings.database_url is None:
        raise LiqError("an embedded database has its roles from `liq up`: this is for the one of LIQ_DATABASE_URL")
    path = make_for_own_database(settings)
    out.print(f"The settings for the new roles are in {path} (readable by you only).", soft_wrap=True)


def topics() -> None:
    """Bring the Kafka topics up to date; does nothing when they are."""
    from liq_pipeline.bus.admin import ensure_topics

    settings = settings_in_force()
    made = ensure_topics(endpoints_in_force(settings).kafka_bootstrap_servers, settings.kafka_topic_prefix)
    out.print("\n".join(f"created {name}" for name in made) if made else "The topics are up to date.")


def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT.")],
    as_json: JsonOption = False,
) -> None:
    """A read-only query against the store in force."""
    from liq_pipeline.operations.query import json_lines, json_value, read_only_query

    endpoints = endpoints_in_force(settings_in_force())
    url = endpoints.database_reader_url or endpoints.database_url
    result = read_only_query(url, statement, limit=None if as_json else MOST_ROWS)
    if as_json:
        for line in json_lines(result):
            sys.stdout.write(line + "\n")
        return
    table = Table(header_style="bold")
    for column in result.columns:
        table.add_column(column, overflow="fold")
    for row in result.rows:
        table.add_row(*("" if value is None else str(json_value(value)) for value in row))
    out.print(table)
    told = f"the first {len(result.rows)} rows; --json gives all" if result.has_more else f"{len(result.rows)} rows"
    out.print(told, style="dim")


def score(
    from_: Annotated[str, typer.Option("--from", help="First time, UTC.")],
    to: Annotated[str, typer.Option("--to", help="Last time, UTC.")],
    symbol: SymbolOption = None,
) -> None:
    """Re-score stored history: new revisions, nothing overwritten."""
    from liq_pipeline.pipeline.models import model_in_force
    from liq_pipeline.pipeline.politeness import Politeness
    from liq_pipeline.pipeline.rescore import rescore

    settings = settings_in_force()
    database_url = endpoints_in_force(settings).database_url
    with Politeness(database_url) as politeness:
        result = rescore(
            database_url,
            settings,
            instant(from_, "--from"),
            instant(to, "--to"),
            symbol=symbol,
            load_model=model_in_force,
            politeness=politeness,
        )
    out.print(str(result))
