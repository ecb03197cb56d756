"""Faces cut from photographs, for teachers to label."""

from __future__ import annotations

from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pcnn.disk import cache_folder
from pcnn.errors import InputError
from pcnn.faces.detector import Detector
from pcnn.faces.geometry import face_transforms
from pcnn.faces.views import cut_views
from pcnn.networks.regions import VIEWS, ViewFormat
from pcnn.training.photographs import is_held_out, read_photographs


def photograph_faces(
    path: str | Path, detector: Detector, template: ArrayLike, size: int, *, grey: bool
) -> Tensor:
    """Aligned faces of an archive of photographs, at their original sharpness.

    path: see photographs.read_photographs. template, size: see align_faces.
    Held-out photographs are left out, and so are faces whose box is less than a third of `size`
    wide or high.
    Returns (M, size, size) if grey, else (M, size, size, 3); uint8.
    Raises InputError: as read_photographs; also if no face is left.
    """
    cache = cache_folder() / "landmarks" / f"{Path(path).stem}.npz"
    levels = ViewFormat.levels(size, 1 if grey else 3)
    cut = []
    for photograph in read_photographs(path, detector, cache=cache):
        wide = photograph.faces.confident() & (photograph.faces.sides() >= size / 3)
        if is_held_out(photograph.name) or not wide.any():
            continue
        points = list(photograph.faces.landmarks[wide].reshape(-1, 5, 2))
        transforms = face_transforms(points, template, size, levels.layout)
        (views,) = cut_views(
            [photograph.pixels()],
            [transforms],
            levels,
            native_size=size,
            device=torch.device("cpu"),
            names=VIEWS[:1],
        )
        cut.append(views.round().clamp(0, 255).to(torch.uint8))
    if not cut:
        raise InputError(f"photograph_faces: no face large enough in the photographs of {path}")
    faces = torch.cat(cut)  # (M, C, size, size)
    return faces[:, 0] if grey else faces.permute(0, 2, 3, 1)
