"""The interface of detectors, also of your own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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
    """A custom detector with a lock, because it may not support several threads."""

    def __init__(self, detector: FaceDetector) -> None:
        self.description = str(getattr(detector, "description", detector))
        self._detector, self._turn = detector, threading.Lock()

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_score: float | None = None
    ) -> Sequence[Sequence[Detection]]:
        """The faces of each image, as from FaceDetector."""
        with self._turn:
            return self._detector.detect(images, min_score=min_score)
