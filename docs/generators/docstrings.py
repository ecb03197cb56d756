"""Docstrings as they stand in the code, plain text, made into reStructuredText.

A docstring has a first line, paragraphs, and lines `name: meaning`, `Returns …` and
`Raises Error: …` whose continuation lines are indented; examples begin with `>>>`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

_FIELD = re.compile(r"(\w+(?:, \w+)*)((?: \([^)]*\))?): (.*)", re.DOTALL)


def to_rst(  # noqa: PLR0913, PLR0917 - as Sphinx calls it
    app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Rewrite the lines of a docstring in place; Sphinx calls this for each."""
    lines[:] = list(_rst(lines, _parameters(value)))


def _parameters(value: Any) -> set[str]:
    """The names of a function's parameters, or of a class's fields."""
    try:
        names = set(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        names = set()
    return names | set(getattr(value, "__annotations__", {}))


def _rst(lines: list[str], parameters: set[str]) -> Iterator[str]:
    fields: list[str] = []
    for block in _blocks(lines):
        if block[0].startswith(">>>"):
            yield from ("", *block, "")
            continue
        text = " ".join(line.strip() for line in block)
        for part in _parts(text, parameters):
            field = _field(part, parameters)
            if field:
                fields += field
            else:
                yield from ("", _inline(part))
    yield from ("", *fields, "")


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Lines that belong together: a paragraph, a field with what is indented, an example."""
    block: list[str] = []
    for line in lines:
        starts = not line.startswith(" ") and _starts(line, block)
        if block and (starts or not line.strip()):
            yield block
            block = []
        if line.strip():
            block.append(line)
    if block:
        yield block


def _starts(line: str, block: list[str]) -> bool:
    """Whether a line that is not indented begins something new."""
    if block and block[0].startswith(">>>"):
        return False
    after_indent = bool(block) and block[-1].startswith(" ")
    return after_indent or bool(_FIELD.match(line)) or line.startswith(("Returns ", "Raises "))


def _parts(text: str, parameters: set[str]) -> list[str]:
    """Fields that stand on one line, apart: "kind: … sha256: …"."""
    if not parameters:
        return [text]
    names = "|".join(sorted(map(re.escape, parameters)))
    return re.split(rf"(?<=[.;]) (?=(?:{names})(?:, (?:{names}))*: )", text)


def _field(text: str, parameters: set[str]) -> list[str]:
    """A part as fields of reStructuredText; none if it is a paragraph."""
    if text.startswith("Returns "):
        return [f":returns: {_inline(text.removeprefix('Returns '))}"]
    if raised := re.match(r"Raises (\w+(?:, \w+)*): (.*)", text):
        errors = raised[1].split(", ")
        return [f":raises {error}: {_inline(raised[2])}" for error in errors]
    found = _FIELD.match(text)
    if not found:
        return []
    first, *others = found[1].split(", ")
    if not {first, *others} <= parameters:
        return []
    together = f"(also {', '.join(others)}) " if others else ""
    meaning = _inline(f"{found[2].strip()} {found[3]}".strip())
    return [f":param {first}: {together}{meaning}"] + [
        f":param {name}: see {first}." for name in others
    ]


def _inline(text: str) -> str:
    """Text with its `code` as reStructuredText has it; names of pages become links."""
    pieces = re.split(r"(`[^`]+`)", text)
    for i, piece in enumerate(pieces):
        if i % 2:
            pieces[i] = f"`{piece}`"
        else:
            escaped = re.sub(r"([\\*|]|_(?=\W|$))", r"\\\1", piece)
            pieces[i] = re.sub(r"docs/([\w-]+)\.md", r":doc:`/\1`", escaped)
    return "".join(pieces)
