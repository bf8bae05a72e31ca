"""`liq dead-letters`: messages that did not fit.

Belongs here: arguments and printing. Does not: reading or sending them (store/landing/dead_letters.py).
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.table import Table

from liq_pipeline.commands.shared import JsonOption, endpoints_in_force, json_default, out, settings_in_force

app = typer.Typer(help="Messages that did not fit.", no_args_is_help=True)


@app.command("list")
def list_(
    topic: Annotated[str | None, typer.Option(help="Only this topic.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only this reason code, e.g. wrong_unit.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: JsonOption = False,
) -> None:
    """What did not fit and was not sent again, newest first, with its place and reason."""
    import dataclasses

    from liq_pipeline.store.connection import connect
    from liq_pipeline.store.landing.dead_letters import list_letters

    with connect(
        endpoints_in_force(settings_in_force()).database_url, application_name="liq dead-letters"
    ) as connection:
        letters = list_letters(connection, topic=topic, reason_code=reason, limit=limit)
    if as_json:
        for letter in letters:
            sys.stdout.write(json.dumps(dataclasses.asdict(letter), default=json_default) + "\n")
        return
    table = Table("place", "reason", "in words", header_style="bold")
    for letter in letters:
        table.add_row(letter.place, letter.reason_code, letter.reason)
    out.print(table if letters else "No dead letters.")


@app.command("resubmit")
def send_again(
    topic: Annotated[str | None, typer.Option(help="Only this topic.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only this reason code.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 1000,
) -> None:
    """Send them into their topics again, after the cause was mended."""
    from liq_pipeline.bus.producer import RecordProducer
    from liq_pipeline.store.connection import connect
    from liq_pipeline.store.landing.dead_letters import resubmit

    settings = settings_in_force()
    endpoints = endpoints_in_force(settings)
    producer = RecordProducer(endpoints.kafka_bootstrap_servers, settings.kafka_topic_prefix)
    try:
        with connect(endpoints.database_url, application_name="liq dead-letters") as connection:
            sent = resubmit(connection, producer, topic=topic, reason_code=reason, limit=limit)
    finally:
        producer.close()
    out.print(f"{sent} messages were sent again.")
