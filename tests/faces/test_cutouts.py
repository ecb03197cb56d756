"""Faces found near known places, against those of a search of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pcnn import Detection
from pcnn.faces.cutouts import is_worth_cutting, search_near
from pcnn.faces.detector import Detector

WIDTH, HEIGHT = 1280, 720


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("mobilenet")


@pytest.fixture(scope="module")
def portrait(astronaut: Path) -> Image.Image:
    with Image.open(astronaut) as picture:
        return picture.crop((100, 0, 350, 250))


def scene(portrait: Image.Image, *places: tuple[int, int], side: int = 250) -> NDArray[np.uint8]:
    """A grey frame with the portrait, side × side, at upper left corners."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT), (96, 104, 112))
    for place in places:
        canvas.paste(portrait.resize((side, side)), place)
    return np.asarray(canvas)


def shifted(face: Detection, by: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = face.box
    return left + by, top + by, right + by, bottom + by


def eyes(face: Detection) -> float:
    return float(np.linalg.norm(face.landmarks[0] - face.landmarks[1]))


@pytest.mark.parametrize("side", [125, 250, 500])
@pytest.mark.parametrize("place", [(500, 100), (0, 0), (WIDTH - 240, HEIGHT - 240)])
def test_a_face_near_a_box_is_that_of_the_whole(
    detector: Detector, portrait: Image.Image, side: int, place: tuple[int, int]
) -> None:
    if side == 500 and place[0] > WIDTH - 300:
        place = WIDTH - 480, HEIGHT - 480
    image = scene(portrait, place, side=side)
    ((whole,),) = detector.detect([image])
    (found,) = search_near(detector, image, [shifted(whole, 0.2 * eyes(whole))])
    assert found.score > 0.9
    np.testing.assert_allclose(found.landmarks, whole.landmarks, atol=0.15 * eyes(whole))
    np.testing.assert_allclose(found.box, whole.box, atol=0.3 * eyes(whole))


def test_nothing_is_found_elsewhere_or_for_no_box(
    detector: Detector, portrait: Image.Image
) -> None:
    image = scene(portrait, (500, 100))
    assert search_near(detector, image, []) == []
    assert search_near(detector, image, [(100.0, 400.0, 220.0, 540.0)]) == []


def test_a_box_with_its_middle_outside_is_left_out(
    detector: Detector, portrait: Image.Image
) -> None:
    image = scene(portrait, (0, 0))
    ((whole,),) = detector.detect([image])
    right = whole.box[2]
    assert search_near(detector, image, [(-right - 1, 0.0, right, 100.0)]) == []
    assert len(search_near(detector, image, [(-right + 40, 0.0, right, 100.0)])) == 1


def test_boxes_on_one_face_give_it_once_and_two_faces_both(
    detector: Detector, portrait: Image.Image
) -> None:
    image = scene(portrait, (300, 200), (700, 200))
    (faces,) = detector.detect([image])
    assert len(faces) == 2
    one = faces[0]
    found = search_near(detector, image, [one.box, shifted(one, 9), shifted(one, -9)])
    assert len(found) == 1
    found = search_near(detector, image, [face.box for face in faces])
    assert len(found) == 2
    assert found[0].score >= found[1].score


def test_a_face_at_the_edge_of_its_surroundings_is_not_reported(
    detector: Detector, portrait: Image.Image
) -> None:
    """It may be cut off there; at the edge of the image it is as well seen as it can be."""
    image = scene(portrait, (500, 100))
    ((whole,),) = detector.detect([image])
    side = whole.box[2] - whole.box[0]
    away = whole.box[0] + 0.9 * side, whole.box[1], whole.box[2] + 0.9 * side, whole.box[3]
    assert search_near(detector, image, [away], min_score=0.3) == []
    cut = np.ascontiguousarray(image[:, round(whole.box[0] + 0.15 * side) :])
    ((edge,),) = detector.detect([cut], min_score=0.3)
    assert edge.box[0] < 0.15 * side
    assert len(search_near(detector, cut, [edge.box], min_score=0.3)) == 1


def test_where_cutting_is_worth_it(detector: Detector) -> None:
    """160² pixels each against half of 960 × 544, the whole frame at the detector's size."""
    assert detector.settings.max_side == 960
    assert is_worth_cutting(detector, (720, 1280, 3), 10)
    assert not is_worth_cutting(detector, (720, 1280, 3), 11)
    assert not is_worth_cutting(detector, (720, 1280, 3), 10, min_face=40)
    assert is_worth_cutting(detector, (720, 1280, 3), 2, min_face=40)
    assert not is_worth_cutting(detector, (120, 160, 3), 1)
