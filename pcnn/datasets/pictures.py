"""Your own labelled pictures: folders named after labels, or a CSV of labels or numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcnn.datasets.labels import composed
from pcnn.disk import as_path
from pcnn.errors import InputError
from pcnn.images.files import find_images, shown

PICTURES_TREE = """\
folder/
  bored/any name.jpg …       a folder for each label, with any names
  amused/…
or a CSV: picture,label      (and group, such as the person, if you have it)
          album/1.jpg,bored
or a CSV of numbers: picture,valence,arousal"""

_PICTURE, _LABEL, _GROUP = "picture", "label", "group"
_SPLITS = {"train", "training", "valid", "val", "validation", "test", "testing"}


@dataclass(frozen=True, eq=False)
class LabelledPictures:
    """Pictures with your own labels or numbers. None of the pictures is read yet.

    files: N paths. labels: N names, or () where there are numbers.
    names: of the numbers, or (). values: (N, names) float64; empty where there are labels.
    groups: N names of groups, such as people, or ().
    problems: a line for each picture or row that is left out. notes: a line for each folder that
        has no pictures or cannot be read, and one for files outside of the folders.
    """

    files: tuple[Path, ...]
    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    groups: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_pictures(path: str | Path, columns: Sequence[str] = ()) -> LabelledPictures:
    """Find your own pictures with their labels or numbers; docs/own-labels.md shows both forms.

    path: a folder with a folder for each label, or a `.csv` with a header: `picture`, then `label`
        or columns of numbers, and `group` if there are groups. Pictures without a full path are
        looked for beside the CSV.
    columns: the columns of numbers to take. () takes `label` if there is one, else all columns
        but `picture` and `group`.
    Labels, groups and columns are read in Unicode's form NFC: the two forms of "é" are one name.
    Rows and pictures that cannot be used are left out and listed in `problems`, folders without
    pictures in `notes`.
    Raises InputError: another form, or nothing that can be used.
    """
    path = as_path("read_pictures: path", path)
    if path.is_dir():
        if columns:
            raise InputError(f"{shown(path)}: a folder has labels, so it has no columns to choose")
        return _read_folders(path)
    if not path.is_file():
        raise InputError(f"{shown(path)}: no such folder or CSV; expected\n{PICTURES_TREE}")
    return _read_csv(path, [composed(name) for name in columns])


def _read_folders(root: Path) -> LabelledPictures:
    inside = sorted(each for each in root.iterdir() if not each.name.startswith((".", "__")))
    folders = [each for each in inside if each.is_dir()]
    if not folders:
        raise InputError(f"{shown(root)}: no folders of labels in it; expected\n{PICTURES_TREE}")
    if all(each.name.lower() in _SPLITS for each in folders):
        raise InputError(
            f"{shown(root)}: its folders are parts of a data set "
            f"({', '.join(each.name for each in folders)}), not labels: give one of them"
        )
    files: list[Path] = []
    labels: list[str] = []
    notes: list[str] = []
    for folder in folders:
        if not folder.name.isprintable() or not folder.name.strip():
            raise InputError(f"{shown(folder)}: a label must be printable: rename the folder")
        found, errors = find_images([folder])
        files += found
        labels += [composed(folder.name)] * len(found)
        notes += map(str, errors)
    loose = sum(each.is_file() for each in inside)
    if loose:
        notes.append(f"{shown(root)}: files outside of the labels' folders: {loose}")
    if not files:
        raise InputError(f"{shown(root)}: no pictures in its folders; expected\n{PICTURES_TREE}")
    return LabelledPictures(tuple(files), labels=tuple(labels), notes=tuple(notes))


def _read_csv(path: Path, columns: Sequence[str]) -> LabelledPictures:
    header, rows, problems, decimal_comma = _rows(path)
    if _PICTURE not in header or len(set(header)) < len(header):
        raise InputError(
            f"{shown(path)}: the first line must name the columns, {_PICTURE} among them, each "
            f"once; got {', '.join(header)}; expected\n{PICTURES_TREE}"
        )
    labelled = _LABEL in header and not columns
    names = () if labelled else _value_names(path, header, rows, columns, decimal_comma)
    files: list[Path] = []
    labels: list[str] = []
    groups: list[str] = []
    values: list[list[float]] = []
    for number, row in rows:
        place = f"{shown(path)}, line {number}"
        numbers = [_number(row[name], decimal_comma) for name in names]
        lacking = [name for name, value in zip(names, numbers, strict=True) if value is None]
        lacking += [name for name in (_PICTURE, _LABEL)[: 1 + labelled] if not row[name]]
        lacking += [name for name in (_GROUP,) if name in header and not row[name]]
        if lacking:
            kind = "no number" if lacking[0] in names else "nothing"
            problems.append(f"{place}: {kind} in column {lacking[0]}")
            continue
        if labelled and not row[_LABEL].isprintable():
            problems.append(f"{place}: the label is not printable")
            continue
        files.append(path.parent / row[_PICTURE])
        labels += [composed(row[_LABEL])] if labelled else []
        groups += [composed(row[_GROUP])] if _GROUP in header else []
        values.append([value for value in numbers if value is not None])
    if not files:
        why = problems[0] if problems else f"{shown(path)}: it has no rows"
        raise InputError(f"{shown(path)}: no row can be used; the first reason: {why}")
    return LabelledPictures(
        files=tuple(files),
        labels=tuple(labels),
        names=names,
        values=np.array(values, np.float64).reshape(len(files), len(names)),
        groups=tuple(groups),
        problems=tuple(problems),
    )


def _value_names(
    path: Path,
    header: Sequence[str],
    rows: Sequence[tuple[int, dict[str, str]]],
    chosen: Sequence[str],
    decimal_comma: bool,
) -> tuple[str, ...]:
    """The columns of numbers."""
    unknown = [name for name in chosen if name not in header]
    if unknown:
        raise InputError(
            f"{shown(path)}: no column {unknown[0]!r}; its columns are {', '.join(header)}"
        )
    names = tuple(chosen) or tuple(name for name in header if name not in (_PICTURE, _GROUP))
    if not names:
        raise InputError(f"{shown(path)}: neither a label nor numbers; expected\n{PICTURES_TREE}")
    for name in names:
        if not name.isprintable():
            raise InputError(f"{shown(path)}: column {name!r} is not printable: rename it")
        if rows and all(_number(row[name], decimal_comma) is None for _, row in rows):
            raise InputError(
                f"{shown(path)}: column {name!r} has no number in any row: name the columns of "
                f"numbers with values=, or call a column of names {_LABEL!r}"
            )
    return names


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]], list[str], bool]:
    """The columns' names, each row by them after its line's number, problems, `decimal_comma`.

    A row with more fields than columns is a problem: which of its commas parts them is not known.
    """
    try:
        separator = _separator(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(_filled(file, separator))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{shown(path)}: cannot be read as a CSV of UTF-8 ({error})") from error
    if not lines:
        raise InputError(f"{shown(path)}: it is empty; expected\n{PICTURES_TREE}")
    header = [composed(name) for name in lines[0][1]]
    count = len(header)
    rows, problems = [], []
    for number, fields in lines[1:]:
        if any(fields[count:]):
            more = f"more fields than columns, {len(fields)} instead of {count}"
            problems.append(f"{shown(path)}, line {number}: {more}: put quotes around its text")
        else:
            padded = (fields + [""] * count)[:count]
            rows.append((number, dict(zip(header, padded, strict=True))))
    # Columns without a name are no data: pandas writes the rows' numbers in one.
    return [name for name in header if name], rows, problems, separator != ","


def _filled(file: Iterator[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Number and fields, without blanks around them, of each line that has any."""
    reader = csv.reader(file, delimiter=separator)
    for fields in reader:
        stripped = [field.strip() for field in fields]
        if any(stripped):
            yield reader.line_num, stripped


def _separator(path: Path) -> str:
    """The character between the columns of the first line: spreadsheets write other ones, too."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
    return max(",;\t", key=first.count)


def _number(text: str, decimal_comma: bool) -> float | None:
    """A finite number; None for any other text. decimal_comma: 0,5 is a half."""
    if decimal_comma and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
