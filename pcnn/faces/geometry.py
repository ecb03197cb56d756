"""Affine transforms for cutting out faces and regions, from landmarks; and the overlap of boxes.

There are two kinds of coordinates. In *continuous* ones an image spans 0…width and 0…height; boxes,
landmarks and templates use them. *Pixel* ones count pixel centres from 0; transforms use them.
The continuous coordinate of pixel centre p is p + ½.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pcnn.errors import InputError
from pcnn.networks.regions import RegionLayout
from pcnn.results.angle import UPRIGHT
from pcnn.results.values import Detection


@dataclass(frozen=True, eq=False)
class AlignedFaces:
    """The faces of a picture, to be aligned by their landmarks when they are cut out.

    landmarks: (F, 5, 2) float32, continuous image coordinates.
    template: (5, 2), their places in the face square, as fractions of its side.
    """

    landmarks: NDArray[np.float32]
    template: NDArray[np.float64]

    @classmethod
    def of(cls, landmarks: Sequence[ArrayLike], template: ArrayLike) -> AlignedFaces:
        """Faces from F arrays (5, 2). Raises InputError: one has another shape."""
        places = np.asarray(template, np.float64)
        return cls(_points("AlignedFaces.of", landmarks, places).astype(np.float32), places)


# The places of a picture's faces: landmarks, or transforms (F, 6, 2, 3) from view pixels to image
# pixels, in the order of regions.VIEWS.
FacePlaces: TypeAlias = AlignedFaces | NDArray[np.float32]

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
    (a,), (b,) = _similarities(from_points, to_points[None])
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def _similarities(
    source: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Similarities from (N, 2) to each of (F, N, 2), as a and b, (F,) each: w ↦ a·w + b.

    The closed form in the complex plane; ops.landmark_crop has it, too.
    """
    w, z = source @ (1, 1j), targets @ (1, 1j)
    middle, middles = w.mean(), z.mean(1)
    centred = w - middle
    spread = float((abs(centred) ** 2).sum())
    shares = centred.conj() / spread if spread > 0 else 0 * centred
    a = (shares * (z - middles[:, None])).sum(1)
    return a, middles - a * middle


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
    Raises InputError: landmarks of another shape.
    """
    places = np.asarray(template, np.float64)
    points = _points("face_transforms", landmarks, places)
    a, b = (each[:, None] for each in _similarities(places * size, points))  # (F, 1)
    middle_of_pixel = 0.5 + 0.5j
    corners = np.array([complex(box.left, box.top) for box in layout.boxes(size).values()])
    shift = a * (corners + middle_of_pixel) + b - middle_of_pixel  # (F, 6)
    transforms = np.empty((*shift.shape, 2, 3), np.float32)
    transforms[..., 0, 0] = transforms[..., 1, 1] = a.real
    transforms[..., 0, 1], transforms[..., 1, 0] = -a.imag, a.imag
    transforms[..., 0, 2], transforms[..., 1, 2] = shift.real, shift.imag
    return transforms


def transforms_of(faces: FacePlaces, size: int, layout: RegionLayout) -> NDArray[np.float32]:
    """The transforms (F, 6, 2, 3) of faces, whichever way their places are given."""
    if isinstance(faces, AlignedFaces):
        return face_transforms(list(faces.landmarks), faces.template, size, layout)
    return faces


def _points(
    function: str, landmarks: Sequence[ArrayLike], template: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Landmarks of F faces as one array (F, 5, 2), checked."""
    points = [np.asarray(own, np.float64) for own in landmarks]
    for own in points:
        if own.shape != template.shape:
            raise InputError(f"{function}: landmarks must be {template.shape}, got {own.shape}")
    return np.array(points).reshape(-1, *template.shape)


def picture_transforms(
    width: int, height: int, size: int, layout: RegionLayout
) -> NDArray[np.float32]:
    """The transforms (1, 6, 2, 3) of a cut-out face, which is resized to the face view."""
    scale = np.array([width, height]) / size
    boxes = layout.boxes(size).values()
    corners = np.array([(box.left, box.top) for box in boxes])  # (6, 2)
    shift = scale * (corners + 0.5) - 0.5
    linear = np.broadcast_to(np.diag(scale), (len(corners), 2, 2))
    return np.concatenate((linear, shift[..., None]), 2)[None].astype(np.float32)


def covered_share(box: Sequence[float], other: Sequence[float]) -> float:
    """The share of a box's area that another box covers, 0…1; 0 for a box without area.

    box, other: x1 y1 x2 y2.
    """
    one, two = np.array(box, np.float64), np.array(other, np.float64)
    shared = (np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2])).clip(0)
    area = float(np.prod(one[2:] - one[:2]))
    return float(np.prod(shared)) / area if area > 0 else 0.0


def transformed(face: Detection, back: NDArray[np.float64]) -> Detection:
    """A detection transformed by a similarity (2, 3) between continuous coordinates.

    Its box is rotated about its middle by the nearest multiple of 90°.
    """
    left, top, right, bottom = face.box
    x, y = back[:, :2] @ ((left + right) / 2, (top + bottom) / 2) + back[:, 2]
    along, across = abs(back[0, 0]), abs(back[1, 0])
    half = math.hypot(along, across) / 2
    sides = (right - left, bottom - top) if along >= across else (bottom - top, right - left)
    box = (x - half * sides[0], y - half * sides[1], x + half * sides[0], y + half * sides[1])
    points = face.landmarks @ back[:, :2].T + back[:, 2]
    return Detection(
        box=tuple(float(edge) for edge in box),  # type: ignore[arg-type]
        score=face.score,
        landmarks=points.astype(np.float32),
    )
