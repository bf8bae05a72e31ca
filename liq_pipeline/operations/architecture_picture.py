"""docs/images/house.svg: the rooms of liq_pipeline on their floors, with the imports between them, drawn from the code.

Belongs here: reading imports, the floors that they are held to, the picture. Does not: the page around it
(docs/architecture.md), or judging (liq_pipeline_tests/unit/test_house.py).

A room may import what stands on lower floors, never what stands beside or above it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

HOUSE: Final = Path(__file__).resolve().parents[1]
PAGE: Final = HOUSE.parent / "docs" / "images" / "house.svg"
FLOORS: Final[tuple[tuple[str, ...], ...]] = (
    ("errors", "domain"),
    ("settings", "bus"),
    ("scoring",),
    ("store",),
    ("sources", "alerting"),
    ("pipeline", "runtime"),
    ("collector", "evaluation", "launcher", "operations", "backup"),
    ("replay", "defs", "desk"),
    ("commands", "definitions"),
    ("cli",),
)
"""The rooms, the ground floor first. `settings` and `errors` are single modules that many read."""

_SAID: Final = {
    "errors": "one exception",
    "domain": "records, worlds, units",
    "settings": "every knob, typed",
    "bus": "Kafka",
    "scoring": "pure formulas",
    "store": "everything that is a row",
    "sources": "the outside world, read",
    "alerting": "what is said, and to whom",
    "pipeline": "the steps of a tick, a re-score",
    "runtime": "servers and processes",
    "collector": "always-on streams",
    "evaluation": "how good it is, in public",
    "launcher": "warm Dagster runs",
    "operations": "status, watch, doctor",
    "backup": "a copy, and the way back",
    "replay": "a past day again",
    "defs": "Dagster: what runs when",
    "desk": "the page and the API",
    "commands": "liq, a module a topic",
    "definitions": "the one Definitions",
    "cli": "liq",
}
_WIDTH, _HEIGHT, _ROW, _MARGIN = 200, 52, 96, 20


def rooms() -> list[str]:
    """The rooms: packages and single modules directly under liq_pipeline."""
    found = [path.name for path in HOUSE.iterdir() if (path / "__init__.py").exists()]
    return sorted(found + [path.stem for path in HOUSE.glob("*.py") if path.stem != "__init__"])


@cache
def imports_between() -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(room, room it looks at) -> the pairs of modules, as paths below liq_pipeline; imports inside functions too."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for file in sorted(HOUSE.rglob("*.py")):
        importer = file.relative_to(HOUSE)
        for module in _imported(file):
            target = _module_path(module)
            if target is not None and target != importer:
                key = (_room(importer), _room(target))
                found.setdefault(key, []).append((importer.as_posix(), target.as_posix()))
    return found


def _imported(file: Path) -> Iterator[str]:
    """Dotted names of our own modules that a file imports, `from package import module` resolved to the module."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("liq_pipeline."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "liq_pipeline":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _module_path(inner) is not None else str(node.module)


def _module_path(dotted: str) -> Path | None:
    path = Path(*dotted.split(".")[1:])
    if (HOUSE / path).with_suffix(".py").exists() and path != Path():
        return path.with_suffix(".py")
    return path / "__init__.py" if (HOUSE / path / "__init__.py").exists() else None


def _room(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def draw() -> str:
    """The picture as SVG text: the same imports give the same bytes."""
    places: dict[str, tuple[int, int]] = {}
    widest = max(len(floor) for floor in FLOORS)
    for height, floor in enumerate(reversed(FLOORS)):
        offset = (widest - len(floor)) * (_WIDTH + _MARGIN) // 2
        for place, room in enumerate(floor):
            places[room] = (_MARGIN + offset + place * (_WIDTH + _MARGIN), _MARGIN + height * _ROW)
    width, height = widest * (_WIDTH + _MARGIN) + _MARGIN, len(FLOORS) * _ROW + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="sans-serif">',
        "<title>The rooms of liq_pipeline; a line runs from a room down to each one that it imports</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    counts = {pair: len(found) for pair, found in imports_between().items() if pair[0] != pair[1]}
    for (room, target), count in sorted(counts.items()):
        x1, y1 = places[room][0] + _WIDTH // 2, places[room][1] + _HEIGHT
        x2, y2 = places[target][0] + _WIDTH // 2, places[target][1]
        bend = (y2 - y1) // 2
        thick = 1 if count < 10 else 2 if count < 40 else 4
        parts.append(
            f'<path d="M{x1} {y1} C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}" fill="none" stroke="#1f5fa8"'
            f' stroke-opacity="0.28" stroke-width="{thick}"><title>{room} imports {target}</title></path>'
        )
    for room, (x, y) in places.items():
        files = [HOUSE / f"{room}.py"] if (HOUSE / f"{room}.py").exists() else sorted((HOUSE / room).rglob("*.py"))
        size = "one module" if len(files) == 1 else f"{len(files) - 1} modules"
        parts += [
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="#f3f6fa" stroke="#1b2733"/>',
            f'<text x="{x + 10}" y="{y + 21}" font-size="15" font-weight="600" fill="#1b2733">{room}</text>',
            f'<text x="{x + _WIDTH - 10}" y="{y + 21}" font-size="11" text-anchor="end" fill="#586573">{size}</text>',
            f'<text x="{x + 10}" y="{y + 40}" font-size="12" fill="#586573">{_SAID[room]}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def write() -> None:
    """Write the picture beside the docs."""
    PAGE.write_text(draw())


if __name__ == "__main__":
    write()
