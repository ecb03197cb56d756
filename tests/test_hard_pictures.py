"""Faces that lie turned, and pictures in poor light."""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pcnn import Recognizer
from pcnn.faces.detector import Detector
from pcnn.faces.geometry import misfit
from pcnn.faces.light import even_light, readable, stretched
from pcnn.faces.orientation import look_again
from pcnn.networks.pcnn import ModelConfig
from pcnn.results.angle import UPRIGHT, angle_of
from pcnn.results.values import Detection

# Quarter turns move no pixel between others: the same network sees the same face, on a grid that
# may begin elsewhere. A face at another angle is resampled, and the detector's own landmarks
# wander by 4 % of the eye distance.
QUARTER, ANY_ANGLE = 0.04, 0.12


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer("small", device="cpu")


@pytest.fixture(scope="module")
def portrait(astronaut: Path) -> Image.Image:
    return Image.open(astronaut).convert("RGB")


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> list[Image.Image]:
    """Eight of lfw, 250 × 250."""
    pictures = []
    with tarfile.open(shared_data / "lfw" / "lfw_faces.tar") as archive:
        for _ in range(8):
            file = archive.extractfile(archive.next())  # type: ignore[arg-type]
            pictures.append(Image.open(io.BytesIO(file.read())).convert("RGB"))  # type: ignore[union-attr]
    return pictures


def turned(points: NDArray[np.float32], angle: float, old: Image.Image, new: Image.Image) -> object:
    """Where points lie after Pillow's rotate(angle, expand=True), which turns counterclockwise."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    matrix = np.array([[cosine, sine], [-sine, cosine]])
    return (points - np.array(old.size) / 2) @ matrix.T + np.array(new.size) / 2


def apart(degrees: float, others: float) -> float:
    return abs((degrees - others + 180) % 360 - 180)


# Geometry by hand


@pytest.mark.parametrize("angle", [0, 30, 90, -90, 179, 180, -150])
def test_the_angle_is_clockwise_from_upright(angle: float) -> None:
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    points = [
        (7 + 3 * (cosine * x - sine * y), -4 + 3 * (sine * x + cosine * y)) for x, y in UPRIGHT
    ]
    assert angle_of(points) == pytest.approx(angle, abs=1e-9)


def test_a_face_whose_top_points_right_has_90_degrees() -> None:
    points = np.array([(0, -1), (0, 1), (-1, 0), (-2, -0.8), (-2, 0.8)], np.float32)
    assert Detection((0, 0, 1, 1), 1.0, points).angle == pytest.approx(90)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan)])
def test_landmarks_that_say_nothing_have_no_angle_and_do_not_fit(points: object) -> None:
    assert angle_of(points.tolist()) == 0  # type: ignore[attr-defined]
    assert misfit(points) == math.inf  # type: ignore[arg-type]


def test_misfit_by_hand() -> None:
    points = 40 * np.array(UPRIGHT)
    assert misfit(points) == pytest.approx(0, abs=1e-12)
    swapped = points[[1, 0, 2, 4, 3]]  # a mirrored face is none that a turn could make
    assert misfit(swapped) > 0.3
    assert misfit(100 * swapped @ [[0, 1], [-1, 0]] + 5) == pytest.approx(misfit(swapped))


def face(score: float, angle: float, middle: tuple[float, float] = (50, 50)) -> Detection:
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    centred = 20 * (np.array(UPRIGHT) - np.mean(UPRIGHT, axis=0))
    points = centred @ np.array([[cosine, sine], [-sine, cosine]]) + middle
    x, y = middle
    return Detection((x - 20, y - 20, x + 20, y + 20), score, points.astype(np.float32))


def test_sure_faces_are_looked_at_once() -> None:
    def refuse(_: Sequence[object]) -> list[tuple[Detection, ...]]:
        raise AssertionError

    one, other = face(0.99, 3), face(0.8, 0, (150, 50))
    ((first, second),) = look_again(
        [np.zeros((100, 200, 3), np.uint8)], [(one, other)], refuse, refuse, np.asarray
    )
    assert first is one and second is other
    assert look_again([], [], refuse, refuse, np.asarray) == []


def test_what_is_found_in_a_turned_picture_comes_back_into_its_own_pixels() -> None:
    """A picture of 200 × 100 with nothing at first; turned by one quarter it shows a face."""
    picture = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    seen: list[tuple[int, ...]] = []

    def look(pictures: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        seen.extend(each.shape for each in pictures)
        first = np.rot90(picture)  # 100 wide, 200 high
        return [
            (face(0.98, 0, (30, 150)),) if np.array_equal(each, first) else () for each in pictures
        ]

    ((found,),) = look_again([picture], [()], look, look, np.asarray)
    assert seen == [(200, 100, 3), (100, 200, 3), (200, 100, 3)]
    # Counterclockwise by a quarter (x, y) goes to (y, 200 - x); so (30, 150) comes from (50, 30).
    assert found.angle == pytest.approx(90, abs=1e-4) and found.score == 0.98
    assert found.box == pytest.approx((30, 10, 70, 50))


@pytest.mark.parametrize(
    ("near", "seen"),
    [
        (face(0.9, 0, (80, 80)), True),
        (face(0.74, 0, (80, 80)), False),  # as faint when it is searched separately
        (face(0.9, 0, (130, 80)), False),  # another one, beside it
    ],
    ids=["found", "still faint", "beside"],
)
def test_faint_faces_are_searched_separately(near: Detection, seen: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)

    def look(pictures: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        return [(near,) if each.shape == (160, 160, 3) else () for each in pictures]

    def faint(pictures: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        assert [each.shape for each in pictures] == [picture.shape]
        return [(face(0.4, 0, (120, 60)),)]

    (found,) = look_again([picture], [()], look, faint, np.asarray)
    assert len(found) == seen
    for one in found:
        # The square of 160 pixels shows the face of 40 with 64, in its middle.
        assert one.score == 0.9
        assert one.box == pytest.approx((107.5, 47.5, 132.5, 72.5))


# Light


def test_ordinary_pictures_are_not_stretched() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    assert stretched(picture) is picture


def test_a_dark_tinted_picture_is_stretched_channel_by_channel() -> None:
    levels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    picture = np.stack((levels // 4, levels, levels // 2), 2)
    lit = stretched(picture)
    assert lit.shape == picture.shape and lit.dtype == np.uint8
    assert lit.min() == 0 and (lit.max((0, 1)) == 255).all()
    assert np.ptp(lit.astype(int), axis=2).max() <= 12  # grey but for the steps of // 4


def test_a_flat_picture_of_one_colour_stays_finite() -> None:
    assert stretched(np.full((5, 7, 3), 9, np.uint8)).shape == (5, 7, 3)


def test_over_exposed_faces_are_read_from_the_darkest_channel() -> None:
    picture = np.full((40, 40, 3), 255, np.uint8)
    picture[..., 2] = np.arange(40, dtype=np.uint8) * 3 + 100
    whole = np.array([[[[1, 0, 0], [0, 1, 0]]]], np.float32)
    lit = readable(picture, whole, 40)
    assert (lit == lit[..., :1]).all() and lit.min() == 0 and lit.max() == 255
    dark = picture // 2
    grey = np.full((40, 40, 3), 240, np.uint8)
    assert readable(dark, whole, 40) is dark and readable(grey, whole, 40) is grey
    assert readable(picture, whole[:0], 40) is picture


def test_only_views_in_unusual_light_are_changed() -> None:
    config = ModelConfig(size=32, mean=(0.5,), std=(0.25,))
    generator = torch.Generator().manual_seed(0)
    ordinary = torch.randn(1, 1, 32, 32, generator=generator)
    views = [torch.cat((ordinary, ordinary / 10 - 1.8)), torch.ones(2, 1, 16, 16)]
    even = even_light(views, config)
    assert torch.equal(even[0][0], views[0][0]) and torch.equal(even[1][0], views[1][0])
    few = even[0][1, :, ::4, ::4]
    assert float(few.mean()) == pytest.approx((0.51 - 0.5) / 0.25, abs=1e-4)
    assert float(few.std(correction=0)) == pytest.approx(0.21 / 0.25, abs=1e-4)
    # The other views along the same line: 1 lies 28 deviations above this dark face's mean.
    assert float(even[1][1].mean()) > 20


@pytest.mark.parametrize(
    ("levels", "changed"),
    [((1.0,), False), ((0.95,), True), ((1.0, 1.0, 1.0), False), ((1.0, 0.9, 0.9), True)],
)
def test_white_faces_stay_white(levels: tuple[float, ...], changed: bool) -> None:
    count = len(levels)
    config = ModelConfig(size=32, mean=(0.5,) * count, std=(0.25,) * count)
    face = torch.tensor(levels)[None, :, None, None].repeat(1, 1, 32, 32)
    face[..., 8:12, 4:28] = 0.2  # eyes
    view = (face - 0.5) / 0.25
    (even,) = even_light([view], config)
    assert torch.equal(even, view) != changed


# Pictures


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_the_portrait_turned_by_quarters(
    recognizer: Recognizer, portrait: Image.Image, angle: int
) -> None:
    (upright,) = recognizer.predict(portrait).faces
    picture = portrait.rotate(angle, expand=True)
    (found,) = recognizer.predict(picture).faces
    assert found.label == upright.label == "happiness"
    assert apart(found.angle, upright.angle - angle) < 2
    assert found.to_dict()["angle"] == round(found.angle, 2)
    eyes = np.linalg.norm(upright.landmarks[1] - upright.landmarks[0])
    error = np.linalg.norm(
        found.landmarks - turned(upright.landmarks, angle, portrait, picture), axis=1
    )
    assert error.mean() < QUARTER * eyes
    (again,) = recognizer.predict(picture.rotate(found.angle, expand=True)).faces
    assert abs(again.angle) < 10


@pytest.mark.parametrize("angle", [30, 45, 135])
def test_photographs_turned_anyhow(photographs: list[Image.Image], angle: int) -> None:
    detector = Detector.load("mobilenet")
    upright = detector.detect([np.asarray(picture) for picture in photographs])
    pictures = [picture.rotate(angle, expand=True) for picture in photographs]
    found = detector.detect([np.asarray(picture) for picture in pictures])
    errors = []
    for faces, known, old, new in zip(found, upright, photographs, pictures, strict=True):
        places = turned(known[0].landmarks, angle, old, new)
        eyes = np.linalg.norm(known[0].landmarks[1] - known[0].landmarks[0])
        errors.append(
            min(np.linalg.norm(f.landmarks - places, axis=1).mean() for f in faces) / eyes
        )
    assert float(np.median(errors)) < 0.08 and sum(error < ANY_ANGLE for error in errors) >= 7


def test_turned_pictures_of_a_batch_do_not_change_the_others(
    recognizer: Recognizer, portrait: Image.Image
) -> None:
    alone = recognizer.predict(portrait).faces[0]
    first, _, third = recognizer.predict([portrait, portrait.rotate(90, expand=True), portrait])
    assert first.faces[0].scores == third.faces[0].scores
    assert first.faces[0].scores == pytest.approx(alone.scores, abs=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        lambda level: level // 8,
        lambda level: 128 + (level - 128) // 8,
        lambda level: min(255, 2 * level),
    ],
    ids=["dark", "flat", "over-exposed"],
)
def test_the_portrait_in_poor_light(
    recognizer: Recognizer, portrait: Image.Image, change: Callable[[int], int]
) -> None:
    picture = portrait.point([change(level) for level in range(256)] * 3)
    (found,) = recognizer.predict(picture).faces
    assert found.label == "happiness"
