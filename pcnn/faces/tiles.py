"""Overlapping tiles of large images, which bound the memory of a search."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pcnn.networks.boxes import nms

# The longest side of a tile, the largest overlap of two, and the most pixels of an image that is
# searched as a whole.
_SIDE = 960
_MOST_OVERLAP = _SIDE // 2
_MOST_PIXELS = _SIDE**2
# A face this near to an inner edge of its tile, in pixels, may be cut off there.
_EDGE = 4.0


class Tile(NamedTuple):
    """A part of an image: the range of its rows and that of its columns, in pixels."""

    top: int
    bottom: int
    left: int
    right: int


def tiles_of(shape: Sequence[int], overlap: int | None) -> list[Tile]:
    """The tiles of an image, row by row; a single one for an image that is not large.

    shape: of the image, (H, W, …).
    overlap: the least common part of neighbours, in pixels. Faces up to this size are whole in at
        least one tile. None, or more than half a tile, if faces may be larger: the image stays
        whole.
    """
    height, width = shape[:2]
    if overlap is None or overlap > _MOST_OVERLAP or height * width <= _MOST_PIXELS:
        return [Tile(0, height, 0, width)]
    rows, columns = (_starts(side, overlap) for side in (height, width))
    return [
        Tile(top, min(top + _SIDE, height), left, min(left + _SIDE, width))
        for top, left in product(rows, columns)
    ]


def joined(
    rows: Sequence[NDArray[np.float32]], tiles: Sequence[Tile], iou: float
) -> NDArray[np.float32]:
    """The faces of an image from those of its tiles.

    rows: for each tile, (1 + n, 15) of `ops.decode_faces`. iou: see networks.boxes.nms.
    A face at an inner edge of its tile is left out: its neighbour shows it whole. Of a face in
    several tiles the surest detection stays.
    Returns rows of the same form, with coordinates in the image.
    """
    if len(tiles) == 1:
        return rows[0]
    shape = max(tile.bottom for tile in tiles), max(tile.right for tile in tiles)
    parts = []
    for own, tile in zip(rows, tiles, strict=True):
        faces = own[1 : 1 + int(own[0, 0])].copy()
        faces[:, 1::2] += tile.left
        faces[:, 2::2] += tile.top
        parts.append(faces[~at_inner_edge(faces[:, 1:5], tile, shape, _EDGE)])
    every = torch.from_numpy(np.concatenate(parts))
    kept = every[nms(every[:, 1:5], every[:, 0], iou=iou)].numpy()
    first = np.zeros((1, kept.shape[1]), np.float32)
    first[0, :2] = len(kept), max(own[0, 1] for own in rows)
    return np.concatenate((first, kept))


def at_inner_edge(
    boxes: NDArray[np.floating[Any]], tile: Tile, shape: Sequence[int], margin: float
) -> NDArray[np.bool_]:
    """Whether faces may be cut off by their tile: they come near an edge that is not the image's.

    boxes: (N, 4), in the image. shape: of the image, (H, W, …). margin: pixels that are near.
    Returns (N,).
    """
    x1, y1, x2, y2 = boxes.T
    near = np.zeros(len(boxes), bool)
    if tile.left > 0:
        near |= x1 < tile.left + margin
    if tile.top > 0:
        near |= y1 < tile.top + margin
    if tile.right < shape[1]:
        near |= x2 > tile.right - margin
    if tile.bottom < shape[0]:
        near |= y2 > tile.bottom - margin
    return near


def _starts(side: int, overlap: int) -> list[int]:
    """Where tiles begin along a side, at equal distances."""
    if side <= _SIDE:
        return [0]
    count = -(-(side - overlap) // (_SIDE - overlap))
    return [round(number * (side - _SIDE) / (count - 1)) for number in range(count)]
