"""Every `liq` command that a document or a message names exists, with the options that it is shown with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from liq_pipeline.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMAND = re.compile(r"(?:`|^    (?:.*\$\()?|\bargs=\")liq ([a-z][^`\n#|)]*)", re.MULTILINE)


def _command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, None if there is none, and the words after it."""
    found: Any = typer.main.get_command(app)
    for index, word in enumerate(words):
        if not hasattr(found, "commands"):
            return found, words[index:]
        inner = found.commands.get(word)
        if inner is None:
            return None, words[index:]
        found = inner
    return found, []


def _named() -> list[tuple[str, str]]:
    return sorted({(path.name, text.strip()) for path in DOCUMENTS for text in COMMAND.findall(path.read_text())})


def test_documents_name_commands_at_all() -> None:
    assert len(_named()) > 40


@pytest.mark.parametrize(("document", "text"), _named())
def test_a_documented_command_exists(document: str, text: str) -> None:
    plain = re.sub(r"[\[\]…]|\.\.\.", " ", text.split(" && ")[0])
    try:
        words = shlex.split(plain)
    except ValueError:
        words = plain.split()
    command, rest = _command_of([word for word in words if word])
    assert command is not None, f"{document}: liq {text}"
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--debug", "--version"}
    for word in rest:
        if word.startswith("--"):
            option = word.split("=")[0].split("|")[0].rstrip(".,;:)")
            assert option in known, f"{document}: liq {text}"
