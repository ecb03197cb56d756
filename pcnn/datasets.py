"""Faces with labels, as training and scoring read them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pcnn.errors import InputError
from pcnn.model import FERPLUS_CLASSES

_TILE = 48
_COLUMNS = 40
_NOT_A_CLASS = ("unknown", "NF")


@dataclass(frozen=True)
class FaceSet:
    """Grey faces and their vote distributions, held in memory.

    faces: (N, 48, 48) uint8. votes: (N, classes) float32, each row sums to 1.
    names: N file stems.
    """

    faces: Tensor
    votes: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def load_ferplus(folder: str | Path, split: str) -> FaceSet:
    """FER+ faces from contact sheets, under the argmax-8 protocol and without duplicates.

    folder: holds `<split>.csv` (columns image, the eight classes, unknown, NF, duplicate) and
        `<split>_00.png …`, sheets of 40 tiles of 48 × 48 to a row, in the order of the CSV.
    split: "train" or "valid".
    Kept are faces for which neither `unknown` nor `NF` has more votes than every class, and
    which are no near-copy of a face of another split. Votes are those for the eight classes,
    normalised. Raises InputError: a missing file, or sheets and CSV that do not fit together.
    """
    folder = Path(folder)
    table = folder / f"{split}.csv"
    sheets = sorted(folder.glob(f"{split}_[0-9][0-9].png"))
    if not table.is_file() or not sheets:
        raise InputError(f"load_ferplus: {folder} must hold {split}.csv and {split}_00.png …")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    tiles = np.concatenate([_read_tiles(sheet) for sheet in sheets])
    if len(tiles) < len(rows):
        raise InputError(
            f"load_ferplus: {table} has {len(rows)} lines, its sheets only {len(tiles)} tiles"
        )
    try:
        votes = np.array([[int(row[name]) for name in FERPLUS_CLASSES] for row in rows], np.float32)
        others = np.array([[int(row[name]) for name in _NOT_A_CLASS] for row in rows])
        unique = np.array([row["duplicate"] == "0" for row in rows])
    except (KeyError, TypeError, ValueError) as error:
        columns = ", ".join(("image", *FERPLUS_CLASSES, *_NOT_A_CLASS, "duplicate"))
        raise InputError(
            f"load_ferplus: {table} must have the columns {columns}, numbers of votes ({error!r})"
        ) from error
    most = votes.max(1)
    kept = np.flatnonzero(unique & (most > 0) & (others.max(1) <= most))
    return FaceSet(
        faces=torch.from_numpy(tiles[kept]),
        votes=torch.from_numpy(votes[kept] / votes[kept].sum(1, keepdims=True)),
        names=tuple(rows[i]["image"] for i in kept),
    )


def _read_tiles(sheet: Path) -> np.ndarray:
    """(tiles, 48, 48) uint8, row-major."""
    with Image.open(sheet) as picture:
        pixels = np.asarray(picture.convert("L"))
    height, width = pixels.shape
    if width != _COLUMNS * _TILE or height % _TILE:
        raise InputError(
            f"load_ferplus: {sheet} must be {_COLUMNS * _TILE} pixels wide and a multiple of "
            f"{_TILE} high, got {width}×{height}"
        )
    tiles = pixels.reshape(height // _TILE, _TILE, _COLUMNS, _TILE).swapaxes(1, 2)
    return tiles.reshape(-1, _TILE, _TILE)
