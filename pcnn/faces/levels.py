"""The sizes at which an image is searched for faces."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pcnn.errors import InputError, is_number
from pcnn.faces.geometry import covered_share
from pcnn.faces.resampling import pixels_tensor, resized
from pcnn.networks.retinaface import STRIDE
from pcnn.results.values import Detection
from pcnn.weights.detector import DetectorSettings

# Images are halved until a face that fills one, about 0.8 of its side wide, is within the range.
_ENOUGH = 1.25
# The largest enlargement of small images; more shows no further detail.
_MOST_ENLARGED = 4
# Faces whose shorter side has so many of the smallest anchors in the network's input are found
# nearly as often as larger ones: 16 pixels for the packaged detector (benchmarks/small_faces.py).
_LEAST_SEEN = 1.6
# A level reports faces of these shares of the trusted side. The ranges overlap, because two levels
# may measure the same face a little differently.
TRUSTED_RANGE = (0.44, 1.12)
# `min_face` does not reduce images below this side, in pixels.
_LEAST_REDUCED = 160


def level_sides(
    shape: Sequence[int], settings: DetectorSettings, min_face: float | None = None
) -> list[int]:
    """The longest sides of an image's levels, in pixels: whole, halved, quartered, …

    shape: of the image, (H, W, …). min_face: see Detector.detect.
    The first level has the scale at which the smallest wanted faces are seen. Without min_face, its
    longer side has at most `max_side` pixels; that of a long image has more, so that its shorter
    side keeps half as many.
    """
    longest, shortest = max(shape[:2]), min(shape[:2])
    enlarged = max(longest, min(settings.least_side, _MOST_ENLARGED * longest))
    most, wanted = settings.max_side, enlarged
    if min_face is not None:
        wanted = max(_LEAST_REDUCED, math.ceil(longest * _least_seen(settings) / min_face))
    if settings.trusted_side:  # else a face of any size is found in one level, which stays small
        most = max(most, most * longest // (2 * shortest)) if min_face is None else wanted
    sides = [min(enlarged, wanted, most)]
    while settings.trusted_side and sides[-1] > _ENOUGH * settings.trusted_side:
        sides.append(sides[-1] // 2)
    return sides


def reduced(image: NDArray[np.uint8], settings: DetectorSettings) -> NDArray[np.uint8]:
    """An image (H, W, 3) as its first level shows it, if that is smaller; else the image itself."""
    side = level_sides(image.shape, settings)[0]
    if side >= max(image.shape[:2]):
        return image
    small: NDArray[np.uint8] = resized(
        pixels_tensor(image), network_size(image.shape, side)
    ).numpy()
    return small


def finer_side(
    shape: Sequence[int], side: int, found: Sequence[Detection], settings: DetectorSettings
) -> int | None:
    """The longest side of a finer level, if the finest one so far shows that there should be one.

    shape: of the image, (H, W, …). side: of that level. found: its faces, of which those with the
        settings' usual score count.
    Returns twice the side, at most the image's own, if faces are too small to be found surely, or
    if there is none and the image is more than twice as large, but not long; else None.
    """
    longest = max(shape[:2])
    found = [face for face in found if face.score >= settings.confidence]
    least = _least_seen(settings) * longest / side
    if not settings.trusted_side or side >= longest:
        return None
    if not found:
        return 2 * side if side <= settings.max_side and longest > 2 * side else None
    return min(2 * side, longest) if min(map(shorter_side, found)) < least else None


def merged(
    shape: Sequence[int],
    sides: Sequence[int],
    found: Sequence[tuple[Detection, ...]],
    settings: DetectorSettings,
) -> tuple[Detection, ...]:
    """The faces of an image from those of its levels, best first.

    sides, found: of each level, the finest first. Each level reports faces of its trusted sizes.
    Those of coarser levels come first.
    """
    trusted = settings.trusted_side
    if trusted is None or len(found) == 1:
        return found[0]
    kept: list[Detection] = []
    for depth in reversed(range(len(found))):
        scale = sides[depth] / max(shape[:2])
        least = 0.0 if depth == 0 else TRUSTED_RANGE[0] * trusted / scale
        most = math.inf if depth == len(found) - 1 else TRUSTED_RANGE[1] * trusted / scale
        fitting = [face for face in found[depth] if least <= shorter_side(face) < most]
        kept += [
            face
            for face in fitting
            if not any(covered_share(face.box, other.box) > 0.5 for other in kept)
        ]
    return tuple(sorted(kept, key=lambda face: -face.score))


def shorter_side(face: Detection) -> float:
    """The shorter side of a face's box, in pixels."""
    left, top, right, bottom = face.box
    return min(right - left, bottom - top)


def _least_seen(settings: DetectorSettings) -> float:
    """The shorter side in the network's input of the smallest faces that are found surely."""
    return _LEAST_SEEN * min(settings.min_sizes[0])


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
