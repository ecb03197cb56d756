"""From landmarks to the affine maps along which faces and their regions are cut out.

Two kinds of coordinates: *continuous* ones, in which an image spans 0…width and 0…height (boxes,
landmarks, templates), and *pixel* ones, which count pixel centres from 0 (transforms).
The continuous coordinate of pixel centre p is p + ½.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pcnn.errors import InputError
from pcnn.networks.regions import RegionLayout
from pcnn.results.angle import UPRIGHT

_UPRIGHT = np.array(UPRIGHT) @ (1, 1j)
_UPRIGHT -= _UPRIGHT.mean()
_UPRIGHT_SPREAD = float((abs(_UPRIGHT) ** 2).sum())


def similarity(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """The rotation, scale and shift, never a reflection, that best takes source to target.

    source, target: (N, 2) points, N ≥ 2. Returns (2, 3). Best in the sense of least squares
    (Umeyama 1991). Coincident source points give the shift alone, with scale 0.
    Raises InputError: wrong or different shapes.
    """
    from_points = np.asarray(source, np.float64)
    to_points = np.asarray(target, np.float64)
    if from_points.ndim != 2 or from_points.shape[1] != 2 or len(from_points) < 2:
        raise InputError(f"similarity: source must be (N, 2), N ≥ 2, got {from_points.shape}")
    if to_points.shape != from_points.shape:
        raise InputError(f"similarity: target must be {from_points.shape}, got {to_points.shape}")
    # In the complex plane a similarity is w ↦ a·w + b, and the best a is a ratio of two sums.
    w = from_points @ (1, 1j)
    z = to_points @ (1, 1j)
    centred = w - w.mean()
    spread = float((abs(centred) ** 2).sum())
    a = (centred.conj() * (z - z.mean())).sum() / spread if spread > 0 else 0j
    b = z.mean() - a * w.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def misfit(landmarks: ArrayLike) -> float:
    """How far landmarks lie from where those of a face seen from the front would.

    landmarks: (5, 2), in the order of `Detection.landmarks`. They may lie turned anyhow.
    Returns the mean distance after the best similarity, in distances between the eyes of the
    face so placed; infinite where all landmarks coincide or one is not finite.
    """
    points = np.asarray(landmarks, np.float64) @ (1, 1j)
    points -= points.mean()
    turned = (_UPRIGHT.conj() @ points) / _UPRIGHT_SPREAD  # the best similarity, as in similarity
    eyes = abs(turned)  # in UPRIGHT they are 1 apart
    if not 0 < eyes < np.inf:
        return np.inf
    return float(abs(_UPRIGHT * turned - points).mean() / eyes)


def face_transforms(
    landmarks: Sequence[NDArray[np.float32]],
    template: ArrayLike,
    size: int,
    layout: RegionLayout,
) -> NDArray[np.float32]:
    """For each face the maps from its six views' pixels to the image's pixels.

    landmarks: F arrays (5, 2), continuous image coordinates.
    template: (5, 2), where they lie in the face square, as fractions of its side.
    size: the side of the face view in pixels. layout: where the regions are cut.
    Returns (F, 6, 2, 3) in the order of regions.VIEWS; (0, 6, 2, 3) without faces.
    """
    places = np.asarray(template, np.float64) * size
    faces = [_views(similarity(places, points), size, layout) for points in landmarks]
    return np.array(faces, np.float32).reshape(-1, 6, 2, 3)


def picture_transforms(
    width: int, height: int, size: int, layout: RegionLayout
) -> NDArray[np.float32]:
    """The same for a picture that is a face already: it is stretched to the face view.

    Returns (1, 6, 2, 3).
    """
    whole = np.array([[width / size, 0, 0], [0, height / size, 0]])
    return _views(whole, size, layout)[None].astype(np.float32)


def _views(face: NDArray[np.float64], size: int, layout: RegionLayout) -> NDArray[np.float64]:
    """face (2, 3) between continuous coordinates → (6, 2, 3) between pixel coordinates."""
    linear, shift = face[:, :2], face[:, 2]
    views = []
    for box in layout.boxes(size).values():
        corner = np.array([box.left, box.top])
        views.append(np.column_stack((linear, linear @ (corner + 0.5) + shift - 0.5)))
    return np.array(views)
