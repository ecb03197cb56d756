"""How well faces can be seen: one number of detail, turn and the detector's doubt.

docs/quality.md says what it means and `benchmarks/quality.py` measures that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.faces.views import cut_faces
from pcnn.networks.regions import ViewFormat
from pcnn.results.angle import UPRIGHT
from pcnn.results.movements import Pose
from pcnn.results.values import Detection

# The view for measuring detail has the side of FER+'s faces in pixels; the distance between the
# eyes and the place of their middle are shares of it.
_SIDE, _EYES, _MIDDLE = 48, 0.367, (0.5, 0.4)
_TEMPLATE = [(_MIDDLE[0] + _EYES * x, _MIDDLE[1] + _EYES * y) for x, y in UPRIGHT]
_VIEW = ViewFormat(_SIDE, mean=(0.0,), std=(1.0,))
# Shares of detail of faces of which nothing can be read, and of faces as good as those of FER+.
# Chosen by hand; benchmarks/quality.py measures what the quality is worth with them.
_NO_DETAIL, _FULL_DETAIL = 0.05, 0.12
# Weights of a blur with a standard deviation of one pixel.
_BLUR = tuple(math.exp(-x * x / 2) for x in range(-3, 4))
# Detection scores that count 0 and 1; the packaged detector reports no face below the first.
_UNSURE, _SURE = 0.7, 1.0
# How far the nose lies before eyes and mouth, in means of the distance between the eyes and that
# between the corners of the mouth. Chosen so that turns of faces of lfw are about those of poses.
_NOSE = 0.72


@own_settings()
@torch.inference_mode()
def face_qualities(
    pictures: Sequence[NDArray[np.uint8]],
    found: Sequence[Sequence[Detection]],
    poses: Sequence[Pose | None] | None = None,
) -> list[float]:
    """The qualities of all faces of all pictures, in order, 0…1.

    A quality is the product of the detector's certainty, the detail in the face, and the cosine of
    the angle between the face and the camera.

    pictures: (H, W, 3) uint8 RGB each. found: the faces of each picture.
    poses: of all faces, in order. Where there is none, five landmarks tell the turn to the side.
    A face whose landmarks are not finite or all in one place has 0.
    """
    faces = [face for own in found for face in own]
    if not faces:
        return []
    places = [[face.landmarks for face in own] for own in found]
    views = cut_faces(pictures, places, _TEMPLATE, _VIEW, torch.device("cpu"))
    details = _details(views).tolist()
    turns = poses or [None] * len(faces)
    return [
        _quality(face, detail, pose)
        for face, detail, pose in zip(faces, details, turns, strict=True)
    ]


def _quality(face: Detection, detail: float, pose: Pose | None) -> float:
    seen = _share(face.score, _UNSURE, _SURE)
    facing = _facing_by_landmarks(face.landmarks) if pose is None else _facing(pose)
    quality = seen * _share(detail, _NO_DETAIL, _FULL_DETAIL) * facing
    return quality if math.isfinite(quality) else 0.0


def _details(views: Tensor) -> Tensor:
    """(N,) the share of each view's contrast that a blur of one pixel removes, 0…1.

    views: (N, 1, S, S). Only the middle counts, which shows no background.
    """
    kernel = views.new_tensor(_BLUR)
    kernel /= kernel.sum()
    blurred = F.conv2d(views, kernel.view(1, 1, 1, -1), padding="same")
    blurred = F.conv2d(blurred, kernel.view(1, 1, -1, 1), padding="same")
    inner = slice(_SIDE // 6, -(_SIDE // 6))
    fine = (views - blurred)[..., inner, inner].std((1, 2, 3))
    return fine / views[..., inner, inner].std((1, 2, 3)).clamp(min=1e-6)


def _facing(pose: Pose) -> float:
    """The cosine of the angle between the face and the camera, at least 0."""
    yaw, pitch = (math.radians(max(-90.0, min(90.0, own))) for own in (pose.yaw, pose.pitch))
    return math.cos(yaw) * math.cos(pitch)


def _facing_by_landmarks(landmarks: ArrayLike) -> float:
    """The cosine of the angle by which a face is turned to the side, from its five landmarks.

    The nose lies before the others and so moves aside. NaN if they are all in one place.
    """
    points = np.asarray(landmarks, np.float64) @ (1, 1j)
    across = (points[1] - points[0] + points[4] - points[3]) / 2
    middle = (points[0] + points[1] + points[3] + points[4]) / 4
    if not abs(across) > 0:
        return math.nan
    aside = ((points[2] - middle) / across).real
    return 1 / math.hypot(1, aside / _NOSE)


def _share(value: float, least: float, most: float) -> float:
    """How far a value lies from `least` to `most`, 0…1."""
    return max(0.0, min(1.0, (value - least) / (most - least)))
