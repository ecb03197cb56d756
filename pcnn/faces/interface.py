"""The interface of detectors, also of your own, and the form of their images."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pcnn.errors import InputError, is_number
from pcnn.results.values import Detection


class FaceDetector(Protocol):
    """The interface of a detector for `Recognizer(detector=…)`."""

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_score: float | None = None
    ) -> Sequence[Sequence[Detection]]:
        """The faces of each image (H, W, 3) uint8 RGB, best first, with their landmarks.

        The landmarks align the faces, so a face in a photograph cannot be read without them.
        """


class OneAtATime:
    """A custom detector with a lock, because it may not support several threads.

    confidence: its own least score, which is unknown, so 0.
    """

    confidence = 0.0

    def __init__(self, detector: FaceDetector) -> None:
        self.description = str(getattr(detector, "description", detector))
        self._detector, self._turn = detector, threading.Lock()

    def detect(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        min_score: float | None = None,
        min_face: float | None = None,
    ) -> Sequence[Sequence[Detection]]:
        """The faces of each image, as from FaceDetector.

        min_face: as in `Detector.detect`. A custom detector cannot be told of it.
        """
        del min_face
        with self._turn:
            found = self._detector.detect(images, min_score=min_score)
        if len(found) != len(images):
            raise InputError(
                f"Recognizer: the detector must give the faces of {len(images)} images, "
                f"got {len(found)}"
            )
        return [[_checked(face) for face in faces] for faces in found]


def _checked(face: Detection) -> Detection:
    """The face with its landmarks in float32.

    Raises InputError: an attribute is missing or has a wrong form or range.
    """
    try:
        box = np.asarray(face.box, np.float64)
        landmarks = np.asarray(face.landmarks, np.float32)
        score = face.score
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"Recognizer: the detector must give Detections: {error}") from error
    for name, values, shape in (("box", box, (4,)), ("landmarks", landmarks, (5, 2))):
        if values.shape != shape or not np.isfinite(values).all():
            raise InputError(
                f"Recognizer: the detector's {name} must be {shape} and finite, got {values!r}"
            )
    if box[0] > box[2] or box[1] > box[3]:
        raise InputError(
            f"Recognizer: the detector's box must be x1, y1, x2, y2 in order, got {face.box!r}"
        )
    if not is_number(score) or not 0 <= score <= 1:
        raise InputError(f"Recognizer: the detector's score must be 0…1, got {score!r}")
    return Detection(tuple(box.tolist()), float(score), landmarks)


def check_min_score(min_score: float | None, where: str) -> None:
    """Raise InputError unless the least score of detections is None or in its range.

    where: the function, in the message.
    """
    if min_score is not None and (not is_number(min_score) or not 0 <= min_score <= 1):
        raise InputError(f"{where}: min_score must be 0…1, got {min_score!r}")


def check_image(index: int, image: NDArray[np.uint8]) -> None:
    """Raise InputError unless one of the images of `Detector.detect` has its form."""
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or image.size == 0
    ):
        got = (
            f"{image.shape} {image.dtype}"
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise InputError(
            f"Detector.detect: images[{index}] must be (H, W, 3) uint8 RGB with at least one "
            f"pixel, got {got}"
        )
