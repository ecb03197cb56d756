"""Targets of the detector's training: the teacher's outputs, corrected by known faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pcnn.errors import InputError, counted
from pcnn.networks.anchors import encode_boxes, encode_landmarks
from pcnn.networks.boxes import box_overlaps
from pcnn.training.detector.mosaics import Mosaic
from pcnn.weights.detector import DetectorSettings

# Anchors with the first overlap with a face learn its offsets; with the second, they are positive.
_MATCHED, _POSITIVE = 0.35, 0.5
# Anchors with this overlap with a doubtful box have no target.
_UNASKED = 0.3
# Anchors with a lower face probability have no target box and landmarks.
_LEAST_FACE = 0.5
# Sides of faces, in pixels, for which the teacher is reliable. Measurements show that it misses
# smaller faces and misplaces larger ones. Its boxes overlap with those of the same face at half
# the size by 0.91 at 160 pixels, 0.71 at 300, 0.44 at 400.
_TEACHER_SIDES = (20.0, 160.0)
# Quality focal loss (Li et al., NeurIPS 2020, equation 4): exponent of the modulating factor.
_FOCUS = 2.0
# The point where smooth L1 changes from quadratic to linear, in units of the coded offsets.
_BEND = 0.1


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets of each anchor: probability (B, N), boxes (B, N, 4), landmarks (B, N, 10).

    An anchor with the probability NaN has no target.
    """

    faces: Tensor
    boxes: Tensor
    landmarks: Tensor


def targets_of(
    outputs: tuple[Tensor, Tensor, Tensor],
    mosaics: Sequence[Mosaic],
    anchors: Tensor,
    settings: DetectorSettings,
) -> Targets:
    """The teacher's outputs on mosaics, corrected by the mosaics' known faces.

    The known faces were found in the photographs at their original size. So they correct the
    teacher where it misses a reduced face or misplaces an enlarged one.
    outputs: the teacher's, as `RetinaFace.forward` returns them, with its own anchors.
    anchors: (N, 4), as `anchor_grid` returns them.
    Raises InputError: outputs and mosaics do not agree in number.
    """
    logits, boxes, landmarks = outputs
    if len(logits) != len(mosaics):
        raise InputError(
            f"targets_of: outputs must be of {counted(len(mosaics), 'mosaic')}, got {len(logits)}"
        )
    targets = Targets(logits.softmax(dim=-1)[..., 1], boxes.clone(), landmarks.clone())
    halves = anchors[:, 2:] / 2
    corners = torch.cat([anchors[:, :2] - halves, anchors[:, :2] + halves], dim=1)
    for row, picture in enumerate(mosaics):
        _distrust(targets, row, picture, (anchors, corners))
        if len(picture.boxes):
            _correct(targets, row, picture, (anchors, corners), settings)
    return targets


def distillation_loss(outputs: tuple[Tensor, Tensor, Tensor], targets: Targets) -> Tensor:
    """The scalar loss of the student's outputs: focal for scores, smooth L1 for offsets.

    Each part is a sum over anchors, divided by the number of face anchors (at least 1).
    """
    logits, boxes, landmarks = outputs
    margin = logits[..., 1] - logits[..., 0]  # (B, N): the face's logit
    asked, faces = ~targets.faces.isnan(), targets.faces.nan_to_num()
    gap = (faces - margin.sigmoid()).abs().pow(_FOCUS) * asked
    entropy = F.binary_cross_entropy_with_logits(margin, faces, reduction="none")
    chosen = targets.faces >= _LEAST_FACE
    count = chosen.sum().clamp(min=1)
    box = F.smooth_l1_loss(boxes[chosen], targets.boxes[chosen], beta=_BEND, reduction="none")
    point = F.smooth_l1_loss(
        landmarks[chosen], targets.landmarks[chosen], beta=_BEND, reduction="none"
    )
    parts = 2 * (gap * entropy).sum() + box.sum() / 4 + point.sum() / 5
    return parts / count


def _distrust(targets: Targets, row: int, picture: Mosaic, anchors: tuple[Tensor, Tensor]) -> None:
    """Discard the teacher's answers in a mosaic's rotated cells."""
    grid, corners = anchors
    x, y = grid[:, 0], grid[:, 1]
    for left, top, right, bottom in picture.turned.tolist():
        inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        targets.faces[row, inside] = 0.0
    if len(picture.doubtful):
        near = box_overlaps(torch.from_numpy(picture.doubtful), corners).amax(0) >= _UNASKED
        targets.faces[row, near] = torch.nan


def _correct(
    targets: Targets,
    row: int,
    picture: Mosaic,
    anchors: tuple[Tensor, Tensor],
    settings: DetectorSettings,
) -> None:
    """Write one mosaic's known faces into the targets' row."""
    grid, corners = anchors
    known, points = torch.from_numpy(picture.boxes), torch.from_numpy(picture.landmarks)
    sides = (known[:, 2:] - known[:, :2]).amin(dim=1)  # (F,)
    overlaps = box_overlaps(known, corners)  # (F, N)
    best, owner = overlaps.max(dim=0)
    own_anchor = overlaps.argmax(dim=1)  # every face has one, even a small face
    best[own_anchor], owner[own_anchor] = 1.0, torch.arange(len(known))
    claimed = best >= _MATCHED
    for face in torch.nonzero(sides > _TEACHER_SIDES[1])[:, 0]:
        # The teacher takes parts of a large face for faces, so small anchors in it become negative.
        left, top, right, bottom = known[face]
        x, y, width = grid[:, 0], grid[:, 1], grid[:, 2]
        inside = (x > left) & (x < right) & (y > top) & (y < bottom) & ~claimed
        part = width < sides[face] / 2
        targets.faces[row, inside & part] = 0.0
        claimed |= inside & ~part
        owner[inside] = face
    least, most = _TEACHER_SIDES
    in_its_range = (sides[owner] >= least) & (sides[owner] <= most)
    corrected = claimed & ~(in_its_range & (targets.faces[row] >= _LEAST_FACE))
    face, grid = owner[corrected], grid[corrected]
    targets.boxes[row, corrected] = encode_boxes(known[face], grid, settings.variances)
    targets.landmarks[row, corrected] = encode_landmarks(points[face], grid, settings.variances)
    targets.faces[row, best >= _POSITIVE] = 1.0
