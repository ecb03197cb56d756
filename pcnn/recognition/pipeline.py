"""Faces found in batches of pictures, and all that is read in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcnn.recognition.batches import Picture
from pcnn.recognition.finder import FaceFinder
from pcnn.recognition.movements import MovementReader, motions
from pcnn.recognition.reader import FaceReader, Transforms
from pcnn.results.values import Detection, Explanation, Face, Prediction, face_of


@dataclass(frozen=True)
class Pipeline:
    """The parts of a Recognizer, one after another.

    moving: None if movements are not read. min_score: as in `Recognizer.predict`.
    Several threads may use it.
    """

    finder: FaceFinder
    reader: FaceReader
    moving: MovementReader | None

    def predictions(self, pictures: Sequence[Picture], min_score: float | None) -> list[Prediction]:
        """The faces of each picture with their expressions."""
        every = self._read(pictures, *self.finder.find(pictures, min_score))
        return [each.predicted(own) for each, own in zip(pictures, every, strict=True)]

    def located(
        self, pictures: Sequence[Picture], found: Sequence[Sequence[Detection]]
    ) -> list[list[Face]]:
        """The faces at known places of each picture, as in `predictions`."""
        return self._read(pictures, found, self.finder.transforms(found))

    def embeddings(
        self, pictures: Sequence[Picture], min_score: float | None, *, boxes: bool
    ) -> list[Any]:
        """The vectors (faces, D) of each picture. boxes: True gives pairs with boxes (faces, 4)."""
        found, transforms = self.finder.find(pictures, min_score)
        rows = self.reader.vectors(pictures, transforms)
        vectors = np.split(rows, np.cumsum([len(faces) for faces in found])[:-1])
        if not boxes:
            return vectors
        places = [np.array([f.box for f in faces], np.float32).reshape(-1, 4) for faces in found]
        return list(zip(vectors, places, strict=True))

    def explanations(
        self, pictures: Sequence[Picture], min_score: float | None
    ) -> list[list[Explanation]]:
        """The explanations of each picture's faces."""
        found, transforms = self.finder.find(pictures, min_score)
        explained = iter(self.reader.explanations(pictures, transforms))
        return [[next(explained).placed(face) for face in faces] for faces in found]

    def _read(
        self,
        pictures: Sequence[Picture],
        found: Sequence[Sequence[Detection]],
        transforms: Sequence[Transforms],
    ) -> list[list[Face]]:
        expressions = iter(self.reader.expressions(pictures, transforms))
        moved = motions(self.moving, pictures, found)
        return [[face_of(face, next(expressions), next(moved)) for face in f] for f in found]
