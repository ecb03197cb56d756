"""The folders import only from the layers above their own in docs/architecture.md."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pcnn"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"  # which gives all public names
}


def layers() -> list[set[str]]:
    """The lines of the block below the heading "Layers": folders, and modules of the ground."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    block = text.split("## Layers", 1)[1].split("```")[1]
    return [set(line.split()[1:]) for line in block.strip().splitlines()]


def rooms(module: str) -> Iterator[str]:
    """What a module imports of this package, at its top or within functions: the rooms."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: import by the full name"
            names = [node.module or ""]
        else:
            continue
        for name in names:
            package, _, below = name.partition(".")
            if package == "pcnn":
                assert below, f"{module} imports from pcnn itself"
                yield below.split(".")[0]


def test_every_room_is_in_the_picture() -> None:
    listed = [room for layer in layers() for room in layer]
    assert sorted(listed) == sorted({name.split(".")[0] for name in MODULES})


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    order = layers()
    own = module.split(".", maxsplit=1)[0]
    mine = next(i for i, layer in enumerate(order) if own in layer)
    allowed = set().union(*order[:mine], {own}, order[0])
    wrong = set(rooms(module)) - allowed
    assert not wrong, f"{module} imports from {sorted(wrong)}, which do not stand above it"


def test_modules_fit_in_a_head() -> None:
    long = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert not {name: count for name, count in long.items() if count > 360}


def test_rooms_fit_on_a_card() -> None:
    folders = {path.parent for path in MODULES.values()} - {PACKAGE}
    folders -= {PACKAGE / "commands"}  # a file for each, and there are many
    crowded = {folder.name: len(list(folder.glob("*.py"))) for folder in folders}
    assert not {name: count for name, count in crowded.items() if count > 15}


def test_tests_lie_in_folders_like_those_of_the_package() -> None:
    tests = ROOT / "tests"
    for path in tests.rglob("test_*.py"):
        folder = path.parent.relative_to(tests)
        assert (PACKAGE / folder).is_dir() or folder.name == "attacks", path


def test_benchmarks_name_modules_that_there_are() -> None:
    """Also in code that they run in other processes, which stands in texts."""
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        for name in set(re.findall(r"from (pcnn[\w.]*) import", path.read_text())):
            assert importlib.util.find_spec(name) is not None, (path.name, name)
