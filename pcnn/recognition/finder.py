"""Search for faces in pictures and frames, and their places for cutting them out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pcnn.faces.alignment import crop_transforms, detector_digest
from pcnn.faces.cutouts import Box, is_worth_cutting, search_near
from pcnn.faces.detector import Detector
from pcnn.faces.geometry import AlignedFaces, FacePlaces
from pcnn.faces.interface import OneAtATime, check_min_score
from pcnn.recognition.batches import Picture
from pcnn.results.values import Detection
from pcnn.weights.expression import ExpressionWeights

# The default of `min_face` for films: the frame's shorter side divided by this. Smaller faces have
# too few pixels for their expression in most films: 30 of 720, 45 of 1080.
FRAME_SHARE = 24


class FaceFinder:
    """A detector with the places that an expression network needs.

    detector: finds faces. loaded: gives the template and the sizes of views.
    align_crops: True aligns cut-out faces by their landmarks.
    min_face: see Detector.detect; an OneAtATime does not heed it.
    Several threads may use it.
    """

    def __init__(
        self,
        detector: Detector | OneAtATime,
        loaded: ExpressionWeights,
        *,
        align_crops: bool,
        min_face: float | None = None,
    ) -> None:
        self._detector, self._loaded = detector, loaded
        self.align_crops, self._min_face = align_crops, min_face

    @property
    def description(self) -> str:
        """A text about the detector."""
        return self._detector.description

    @property
    def fingerprint(self) -> str:
        """A hash of the detector's weights and settings; its description if it is your own."""
        if isinstance(self._detector, Detector):
            return detector_digest(self._detector).hexdigest()
        return self.description

    @property
    def confidence(self) -> float:
        """The detector's own least score, 0…1."""
        return self._detector.confidence

    def find(
        self, pictures: Sequence[Picture], min_score: float | None = None
    ) -> tuple[Sequence[Sequence[Detection]], list[FacePlaces]]:
        """The faces of each picture, and their places for a FaceReader.

        min_score: the least detection score, 0…1; None means the detector's own.
        Raises InputError: min_score is out of range.
        """
        check_min_score(min_score, "Recognizer")
        pixels = [picture.pixels for picture in pictures]
        found: Sequence[Sequence[Detection]] = self._detector.detect(
            pixels, min_score=min_score, min_face=self._min_face
        )
        return found, self.places(found)

    def find_in_frame(self, pixels: NDArray[np.uint8], min_score: float) -> Sequence[Detection]:
        """The faces of a film's frame (H, W, 3), without the smallest, see FRAME_SHARE."""
        least = self._least_in_frame(pixels)
        return self._detector.detect([pixels], min_score=min_score, min_face=least)[0]

    def find_near(
        self, pixels: NDArray[np.uint8], boxes: Sequence[Box], min_score: float
    ) -> Sequence[Detection] | None:
        """The faces of a film's frame near boxes, see cutouts.search_near.

        None if the whole frame is better searched: there are many boxes, the frame is small, or
        the detector is an own one.
        """
        detector = self._detector
        if not isinstance(detector, Detector):
            return None
        if not is_worth_cutting(detector, pixels.shape, len(boxes), self._least_in_frame(pixels)):
            return None
        return search_near(detector, pixels, boxes, min_score=min_score)

    def _least_in_frame(self, pixels: NDArray[np.uint8]) -> float:
        return self._min_face or max(1.0, min(pixels.shape[:2]) / FRAME_SHARE)

    def places(self, found: Sequence[Sequence[Detection]]) -> list[FacePlaces]:
        """The places of each picture's faces, for a FaceReader."""
        template = self._loaded.template
        return [AlignedFaces.of([face.landmarks for face in faces], template) for faces in found]

    def whole(self, pictures: Sequence[Picture]) -> Sequence[FacePlaces]:
        """The places of cut-out faces, for a FaceReader."""
        template, config = self._loaded.template, self._loaded.network.config
        detector = self._detector if self.align_crops else None
        return crop_transforms([p.pixels for p in pictures], template, config, detector)
