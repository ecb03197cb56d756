"""The page on very many pictures: its recipes run, its options exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli import help_of, predict

pytestmark = pytest.mark.tables


@pytest.fixture
def page(pytestconfig: pytest.Config) -> str:
    return (pytestconfig.rootpath / "docs" / "scale.md").read_text()


def test_plain_multiprocessing_with_spawn(
    page: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    (recipe,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "recipe.py").write_text(recipe)
    done = subprocess.run(
        [sys.executable, tmp_path / "recipe.py"],
        cwd=pytestconfig.rootpath,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'label': 'happiness'" in done.stdout
    assert "'error': 'missing.jpg: no such file'" in done.stdout


def test_the_other_recipes_are_python(page: str) -> None:
    recipes = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    assert len(recipes) == 2
    for recipe in recipes:
        compile(recipe, "scale.md", "exec")


def test_options_exist(page: str) -> None:
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) - {"--photographs", "--count"}
    assert {"--ray", "--partition", "--workers"} <= options
    assert options <= set(re.findall(r"--[a-z-]+", help_of(predict)))
