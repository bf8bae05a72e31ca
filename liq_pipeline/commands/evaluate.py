"""`liq evaluate`: how good the scores and alarms are.

Belongs here: arguments and printing. Does not: the evaluation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from liq_pipeline.commands.shared import instant, json_default, out, settings_in_force
from liq_pipeline.errors import LiqError


def evaluate(
    panel: Annotated[Path, typer.Option(help="CSV or Parquet in the panel format of docs/evaluation.md.")],
    from_: Annotated[str | None, typer.Option("--from", help="First time that is judged, UTC.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Last time that is judged, UTC.")] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder for report.json and report.html.")] = None,
) -> None:
    """How good the scores and alarms are on a panel of history, beside their baselines."""
    from liq_pipeline.evaluation.run import evaluate as run_evaluation

    if not panel.exists():
        raise LiqError(f"The panel {panel} is not there.")
    report = run_evaluation(
        panel,
        None if from_ is None else instant(from_, "--from"),
        None if to is None else instant(to, "--to"),
        out_dir,
        settings=settings_in_force(),
    )
    if out_dir is None:
        sys.stdout.write(json.dumps(report, default=json_default) + "\n")
    else:
        out.print(f"{out_dir / 'report.json'} and {out_dir / 'report.html'} are written.")
