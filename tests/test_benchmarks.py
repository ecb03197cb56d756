"""Benchmarks are not run by the tests, but what they import exists, and pages name none in vain."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "weights").glob("*.md")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_exists(script: Path) -> None:
    lacking = []
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "pcnn":
            continue
        assert node.module
        try:
            module = importlib.import_module(node.module)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == "pcnn":
                lacking.append(node.module)
            continue  # else an extra is not installed
        for alias in node.names:
            if not hasattr(module, alias.name):
                try:
                    importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    lacking.append(f"{node.module}.{alias.name}")
    assert lacking == []


def test_pages_name_benchmarks_that_exist() -> None:
    named = {
        name
        for page in PAGES
        for name in re.findall(r"benchmarks/(\w+\.\w+)", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / "benchmarks" / name).is_file()] == []
