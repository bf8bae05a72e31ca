"""`liq replay` and `liq what-if`: a past day played again, and under other settings.

Belongs here: arguments, progress and printing. Does not: the replay (replay/).
"""

from __future__ import annotations

import signal
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from liq_pipeline.commands.shared import (
    endpoints_in_force,
    err,
    instant,
    out,
    page_to_write,
    settings_in_force,
)
from liq_pipeline.errors import LiqError

if TYPE_CHECKING:
    from liq_pipeline.replay.window import Window
    from liq_pipeline.settings import Settings

SIMULATED = "simulated"
_OFFER = "`liq replay simulated` shows such a page of a simulated cascade, without any network."
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of a second reading beside the first, LIQ_...=VALUE; may be repeated."),
]


def replay(
    what: Annotated[str, typer.Argument(metavar="DATE|DIR", help="A UTC day, a recording's folder, or `simulated`.")],
    symbol: Annotated[str | None, typer.Option("--symbol", help="Show only this symbol.")] = None,
    day: Annotated[str | None, typer.Option(help="Which day of a long recording.")] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="The page; replay-….html here otherwise.")] = None,
    changes: SetOption = None,
) -> None:
    """Play one day in a throw-away world and write one page: price, scores, alerts, what happened."""
    from liq_pipeline.replay.replay import replay as run_replay
    from liq_pipeline.replay.what_if import changed_settings, parse_changes

    settings = settings_in_force()
    changed = parse_changes(changes or [])
    changed_settings(settings, changed)  # a wrong name is told before anything is played
    page_to_write(out_file or Path("replay.html"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the throw-away servers must not outlive us
    symbol = None if symbol is None else symbol.upper()
    window = _window(what, settings, symbol, day)
    page = out_file or Path(f"replay-{window.world.name.partition('/')[2]}-{window.first:%Y-%m-%d}.html")
    story = run_replay(
        window, settings, page, symbol=symbol, changed=changed,
        say=lambda text: err.print(text, style="dim", highlight=False),
    )  # fmt: skip
    if story.world.kind == SIMULATED:
        out.print("SIMULATED: this market was made up; nothing in the page happened.", style="bold red")
    out.print(
        f"messages: {len(story.told.messages)}, pages: {story.told.pages}, cascades within 4 h: {len(story.events[4])}."
        f" The page is {page}.",
        highlight=False,
        soft_wrap=True,
    )


def what_if(
    from_: Annotated[str, typer.Option("--from", help="First time, UTC.")],
    to: Annotated[str, typer.Option("--to", help="Last time, UTC.")],
    changes: SetOption = None,
    symbol: Annotated[str | None, typer.Option("--symbol", help="Show only this symbol.")] = None,
    world: Annotated[str | None, typer.Option(help="Another world than the active one.")] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="Write a page, too.")] = None,
) -> None:
    """Score a stored stretch again under other settings and show both; nothing is overwritten."""
    from liq_pipeline.replay.stored_what_if import stored_what_if
    from liq_pipeline.replay.what_if import parse_changes

    settings = settings_in_force()
    changed = parse_changes(changes or [])
    if not changed:
        raise LiqError("--set NAME=VALUE says what to change, for example --set LIQ_SEVERITY_WARNING_RISK=45")
    first, last = instant(from_, "--from"), instant(to, "--to")
    if out_file is not None:
        page_to_write(out_file)
    story = stored_what_if(
        endpoints_in_force(settings).database_url,
        settings,
        first,
        last,
        changed,
        world_name=world,
        symbol=None if symbol is None else symbol.upper(),
        out=out_file,
    )
    _print_comparison(story)
    if out_file is not None:
        out.print(f"The page is {out_file}.", highlight=False, soft_wrap=True)


def _print_comparison(story: Any) -> None:
    from rich.table import Table

    from liq_pipeline.replay.page import compared

    table = Table("", "as it was", story.what_if.name, header_style="bold")
    for row in compared(story.told, story.what_if, story.symbols):
        table.add_row(*row)
    out.print(table)


def _window(what: str, settings: Settings, symbol: str | None, day: str | None) -> Window:
    """What is to be played; for a day that the archive does not give, a simulated one is offered."""
    from liq_pipeline.replay import window
    from liq_pipeline.sources.access.http import SourceError

    if what == SIMULATED:
        err.print("simulating 30 days of history and a cascade", style="dim")
        return window.of_simulation(settings)
    folder = Path(what)
    if folder.is_dir():
        return window.of_recording(folder, settings, None if day is None else _date(day, "--day"))
    wanted = _date(what, "DATE|DIR")
    if wanted >= datetime.now(UTC).date():
        raise LiqError(f"{wanted} has not ended yet: the archive has a day from the day after it on. {_OFFER}")
    symbols = settings.symbols if symbol is None else tuple(dict.fromkeys(("BTC", "ETH", symbol)))

    err.print(f"fetching {wanted} and its look-back from the public archive", style="dim", highlight=False)

    def progress(done: int, total: int) -> None:
        if err.is_terminal:
            err.print(f"\rarchive files: {done} of {total}", end="" if done < total else "\n", style="dim")

    try:
        return window.of_archive(wanted, symbols, settings, progress)
    except SourceError as error:
        if not sys.stdin.isatty():
            raise LiqError(f"{wanted} cannot be fetched from the public archive ({error}). {_OFFER}") from error
        err.print(f"{wanted} cannot be fetched from the public archive: {error}", highlight=False)
        if not typer.confirm("Play a SIMULATED cascade instead (made up, not that day)?"):
            raise LiqError(_OFFER) from error
        return window.of_simulation(settings)


def _date(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise LiqError(
            f"{option} must be a day such as 2025-10-10 or the folder of a recording, not {text!r}"
        ) from error
