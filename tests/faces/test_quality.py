"""Quality of faces: its parts one by one, on faces made for them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pcnn.faces.quality import face_qualities
from pcnn.results.angle import UPRIGHT
from pcnn.results.movements import Pose
from pcnn.results.values import Detection

STRAIGHT = Pose(0.0, 0.0, 0.0)


def textured(side: int = 200) -> NDArray[np.uint8]:
    """A picture with detail of all sizes, from one pixel of the view to the whole face."""
    draw = np.random.default_rng(0)
    layers = [
        np.asarray(
            Image.fromarray(draw.integers(0, 256, (cells, cells), np.uint8)).resize(
                (side, side), Image.Resampling.BICUBIC
            ),
            np.float32,
        )
        for cells in (8, 16, 32, 64, 64)
    ]
    grey = np.mean(layers, axis=0).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def face(
    score: float = 1.0, *, eyes: float = 60.0, aside: float = 0.0, degrees: float = 0.0
) -> Detection:
    """A face in the middle of a picture of 200 pixels. aside: of the nose, in eye distances."""
    points = np.array(UPRIGHT)
    points[2, 0] += aside
    turn = np.exp(1j * np.deg2rad(degrees))
    placed = ((points - (0, 0.5)) @ (1, 1j)) * turn * eyes + 100 * (1 + 1j)
    landmarks = np.stack((placed.real, placed.imag), 1).astype(np.float32)
    return Detection((40, 30, 160, 170), score, landmarks)


def one(picture: NDArray[np.uint8], found: Detection, pose: Pose | None = STRAIGHT) -> float:
    (quality,) = face_qualities([picture], [[found]], [pose])
    return quality


def test_a_sure_sharp_face_that_looks_at_the_camera_has_full_quality() -> None:
    assert one(textured(), face()) == 1
    assert one(textured(), face(), None) == pytest.approx(1)


@pytest.mark.parametrize(("score", "expected"), [(0.7, 0), (0.5, 0), (0.85, 0.5), (1.0, 1)])
def test_the_detectors_certainty_counts(score: float, expected: float) -> None:
    assert one(textured(), face(score)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pose", "expected"),
    [
        (Pose(60, 0, 0), 0.5),
        (Pose(-60, 0, 0), 0.5),
        (Pose(0, 60, 0), 0.5),
        (Pose(45, 45, 0), 0.5),
        (Pose(0, 0, 120), 1.0),
        (Pose(100, 0, 0), 0.0),
    ],
)
def test_a_pose_that_is_known_counts(pose: Pose, expected: float) -> None:
    assert one(textured(), face(), pose) == pytest.approx(expected)


@pytest.mark.parametrize("degrees", [0.0, 90.0, -130.0])
@pytest.mark.parametrize("side", [1, -1])
def test_without_a_pose_the_nose_tells_the_turn(side: int, degrees: float) -> None:
    # At 45° the nose lies as far aside as before eyes and mouth, which are 1 and 0.8 wide.
    turned = face(aside=side * 0.72 * (1 + 0.8) / 2, degrees=degrees)
    assert one(textured(), turned, None) == pytest.approx(math.cos(math.pi / 4), abs=1e-3)
    assert one(textured(), turned) == 1  # where a pose is known, it counts alone


def test_the_more_blur_the_lower() -> None:
    picture = Image.fromarray(textured())
    qualities = [
        one(np.array(picture.filter(ImageFilter.GaussianBlur(pixels))), face())
        for pixels in (0, 4, 6, 9, 15)
    ]
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[0] == 1 and qualities[-1] == 0 and 0 < qualities[2] < 1


def test_a_face_of_few_pixels_is_lower_and_one_of_many_is_not() -> None:
    picture = Image.fromarray(textured())
    qualities = []
    for side in (800, 200, 30, 12):
        small = np.array(picture.resize((side, side), Image.Resampling.LANCZOS))
        placed = face()
        landmarks = placed.landmarks * side / 200
        qualities.append(one(small, Detection(placed.box, 1.0, landmarks)))
    assert qualities[0] == qualities[1] == 1
    assert 1 >= qualities[2] > qualities[3]


def test_light_does_not_count() -> None:
    picture = textured()
    dark = (picture // 8).astype(np.uint8)
    assert one(dark, face()) == pytest.approx(one(picture, face()), abs=0.1)


def test_a_face_of_one_colour_has_none() -> None:
    assert one(np.full((200, 200, 3), 90, np.uint8), face()) == 0


@pytest.mark.parametrize("landmarks", [np.full((5, 2), 50.0), np.full((5, 2), np.nan)])
def test_landmarks_without_a_face(landmarks: NDArray[np.float64]) -> None:
    found = Detection((0, 0, 1, 1), 1.0, landmarks.astype(np.float32))
    assert one(textured(), found, None) == 0


def test_faces_of_several_pictures_in_order() -> None:
    sharp, flat = textured(), np.full((50, 60, 3), 90, np.uint8)
    found = [[face(0.85), face(1.0)], [], [face()]]
    assert face_qualities([sharp, sharp, flat], found) == pytest.approx([0.5, 1, 0])
    assert face_qualities([sharp], [[]]) == []
    assert face_qualities([], []) == []
