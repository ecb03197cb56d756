"""Common names of expressions, and sets of labelled faces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
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
        if self.votes.shape != (count, len(self.classes)):
            raise InputError(
                f"FaceSet: votes must be ({count}, {len(self.classes)}), a column for each of "
                f"{', '.join(self.classes)}, got {tuple(self.votes.shape)}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Sequence[int]) -> FaceSet:
        """The faces at `indices`, in this order."""
        chosen = torch.tensor(list(indices), dtype=torch.long)
        names = tuple(self.names[index] for index in indices)
        return FaceSet(self.faces[chosen], self.votes[chosen], names, self.classes)


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
    exact = {name: index for index, name in enumerate(classes)}
    alike = {canonical(name) or name: index for index, name in enumerate(classes)}
    if len(alike) < len(classes):
        raise InputError(f"relabel: classes must differ in meaning, got {', '.join(classes)}")
    moves = torch.zeros(len(faces.classes), len(classes))
    for row, name in enumerate(faces.classes):
        column = exact.get(name, alike.get(canonical(name) or name))
        if column is not None:
            moves[row, column] = 1
    if not moves.any():
        raise InputError(
            f"relabel: classes must share a name with {', '.join(faces.classes)}, "
            f"got {', '.join(classes)}"
        )
    votes = faces.votes @ moves
    kept = torch.nonzero(votes.sum(1) > 0).flatten()
    names = tuple(faces.names[index] for index in kept.tolist())
    shares = votes[kept] / votes[kept].sum(1, keepdim=True)
    return FaceSet(faces.faces[kept], shares, names, classes)
