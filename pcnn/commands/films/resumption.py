"""An output that was broken off: what of it is whole, and the faces it has of begun films."""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pcnn.commands.reports import Names, csv_columns
from pcnn.errors import InputError
from pcnn.images.files import shown
from pcnn.results.frames import LANDMARK_COLUMNS, RAW
from pcnn.results.values import Face

_EDGES = ("x1", "y1", "x2", "y2")
_MOST = 1e30


class BegunFilm(NamedTuple):
    """What an output has of a film.

    frame: the index of the last frame with faces. rows: how many there are, one for each face.
    begin: bytes of the file before the first of them, without those of a header.
    """

    frame: int
    rows: int
    begin: int


@dataclass(frozen=True)
class Resumption:
    """What an output file has, after its last picture or frame was cut off, which may not be whole.

    columns: a CSV file's own; () if it has none yet, and for JSON lines.
    finished: sources that are done. films: those that are not, but have whole frames.
    size: bytes of the file.
    """

    path: Path
    format: str
    names: Names
    columns: tuple[str, ...]
    finished: frozenset[str]
    films: Mapping[str, BegunFilm]
    size: int

    def known(self, film: str) -> Iterator[tuple[int, Sequence[Face]]]:
        """Frames of one of `films` and their faces, with raw scores.

        Raises InputError: a row lacks what this command writes.
        """
        _, count, begin = self.films[film]
        with self.path.open("rb") as file, _named_errors(self.path):
            rows = _rows(file, self.format, self.size, [self.columns], begin)
            own = (row for row, _ in rows if row.get("source") == film and _frame(row) is not None)
            for index, faces in itertools.groupby(itertools.islice(own, count), key=_frame):
                if index is not None:
                    yield index, [_face(row, self.names) for row in faces]


def resume(
    arguments: argparse.Namespace, names: Names, *, films: bool, ended: Mapping[str, int]
) -> Resumption:
    """See what --output has, and cut off what may not be whole.

    arguments: of `pcnn-predict`; the output need not exist. names: of the classes and values.
    films: there are films among the inputs. Then the columns may be those of films alone or of
        both kinds, because the pictures may have come or gone since.
    ended: film → how many rows it had when it ended. One of which the output has fewer is not
        finished, and neither is one that is not listed.
    Raises InputError: the file cannot be read, or was not written by this command.
    """
    path, kind = arguments.output, arguments.format
    choices = [
        csv_columns(names, crops=arguments.faces, pictures=both, films=films)
        for both in (True, False)
    ]
    columns: tuple[str, ...] = ()
    pictures: set[str] = set()
    begun: dict[str, BegunFilm] = {}
    rows: Counter[str] = Counter()  # of each source
    begins: dict[str, int] = {}
    group: tuple[str, int | None] | None = None  # the last picture, or frame of a film
    begin = size = 0  # where the last group begins, and the whole rows end

    def add(source: str, index: int | None) -> None:
        if index is None:
            pictures.add(source)
        else:
            begun[source] = BegunFilm(index, rows[source], begins[source])

    if path.exists():
        with path.open("rb") as file, _named_errors(path):
            for row, end in _rows(file, kind, path.stat().st_size, choices):
                columns = tuple(row) if kind == "csv" else ()
                before, group = group, (_source(row), _frame(row))
                if group != before:
                    begin = size
                    if before is not None:
                        add(*before)
                begins.setdefault(group[0], begin)
                rows[group[0]] += 1
                size = end
    finished = {film for film, count in ended.items() if rows[film] == count}
    if group is None or group[0] not in finished:
        size = begin
    if path.exists():
        os.truncate(path, size)
    unfinished = {film: each for film, each in begun.items() if film not in finished}
    columns = columns if size else ()  # the header is cut off, too
    done = frozenset(pictures | finished)
    return Resumption(path, kind, names, columns, done, unfinished, size)


def _rows(
    file: BinaryIO, kind: str, size: int, choices: Sequence[tuple[str, ...]], begin: int = 0
) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole rows in a file's first `size` bytes, from `begin` on, and where each ends.

    choices: the columns that CSV may have; if it is read from within, its own alone.
    """
    file.seek(begin)
    end = begin

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
    reader = csv.DictReader(lines(), choices[0] if begin else None)
    for row in reader:
        if tuple(row) not in choices:
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
    points = [_number(row[name]) for name in LANDMARK_COLUMNS]
    return Face(
        label=label,
        confidence=scores[label],
        scores=scores,
        regions={},
        values={name: _number(row[name]) for name in names.values},
        box=(x1, y1, x2, y2),
        detection_score=_number(row["detection_score"]),
        quality=None if row.get("quality") in (None, "") else _number(row["quality"]),
        landmarks=np.array(points, np.float32).reshape(5, 2),
    )


def _number(value: Any) -> float:
    """A finite number, as text or not, that fits into single precision."""
    found = float(value)
    if not abs(found) < _MOST:
        raise ValueError(f"{value} is no number of this command")
    return found
