"""Faces of photographs: found, read, and looked at for how well they can be seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import islice

from pcnn.faces.quality import face_qualities
from pcnn.recognition.batches import Picture
from pcnn.recognition.finder import FaceFinder
from pcnn.recognition.movements import MovementReader, motions
from pcnn.recognition.reader import FaceReader
from pcnn.results.values import UNCERTAIN, Face, face_of


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
        self._finder, self._reader = finder, reader
        self._moving, self._min_quality = moving, min_quality

    def faces(
        self, pictures: Sequence[Picture], min_score: float | None = None
    ) -> list[list[Face]]:
        """The faces of each picture, with their expressions. min_score: see FaceFinder.find."""
        found, transforms = self._finder.find(pictures, min_score)
        expressions = self._reader.expressions(pictures, transforms)
        moved = list(islice(motions(self._moving, pictures, found), len(expressions)))
        poses = [None if motion is None else motion.pose for motion in moved]
        qualities = face_qualities([picture.pixels for picture in pictures], found, poses)
        made = zip(expressions, moved, qualities, strict=True)
        return [[self._judged(face_of(face, *next(made))) for face in faces] for faces in found]

    def _judged(self, face: Face) -> Face:
        """The face, "uncertain" if its quality is too low."""
        if face.quality is None or face.quality >= self._min_quality:
            return face
        return dataclasses.replace(face, label=UNCERTAIN)
