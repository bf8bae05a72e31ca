"""Commands about labelled wallets: holding lists against each other, and addresses that people should look at.

Belongs here: arguments and printing. Does not: lists (sources/chain/wallet_lists.py) or comparing them
(sources/chain/wallet_review.py).
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from liq_pipeline.commands.shared import JsonOption, endpoints_in_force, json_default, out, settings_in_force
from liq_pipeline.errors import LiqError

app = typer.Typer(help="Labelled wallets of exchanges: whose address is whose.", no_args_is_help=True)


@app.command("check")
def check(
    files: Annotated[
        list[Path], typer.Argument(help="Other lists: CSV with chain, address, and entity or exchange.", exists=True)
    ],
    as_json: JsonOption = False,
) -> None:
    """Compare the list in force with others: who names an address differently. Exit 1 if anyone does."""
    import json

    from liq_pipeline.sources.chain import wallet_lists, wallet_review
    from liq_pipeline.store.connection import connect

    endpoints = endpoints_in_force(settings_in_force())
    with connect(endpoints.database_url, application_name="liq wallets") as connection:
        wallet_lists.ensure_shipped(connection, datetime.now(UTC))
        version = wallet_lists.version_in_force(connection, datetime.now(UTC)) or ""
        ours = wallet_lists.load(connection, version)
    table = Table("file", "chain", "address", "in force", "the file says", header_style="bold")
    lines: list[str] = []
    is_clean = True
    for path in files:
        try:
            theirs = wallet_review.read_list(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise LiqError(f"{path} cannot be read: {error}") from error
        found = wallet_review.compare(ours, theirs)
        counts = Counter(finding.kind for finding in found)
        for finding in found:
            if finding.kind in ("differs", "malformed"):
                is_clean = False
                table.add_row(path.name, finding.chain, finding.address, finding.ours or finding.kind, finding.theirs)
            if as_json:
                sys.stdout.write(json.dumps({"file": path.name, **asdict(finding)}) + "\n")
        lines.append(
            f"{path.name}: {counts['agrees']} agree with {version}, {counts['differs']} differ,"
            f" {counts['unknown']} are not in it, {counts['malformed']} are malformed"
        )
    if not as_json:
        for line in lines:
            out.print(line)
        if table.rows:
            out.print(table)
    if not is_clean:
        raise typer.Exit(1)


@app.command("review")
def review(
    hours: Annotated[int, typer.Option(min=1, max=24 * 30, help="How far back to look.")] = 24,
    as_json: JsonOption = False,
) -> None:
    """List unlabelled addresses that gather from many and pay one exchange. For people: nothing uses them by itself."""
    import json

    from liq_pipeline.sources.chain import wallet_lists, wallet_review
    from liq_pipeline.store import worlds
    from liq_pipeline.store.connection import connect

    endpoints = endpoints_in_force(settings_in_force())
    now = datetime.now(UTC)
    with connect(endpoints.database_url, application_name="liq wallets") as connection:
        world = worlds.active(connection)
        if world is None:
            raise LiqError("no world is active: run liq up first")
        clock = worlds.clock(connection, world, now) or now
        version = wallet_lists.version_in_force(connection, now) or ""
        found = wallet_review.sweep_like(connection, world.name, version, clock - timedelta(hours=hours), clock)
    if as_json:
        for proposal in found:
            sys.stdout.write(json.dumps(asdict(proposal), default=json_default) + "\n")
        return
    table = Table("chain", "address", "pays", "senders", "in", "out", "USD in", "USD out", header_style="bold")
    for one in found:
        table.add_row(
            one.chain, one.address, f"{one.entity} ({one.share_to_entity:.0%})", f"{one.senders:,}",
            f"{one.transfers_in:,}", f"{one.transfers_out:,}", f"{one.in_usd:,.0f}", f"{one.out_usd:,.0f}",
        )  # fmt: skip
    out.print(table if found else f"No address behaved like a sweep target in the last {hours} h.")
