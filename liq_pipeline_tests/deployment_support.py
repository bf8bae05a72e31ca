"""What the program really has, for the tests that hold descriptions of a deployment against it: docker-compose.yml, the
chart under deploy/."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer.main
from pydantic_settings import BaseSettings

from liq_pipeline.cli import app
from liq_pipeline.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
OURS = re.compile(r"^(LIQ_|DAGSTER_|COINGECKO_|ETHERSCAN_)")


def settings_variables(of: type[BaseSettings] = Settings) -> set[str]:
    """Every environment variable that the settings read."""
    names = set()
    for name, field in of.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings):
            names |= settings_variables(field.annotation)
        elif isinstance(field.validation_alias, str):
            names.add(field.validation_alias)
        else:
            names.add(f"{of.model_config['env_prefix']}{name}".upper())
    return names


def variables_named_in(text: str) -> set[str]:
    """Every environment variable that Dagster's own files read."""
    return set(re.findall(r"env: ([A-Z_]+)", text))


def unknown_variables(names: Iterable[str], dagster_files: str) -> list[str]:
    """Those that look like ours and that nothing reads."""
    known = settings_variables() | variables_named_in(dagster_files) | {"DAGSTER_HOME", "DAGSTER_DISABLE_TELEMETRY"}
    return sorted(name for name in set(names) if OURS.match(name) and name not in known)


@cache
def liq_commands() -> dict[str, Any]:
    """The sub-commands of liq."""
    found: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return found


def wrong_commands(command: Sequence[str]) -> Iterator[str]:
    """What of a container's command the program does not have: sub-commands of liq, their options, modules."""
    commands = liq_commands()
    words = " ".join(command)
    called = re.findall(r"\bliq ([a-z-]+)((?: [^&;|)]+)?)", words)
    modules = re.findall(r"-m ([a-z_.]+)", words)
    if re.match(r"(dagster-daemon|pg_isready)\b", words):
        return
    if not called and not modules:
        yield f"{words}: no command of ours"
    for name, rest in called:
        if name not in commands:
            yield f"liq {name}: no such command"
            continue
        options = {option for parameter in commands[name].params for option in parameter.opts}
        for word in re.findall(r"(?<!\S)--[a-z-]+", rest):
            if word not in options:
                yield f"liq {name} {word}: no such option"
    for module in modules:
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            yield f"python -m {module}: no such module"
