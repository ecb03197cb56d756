"""Search for faces in pictures, and the transforms for cutting them out."""

from __future__ import annotations

from collections.abc import Sequence

from pcnn.faces.alignment import crop_transforms, detector_digest
from pcnn.faces.detector import Detector
from pcnn.faces.geometry import face_transforms
from pcnn.faces.interface import OneAtATime
from pcnn.recognition.batches import Picture
from pcnn.recognition.reader import Transforms
from pcnn.results.values import Detection
from pcnn.weights.expression import ExpressionWeights


class FaceFinder:
    """A detector with the transforms for the views of an expression network.

    detector: finds faces. loaded: gives the template and the sizes of views.
    align_crops: True aligns cut-out faces by their landmarks.
    Several threads may use it.
    """

    def __init__(
        self, detector: Detector | OneAtATime, loaded: ExpressionWeights, *, align_crops: bool
    ) -> None:
        self._detector, self._loaded = detector, loaded
        self.align_crops = align_crops

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
        return self._detector.settings.confidence if isinstance(self._detector, Detector) else 0.0

    def find(
        self, pictures: Sequence[Picture], min_score: float | None = None
    ) -> tuple[Sequence[Sequence[Detection]], list[Transforms]]:
        """The faces of each picture, and the transforms of their views for a FaceReader.

        min_score: the least detection score, 0…1; None means the detector's own.
        """
        found = self._detector.detect([p.pixels for p in pictures], min_score=min_score)
        config, template = self._loaded.network.config, self._loaded.template
        return found, [
            face_transforms(
                [face.landmarks for face in faces], template, config.size, config.layout
            )
            for faces in found
        ]

    def whole(self, pictures: Sequence[Picture]) -> list[Transforms]:
        """The transforms of the views of cut-out faces."""
        template, config = self._loaded.template, self._loaded.network.config
        detector = self._detector if self.align_crops else None
        return crop_transforms([p.pixels for p in pictures], template, config, detector)
