"""What every command of `liq` needs: consoles, settings, servers in force, and how options are read.

Belongs here: parsing of option values, one sentence for each that cannot be read. Does not: a command.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime.liveness import StampingEvent

if TYPE_CHECKING:
    from pydantic import ValidationError

    from liq_pipeline.runtime.endpoints import Endpoints
    from liq_pipeline.settings import Settings

_PIPED_COLUMNS = 400


def _console(*, stderr: bool = False) -> Console:
    """A console that shows texts as they are: what a table or a venue says may look like markup.

    Into a pipe or a file a row is one line: a table folded at 80 columns cannot be searched.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPED_COLUMNS
    return Console(stderr=stderr, markup=False, emoji=False, width=width)


out = _console()
err = _console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
SymbolOption = Annotated[str | None, typer.Option("--symbol", help="Only this symbol, e.g. BTC.")]


def settings_in_force() -> Settings:
    """The settings, or one sentence that names the knob that cannot be used."""
    from pydantic import ValidationError
    from pydantic_settings.exceptions import SettingsError

    from liq_pipeline.settings import get_settings

    try:
        return get_settings()
    except ValidationError as error:
        raise LiqError(" ".join(_not_usable(error))) from error
    except SettingsError as error:
        raise LiqError(f"The settings cannot be read: {error}.") from error


def _not_usable(error: ValidationError) -> Iterator[str]:
    """One sentence for each setting that cannot be used. The value is not repeated: it may be a secret."""
    from liq_pipeline.settings import prefix_of

    for fault in error.errors(include_input=False):
        name = str(fault["loc"][0]).upper()
        knob = name if name.startswith(("LIQ_", "COINGECKO_", "ETHERSCAN_")) else f"{prefix_of(error.title)}{name}"
        reason = fault["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
        yield f"The setting {knob} is not usable: {reason}."


def in_plain_words(error: Exception) -> str:
    """One sentence for what no command foresaw; the database's own refusals with what to do about them."""
    words = " ".join(str(error).split()) or type(error).__name__
    database = sys.modules.get("psycopg")  # not imported: then it is none of its errors
    if database is not None:
        if isinstance(error, database.OperationalError) and error.sqlstate is None:
            return f"the database cannot be reached: {words} See whether `liq up` runs, or check LIQ_DATABASE_URL."
        if isinstance(error, database.errors.UndefinedTable | database.errors.UndefinedColumn):
            return f"the database's schema is not this version's ({words}): run `liq migrate`"
    return f"{type(error).__name__}: {words} (run again with --debug for the traceback)"


def endpoints_in_force(settings: Settings) -> Endpoints:
    """The database, Kafka and Dagster in force: those of the settings, else those of the running home."""
    from liq_pipeline.runtime.endpoints import resolve

    return resolve(settings)


def instant(text: str, option: str) -> datetime:
    """An instant in UTC; a text without an offset is UTC."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise LiqError(f"{option} must be a time such as 2025-10-10T20:00Z, not {text!r}.") from error
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def page_to_write(path: Path) -> Path:
    """The file, once it is sure that it can be written: told before minutes of work, not after them."""
    if path.is_dir():
        raise LiqError(f"{path} is a folder: name the file that is to be written, for example {path / 'page.html'}.")
    folder_to_write(path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        raise LiqError(f"{path} cannot be written: it belongs to somebody else, or is write-protected.")
    return path


def folder_to_write(folder: Path) -> Path:
    """The folder, made if it is not there. Raises LiqError if nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LiqError(f"the folder {folder} cannot be made: {error.strerror}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise LiqError(f"nothing can be written into {folder}: choose another place with --out.")
    return folder


def partition_numbers(text: str) -> list[int]:
    """Kafka partition numbers, e.g. 0,1."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise LiqError(f"--partitions must be numbers such as 0,1, not {text!r}.")
    return [int(part) for part in parts]


def playing_speed(text: str) -> float | None:
    """Playing speed: None is as fast as it lands."""
    if text == "max":
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise LiqError(f"--speed must be a number above 0 or `max`, not {text!r}.") from error
    if not 0 < value < math.inf:
        raise LiqError(f"--speed must be a number above 0 or `max`, not {text!r}.")
    return value


def json_default(value: Any) -> Any:
    """How JSON shows times, decimals and ids."""
    from liq_pipeline.operations.query import json_value

    return json_value(value)


def stop_event(alive: str | None = None) -> threading.Event:
    """An event that SIGINT and SIGTERM set. alive: the part of which its waits show that it moves."""
    stop = threading.Event() if alive is None else StampingEvent(alive)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop
