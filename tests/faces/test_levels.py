"""The sizes at which an image is searched."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pcnn import Detection, InputError
from pcnn.faces.levels import check_min_face, finer_side, level_sides, padded_size, reduced
from pcnn.weights.detector import DetectorSettings

SETTINGS = DetectorSettings()  # at most 640 pixels, smallest anchors of 10, trusted side 128


@pytest.mark.parametrize(
    ("min_face", "sides"),
    [
        (None, [640, 320, 160]),
        (20.0, [1024, 512, 256, 128]),  # finer than without it
        (8.0, [1280, 640, 320, 160]),  # never finer than the image
        (40.0, [512, 256, 128]),  # 1280 × 16 / 40
        (41.0, [500, 250, 125]),  # 499.5, rounded up
        (1000.0, [160]),  # never smaller
    ],
)
def test_min_face_chooses_the_first_side(min_face: float | None, sides: list[int]) -> None:
    assert level_sides((720, 1280, 3), SETTINGS, min_face) == sides


def test_min_face_counts_in_the_smallest_anchors() -> None:
    larger = replace(SETTINGS, min_sizes=((20, 40), (64, 128), (256, 512)), max_side=2000)
    assert level_sides((720, 1280, 3), larger, 40.0)[0] == 1024


def test_a_small_picture_is_not_enlarged_for_min_face() -> None:
    assert level_sides((100, 90, 3), replace(SETTINGS, least_side=0), 50.0) == [100]
    assert level_sides((100, 90, 3), SETTINGS, 50.0) == [160]


def test_without_a_trusted_side_no_level_is_larger_than_the_largest() -> None:
    one = replace(SETTINGS, trusted_side=None)
    assert level_sides((720, 1280, 3), one, 8.0) == level_sides((50, 5000, 3), one) == [640]


def test_long_images_keep_half_of_the_side_across() -> None:
    assert level_sides((1000, 2000), SETTINGS)[0] == 640
    assert level_sides((1000, 4000), SETTINGS)[0] == level_sides((4000, 1000), SETTINGS)[0] == 1280
    assert level_sides((200, 4000), SETTINGS)[0] == 4000


def _face(side: float, score: float = 0.9) -> Detection:
    return Detection((10, 10, 10 + side, 10 + 1.2 * side), score, np.zeros((5, 2), np.float32))


def test_faint_faces_ask_for_nothing() -> None:
    found = [_face(100), _face(9, 0.3)]
    assert finer_side((1000, 2560, 3), 640, found, SETTINGS) is None
    found[1] = _face(9, SETTINGS.confidence)
    assert finer_side((1000, 2560, 3), 640, found, SETTINGS) == 1280


@pytest.mark.parametrize(
    ("longest", "side", "faces", "finer"),
    [
        (2560, 640, [100, 63], 1280),  # 16 pixels of 640 are 64 of 2560
        (2560, 640, [100, 65], None),
        (1000, 640, [24], 1000),  # as fine as the image
        (640, 640, [9], None),
        (2560, 1280, [31], 2560),
        (2560, 640, [], 1280),
        (2560, 1280, [], None),  # looked closer once
        (1280, 640, [], None),  # shows little more
    ],
)
def test_small_faces_or_none_ask_for_a_finer_level(
    longest: int, side: int, faces: list[float], finer: int | None
) -> None:
    found = [_face(one) for one in faces]
    assert finer_side((longest // 2, longest, 3), side, found, SETTINGS) == finer
    single = replace(SETTINGS, trusted_side=None)
    assert finer_side((longest // 2, longest, 3), side, found, single) is None


def test_a_large_image_is_reduced_to_its_first_level() -> None:
    image = np.full((640, 1280, 3), 7, np.uint8)
    small = reduced(image, SETTINGS)
    assert small.shape == (320, 640, 3) and small.dtype == np.uint8 and (small == 7).all()
    assert reduced(small, SETTINGS) is small


def test_padded_size() -> None:
    assert padded_size((33, 64, 3)) == (64, 64)


@pytest.mark.parametrize("min_face", [0.5, -1, math.inf, math.nan])
def test_min_face_out_of_range(min_face: float) -> None:
    with pytest.raises(InputError, match=r"somewhere: min_face must be pixels of at least 1, got"):
        check_min_face(min_face, "somewhere")
