"""Affine transforms for cutting out faces and regions, from landmarks.

There are two kinds of coordinates. In *continuous* ones an image spans 0…width and 0…height; boxes,
landmarks and templates use them. *Pixel* ones count pixel centres from 0; transforms use them.
The continuous coordinate of pixel centre p is p + ½.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pcnn.errors import InputError
from pcnn.networks.regions import RegionLayout
from pcnn.results.angle import UPRIGHT

_MIDDLE = sum(complex(x, y) for x, y in UPRIGHT) / len(UPRIGHT)
_UPRIGHT = tuple(complex(x, y) - _MIDDLE for x, y in UPRIGHT)
_UPRIGHT_SPREAD = sum(abs(point) ** 2 for point in _UPRIGHT)


def similarity(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """The best similarity (rotation, scale and shift, without reflection) from source to target.

    source, target: (N, 2) points, N ≥ 2. Returns (2, 3), the least-squares solution (Umeyama
    1991). Coincident source points give scale 0 and only the shift.
    Raises InputError: wrong or different shapes.
    """
    from_points = np.asarray(source, np.float64)
    to_points = np.asarray(target, np.float64)
    if from_points.ndim != 2 or from_points.shape[1] != 2 or len(from_points) < 2:
        raise InputError(f"similarity: source must be (N, 2), N ≥ 2, got {from_points.shape}")
    if to_points.shape != from_points.shape:
        raise InputError(f"similarity: target must be {from_points.shape}, got {to_points.shape}")
    # In the complex plane a similarity is w ↦ a·w + b. The best a is a ratio of two sums.
    w = from_points @ (1, 1j)
    z = to_points @ (1, 1j)
    centred = w - w.mean()
    spread = float((abs(centred) ** 2).sum())
    a = (centred.conj() * (z - z.mean())).sum() / spread if spread > 0 else 0j
    b = z.mean() - a * w.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def misfit(landmarks: ArrayLike) -> float:
    """The deviation of landmarks from those of a frontal face.

    landmarks: (5, 2), in the order of `Detection.landmarks`, with any rotation.
    Returns the mean distance after the best similarity, in distances between the eyes of the
    transformed face; infinite if all landmarks coincide or one is not finite.
    """
    # For five points plain Python is quicker than arrays.
    points = [complex(x, y) for x, y in np.asarray(landmarks).tolist()]
    middle = sum(points) / len(points)
    points = [point - middle for point in points]
    pairs = list(zip(_UPRIGHT, points, strict=True))
    turned = sum(w.conjugate() * z for w, z in pairs) / _UPRIGHT_SPREAD  # as in similarity
    eyes = abs(turned)  # in UPRIGHT they are 1 apart
    if not 0 < eyes < math.inf:
        return math.inf
    return sum(abs(w * turned - z) for w, z in pairs) / len(pairs) / eyes


def face_transforms(
    landmarks: Sequence[NDArray[np.float32]],
    template: ArrayLike,
    size: int,
    layout: RegionLayout,
) -> NDArray[np.float32]:
    """For each face the transforms from its six views' pixels to the image's pixels.

    landmarks: F arrays (5, 2), continuous image coordinates.
    template: (5, 2), their places in the face square, as fractions of its side.
    size: the side of the face view in pixels. layout: the places of the regions.
    Returns (F, 6, 2, 3) in the order of regions.VIEWS; (0, 6, 2, 3) without faces.
    """
    places = np.asarray(template, np.float64) * size
    faces = [_views(similarity(places, points), size, layout) for points in landmarks]
    return np.array(faces, np.float32).reshape(-1, 6, 2, 3)


def picture_transforms(
    width: int, height: int, size: int, layout: RegionLayout
) -> NDArray[np.float32]:
    """The transforms (1, 6, 2, 3) of a cut-out face, which is resized to the face view."""
    whole = np.array([[width / size, 0, 0], [0, height / size, 0]])
    return _views(whole, size, layout)[None].astype(np.float32)


def _views(face: NDArray[np.float64], size: int, layout: RegionLayout) -> NDArray[np.float64]:
    """Transforms (6, 2, 3) of the views in pixel coordinates, from `face` (2, 3) in continuous."""
    linear, shift = face[:, :2], face[:, 2]
    views = []
    for box in layout.boxes(size).values():
        corner = np.array([box.left, box.top])
        views.append(np.column_stack((linear, linear @ (corner + 0.5) + shift - 0.5)))
    return np.array(views)
