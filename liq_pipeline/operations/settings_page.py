"""docs/settings.md, written from the settings themselves, so that the page cannot be wrong.

Belongs here: turning the Settings class into a table. Does not: the settings (settings.py), whose field docstrings
are the descriptions.
"""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from liq_pipeline.settings import Settings, variable_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"

HEAD = """# Settings

Every knob is an environment variable, and every one is optional. Secrets never show in logs, rows or `liq status`.
This page is written by `make docs` from `liq_pipeline/settings.py`.

Base URLs: `LIQ_<SOURCE>_URL` (REST) and `LIQ_<SOURCE>_WS_URL` (websocket) point a source at another address, for
example `LIQ_BINANCE_URL`, `LIQ_BYBIT_WS_URL`, `LIQ_COINGECKO_URL`, `LIQ_ETHERSCAN_URL`.

| variable | default | meaning |
|---|---|---|
"""


def _field_texts(model: type[BaseSettings]) -> dict[str, str]:
    """field name -> the docstring under it."""
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - getsource of a class
    texts: dict[str, str] = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            texts[field.target.id] = " ".join(str(below.value.value).split())
    return texts


def _mentions(annotation: Any, wanted: type) -> bool:
    return annotation is wanted or any(_mentions(part, wanted) for part in typing.get_args(annotation))


def _default(name: str, field: FieldInfo) -> str:
    if _mentions(field.annotation, SecretStr):
        return "unset (secret)"
    if name == "home":
        return "`$XDG_STATE_HOME/liq_pipeline`; as root `/var/lib/liq_pipeline`"
    value = field.get_default(call_default_factory=False)
    if value is None or value == ():
        return "unset"
    if isinstance(value, tuple):
        return f"`{','.join(str(part) for part in value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value != "" else "empty"


def _rows(model: type[BaseSettings]) -> Iterator[tuple[str, str, str]]:
    texts = _field_texts(model)
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseSettings):
            yield from _rows(nested)
            continue
        if name == "urls":
            continue  # described in the head: one variable per source
        yield variable_of(model, name), _default(name, field), texts.get(name, "")


def render_settings_page() -> str:
    """The page's text."""
    return HEAD + "".join(f"| `{name}` | {default} | {text} |\n" for name, default, text in _rows(Settings))


if __name__ == "__main__":
    PAGE.write_text(render_settings_page())
