"""Scores of a detector against the teacher's faces, on photographs and on small faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pcnn.faces.detector import Detector
from pcnn.networks.boxes import box_overlaps
from pcnn.results.values import Detection
from pcnn.training.photographs import Faces, Photograph

# The least intersection over union of a detected face with the teacher's.
_SAME_FACE = 0.5
# The least shorter side of a face that counts, in pixels.
_LEAST_SIDE = 16.0
_SMALL_SIDES = (12.0, 60.0)
_MOSAIC_SIDE, _MOSAIC_CELLS = 512, 3
_BATCH = 8


@dataclass(frozen=True)
class DetectorScores:
    """Agreement with a teacher's faces.

    photographs: number of photographs. faces: number of the teacher's faces to find.
    recall: the share of these faces that were found, 0…1; None without faces.
    landmark_error: mean distance of landmarks of found faces, in distances between the eyes; None
        if no face was found.
    false_faces: reported faces per photograph that match none of the teacher's faces.
    unconfirmed_faces: reported faces per photograph that match none of its confident faces.
    """

    photographs: int
    faces: int
    recall: float | None
    landmark_error: float | None
    false_faces: float
    unconfirmed_faces: float


def score_photographs(detector: Detector, photographs: Sequence[Photograph]) -> DetectorScores:
    """Scores on unchanged photographs, against the teacher's confident faces of ≥ 16 pixels.

    The detector uses its weights' own least score.
    """
    tally = _Tally(_LEAST_SIDE, np.inf)
    for start in range(0, len(photographs), _BATCH):
        batch = photographs[start : start + _BATCH]
        found = detector.detect([photograph.pixels() for photograph in batch])
        for photograph, faces in zip(batch, found, strict=True):
            tally.add(photograph.faces, faces)
    return tally.scores()


def score_small_faces(
    detector: Detector, photographs: Sequence[Photograph], *, seed: int = 0
) -> DetectorScores:
    """Scores on mosaics of nine reduced photographs, with faces of 12 to 60 pixels.

    Each photograph with a confident face is scaled: the shorter side of its best face is
    uniformly distributed over this range. All its confident faces in the range count.
    """
    random = np.random.default_rng(seed)
    usable = [photo for photo in photographs if photo.faces.confident().any()]
    tally = _Tally(*_SMALL_SIDES)
    for start in range(0, len(usable), _MOSAIC_CELLS**2):
        canvas, faces = _small_mosaic(usable[start : start + _MOSAIC_CELLS**2], random)
        tally.add(faces, detector.detect([canvas])[0])
    return tally.scores()


def score_turned(detector: Detector, photographs: Sequence[Photograph]) -> DetectorScores:
    """Scores on rotated photographs; the angles are the multiples of 45° in turn.

    The teacher's confident faces of ≥ 16 pixels in the upright photographs count.
    """
    tally = _Tally(_LEAST_SIDE, np.inf)
    for place, photograph in enumerate(photographs):
        turned, faces = _turned(photograph, 45 * (1 + place % 7))
        tally.add(faces, detector.detect([turned])[0])
    return tally.scores()


def _turned(photograph: Photograph, degrees: float) -> tuple[NDArray[np.uint8], Faces]:
    """A photograph rotated counter-clockwise on a canvas large enough for it, and its faces."""
    image = Image.fromarray(photograph.pixels())
    turned = image.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle, new_middle = np.array(image.size) / 2, np.array(turned.size) / 2
    boxes = photograph.faces.boxes.astype(np.float64)
    centres = ((boxes[:, :2] + boxes[:, 2:]) / 2 - middle) @ matrix.T + new_middle
    sides = boxes[:, 2:] - boxes[:, :2]
    halves = np.hypot(sides[:, :1] / 2 * matrix[:, 0], sides[:, 1:] / 2 * matrix[:, 1])
    points = (photograph.faces.landmarks.reshape(-1, 5, 2) - middle) @ matrix.T + new_middle
    faces = Faces(
        np.concatenate([centres - halves, centres + halves], 1).astype(np.float32),
        points.reshape(-1, 10).astype(np.float32),
        photograph.faces.scores,
    )
    return np.asarray(turned), faces


class _Tally:
    """Counts over pictures, for faces whose shorter side is between two limits."""

    def __init__(self, least: float, most: float) -> None:
        self.least, self.most = least, most
        self.pictures = self.wanted = self.false = self.unconfirmed = 0
        self.errors: list[float] = []

    def add(self, faces: Faces, found: Sequence[Detection]) -> None:
        """Count one picture, with the teacher's faces and the detected ones."""
        sure, sides = faces.confident(), faces.sides()
        asked = np.flatnonzero(sure & (sides >= self.least) & (sides <= self.most))
        reported = torch.tensor([face.box for face in found]).reshape(-1, 4)
        overlaps = box_overlaps(reported, torch.from_numpy(faces.boxes)).numpy()
        same = overlaps >= _SAME_FACE  # (found, teacher's)
        self.pictures += 1
        self.wanted += len(asked)
        self.false += int((~same.any(axis=1)).sum())
        self.unconfirmed += int((~same[:, sure].any(axis=1)).sum())
        free = np.ones(len(found), bool)
        for face in asked:
            candidates = np.flatnonzero(same[:, face] & free)
            if len(candidates):
                best = int(candidates[overlaps[candidates, face].argmax()])
                free[best] = False
                self.errors.append(_landmark_error(found[best].landmarks, faces.landmarks[face]))

    def scores(self) -> DetectorScores:
        pictures, wanted = max(1, self.pictures), self.wanted
        return DetectorScores(
            photographs=self.pictures,
            faces=wanted,
            recall=len(self.errors) / wanted if wanted else None,
            landmark_error=float(np.mean(self.errors)) if self.errors else None,
            false_faces=self.false / pictures,
            unconfirmed_faces=self.unconfirmed / pictures,
        )


def _landmark_error(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    points = wanted.reshape(5, 2)
    eyes = max(1e-3, float(np.linalg.norm(points[1] - points[0])))
    return float(np.linalg.norm(found - points, axis=1).mean()) / eyes


def _small_mosaic(
    tiles: Sequence[Photograph], random: np.random.Generator
) -> tuple[NDArray[np.uint8], Faces]:
    """Canvas (512, 512, 3) of up to nine photographs, and their faces in it."""
    canvas = np.zeros((_MOSAIC_SIDE, _MOSAIC_SIDE, 3), np.uint8)
    cell = _MOSAIC_SIDE // _MOSAIC_CELLS
    moved = []
    for index, tile in enumerate(tiles):
        pixels, faces = tile.pixels(), tile.faces
        wanted = random.uniform(*_SMALL_SIDES) / float(faces.sides()[0])
        scale = min(wanted, cell / max(pixels.shape[:2]))
        width, height = (max(1, round(edge * scale)) for edge in pixels.shape[1::-1])
        small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        top, left = cell * (index // _MOSAIC_CELLS), cell * (index % _MOSAIC_CELLS)
        canvas[top : top + height, left : left + width] = np.asarray(small)
        factor = np.array([width / pixels.shape[1], height / pixels.shape[0]], np.float32)
        corner = np.array([left, top], np.float32)
        boxes = faces.boxes * np.tile(factor, 2) + np.tile(corner, 2)
        points = faces.landmarks * np.tile(factor, 5) + np.tile(corner, 5)
        moved.append((boxes, points, faces.scores))
    boxes, points, scores = (np.concatenate(parts) for parts in zip(*moved, strict=True))
    return canvas, Faces(boxes, points, scores)
