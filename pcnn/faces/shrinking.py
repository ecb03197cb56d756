"""Pictures made smaller before faces are cut out of them, so that large faces cost no more.

Cutting averages as many pixels as a view's pixel covers, so its cost grows with the square of a
face's size. Resampling a face's surroundings first, in one quick pass, bounds it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pcnn.faces.resampling import resized

# Averages over more pixels than this along a side are shrunk, to averages over so many.
_MOST_EXTENT, _EXTENT = 4.0, 2.5


class Source(NamedTuple):
    """What a face is cut out of, as `ops.crop_regions` takes it.

    pixels: (H, W, 3) uint8. transforms: (V, 2, 3) float32, view pixel → pixel.
    footprint: the side of the square that a view's pixel averages, in view pixels.
    """

    pixels: Tensor
    transforms: NDArray[np.float32]
    footprint: float


def shrink_face(source: Source, size: int) -> Source:
    """The surroundings of a large face, made smaller; `source` itself where the face is not large.

    source: its transforms' first is that of the face's view, size × size pixels, in which the
        others lie.
    What a view's pixel averages keeps its place and its spread. Samples over a side e have the
    variance e²/12, and reading pixels bilinearly adds a sixth of the square of a pixel's side;
    shrinking r times adds r²/6, and reading what is shrunk r²/6 again, so e must be less.
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
    margin = 2 * ratio  # reached by what is read at the edge
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
