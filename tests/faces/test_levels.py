"""The sizes at which an image is searched."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pcnn import InputError
from pcnn.faces.levels import check_min_face, level_sides, padded_size
from pcnn.weights.detector import DetectorSettings

SETTINGS = DetectorSettings()  # at most 640 pixels, smallest anchors of 10, trusted side 128


@pytest.mark.parametrize(
    ("min_face", "sides"),
    [
        (None, [640, 320, 160]),
        (8.0, [640, 320, 160]),  # never larger than without it
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


def test_padded_size() -> None:
    assert padded_size((33, 64, 3)) == (64, 64)


@pytest.mark.parametrize("min_face", [0.5, -1, math.inf, math.nan])
def test_min_face_out_of_range(min_face: float) -> None:
    with pytest.raises(InputError, match=r"somewhere: min_face must be pixels of at least 1, got"):
        check_min_face(min_face, "somewhere")
