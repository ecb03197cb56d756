"""Draw the pictures of docs/movements.md.

    python benchmarks/movement_pictures.py --labels labels

The portrait's movements, and the signs of yaw, pitch and roll on a mean face: that of a teacher's
meshes (docs/training.md), each set upright by its own pose.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shared import ROOT

from pcnn import Recognizer
from pcnn.results.mesh import draw_mesh
from pcnn.results.movements import FaceMotion, Pose
from pcnn.results.style import DIM, GROUND, TEXT, letters
from pcnn.training.teacher_answers import read_table

_IMAGES = ROOT / "docs" / "images"
_SIDE, _LETTER = 260, 17  # pixels
_POSES = (
    ("straight", Pose(0, 0, 0)),
    ("yaw +35", Pose(35, 0, 0)),
    ("pitch +25", Pose(0, 25, 0)),
    ("roll +20", Pose(0, 0, 20)),
)
_FRONTAL = 20.0  # degrees of yaw and pitch, at most, of the faces that the mean face is made of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=Path, required=True, help="a teacher's answers")
    arguments = parser.parse_args()
    table = read_table(arguments.labels / "fer_train.npz")
    head = _mean_head(table["points"], table["matrix"], table["pose"])
    whole = Image.new("RGB", (_SIDE * len(_POSES), _SIDE + 2 * _LETTER), GROUND)
    draw = ImageDraw.Draw(whole, "RGBA")
    for place, (name, pose) in enumerate(_POSES):
        turned = head @ _rotation(pose).T
        mesh = turned[:, :2] * (1, -1) * _SIDE / 4.4 + (_SIDE * (place + 0.5), 0.5 * _SIDE)
        draw_mesh(draw, FaceMotion({}, pose, mesh.astype(np.float32)), DIM)
        middle = (_SIDE * (place + 0.5), _SIDE + _LETTER)
        draw.text(middle, name, font=letters(_LETTER), fill=TEXT, anchor="mm")
    whole.save(_IMAGES / "movements-pose.png", optimize=True)
    portrait = _IMAGES / "astronaut.png"
    prediction = Recognizer(movements=True).predict(portrait)
    drawn = prediction.draw(portrait, mesh=True, movements=True)
    drawn.save(_IMAGES / "astronaut-movements.png", optimize=True)


def _mean_head(
    points: NDArray[np.float32], matrices: NDArray[np.float32], poses: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(P, 3): x to the right, y upwards, z towards the camera, of mean distance 1."""
    frontal = np.abs(poses[:, :2]).max(1) < _FRONTAL
    heads = points[frontal].astype(np.float64) * (1, -1, -1)
    heads -= heads.mean(1, keepdims=True)
    turns = matrices[frontal, :3, :3]
    turns = turns / np.linalg.norm(turns, axis=1, keepdims=True)
    heads = heads @ turns  # the inverse turn of each row
    heads /= np.linalg.norm(heads, axis=2).mean(1)[:, None, None]
    mean: NDArray[np.float64] = heads.mean(0)
    return mean


def _rotation(pose: Pose) -> NDArray[np.float64]:
    """The head's rotation in the axes of `_mean_head`, see teacher_answers.poses."""
    yaw, pitch, roll = np.radians((pose.yaw, -pose.pitch, -pose.roll))
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_z = np.array(
        [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    )
    return about_z @ about_y @ about_x


if __name__ == "__main__":
    main()
