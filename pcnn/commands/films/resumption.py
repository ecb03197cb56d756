"""An output that was broken off: what of it is whole, and the faces it has of the last film."""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pcnn.commands.reports import Names, csv_columns
from pcnn.errors import InputError
from pcnn.images.files import shown
from pcnn.results.frames import FILM_COLUMNS, RAW
from pcnn.results.values import Face

_EDGES = ("x1", "y1", "x2", "y2")
_POINTS = FILM_COLUMNS[-10:]
_MOST = 1e30


@dataclass(frozen=True)
class Resumption:
    """What an output file has, after its last picture or frame was cut off, which may not be whole.

    finished: sources that are done. film: the one that is not, if it is a film with whole frames,
        and `last` the index of the last of them with faces; else "" and −1.
    size: bytes of the file.
    """

    path: Path
    format: str
    names: Names
    finished: frozenset[str]
    film: str
    last: int
    size: int

    def known(self) -> Iterator[tuple[int, Sequence[Face]]]:
        """Frames of the unfinished film and their faces, with raw scores.

        Raises InputError: a row lacks what this command writes.
        """
        with self.path.open("rb") as file, _named_errors(self.path):
            rows = (row for row, _ in _rows(file, self.format, self.size))
            own = (
                row for row in rows if row.get("source") == self.film and _frame(row) is not None
            )
            for index, faces in itertools.groupby(own, key=_frame):
                if index is not None:
                    yield index, [_face(row, self.names) for row in faces]


def resume(arguments: argparse.Namespace, names: Names, *, films: bool) -> Resumption:
    """See what --output has, and cut off what may not be whole.

    arguments: of `pcnn-predict`; the output need not exist. names: of the classes and values.
    films: there are films among the pictures.
    Raises InputError: the file cannot be read, or was not written by this command.
    """
    path, kind = arguments.output, arguments.format
    columns = csv_columns(names, crops=arguments.faces, films=films)
    sources: dict[str, None] = {}
    group: tuple[str, int | None] | None = None  # the last picture, or frame of a film
    film, last = "", -1  # the film that the last row was of, and its frame
    before = film, last  # those of the group before, if it is of the same film
    begin = size = 0  # where the last group begins, and the whole rows end
    if path.exists():
        whole = path.stat().st_size
        with path.open("rb") as file, _named_errors(path):
            for row, end in _rows(file, kind, whole, columns):
                source, index = _source(row), _frame(row)
                if (source, index) != group:
                    before = (film, last) if film == source else ("", -1)
                    begin, group = size, (source, index)
                sources[source] = None
                film, last = (source, index) if index is not None else ("", -1)
                size = end
        size = begin if group is not None else 0
        os.truncate(path, size)
    finished = frozenset(sources) - ({group[0]} if group else set())
    return Resumption(path, kind, names, finished, *before, size)


def _rows(
    file: BinaryIO, kind: str, size: int, columns: Sequence[str] | None = None
) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole rows in a file's first `size` bytes, and where each ends."""
    end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        for line in file:
            if not line.endswith(b"\n") or end + len(line) > size:
                return
            end += len(line)
            yield line.decode("utf-8", "surrogateescape")

    if kind == "jsonl":
        for line in lines():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a line is no object")
            yield row, end
        return
    reader = csv.DictReader(lines())
    for row in reader:
        if columns is not None and list(row) != list(columns):
            raise ValueError("other columns")
        yield row, end


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Convert errors in a file's rows to InputError."""
    try:
        yield
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError, csv.Error) as error:
        raise InputError(
            f"{shown(path)}: --resume cannot continue this file, because other options "
            f"wrote it ({error}): choose another --output"
        ) from error


def _source(row: dict[str, Any]) -> str:
    source = row["source"]
    if not isinstance(source, str):
        raise ValueError("a source is no text")
    return source


def _frame(row: dict[str, Any]) -> int | None:
    """The index of the frame that a row is of; None for a picture's."""
    value = row.get("frame")
    return None if value is None or value == "" else int(value)


def _face(row: dict[str, Any], names: Names) -> Face:
    """The face of a row with its raw scores, without regions."""
    scores = {name: _number(row[f"{RAW}{name}"]) for name in names.classes}
    label = max(scores, key=lambda name: scores[name])
    x1, y1, x2, y2 = (_number(row[edge]) for edge in _EDGES)
    return Face(
        label=label,
        confidence=scores[label],
        scores=scores,
        regions={},
        values={name: _number(row[name]) for name in names.values},
        box=(x1, y1, x2, y2),
        detection_score=_number(row["detection_score"]),
        quality=None if row.get("quality") in (None, "") else _number(row["quality"]),
        landmarks=np.array([_number(row[each]) for each in _POINTS], np.float32).reshape(5, 2),
    )


def _number(value: Any) -> float:
    """A finite number, as text or not, that fits into single precision."""
    found = float(value)
    if not abs(found) < _MOST:
        raise ValueError(f"{value} is no number of this command")
    return found
