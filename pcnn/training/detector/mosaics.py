"""Mosaics for training the detector: several photographs in one picture, faces of all sizes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from pcnn.errors import InputError
from pcnn.training.photographs import Photograph

# Sides of a mosaic's cells, in pixels, and their probabilities. Large cells show a photograph
# nearly unchanged; small cells give small faces.
_CELLS = ((512, 0.35), (256, 0.3), (128, 0.15), (84, 0.1), (48, 0.1))
# A face's shorter side as a fraction of its cell, and its least size in pixels.
_FACE_FRACTION, _SMALLEST_FACE = (0.25, 1.0), 10.0
# Cells of at least this side may show a photograph without resampling. Most photographs for
# detection have such pixels, and resampling shifts the teacher's landmarks a little.
_UNTOUCHED_CELL = 128
# Beyond this angle the teacher's own answers are not used.
_TEACHER_ANGLE = np.deg2rad(30)
# Mirroring exchanges left and right: the eyes, the corners of the mouth.
_MIRRORED_POINTS = (1, 0, 2, 4, 3)


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A training picture.

    pixels: (S, S, 3) uint8 RGB.
    boxes: (F, 4), landmarks: (F, 10) float32, pixels: the teacher's confident faces, transformed
        with their photographs. All landmarks of a face are inside its cell. The box of a rotated
        face encloses the rotated ellipse that its upright box encloses.
    turned: (T, 4) float32: strongly rotated cells. The teacher knows upright faces, so its
        answers there are not used.
    doubtful: (D, 4) float32: boxes in those cells that may or may not be faces, because the
        teacher was unsure or a part is outside.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    turned: NDArray[np.float32]
    doubtful: NDArray[np.float32]


def mosaic(
    photographs: Sequence[Photograph],
    side: int,
    random: np.random.Generator,
    *,
    untouched: float = 0.35,
    turned: float = 0.0,
) -> Mosaic:
    """A random mosaic of `side` × `side` pixels.

    Each cell shows a photograph at a random scale, place and angle (up to 40°). Half of them are
    mirrored. The cell shows the surroundings of a face or, in one of ten cases, of a random point.
    untouched: share of large cells that show their photograph without resampling, 0…1.
    turned: share of photographs with a random angle of up to 180°, 0…1.
    Raises InputError: no photographs, or a side below 32.
    """
    if not photographs or side < 32:
        raise InputError(
            f"mosaic: needs photographs and a side of at least 32, got {len(photographs)}, {side}"
        )
    cell = _cell_side(side, random)
    canvas = np.zeros((side, side, 3), np.uint8)
    faces: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    cells: list[tuple[int, int, int, int]] = []
    doubtful: list[NDArray[np.float32]] = []
    for top in range(0, side, cell):
        for left in range(0, side, cell):
            photograph = photographs[int(random.integers(len(photographs)))]
            view = _random_view(photograph, cell, random, (untouched, turned))
            height, width = min(cell, side - top), min(cell, side - left)
            canvas[top : top + height, left : left + width] = _render(
                photograph, view, (width, height), random
            )
            corner = np.array([left, top], np.float32)
            faces.extend(
                (box + np.tile(corner, 2), points + np.tile(corner, 5))
                for box, points in _visible_faces(photograph, view, (width, height))
            )
            if abs(view.angle_rad) > _TEACHER_ANGLE:
                cells.append((left, top, left + width, top + height))
                unsure = _doubtful_faces(photograph, view, (width, height))
                doubtful.extend(box + np.tile(corner, 2) for box in unsure)
    return Mosaic(
        canvas,
        np.array([box for box, _ in faces], np.float32).reshape(-1, 4),
        np.array([points for _, points in faces], np.float32).reshape(-1, 10),
        np.array(cells, np.float32).reshape(-1, 4),
        np.array(doubtful, np.float32).reshape(-1, 4),
    )


def _harshly_lit(values: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """A picture made much too dark, too light, flat or tinted, in whole levels."""
    kind = int(random.integers(4))
    levels = values.astype(np.float32)
    if kind == 0:
        levels = levels / float(np.exp(random.uniform(np.log(2), np.log(16))))
    elif kind == 1:
        levels = levels * float(random.uniform(1.5, 5))
    elif kind == 2:
        grey = float(random.uniform(40, 215))
        levels = grey + (levels - grey) * float(random.uniform(0.08, 0.5))
    else:
        levels = levels * random.uniform(0.25, 1.6, 3).astype(np.float32)
    return np.clip(levels, 0, 255).astype(np.uint8)


def degrade(
    pixels: NDArray[np.uint8],
    random: np.random.Generator,
    *,
    chance: float = 0.6,
    harsh: float = 0.0,
) -> NDArray[np.uint8]:
    """A picture with random light, colour, grey, blur, noise and JPEG artefacts; same shape.

    chance: the probability of these changes, 0…1.
    harsh: the probability of an additional extreme change of the light, 0…1.
    """
    if harsh and random.random() < harsh:
        pixels = _harshly_lit(pixels, random)
    if random.random() < 1 - chance:
        return pixels
    image = Image.fromarray(pixels)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        if random.random() < 0.5:
            image = enhance(image).enhance(float(np.exp(random.normal(0, 0.3))))
    if random.random() < 0.12:
        image = image.convert("L").convert("RGB")
    if random.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(float(random.uniform(0.4, 1.6))))
    values = np.asarray(image)
    if random.random() < 0.3:
        gains = np.exp(random.normal(0, 0.12, 3))
        noise = random.normal(0, random.uniform(0, 8), values.shape[:2])[..., None]
        values = np.clip(values * gains + noise, 0, 255).astype(np.uint8)
    return _recompressed(values, random) if random.random() < 0.3 else values


@dataclass(frozen=True, eq=False)
class View:
    """The transform from a photograph to its cell: cell = matrix · photograph + offset."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    scale: float
    mirrored: bool
    angle_rad: float


def _cell_side(side: int, random: np.random.Generator) -> int:
    sides = np.array([min(cell, side) for cell, _ in _CELLS])
    chances = np.array([chance for _, chance in _CELLS])
    return int(random.choice(sides, p=chances / chances.sum()))


def _random_view(
    photograph: Photograph, cell: int, random: np.random.Generator, chances: tuple[float, float]
) -> View:
    untouched, turned = chances
    confident = np.flatnonzero(photograph.faces.confident())
    low, high = _FACE_FRACTION
    size = max(_SMALLEST_FACE, cell * float(np.exp(random.uniform(np.log(low), np.log(high)))))
    with Image.open(io.BytesIO(photograph.encoded)) as image:
        extent = np.array(image.size, np.float64)
    if len(confident) and random.random() < 0.9:
        box = photograph.faces.boxes[random.choice(confident)].astype(np.float64)
        focus = (box[:2] + box[2:]) / 2
        scale = size / max(1.0, float((box[2:] - box[:2]).min()))
    else:
        focus = random.uniform(0, 1, 2) * extent
        scale = size / (0.35 * float(extent.min()))
    angle = np.deg2rad(random.uniform(-40, 40) if random.random() < 0.3 else random.normal(0, 5))
    as_it_is = cell >= _UNTOUCHED_CELL and random.random() < untouched
    if turned and random.random() < turned:
        angle, as_it_is = float(random.uniform(-np.pi, np.pi)), False
    if as_it_is:
        scale, angle = 1.0, 0.0
    mirrored = bool(random.random() < 0.5)
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    sign = -1.0 if mirrored else 1.0
    matrix = np.array([[sign * cosine, -sine], [sign * sine, cosine]])
    slack = max(0.0, cell - 1.2 * size) / 2
    offset = cell / 2 + random.uniform(-slack, slack, 2) - matrix @ focus
    return View(matrix, np.rint(offset) if as_it_is else offset, scale, mirrored, float(angle))


def _render(
    photograph: Photograph, view: View, size: tuple[int, int], random: np.random.Generator
) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(photograph.encoded)) as image:
        whole = np.array(image.size, np.float64)
        # JPEG can be decoded at a half, quarter or eighth of its size, quickly, without aliasing.
        width, height = (ceil(edge * view.scale) for edge in image.size)
        image.draft("RGB", (width, height))
        source = image.convert("RGB")
    factor = max(1, int(0.75 / (view.scale * whole[0] / source.width)))
    source = source.reduce(factor)
    back = np.linalg.inv(view.matrix)
    start = -back @ view.offset
    shrink = np.array(source.size) / whole
    back, start = back * shrink[:, None], start * shrink
    fill = tuple(int(v) for v in random.integers(0, 256, 3)) if random.random() < 0.5 else (0, 0, 0)
    turned = source.transform(
        size,
        Image.Transform.AFFINE,
        (back[0, 0], back[0, 1], start[0], back[1, 0], back[1, 1], start[1]),
        Image.Resampling.BILINEAR,
        fillcolor=fill,
    )
    return np.asarray(turned)


def _visible_faces(
    photograph: Photograph, view: View, size: tuple[int, int]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Boxes (4,) and landmarks (10,), in the cell, of faces whose landmarks are inside it."""
    faces = []
    for index in np.flatnonzero(photograph.faces.confident()):
        box = photograph.faces.boxes[index].astype(np.float64)
        points = photograph.faces.landmarks[index].reshape(5, 2) @ view.matrix.T + view.offset
        if view.mirrored:
            points = points[list(_MIRRORED_POINTS)]
        centre, half = turned_box(box, view)
        if min(half) * 2 >= _SMALLEST_FACE and ((points >= 0) & (points < size)).all():
            corners = np.concatenate([centre - half, centre + half])
            faces.append((corners.astype(np.float32), points.reshape(10).astype(np.float32)))
    return faces


def turned_box(
    box: NDArray[np.float64], view: View
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and half sides of the box around a rotated ellipse, which the given box encloses."""
    centre = view.matrix @ ((box[:2] + box[2:]) / 2) + view.offset
    return centre, np.hypot(*(view.matrix * (box[2:] - box[:2]) / 2).T)


def _doubtful_faces(
    photograph: Photograph, view: View, size: tuple[int, int]
) -> list[NDArray[np.float32]]:
    """Boxes (4,), in the cell, of faces that are unsure or partly outside."""
    found = []
    for index, sure in enumerate(photograph.faces.confident()):
        points = photograph.faces.landmarks[index].reshape(5, 2) @ view.matrix.T + view.offset
        if sure and ((points >= 0) & (points < size)).all():
            continue
        centre, half = turned_box(photograph.faces.boxes[index].astype(np.float64), view)
        if ((centre + half > 0) & (centre - half < size)).all():
            found.append(np.concatenate([centre - half, centre + half]).astype(np.float32))
    return found


def _recompressed(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(random.integers(25, 90)))
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))
