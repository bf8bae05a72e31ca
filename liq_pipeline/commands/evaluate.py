"""`liq evaluate`: how good the scores and alarms are.

Belongs here: arguments and printing. Does not: the evaluation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from liq_pipeline.commands.shared import (
    endpoints_in_force,
    err,
    folder_to_write,
    instant,
    json_default,
    out,
    settings_in_force,
)
from liq_pipeline.domain.symbols import coin_of
from liq_pipeline.errors import LiqError


def evaluate(
    panel: Annotated[
        Path | None, typer.Option(help="CSV or Parquet in the panel format of docs/evaluation.md; else the store.")
    ] = None,
    from_: Annotated[str | None, typer.Option("--from", help="First time that is judged, UTC.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Last time that is judged, UTC.")] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder for report.json and report.html.")] = None,
    world: Annotated[str, typer.Option(help="Which world of the store.")] = "real",
    published: Annotated[
        bool, typer.Option("--published", help="Fetch from the public archives and rebuild the docs' figures.")
    ] = False,
    symbols: Annotated[str | None, typer.Option(help="With --published: other coins, e.g. BTC,SUI.")] = None,
    simulated: Annotated[
        int | None, typer.Option(min=7, help="Judge so many days of the simulator, which has a flow side.")
    ] = None,
) -> None:
    """How good the scores and alarms are, beside their baselines: on a panel, or on what is stored."""
    settings = settings_in_force()
    first = None if from_ is None else instant(from_, "--from")
    last = None if to is None else instant(to, "--to")
    if sum((panel is not None, published, simulated is not None)) > 1:
        raise LiqError("--panel, --published and --simulated exclude each other.")
    if symbols is not None and not published:
        raise LiqError("--symbols chooses the coins of --published; a panel and the store have their own.")
    if first is not None and last is not None and last <= first:
        raise LiqError(f"--to {to} does not lie after --from {from_}.")
    if out_dir is not None:
        folder_to_write(out_dir)
    report: dict[str, Any]
    if panel is not None or simulated is not None or published:
        from liq_pipeline.evaluation.report.run import evaluate as run_evaluation

        if panel is not None:
            if not panel.exists():
                raise LiqError(f"The panel {panel} is not there.")
            report = run_evaluation(panel, first, last, out_dir, settings=settings)
        elif simulated is not None:
            from liq_pipeline.evaluation.panels.simulated import simulated_panel

            err.print(
                f"SIMULATED: {simulated} days of a made-up market; no figure of it says anything about real ones."
            )
            report = run_evaluation(simulated_panel(simulated, settings), first, last, out_dir, settings=settings)
        else:
            from liq_pipeline.evaluation.panels.published import published_panel

            coins = None if symbols is None else tuple(coin_of(name) for name in symbols.split(",") if name.strip())
            panel_file = published_panel(
                settings, first, last, out_dir, lambda text: err.print(text, style="dim"), coins
            )
            report = run_evaluation(panel_file, first, last, out_dir, settings=settings)
    else:
        report = _stored(world, first, last, out_dir)
    if out_dir is None:
        sys.stdout.write(json.dumps(report, default=json_default) + "\n")
    else:
        out.print(f"{out_dir / 'report.json'} and {out_dir / 'report.html'} are written.", soft_wrap=True)


def _stored(name: str, first: Any, last: Any, out_dir: Path | None) -> dict[str, Any]:
    from liq_pipeline.evaluation.report.nightly import evaluate_store
    from liq_pipeline.store import worlds
    from liq_pipeline.store.connection import connect

    settings = settings_in_force()
    with connect(endpoints_in_force(settings).database_url, application_name="liq evaluate") as connection:
        known = worlds.get(connection, name)
        if known is None:
            raise LiqError(f"there is no world {name} in the store; without one, --panel FILE judges a file")
        stored = evaluate_store(connection, known, settings, first, last, out_dir)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(stored.outcomes.items())) or "none"
    err.print(f"stored as {stored.evaluation_id}: {stored.events} cascades; alerts: {verdicts}", style="dim")
    return stored.report
