"""Sheets, photographs and a teacher's answers, as the trainings on them read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from motion import NAMES, taught_faces
from PIL import Image

from pcnn.training.photographs import is_held_out


def write_taught_data(folder: Path) -> int:
    """Write sheets/ with nine faces, p.tar with twelve photographs, and the answers for both.

    Returns the number of photographs that are not held out.
    """
    names = [f"photo_{i}.png" for i in range(12)]
    with tarfile.open(folder / "p.tar", "w") as archive:
        for name in names:
            buffer = io.BytesIO()
            Image.new("RGB", (80, 80), (90, 120, 80)).save(buffer, "PNG")
            member = tarfile.TarInfo(name)
            member.size = len(buffer.getvalue())
            archive.addfile(member, io.BytesIO(buffer.getvalue()))
    sheets = folder / "sheets"
    sheets.mkdir()
    Image.new("L", (1920, 48), 90).save(sheets / "train_00.png")
    stems = [f"fer{i}" for i in range(9)]
    (sheets / "train.csv").write_text("image\n" + "\n".join(stems) + "\n")
    _labels(folder / "fer_train.npz", stems, 48)
    _labels(folder / "photographs.npz", names, 80)
    return sum(not is_held_out(name) for name in names)


def _labels(path: Path, names: list[str], side: float) -> None:
    faces = taught_faces(len(names), side=int(side))
    # The teacher's mesh has its points at the five landmarks elsewhere, see faces.FIVE and
    # teacher_answers.mesh_landmarks.
    points = torch.zeros(len(names), 478, 3)
    points[:, :, 0] = side / 2
    pairs = {468: 0, 33: 0, 133: 0, 473: 1, 362: 1, 263: 1, 1: 2, 61: 3, 291: 4}
    for place, own in pairs.items():
        points[:, place, :2] = faces.points[:, own]
    np.savez(
        path,
        image=np.array(names),
        found=np.ones(len(names), bool),
        points=points.numpy(),
        movements=faces.movements.numpy(),
        names=np.array(NAMES),
        matrix=np.stack([np.eye(4, dtype=np.float32)] * len(names)),
        landmarks=faces.landmarks.numpy(),
    )
