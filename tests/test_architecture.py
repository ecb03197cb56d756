"""The modules import only what stands before them in docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pcnn"


def _order() -> list[set[str]]:
    """The layers of docs/architecture.md: one line each, below the heading "Order of imports"."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    block = text.split("## Order of imports", 1)[1].split("```")[1]
    return [set(line.split("#")[0].split()) for line in block.strip().splitlines()]


def _modules() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts)] = path
    return names


def _imported(path: Path) -> set[str]:
    """All modules of this package that a file imports, at its top or within functions."""
    modules = _modules()
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: import by the full name"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            names = {name for name in below if name.removeprefix("pcnn.") in modules}
            # A name that is no module of its own comes from the module itself.
            names |= {node.module} if names != below else set()
        else:
            continue
        for name in names:
            module = name.removeprefix("pcnn.")
            found |= {known for known in (module, f"{module}.__init__") if known in modules}
    return found


def test_every_module_is_in_the_picture() -> None:
    listed = [name for layer in _order() for name in layer]
    assert sorted(listed) == sorted(_modules())


@pytest.mark.parametrize("name", sorted(_modules()))
def test_imports_go_one_way(name: str) -> None:
    layers = _order()
    mine = next(i for i, layer in enumerate(layers) if name in layer)
    later = _imported(_modules()[name]) - set().union(*layers[:mine])
    assert not later, f"{name} imports {sorted(later)}"


def test_modules_fit_in_a_head() -> None:
    long = {name: len(path.read_text().splitlines()) for name, path in _modules().items()}
    assert not {name: count for name, count in long.items() if count > 360}
