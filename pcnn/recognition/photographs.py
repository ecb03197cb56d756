"""Faces of photographs and frames: found, read, and looked at for how well they can be seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pcnn.faces.quality import face_qualities
from pcnn.recognition.batches import Picture
from pcnn.recognition.finder import FaceFinder
from pcnn.recognition.movements import MovementReader
from pcnn.recognition.reader import FaceReader
from pcnn.results.movements import FaceMotion
from pcnn.results.values import (
    UNCERTAIN,
    Detection,
    Explanation,
    Expression,
    Face,
    Prediction,
    face_of,
)


class PhotographReader:
    """All that a Recognizer does with the faces of photographs.

    moving: reads movements, pose and mesh; None leaves them out.
    min_quality: below it a face's label is "uncertain".
    Several threads may use it.
    """

    def __init__(
        self,
        finder: FaceFinder,
        reader: FaceReader,
        moving: MovementReader | None,
        *,
        min_quality: float = 0.0,
    ) -> None:
        self.finder, self.reader = finder, reader
        self._moving, self._min_quality = moving, min_quality

    def predictions(self, pictures: Sequence[Picture], min_score: float | None) -> list[Prediction]:
        """The faces of each picture, with their expressions. min_score: see FaceFinder.find."""
        found, places = self.finder.find(pictures, min_score)
        every = self._faces(pictures, found, self.reader.expressions(pictures, places))
        return [each.predicted(own) for each, own in zip(pictures, every, strict=True)]

    def located(
        self, pictures: Sequence[Picture], found: Sequence[Sequence[Detection]]
    ) -> list[list[Face]]:
        """The faces at known places of each picture, as in `predictions`."""
        expressions = self.reader.expressions(pictures, self.finder.places(found))
        return self._faces(pictures, found, expressions)

    def embeddings(
        self, pictures: Sequence[Picture], min_score: float | None, *, boxes: bool
    ) -> list[Any]:
        """The vectors (faces, D) of each picture. boxes: True gives pairs with boxes (faces, 4)."""
        found, places = self.finder.find(pictures, min_score)
        rows = self.reader.vectors(pictures, places)
        vectors = np.split(rows, np.cumsum([len(faces) for faces in found])[:-1])
        if not boxes:
            return vectors
        edges = [np.array([f.box for f in faces], np.float32).reshape(-1, 4) for faces in found]
        return list(zip(vectors, edges, strict=True))

    def explanations(
        self, pictures: Sequence[Picture], min_score: float | None
    ) -> list[list[Explanation]]:
        """The explanations of each picture's faces."""
        found, places = self.finder.find(pictures, min_score)
        explained = self.reader.explanations(pictures, places)
        every = self._faces(pictures, found, [each.expression for each in explained])
        reasons = iter(explained)
        return [
            [dataclasses.replace(next(reasons), expression=face) for face in faces]
            for faces in every
        ]

    def _faces(
        self,
        pictures: Sequence[Picture],
        found: Sequence[Sequence[Detection]],
        expressions: Sequence[Expression],
    ) -> list[list[Face]]:
        """The faces of each picture. expressions: of all of them, in order."""
        moved: list[FaceMotion | None] = [None] * len(expressions)
        if self._moving is not None:
            moved = [*self._moving.read(pictures, found)]
        poses = [None if motion is None else motion.pose for motion in moved]
        qualities = face_qualities([picture.pixels for picture in pictures], found, poses)
        made = zip(expressions, moved, qualities, strict=True)
        return [[self._judged(face_of(face, *next(made))) for face in faces] for faces in found]

    def _judged(self, face: Face) -> Face:
        """The face, "uncertain" if its quality is too low."""
        if face.quality is None or face.quality >= self._min_quality:
            return face
        return dataclasses.replace(face, label=UNCERTAIN)
