"""A page for each command, from its argument parser."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock


class _FoundError(Exception):
    """Ends a command before it reads its arguments."""


def pages(root: Path) -> dict[str, str]:
    """File name → text of the page, for each command in pyproject.toml."""
    found = {f"commands/{name}.md": _page(name, main) for name, main in commands(root).items()}
    names = "\n".join(commands(root))
    return {"commands/index.md": f"# Commands\n\n```{{toctree}}\n{names}\n```\n", **found}


def commands(root: Path) -> dict[str, Callable[[list[str]], int]]:
    """Name → function of each command."""
    import tomllib

    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    found = {}
    for name, place in scripts.items():
        module, function = place.split(":")
        found[name] = getattr(import_module(module), function)
    return found


def parser_of(main: Callable[[list[str]], Any], words: list[str]) -> argparse.ArgumentParser:
    """The parser that a command makes for these arguments."""
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", autospec=True) as parse,
        contextlib.suppress(_FoundError),
    ):
        parse.side_effect = _FoundError
        main(words)
    parser: argparse.ArgumentParser = parse.call_args.args[0]
    return parser


def _page(name: str, main: Callable[[list[str]], int]) -> str:
    parser = parser_of(main, [])
    parts = [f"# {name}", _text(parser.description), _usage(parser), *_arguments(parser, "##")]
    for word in _choices(parser):
        chosen = _choices(parser_of(main, [word]))[word]
        parts += [f"## {name} {word}", _text(chosen.description), _usage(chosen)]
        parts += _arguments(chosen, "###")
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog.strip()}\n```")
    return "\n\n".join(filter(None, parts)) + "\n"


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands within a command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _usage(parser: argparse.ArgumentParser) -> str:
    return f"```text\n{parser.format_usage().strip()}\n```"


def _arguments(parser: argparse.ArgumentParser, level: str) -> Iterator[str]:
    """The groups of arguments, each with a heading and a definition list."""
    formatter = parser._get_formatter()
    for group in parser._action_groups:
        shown = [
            action
            for action in group._group_actions
            if action.help is not argparse.SUPPRESS
            and not isinstance(action, argparse._SubParsersAction)
        ]
        if not shown:
            continue
        yield f"{level} {str(group.title).capitalize()}"
        yield _text(group.description)
        for action in shown:
            name = formatter._format_action_invocation(action)
            meaning = _text(formatter._expand_help(action)) if action.help else "see above"
            yield f"`{name}`\n: {meaning}"


def _text(text: str | None) -> str:
    """Plain text as Markdown; names of pages become links."""
    escaped = re.sub(r"([\\*_<>\[\]])", r"\\\1", " ".join((text or "").split()))
    return re.sub(r"docs/([\w-]+)\.md", r"[docs/\1.md](../../\1.md)", escaped)
