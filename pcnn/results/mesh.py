"""Drawing of a face's mesh: contours, points, and the head's axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from pcnn.results.movements import FaceMotion
from pcnn.results.style import GREEN, ORANGE, SKY, TEXT

# Lines through points of the mesh of 478, in the numbering of MediaPipe's face mesh.
_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10),
)
_CONTOURS = (
    _OVAL,
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185, 61),
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191, 78),
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 33),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466, 263),
    (70, 63, 105, 66, 107),
    (300, 293, 334, 296, 336),
    (469, 470, 471, 472, 469),
    (474, 475, 476, 477, 474),
    (168, 6, 197, 195, 5, 4, 1),
)
_POINTS = 478
_NOSE, _FOREHEAD, _CHIN = 1, 10, 152
_HALO = (0, 0, 0, 150)
# Meshes of fewer pixels are drawn as bare lines, so that the face can be seen through them.
_SMALL = 200


def draw_mesh(draw: ImageDraw.ImageDraw, motion: FaceMotion, colour: Any, scale: float = 1) -> None:
    """Draw a face's contours, points and axes.

    draw: in mode "RGBA". motion: its mesh is in pixels of the picture before enlargement.
    scale: the picture's enlargement.
    The axes start at the nose: orange to the person's left, green upwards, blue forwards. A mesh
    of another number of points has only its points drawn, and a small mesh only its contours.
    """
    mesh = scale * motion.mesh
    side = float(np.ptp(mesh, axis=0).max())
    if not math.isfinite(side):
        return
    line = max(1, round(side / 160))
    if len(mesh) == _POINTS:
        paths = [[tuple(point) for point in mesh[list(path)].tolist()] for path in _CONTOURS]
        for path in paths if side >= _SMALL else ():
            draw.line(path, fill=_HALO, width=line + 2, joint="curve")
        for path in paths:
            draw.line(path, fill=colour, width=line, joint="curve")
    radius = side / 400
    for x, y in mesh.tolist() if side >= _SMALL or len(mesh) != _POINTS else ():
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=TEXT)
    if len(mesh) == _POINTS:
        length = 0.35 * float(np.linalg.norm(mesh[_FOREHEAD] - mesh[_CHIN]))
        _draw_axes(draw, mesh[_NOSE], motion, length, 2 * line)


def _draw_axes(
    draw: ImageDraw.ImageDraw,
    nose: NDArray[np.float32],
    motion: FaceMotion,
    length: float,
    width: int,
) -> None:
    pose = motion.pose
    yaw, pitch, roll = (math.radians(angle) for angle in (pose.yaw, pose.pitch, pose.roll))
    turn = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    # Where the head's axes end in the picture, y downwards, before the roll.
    ends = (
        (ORANGE, (math.cos(yaw), 0.0)),
        (GREEN, (-math.sin(yaw) * math.sin(pitch), -math.cos(pitch))),
        (SKY, (math.sin(yaw) * math.cos(pitch), -math.sin(pitch))),
    )
    for colour, end in ends:
        x, y = nose + length * (turn @ end)
        draw.line((*nose.tolist(), x, y), fill=_HALO, width=width + 2)
        draw.line((*nose.tolist(), x, y), fill=colour, width=width)
