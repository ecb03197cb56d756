"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import cli
import pytest
from cli import help_of
from PIL import Image

import pcnn

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_two_commands_stand_alone() -> None:
    """.ci/run takes them from here by their beginning."""
    lines = [line for line in README.splitlines() if line.startswith("pip install -c constraints")]
    assert lines == [
        "pip install -c constraints.txt . && pcnn-predict docs/images/astronaut.png",
        "pip install -c constraints.txt '.[test]' && pytest -n auto",
    ]


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("happiness 0.")
    with Image.open(tmp_path / "annotated.png") as drawn:
        assert drawn.size == (512, 512)


def test_the_examples_of_the_usage_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "usage.md").read_text()
    scope: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(example, "usage.md", "exec"), scope)
    # Every public name is shown in use.
    assert {name for name in pcnn.__all__ if name not in page} <= {"NativeError", "__version__"}


def test_every_option_it_shows_exists() -> None:
    shown = {
        option
        for line in README.splitlines()
        if line.startswith("pcnn-predict")
        for option in re.findall(r"(--[a-z-]+)", line.split("#")[0])
    }
    assert {"--annotate", "--format", "--output", "--info"} <= shown
    known = help_of(cli.predict)
    assert all(option in known for option in shown)


def test_every_picture_it_shows_exists() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).is_file(), picture
