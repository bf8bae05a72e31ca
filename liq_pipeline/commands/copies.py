"""`liq backup` and `liq restore`: arguments, progress, the summary.

Belongs here: printing. Does not: the work (backup/).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from liq_pipeline.commands.shared import endpoints_in_force, err, out, settings_in_force

if TYPE_CHECKING:
    from liq_pipeline.backup.make import Progress

POLITENESS = 10
"""Of the process: the live path goes first where both want the processor."""
QUIET_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""

NewDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of its own for each backup.")]
MadeDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="The folder that `liq backup` wrote.")]


def backup(directory: NewDirectory) -> None:
    """Copy the running installation: database, offsets, settings and keys, consistent, with checksums."""
    from liq_pipeline.backup.make import back_up

    settings = settings_in_force()
    endpoints = endpoints_in_force(settings)
    started = time.monotonic()
    os.nice(POLITENESS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is half written is removed
    with _progress("backup") as show:
        made = back_up(settings, endpoints, directory, say=_say, show=show)
    size = sum(file.bytes for file in made.files.values())
    out.print(
        f"Backup of {made.made_at} in {directory}: {sum(made.rows.values())} rows, {len(made.offsets)} offsets, "
        f"{size / 1e6:.1f} MB, in {time.monotonic() - started:.0f} s. It holds passwords and keys: keep it safe.",
        highlight=False,
        soft_wrap=True,
    )
    if not made.everything_landed:
        out.print("What Kafka held and had not landed is not in it.", soft_wrap=True)
        raise typer.Exit(1)


def restore(directory: MadeDirectory) -> None:
    """Restore a backup into an empty home, or into an empty database of LIQ_DATABASE_URL."""
    from liq_pipeline.backup.restore import restore as run_restore

    settings = settings_in_force()
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a server that was started must not outlive us
    with _progress("restore") as show:
        content = run_restore(settings, directory, say=_say, show=show)
    out.print(
        f"Restored the backup of {content.made_at} into {settings.home}: {sum(content.rows.values())} rows and "
        f"{len(content.offsets)} offsets, as they were, in {time.monotonic() - started:.0f} s.",
        highlight=False,
        soft_wrap=True,
    )
    out.print(
        f"The settings that were in force are in {settings.home / 'settings.env'}: read it into the environment if you "
        "want them (addresses of servers in it are those of then: change what has moved), then start as always.",
        highlight=False,
        soft_wrap=True,
    )


def _say(sentence: str) -> None:
    err.print(sentence, style="dim", highlight=False, soft_wrap=True)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, else a line now and then."""
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    if not err.is_terminal:
        said = time.monotonic()

        def show_line(progress: Progress) -> None:
            nonlocal said
            if time.monotonic() - said >= QUIET_SECONDS:
                said = time.monotonic()
                _say(f"{title}: {100 * progress.done // max(progress.total, 1)} %, {progress.what}")

        yield show_line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bar(*columns, console=err) as bar:
        task = bar.add_task(title, total=None)

        def show_bar(progress: Progress) -> None:
            bar.update(task, description=progress.what, completed=progress.done, total=max(progress.total, 1))

        yield show_bar
