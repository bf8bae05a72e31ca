"""The plan of the house (docs/architecture.md), held against the code: who may look at whom, how full a room may be,
and that every charter and every path named in the docs is true."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from liq_pipeline.operations import architecture_picture
from liq_pipeline.operations.architecture_picture import FLOORS, imports_between, rooms

ROOT = Path(__file__).resolve().parents[2]
HOUSE = ROOT / "liq_pipeline"
MOST_MODULES = 14
SHELVES = {"sources/live"}
"""One module per venue: like things side by side, and each is read alone."""
PACKAGES = sorted(path.parent for path in HOUSE.rglob("__init__.py"))


def _name(path: Path) -> str:
    return path.relative_to(HOUSE).as_posix()


def _modules(package: Path) -> list[str]:
    return sorted(path.stem for path in package.glob("*.py") if path.stem != "__init__")


def test_nothing_looks_up_and_rooms_of_one_floor_do_not_look_at_each_other() -> None:
    height = {room: floor for floor, names in enumerate(FLOORS) for room in names}
    assert set(height) == set(rooms()), (
        "each room of liq_pipeline stands on one floor of FLOORS (architecture_picture.py)"
    )
    wrong = [
        f"{importer} imports {imported}, but {room} does not stand above {target}"
        for (room, target), pairs in imports_between().items()
        if room != target and height[room] <= height[target]
        for importer, imported in pairs
    ]
    assert not wrong, "\n".join(wrong)


def test_there_is_no_circle_between_modules() -> None:
    """Imports inside functions count too: a circle that is hidden there is still one."""
    edges: dict[str, set[str]] = {}
    for pairs in imports_between().values():
        for importer, imported in pairs:
            edges.setdefault(importer, set()).add(imported)
    done: set[str] = set()
    path: list[str] = []

    def walk(module: str) -> None:
        if module in path:
            pytest.fail("a circle of imports: " + " -> ".join([*path[path.index(module) :], module]))
        if module in done:
            return
        path.append(module)
        for target in sorted(edges.get(module, ())):
            walk(target)
        path.pop()
        done.add(module)

    for module in sorted(edges):
        walk(module)


@pytest.mark.parametrize("package", [p for p in PACKAGES if _name(p) not in SHELVES], ids=_name)
def test_no_room_is_crowded(package: Path) -> None:
    assert len(_modules(package)) <= MOST_MODULES, f"{_name(package)} is full: what walks together belongs into a room"


@pytest.mark.parametrize("package", PACKAGES, ids=_name)
def test_no_prefix_is_shared_by_three_neighbours(package: Path) -> None:
    prefixes = Counter(name.split("_")[0] for name in _modules(package) if "_" in name)
    prefixes.update(name for name in _modules(package) if "_" not in name and name in prefixes)
    crowded = [prefix for prefix, count in prefixes.items() if count >= 3]
    assert not crowded, f"{_name(package)}: {', '.join(crowded)}_* are a room that was not built"


@pytest.mark.parametrize("package", PACKAGES, ids=_name)
def test_every_room_opens_with_a_charter_that_names_what_lives_there(package: Path) -> None:
    charter = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    assert len(charter) > 60, f"{_name(package)}/__init__.py: say what lives here, what does not, which module to open"
    if _name(package) in SHELVES:
        return
    inside = [f"{name}.py" for name in _modules(package)]
    inside += [f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()]
    absent = [name for name in inside if name not in charter]
    assert not absent, f"the charter of {_name(package)} does not name {', '.join(absent)}"
    for named in re.findall(r"(?<![\w/])([a-z_]+\.py)\b", charter):
        assert named in inside, f"the charter of {_name(package)} names {named}, which is not there"


def _named_paths() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in listed:
        if name.endswith((".md", ".py")) and (ROOT / name).exists():
            for path in re.findall(r"(?<![\w./:-])((?:[a-z_]+/)+[a-z_0-9]+\.(?:py|sql))\b", (ROOT / name).read_text()):
                yield name, path


def test_every_path_that_a_text_names_is_there() -> None:
    roots = (ROOT, HOUSE, ROOT / "liq_pipeline_tests")
    absent = sorted(
        {f"{where}: {path}" for where, path in _named_paths() if not any((root / path).exists() for root in roots)}
    )
    assert not absent, "\n".join(absent)


def test_the_picture_of_the_house_is_the_code_s_own() -> None:
    drawn = (ROOT / "docs" / "images" / "house.svg").read_text()
    assert drawn == architecture_picture.draw(), "run `make docs`: the imports between rooms have changed"
