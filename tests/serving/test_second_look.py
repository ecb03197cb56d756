"""The page's second search for faces finds what Python's does, in the same pictures."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from vectors import NODE, answers, image_of

from pcnn.faces.detector import Detector
from pcnn.faces.geometry import misfit
from pcnn.faces.light import stretched
from pcnn.faces.orientation import FAINT, look_again
from pcnn.results.angle import UPRIGHT
from pcnn.results.values import Detection

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")

# By how much a pixel of a square may differ, in levels: rounded twice, and its places in float32.
LEVELS = 2

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def detector() -> Detector:
    weights = Path(__file__).parent.parent.parent / "weights" / "detector-mobilenet.safetensors"
    return Detector.load(weights if weights.is_file() else "mobilenet", landmarks=None)


@pytest.fixture(scope="module")
def upright(astronaut: Path) -> Pixels:
    with Image.open(astronaut) as picture:
        return np.asarray(picture.convert("RGB").resize((320, 320)))


def turned(pixels: Pixels, degrees: int) -> Pixels:
    """The picture turned clockwise by degrees, as large as it must be."""
    picture = Image.fromarray(pixels)
    filled = picture.rotate(-degrees, Image.Resampling.BICUBIC, True, fillcolor=(90, 90, 90))
    return np.asarray(filled)


def dark(pixels: Pixels) -> Pixels:
    """The picture with levels from 2 to 14: nothing is found in it as it is."""
    return (2 + pixels / 255 * 12).astype(np.uint8)


def noisy(pixels: Pixels) -> Pixels:
    """The picture with so much noise that the face is found only by a search of its own."""
    noise = np.random.default_rng(0).normal(0, 60, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def two(pixels: Pixels) -> Pixels:
    """The portrait beside itself, which lies on its side."""
    return np.hstack([pixels, np.rot90(pixels)])


def given(faces: Sequence[Detection]) -> list[dict[str, Any]]:
    return [
        {"score": face.score, "box": face.box, "landmarks": face.landmarks.tolist()}
        for face in faces
    ]


def python_s(
    detector: Detector, picture: Pixels
) -> tuple[tuple[Detection, ...], list[tuple[Pixels, list[dict[str, Any]]]]]:
    """Faces of the picture, and each picture that was searched with what was found in it."""
    looks: list[tuple[Pixels, list[dict[str, Any]]]] = []

    def look(
        pictures: Sequence[Pixels], min_score: float | None = None
    ) -> Sequence[Sequence[Detection]]:
        found = detector.detect_upright(pictures, min_score=min_score)
        looks.extend((seen, given(faces)) for seen, faces in zip(pictures, found, strict=True))
        return found

    faint = partial(look, min_score=FAINT)
    (faces,) = look_again([picture], look([picture]), look, faint, np.asarray)
    return faces, looks


CASES = {
    "upright": lambda pixels: pixels,
    "tilted": lambda pixels: turned(pixels, 20),
    "slanting": lambda pixels: turned(pixels, 45),
    "on its side": lambda pixels: turned(pixels, 90),
    "upside down": lambda pixels: turned(pixels, 180),
    "on its other side": lambda pixels: turned(pixels, 270),
    "steep": lambda pixels: turned(pixels, -130),
    "dark": dark,
    "dark on its side": lambda pixels: turned(dark(pixels), 90),
    "faint": noisy,
    "two": two,
    "nobody": lambda pixels: pixels[200:, :90],
}


@pytest.mark.parametrize("case", CASES)
def test_turned_faces_are_found_as_by_python(
    case: str, detector: Detector, upright: Pixels
) -> None:
    picture = np.ascontiguousarray(CASES[case](upright))
    expected, looks = python_s(detector, picture)
    if case == "upright":
        assert len(looks) == 1  # nothing is searched again
    elif case != "nobody":
        assert len(looks) > 1
    it = {
        **{"task": "again", "image": image_of(picture), "found": looks[0][1], "turned": True},
        "answers": [faces for _, faces in looks[1:]],
    }
    found = answers(it=it)["it"]
    assert [(each["height"], each["width"]) for each in found["seen"]] == [
        seen.shape[:2] for seen, _ in looks[1:]
    ]
    for theirs, (seen, _) in zip(found["seen"], looks[1:], strict=True):
        pixels = np.frombuffer(base64.b64decode(theirs["data"]), np.uint8)
        difference = pixels.reshape(*seen.shape[:2], 4)[..., :3].astype(int) - seen
        assert abs(difference).max() <= LEVELS
    assert len(found["faces"]) == len(expected)
    assert len(expected) >= {"two": 2, "nobody": 0}.get(case, 1)
    for one, other in zip(found["faces"], expected, strict=True):
        assert one["score"] == other.score
        assert one["box"] == pytest.approx(other.box, abs=0.01)
        assert np.allclose(one["landmarks"], other.landmarks, atol=0.01)


def test_a_camera_s_picture_is_not_searched_again_as_a_whole(
    detector: Detector, upright: Pixels
) -> None:
    empty = {"task": "again", "found": [], "answers": [], "turned": False}
    (faces,) = detector.detect_upright([turned(upright, 40)])
    tilted = {
        **{"task": "again", "image": image_of(turned(upright, 40)), "found": given(faces)},
        **{"answers": [[]] * 12, "turned": False},
    }
    found = answers(empty={**empty, "image": image_of(upright)}, tilted=tilted)
    assert found["empty"] == {"faces": [], "seen": []}
    assert {(each["width"], each["height"]) for each in found["tilted"]["seen"]} == {(160, 160)}


@pytest.mark.parametrize("case", ["ordinary", "dark", "flat", "tinted", "white", "tiny"])
def test_light_is_corrected_as_by_python(case: str, upright: Pixels) -> None:
    picture = {
        "ordinary": upright,
        "dark": dark(upright),
        "flat": (upright // 3 + 90).astype(np.uint8),
        "tinted": (upright * [1.0, 0.7, 0.4]).astype(np.uint8),
        "white": np.minimum(upright.astype(int) * 2 + 60, 255).astype(np.uint8),
        "tiny": np.full((1, 1, 3), 7, np.uint8),
    }[case]
    expected = stretched(picture)
    found = answers(it={"task": "stretched", "image": image_of(picture)})["it"]
    assert (found is None) == (expected is picture) == (case == "ordinary")
    if found is not None:
        pixels = np.array(found).reshape(*picture.shape[:2], 4)
        assert np.array_equal(pixels[..., :3], expected)
        assert (pixels[..., 3] == 255).all()


def test_misfits() -> None:
    points = np.array(UPRIGHT) * 40 + 100
    wrong = points[[1, 0, 2, 3, 4]]
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    moved = np.add(points, [[9, 0], [0, 0], [0, -7], [0, 0], [4, 4]])
    faces = [points, points @ turn, moved, wrong]
    same = np.full((5, 2), 3.0)
    found = answers(it={"task": "misfit", "faces": [face.tolist() for face in [*faces, same]]})
    assert found["it"][:-1] == pytest.approx([misfit(face) for face in faces], abs=1e-9)
    assert found["it"][-1] is None  # infinity, which JSON does not have
    assert misfit(same) == math.inf
