"""Commands that say how things are: status, watch, doctor, env.

Belongs here: printing and exit codes. Does not: what healthy means (operations/).
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Final

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from liq_pipeline.commands.shared import (
    JsonOption,
    endpoints_in_force,
    json_default,
    out,
    settings_in_force,
    stop_event,
)
from liq_pipeline.errors import LiqError

LOOKS_PER_PAGE: Final = 4
"""Where not all symbols fit, the next ones come after this many looks: time to read twenty rows."""


def status(as_json: JsonOption = False) -> None:
    """Health for people and scripts: exit 0 healthy, 1 degraded, 2 down."""
    import dataclasses

    from liq_pipeline.operations.status import EXIT_CODE, Status, addresses, collect_status

    settings = settings_in_force()
    try:
        report = collect_status(settings, addresses(settings))
    except LiqError as error:
        if not as_json:
            raise
        report = Status()  # scripts get their object also when there is nothing to ask
        report.problem(str(error), down=True)
    if as_json:
        sys.stdout.write(json.dumps(dataclasses.asdict(report), default=json_default) + "\n")
    else:
        from liq_pipeline.operations.watch import parts_table, render

        out.print(render(report))
        out.print(parts_table(report))
    raise typer.Exit(EXIT_CODE[report.health])


def watch(
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one table and leave.")] = False,
) -> None:
    """A live table: risk with its components, pressure, probability, side, coverage, data age, open alerts, world."""
    from rich.live import Live

    from liq_pipeline.operations.status import EXIT_CODE, addresses, collect_status
    from liq_pipeline.operations.watch import render

    settings = settings_in_force()
    endpoints = addresses(settings)
    if once:
        report = collect_status(settings, endpoints)
        out.print(render(report))
        raise typer.Exit(EXIT_CODE[report.health])
    stop = stop_event()
    looks = 0

    def screen() -> Group:
        # Asked anew each time: the window may have been made larger. One line less, or the terminal scrolls.
        size = out.size
        status = collect_status(settings, endpoints)
        return render(status, height=size.height - 1, width=size.width, page=looks // LOOKS_PER_PAGE)

    with Live(screen(), console=out, screen=False) as live:
        while not stop.wait(interval):
            looks += 1
            live.update(screen())


def doctor() -> None:
    """Check the set-up and say how to mend each finding."""
    from liq_pipeline.operations.doctor import examine

    settings = settings_in_force()
    endpoints = None
    reason = ""
    try:
        endpoints = endpoints_in_force(settings)
    except LiqError as error:
        reason = str(error)
    style = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    worst = 0
    table = Table("check", "", "finding", "what to do", box=None, header_style="bold")
    for finding in examine(settings, endpoints, reason):
        worst = max(worst, {"ok": 0, "warn": 0, "fail": 1}[finding.grade])
        grade = Text(finding.grade, style=style[finding.grade])
        table.add_row(finding.check, grade, finding.detail, finding.mend)
    out.print(table)
    raise typer.Exit(worst)


def environment(as_json: JsonOption = False) -> None:
    """What attaches Dagster's own tools to the running home: eval "$(liq env)". Holds a password."""
    import shlex

    from liq_pipeline.runtime.home import Home
    from liq_pipeline.runtime.parts import dagster_variables

    settings = settings_in_force()
    home = Home(settings.home)
    given = {"LIQ_HOME": str(home.path)} | dagster_variables(home, endpoints_in_force(settings))
    if as_json:
        sys.stdout.write(json.dumps(given) + "\n")
        return
    for name, value in given.items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
