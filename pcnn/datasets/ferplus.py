"""FER2013's faces with FER+'s votes, from contact sheets or the official tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich import progress
from torch import Tensor

from pcnn.datasets.labels import FER2013_CLASSES, FaceSet, canonical, one_hot
from pcnn.errors import InputError, counted, in_words
from pcnn.images.loading import load_image
from pcnn.networks.pcnn import FERPLUS_CLASSES
from pcnn.terminal import stderr_console

SHEETS_TREE = """\
folder/
  train.csv      image, neutral … contempt, unknown, NF, fer2013, duplicate
  train_00.png   40 faces of 48 × 48 to a row, in the table's order
  train_01.png …"""
FER2013_TREE = """\
folder/
  fer2013.csv      emotion, pixels, Usage
  fer2013new.csv   the votes of FER+, line by line (may be absent)"""

# Split → its name in FER2013's tables.
_USAGES = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}
_NOT_A_CLASS = ("unknown", "NF")
_DIGITS = tuple(str(number) for number in range(len(FER2013_CLASSES)))
_MOST_VOTES = 1000  # FER+ has ten of each face
_TILE = 48
_COLUMNS = 40

Pixels: TypeAlias = NDArray[np.uint8]
Row: TypeAlias = dict[str, str]


def read_sheets(
    folder: Path, split: str | None, *, protocol: str, labels: str | None, duplicates: bool
) -> FaceSet:
    """Read the faces of one split from a folder of contact sheets.

    For the options see datasets.load_faces.
    Raises InputError: a file is missing, or sheets and table do not fit together.
    """
    if split is None:
        splits = ", ".join(sheet_splits(folder))
        raise InputError(f"load_faces: {folder} has splits: choose one with split=: {splits}")
    rows, tiles = _read_split(folder, split)
    try:
        unique = np.array([duplicates or row["duplicate"] == "0" for row in rows], bool)
        names = [row["image"] for row in rows]
        if labels == "fer2013":
            kept, votes = unique, one_hot([_one_of_seven(row) for row in rows], FER2013_CLASSES)
        else:
            counted, votes = _count(rows, protocol)
            kept = unique & counted
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        columns = ", ".join(("image", *FERPLUS_CLASSES, *_NOT_A_CLASS, "fer2013", "duplicate"))
        raise InputError(
            f"load_faces: {folder / split}.csv must have the columns {columns}, "
            f"numbers of votes ({in_words(error)})"
        ) from error
    classes = FER2013_CLASSES if labels == "fer2013" else FERPLUS_CLASSES
    everyone = FaceSet(torch.from_numpy(tiles), votes, tuple(names), classes)
    return everyone.subset(np.flatnonzero(kept).tolist())


def sheet_splits(folder: Path) -> list[str]:
    """The splits with a table and contact sheets in a folder."""
    tables = sorted(folder.glob("*.csv"))
    return [table.stem for table in tables if (folder / f"{table.stem}_00.png").is_file()]


def read_tiles(folder: Path) -> dict[str, Pixels]:
    """Name → (48, 48) pixels of all faces on a folder's contact sheets, whatever their votes.

    Raises InputError: as read_sheets.
    """
    found: dict[str, Pixels] = {}
    for split in sheet_splits(folder):
        rows, tiles = _read_split(folder, split)
        found.update((row["image"], tile) for row, tile in zip(rows, tiles, strict=True))
    return found


def _read_split(folder: Path, split: str) -> tuple[list[Row], Pixels]:
    """The lines of a split's table and its (lines, 48, 48) faces."""
    table = folder / f"{split}.csv"
    sheets = sorted(folder.glob(f"{split}_[0-9][0-9].png"))
    if not table.is_file() or not sheets:
        raise InputError(
            f"load_faces: {folder} must hold {split}.csv and {split}_00.png …\n{SHEETS_TREE}"
        )
    rows = list(_rows(table, ("image",)))
    tiles = np.concatenate([_cut_sheet(sheet) for sheet in sheets])
    if len(tiles) < len(rows):
        raise InputError(
            f"load_faces: {table} has {counted(len(rows), 'line')}, "
            f"its sheets only {counted(len(tiles), 'tile')}"
        )
    return rows, tiles[: len(rows)]


def _cut_sheet(sheet: Path) -> Pixels:
    """The tiles of a contact sheet, (tiles, 48, 48), row by row."""
    pixels = np.asarray(Image.fromarray(load_image(sheet)).convert("L"))
    height, width = pixels.shape
    if width != _COLUMNS * _TILE or height % _TILE:
        raise InputError(
            f"load_faces: {sheet} must be {_COLUMNS * _TILE} pixels wide and a multiple of "
            f"{_TILE} high, got {width}×{height}"
        )
    tiles = pixels.reshape(height // _TILE, _TILE, _COLUMNS, _TILE).swapaxes(1, 2)
    return tiles.reshape(-1, _TILE, _TILE)


def _one_of_seven(row: Row) -> str:
    name = canonical(row["fer2013"])
    if name not in FER2013_CLASSES:
        raise ValueError(f"fer2013 is {row['fer2013']!r}")
    return name


def _votes(text: str) -> int:
    """A number of votes. Raises ValueError: other text."""
    if len(text) > len(str(_MOST_VOTES)) or not 0 <= (number := int(text)) <= _MOST_VOTES:
        raise ValueError(f"expected 0…{_MOST_VOTES} votes, got {text[:20]!r}")
    return number


def _count(rows: Sequence[Row], protocol: str) -> tuple[NDArray[np.bool_], Tensor]:
    """A mask (N,) of the faces that a protocol keeps, and votes for the eight classes (N, 8).

    "argmax" keeps a face if neither `unknown` nor `NF` has more votes than every class.
    "majority" (Barsoum et al. 2016, section 3) removes single votes of the ten; it keeps a face
    if one class has more than half of the rest. Votes that count are normalised. Faces that are
    not kept have arbitrary votes.
    """
    votes = np.array([[_votes(row[name]) for name in FERPLUS_CLASSES] for row in rows], np.float32)
    others = np.array([[_votes(row[name]) for name in _NOT_A_CLASS] for row in rows], np.float32)
    votes, others = votes.reshape(-1, len(FERPLUS_CLASSES)), others.reshape(-1, 2)
    if protocol == "majority":
        votes, others = votes * (votes > 1), others * (others > 1)
        kept = 2 * votes.max(1) > votes.sum(1) + others.sum(1)
    else:
        kept = (votes.max(1) > 0) & (others.max(1) <= votes.max(1))
    return kept, torch.from_numpy(votes / np.maximum(votes.sum(1, keepdims=True), 1))


def read_fer2013(path: Path, split: str | None, *, protocol: str, labels: str | None) -> FaceSet:
    """Read the faces of one split from FER2013's official table.

    path: fer2013.csv, or its folder. If FER+'s fer2013new.csv is beside it, the labels are its
        votes, and lines without an image name there are ignored. For the options see
        datasets.load_faces.
    Raises InputError: a file is missing, the split has no faces, or the tables do not fit
        together.
    """
    table = path / "fer2013.csv" if path.is_dir() else path
    if not table.is_file():
        raise InputError(f"{table}: no such file; expected\n{FER2013_TREE}")
    if split not in _USAGES:
        splits = ", ".join(_USAGES)
        raise InputError(f"load_faces: {table} has splits: choose one with split=: {splits}")
    beside = table.with_name("fer2013new.csv")
    crowd = _read_crowd(beside, protocol) if beside.is_file() else None
    by_votes = crowd is not None if labels is None else labels == "votes"
    if crowd is None and (by_votes or protocol != "argmax"):
        raise InputError(f"load_faces: votes need {beside}, which is missing\n{FER2013_TREE}")
    kept = crowd.kept if crowd is not None and by_votes else None
    lines, faces, seven = _read_table(table, _USAGES[split], crowd, kept)
    if not lines:
        raise InputError(f"load_faces: {table} holds no face of {_USAGES[split]} ({split})")
    names = tuple((crowd.names[line] if crowd else "") or f"row{line:05d}" for line in lines)
    if crowd is not None and by_votes:
        return FaceSet(torch.from_numpy(faces), crowd.votes[lines], names)
    votes = one_hot(seven, FER2013_CLASSES)
    return FaceSet(torch.from_numpy(faces), votes, names, FER2013_CLASSES)


@dataclass(frozen=True)
class _Crowd:
    """FER+'s table: split, name of the face ("" without one) and votes of every line."""

    path: Path
    usages: list[str]
    names: list[str]
    kept: NDArray[np.bool_]
    votes: Tensor


def _read_crowd(path: Path, protocol: str) -> _Crowd:
    rows = list(_rows(path, ("Usage", "Image name", *FERPLUS_CLASSES, *_NOT_A_CLASS)))
    try:
        kept, votes = _count(rows, protocol)
    except (TypeError, ValueError) as error:
        raise InputError(f"load_faces: {path} must hold numbers of votes ({error})") from error
    names = [Path(row["Image name"] or "").stem for row in rows]
    named = np.array([bool(name) for name in names], bool)
    return _Crowd(path, [row["Usage"] for row in rows], names, kept & named, votes)


def _read_table(
    table: Path, usage: str, crowd: _Crowd | None, kept: NDArray[np.bool_] | None
) -> tuple[list[int], Pixels, list[str]]:
    """Line numbers, pixels (N, 48, 48) and labels of the `kept` faces of one `usage`."""
    lines, faces, seven, line = [], [], [], -1
    for line, row in enumerate(_rows(table, ("emotion", "pixels", "Usage"))):
        place = f"load_faces: {table}, line {line + 2}"
        if row["Usage"] not in _USAGES.values():
            usages = ", ".join(_USAGES.values())
            raise InputError(f"{place}: Usage must be one of {usages}, got {row['Usage']!r}")
        if crowd is not None and crowd.usages[line : line + 1] != [row["Usage"]]:
            raise InputError(f"{place}: {crowd.path.name} has no matching line")
        if row["Usage"] != usage or (kept is not None and not kept[line]):
            continue
        if row["emotion"] not in _DIGITS:
            raise InputError(f"{place}: emotion must be 0…6, got {row['emotion']!r}")
        try:
            faces.append(_parse_pixels(row["pixels"]))
        except ValueError as error:
            raise InputError(f"{place}: {error}") from error
        seven.append(FER2013_CLASSES[int(row["emotion"])])
        lines.append(line)
    if crowd is not None and line + 1 != len(crowd.names):
        raise InputError(
            f"load_faces: {crowd.path} has {counted(len(crowd.names), 'line')}, "
            f"{table.name} {line + 1}"
        )
    return lines, np.array(faces, np.uint8).reshape(-1, _TILE, _TILE), seven


def _rows(table: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The lines of a table as column → text, with a progress bar on a terminal."""
    console = stderr_console()
    try:
        with progress.open(
            table,
            "r",
            encoding="utf-8-sig",
            description=table.name,
            console=console,
            disable=not console.is_terminal,
            transient=True,
        ) as file:
            header = _fields(next(file, ""))
            lacking = [name for name in columns if name not in header]
            if lacking:
                raise InputError(f"load_faces: {table} has no column {', '.join(lacking)}")
            for line in filter(str.strip, file):
                fields = _fields(line)
                yield dict(zip(header, fields + [""] * (len(header) - len(fields)), strict=False))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"load_faces: cannot read {table} ({error})") from error


def _fields(line: str) -> list[str]:
    # No field contains a comma, and the csv module takes four times as long for the pixels.
    return [field.strip().strip('"') for field in line.split(",")]


def _parse_pixels(text: str) -> Pixels:
    """Pixels (48, 48) from 2304 numbers separated by blanks. Raises ValueError: other text."""
    # loadtxt is NumPy's only quick parser that refuses everything but numbers from 0 to 255.
    found = np.loadtxt([text], np.uint8, comments=None, ndmin=1) if text.strip() else None
    if found is None or found.size != _TILE * _TILE:
        count = 0 if found is None else found.size
        raise ValueError(f"pixels must be {_TILE * _TILE} numbers, got {count}")
    return found.reshape(_TILE, _TILE)
