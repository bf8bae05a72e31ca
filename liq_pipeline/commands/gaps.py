"""Commands about holes in the data: what is missing, and healing it now.

Belongs here: arguments and printing. Does not: the work (pipeline/healing.py, store/completeness/gaps.py).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated

import typer
from rich.table import Table

from liq_pipeline.commands.shared import JsonOption, endpoints_in_force, json_default, out, settings_in_force

app = typer.Typer(
    help="Holes in the data: found by a check, healed from what venues still serve.", no_args_is_help=True
)


@app.command("list")
def list_gaps(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are healed or permanent.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show the holes of the world in force, newest first."""
    from liq_pipeline.store.completeness import gaps
    from liq_pipeline.store.connection import connect

    endpoints = endpoints_in_force(settings_in_force())
    with connect(endpoints.database_url, application_name="liq gaps") as connection:
        found = gaps.listed(connection, gaps.world_in_force(connection), everything=everything, limit=limit)
    if as_json:
        for gap in found:
            sys.stdout.write(json.dumps({**dataclasses.asdict(gap), "state": gap.state}, default=json_default) + "\n")
        return
    table = Table("id", "series", "coin", "from", "to", "state", "cause", header_style="bold")
    for gap in found:
        series = f"{gap.source} {gap.kind}" if gap.kind else gap.source
        span = [f"{time:%Y-%m-%d %H:%M:%S}" if time else "" for time in (gap.from_time, gap.to_time)]
        told = f"{gap.cause}; {gap.permanent_reason}" if gap.permanent_reason else gap.cause
        table.add_row(str(gap.gap_id), series, gap.symbol or "all", *span, gap.state, told)
    out.print(table if found else f"No {'' if everything else 'open '}holes.")


@app.command("heal")
def heal_now() -> None:
    """Search for holes, load what venues still serve of them, and score again what they had touched."""
    from liq_pipeline.pipeline.healing import heal
    from liq_pipeline.pipeline.models import model_in_force

    settings = settings_in_force()
    endpoints = endpoints_in_force(settings)
    result = heal(settings, endpoints.database_url, endpoints.kafka_bootstrap_servers, load_model=model_in_force)
    out.print(str(result))
    for source, reason in result.failures.items():
        out.print(f"{source}: {reason}", style="yellow")
    if result.failures:
        raise typer.Exit(1)
