"""The `liq` command: exit codes 0 done, 1 ran but found problems, 2 could not run; an error is one plain sentence.

Belongs here: which commands there are, and what becomes of an error. Does not: a command (commands/, a module a topic).
Imports of the working parts stand inside the commands, so that `liq --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from liq_pipeline.commands import (
    alerts,
    backfill,
    dead_letters,
    evaluate,
    gaps,
    health,
    levels,
    model,
    replay,
    running,
    store,
)
from liq_pipeline.commands.shared import err, in_plain_words, out
from liq_pipeline.errors import LiqError

app = typer.Typer(
    help="Early warning of crypto liquidation cascades. Not financial advice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        out.print(f"liq_pipeline {version('liq_pipeline')}", highlight=False)
        raise typer.Exit


@app.callback()
def _options_of_every_command(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Print the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Errors with their traceback; may stand anywhere.")] = False,
) -> None:
    """What main() and the option's own callback have seen to already."""


app.command()(running.up)
app.command(hidden=True)(running.play)
app.command()(running.collect)
app.command()(running.land)
app.command()(store.migrate)
app.command()(store.roles)
app.command()(store.topics)
app.command()(health.status)
app.command()(health.watch)
app.command("levels")(levels.show)
app.command()(running.metrics)
app.command()(running.serve)
app.command()(running.mcp)
app.command()(health.doctor)
app.command("env")(health.environment)
app.command()(backfill.backfill)
app.command()(store.score)
app.command()(evaluate.evaluate)
app.command()(replay.replay)
app.command("what-if")(replay.what_if)
app.command()(store.sql)
app.add_typer(alerts.app, name="alerts")
app.add_typer(model.app, name="model")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(gaps.app, name="gaps")


def main() -> None:
    """Entry point: every error becomes one sentence on stderr, unless --debug asks for the traceback."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    try:
        app(args=arguments, standalone_mode=True)
    except LiqError as error:
        if debug:
            raise
        err.print(f"liq: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except Exception as error:  # the last resort of the program: shown in full with --debug
        if debug:
            raise
        err.print(
            f"liq: {in_plain_words(error)}",
            style="red",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
