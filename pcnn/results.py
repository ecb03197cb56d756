"""What a recognition returns: plain frozen values, nothing that computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Detection:
    """One face as the detector found it.

    box: x1, y1, x2, y2 in pixels of the upright image; may reach over its edges.
    score: 0…1.
    landmarks: (5, 2) float32, x y in pixels: left eye, right eye, nose, left and right
        mouth corner, left and right as seen in the image.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Expression:
    """The expression of one face.

    label: the likeliest class; confidence: its probability, 0…1.
    scores: name → probability in class order; they sum to 1.
    regions: region name → scores of that region on its own, same form as `scores`.
    """

    label: str
    confidence: float
    scores: Mapping[str, float]
    regions: Mapping[str, Mapping[str, float]] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Face(Expression):
    """An Expression with the place where it was found (see Detection)."""

    box: tuple[float, float, float, float]
    detection_score: float
    landmarks: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Prediction:
    """All faces of one image, by falling detection score; empty where there is none.

    source: the path as given, or None for an image passed as an object.
    width, height: of the upright image, in pixels.
    """

    faces: tuple[Face, ...]
    source: str | None
    width: int
    height: int
