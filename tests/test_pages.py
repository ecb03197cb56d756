"""What the pages of docs/ show is what happens: examples run, commands and options exist."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import cli
import pytest

from pcnn.version import __version__

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
NAMES = "|".join(cli.__all__)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


class _ParserFoundError(Exception):
    """Ends a command before it reads its arguments."""


def options_of(command: Callable[[list[str]], int], words: list[str]) -> set[str]:
    """The options of a command's parser, or of the command within it that `words` name."""
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", autospec=True) as parse,
        contextlib.suppress(_ParserFoundError),
    ):
        parse.side_effect = _ParserFoundError
        command(words)
    parser: argparse.ArgumentParser = parse.call_args.args[0]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parser = action.choices[words[0]]
    return {option for action in parser._actions for option in action.option_strings}


def shown_commands() -> Iterator[tuple[str, str]]:
    """The page and each line of its `sh` blocks that calls one of the package's commands."""
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            lines = text.replace("\\\n", " ").splitlines() if language == "sh" else []
            for line in lines:
                if called := re.search(rf"(?:^|&& |\d )(pcnn-(?:{NAMES})\b.*)", line):
                    yield page.name, called[1].split(" | ")[0]


SHOWN = sorted(set(shown_commands()))


def test_pages_show_commands() -> None:
    assert len(SHOWN) > 40


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=lambda value: str(value)[:60])
def test_every_option_that_pages_show_exists(page: str, line: str) -> None:
    name, *words = shlex.split(line, comments=True)
    command = getattr(cli, name.removeprefix("pcnn-"))
    known = options_of(command, words)
    used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= known, f"{page}: {line}"


def test_the_tutorial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").symlink_to(DOCS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    scope: dict[str, object] = {}
    statuses = []
    for language, text in BLOCK.findall((DOCS / "tutorial.md").read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(text, "tutorial.md", "exec"), scope)
        for line in text.splitlines() if language == "sh" else []:
            if line.startswith("pcnn-predict"):
                statuses.append(cli.predict(shlex.split(line)[1:]))
    assert statuses == [0, 0, 1, 1, 0, 0]  # one file of the folder is broken
    printed = capsys.readouterr()
    assert "photos/broken.jpg: text, not a picture" in printed.err
    assert "no face found" in printed.out
    # By the table, the CSV file and Python: the portrait, tilted and dark.
    assert printed.out.count(" happiness ") == 1 + 3 + 3 + 3 + 1 + 1
    assert (tmp_path / "drawn").is_dir() and (tmp_path / "why").is_dir()


def test_the_offline_page_shows_no_other_index() -> None:
    page = (DOCS / "offline.md").read_text(encoding="utf-8")
    assert "pip install --no-index" in page  # pcnn on PyPI is another project


def test_the_citation_names_this_version() -> None:
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version = {{{__version__}}}" in (DOCS / "cite.md").read_text(encoding="utf-8")


def test_every_page_is_in_the_site() -> None:
    """Sphinx warns of pages in no table of contents; this says so without Sphinx."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    index += (DOCS / "reference.md").read_text(encoding="utf-8")
    listed = {line.strip() for line in index.splitlines()}
    assert {page.stem for page in DOCS.glob("*.md")} - listed == {"index"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
