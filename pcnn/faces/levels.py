"""The sizes at which an image is searched for faces."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pcnn.errors import InputError, is_number
from pcnn.networks.retinaface import STRIDE
from pcnn.weights.detector import DetectorSettings

# Images are halved until a face that fills one, about 0.8 of its side wide, is within the range.
_ENOUGH = 1.25
# The largest enlargement of small images; more shows no further detail.
_MOST_ENLARGED = 4
# Faces whose shorter side has so many of the smallest anchors in the network's input are found
# nearly as often as larger ones: 16 pixels for the packaged detector (benchmarks/small_faces.py).
_LEAST_SEEN = 1.6
# `min_face` does not reduce images below this side, in pixels.
_LEAST_REDUCED = 160


def level_sides(
    shape: Sequence[int], settings: DetectorSettings, min_face: float | None = None
) -> list[int]:
    """The longest sides of an image's levels, in pixels: whole, halved, quartered, …

    shape: of the image, (H, W, …). min_face: see Detector.detect.
    """
    longest = max(shape[:2])
    enlarged = max(longest, min(settings.least_side, _MOST_ENLARGED * longest))
    first = min(settings.max_side, enlarged)
    if min_face is not None:
        seen = _LEAST_SEEN * min(settings.min_sizes[0])
        first = min(first, max(_LEAST_REDUCED, math.ceil(longest * seen / min_face)))
    sides = [first]
    while settings.trusted_side and sides[-1] > _ENOUGH * settings.trusted_side:
        sides.append(sides[-1] // 2)
    return sides


def network_size(shape: Sequence[int], side: int) -> tuple[int, int]:
    """Height and width at which the network sees an image of this shape, the longer one `side`."""
    height, width = shape[:2]
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def padded_size(size: Sequence[int]) -> tuple[int, int]:
    """The height and width (H, W, …) of the network's input for an image of this size."""
    return -(-size[0] // STRIDE) * STRIDE, -(-size[1] // STRIDE) * STRIDE


def check_min_face(min_face: float | None, where: str) -> None:
    """Raise InputError unless the least side of faces is None or in its range.

    where: the function, in the message.
    """
    if min_face is not None and (not is_number(min_face) or not 1 <= min_face < math.inf):
        raise InputError(f"{where}: min_face must be pixels of at least 1, got {min_face!r}")
