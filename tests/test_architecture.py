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
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: import by the full name"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {name.removeprefix("pcnn.") for name in names if name.startswith("pcnn.")}
    return found


def test_every_module_is_in_the_picture() -> None:
    listed = [name for layer in _order() for name in layer]
    assert sorted(listed) == sorted(_modules())


@pytest.mark.parametrize("name", sorted(_modules()))
def test_imports_go_one_way(name: str) -> None:
    layers = _order()
    mine = next(i for i, layer in enumerate(layers) if name in layer)
    earlier = set().union(*layers[:mine])
    earlier |= {module.removesuffix(".__init__") for module in earlier if module != "__init__"}
    imported = _imported(_modules()[name])
    known = {
        module for module in imported if module in _modules() or f"{module}.__init__" in _modules()
    }
    assert known <= earlier, f"{name} imports {sorted(known - earlier)}"


def test_modules_fit_in_a_head() -> None:
    long = {name: len(path.read_text().splitlines()) for name, path in _modules().items()}
    assert not {name: count for name, count in long.items() if count > 330}
