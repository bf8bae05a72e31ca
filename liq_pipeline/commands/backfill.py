"""`liq backfill`: historical data through the same topics and tables, resumable, with progress.

Belongs here: arguments, the progress line, the summary. Does not: the work (pipeline/backfill.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from liq_pipeline.commands.shared import endpoints_in_force, err, instant, out, settings_in_force, stop_event

if TYPE_CHECKING:
    from liq_pipeline.pipeline.backfill import BackfillResult

POLITENESS = 10
"""Of the process: the live path's runs go first where both want the processor."""
SHOWN_PROBLEMS = 10


def backfill(
    source: Annotated[str, typer.Option(help="binance_archive, or a venue, coingecko, ethereum_rpc, etherscan.")],
    from_: Annotated[str, typer.Option("--from", help="First time, UTC.")],
    to: Annotated[str, typer.Option("--to", help="Up to this time, UTC; it is not part of it.")],
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", help="A coin, e.g. BTC; again for more. Default: LIQ_SYMBOLS.")
    ] = None,
    score: Annotated[bool, typer.Option("--score", help="Then score the range: new revisions.")] = False,
) -> None:
    """Historical data through the same topics and tables; killed or stopped, the same command goes on."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from liq_pipeline.pipeline import backfill as work
    from liq_pipeline.pipeline.models import model_in_force
    from liq_pipeline.pipeline.politeness import Politeness
    from liq_pipeline.pipeline.rescore import rescore
    from liq_pipeline.sources.archives.catalogue import open_source

    settings = settings_in_force()
    start, end = instant(from_, "--from"), instant(to, "--to")
    symbols = tuple(dict.fromkeys(name.strip().upper() for name in symbol or settings.symbols))
    endpoints = endpoints_in_force(settings)
    stop = stop_event()
    os.nice(POLITENESS)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rows]} rows"),
        TimeRemainingColumn(),
    )
    with open_source(source, settings, endpoints.database_url, symbols) as opened, Bar(*columns, console=err) as bar:
        task = bar.add_task(source, total=None, rows=0)

        def show(progress: work.Progress) -> None:
            if progress.is_held:
                bar.update(task, description="live ticks are late: waiting for them")
            elif progress.piece is not None:
                piece = progress.piece
                bar.update(
                    task,
                    description=f"{piece.symbol} {piece.series} {piece.first:%Y-%m-%d}",
                    completed=progress.done,
                    total=progress.total,
                    rows=f"{progress.rows_sent:,}",
                )

        result = work.backfill(
            endpoints.database_url,
            endpoints.kafka_bootstrap_servers,
            settings,
            opened,
            symbols,
            start,
            end,
            progress=show,
            stop=stop,
        )
    for line in _summary(result):
        out.print(line, highlight=False)
    for problem in result.problems[:SHOWN_PROBLEMS]:
        err.print(f"liq: {problem}", style="red", highlight=False, markup=False, soft_wrap=True)
    if len(result.problems) > SHOWN_PROBLEMS:
        err.print(f"liq: and {len(result.problems) - SHOWN_PROBLEMS} more problems", style="red", highlight=False)
    for name in result.empty_symbols:
        sentence = f"liq: {source} has nothing of {name} from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
        err.print(sentence, style="red", highlight=False, markup=False, soft_wrap=True)
    if score and not result.was_stopped:
        with Politeness(endpoints.database_url, stop) as politeness:
            told = rescore(
                endpoints.database_url,
                settings,
                start,
                end,
                world_name="real",
                load_model=model_in_force,
                stop=stop,
                politeness=politeness,
            )
        out.print(str(told), highlight=False)
    if not result.is_clean:
        raise typer.Exit(1)


def _summary(result: BackfillResult) -> list[str]:
    lines = [
        f"{result.loaded} pieces loaded, {result.unchanged} were loaded before, of {result.pieces}; "
        f"{result.rows_sent:,} new rows of {result.rows:,}"
    ]
    if result.corrected:
        lines.append(f"{result.corrected} pieces had been corrected at the source; what they replaced: row_conflicts")
    if result.rows_differing:
        lines.append(f"{result.rows_differing:,} stored rows say something else than the source; the stored ones stay")
    if result.doubled or result.unknown_cells:
        lines.append(f"{result.doubled:,} rows came twice and count once; {result.unknown_cells:,} cells were unknown")
    if result.absent:
        lines.append(f"{result.absent} pieces do not exist there: ingest_gaps says which")
    if result.not_yet:
        lines.append(f"{result.not_yet} pieces are not published yet")
    if result.was_stopped:
        lines.append("stopped before the end: the same command goes on from here")
    return lines
