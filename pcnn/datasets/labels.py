"""Common names of expressions, and sets of labelled faces."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.errors import InputError, check_types
from pcnn.networks.pcnn import FERPLUS_CLASSES
from pcnn.representation import Brief

# Orders of the class numbers of data sets: FER2013 (Goodfellow et al. 2013) and AffectNet
# (Mollahosseini et al. 2017) count from 0, RAF-DB (Li et al. 2017) from 1.
FER2013_CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
RAFDB_CLASSES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
AFFECTNET_CLASSES = (
    "neutral",
    "happiness",
    "sadness",
    "surprise",
    "fear",
    "disgust",
    "anger",
    "contempt",
)

# Spellings of each class in data sets, including mistakes. Two-letter codes are JAFFE's and KDEF's.
_SPELLINGS = {
    "neutral": ("neutrality", "natural", "normal", "ne"),
    "happiness": ("happy", "joy", "joyful", "ha"),
    "surprise": ("surprised", "suprise", "suprised", "surprize", "su"),
    "sadness": ("sad", "sorrow", "unhappy", "sa"),
    "anger": ("angry", "an"),
    "disgust": ("disgusted", "disgusting", "di"),
    "fear": ("fearful", "afraid", "scared", "fe", "af"),
    "contempt": ("contemptuous", "co"),
}
_CANONICAL = {spelling: name for name in FERPLUS_CLASSES for spelling in (name, *_SPELLINGS[name])}
_NUMBER_BEFORE = re.compile(r"\d+[\s_.-]*")

Picture: TypeAlias = Path | NDArray[np.uint8]


@dataclass(frozen=True, repr=False)
class FaceSet(Brief):
    """Faces with their votes, in memory.

    faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8. votes: (N, classes) float32, each row
    sums to 1; a single label is one-hot. names: N file stems or paths. classes: the names of the
    columns of `votes`.
    Raises InputError: shapes do not fit together.

    >>> pixels = torch.zeros(2, 48, 48, dtype=torch.uint8)
    >>> faces = FaceSet(pixels, votes=torch.eye(8)[:2], names=("a", "b"))
    >>> len(faces), faces.classes[:2]
    (2, ('neutral', 'happiness'))
    """

    faces: Tensor
    votes: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...] = FERPLUS_CLASSES

    def __post_init__(self) -> None:
        check_types(self, Tensor, "faces", "votes")
        shape, count = tuple(self.faces.shape), len(self.names)
        if shape[:1] != (count,) or not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)):
            raise InputError(
                f"FaceSet: faces must be ({count}, H, W) or ({count}, H, W, 3), got {shape}"
            )
        if self.faces.dtype != torch.uint8:
            raise InputError(f"FaceSet: faces must be uint8, got {self.faces.dtype}")
        _check_votes("FaceSet", self.votes, count, self.classes)

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Sequence[int]) -> FaceSet:
        """The faces at `indices`, in this order."""
        chosen = torch.tensor(list(indices), dtype=torch.long)
        names = tuple(self.names[index] for index in indices)
        return FaceSet(self.faces[chosen], self.votes[chosen], names, self.classes)


@dataclass(frozen=True, repr=False)
class FacePictures(Brief):
    """Faces with their votes, whose pictures have any sizes and are read when they are needed.

    pictures: N files, or arrays (H, W) or (H, W, 3) uint8, each of one face.
    votes, names, classes: as in FaceSet. Raises InputError: shapes do not fit together.
    """

    pictures: tuple[Picture, ...]
    votes: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_types(self, Tensor, "votes")
        if len(self.pictures) != len(self.names):
            raise InputError(
                f"FacePictures: pictures must be {len(self.names)}, one for each name, "
                f"got {len(self.pictures)}"
            )
        _check_votes("FacePictures", self.votes, len(self.names), self.classes)

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Sequence[int]) -> FacePictures:
        """The faces at `indices`, in this order."""
        return FacePictures(
            tuple(self.pictures[index] for index in indices),
            self.votes[torch.tensor(list(indices), dtype=torch.long)],
            tuple(self.names[index] for index in indices),
            self.classes,
        )


def _check_votes(name: str, votes: Tensor, count: int, classes: Sequence[str]) -> None:
    if votes.shape != (count, len(classes)):
        raise InputError(
            f"{name}: votes must be ({count}, {len(classes)}), a column for each of "
            f"{', '.join(classes)}, got {tuple(votes.shape)}"
        )


def composed(name: str) -> str:
    """A name in Unicode's form NFC, so that names that look alike are equal.

    macOS, for one, names files with accents as characters of their own.
    """
    return unicodedata.normalize("NFC", name)


def canonical(name: str) -> str | None:
    """The class of FERPLUS_CLASSES for a data set's name of an expression.

    Case and a number before the name ("0_neutral", "3 sad") are ignored.
    Returns None for an unknown name.
    """
    return _CANONICAL.get(_NUMBER_BEFORE.sub("", name.strip().lower(), count=1))


def one_hot(labels: Sequence[str], classes: Sequence[str]) -> Tensor:
    """One-hot votes (N, classes) float32; every label must be in `classes`."""
    places = {name: index for index, name in enumerate(classes)}
    chosen = torch.tensor([places[label] for label in labels], dtype=torch.long)
    return torch.eye(len(classes))[chosen]


def relabel(faces: FaceSet, classes: Sequence[str]) -> FaceSet:
    """The faces with their votes for other classes.

    classes: names of the result's columns. A column of `faces` becomes the column of the same
        name, else the one of the same meaning ("happy", "happiness").
    Faces without a vote for `classes` are left out. The remaining votes are normalised. A class
    that `faces` does not have gets no votes.
    Raises InputError: two classes have the same meaning, or `faces` has none of them.
    """
    classes = tuple(classes)
    if classes == faces.classes:
        return faces
    kept, votes = moved_votes(faces.votes, faces.classes, classes)
    return dataclasses.replace(faces.subset(kept), votes=votes, classes=classes)


def moved_votes(
    votes: Tensor, own: Sequence[str], classes: Sequence[str]
) -> tuple[list[int], Tensor]:
    """The faces that have votes for other classes, and these votes, as in relabel.

    votes: (N, own classes) float32. own, classes: the names of its columns and of the result's.
    Returns the numbers of the K faces, and (K, classes) float32. Raises InputError: as relabel.
    """
    exact = {name: index for index, name in enumerate(classes)}
    alike = {canonical(name) or name: index for index, name in enumerate(classes)}
    if len(alike) < len(classes):
        raise InputError(f"relabel: classes must differ in meaning, got {', '.join(classes)}")
    moves = torch.zeros(len(own), len(classes))
    for row, name in enumerate(own):
        column = exact.get(name, alike.get(canonical(name) or name))
        if column is not None:
            moves[row, column] = 1
    if not moves.any():
        raise InputError(
            f"relabel: classes must share a name with {', '.join(own)}, got {', '.join(classes)}"
        )
    moved = votes @ moves
    kept = torch.nonzero(moved.sum(1) > 0).flatten()
    return kept.tolist(), moved[kept] / moved[kept].sum(1, keepdim=True)
