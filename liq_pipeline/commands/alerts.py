"""`liq alerts`: the alert book.

Belongs here: arguments and printing. Does not: alert states, delivery (alerting/).
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.table import Table

from liq_pipeline.commands.shared import JsonOption, endpoints_in_force, json_default, out, settings_in_force
from liq_pipeline.errors import LiqError

app = typer.Typer(help="The alert book.", no_args_is_help=True)


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    world: Annotated[str | None, typer.Option(help="Another world than the active one; `all` for every one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The alerts of the active world, newest first."""
    from liq_pipeline.alerting.book import list_alerts
    from liq_pipeline.store import worlds
    from liq_pipeline.store.connection import connect

    with connect(endpoints_in_force(settings_in_force()).database_url, application_name="liq alerts") as connection:
        if world is None:
            # A simulation or recording that was left keeps its open alerts for ever: they are no news.
            active = worlds.active(connection)
            world = "all" if active is None else active.name
        elif world != "all" and worlds.get(connection, world) is None:
            raise LiqError(f"there is no world {world} in the store; `--world all` shows every world's alerts")
        shown = None if world == "all" else world
        rows = list_alerts(connection, include_resolved=everything, limit=limit, world=shown)
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row, default=json_default) + "\n")
        return
    table = Table(
        "alert",
        "opened (UTC)",
        "world",
        "rule",
        "subject",
        "at risk",
        "severity",
        "state",
        header_style="bold",
    )
    for row in rows:
        table.add_row(
            str(row["alert_id"]),
            f"{row['opened_at']:%Y-%m-%d %H:%M:%S}",
            row["world"],
            row["rule"],
            row["subject"],
            {"long": "longs", "short": "shorts"}.get(row["side"] or "", ""),
            row["severity"],
            row["state"] + (" (seen)" if row["acknowledged_at"] else ""),
        )
    of = "" if world == "all" else f" of world {world}"
    out.print(table if rows else f"No {'' if everything else 'open '}alerts{of}.")


@app.command("show")
def show(alert_id: str, as_json: JsonOption = False) -> None:
    """One alert with its receipt: what, why, what is missing, what would end it, who was told."""
    from liq_pipeline.alerting.book import show_alert
    from liq_pipeline.operations.receipt_page import receipt_lines
    from liq_pipeline.store.connection import connect

    with connect(endpoints_in_force(settings_in_force()).database_url, application_name="liq alerts") as connection:
        row = show_alert(connection, alert_id)
    if as_json:
        sys.stdout.write(json.dumps(row, default=json_default) + "\n")
    else:
        for line in receipt_lines(row):
            out.print(line, highlight=False, soft_wrap=True)


@app.command("ack")
def acknowledge(alert_id: str, by: Annotated[str | None, typer.Option(help="Who has seen it.")] = None) -> None:
    """Mark an alert as seen."""
    import getpass

    from liq_pipeline.alerting.book import ack
    from liq_pipeline.store.connection import connect

    with connect(endpoints_in_force(settings_in_force()).database_url, application_name="liq alerts") as connection:
        ack(connection, alert_id, by or getpass.getuser())
        connection.commit()
    out.print(f"{alert_id} is acknowledged.")


@app.command("test")
def test() -> None:
    """Send a test message through every configured channel."""
    from liq_pipeline.alerting.sending.delivery import send_test

    results = send_test(settings_in_force())
    if not results:
        raise LiqError(
            "No channel is configured in this environment: set LIQ_ALERT_URLS (Apprise URLs) as for `liq up`."
        )
    failed = 0
    for result in results:
        failed += not result.ok
        out.print(f"{result.channel}: {'sent' if result.ok else f'failed: {result.error}'}")
    raise typer.Exit(1 if failed else 0)
