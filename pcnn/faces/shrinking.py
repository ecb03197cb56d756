"""Reduction of pictures before large faces are cut out, to limit the cost.

A view's pixel averages all pixels that it covers, so the cost of cutting grows with the square of
a face's size. Reducing the face's surroundings first, in one quick pass, limits this cost.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pcnn.faces.resampling import resized

# If a view's pixel averages more pixels along a side than the first number, the picture is reduced
# until it averages the second number.
_MOST_EXTENT, _EXTENT = 4.0, 2.5


class Source(NamedTuple):
    """The source of a face's views, in the form of `ops.crop_regions`.

    pixels: (H, W, 3) uint8. transforms: (V, 2, 3) float32, view pixel → pixel.
    footprint: the side of the square that a view's pixel averages, in view pixels.
    """

    pixels: Tensor
    transforms: NDArray[np.float32]
    footprint: float


def shrink_face(source: Source, size: int) -> Source:
    """The reduced surroundings of a large face; `source` itself if the face is not large.

    source: the first of its transforms is that of the face's view, size × size pixels, which
        contains the others.
    The area that a view's pixel averages keeps its place and its spread. Samples over a side e
    have the variance e²/12, and bilinear reading adds a sixth of the square of a pixel's side.
    Reduction by r adds r²/6, and reading the reduced picture adds r²/6 again. So e must decrease.
    """
    pixels, transforms, footprint = source
    linear, shift = transforms[0, :, :2].astype(np.float64), transforms[0, :, 2]
    extent = float(np.linalg.norm(linear, axis=0).min()) * footprint
    if not (_MOST_EXTENT < extent < math.inf and np.isfinite(shift).all()):
        return source
    ratio = extent / _EXTENT
    spread = extent**2 / 12 + 1 / 6 - ratio**2 / 3
    ends = -footprint / 2, size - 1 + footprint / 2
    corners = np.array([(x, y) for x in ends for y in ends]) @ linear.T + shift  # (4, 2)
    limits = np.array(pixels.shape[1::-1])
    margin = 2 * ratio  # samples at the edge read this far
    first = np.clip(np.floor(corners.min(0) - margin), 0, limits - 1).astype(int)
    last = np.clip(np.ceil(corners.max(0) + margin), first + 1, limits).astype(int)
    (left, top), (right, bottom) = first, last
    width, height = (max(1, round(int(side) / ratio)) for side in last - first)
    shrunk = resized(pixels[top:bottom, left:right], (height, width))
    ratios = (last - first) / (width, height)
    # Pixel centres count from 0, so the corner of the first pixel is at -1/2.
    moved = transforms.astype(np.float64)
    moved[:, :, 2] += 0.5 - first
    moved /= ratios[:, None]
    moved[:, :, 2] -= 0.5
    return Source(shrunk, moved.astype(np.float32), footprint * math.sqrt(12 * spread) / extent)
